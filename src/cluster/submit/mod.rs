//! Submission to Slurm: an array over the checkpoints that are missing, and a finaliser that analyses what is
//! there.

use super::status::Status;
use crate::console::say;
use crate::guard::sentence;
use crate::lease::Lease;
use crate::manifest::{CheckpointSpec, Manifest};
use crate::table::write_atomically;
use crate::walk::job::{Job, Outcome};
use anyhow::{Context, Result, ensure};
use clap::Args;
use script::Place;
use slurm::Submitted;
use std::collections::BTreeMap;
use std::path::Path;

mod array;
mod script;
mod slurm;

/// How to submit.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Write for Slurm. In any other engine, start an array of `selftrace walk MANIFEST`, whose tasks find
    /// their parts, and `selftrace analyze MANIFEST` after it
    #[arg(long)]
    pub slurm: bool,
    /// Write the scripts and show them, without handing them in
    #[arg(long)]
    pub dry_run: bool,
    /// GPUs of a task
    #[arg(long, value_name = "N")]
    pub gpus_per_task: Option<u32>,
    /// Cores of a task
    #[arg(long, value_name = "N")]
    pub cpus_per_task: Option<u32>,
    /// At most so many tasks at a time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_parallel: Option<u32>,
    /// As sbatch's
    #[arg(long)]
    pub partition: Option<String>,
    /// As sbatch's
    #[arg(long)]
    pub account: Option<String>,
    /// As sbatch's
    #[arg(long)]
    pub qos: Option<String>,
    /// Time limit of a task, as sbatch's; a walk that does not fit begins again, three times at most
    #[arg(long)]
    pub time: Option<String>,
    /// Memory of a task, as sbatch's; `selftrace check` says how much is needed
    #[arg(long)]
    pub mem: Option<String>,
    /// Any other option of sbatch, as in --sbatch=--constraint=a100; may be given several times
    #[arg(long = "sbatch", value_name = "OPTION", allow_hyphen_values = true)]
    pub others: Vec<String>,
}

/// Writes the scripts of a run into its folder and hands them in. What is complete, being walked, or queued
/// by an earlier submission is left out.
///
/// # Errors
/// The manifest is wrong, the run folder is not writable, or Slurm's words.
pub fn submit(path: &Path, options: &Options) -> Result<Outcome> {
    ensure!(
        options.slurm,
        "submit writes for Slurm (--slurm); in any other engine, start an array of `selftrace walk {path}`, whose tasks find their parts, \
         and `selftrace analyze {path}` after it",
        path = path.display()
    );
    let job = Job::looking(Manifest::load(path)?)?;
    let specs: Vec<&CheckpointSpec> = job.manifest.checkpoints.iter().chain(&job.baseline).collect();
    job.prepare(&specs)?;
    let status = Status::of(&job);
    let folder = std::path::absolute(&job.folder)?;
    let logs = folder.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("{}: cannot be made", logs.display()))?;
    let _lease = Lease::wait(&logs.join("submit.lease"), "submits")?;
    let known = logs.join("submitted.json");
    let mut submitted = slurm::submitted(&known)?;
    let (jobs, queued) = slurm::queued(&submitted)?;
    submitted.retain(|before| jobs.contains(&before.job));
    let is_missing = |line: &super::status::Line| !["done", "running"].contains(&line.state) && !queued.contains(&line.id);
    let missing: Vec<usize> = (0..specs.len()).filter(|&number| is_missing(&status.checkpoints[number])).collect();
    for &number in &missing {
        let spec = specs[number];
        let opened = if spec.source.is_hub() || spec.changing().is_hub() { Ok(()) } else { job.open(spec).map(drop) };
        if let Err(error) = opened {
            tracing::warn!("{}: will fail as it is: {}", spec.id, sentence(&error));
        }
    }
    let Status { done, running, .. } = status;
    tracing::info!("{done} done, {running} running, {} queued, {} to submit", queued.len(), missing.len());
    if missing.is_empty() && (!queued.is_empty() || status.tables == "written") {
        tracing::info!("{}: nothing to submit", folder.display());
        return Ok(Outcome::default());
    }
    // The manifest is named as it is here: its name is part of the settings.
    let (program, start) = (std::env::current_exe()?, std::env::current_dir()?);
    let place = Place { run: &status.run, program: &program, manifest: path, start: &start, logs: &logs, options };
    let mut after: Vec<String> = jobs.into_iter().collect();
    let size = slurm::max_array_size()?;
    for (turn, (base, numbers)) in array::split(&missing, size).into_iter().enumerate() {
        let name = if turn == 0 { "walk.sbatch".to_owned() } else { format!("walk-{}.sbatch", turn + 1) };
        let script = folder.join(name);
        let ids: Vec<&str> = specs[base..].iter().take(size).map(|spec| spec.id.as_str()).collect();
        write(&script, &place.walk(&script, &ids, &numbers)?)?;
        if options.dry_run {
            show(&script, &slurm::arguments(&script, &[]))?;
            after.push(format!("JOB{}", turn + 1));
            continue;
        }
        let number = slurm::submit(&script, &[])?;
        let tasks: BTreeMap<usize, String> = numbers.iter().map(|&number| (number, ids[number].to_owned())).collect();
        tracing::info!("job {number}: {} checkpoints, {}", tasks.len(), script.display());
        submitted.push(Submitted { job: number.clone(), tasks });
        // Before anything else is handed in: what Slurm has is not to be forgotten.
        slurm::remember(&known, &submitted)?;
        after.push(number);
    }
    let script = folder.join("finish.sbatch");
    write(&script, &place.finish(&script)?)?;
    if options.dry_run {
        show(&script, &slurm::arguments(&script, &after))?;
    } else {
        let number = slurm::submit(&script, &after)?;
        tracing::info!("job {number}: tables when all has ended, {}; logs are in {}", script.display(), logs.display());
    }
    Ok(Outcome::default())
}

fn write(path: &Path, text: &str) -> Result<()> {
    write_atomically(path, text.as_bytes())
}

fn show(script: &Path, arguments: &[String]) -> Result<()> {
    let text = std::fs::read_to_string(script)?;
    say(&format!("{text}\n# to hand it in: sbatch {}\n\n", arguments.join(" ")));
    Ok(())
}
