//! L2-regularised logistic regression on standardised features, with held-out margins.
//!
//! The loss is a sum over items plus `lambda/2 |w|^2`, with a free intercept: scikit-learn's `LogisticRegression` with
//! `C = 1 / lambda` behind a `StandardScaler`. Lambda is chosen by cross-validation within the training groups, as
//! `LogisticRegressionCV` would with those folds; features stay standardised by the whole training fold meanwhile, so that
//! one kernel serves all fits of the fold.

use anyhow::{Result, ensure};

use super::folds;
use super::kernel::{Fitted, Split, held_scores};
use super::matrix::dot_f64;
use super::newton::{Losses, Point, Problem};

/// The penalties tried, from strong to weak.
pub const LAMBDAS: [f64; 7] = [1e4, 1e3, 1e2, 1e1, 1e0, 1e-1, 1e-2];
/// The penalty where none can be chosen (all training items in one group): scikit-learn's default.
const DEFAULT: f64 = 1.0;
/// Norm of the gradient relative to the penalty's part of it, for a fit that is looked at ...
pub(super) const TIGHT: f64 = 1e-6;
/// ... for one whose held-out scores are ranked, which is where Newton's method gets a step earlier ...
const RANKED: f64 = 1e-4;
/// ... and for one whose held-out loss is compared.
const LOOSE: f64 = 1e-2;
/// A weaker penalty has to gain this share of the loss: less is rounding.
const GAIN: f64 = 1e-6;
/// Penalties in a row that may be worse than the best one before the weaker ones are given up.
const RISES: usize = 2;

/// Held-out figures of all items.
#[derive(Clone, Debug, PartialEq)]
pub struct Held {
    /// Log-odds of y = 1, `[n]`, each from the split in which the item is held out.
    pub scores: Vec<f64>,
    /// Penalty chosen in each split.
    pub lambdas: Vec<f64>,
    /// The probe of each split.
    pub fits: Vec<Fitted>,
}

/// Log-odds of every held-out item, with lambda chosen within the training `groups` of each of the `splits` that
/// [`Split::folds`] or [`super::kernel::Design::splits`] make. `labels` and `groups` are `[n]`. `None` when a split trains on one label only.
///
/// # Errors
/// When lengths differ, an item is never held out, or a fit does not converge.
pub fn held_out(splits: &[Split], labels: &[bool], groups: &[usize]) -> Result<Option<Held>> {
    held_out_by(splits, labels, groups, folds::INNER)
}

/// As [`held_out`] with the penalty chosen on `inner` of the folds within the training groups only, which takes that much less
/// time: for figures that stand beside others.
///
/// # Errors
/// As [`held_out`].
pub fn held_out_by(splits: &[Split], labels: &[bool], groups: &[usize], inner: usize) -> Result<Option<Held>> {
    ensure!(groups.len() == labels.len(), "{} groups and {} labels", groups.len(), labels.len());
    let (mut lambdas, mut fits) = (Vec::with_capacity(splits.len()), Vec::with_capacity(splits.len()));
    let scores = held_scores(splits, labels.len(), |split| {
        let Some((fit, lambda)) = fit_chosen(split, labels, groups, inner, RANKED)? else { return Ok(None) };
        let decisions = fit.held_decisions(split);
        lambdas.push(lambda);
        fits.push(fit);
        Ok(Some(decisions))
    })?;
    Ok(scores.map(|scores| Held { scores, lambdas, fits }))
}

/// As [`held_out`] with the penalty of each split given: the same probe for other labels, as a control task wants it.
///
/// # Errors
/// As [`held_out`], and when penalties are fewer than splits.
pub fn held_out_at(splits: &[Split], labels: &[bool], lambdas: &[f64]) -> Result<Option<Vec<f64>>> {
    ensure!(lambdas.len() == splits.len(), "{} penalties for {} splits", lambdas.len(), splits.len());
    let mut lambdas = lambdas.iter();
    held_scores(splits, labels.len(), |split| {
        let lambda = lambdas.next().copied().unwrap_or(DEFAULT);
        Ok(fit_from(split, labels, &Choice::of(lambda), RANKED)?.map(|fit| fit.held_decisions(split)))
    })
}

/// Fits the training items of `split` with a given penalty; `labels` are `[n]`. `None` when they all have one label.
///
/// # Errors
/// When `labels` are fewer than the items, lambda is not positive, or the fit does not converge.
pub fn fit(split: &Split, labels: &[bool], lambda: f64) -> Result<Option<Fitted>> {
    fit_from(split, labels, &Choice::of(lambda), TIGHT)
}

/// Fits the training items of `split` with the penalty that [`choose`] finds, which is returned too. `None` as [`fit`].
///
/// # Errors
/// As [`fit`].
pub(super) fn fit_chosen(split: &Split, labels: &[bool], groups: &[usize], inner: usize, tolerance: f64) -> Result<Option<(Fitted, f64)>> {
    let choice = choose(split, labels, groups, inner)?;
    Ok(fit_from(split, labels, &choice, tolerance)?.map(|fit| (fit, choice.lambda)))
}

fn fit_from(split: &Split, labels: &[bool], choice: &Choice, tolerance: f64) -> Result<Option<Fitted>> {
    let lambda = choice.lambda;
    ensure!(lambda > 0.0 && lambda.is_finite(), "lambda is {lambda}, expected a positive number");
    let rows: Vec<usize> = (0..split.train().len()).collect();
    let Some(problem) = Problem::new(split, &rows, &split.labels_of(&rows, labels)?, false) else { return Ok(None) };
    let mut point = if choice.parts.is_empty() { problem.start() } else { problem.start_from(&choice.parts) };
    problem.minimise(&mut point, lambda, tolerance)?;
    Ok(Some(Fitted { intercept: point.intercept, coefficients: problem.coefficients(point) }))
}

/// A penalty, and what the inner folds found with it: training items by their number, and the fit to them.
struct Choice {
    lambda: f64,
    parts: Vec<(Vec<usize>, Point)>,
}

impl Choice {
    fn of(lambda: f64) -> Self {
        Self { lambda, parts: Vec::new() }
    }
}

/// One inner fold on its way along the penalties.
struct Inner<'a> {
    problem: Problem<'a>,
    /// Numbers of the items trained on.
    rows: Vec<usize>,
    point: Point,
    /// The point at the best penalty so far.
    best: Point,
    /// See [`Split::beside`].
    held: Vec<f64>,
    held_labels: Vec<bool>,
}

/// The lambda with the least held-out log-loss over the training groups; the strongest of those that tie. The loss falls and
/// then rises along the penalties, so the way ends when it has risen [`RISES`] times.
fn choose(split: &Split, labels: &[bool], groups: &[usize], looked_at: usize) -> Result<Choice> {
    let groups: Vec<usize> = split.train().iter().map(|&i| groups[i]).collect();
    let Ok(inner) = folds::grouped(&groups, folds::INNER) else { return Ok(Choice::of(DEFAULT)) };
    let mut fits = Vec::with_capacity(folds::INNER);
    for fold in 0..folds::INNER.min(looked_at) {
        let (rows, held): (Vec<usize>, Vec<usize>) = (0..inner.len()).partition(|&row| inner[row] != fold);
        if held.is_empty() {
            continue; // fewer groups than folds
        }
        if let Some(problem) = Problem::new(split, &rows, &split.labels_of(&rows, labels)?, true) {
            let (held_labels, held) = (split.labels_of(&held, labels)?, split.beside(&rows, &held));
            fits.push(Inner { point: problem.start(), best: problem.start(), problem, rows, held, held_labels });
        }
    }
    if fits.is_empty() {
        return Ok(Choice::of(DEFAULT));
    }
    let (mut best, mut least, mut rises) = (DEFAULT, f64::INFINITY, 0);
    for lambda in LAMBDAS {
        let mut loss = 0.0;
        for fit in &mut fits {
            fit.problem.minimise(&mut fit.point, lambda, LOOSE)?;
            loss += fit.held_loss();
        }
        if loss < least * (1.0 - GAIN) {
            (best, least, rises) = (lambda, loss, 0);
            fits.iter_mut().for_each(|fit| fit.best.clone_from(&fit.point));
        } else {
            rises += 1;
            if rises == RISES {
                break;
            }
        }
    }
    Ok(Choice { lambda: best, parts: fits.into_iter().map(|fit| (fit.rows, fit.best)).collect() })
}

impl Inner<'_> {
    /// Log-loss summed over the items held out.
    fn held_loss(&self) -> f64 {
        let coefficients = self.point.coefficients();
        let decision = |row: &[f64]| dot_f64(row, coefficients) + self.point.intercept;
        Losses::of(self.held.chunks_exact(coefficients.len()).map(decision).zip(self.held_labels.iter().copied()))
    }
}

#[cfg(test)]
#[path = "logistic_tests.rs"]
mod tests;
