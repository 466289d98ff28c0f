//! How well scores tell the labels apart: ROC area, accuracy and Brier score, with intervals from a
//! bootstrap over groups.
//!
//! Items of one group share their words, so groups are resampled, not items. A resample is a weight per
//! item (how often its group was drawn); the scores are sorted once and every resample is one pass over
//! them. Degenerate labels (all of one class) have no ROC area: `None`, never .5.

use anyhow::{Result, ensure};

use crate::draws::Draws;
use crate::estimate::Estimate;

/// What the scores of a probe mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Any real number, y = 1 above 0: mass-mean scores, log-odds. Has no Brier score.
    Margin,
    /// Probability of y = 1, predicted above 1/2.
    Probability,
}

impl Scale {
    fn threshold(self) -> f64 {
        match self {
            Self::Margin => 0.0,
            Self::Probability => 0.5,
        }
    }
}

/// The three figures of one probe; what cannot be computed is `None`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Evaluation {
    pub auroc: Option<Estimate>,
    pub accuracy: Option<Estimate>,
    pub brier: Option<Estimate>,
}

/// Held-out scores `[n]` with their labels, and the group (an index below `draws.groups()`) of each.
///
/// The interval takes the probe as given: it is the uncertainty over test groups, not over training.
/// Resamples that contain one class only are left out of the interval of the ROC area.
///
/// # Errors
/// When lengths differ, a group is out of range, a score is not finite, or a probability is not in
/// [0, 1].
pub fn evaluate(scores: &[f64], labels: &[bool], groups: &[usize], scale: Scale, draws: &Draws) -> Result<Evaluation> {
    let n = scores.len();
    ensure!(groups.len() == n, "{n} scores and {} groups", groups.len());
    if let Some(group) = groups.iter().find(|&&group| group >= draws.groups()) {
        anyhow::bail!("group {group} is not below {}, the groups drawn", draws.groups());
    }
    let ranking = Ranking::new(scores, labels)?;
    if scale == Scale::Probability {
        let outside = scores.iter().find(|score| !(0.0..=1.0).contains(*score));
        ensure!(outside.is_none(), "{outside:?} is not a probability");
    }

    let mut weights = vec![1.0; n];
    let figures = |weights: &[f64]| {
        [
            ranking.auroc(weights),
            accuracy(scores, labels, weights, scale),
            (scale == Scale::Probability).then(|| brier(scores, labels, weights)).flatten(),
        ]
    };
    let observed = figures(&weights);
    let mut replicates = [(); 3].map(|()| Vec::with_capacity(draws.n_resamples()));
    for multiplicities in draws.multiplicities().chunks_exact(draws.groups()) {
        for (weight, &group) in weights.iter_mut().zip(groups) {
            *weight = f64::from(multiplicities[group]);
        }
        for (replicates, figure) in replicates.iter_mut().zip(figures(&weights)) {
            replicates.push(figure.unwrap_or(f64::NAN));
        }
    }
    let estimate = |figure: usize| Estimate::percentile(observed[figure]?, &replicates[figure]);
    Ok(Evaluation { auroc: estimate(0), accuracy: estimate(1), brier: estimate(2) })
}

/// Scores in ascending order, ready for the ROC area under any weights.
#[derive(Clone, Debug)]
pub struct Ranking {
    /// Items in ascending order of score.
    order: Vec<Ranked>,
}

#[derive(Clone, Copy, Debug)]
struct Ranked {
    item: u32,
    positive: bool,
    /// Whether the next item has a larger score, or there is none.
    ends_tie: bool,
}

impl Ranking {
    /// Sorts `scores`, `[n]`, with their labels.
    ///
    /// # Errors
    /// When lengths differ or a score is not finite (it has no rank).
    pub fn new(scores: &[f64], labels: &[bool]) -> Result<Self> {
        let n = scores.len();
        ensure!(labels.len() == n, "{n} scores and {} labels", labels.len());
        if let Some(item) = scores.iter().position(|score| !score.is_finite()) {
            anyhow::bail!("item {item} has score {}", scores[item]);
        }
        let mut order: Vec<u32> = (0..u32::try_from(n)?).collect();
        order.sort_unstable_by(|&a, &b| scores[a as usize].total_cmp(&scores[b as usize]));
        let ranked = |(rank, &item): (usize, &u32)| Ranked {
            item,
            positive: labels[item as usize],
            ends_tie: order.get(rank + 1).is_none_or(|&next| scores[next as usize] > scores[item as usize]),
        };
        Ok(Self { order: order.iter().enumerate().map(ranked).collect() })
    }

    /// Weighted area under the ROC curve, one pass: the weight of pairs in which the positive scores
    /// higher, ties counted by half (Mann & Whitney 1947; Hanley & McNeil 1982), over the weight of
    /// all pairs. `None` when a class has no weight.
    pub fn auroc(&self, weights: &[f64]) -> Option<f64> {
        let (mut below, mut positives, mut won) = (0.0, 0.0, 0.0);
        let (mut tied_negatives, mut tied_positives) = (0.0, 0.0);
        for ranked in &self.order {
            let weight = weights[ranked.item as usize];
            if ranked.positive {
                tied_positives += weight;
            } else {
                tied_negatives += weight;
            }
            if ranked.ends_tie {
                won += tied_positives * (below + 0.5 * tied_negatives);
                below += tied_negatives;
                positives += tied_positives;
                (tied_negatives, tied_positives) = (0.0, 0.0);
            }
        }
        (positives > 0.0 && below > 0.0).then(|| won / (positives * below))
    }
}

/// Weighted share of items on their label's side of the threshold; a score at the threshold predicts
/// y = 0, as in scikit-learn. `None` without weight.
pub fn accuracy(scores: &[f64], labels: &[bool], weights: &[f64], scale: Scale) -> Option<f64> {
    weighted_mean(scores, labels, weights, |score, label| f64::from((score > scale.threshold()) == label))
}

/// Weighted mean squared difference between probability and label (Brier 1950), in [0, 1]. `None`
/// without weight.
pub fn brier(probabilities: &[f64], labels: &[bool], weights: &[f64]) -> Option<f64> {
    weighted_mean(probabilities, labels, weights, |p, label| (p - f64::from(label)).powi(2))
}

fn weighted_mean(scores: &[f64], labels: &[bool], weights: &[f64], of: impl Fn(f64, bool) -> f64) -> Option<f64> {
    let (mut sum, mut total) = (0.0, 0.0);
    for ((&score, &label), &weight) in scores.iter().zip(labels).zip(weights) {
        sum += weight * of(score, label);
        total += weight;
    }
    (total > 0.0).then(|| sum / total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draws::{generator, normal};
    use proptest::prelude::*;

    fn auroc(scores: &[f64], labels: &[bool]) -> Option<f64> {
        Ranking::new(scores, labels).unwrap().auroc(&vec![1.0; scores.len()])
    }

    /// Scores on a coarse grid (many ties), labels and integer weights.
    fn scored() -> impl Strategy<Value = (Vec<f64>, Vec<bool>, Vec<f64>)> {
        prop::collection::vec((-4i32..5, any::<bool>(), 0u32..4), 1..40).prop_map(|rows| {
            let scores = rows.iter().map(|row| f64::from(row.0)).collect();
            let labels = rows.iter().map(|row| row.1).collect();
            (scores, labels, rows.iter().map(|row| f64::from(row.2)).collect())
        })
    }

    proptest! {
        #[test]
        fn auroc_is_the_share_of_pairs((scores, labels, weights) in scored()) {
            let (mut won, mut pairs) = (0.0, 0.0);
            for i in (0..scores.len()).filter(|&i| labels[i]) {
                for j in (0..scores.len()).filter(|&j| !labels[j]) {
                    let weight = weights[i] * weights[j];
                    pairs += weight;
                    won += weight * match scores[i].total_cmp(&scores[j]) {
                        std::cmp::Ordering::Greater => 1.0,
                        std::cmp::Ordering::Equal => 0.5,
                        std::cmp::Ordering::Less => 0.0,
                    };
                }
            }
            let found = Ranking::new(&scores, &labels).unwrap().auroc(&weights);
            match found {
                None => prop_assert_eq!(pairs, 0.0),
                Some(found) => prop_assert!((found - won / pairs).abs() < 1e-12),
            }
        }

        #[test]
        fn negated_scores_mirror_the_auroc((scores, labels, _) in scored()) {
            let negated: Vec<f64> = scores.iter().map(|s| -s).collect();
            if let (Some(a), Some(b)) = (auroc(&scores, &labels), auroc(&negated, &labels)) {
                prop_assert!((a + b - 1.0).abs() < 1e-12);
            }
        }

        #[test]
        fn increasing_maps_keep_the_auroc((scores, labels, _) in scored()) {
            let mapped: Vec<f64> = scores.iter().map(|s| (3.0 * s + 1.0).exp()).collect();
            prop_assert_eq!(auroc(&scores, &labels), auroc(&mapped, &labels));
        }

        #[test]
        fn weights_are_repetitions((scores, labels, weights) in scored()) {
            let repeat = |i: usize| std::iter::repeat_n(i, weights[i] as usize);
            let items: Vec<usize> = (0..scores.len()).flat_map(repeat).collect();
            let repeated_scores: Vec<f64> = items.iter().map(|&i| scores[i]).collect();
            let repeated_labels: Vec<bool> = items.iter().map(|&i| labels[i]).collect();
            let weighted = Ranking::new(&scores, &labels).unwrap().auroc(&weights);
            prop_assert_eq!(weighted, auroc(&repeated_scores, &repeated_labels));
        }
    }

    #[test]
    fn constant_scores_are_chance_and_constant_labels_are_nothing() {
        assert_eq!(auroc(&[1.0; 4], &[true, false, true, false]), Some(0.5));
        assert_eq!(auroc(&[0.0, -0.0], &[true, false]), Some(0.5));
        assert_eq!(auroc(&[1.0, 2.0], &[true, true]), None);
        let draws = Draws::new(4, 0, "degenerate").unwrap();
        let labels = [true; 4];
        let found = evaluate(&[0.1, 0.2, 0.7, 0.9], &labels, &[0, 1, 2, 3], Scale::Probability, &draws);
        let found = found.unwrap();
        assert_eq!(found.auroc, None);
        assert_eq!(found.accuracy.unwrap().value, 0.5);
    }

    #[test]
    fn scores_without_a_rank_are_refused() {
        assert!(Ranking::new(&[1.0, f64::NAN], &[true, false]).is_err());
        let draws = Draws::new(2, 0, "refused").unwrap();
        let labels = [true, false];
        assert!(evaluate(&[1.5, 0.0], &labels, &[0, 1], Scale::Probability, &draws).is_err());
        assert!(evaluate(&[1.5, 0.0], &labels, &[0, 2], Scale::Margin, &draws).is_err());
    }

    /// Items of a group share an offset: the interval has to be as wide as the groups say, not the items.
    #[test]
    fn the_group_interval_covers_where_items_depend() {
        let (groups, per_group, series) = (40, 6, 200);
        let draws = Draws::with_counts(groups, 1, 399, 0, "auroc coverage").unwrap();
        let truth = 0.760_25; // normal cdf of 1 / sqrt(2)
        let covered = (0..series)
            .filter(|&seed| {
                let mut generator = generator(seed, "auroc coverage");
                let (mut scores, mut labels, mut ids) = (vec![], vec![], vec![]);
                for group in 0..groups {
                    let shared = normal(&mut generator);
                    for _ in 0..per_group {
                        labels.push(group % 2 == 0);
                        ids.push(group);
                        let noise = 0.8 * shared + 0.6 * normal(&mut generator);
                        scores.push(noise + f64::from(group % 2 == 0));
                    }
                }
                let found = evaluate(&scores, &labels, &ids, Scale::Margin, &draws).unwrap();
                let auroc = found.auroc.unwrap();
                (auroc.lower..=auroc.upper).contains(&truth)
            })
            .count();
        assert!((178..=199).contains(&covered), "covered {covered} of {series}");
    }
}
