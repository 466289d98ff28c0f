//! What a measure reaches without anything learned: by words, by their mean input embedding, and by random weights. A level is
//! evidence only where it exceeds these.

use super::probes::Set;
use crate::emergence::curve::{Curve, mean};
use crate::estimate::Estimate;
use crate::probe::evaluate::{Scale, evaluate};
use crate::probe::folds::INNER;
use crate::probe::kernel::Design;
use crate::probe::{lexical, logistic};
use crate::series::Series;
use anyhow::Result;
use rayon::prelude::*;
use std::ops::Range;

/// A level that is no evidence of anything learned.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    pub value: f64,
    /// By resample, paired with those of the measure's curve; none where the level was not resampled.
    pub replicates: Vec<f64>,
}

impl Baseline {
    /// The level that belongs to a resample of the measure.
    pub fn at(&self, resample: usize) -> f64 {
        self.replicates.get(resample).copied().unwrap_or(self.value)
    }

    /// The highest of some; `None` of none.
    pub fn highest<'a>(levels: impl IntoIterator<Item = Option<&'a Self>>) -> Option<&'a Self> {
        levels.into_iter().flatten().max_by(|a, b| a.value.total_cmp(&b.value))
    }

    /// Mean of `curve` over the checkpoints `late`, less this.
    pub fn excess(&self, curve: &Curve, late: &Range<usize>) -> Option<Estimate> {
        let level = |row: &[f64]| mean(&row[late.clone()]);
        let replicates: Vec<f64> = curve.replicate_rows().enumerate().map(|(resample, row)| level(row) - self.at(resample)).collect();
        Estimate::percentile(level(&curve.value) - self.value, &replicates)
    }
}

/// What the words of labelled items reach, as AUROC of a probe over groups.
#[derive(Debug, Clone, Default)]
pub struct Words {
    /// The better one of counts and lengths; `None` where there are no texts.
    lexical: Option<f64>,
    /// Ridge regression on mean input embeddings, by checkpoint; `None` where the store has none.
    embedding: Vec<Option<Baseline>>,
}

impl Words {
    /// Of the items of a set.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn new(series: &Series, set: &Set) -> Result<Self> {
        let at = |t: usize| -> Result<Option<Baseline>> {
            let (Some((rows, d)), Some(folds)) = (series.embeddings(t, &set.items)?, &set.folds[0]) else { return Ok(None) };
            of_scores(lexical::embedding_scores(&rows, d, &set.labels, folds)?, set)
        };
        let embedding = (0..series.points.len()).into_par_iter().map(at).collect::<Result<_>>()?;
        Ok(Self { lexical: series.audit(set.family)?.iter().filter_map(|row| row.auroc).reduce(f64::max), embedding })
    }

    /// AUROC on mean input embeddings at a checkpoint.
    pub fn embedding(&self, t: usize) -> Option<f64> {
        self.embedding[t].as_ref().map(|baseline| baseline.value)
    }

    /// The highest baseline of a checkpoint, what `random` weights reach included.
    pub fn best(&self, t: usize, random: Option<&Baseline>) -> Option<Baseline> {
        let lexical = self.lexical.map(|value| Baseline { value, replicates: Vec::new() });
        Baseline::highest([lexical.as_ref(), self.embedding[t].as_ref(), random]).cloned()
    }
}

/// AUROC of the logistic probe over groups on a layer of the network with random weights; `None` where it was not walked.
///
/// # Errors
/// The store cannot be read.
pub fn of_random_weights(series: &Series, set: &Set, readout: usize, layer: usize) -> Result<Option<Baseline>> {
    let (Some(random), Some(folds)) = (series.baseline_of(readout, &set.items), &set.folds[0]) else { return Ok(None) };
    let (rows, d) = random.rows(0, readout, layer, &set.items)?;
    let splits = Design::new(&rows, d)?.whole().folds(folds)?;
    match logistic::held_out_by(&splits, &set.labels, &set.groups, INNER) {
        Ok(held) => of_scores(held.map(|held| held.scores), set),
        Err(error) => {
            let (concept, layer) = (&set.family.concept, series.layers[layer]);
            tracing::warn!("{concept}, layer {layer}, random weights: {error:#}");
            Ok(None)
        }
    }
}

/// AUROC of held-out scores.
fn of_scores(scores: Option<Vec<f64>>, set: &Set) -> Result<Option<Baseline>> {
    let (Some(scores), Some(draws)) = (scores, &set.draws) else { return Ok(None) };
    let evaluation = evaluate(&scores, &set.labels, &set.groups, Scale::Margin, draws)?;
    Ok(evaluation.auroc.map(|auroc| Baseline { value: auroc.value, replicates: evaluation.auroc_replicates }))
}
