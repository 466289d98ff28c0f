//! The usual ways to date a concept, on the same planted items: what the benchmark holds the estimators against.
//!
//! They are given the benefit of the doubt: a crossing is dated in the middle of the gap before it, and one at the first checkpoint
//! is not counted as an appearance.

use crate::measure::contrast::Sides;
use crate::onset::confirm::change_point;
use crate::onset::curve::mean;

/// Names, in the order of [`dates`].
pub const NAMES: [&str; 4] = ["first p < .05", "AUC above .6", "largest jump of AUC", "one mean shift of AUC"];
const THRESHOLD: f64 = 0.6;
const FOLDS: usize = 5;

/// The date that each of [`NAMES`] gives; `None` where it finds nothing. `p` are sign-flip p-values `[T]`, `auc` held-out AUROCs
/// `[T]`, `x` positions `[T]`.
pub fn dates(p: &[f64], auc: &[f64], x: &[f64]) -> [Option<f64>; 4] {
    let middle = |after: usize| (x[after - 1] + x[after]) / 2.0;
    let crossing = |on: &dyn Fn(usize) -> bool| (0..x.len()).find(|&t| on(t)).filter(|&t| t > 0).map(middle);
    let jump = (1..auc.len()).fold(1, |best, t| if auc[t] - auc[t - 1] > auc[best] - auc[best - 1] { t } else { best });
    [crossing(&|t| p[t] < 0.05), crossing(&|t| auc[t] >= THRESHOLD), Some(middle(jump)), mean_shift(auc).map(middle)]
}

/// First checkpoint after the best upward shift, if it is worth its two parameters by the BIC: one round of binary segmentation.
fn mean_shift(values: &[f64]) -> Option<usize> {
    let n = values.len() as f64;
    let squares = |part: &[f64]| part.iter().map(|v| (v - mean(part)).powi(2)).sum::<f64>();
    let found = change_point(values).filter(|found| found.shift > 0.0)?;
    let (before, after) = values.split_at(found.first_after);
    let gain = n * (squares(values) / (squares(before) + squares(after))).ln();
    (gain > 2.0 * n.ln()).then_some(found.first_after)
}

/// Held-out AUROC of a difference-of-means probe on `items` `[item, d]`, over folds of groups; scores are centred by fold.
pub fn held_out_auc(items: &[f32], d: usize, sides: &[Sides]) -> f64 {
    let row = |item: usize| &items[item * d..(item + 1) * d];
    let (mut ones, mut zeros) = (Vec::new(), Vec::new());
    for fold in 0..FOLDS {
        let mut direction = vec![0f64; d];
        let mut middle = vec![0f64; d];
        for (_, sides) in sides.iter().enumerate().filter(|(g, _)| g % FOLDS != fold) {
            for (members, sign) in [(&sides.ones, 1.0), (&sides.zeros, -1.0)] {
                for &item in members {
                    for (j, x) in row(item).iter().enumerate() {
                        direction[j] += sign * f64::from(*x);
                        middle[j] += f64::from(*x);
                    }
                }
            }
        }
        let training =
            sides.iter().enumerate().filter(|(g, _)| g % FOLDS != fold).map(|(_, s)| s.ones.len() + s.zeros.len()).sum::<usize>();
        let score = |item: usize| {
            row(item).iter().zip(direction.iter().zip(&middle)).map(|(x, (w, m))| w * (f64::from(*x) - m / training as f64)).sum::<f64>()
        };
        for (_, sides) in sides.iter().enumerate().filter(|(g, _)| g % FOLDS == fold) {
            ones.extend(sides.ones.iter().map(|&item| score(item)));
            zeros.extend(sides.zeros.iter().map(|&item| score(item)));
        }
    }
    zeros.sort_unstable_by(f64::total_cmp);
    let below = |score: &f64| (zeros.partition_point(|z| z < score) + zeros.partition_point(|z| z <= score)) as f64 / 2.0;
    ones.iter().map(below).sum::<f64>() / (ones.len() * zeros.len()) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_rule_dates_what_it_looks_for() {
        let x = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];
        let p = [0.5, 0.04, 0.3, 0.2, 0.01, 0.01, 0.01, 0.01];
        let auc = [0.50, 0.51, 0.49, 0.50, 0.70, 0.71, 0.69, 0.70];
        assert_eq!(dates(&p, &auc, &x), [Some(0.5), Some(3.5), Some(3.5), Some(3.5)]);
        let flat = [0.50, 0.52, 0.49, 0.53, 0.50, 0.51, 0.48, 0.52];
        assert_eq!(dates(&[0.5; 8], &flat, &x), [None, None, Some(2.5), None]);
        assert_eq!(dates(&[0.01; 8], &[0.7; 8], &x)[..2], [None, None], "there from the start");
    }

    #[test]
    fn the_probe_is_held_out() {
        let sides: Vec<Sides> = (0..10).map(|g| Sides { ones: vec![2 * g], zeros: vec![2 * g + 1] }).collect();
        let items: Vec<f32> = (0..20).flat_map(|i| [if i % 2 == 0 { 1.0 } else { 0.0 }, (i as f32 * 0.7).sin()]).collect();
        assert_eq!(held_out_auc(&items, 2, &sides), 1.0);
    }
}
