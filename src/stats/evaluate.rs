//! How well scores tell the labels apart: ROC area, accuracy and Brier score, with intervals over groups.
//!
//! Items of one group share their words, so groups are resampled, not items. A resample is a weight per group (how often it
//! was drawn), and nothing about the items is needed but what they add up to: how often a positive of group g scores above a
//! negative of group g' makes a matrix A, and the ROC area under weights w is `w'A w` over the same form of the pairs.
//! Degenerate labels (all of one class) have no ROC area: `None`, never .5.

use anyhow::{Result, ensure};

use super::draws::Draws;
use super::estimate::Estimate;
use super::matrix;

/// What the scores of a probe mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Any real number, y = 1 above 0: mass-mean scores. Has no Brier score.
    Margin,
    /// Log-odds of y = 1.
    LogOdds,
    /// Probability of y = 1, predicted above 1/2.
    Probability,
}

impl Scale {
    fn threshold(self) -> f64 {
        match self {
            Self::Margin | Self::LogOdds => 0.0,
            Self::Probability => 0.5,
        }
    }

    /// Probability of y = 1; `None` for margins.
    fn probability(self, score: f64) -> Option<f64> {
        match self {
            Self::Margin => None,
            Self::LogOdds => Some(1.0 / (1.0 + (-score).exp())),
            Self::Probability => Some(score),
        }
    }
}

/// The three figures of one probe; what cannot be computed is `None`.
#[derive(Clone, Debug, PartialEq)]
pub struct Evaluation {
    pub auroc: Option<Estimate>,
    pub accuracy: Option<Estimate>,
    pub brier: Option<Estimate>,
    /// ROC area under each resample, `[n_resamples]`; NaN where a class is missing.
    pub auroc_replicates: Vec<f64>,
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
    ensure!(labels.len() == n, "{n} scores and {} labels", labels.len());
    if let Some(item) = scores.iter().position(|score| !score.is_finite()) {
        anyhow::bail!("item {item} has score {}", scores[item]);
    }
    if scale == Scale::Probability {
        let outside = scores.iter().find(|score| !(0.0..=1.0).contains(*score));
        ensure!(outside.is_none(), "{outside:?} is not a probability");
    }

    let groups_drawn = draws.groups();
    let sums = sums(scores, labels, groups, scale, groups_drawn);
    let mut observed = [0.0; 1 + SUMS];
    for row in sums.chunks_exact(groups_drawn + SUMS) {
        observed[0] += row[..groups_drawn].iter().map(|&won| f64::from(won)).sum::<f64>();
        observed[1..].iter_mut().zip(&row[groups_drawn..]).for_each(|(sum, &value)| *sum += f64::from(value));
    }
    let [auroc, accuracy, brier] = figures(observed);
    let [mut aurocs, mut accuracies, mut briers] = [(); 3].map(|()| Vec::with_capacity(draws.n_resamples()));
    matrix::forms_beside(groups_drawn, draws.multiplicities(), &sums, SUMS, |_, won, sums| {
        let mut weighted = [won; 1 + SUMS];
        weighted[1..].iter_mut().zip(sums).for_each(|(to, &sum)| *to = f64::from(sum));
        let [auroc, accuracy, brier] = figures(weighted);
        aurocs.push(auroc);
        accuracies.push(accuracy);
        briers.push(brier);
    });
    Ok(Evaluation {
        auroc: Estimate::percentile(auroc, &aurocs),
        accuracy: Estimate::percentile(accuracy, &accuracies),
        // Without a scale of probabilities there is none.
        brier: scale.probability(0.0).and_then(|_| Estimate::percentile(brier, &briers)),
        auroc_replicates: aurocs,
    })
}

/// Sums over the items of a group: positives, negatives, items on their label's side of the threshold, squared errors.
const SUMS: usize = 4;

/// What the items of each group add up to, `[groups, groups + SUMS]`: pairs in which the positive, of the group of the row, scores
/// higher than the negative, of the group of the column, ties counted by half; then the [`SUMS`]. Sums of halves are exact in
/// f32 up to 2^23 pairs.
fn sums(scores: &[f64], labels: &[bool], groups: &[usize], scale: Scale, n_groups: usize) -> Vec<f32> {
    let width = n_groups + SUMS;
    let mut sums = vec![0f32; n_groups * width];
    let negatives: Vec<(f64, usize)> = (0..scores.len()).filter(|&i| !labels[i]).map(|i| (scores[i], groups[i])).collect();
    for ((&score, &label), &group) in scores.iter().zip(labels).zip(groups) {
        let row = &mut sums[group * width..(group + 1) * width];
        let error = scale.probability(score).map_or(0.0, |p| (p - f64::from(label)).powi(2));
        row[n_groups + usize::from(!label)] += 1.0;
        row[n_groups + 2] += f32::from(u8::from((score > scale.threshold()) == label));
        row[n_groups + 3] += error as f32;
        if label {
            for &(other, group) in &negatives {
                row[group] += 0.5 * (f32::from(u8::from(score > other)) + f32::from(u8::from(score >= other)));
            }
        }
    }
    sums
}

/// ROC area (Mann & Whitney 1947; Hanley & McNeil 1982), accuracy and mean squared error from the weight of the pairs won and of
/// the [`SUMS`]; not finite where there is nothing to divide by.
fn figures([won, positives, negatives, right, error]: [f64; 1 + SUMS]) -> [f64; 3] {
    let items = positives + negatives;
    [won / (positives * negatives), right / items, error / items]
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
#[path = "evaluate_tests.rs"]
mod tests;
