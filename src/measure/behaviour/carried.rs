//! How much of what has been learned in plain conversation is there in other contexts: the behavioural twin of persistence.
//!
//! A representation may keep its geometry in a persona that answers otherwise, and answers may carry over where no contrast has
//! moved. So the rise of a margin since the first checkpoint is divided by the rise of the plain one at the same stems, context by context
//! and in their mean. 1: learned once, said by everybody; 0: said as itself alone.

use crate::onset::curve::Curve;
use crate::stats::estimate::Estimate;

/// What stands for the mean over contexts in the column `persona`.
pub const CONTEXTS: &str = "(contexts)";
/// Its kind.
pub const MEAN: &str = "mean";

/// Mean of `curves`, checkpoint by checkpoint and resample by resample; `None` without any.
pub fn mean(curves: &[&Curve]) -> Option<Curve> {
    let first = curves.first()?;
    let average =
        |of: &dyn Fn(&Curve) -> &Vec<f64>, index: usize| curves.iter().map(|curve| of(curve)[index]).sum::<f64>() / curves.len() as f64;
    Some(Curve {
        value: (0..first.value.len()).map(|index| average(&|curve| &curve.value, index)).collect(),
        replicates: (0..first.replicates.len()).map(|index| average(&|curve| &curve.replicates, index)).collect(),
    })
}

/// Rise of `context` from the first checkpoint to `t` over that of `plain`, with its bootstrap interval; resamples of the two are paired
/// where both are of the same groups. `None` where the whole interval of the plain rise is not above 0: there is nothing to carry over.
pub fn carried(plain: &Curve, context: &Curve, t: usize) -> Option<Estimate> {
    let rise = |row: &[f64]| row[t] - row[0];
    let risen = plain.statistic(rise).filter(|risen| t > 0 && risen.lower > 0.0)?;
    let replicates: Vec<f64> = plain
        .replicate_rows()
        .zip(context.replicate_rows())
        .map(|(plain, context)| if rise(plain) > 0.0 { rise(context) / rise(plain) } else { f64::NAN })
        .collect();
    Estimate::percentile(rise(&context.value) / risen.value, &replicates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{Draws, generator, normal};

    /// Margins of groups at three checkpoints, which rise by `rise` after the first.
    fn curve(rise: f64, groups: usize, seed: u64) -> Curve {
        let mut random = generator(seed, "carried");
        let own: Vec<f64> = (0..groups).map(|_| normal(&mut random)).collect();
        let values: Vec<Vec<f64>> =
            (0..3).map(|t| own.iter().map(|own| own + if t > 0 { rise + 0.3 * normal(&mut random) } else { 0.0 }).collect()).collect();
        Curve::of_means(&values, &Draws::with_counts(groups, 1, 999, 0, "carried").unwrap()).unwrap()
    }

    #[test]
    fn a_third_carries_over_whatever_the_level() {
        let (plain, context) = (curve(6.0, 24, 1), curve(2.0, 8, 2));
        let found = carried(&plain, &context, 2).unwrap();
        assert!((found.value - 1.0 / 3.0).abs() < 0.05 && found.lower < 1.0 / 3.0 && 1.0 / 3.0 < found.upper, "{found:?}");
        let same = carried(&plain, &plain, 1).unwrap();
        assert_eq!((same.value, same.lower, same.upper), (1.0, 1.0, 1.0));
        // Everything higher by a constant: the rise is what counts.
        let shifted = Curve {
            value: context.value.iter().map(|x| x + 9.0).collect(),
            replicates: context.replicates.iter().map(|x| x + 9.0).collect(),
        };
        assert!((carried(&plain, &shifted, 2).unwrap().value - found.value).abs() < 1e-12);
    }

    #[test]
    fn nothing_that_was_learned_is_nothing_to_carry() {
        let (flat, context) = (curve(0.0, 24, 3), curve(2.0, 8, 4));
        assert!(carried(&flat, &context, 2).is_none());
        assert!(carried(&curve(6.0, 24, 1), &context, 0).is_none(), "the first checkpoint has no rise");
    }

    #[test]
    fn the_mean_is_by_checkpoint_and_by_resample() {
        let (a, b) = (curve(1.0, 8, 5), curve(3.0, 8, 6));
        let mean = mean(&[&a, &b]).unwrap();
        assert_eq!(mean.value[2], (a.value[2] + b.value[2]) / 2.0);
        assert_eq!(mean.replicates[17], (a.replicates[17] + b.replicates[17]) / 2.0);
        assert!(super::mean(&[]).is_none());
    }
}
