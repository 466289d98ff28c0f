//! Whether a concept is in the representation before it is in behaviour, or the other way round: `leadlag.parquet`, every pair of
//! measures that follow a concept (method section 5).
//!
//! Change, lens and behaviour resample the same answer stems with the same draws, so their dates are compared resample by resample;
//! other measures have groups of their own, and their resamples pair as independent ones do.

use super::verdict::Verdict;
use crate::manifest::Readout;
use crate::prompt::label_family::LabelFamily;
use crate::prompt::specification::Specification;
use crate::stats::estimate::{Estimate, Reported, first, paired};
use crate::table::Table;
use crate::words::Status;
use serde::{Deserialize, Serialize};

pub const TABLE: Table = Table::new::<Row>("leadlag");

/// Label families by which a concept itself is followed; others are controls of it, or companions.
const OF_CONCEPTS: [LabelFamily; 3] = [LabelFamily::Crossed, LabelFamily::Stem, LabelFamily::Binding];

/// One row of `leadlag.parquet`: a concept by two measures, each at its primary layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub run: String,
    pub concept: String,
    pub null_bank: bool,
    /// One measure.
    pub first: String,
    /// Its primary layer.
    pub first_layer: Option<i32>,
    /// Another one.
    pub second: String,
    /// Its primary layer.
    pub second_layer: Option<i32>,
    /// `ok` where both have a date; else the first reason why not.
    pub status: Status,
    /// t50 by the second minus t50 by the first, in units of the axis; positive where the first leads.
    pub lag: Reported,
    /// P(t50 by the first < t50 by the second): share of resamples, ties counted by half.
    pub p_first: Option<f64>,
}

/// Every concept by every pair of measures that follow it.
pub fn rows(run: &str, verdicts: &[Verdict]) -> Vec<Row> {
    let followed = |verdict: &&Verdict| {
        let trace = verdict.trace;
        let plain = trace.place.readout.as_deref().is_none_or(|readout| readout == Readout::LastPrompt.name());
        verdict.primary && plain && OF_CONCEPTS.contains(&trace.place.label_family)
    };
    let followed: Vec<&Verdict> = verdicts.iter().filter(followed).collect();
    let mut rows = Vec::new();
    for (index, a) in followed.iter().enumerate() {
        // Measures stand in the order in which they are computed, behaviour after what it is compared with.
        for b in followed[index + 1..]
            .iter()
            .filter(|b| b.trace.place.concept == a.trace.place.concept && b.trace.place.measure != a.trace.place.measure)
        {
            rows.push(row(run, a, b));
        }
    }
    rows.sort_by(|a, b| (a.null_bank, &a.concept).cmp(&(b.null_bank, &b.concept)));
    rows
}

fn row(run: &str, a: &Verdict, b: &Verdict) -> Row {
    let dates = date(a).zip(date(b));
    let status = [a, b].into_iter().find(|verdict| date(verdict).is_none()).map_or(Status::Ok, |verdict| undated(verdict));
    Row {
        run: run.to_owned(),
        concept: a.trace.place.concept.clone(),
        null_bank: a.trace.place.null_bank,
        first: a.trace.place.measure.to_owned(),
        first_layer: a.trace.place.layer.map(|layer| layer as i32),
        second: b.trace.place.measure.to_owned(),
        second_layer: b.trace.place.layer.map(|layer| layer as i32),
        status,
        lag: dates.and_then(|(a, b)| paired(a, b)).into(),
        p_first: dates.and_then(|(a, b)| first(a.1.iter().zip(b.1))),
    }
}

/// How much later the behaviour of a concept that specifications leave open appears than that of those they name.
#[derive(Debug, Clone, PartialEq)]
pub struct SilentLag {
    pub concept: String,
    /// `ok`; why the concept has no date, or `no_explicit_date` where none of those that are named has one; `no_interval` where most
    /// resamples lack a date.
    pub status: Status,
    /// Its t50 minus the mean t50 of the named ones that have a date, in units of the axis, resample by resample.
    pub lag: Option<Estimate>,
}

/// The lag of every silent concept by `measure`, that of behaviour, the null bank's among them; only concepts outside of it are the named ones.
pub fn silent_lags(verdicts: &[Verdict], measure: &str, specification: &dyn Fn(&str) -> Option<Specification>) -> Vec<SilentLag> {
    let of = |wanted: Specification| {
        let asked = verdicts.iter().filter(|verdict| verdict.primary && verdict.trace.place.measure == measure);
        asked.filter(move |verdict| specification(&verdict.trace.place.concept) == Some(wanted))
    };
    let named: Vec<_> = of(Specification::Explicit).filter(|verdict| !verdict.trace.place.null_bank).filter_map(date).collect();
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / named.len() as f64;
    let resamples = named.iter().map(|(_, replicates)| replicates.len()).min().unwrap_or(0);
    let value = mean(&mut named.iter().map(|(value, _)| *value));
    // A resample in which one of them has no date has no mean.
    let replicates: Vec<f64> = (0..resamples).map(|b| mean(&mut named.iter().map(|(_, replicates)| replicates[b]))).collect();
    let lag = |verdict: &Verdict| {
        let (status, lag) = match date(verdict) {
            None => (undated(verdict), None),
            Some(_) if named.is_empty() => (Status::NoExplicitDate, None),
            Some((own, own_replicates)) => match paired((value, &replicates), (own, own_replicates)) {
                None => (Status::NoInterval, None),
                found => (Status::Ok, found),
            },
        };
        SilentLag { concept: verdict.trace.place.concept.clone(), status, lag }
    };
    of(Specification::Silent).map(lag).collect()
}

/// The date with its replicates.
fn date<'a>(verdict: &'a Verdict) -> Option<(f64, &'a [f64])> {
    let onset = verdict.onset.as_ref().filter(|_| verdict.status == Status::Ok)?;
    Some((onset.t50?.value, &onset.t50_replicates))
}

/// Why there is none.
fn undated(verdict: &Verdict) -> Status {
    if verdict.status == Status::Ok { Status::NoDate } else { verdict.status }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onset::curve::Curve;
    use crate::onset::trace::Null;
    use crate::onset::trace::Trace;
    use crate::onset::weigh::verdicts;
    use crate::series::axis::Axis;
    use crate::series::{Family, Point, Timeline};
    use crate::stats::draws::{generator, normal};

    /// A curve that rises by 4 at `from`; replicates share `noise`, so that dates of curves with the same seed are paired.
    fn trace(measure: &'static str, concept: &str, from: usize) -> Trace {
        let mut rng = generator(3, concept);
        let value: Vec<f64> = (0..12).map(|t| if t >= from { 4.0 } else { 0.0 }).collect();
        let replicates = (0..200).flat_map(|_| value.iter().map(|v| v + 0.2 * normal(&mut rng)).collect::<Vec<_>>()).collect();
        let family = Family::named(concept, LabelFamily::Stem);
        Trace { null: Null::Bank, ..Trace::new(measure, &family, (0..12).collect(), Curve::new(value, replicates).unwrap()) }
    }

    fn points() -> Vec<Point> {
        (0..12).map(|t| Point { id: format!("c{t}"), stage: String::new(), step: None, tokens: None, order: t, reference: false }).collect()
    }

    #[test]
    fn silent_concepts_lag_behind_the_mean_of_the_named_ones() {
        let rises = [("name", 3), ("maker", 5), ("taste", 8), ("pace", 4), ("never", 40)];
        let traces = rises.map(|(concept, from)| trace("behaviour", concept, from));
        let points = points();
        let verdicts = verdicts(&Timeline { points: &points, axis: Axis::Index }, &traces, &|_| false).unwrap();
        let specification = |concept: &str| match concept {
            "name" | "maker" => Some(Specification::Explicit),
            _ => Some(Specification::Silent),
        };
        let found = silent_lags(&verdicts, "behaviour", &specification);
        let names: Vec<_> = found.iter().map(|lag| (lag.concept.as_str(), lag.status)).collect();
        assert_eq!(names, [("taste", Status::Ok), ("pace", Status::Ok), ("never", Status::GateFail)]);
        let lag = found[0].lag.unwrap();
        assert!((lag.value - 4.0).abs() < 0.5 && lag.lower > 3.0, "{lag:?}");
        // Resample by resample, as a loop over the dates of the three would have it.
        let dates = |at: usize| &verdicts[at].onset.as_ref().unwrap().t50_replicates;
        let by_hand: Vec<f64> = (0..200).map(|b| dates(2)[b] - (dates(0)[b] + dates(1)[b]) / 2.0).collect();
        let expected = Estimate::percentile(lag.value, &by_hand).unwrap();
        assert!((lag.lower - expected.lower).abs() < 1e-12 && (lag.upper - expected.upper).abs() < 1e-12);
        assert!(found[1].lag.unwrap().value.abs() < 0.5);
        let nobody = silent_lags(&verdicts, "behaviour", &|_| Some(Specification::Silent));
        assert!(nobody.iter().all(|lag| lag.lag.is_none() && matches!(lag.status, Status::NoExplicitDate | Status::GateFail)));
    }

    #[test]
    fn what_rises_first_leads() {
        let points = points();
        let timeline = Timeline { points: &points, axis: Axis::Index };
        let traces = [
            trace("change", "a", 4),
            trace("behaviour", "a", 8),
            trace("change", "b", 6),
            trace("behaviour", "b", 40),
            trace("change", "c", 5),
        ];
        let verdicts = verdicts(&timeline, &traces, &|_| false).unwrap();
        let rows = rows("run", &verdicts);
        let names: Vec<_> = rows.iter().map(|row| (row.concept.as_str(), row.first.as_str(), row.second.as_str(), row.status)).collect();
        assert_eq!(names, [("a", "change", "behaviour", Status::Ok), ("b", "change", "behaviour", Status::GateFail)]);
        assert!((rows[0].lag.value.unwrap() - 4.0).abs() < 0.5 && rows[0].lag.lower.unwrap() > 3.0 && rows[0].p_first == Some(1.0));
        assert_eq!((rows[1].lag.value, rows[1].p_first), (None, None));
    }
}
