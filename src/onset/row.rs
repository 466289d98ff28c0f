//! What a verdict becomes for people to read: `onset.parquet`.

use super::confirm::{change_point, confirmation, rise_p_values};
use super::date::Onset;
use super::shape::{FEWEST, Shape};
use super::trace::Trace;
use super::verdict::Verdict;
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::stats::estimate::Reported;
use crate::table::{Table, finite};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const TABLE: Table = Table::new::<OnsetRow>("onset");

/// One row of `onset.parquet`: whether, when and in what shape a concept appears, by one measure at one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OnsetRow {
    pub run: String,
    pub concept: String,
    pub label_family: LabelFamily,
    pub null_bank: bool,
    pub measure: String,
    /// Layer 0 is the embedding, l the output of block l; null for measures of the model's output.
    pub layer: Option<i32>,
    pub readout: Option<String>,
    /// The layer that is looked at first. Among foils it is the one at which the answer stands out most,
    /// elsewhere it was chosen by groups or items that do not decide (for placement, by how well the probe
    /// binds).
    pub primary: bool,
    pub status: Status,
    /// Mean of the late checkpoints minus that of the reference ones, in units of the measure.
    pub delta: Reported,
    /// `delta` over its bootstrap standard deviation; of amplitudes, the same of their squares.
    pub z: Option<f64>,
    /// One-sided p of `z`.
    pub p: Option<f64>,
    /// The larger of `p` and `null_p`, adjusted for many tests: at primary layers over all primary rows of
    /// the run (Holm 1979; behaviour and lens may spend six tenths of the level, other measures three, the null bank one),
    /// at other layers over the concepts of the layer (Benjamini & Yekutieli 2001).
    pub q: Option<f64>,
    /// Smallest family-wise sign-flip p among the late checkpoints and their mean.
    pub max_t_p: Option<f64>,
    /// Share of null concepts, or of an answer's foils where it has some, with a smaller delta, at the same measure and layer.
    pub null_percentile: Option<f64>,
    /// One-sided p that delta is one more of theirs, by the tail of all foils of the run where it has foils. At the primary layer of a
    /// measure with foils every choice is taken at the layer that suits it best, since the layer was chosen for the answer.
    pub null_p: Option<f64>,
    /// What words, or random weights, reach by the same measure.
    pub baseline: Option<f64>,
    /// How far the late checkpoints are above the baseline.
    pub excess: Reported,
    /// Share of null concepts (or foils) with a smaller level at the reference checkpoints.
    pub level_percentile: Option<f64>,
    /// Smallest true delta that would have been found with probability .8.
    pub mde: Option<f64>,
    /// The course by name: `absent`, `already_present`, `emerges`, `strengthens`, `transient`, `vanishes`,
    /// `reoriented` or `undetermined`.
    pub shape: Shape,
    /// Midpoint of the rise, in units of the axis; null where it lies beyond the first or last checkpoint (`at_edge`), as is an end of its
    /// interval that is open. The interval of a step is never narrower than the gap between its checkpoints.
    pub t50: Reported,
    /// The same in steps.
    pub t50_step: Reported,
    /// Where a tenth of the rise is done, in units of the axis.
    pub t10: Option<f64>,
    /// Where nine tenths of it are done.
    pub t90: Option<f64>,
    /// Scale w of the fitted sigmoid, in units of the axis: t90 - t10 = 4.39 w.
    pub width: Option<f64>,
    /// The rise is not bracketed by checkpoints: t50 is null, and the end of its interval that is not null is a bound.
    pub at_edge: Option<bool>,
    /// Stages around a date that has no checkpoint of the later stage before it, as in "base | sft".
    pub between: Option<String>,
    /// The checkpoint before `confirmed_by`.
    pub last_off: Option<String>,
    /// First checkpoint that is significantly above the reference together with the next one and with at
    /// least 80% of all that follow; late by construction.
    pub confirmed_by: Option<String>,
    /// First checkpoint after the best single shift of the mean.
    pub change_point: Option<String>,
    /// Whether t50's interval touches the gap before `change_point`.
    pub agrees: Option<bool>,
    pub axis: String,
    /// Checkpoints of the curve.
    pub n_checkpoints: i32,
    /// Checkpoints that the integrity audit left out, separated by commas.
    pub excluded: Option<String>,
    /// Null concepts, or foils, that it was compared with.
    pub n_null: i32,
}

/// A row per verdict, by measure, concept and place.
///
/// # Errors
/// The checkpoints cannot be placed on the axis.
pub fn rows(series: &Series, verdicts: &[Verdict]) -> Result<Vec<OnsetRow>> {
    let mut rows = verdicts.par_iter().map(|verdict| row(series, verdict)).collect::<Result<Vec<_>>>()?;
    rows.sort_by(|a, b| a.place().cmp(&b.place()));
    Ok(rows)
}

impl OnsetRow {
    /// The date or, where it lies beyond a bound, the bound, in units of the axis.
    pub fn date_or_bound(&self) -> Option<f64> {
        self.t50.value.or(self.t50.lower).or(self.t50.upper)
    }

    /// What rows are sorted by.
    fn place(&self) -> impl Ord {
        (&self.measure, self.null_bank, &self.concept, &self.label_family, &self.readout, self.layer)
    }
}

fn row(series: &Series, verdict: &Verdict) -> Result<OnsetRow> {
    let trace = verdict.trace;
    let too_few = trace.points.len() < FEWEST;
    let id = |index: usize| trace.points.get(index).map(|&point| series.points[point].id.clone());
    let confirmed = match (&verdict.gate, too_few) {
        (Some(_), false) => confirmation(&rise_p_values(&trace.curve, &verdict.reference)?),
        _ => confirmation(&[]),
    };
    let shift = change_point(&trace.curve.value);
    let gate = verdict.gate.as_ref();
    let date = verdict.onset.as_ref();
    let positions = if too_few { None } else { Some(series.timeline().positions(&trace.points)?) };
    Ok(OnsetRow {
        run: series.run.clone(),
        concept: trace.place.concept.clone(),
        label_family: trace.place.label_family.clone(),
        null_bank: trace.place.null_bank,
        measure: trace.place.measure.to_owned(),
        layer: trace.place.layer.map(|layer| layer as i32),
        readout: trace.place.readout.clone(),
        primary: verdict.primary,
        status: verdict.status,
        delta: gate.map(|gate| gate.delta).into(),
        z: gate.and_then(|gate| finite(gate.z)),
        p: gate.and_then(|gate| finite(gate.p)),
        q: gate.and_then(|gate| gate.q),
        max_t_p: gate.and_then(|gate| gate.max_t_p),
        null_percentile: gate.and_then(|gate| gate.null_percentile),
        null_p: gate.and_then(|gate| gate.null_p),
        baseline: trace.baseline.as_ref().map(|baseline| baseline.value),
        excess: gate.and_then(|gate| gate.excess).into(),
        level_percentile: verdict.level_standing.and_then(|standing| standing.share),
        mde: gate.and_then(|gate| finite(gate.mde)),
        shape: verdict.shape,
        t50: date.map(|date| date.known(date.t50)).unwrap_or_default(),
        t50_step: date.map(|date| date.known(date.t50_step)).unwrap_or_default(),
        t10: date.and_then(|date| date.t10).map(|e| e.value),
        t90: date.and_then(|date| date.t90).map(|e| e.value),
        width: date.and_then(|date| date.width).map(|e| e.value),
        at_edge: date.map(|date| date.at_edge),
        between: date.and_then(|date| between(series, trace, positions.as_ref()?.x(), date)),
        last_off: confirmed.last_off.and_then(id),
        confirmed_by: confirmed.confirmed_by.and_then(id),
        change_point: shift.as_ref().and_then(|shift| id(shift.first_after)),
        agrees: match (shift, date.and_then(|date| date.t50), &positions) {
            (Some(shift), Some(t50), Some(positions)) => Some(shift.agrees_with(&t50, positions.x())),
            _ => None,
        },
        axis: name_of(series.axis),
        n_checkpoints: trace.points.len() as i32,
        n_null: verdict.n_null as i32,
        excluded: (!series.excluded.is_empty()).then(|| series.excluded.join(",")),
    })
}

/// "base | sft" when the interval of the date lies in a gap between checkpoints of two stages.
fn between(series: &Series, trace: &Trace, x: &[f64], onset: &Onset) -> Option<String> {
    let t50 = onset.t50?;
    let after = x.partition_point(|&position| position <= t50.value);
    let (before, after) = (*trace.points.get(after.checked_sub(1)?)?, *trace.points.get(after)?);
    let (left, right) = (&series.points[before].stage, &series.points[after].stage);
    (left != right).then(|| format!("{left} | {right}"))
}

fn name_of(value: impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
