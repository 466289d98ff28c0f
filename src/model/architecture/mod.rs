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
use super::survey::Survey;
use crate::checkpoint::names::Layout;
use anyhow::{Result, bail};
use serde_json::Value;
use tch::Tensor;

/// How one family is loaded.
pub struct Architecture {
    /// Values of `architectures` in `config.json`.
    pub names: &'static [&'static str],
    /// Value of `model_type`, which stands alone in configurations that were not saved with a model.
    pub model_type: &'static str,
    /// Where its files keep the parts of a model.
    pub layout: Layout,
    pub config: fn(&Keys) -> Result<DecoderConfig>,
    /// Token ids and their positions to the residual stream at layer 0: `[node, d_model]`.
    pub embed: fn(&Loader, &[i64], &[i64]) -> Result<Tensor>,
    /// Block by 0-based index, as files number it.
    pub block: fn(&Loader, usize) -> Result<Block>,
    pub ends: fn(&Loader) -> Result<Ends>,
}

/// What follows the last block.
pub struct Ends {
    pub ln_final: Norm,
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
/// No architecture, an unsupported one (the supported ones are named), or a key that is missing, wrong or unknown.
pub fn resolve(json: &Value) -> Result<(&'static Architecture, DecoderConfig)> {
    resolve_ignoring(json, &[])
}

/// As [`resolve`]; the keys `ignored`, with their places (`text_config.key`), may be unknown.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_ignoring(json: &Value, ignored: &[String]) -> Result<(&'static Architecture, DecoderConfig)> {
    let architecture = family(json)?;
    let keys = Keys::new(json, ignored)?;
    // Whether the weights are what it says is to be seen in the weights.
    keys.unused(&["quantization_config"]);
    let made_for = keys.get("max_position_embeddings").and_then(Value::as_i64).filter(|positions| *positions > 0);
    let config = DecoderConfig { made_for, ..(architecture.config)(&keys)?.validated()? };
    keys.finish()?;
    Ok((architecture, config))
}

/// The family by its class or, as transformers' `Auto` classes go, by `model_type`: a class may be that of a wrapper, of another
/// head over the same backbone, or an old spelling.
fn family(json: &Value) -> Result<&'static Architecture> {
    let supported = || ARCHITECTURES.iter().flat_map(|a| a.names).copied().collect::<Vec<_>>().join(", ");
    let class = json.get("architectures").and_then(|names| names.get(0)).and_then(Value::as_str);
    let model_type = json.get("model_type").and_then(Value::as_str);
    let of_class = |class: &str| ARCHITECTURES.iter().find(|architecture| architecture.names.contains(&class));
    let by_class = class.and_then(|class| of_class(class.strip_prefix("FSDP").unwrap_or(class)));
    let by_type = ARCHITECTURES.iter().find(|architecture| Some(architecture.model_type) == model_type);
    match (by_class, by_type, class) {
        (Some(one), Some(other), Some(class)) if one.model_type != other.model_type => {
            bail!("architectures says {class}, model_type says {}; correct the one that is wrong", other.model_type)
        }
        (Some(architecture), ..) => Ok(architecture),
        (None, Some(_), Some(class)) if json.get("auto_map").is_some_and(|map| map.as_object().is_some_and(|map| !map.is_empty())) => {
            bail!("architecture {class} is code of its own (auto_map), which is never run; supported: {}", supported())
        }
        (None, Some(architecture), Some(class)) if !is_of(class, architecture) => bail!(
            "architectures says {class}, which is not supported, and model_type says {}; correct the one that is wrong; supported: {}",
            architecture.model_type,
            supported()
        ),
        (None, Some(architecture), _) => Ok(architecture),
        (None, None, class) => match class.or(model_type) {
            Some(name) => bail!("architecture {name} is not supported; supported: {}", supported()),
            None => bail!("keys `architectures` and `model_type` are missing; supported: {}", supported()),
        },
    }
}

/// Whether an unknown class can be one of a family's: another head over it, an old spelling, or a wrapper's that says nothing.
fn is_of(class: &str, architecture: &Architecture) -> bool {
    const WRAPPERS: &[&str] =
        &["peft", "optimizedmodule", "fsdp", "fullysharded", "distributed", "deepspeed", "dataparallel", "automodel", "pretrained"];
    let (class, known) = (class.to_lowercase(), architecture.names[0].to_lowercase());
    let family = known.split("for").next().unwrap_or_default().trim_end_matches("lmheadmodel");
    class.contains(family) || WRAPPERS.iter().any(|wrapper| class.starts_with(wrapper))
}

/// Rows of the embedding on the loader's device; only the rows that occur are read.
fn embed_rows(loader: &Loader, name: &str, tokens: &[i64]) -> Result<Tensor> {
    rows(loader, name, loader.config.d_vocab, tokens)
}

/// The given rows of `name: [n_rows, d_model]`.
fn rows(loader: &Loader, name: &str, n_rows: i64, wanted: &[i64]) -> Result<Tensor> {
    let shape = [n_rows, loader.config.d_model];
    if let Some(survey) = loader.survey {
        let _ = survey.note(loader.weights, name, &shape, loader.kind)?;
        return Survey::blank(&[wanted.len() as i64, shape[1]], loader.kind);
    }
    let mut distinct = wanted.to_vec();
    distinct.sort_unstable();
    distinct.dedup();
    let rows = loader.weights.rows(name, &shape, &distinct, loader.kind)?.f_to_device(loader.device)?;
    let index: Vec<i64> = wanted.iter().filter_map(|row| distinct.binary_search(row).ok()).map(|row| row as i64).collect();
    Ok(rows.f_index_select(0, &Tensor::f_from_slice(&index)?.f_to_device(loader.device)?)?)
}
