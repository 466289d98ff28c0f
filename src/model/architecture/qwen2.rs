//! Qwen 1.5, 2 and 2.5: Llama with biases on queries, keys and values, and sliding windows in the upper layers when switched on.

use super::{Architecture, parts};
use crate::model::config::{Activation, DecoderConfig, Defaults, View};
use crate::model::keys::Keys;
use crate::model::rope::{LLAMA, Rope};
use anyhow::Result;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["Qwen2ForCausalLM"],
    model_type: "qwen2",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block: parts::block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `Qwen2Config`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { n_kv_heads: Some(32), ..Defaults::LLAMA })?;
    Ok(DecoderConfig {
        activation: Activation::parse(keys.text_or("hidden_act", "silu")?)?,
        qkv_bias: true,
        views: views(keys, decoder.n_layers)?,
        ropes: vec![Rope::parse(keys, decoder.d_head, &LLAMA)?],
        ..decoder
    })
}

/// Windows of Qwen 2 and 3: in the layers from `max_window_layers` on, when `use_sliding_window` is true.
///
/// # Errors
/// As [`parts::views`].
pub fn views(keys: &Keys, n_layers: usize) -> Result<Vec<View>> {
    let window = window(keys)?;
    // Read as a number: it may be 0, every layer slides then.
    let first = keys.number_or("max_window_layers", 28.0)?;
    parts::views(keys, n_layers, window, (0, 0), |index| window.is_some() && index as f64 >= first)
}

/// The window of Qwen 2 and 3, where `use_sliding_window` is true.
///
/// # Errors
/// A value has a wrong type.
pub fn window(keys: &Keys) -> Result<Option<i64>> {
    let window = parts::window(keys, Some(4096))?;
    Ok(if keys.flag_or("use_sliding_window", false)? { window } else { None })
}
