//! Agreement against a double loop, by hand, and under permutation.

use super::*;
use crate::stats::draws::{generator, shuffle, uniform_index};

/// Every pair of different wordings, one by one.
fn by_pairs(favourites: &[usize], weights: &[f32]) -> f64 {
    let (mut same, mut all) = (0.0, 0.0);
    for (i, a) in favourites.iter().enumerate() {
        for (j, b) in favourites.iter().enumerate().filter(|(j, _)| *j != i) {
            let weight = f64::from(weights[i] * weights[j]);
            all += weight;
            same += if a == b { weight } else { 0.0 };
        }
    }
    same / all
}

#[test]
fn four_wordings_by_hand() {
    // Pairs: aa, and four of a with b or c, and bc; 1 of 6.
    assert!((agreement(&[0, 0, 1, 2], &[1.0; 4]) - 1.0 / 6.0).abs() < 1e-15);
    assert_eq!(agreement(&[3; 9], &[1.0; 9]), 1.0);
    assert_eq!(agreement(&[0, 1, 2], &[1.0; 3]), 0.0);
    // The first one twice is one wording still: pairs (1,2), (1,3) twice each and (2,3), of which the first two are equal.
    assert!((agreement(&[0, 0, 1], &[2.0, 1.0, 1.0]) - 2.0 / 5.0).abs() < 1e-15);
}

#[test]
fn it_is_the_double_loop_and_does_not_depend_on_the_order_of_wordings() {
    let mut rng = generator(4, "favourites");
    for case in 0..40 {
        let n = 8 + case;
        let favourites: Vec<usize> = (0..n).map(|_| uniform_index(5, &mut rng)).collect();
        let draws = Draws::with_counts(n, 9, 20, case as u64, "a/stem").unwrap();
        let found = resampled(&favourites, &draws);
        assert!((found.value - by_pairs(&favourites, &vec![1.0; n])).abs() < 1e-12);
        for (weights, replicate) in draws.multiplicities().chunks_exact(n).zip(&found.replicates) {
            assert!((replicate - by_pairs(&favourites, weights)).abs() < 1e-12);
        }
        let mut moved = favourites.clone();
        shuffle(&mut moved, &mut rng);
        assert!((agreement(&moved, &vec![1.0; n]) - found.value).abs() < 1e-12);
    }
}

#[test]
fn it_is_unbiased_for_the_probability_of_the_same_favourite() {
    // Favourites with probabilities 1/2, 1/4, 1/4: two wordings agree in 3/8.
    let mut rng = generator(5, "favourites");
    let n = 4000;
    let mean = (0..n)
        .map(|_| {
            let favourites: Vec<usize> = (0..8).map(|_| [0, 0, 1, 2][uniform_index(4, &mut rng)]).collect();
            agreement(&favourites, &[1.0; 8])
        })
        .sum::<f64>()
        / f64::from(n);
    assert!((mean - 0.375).abs() < 0.01, "{mean}");
}

#[test]
fn the_favourite_is_the_first_of_the_largest() {
    assert_eq!(favourite(&[-3.0, -1.0, -1.0, -2.0]), 1);
    assert_eq!(favourite(&[-1.0]), 0);
}
