//! The model families: how `config.json` is read, what tensors are called, and how projections are laid out.
//!
//! Families differ here and nowhere else. To add one: a file beside this one, and a line in [`ARCHITECTURES`].

mod parts;
mod apertus;
mod gemma2;
mod gemma3;
mod gpt2;
mod gpt_neox;
mod granite;
mod llama;
mod mistral;
mod mixtral;
mod olmo;
mod olmo2;
mod olmo3;
mod olmoe;
mod phi3;
mod qwen2;
mod qwen3;
mod qwen3_moe;
mod smollm3;

use super::block::Block;
use super::config::DecoderConfig;
use super::keys::Keys;
use super::layers::{Loader, Norm};
use anyhow::{Result, bail};
use serde_json::Value;
use tch::Tensor;

/// How one family is loaded.
pub struct Architecture {
    /// Values of `architectures` in `config.json`.
    pub names: &'static [&'static str],
    /// Value of `model_type`, which stands alone in configurations that were not saved with a model.
    pub model_type: &'static str,
    pub config: fn(&Keys) -> Result<DecoderConfig>,
    /// Token ids and their positions to the residual stream at layer 0: `[node, d_model]`.
    pub embed: fn(&Loader, &[i64], &[i64]) -> Result<Tensor>,
    /// Block by 0-based index, as it is numbered on disk.
    pub block: fn(&Loader, usize) -> Result<Block>,
    pub ends: fn(&Loader) -> Result<Ends>,
}

/// What follows the last block.
pub struct Ends {
    pub ln_final: Norm,
    /// Name of the unembedding, `[d_vocab, d_model]`, which is read in slices.
    pub unembed: String,
}

/// All families, in the order they are listed to users.
pub const ARCHITECTURES: &[Architecture] = &[
    llama::ARCHITECTURE,
    mistral::ARCHITECTURE,
    qwen2::ARCHITECTURE,
    qwen3::ARCHITECTURE,
    olmo::ARCHITECTURE,
    olmo2::ARCHITECTURE,
    olmo3::ARCHITECTURE,
    gemma2::ARCHITECTURE,
    gemma3::TEXT,
    gemma3::MULTIMODAL,
    gpt_neox::ARCHITECTURE,
    gpt2::ARCHITECTURE,
    phi3::ARCHITECTURE,
    smollm3::ARCHITECTURE,
    granite::ARCHITECTURE,
    apertus::ARCHITECTURE,
    mixtral::ARCHITECTURE,
    olmoe::ARCHITECTURE,
    qwen3_moe::ARCHITECTURE,
];

/// Finds the family that `config.json` names, and reads its configuration.
///
/// # Errors
/// No architecture, an unsupported one (the supported ones are named), quantised weights, or a key that is missing or wrong.
pub fn resolve(json: &Value) -> Result<(&'static Architecture, DecoderConfig)> {
    let supported = || ARCHITECTURES.iter().flat_map(|a| a.names).copied().collect::<Vec<_>>().join(", ");
    let class = json.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let Some(name) = class.or_else(|| json.get("model_type").and_then(Value::as_str)) else {
        bail!("keys `architectures` and `model_type` are missing; supported: {}", supported());
    };
    let matches = |architecture: &&Architecture| match class {
        Some(class) => architecture.names.contains(&class),
        None => architecture.model_type == name,
    };
    let Some(architecture) = ARCHITECTURES.iter().find(matches) else {
        bail!("architecture {name} is not supported; supported: {}", supported());
    };
    let keys = Keys::new(json)?;
    if let Some(quantization) = keys.table("quantization_config")? {
        let method = quantization.text_or("quant_method", "unknown")?;
        bail!("the weights are quantised ({method}); dequantise them and save them as bfloat16");
    }
    let config = (architecture.config)(&keys)?.validated()?;
    keys.finish()?;
    Ok((architecture, config))
}

/// Rows of the embedding on the loader's device; only the rows that occur are read.
fn embed_rows(loader: &Loader, name: &str, tokens: &[i64]) -> Result<Tensor> {
    rows(loader, name, loader.config.d_vocab, tokens)
}

/// The given rows of `name: [n_rows, d_model]`.
fn rows(loader: &Loader, name: &str, n_rows: i64, wanted: &[i64]) -> Result<Tensor> {
    let shape = [n_rows, loader.config.d_model];
    let mut distinct = wanted.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let rows = loader.weights.rows(name, &shape, &distinct, loader.kind)?.f_to_device(loader.device)?;
    let index: Vec<i64> = wanted.iter().filter_map(|row| distinct.binary_search(row).ok()).map(|row| row as i64).collect();
    Ok(rows.f_index_select(0, &Tensor::f_from_slice(&index)?.f_to_device(loader.device)?)?)
}
