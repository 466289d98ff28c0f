//! The main job, walk and tables, and the tables alone, which one process at a time writes.

use crate::analysis;
use crate::console::say;
use crate::lease::{Lease, Taken};
use crate::manifest::CheckpointSpec;
use crate::report::page::AtHand;
use crate::report::{check, ended, hypotheses, summary};
use crate::series::Series;
use crate::walk::job::{Job, Outcome};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// What became of the tables of a store.
pub struct Updated {
    /// What was written, as far as a page shows it; `None` where the tables were up to date.
    pub written: Option<AtHand>,
    /// Checkpoints that they are without.
    pub left_out: usize,
}

/// The lease on the tables of a run folder.
pub fn lease_path(folder: &Path) -> PathBuf {
    folder.join("tables.lease")
}

/// Walks the entries that `wanted` accepts and brings the tables up to date, without dictionaries: those are of all checkpoints at once.
///
/// # Errors
/// As [`Job::walk`] and [`update`].
pub fn round(job: &Job, wanted: &dyn Fn(&CheckpointSpec) -> bool) -> Result<Outcome> {
    finish(job, job.walk(wanted)?)
}

/// Walks everything, and does what comes after a walk.
///
/// # Errors
/// As [`Job::walk`] and [`after`].
pub fn run(job: &Job) -> Result<Outcome> {
    after(job, job.walk(&|_| true)?)
}

/// Fits the dictionaries that the manifest asks for, and brings the tables up to date.
///
/// # Errors
/// As [`Job::fit_dictionaries`] and [`update`].
pub fn after(job: &Job, outcome: Outcome) -> Result<Outcome> {
    job.fit_dictionaries()?;
    finish(job, outcome)
}

fn finish(job: &Job, mut outcome: Outcome) -> Result<Outcome> {
    let Updated { written, left_out } = update(&job.folder)?;
    let idle = outcome.walked == 0 && outcome.failed == 0 && written.is_none();
    outcome.failed = outcome.failed.max(left_out);
    if written.is_some() {
        say(&check::findings(&job.audit(false)));
    }
    ended::after(&job.folder, job.manifest.run.report, written.as_ref());
    if idle {
        tracing::info!("{}: everything is up to date, nothing to do", job.folder.display());
    }
    Ok(outcome)
}

/// Writes the tables of a store and prints what they say, unless they are up to date. While another process
/// writes them this one waits.
///
/// # Errors
/// As [`Series::open`] and [`analysis::analyze`], or an interrupt.
pub fn update(folder: &Path) -> Result<Updated> {
    let mut said = false;
    loop {
        let series = Series::open(folder)?;
        for (point, error) in series.missing.iter().filter(|_| !said) {
            tracing::warn!("{}: left out: {error}", point.id);
        }
        said = true;
        let left_out = series.missing.len();
        if analysis::is_current(&series)? {
            return Ok(Updated { written: None, left_out });
        }
        let _lease = match Lease::take(&lease_path(folder))? {
            Taken::Ours(lease) => lease,
            Taken::Theirs(_) => {
                // What it writes may be all that there is to write, or the store may have changed since it
                // began.
                drop(Lease::wait(&lease_path(folder), "writes the tables")?);
                continue;
            }
        };
        let mut written = AtHand::default();
        let found = analysis::analyze_for(&series, &mut |table| written.take(table))?;
        say(&format!("{}{}", summary::onsets(&found.onsets), hypotheses::text(&found.evidence)));
        tracing::info!("tables: {}", folder.display());
        return Ok(Updated { written: Some(written), left_out });
    }
}
