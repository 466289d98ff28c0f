//! Differences between two sets of runs, over runs.

use crate::onset::curve::mean;
use crate::stats::estimate::{Estimate, mean_sd};
use crate::stats::tails::student_quantile;

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
    let half = student_quantile(0.975, (freedom as u32).max(1)) * error;
    Some(Estimate { value, lower: value - half, upper: value + half })
}

/// Mean of runs with the interval of Student's t; `None` for fewer than two.
pub fn over_runs(runs: &[f64]) -> Option<Estimate> {
    if runs.len() < 2 {
        return None;
    }
    let (value, sd) = mean_sd(runs.iter().copied());
    let half = student_quantile(0.975, runs.len() as u32 - 1) * sd / (runs.len() as f64).sqrt();
    Some(Estimate { value, lower: value - half, upper: value + half })
}

#[cfg(test)]
mod tests {
    use super::*;

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
