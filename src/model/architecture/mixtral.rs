//! Mixtral: Mistral with a mixture of experts in every layer.

use super::{Architecture, parts};
use crate::checkpoint::names::Layout;
use crate::model::block::Block;
use crate::model::config::{Activation, DecoderConfig, Defaults, Experts, View};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::rope::{Dialect, LLAMA, Rope};
use anyhow::{Context, Result};

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["MixtralForCausalLM"],
    model_type: "mixtral",
    layout: LAYOUT,
    config,
    embed: parts::embed,
    block,
    ends: parts::ends,
};

/// In files the mixture is `block_sparse_moe`; transformers 5 calls it `mlp` in memory.
const LAYOUT: Layout = Layout {
    renamed: &[
        (".block_sparse_moe.", ".mlp."),
        (".w1.", ".gate_proj."),
        (".w1", ".gate_proj"),
        (".w3.", ".up_proj."),
        (".w3", ".up_proj"),
        (".w2.", ".down_proj."),
        (".w2", ".down_proj"),
    ],
    ..parts::LAYOUT
};

/// Defaults are those of transformers' `MixtralConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { norm_eps: 1e-5, n_kv_heads: Some(8), ..Defaults::LLAMA })?;
    let window = parts::window(keys, None)?;
    let experts = Experts {
        n: keys.size_or("num_local_experts", 8)?,
        n_active: keys.size_or("num_experts_per_tok", 2)?,
        d_mlp: decoder.d_mlp,
        normalized: true,
        layers: vec![true; decoder.n_layers],
    };
    Ok(DecoderConfig {
        activation: Activation::parse(keys.text_or("hidden_act", "silu")?)?,
        views: vec![View { window, rope: Some(0) }; decoder.n_layers],
        ropes: vec![Rope::parse(keys, decoder.d_head, &Dialect { base: 1e6, ..LLAMA })?],
        experts: Some(experts),
        ..decoder
    })
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let attention = parts::attention(loader, index, &parts::at(index, "self_attn"))?;
    let experts = loader.config.experts.as_ref().context("the configuration of a mixture has no experts")?;
    parts::before(loader, attention, parts::mixture(loader, experts, &parts::at(index, "mlp"))?, index)
}
