//! The frozen ruler of a run: one tokenizer and one template for all checkpoints.

use crate::checkpoint::hub::{Hub, Part};
use crate::manifest::{Manifest, Template as TemplateChoice, Tokenizer};
use crate::prompt::template::Template;
use crate::prompt::tokenize::Ruler;
use crate::prompt::vocabulary::special_tokens;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;

/// Tokenizer and template that the manifest asks for.
pub(super) fn resolve(manifest: &Manifest, hub: &Hub) -> Result<Ruler> {
    let tokenizer = ruler_folder(manifest, hub)?;
    let template = match &manifest.model.template {
        TemplateChoice::Plain => Template::plain()?,
        TemplateChoice::Chatml => Template::chatml()?,
        TemplateChoice::File(path) => {
            let source = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
            Template::compile(&source, special_tokens(&tokenizer)?).with_context(|| path.display().to_string())?
        }
        TemplateChoice::Native(id) => {
            let folders = folders_of(manifest, hub, id)?;
            let native = folders.iter().find_map(|folder| Template::native(folder).transpose()).transpose()?;
            let folder = folders.first().map_or_else(String::new, |folder| folder.display().to_string());
            native.with_context(|| format!("{folder}: no chat template; use template = \"plain\" or \"chatml\""))?
        }
    };
    Ruler::load(&tokenizer, template)
}

/// A checkpoint's folders with their small files in them: that of the adapter, which comes with its own tokenizer and template if with
/// any, and that of the model.
fn folders_of(manifest: &Manifest, hub: &Hub, id: &str) -> Result<Vec<PathBuf>> {
    let spec = manifest.checkpoints.iter().find(|spec| spec.id == id).with_context(|| format!("no checkpoint has the id {id}"))?;
    let sources = spec.adapter.iter().chain([&spec.source]);
    sources.map(|source| Ok(hub.fetch(source, Part::Words)?.to_owned())).collect()
}

/// The first folder with a tokenizer.
fn folder_of(manifest: &Manifest, hub: &Hub, id: &str) -> Result<PathBuf> {
    let mut folders = folders_of(manifest, hub, id)?;
    let has_tokenizer = folders.iter().position(|folder| folder.join("tokenizer.json").is_file());
    Ok(folders.swap_remove(has_tokenizer.unwrap_or(folders.len() - 1)))
}

/// Folder of the frozen tokenizer. `final` is the last checkpoint that has one.
fn ruler_folder(manifest: &Manifest, hub: &Hub) -> Result<PathBuf> {
    match &manifest.model.tokenizer {
        Tokenizer::Checkpoint(id) => folder_of(manifest, hub, id),
        Tokenizer::Source(source) => Ok(hub.fetch(source, Part::Words)?.to_owned()),
        Tokenizer::Final => {
            let mut last = None;
            for source in manifest.checkpoints.iter().rev().flat_map(|spec| spec.adapter.iter().chain([&spec.source])) {
                let folder = hub.fetch(source, Part::Words)?;
                if folder.join("tokenizer.json").is_file() {
                    return Ok(folder.to_owned());
                }
                last.get_or_insert(source);
            }
            let Some(last) = last else { bail!("there is no checkpoint") };
            bail!("{last}: no tokenizer.json, nor in any other checkpoint; set [model] tokenizer to a folder that has one")
        }
    }
}
