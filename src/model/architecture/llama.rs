//! Llama and everything that was saved as Llama (SmolLM2, Tülu 3, Amber, Marin ...): RMS norms before attention and a gated MLP.

use super::{Architecture, parts};
use crate::model::config::{DecoderConfig, Defaults};
use crate::model::keys::Keys;
use crate::model::rope::{LLAMA, Rope};
use anyhow::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["LlamaForCausalLM"],
    model_type: "llama",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block: parts::block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `LlamaConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults::LLAMA)?.with_activation_and_bias(keys)?;
    let rope = Rope::parse(keys, decoder.d_head, &LLAMA)?;
    Ok(DecoderConfig { mlp_bias: keys.flag_or("mlp_bias", false)?, ropes: vec![rope], ..decoder })
}
