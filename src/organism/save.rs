//! Writing a checkpoint in Hugging Face layout.

use super::lexicon::Lexicon;
use super::network::Network;
use anyhow::{Context, Result};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use tch::Tensor;

/// Writes `folder` under a temporary name and renames it when it is complete; an older one is replaced.
///
/// # Errors
/// The folder is not writable.
pub fn save(folder: &Path, config: &Value, lexicon: &Lexicon, network: &Network) -> Result<()> {
    let place = || format!("{}: cannot be written", folder.display());
    let parent = folder.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(place)?;
    let partial = tempfile::Builder::new().prefix(".partial-").tempdir_in(parent).with_context(place)?;
    let files = [("config.json", config), ("tokenizer.json", &lexicon.tokenizer()), ("tokenizer_config.json", &lexicon.tokenizer_config())];
    for (name, json) in files {
        fs::write(partial.path().join(name), serde_json::to_vec_pretty(json)?).with_context(place)?;
    }
    fs::write(partial.path().join("model.safetensors"), weights(network)?).with_context(place)?;
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(place)?;
    }
    // Temporary folders are private; a result is to be read by colleagues.
    fs::set_permissions(partial.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).with_context(place)?;
    fs::rename(partial.path(), folder).with_context(place)
}

/// All parameters under their Hugging Face names, f32.
fn weights(network: &Network) -> Result<Vec<u8>> {
    let mut tensors = Vec::new();
    for parameter in &network.parameters {
        let mut start = 0;
        for (name, rows) in &parameter.parts {
            let part = parameter.tensor.detach().f_narrow(0, start, *rows)?;
            let shape: Vec<usize> = part.size().iter().map(|&size| size as usize).collect();
            tensors.push((name.clone(), shape, bytes(&part)?));
            start += rows;
        }
    }
    let views = tensors.iter().map(|(name, shape, bytes)| Ok((name, TensorView::new(Dtype::F32, shape.clone(), bytes)?)));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(metadata))?)
}

fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let values = Vec::<f32>::try_from(tensor.f_contiguous()?.f_view([-1])?)?;
    Ok(values.iter().flat_map(|x| x.to_le_bytes()).collect())
}
