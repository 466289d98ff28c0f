//! Truncated Newton's method for L2-regularised logistic regression, with items or features as unknowns, whichever are fewer.
//!
//! The loss is `sum log(1 + exp(-s m)) + lambda/2 |w|^2` over items with signs s and margins `m = Z w + b`, the intercept
//! free: scikit-learn's with `C = 1 / lambda`. Newton's system `(lambda I + Z'VZ) dw = -gradient`, with the intercept
//! eliminated from V, is solved by conjugate gradients no further than the step deserves (Dembo & Steihaug 1983; Lin, Weng
//! & Keerthi 2008), and the step is followed to about the minimum along it. A weight vector is kept as coefficients c of the
//! items, `w = Z'c`, or as itself. With items all that is needed of Z is the kernel `K = Z Z'`: the margins of c are `K c` and
//! its square is `c'K c`, so an iteration is one product with K. Factoring the system instead costs as much as fifty of them,
//! and ten are enough. Inside conjugate gradients K has half of its digits, since these products only shape a step; the gradient
//! that ends the search and the margins after a step have all, but in fits that are only compared.

use std::borrow::Cow;

use anyhow::{Result, bail, ensure};

use super::kernel::{Coefficients, Split};
use super::matrix::{dot_f64, times, times_f64};

const STEPS: usize = 100;
/// After so many steps everything is computed with all digits. Few fits get there: those with features that repeat each other, where
/// the kernel's least eigenvalues are rounding.
const PATIENCE: usize = 15;
/// Lengths of a step that are tried.
const LENGTHS: usize = 40;
/// Share of the slope at the beginning of a step that may be left at its end: where labels can be separated the minimum lies far beyond.
const SLOPE: f64 = 0.25;
/// Conjugate gradients reduce the residual at least to this share of what it was ...
const FORCING: f64 = 0.1;
/// ... in at most this many iterations; any number of them gives a direction of descent.
const ITERATIONS: usize = 1000;

/// The training items of one fit.
pub(super) struct Problem<'a> {
    /// -1 and 1, `[n]`.
    signs: Vec<f64>,
    basis: Basis<'a>,
    /// Half of the digits are enough for the gradient too, or there are no others.
    rough: bool,
    /// A gradient with this norm is rounding.
    rounding: f64,
}

enum Basis<'a> {
    Items {
        /// K with half of its digits, `[n, n]`, which multiplies in a fraction of the time.
        rough: Vec<f32>,
        /// Where all digits are, and the items' numbers there.
        split: &'a Split,
        rows: Vec<usize>,
    },
    /// Z, `[n, d]`.
    Features(Cow<'a, [f64]>, usize),
}

/// Weights with their margins.
#[derive(Clone, Debug)]
struct Vector {
    /// `[n]` per item or `[d]` per feature.
    coefficients: Vec<f64>,
    /// `Z w`, `[n]`.
    margins: Vec<f64>,
}

/// A point of the search.
#[derive(Clone, Debug)]
pub(super) struct Point {
    weights: Vector,
    pub intercept: f64,
}

impl<'a> Problem<'a> {
    /// The fit to items `rows` of `split` (numbers among its training items), with their labels. `None` when the labels are
    /// all equal. A `rough` one is good for tolerances down to 1e-3.
    pub fn new(split: &'a Split, rows: &[usize], labels: &[bool], rough: bool) -> Option<Self> {
        let signs: Vec<f64> = labels.iter().map(|&label| if label { 1.0 } else { -1.0 }).collect();
        if signs.iter().all(|&sign| sign == signs[0]) {
            return None;
        }
        let d = split.width();
        // All training items in their order are what the split begins with.
        let all = rows.len() == split.train().len() && rows.iter().enumerate().all(|(at, &row)| at == row);
        let basis = match split.features() {
            Some(features) if all => Basis::Features(Cow::Borrowed(&features[..rows.len() * d]), d),
            Some(features) => Basis::Features(rows.iter().flat_map(|&row| &features[row * d..(row + 1) * d]).copied().collect(), d),
            None => Basis::Items { rough: split.products(rows.iter().copied(), rows, |k| k as f32), split, rows: rows.to_vec() },
        };
        let trace: f64 = match &basis {
            Basis::Items { rough: k, .. } => k.iter().step_by(signs.len() + 1).map(|&k| f64::from(k)).sum(),
            Basis::Features(z, _) => dot_f64(z, z),
        };
        // Of the weights, and of the intercept: one where all features are constant is found all the same.
        let rounding = 1e-12 * (trace * signs.len() as f64).sqrt() + 1e-13 * signs.len() as f64;
        let rough = rough || matches!(basis, Basis::Features(..));
        Some(Self { signs, basis, rough, rounding })
    }

    /// No weights, and the intercept that fits best without them.
    pub fn start(&self) -> Point {
        let n = self.signs.len();
        let positives = self.signs.iter().filter(|&&sign| sign > 0.0).count() as f64;
        let unknowns = match &self.basis {
            Basis::Items { .. } => n,
            Basis::Features(_, d) => *d,
        };
        let weights = Vector { coefficients: vec![0.0; unknowns], margins: vec![0.0; n] };
        Point { weights, intercept: (positives / (n as f64 - positives)).ln() }
    }

    /// Between fits to parts of the items, given as their numbers here and what was found: the mean of the weights, or of each item's
    /// coefficients in the parts that have it.
    pub fn start_from(&self, parts: &[(Vec<usize>, Point)]) -> Point {
        let mut start = self.start();
        let coefficients = &mut start.weights.coefficients;
        let mut counts = vec![0.0; coefficients.len()];
        for (rows, point) in parts {
            for (at, value) in point.weights.coefficients.iter().enumerate() {
                let at = if let Basis::Features(..) = self.basis { at } else { rows[at] };
                coefficients[at] += value;
                counts[at] += 1.0;
            }
        }
        coefficients.iter_mut().zip(counts).for_each(|(sum, count)| *sum /= f64::max(count, 1.0));
        start.weights.margins = self.margins(&start.weights.coefficients, self.rough);
        start.intercept = parts.iter().map(|(_, point)| point.intercept).sum::<f64>() / parts.len() as f64;
        start
    }

    pub fn coefficients(&self, point: Point) -> Coefficients {
        match self.basis {
            Basis::Items { .. } => Coefficients::Items(point.weights.coefficients),
            Basis::Features(..) => Coefficients::Features(point.weights.coefficients),
        }
    }

    /// Moves `point` to the minimum: until the gradient is `tolerance` times the penalty's part of it, `lambda |w|`. That
    /// means the same for a strong penalty and for separable labels, where all gradients are small.
    ///
    /// # Errors
    /// When that takes more than a hundred steps.
    pub fn minimise(&self, point: &mut Point, lambda: f64, tolerance: f64) -> Result<()> {
        let mut rough = true;
        for number in 1..=STEPS {
            let Some(step) = self.step(point, lambda, tolerance, rough) else { return Ok(()) };
            let lower = self.search(point, &step, lambda);
            ensure!(lower || rough, "no step along Newton's direction lowers the loss at lambda {lambda}");
            if rough && (!lower || number == PATIENCE) {
                rough = false;
                point.weights.margins = self.margins(&point.weights.coefficients, false);
            }
        }
        bail!("logistic regression at lambda {lambda} did not converge in {STEPS} steps")
    }

    /// Newton's step, by conjugate gradients, of which the first is the gradient that decides when to stop; the others only shape the step
    /// and may be `rough`. `None` where the gradient is small enough for `tolerance`.
    fn step(&self, point: &Point, lambda: f64, tolerance: f64, rough: bool) -> Option<Point> {
        let (mut pull, curvature) = self.derivatives(point);
        let (slope, stiffness): (f64, f64) = (pull.iter().sum(), curvature.iter().sum());
        // The intercept follows every change of the margins, which takes their weighted mean out.
        let centred = |values: &mut [f64], mean: f64| values.iter_mut().zip(&curvature).for_each(|(value, v)| *value -= mean * v);
        centred(&mut pull, slope / stiffness);
        let mut residual = self.weights_of(pull);
        residual.iter_mut().zip(&point.weights.coefficients).for_each(|(r, c)| *r -= lambda * c);

        let mut step = Vector { coefficients: vec![0.0; residual.len()], margins: vec![0.0; curvature.len()] };
        let mut direction = step.clone();
        let penalty = lambda * self.square(&point.weights).sqrt();
        let (mut enough, mut before) = (0.0, f64::INFINITY);
        for iteration in 0..ITERATIONS {
            let vector = Vector { margins: self.margins(&residual, rough && (self.rough || iteration > 0)), coefficients: residual };
            let square = self.square(&vector);
            if iteration == 0 {
                let gradient = (square + slope * slope).sqrt();
                if gradient <= self.rounding.max(tolerance * penalty) {
                    return None;
                }
                enough = square * FORCING.min(gradient / penalty).powi(2);
            }
            if square <= enough {
                break;
            }
            direction.follow(square / before, &vector);
            before = square;
            residual = vector.coefficients;

            let mut curved: Vec<f64> = direction.margins.iter().zip(&curvature).map(|(m, v)| m * v).collect();
            let mean = curved.iter().sum::<f64>() / stiffness;
            centred(&mut curved, mean);
            let bend = lambda * self.square(&direction) + dot_f64(&curved, &direction.margins);
            if bend.is_nan() || bend <= 0.0 {
                break; // only rounding is left of this direction
            }
            let length = square / bend;
            step.add(length, &direction);
            let image = self.weights_of(curved);
            for ((r, image), c) in residual.iter_mut().zip(&image).zip(&direction.coefficients) {
                *r -= length * (image + lambda * c);
            }
        }
        if rough && !self.rough {
            step.margins = self.margins(&step.coefficients, false);
        }
        let intercept = (slope - dot_f64(&curvature, &step.margins)) / stiffness;
        Some(Point { weights: step, intercept })
    }

    /// Goes along the step to about the minimum there, by Newton's method between what is known to be too short and too long. Whether
    /// there is one; if not, the point stays where it is.
    fn search(&self, point: &mut Point, step: &Point, lambda: f64) -> bool {
        let (at, along, ahead) = (self.square(&point.weights), self.product(&point.weights, &step.weights), self.square(&step.weights));
        // Loss with its first and second derivative in the length.
        let after = |length: f64| {
            let (mut losses, mut slope, mut bend) = (Losses::default(), 0.0, 0.0);
            for ((margin, change), sign) in point.weights.margins.iter().zip(&step.weights.margins).zip(&self.signs) {
                let change = sign * (change + step.intercept);
                let margin = sign * (margin + point.intercept) + length * change;
                let (pull, curvature) = derivatives(margin, losses.add(margin));
                slope -= change * pull;
                bend += change * change * curvature;
            }
            let penalty = 0.5 * lambda * (at + length * (2.0 * along + length * ahead));
            (losses.sum() + penalty, slope + lambda * (along + length * ahead), bend + lambda * ahead)
        };
        let (loss, descent, _) = after(0.0);
        let rounding = 1e-12 * loss.abs() + f64::EPSILON * self.signs.len() as f64;
        let (mut length, mut short, mut long) = (1.0, 0.0, f64::INFINITY);
        let mut there = after(length);
        for _ in 0..LENGTHS {
            let (loss_there, slope, bend) = there;
            if loss_there <= loss + rounding && slope.abs() <= SLOPE * descent.abs() {
                break;
            }
            *(if slope < 0.0 { &mut short } else { &mut long }) = length;
            let newton = length - slope / bend;
            length = if newton > short && newton < long {
                newton
            } else if long.is_finite() {
                (short + long) / 2.0
            } else {
                2.0 * short
            };
            there = after(length);
        }
        let lower = there.0 <= loss + rounding;
        if lower {
            point.weights.add(length, &step.weights);
            point.intercept += length * step.intercept;
        }
        lower
    }

    /// Minus the first derivative of the loss in each margin, and the second, `[n]` each.
    fn derivatives(&self, point: &Point) -> (Vec<f64>, Vec<f64>) {
        let each = point.weights.margins.iter().zip(&self.signs).map(|(margin, sign)| {
            let margin = sign * (margin + point.intercept);
            let (pull, curvature) = derivatives(margin, (-margin.abs()).exp());
            (sign * pull, curvature)
        });
        each.unzip()
    }

    /// `Z w`, `[n]`; a `rough` one has half of the digits where items are the unknowns.
    fn margins(&self, coefficients: &[f64], rough: bool) -> Vec<f64> {
        match &self.basis {
            Basis::Items { split, rows, .. } if !rough => split.times(rows.iter().copied(), rows.iter().copied(), coefficients),
            Basis::Items { rough: kernel, .. } => {
                let coefficients: Vec<f32> = coefficients.iter().map(|&c| c as f32).collect();
                let mut margins = vec![0.0; self.signs.len()];
                times(kernel, &coefficients, &mut margins);
                margins.into_iter().map(f64::from).collect()
            }
            Basis::Features(z, _) => {
                let mut margins = vec![0.0; self.signs.len()];
                times_f64(z, coefficients, &mut margins);
                margins
            }
        }
    }

    /// The weights `Z'v` of `v`, `[n]`.
    fn weights_of(&self, v: Vec<f64>) -> Vec<f64> {
        match &self.basis {
            Basis::Items { .. } => v,
            Basis::Features(z, d) => {
                let mut sums = vec![0.0; *d];
                for (row, v) in z.chunks_exact(*d).zip(v) {
                    sums.iter_mut().zip(row).for_each(|(sum, z)| *sum += v * z);
                }
                sums
            }
        }
    }

    /// `|w|^2`.
    fn square(&self, vector: &Vector) -> f64 {
        self.product(vector, vector).max(0.0)
    }

    /// Inner product of two weight vectors.
    fn product(&self, left: &Vector, right: &Vector) -> f64 {
        match &self.basis {
            Basis::Items { .. } => dot_f64(&left.coefficients, &right.margins),
            Basis::Features(..) => dot_f64(&left.coefficients, &right.coefficients),
        }
    }
}

impl Point {
    /// `[n]` per item or `[d]` per feature.
    pub fn coefficients(&self) -> &[f64] {
        &self.weights.coefficients
    }
}

impl Vector {
    /// `other` plus `factor` times what this was.
    fn follow(&mut self, factor: f64, other: &Self) {
        self.coefficients.iter_mut().zip(&other.coefficients).for_each(|(value, other)| *value = other + factor * *value);
        self.margins.iter_mut().zip(&other.margins).for_each(|(value, other)| *value = other + factor * *value);
    }

    fn add(&mut self, factor: f64, other: &Self) {
        self.coefficients.iter_mut().zip(&other.coefficients).for_each(|(value, other)| *value += factor * other);
        self.margins.iter_mut().zip(&other.margins).for_each(|(value, other)| *value += factor * other);
    }
}

/// Minus the first derivative of `log(1 + exp(-margin))`, and the second; `tail` is `exp(-|margin|)`.
fn derivatives(margin: f64, tail: f64) -> (f64, f64) {
    (if margin > 0.0 { tail } else { 1.0 } / (1.0 + tail), tail / (1.0 + tail).powi(2))
}

/// A sum of `log(1 + exp(-margin))` with one logarithm for hundreds of margins.
pub(super) struct Losses {
    sum: f64,
    /// Each factor is between 1 and 2.
    product: f64,
}

impl Default for Losses {
    fn default() -> Self {
        Self { sum: 0.0, product: 1.0 }
    }
}

impl Losses {
    /// Returns `exp(-|margin|)`.
    pub fn add(&mut self, margin: f64) -> f64 {
        let tail = (-margin.abs()).exp();
        self.sum += (-margin).max(0.0);
        self.product *= 1.0 + tail;
        if self.product > f64::MAX / 4.0 {
            self.sum += std::mem::replace(&mut self.product, 1.0).ln();
        }
        tail
    }

    pub fn sum(&self) -> f64 {
        self.sum + self.product.ln()
    }

    /// Of all decisions, each with its label.
    pub fn of(decisions: impl Iterator<Item = (f64, bool)>) -> f64 {
        let mut losses = Self::default();
        decisions.for_each(|(decision, label)| {
            losses.add(if label { decision } else { -decision });
        });
        losses.sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_losses_are_the_sum_of_each() {
        let margins = || (0..3000).map(|i| 40.0 * (f64::from(i) * 0.37).sin()).chain([-800.0, 0.0, 800.0]);
        let expected: f64 = margins().map(|margin: f64| (-margin).max(0.0) + (-margin.abs()).exp().ln_1p()).sum();
        assert!((Losses::of(margins().map(|margin| (margin, true))) / expected - 1.0).abs() < 1e-12);
        assert!((Losses::of(margins().map(|margin| (-margin, false))) / expected - 1.0).abs() < 1e-12);
        assert_eq!(Losses::of(std::iter::empty()), 0.0);
    }
}
