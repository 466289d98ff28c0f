//! Differences between two sets of runs, over runs.

use crate::onset::curve::mean;
use crate::onset::gate::{normal_upper_tail, student_upper_tail};
use crate::stats::estimate::{Estimate, mean_sd};

/// Mean of B's runs minus mean of A's, with the interval of Welch's t (1947). Seeds are the unit: their spread holds what training
/// varies and what measuring adds. Degrees of freedom are rounded down. `None` with fewer than two runs on a side.
pub fn between_runs(a: &[f64], b: &[f64]) -> Option<Estimate> {
    if a.len() < 2 || b.len() < 2 {
        return None;
    }
    let part = |runs: &[f64]| {
        let (_, sd) = mean_sd(runs.iter().copied());
        sd * sd / runs.len() as f64
    };
    let (part_a, part_b) = (part(a), part(b));
    let value = mean(b) - mean(a);
    let error = (part_a + part_b).sqrt();
    if error == 0.0 {
        return Some(Estimate { value, lower: value, upper: value });
    }
    let share = |part: f64, n: usize| part * part / (n - 1) as f64;
    let freedom = (part_a + part_b).powi(2) / (share(part_a, a.len()) + share(part_b, b.len()));
    let half = two_sided_t(freedom as u32) * error;
    Some(Estimate { value, lower: value - half, upper: value + half })
}

/// Mean of runs with the interval of Student's t; `None` for fewer than two.
pub fn over_runs(runs: &[f64]) -> Option<Estimate> {
    if runs.len() < 2 {
        return None;
    }
    let (value, sd) = mean_sd(runs.iter().copied());
    let half = two_sided_t(runs.len() as u32 - 1) * sd / (runs.len() as f64).sqrt();
    Some(Estimate { value, lower: value - half, upper: value + half })
}

/// The 97.5% point of Student's t, by bisection.
fn two_sided_t(freedom: u32) -> f64 {
    let (mut low, mut high) = (0.0, 64.0);
    for _ in 0..60 {
        let middle = (low + high) / 2.0;
        if student_upper_tail(middle, freedom.max(1)) > 0.025 { low = middle } else { high = middle }
    }
    high
}

/// The point below which chi-squared with `freedom` (at least 1) degrees of freedom is with probability `p`, by bisection.
pub fn chi_squared(p: f64, freedom: u32) -> f64 {
    let (mut low, mut high) = (0.0, 1.0);
    while chi_squared_upper_tail(high, freedom) > 1.0 - p {
        high *= 2.0;
    }
    for _ in 0..100 {
        let middle = (low + high) / 2.0;
        if chi_squared_upper_tail(middle, freedom) > 1.0 - p { low = middle } else { high = middle }
    }
    high
}

/// P(X >= x) by the finite series of Abramowitz & Stegun (1964), 26.4.4 and 26.4.5.
fn chi_squared_upper_tail(x: f64, freedom: u32) -> f64 {
    let half = (-x / 2.0).exp();
    // Terms x^(k/2) / (k (k - 2) ...): k = 0, 2, 4 ... for even freedom, 1, 3, 5 ... for odd, up to freedom - 2.
    let odd = freedom % 2 == 1;
    let (mut sum, mut term, mut k) = (0.0, if odd { x.sqrt() } else { 1.0 }, u32::from(odd));
    while k + 2 <= freedom {
        sum += term;
        term *= x / f64::from(k + 2);
        k += 2;
    }
    let scale = if odd { (2.0 / std::f64::consts::PI).sqrt() } else { 1.0 };
    let tail = if odd { 2.0 * normal_upper_tail(x.sqrt()) } else { 0.0 };
    tail + scale * half * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_of_t_are_those_of_the_tables() {
        for (freedom, t) in [(1, 12.7062), (2, 4.30265), (10, 2.22814), (30, 2.04227)] {
            assert!((two_sided_t(freedom) - t).abs() < 1e-4, "{freedom}");
        }
    }

    #[test]
    fn quantiles_of_chi_squared_are_those_of_scipy() {
        let table = [
            (1, 0.000_982_069_117_175_255_5, 5.023_886_187_314_888),
            (2, 0.050_635_615_968_579_75, 7.377_758_908_227_871),
            (3, 0.215_795_282_623_897_85, 9.348_403_604_496_148),
            (4, 0.484_418_557_087_929_9, 11.143_286_781_877_796),
            (7, 1.689_869_180_677_355, 16.012_764_274_629_326),
            (10, 3.246_972_780_236_841_3, 20.483_177_350_807_388),
        ];
        for (freedom, lower, upper) in table {
            assert!((chi_squared(0.025, freedom) / lower - 1.0).abs() < 1e-9, "{freedom}");
            assert!((chi_squared(0.975, freedom) / upper - 1.0).abs() < 1e-9, "{freedom}");
        }
    }

    /// `scipy.stats.ttest_ind(b, a, equal_var=False)` gives t = 2.5040, df = 5.67; the interval here is at 5 degrees of freedom.
    #[test]
    fn runs_are_compared_by_welch() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [3.0, 5.0, 7.0, 5.5]);
        let found = between_runs(&a, &b).unwrap();
        assert!((found.value - 2.625).abs() < 1e-12);
        assert!(((found.upper - found.value) - 2.570_582 * (5.0f64 / 12.0 + 2.729_166_666_666_666_5 / 4.0).sqrt()).abs() < 1e-4);
        assert_eq!(between_runs(&a[..1], &b), None);
    }
}
