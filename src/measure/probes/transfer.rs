//! A probe that was fitted at one checkpoint, tested at another: it tells "absent" from "turned". `transfer.parquet`.
//!
//! The probes are the logistic ones of leave-group-out, so that every item is scored by a probe that has seen its group at no
//! checkpoint. As they are, the five folds' scores are pooled with the bias that each had where it was fitted; at another checkpoint
//! these biases fit no longer, and pooled ranks suffer. Rescaled, each fold's scores at the new checkpoint have the midpoint of
//! the two labels' means subtracted and are divided by the spread within labels, both from the training groups there: a bias
//! and a scale are refitted, the direction is not, and its sign is kept.

use super::set::Set;
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::stats::clustered;
use crate::stats::estimate::Reported;
use crate::stats::kernel::Linear;
use crate::stats::matrix::{self, Right};
use crate::table::{self, Table, finite};
use crate::words::Status;
use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

pub const TABLE: Table = Table::keyed::<Transfer>("transfer");

/// One row of `transfer.parquet` behind the keys: these are of the checkpoint where the probe was fitted, and `to_...` are of the
/// checkpoint where it is tested.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Transfer {
    to_checkpoint: String,
    to_step: Option<i64>,
    to_order: i32,
    concept: String,
    label_family: LabelFamily,
    null_bank: bool,
    layer: i32,
    readout: String,
    status: Status,
    /// Of the probe as it is, with the interval of DeLong for clustered data.
    auroc: Reported,
    /// The same with the bias and the scale of each fold refitted at the other checkpoint; the direction is
    /// kept.
    auroc_rescaled: Option<f64>,
    n: i32,
    n_groups: i32,
}

/// The probes of one checkpoint and their held-out scores there.
pub struct Native {
    /// One per fold.
    pub linear: Vec<Linear>,
    /// `[n]`.
    pub scores: Vec<f64>,
}

/// Held-out scores `[n]` per checkpoint; `None` where there is no probe.
pub type Held = Vec<Option<Vec<f64>>>;

/// Every checkpoint's probes at every other, at one place, in `rows` where `all` is asked for. Returns the held-out
/// scores, `[n]` per checkpoint, of the last checkpoint's probes: the frozen ruler. `fold` is that of each item.
///
/// # Errors
/// The store cannot be read, or checkpoints differ in d_model.
pub fn at_layer(
    series: &Series,
    set: &Set,
    (readout, layer): (usize, usize),
    fold: &[usize],
    native: &[Option<Native>],
    all: bool,
) -> Result<(Held, Option<RecordBatch>)> {
    let last = native.len() - 1;
    let sources: Vec<usize> = (0..=last).filter(|&t| (all || t == last) && native[t].is_some()).collect();
    let probes: Vec<&Linear> = sources.iter().filter_map(|&t| native[t].as_ref()).flat_map(|native| &native.linear).collect();
    let folds = fold.iter().max().map_or(0, |last| last + 1);
    let d = probes.first().map_or(0, |probe| probe.weights.len());
    ensure!(probes.iter().all(|probe| probe.weights.len() == d), "{}: checkpoints differ in d_model", set.family.concept);
    let weights: Vec<f32> = probes.iter().flat_map(|probe| &probe.weights).map(|&w| w as f32).collect();
    let n = set.items.len();
    let (mut frozen, mut rows) = (Vec::new(), Vec::new());
    for to in 0..native.len() {
        if probes.is_empty() {
            frozen.push(None);
        } else {
            let (x, width) = series.rows(to, readout, layer, &set.items)?;
            ensure!(width == d, "{}: d_model is {width}, that of other checkpoints {d}", series.points[to].id);
            let scores = Scores::new(x, n, d, &probes, &weights);
            for (index, &from) in sources.iter().enumerate() {
                let own = native[from].as_ref().filter(|_| from == to);
                let plain = own.map_or_else(|| scores.plain(index * folds, fold), |own| own.scores.clone());
                if all {
                    let rescaled = scores.rescaled(index * folds, fold, &set.labels);
                    let areas = [&plain, &rescaled].map(|scores| clustered::auroc(scores, &set.labels, &set.groups, set.n_groups()));
                    let [auroc, rescaled] = areas;
                    let (auroc, rescaled) = (auroc?, rescaled?);
                    let status = if auroc.is_some() { Status::Ok } else { Status::DegenerateLabel };
                    let auroc_rescaled = rescaled.and_then(|auroc| finite(auroc.value));
                    let mut row = Transfer { auroc_rescaled, ..set.transfer(series, (readout, layer), to, status) };
                    row.auroc = auroc.into();
                    rows.push(((from, to), row));
                }
                if from == last {
                    frozen.push(Some(plain));
                }
            }
            if !sources.contains(&last) {
                frozen.push(None);
            }
        }
        let missing = (0..native.len()).filter(|&from| all && native[from].is_none());
        rows.extend(missing.map(|from| ((from, to), set.transfer(series, (readout, layer), to, set.absent(0)))));
    }
    rows.sort_by_key(|(pair, _)| *pair);
    let rows: Vec<_> = rows.into_iter().map(|((from, _), row)| (series.key(from), row)).collect();
    Ok((frozen, if all { Some(table::keyed(&rows)?) } else { None }))
}

impl Set<'_> {
    /// A row without numbers, for a probe that is tested at checkpoint `to`.
    fn transfer(&self, series: &Series, (readout, layer): (usize, usize), to: usize, status: Status) -> Transfer {
        let to = series.key(to);
        Transfer {
            to_checkpoint: to.checkpoint,
            to_step: to.step,
            to_order: to.order,
            concept: self.family.concept.clone(),
            label_family: self.family.label_family.clone(),
            null_bank: self.family.null_bank,
            layer: series.layers[layer] as i32,
            readout: series.readouts[readout].clone(),
            status,
            auroc: Reported::default(),
            auroc_rescaled: None,
            n: self.items.len() as i32,
            n_groups: self.n_groups() as i32,
        }
    }
}

/// All items of one checkpoint under all probes.
struct Scores {
    /// `[probe, item]`, of the items minus their mean.
    centred: Vec<f32>,
    /// `[probe]`, what the mean of the items adds.
    offset: Vec<f64>,
    n: usize,
}

impl Scores {
    /// `x`, `[n, d]`, under `probes`, whose weights in f32 are `weights`, `[probe, d]`. The mean goes through in f64: activations may
    /// be far from zero.
    fn new(mut x: Vec<f32>, n: usize, d: usize, probes: &[&Linear], weights: &[f32]) -> Self {
        let mut mean = vec![0f64; d];
        x.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n as f64));
        x.chunks_exact_mut(d).for_each(|row| row.iter_mut().zip(&mean).for_each(|(x, mean)| *x = (f64::from(*x) - mean) as f32));
        let mut centred = vec![0f32; probes.len() * n];
        matrix::multiply([probes.len(), d, n], weights, &x, Right::Transposed, &mut centred);
        let offset = probes.iter().map(|probe| probe.bias + matrix::dot_f64(&probe.weights, &mean)).collect();
        Self { centred, offset, n }
    }

    /// Scores of each item by the probe of its fold; `first` is the probe of fold 0.
    fn plain(&self, first: usize, fold: &[usize]) -> Vec<f64> {
        fold.iter().enumerate().map(|(i, fold)| f64::from(self.centred[(first + fold) * self.n + i]) + self.offset[first + fold]).collect()
    }

    /// The same with bias and scale from the training items of the fold, here.
    fn rescaled(&self, first: usize, fold: &[usize], labels: &[bool]) -> Vec<f64> {
        let folds = fold.iter().max().map_or(0, |last| last + 1);
        let standards: Vec<(f64, f64)> = (0..folds)
            .map(|held| {
                let scores = &self.centred[(first + held) * self.n..][..self.n];
                let mut sums = [[0f64; 3]; 2];
                for ((&score, &label), _) in scores.iter().zip(labels).zip(fold).filter(|(_, fold)| **fold != held) {
                    let score = f64::from(score);
                    let sum = &mut sums[usize::from(label)];
                    *sum = [sum[0] + 1.0, sum[1] + score, sum[2] + score * score];
                }
                let means = sums.map(|[n, sum, _]| sum / f64::max(n, 1.0));
                let within: f64 = sums.iter().zip(means).map(|(sum, mean)| (sum[2] - sum[1] * mean).max(0.0)).sum();
                let spread = (within / f64::max(sums[0][0] + sums[1][0] - 2.0, 1.0)).sqrt();
                ((means[0] + means[1]) / 2.0, if spread > 0.0 { spread } else { 1.0 })
            })
            .collect();
        let rescale = |(i, &fold): (usize, &usize)| {
            let (middle, spread) = standards[fold];
            (f64::from(self.centred[(first + fold) * self.n + i]) - middle) / spread
        };
        fold.iter().enumerate().map(rescale).collect()
    }
}
