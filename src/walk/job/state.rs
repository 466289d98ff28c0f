//! How far a checkpoint is: complete, as the files of its store prove, at work, failed or waiting.

use super::{Job, bases, kept};
use crate::checkpoint::hub;
use crate::checkpoint::weights;
use crate::lease::{self, Other};
use crate::manifest::CheckpointSpec;
use crate::model::Checkpoint;
use crate::model::device;
use crate::walk::store::Readouts;
use serde_json::json;
use std::path::PathBuf;

/// How far a checkpoint is.
#[derive(Debug)]
pub enum State {
    Waiting,
    Running(Other),
    Done,
    /// Its last walk failed, for this reason.
    Failed(String),
}

impl Job {
    pub(super) fn lease_path(&self, id: &str) -> PathBuf {
        self.folder.join("readouts").join(format!("{id}.lease"))
    }

    /// How far a checkpoint is. One that is being walked again is running.
    pub fn state(&self, spec: &CheckpointSpec) -> State {
        if let Some(other) = lease::look(&self.lease_path(&spec.id)) {
            return State::Running(other);
        }
        let failed =
            self.record(&spec.id).filter(|record| record.status == "failed" && bases::same_places(&record.source, &bases::source(spec)));
        match failed.and_then(|record| record.error) {
            Some(error) => State::Failed(error),
            None if self.is_complete(spec) => State::Done,
            None => State::Waiting,
        }
    }

    /// Whether the files of a checkpoint are all there, as long as their headers say.
    pub fn is_whole(&self, spec: &CheckpointSpec) -> bool {
        self.open(spec).is_ok()
    }

    /// Whether any checkpoint has readouts.
    pub fn has_readouts(&self) -> bool {
        self.manifest.checkpoints.iter().any(|spec| self.readout_path(&spec.id).is_file())
    }

    /// Whether the store holds what would be computed: same weights, same items, same layers.
    pub fn is_complete(&self, spec: &CheckpointSpec) -> bool {
        let complete = || -> Option<bool> {
            let record = self.record(&spec.id).filter(|record| record.status == "ok")?;
            let readouts = Readouts::open(&self.readout_path(&spec.id)).ok()?;
            let layers: Vec<usize> = self.manifest.model.layers.resolve(record.n_layers? as usize).ok()?;
            let device = if self.looking { device::named(&record.device) } else { self.device };
            // The dtype of `auto` is the checkpoint's own.
            let compute = device::compute(device, self.manifest.model.dtype, weights::kind(record.dtype.as_deref()?));
            let request = self.request(&layers, compute).hash();
            let fingerprint = record.fingerprint.as_deref();
            let same_request = readouts.metadata("request") == Some(request.as_str()) && readouts.metadata("fingerprint") == fingerprint;
            let answers = readouts.contains("answers.rows");
            let intervened =
                || Some(spec.reinitialised || !answers || self.is_intervened(&spec.id, record.n_layers? as usize, compute, fingerprint));
            // A record of before says nothing about that.
            let names: Vec<&str> = self.manifest.model.readouts.iter().map(|readout| readout.name()).collect();
            let finite = || record.finite || readouts.is_finite(&names);
            if !same_request || !finite() || !intervened()? {
                return Some(false);
            }
            // The weights of a commit may have been deleted after their walk.
            let same_source = record.source == bases::source(spec);
            let same_commit = same_source && hub::is_same(spec, record.commit.as_deref(), record.base_commit.as_deref());
            let same_files = || Some(bases::stat_key(spec).ok()? == record.stat_key.clone()?);
            let same_weights = || Some(self.open(spec).ok()?.fingerprint() == record.fingerprint.clone()?);
            // Nothing is there any more that could say otherwise.
            let gone = || kept::is_gone(spec) && bases::same_places(&record.source, &bases::source(spec));
            Some(same_commit || gone() || same_files()? || same_weights()?)
        };
        complete().unwrap_or(false)
    }

    /// An earlier file of the same weights at the same layers, whose rows can be taken over where items did
    /// not change.
    pub(super) fn reusable(&self, spec: &CheckpointSpec, checkpoint: &Checkpoint, layers: &[usize], stat_key: &str) -> Option<Readouts> {
        let record = self.record(&spec.id).filter(|record| record.status == "ok" && record.device == device::name(self.device))?;
        let readouts = Readouts::open(&self.readout_path(&spec.id)).ok()?;
        let compute = device::compute(self.device, self.manifest.model.dtype, checkpoint.weights.kind());
        let same_weights = record.stat_key.as_deref() == Some(stat_key) || Some(checkpoint.fingerprint()) == record.fingerprint;
        let same_layers = readouts.metadata("layers") == Some(json!(layers).to_string().as_str());
        let same_dtype = readouts.metadata("compute") == Some(device::dtype_name(compute.kind));
        (same_weights && same_layers && same_dtype && readouts.metadata("fingerprint") == record.fingerprint.as_deref()).then_some(readouts)
    }
}
