//! Checkpoints of a series whose folders are gone and whose readouts are there: trainers delete old
//! checkpoints (`save_total_limit`), and what was walked of them stays a part of the series.

use super::Record;
use crate::manifest::{CheckpointSpec, Manifest, Source};
use serde_json::Value;
use std::path::Path;

/// Puts back into a manifest what the last start found beside the checkpoints that are still there.
pub(super) fn keep(manifest: &mut Manifest) {
    let folder = &manifest.run.folder();
    let run = std::fs::read(folder.join("run.json")).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let before = run.as_ref().and_then(|run| run.pointer("/manifest/checkpoints")?.as_array());
    let mut kept = Vec::new();
    for spec in before.into_iter().flatten().filter_map(spec) {
        let is_known = manifest.checkpoints.iter().any(|other| other.id == spec.id);
        if is_known || !is_gone(&spec) || !is_walked(&spec.id, folder) {
            continue;
        }
        let siblings: Vec<usize> = (0..manifest.checkpoints.len()).filter(|&at| is_sibling(&spec, &manifest.checkpoints[at])).collect();
        let Some(last) = siblings.last() else { continue };
        let later = siblings.iter().find(|&&at| manifest.checkpoints[at].step > spec.step);
        kept.push(spec.id.clone());
        let (at, line) = (later.copied().unwrap_or(last + 1), manifest.checkpoints[*last].line);
        manifest.checkpoints.insert(at, CheckpointSpec { line, ..spec });
    }
    if !kept.is_empty() {
        for (order, spec) in manifest.checkpoints.iter_mut().enumerate() {
            spec.order = order;
        }
        tracing::info!(
            "{}: their folders are gone, what was read from them is kept (delete readouts/<id>.json to drop one)",
            kept.join(", ")
        );
    }
}

/// Whether the folder that makes it a checkpoint of its own is not there any more.
pub(super) fn is_gone(spec: &CheckpointSpec) -> bool {
    !spec.changing().is_hub() && spec.changing().folder().is_ok_and(|folder| !folder.exists())
}

fn is_walked(id: &str, folder: &Path) -> bool {
    let record = std::fs::read(folder.join("readouts").join(format!("{id}.json"))).ok();
    record.and_then(|text| serde_json::from_slice::<Record>(&text).ok()).is_some_and(|record| record.status == "ok")
}

/// Whether both are checkpoints of one series: folders beside each other, told apart by their steps.
fn is_sibling(one: &CheckpointSpec, other: &CheckpointSpec) -> bool {
    let parent = |spec: &CheckpointSpec| Some(spec.changing().folder().ok()?.parent()?.to_owned());
    let same = one.stage == other.stage && one.adapter.is_some() == other.adapter.is_some();
    same && one.step.is_some() && other.step.is_some() && parent(one).is_some() && parent(one) == parent(other)
}

/// An entry of `run.json`.
fn spec(value: &Value) -> Option<CheckpointSpec> {
    let text = |key: &str| Some(value.get(key)?.as_str()?.to_owned());
    let number = |key: &str| value.get(key).and_then(Value::as_u64);
    let source = |value: &Value| Source::parse(value.as_str()?, Path::new("")).ok();
    let beneath = value.get("beneath").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    Some(CheckpointSpec {
        id: text("id")?,
        source: source(value.get("source")?)?,
        adapter: value.get("adapter").and_then(source),
        beneath: beneath.iter().map(source).collect::<Option<_>>()?,
        stage: text("stage")?,
        step: number("step"),
        tokens: number("tokens"),
        commit: text("commit"),
        parents: Vec::new(),
        reference: value.get("reference")?.as_bool()?,
        reinitialised: false,
        order: 0,
        line: number("line")? as usize,
    })
}
