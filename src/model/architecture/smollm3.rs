//! SmolLM3: Llama without positions in every fourth layer (NoPE, Yang et al. 2025).

use super::{Architecture, parts, qwen2};
use crate::model::config::{DecoderConfig, Defaults};
use crate::model::keys::Keys;
use crate::model::rope::{Dialect, LLAMA, Rope};
use anyhow::{Result, ensure};
use serde_json::Value;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["SmolLM3ForCausalLM"],
    model_type: "smollm3",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block: parts::block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `SmolLM3Config`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { tied: true, n_kv_heads: Some(4), ..Defaults::LLAMA })?;
    let decoder = decoder.with_activation_and_bias(keys)?;
    let n_layers = decoder.n_layers;
    let interval = keys.size_or("no_rope_layer_interval", 4)? as usize;
    let rotated = keys.list("no_rope_layers", "a list of 0 (no positions) and 1", |value| match value {
        Value::Bool(rotated) => Some(*rotated),
        _ => value.as_u64().filter(|n| *n <= 1).map(|n| n == 1),
    })?;
    let rotated = rotated.unwrap_or_else(|| (0..n_layers).map(|index| (index + 1) % interval != 0).collect());
    ensure!(rotated.len() >= n_layers, "no_rope_layers: found {} layers, expected {n_layers}", rotated.len());
    let window = qwen2::window(keys)?;
    keys.unused(&["max_window_layers"]);
    let mut views = parts::views(keys, n_layers, window, (0, 0), |index| window.is_some() && !rotated[index])?;
    for (view, rotated) in views.iter_mut().zip(rotated) {
        view.rope = rotated.then_some(0);
    }
    let rope = Rope::parse(keys, decoder.d_head, &Dialect { base: 2e6, ..LLAMA })?;
    Ok(DecoderConfig { mlp_bias: keys.flag_or("mlp_bias", false)?, views, ropes: vec![rope], ..decoder })
}
