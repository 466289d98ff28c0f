//! `[run]` and `[analysis]`: what a run is called, what it is laid out along, how often it resamples.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::entries::Entries;
use super::source::resolve;
use super::spanned::{Choice, Field, Section, is_file_name};
use super::{ANALYSIS, RUN};

/// `[run]`: the name of a run and what its tables are laid out along.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Run {
    /// Safe as a folder name.
    pub name: String,
    pub seed: u64,
    pub axis: Axis,
    pub audit: Audit,
    pub keep: Keep,
    /// Whether the first checkpoint's architecture is walked with random weights too, as the level that has to be exceeded.
    pub baseline: bool,
    /// Whether `report.html` is written beside the tables; it is no part of what they are made from.
    #[serde(skip)]
    pub report: bool,
    /// The folder in which the run gets its own.
    pub out: PathBuf,
}

/// What the checkpoints are laid out along.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    TokensLog,
    StepLog,
    Index,
    StageProgress,
}

/// What the integrity audit does with checkpoints that are not what their steps say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Audit {
    /// They are left out of the analysis.
    Exclude,
    /// They are reported only.
    Warn,
}

/// What of a walk is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Keep {
    /// What the measures read, with 16 bits per number.
    Measures,
    /// Every readout of every item at every layer, in f32.
    Activations,
}

impl Choice for Keep {
    const ALL: &'static [(&'static str, Self)] = &[("measures", Keep::Measures), ("activations", Keep::Activations)];
}

impl Choice for Audit {
    const ALL: &'static [(&'static str, Self)] = &[("exclude", Audit::Exclude), ("warn", Audit::Warn)];
}

impl Choice for Axis {
    const ALL: &'static [(&'static str, Self)] =
        &[("tokens_log", Axis::TokensLog), ("step_log", Axis::StepLog), ("index", Axis::Index), ("stage_progress", Axis::StageProgress)];
}

/// `[analysis]`: how many resamples, sign-flips for p values and group bootstraps for intervals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Analysis {
    pub flips: usize,
    pub bootstraps: usize,
}

impl Run {
    pub(super) fn read(top: &Section, path: &Path, folder: &Path, entries: &Entries) -> Result<Run> {
        let section = top.table("run", RUN)?;
        let get = |key| section.as_ref().and_then(|section| section.get(key));
        Ok(Run {
            name: get("name").map_or_else(|| Ok(default_name(path)), |field| field.file_name().map(Into::into))?,
            seed: get("seed").map_or(Ok(0), |field| field.integer(0..=u64::MAX))?,
            axis: match get("axis") {
                Some(field) => read_axis(&field, entries)?,
                None if entries.checkpoints.iter().all(|spec| spec.step.is_some()) => Axis::StepLog,
                None => Axis::Index,
            },
            audit: get("audit").map_or(Ok(Audit::Exclude), |field| field.choice())?,
            keep: get("keep").map_or(Ok(Keep::Measures), |field| field.choice())?,
            baseline: get("baseline").map_or(Ok(true), |field| field.boolean())?,
            report: get("report").map_or(Ok(true), |field| field.boolean())?,
            out: match get("out") {
                Some(field) => resolve(folder, field.text("a folder")?).map_err(|error| field.error(error))?,
                None => resolve(folder, "reports")?,
            },
        })
    }

    /// `reports/<run>`: where its tables land.
    pub fn folder(&self) -> PathBuf {
        self.out.join(&self.name)
    }
}

/// The file's name, or its folder's if it has the usual name, made safe.
fn default_name(path: &Path) -> String {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    let stem = absolute.file_stem().filter(|stem| *stem != "checkpoints");
    let name = stem.or_else(|| absolute.parent().and_then(Path::file_name)).unwrap_or_default();
    let safe = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' };
    let name: String = name.to_string_lossy().chars().map(safe).collect();
    let name = name.trim_start_matches('.');
    if is_file_name(name) { name.into() } else { "run".into() }
}

/// An axis on which every entry has a place.
fn read_axis(field: &Field, entries: &Entries) -> Result<Axis> {
    let axis = field.choice()?;
    let key = match axis {
        Axis::TokensLog => "tokens",
        Axis::StepLog => "step",
        Axis::Index | Axis::StageProgress => return Ok(axis),
    };
    let mut checkpoints = entries.checkpoints.iter();
    if let Some(series) = entries.pending.iter().find(|series| key == "tokens" && !series.has_tokens()) {
        let remedy =
            format!("the series {:?} (line {}) has no tokens_per_step; add it, or choose axis = \"index\"", series.id, series.line);
        return Err(field.wrong(format!("tokens in every entry; {remedy}")));
    }
    let lost = checkpoints.find(|spec| if key == "tokens" { spec.tokens } else { spec.step }.is_none());
    match lost {
        Some(spec) => {
            let remedy = format!("{:?} (line {}) has none; add it, or choose axis = \"index\"", spec.id, spec.line);
            Err(field.wrong(format!("{key} in every entry; {remedy}")))
        }
        None => Ok(axis),
    }
}

impl Analysis {
    pub(super) fn read(top: &Section) -> Result<Analysis> {
        let section = top.table("analysis", ANALYSIS)?;
        let count = |key, default: u64, most| {
            let field = section.as_ref().and_then(|section| section.get(key));
            field.map_or(Ok(default), |field| field.integer(99..=most)).map(|count| count as usize)
        };
        Ok(Analysis { flips: count("flips", 9_999, 999_999)?, bootstraps: count("bootstraps", 999, 99_999)? })
    }
}
