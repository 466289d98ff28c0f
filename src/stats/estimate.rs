//! A number with its 95% interval, the unit in which every table reports.

use serde::{Deserialize, Serialize};

/// A point estimate with the ends of its 95% interval, in the units of the value.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub value: f64,
    pub lower: f64,
    pub upper: f64,
}

impl Estimate {
    /// The 2.5% and 97.5% percentiles of bootstrap `replicates` around `value` (Efron & Tibshirani
    /// 1993, chapter 13).
    ///
    /// A replicate that is not finite could not be computed and is left out. Where that happened to
    /// more than half of them the rest no longer describes the estimator, and there is no interval:
    /// `None`, as for a `value` that is not finite.
    pub fn percentile(value: f64, replicates: &[f64]) -> Option<Self> {
        let mut finite: Vec<f64> = replicates.iter().copied().filter(|r| r.is_finite()).collect();
        if !value.is_finite() || finite.is_empty() || 2 * finite.len() < replicates.len() {
            return None;
        }
        finite.sort_unstable_by(f64::total_cmp);
        Some(Self { value, lower: quantile(&finite, 0.025), upper: quantile(&finite, 0.975) })
    }
}

/// A number and the same under resamples. Two of them that were resampled alike have replicates that pair.
#[derive(Clone, Debug, PartialEq)]
pub struct Sampled {
    pub value: f64,
    /// NaN where a resample lacks the number; none where it was not resampled.
    pub replicates: Vec<f64>,
}

impl Sampled {
    /// With its 95% interval, as [`Estimate::percentile`].
    pub fn estimate(&self) -> Option<Estimate> {
        Estimate::percentile(self.value, &self.replicates)
    }

    /// The number in a resample: itself where it was not resampled.
    pub fn at(&self, resample: usize) -> f64 {
        self.replicates.get(resample).copied().unwrap_or(self.value)
    }

    /// In another unit, or with the other sign.
    pub fn times(&self, factor: f64) -> Self {
        Self { value: factor * self.value, replicates: self.replicates.iter().map(|x| factor * x).collect() }
    }

    /// The highest of some; `None` of none.
    pub fn highest<'a>(all: impl IntoIterator<Item = Option<&'a Self>>) -> Option<&'a Self> {
        all.into_iter().flatten().max_by(|a, b| a.value.total_cmp(&b.value))
    }

    /// This minus another, as [`paired`].
    pub fn minus(&self, other: &Self) -> Option<Estimate> {
        paired((other.value, &other.replicates), (self.value, &self.replicates))
    }
}

/// The amplitude `e = sign(U) sqrt|U|`: linear in the strength of the signal, so that averages and
/// curves over checkpoints make sense, and symmetric around zero without one.
pub fn amplitude(u: f64) -> f64 {
    u.abs().sqrt().copysign(u)
}

/// The `q`-quantile of ascending `sorted` values, interpolated linearly between order statistics
/// (type 7 of Hyndman & Fan 1996, the default of R and NumPy). NaN for no values.
pub fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let position = q.clamp(0.0, 1.0) * last as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(last);
    sorted[below] + (position - below as f64) * (sorted[above] - sorted[below])
}

/// Mean and standard deviation (divisor n - 1). NaN for no values, and a NaN deviation for one.
pub fn mean_sd(values: impl Iterator<Item = f64> + Clone) -> (f64, f64) {
    let n = values.clone().count() as f64;
    let mean = values.clone().sum::<f64>() / n;
    let squares: f64 = values.map(|v| (v - mean) * (v - mean)).sum();
    (mean, (squares / (n - 1.0)).sqrt())
}

/// B minus A, resample by resample: both were read on the same groups, and resample `b` draws the same ones in each, so what
/// the groups have in common cancels. A resample that could not be computed in one of them (NaN) is left out.
pub fn paired(a: (f64, &[f64]), b: (f64, &[f64])) -> Option<Estimate> {
    let replicates: Vec<f64> = a.1.iter().zip(b.1).map(|(a, b)| b - a).collect();
    Estimate::percentile(b.0 - a.0, &replicates)
}

/// An estimate in a row of a table, where a field `x` of it is the columns `x`, `x_lower` and `x_upper` (see [`crate::table`]). What is not
/// known, such as an end that is open, is null.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reported {
    pub value: Option<f64>,
    pub lower: Option<f64>,
    pub upper: Option<f64>,
}

impl From<Option<Estimate>> for Reported {
    fn from(estimate: Option<Estimate>) -> Self {
        let finite = |x: f64| Some(x).filter(|x| x.is_finite());
        estimate.map_or(Self::default(), |e| Self { value: finite(e.value), lower: finite(e.lower), upper: finite(e.upper) })
    }
}

impl Reported {
    /// The estimate; `None` where a part of it is null.
    pub fn estimate(self) -> Option<Estimate> {
        Some(Estimate { value: self.value?, lower: self.lower?, upper: self.upper? })
    }

    /// Value, lower and upper end.
    pub fn parts(self) -> [Option<f64>; 3] {
        [self.value, self.lower, self.upper]
    }

    /// Both ends; `None` where one of them is null.
    pub fn ends(self) -> Option<[f64; 2]> {
        Some([self.lower?, self.upper?])
    }

    /// Whether the interval is known and leaves out 0.
    pub fn excludes_zero(self) -> bool {
        self.ends().is_some_and(|[lower, upper]| lower > 0.0 || upper < 0.0)
    }
}

/// Share of pairs with `a < b`, ties counted by half; `None` where no pair is finite.
pub fn first<'a>(pairs: impl Iterator<Item = (&'a f64, &'a f64)>) -> Option<f64> {
    let (mut first, mut n) = (0.0, 0usize);
    for (a, b) in pairs.filter(|(a, b)| a.is_finite() && b.is_finite()) {
        first += if a < b {
            1.0
        } else if a == b {
            0.5
        } else {
            0.0
        };
        n += 1;
    }
    (n > 0).then(|| first / n as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_interpolate_as_numpy_does() {
        let sorted = [1.0, 2.0, 4.0, 8.0];
        assert_eq!(quantile(&sorted, 0.0), 1.0);
        assert_eq!(quantile(&sorted, 0.5), 3.0);
        assert!((quantile(&sorted, 0.9) - 6.8).abs() < 1e-12);
        assert_eq!(quantile(&sorted, 1.0), 8.0);
    }

    #[test]
    fn an_interval_needs_half_of_the_replicates() {
        let nan = f64::NAN;
        assert!(Estimate::percentile(1.0, &[nan, nan, 1.0]).is_none());
        let kept = Estimate::percentile(1.0, &[nan, 0.0, 2.0]).unwrap();
        assert!((kept.lower - 0.05).abs() < 1e-12 && (kept.upper - 1.95).abs() < 1e-12);
    }

    #[test]
    fn order_counts_ties_by_half_and_leaves_out_what_is_missing() {
        let (a, b) = ([1.0, 2.0, f64::NAN, 3.0], [2.0, 2.0, 1.0, 1.0]);
        assert_eq!(first(a.iter().zip(&b)), Some(0.5));
        assert_eq!(first([f64::NAN].iter().zip(&[1.0])), None);
    }

    #[test]
    fn swapping_negates_and_equal_runs_do_not_differ() {
        let (a, b) = ((1.0, [0.9, 1.1, 1.4].as_slice()), (3.0, [2.5, 3.5, 2.9].as_slice()));
        let (there, back) = (paired(a, b).unwrap(), paired(b, a).unwrap());
        assert!((there.value + back.value).abs() < 1e-12 && (there.lower + back.upper).abs() < 1e-12);
        assert_eq!(paired(a, a), Some(Estimate { value: 0.0, lower: 0.0, upper: 0.0 }));
    }
}
