//! When does it appear? The midpoint of a sigmoid, with a bootstrap interval.
//!
//! The curve e over the axis x is fitted by least squares with `lo + (hi - lo) sigmoid((x - t50) / w)`,
//! `hi >= lo >= floor`. Given t50 and w the levels have a closed form, so only two parameters are
//! searched (variable projection, Golub & Pereyra 1973), and they are searched globally: the sigmoids
//! of a grid of pairs are columns of two matrices that depend on the axis alone, centred and as they
//! are, all of length 1. With `p` and `q` the inner products of the curve with a column of each, the
//! fit takes `p^2` off the curve's sum of squares around its mean where the levels are free, and
//! `q^2 - T mean^2` where `lo` is held at the floor, so two matrix products fit every replicate on the
//! whole grid. A compass search then leaves the grid. No starting value, no failure to converge, the
//! same answer every time.
//!
//! The floor is the smallest value that the measure can truly have: an amplitude cannot be below 0, but
//! its estimate is, and often enough one early value far below gets the sharpest rise. On planted weak
//! signals the floor takes a third off the error of t50. A measure that may be negative has none.
//!
//! A midpoint is dated and not a first crossing, because the first checkpoint at which something is
//! significant comes later the weaker the signal is. Method section 4a.

use anyhow::{Result, ensure};

use super::curve::{Curve, mean};
use super::sigmoid::{self, Problem, Sigmoid};
use crate::series::axis::Positions;
use crate::stats::estimate::{Estimate, Reported};
use crate::stats::matrix::{self, Right};

/// Grid positions of t50 per gap between checkpoints; the compass search refines them.
const PER_GAP: usize = 8;
/// Grid widths per position, in geometric steps.
const WIDTHS: usize = 12;
/// Curves that are fitted per product: bounds the memory of the scores.
const CURVES_AT_A_TIME: usize = 32;
/// Rounds of the compass search for the curve itself.
const ROUNDS: usize = 100;
/// Rounds for a replicate, whose spread is far larger than what further ones would change.
const REPLICATE_ROUNDS: usize = 12;

/// The date of a rise. Estimates are in units of the axis; one is `None` where fewer than half of the
/// replicates rise at all. The interval of t50 is never narrower than the gap of a sudden step, and an end of it
/// beyond the first or last checkpoint is infinite.
#[derive(Clone, Debug, PartialEq)]
pub struct Onset {
    /// The fit to the curve itself.
    pub fit: Sigmoid,
    pub t50: Option<Estimate>,
    pub t10: Option<Estimate>,
    pub t90: Option<Estimate>,
    pub width: Option<Estimate>,
    /// t50 in steps since the start of the series; `None` where checkpoints have no steps.
    pub t50_step: Option<Estimate>,
    /// Share of the curve's variance over checkpoints that the fit explains.
    pub r_squared: f64,
    /// t50 lies outside the first and last checkpoint: the rise is not bracketed, and the finite end of its interval is
    /// all that is known.
    pub at_edge: bool,
    /// t50 of every replicate, `[B]`, NaN where it does not rise. Curves with shared draws give paired
    /// differences of dates.
    pub t50_replicates: Vec<f64>,
}

impl Onset {
    /// One of its estimates as tables have it: a midpoint beyond the axis is not known, only that it is there.
    pub fn known(&self, estimate: Option<Estimate>) -> Reported {
        let reported = Reported::from(estimate);
        Reported { value: reported.value.filter(|_| !self.at_edge), ..reported }
    }
}

/// The search grid of one axis, reused by all concepts and layers.
#[derive(Clone, Debug)]
pub struct OnsetGrid {
    positions: Positions,
    /// (t50, width) of each column, `[N]`.
    candidates: Vec<(f64, f64)>,
    /// Centred sigmoids of length 1, `[T, N]` row-major.
    centred: Vec<f32>,
    /// Sigmoids of length 1, `[T, N]` row-major.
    plain: Vec<f32>,
    /// What `lo` loses below the mean per unit of `p`: mean of the sigmoid over the length of the
    /// centred one, `[N]`.
    descent: Vec<f32>,
}

impl OnsetGrid {
    /// The grid spans the axis and half a gap beyond each end.
    ///
    /// # Errors
    /// With fewer than three checkpoints: a sigmoid has four parameters, and two points any midpoint.
    pub fn new(positions: &Positions) -> Result<Self> {
        let x = positions.x();
        ensure!(x.len() >= 3, "a midpoint needs at least 3 checkpoints, found {}", x.len());
        let mut candidates = Vec::new();
        for (left, right) in gaps(x) {
            let gap = right - left;
            // Both ends of the axis have half a gap, so half the positions.
            let inside = left >= x[0] && right <= x[x.len() - 1];
            let count = if inside { PER_GAP } else { PER_GAP / 2 };
            let (narrowest, widest) = sigmoid::width_limits(x, left);
            let ratio = (widest / narrowest).powf(1.0 / (WIDTHS - 1) as f64);
            for position in 0..count {
                let t50 = left + gap * (position as f64 + 0.5) / count as f64;
                candidates.extend((0..WIDTHS).map(|k| (t50, narrowest * ratio.powi(k as i32))));
            }
        }
        let (t, n) = (x.len(), candidates.len());
        let (mut centred, mut plain) = (vec![0.0; t * n], vec![0.0; t * n]);
        let mut descent = vec![0.0; n];
        let mut values = vec![0.0; t];
        for (index, &(t50, width)) in candidates.iter().enumerate() {
            sigmoid::fill(x, t50, width, &mut values);
            let level = mean(&values);
            let length = |offset: f64| values.iter().map(|s| (s - offset).powi(2)).sum::<f64>().sqrt();
            let (whole, spread) = (length(0.0), length(level));
            for (checkpoint, s) in values.iter().enumerate() {
                centred[checkpoint * n + index] = ((s - level) / spread) as f32;
                plain[checkpoint * n + index] = (s / whole) as f32;
            }
            descent[index] = (level / spread) as f32;
        }
        Ok(Self { positions: positions.clone(), candidates, centred, plain, descent })
    }

    /// Dates the rise of `curve`; `None` where it does not rise anywhere. `floor` is the smallest
    /// true value of the measure: `Some(0.0)` for amplitudes, `None` for signed measures.
    ///
    /// # Errors
    /// When the curve has another number of checkpoints than the axis.
    pub fn fit(&self, curve: &Curve, floor: Option<f64>) -> Result<Option<Onset>> {
        let (t, found) = (self.positions.x().len(), curve.checkpoints());
        ensure!(found == t, "the curve has {found} checkpoints, the axis {t}");
        let Some(fit) = self.best(&curve.value, floor, ROUNDS).pop().flatten() else {
            return Ok(None);
        };
        let replicates = self.best(&curve.replicates, floor, REPLICATE_ROUNDS);
        let of = |parameter: &dyn Fn(&Sigmoid) -> f64| -> Vec<f64> {
            replicates.iter().map(|fit| fit.as_ref().map_or(f64::NAN, parameter)).collect()
        };
        let estimate = |parameter: &dyn Fn(&Sigmoid) -> f64| Estimate::percentile(parameter(&fit), &of(parameter));
        let x = self.positions.x();
        let t50 = bounds(x, &fit, &replicates);
        let step = |at: f64| if at.is_finite() { self.positions.step_at(at) } else { Some(at) };
        let t50_step = t50.and_then(|t50| {
            let (value, lower, upper) = (step(t50.value)?, step(t50.lower)?, step(t50.upper)?);
            Some(Estimate { value, lower, upper })
        });
        Ok(Some(Onset {
            fit,
            t50,
            t10: estimate(&Sigmoid::t10),
            t90: estimate(&Sigmoid::t90),
            width: estimate(&|fit| fit.width),
            t50_step,
            r_squared: self.r_squared(&fit, &curve.value),
            at_edge: fit.t50 < x[0] || fit.t50 > x[t - 1],
            t50_replicates: of(&|fit| fit.t50),
        }))
    }

    /// Best rising sigmoid of each of `curves`, `[n, T]` row-major.
    fn best(&self, curves: &[f64], floor: Option<f64>, rounds: usize) -> Vec<Option<Sigmoid>> {
        let (t, n) = (self.positions.x().len(), self.candidates.len());
        let mut fits = Vec::with_capacity(curves.len() / t);
        let mut shifted = vec![0f32; CURVES_AT_A_TIME * t];
        let mut gains = vec![0f32; CURVES_AT_A_TIME * n];
        let mut at_floor = vec![0f32; CURVES_AT_A_TIME * n];
        let mut scratch = vec![0.0; t];
        for chunk in curves.chunks(CURVES_AT_A_TIME * t) {
            let rows = chunk.len() / t;
            let shifted = &mut shifted[..rows * t];
            let gains = &mut gains[..rows * n];
            let mut product = |columns: &[f32], less: &dyn Fn(&[f64]) -> f64, out: &mut [f32]| {
                for (curve, shifted) in chunk.chunks_exact(t).zip(shifted.chunks_exact_mut(t)) {
                    let level = less(curve);
                    curve.iter().zip(shifted).for_each(|(e, s)| *s = (e - level) as f32);
                }
                matrix::multiply([rows, t, n], shifted, columns, Right::AsIs, out);
            };
            product(&self.centred, &mean, gains);
            if let Some(floor) = floor {
                let at_floor = &mut at_floor[..rows * n];
                product(&self.plain, &|_| floor, at_floor);
                for ((curve, gains), at_floor) in chunk.chunks_exact(t).zip(gains.chunks_exact_mut(n)).zip(at_floor.chunks_exact(n)) {
                    self.hold_at_floor(mean(curve) - floor, at_floor, gains);
                }
            } else {
                gains.iter_mut().for_each(|p| *p *= p.abs());
            }
            for (curve, gains) in chunk.chunks_exact(t).zip(gains.chunks_exact(n)) {
                let best = self.candidates[argmax(gains)];
                let problem = Problem { x: self.positions.x(), curve, floor };
                fits.push(problem.refine(best, rounds, &mut scratch));
            }
        }
        fits
    }

    /// Turns the inner products `p` of one curve, `[N]`, into gains over its mean, with `lo` held at
    /// the floor where it would fall below. `height` is the curve's mean above the floor, `at_floor`
    /// are the inner products `q`.
    fn hold_at_floor(&self, height: f64, at_floor: &[f32], p: &mut [f32]) {
        let mean_alone = (self.positions.x().len() as f64 * height * height) as f32;
        let height = height as f32;
        for ((p, &q), &descent) in p.iter_mut().zip(at_floor).zip(&self.descent) {
            let free = *p * p.abs();
            let held = q * q.abs() - mean_alone;
            *p = if height >= *p * descent { free } else { held };
        }
    }

    fn r_squared(&self, fit: &Sigmoid, curve: &[f64]) -> f64 {
        let level = mean(curve);
        let (mut residual, mut total) = (0.0, 0.0);
        for (&x, &e) in self.positions.x().iter().zip(curve) {
            residual += (e - fit.at(x)).powi(2);
            total += (e - level).powi(2);
        }
        1.0 - residual / total
    }
}

/// Where the midpoint of a fit can be, given checkpoints at `x`: at the fitted place, but anywhere in its gap where the whole rise, from a
/// tenth to nine tenths, is between two checkpoints, and anywhere beyond the axis where it is not bracketed.
fn identified(x: &[f64], fit: &Sigmoid) -> [f64; 2] {
    let (first, last) = (x[0], x[x.len() - 1]);
    if fit.t50 > last {
        return [last, f64::INFINITY];
    }
    if fit.t50 < first {
        return [f64::NEG_INFINITY, first];
    }
    let after = x.partition_point(|&position| position < fit.t50);
    let (left, right) = (x[after.max(1) - 1], x[after.max(1)]);
    if fit.t10() >= left && fit.t90() <= right { [left, right] } else { [fit.t50; 2] }
}

/// t50 with an interval that covers what the checkpoints leave open (Imbens & Manski 2004): the 2.5% point of the replicates' earliest
/// midpoints, and the 97.5% point of their latest ones, with those of the fit itself. An end is infinite where it is beyond the axis. `None`
/// where fewer than half of the replicates rise.
fn bounds(x: &[f64], fit: &Sigmoid, replicates: &[Option<Sigmoid>]) -> Option<Estimate> {
    let sets: Vec<[f64; 2]> = replicates.iter().flatten().map(|fit| identified(x, fit)).collect();
    if sets.is_empty() || 2 * sets.len() < replicates.len() {
        return None;
    }
    let own = identified(x, fit);
    let sorted = |end: usize| {
        let mut ends: Vec<f64> = sets.iter().map(|set| set[end]).collect();
        ends.sort_unstable_by(f64::total_cmp);
        ends
    };
    // Order statistics, since there is nothing between a place and infinity.
    let last = (sets.len() - 1) as f64;
    let lower = sorted(0)[(0.025 * last).floor() as usize];
    let upper = sorted(1)[(0.975 * last).ceil() as usize];
    Some(Estimate { value: fit.t50, lower: lower.min(own[0]), upper: upper.max(own[1]) })
}

/// The gaps between checkpoints, and half a gap beyond each end.
fn gaps(x: &[f64]) -> impl Iterator<Item = (f64, f64)> {
    let [first, last] = sigmoid::ends(x);
    let inner = x.windows(2).map(|pair| (pair[0], pair[1]));
    std::iter::once((first, x[0])).chain(inner).chain(std::iter::once((x[x.len() - 1], last)))
}

/// Index of the first largest value.
fn argmax(values: &[f32]) -> usize {
    let larger = |best: usize, (index, &value): (usize, &f32)| {
        if value > values[best] { index } else { best }
    };
    values.iter().enumerate().fold(0, larger)
}

#[cfg(test)]
#[path = "date_tests.rs"]
mod tests;
