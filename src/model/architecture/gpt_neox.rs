//! GPT-NeoX (Pythia): layer norms with bias, attention and MLP in parallel, rotary on a part of every head.

use super::{Architecture, Ends, embed_rows};
use crate::model::attention::Attention;
use crate::model::block::Block;
use crate::model::config::{Activation, DecoderConfig, NormKind, Rope, flag_or, number_or, size, text_or};
use crate::model::layers::{Linear, Loader};
use crate::model::mlp::Mlp;
use anyhow::{Result, ensure};
use serde_json::Value;
use tch::Tensor;

pub const ARCHITECTURE: Architecture = Architecture { names: &["GPTNeoXForCausalLM"], model_type: "gpt_neox", config, embed, block, ends };

const EMBED: &str = "gpt_neox.embed_in.weight";

/// Defaults are those of transformers' `GPTNeoXConfig`.
fn config(json: &Value) -> Result<DecoderConfig> {
    let (d_model, n_heads) = (size(json, "hidden_size")?, size(json, "num_attention_heads")?);
    ensure!(d_model % n_heads == 0, "hidden_size ({d_model}) must be a multiple of num_attention_heads ({n_heads})");
    let d_head = d_model / n_heads;
    let fraction = match json.get("rope_parameters") {
        Some(parameters @ Value::Object(_)) => number_or(parameters, "partial_rotary_factor", 0.25)?,
        _ => number_or(json, "rotary_pct", 0.25)?,
    };
    ensure!(fraction > 0.0 && fraction <= 1.0, "rotary_pct: found {fraction}, expected a number in (0, 1]");
    Ok(DecoderConfig {
        d_model,
        n_layers: size(json, "num_hidden_layers")? as usize,
        n_heads,
        n_kv_heads: n_heads,
        d_head,
        d_mlp: size(json, "intermediate_size")?,
        d_vocab: size(json, "vocab_size")?,
        norm: NormKind::Layer,
        norm_eps: number_or(json, "layer_norm_eps", 1e-5)?,
        activation: Activation::parse(text_or(json, "hidden_act", "gelu")?)?,
        parallel: flag_or(json, "use_parallel_residual", true)?,
        attention_bias: flag_or(json, "attention_bias", true)?,
        mlp_bias: true,
        tied: flag_or(json, "tie_word_embeddings", false)?,
        rope: Rope::parse(json, "rotary_emb_base", (d_head as f64 * fraction) as i64)?,
    })
}

fn embed(loader: &Loader, tokens: &[i64]) -> Result<Tensor> {
    embed_rows(loader, EMBED, tokens)
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let c = loader.config;
    let at = |name: &str| format!("gpt_neox.layers.{index}.{name}");
    let qkv = loader.linear(&at("attention.query_key_value"), 3 * c.d_model, c.d_model, c.attention_bias)?;
    Ok(Block {
        ln1: Some(loader.norm(&at("input_layernorm"), c.d_model)?),
        attention: Attention::new(
            c,
            unpack(qkv, c.n_heads, c.d_head)?,
            loader.linear(&at("attention.dense"), c.d_model, c.d_model, c.attention_bias)?,
        ),
        ln1_post: None,
        ln2: Some(loader.norm(&at("post_attention_layernorm"), c.d_model)?),
        mlp: Mlp {
            up: loader.linear(&at("mlp.dense_h_to_4h"), c.d_mlp, c.d_model, true)?,
            down: loader.linear(&at("mlp.dense_4h_to_h"), c.d_model, c.d_mlp, true)?,
            gated: false,
            activation: c.activation,
        },
        ln2_post: None,
        parallel: c.parallel,
    })
}

/// Reorders rows from (head, qkv, d_head), as GPT-NeoX packs them, to (qkv, head, d_head).
fn unpack(packed: Linear, n_heads: i64, d_head: i64) -> Result<Linear> {
    let d_in = packed.weight.size()[1];
    let weight = packed.weight.f_view([n_heads, 3, d_head, d_in])?.f_transpose(0, 1)?.f_reshape([-1, d_in])?;
    let bias = packed.bias.map(|bias| bias.f_view([n_heads, 3, d_head])?.f_transpose(0, 1)?.f_reshape([-1])).transpose()?;
    Ok(Linear { weight, bias })
}

fn ends(loader: &Loader) -> Result<Ends> {
    let unembed = if loader.config.tied { EMBED } else { "embed_out.weight" };
    Ok(Ends { ln_final: loader.norm("gpt_neox.final_layer_norm", loader.config.d_model)?, unembed: unembed.to_owned() })
}
