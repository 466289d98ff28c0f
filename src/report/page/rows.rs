//! Everything that a page shows, as rows: [`super::tables`] fills it from a run folder, and whoever has rows at hand can fill it too.
//!
//! Each row keeps its number in its table, so that every number on the page can say where it is from.

use super::measures::Measure;
use super::time::Time;
use crate::analysis::OnsetRow;
use crate::evidence;
use crate::measure::causal::Causal;
use crate::measure::introspection;
use crate::measure::talks::{context, conversation, transcripts};
use crate::onset::leadlag;
use crate::series::Point as Entry;
use crate::series::axis::Axis;
use crate::stats::estimate::Reported;
use crate::stats::lexical::LexicalAudit;
use crate::table::Key;
use crate::walk::audit::Finding;
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A row with its number in its table.
pub type Numbered<R> = (usize, R);

/// `run.json`, as far as a page shows it.
#[derive(Debug, Clone, Deserialize)]
pub struct RunFile {
    pub run: String,
    #[serde(default)]
    pub seed: u64,
    #[serde(default = "by_index")]
    pub axis: Axis,
    #[serde(default)]
    pub layers: Vec<usize>,
    #[serde(default)]
    pub readouts: Vec<String>,
    #[serde(default)]
    pub checkpoints: Vec<Entry>,
    #[serde(default)]
    pub version: Option<String>,
    #[serde(default)]
    pub run_hash: Option<String>,
    #[serde(default)]
    pub items: Option<String>,
    #[serde(default)]
    pub ruler: Option<String>,
    #[serde(default)]
    pub manifest: Value,
}

impl RunFile {
    /// The run in a folder.
    ///
    /// # Errors
    /// There is none.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join("run.json");
        ensure!(path.is_file(), "{}: no such file; a run's folder is needed, as in reports/my-run", path.display());
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| format!("{}: not a description of a run", path.display()))
    }

    /// The checkpoints that are on curves: those of all that were walked and not left out.
    ///
    /// # Errors
    /// As [`Time::new`].
    pub fn time(&self, checkpoints: &[Numbered<Checkpoint>]) -> Result<Time> {
        let out = |id: &str| checkpoints.iter().any(|(_, row)| row.checkpoint == id && (row.status != "ok" || row.left_out.is_some()));
        Time::new(self.axis, self.checkpoints.iter().filter(|point| !out(&point.id)).cloned().collect())
    }
}

fn by_index() -> Axis {
    Axis::Index
}

/// What a page shows of `checkpoints.parquet`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Checkpoint {
    pub checkpoint: String,
    pub stage: String,
    pub step: Option<i64>,
    pub order: i32,
    pub source: String,
    pub commit: Option<String>,
    pub fingerprint: Option<String>,
    pub architecture: Option<String>,
    pub n_params: Option<i64>,
    pub n_layers: Option<i32>,
    pub d_model: Option<i32>,
    pub dtype: Option<String>,
    pub device: String,
    pub status: String,
    pub error: Option<String>,
    pub notes: Option<String>,
    pub left_out: Option<String>,
}

/// What a page shows of `persona.parquet`: where a context lies on the assistant axis.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Context {
    pub context: String,
    pub kind: String,
    pub layer: Option<i32>,
    pub status: String,
    pub projection: Reported,
}

/// What a page shows of `behaviour.parquet` beside the curves: how much of what was learned is said in a context.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Carried {
    pub concept: String,
    pub null_bank: bool,
    pub persona: String,
    pub persona_kind: String,
    pub status: String,
    pub carried: Reported,
}

/// A point of a curve.
#[derive(Debug, Clone)]
pub struct Point {
    /// Position among the checkpoints of [`Rows::time`].
    pub t: usize,
    pub row: usize,
    pub number: Reported,
    /// Share of the answer's foils that are below it.
    pub foils: Option<f64>,
    /// Why there is no number; `None` where there is one.
    pub why: Option<Box<str>>,
}

/// The curves of one concept by one measure, at all layers.
#[derive(Debug)]
pub struct Curves {
    pub measure: &'static Measure,
    pub concept: String,
    pub null_bank: bool,
    /// The layer that was chosen, where one was; measures of the output have no layer.
    pub primary: Option<Option<i32>>,
    /// The column that the values are from.
    pub column: &'static str,
    /// Points in the order of the checkpoints, by layer.
    pub layers: BTreeMap<Option<i32>, Vec<Point>>,
}

impl Curves {
    /// The curve at the layer that was chosen.
    pub fn chosen(&self) -> Option<&[Point]> {
        self.layers.get(&self.primary?).map(Vec::as_slice)
    }
}

/// One number about a pair of checkpoints, for a concept at its primary layer.
#[derive(Debug, Clone, Deserialize)]
pub struct Pair {
    pub from: usize,
    pub to: usize,
    pub row: usize,
    pub value: Option<f64>,
}

/// Pairs of checkpoints by concept: transfer of probes, or cosines of directions.
#[derive(Debug, Default)]
pub struct Pairs {
    /// Concept, its layer, and its pairs.
    pub of: Vec<(String, i32, Vec<Pair>)>,
}

/// All that is on a page about one run.
pub struct Rows {
    pub run: RunFile,
    /// Checkpoints that are on the curves, in order.
    pub time: Time,
    pub checkpoints: Vec<Numbered<Checkpoint>>,
    pub integrity: Vec<Numbered<(Key, Finding)>>,
    pub lexical: Vec<Numbered<LexicalAudit>>,
    pub onsets: Vec<Numbered<OnsetRow>>,
    pub curves: Vec<Curves>,
    pub transfer: Pairs,
    pub cosines: Pairs,
    pub lags: Vec<Numbered<leadlag::Row>>,
    /// At the last checkpoint, as the next ones.
    pub evidence: Vec<Numbered<evidence::Row>>,
    pub contexts: Vec<Numbered<Context>>,
    pub carried: Vec<Numbered<Carried>>,
    pub causes: Vec<Numbered<Causal>>,
    pub thoughts: Vec<Numbered<introspection::Row>>,
    pub talks: Vec<Numbered<context::Row>>,
    pub spoken: Vec<Numbered<conversation::Row>>,
    pub said: Vec<Numbered<transcripts::Line>>,
    /// Steps after which a concept is known to be taught.
    pub lessons: BTreeMap<String, f64>,
    /// Tables that are not there.
    pub missing: Vec<&'static str>,
}

impl Rows {
    /// Primary rows about concepts themselves, one readout each: the last prompt token's where there are several.
    pub fn shown(&self) -> impl Iterator<Item = &Numbered<OnsetRow>> {
        let best = self.best();
        self.onsets.iter().filter(move |(_, row)| row.primary && best.get(&place(row)) == Some(&preference(row)))
    }

    /// For every concept and measure, the readout and family that is shown.
    pub fn best(&self) -> BTreeMap<(String, String), Preference> {
        let mut best = BTreeMap::new();
        for (_, row) in self.onsets.iter().filter(|(_, row)| !row.label_family.is_comparison()) {
            let own = preference(row);
            let kept = best.entry(place(row)).or_insert_with(|| own.clone());
            if own < *kept {
                *kept = own;
            }
        }
        best
    }

    /// Concepts that are asked about, in the order of their first date; what is not dated comes after, by name.
    pub fn concepts(&self) -> Vec<&str> {
        let asked: BTreeSet<&str> = self.onsets.iter().filter(|(_, row)| !row.null_bank).map(|(_, row)| row.concept.as_str()).collect();
        let mut first: BTreeMap<&str, f64> = BTreeMap::new();
        for (_, row) in self.shown().filter(|(_, row)| row.status == "ok") {
            if let (Some(date), Some(concept)) = (row.date_or_bound(), asked.get(row.concept.as_str())) {
                first.entry(concept).and_modify(|first| *first = first.min(date)).or_insert(date);
            }
        }
        let date = |concept: &str| first.get(concept).copied().unwrap_or(f64::INFINITY);
        let mut asked: Vec<&str> = asked.into_iter().collect();
        asked.sort_by(|a, b| date(a).total_cmp(&date(b)));
        asked
    }

    /// Null topics.
    pub fn null_topics(&self) -> BTreeSet<&str> {
        self.onsets.iter().filter(|(_, row)| row.null_bank).map(|(_, row)| row.concept.as_str()).collect()
    }

    /// The curves of a concept by a measure.
    pub fn find(&self, concept: &str, measure: &str) -> Option<&Curves> {
        self.curves.iter().find(|curves| curves.concept == concept && curves.measure.name == measure)
    }

    /// The onset of a concept by a measure that is shown.
    pub fn onset(&self, concept: &str, measure: &str) -> Option<&Numbered<OnsetRow>> {
        self.shown().find(|(_, row)| row.concept == concept && row.measure == measure)
    }
}

/// How much a family and a readout are wanted: whether it is not crossed, which, whether it is not the last token, which.
pub type Preference = (bool, String, bool, String);

/// The preference of a row.
pub fn preference(row: &OnsetRow) -> Preference {
    preferred(row.label_family.as_str(), row.readout.as_deref())
}

/// The preference of a family at a readout; less is better.
pub fn preferred(family: &str, readout: Option<&str>) -> Preference {
    let readout = readout.unwrap_or_default();
    (family != "crossed", family.to_owned(), !matches!(readout, "" | "last_prompt"), readout.to_owned())
}

fn place(row: &OnsetRow) -> (String, String) {
    (row.concept.clone(), row.measure.clone())
}
