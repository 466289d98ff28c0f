//! What a measure reaches without anything learned. A level is evidence only where it exceeds this.

use super::curve::{Curve, mean};
use crate::stats::estimate::Estimate;
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
