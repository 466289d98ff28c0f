//! GPT-NeoX (Pythia): layer norms with bias, attention and MLP in parallel, rotary on a part of every head.

use super::{Architecture, Ends, embed_rows};
use crate::checkpoint::names::Layout;
use crate::model::attention::Attention;
use crate::model::block::Block;
use crate::model::config::{Activation, DecoderConfig, NormKind, Sizes};
use crate::model::keys::Keys;
use crate::model::layers::{Linear, Loader};
use crate::model::mixture::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::rope::{Dialect, Rope};
use anyhow::{Result, ensure};
use tch::Tensor;

pub const ARCHITECTURE: Architecture =
    Architecture { names: &["GPTNeoXForCausalLM"], model_type: "gpt_neox", layout: LAYOUT, config, embed, block, ends };

const EMBED: &str = "gpt_neox.embed_in.weight";

const LAYOUT: Layout =
    Layout { backbone: "gpt_neox", embed: "embed_in", blocks: "layers", others: &["final_layer_norm"], head: "embed_out", renamed: &[] };

const DIALECT: Dialect = Dialect { base_key: "rotary_emb_base", base: 10_000.0, fraction_key: "rotary_pct", fraction: 0.25, partial: true };

/// Defaults are those of transformers' `GPTNeoXConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let (d_model, n_heads, n_layers) = (keys.size("hidden_size")?, keys.size("num_attention_heads")?, keys.size("num_hidden_layers")?);
    ensure!(d_model % n_heads == 0, "hidden_size ({d_model}) must be a multiple of num_attention_heads ({n_heads})");
    ensure!(n_layers <= 10_000, "num_hidden_layers: found {n_layers}, expected at most 10000");
    let (d_head, n_layers) = (d_model / n_heads, n_layers as usize);
    let (d_mlp, d_vocab) = (keys.size("intermediate_size")?, keys.size("vocab_size")?);
    let bias = keys.flag_or("attention_bias", true)?;
    // Some versions of transformers wrote the same numbers under the names of other families, too.
    for (other, own, default) in
        [("rope_theta", DIALECT.base_key, DIALECT.base), ("partial_rotary_factor", DIALECT.fraction_key, DIALECT.fraction)]
    {
        let value = keys.number_or(own, default)?;
        let said = keys.number_or(other, value)?;
        ensure!(said == value, "{other}: found {said} beside a {own} of {value}; remove the one that is wrong");
    }
    Ok(DecoderConfig {
        norm: NormKind::Layer,
        norm_eps: keys.number_or("layer_norm_eps", 1e-5)?,
        activation: Activation::parse(keys.text_or("hidden_act", "gelu")?)?,
        parallel: keys.flag_or("use_parallel_residual", true)?,
        qkv_bias: bias,
        out_bias: bias,
        mlp_bias: true,
        tied: keys.flag_or("tie_word_embeddings", false)?,
        ropes: vec![Rope::parse(keys, d_head, &DIALECT)?],
        ..DecoderConfig::plain(Sizes { d_model, n_layers, n_heads, n_kv_heads: n_heads, d_head, d_mlp, d_vocab })
    })
}

fn embed(loader: &Loader, tokens: &[i64], _positions: &[i64]) -> Result<Tensor> {
    embed_rows(loader, EMBED, tokens)
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let c = loader.config;
    let at = |name: &str| format!("gpt_neox.layers.{index}.{name}");
    let qkv = loader.linear(&at("attention.query_key_value"), 3 * c.d_model, c.d_model, c.qkv_bias)?;
    Ok(Block {
        ln1: Some(loader.norm(&at("input_layernorm"), c.d_model)?),
        attention: Attention::new(
            c,
            index,
            unpack(qkv, c.n_heads, c.d_head)?,
            loader.linear(&at("attention.dense"), c.d_model, c.d_model, c.out_bias)?,
        ),
        ln1_post: None,
        ln2: Some(loader.norm(&at("post_attention_layernorm"), c.d_model)?),
        mlp: FeedForward::Dense(Mlp {
            up: loader.linear(&at("mlp.dense_h_to_4h"), c.d_mlp, c.d_model, true)?,
            down: loader.linear(&at("mlp.dense_4h_to_h"), c.d_model, c.d_mlp, true)?,
            gated: false,
            activation: c.activation,
        }),
        ln2_post: None,
        parallel: c.parallel,
        residual_scale: c.residual_scale,
    })
}

/// Reorders rows from (head, qkv, d_head), as GPT-NeoX packs them, to (qkv, head, d_head).
fn unpack(packed: Linear, n_heads: i64, d_head: i64) -> Result<Linear> {
    let d_in = packed.weight.size()[1];
    let weight = packed.weight.f_view([n_heads, 3, d_head, d_in])?.f_transpose(0, 1)?.f_reshape([-1, d_in])?;
    let bias = packed.bias.map(|bias| bias.f_view([n_heads, 3, d_head])?.f_transpose(0, 1)?.f_reshape([-1])).transpose()?;
    Ok(Linear::new(weight, bias))
}

fn ends(loader: &Loader) -> Result<Ends> {
    Ok(Ends { ln_final: loader.norm("gpt_neox.final_layer_norm", loader.config.d_model)? })
}
