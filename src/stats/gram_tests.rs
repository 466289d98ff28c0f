use super::*;
use crate::stats::draws::{generator, normal};
use crate::stats::estimate::{Estimate, amplitude, mean_sd};
use crate::stats::sign_flip::MaxT;

/// Contrasts `[groups, d]` with noise of unit variance around a mean of length `strength`.
fn contrasts(groups: usize, d: usize, strength: f64, seed: u64) -> Vec<f32> {
    let mut generator = generator(seed, "contrast tests");
    let step = strength / (d as f64).sqrt();
    (0..groups * d).map(|_| (normal(&mut generator) + step) as f32).collect()
}

fn brute_force_u(delta: &[f32], d: usize) -> f64 {
    let rows: Vec<&[f32]> = delta.chunks(d).collect();
    let mut sum = 0.0;
    for (g, left) in rows.iter().enumerate() {
        for (other, right) in rows.iter().enumerate() {
            if g != other {
                sum += left.iter().zip(*right).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum::<f64>();
            }
        }
    }
    sum / (rows.len() * (rows.len() - 1)) as f64
}

fn close(a: f64, b: f64, tolerance: f64) {
    assert!((a - b).abs() <= tolerance, "{a} against {b}");
}

#[test]
fn u_is_the_mean_over_pairs_of_different_groups() {
    for (groups, d) in [(2, 1), (5, 3), (31, 200)] {
        let delta = contrasts(groups, d, 1.0, 1);
        close(Gram::new(&delta, d).unwrap().u(), brute_force_u(&delta, d), 1e-4);
    }
}

#[test]
fn u_is_unchanged_by_rotation_and_by_the_order_of_groups() {
    let (groups, d) = (12, 10);
    let delta = contrasts(groups, d, 1.0, 2);
    let u = Gram::new(&delta, d).unwrap().u();

    // A product of reflections is orthogonal.
    let mut rotated = delta.clone();
    for seed in 0..4 {
        let mirror = contrasts(1, d, 0.0, 100 + seed);
        let length = matrix::dot(&mirror, &mirror);
        for row in rotated.chunks_mut(d) {
            let scale = 2.0 * matrix::dot(row, &mirror) / length;
            row.iter_mut().zip(&mirror).for_each(|(x, m)| *x -= scale * m);
        }
    }
    close(Gram::new(&rotated, d).unwrap().u(), u, 1e-5);

    let reversed: Vec<f32> = delta.chunks(d).rev().flatten().copied().collect();
    close(Gram::new(&reversed, d).unwrap().u(), u, 1e-6);
}

#[test]
fn u_is_unbiased_with_and_without_signal() {
    let (groups, d, series) = (24, 30, 400);
    for strength in [0.0, 1.0] {
        let us: Vec<f64> = (0..series).map(|seed| Gram::new(&contrasts(groups, d, strength, 1000 + seed), d).unwrap().u()).collect();
        let mean = us.iter().sum::<f64>() / series as f64;
        close(mean, strength * strength, 0.08); // about four standard errors
    }
}

#[test]
fn flips_and_resamples_are_the_direct_quadratic_forms() {
    let (groups, d) = (17, 8);
    let delta = contrasts(groups, d, 0.5, 3);
    let gram = Gram::new(&delta, d).unwrap();
    let draws = Draws::with_counts(groups, 300, 150, 0, "forms").unwrap();
    let weighted = |w: &[f32]| -> Vec<f32> { delta.chunks(d).zip(w).flat_map(|(row, &w)| row.iter().map(move |x| w * x)).collect() };

    let null = gram.sign_flip_null(&draws).unwrap();
    for (s, &flip) in draws.signs().chunks(groups).zip(&null.flips) {
        close(flip, brute_force_u(&weighted(s), d), 1e-5);
    }
    let replicates = gram.bootstrap_u(&draws).unwrap();
    for (w, &replicate) in draws.multiplicities().chunks(groups).zip(&replicates) {
        let squares: f32 = w.iter().map(|w| w * w).sum();
        let pairs = (groups * groups) as f64 - f64::from(squares);
        let form = brute_force_u(&weighted(w), d) * (groups * (groups - 1)) as f64;
        close(replicate, form / pairs, 1e-5);
    }
}

#[test]
fn the_exact_null_has_mean_zero_the_stated_sd_and_counts_the_identity() {
    let (groups, d) = (9, 6);
    let draws = Draws::new(groups, 0, "exact").unwrap();
    let null = Gram::new(&contrasts(groups, d, 9.0, 4), d).unwrap().sign_flip_null(&draws).unwrap();
    let n = null.flips.len() as f64;
    close(null.flips.iter().sum::<f64>() / n, 0.0, 1e-5);
    close((null.flips.iter().map(|f| f * f).sum::<f64>() / n).sqrt(), null.sd, 1e-4);
    // The strongest possible result: only the identity and its negation reach U.
    assert_eq!(null.p_value(), 2.0 / 512.0);
}

#[test]
fn p_values_are_uniform_without_signal() {
    for groups in [8, 30] {
        let draws = Draws::with_counts(groups, 999, 1, 5, "uniform").unwrap();
        let ps: Vec<f64> = (0..500)
            .map(|seed| {
                let gram = Gram::new(&contrasts(groups, 20, 0.0, 5000 + seed), 20).unwrap();
                gram.sign_flip_null(&draws).unwrap().p_value()
            })
            .collect();
        for level in [0.05, 0.25, 0.5, 0.75] {
            let rejected = ps.iter().filter(|&&p| p <= level).count() as f64 / 500.0;
            close(rejected, level, 0.065); // three standard errors
        }
    }
}

#[test]
fn the_bootstrap_interval_of_a_clear_signal_covers() {
    let (groups, d, strength) = (48, 20, 1.5);
    let draws = Draws::with_counts(groups, 1, 499, 6, "coverage").unwrap();
    let covered = (0..300)
        .filter(|seed| {
            let gram = Gram::new(&contrasts(groups, d, strength, 9000 + seed), d).unwrap();
            let interval = Estimate::percentile(gram.u(), &gram.bootstrap_u(&draws).unwrap()).unwrap();
            (interval.lower..=interval.upper).contains(&(strength * strength))
        })
        .count() as f64
        / 300.0;
    assert!((0.91..=0.99).contains(&covered), "coverage {covered}");
}

/// Without signal, with some, and with much, against `4 mu' Sigma mu / G + 2 tr(Sigma^2) / (G (G - 1))`,
/// the variance of U.
#[test]
fn the_calibrated_bootstrap_has_the_spread_of_u() {
    let (groups, d, series) = (30, 25, 1000);
    let draws = Draws::with_counts(groups, 1, 99, 8, "spread").unwrap();
    let expected_noise = 2.0 * d as f64 / (groups * (groups - 1)) as f64;
    for (strength, plain_excess) in [(0.0, 2.7), (0.5, 2.0), (2.0, 1.1)] {
        let truth = 4.0 * strength * strength / groups as f64 + expected_noise;
        let (mut plain, mut calibrated, mut noise) = (0.0, 0.0, 0.0);
        for seed in 0..series {
            let gram = Gram::new(&contrasts(groups, d, strength, 30_000 + seed), d).unwrap();
            let variance = |replicates: &[f64]| mean_sd(replicates.iter().copied()).1.powi(2);
            plain += variance(&gram.bootstrap_u(&draws).unwrap()) / series as f64;
            calibrated += variance(&gram.calibrated_bootstrap_u(&draws).unwrap()) / series as f64;
            noise += gram.noise_variance() / series as f64;
        }
        let (plain, calibrated) = (plain / truth, calibrated / truth);
        println!("strength {strength}: plain {plain:.2}, calibrated {calibrated:.2}");
        close(plain, plain_excess, 0.1 * plain_excess);
        assert!((0.9..1.35).contains(&calibrated), "calibrated {calibrated}");
        close(noise / expected_noise, 1.0, 0.05);
    }
}

#[test]
fn max_t_controls_the_family_and_a_family_of_one_is_the_plain_p() {
    let (groups, d, members) = (20, 10, 8);
    let draws = Draws::with_counts(groups, 999, 1, 7, "family").unwrap();
    let null_of = |seed: u64, strength: f64| Gram::new(&contrasts(groups, d, strength, seed), d).unwrap().sign_flip_null(&draws).unwrap();
    let mut single = MaxT::default();
    single.push(&null_of(1, 0.6)).unwrap();
    assert_eq!(single.p_values(), [null_of(1, 0.6).p_value()]);

    let rejected = (0..200)
        .filter(|&series| {
            let mut family = MaxT::default();
            for member in 0..members {
                family.push(&null_of(20_000 + series * members + member, 0.0)).unwrap();
            }
            family.p_values().iter().any(|&p| p <= 0.05)
        })
        .count();
    assert!(rejected <= 20, "{rejected} of 200 families rejected at .05");
}

#[test]
fn the_corrected_cosine_of_one_direction_is_one() {
    let (groups, d) = (200, 40);
    let [a, b] = [11, 12].map(|seed| contrasts(groups, d, 2.0, seed));
    let u = |left: &[f32], right: &[f32]| Gram::cross(left, right, d).unwrap().u();
    close(cosine(u(&a, &b), u(&a, &a), u(&b, &b)).unwrap(), 1.0, 0.05);
    let opposite: Vec<f32> = b.iter().map(|x| -x).collect();
    close(cosine(u(&a, &opposite), u(&a, &a), u(&b, &b)).unwrap(), -1.0, 0.05);
    assert!(cosine(1.0, -0.1, 1.0).is_none());
}

#[test]
fn a_contrast_that_is_not_finite_is_refused_and_names_the_groups() {
    let mut delta = contrasts(4, 3, 0.0, 13);
    delta[7] = f32::NAN;
    let error = Gram::new(&delta, 3).unwrap_err().to_string();
    assert!(error.contains("groups 0 and 2"), "{error}");
    assert!(Gram::new(&delta[..4], 3).is_err());
}

#[test]
fn no_contrast_at_all_is_no_evidence() {
    let draws = Draws::new(20, 0, "zero").unwrap();
    let null = Gram::new(&vec![0.0; 60], 3).unwrap().sign_flip_null(&draws).unwrap();
    assert_eq!((null.p_value(), null.z(), amplitude(null.u)), (1.0, 0.0, 0.0));
}
