//! Writing a checkpoint in Hugging Face layout.

use super::lexicon::Lexicon;
use anyhow::{Context, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::Path;

/// One matrix or vector of a checkpoint, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Weight {
    pub name: String,
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Writes `folder` under a temporary name and renames it when it is complete; an older one is replaced.
///
/// # Errors
/// The folder is not writable.
pub fn save(folder: &Path, config: &Value, lexicon: &Lexicon, weights: &[Weight]) -> Result<()> {
    let place = || format!("{}: cannot be written", folder.display());
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(place)?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent).with_context(place)?;
    let files = [("config.json", config), ("tokenizer.json", &lexicon.tokenizer()), ("tokenizer_config.json", &lexicon.tokenizer_config())];
    for (name, json) in files {
        fs::write(partial.path().join(name), serde_json::to_vec_pretty(json)?).with_context(place)?;
    }
    fs::write(partial.path().join("model.safetensors"), serialized(weights)?).with_context(place)?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(place)?;
    }
    // Temporary folders are private; a result is to be read by colleagues.
    fs::set_permissions(partial.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).with_context(place)?;
    fs::rename(partial.path(), folder).with_context(place)
}

/// All weights under their Hugging Face names, f32.
fn serialized(weights: &[Weight]) -> Result<Vec<u8>> {
    let bytes: Vec<Vec<u8>> = weights.iter().map(|weight| weight.values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views = weights.iter().zip(&bytes).map(|(weight, bytes)| {
        let view = TensorView::new(Dtype::F32, weight.shape.clone(), bytes)?;
        Ok((&weight.name, view))
    });
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata))?)
}
