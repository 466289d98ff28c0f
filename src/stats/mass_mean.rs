//! Mass-mean probes: the direction between the means of the two classes, without an optimiser.
//!
//! Plain, `theta = mean_1 - mean_0` in raw features (Marks & Tegmark 2023, section 5); whitened, `Sigma^-1 theta` with the
//! covariance within classes, which is Fisher's linear discriminant. With fewer items than features Sigma is singular, so it
//! is shrunk towards its mean variance by the amount that Ledoit & Wolf (2004) estimate, in standardised features: raw
//! features of a language model differ in variance by orders of magnitude. The threshold is midway between the class means.

use anyhow::{Result, bail, ensure};

use super::kernel::{Coefficients, Design, Fitted, Linear, Split, held_scores};
use super::matrix::dot_f64;
use super::symmetric::Cholesky;

/// The least shrinkage: keeps Sigma invertible where the estimate is zero.
const LEAST_SHRINKAGE: f64 = 1e-6;

/// Difference of means of the training items of `split`; `labels` are `[n]`. `None` when they all have one label.
///
/// # Errors
/// When `labels` are not `[n]`.
pub fn plain(design: &Design, split: &Split, labels: &[bool]) -> Result<Option<Linear>> {
    ensure!(labels.len() == design.items(), "{} labels for {} items", labels.len(), design.items());
    Ok(Sums::of(design, split.train(), labels).direction())
}

/// Sums of the raw features of each class, y = 0 first.
struct Sums {
    features: [Vec<f64>; 2],
    items: [usize; 2],
}

impl Sums {
    fn of(design: &Design, items: &[usize], labels: &[bool]) -> Self {
        let mut sums = Self { features: [vec![0.0; design.features()], vec![0.0; design.features()]], items: [0, 0] };
        for &i in items {
            let class = usize::from(labels[i]);
            sums.items[class] += 1;
            sums.features[class].iter_mut().zip(design.item(i)).for_each(|(sum, &value)| *sum += f64::from(value));
        }
        sums
    }

    /// Those of the items that are not in `other`.
    fn without(&self, other: &Self) -> Self {
        let rest = |class: usize| self.features[class].iter().zip(&other.features[class]).map(|(all, part)| all - part).collect();
        Self { features: [rest(0), rest(1)], items: [0, 1].map(|class| self.items[class] - other.items[class]) }
    }

    /// `None` when a class is empty.
    fn direction(&self) -> Option<Linear> {
        let [zeros, ones] = self.items.map(|items| items as f64);
        if zeros == 0.0 || ones == 0.0 {
            return None;
        }
        let means = || self.features[0].iter().zip(&self.features[1]).map(|(zero, one)| (zero / zeros, one / ones));
        let weights: Vec<f64> = means().map(|(zero, one)| one - zero).collect();
        let twice_midpoint: Vec<f64> = means().map(|(zero, one)| one + zero).collect();
        let bias = -0.5 * dot_f64(&weights, &twice_midpoint);
        Some(Linear { weights, bias })
    }
}

/// Held-out margins of [`plain`], `[n]`: how far beyond the threshold, in units of `|theta|` times those of `x`. `None` when a
/// split trains on one label only.
///
/// # Errors
/// When lengths differ or an item is never held out.
pub fn held_out(design: &Design, splits: &[Split], labels: &[bool]) -> Result<Option<Vec<f64>>> {
    ensure!(labels.len() == design.items(), "{} labels for {} items", labels.len(), design.items());
    // What is trained on is everything but what is held out: one sum over all items serves all splits.
    let all = Sums::of(design, &(0..labels.len()).collect::<Vec<_>>(), labels);
    held_scores(splits, labels.len(), |split| {
        let Some(linear) = all.without(&Sums::of(design, split.held(), labels)).direction() else { return Ok(None) };
        Ok(Some(split.held().iter().map(|&i| linear.at(design.item(i))).collect()))
    })
}

/// The whitened direction of one split.
#[derive(Clone, Debug)]
pub struct Whitened {
    /// Share of the mean variance in the covariance used, in (0, 1].
    pub shrinkage: f64,
    /// The intercept is minus the threshold, in standardised features.
    pub fitted: Fitted,
}

/// `Sigma^-1 (mean_1 - mean_0)` of the training items of `split`; `labels` are `[n]`. `None` when they all have one label.
///
/// With X the items centred within their class and `Sigma = a I + c X'X`, the inverse is
/// `(I - c X' (a I + c X X')^-1 X) / a`: everything is in the kernel.
///
/// # Errors
/// When `labels` are not `[n]`, or rounding has made the covariance indefinite.
pub fn whitened(split: &Split, labels: &[bool]) -> Result<Option<Whitened>> {
    let n = split.train().len();
    let labels = split.labels_of(&(0..n).collect::<Vec<_>>(), labels)?;
    let Some(shares) = signed_shares(labels.iter().copied()) else { return Ok(None) };
    let within = centred_within(split, &labels);

    let d = split.width() as f64;
    let squares: Vec<f64> = within.iter().step_by(n + 1).copied().collect();
    let mean_variance = squares.iter().sum::<f64>() / n as f64 / d;
    let shrinkage = shrinkage(&within, &squares, mean_variance, d);
    let (a, c) = (shrinkage * mean_variance, (1.0 - shrinkage) / n as f64);

    let mut items = shares.clone();
    if a > 0.0 {
        let mut system: Vec<f64> = within.iter().map(|k| c * k).collect();
        system.iter_mut().step_by(n + 1).for_each(|diagonal| *diagonal += a);
        let mut correction = split.times(0..n, 0..n, &shares);
        centre_within(&mut correction, &labels);
        let Some(system) = Cholesky::new(n, system) else { bail!("the covariance within classes is not positive definite") };
        system.solve(&mut correction);
        centre_within(&mut correction, &labels);
        items.iter_mut().zip(correction).for_each(|(item, part)| *item = (*item - c * part) / a);
    }
    let centre: f64 = split.times(0..n, 0..n, &items).iter().zip(&shares).map(|(value, share)| value * share.abs()).sum();
    Ok(Some(Whitened { shrinkage, fitted: Fitted { intercept: -0.5 * centre, coefficients: Coefficients::Items(items) } }))
}

/// Held-out margins of [`whitened`], `[n]`. `None` when a split trains on one label only.
///
/// # Errors
/// When lengths differ or an item is never held out.
pub fn whitened_held_out(splits: &[Split], labels: &[bool]) -> Result<Option<Vec<f64>>> {
    held_scores(splits, labels.len(), |split| Ok(whitened(split, labels)?.map(|whitened| whitened.fitted.held_decisions(split))))
}

/// One over the size of its class for y = 1, minus that for y = 0. `None` when a class is empty.
fn signed_shares(labels: impl Iterator<Item = bool> + Clone) -> Option<Vec<f64>> {
    let positives = labels.clone().filter(|&label| label).count();
    let negatives = labels.clone().count() - positives;
    (positives > 0 && negatives > 0)
        .then(|| labels.map(|label| if label { 1.0 / positives as f64 } else { -1.0 / negatives as f64 }).collect())
}

/// Inner products `[n, n]` of the training items centred within their class.
fn centred_within(split: &Split, labels: &[bool]) -> Vec<f64> {
    let n = labels.len();
    let mut within = split.of_train();
    within.chunks_exact_mut(n).for_each(|row| centre_within(row, labels));
    // The columns: subtract from every row the mean row of its class.
    for class in [false, true] {
        let rows = || (0..n).filter(|&row| labels[row] == class);
        let mut mean = vec![0.0; n];
        for row in rows() {
            mean.iter_mut().zip(&within[row * n..]).for_each(|(sum, value)| *sum += value);
        }
        let size = rows().count() as f64;
        for row in rows() {
            within[row * n..(row + 1) * n].iter_mut().zip(&mean).for_each(|(value, sum)| *value -= sum / size);
        }
    }
    within
}

/// Subtracts from every value the mean of its class.
fn centre_within(values: &mut [f64], labels: &[bool]) {
    for class in [false, true] {
        let of_class = || labels.iter().filter(|&&label| label == class).count();
        let sum: f64 = values.iter().zip(labels).filter(|&(_, &label)| label == class).map(|(value, _)| value).sum();
        let mean = sum / of_class() as f64;
        values.iter_mut().zip(labels).filter(|&(_, &label)| label == class).for_each(|(value, _)| *value -= mean);
    }
}

/// The shrinkage of Ledoit & Wolf (2004, section 3.3), as scikit-learn computes it, from inner products of centred items.
fn shrinkage(within: &[f64], squares: &[f64], mean_variance: f64, d: f64) -> f64 {
    let n = squares.len() as f64;
    let norm = dot_f64(within, within) / (n * n); // |S|^2
    let distance = norm - d * mean_variance * mean_variance;
    let error = (dot_f64(squares, squares) / n - norm) / n;
    if distance > 0.0 { (error / distance).clamp(LEAST_SHRINKAGE, 1.0) } else { 1.0 }
}

#[cfg(test)]
#[path = "mass_mean_tests.rs"]
mod tests;
