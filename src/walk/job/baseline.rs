//! The first checkpoint's architecture with random weights, walked like a checkpoint: what a network reaches that has learned nothing.

use super::Job;
use crate::manifest::{CheckpointSpec, Manifest};
use crate::model::Checkpoint;
use anyhow::{Result, ensure};

/// Its id, and the stage that tables give it.
const ID: &str = "reinitialised";
const STAGE: &str = "baseline";
/// A run with another seed draws other resamples, not another network.
pub(super) const SEED: u64 = 0;

/// The entry of the baseline behind those of a manifest; `None` where it is not wanted. It has the architecture of the first checkpoint whose
/// vocabulary has `max_token`, as far as that is known without a download.
///
/// # Errors
/// A checkpoint has its id.
pub(super) fn entry(manifest: &Manifest, max_token: i64) -> Result<Option<CheckpointSpec>> {
    let is_small = |spec: &&CheckpointSpec| {
        let config = spec.source.folder().ok().and_then(|folder| Checkpoint::config(folder).ok());
        config.is_some_and(|(_, config, _)| config.d_vocab <= max_token)
    };
    let fitting = manifest.checkpoints.iter().find(|spec| !is_small(spec)).or(manifest.checkpoints.first());
    let Some(first) = fitting.filter(|_| manifest.run.baseline) else { return Ok(None) };
    if let Some(taken) = manifest.checkpoints.iter().find(|spec| spec.id == ID) {
        let place = manifest.place(taken.line);
        ensure!(false, "{place}: the id {ID:?} is that of the network with random weights; choose another, or set [run] baseline = false");
    }
    Ok(Some(CheckpointSpec {
        id: ID.to_owned(),
        source: first.source.clone(),
        adapter: None,
        beneath: Vec::new(),
        stage: STAGE.to_owned(),
        step: None,
        tokens: None,
        commit: first.source.commit().map(str::to_owned),
        parents: Vec::new(),
        reference: false,
        reinitialised: true,
        order: manifest.checkpoints.len(),
        line: first.line,
    }))
}

impl Job {
    /// All that is walked: the baseline first, while the files of the checkpoint whose architecture it has are at hand, and the
    /// checkpoints in order.
    pub fn entries(&self) -> impl Iterator<Item = &CheckpointSpec> {
        self.baseline.iter().chain(&self.manifest.checkpoints)
    }
}
