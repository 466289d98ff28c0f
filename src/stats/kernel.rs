//! The standardised features of each training fold, and their kernel, which every linear probe of the fold shares.
//!
//! A probe of n items in d > n dimensions lives in the span of its training items, so all it needs is the n x n matrix of
//! their inner products. [`Design::split`] standardises by the training items alone, as a pipeline would, which costs one
//! kernel per fold. [`Design::whole`] standardises by all items of a cell: no label is looked at, a scale is the only thing
//! that a fold shares with what it holds out (a probe with an intercept does not depend on the centre), and every fold, split,
//! control task and code of the cell is a part of one kernel.

use std::ops::Range;
use std::sync::Arc;

use anyhow::{Result, ensure};

use super::matrix::{self, Right};

/// Columns standardised and multiplied at a time: the block stays in the cache, and f32 sums are short before they are
/// added up in f64.
const COLUMNS: usize = 256;
/// Rows of the kernel computed at a time, up to the diagonal.
const ROWS: usize = 96;

/// Features of the items at one checkpoint and layer.
#[derive(Clone, Copy, Debug)]
pub struct Design<'a> {
    x: &'a [f32],
    n: usize,
    d: usize,
}

/// A design that is divided into training and held-out items, standardised by the former.
#[derive(Clone, Debug)]
pub struct Split {
    train: usize,
    /// Items, the training ones first.
    order: Vec<usize>,
    /// Inner products of all standardised items, `[items, items]`. Parts share it.
    kernel: Arc<Vec<f64>>,
    items: usize,
    /// Standardised features, `[n, d]` in this order, where there are no more of them than items: the smaller problem.
    features: Option<Vec<f64>>,
    mean: Vec<f64>,
    /// One over the standard deviation; 0 for a feature that is constant over the training items.
    scale: Vec<f64>,
}

/// A linear function of raw features, `weights . x + bias`.
#[derive(Clone, Debug, PartialEq)]
pub struct Linear {
    /// `[d]`.
    pub weights: Vec<f64>,
    pub bias: f64,
}

/// A fitted function of the standardised features of a [`Split`].
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Value at the mean of the items that the features were standardised by.
    pub intercept: f64,
    pub(super) coefficients: Coefficients,
}

/// What multiplies the standardised items or features of a [`Split`].
#[derive(Clone, Debug, PartialEq)]
pub enum Coefficients {
    /// `[n_train]`: weights are this combination of the training items.
    Items(Vec<f64>),
    /// `[d]`.
    Features(Vec<f64>),
}

impl<'a> Design<'a> {
    /// Features `x`, `[n, d]` row-major.
    ///
    /// # Errors
    /// When `x` is not whole rows of `d`, or a value is not finite.
    pub fn new(x: &'a [f32], d: usize) -> Result<Self> {
        ensure!(d > 0 && !x.is_empty() && x.len().is_multiple_of(d), "{} values are not rows of {d}", x.len());
        if let Some(at) = x.iter().position(|value| !value.is_finite()) {
            anyhow::bail!("item {} has {} as feature {}", at / d, x[at], at % d);
        }
        Ok(Self { x, n: x.len() / d, d })
    }

    /// Number of items n.
    pub fn items(&self) -> usize {
        self.n
    }

    /// Number of features d.
    pub fn features(&self) -> usize {
        self.d
    }

    /// Features of item `i`, `[d]`.
    pub fn item(&self, i: usize) -> &'a [f32] {
        &self.x[i * self.d..(i + 1) * self.d]
    }

    /// One split per fold, in which the items of that fold are held out, each standardised by its training items. `folds` is
    /// the fold of every item.
    ///
    /// # Errors
    /// When `folds` is not `[n]`, or a fold is empty or holds everything.
    pub fn splits(&self, folds: &[usize]) -> Result<Vec<Split>> {
        ensure!(folds.len() == self.n, "{} folds for {} items", folds.len(), self.n);
        let k = folds.iter().max().map_or(0, |last| last + 1);
        (0..k).map(|fold| self.split(&folds.iter().map(|&f| f != fold).collect::<Vec<_>>())).collect()
    }

    /// All items, standardised together, with nothing held out: what [`Split::folds`] and [`Split::part`] take parts of.
    pub fn whole(&self) -> Split {
        self.standardised((0..self.n).collect(), self.n)
    }

    /// Trains on the items marked in `train` and holds out the others.
    ///
    /// # Errors
    /// When `train` is not `[n]`, or nothing is trained on or held out.
    pub fn split(&self, train: &[bool]) -> Result<Split> {
        ensure!(train.len() == self.n, "{} marks for {} items", train.len(), self.n);
        let (mut order, held): (Vec<usize>, Vec<usize>) = (0..self.n).partition(|&i| train[i]);
        let n_train = order.len();
        ensure!(n_train > 0 && !held.is_empty(), "{n_train} items to train on and {} held out", held.len());
        order.extend(held);
        Ok(self.standardised(order, n_train))
    }

    /// Standardises the items in `order` by the first `n_train` of them, and multiplies them with each other.
    fn standardised(&self, order: Vec<usize>, n_train: usize) -> Split {
        let mut split = Split {
            train: n_train,
            order,
            kernel: Arc::default(),
            items: self.n,
            features: (self.d <= n_train).then(|| vec![0.0; self.n * self.d]),
            mean: Vec::with_capacity(self.d),
            scale: Vec::with_capacity(self.d),
        };
        let mut kernel = vec![0.0; self.n * self.n];
        let mut block = vec![0f32; self.n * COLUMNS.min(self.d)];
        let mut product = vec![0f32; ROWS.min(self.n) * self.n];
        for start in (0..self.d).step_by(COLUMNS) {
            let width = COLUMNS.min(self.d - start);
            let block = &mut block[..self.n * width];
            self.standardise(start, width, &mut split, block);
            add_products(&mut kernel, block, width, &mut product);
        }
        matrix::mirror(self.n, &mut kernel);
        split.kernel = Arc::new(kernel);
        split
    }

    /// Writes features `start..start + width` of all items to `block`, `[n, width]`, centred and divided by the standard
    /// deviation (divisor n) of the training items.
    fn standardise(&self, start: usize, width: usize, split: &mut Split, block: &mut [f32]) {
        let columns = |i: usize| &self.item(i)[start..start + width];
        let n_train = split.train as f64;
        let (mut mean, mut scale) = (vec![0.0; width], vec![0.0; width]);
        for &i in &split.order[..split.train] {
            for (sum, &value) in mean.iter_mut().zip(columns(i)) {
                *sum += f64::from(value); // f32 values that are all equal have their exact sum in f64
            }
        }
        mean.iter_mut().for_each(|sum| *sum /= n_train);
        for &i in &split.order[..split.train] {
            for ((sum, &mean), &value) in scale.iter_mut().zip(&mean).zip(columns(i)) {
                let deviation = f64::from(value) - mean;
                *sum += deviation * deviation;
            }
        }
        for sum in &mut scale {
            *sum = if *sum > 0.0 { (n_train / *sum).sqrt() } else { 0.0 };
        }
        for (row, &i) in split.order.iter().enumerate() {
            let out = &mut block[i * width..][..width];
            for ((out, &value), (mean, scale)) in out.iter_mut().zip(columns(i)).zip(mean.iter().zip(&scale)) {
                *out = ((f64::from(value) - mean) * scale) as f32;
            }
            if let Some(features) = &mut split.features {
                let to = &mut features[row * self.d + start..][..width];
                to.iter_mut().zip(out).for_each(|(to, value)| *to = f64::from(*value));
            }
        }
        split.mean.extend(mean);
        split.scale.extend(scale);
    }
}

impl Split {
    /// Training items, in the order of [`Coefficients::Items`].
    pub fn train(&self) -> &[usize] {
        &self.order[..self.train]
    }

    /// Held-out items.
    pub fn held(&self) -> &[usize] {
        &self.order[self.train..]
    }

    /// A part of the whole: other training items, other held-out items, the same standardised features.
    ///
    /// # Errors
    /// When this is not [`Design::whole`], nothing is trained on, or an item does not exist.
    pub fn part(&self, train: &[usize], held: &[usize]) -> Result<Self> {
        let n = self.order.len();
        ensure!(self.train == n, "a part is taken of all items, not of a split with {} held out", n - self.train);
        ensure!(
            !train.is_empty() && train.iter().chain(held).all(|&i| i < n),
            "the items of a part are not among {n}, or none is trained on"
        );
        let order: Vec<usize> = train.iter().chain(held).copied().collect();
        let d = self.width();
        let features = self.features.as_ref().filter(|_| d <= train.len());
        let features = features.map(|features| order.iter().flat_map(|&i| &features[i * d..(i + 1) * d]).copied().collect());
        let (mean, scale) = (self.mean.clone(), self.scale.clone());
        Ok(Self { train: train.len(), order, kernel: self.kernel.clone(), items: n, features, mean, scale })
    }

    /// One part of the whole per fold, in which the items of that fold are held out. `folds` is the fold of every item.
    ///
    /// # Errors
    /// When `folds` is not `[n]`, or a fold holds everything.
    pub fn folds(&self, folds: &[usize]) -> Result<Vec<Self>> {
        ensure!(folds.len() == self.order.len(), "{} folds for {} items", folds.len(), self.order.len());
        let k = folds.iter().max().map_or(0, |last| last + 1);
        let part = |fold: usize| {
            let (train, held): (Vec<usize>, Vec<usize>) = (0..folds.len()).partition(|&i| folds[i] != fold);
            self.part(&train, &held)
        };
        (0..k).map(part).collect()
    }

    /// Inner products of the items `rows` with the training items `columns`, `[rows, columns]`, both by their number (training items
    /// first); `of` turns each into what is kept. Groups stay together, so columns are runs of neighbours, which are copied
    /// faster than one by one.
    pub(super) fn products<T>(&self, rows: impl ExactSizeIterator<Item = usize>, columns: &[usize], of: impl Fn(f64) -> T) -> Vec<T> {
        let columns: Vec<usize> = columns.iter().map(|&column| self.order[column]).collect();
        let runs: Vec<(usize, usize)> =
            columns.chunk_by(|left, right| left + 1 == *right).map(|run| (run[0], run[0] + run.len())).collect();
        let mut kernel = Vec::with_capacity(rows.len() * columns.len());
        for row in rows {
            let products = self.kernel_row(row);
            runs.iter().for_each(|&(start, end)| kernel.extend(products[start..end].iter().map(|&k| of(k))));
        }
        kernel
    }

    /// Inner products of the training items with each other, `[n_train, n_train]`.
    pub(super) fn of_train(&self) -> Vec<f64> {
        let all: Vec<usize> = (0..self.train).collect();
        self.products(0..self.train, &all, |k| k)
    }

    /// Inner products of the items `rows` with the training items `columns` (both by number, training items first), times `x`.
    pub(super) fn times(&self, rows: impl Iterator<Item = usize>, columns: impl Iterator<Item = usize>, x: &[f64]) -> Vec<f64> {
        // The kernel may hold others between them, so they are multiplied by 0.
        let mut spread = vec![0.0; self.items];
        columns.zip(x).for_each(|(column, x)| spread[self.order[column]] = *x);
        rows.map(|row| matrix::dot_f64(self.kernel_row(row), &spread)).collect()
    }

    /// Of item number `row`.
    fn kernel_row(&self, row: usize) -> &[f64] {
        &self.kernel[self.order[row] * self.items..][..self.items]
    }

    /// Standardised features `[n, d]`, training items first, where d is at most the number of training items.
    pub(super) fn features(&self) -> Option<&[f64]> {
        self.features.as_deref()
    }

    /// Number of features d.
    pub(super) fn width(&self) -> usize {
        self.mean.len()
    }

    /// The labels of training items `rows`; `labels` are those of all items, `[n]`.
    pub(super) fn labels_of(&self, rows: &[usize], labels: &[bool]) -> Result<Vec<bool>> {
        let items = self.order.iter().max().map_or(0, |last| last + 1);
        ensure!(labels.len() >= items, "{} labels for {items} items", labels.len());
        Ok(rows.iter().map(|&row| labels[self.order[row]]).collect())
    }

    /// What the margins of training items `held` are a product of, row by row, for coefficients found from training items `rows`:
    /// features where these are kept, else inner products.
    pub(super) fn beside(&self, rows: &[usize], held: &[usize]) -> Vec<f64> {
        match &self.features {
            Some(features) => held.iter().flat_map(|&row| &features[row * self.width()..][..self.width()]).copied().collect(),
            None => self.products(held.iter().copied(), rows, |k| k),
        }
    }

    /// Product of the standardised items number `rows` (training items first) with `coefficients`.
    fn scores(&self, rows: Range<usize>, coefficients: &Coefficients) -> Vec<f64> {
        match (coefficients, &self.features) {
            (Coefficients::Items(items), _) => self.times(rows, 0..self.train, items),
            (Coefficients::Features(weights), Some(features)) => {
                rows.map(|row| matrix::dot_f64(&features[row * self.width()..][..self.width()], weights)).collect()
            }
            (Coefficients::Features(_), None) => unreachable!("weights are found only where the features are kept"),
        }
    }

    /// The function of raw features that equals the standardised one with these coefficients; `design` is what was split.
    pub fn linear(&self, design: &Design, coefficients: &Coefficients, intercept: f64) -> Linear {
        let mut weights = match coefficients {
            Coefficients::Features(weights) => weights.clone(),
            Coefficients::Items(items) => {
                let mut weights = vec![0.0; self.width()];
                for (&i, &coefficient) in self.train().iter().zip(items) {
                    for ((sum, &value), (mean, scale)) in weights.iter_mut().zip(design.item(i)).zip(self.mean.iter().zip(&self.scale)) {
                        *sum += coefficient * (f64::from(value) - mean) * scale;
                    }
                }
                weights
            }
        };
        weights.iter_mut().zip(&self.scale).for_each(|(weight, scale)| *weight *= scale);
        let bias = intercept - matrix::dot_f64(&weights, &self.mean);
        Linear { weights, bias }
    }
}

/// Adds the inner products of the rows of `block`, `[n, width]`, to the kernel, below its diagonal.
fn add_products(kernel: &mut [f64], block: &[f32], width: usize, product: &mut [f32]) {
    let n = block.len() / width;
    for start in (0..n).step_by(ROWS) {
        let end = (start + ROWS).min(n);
        let product = &mut product[..(end - start) * end];
        matrix::multiply([end - start, width, end], &block[start * width..end * width], &block[..end * width], Right::Transposed, product);
        let sums = kernel[start * n..end * n].chunks_exact_mut(n);
        for (sums, row) in sums.zip(product.chunks_exact(end)) {
            sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum += f64::from(value));
        }
    }
}

/// Scores of every item, `[n]`, from the split in which it is held out; `score` gives those of the held-out items of a split, in
/// its order. `None` as soon as `score` does.
///
/// # Errors
/// Those of `score`, and when an item is held out never or twice.
pub(super) fn held_scores(
    splits: &[Split],
    n: usize,
    mut score: impl FnMut(&Split) -> Result<Option<Vec<f64>>>,
) -> Result<Option<Vec<f64>>> {
    let mut held: Vec<Option<f64>> = vec![None; n];
    for split in splits {
        ensure!(split.order.len() == n, "{n} labels for {} items", split.order.len());
        let Some(scores) = score(split)? else { return Ok(None) };
        for (&i, score) in split.held().iter().zip(scores) {
            ensure!(held[i].replace(score).is_none(), "item {i} is held out twice");
        }
    }
    if let Some(never) = held.iter().position(Option::is_none) {
        anyhow::bail!("item {never} is never held out");
    }
    Ok(Some(held.into_iter().flatten().collect()))
}

impl Fitted {
    /// Value at every item of `split`, `[n]`: training items first, then those held out, in its order.
    pub fn decisions(&self, split: &Split) -> Vec<f64> {
        self.decide(split, 0..split.order.len())
    }

    /// Value at the items that `split` holds out.
    pub(super) fn held_decisions(&self, split: &Split) -> Vec<f64> {
        self.decide(split, split.train..split.order.len())
    }

    fn decide(&self, split: &Split, rows: Range<usize>) -> Vec<f64> {
        let mut scores = split.scores(rows, &self.coefficients);
        scores.iter_mut().for_each(|score| *score += self.intercept);
        scores
    }

    /// The same as a function of raw features, to be applied to other items or at another checkpoint.
    pub fn linear(&self, design: &Design, split: &Split) -> Linear {
        split.linear(design, &self.coefficients, self.intercept)
    }
}

impl Linear {
    /// Value at the raw features `x`, `[d]`.
    pub fn at(&self, x: &[f32]) -> f64 {
        self.bias + self.weights.iter().zip(x).map(|(weight, &value)| weight * f64::from(value)).sum::<f64>()
    }
}
