//! The checkpoints of a series, and where they lie along its axis.

use super::axis::{Axis, Mark, Positions};
use anyhow::Result;
use serde::Deserialize;

/// A checkpoint of the series.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Point {
    pub id: String,
    #[serde(default)]
    pub stage: String,
    pub step: Option<u64>,
    pub tokens: Option<u64>,
    pub order: usize,
    #[serde(default)]
    pub reference: bool,
}

impl Point {
    /// One of a series that is made up: without steps, all in one stage.
    pub fn numbered(order: usize) -> Self {
        Self { id: format!("c{order}"), stage: "sft".to_owned(), step: None, tokens: None, order, reference: false }
    }
}

/// The checkpoints of a series, without their readouts.
#[derive(Clone, Copy, Debug)]
pub struct Timeline<'a> {
    pub points: &'a [Point],
    pub axis: Axis,
}

impl Timeline<'_> {
    /// Positions of some checkpoints on the axis.
    ///
    /// # Errors
    /// As [`Positions::new`].
    pub fn positions(&self, points: &[usize]) -> Result<Positions> {
        let marks: Vec<Mark> = points
            .iter()
            .map(|&t| &self.points[t])
            .map(|point| Mark { id: &point.id, stage: &point.stage, step: point.step, tokens: point.tokens })
            .collect();
        Positions::new(self.axis, &marks)
    }

    /// Number of leading checkpoints that are marked as reference, or a fifth (at least one) where none is.
    pub fn references(&self) -> usize {
        let marked = self.points.iter().take_while(|point| point.reference).count();
        if marked > 0 { marked } else { (self.points.len() / 5).max(1) }
    }
}
