//! The lexical audit: whether the words of a labelled set give its labels away, before any model has seen them.
//!
//! On public statement sets a bag of words alone separates the labels, so a probe of activations would be at ceiling on an
//! untrained network. Two baselines are cross-validated over groups: ridge regression on counts of words and pairs of
//! neighbouring words, and on lengths and punctuation. A third one, on mean input embeddings, needs a model but none of its blocks. Where the upper end of either interval reaches .60, the set leaks.
//!
//! In a crossed quartet every count is balanced over the labels, and the scores are zero but for rounding. Ranked as they
//! are, rounding errors would be a verdict; so scores are rounded first, and equal ones are ties.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

use super::draws::Draws;
use super::estimate::{Estimate, Reported};
use super::evaluate::{Scale, evaluate};
use super::folds;
use super::kernel::Design;
use super::symmetric::Cholesky;
use crate::words::Status;

/// A set passes below this upper bound of the ROC area.
pub const BOUND: f64 = 0.60;
/// Ridge penalty, on counts and on standardised lengths.
const LAMBDA: f64 = 1.0;
/// Scores are rounded to this; labels are 0 and 1.
const RESOLUTION: f64 = 1e-7;

/// Texts with their labels, all of one concept and label family.
#[derive(Clone, Debug)]
pub struct Labelled<'a> {
    pub concept: &'a str,
    pub label_family: &'a str,
    /// `None` where a store made elsewhere does not have the text.
    pub texts: Vec<Option<&'a str>>,
    pub labels: Vec<bool>,
    /// Numbers as of [`folds::numbered`].
    pub groups: Vec<usize>,
}

/// One row of `lexical_audit.parquet`: what one baseline of words reaches on one family of items.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LexicalAudit {
    pub concept: String,
    pub label_family: String,
    /// `ngram` or `length`.
    pub baseline: String,
    pub auroc: Reported,
    /// Whether the upper end of the interval is below .60; null when it cannot be computed.
    pub passed: Option<bool>,
    pub n: i32,
    pub n_groups: i32,
    /// `ok`, `lexical_leak`, `degenerate_label` or `not_run` (a text is missing).
    pub status: Status,
}

/// Sparse features of one text: count or size by column.
type Row = Vec<(usize, f64)>;

/// Audits one set with both baselines. `draws` are those of its groups.
///
/// # Errors
/// When lengths differ or `draws` are for another number of groups.
pub fn audit(set: &Labelled, draws: &Draws) -> Result<[LexicalAudit; 2]> {
    let n = set.labels.len();
    ensure!(set.texts.len() == n && set.groups.len() == n, "{n} labels, {} texts, {} groups", set.texts.len(), set.groups.len());
    let Some(texts) = set.texts.iter().copied().collect::<Option<Vec<&str>>>() else {
        return Ok(["ngram", "length"].map(|baseline| set.row(baseline, None, Status::NotRun, draws.groups())));
    };
    let folds = folds::grouped(&set.groups, folds::OUTER)?;
    let row = |baseline, scores: Option<Vec<f64>>| -> Result<LexicalAudit> {
        let evaluation = scores.map(|scores| evaluate(&scores, &set.labels, &set.groups, Scale::Margin, draws)).transpose()?;
        Ok(set.row(baseline, evaluation.and_then(|evaluation| evaluation.auroc), Status::DegenerateLabel, draws.groups()))
    };
    Ok([row("ngram", ngram_scores(&texts, &set.labels, &folds)?)?, row("length", length_scores(&texts, &set.labels, &folds)?)?])
}

/// Whether a concept may get a verdict: every baseline was computed and passed.
pub fn passed(rows: &[LexicalAudit]) -> bool {
    !rows.is_empty() && rows.iter().all(|row| row.passed == Some(true))
}

impl Labelled<'_> {
    fn row(&self, baseline: &str, auroc: Option<Estimate>, failed: Status, n_groups: usize) -> LexicalAudit {
        let passed = auroc.map(|auroc| auroc.upper < BOUND);
        let status = match passed {
            None => failed,
            Some(true) => Status::Ok,
            Some(false) => Status::LexicalLeak,
        };
        LexicalAudit {
            concept: self.concept.to_owned(),
            label_family: self.label_family.to_owned(),
            baseline: baseline.to_owned(),
            auroc: auroc.into(),
            passed,
            n: self.labels.len() as i32,
            n_groups: n_groups as i32,
            status,
        }
    }
}

/// Held-out scores from counts of words and of pairs of neighbours.
fn ngram_scores(texts: &[&str], labels: &[bool], folds: &[usize]) -> Result<Option<Vec<f64>>> {
    let mut known: HashMap<(String, Option<String>), usize> = HashMap::new();
    let rows: Vec<Row> = texts
        .iter()
        .map(|text| {
            let tokens = tokens(text);
            let single = tokens.iter().map(|token| (token.clone(), None));
            let pairs = tokens.windows(2).map(|pair| (pair[0].clone(), Some(pair[1].clone())));
            let mut counts: BTreeMap<usize, f64> = BTreeMap::new();
            for ngram in single.chain(pairs) {
                let next = known.len();
                *counts.entry(*known.entry(ngram).or_insert(next)).or_default() += 1.0;
            }
            counts.into_iter().collect()
        })
        .collect();
    let kernel = products(&rows, known.len());
    ridge_scores(labels, folds, |_| kernel.clone())
}

/// Held-out scores from lengths and punctuation, standardised by the training items of each fold.
fn length_scores(texts: &[&str], labels: &[bool], folds: &[usize]) -> Result<Option<Vec<f64>>> {
    let sizes: Vec<_> = texts.iter().map(|text| sizes(text)).collect();
    let columns = sizes.first().map_or(0, |sizes| sizes.len());
    ridge_scores(labels, folds, |train| {
        let standardised = |column: usize| {
            let values = || train.iter().map(|&i| sizes[i][column]);
            let mean = values().sum::<f64>() / train.len() as f64;
            let sd = (values().map(|value| (value - mean).powi(2)).sum::<f64>() / train.len() as f64).sqrt();
            (mean, if sd > 0.0 { sd } else { 1.0 })
        };
        let scales: Vec<(f64, f64)> = (0..columns).map(standardised).collect();
        let row = |sizes: &[f64; 8]| sizes.iter().zip(&scales).map(|(size, (mean, sd))| (size - mean) / sd).enumerate().collect();
        products(&sizes.iter().map(row).collect::<Vec<Row>>(), columns)
    })
}

/// Lower-cased words (runs of letters and digits) and punctuation marks, in order.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut word = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() {
            word.extend(c.to_lowercase());
            continue;
        }
        if !word.is_empty() {
            tokens.push(std::mem::take(&mut word));
        }
        if !c.is_whitespace() {
            tokens.push(c.to_string());
        }
    }
    tokens.extend((!word.is_empty()).then_some(word));
    tokens
}

/// Held-out scores of items `[n, d]` whose features are means over words, by ridge regression in standardised features; `None` when a
/// fold trains on one label.
///
/// # Errors
/// When lengths differ.
pub fn embedding_scores(rows: &[f32], d: usize, labels: &[bool], folds: &[usize]) -> Result<Option<Vec<f64>>> {
    /// Means are in f32: where words are balanced over the labels, scores differ by the rounding of their sums.
    const RESOLUTION: f64 = 1e-3;
    /// An item's product with itself: that of the counts of a text with so many words, so that the penalty is as strong.
    const SQUARE: f64 = 32.0;
    let whole = Design::new(rows, d)?.whole();
    let kernel: Vec<f64> = whole.of_train().iter().map(|k| k * SQUARE / d as f64).collect();
    let scores = ridge_scores(labels, folds, |_| kernel.clone())?;
    Ok(scores.map(|scores| scores.into_iter().map(|score| (score / RESOLUTION).round() * RESOLUTION).collect()))
}

/// Counts that do not say which words occur.
fn sizes(text: &str) -> [f64; 8] {
    let count = |of: fn(char) -> bool| text.chars().filter(|&c| of(c)).count() as f64;
    let tokens = tokens(text);
    [
        count(|_| true),
        count(char::is_uppercase),
        count(char::is_numeric),
        count(|c| c == '\n'),
        count(|c| matches!(c, '.' | '!' | '?')),
        count(|c| matches!(c, ',' | ';' | ':')),
        count(|c| matches!(c, '"' | '\'' | '\u{2018}'..='\u{201f}')),
        tokens.len() as f64,
    ]
}

/// Inner products of sparse rows, `[n, n]`.
fn products(rows: &[Row], columns: usize) -> Vec<f64> {
    let n = rows.len();
    let mut products = vec![0.0; n * n];
    let mut dense = vec![0.0; columns];
    for (i, row) in rows.iter().enumerate() {
        row.iter().for_each(|&(column, value)| dense[column] = value);
        for (j, other) in rows[..=i].iter().enumerate() {
            let product = other.iter().map(|&(column, value)| dense[column] * value).sum();
            (products[i * n + j], products[j * n + i]) = (product, product);
        }
        row.iter().for_each(|&(column, _)| dense[column] = 0.0);
    }
    products
}

/// Held-out scores of ridge regression of the labels in the kernel `[n, n]` that `kernel` gives for the training items of a
/// fold (Saunders et al. 1998), around the mean of the training labels and rounded. `None` when a fold trains on one label.
fn ridge_scores(labels: &[bool], folds: &[usize], kernel: impl Fn(&[usize]) -> Vec<f64>) -> Result<Option<Vec<f64>>> {
    let n = labels.len();
    let mut scores = vec![0.0; n];
    for fold in 0..folds.iter().max().map_or(0, |last| last + 1) {
        let (train, held): (Vec<usize>, Vec<usize>) = (0..n).partition(|&i| folds[i] != fold);
        let size = train.len() as f64;
        let y = train.iter().filter(|&&i| labels[i]).count() as f64 / size;
        if y == 0.0 || y == 1.0 {
            return Ok(None);
        }
        // Centred on the mean of the training items: k_ij - mean_j k_ij - mean_i k_ij + mean_ij k_ij.
        let kernel = kernel(&train);
        let means: Vec<f64> = (0..n).map(|i| train.iter().map(|&j| kernel[i * n + j]).sum::<f64>() / size).collect();
        let mean = train.iter().map(|&i| means[i]).sum::<f64>() / size;
        let centred = |i: usize, j: usize| kernel[i * n + j] - means[i] - means[j] + mean;

        let mut system: Vec<f64> = train.iter().flat_map(|&i| train.iter().map(move |&j| (i, j))).map(|(i, j)| centred(i, j)).collect();
        system.iter_mut().step_by(train.len() + 1).for_each(|diagonal| *diagonal += LAMBDA);
        let mut dual: Vec<f64> = train.iter().map(|&i| f64::from(labels[i]) - y).collect();
        let Some(system) = Cholesky::new(train.len(), system) else {
            anyhow::bail!("fold {fold}: the ridge system is not positive definite")
        };
        system.solve(&mut dual);
        for i in held {
            let score: f64 = train.iter().zip(&dual).map(|(&j, dual)| centred(i, j) * dual).sum();
            scores[i] = (score / RESOLUTION).round() * RESOLUTION;
        }
    }
    Ok(Some(scores))
}

#[cfg(test)]
#[path = "lexical_tests.rs"]
mod tests;
