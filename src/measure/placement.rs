//! Placement: on which side of an attribute the model puts itself.
//!
//! A binding probe is fitted where the attribute is assigned in context and swapped, so that words are balanced by
//! construction, and tested on held-out groups; then it reads items about the addressee in the same contexts, beside items
//! about somebody of whom nothing was said. -1 and +1 are the poles' held-out means. Without a probe that binds (AUROC .8)
//! there is no axis and no placement.

use super::{Measure, Measured, Part};
use crate::console::check_interrupt;
use crate::onset::curve::Curve;
use crate::onset::trace::Trace;
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Reported, Sampled};
use crate::stats::evaluate::Ranking;
use crate::table::Table;
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "placement";
const TABLE: Table = Table::keyed::<Placement>("placement");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };

/// Held-out AUROC from which a binding probe is an axis.
const BINDS: f64 = 0.8;
const FOLDS: usize = 5;

/// One row of `placement.parquet` behind the keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Placement {
    concept: String,
    null_bank: bool,
    layer: i32,
    readout: String,
    /// `self`, `other`, or `self_minus_other`.
    referent: String,
    status: Status,
    /// Where the referent stands between the poles' held-out means, which are -1 and +1.
    placement: Reported,
    /// Of the binding probe on held-out groups; below .8 there is no axis.
    axis_auroc: Reported,
    n_groups: i32,
}

/// Items of one group, as positions into the list of all items of the concept.
struct Group {
    binding: Vec<(usize, bool)>,
    own: Vec<usize>,
    other: Vec<usize>,
}

fn run(series: &Series) -> Result<Measured> {
    let Some(readout) = series.last_prompt(NAME) else { return Measured::of_rows::<Placement>(TABLE, &[]) };
    let bindings: Vec<&Family> = series.families.iter().filter(|family| family.label_family == LabelFamily::Binding).collect();
    let parts = bindings.par_iter().map(|family| concept(series, family, readout)).collect::<Result<Vec<_>>>()?;
    Measured::of_parts(TABLE, parts)
}

/// Groups that have both poles, self and other items, and the list of their items.
fn bound(series: &Series, family: &Family) -> (Vec<Group>, Vec<usize>) {
    let mut items = Vec::new();
    let mut groups = Vec::new();
    let members = |label_family: &LabelFamily, id: &str| -> Vec<usize> {
        let family = series.family(&family.concept, label_family);
        family.and_then(|family| family.groups.iter().find(|(other, _)| other == id)).map_or_else(Vec::new, |(_, items)| items.clone())
    };
    for (id, binding) in &family.groups {
        let mut place = |item: usize| {
            items.push(item);
            items.len() - 1
        };
        let labelled = binding.iter().filter_map(|&item| Some((item, series.items[item].y? == 1)));
        let group = Group {
            binding: labelled.map(|(item, y)| (place(item), y)).collect(),
            own: members(&LabelFamily::PlacementSelf, id).into_iter().map(&mut place).collect(),
            other: members(&LabelFamily::PlacementOther, id).into_iter().map(&mut place).collect(),
        };
        if group.binding.iter().any(|(_, y)| *y)
            && group.binding.iter().any(|(_, y)| !y)
            && !group.own.is_empty()
            && !group.other.is_empty()
        {
            groups.push(group);
        }
    }
    (groups, items)
}

fn concept(series: &Series, family: &Family, readout: usize) -> Result<Part<Placement>> {
    let (groups, items) = bound(series, family);
    let (mut rows, mut traces) = (Vec::new(), Vec::new());
    if groups.len() < FOLDS {
        return Ok((rows, traces));
    }
    let draws = Draws::with_counts(groups.len(), series.flips, series.bootstraps, series.seed, &format!("{}/binding", family.concept))?;
    for layer in 0..series.layers.len() {
        let (mut points, mut places, mut choice) = (Vec::new(), Vec::new(), 0.0);
        for t in 0..series.points.len() {
            check_interrupt()?;
            let (activations, d) = series.rows(t, readout, layer, &items)?;
            let read = Read::new(&groups, &activations, d);
            let auroc = read.auroc(&groups, &draws)?;
            choice += auroc.map_or(0.0, |auroc| auroc.value) / series.points.len() as f64;
            let is_axis = auroc.is_some_and(|auroc| auroc.value >= BINDS) && read.poles(None).is_some();
            for referent in Referent::ALL {
                let found = if is_axis { read.sampled(referent, &draws) } else { None };
                let mut row = Placement {
                    concept: family.concept.clone(),
                    null_bank: family.null_bank,
                    layer: series.layers[layer] as i32,
                    readout: series.readouts[readout].clone(),
                    referent: referent.name().to_owned(),
                    status: if found.is_some() { Status::Ok } else { Status::NoAxis },
                    n_groups: groups.len() as i32,
                    ..Placement::default()
                };
                row.placement = found.as_ref().and_then(Sampled::estimate).into();
                row.axis_auroc = auroc.into();
                rows.push((series.key(t), row));
                if let (Referent::Difference, Some(found)) = (referent, found) {
                    points.push(t);
                    places.push(found);
                }
            }
        }
        if points.is_empty() {
            continue;
        }
        let reaches_the_end = points.last() == Some(&(series.points.len() - 1));
        let trace = Trace::new(NAME, family, points, Curve::of_sampled(&places)?).at(series, readout, layer);
        traces.push(Trace { status: (!reaches_the_end).then_some(Status::NoAxis), choice, ..trace });
    }
    Ok((rows, traces))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Referent {
    Own,
    Other,
    Difference,
}

impl Referent {
    const ALL: [Self; 3] = [Self::Own, Self::Other, Self::Difference];

    fn name(self) -> &'static str {
        match self {
            Self::Own => "self",
            Self::Other => "other",
            Self::Difference => "self_minus_other",
        }
    }
}

/// Held-out scores of one checkpoint and layer.
struct Read {
    /// Per group: mean score of the binding items at pole 0 and at pole 1, of the self and of the other items.
    groups: Vec<[f64; 4]>,
    /// Scores, labels and groups of the binding items.
    scores: Vec<f64>,
    labels: Vec<bool>,
    group: Vec<usize>,
}

impl Read {
    /// Scores every group by a probe that was fitted on the groups of the other folds.
    fn new(groups: &[Group], activations: &[f32], d: usize) -> Self {
        let mut read = Self { groups: vec![[0.0; 4]; groups.len()], scores: Vec::new(), labels: Vec::new(), group: Vec::new() };
        for fold in 0..FOLDS {
            let training = groups.iter().enumerate().filter(|(g, _)| g % FOLDS != fold).map(|(_, group)| group);
            let probe = Probe::fit(training, activations, d);
            for (g, group) in groups.iter().enumerate().filter(|(g, _)| g % FOLDS == fold) {
                let score = |item: usize| probe.score(&activations[item * d..(item + 1) * d]);
                let mean = |items: &mut dyn Iterator<Item = usize>| {
                    let (sum, n) = items.fold((0.0, 0.0), |(sum, n), item| (sum + score(item), n + 1.0));
                    sum / f64::max(n, 1.0)
                };
                let pole = |y: bool| group.binding.iter().filter(move |(_, label)| *label == y).map(|(item, _)| *item);
                let (own, other) = (group.own.iter().copied(), group.other.iter().copied());
                read.groups[g] = [mean(&mut pole(false)), mean(&mut pole(true)), mean(&mut own.into_iter()), mean(&mut other.into_iter())];
                for (item, y) in &group.binding {
                    read.scores.push(score(*item));
                    read.labels.push(*y);
                    read.group.push(g);
                }
            }
        }
        read
    }

    fn auroc(&self, groups: &[Group], draws: &Draws) -> Result<Option<Estimate>> {
        let ranking = Ranking::new(&self.scores, &self.labels)?;
        let Some(value) = ranking.auroc(&vec![1.0; self.scores.len()]) else { return Ok(None) };
        let weigh = |counts: &[f32]| self.group.iter().map(|&g| f64::from(counts[g])).collect::<Vec<_>>();
        let replicates: Vec<f64> =
            draws.multiplicities().chunks_exact(groups.len()).map(|counts| ranking.auroc(&weigh(counts)).unwrap_or(f64::NAN)).collect();
        Ok(Estimate::percentile(value, &replicates))
    }

    /// Weighted means over groups; `counts` of `None` weighs all equally.
    fn means(&self, counts: Option<&[f32]>) -> [f64; 4] {
        let mut means = [0.0; 4];
        let mut total = 0.0;
        for (g, group) in self.groups.iter().enumerate() {
            let weight = counts.map_or(1.0, |counts| f64::from(counts[g]));
            total += weight;
            means.iter_mut().zip(group).for_each(|(mean, x)| *mean += weight * x);
        }
        means.map(|mean| mean / total)
    }

    /// The poles' means, where pole 1 is above pole 0.
    fn poles(&self, counts: Option<&[f32]>) -> Option<(f64, f64)> {
        let [low, high, ..] = self.means(counts);
        (high > low).then_some((low, high))
    }

    fn place(&self, referent: Referent, counts: Option<&[f32]>) -> Option<f64> {
        let (low, high) = self.poles(counts)?;
        let [_, _, own, other] = self.means(counts);
        let place = |score: f64| 2.0 * (score - (low + high) / 2.0) / (high - low);
        Some(match referent {
            Referent::Own => place(own),
            Referent::Other => place(other),
            Referent::Difference => place(own) - place(other),
        })
    }

    /// `None` where the poles change places in a resample.
    fn sampled(&self, referent: Referent, draws: &Draws) -> Option<Sampled> {
        let value = self.place(referent, None)?;
        let resamples = draws.multiplicities().chunks_exact(self.groups.len());
        let replicates = resamples.map(|counts| self.place(referent, Some(counts))).collect::<Option<Vec<f64>>>()?;
        Some(Sampled { value, replicates })
    }
}

/// Difference of pole means over the variance within poles, dimension by dimension (diagonal LDA).
struct Probe {
    direction: Vec<f64>,
    middle: f64,
    half: f64,
}

impl Probe {
    fn fit<'a>(groups: impl Iterator<Item = &'a Group>, activations: &[f32], d: usize) -> Self {
        let items: Vec<(usize, bool)> = groups.flat_map(|group| group.binding.iter().copied()).collect();
        let mut mean = [vec![0f64; d], vec![0f64; d]];
        let mut n = [0f64; 2];
        for &(item, y) in &items {
            n[usize::from(y)] += 1.0;
            mean[usize::from(y)].iter_mut().zip(&activations[item * d..(item + 1) * d]).for_each(|(mean, x)| *mean += f64::from(*x));
        }
        mean.iter_mut().zip(n).for_each(|(mean, n)| mean.iter_mut().for_each(|x| *x /= f64::max(n, 1.0)));
        let mut variance = vec![0f64; d];
        for &(item, y) in &items {
            let rows = activations[item * d..(item + 1) * d].iter().zip(&mean[usize::from(y)]);
            variance.iter_mut().zip(rows).for_each(|(v, (x, mean))| *v += (f64::from(*x) - mean).powi(2) / items.len() as f64);
        }
        let average = variance.iter().map(|v| v.sqrt()).sum::<f64>() / d as f64;
        let [low, high] = &mean;
        // Shrunk as in the contrast, so that a dimension that hardly varies does not rule.
        let weigh = |j: usize| ((variance[j].sqrt() + average) / 2.0).powi(2);
        let direction: Vec<f64> = (0..d).map(|j| if average > 0.0 { (high[j] - low[j]) / weigh(j) } else { 0.0 }).collect();
        let along = |mean: &[f64]| direction.iter().zip(mean).map(|(w, x)| w * x).sum::<f64>();
        let (low, high) = (along(low), along(high));
        Self { middle: (low + high) / 2.0, half: (high - low) / 2.0, direction }
    }

    /// In units of the training poles, so that scores of different folds compare.
    fn score(&self, row: &[f32]) -> f64 {
        let along = self.direction.iter().zip(row).map(|(w, x)| w * f64::from(*x)).sum::<f64>();
        if self.half > 0.0 { (along - self.middle) / self.half } else { 0.0 }
    }
}
