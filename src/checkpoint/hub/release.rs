//! Weights that may be deleted: those that this run downloaded, once their checkpoint has been walked. What was in the cache before is
//! somebody else's.

use super::{Hub, Part, Place, lock};
use crate::manifest::{CheckpointSpec, Source};
use anyhow::{Context, Result};
use std::io::Write;
use std::path::{Path, PathBuf};

impl Hub {
    /// From now on, weights that are downloaded may be deleted by [`Hub::release`]. `file` remembers which they are, so that a run that
    /// was interrupted cleans up when it goes on.
    pub fn delete_after_use(&self, file: PathBuf) {
        let before = std::fs::read_to_string(&file).unwrap_or_default().lines().map(PathBuf::from).collect();
        *lock(&self.own) = Some((file, before));
    }

    /// Notes that a blob is going to be downloaded by this run.
    pub(super) fn own(&self, blob: &Path) -> Result<()> {
        if let Some((file, blobs)) = lock(&self.own).as_mut().filter(|(_, blobs)| !blobs.contains(blob)) {
            let open = std::fs::OpenOptions::new().create(true).append(true).open(&*file);
            let written = open.and_then(|mut output| writeln!(output, "{}", blob.display()));
            written.with_context(|| format!("{}: cannot be written", file.display()))?;
            blobs.insert(blob.to_owned());
        }
        Ok(())
    }

    /// Deletes weights that this run downloaded for a source, unless another snapshot uses them. Does nothing before
    /// [`Hub::delete_after_use`].
    ///
    /// # Errors
    /// A file cannot be deleted.
    pub fn release(&self, source: &Source, part: Part) -> Result<()> {
        let Some(place) = Place::of(source)? else { return Ok(()) };
        let own = lock(&self.own);
        let Some((_, blobs)) = own.as_ref() else { return Ok(()) };
        let (store, tree) = (self.store(place.repo), self.tree(place.repo, place.commit)?);
        let _links = lock(&self.links);
        // A checkpoint that failed for want of weights has none to delete.
        for (path, file) in self.weights(&place, part, &tree).unwrap_or_default() {
            let (blob, pointer) = (store.blob(&file.etag), store.snapshot(place.commit).join(path));
            if !blobs.contains(&blob) {
                continue;
            }
            let unlink = |path: &Path| std::fs::remove_file(path).with_context(|| format!("{}: cannot be deleted", path.display()));
            if !store.is_shared(place.commit, &blob) && blob.exists() {
                unlink(&blob)?;
            }
            if pointer.symlink_metadata().is_ok() {
                unlink(&pointer)?;
            }
        }
        Ok(())
    }

    /// Deletes what the walk of a checkpoint has left, if that was asked for, and what `others` do not need.
    ///
    /// # Errors
    /// See [`Hub::release`].
    pub fn release_checkpoint(&self, spec: &CheckpointSpec, others: &[&CheckpointSpec]) -> Result<()> {
        let is_needed =
            |source: &Source| others.iter().any(|other| other.source == *source || other.adapters().any(|other| other == source));
        if !is_needed(&spec.source) {
            self.release(&spec.source, Part::Model)?;
        }
        let mut adapters = spec.adapters().filter(|adapter| !is_needed(adapter));
        adapters.try_for_each(|adapter| self.release(adapter, Part::Adapter))
    }
}
