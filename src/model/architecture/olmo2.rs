//! OLMo 2: a norm after each sublayer and none before, and queries and keys normed over all heads.

use super::{Architecture, parts};
use crate::model::block::Block;
use crate::model::config::{DecoderConfig, Defaults, NormKind};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::rope::{LLAMA, Rope};
use anyhow::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["Olmo2ForCausalLM"],
    model_type: "olmo2",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `Olmo2Config`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { norm_eps: 1e-5, ..Defaults::LLAMA })?.with_activation_and_bias(keys)?;
    let rope = Rope::parse(keys, decoder.d_head, &LLAMA)?;
    Ok(DecoderConfig { norm: NormKind::RmsWide, ropes: vec![rope], ..decoder })
}

/// Shared with OLMo 3.
///
/// # Errors
/// A tensor is missing or misshapen.
pub fn block(loader: &Loader, index: usize) -> Result<Block> {
    let attention = parts::attention_qk_normed(loader, index, parts::all_heads(loader.config))?;
    parts::after(loader, attention, parts::gated(loader, &parts::at(index, "mlp"))?, index)
}
