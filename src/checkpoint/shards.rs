//! Which safetensors files of a folder hold a model's weights.
//!
//! One file, or the shards that an index names, or shards whose own names say that all of them are there. Where a folder has
//! two answers nobody can know which is the newer one, so it is refused.

use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Name of the only file.
pub const SINGLE: &str = "model.safetensors";
/// Name of the table of tensors to files.
pub const INDEX: &str = "model.safetensors.index.json";

/// The files, and for each tensor that an index names the file that it is in.
pub type Files = (Vec<String>, BTreeMap<String, String>);

/// Finds the files of a folder, each a plain name in it.
///
/// # Errors
/// One sentence that names folder and file: no weights, or pickled or training shards; an index that names a missing file or
/// one outside the folder; shards of which some are missing; a single file beside other shards.
pub fn find(folder: &Path) -> Result<Files> {
    ensure!(folder.is_dir(), "{}: no such folder", folder.display());
    let names = names(folder);
    let has = |name: &str| names.iter().any(|other| other == name) && folder.join(name).is_file();
    let place = || folder.display().to_string();
    let map = if has(INDEX) { index(&folder.join(INDEX))? } else { BTreeMap::new() };
    let indexed: BTreeSet<&str> = map.values().map(String::as_str).collect();
    if has(SINGLE) {
        let beside = indexed.iter().copied().find(|name| *name != SINGLE && has(name));
        if let Some(shard) = beside.or_else(|| names.iter().map(String::as_str).find(|name| is_shard(name))) {
            bail!("{}: {}", place(), two_answers(shard));
        }
        return Ok((vec![SINGLE.to_owned()], BTreeMap::new()));
    }
    if let Some((tensor, file)) = map.iter().find(|(_, file)| !has(file)) {
        bail!("{}: {tensor} is in {file}, which is missing; download or copy it", folder.join(INDEX).display());
    }
    if has(INDEX) {
        return Ok((indexed.into_iter().map(str::to_owned).collect(), map));
    }
    match complete(names.iter().map(String::as_str)).with_context(place)? {
        Some(files) => Ok((files, BTreeMap::new())),
        None if folder.join(SINGLE).is_symlink() => bail!("{}: {SINGLE} is a link that leads nowhere; download or copy it", place()),
        None => bail!("{}: {}", place(), explain_missing(&names)),
    }
}

/// What is wrong with a single file beside shards of another save, be it a save that was interrupted.
pub fn two_answers(shard: &str) -> String {
    format!("found {SINGLE} and the shard {shard}, and either may be older than the other; remove the file or the shards and {INDEX}")
}

/// Shards without an index, in order, if their names say that they are all there; none if no name is a shard's.
///
/// # Errors
/// A shard is missing, or there are shards of two sets.
pub fn complete<'n>(names: impl Iterator<Item = &'n str>) -> Result<Option<Vec<String>>> {
    let mut sets: BTreeMap<(&str, &str), BTreeMap<usize, &str>> = BTreeMap::new();
    for name in names {
        if let Some((stem, number, count)) = shard(name) {
            sets.entry((stem, count)).or_default().insert(number, name);
        }
    }
    let mut sets = sets.into_iter();
    let Some(((stem, count), found)) = sets.next() else { return Ok(None) };
    if let Some(((other, other_count), _)) = sets.next() {
        bail!("found shards {stem}*-of-{count} and {other}*-of-{other_count} and no {INDEX}; remove those that are not meant");
    }
    let wanted: usize = count.parse().with_context(|| format!("the number of shards, {count}"))?;
    if let Some(missing) = (1..=wanted).find(|number| !found.contains_key(number)) {
        let width = count.len();
        bail!("{INDEX} is missing, and so is the shard {stem}-{missing:0width$}-of-{count}.safetensors; copy both");
    }
    Ok(Some(found.into_values().map(str::to_owned).collect()))
}

/// Whether a name is that of a model's shard.
pub fn is_shard(name: &str) -> bool {
    shard(name).is_some()
}

/// Takes `<stem>-00001-of-00002.safetensors` apart.
fn shard(name: &str) -> Option<(&str, usize, &str)> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let (first, count) = name.strip_suffix(".safetensors")?.rsplit_once("-of-")?;
    let (stem, number) = first.rsplit_once('-')?;
    // Adapters and optimisers are sharded in the same way.
    let is_model = ["model", "pytorch_model"].contains(&stem);
    (is_model && is_number(number) && is_number(count)).then_some((stem, number.parse().ok()?, count))
}

/// Tensors to files.
fn index(path: &Path) -> Result<BTreeMap<String, String>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| anyhow::anyhow!("{}: not valid JSON ({e})", path.display()))?;
    let Some(map) = json.get("weight_map").and_then(|map| map.as_object()) else {
        bail!("{}: expected a table `weight_map` of tensor names to files", path.display());
    };
    let mut files = BTreeMap::new();
    for (tensor, file) in map {
        let file = file.as_str().unwrap_or_default();
        let plain = Path::new(file).file_name().is_some_and(|name| name == file) && file.ends_with(".safetensors");
        ensure!(plain, "{}: {tensor} is in {file:?}, expected the plain name of a .safetensors file in the same folder", path.display());
        files.insert(tensor.clone(), file.to_owned());
    }
    Ok(files)
}

/// Names in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    names
}

/// Why a folder has no weights, in one clause that says what to do.
fn explain_missing(names: &[String]) -> String {
    // What trainers leave beside the weights is no reason.
    let beside = ["training_args", "optimizer", "scheduler", "rng_state", "scaler"];
    let names: Vec<&String> = names.iter().filter(|name| !beside.iter().any(|other| name.starts_with(other))).collect();
    let has = |suffix: &str| names.iter().find(|name| name.ends_with(suffix));
    if let Some(name) = has("adapter_model.safetensors") {
        return format!("found {name}, an adapter: give it as `adapter` beside the `base` that it was trained on");
    }
    let shards = ["zero_pp_rank", "pytorch_model_fsdp", "global_step"];
    if let Some(name) = has(".distcp").or_else(|| names.iter().find(|name| shards.iter().any(|shard| name.contains(shard)))) {
        return format!("found {name}, a training shard: consolidate it and save the model with save_pretrained(safe_serialization=True)");
    }
    if let Some(name) = has(".safetensors") {
        return format!("found {name}, expected {SINGLE}, or shards with {INDEX}; rename it if it holds the whole model");
    }
    if let Some(name) = has(".bin").or_else(|| has(".pt")).or_else(|| has(".pth")) {
        return format!("found {name}, a pickle, which is never loaded: convert it with save_pretrained(safe_serialization=True)");
    }
    if let Some(name) = has(".gguf") {
        return format!(
            "found {name}, quantised or in another layout: load it with from_pretrained(gguf_file={name:?}) and save it with save_pretrained"
        );
    }
    format!("no {SINGLE} and no {INDEX}; expected the weights in Hugging Face layout")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str]) -> Result<Option<Vec<String>>> {
        complete(names.iter().copied())
    }

    #[test]
    fn shards_without_an_index_count_when_all_are_there() {
        let [first, second] = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
        assert_eq!(of(&[second, "config.json", first]).unwrap(), Some(vec![first.to_owned(), second.to_owned()]));
        assert_eq!(of(&["config.json", "optimizer-00001-of-00002.safetensors"]).unwrap(), None);
        let said = of(&[second]).unwrap_err().to_string();
        assert!(said.contains(first) && said.contains(INDEX), "{said}");
        let said = of(&[first, second, "model-00001-of-00003.safetensors"]).unwrap_err().to_string();
        assert!(said.contains("00002") && said.contains("00003"), "{said}");
    }
}
