//! Shares of yes and no, with intervals that are honest where all of a few say the same.

use super::estimate::Estimate;

/// Wilson's 95% interval of a share (Wilson 1927).
pub fn wilson(hits: usize, of: usize) -> (f64, f64) {
    const Z: f64 = 1.959_963_984_540_054;
    if of == 0 {
        return (0.0, 1.0);
    }
    let (n, p) = (of as f64, hits as f64 / of as f64);
    let centre = (p + Z * Z / (2.0 * n)) / (1.0 + Z * Z / n);
    let half = Z / (1.0 + Z * Z / n) * (p * (1.0 - p) / n + Z * Z / (4.0 * n * n)).sqrt();
    ((centre - half).max(0.0), (centre + half).min(1.0))
}

/// A share with Wilson's interval; `None` of nothing.
pub fn share(values: &[bool]) -> Option<Estimate> {
    let hits = values.iter().filter(|is| **is).count();
    let (lower, upper) = wilson(hits, values.len());
    let value = hits as f64 / values.len() as f64;
    // Rounding may take an end beyond the share where this is 0 or 1.
    (!values.is_empty()).then(|| Estimate { value, lower: lower.min(value), upper: upper.max(value) })
}

/// The share of `a` minus that of `b`, of the same units, with the 95% interval of Newcombe (1998, Statistics in Medicine 17: 2635, method
/// 10): Wilson's intervals of both, squared and added, less what the units have in common. `None` of nothing.
///
/// # Panics
/// With unequal numbers of units.
pub fn paired_difference(a: &[bool], b: &[bool]) -> Option<Estimate> {
    assert_eq!(a.len(), b.len(), "the same units");
    let (p, q) = (share(a)?, share(b)?);
    let count = |in_a: bool, in_b: bool| a.iter().zip(b).filter(|(a, b)| (**a, **b) == (in_a, in_b)).count() as f64;
    let [both, only_a, only_b, none] = [count(true, true), count(true, false), count(false, true), count(false, false)];
    let product = (both + only_a) * (only_b + none) * (both + only_b) * (only_a + none);
    let surplus = both * none - only_a * only_b;
    // Corrected for continuity where it is positive, as the method has it.
    let surplus = if surplus > 0.0 { (surplus - a.len() as f64 / 2.0).max(0.0) } else { surplus };
    let phi = if product > 0.0 { surplus / product.sqrt() } else { 0.0 };
    let half = |down: f64, up: f64| (down * down - 2.0 * phi * down * up + up * up).max(0.0).sqrt();
    let value = p.value - q.value;
    Some(Estimate {
        value,
        lower: value - half(p.value - p.lower, q.upper - q.value),
        upper: value + half(p.upper - p.value, q.value - q.lower),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, uniform};

    #[test]
    fn intervals_are_those_of_scipy() {
        // scipy.stats.binomtest(3, 60).proportion_ci(method="wilson")
        let (lower, upper) = wilson(3, 60);
        assert!((lower - 0.017_149_502).abs() < 1e-8 && (upper - 0.137_005_165).abs() < 1e-8, "{lower} {upper}");
        assert_eq!(wilson(0, 0), (0.0, 1.0));
        assert!(share(&[]).is_none());
    }

    /// Units, so many of each kind: in both, only in the first, only in the second, in none.
    fn units([both, only_a, only_b, none]: [usize; 4]) -> (Vec<bool>, Vec<bool>) {
        let of = |(a, b): (bool, bool), n: usize| std::iter::repeat_n((a, b), n);
        of((true, true), both).chain(of((true, false), only_a)).chain(of((false, true), only_b)).chain(of((false, false), none)).unzip()
    }

    /// statsmodels' confint_proportions_2indep(9, 15, 10, 15, method="newcomb") and (15, 15, 0, 15): of units that have nothing in common, the
    /// interval is that of two samples.
    #[test]
    fn without_correlation_the_interval_is_that_of_independent_samples() {
        for (counts, value, lower, upper) in
            [([6, 3, 4, 2], -1.0 / 15.0, -0.369_634_193, 0.254_224_140), ([0, 15, 0, 0], 1.0, 0.711_665_471, 1.0)]
        {
            let (a, b) = units(counts);
            let found = paired_difference(&a, &b).unwrap();
            assert!((found.value - value).abs() < 1e-12 && (found.lower - lower).abs() < 1e-6, "{found:?}");
            assert!((found.upper - upper).abs() < 1e-6, "{found:?}");
        }
    }

    /// What units have in common makes their difference more certain, and the interval holds the truth as often as it says.
    #[test]
    fn correlated_shares_are_covered() {
        let width = |counts| {
            let (a, b) = units(counts);
            paired_difference(&a, &b).map(|found| found.upper - found.lower).unwrap()
        };
        assert!(width([8, 1, 1, 5]) < width([6, 3, 3, 3]));
        let mut random = generator(0, "shares");
        let mut covered = 0;
        for _ in 0..2_000 {
            let draw = |_| {
                // Half of the units say the same on both sides.
                let (both, a, b) = (uniform(&mut random), uniform(&mut random), uniform(&mut random));
                if uniform(&mut random) < 0.5 { (both < 0.4, both < 0.4) } else { (a < 0.6, b < 0.2) }
            };
            let (a, b): (Vec<bool>, Vec<bool>) = (0..15).map(draw).unzip();
            let found = paired_difference(&a, &b).unwrap();
            covered += usize::from(found.lower <= 0.2 && 0.2 <= found.upper);
        }
        assert!((1_880..=1_990).contains(&covered), "{covered} of 2000");
    }
}
