//! A checkpoint on disk: its tensors, the adapter over them or random numbers in their place, what its files are, and its JSON; and how it comes there from the hub.

pub mod names;
pub mod shards;
pub mod hub;
pub mod identity;
pub mod file;
pub mod rows;
pub mod tensors;
pub mod provenance;
pub mod adapter_config;
pub mod adapter_keys;
pub mod base_name;
pub mod site;
pub mod adapter_experts;
pub mod adapter_match;
pub mod adapter;
pub mod random;
pub mod weights;

use anyhow::{Result, bail};
use std::path::Path;

/// Reads a JSON file; an error names the file and what to do.
///
/// # Errors
/// The file is missing, unreadable or not JSON.
pub fn read_json(path: &Path) -> Result<serde_json::Value> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let is_adapter =
                path.file_name().is_some_and(|name| name == "config.json") && path.with_file_name(adapter_config::FILE).is_file();
            let expected = match (path.is_symlink(), is_adapter) {
                (true, _) => "its link leads nowhere; download or copy it",
                (false, true) => "there is an adapter: give it as `adapter` beside the `base` that it was trained on",
                (false, false) => "expected a model folder in Hugging Face layout",
            };
            bail!("{}: missing; {expected}", path.display())
        }
        Err(error) => bail!("{}: cannot be read ({error})", path.display()),
    };
    serde_json::from_str(&text).map_err(|error| anyhow::anyhow!("{}: not valid JSON ({error})", path.display()))
}
