//! How far an answer stands out from its foils, and how often what nobody taught stands out as far.
//!
//! Untaught, an answer is one more of its kind, so where it stands among its foils is a test. A few foils cannot say how long the tail of
//! their kind is: a normal tail made p of .001 come 25 times too often for contrasts of small trained models, where one choice in a
//! hundred is far from the others by no one's doing. All foils of a run can: each of them, held against the others of its own kind, is an
//! untaught answer, and the tail of all of them by one measure is what an answer is held against.
//!
//! 1. [`scores`]: a choice minus the mean of the others, over their standard deviation. That is shrunk towards those of the other kinds as
//!    far as its own error explains that it differs (James & Stein 1961, on logarithms as in Cui et al. 2005; the error is the jackknife's).
//! 2. Where several layers compete, each choice counts at the layer that suits it best ([`at_best_layers`]): the layer was chosen for the
//!    answer, so each foil has its own.
//! 3. [`Tail`]: the share of foils as far out, and beyond the upper tenth of them (DuMouchel 1983) the generalized Pareto tail (Pickands
//!    1975), as the mean of all that the foils allow.

use super::curve::{mean, share_below};
use super::gate::Standing;
use crate::stats::estimate::mean_sd;
use std::ops::Range;

/// The part of the foils that the tail is fitted to, and the fewest.
const UPPER: (f64, usize) = (0.1, 10);
/// Kinds with fewer foils have no spread to speak of.
const FEWEST: usize = 3;

/// How far the answer and every foil, `[foil][checkpoint]`, rise from the reference to the late checkpoints, the answer first.
pub fn rises(answer: &[f64], foils: &[Vec<f64>], reference: &Range<usize>, late: &Range<usize>) -> Vec<f64> {
    let rise = |curve: &[f64]| mean(&curve[late.clone()]) - mean(&curve[reference.clone()]);
    std::iter::once(rise(answer)).chain(foils.iter().map(|foil| rise(foil))).collect()
}

/// The mean of some values and the logarithm of their standard deviation.
fn location_and_scale(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let (mean, sd) = mean_sd(values);
    (mean, sd.ln())
}

/// One kind: each choice with the mean and the logarithm of the standard deviation of the foils that it is held against.
struct Kind {
    against: Vec<(f64, f64)>,
}

impl Kind {
    /// `None` with too few foils, or without spread.
    fn new(choices: &[f64]) -> Option<Self> {
        let (_, foils) = choices.split_first()?;
        if foils.len() < FEWEST {
            return None;
        }
        let without = |left: usize| foils.iter().enumerate().filter(move |(at, _)| *at != left).map(|(_, foil)| *foil);
        let others = (0..foils.len()).map(|left| location_and_scale(without(left)));
        let against: Vec<(f64, f64)> = std::iter::once(location_and_scale(foils.iter().copied())).chain(others).collect();
        against.iter().all(|(mean, scale)| mean.is_finite() && scale.is_finite()).then_some(Self { against })
    }

    /// Variance of the logarithm of the scale: the jackknife's.
    fn error(&self) -> f64 {
        let n = self.against.len() as f64 - 1.0;
        let (_, sd) = mean_sd(self.against[1..].iter().map(|(_, scale)| *scale));
        (n - 1.0) * (n - 1.0) / n * sd * sd
    }
}

/// How far each choice of each kind, the answer first, stands out from the foils of its kind: of the size of minus the logarithm of a
/// one-sided p if foils are normal (Wallace 1959). Nothing stands out, and all scores are 0, in a kind with fewer than three foils or without
/// spread. What is compared has to be of one measure and layer.
pub fn scores(kinds: &[Vec<f64>]) -> Vec<Vec<f64>> {
    let read: Vec<Option<Kind>> = kinds.iter().map(|choices| Kind::new(choices)).collect();
    let known: Vec<&Kind> = read.iter().flatten().collect();
    let k = known.len() as f64;
    let (common, spread) = location_and_scale(known.iter().map(|kind| kind.against[0].1));
    let error = known.iter().map(|kind| kind.error()).sum::<f64>() / k;
    // The part of a kind's own scale that is believed; with three kinds or fewer there is nothing to shrink towards.
    let own = if known.len() > 3 { (1.0 - (k - 3.0) / (k - 1.0) * error / (2.0 * spread).exp()).max(0.0) } else { 1.0 };
    let score = |choice: f64, (mean, scale): (f64, f64), foils: f64| {
        let scale = if own < 1.0 { common + own * (scale - common) } else { scale };
        let t = (choice - mean) / (scale.exp() * (1.0 + 1.0 / foils).sqrt());
        // A scale that others lend to is known as if from more foils.
        let freedom = (foils - 1.0) / (own * own);
        let squared = if freedom.is_finite() { freedom * (t * t / freedom).ln_1p() } else { t * t };
        (squared / 2.0).copysign(t)
    };
    let of_kind = |choices: &Vec<f64>, kind: Option<Kind>| {
        let Some(kind) = kind else { return vec![0.0; choices.len()] };
        let foils = |choice: usize| (choices.len() - 1 - usize::from(choice > 0)) as f64;
        choices.iter().zip(kind.against).enumerate().map(|(at, (choice, against))| score(*choice, against, foils(at))).collect()
    };
    kinds.iter().zip(read).map(|(choices, kind)| of_kind(choices, kind)).collect()
}

/// The layer (a position) at which choice 0, the answer, stands out most, and how far every choice does at its own best layer. `scores` is
/// `[layer][choice]`; `None` without layers.
pub fn at_best_layers(scores: &[&[f64]]) -> Option<(usize, Vec<f64>)> {
    let first_best = |best: usize, at: usize| if scores[at][0] > scores[best][0] { at } else { best };
    let chosen = (0..scores.len()).reduce(first_best)?;
    let best = |choice: usize| scores.iter().map(|choices| choices[choice]).fold(f64::NEG_INFINITY, f64::max);
    Some((chosen, (0..scores[chosen].len()).map(best).collect()))
}

/// Where each answer stands: its share among the foils of its kind, and its p among all foils. `scores` is `[kind][choice]`, the answer
/// first.
pub fn standings(scores: &[&[f64]]) -> Vec<Standing> {
    let telling = scores.iter().filter(|choices| choices.iter().any(|score| *score != 0.0));
    let tail = Tail::new(telling.flat_map(|choices| choices.iter().skip(1).copied()).collect());
    let standing = |choices: &[f64]| Standing {
        share: share_below(choices[0], choices[1..].iter().copied()),
        p: Some(tail.as_ref().map_or(1.0, |tail| tail.beyond(choices[0]))),
    };
    scores.iter().map(|choices| standing(choices)).collect()
}

/// How far out foils are.
struct Tail {
    /// Ascending.
    foils: Vec<f64>,
    threshold: f64,
    /// Foils above the threshold.
    above: usize,
    /// Shapes, scales and weights of generalized Pareto tails; the weights add up to 1.
    shapes: Vec<(f64, f64, f64)>,
}

impl Tail {
    /// `None` without foils.
    fn new(mut foils: Vec<f64>) -> Option<Self> {
        foils.sort_unstable_by(f64::total_cmp);
        let n = foils.len();
        let above = ((UPPER.0 * n as f64).ceil() as usize).max(UPPER.1).min(n / 2);
        let threshold = *foils.get(n.checked_sub(above + 1)?)?;
        let excesses: Vec<f64> = foils[n - above..].iter().map(|foil| foil - threshold).collect();
        let size = mean(&excesses);
        let shapes = if size > 0.0 { tails(&excesses, size) } else { Vec::new() };
        Some(Self { foils, threshold, above, shapes })
    }

    /// Probability that an untaught answer is this far out, or farther.
    fn beyond(&self, score: f64) -> f64 {
        let n = self.foils.len() as f64 + 1.0;
        if score <= self.threshold || self.shapes.is_empty() {
            let as_far = self.foils.len() - self.foils.partition_point(|foil| *foil < score);
            return (as_far as f64 + 1.0) / n;
        }
        let excess = score - self.threshold;
        let beyond: f64 = self.shapes.iter().map(|(shape, scale, weight)| weight * log_beyond(excess / scale, *shape).exp()).sum();
        (self.above as f64 + 1.0) / n * beyond
    }
}

/// Logarithm of the generalized Pareto tail of scale 1: `(1 + shape x)^(-1/shape)`, or `exp(-x)`.
fn log_beyond(x: f64, shape: f64) -> f64 {
    if shape > 0.0 { -(shape * x).ln_1p() / shape } else { -x }
}

/// Posterior of shape and scale on a grid, for excesses of this mean: scales without preference on a logarithmic axis, shapes from 0 (exponential,
/// as of normal foils) to 1 (without a mean) as Beta(1, 3).
fn tails(excesses: &[f64], size: f64) -> Vec<(f64, f64, f64)> {
    const SHAPES: i32 = 20;
    let shapes = (0..SHAPES).map(|at| f64::from(at) / f64::from(SHAPES));
    let scales = (-25..=15).map(|at| size * (0.1 * f64::from(at)).exp());
    let mut grid: Vec<(f64, f64, f64)> = shapes
        .flat_map(|shape| scales.clone().map(move |scale| (shape, scale)))
        .map(|(shape, scale)| {
            // The density is the tail to the power 1 + shape, over the scale.
            let likelihood: f64 = excesses.iter().map(|x| (1.0 + shape) * log_beyond(x / scale, shape) - scale.ln()).sum();
            (shape, scale, likelihood + 2.0 * (1.0 - shape).ln())
        })
        .collect();
    let highest = grid.iter().map(|(.., weight)| *weight).fold(f64::NEG_INFINITY, f64::max);
    grid.iter_mut().for_each(|(.., weight)| *weight = (*weight - highest).exp());
    let whole: f64 = grid.iter().map(|(.., weight)| *weight).sum();
    grid.iter_mut().for_each(|(.., weight)| *weight /= whole);
    grid
}

#[cfg(test)]
#[path = "reach_tests.rs"]
mod tests;
