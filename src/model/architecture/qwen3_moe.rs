//! Qwen 3 with mixtures of experts, in all layers or in some.

use super::{Architecture, parts, qwen2};
use crate::model::block::Block;
use crate::model::config::{DecoderConfig, Defaults, Experts, View};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::rope::{LLAMA, Rope};
use anyhow::Result;
use serde_json::Value;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["Qwen3MoeForCausalLM"],
    model_type: "qwen3_moe",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `Qwen3MoeConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { n_kv_heads: Some(4), ..Defaults::LLAMA })?.with_activation_and_bias(keys)?;
    let window = qwen2::window(keys)?;
    // The reference slides in every layer or in none, whatever this says.
    keys.unused(&["max_window_layers"]);
    let step = keys.size_or("decoder_sparse_step", 1)? as usize;
    let dense = keys.list("mlp_only_layers", "a list of layers", Value::as_u64)?.unwrap_or_default();
    let sparse = |index: usize| !dense.contains(&(index as u64)) && (index + 1).is_multiple_of(step);
    let experts = Experts {
        // transformers 5 renamed the key.
        n: keys.size_or("num_experts", keys.size_or("num_local_experts", 128)?)?,
        n_active: keys.size_or("num_experts_per_tok", 8)?,
        d_mlp: keys.size_or("moe_intermediate_size", 768)?,
        normalized: keys.flag_or("norm_topk_prob", false)?,
        layers: (0..decoder.n_layers).map(sparse).collect(),
    };
    Ok(DecoderConfig {
        views: vec![View { window, rope: Some(0) }; decoder.n_layers],
        ropes: vec![Rope::parse(keys, decoder.d_head, &LLAMA)?],
        experts: Some(experts),
        ..decoder
    })
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let attention = parts::attention_qk_normed(loader, index, parts::per_head(loader.config))?;
    let name = parts::at(index, "mlp");
    let mlp = match &loader.config.experts {
        Some(experts) if experts.layers[index] => parts::mixture(loader, experts, &name)?,
        _ => parts::gated(loader, &name)?,
    };
    parts::before(loader, attention, mlp, index)
}
