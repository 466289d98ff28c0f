use super::*;
use crate::stats::draws::{generator, normal};
use crate::stats::evaluate::Ranking;
use crate::stats::folds;

const N: usize = 60;

/// Features `[N, d]` of groups of three, the first feature separating the labels a little and the second, with it, a lot.
fn sample(d: usize, seed: u64) -> (Vec<f32>, Vec<bool>, Vec<usize>) {
    let mut generator = generator(seed, "mass mean");
    let labels: Vec<bool> = (0..N).map(|i| i * 7 % 5 < 2).collect();
    let mut x: Vec<f32> = (0..N * d).map(|_| normal(&mut generator) as f32).collect();
    for i in 0..N {
        x[i * d + 1] += 3.0 * x[i * d];
        x[i * d] += if labels[i] { 1.0 } else { -1.0 };
    }
    (x, labels, (0..N).map(|i| i / 3).collect())
}

fn auroc(scores: &[f64], labels: &[bool]) -> f64 {
    Ranking::new(scores, labels).unwrap().auroc(&[1.0; N]).unwrap()
}

#[test]
fn the_threshold_is_midway_between_the_class_means() {
    let (x, labels, _) = sample(8, 0);
    let design = Design::new(&x, 8).unwrap();
    let split = design.split(&(0..N).map(|i| i < 50).collect::<Vec<_>>()).unwrap();
    let linear = plain(&design, &split, &labels).unwrap().unwrap();
    let whitened = whitened(&split, &labels).unwrap().unwrap();
    let decisions = whitened.fitted.decisions(&split);
    let again = whitened.fitted.linear(&design, &split);
    let mean = |class: bool, of: &dyn Fn(usize) -> f64| {
        let rows: Vec<usize> = (0..50).filter(|&i| labels[i] == class).collect();
        rows.iter().map(|&i| of(i)).sum::<f64>() / rows.len() as f64
    };
    for of in [&(|i| linear.at(design.item(i))) as &dyn Fn(usize) -> f64, &|i| decisions[i], &|i| again.at(design.item(i))] {
        assert!((mean(true, of) + mean(false, of)).abs() < 1e-4);
        assert!(mean(true, of) > 0.1);
    }
}

#[test]
fn whitening_uses_the_feature_that_only_helps() {
    let (x, labels, groups) = sample(6, 2);
    let design = Design::new(&x, 6).unwrap();
    let splits = design.splits(&folds::grouped(&groups, 5).unwrap()).unwrap();
    let plain = held_out(&design, &splits, &labels).unwrap().unwrap();
    let whitened = whitened_held_out(&splits, &labels).unwrap().unwrap();
    assert!(auroc(&plain, &labels) < auroc(&whitened, &labels) - 0.05);
    let exchanged: Vec<bool> = labels.iter().map(|label| !label).collect();
    for (a, b) in whitened_held_out(&splits, &exchanged).unwrap().unwrap().iter().zip(&whitened) {
        assert!((a + b).abs() < 1e-9);
    }
}

#[test]
fn items_that_are_all_alike_score_nothing() {
    let x = vec![2.5; N * 9];
    let (_, labels, groups) = sample(9, 3);
    let design = Design::new(&x, 9).unwrap();
    let splits = design.splits(&folds::grouped(&groups, 5).unwrap()).unwrap();
    assert_eq!(whitened_held_out(&splits, &labels).unwrap(), Some(vec![0.0; N]));
    assert_eq!(held_out(&design, &splits, &[true; N]).unwrap(), None);
    assert_eq!(whitened_held_out(&splits, &[true; N]).unwrap(), None);
}
