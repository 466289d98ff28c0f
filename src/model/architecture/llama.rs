//! Llama and everything that was saved as Llama (SmolLM2, Tülu 3, Amber, Marin ...): RMS norms before attention and a gated MLP.

use super::{Architecture, Ends, embed_rows};
use crate::model::attention::Attention;
use crate::model::block::Block;
use crate::model::config::{Activation, DecoderConfig, NormKind, Rope, flag_or, number_or, size, size_or, text_or};
use crate::model::layers::Loader;
use crate::model::mlp::Mlp;
use anyhow::Result;
use serde_json::Value;
use tch::Tensor;

pub const ARCHITECTURE: Architecture = Architecture { names: &["LlamaForCausalLM"], model_type: "llama", config, embed, block, ends };

const EMBED: &str = "model.embed_tokens.weight";

/// Defaults are those of transformers' `LlamaConfig`.
fn config(json: &Value) -> Result<DecoderConfig> {
    let (d_model, n_heads) = (size(json, "hidden_size")?, size(json, "num_attention_heads")?);
    let d_head = size_or(json, "head_dim", d_model / n_heads)?;
    Ok(DecoderConfig {
        d_model,
        n_layers: size(json, "num_hidden_layers")? as usize,
        n_heads,
        n_kv_heads: size_or(json, "num_key_value_heads", n_heads)?,
        d_head,
        d_mlp: size(json, "intermediate_size")?,
        d_vocab: size(json, "vocab_size")?,
        norm: NormKind::Rms,
        norm_eps: number_or(json, "rms_norm_eps", 1e-6)?,
        activation: Activation::parse(text_or(json, "hidden_act", "silu")?)?,
        parallel: false,
        attention_bias: flag_or(json, "attention_bias", false)?,
        mlp_bias: flag_or(json, "mlp_bias", false)?,
        tied: flag_or(json, "tie_word_embeddings", false)?,
        rope: Rope::parse(json, "rope_theta", d_head)?,
    })
}

fn embed(loader: &Loader, tokens: &[i64]) -> Result<Tensor> {
    embed_rows(loader, EMBED, tokens)
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let c = loader.config;
    let at = |name: &str| format!("model.layers.{index}.{name}");
    let (d_q, d_kv) = (c.n_heads * c.d_head, c.n_kv_heads * c.d_head);
    let qkv = [(at("self_attn.q_proj"), d_q), (at("self_attn.k_proj"), d_kv), (at("self_attn.v_proj"), d_kv)];
    let gate_up = [(at("mlp.gate_proj"), c.d_mlp), (at("mlp.up_proj"), c.d_mlp)];
    Ok(Block {
        ln1: Some(loader.norm(&at("input_layernorm"), c.d_model)?),
        attention: Attention::new(
            c,
            loader.fused(&qkv, c.d_model, c.attention_bias)?,
            loader.linear(&at("self_attn.o_proj"), c.d_model, d_q, c.attention_bias)?,
        ),
        ln1_post: None,
        ln2: Some(loader.norm(&at("post_attention_layernorm"), c.d_model)?),
        mlp: Mlp {
            up: loader.fused(&gate_up, c.d_model, c.mlp_bias)?,
            down: loader.linear(&at("mlp.down_proj"), c.d_model, c.d_mlp, c.mlp_bias)?,
            gated: true,
            activation: c.activation,
        },
        ln2_post: None,
        parallel: false,
    })
}

fn ends(loader: &Loader) -> Result<Ends> {
    let unembed = if loader.config.tied { EMBED } else { "lm_head.weight" };
    Ok(Ends { ln_final: loader.norm("model.norm", loader.config.d_model)?, unembed: unembed.to_owned() })
}
