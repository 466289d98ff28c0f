//! A measure along the checkpoints, with its bootstrap replicates.

use std::ops::Range;

use anyhow::{Result, ensure};

use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Sampled, amplitude, quantile};
use crate::stats::gram::Gram;

/// One number per checkpoint, `e[T]`, and the same under B resamples of the groups. Replicate `b` uses
/// one resample for all checkpoints, so a row of `replicates` is itself a curve.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// `[T]`.
    pub value: Vec<f64>,
    /// `[B, T]` row-major; B may be 0.
    pub replicates: Vec<f64>,
}

impl Curve {
    /// # Errors
    /// When there is no checkpoint, the replicates are not whole curves, or a number is not finite.
    pub fn new(value: Vec<f64>, replicates: Vec<f64>) -> Result<Self> {
        let (t, n) = (value.len(), replicates.len());
        ensure!(t > 0, "a curve needs at least one checkpoint");
        ensure!(n.is_multiple_of(t), "{n} replicate values are not whole curves of {t} checkpoints");
        let finite = value.iter().chain(&replicates).all(|v| v.is_finite());
        ensure!(finite, "a curve over {t} checkpoints has a value that is not finite");
        Ok(Self { value, replicates })
    }

    /// The amplitude `e = sign(U) sqrt|U|` of the contrast at each checkpoint.
    ///
    /// # Errors
    /// When a Gram matrix and the draws disagree about the number of groups.
    pub fn of_amplitudes(grams: &[Gram], draws: &Draws) -> Result<Self> {
        let (t, b) = (grams.len(), draws.n_resamples());
        let mut replicates = vec![0.0; t * b];
        for (checkpoint, gram) in grams.iter().enumerate() {
            for (row, u) in gram.calibrated_bootstrap_u(draws)?.into_iter().enumerate() {
                replicates[row * t + checkpoint] = amplitude(u);
            }
        }
        Self::new(grams.iter().map(|gram| amplitude(gram.u())).collect(), replicates)
    }

    /// The contrast at each checkpoint along one direction, `<E delta_t, E p> / |E p|`, from the cross-Gram matrices of each
    /// checkpoint with contrasts `p` over the same groups (those of the last checkpoint, or the mean of the late ones): the frozen
    /// ruler. In units of the amplitude, with about half of its noise where the concept is weak, but blind to a concept that has
    /// another direction there. Unbiased up to the scale, although the late checkpoints themselves are in `p`, because only
    /// different groups are multiplied. `None` when `p` has no contrast (`U <= 0`).
    ///
    /// The scale is held fixed over replicates, since it does not bear on when the curve rises.
    ///
    /// # Errors
    /// As [`Curve::of_amplitudes`].
    pub fn of_projections(cross: &[Gram], onto: &Gram, draws: &Draws) -> Result<Option<Self>> {
        let scale = amplitude(onto.u());
        if scale <= 0.0 {
            return Ok(None);
        }
        let (t, b) = (cross.len(), draws.n_resamples());
        let mut replicates = vec![0.0; t * b];
        for (checkpoint, gram) in cross.iter().enumerate() {
            for (row, u) in gram.calibrated_bootstrap_u(draws)?.into_iter().enumerate() {
                replicates[row * t + checkpoint] = u / scale;
            }
        }
        Self::new(cross.iter().map(|gram| gram.u() / scale).collect(), replicates).map(Some)
    }

    /// Means over groups of `values[t][group]`, which groups are resampled for.
    ///
    /// # Errors
    /// When a checkpoint and the draws disagree about the number of groups, or a value is not finite.
    pub fn of_means(values: &[Vec<f64>], draws: &Draws) -> Result<Self> {
        let groups = draws.groups();
        ensure!(values.iter().all(|row| row.len() == groups), "values of other than {groups} groups");
        let resampled: Vec<Vec<f64>> = values.iter().map(|row| draws.means(row)).collect();
        let replicates = (0..draws.n_resamples()).flat_map(|b| resampled.iter().map(move |means| means[b])).collect();
        Self::new(values.iter().map(|row| mean(row)).collect(), replicates)
    }

    /// Amplitudes as their signed squares `e |e|`, which are U again. U is unbiased and about as noisy without a signal as with one;
    /// the root stretches what is near 0, so that a concept that is absent has an amplitude with twice the noise. Tests of a rise
    /// and of presence are therefore on squares.
    pub fn squares(&self) -> Self {
        let square = |values: &[f64]| values.iter().map(|e| e * e.abs()).collect();
        Self { value: square(&self.value), replicates: square(&self.replicates) }
    }

    /// Number of checkpoints T.
    pub fn checkpoints(&self) -> usize {
        self.value.len()
    }

    /// The replicate curves, each `[T]`.
    pub fn replicate_rows(&self) -> impl ExactSizeIterator<Item = &[f64]> + Clone {
        self.replicates.chunks_exact(self.checkpoints())
    }

    /// The value at one checkpoint with its interval.
    pub fn at(&self, checkpoint: usize) -> Option<Estimate> {
        self.statistic(|row| row[checkpoint])
    }

    /// Mean over a set of checkpoints with its interval. `None` for an empty set.
    pub fn mean_over(&self, set: &Range<usize>) -> Option<Estimate> {
        self.statistic(|row| mean(&row[set.clone()]))
    }

    /// Mean over the checkpoints `late` less a level, resample by resample: what is reached beyond what has been learned by nothing.
    pub fn excess(&self, level: &Sampled, late: &Range<usize>) -> Option<Estimate> {
        let own = |row: &[f64]| mean(&row[late.clone()]);
        let replicates: Vec<f64> = self.replicate_rows().enumerate().map(|(resample, row)| own(row) - level.at(resample)).collect();
        Estimate::percentile(own(&self.value) - level.value, &replicates)
    }

    /// The value at one checkpoint with its replicates.
    pub fn sampled(&self, checkpoint: usize) -> Sampled {
        Sampled { value: self.value[checkpoint], replicates: self.replicate_rows().map(|row| row[checkpoint]).collect() }
    }

    /// A curve from its checkpoints, which have their replicates in the same order.
    ///
    /// # Errors
    /// As [`Curve::new`].
    pub fn of_sampled(points: &[Sampled]) -> Result<Self> {
        let resamples = points.iter().map(|point| point.replicates.len()).min().unwrap_or(0);
        let replicates = (0..resamples).flat_map(|b| points.iter().map(move |point| point.replicates[b])).collect();
        Self::new(points.iter().map(|point| point.value).collect(), replicates)
    }

    /// `of` the curve, with the interval from `of` each replicate.
    pub fn statistic(&self, of: impl Fn(&[f64]) -> f64) -> Option<Estimate> {
        let replicates: Vec<f64> = self.replicate_rows().map(&of).collect();
        Estimate::percentile(of(&self.value), &replicates)
    }
}

/// Mean of a row's values; NaN for none.
pub(crate) fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// `target` minus the median of the null bank at each checkpoint, for measures that move for everything
/// (`change`): what a concept does beyond topics that nobody teaches.
///
/// Replicate `b` has the median of the bank's replicates `b` subtracted. Where concept and bank share
/// groups this keeps their covariance; where they do not, replicates pair independent resamples, which
/// is right too. A bank without replicates is a constant. The interval is over groups, given this
/// bank; how the target stands among its topics is [`percentile_in_bank`].
///
/// # Errors
/// When the bank is empty, or a curve of it differs in checkpoints, or in replicates without being free
/// of them.
pub fn excess_over_bank(target: &Curve, bank: &[Curve]) -> Result<Curve> {
    ensure!(!bank.is_empty(), "there is no null bank to compare with");
    let (t, b) = (target.checkpoints(), target.replicate_rows().len());
    let resampled = bank.iter().all(|curve| !curve.replicates.is_empty());
    for curve in bank {
        let (found_t, found_b) = (curve.checkpoints(), curve.replicate_rows().len());
        ensure!(found_t == t, "a null curve has {found_t} checkpoints, the target {t}");
        ensure!(found_b == if resampled { b } else { 0 }, "a null curve has {found_b} replicates, the target {b}");
    }
    let mut column = Vec::with_capacity(bank.len());
    let mut less_median = |value: f64, null: &dyn Fn(&Curve) -> f64| {
        column.clear();
        column.extend(bank.iter().map(null));
        column.sort_unstable_by(f64::total_cmp);
        value - quantile(&column, 0.5)
    };
    let value = (0..t).map(|at| less_median(target.value[at], &|null| null.value[at])).collect();
    let replicates = (0..b * t)
        .map(|at| {
            let null = |null: &Curve| {
                if resampled { null.replicates[at] } else { null.value[at % t] }
            };
            less_median(target.replicates[at], &null)
        })
        .collect();
    Curve::new(value, replicates)
}

/// Share of the null bank below the target at each checkpoint, `[T]`, ties counted by half. `None` for
/// an empty bank.
///
/// # Errors
/// When a curve of the bank differs in checkpoints.
pub fn percentile_in_bank(target: &Curve, bank: &[Curve]) -> Result<Option<Vec<f64>>> {
    let t = target.checkpoints();
    for curve in bank {
        let found = curve.checkpoints();
        ensure!(found == t, "a null curve has {found} checkpoints, the target {t}");
    }
    let at = |at: usize| share_below(target.value[at], bank.iter().map(|curve| curve.value[at]));
    Ok((0..t).map(at).collect())
}

/// Share of `null` below `value`, ties counted by half; `None` for an empty null.
pub(crate) fn share_below(value: f64, null: impl Iterator<Item = f64>) -> Option<f64> {
    let (mut below, mut n) = (0.0, 0usize);
    for other in null {
        below += if other < value {
            1.0
        } else if other == value {
            0.5
        } else {
            0.0
        };
        n += 1;
    }
    (n > 0).then(|| below / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(value: &[f64], replicates: &[f64]) -> Curve {
        Curve::new(value.to_vec(), replicates.to_vec()).unwrap()
    }

    #[test]
    fn the_bank_is_subtracted_replicate_by_replicate() {
        let target = curve(&[5.0, 9.0], &[5.0, 8.0, 6.0, 10.0]);
        let bank = [
            curve(&[1.0, 2.0], &[1.0, 2.0, 1.5, 2.5]),
            curve(&[3.0, 3.0], &[3.0, 3.0, 2.0, 4.0]),
            curve(&[9.0, 2.0], &[0.0, 9.0, 9.0, 0.0]),
        ];
        let excess = excess_over_bank(&target, &bank).unwrap();
        assert_eq!(excess.value, [2.0, 7.0]);
        assert_eq!(excess.replicates, [4.0, 5.0, 4.0, 7.5]);
        assert_eq!(percentile_in_bank(&target, &bank).unwrap(), Some(vec![2.0 / 3.0, 1.0]));
    }

    #[test]
    fn a_bank_without_replicates_is_a_constant_and_an_empty_one_an_error() {
        let target = curve(&[5.0, 9.0], &[5.0, 8.0, 6.0, 10.0]);
        let bank = [curve(&[1.0, 2.0], &[])];
        assert_eq!(excess_over_bank(&target, &bank).unwrap().replicates, [4.0, 6.0, 5.0, 8.0]);
        assert!(excess_over_bank(&target, &[]).is_err());
        assert_eq!(percentile_in_bank(&target, &[]).unwrap(), None);
        let short = [curve(&[1.0, 2.0], &[1.0, 2.0])];
        assert!(excess_over_bank(&target, &short).is_err());
    }

    #[test]
    fn a_curve_that_is_not_finite_is_refused() {
        assert!(Curve::new(vec![0.0, f64::NAN], vec![]).is_err());
        assert!(Curve::new(vec![0.0, 1.0], vec![1.0]).is_err());
    }
}
