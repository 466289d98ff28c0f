//! Following a training: checkpoints are walked as they appear, and analysed after each round.
//!
//! A checkpoint is complete when it can be opened (its index names files that are there, and every file is as
//! long as its header says) and its files were the same at two looks. Nothing is asked of the trainer.

use super::tables;
use crate::checkpoint::identity;
use crate::lease::doze;
use crate::manifest::{CheckpointSpec, Manifest, NothingYet, Source};
use crate::walk::job::{Job, Outcome, State};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Two looks at a checkpoint are at least this far apart, or one round where rounds are shorter.
const SETTLING: Duration = Duration::from_secs(30);

/// What is known of checkpoints from earlier rounds.
#[derive(Default)]
struct Watch {
    /// What the files of a checkpoint were, and since when.
    seen: BTreeMap<String, (String, Instant)>,
    /// What they were when their walk failed: they are tried again when they change.
    failed: BTreeMap<String, String>,
}

/// Walks and analyses what is complete, every `every`, until `finished` (unless given, `finished` in the run
/// folder) is there: then the rest is walked as it is, and that is the outcome.
///
/// # Errors
/// The manifest is wrong from the start, the run folder is not writable or full, or an interrupt.
pub fn watch(path: &Path, every: Duration, finished: Option<&Path>) -> Result<Outcome> {
    let mut watch = Watch::default();
    let mut marker: Option<PathBuf> = finished.map(Path::to_owned);
    let mut started = false;
    loop {
        // Asked first: what was written before it was there is seen below.
        let is_last = marker.as_ref().is_some_and(|marker| marker.exists());
        let mut pause = every;
        match Manifest::load_growing(path).and_then(Job::new) {
            Ok(job) => {
                let marker = marker.get_or_insert_with(|| job.folder.join("finished"));
                if !started {
                    let (every, marker) = (every.as_secs(), marker.display());
                    tracing::info!("watching {} every {every} s; ends when {marker} is there, or at a signal", path.display());
                }
                started = true;
                if is_last || marker.exists() {
                    return tables::run(&job);
                }
                if !watch.round(&job, every.min(SETTLING))? {
                    pause = every.min(SETTLING);
                }
            }
            Err(error) if started || error.is::<NothingYet>() => tracing::warn!("nothing to walk yet: {error:#}"),
            Err(error) => return Err(error),
        }
        if is_last {
            bail!("{}: there is nothing to walk, and nothing will come", path.display());
        }
        let next = Instant::now() + pause;
        while Instant::now() < next && !marker.as_ref().is_some_and(|marker| marker.exists()) {
            doze((next - Instant::now()).min(Duration::from_secs(1)))?;
        }
    }
}

impl Watch {
    /// Walks what is ready and analyses if anything was walked. Whether all else is done too.
    fn round(&mut self, job: &Job, settling: Duration) -> Result<bool> {
        let now = Instant::now();
        let mut ready: BTreeMap<&str, String> = BTreeMap::new();
        let (mut settled, mut sources) = (true, BTreeSet::new());
        for spec in &job.manifest.checkpoints {
            let Some(key) = files(spec) else { continue };
            let state = job.state(spec);
            if matches!(state, State::Done) {
                sources.insert(spec.source.to_string());
                continue;
            }
            if self.failed.get(&spec.id) == Some(&key) {
                continue;
            }
            let since = match self.seen.get(&spec.id) {
                Some((seen, since)) if *seen == key => *since,
                _ => now,
            };
            self.seen.insert(spec.id.clone(), (key.clone(), since));
            let is_local = !spec.source.is_hub() || !spec.changing().is_hub();
            if is_local && (now.duration_since(since) < settling || !job.is_whole(spec)) {
                settled = false;
                continue;
            }
            sources.insert(spec.source.to_string());
            ready.insert(&spec.id, key);
        }
        if ready.is_empty() {
            return Ok(settled);
        }
        let wanted = |spec: &CheckpointSpec| {
            ready.contains_key(spec.id.as_str()) || spec.reinitialised && sources.contains(&spec.source.to_string())
        };
        let outcome = tables::round(job, &wanted);
        for (id, key) in &ready {
            if job.record(id).is_some_and(|record| record.status == "failed") {
                self.failed.insert((*id).to_owned(), key.clone());
            }
        }
        match outcome {
            Ok(_) => Ok(settled),
            // All that was ready has failed; others will come.
            Err(error) if !self.failed.is_empty() && !job.has_readouts() => {
                tracing::warn!("no tables yet: {error:#}");
                Ok(settled)
            }
            Err(error) => Err(error),
        }
    }
}

/// What the files of a checkpoint are now; nothing where a folder is not there. What is on the hub stays as
/// it is.
fn files(spec: &CheckpointSpec) -> Option<String> {
    let sources = std::iter::once(&spec.source).chain(spec.adapters());
    let keys: Option<Vec<String>> =
        sources.filter(|source| !source.is_hub()).map(|source: &Source| identity::stat_key(source.folder().ok()?).ok()).collect();
    Some(keys?.join(" "))
}
