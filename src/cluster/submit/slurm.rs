//! What is asked of Slurm's commands, and which tasks were handed in before.

use crate::table::write_atomically;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::path::Path;
use std::process::{Command, Stdio};

/// Slurm's own default, where it cannot be asked.
const MAX_ARRAY_SIZE: usize = 1001;

/// A job that was handed in, and the checkpoint of each of its tasks.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Submitted {
    pub job: String,
    pub tasks: BTreeMap<usize, String>,
}

/// The output of one of Slurm's commands; nothing where it is not installed.
fn ask(program: &str, arguments: &[&str]) -> Result<Option<String>> {
    let output = match Command::new(program).args(arguments).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        output => output.with_context(|| format!("{program} cannot be started"))?,
    };
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{program} {}: {}", arguments.join(" "), said.trim());
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// One more than the largest number that a task may have.
///
/// # Errors
/// Slurm is installed and does not answer.
pub fn max_array_size() -> Result<usize> {
    let Some(config) = ask("scontrol", &["show", "config"])? else { return Ok(MAX_ARRAY_SIZE) };
    let line = config.lines().find_map(|line| line.strip_prefix("MaxArraySize")?.trim().strip_prefix('='));
    Ok(line.and_then(|size| size.trim().parse().ok()).filter(|&size| size > 0).unwrap_or(MAX_ARRAY_SIZE))
}

/// What was handed in for a run before.
///
/// # Errors
/// The file is there and cannot be read.
pub fn submitted(file: &Path) -> Result<Vec<Submitted>> {
    match std::fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        text => {
            let text = text.with_context(|| format!("{}: cannot be read", file.display()))?;
            serde_json::from_slice(&text).with_context(|| format!("{}: not a list of jobs; delete it", file.display()))
        }
    }
}

/// Remembers what was handed in.
///
/// # Errors
/// The folder is not writable.
pub fn remember(file: &Path, submitted: &[Submitted]) -> Result<()> {
    let text = serde_json::to_vec_pretty(submitted)?;
    write_atomically(file, &text)
}

/// Jobs among `submitted` with tasks that wait or run, and the checkpoints of those.
///
/// # Errors
/// Slurm is installed and does not answer.
pub fn queued(submitted: &[Submitted]) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut jobs, mut checkpoints) = (BTreeSet::new(), BTreeSet::new());
    if submitted.is_empty() {
        return Ok((jobs, checkpoints));
    }
    let queue = ask("squeue", &["--me", "--noheader", "--array", "--format=%F %K"])?.unwrap_or_default();
    for line in queue.lines() {
        let mut words = line.split_whitespace();
        let (Some(job), Some(Ok(task))) = (words.next(), words.next().map(str::parse::<usize>)) else { continue };
        if let Some(checkpoint) = submitted.iter().find(|known| known.job == job).and_then(|known| known.tasks.get(&task)) {
            jobs.insert(job.to_owned());
            checkpoints.insert(checkpoint.clone());
        }
    }
    Ok((jobs, checkpoints))
}

/// Hands a script in and returns the number of its job; `after` are jobs that have to end first.
///
/// # Errors
/// There is no Slurm, or what it says.
pub fn submit(script: &Path, after: &[String]) -> Result<String> {
    let arguments = arguments(script, after);
    let Some(answer) = ask("sbatch", &arguments.iter().map(String::as_str).collect::<Vec<_>>())? else {
        bail!("sbatch is not installed here; submit from a machine of the cluster, or hand in {} yourself", script.display())
    };
    // JOB or JOB;CLUSTER
    let job = answer.trim().split(';').next().unwrap_or_default().to_owned();
    ensure!(!job.is_empty() && job.bytes().all(|byte| byte.is_ascii_digit()), "sbatch answered {answer:?}, expected the number of a job");
    Ok(job)
}

/// What `sbatch` is called with.
pub fn arguments(script: &Path, after: &[String]) -> Vec<String> {
    let dependency = (!after.is_empty()).then(|| format!("--dependency=afterany:{}", after.join(":")));
    std::iter::once("--parsable".to_owned()).chain(dependency).chain([script.display().to_string()]).collect()
}
