//! OLMo 1: Llama with norms that have no weights, and bounded queries, keys and values.

use super::{Architecture, parts};
use crate::model::config::{DecoderConfig, Defaults, NormKind};
use crate::model::keys::Keys;
use crate::model::rope::{LLAMA, Rope};
use anyhow::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["OlmoForCausalLM"],
    model_type: "olmo",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block: parts::block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `OlmoConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults::LLAMA)?.with_activation_and_bias(keys)?;
    Ok(DecoderConfig {
        norm: NormKind::LayerPlain,
        // Fixed in OlmoLayerNorm, whatever config.json says.
        norm_eps: 1e-5,
        clip_qkv: keys.switch("clip_qkv", None)?,
        ropes: vec![Rope::parse(keys, decoder.d_head, &LLAMA)?],
        ..decoder
    })
}
