use super::*;
use crate::stats::draws::{generator, normal};
use crate::stats::gram::{Gram, cosine};

const D: usize = 40;

/// Contrasts of 32 groups around `direction`, which is 1 along one axis.
fn deltas(axis: usize, strength: f64, key: &str) -> Vec<f32> {
    let mut generator = generator(5, key);
    (0..32 * D).map(|at| (normal(&mut generator) + if at % D == axis { strength } else { 0.0 }) as f32).collect()
}

#[test]
fn cosines_are_those_of_the_gram_matrices() {
    let deltas = vec![deltas(0, 1.0, "a"), deltas(0, 2.0, "b"), deltas(1, 2.0, "c")];
    let directions = Directions::new(&deltas, D).unwrap();
    for t in 0..3 {
        for u in (0..3).filter(|&u| u != t) {
            let of = |t: usize, u: usize| Gram::cross(&deltas[t], &deltas[u], D).unwrap().u();
            let expected = cosine(of(t, u), of(t, t), of(u, u)).unwrap();
            assert!((directions.cosine(t, u).cross_validated.unwrap() - expected).abs() < 1e-4, "{t} {u}");
        }
    }
}

/// Two noisy views of one direction, and of two: the corrected cosine is 1 and 0 within its error, the raw one is not. Strong enough
/// that every view passes the gate, as the table asks for.
#[test]
fn one_direction_has_cosine_one_up_to_its_error() {
    let (mut covered, mut raw) = (0, 0.0);
    for trial in 0..100 {
        let pair = vec![deltas(0, 2.0, &format!("left {trial}")), deltas(0, 2.0, &format!("right {trial}"))];
        let found = Directions::new(&pair, D).unwrap().cosine(0, 1);
        covered += usize::from((found.cross_validated.unwrap() - 1.0).abs() < 1.96 * found.error.unwrap());
        raw += found.raw.unwrap() / 100.0;
    }
    assert!(covered >= 88, "{covered} of 100");
    assert!(raw < 0.85, "raw {raw}");
    let others = Directions::new(&[deltas(0, 2.0, "x"), deltas(1, 2.0, "y")], D).unwrap().cosine(0, 1);
    assert!(others.cross_validated.unwrap().abs() < 3.0 * others.error.unwrap());
    assert_eq!(Directions::new(&[deltas(0, 2.0, "x")], D).unwrap().cosine(0, 0).cross_validated, Some(1.0));
}

#[test]
fn nothing_has_no_cosine() {
    let found = Directions::new(&[vec![0.0; 3 * D], deltas(0, 1.0, "z")[..3 * D].to_vec()], D).unwrap().cosine(0, 1);
    assert_eq!((found.cross_validated, found.raw), (None, None));
}

fn features(n: usize, key: &str) -> Vec<f32> {
    let mut generator = generator(6, key);
    (0..n * D).map(|_| normal(&mut generator) as f32).collect()
}

fn of_items(x: &[f32]) -> Option<Vec<f32>> {
    debiased(products(&centred(x, D), D), x.len() / D, x.iter().map(|x| f64::from(x * x)).sum()).unwrap()
}

#[test]
fn cka_ignores_rotation_scale_and_offset_and_is_zero_for_unrelated_items() {
    let (x, y) = (features(60, "x"), features(60, "y"));
    // A Householder reflection, scaled and moved.
    let mut generator = generator(7, "axis");
    let axis: Vec<f64> = (0..D).map(|_| normal(&mut generator)).collect();
    let square: f64 = axis.iter().map(|a| a * a).sum();
    let turned: Vec<f32> = x
        .chunks_exact(D)
        .flat_map(|row| {
            let along: f64 = row.iter().zip(&axis).map(|(x, a)| f64::from(*x) * a).sum::<f64>() * 2.0 / square;
            row.iter().zip(&axis).map(move |(x, a)| (30.0 * (f64::from(*x) - along * a) + 100.0) as f32).collect::<Vec<_>>()
        })
        .collect();
    let gram = |x: &[f32]| of_items(x).unwrap();
    assert!((cka(&gram(&x), &gram(&x)) - 1.0).abs() < 1e-5);
    assert!((cka(&gram(&x), &gram(&turned)) - 1.0).abs() < 1e-4);
    assert!(cka(&gram(&x), &gram(&y)).abs() < 0.1);
}

#[test]
fn items_that_do_not_vary_have_no_gram() {
    assert_eq!(of_items(&[1.7; 10 * D]), None);
    assert_eq!(of_items(&features(3, "few")), None);
}
