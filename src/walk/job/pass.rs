//! The main loop: walk every checkpoint that is not complete, write after each, go on after a failure.
//! Several processes may be at it.

use super::{Job, Outcome, Record, bases};
use crate::checkpoint::hub::{self, Hub};
use crate::console::{Interrupted, check_interrupt, run_bar};
use crate::guard::sentence;
use crate::lease::{self, Lease, Taken};
use crate::manifest::{CheckpointSpec, Manifest};
use crate::model::device;
use crate::table;
use crate::walk::readout::Common;
use crate::walk::{interventions, introspection, stitching, talks};
use anyhow::{Context, Error, Result, ensure};
use serde_json::Value;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::time::{Instant, SystemTime};

/// A checkpoint that somebody else was walking when it was to be downloaded.
#[derive(Debug, thiserror::Error)]
#[error("not downloaded, as another process was walking it")]
struct NotFetched;

/// A checkpoint that is not complete, and its number among those that were wanted.
#[derive(Clone, Copy)]
struct Open<'a> {
    number: usize,
    spec: &'a CheckpointSpec,
    /// When its record was written that was there as this walk began.
    recorded: Option<SystemTime>,
}

/// One walk of this process.
struct Walk<'a> {
    job: &'a Job,
    wanted: usize,
    outcome: Outcome,
    common: Option<Common>,
}

impl Job {
    /// Walks the entries that `wanted` accepts and that are not complete, beginning with number `first` of
    /// them and going round; the outcome counts checkpoints. Every checkpoint is written before the next
    /// begins; one that fails becomes a record with its error, and the walk goes on.
    ///
    /// # Errors
    /// The run folder is not writable or full, or [`Interrupted`].
    pub fn walk_from(&self, first: usize, wanted: &dyn Fn(&CheckpointSpec) -> bool) -> Result<Outcome> {
        let specs: Vec<&CheckpointSpec> = self.entries().filter(|spec| wanted(spec)).collect();
        let mut walk = Walk { job: self, wanted: specs.len(), outcome: Outcome::default(), common: None };
        let (complete, mut open): (Vec<Open>, Vec<Open>) = specs
            .iter()
            .enumerate()
            .map(|(number, &spec)| Open { number, spec, recorded: self.recorded(&spec.id) })
            .partition(|open| self.is_complete(open.spec));
        walk.outcome.skipped = complete.iter().filter(|open| !open.spec.reinitialised).count();
        let turn = open.partition_point(|open| open.number < first % specs.len().max(1));
        // Several processes of one command begin at places that are far from each other.
        let apart = self.turn.map_or(0, |(number, of)| open.len() * number / of.max(1));
        let begin = (turn + apart) % open.len().max(1);
        open.rotate_left(begin);
        for folder in ["", "readouts", interventions::FOLDER, stitching::FOLDER, introspection::FOLDER, talks::CONTEXT, talks::REPLAY] {
            lease::sweep(&self.folder.join(folder));
        }
        let rest: Vec<&CheckpointSpec> = open.iter().map(|open| open.spec).collect();
        self.prepare(&rest)?;
        self.require_room(&rest)?;
        self.write_run_files()?;
        while !open.is_empty() {
            let busy = walk.pass(&open)?;
            open.clear();
            for (checkpoint, seen) in busy {
                if lease::outlast(&self.lease_path(&checkpoint.spec.id), seen)? {
                    open.push(checkpoint);
                } else {
                    walk.outcome.busy += usize::from(!checkpoint.spec.reinitialised);
                }
            }
        }
        self.write_tables()?;
        Ok(walk.outcome)
    }

    /// As [`Job::walk_from`] the first.
    ///
    /// # Errors
    /// As [`Job::walk_from`].
    pub fn walk(&self, wanted: &dyn Fn(&CheckpointSpec) -> bool) -> Result<Outcome> {
        self.walk_from(0, wanted)
    }

    fn run_lease(&self) -> Result<Lease> {
        Lease::wait(&self.folder.join("run.lease"), "writes the files of the run")
    }

    /// Writes `run.json` and `items.parquet`, unless a process that began after this one has written what the
    /// manifest says by now.
    fn write_run_files(&self) -> Result<()> {
        let _lease = self.run_lease()?;
        if let Some(job) = self.successor() {
            let place = self.manifest.path.display();
            ensure!(job.set.hash() == self.set.hash(), "{place}: what it asks has changed while this process began; start again");
            return Ok(());
        }
        self.write_run_file()?;
        table::write(&self.folder.join("items.parquet"), &self.set.items, &self.hash())
    }

    /// Writes `integrity.parquet` and `checkpoints.parquet` from what all processes have walked so far. Where
    /// the manifest has changed since this one began and another has started with it, its list of checkpoints
    /// is the one that counts.
    fn write_tables(&self) -> Result<()> {
        let _lease = self.run_lease()?;
        if let Some(job) = self.successor() {
            return job.write_found();
        }
        if !self.is_run() {
            let place = self.folder.display();
            tracing::warn!("{place}: a process with other settings has begun; integrity.parquet and checkpoints.parquet are left to it");
            return Ok(());
        }
        self.write_found()
    }

    fn run_file(&self) -> Option<Value> {
        serde_json::from_slice(&std::fs::read(self.folder.join("run.json")).ok()?).ok()
    }

    /// Whether `run.json` lists the same checkpoints and items, wherever it was written from.
    fn is_run(&self) -> bool {
        let Some(run) = self.run_file() else { return true };
        let listed = run.get("checkpoints").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let ids = listed.iter().map(|point| point.get("id").and_then(Value::as_str));
        let same_items = run.get("items").and_then(Value::as_str) == Some(&self.set.hash());
        same_items && ids.eq(self.manifest.checkpoints.iter().map(|spec| Some(spec.id.as_str())))
    }

    /// What the manifest says now, if it is something else than what this process began with and another
    /// process has begun with it.
    fn successor(&self) -> Option<Self> {
        let run = self.run_file()?;
        let hash = run.get("run_hash")?.as_str().filter(|hash| *hash != self.hash())?;
        let job = Manifest::load_growing(&self.manifest.path).and_then(Self::new).ok()?;
        (job.hash() == hash).then_some(job)
    }

    fn write_found(&self) -> Result<()> {
        let findings = self.audit(false);
        self.write_integrity(&findings)?;
        self.write_checkpoints(&findings)
    }
}

impl<'a> Walk<'a> {
    /// Walks what is open, and returns what other processes are walking and when that was seen.
    fn pass(&mut self, open: &[Open<'a>]) -> Result<Vec<(Open<'a>, Instant)>> {
        let job = self.job;
        let leases: Vec<PathBuf> = open.iter().map(|open| job.lease_path(&open.spec.id)).collect();
        let hub: &Hub = &job.hub;
        let fetch = |position: usize| match lease::look(&leases[position]) {
            Some(_) => Err(NotFetched.into()),
            None => hub.fetch_checkpoint(open[position].spec),
        };
        let positions: Vec<usize> = (0..open.len()).collect();
        let mut busy = Vec::new();
        let whole = run_bar(open.len());
        let done = hub::ahead(hub, &positions, &fetch, &mut |position, fetched| {
            check_interrupt()?;
            whole.set_position(position as u64);
            let Open { number, spec, recorded } = open[position];
            let label = format!("[{}/{}] {}", number + 1, self.wanted, spec.id);
            // Until this checkpoint is done.
            let lease = match Lease::take(&leases[position])? {
                Taken::Ours(_) if job.is_complete(spec) => {
                    if job.turn.is_none() {
                        tracing::info!("{label}: another process has walked it");
                    }
                    self.outcome.skipped += usize::from(!spec.reinitialised);
                    return Ok(());
                }
                // It would fail again, and each of many processes would try.
                Taken::Ours(_) if job.ended_since(&spec.id, recorded).is_some_and(|record| record.status == "failed") => {
                    if job.turn.is_none() {
                        tracing::warn!("{label}: another process has just tried it, and failed");
                    }
                    self.outcome.failed += 1;
                    return Ok(());
                }
                Taken::Ours(lease) => lease,
                Taken::Theirs(other) => {
                    if job.turn.is_none() {
                        let silence = lease::SILENCE.as_secs();
                        tracing::warn!(
                            "{label}: is being walked by {other}; going on to the next (taken over after {silence} s of silence)"
                        );
                    }
                    busy.push((open[position], Instant::now()));
                    return Ok(());
                }
            };
            let fetched = match fetched {
                Err(error) if error.is::<NotFetched>() => hub.fetch_checkpoint(spec),
                fetched => fetched,
            };
            self.walk(spec, &label, fetched, &lease)?;
            if !job.manifest.keep {
                // Another process may be at an entry that nobody has a record of.
                let is_open =
                    |other: &&CheckpointSpec| other.id != spec.id && !job.record(&other.id).is_some_and(|record| record.is_over());
                let rest = open[position + 1..].iter().map(|open| open.spec);
                let others: Vec<&CheckpointSpec> = job.entries().filter(is_open).chain(rest).collect();
                if let Err(error) = hub.release_checkpoint(spec, &others) {
                    tracing::warn!("{label}: {}", sentence(&error));
                }
            }
            Ok(())
        });
        whole.finish_and_clear();
        done.map(|()| busy)
    }

    /// Walks a checkpoint that is at hand and keeps a record of it, also of a failure.
    fn walk(&mut self, spec: &CheckpointSpec, label: &str, fetched: Result<()>, lease: &Lease) -> Result<()> {
        let job = self.job;
        let walked = fetched.and_then(|()| job.walk_one(spec, label, &mut self.common, lease));
        match walked.and_then(|record| if spec.reinitialised { Ok(record) } else { job.intervene(spec, record, label, lease) }) {
            Ok(record) => {
                let seconds = record.seconds_read + record.seconds_compute;
                tracing::info!("{label}: {} nodes for {} tokens in {seconds:.1} s", record.nodes, record.tokens);
                job.write_record(spec, &record)?;
                self.outcome.walked += usize::from(!spec.reinitialised);
            }
            Err(error) if error.is::<Interrupted>() => return Err(error),
            Err(error) if is_full(&error) => {
                return Err(error).with_context(|| format!("{label}: what is complete is kept; make room and run the same command again"));
            }
            Err(error) => {
                let message = sentence(&error);
                tracing::error!("{label}: failed: {message}");
                let failed = Record {
                    source: bases::source(spec),
                    commit: spec.commit.clone(),
                    device: device::name(job.device),
                    status: "failed".to_owned(),
                    error: Some(message),
                    ..Record::default()
                };
                job.write_record(spec, &failed)?;
                self.outcome.failed += 1;
            }
        }
        Ok(())
    }
}

/// Whether a file could not be written for a reason that the next checkpoint would meet too.
fn is_full(error: &Error) -> bool {
    let kinds = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>()).map(std::io::Error::kind);
    kinds.into_iter().any(|kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::ReadOnlyFilesystem))
}
