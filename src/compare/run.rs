//! What a comparison keeps of one run, and the row that two arms give.

use super::CompareRow;
use super::shift::{between_runs, over_runs};
use crate::onset::curve::mean;
use crate::onset::trace::{Place, Role};
use crate::onset::verdict::Verdict;
use crate::series::Timeline;
use crate::stats::estimate::{Estimate, Reported, Sampled, first, paired};
use crate::table::finite;
use crate::words::Status;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;

/// Everything that is known of one run.
pub(crate) type Run = BTreeMap<Place, Known>;

/// What one run says about one place.
pub(crate) struct Known {
    pub status: Status,
    pub primary: bool,
    /// One-sided p of the rise among foils or null concepts.
    pub null_p: Option<f64>,
    /// Smallest family-wise p among the late checkpoints, for measures that have one.
    pub max_t_p: Option<f64>,
    shape: String,
    date: Option<Date>,
    /// `None` where the status says why not.
    level: Option<Sampled>,
}

struct Date {
    t50: Estimate,
    replicates: Vec<f64>,
    /// The same in steps, where checkpoints have them.
    steps: Option<Sampled>,
}

impl Known {
    pub fn new(timeline: &Timeline, verdict: &Verdict) -> Result<Self> {
        let (trace, curve) = (verdict.trace, &verdict.trace.curve);
        if trace.role == Role::Level {
            let level = Sampled { value: curve.value[0], replicates: curve.replicates.clone() };
            return Ok(Self {
                status: trace.status.unwrap_or(Status::Ok),
                primary: verdict.primary,
                null_p: None,
                max_t_p: None,
                shape: String::new(),
                date: None,
                level: trace.status.is_none().then_some(level),
            });
        }
        let date = match verdict.onset.as_ref().and_then(|onset| Some((onset.t50?, onset))) {
            Some((t50, onset)) if verdict.status == Status::Ok => {
                let positions = timeline.positions(&trace.points)?;
                let step = |x: f64| if x.is_finite() { positions.step_at(x).unwrap_or(f64::NAN) } else { f64::NAN };
                let steps = positions
                    .step_at(t50.value)
                    .map(|value| Sampled { value, replicates: onset.t50_replicates.iter().map(|&x| step(x)).collect() });
                Some(Date { t50, replicates: onset.t50_replicates.clone(), steps })
            }
            _ => None,
        };
        let late = verdict.late.clone();
        let level = Sampled {
            value: trace.sign * mean(&curve.value[late.clone()]),
            replicates: curve.replicate_rows().map(|row| trace.sign * mean(&row[late.clone()])).collect(),
        };
        Ok(Self {
            // A rise that passes and that hardly any resample has gets no date.
            status: if verdict.status == Status::Ok && date.is_none() { Status::Failed } else { verdict.status },
            primary: verdict.primary,
            null_p: verdict.gate.and_then(|gate| gate.null_p),
            max_t_p: verdict.gate.and_then(|gate| gate.max_t_p),
            shape: verdict.shape.to_string(),
            date,
            level: Some(level),
        })
    }
}

/// One arm at one place.
struct Arm<'a> {
    /// Runs that have the place.
    known: Vec<&'a Known>,
    status: Status,
    shape: String,
    /// Dates of all runs, if all have one.
    dates: Option<Vec<&'a Date>>,
    all: bool,
}

impl<'a> Arm<'a> {
    fn new(place: &Place, runs: &'a [Run]) -> Self {
        let known: Vec<&Known> = runs.iter().filter_map(|run| run.get(place)).collect();
        let all = known.len() == runs.len();
        let status = known.iter().map(|known| known.status).find(|status| *status != Status::Ok).unwrap_or(if all {
            Status::Ok
        } else {
            Status::NotRun
        });
        let mut shapes: Vec<&str> = known.iter().map(|known| known.shape.as_str()).collect();
        shapes.dedup();
        let dates = known.iter().map(|known| known.date.as_ref()).collect::<Option<Vec<_>>>().filter(|_| all && status == Status::Ok);
        Self { status, shape: shapes.join(","), dates, all, known }
    }

    fn t50(&self) -> Option<Estimate> {
        match self.dates.as_deref()? {
            [one] => Some(one.t50),
            several => over_runs(&several.iter().map(|date| date.t50.value).collect::<Vec<_>>()),
        }
    }

    fn levels(&self) -> Option<Vec<&'a Sampled>> {
        self.known.iter().map(|known| known.level.as_ref()).collect::<Option<Vec<_>>>().filter(|_| self.all)
    }
}

/// The row of a place, but for names, axis, cosine, and whether it is primary.
pub(crate) fn row(place: &Place, a: &[Run], b: &[Run]) -> Result<CompareRow> {
    let (single, n_a, n_b) = (a.len() == 1 && b.len() == 1, a.len() as i32, b.len() as i32);
    let (a, b) = (Arm::new(place, a), Arm::new(place, b));
    let mut shift = None;
    let mut shift_step = None;
    let mut p_a_first = None;
    if let (Some(dates_a), Some(dates_b)) = (&a.dates, &b.dates) {
        let steps = |dates: &[&Date]| dates.iter().map(|date| date.steps.as_ref().map(|steps| steps.value)).collect::<Option<Vec<f64>>>();
        if let ([a], [b], true) = (dates_a.as_slice(), dates_b.as_slice(), single) {
            require_pairs(place, &a.replicates, &b.replicates)?;
            shift = paired((a.t50.value, &a.replicates), (b.t50.value, &b.replicates));
            p_a_first = first(a.replicates.iter().zip(&b.replicates));
            if let (Some(a), Some(b)) = (&a.steps, &b.steps) {
                shift_step = b.minus(a);
            }
        } else {
            let values = |dates: &[&Date]| dates.iter().map(|date| date.t50.value).collect::<Vec<f64>>();
            let (a, b) = (values(dates_a), values(dates_b));
            shift = between_runs(&a, &b);
            p_a_first = first(a.iter().flat_map(|a| b.iter().map(move |b| (a, b))));
            if let (Some(a), Some(b)) = (steps(dates_a), steps(dates_b)) {
                shift_step = between_runs(&a, &b);
            }
        }
    }
    let (levels_a, levels_b) = (a.levels(), b.levels());
    let values = |levels: &[&Sampled]| levels.iter().map(|level| level.value).collect::<Vec<f64>>();
    let level_difference = match (levels_a.as_deref(), levels_b.as_deref()) {
        (Some([a]), Some([b])) if single => {
            require_pairs(place, &a.replicates, &b.replicates)?;
            b.minus(a)
        }
        (Some(a), Some(b)) => between_runs(&values(a), &values(b)),
        _ => None,
    };
    let (t50_a, t50_b) = (a.t50().into(), b.t50().into());
    let level = |levels: Option<Vec<&Sampled>>| levels.and_then(|levels| finite(mean(&values(&levels))));
    Ok(CompareRow {
        run_a: String::new(),
        run_b: String::new(),
        concept: place.concept.clone(),
        label_family: place.label_family.clone(),
        null_bank: place.null_bank,
        measure: place.measure.to_owned(),
        layer: place.layer.map(|layer| layer as i32),
        readout: place.readout.clone(),
        primary: false,
        status: if a.status == Status::Ok { b.status } else { a.status },
        status_a: a.status,
        status_b: b.status,
        shape_a: a.shape,
        shape_b: b.shape,
        t50_a,
        t50_b,
        shift: shift.into(),
        shift_step: shift_step.into(),
        p_a_first,
        level_a: level(levels_a),
        level_b: level(levels_b),
        level_difference: level_difference.into(),
        cosine: Reported::default(),
        unit: if single { "group" } else { "run" }.to_owned(),
        n_a,
        n_b,
        axis: String::new(),
    })
}

fn require_pairs(place: &Place, a: &[f64], b: &[f64]) -> Result<()> {
    ensure!(
        a.len() == b.len(),
        "{} by {}: {} resamples in the first run and {} in the second do not pair",
        place.concept,
        place.measure,
        a.len(),
        b.len()
    );
    Ok(())
}
