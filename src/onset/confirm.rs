//! Two cruder dates beside the fitted midpoint: the checkpoint by which a rise is confirmed, and the
//! best single change-point.
//!
//! The first makes no assumption about the course but is late by construction, since weak signals take
//! longer to become significant. The second has no valid interval (the bootstrap of a change-point is
//! inconsistent, Seijo & Sen 2011) and serves as a flag: a midpoint that disagrees with it deserves a
//! look at the curve. Method sections 4b and 4c.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::curve::{Curve, mean};
use super::gate::LEVEL;
use crate::stats::estimate::{Estimate, mean_sd};

/// Share of the later checkpoints that have to stay significant for a rise to count as sustained.
const SUSTAINED: f64 = 0.8;

/// Family-wise p-values `[T]` that a checkpoint lies above the mean of the reference checkpoints
/// (which get 1): bootstrap max-T over the others (Westfall & Young 1993; Romano & Wolf 2005), each
/// difference divided by its bootstrap standard deviation.
///
/// # Errors
/// When the reference set is empty or outside the curve, or there are fewer than two replicates.
pub fn rise_p_values(curve: &Curve, reference: &Range<usize>) -> Result<Vec<f64>> {
    let (t, b) = (curve.checkpoints(), curve.replicate_rows().len());
    ensure!(!reference.is_empty() && reference.end <= t, "reference {reference:?} is not a set among {t} checkpoints");
    ensure!(b >= 2, "a max-T bootstrap needs replicates, found {b}");
    let rise = |row: &[f64], at: usize| row[at] - mean(&row[reference.clone()]);

    let mut observed = vec![f64::NEG_INFINITY; t];
    let mut largest = vec![f64::NEG_INFINITY; b];
    for at in (0..t).filter(|at| !reference.contains(at)) {
        let (_, sd) = mean_sd(curve.replicate_rows().map(|row| rise(row, at)));
        if sd == 0.0 {
            continue; // no spread, no evidence
        }
        let delta = rise(&curve.value, at);
        observed[at] = delta / sd;
        for (largest, row) in largest.iter_mut().zip(curve.replicate_rows()) {
            *largest = largest.max((rise(row, at) - delta) / sd);
        }
    }
    largest.sort_unstable_by(f64::total_cmp);
    let p = |&t: &f64| (1 + b - largest.partition_point(|&l| l < t)) as f64 / (b + 1) as f64;
    Ok(observed.iter().map(|t| if *t == f64::NEG_INFINITY { 1.0 } else { p(t) }).collect())
}

/// The interval in which a rise became visible, as indices of checkpoints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Confirmation {
    /// The checkpoint before `confirmed_by`, the last one at which the rise was not there yet.
    pub last_off: Option<usize>,
    /// First checkpoint that is significant together with the next one and with at least 80% of all
    /// that follow; `None` where there is none.
    pub confirmed_by: Option<usize>,
}

/// Reads the interval off family-wise p-values `[T]`, from [`rise_p_values`] or from sign flips.
pub fn confirmation(p_values: &[f64]) -> Confirmation {
    let significant: Vec<bool> = p_values.iter().map(|&p| p <= LEVEL).collect();
    let sustained = |&first: &usize| {
        let later = &significant[first + 1..];
        let on = later.iter().filter(|&&on| on).count() as f64;
        significant[first] && later.first() == Some(&true) && on >= SUSTAINED * later.len() as f64
    };
    let confirmed_by = (0..significant.len()).find(sustained);
    Confirmation { last_off: confirmed_by.and_then(|at| at.checked_sub(1)), confirmed_by }
}

/// One shift of the mean.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ChangePoint {
    /// First checkpoint after the shift, 1 ..= T - 1.
    pub first_after: usize,
    /// Mean after minus mean before.
    pub shift: f64,
}

impl ChangePoint {
    /// Whether the gap of the shift, `[x[first_after - 1], x[first_after]]`, meets the interval of t50.
    pub fn agrees_with(&self, t50: &Estimate, x: &[f64]) -> bool {
        x[self.first_after - 1] <= t50.upper && t50.lower <= x[self.first_after]
    }
}

/// The split of `values` `[T]` into two constant parts with the smallest residual sum of squares (Hinkley
/// 1970), the first of equals; `None` for fewer than two values or constant ones.
pub fn change_point(values: &[f64]) -> Option<ChangePoint> {
    let n = values.len();
    let level = mean(values);
    let total: f64 = values.iter().map(|v| (v - level).powi(2)).sum();
    let mut best: Option<(f64, ChangePoint)> = None;
    let mut before = 0.0; // sum of the centred values before the split; those after sum to its negative
    for first_after in 1..n {
        before += values[first_after - 1] - level;
        let (left, right) = (first_after as f64, (n - first_after) as f64);
        let explained = before * before * (1.0 / left + 1.0 / right);
        if best.is_none_or(|(most, _)| explained > most) {
            let shift = -before / right - before / left;
            best = Some((explained, ChangePoint { first_after, shift }));
        }
    }
    best.filter(|_| total > 0.0).map(|(_, point)| point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn confirmation_wants_two_in_a_row_and_four_fifths_of_the_rest() {
        let of = |pattern: &str| {
            let p = |c: char| if c == '+' { 0.01 } else { 0.5 };
            confirmation(&pattern.chars().map(p).collect::<Vec<_>>())
        };
        let found = of("--+---++++");
        assert_eq!((found.last_off, found.confirmed_by), (Some(5), Some(6)));
        assert_eq!(of("--++-+++++").confirmed_by, Some(2), "6 of the 7 after the first");
        assert_eq!(of("--++--+---").confirmed_by, None);
        assert_eq!(of("---------+").confirmed_by, None, "one checkpoint cannot confirm itself");
        assert_eq!(of("++++").last_off, None);
        assert_eq!(of(""), Confirmation::default());
    }

    proptest! {
        #[test]
        fn the_checkpoint_before_confirmation_is_off(flags in prop::collection::vec(any::<bool>(), 0..20)) {
            let ps: Vec<f64> = flags.iter().map(|&on| if on { 0.0 } else { 1.0 }).collect();
            if let Some(last_off) = confirmation(&ps).last_off {
                prop_assert!(!flags[last_off]);
            }
        }

        #[test]
        fn the_change_point_is_the_best_split(values in prop::collection::vec(-9i32..9, 2..15)) {
            let values: Vec<f64> = values.into_iter().map(f64::from).collect();
            let residual = |part: &[f64]| part.iter().map(|v| (v - mean(part)).powi(2)).sum::<f64>();
            let split = |at: usize| residual(&values[..at]) + residual(&values[at..]);
            let best = (1..values.len()).map(split).fold(f64::INFINITY, f64::min);
            match change_point(&values) {
                None => prop_assert!(residual(&values) < 1e-9),
                Some(found) => {
                    prop_assert!(split(found.first_after) < best + 1e-9);
                    let (before, after) = values.split_at(found.first_after);
                    prop_assert!((found.shift - (mean(after) - mean(before))).abs() < 1e-9);
                }
            }
        }
    }

    #[test]
    fn a_shift_agrees_when_its_gap_meets_the_interval() {
        let found = change_point(&[0.0, 0.1, 0.0, 2.0, 2.1]).unwrap();
        assert_eq!(found.first_after, 3);
        let x = [0.0, 1.0, 2.0, 3.0, 4.0];
        let t50 = |lower, upper| Estimate { value: lower, lower, upper };
        assert!(found.agrees_with(&t50(2.9, 3.5), &x));
        assert!(!found.agrees_with(&t50(3.1, 3.5), &x));
    }

    #[test]
    fn a_clear_rise_is_significant_against_the_reference_only_after_it() {
        let shape = [0.0, 0.0, 0.0, 3.0, 3.0, 3.0];
        let noise = |b: i32, at: i32| f64::from((b * 31 + at * 17 + b * at * 7) % 11 - 5) / 20.0;
        let row = |b: i32| (0..6).map(move |at| shape[at as usize] + noise(b, at));
        let curve = Curve::new(shape.to_vec(), (1..200).flat_map(row).collect()).unwrap();
        let ps = rise_p_values(&curve, &(0..1)).unwrap();
        assert_eq!(ps[0], 1.0);
        assert!(ps[1] > 0.3 && ps[2] > 0.3 && ps[3..].iter().all(|&p| p < 0.01), "{ps:?}");
        assert_eq!(confirmation(&ps).confirmed_by, Some(3));
        assert!(rise_p_values(&curve, &(0..7)).is_err());
    }
}
