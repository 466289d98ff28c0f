//! What a run says of itself: a record per checkpoint, `checkpoints.parquet` and `run.json`.

use super::{Job, bases};
use crate::manifest::{CheckpointSpec, Readout, Source};
use crate::model::Checkpoint;
use crate::table::{self, Key, LAYER_CONVENTION, write_atomically};
use crate::walk::audit::Finding;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::time::SystemTime;

/// One row of `checkpoints.parquet` behind the keys: how a checkpoint was walked, and what a later run needs to know that nothing
/// changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// Where the weights were read from.
    pub source: String,
    /// The commit that a hub source was pinned to.
    pub commit: Option<String>,
    /// That of the model under an adapter, if it is on the hub.
    pub base_commit: Option<String>,
    /// Digest of all tensors.
    pub fingerprint: Option<String>,
    /// Class of the model, as transformers calls it.
    pub architecture: Option<String>,
    /// Parameters.
    pub n_params: Option<i64>,
    /// Blocks.
    pub n_layers: Option<i32>,
    /// Width of the residual stream.
    pub d_model: Option<i32>,
    /// Type of the weights' numbers.
    pub dtype: Option<String>,
    /// Where it was computed.
    pub device: String,
    /// Prompt tokens before sharing.
    pub tokens: i64,
    /// Distinct prefixes that were computed.
    pub nodes: i64,
    /// Items of the run.
    pub items: i64,
    /// Items whose readouts were taken over from an earlier walk.
    pub reused_items: i64,
    /// Layers that were taken over from an earlier walk over the same base.
    pub shared_layers: Option<i32>,
    /// Wall time of opening and planning.
    pub seconds_read: f64,
    /// Wall time of everything after.
    pub seconds_compute: f64,
    /// Largest memory that the process had resident.
    pub peak_bytes: Option<i64>,
    /// `ok`, `failed` or `not_run`.
    pub status: String,
    /// What went wrong, as one sentence.
    pub error: Option<String>,
    /// What is to be known of how the weights were read: ignored keys, a head that is not tied, or none.
    #[serde(default)]
    pub notes: Option<String>,
    /// Why the analysis leaves it out although it was walked: a finding of the integrity audit.
    #[serde(default)]
    pub left_out: Option<String>,
    /// All of its activations are finite.
    #[serde(default)]
    pub finite: bool,
    /// Inodes, sizes and times of the files, hashed.
    pub stat_key: Option<String>,
    /// Hash of what was asked.
    pub request: Option<String>,
    /// Layers that were kept.
    pub layers: Vec<i32>,
}

impl Record {
    /// Whether its walk has come to an end, well or not.
    pub(super) fn is_over(&self) -> bool {
        self.status == "ok" || self.status == "failed"
    }
}

impl Job {
    fn record_path(&self, id: &str) -> PathBuf {
        self.folder.join("readouts").join(format!("{id}.json"))
    }

    /// The record of an earlier walk.
    pub fn record(&self, id: &str) -> Option<Record> {
        serde_json::from_str(&std::fs::read_to_string(self.record_path(id)).ok()?).ok()
    }

    /// When the record of a checkpoint was written, by the clock that gives files their times.
    pub fn recorded(&self, id: &str) -> Option<SystemTime> {
        std::fs::metadata(self.record_path(id)).and_then(|file| file.modified()).ok()
    }

    /// The record of a checkpoint if it was written since [`Job::recorded`] said `before`, by a walk that came to an end, well or not.
    pub fn ended_since(&self, id: &str, before: Option<SystemTime>) -> Option<Record> {
        if self.recorded(id) == before {
            return None;
        }
        self.record(id).filter(Record::is_over)
    }

    pub(super) fn write_record(&self, spec: &CheckpointSpec, record: &Record) -> Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        write_atomically(&self.record_path(&spec.id), &text)
    }

    /// Writes `checkpoints.parquet` from the records that are there and the findings of the integrity audit.
    ///
    /// # Errors
    /// The run folder is not writable.
    pub(super) fn write_checkpoints(&self, findings: &[(Key, Finding)]) -> Result<()> {
        let row = |spec: &CheckpointSpec| {
            let missing = || Record { source: bases::source(spec), status: "not_run".to_owned(), ..Record::default() };
            let excluded = findings.iter().find(|(key, finding)| finding.excluded && key.checkpoint == spec.id);
            let left_out = excluded.map(|(_, finding)| format!("{}: {}", finding.kind, finding.detail));
            (self.key(spec), Record { left_out, ..self.record(&spec.id).unwrap_or_else(missing) })
        };
        let rows: Vec<(Key, Record)> = self.manifest.checkpoints.iter().chain(&self.baseline).map(row).collect();
        table::write_keyed(&self.folder.join("checkpoints.parquet"), &rows, &self.hash())
    }

    pub(super) fn key(&self, spec: &CheckpointSpec) -> Key {
        Key {
            run: self.manifest.run.name.clone(),
            checkpoint: spec.id.clone(),
            stage: spec.stage.clone(),
            step: spec.step.map(|step| step as i64),
            order: spec.order as i32,
        }
    }

    /// Digest of the resolved manifest and of every item.
    pub fn hash(&self) -> String {
        let manifest = serde_json::to_string(&self.manifest).unwrap_or_default();
        blake3::hash(format!("{manifest}{}", self.set.hash()).as_bytes()).to_hex().to_string()
    }

    /// Writes `run.json`: what an analysis needs to know, and the resolved manifest.
    pub(super) fn write_run_file(&self) -> Result<()> {
        let checkpoints: Vec<_> = self.manifest.checkpoints.iter().map(|spec| {
            json!({
                "id": spec.id, "stage": spec.stage, "step": spec.step, "tokens": spec.tokens, "order": spec.order, "reference": spec.reference,
                "source": spec.changing(), "commit": spec.commit,
                "base_source": spec.adapter.as_ref().map(|_| &spec.source), "base_commit": spec.base_commit(),
            })
        }).collect();
        let tokenizer = self.manifest.tokenizer_source();
        let layers = self.manifest.checkpoints.iter().rev().find_map(|spec| {
            let ignore = &self.manifest.model.ignore;
            let depth = || Some(Checkpoint::config_ignoring(spec.source.folder().ok()?, ignore).ok()?.1.n_layers);
            let n_layers = depth().or_else(|| Some(self.record(&spec.id)?.n_layers? as usize))?;
            self.manifest.model.layers.resolve(n_layers).ok()
        });
        let run = json!({
            "run": self.manifest.run.name,
            "seed": self.manifest.run.seed,
            "axis": self.manifest.run.axis,
            "flips": self.manifest.analysis.flips,
            "bootstraps": self.manifest.analysis.bootstraps,
            "evidence": self.manifest.evidence,
            "layers": layers.unwrap_or_default(),
            "layer_convention": LAYER_CONVENTION,
            "readouts": self.manifest.model.readouts.iter().map(|readout: &Readout| readout.name()).collect::<Vec<_>>(),
            "checkpoints": checkpoints,
            "baseline": self.baseline.as_ref().map(|spec| &spec.id),
            "tokenizer_source": tokenizer,
            "tokenizer_commit": tokenizer.and_then(Source::commit),
            "version": env!("CARGO_PKG_VERSION"),
            "items": self.set.hash(),
            "ruler": self.ruler.hash()?,
            "run_hash": self.hash(),
            "manifest": self.manifest,
        });
        let text = serde_json::to_vec_pretty(&run)?;
        write_atomically(&self.folder.join("run.json"), &text)
    }
}
