//! Hypotheses held against the measures: `evidence.parquet`, one row per checkpoint, hypothesis, concept and part of its signature
//! (method section 5).
//!
//! A part supports or opposes only where its whole interval is on one side of the threshold. Parts are never added up: what a
//! hypothesis is worth is for the reader of its rows, and rows that point both ways are a finding. Parts that were not computed say
//! so: effects are there only with `[causal]`.

use crate::manifest::Evidence;
use crate::measure::causal::{self, Causal};
use crate::measure::persistence::{self, Persistence};
use crate::measure::residual::{self, Residual};
use crate::measure::{cluster, contrast};
use crate::onset::gate::reference_and_late;
use crate::onset::leadlag::SilentLag;
use crate::series::Series;
use crate::table::{self, Key};
use anyhow::Result;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

mod behavioural_persistence;
mod void;

pub use behavioural_persistence::NAME as BEHAVIOURAL_PERSISTENCE;

pub const TABLE: &str = "evidence.parquet";
/// Verdicts.
pub const SUPPORTS: &str = "supports";
pub const OPPOSES: &str = "opposes";
const INCONCLUSIVE: &str = "inconclusive";

/// One row of `evidence.parquet` behind the keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// `functional_self`, `self_is_assistant`, `personas_all_the_way_down`, `epiphenomenal` or `void`.
    pub hypothesis: String,
    pub concept: String,
    pub null_bank: bool,
    /// Part of the signature: what is held against the threshold.
    pub measure: String,
    /// The contrast's primary layer; of effects, the layer of interventions that is nearest to it.
    pub layer: Option<i32>,
    pub readout: Option<String>,
    /// `supports`, `opposes` or `inconclusive`.
    pub verdict: String,
    pub status: String,
    /// Status of the concept's contrast in `onset.parquet`. Unless it is `ok`, the row is about a level that was not shown to be learnt; where
    /// there were checkpoints enough to show it, it supports nothing. With `ok` it supports nothing at checkpoints before the rise (status `before_onset`).
    /// Rows of `void` and of `behavioural_persistence` are about answers and not about the contrast; the gate of the latter is that of
    /// behaviour, and `not_run` stands for a concept without one.
    pub gate: String,
    /// What the measure found.
    pub value: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
    /// The number of `[evidence]`, or the end of a null band, that it is held against.
    pub threshold: Option<f64>,
    /// How far the value is beyond the threshold, in the direction that supports.
    pub margin: Option<f64>,
    /// The value at the first checkpoint: a level that was there from the start was not learnt.
    pub reference: Option<f64>,
}

/// Where a concept is: what the onset of its contrast says. Columns of `onset.parquet`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Place {
    concept: String,
    label_family: String,
    null_bank: bool,
    measure: String,
    layer: Option<i32>,
    readout: Option<String>,
    primary: bool,
    status: String,
    delta: Option<f64>,
    delta_lower: Option<f64>,
    delta_upper: Option<f64>,
    confirmed_by: Option<String>,
}

impl Place {
    /// Where the contrast is known to be above its reference: from the checkpoint by which its rise is confirmed, or in the late ones.
    fn risen_from(&self, series: &Series) -> usize {
        let confirmed = self.confirmed_by.as_ref().and_then(|id| series.points.iter().position(|point| point.id == *id));
        let late = reference_and_late(series.points.len()).1.start;
        confirmed.map_or(late, |confirmed| confirmed.min(late))
    }
}

/// Every concept's contrast at its primary layer, at the last prompt token or at the first readout that there is.
fn places(onsets: &[Place]) -> Vec<Place> {
    let mut places: BTreeMap<&str, &Place> = BTreeMap::new();
    for place in onsets.iter().filter(|place| place.measure == contrast::NAME && place.label_family == "crossed") {
        if !places.contains_key(place.concept.as_str()) || place.readout.as_deref() == Some("last_prompt") {
            places.insert(&place.concept, place);
        }
    }
    places.into_values().cloned().collect()
}

/// A number from a table.
#[derive(Debug, Clone, Default)]
struct Found {
    status: String,
    interval: Option<[f64; 3]>,
    null: Option<[f64; 2]>,
    contexts: usize,
    /// Where it was found, if not at the contrast's layer.
    layer: Option<i32>,
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

    /// What the interval `[value, lower, upper]` says.
    fn verdict(self, [_, lower, upper]: [f64; 3], threshold: f64) -> String {
        let (above, below) = (lower >= threshold, upper < threshold);
        if matches!(self, Self::Above) { verdict(above, below) } else { verdict(below, above) }
    }
}

/// Parts that come from `causal.parquet`.
const BEHAVIOURAL_EFFECT: &str = "behavioural_effect";
const ALONG_AXIS: &str = "steering_along_axis";
const EFFECT_ON_REPORT: &str = causal::CURVES[0];
const EFFECT_ON_BEHAVIOUR: &str = causal::CURVES[1];

/// Writes `evidence.parquet` from the tables of the measures and of the onsets, and from how spec-silent concepts lag.
///
/// # Errors
/// A table cannot be read or written.
pub fn write(series: &Series, lags: &[SilentLag]) -> Result<()> {
    let onsets: Vec<Place> = table::read(&series.folder.join("onset.parquet"))?;
    let onsets: Vec<Place> = onsets.into_iter().filter(|place| place.primary).collect();
    let places = places(&onsets);
    let numbers = Numbers::read(&series.folder)?;
    let mut rows: Vec<(Key, Row)> = Vec::new();
    let first = series.key(0).checkpoint;
    let void = void::Void::new(series, &places, lags)?;
    let carried = behavioural_persistence::Carried::new(series, &onsets)?;
    for t in 0..series.points.len() {
        let key = series.key(t);
        for place in &places {
            let at = |checkpoint: &str, part: &str| numbers.at(checkpoint, place, part);
            let bank = Bench { limits: &series.evidence, place, risen: t >= place.risen_from(series) };
            for mut row in bank.rows(&|part| at(&key.checkpoint, part)) {
                row.reference = at(&first, &row.measure).interval.map(|interval| interval[0]);
                rows.push((key.clone(), row));
            }
        }
        rows.extend(void.rows(t).into_iter().chain(carried.rows(t)).map(|row| (key.clone(), row)));
    }
    table::write_keyed(&series.folder.join(TABLE), &rows, &series.run_hash)
}

/// Rows of a run's `evidence.parquet`.
///
/// # Errors
/// The table is missing or of another version.
pub fn read(folder: &Path) -> Result<Vec<(Key, Row)>> {
    read_keyed(&folder.join(TABLE))
}

/// Rows of a run's `evidence.parquet` at its last checkpoint.
///
/// # Errors
/// The table is missing or of another version.
pub fn read_last(folder: &Path) -> Result<(String, Vec<Row>)> {
    let rows = read(folder)?;
    let last = rows.iter().map(|(key, _)| key.order).max();
    let checkpoint = rows.iter().find(|(key, _)| Some(key.order) == last).map_or_else(String::new, |(key, _)| key.checkpoint.clone());
    Ok((checkpoint, rows.into_iter().filter(|(key, _)| Some(key.order) == last).map(|(_, row)| row).collect()))
}

fn read_keyed<R: DeserializeOwned>(path: &Path) -> Result<Vec<(Key, R)>> {
    Ok(table::read::<Key>(path)?.into_iter().zip(table::read::<R>(path)?).collect())
}

/// What the tables hold, by checkpoint, concept, layer, readout and part; and what is known at some layers only, by checkpoint, concept
/// and part: what interventions did, and the cluster, which is of no concept.
struct Numbers(BTreeMap<(String, String, i32, String, String), Found>, BTreeMap<(String, String, &'static str), Vec<Found>>);

impl Numbers {
    fn read(folder: &Path) -> Result<Self> {
        let mut numbers = BTreeMap::new();
        let triple = |value: Option<f64>, lower: Option<f64>, upper: Option<f64>| Some([value?, lower?, upper?]);
        for (key, row) in read_keyed::<Persistence>(&folder.join(persistence::TABLE))? {
            if row.persona.is_none() {
                let found = Found {
                    interval: triple(row.value, row.lower, row.upper),
                    null: row.null_lower.zip(row.null_upper).map(|(lower, upper)| [lower, upper]),
                    status: row.status,
                    contexts: row.n_contexts as usize,
                    layer: None,
                };
                numbers.insert((key.checkpoint, row.concept, row.layer, row.readout, row.quantity), found);
            }
        }
        for (key, row) in read_keyed::<Residual>(&folder.join(residual::TABLE))? {
            let found = Found {
                interval: triple(row.residual, row.residual_lower, row.residual_upper),
                null: row.null_lower.zip(row.null_upper).map(|(lower, upper)| [lower, upper]),
                status: row.status,
                contexts: usize::MAX,
                layer: None,
            };
            numbers.insert((key.checkpoint, row.concept, row.layer, row.readout, format!("residual_{}", row.k)), found);
        }
        let mut effects: BTreeMap<(String, String, &'static str), Vec<Found>> = BTreeMap::new();
        for (key, row) in read_keyed::<Causal>(&folder.join(causal::TABLE))?.into_iter().filter(|(_, row)| row.direction == causal::CONCEPT)
        {
            let z = triple(row.z, row.z_lower, row.z_upper);
            let share = triple(row.axis_share, row.axis_share_lower, row.axis_share_upper);
            // Without an axis or an effect there is nothing to share.
            let shared = match (row.status.as_str(), row.cos_axis) {
                ("ok", None) => "no_axis",
                ("ok", Some(_)) if share.is_none() => "no_effect",
                (status, _) => status,
            };
            let parts = match row.outcome.as_str() {
                "report" => [(EFFECT_ON_REPORT, z, row.status.as_str()), (ALONG_AXIS, share, shared)],
                _ => [(EFFECT_ON_BEHAVIOUR, z, row.status.as_str()), (BEHAVIOURAL_EFFECT, z, row.status.as_str())],
            };
            for (part, interval, status) in parts {
                let found = Found { status: status.to_owned(), interval, contexts: usize::MAX, layer: Some(row.layer), ..Found::default() };
                effects.entry((key.checkpoint.clone(), row.concept.clone(), part)).or_default().push(found);
            }
        }
        for (key, row) in read_keyed::<cluster::Row>(&folder.join(cluster::TABLE))? {
            let found = Found {
                interval: triple(row.share, row.share_lower, row.share_upper),
                null: row.null_lower.zip(row.null_upper).map(|(lower, upper)| [lower, upper]),
                status: row.status,
                contexts: usize::MAX,
                layer: Some(row.layer),
            };
            effects.entry((key.checkpoint, String::new(), cluster::NAME)).or_default().push(found);
        }
        Ok(Self(numbers, effects))
    }

    fn at(&self, checkpoint: &str, place: &Place, part: &str) -> Found {
        let not_run = || Found { status: "not_run".to_owned(), ..Found::default() };
        let (Some(layer), Some(readout)) = (place.layer, &place.readout) else { return not_run() };
        let effects = [BEHAVIOURAL_EFFECT, ALONG_AXIS, EFFECT_ON_REPORT, EFFECT_ON_BEHAVIOUR, cluster::NAME];
        if let Some(part) = effects.into_iter().find(|name| *name == part) {
            let concept = if part == cluster::NAME { String::new() } else { place.concept.clone() };
            let found = self.1.get(&(checkpoint.to_owned(), concept, part)).into_iter().flatten();
            let nearest = found.min_by_key(|found| found.layer.map_or(u32::MAX, |other| other.abs_diff(layer)));
            return nearest.cloned().unwrap_or_else(not_run);
        }
        let key = (checkpoint.to_owned(), place.concept.clone(), layer, readout.clone(), part.to_owned());
        self.0.get(&key).cloned().unwrap_or_else(not_run)
    }
}

/// Makes the rows of one concept at one checkpoint.
struct Bench<'a> {
    limits: &'a Evidence,
    place: &'a Place,
    /// Whether the checkpoint is one at which the contrast is above its reference, if it rises at all.
    risen: bool,
}

impl Bench<'_> {
    fn rows(&self, find: &dyn Fn(&str) -> Found) -> Vec<Row> {
        let Evidence { persistence, persistence_absent, consistency, icc, equivalence, .. } = *self.limits;
        let Evidence { effect_z, effect_equivalence, axis_share, .. } = *self.limits;
        let residual = residual::LEVEL;
        let part =
            |hypothesis: &str, measure: &str, threshold: f64, side: Side| self.held(hypothesis, measure, find(measure), threshold, side);
        let mut rows = vec![
            part("functional_self", "persistence", persistence, Side::Above),
            part("functional_self", "consistency", consistency, Side::Above),
            self.outside(residual, find(residual)),
            part("self_is_assistant", "persistence", persistence, Side::Above),
            part("self_is_assistant", residual, equivalence, Side::Below),
            part("personas_all_the_way_down", "icc_item", icc, Side::Below),
            part("personas_all_the_way_down", "persistence", persistence_absent, Side::Below),
            part("personas_all_the_way_down", "consistency", consistency, Side::Below),
            part("personas_all_the_way_down", "within_persona", persistence, Side::Above),
            self.represented(),
            self.clustered(find(cluster::NAME)),
            part("functional_self", BEHAVIOURAL_EFFECT, effect_z, Side::Above),
            part("self_is_assistant", ALONG_AXIS, axis_share, Side::Above),
            part("epiphenomenal", EFFECT_ON_REPORT, effect_equivalence, Side::Below),
            part("epiphenomenal", EFFECT_ON_BEHAVIOUR, effect_equivalence, Side::Below),
        ];
        if self.place.status == "lexical_leak" {
            // Whatever words give away is no evidence about a self.
            for row in rows.iter_mut().filter(|row| row.status == "ok") {
                (row.verdict, row.status) = (verdict(false, false), "lexical_leak".to_owned());
            }
        }
        // Nor is the geometry of a contrast that was not shown to rise beyond those of its kind, or has not risen yet: every concept has one.
        let unlearnt = match self.place.status.as_str() {
            "ok" if self.risen => None,
            "ok" => Some("before_onset"),
            // Too few checkpoints to show a rise: the level is all there is.
            "too_few_checkpoints" | "no_reference" | "not_run" => None,
            status => Some(status),
        };
        if let Some(status) = unlearnt {
            for row in rows.iter_mut().filter(|row| row.verdict == SUPPORTS) {
                (row.verdict, row.status) = (verdict(false, false), status.to_owned());
            }
        }
        rows
    }

    fn row(&self, hypothesis: &str, measure: &str, status: &str, interval: Option<[f64; 3]>) -> Row {
        Row {
            hypothesis: hypothesis.to_owned(),
            concept: self.place.concept.clone(),
            null_bank: self.place.null_bank,
            measure: measure.to_owned(),
            layer: self.place.layer,
            readout: self.place.readout.clone(),
            verdict: INCONCLUSIVE.to_owned(),
            status: status.to_owned(),
            gate: self.place.status.clone(),
            value: interval.map(|interval| interval[0]),
            lower: interval.map(|interval| interval[1]),
            upper: interval.map(|interval| interval[2]),
            ..Row::default()
        }
    }

    /// A number against a fixed threshold. Formats are few by design, personas must not be.
    fn held(&self, hypothesis: &str, measure: &str, found: Found, threshold: f64, side: Side) -> Row {
        let mut row = Row { threshold: Some(threshold), ..self.row(hypothesis, measure, &found.status, found.interval) };
        row.layer = found.layer.or(row.layer);
        let Some(interval) = found.interval else { return row };
        let margin = Some(side.margin(interval[0], threshold));
        if found.contexts < self.limits.personas && measure != "consistency" {
            return Row { margin, status: "too_few_personas".to_owned(), ..row };
        }
        Row { margin, verdict: side.verdict(interval, threshold), ..row }
    }

    /// The residual beside its null band. It supports above the band, or where nothing of the contrast is in the assistant's space to
    /// begin with: then the band is at 1 too, and no residual can be above it. It opposes below the band.
    fn outside(&self, measure: &str, found: Found) -> Row {
        let row = self.row("functional_self", measure, &found.status, found.interval);
        let (Some([value, lower, upper]), Some([null_lower, null_upper])) = (found.interval, found.null) else { return row };
        let whole = 1.0 - self.limits.equivalence;
        let verdict = verdict(lower > null_upper || lower >= whole, upper < null_lower && upper < whole);
        Row { verdict, threshold: Some(null_upper), margin: Some(value - null_upper.min(whole)), ..row }
    }

    /// The share of one direction in all concepts beside its null band.
    fn clustered(&self, found: Found) -> Row {
        let row = Row { layer: found.layer, ..self.row("functional_self", cluster::NAME, &found.status, found.interval) };
        let (Some([value, lower, upper]), Some([null_lower, null_upper])) = (found.interval, found.null) else { return row };
        let verdict = verdict(lower > null_upper, upper < null_lower);
        Row { verdict, threshold: Some(null_upper), margin: Some(value - null_upper), ..row }
    }

    /// An epiphenomenal self-model is a representation to begin with. Without one there is nothing to say.
    fn represented(&self) -> Row {
        let place = self.place;
        let delta = place.delta.zip(place.delta_lower).zip(place.delta_upper).map(|((value, lower), upper)| [value, lower, upper]);
        let row = self.row("epiphenomenal", "representation", &place.status, delta);
        Row { verdict: verdict(place.status == "ok", false), threshold: Some(0.0), margin: place.delta, ..row }
    }
}

/// `supports`, `opposes` or `inconclusive`.
pub(crate) fn verdict(supports: bool, opposes: bool) -> String {
    match (supports, opposes) {
        (true, false) => SUPPORTS,
        (false, true) => OPPOSES,
        _ => INCONCLUSIVE,
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
