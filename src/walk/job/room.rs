//! Whether a store fits on its disk, before anything is computed.

use super::Job;
use crate::guard::free_space;
use crate::manifest::{CheckpointSpec, Keep, Profile};
use crate::model::Checkpoint;
use anyhow::{Result, bail};
use indicatif::DecimalBytes;

impl Job {
    /// A sentence about `needed` bytes that the store's disk does not have, with the keys that would make them fewer.
    pub fn lacks_room(&self, needed: u64) -> Option<String> {
        let free = free_space(&self.folder).filter(|free| *free < needed)?;
        let mut ways = Vec::new();
        if self.manifest.run.keep == Keep::Activations {
            ways.push("[run] keep = \"measures\"");
        }
        if self.manifest.concepts.profile == Profile::Full {
            ways.push("[concepts] profile = \"quick\"");
        }
        ways.extend(["fewer [model] layers", "[run] out on another disk"]);
        Some(format!(
            "{}: the store needs {} and the disk has {} left; set {}",
            self.folder.display(),
            DecimalBytes(needed),
            DecimalBytes(free),
            ways.join(", or ")
        ))
    }

    /// Refuses to begin what cannot end. Checkpoints whose configuration is not here yet are not counted.
    pub(super) fn require_room(&self, specs: &[&CheckpointSpec]) -> Result<()> {
        let size = |spec: &&CheckpointSpec| {
            let (_, config, _) = Checkpoint::config_ignoring(spec.source.folder().ok()?, &self.manifest.model.ignore).ok()?;
            self.store_bytes(&config).ok()
        };
        match self.lacks_room(specs.iter().filter_map(size).map(|bytes| bytes as u64).sum()) {
            Some(sentence) => bail!(sentence),
            None => Ok(()),
        }
    }
}
