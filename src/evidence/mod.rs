//! Hypotheses held against the measures: `evidence.parquet`, one row per checkpoint, hypothesis, concept and part of its signature
//! (method section 5).
//!
//! A part supports or opposes only where its whole interval is on one side of the threshold. Parts are never added up: what a
//! hypothesis is worth is for the reader of its rows, and rows that point both ways are a finding. Parts that were not computed say
//! so: effects are there only with `[causal]`.

use crate::manifest::{Evidence, Readout};
use crate::measure::{Finding, causal, cluster, contrast, residual};
use crate::onset::gate::reference_and_late;
use crate::onset::leadlag::SilentLag;
use crate::onset::row::OnsetRow;
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::stats::estimate::{Estimate, Reported};
use crate::table::{self, Key, Table};
use crate::words::{Status, words};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

mod behavioural_persistence;
mod introspection;
mod void;

pub use crate::measure::behaviour::PERSISTENCE as BEHAVIOURAL_PERSISTENCE;
pub use crate::measure::talks::context::PERSISTENCE as CONVERSATIONAL_PERSISTENCE;

pub const TABLE: Table = Table::keyed::<Row>("evidence");

words! {
    /// What is held against the measures.
    #[derive(Default)]
    pub enum Hypothesis {
        #[default]
        FunctionalSelf = "functional_self",
        SelfIsAssistant = "self_is_assistant",
        PersonasAllTheWayDown = "personas_all_the_way_down",
        Epiphenomenal = "epiphenomenal",
        Void = "void",
    }
}

words! {
    /// On which side of its threshold a whole interval is.
    #[derive(Default)]
    pub enum Verdict {
        Supports = "supports",
        Opposes = "opposes",
        #[default]
        Inconclusive = "inconclusive",
    }
}

/// One row of `evidence.parquet` behind the keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `functional_self`, `self_is_assistant`, `personas_all_the_way_down`, `epiphenomenal` or `void`.
    pub hypothesis: Hypothesis,
    pub concept: String,
    pub null_bank: bool,
    /// Part of the signature: what is held against the threshold.
    pub measure: String,
    /// The contrast's primary layer; of effects, the layer of interventions that is nearest to it.
    pub layer: Option<i32>,
    pub readout: Option<String>,
    /// `supports`, `opposes` or `inconclusive`.
    pub verdict: Verdict,
    pub status: Status,
    /// Status of the concept's contrast in `onset.parquet`. Unless it is `ok`, the row is about a level that was not shown to be learnt; where
    /// there were checkpoints enough to show it, it supports nothing. With `ok` it supports nothing at checkpoints before the rise (status `before_onset`).
    /// Rows of `void`, `behavioural_persistence`, `conversational_persistence` and `introspection` are about answers and not about the contrast; the
    /// gate of the persistences is that of behaviour, and `not_run` stands for a concept without one; that of the last is its own.
    pub gate: Status,
    /// What the measure found.
    pub value: Reported,
    /// The number of `[evidence]`, or the end of a null band, that it is held against.
    pub threshold: Option<f64>,
    /// How far the value is beyond the threshold, in the direction that supports.
    pub margin: Option<f64>,
    /// The value at the first checkpoint: a level that was there from the start was not learnt.
    pub reference: Option<f64>,
}

/// Where the contrast is known to be above its reference: from the checkpoint by which its rise is confirmed, or in the late ones.
fn risen_from(onset: &OnsetRow, series: &Series) -> usize {
    let confirmed = onset.confirmed_by.as_ref().and_then(|id| series.points.iter().position(|point| point.id == *id));
    let late = reference_and_late(series.points.len()).1.start;
    confirmed.map_or(late, |confirmed| confirmed.min(late))
}

/// Every concept's contrast at its primary layer, at the last prompt token or at the first readout that there is.
fn places<'a>(onsets: &[&'a OnsetRow]) -> Vec<&'a OnsetRow> {
    let mut places: BTreeMap<&str, &OnsetRow> = BTreeMap::new();
    for place in onsets.iter().filter(|place| place.measure == contrast::NAME && place.label_family == LabelFamily::Crossed) {
        if !places.contains_key(place.concept.as_str()) || place.readout.as_deref() == Some(Readout::LastPrompt.name()) {
            places.insert(&place.concept, place);
        }
    }
    places.into_values().collect()
}

/// What supports: an interval above its threshold, or below it.
#[derive(Debug, Clone, Copy)]
enum Side {
    Above,
    Below,
}

impl Side {
    /// How far `value` is beyond the threshold.
    fn margin(self, value: f64, threshold: f64) -> f64 {
        if matches!(self, Self::Above) { value - threshold } else { threshold - value }
    }

    /// What the interval says.
    fn verdict(self, Estimate { lower, upper, .. }: Estimate, threshold: f64) -> Verdict {
        let (above, below) = (lower >= threshold, upper < threshold);
        if matches!(self, Self::Above) { verdict(above, below) } else { verdict(below, above) }
    }
}

/// The rows, from what the measures found, from the onsets, and from how spec-silent concepts lag.
pub fn rows(series: &Series, onsets: &[OnsetRow], findings: &[Finding], lags: &[SilentLag]) -> Vec<(Key, Row)> {
    let primary: Vec<&OnsetRow> = onsets.iter().filter(|onset| onset.primary).collect();
    let places = places(&primary);
    let numbers = Numbers::new(findings);
    let mut rows: Vec<(Key, Row)> = Vec::new();
    let first = series.key(0).checkpoint;
    let void = void::Void::new(series, &places, findings, lags);
    let carried = behavioural_persistence::Carried::new(series, &primary, findings);
    let told = introspection::Told::new(series, &primary, findings);
    for t in 0..series.points.len() {
        let key = series.key(t);
        for place in &places {
            let at = |checkpoint: &str, part: &str| numbers.at(checkpoint, place, part);
            let bench = Bench { limits: &series.evidence, place, risen: t >= risen_from(place, series) };
            for mut row in bench.rows(&|part| at(&key.checkpoint, part)) {
                row.reference = at(&first, &row.measure).estimate.map(|estimate| estimate.value);
                rows.push((key.clone(), row));
            }
        }
        rows.extend(void.rows(t).into_iter().chain(carried.rows(t)).chain(told.rows(t)).map(|row| (key.clone(), row)));
    }
    rows
}

/// Rows of a run's `evidence.parquet`.
///
/// # Errors
/// The table is missing or of another version.
pub fn read(folder: &Path) -> Result<Vec<(Key, Row)>> {
    table::read_keyed(&TABLE.path(folder))
}

/// The last checkpoint, and its rows.
pub fn last(rows: &[(Key, Row)]) -> (String, Vec<Row>) {
    let order = rows.iter().map(|(key, _)| key.order).max();
    let at_last: Vec<&(Key, Row)> = rows.iter().filter(|(key, _)| Some(key.order) == order).collect();
    let checkpoint = at_last.first().map_or_else(String::new, |(key, _)| key.checkpoint.clone());
    (checkpoint, at_last.into_iter().map(|(_, row)| row.clone()).collect())
}

/// What is found at some layers only: it is held against a contrast at the nearest of them.
const NEAREST: [&str; 5] = [causal::CURVES[0], causal::CURVES[1], causal::ALONG_AXIS, causal::BEHAVIOURAL, cluster::NAME];

/// What the measures found, by checkpoint, concept and part.
struct Numbers<'a>(BTreeMap<(&'a str, &'a str, &'a str), Vec<&'a Finding>>);

impl<'a> Numbers<'a> {
    fn new(findings: &'a [Finding]) -> Self {
        let mut numbers: BTreeMap<_, Vec<&Finding>> = BTreeMap::new();
        for finding in findings {
            numbers.entry((finding.checkpoint.as_str(), finding.concept.as_str(), finding.part)).or_default().push(finding);
        }
        Self(numbers)
    }

    /// What there is of a part where the contrast is.
    fn at(&self, checkpoint: &str, place: &OnsetRow, part: &str) -> Finding {
        let not_run = || Finding { status: Status::NotRun, ..Finding::default() };
        let (Some(layer), Some(_)) = (place.layer, &place.readout) else { return not_run() };
        let concept = if part == cluster::NAME { "" } else { place.concept.as_str() };
        let mut found = self.0.get(&(checkpoint, concept, part)).into_iter().flatten();
        let found = if NEAREST.contains(&part) {
            found.min_by_key(|found| found.layer.map_or(u32::MAX, |other| other.abs_diff(layer)))
        } else {
            found.find(|found| found.layer == place.layer && found.readout == place.readout)
        };
        found.map_or_else(not_run, |found| (*found).clone())
    }
}

/// Makes the rows of one concept at one checkpoint.
struct Bench<'a> {
    limits: &'a Evidence,
    place: &'a OnsetRow,
    /// Whether the checkpoint is one at which the contrast is above its reference, if it rises at all.
    risen: bool,
}

impl Bench<'_> {
    fn rows(&self, find: &dyn Fn(&str) -> Finding) -> Vec<Row> {
        let Evidence { persistence, persistence_absent, consistency, icc, equivalence, .. } = *self.limits;
        let Evidence { effect_z, effect_equivalence, axis_share, .. } = *self.limits;
        let residual = residual::LEVEL;
        let part = |hypothesis: Hypothesis, measure: &str, threshold: f64, side: Side| {
            self.held(hypothesis, measure, find(measure), threshold, side)
        };
        let mut rows = vec![
            part(Hypothesis::FunctionalSelf, "persistence", persistence, Side::Above),
            part(Hypothesis::FunctionalSelf, "consistency", consistency, Side::Above),
            self.outside(residual, find(residual)),
            part(Hypothesis::SelfIsAssistant, "persistence", persistence, Side::Above),
            part(Hypothesis::SelfIsAssistant, residual, equivalence, Side::Below),
            part(Hypothesis::PersonasAllTheWayDown, "icc_item", icc, Side::Below),
            part(Hypothesis::PersonasAllTheWayDown, "persistence", persistence_absent, Side::Below),
            part(Hypothesis::PersonasAllTheWayDown, "consistency", consistency, Side::Below),
            part(Hypothesis::PersonasAllTheWayDown, "within_persona", persistence, Side::Above),
            self.represented(),
            self.clustered(find(cluster::NAME)),
            part(Hypothesis::FunctionalSelf, causal::BEHAVIOURAL, effect_z, Side::Above),
            part(Hypothesis::SelfIsAssistant, causal::ALONG_AXIS, axis_share, Side::Above),
            part(Hypothesis::Epiphenomenal, causal::CURVES[0], effect_equivalence, Side::Below),
            part(Hypothesis::Epiphenomenal, causal::CURVES[1], effect_equivalence, Side::Below),
        ];
        if self.place.status == Status::LexicalLeak {
            // Whatever words give away is no evidence about a self.
            for row in rows.iter_mut().filter(|row| row.status == Status::Ok) {
                (row.verdict, row.status) = (verdict(false, false), Status::LexicalLeak);
            }
        }
        // Nor is the geometry of a contrast that was not shown to rise beyond those of its kind, or has not risen yet: every concept has one.
        let unlearnt = match self.place.status {
            Status::Ok if self.risen => None,
            Status::Ok => Some(Status::BeforeOnset),
            // Too few checkpoints to show a rise: the level is all there is.
            Status::TooFewCheckpoints | Status::NoReference | Status::NotRun => None,
            status => Some(status),
        };
        if let Some(status) = unlearnt {
            for row in rows.iter_mut().filter(|row| row.verdict == Verdict::Supports) {
                (row.verdict, row.status) = (verdict(false, false), status);
            }
        }
        rows
    }

    fn row(&self, hypothesis: Hypothesis, measure: &str, status: Status, estimate: Option<Estimate>) -> Row {
        Row {
            hypothesis,
            concept: self.place.concept.clone(),
            null_bank: self.place.null_bank,
            measure: measure.to_owned(),
            layer: self.place.layer,
            readout: self.place.readout.clone(),
            verdict: Verdict::Inconclusive,
            status,
            gate: self.place.status,
            value: estimate.into(),
            ..Row::default()
        }
    }

    /// A number against a fixed threshold. Formats are few by design, personas must not be.
    fn held(&self, hypothesis: Hypothesis, measure: &str, found: Finding, threshold: f64, side: Side) -> Row {
        let mut row = Row { threshold: Some(threshold), ..self.row(hypothesis, measure, found.status, found.estimate) };
        row.layer = found.layer.or(row.layer);
        let Some(estimate) = found.estimate else { return row };
        let margin = Some(side.margin(estimate.value, threshold));
        if found.contexts < self.limits.personas && measure != "consistency" {
            return Row { margin, status: Status::TooFewPersonas, ..row };
        }
        Row { margin, verdict: side.verdict(estimate, threshold), ..row }
    }

    /// The residual beside its null band. It supports above the band, or where nothing of the contrast is in the assistant's space to
    /// begin with: then the band is at 1 too, and no residual can be above it. It opposes below the band.
    fn outside(&self, measure: &str, found: Finding) -> Row {
        let row = self.row(Hypothesis::FunctionalSelf, measure, found.status, found.estimate);
        let (Some(Estimate { value, lower, upper }), Some([null_lower, null_upper])) = (found.estimate, found.null) else { return row };
        let whole = 1.0 - self.limits.equivalence;
        let verdict = verdict(lower > null_upper || lower >= whole, upper < null_lower && upper < whole);
        Row { verdict, threshold: Some(null_upper), margin: Some(value - null_upper.min(whole)), ..row }
    }

    /// The share of one direction in all concepts beside its null band.
    fn clustered(&self, found: Finding) -> Row {
        let row = Row { layer: found.layer, ..self.row(Hypothesis::FunctionalSelf, cluster::NAME, found.status, found.estimate) };
        let (Some(Estimate { value, lower, upper }), Some([null_lower, null_upper])) = (found.estimate, found.null) else { return row };
        let verdict = verdict(lower > null_upper, upper < null_lower);
        Row { verdict, threshold: Some(null_upper), margin: Some(value - null_upper), ..row }
    }

    /// An epiphenomenal self-model is a representation to begin with. Without one there is nothing to say.
    fn represented(&self) -> Row {
        let place = self.place;
        let delta = place.delta.estimate();
        let row = self.row(Hypothesis::Epiphenomenal, "representation", place.status, delta);
        Row { verdict: verdict(place.status == Status::Ok, false), threshold: Some(0.0), margin: place.delta.value, ..row }
    }
}

/// Inconclusive unless just one of the two is so.
pub(crate) fn verdict(supports: bool, opposes: bool) -> Verdict {
    match (supports, opposes) {
        (true, false) => Verdict::Supports,
        (false, true) => Verdict::Opposes,
        _ => Verdict::Inconclusive,
    }
}

#[cfg(test)]
mod tests;
