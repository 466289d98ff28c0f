//! Phi 3 and 4 (mini): Llama with fused projections, a sliding window in every layer, and rotary positions on a part of every head.

use super::{Architecture, parts};
use crate::model::attention::Attention;
use crate::model::block::Block;
use crate::model::config::{Activation, DecoderConfig, Defaults, View};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::mixture::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::rope::{Dialect, LLAMA, Rope};
use anyhow::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["Phi3ForCausalLM"],
    model_type: "phi3",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `Phi3Config`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { norm_eps: 1e-5, ..Defaults::LLAMA })?;
    let window = parts::window(keys, None)?;
    // The context of pre-training, which is read with LongRoPE only, and keys of Phi-4-mini that the reference does not know.
    keys.unused(&["original_max_position_embeddings", "full_attn_mod", "interpolate_factor"]);
    Ok(DecoderConfig {
        activation: Activation::parse(keys.text_or("hidden_act", "silu")?)?,
        views: vec![View { window, rope: Some(0) }; decoder.n_layers],
        ropes: vec![Rope::parse(keys, decoder.d_head, &Dialect { partial: true, ..LLAMA })?],
        ..decoder
    })
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let c = loader.config;
    let at = |name: &str| parts::at(index, name);
    let d_qkv = (c.n_heads + 2 * c.n_kv_heads) * c.d_head;
    let qkv = loader.linear(&at("self_attn.qkv_proj"), d_qkv, c.d_model, false)?;
    let out = loader.linear(&at("self_attn.o_proj"), c.d_model, c.n_heads * c.d_head, false)?;
    let mlp = Mlp {
        up: loader.linear(&at("mlp.gate_up_proj"), 2 * c.d_mlp, c.d_model, false)?,
        down: loader.linear(&at("mlp.down_proj"), c.d_model, c.d_mlp, false)?,
        gated: true,
        activation: c.activation,
    };
    parts::before(loader, Attention::new(c, index, qkv, out), FeedForward::Dense(mlp), index)
}
