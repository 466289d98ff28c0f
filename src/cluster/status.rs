//! How far a run is: per checkpoint waiting, running (where, since when, how far), done or failed (why).

use super::tables;
use crate::analysis;
use crate::guard::brief;
use crate::lease;
use crate::report::summary::Text;
use crate::walk::job::{Job, Outcome, State};
use anyhow::Result;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, SystemTime};

/// What `status` says.
#[derive(Debug, Serialize)]
pub struct Status {
    pub run: String,
    pub folder: String,
    pub done: usize,
    pub running: usize,
    pub failed: usize,
    pub waiting: usize,
    /// `missing`, `stale` (a checkpoint was walked since), `written`, or `being_written`.
    pub tables: &'static str,
    pub checkpoints: Vec<Line>,
}

/// One checkpoint.
#[derive(Debug, Default, Serialize)]
pub struct Line {
    pub id: String,
    pub stage: String,
    pub step: Option<u64>,
    /// `waiting`, `running`, `done` or `failed`.
    pub state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub worker: Option<Worker>,
}

/// Who walks it, and how far that is.
#[derive(Debug, Serialize)]
pub struct Worker {
    pub host: String,
    pub pid: u32,
    pub since: String,
    pub seconds_silent: u64,
    /// What is counted, `layer` or `intervention`; null before the first.
    pub unit: Option<String>,
    pub done: usize,
    pub of: usize,
    pub seconds_left: Option<u64>,
}

impl Status {
    /// Reads the run folder of a job; takes nothing and writes nothing.
    pub fn of(job: &Job) -> Self {
        let mut status = Self {
            run: job.manifest.run.name.clone(),
            folder: job.folder.display().to_string(),
            done: 0,
            running: 0,
            failed: 0,
            waiting: 0,
            tables: tables_of(&job.folder),
            checkpoints: Vec::new(),
        };
        for spec in job.manifest.checkpoints.iter().chain(&job.baseline) {
            let mut line = Line { id: spec.id.clone(), stage: spec.stage.clone(), step: spec.step, ..Line::default() };
            let count = match job.state(spec) {
                State::Done => {
                    line.state = "done";
                    &mut status.done
                }
                State::Waiting => {
                    line.state = "waiting";
                    &mut status.waiting
                }
                State::Failed(error) => {
                    line.state = "failed";
                    line.error = Some(error);
                    &mut status.failed
                }
                State::Running(other) => {
                    line.state = "running";
                    line.worker = Some(Worker {
                        host: other.owner.host,
                        pid: other.owner.pid,
                        since: other.owner.since,
                        seconds_silent: other.silent.as_secs(),
                        unit: Some(other.progress.unit).filter(|unit| !unit.is_empty()),
                        done: other.progress.done,
                        of: other.progress.of,
                        seconds_left: other.progress.seconds_left.map(|left| left.round() as u64),
                    });
                    &mut status.running
                }
            };
            *count += 1;
            status.checkpoints.push(line);
        }
        status
    }

    /// For the exit code: 3 while anything is unfinished, then 1 if anything failed.
    pub fn outcome(&self) -> Outcome {
        Outcome { failed: self.failed, unfinished: self.waiting + self.running, ..Outcome::default() }
    }

    /// A line per checkpoint, and one that counts them.
    pub fn text(&self) -> String {
        let mut text = Text::new(&["checkpoint", "stage", "step", "state"]);
        for line in &self.checkpoints {
            let step = line.step.map_or_else(|| "-".to_owned(), |step| step.to_string());
            text.push(vec![line.id.clone(), line.stage.clone(), step, line.state.to_owned()]);
        }
        let mut out = String::new();
        let details = std::iter::once(String::new()).chain(self.checkpoints.iter().map(Line::detail));
        for (row, detail) in text.render().lines().zip(details) {
            out += format!("{row}  {detail}").trim_end();
            out.push('\n');
        }
        let Self { done, running, failed, waiting, .. } = self;
        let tables = match self.tables {
            "missing" => "there are no tables yet",
            "stale" => "the tables are older than the last walk",
            "being_written" => "the tables are being written",
            _ => "the tables are newer than the last walk",
        };
        out + &format!("{done} done, {running} running, {failed} failed, {waiting} waiting; {tables} ({})\n", self.folder)
    }

    /// One JSON object.
    ///
    /// # Errors
    /// Never; the type says that it may.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self)? + "\n")
    }
}

impl Line {
    fn detail(&self) -> String {
        if let Some(error) = &self.error {
            return brief(error);
        }
        let Some(worker) = &self.worker else { return String::new() };
        let mut detail = format!("process {} on {} since {}", worker.pid, worker.host, worker.since);
        if let Some(unit) = &worker.unit {
            detail += &format!(", {unit} {} of {}", worker.done, worker.of);
        }
        if let Some(left) = worker.seconds_left {
            detail += &format!(", about {} left", indicatif::HumanDuration(Duration::from_secs(left)));
        }
        if worker.seconds_silent > 60 {
            detail += &format!("; silent for {} s, taken over after {}", worker.seconds_silent, lease::SILENCE.as_secs());
        }
        detail
    }
}

/// By their times alone: whether they are those of this store is what `analyze` finds out.
fn tables_of(folder: &Path) -> &'static str {
    let Some(written) = analysis::written(folder) else {
        return if lease::look(&tables::lease_path(folder)).is_some() { "being_written" } else { "missing" };
    };
    let walked = |entry: std::fs::DirEntry| -> Option<SystemTime> {
        let is_record = entry.path().extension().is_some_and(|extension| extension == "json");
        is_record.then(|| entry.metadata().ok()?.modified().ok()).flatten()
    };
    let last = std::fs::read_dir(folder.join("readouts")).into_iter().flatten().flatten().filter_map(walked).max();
    if last.is_some_and(|last| last > written) { "stale" } else { "written" }
}
