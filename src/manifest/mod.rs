//! `checkpoints.toml`, read, checked and resolved: what a run walks, and how.
//!
//! [`Manifest::load`] answers with a manifest in which everything has a value, or with one error
//! that names file, line, table and key, what was found and what would be right. Entries are read
//! before settings, because some settings name an entry.
//!
//! `[hub] keep = false` deletes the weights that a run downloads as soon as their checkpoint has been walked, so that at most two
//! checkpoints are on disk; what was in the cache before stays. The default is `true`.
//!
//! ```text
//! spanned      the text with its lines: Section, Field, "did you mean"
//! source       a folder, or hub:OWNER/NAME@REVISION#SUBFOLDER, and the commit that it is pinned to
//! checkpoints  [[checkpoint]] and [[series]] in file order
//! pattern      {step}, {tokens}, {epoch}: numbers in names
//! series       names to checkpoints
//! lineage      parents
//! run          [run] and [analysis]
//! model        [model]
//! concepts     [concepts]
//! personas     [personas] and [evidence]
//! causal       [causal]
//! stitching    [stitching]
//! introspection  [introspection]
//! talk         [context] and [replay]
//! conversation  [conversation]
//! dictionary   [dictionary]
//! ```

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

mod spanned;
mod pattern;
mod source;
mod checkpoint;
mod series;
mod lineage;
mod entries;
mod run;
mod model;
mod concepts;
mod personas;
mod causal;
mod stitching;
mod introspection;
mod talk;
mod conversation;
mod dictionary;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod series_tests;

pub use causal::{Causal, ChoiceSet};
pub use checkpoint::CheckpointSpec;
pub use concepts::{Concepts, Glob, Material, Pack, Profile, default_parameters};
pub use conversation::Conversation;
pub use dictionary::{Dictionary, TextSource};
pub use introspection::Introspection;
pub use model::{DeviceChoice, DtypeChoice, Layers, Model, Readout, Template, Tokenizer};
pub use pattern::{Numbers, Pattern};
pub use personas::{Evidence, PersonaSet, Personas};
pub use run::{Analysis, Audit, Axis, Keep, Run};
pub use series::{Listing, Series, nearest_of};
pub use source::{Pin, Source};
pub use spanned::Choice;
pub use stitching::Stitching;
pub use talk::{Talk, TalkSet};

use entries::Entries;
use spanned::{Document, Section};

const RUN: &str = "[run]";
const MODEL: &str = "[model]";
const LAYERS: &str = "[model] layers";
const CONCEPTS: &str = "[concepts]";
const PARAMETERS: &str = "[concepts.parameters]";
const ANALYSIS: &str = "[analysis]";
const HUB: &str = "[hub]";
const PERSONAS: &str = "[personas]";
const CAUSAL: &str = "[causal]";
const CAUSAL_LAYERS: &str = "[causal] layers";
const STITCHING: &str = "[stitching]";
const STITCHING_LAYERS: &str = "[stitching] layers";
const INTROSPECTION: &str = "[introspection]";
const INTROSPECTION_LAYERS: &str = "[introspection] layers";
const CONTEXT: &str = "[context]";
const CONTEXT_LAYERS: &str = "[context] layers";
const REPLAY: &str = "[replay]";
const REPLAY_LAYERS: &str = "[replay] layers";
const CONVERSATION: &str = "[conversation]";
const CONVERSATION_LAYERS: &str = "[conversation] layers";
const DICTIONARY: &str = "[dictionary]";
const DICTIONARY_LAYERS: &str = "[dictionary] layers";
const EVIDENCE: &str = "[evidence]";
const CHECKPOINT: &str = "[[checkpoint]]";
const PARENT: &str = "[[checkpoint]] parent";
const SERIES: &str = "[[series]]";

/// Every key that a manifest may have, by table. `[concepts.parameters]` is open.
const KEYS: [(&str, &[&str]); 26] = [
    (
        "",
        &[
            "run",
            "model",
            "concepts",
            "personas",
            "causal",
            "stitching",
            "introspection",
            "context",
            "replay",
            "conversation",
            "dictionary",
            "evidence",
            "analysis",
            "hub",
            "checkpoint",
            "series",
        ],
    ),
    (RUN, &["name", "seed", "axis", "audit", "keep", "baseline", "report", "out"]),
    (MODEL, &["device", "dtype", "layers", "tokenizer", "template", "readouts", "ignore"]),
    (LAYERS, &["depth"]),
    (CONCEPTS, &["packs", "include", "exclude", "profile", "material", "null_topics", "parameters"]),
    (PERSONAS, &["sets", "include", "exclude", "concepts", "groups", "formats"]),
    (CAUSAL, &["enabled", "concepts", "layers", "strengths", "directions", "groups", "sets", "memory_mb"]),
    (CAUSAL_LAYERS, &["depth"]),
    (STITCHING, &["enabled", "layers"]),
    (STITCHING_LAYERS, &["depth"]),
    (INTROSPECTION, &["enabled", "layers", "strengths", "groups", "material", "memory_mb"]),
    (INTROSPECTION_LAYERS, &["depth"]),
    (CONTEXT, &["enabled", "sets", "arms", "turns", "concepts", "groups", "replies", "layers"]),
    (CONTEXT_LAYERS, &["depth"]),
    (REPLAY, &["enabled", "sets", "arms", "turns", "concepts", "groups", "replies", "layers"]),
    (REPLAY_LAYERS, &["depth"]),
    (
        CONVERSATION,
        &[
            "enabled",
            "sets",
            "arms",
            "exchanges",
            "max_tokens",
            "seeds",
            "temperatures",
            "top_p",
            "turns",
            "concepts",
            "groups",
            "replies",
            "layers",
        ],
    ),
    (CONVERSATION_LAYERS, &["depth"]),
    (DICTIONARY, &["kind", "layers", "latents", "k", "tokens", "text", "length", "seeds", "checkpoints"]),
    (DICTIONARY_LAYERS, &["depth"]),
    (
        EVIDENCE,
        &[
            "persistence",
            "persistence_absent",
            "consistency",
            "icc",
            "equivalence",
            "personas",
            "effect_z",
            "effect_equivalence",
            "axis_share",
            "guard_kl",
            "guard_facts",
            "agreement",
            "variance_ratio",
        ],
    ),
    (ANALYSIS, &["flips", "bootstraps"]),
    (HUB, &["keep"]),
    (CHECKPOINT, &["id", "source", "base", "adapter", "revision", "subfolder", "stage", "step", "tokens", "commit", "parent", "reference"]),
    (PARENT, &["id", "weight"]),
    (SERIES, &["id", "source", "base", "adapter", "revision", "subfolder", "commits", "stage", "steps", "tokens_per_step"]),
];

/// No checkpoint of a series is there: a mistake, or a training that has not written one yet.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct NothingYet(pub(crate) String);

/// A whole manifest. Folders in it can be used from where the program was started.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Manifest {
    /// The file that it was read from.
    pub path: PathBuf,
    pub run: Run,
    pub model: Model,
    pub concepts: Concepts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personas: Option<Personas>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub causal: Option<Causal>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stitching: Option<Stitching>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub introspection: Option<Introspection>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context: Option<Talk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Talk>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conversation: Option<Conversation>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dictionary: Option<Dictionary>,
    pub evidence: Evidence,
    pub analysis: Analysis,
    /// `[hub] keep`: whether weights that a run downloads stay in the cache after their walk. It changes no number, and no hash.
    #[serde(skip)]
    pub keep: bool,
    /// In the order of the file and, within a series, of the steps. Never empty unless `pending` has
    /// entries. Their folders may be missing, but not all of them.
    pub checkpoints: Vec<CheckpointSpec>,
    /// Series on the hub, whose steps are known only once their names are listed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<Series>,
    /// Names beside those that fit a series, a line per series: they may be checkpoints that somebody misses.
    #[serde(skip)]
    pub passed_over: Vec<String>,
}

impl Manifest {
    /// Reads, checks and resolves a manifest.
    pub fn load(path: &Path) -> Result<Manifest> {
        Self::load_as(path, false)
    }

    /// As [`Manifest::load`], while a training is still writing: a series in a folder may have no checkpoint yet. Where nothing at all is
    /// there, the error is [`NothingYet`].
    pub fn load_growing(path: &Path) -> Result<Manifest> {
        Self::load_as(path, true)
    }

    fn load_as(path: &Path, growing: bool) -> Result<Manifest> {
        let path = path.strip_prefix(".").unwrap_or(path);
        let text = read(path)?;
        let document = Document::new(path, &text);
        let table = document.parse()?;
        let top = Section::top(&document, &table).known()?;
        let folder = path.parent().unwrap_or(Path::new(""));

        let entries = Entries::read(&top, folder, growing)?;
        let run = Run::read(&top, path, folder, &entries)?;
        Ok(Manifest {
            model: Model::read(&top, folder, &entries, run.keep)?,
            run,
            concepts: Concepts::read(&top, folder)?,
            personas: Personas::read(&top, folder)?,
            causal: Causal::read(&top, folder)?,
            stitching: Stitching::read(&top)?,
            introspection: Introspection::read(&top, folder)?,
            context: Talk::read_context(&top, folder)?,
            replay: Talk::read_replay(&top, folder)?,
            conversation: Conversation::read(&top, folder)?,
            dictionary: Dictionary::read(&top, folder)?,
            evidence: Evidence::read(&top)?,
            analysis: Analysis::read(&top)?,
            keep: match top.table("hub", HUB)?.as_ref().and_then(|section| section.get("keep")) {
                Some(field) => field.boolean()?,
                None => true,
            },
            path: path.into(),
            checkpoints: entries.checkpoints,
            pending: entries.pending,
            passed_over: entries.passed_over,
        })
    }

    /// `checkpoints.toml:12`, for what goes wrong with an entry later.
    pub fn place(&self, line: usize) -> String {
        format!("{}:{line}", self.path.display())
    }

    /// Puts the checkpoints of pending series in their places; `names` lists what a pattern is matched against.
    ///
    /// # Errors
    /// Those of `names` and [`Series::expand`], an id that is there twice, and a parent that turns out not to exist.
    pub fn expand(&mut self, names: &mut dyn FnMut(&Series) -> Result<Vec<String>>) -> Result<()> {
        let mut inserted = 0;
        for series in std::mem::take(&mut self.pending) {
            let (specs, passed_over) = series.expand(&names(&series)?)?;
            self.passed_over.extend(series.passed_over(&passed_over));
            let at = series.before + inserted;
            inserted += specs.len();
            self.checkpoints.splice(at..at, specs);
        }
        for order in 0..self.checkpoints.len() {
            self.checkpoints[order].order = order;
            let spec = &self.checkpoints[order];
            if let Some(first) = self.checkpoints[..order].iter().find(|other| other.id == spec.id) {
                let place = self.place(spec.line.max(first.line));
                bail!(
                    "{place}: found {:?} again, first in line {}, expected every id once; give the series an id to begin its ids with",
                    spec.id,
                    spec.line.min(first.line)
                );
            }
        }
        for spec in &self.checkpoints {
            let lost = spec.parents.iter().find(|(parent, _)| !self.checkpoints.iter().any(|other| other.id == *parent));
            if let Some((parent, _)) = lost {
                let ids: Vec<String> = self.checkpoints.iter().map(|other| other.id.clone()).collect();
                bail!(
                    "{}: {CHECKPOINT} parent: found {parent:?}, expected the id of another entry, as {}",
                    self.place(spec.line),
                    nearest_of(parent, &ids)
                );
            }
        }
        Ok(())
    }

    /// The tokenizer's source, where it is not that of a checkpoint.
    pub fn tokenizer_source(&self) -> Option<&Source> {
        match &self.model.tokenizer {
            Tokenizer::Source(source) => Some(source),
            Tokenizer::Final | Tokenizer::Checkpoint(_) => None,
        }
    }

    /// Whether anything in it is on the hub.
    pub fn uses_hub(&self) -> bool {
        let is_hub = |spec: &CheckpointSpec| spec.source.is_hub() || spec.adapters().any(Source::is_hub);
        let tokenizer = self.tokenizer_source().is_some_and(Source::is_hub);
        tokenizer || !self.pending.is_empty() || self.checkpoints.iter().any(is_hub)
    }
}

fn read(path: &Path) -> Result<String> {
    let name = path.display();
    let is_here = path.is_relative() && !path.starts_with("..");
    let shown = if is_here { format!("./{name}") } else { name.to_string() };
    std::fs::read_to_string(path).or_else(|error| match error.kind() {
        ErrorKind::NotFound => bail!(
            "no manifest at {shown}: run `selftrace demo` to get one, or write one with a \
             [[checkpoint]] or [[series]] table (README.md, checkpoints.toml)"
        ),
        ErrorKind::IsADirectory => bail!("{shown} is a folder, expected a file such as {name}/checkpoints.toml"),
        ErrorKind::InvalidData => bail!("{name}:1: not valid TOML: the file is not UTF-8 text"),
        _ => bail!("cannot read the manifest {shown}: {error}"),
    })
}
