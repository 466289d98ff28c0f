//! Qwen 3: Llama with queries and keys normed per head.

use super::{Architecture, parts, qwen2};
use crate::model::block::Block;
use crate::model::config::{DecoderConfig, Defaults};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::rope::{LLAMA, Rope};
use anyhow::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["Qwen3ForCausalLM"],
    model_type: "qwen3",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `Qwen3Config`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let defaults = Defaults { n_kv_heads: Some(32), d_head: Some(128), ..Defaults::LLAMA };
    let decoder = DecoderConfig::read(keys, &defaults)?.with_activation_and_bias(keys)?;
    let rope = Rope::parse(keys, decoder.d_head, &LLAMA)?;
    Ok(DecoderConfig { views: qwen2::views(keys, decoder.n_layers)?, ropes: vec![rope], ..decoder })
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let attention = parts::attention_qk_normed(loader, index, parts::per_head(loader.config))?;
    parts::before(loader, attention, parts::gated(loader, &parts::at(index, "mlp"))?, index)
}
