//! ROC areas with intervals and no resampling, for tables with a row per pair of checkpoints.
//!
//! The variance is that of DeLong et al. (1988) for clustered data, Obuchowski (1997, section 2): the placements of a group's
//! positives and negatives among the other class are summed, and groups are the independent units. One sort per area, where
//! the bootstrap of [`super::evaluate`] needs a matrix product.

use anyhow::{Result, ensure};

use super::estimate::Estimate;

/// ROC area of `scores`, `[n]`, with ties, and its 95% interval (normal, cut at 0 and 1). `groups` are numbers below `n_groups`.
/// `None` when a class is empty or in one group only.
///
/// # Errors
/// When lengths differ, a group is out of range or a score is not finite.
pub fn auroc(scores: &[f64], labels: &[bool], groups: &[usize], n_groups: usize) -> Result<Option<Estimate>> {
    let n = scores.len();
    ensure!(labels.len() == n && groups.len() == n, "{n} scores, {} labels, {} groups", labels.len(), groups.len());
    ensure!(groups.iter().all(|&group| group < n_groups), "a group is not below {n_groups}");
    ensure!(scores.iter().all(|score| score.is_finite()), "a score is not finite");
    let mut order: Vec<(f64, u32)> = scores.iter().copied().zip(0..u32::try_from(n)?).collect();
    order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let mut totals = [0.0; 2];
    labels.iter().for_each(|&label| totals[usize::from(label)] += 1.0);
    if totals.contains(&0.0) {
        return Ok(None);
    }
    // Per group and class: items, and the sum of their placements.
    let mut sums = vec![[[0.0; 2]; 2]; n_groups];
    let (mut below, mut start) = ([0.0; 2], 0);
    while start < n {
        // -0 and 0 are a tie, as everywhere.
        let end = start + order[start..].iter().take_while(|(score, _)| *score <= order[start].0).count().max(1);
        let mut tied = [0.0; 2];
        order[start..end].iter().for_each(|&(_, i)| tied[usize::from(labels[i as usize])] += 1.0);
        for &(_, i) in &order[start..end] {
            let own = usize::from(labels[i as usize]);
            let other = 1 - own;
            let lower = (below[other] + 0.5 * tied[other]) / totals[other];
            let sum = &mut sums[groups[i as usize]][own];
            sum[0] += 1.0;
            sum[1] += if own == 1 { lower } else { 1.0 - lower };
        }
        below[0] += tied[0];
        below[1] += tied[1];
        start = end;
    }
    let value = sums.iter().map(|sum| sum[1][1]).sum::<f64>() / totals[1];
    let mut squares = [0.0; 2];
    let (mut product, mut used, mut present) = (0.0, [0.0; 2], 0.0);
    for sum in &sums {
        let deviation = [0, 1].map(|class| sum[class][1] - sum[class][0] * value);
        for class in [0, 1] {
            squares[class] += deviation[class] * deviation[class];
            used[class] += f64::from(u8::from(sum[class][0] > 0.0));
        }
        product += deviation[0] * deviation[1];
        present += f64::from(u8::from(sum[0][0] + sum[1][0] > 0.0));
    }
    if used[0] < 2.0 || used[1] < 2.0 {
        return Ok(None);
    }
    let of_class = |class: usize| used[class] / (used[class] - 1.0) * squares[class] / (totals[class] * totals[class]);
    let both = present / (present - 1.0) * product / (totals[0] * totals[1]);
    let half = 1.959_963_984_540_054 * (of_class(0) + of_class(1) + 2.0 * both).max(0.0).sqrt();
    Ok(Some(Estimate { value, lower: (value - half).max(0.0), upper: (value + half).min(1.0) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{Draws, generator, normal};
    use crate::stats::evaluate::{Ranking, Scale, evaluate};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_value_is_the_share_of_pairs(rows in prop::collection::vec((-4i32..5, any::<bool>(), 0usize..6), 1..40)) {
            let scores: Vec<f64> = rows.iter().map(|row| f64::from(row.0)).collect();
            let labels: Vec<bool> = rows.iter().map(|row| row.1).collect();
            let groups: Vec<usize> = rows.iter().map(|row| row.2).collect();
            let expected = Ranking::new(&scores, &labels).unwrap().auroc(&vec![1.0; rows.len()]);
            if let Some(found) = auroc(&scores, &labels, &groups, 6).unwrap() {
                prop_assert!((found.value - expected.unwrap()).abs() < 1e-12);
                prop_assert!(found.lower <= found.value && found.value <= found.upper);
            }
        }
    }

    #[test]
    fn the_interval_is_about_that_of_the_bootstrap() {
        let (groups, per_group) = (60, 4);
        let mut generator = generator(2, "clustered");
        let (mut scores, mut labels, mut ids) = (vec![], vec![], vec![]);
        for group in 0..groups {
            let shared = normal(&mut generator);
            for i in 0..per_group {
                labels.push(i % 2 == 0);
                ids.push(group);
                scores.push(0.7 * shared + normal(&mut generator) + f64::from(i % 2 == 0));
            }
        }
        let found = auroc(&scores, &labels, &ids, groups).unwrap().unwrap();
        let draws = Draws::with_counts(groups, 1, 1999, 0, "clustered").unwrap();
        let resampled = evaluate(&scores, &labels, &ids, Scale::Margin, &draws).unwrap().auroc.unwrap();
        let ratio = (found.upper - found.lower) / (resampled.upper - resampled.lower);
        assert!((0.9..1.1).contains(&ratio), "{found:?} {resampled:?}");
    }

    #[test]
    fn one_class_or_one_group_has_no_interval() {
        assert_eq!(auroc(&[1.0, 2.0], &[true, true], &[0, 1], 2).unwrap(), None);
        assert_eq!(auroc(&[1.0, 2.0], &[true, false], &[0, 0], 1).unwrap(), None);
        assert!(auroc(&[f64::NAN, 2.0], &[true, false], &[0, 0], 1).is_err());
    }
}
