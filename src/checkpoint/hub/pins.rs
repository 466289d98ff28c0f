//! Manifests and the hub: patterns become checkpoints, revisions become commits, and a run that goes on is told when one has moved.

use super::{Hub, Part};
use crate::manifest::{CheckpointSpec, Listing, Manifest, Pin, Series, Source, Tokenizer};
use anyhow::{Context, Error, Result, anyhow, bail};
use serde_json::Value;
use std::path::Path;

impl Hub {
    /// Resolves everything in a manifest that is on the hub: lists the names of pending series and pins every source. A commit that the
    /// manifest names is taken, whatever its branch is at. Asks nothing for a manifest of folders.
    ///
    /// # Errors
    /// One sentence, with the line of the entry, for what is gated, missing, private or limited, for a revision that is not there and
    /// for a pattern that matches nothing.
    pub fn resolve(&self, manifest: &mut Manifest) -> Result<()> {
        if !manifest.uses_hub() {
            return Ok(());
        }
        let path = manifest.path.clone();
        let place = |line: usize, id: &str, error: Error| placed(&format!("{}:{line}: {id}", path.display()), error);
        manifest.expand(&mut |series| self.names(series).map_err(|error| place(series.line, &series.id, error)))?;
        for spec in &mut manifest.checkpoints {
            let commit = spec.commit.clone();
            let pinned = match &mut spec.adapter {
                Some(adapter) => self.pin(&mut spec.source, None).and_then(|()| self.pin(adapter, commit.as_deref())),
                None => self.pin(&mut spec.source, commit.as_deref()),
            };
            let mut beneath = || spec.beneath.iter_mut().try_for_each(|adapter| self.pin(adapter, None));
            pinned.and_then(|()| beneath()).map_err(|error| place(spec.line, &spec.id, error))?;
            spec.commit = spec.changing().commit().map(str::to_owned).or(commit);
        }
        if let Tokenizer::Source(source) = &mut manifest.model.tokenizer {
            self.pin(source, None).map_err(|error| placed(&manifest.model.tokenizer_place, error))?;
        }
        Ok(())
    }

    /// The names that a pattern is matched against.
    fn names(&self, series: &Series) -> Result<Vec<String>> {
        let pinned = |repo: &str, revision: &Option<String>| {
            let mut root = Source::Hub { repo: repo.to_owned(), revision: revision.clone(), subfolder: None, pin: None };
            self.pin(&mut root, None)?;
            root.commit().map(str::to_owned).with_context(|| format!("hub:{repo} was not pinned"))
        };
        match &series.listing() {
            Listing::Folder(folder) => bail!("{} is not on the hub", folder.display()),
            Listing::Revisions { repo } if self.environment.offline => Ok(self.store(repo).revisions()),
            Listing::Revisions { repo } => Ok(self.remote(repo)?.revisions.keys().cloned().collect()),
            Listing::Subfolders { repo, revision, parent } => {
                let tree = self.tree(repo, &pinned(repo, revision)?)?;
                series.names(&mut |below| Ok(tree.folders([parent, below].map(str::trim).join("/").trim_matches('/'))))
            }
            Listing::Commits { repo, .. } if self.environment.offline => {
                bail!("the commits of hub:{repo} are not in the cache; unset HF_HUB_OFFLINE to list them")
            }
            Listing::Commits { repo, revision } => self.remote(repo)?.titles(self.client()?, &pinned(repo, revision)?),
        }
    }

    /// The folders of a checkpoint, with everything that its walk needs in them.
    ///
    /// # Errors
    /// See [`Hub::fetch`].
    pub fn fetch_checkpoint(&self, spec: &CheckpointSpec) -> Result<()> {
        self.fetch(&spec.source, Part::Model)?;
        spec.adapters().try_for_each(|adapter| self.fetch(adapter, Part::Adapter).map(drop))
    }
}

/// Compares the pins of a manifest with those in the `run.json` of an earlier start. Entries that read from elsewhere now, and a run
/// that begins, pass.
///
/// # Errors
/// One sentence: what moved, from where to where, and what to do.
pub fn check_unmoved(manifest: &Manifest, run_file: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(run_file) else { return Ok(()) };
    let run: Value = serde_json::from_str(&text).with_context(|| format!("{}: not valid JSON", run_file.display()))?;
    let entries = run.get("checkpoints").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let compare = |before: &Value, key: &str, source: &Source, place: &str| -> Result<()> {
        let field = |name: &str| before.get(name).and_then(Value::as_str);
        let (Some(was), Some(now)) = (field(&format!("{key}commit")), source.commit()) else { return Ok(()) };
        if was == now || field(&format!("{key}source")) != Some(&source.to_string()) {
            return Ok(());
        }
        if let Source::Hub { pin: Some(Pin { named: true, .. }), .. } = source {
            bail!(
                "{place}: commit is {now}, but this run began with {was}; write the first one again, or delete {} to walk the other",
                run_file.display()
            );
        }
        bail!(
            "{place}: {source} has moved since this run began, from commit {was} to {now}; to go on with the first, write commit = {was:?} \
             into a [[checkpoint]] entry; to take the second, delete {}",
            run_file.display()
        )
    };
    for spec in &manifest.checkpoints {
        let Some(before) = entries.iter().find(|entry| entry.get("id").and_then(Value::as_str) == Some(&spec.id)) else { continue };
        let place = format!("{}: {}", manifest.place(spec.line), spec.id);
        if spec.adapter.is_some() {
            compare(before, "base_", &spec.source, &place)?;
        }
        compare(before, "", spec.changing(), &place)?;
    }
    if let Some(source) = manifest.tokenizer_source() {
        compare(&run, "tokenizer_", source, &manifest.model.tokenizer_place)?;
    }
    Ok(())
}

/// Whether a checkpoint's sources are pinned to these commits, which never change.
pub fn is_same(spec: &CheckpointSpec, commit: Option<&str>, base_commit: Option<&str>) -> bool {
    let is_pinned = |source: &Source, commit: Option<&str>| commit.is_some() && source.commit() == commit;
    let is_base = spec.adapter.is_none() || is_pinned(&spec.source, base_commit);
    // Commits of adapters in between are not recorded.
    is_base && spec.beneath.is_empty() && is_pinned(spec.changing(), commit)
}

fn placed(place: &str, error: Error) -> Error {
    if error.is::<crate::console::Interrupted>() { error } else { anyhow!("{place}: {error:#}") }
}
