//! The hypothesis that the assistant is a void, in one run: on concepts that specifications leave open, different wordings agree in
//! the end, and the behaviour comes later than on concepts that specifications name. How runs differ takes several of them; `compare`
//! says it in `void.parquet`.

use super::{Hypothesis, Row, verdict};
use crate::measure::{Finding, agreement};
use crate::onset::gate::reference_and_late;
use crate::onset::leadlag::SilentLag;
use crate::onset::row::OnsetRow;
use crate::prompt::label_family::LabelFamily;
use crate::prompt::specification::Specification;
use crate::series::Series;
use crate::stats::estimate::Estimate;
use crate::words::Status;
use std::collections::BTreeMap;

pub const VARIANCE: &str = "between_run_variance";
pub const LAG: &str = "onset_lag";

/// A concept that is asked about in any way.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    concept: &'a str,
    null_bank: bool,
    specification: Option<Specification>,
    /// Status of the contrast; none for concepts that have answer stems only.
    gate: Option<Status>,
}

/// What is known for the rows of this hypothesis.
pub(super) struct Void<'a> {
    series: &'a Series,
    asked: Vec<Asked<'a>>,
    /// By checkpoint and concept.
    agreement: BTreeMap<(&'a str, &'a str), &'a Finding>,
    lags: &'a [SilentLag],
}

impl<'a> Void<'a> {
    /// From the contrasts' primary rows.
    pub fn new(series: &'a Series, places: &[&'a OnsetRow], findings: &'a [Finding], lags: &'a [SilentLag]) -> Self {
        let mut asked: BTreeMap<&str, Asked> = BTreeMap::new();
        for place in places {
            let specification = series.specification(&place.concept);
            let own = Asked { concept: &place.concept, null_bank: place.null_bank, specification, gate: Some(place.status) };
            asked.insert(&place.concept, own);
        }
        for family in series.families.iter().filter(|family| family.label_family == LabelFamily::StemSelf) {
            let specification = series.specification(&family.concept);
            let own = Asked { concept: &family.concept, null_bank: family.null_bank, specification, gate: None };
            asked.entry(&family.concept).or_insert(own);
        }
        let agreement = findings.iter().filter(|finding| finding.part == agreement::LATE);
        let agreement = agreement.map(|finding| ((finding.checkpoint.as_str(), finding.concept.as_str()), finding)).collect();
        Self { series, asked: asked.into_values().collect(), agreement, lags }
    }

    /// Rows of a checkpoint.
    pub fn rows(&self, t: usize) -> Vec<Row> {
        let at = |t: usize, asked: &Asked| self.agreement.get(&(self.series.points[t].id.as_str(), asked.concept)).copied();
        let late = reference_and_late(self.series.points.len()).1.contains(&t);
        let of = |asked: &Asked| {
            let lag = self.lags.iter().find(|lag| lag.concept == asked.concept);
            let mut agreed = agreed(asked, at(t, asked), late, self.series.evidence.agreement);
            agreed.reference = at(0, asked).and_then(|found| found.estimate).map(|agreement| agreement.value);
            // One run has no variance between runs.
            let variance = Row { threshold: Some(self.series.evidence.variance_ratio), ..row(asked, VARIANCE, Status::NeedsSeeds) };
            [agreed, variance, lagging(asked, lag)]
        };
        self.asked.iter().flat_map(of).collect()
    }
}

fn row(asked: &Asked, measure: &str, status: Status) -> Row {
    Row {
        hypothesis: Hypothesis::Void,
        concept: asked.concept.to_owned(),
        null_bank: asked.null_bank,
        measure: measure.to_owned(),
        verdict: verdict(false, false),
        status,
        gate: asked.gate.unwrap_or_default(),
        ..Row::default()
    }
}

/// The hypothesis is about silent concepts; of others it says nothing.
fn not_silent(asked: &Asked) -> Option<Status> {
    match asked.specification {
        Some(Specification::Silent) => None,
        Some(Specification::Explicit) => Some(Status::SpecExplicit),
        None => Some(Status::Unclassified),
    }
}

/// Agreement of wordings against its threshold, with a verdict on silent concepts at late checkpoints. Where wordings agree as much
/// about an unstated other it is the words that agree, and nothing is supported (status `chance`).
fn agreed(asked: &Asked, found: Option<&Finding>, late: bool, threshold: f64) -> Row {
    let status = found.map_or(Status::NotRun, |found| found.status);
    let row = Row { threshold: Some(threshold), ..row(asked, agreement::LATE, not_silent(asked).unwrap_or(status)) };
    let Some(estimate @ Estimate { value, lower, upper }) = found.and_then(|found| found.estimate) else { return row };
    let row = Row { value: Some(estimate).into(), margin: Some(value - threshold), ..row };
    match row.status {
        Status::Ok if late && lower >= threshold && found.and_then(|found| found.excess).is_some_and(|excess| excess.lower <= 0.0) => {
            Row { status: Status::Chance, ..row }
        }
        Status::Ok if late => Row { verdict: verdict(lower >= threshold, upper < threshold), ..row },
        Status::Ok => Row { status: Status::NotLate, ..row },
        _ => row,
    }
}

/// The lag against none, the same at all checkpoints.
fn lagging(asked: &Asked, found: Option<&SilentLag>) -> Row {
    let status = found.map_or(Status::NotRun, |found| found.status);
    let row = Row { threshold: Some(0.0), ..row(asked, LAG, not_silent(asked).unwrap_or(status)) };
    match found.and_then(|found| found.lag) {
        Some(lag) if row.status == Status::Ok => {
            Row { value: Some(lag).into(), margin: Some(lag.value), verdict: verdict(lag.lower > 0.0, lag.upper < 0.0), ..row }
        }
        _ => row,
    }
}

#[cfg(test)]
#[path = "void_tests.rs"]
mod tests;
