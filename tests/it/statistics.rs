//! Agreement with scikit-learn and SciPy on a committed file; `fixtures/statistics/make.py` writes it.

use selftrace::onset::multiplicity::{Correction, adjusted};
use selftrace::stats::evaluate::{Ranking, Scale, accuracy, brier};
use selftrace::stats::symmetric::{Cholesky, symmetric_eigen};
use selftrace::stats::tails::normal_upper_tail;
use serde::Deserialize;

#[derive(Deserialize)]
struct Golden {
    scored: Vec<Scored>,
    discovery: Vec<Discovery>,
    normal_upper_tail: Vec<Tail>,
    systems: Vec<System>,
}

#[derive(Deserialize)]
struct Scored {
    score: Vec<f64>,
    label: Vec<bool>,
    weight: Vec<f64>,
    auroc: f64,
    accuracy: f64,
    brier: f64,
}

#[derive(Deserialize)]
struct Discovery {
    p: Vec<f64>,
    benjamini_hochberg: Vec<f64>,
    benjamini_yekutieli: Vec<f64>,
}

#[derive(Deserialize)]
struct Tail {
    z: f64,
    p: f64,
}

/// A symmetric positive definite matrix, row-major, and what SciPy makes of it.
#[derive(Deserialize)]
struct System {
    a: Vec<f64>,
    right: Vec<f64>,
    solution: Vec<f64>,
    eigenvalues: Vec<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../fixtures/statistics/statistics.json")).unwrap()
}

fn close(found: f64, expected: f64, relative: f64) {
    let error = (found - expected).abs();
    assert!(error <= relative * expected.abs(), "found {found}, expected {expected}");
}

#[test]
fn probe_metrics_agree_with_scikit_learn() {
    for case in golden().scored {
        let (score, label, weight) = (&case.score, &case.label, &case.weight);
        close(Ranking::new(score, label).unwrap().auroc(weight).unwrap(), case.auroc, 1e-12);
        close(accuracy(score, label, weight, Scale::Probability).unwrap(), case.accuracy, 1e-12);
        close(brier(score, label, weight).unwrap(), case.brier, 1e-12);
    }
}

#[test]
fn false_discovery_rates_agree_with_scipy() {
    for case in golden().discovery {
        for (correction, expected) in
            [(Correction::BenjaminiHochberg, &case.benjamini_hochberg), (Correction::BenjaminiYekutieli, &case.benjamini_yekutieli)]
        {
            for (found, expected) in adjusted(&case.p, correction).iter().zip(expected) {
                close(*found, *expected, 1e-12);
            }
        }
    }
}

#[test]
fn normal_tails_agree_with_scipy() {
    for Tail { z, p } in golden().normal_upper_tail {
        close(normal_upper_tail(z), p, 1e-12);
    }
}

/// What these are good for is the condition of the matrix times the rounding of a number: 1e5 of them at most, here.
#[test]
fn solutions_and_eigenvalues_agree_with_scipy() {
    for System { a, right, solution, eigenvalues } in golden().systems {
        let n = right.len();
        let mut found = right;
        Cholesky::new(n, a.clone()).unwrap().solve(&mut found);
        let size = solution.iter().fold(0.0, |size: f64, x| size.max(x.abs()));
        found.iter().zip(&solution).for_each(|(found, x)| assert!((found - x).abs() <= 1e-10 * size, "{found}, expected {x}"));
        let (mut values, _) = symmetric_eigen(a, n);
        values.sort_by(f64::total_cmp);
        let largest = eigenvalues[n - 1];
        values.iter().zip(&eigenvalues).for_each(|(found, x)| assert!((found - x).abs() <= 1e-13 * largest, "{found}, expected {x}"));
    }
}
