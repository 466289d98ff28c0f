//! OLMoE: queries and keys normed over all heads, and a mixture of experts in every layer.

use super::{Architecture, parts};
use crate::model::block::Block;
use crate::model::config::{DecoderConfig, Defaults, Experts};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::rope::{LLAMA, Rope};
use anyhow::{Context, Result};

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["OlmoeForCausalLM"],
    model_type: "olmoe",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `OlmoeConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { norm_eps: 1e-5, ..Defaults::LLAMA })?.with_activation_and_bias(keys)?;
    let experts = Experts {
        n: keys.size_or("num_experts", keys.size_or("num_local_experts", 64)?)?,
        n_active: keys.size_or("num_experts_per_tok", 8)?,
        d_mlp: decoder.d_mlp,
        normalized: keys.flag_or("norm_topk_prob", false)?,
        layers: vec![true; decoder.n_layers],
    };
    Ok(DecoderConfig {
        clip_qkv: keys.switch("clip_qkv", None)?,
        ropes: vec![Rope::parse(keys, decoder.d_head, &LLAMA)?],
        experts: Some(experts),
        ..decoder
    })
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let attention = parts::attention_qk_normed(loader, index, parts::all_heads(loader.config))?;
    let experts = loader.config.experts.as_ref().context("the configuration of a mixture has no experts")?;
    let mlp = parts::mixture(loader, experts, &parts::at(index, "mlp"))?;
    parts::before(loader, attention, mlp, index)
}
