use super::*;
use crate::stats::draws::{generator, normal};
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
