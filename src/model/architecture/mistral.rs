//! Mistral and Zephyr: Llama with a sliding window in every layer.

use super::{Architecture, parts};
use crate::model::config::{Activation, DecoderConfig, Defaults, View};
use crate::model::keys::Keys;
use crate::model::rope::{LLAMA, Rope};
use anyhow::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["MistralForCausalLM"],
    model_type: "mistral",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block: parts::block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `MistralConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { n_kv_heads: Some(8), ..Defaults::LLAMA })?;
    let window = parts::window(keys, Some(4096))?;
    Ok(DecoderConfig {
        activation: Activation::parse(keys.text_or("hidden_act", "silu")?)?,
        views: vec![View { window, rope: Some(0) }; decoder.n_layers],
        ropes: vec![Rope::parse(keys, decoder.d_head, &LLAMA)?],
        ..decoder
    })
}
