//! A model and the adapters over it, opened as a command line names them.

use crate::checkpoint::hub::{Hub, Part};
use crate::manifest::Source;
use crate::model::Checkpoint;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// A model with its adapters.
pub struct Opened {
    pub checkpoint: Checkpoint,
    /// Where tokenizer and template are looked for: the folders of the adapters, the last one first, and that of the model.
    pub folders: Vec<PathBuf>,
}

/// Fetches and opens a model, which `flag` names, and the adapters over it, the first one first; keys of its configuration in `ignored`
/// may be unknown. Says what is to be known of how it was read.
///
/// # Errors
/// One sentence: a source that is none or is not there, or as [`Checkpoint::open_ignoring`] and [`Checkpoint::with_adapters`].
pub fn open(model: &str, flag: &'static str, adapters: &[String], ignored: &[String]) -> Result<Opened> {
    let source = |text: &str, flag: &'static str| Source::parse(text, Path::new("")).map_err(|error| error.context(flag));
    let mut base = source(model, flag)?;
    let mut adapters = adapters.iter().map(|text| source(text, "--adapter")).collect::<Result<Vec<_>>>()?;
    let hub = Hub::from_env();
    for source in std::iter::once(&mut base).chain(&mut adapters) {
        hub.pin(source, None)?;
    }
    let adapters = adapters.iter().map(|adapter| hub.fetch(adapter, Part::Adapter)).collect::<Result<Vec<_>>>()?;
    let model_folder = hub.fetch(&base, Part::Model)?;
    let checkpoint = Checkpoint::open_ignoring(model_folder, ignored)?.with_adapters(&adapters)?;
    checkpoint.notes.iter().for_each(|note| tracing::warn!("{note}"));
    if let Some(named) = checkpoint.other_base() {
        tracing::warn!("the adapter says that it was trained over {named} (base_model_name_or_path), which is not {model}");
    }
    let folders = adapters.iter().rev().copied().chain([model_folder]).map(Path::to_owned).collect();
    Ok(Opened { checkpoint, folders })
}
