use super::*;
use crate::stats::draws::{generator, normal, uniform_index};
use crate::stats::evaluate::Ranking;
use crate::stats::kernel::Design;
use proptest::prelude::*;

/// Features `[n, d]` in which `signal` times a fixed direction separates the labels, groups of four with a common offset.
struct Sample {
    x: Vec<f32>,
    d: usize,
    labels: Vec<bool>,
    groups: Vec<usize>,
}

fn sample(n: usize, d: usize, signal: f64, seed: u64) -> Sample {
    let mut generator = generator(seed, "logistic");
    let groups: Vec<usize> = (0..n).map(|i| i / 4).collect();
    let labels: Vec<bool> = (0..n).map(|_| uniform_index(2, &mut generator) == 1).collect();
    let direction: Vec<f64> = (0..d).map(|_| normal(&mut generator) / (d as f64).sqrt()).collect();
    let offsets: Vec<f64> = (0..n.div_ceil(4) * d).map(|_| 0.5 * normal(&mut generator)).collect();
    let mut x = Vec::with_capacity(n * d);
    for i in 0..n {
        let sign = if labels[i] { signal } else { -signal };
        x.extend((0..d).map(|j| (normal(&mut generator) + offsets[groups[i] * d + j] + sign * direction[j]) as f32));
    }
    Sample { x, d, labels, groups }
}

impl Sample {
    fn held_out(&self) -> Held {
        let design = Design::new(&self.x, self.d).unwrap();
        let splits = design.splits(&folds::grouped(&self.groups, folds::OUTER).unwrap()).unwrap();
        held_out(&splits, &self.labels, &self.groups).unwrap().unwrap()
    }

    /// Decisions of a fit to the first three quarters.
    fn decisions(&self, lambda: f64) -> Vec<f64> {
        let design = Design::new(&self.x, self.d).unwrap();
        let train: Vec<bool> = (0..design.items()).map(|i| i < design.items() * 3 / 4).collect();
        let split = design.split(&train).unwrap();
        fit(&split, &self.labels, lambda).unwrap().unwrap().decisions(&split)
    }

    fn map(&self, d: usize, row: impl Fn(&[f32]) -> Vec<f32>) -> Self {
        let x = self.x.chunks_exact(self.d).flat_map(row).collect();
        Self { x, d, labels: self.labels.clone(), groups: self.groups.clone() }
    }

    fn auroc(&self) -> f64 {
        let scores = self.held_out().scores;
        Ranking::new(&scores, &self.labels).unwrap().auroc(&vec![1.0; scores.len()]).unwrap()
    }
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    let scale = expected.iter().fold(1.0, |scale: f64, e| scale.max(e.abs()));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance * scale, "found {found}, expected {expected}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn scale_and_offset_of_features_do_not_matter(seed in 0u64..1000, wide: bool, power in -6i32..7, weak in -1i32..4) {
        let sample = sample(48, if wide { 90 } else { 10 }, 1.0, seed);
        let (scale, lambda) = (f32::powi(2.0, power), 10f64.powi(weak));
        let moved = sample.map(sample.d, |row| row.iter().enumerate().map(|(j, v)| v * scale + (j % 3) as f32 * scale).collect());
        assert_close(&moved.decisions(lambda), &sample.decisions(lambda), 1e-4);
    }

    /// Two copies share a weight, at half the price.
    #[test]
    fn a_repeated_feature_counts_half(seed in 0u64..1000, wide: bool) {
        let sample = sample(48, if wide { 90 } else { 8 }, 1.0, seed);
        let twice = sample.map(2 * sample.d, |row| [row, row].concat());
        assert_close(&twice.decisions(2.0), &sample.decisions(1.0), 1e-4);
    }

    #[test]
    fn exchanged_labels_negate_the_scores(seed in 0u64..1000, wide: bool) {
        let sample = sample(60, if wide { 80 } else { 10 }, 0.5, seed);
        let exchanged = Sample { labels: sample.labels.iter().map(|label| !label).collect(), ..sample.map(sample.d, <[f32]>::to_vec) };
        let (found, expected) = (exchanged.held_out(), sample.held_out());
        let negated: Vec<f64> = found.scores.iter().map(|score| -score).collect();
        assert_close(&negated, &expected.scores, 1e-6);
        prop_assert_eq!(found.lambdas, expected.lambdas);
    }

    /// The fit begins near its end where a penalty was chosen, and at zero where it is given.
    #[test]
    fn where_the_search_begins_does_not_matter(seed in 0u64..1000, wide: bool, strength in 0u32..4, inner in 1usize..4) {
        let sample = sample(64, if wide { 90 } else { 10 }, f64::from(strength), seed);
        let design = Design::new(&sample.x, sample.d).unwrap();
        let splits = design.splits(&folds::grouped(&sample.groups, folds::OUTER).unwrap()).unwrap();
        for split in &splits {
            let (chosen, lambda) = fit_chosen(split, &sample.labels, &sample.groups, inner, TIGHT).unwrap().unwrap();
            let given = fit(split, &sample.labels, lambda).unwrap().unwrap();
            assert_close(&chosen.decisions(split), &given.decisions(split), 1e-4);
        }
    }

    /// A constant feature is no feature: with enough of them the items are the unknowns instead of the features. The kernel
    /// is made of f32 products, which shows here because it has far from full rank.
    #[test]
    fn both_bases_find_the_same_minimum(seed in 0u64..1000, weak in 0i32..4) {
        let sample = sample(64, 12, 1.0, seed);
        let padded = sample.map(100, |row| row.iter().copied().chain(std::iter::repeat_n(7.5, 88)).collect());
        let lambda = 10f64.powi(weak);
        assert_close(&padded.decisions(lambda), &sample.decisions(lambda), 1e-3);
    }
}

#[test]
fn a_direction_is_found_and_noise_is_not() {
    for d in [16, 300] {
        assert!(sample(160, d, 2.0, 1).auroc() > 0.85, "d {d}");
        let noise = (0..10).map(|seed| sample(160, d, 0.0, seed).auroc()).sum::<f64>() / 10.0;
        assert!((0.42..0.56).contains(&noise), "d {d}: {noise}");
    }
}

/// Every group has one label and one feature of its own that gives it away: split groups would score near 1.
#[test]
fn what_identifies_a_group_does_not_leak() {
    let (n, d) = (160, 60);
    let mut leaky = sample(n, d, 0.0, 3);
    for i in 0..n {
        leaky.labels[i] = leaky.groups[i] * 7 % 5 < 2;
        leaky.x[i * d + leaky.groups[i]] += 8.0;
    }
    let grouped = leaky.auroc();
    assert!((0.3..0.6).contains(&grouped), "grouped {grouped}");
    leaky.groups = (0..n).map(|i| i / 4 + i % 4 * 40).collect();
    assert!(leaky.auroc() > 0.9);
}

#[test]
fn the_same_data_give_the_same_bits() {
    let sample = sample(96, 200, 0.7, 5);
    assert_eq!(sample.held_out(), sample.held_out());
}

#[test]
fn the_function_of_raw_features_is_the_fitted_one() {
    for d in [10, 90] {
        let sample = sample(60, d, 1.0, 6).map(d, |row| row.iter().map(|v| v * 30.0 + 5.0).collect());
        let design = Design::new(&sample.x, d).unwrap();
        let split = design.split(&(0..60).map(|i| i % 4 != 0).collect::<Vec<_>>()).unwrap();
        let fit = fit(&split, &sample.labels, 1.0).unwrap().unwrap();
        let linear = fit.linear(&design, &split);
        let items = split.train().iter().chain(split.held());
        let raw: Vec<f64> = items.map(|&i| linear.at(design.item(i))).collect();
        assert_close(&raw, &fit.decisions(&split), 1e-5);
    }
}

/// Labels that can be separated by far, which a weak penalty hardly stops, and features of which only one item has any.
#[test]
fn fits_end_where_the_loss_is_nearly_flat() {
    for d in [6, 200] {
        let mut sample = sample(80, d, 40.0, 9);
        assert!(sample.auroc() > 0.99);
        for lambda in [1e-6, 1e6] {
            assert!(sample.decisions(lambda).iter().all(|decision| decision.is_finite()));
        }
        sample.x.fill(1.0);
        sample.x[0] = 2.0;
        assert!(sample.held_out().scores.iter().all(|score| score.is_finite()));
    }
}

/// Nothing is left of the kernel beyond its fourth eigenvalue but rounding, which half of the digits take for features.
#[test]
fn features_that_repeat_each_other_are_fitted() {
    for seed in 0..40 {
        let sample = sample(56, 4, 1.0, seed);
        let repeated = sample.map(64, |row| row.repeat(16));
        let scores = repeated.held_out().scores;
        assert!(scores.iter().all(|score| score.is_finite()), "seed {seed}");
        assert_close(&repeated.decisions(1.6), &sample.decisions(0.1), 1e-3);
    }
}

#[test]
fn one_label_is_no_problem_to_fit() {
    let mut sample = sample(40, 10, 1.0, 7);
    sample.labels.fill(true);
    let design = Design::new(&sample.x, 10).unwrap();
    let splits = design.splits(&folds::grouped(&sample.groups, 5).unwrap()).unwrap();
    assert_eq!(held_out(&splits, &sample.labels, &sample.groups).unwrap(), None);
    assert!(fit(&splits[0], &sample.labels, 1.0).unwrap().is_none());
}

#[test]
fn what_cannot_be_fitted_is_refused() {
    assert!(Design::new(&[1.0, f32::NAN], 2).is_err());
    assert!(Design::new(&[1.0, 2.0, 3.0], 2).is_err());
    let sample = sample(40, 10, 1.0, 8);
    let design = Design::new(&sample.x, 10).unwrap();
    assert!(design.split(&[true; 40]).is_err());
    assert!(design.splits(&[0; 39]).is_err());
    let splits = design.splits(&folds::grouped(&sample.groups, 5).unwrap()).unwrap();
    assert!(fit(&splits[0], &sample.labels, 0.0).is_err());
    assert!(held_out(&splits[1..], &sample.labels, &sample.groups).is_err());
    assert!(held_out(&splits, &sample.labels[1..], &sample.groups).is_err());
}
