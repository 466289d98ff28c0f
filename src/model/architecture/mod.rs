//! The model families: how `config.json` is read, what tensors are called, and how projections are laid out.
//!
//! Families differ here and nowhere else. To add one: a file beside this one, and a line in [`ARCHITECTURES`].

mod gpt_neox;
mod llama;

use super::block::Block;
use super::config::{DecoderConfig, text_or};
use super::layers::{Loader, Norm};
use anyhow::{Result, bail, ensure};
use serde_json::Value;
use tch::Tensor;

/// How one family is loaded.
pub struct Architecture {
    /// Values of `architectures` in `config.json`.
    pub names: &'static [&'static str],
    /// Value of `model_type`, which stands alone in configurations that were not saved with a model.
    pub model_type: &'static str,
    pub config: fn(&Value) -> Result<DecoderConfig>,
    /// Token ids to the residual stream at layer 0: `[node, d_model]`.
    pub embed: fn(&Loader, &[i64]) -> Result<Tensor>,
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
pub const ARCHITECTURES: &[Architecture] = &[llama::ARCHITECTURE, gpt_neox::ARCHITECTURE];

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
    if let Some(quantization) = json.get("quantization_config").filter(|value| !value.is_null()) {
        let method = text_or(quantization, "quant_method", "unknown")?;
        bail!("the weights are quantised ({method}); dequantise them and save them as bfloat16");
    }
    let config = (architecture.config)(json)?.validated()?;
    ensure!(config.n_layers <= 10_000, "num_hidden_layers: found {}, expected at most 10000", config.n_layers);
    Ok((architecture, config))
}

/// Rows of an embedding on the loader's device; only the rows that occur are read.
fn embed_rows(loader: &Loader, name: &str, tokens: &[i64]) -> Result<Tensor> {
    let shape = [loader.config.d_vocab, loader.config.d_model];
    let mut distinct = tokens.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let rows = loader.weights.rows(name, &shape, &distinct, loader.kind)?.f_to_device(loader.device)?;
    let index: Vec<i64> = tokens.iter().filter_map(|token| distinct.binary_search(token).ok()).map(|row| row as i64).collect();
    Ok(rows.f_index_select(0, &Tensor::f_from_slice(&index)?.f_to_device(loader.device)?)?)
}
