//! One `[[series]]`: many checkpoints that differ in one number.
//!
//! `{step}` stands in one path component (or the revision). Whatever lists the names, a folder here
//! or the hub, [`Series::expand`] turns them into checkpoints: digits only, zero-padding
//! allowed, sorted by value, so that `step_0025` comes before `step_100`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::checkpoint::CheckpointSpec;
use super::source::Source;
use super::spanned::distance;

pub(super) const STEP: &str = "{step}";

/// A name with one number in it, such as `checkpoint-{step}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct StepPattern {
    before: String,
    after: String,
}

impl StepPattern {
    /// Reads a name in which `{step}` stands once and no other braces stand.
    pub fn parse(text: &str) -> Option<StepPattern> {
        let (before, after) = text.split_once(STEP)?;
        let plain = !before.contains(['{', '}']) && !after.contains(['{', '}']);
        plain.then(|| StepPattern { before: before.into(), after: after.into() })
    }

    /// The step in a name; none where anything but digits stands in its place.
    pub fn step(&self, name: &str) -> Option<u64> {
        let digits = name.strip_prefix(&self.before)?.strip_suffix(&self.after)?;
        digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
    }
}

impl From<StepPattern> for String {
    fn from(StepPattern { before, after }: StepPattern) -> String {
        format!("{before}{STEP}{after}")
    }
}

/// Where the names are that the pattern is matched against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// The folders in a folder.
    Folder(PathBuf),
    /// The branches and tags of a hub repository.
    Revisions { repo: String },
    /// The folders in a folder of a hub repository.
    Subfolders { repo: String, revision: Option<String>, parent: String },
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listing::Folder(folder) => write!(f, "{}", folder.display()),
            Listing::Revisions { repo } => write!(f, "the revisions of hub:{repo}"),
            Listing::Subfolders { repo, parent, .. } => write!(f, "hub:{repo}#{parent}"),
        }
    }
}

/// A series before its steps are known.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Series {
    pub stage: String,
    /// Checkpoints are called `<id>-<step>`.
    pub id: String,
    pub pattern: StepPattern,
    /// The model, with the pattern in it unless the adapter has it.
    pub source: Source,
    pub adapter: Option<Source>,
    /// Adapters between the two.
    pub beneath: Vec<Source>,
    pub tokens_per_step: Option<u64>,
    /// The steps that are wanted; all if none are named.
    pub steps: Option<Vec<u64>>,
    /// Index, among the checkpoints that are known, before which its checkpoints belong.
    pub before: usize,
    /// The line of the entry.
    pub line: usize,
    /// Where the pattern and the filter were written, to begin complaints with.
    #[serde(skip)]
    pub(super) pattern_place: String,
    #[serde(skip)]
    pub(super) steps_place: String,
}

impl Series {
    /// Where its names are to be listed.
    pub fn listing(&self) -> Listing {
        let pattern = String::from(self.pattern.clone());
        match self.adapter.as_ref().unwrap_or(&self.source) {
            Source::Folder(path) => {
                let parent: PathBuf = path.iter().take_while(|part| *part != pattern.as_str()).collect();
                Listing::Folder(if parent.as_os_str().is_empty() { ".".into() } else { parent })
            }
            Source::Hub { repo, revision, .. } if revision.as_ref() == Some(&pattern) => Listing::Revisions { repo: repo.clone() },
            Source::Hub { repo, revision, subfolder, .. } => {
                let parts = subfolder.iter().flat_map(|folder| folder.split('/'));
                let parent: Vec<_> = parts.take_while(|part| *part != pattern).collect();
                let (repo, revision) = (repo.clone(), revision.clone());
                Listing::Subfolders { repo, revision, parent: parent.join("/") }
            }
        }
    }

    /// Whether an id may turn out to be one of this series.
    pub fn may_contain(&self, id: &str) -> bool {
        let step = id.strip_prefix(&self.id).and_then(|rest| rest.strip_prefix('-'));
        step.is_some_and(|step| step.parse::<u64>().is_ok())
    }

    /// The checkpoints among `names`, by step. No match, two names with one step and a wanted step
    /// that is not there are errors. `order` is left for whoever puts all entries in a row.
    pub fn expand(&self, names: &[String]) -> Result<Vec<CheckpointSpec>> {
        let mut found: BTreeMap<u64, &str> = BTreeMap::new();
        for name in names {
            let Some(step) = self.pattern.step(name) else { continue };
            if let Some(other) = found.insert(step, name) {
                bail!("{}: found {other} and {name}, which are both step {step}, expected one name per step", self.pattern_place);
            }
        }
        if found.is_empty() {
            let (place, pattern) = (&self.pattern_place, String::from(self.pattern.clone()));
            bail!("{place}: found no {pattern:?} in {}, which has {}", self.listing(), nearest_of(&pattern.replace(STEP, ""), names));
        }
        if let Some(steps) = &self.steps {
            if let Some(step) = steps.iter().find(|step| !found.contains_key(*step)) {
                let there: Vec<_> = found.keys().map(u64::to_string).collect();
                bail!("{}: found {step}, expected steps that are there: {}", self.steps_place, some_of(&there));
            }
            found.retain(|step, _| steps.contains(step));
        }
        found.into_iter().map(|(step, name)| self.checkpoint(step, name)).collect()
    }

    fn checkpoint(&self, step: u64, name: &str) -> Result<CheckpointSpec> {
        let pattern = String::from(self.pattern.clone());
        let tokens = self.tokens_per_step.map(|tokens| {
            let place = &self.pattern_place;
            tokens.checked_mul(step).with_context(|| format!("{place}: found step {step}, which times tokens_per_step is more than 2^64"))
        });
        Ok(CheckpointSpec {
            id: format!("{}-{step}", self.id),
            source: self.source.with_name(&pattern, name),
            adapter: self.adapter.as_ref().map(|adapter| adapter.with_name(&pattern, name)),
            beneath: self.beneath.clone(),
            stage: self.stage.clone(),
            step: Some(step),
            tokens: tokens.transpose()?,
            commit: None,
            parents: Vec::new(),
            reference: false,
            reinitialised: false,
            order: 0,
            line: self.line,
        })
    }
}

/// The names of the folders in a folder, sorted.
pub(super) fn folders_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        if entry.path().is_dir() {
            names.extend(entry.file_name().into_string().ok());
        }
    }
    names.sort();
    Ok(names)
}

/// `a, b and c`, at most five of them: those that are spelled most like `word`.
pub fn nearest_of(word: &str, names: &[String]) -> String {
    let mut sorted = names.to_vec();
    if names.len() > 5 {
        sorted.sort_by_cached_key(|name| distance(word, name));
    }
    some_of(&sorted)
}

/// `a, b and c`, at most five of them.
fn some_of(names: &[String]) -> String {
    match names {
        [] => "nothing".into(),
        [only] => only.clone(),
        [first @ .., last] if names.len() <= 5 => format!("{} and {last}", first.join(", ")),
        _ => format!("{} and {} more", names[..5].join(", "), names.len() - 5),
    }
}
