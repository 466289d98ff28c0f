//! Opening what an entry of the manifest names: a model, or a base with an adapter. The base of a series of adapters is opened once.

use super::Job;
use super::baseline::SEED;
use crate::checkpoint::identity;
use crate::manifest::{CheckpointSpec, Source};
use crate::model::Checkpoint;
use crate::walk::readout::Common;
use anyhow::Result;
use std::sync::PoisonError;

/// The sources of an entry, as people read them.
pub(super) fn source(spec: &CheckpointSpec) -> String {
    std::iter::once(&spec.source).chain(spec.adapters()).map(ToString::to_string).collect::<Vec<_>>().join(" + ")
}

/// Whether two texts of [`source`] name the same places, however the manifest was named when they were written.
pub(super) fn same_places(one: &str, other: &str) -> bool {
    let places = |text: &str| text.split(" + ").map(|place| std::path::absolute(place).ok()).collect::<Vec<_>>();
    one == other || places(one) == places(other)
}

/// What the files of an entry are, adapter included.
pub(super) fn stat_key(spec: &CheckpointSpec) -> Result<String> {
    let base = identity::stat_key(spec.source.folder()?)?;
    spec.adapters().try_fold(base, |below, adapter| {
        Ok(blake3::hash(format!("{below} {}", identity::stat_key(adapter.folder()?)?).as_bytes()).to_hex().to_string())
    })
}

impl Job {
    /// Opens a checkpoint. Entries over one base share its tensors, so it is hashed once.
    ///
    /// # Errors
    /// As [`Checkpoint::open_ignoring`] and [`Checkpoint::with_adapters`].
    pub fn open(&self, spec: &CheckpointSpec) -> Result<Checkpoint> {
        let folder = spec.source.folder()?;
        let adapters = spec.adapters().map(Source::folder).collect::<Result<Vec<_>>>()?;
        let open = || Checkpoint::open_ignoring(folder, &self.manifest.model.ignore);
        let checkpoint = |base: &Checkpoint| if spec.reinitialised { base.reinitialised(SEED) } else { base.with_adapters(&adapters) };
        if !folder.is_dir() {
            return checkpoint(&open()?);
        }
        let key = format!("{} {}", folder.display(), identity::stat_key(folder)?);
        let mut last = self.base.lock().unwrap_or_else(PoisonError::into_inner);
        if last.as_ref().is_none_or(|(known, _)| *known != key) {
            *last = Some((key, open()?));
        }
        match last.as_ref() {
            Some((_, base)) => checkpoint(base),
            None => checkpoint(&open()?),
        }
    }

    /// Makes `common` fit a checkpoint: the layers that no adapter over its base in this manifest reaches. Nothing where only one
    /// checkpoint has this base.
    pub(super) fn prepare_common(&self, spec: &CheckpointSpec, checkpoint: &Checkpoint, common: &mut Option<Common>) -> Result<()> {
        let family: Vec<&CheckpointSpec> = self.manifest.checkpoints.iter().filter(|other| other.source == spec.source).collect();
        let base = identity::stat_key(spec.source.folder()?)?;
        if family.len() < 2 {
            *common = None;
            return Ok(());
        }
        // One that cannot be opened will say so when it is its turn.
        let reached = family.iter().filter(|other| other.adapter.is_some()).filter_map(|other| self.open(other).ok());
        let layers = reached.map(|other| other.unchanged_layers().unwrap_or(0));
        let layer = layers.chain([checkpoint.unchanged_layers().unwrap_or(0)]).min().unwrap_or(0);
        if layer == 0 {
            *common = None;
        } else if common.as_ref().is_none_or(|common| common.base != base || layer < common.layer) {
            *common = Some(Common::new(base, layer));
        }
        Ok(())
    }
}
