//! The planted benchmark: items with a known answer go through the very code that `analyze` and `compare` run, and what comes out
//! is held against the truth, beside the usual ways to date a concept.
//!
//! [`cells`] lists what is planted, [`generate`] makes the items, [`practice`] holds the usual ways, [`report`] the tables. From an
//! item to a verdict: [`Contrasts`], [`follow`], [`weigh`] with a planted null bank, [`conclude`]. Everything depends on fixed
//! seeds and is summed in order, so the table is the same whatever the number of threads. Method section 7.

pub mod generate;
pub mod cells;
pub mod practice;
pub mod report;

use super::features;
use crate::compare::run::{Known, Run, row};
use crate::console::{bar, check_interrupt};
use crate::measure::contrast::{Contrasts, NAME, follow};
use crate::onset::date::OnsetGrid;
use crate::onset::shape::{FEWEST, Shape};
use crate::onset::trace::{Place, Presence, Trace};
use crate::onset::verdict::{Verdict, conclude};
use crate::onset::weigh::weigh;
use crate::prompt::label_family::LabelFamily;
use crate::series::Family;
use crate::stats::draws::{Draws, generator, uniform_index};
use crate::stats::sign_flip::MaxT;
use anyhow::Result;
use cells::{Cell, Kind, Pair};
use generate::Simulated;
use rayon::prelude::*;
use report::{BenchmarkRow, CompareScore, Found, ShapeRow, Tables};
use std::collections::BTreeMap;

/// Sign flips and bootstraps: fewer than an analysis has by default, which costs p-values below .001 and smooth interval ends.
const FLIPS: usize = 999;
const RESAMPLES: usize = 399;
/// Null concepts of every series, and how many are planted for a stratum to draw from.
const BANK: usize = 20;
const POOL: usize = 120;

/// How much is planted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// The small set of strata.
    pub quick: bool,
    /// Series per stratum.
    pub series: usize,
    /// Pairs of runs per comparison.
    pub pairs: usize,
    /// Series of planted features per kind.
    pub features: usize,
}

impl Size {
    pub const QUICK: Self = Self { quick: true, series: 60, pairs: 60, features: 2 };
    pub const FULL: Self = Self { quick: false, series: 200, pairs: 200, features: 12 };
}

/// Plants everything and scores it.
///
/// # Errors
/// An interrupt.
pub fn benchmark(size: Size) -> Result<Tables> {
    let (cells, pairs) = (cells::all(size.quick), cells::pairs(size.quick));
    let progress = bar(cells.len() + pairs.len(), "planting");
    let mut tables = Tables::default();
    for cell in &cells {
        let scored = score(cell, size.series)?;
        tables.benchmark.extend(scored.rows);
        tables.shapes.extend(scored.shapes);
        progress.inc(1);
        check_interrupt()?;
    }
    for pair in &pairs {
        tables.compare.extend(compare_runs(pair, size.pairs)?);
        progress.inc(1);
        check_interrupt()?;
    }
    progress.finish_and_clear();
    tracing::info!("planting features in {} series", size.features);
    tables.features = features::benchmark(size.features)?;
    Ok(tables)
}

/// What one stratum gives.
pub struct Scored {
    pub rows: Vec<BenchmarkRow>,
    pub shapes: Vec<ShapeRow>,
}

/// Plants `n` series of a stratum.
///
/// # Errors
/// Items that are not finite.
pub fn score(cell: &Cell, n: usize) -> Result<Scored> {
    let stand = Stand::new(cell)?;
    let found = (0..n as u64).into_par_iter().map(|index| stand.find(cell, index)).collect::<Result<Vec<_>>>()?;
    let mut shapes: BTreeMap<String, i32> = BTreeMap::new();
    for found in &found {
        *shapes.entry(found.shape.to_string()).or_default() += 1;
    }
    let shapes = shapes.into_iter().map(|(shape, count)| ShapeRow::new(cell, shape, count, n)).collect();
    let mut rows = vec![BenchmarkRow::new(cell, "selftrace", &found.iter().map(|found| found.ours).collect::<Vec<_>>())];
    rows[0].with_shapes(found.iter().map(|found| found.shape == cell.kind.shape()));
    for (method, name) in practice::NAMES.iter().enumerate() {
        rows.push(BenchmarkRow::new(cell, name, &found.iter().map(|found| found.practice[method]).collect::<Vec<_>>()));
    }
    Ok(Scored { rows, shapes })
}

/// What all series of a stratum share: draws, grid and a pool of null concepts.
struct Stand {
    draws: Draws,
    grid: Option<OnsetGrid>,
    pool: Vec<Trace>,
}

/// What was found in one series, by us and by the usual ways.
struct Series {
    ours: Found,
    shape: Shape,
    practice: [Found; 4],
}

impl Stand {
    fn new(cell: &Cell) -> Result<Self> {
        let series = cell.series(0);
        let draws = Draws::with_counts(cell.groups, FLIPS, RESAMPLES, 0, "benchmark")?;
        let points = series.points();
        let positions = series.timeline(&points).positions(&(0..cell.checkpoints).collect::<Vec<_>>())?;
        let grid = if cell.checkpoints >= FEWEST { Some(OnsetGrid::new(&positions)?) } else { None };
        // Words of the null bank give nothing away: the leak is the concept's own, which is the harder case.
        let null = Cell { kind: Kind::Absent, leak: 0.0, ..*cell };
        let plant = |index: u64| -> Result<Trace> {
            let mut trace = trace(&null.series(index), &format!("null {index}"), "", &draws)?.0;
            (trace.place.null_bank, trace.place.concept) = (true, format!("null {index}"));
            Ok(trace)
        };
        let pool = (0..POOL as u64).into_par_iter().map(plant).collect::<Result<Vec<_>>>()?;
        Ok(Self { draws, grid, pool })
    }

    /// The concept's trace, and after it a null bank of its own out of the pool.
    fn with_bank(&self, target: Trace, key: &str) -> Vec<Trace> {
        let mut generator = generator(0, &format!("bank {key}"));
        let mut order: Vec<usize> = (0..self.pool.len()).collect();
        for at in 0..BANK {
            let other = at + uniform_index(order.len() - at, &mut generator);
            order.swap(at, other);
        }
        std::iter::once(target).chain(order[..BANK].iter().map(|&index| self.pool[index].clone())).collect()
    }

    fn find(&self, cell: &Cell, index: u64) -> Result<Series> {
        let series = cell.series(index);
        let key = format!("{cell:?} {index}");
        let (target, p, auc) = trace(&series, &key, "", &self.draws)?;
        let traces = self.with_bank(target, &key);
        let points = series.points();
        let mut verdicts = weigh(&series.timeline(&points), &traces)?;
        conclude(&mut verdicts[0], self.grid.as_ref(), false)?;
        let Verdict { status, shape, onset, .. } = &verdicts[0];
        let truth = series.truth();
        let t50 = onset.as_ref().and_then(|onset| onset.t50);
        let error = |date: f64| truth.map(|truth| date - truth);
        let ours = Found {
            found: *status == "ok",
            error: t50.and_then(|t50| error(series.in_gaps(t50.value))),
            covered: t50.zip(truth).map(|(t50, truth)| (series.in_gaps(t50.lower)..=series.in_gaps(t50.upper)).contains(&truth)),
        };
        let usual = practice::dates(&p, &auc, &series.positions());
        let practice = usual.map(|date| Found { found: date.is_some(), error: date.and_then(error), covered: None });
        Ok(Series { ours, shape: *shape, practice })
    }
}

/// From items to a trace as `analyze` makes it, with the sign-flip p-values and held-out AUROCs that the usual ways need.
fn trace(series: &Simulated, key: &str, items: &str, draws: &Draws) -> Result<(Trace, Vec<f64>, Vec<f64>)> {
    let sides = series.sides();
    let activations = series.items(key, items);
    let deltas: Vec<Vec<f32>> = activations.iter().map(|items| Contrasts::new(items, series.d, &sides).whitened()).collect();
    let family = Family::named("target", LabelFamily::Crossed);
    let followed = follow(&family, &deltas, series.d, draws)?;
    let (mut family, mut p) = (MaxT::default(), Vec::new());
    for gram in &followed.grams {
        let null = gram.sign_flip_null(draws)?;
        family.push(&null)?;
        p.push(null.p_value());
    }
    family.push(&followed.late.sign_flip_null(draws)?)?;
    let mut trace = followed.trace;
    let mut points = family.p_values();
    trace.presence = points.pop().map(|late| Presence { points, late });
    trace.place.layer = Some(1);
    let auc = activations.iter().map(|items| practice::held_out_auc(items, series.d, &sides)).collect();
    Ok((trace, p, auc))
}

/// Plants `n` pairs of runs whose dates differ and compares them by the code of `compare`; then by the first p < .05 and by the AUC's threshold, where a difference of a checkpoint or more counts.
///
/// # Errors
/// Items that are not finite.
pub fn compare_runs(planted: &Pair, n: usize) -> Result<Vec<CompareScore>> {
    let Pair { strengths, difference, common } = *planted;
    let cells = strengths.map(|strength| Cell { common, ..Cell::plain(Kind::Sigmoid(0.8), strength) });
    let stand = Stand::new(&cells[0])?;
    let place = Place {
        measure: NAME,
        null_bank: false,
        concept: "target".to_owned(),
        label_family: LabelFamily::Crossed,
        readout: None,
        layer: Some(1),
    };
    let pair = |index: u64| -> Result<[Found; 3]> {
        let span = (cells[0].checkpoints - 1) as f64;
        let at = span * (1.0 + crate::stats::draws::uniform(&mut generator(index, "pairs"))) / 3.0;
        let (mut runs, mut usual) = (Vec::new(), Vec::new());
        for (which, (cell, at)) in cells.iter().zip([at - difference / 2.0, at + difference / 2.0]).enumerate() {
            let series = cell.series_at(at);
            let key = format!("pair {difference} {which} {cell:?} {index}");
            let (target, p, auc) = trace(&series, &key, &format!("items {index}"), &stand.draws)?;
            let traces = stand.with_bank(target, &format!("pair {index}"));
            let points = series.points();
            let timeline = series.timeline(&points);
            let mut verdicts = weigh(&timeline, &traces)?;
            conclude(&mut verdicts[0], stand.grid.as_ref(), false)?;
            runs.push(Run::from([(place.clone(), Known::new(&timeline, &verdicts[0])?)]));
            usual.push(practice::dates(&p, &auc, &series.positions()));
        }
        let row = row(&place, &runs[..1], &runs[1..])?;
        let ours = Found {
            found: row.shift.excludes_zero(),
            error: row.shift.value.map(|shift| shift - difference),
            covered: row.shift.ends().map(|[lower, upper]| (lower..=upper).contains(&difference)),
        };
        let crude = |method: usize| {
            let shift = usual[0][method].zip(usual[1][method]).map(|(a, b)| b - a);
            Found { found: shift.is_some_and(|shift| shift.abs() >= 1.0), error: shift.map(|shift| shift - difference), covered: None }
        };
        Ok([ours, crude(0), crude(1)])
    };
    let pairs = (0..n as u64).into_par_iter().map(pair).collect::<Result<Vec<_>>>()?;
    let of = |method: usize| pairs.iter().map(|pair| pair[method]).collect::<Vec<_>>();
    let names = ["selftrace", practice::NAMES[0], practice::NAMES[1]];
    Ok(names.iter().enumerate().map(|(method, name)| CompareScore::new(name, planted, &of(method))).collect())
}

#[cfg(test)]
mod tests;
