//! Agreement with scikit-learn on committed files; `fixtures/probes/make.py` writes them.

use selftrace::stats::evaluate::{Ranking, Scale, accuracy, brier};
use selftrace::stats::kernel::{Design, Split};
use selftrace::stats::{logistic, mass_mean};
use serde::Deserialize;

#[derive(Deserialize)]
struct Goldens {
    logistic: Vec<Logistic>,
    whitened: Vec<Whitened>,
    roc_auc: Vec<Area>,
}

#[allow(non_snake_case)]
#[derive(Deserialize)]
struct Logistic {
    name: String,
    C: f64,
    class_weight: Option<String>,
    X: Vec<Vec<f32>>,
    y: Vec<u8>,
    groups: Vec<usize>,
    X_test: Vec<Vec<f32>>,
    intercept: f64,
    decision_test: Vec<f64>,
    cross_validation: CrossValidation,
}

#[derive(Deserialize)]
struct CrossValidation {
    fold: Vec<usize>,
    decision: Vec<f64>,
    auc: f64,
    accuracy: f64,
    brier: f64,
}

#[derive(Deserialize)]
struct Whitened {
    /// Of the logistic case whose data are used.
    name: String,
    shrinkage: f64,
    intercept: f64,
    decision_test: Vec<f64>,
}

#[derive(Deserialize)]
struct Area {
    y: Vec<u8>,
    score: Vec<f64>,
    auc: f64,
}

fn goldens() -> Goldens {
    serde_json::from_str(include_str!("../fixtures/probes/goldens.json")).unwrap()
}

fn labels(y: &[u8]) -> Vec<bool> {
    y.iter().map(|&y| y == 1).collect()
}

fn close(name: &str, found: f64, expected: f64, tolerance: f64) {
    assert!((found - expected).abs() <= tolerance, "{name}: found {found}, expected {expected}");
}

impl Logistic {
    /// Training rows, then test rows: features, how many they are, and labels (those of test rows are not looked at).
    fn rows(&self) -> (Vec<f32>, usize, Vec<bool>) {
        let x: Vec<f32> = self.X.iter().chain(&self.X_test).flatten().copied().collect();
        let mut labels = labels(&self.y);
        labels.resize(labels.len() + self.X_test.len(), false);
        (x, self.X[0].len(), labels)
    }

    fn split(&self, design: &Design) -> Split {
        design.split(&(0..design.items()).map(|i| i < self.X.len()).collect::<Vec<_>>()).unwrap()
    }
}

/// Our probe has no class weights: the balanced cases are for whoever adds them.
fn unweighted() -> impl Iterator<Item = Logistic> {
    goldens().logistic.into_iter().filter(|case| case.class_weight.is_none())
}

#[test]
fn logits_agree_with_scikit_learn() {
    for case in unweighted() {
        let (x, d, labels) = case.rows();
        let design = Design::new(&x, d).unwrap();
        let split = case.split(&design);
        let fit = logistic::fit(&split, &labels, 1.0 / case.C).unwrap().unwrap();
        close(&case.name, fit.intercept, case.intercept, 1e-4);
        let linear = fit.linear(&design, &split);
        let decisions = &fit.decisions(&split)[case.X.len()..];
        for ((row, found), expected) in case.X_test.iter().zip(decisions).zip(&case.decision_test) {
            close(&case.name, *found, *expected, 1e-4);
            close(&case.name, linear.at(row), *expected, 1e-4);
        }
    }
}

#[test]
fn grouped_cross_validation_agrees_with_scikit_learn() {
    for case in unweighted() {
        let x: Vec<f32> = case.X.iter().flatten().copied().collect();
        let labels = labels(&case.y);
        let design = Design::new(&x, case.X[0].len()).unwrap();
        let splits = design.splits(&case.cross_validation.fold).unwrap();
        let mut scores = vec![0.0; labels.len()];
        for split in &splits {
            let decisions = logistic::fit(split, &labels, 1.0 / case.C).unwrap().unwrap().decisions(split);
            for (&i, decision) in split.held().iter().zip(&decisions[split.train().len()..]) {
                scores[i] = *decision;
            }
            assert!(split.held().iter().all(|&i| split.train().iter().all(|&j| case.groups[i] != case.groups[j])));
        }
        for (found, expected) in scores.iter().zip(&case.cross_validation.decision) {
            close(&case.name, *found, *expected, 1e-4);
        }
        let ones = vec![1.0; labels.len()];
        let probabilities: Vec<f64> = scores.iter().map(|score| 1.0 / (1.0 + (-score).exp())).collect();
        let expected = &case.cross_validation;
        close(&case.name, Ranking::new(&scores, &labels).unwrap().auroc(&ones).unwrap(), expected.auc, 1e-3);
        close(&case.name, accuracy(&scores, &labels, &ones, Scale::Margin).unwrap(), expected.accuracy, 1e-12);
        close(&case.name, brier(&probabilities, &labels, &ones).unwrap(), expected.brier, 1e-5);
    }
}

#[test]
fn the_whitened_direction_agrees_with_scikit_learn() {
    let goldens = goldens();
    for golden in &goldens.whitened {
        let case = goldens.logistic.iter().find(|case| case.name == golden.name).unwrap();
        let (x, d, labels) = case.rows();
        let design = Design::new(&x, d).unwrap();
        let split = case.split(&design);
        let whitened = mass_mean::whitened(&split, &labels).unwrap().unwrap();
        close(&golden.name, whitened.shrinkage, golden.shrinkage, 1e-5);
        close(&golden.name, whitened.fitted.intercept, golden.intercept, 1e-4);
        for (found, expected) in whitened.fitted.decisions(&split)[case.X.len()..].iter().zip(&golden.decision_test) {
            close(&golden.name, *found, *expected, 1e-4);
        }
    }
}

#[test]
fn roc_areas_agree_with_scikit_learn() {
    for area in goldens().roc_auc {
        let ranking = Ranking::new(&area.score, &labels(&area.y)).unwrap();
        close("roc_auc", ranking.auroc(&vec![1.0; area.y.len()]).unwrap(), area.auc, 1e-12);
    }
}
