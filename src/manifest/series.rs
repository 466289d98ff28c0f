//! One `[[series]]`: many checkpoints that differ in their numbers.
//!
//! The placeholders of a pattern stand in path components, in the revision, or in the titles of commits. Whatever lists the names, a
//! folder here or the hub, [`Series::expand`] turns them into checkpoints, sorted by value, so that `step_0025` comes before `step_100`,
//! and says which names it passed over.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::NothingYet;
use super::checkpoint::CheckpointSpec;
use super::pattern::{Numbers, PLACEHOLDERS, Pattern, TOKENS};
use super::source::Source;
use super::spanned::distance;

/// Where the names are that the pattern is matched against.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listing {
    /// The folders in a folder.
    Folder(PathBuf),
    /// The branches and tags of a hub repository.
    Revisions { repo: String },
    /// The commits of a branch, each as `COMMIT TITLE`, the newest first.
    Commits { repo: String, revision: Option<String> },
    /// The folders in a folder of a hub repository.
    Subfolders { repo: String, revision: Option<String>, parent: String },
}

impl fmt::Display for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listing::Folder(folder) => write!(f, "{}", folder.display()),
            Listing::Revisions { repo } => write!(f, "the revisions of hub:{repo}"),
            Listing::Commits { repo, .. } => write!(f, "the commits of hub:{repo}"),
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
    pub pattern: Pattern,
    /// The pattern is that of the titles of commits.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub commits: bool,
    /// The model, with the pattern in it unless the adapter or a commit's title has it.
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
        let pattern = self.pattern.to_string();
        match self.adapter.as_ref().unwrap_or(&self.source) {
            Source::Folder(path) => {
                let parts: Vec<_> = pattern.split('/').collect();
                let names: Vec<_> = path.iter().collect();
                let at = names.windows(parts.len()).position(|window| window.iter().zip(&parts).all(|(name, part)| *name == *part));
                let parent: PathBuf = names[..at.unwrap_or(names.len())].iter().collect();
                Listing::Folder(if parent.as_os_str().is_empty() { ".".into() } else { parent })
            }
            Source::Hub { repo, revision, .. } if self.commits => Listing::Commits { repo: repo.clone(), revision: revision.clone() },
            Source::Hub { repo, revision, .. } if revision.as_ref() == Some(&pattern) => Listing::Revisions { repo: repo.clone() },
            Source::Hub { repo, revision, subfolder, .. } => {
                let subfolder = subfolder.as_deref().unwrap_or_default();
                let parent = subfolder.split_once(&pattern).map_or(subfolder, |(parent, _)| parent.trim_end_matches('/'));
                let (repo, revision) = (repo.clone(), revision.clone());
                Listing::Subfolders { repo, revision, parent: parent.to_owned() }
            }
        }
    }

    /// The names to match, from `folders`, which lists a folder inside of that of [`Series::listing`] (`""` for that one). Only folders that
    /// fit their part of the pattern are looked into.
    ///
    /// # Errors
    /// Those of `folders`.
    pub fn names(&self, folders: &mut dyn FnMut(&str) -> Result<Vec<String>>) -> Result<Vec<String>> {
        let (mut names, mut open) = (Vec::new(), vec![String::new()]);
        for depth in 0..self.pattern.depth() {
            let mut next = Vec::new();
            for parent in &open {
                let inside = folders(parent)?;
                if inside.is_empty() && !parent.is_empty() {
                    // It fits, and there is nothing in it that could: a link that leads nowhere, or what a trainer did not get to fill.
                    names.push(parent.clone());
                }
                for name in inside {
                    let path = if parent.is_empty() { name.clone() } else { format!("{parent}/{name}") };
                    if depth + 1 < self.pattern.depth() && self.pattern.fits_part(depth, &name) {
                        next.push(path);
                    } else {
                        names.push(path);
                    }
                }
            }
            open = next;
        }
        Ok(names)
    }

    /// Whether its checkpoints know how many tokens were seen.
    pub fn has_tokens(&self) -> bool {
        self.tokens_per_step.is_some() || self.pattern.has(TOKENS)
    }

    /// Whether an id may turn out to be one of this series.
    pub fn may_contain(&self, id: &str) -> bool {
        let number = id.strip_prefix(&self.id).and_then(|rest| rest.strip_prefix('-'));
        number.is_some_and(|number| number.parse::<f64>().is_ok())
    }

    /// The checkpoints among `names`, in order of training, and the names that are none. No match, two names for one place and a wanted step
    /// that is not there are errors; of two commits for one place the newer one counts. `order` is left for whoever puts all entries in a row.
    pub fn expand(&self, names: &[String]) -> Result<(Vec<CheckpointSpec>, Vec<String>)> {
        let mut found: Vec<(Numbers, &str)> = Vec::new();
        let mut passed_over = Vec::new();
        for name in names {
            // A commit is listed with its title behind it.
            let (name, title) = if self.commits { name.split_once(' ').unwrap_or((name, "")) } else { (name.as_str(), name.as_str()) };
            let Some(numbers) = self.pattern.numbers(title) else {
                passed_over.push(title.to_owned());
                continue;
            };
            match found.iter().find(|(other, _)| other.is_at(&numbers)) {
                Some(_) if self.commits => passed_over.push(format!("{title} ({})", &name[..name.len().min(7)])),
                Some((_, other)) => {
                    let (place, what) = (&self.pattern_place, if numbers.step.is_some() { "step" } else { "number" });
                    bail!("{place}: found {other} and {name}, which are both {what} {}, expected one name per {what}", numbers.label());
                }
                None => found.push((numbers, name)),
            }
        }
        if found.is_empty() {
            let (place, pattern) = (&self.pattern_place, &self.pattern);
            let plain = PLACEHOLDERS.iter().fold(pattern.to_string(), |text, mark| text.replace(mark, ""));
            let hint = if passed_over.iter().any(|name| pattern.fits_as_fraction(name)) { WHOLE } else { "" };
            let (pattern, listing, nearest) = (pattern.to_string(), self.listing(), nearest_of(&plain, &passed_over));
            return Err(NothingYet(format!("{place}: found no {pattern:?} in {listing}, which has {nearest}{hint}")).into());
        }
        found.sort_by(|(a, _), (b, _)| a.order(b));
        if let Some(steps) = &self.steps {
            let there = |step: &u64| found.iter().any(|(numbers, _)| numbers.step == Some(*step));
            if let Some(step) = steps.iter().find(|step| !there(step)) {
                let there: Vec<_> = found.iter().map(|(numbers, _)| numbers.label()).collect();
                bail!("{}: found {step}, expected steps that are there: {}", self.steps_place, some_of(&there));
            }
            found.retain(|(numbers, _)| numbers.step.is_some_and(|step| steps.contains(&step)));
        }
        let specs = found.into_iter().map(|(numbers, name)| self.checkpoint(&numbers, name)).collect::<Result<_>>()?;
        Ok((specs, passed_over))
    }

    fn checkpoint(&self, numbers: &Numbers, name: &str) -> Result<CheckpointSpec> {
        let pattern = self.pattern.to_string();
        let tokens = self.tokens_per_step.zip(numbers.step).map(|(tokens, step)| {
            let place = &self.pattern_place;
            tokens.checked_mul(step).with_context(|| format!("{place}: found step {step}, which times tokens_per_step is more than 2^64"))
        });
        let changed = |source: &Source| if self.commits { source.with_revision(name) } else { source.with_name(&pattern, name) };
        let adapter = self.adapter.as_ref().map(changed);
        Ok(CheckpointSpec {
            id: format!("{}-{}", self.id, numbers.label()),
            source: if adapter.is_some() { self.source.clone() } else { changed(&self.source) },
            adapter,
            beneath: self.beneath.clone(),
            stage: self.stage.clone(),
            step: numbers.step,
            tokens: tokens.transpose()?.or(numbers.tokens),
            commit: None,
            parents: Vec::new(),
            reference: false,
            reinitialised: false,
            order: 0,
            line: self.line,
        })
    }

    /// What is said about names that do not fit.
    pub(super) fn passed_over(&self, names: &[String]) -> Option<String> {
        let plain = PLACEHOLDERS.iter().fold(self.pattern.to_string(), |text, mark| text.replace(mark, ""));
        let hint = if names.iter().any(|name| self.pattern.fits_as_fraction(name)) { WHOLE } else { "" };
        let (id, pattern, listing) = (&self.id, self.pattern.to_string(), self.listing());
        (!names.is_empty()).then(|| format!("{id}: passed over in {listing}, as not {pattern:?}: {}{hint}", nearest_of(&plain, names)))
    }
}

/// Why a fraction is no step.
const WHOLE: &str = "; {step} is a whole number, {epoch} may be a fraction";

/// The names of the folders in a folder, sorted, with links that lead nowhere: what they led to is missing, and that is to be said.
pub(super) fn folders_in(folder: &Path) -> std::io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let is_dead_link = || entry.file_type().is_ok_and(|kind| kind.is_symlink()) && !entry.path().exists();
        if entry.path().is_dir() || is_dead_link() {
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
