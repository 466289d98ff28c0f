//! Where checkpoints stand on the axis of a page, from 0 at the left to 1 at the right.

use crate::series::axis::{Axis, Positions};
use crate::series::{Point, Timeline};
use anyhow::Result;

/// Space before the first checkpoint and after the last one, as a share of the whole.
const MARGIN: f64 = 0.03;

/// Checkpoints with their places.
pub struct Time {
    pub points: Vec<Point>,
    /// `None` without checkpoints.
    positions: Option<Positions>,
    from: f64,
    to: f64,
}

/// Neighbouring checkpoints of one stage.
pub struct Stage<'a> {
    pub name: &'a str,
    /// Positions of its first and last checkpoint.
    pub first: usize,
    pub last: usize,
    /// Where it begins and ends on the axis: what a stage does happens between the last checkpoint before it and its own last one.
    pub left: f64,
    pub right: f64,
}

impl Time {
    /// Lays checkpoints out.
    ///
    /// # Errors
    /// As [`Positions::new`].
    pub fn new(axis: Axis, points: Vec<Point>) -> Result<Self> {
        let all: Vec<usize> = (0..points.len()).collect();
        let positions = if points.is_empty() { None } else { Some(Timeline { points: &points, axis }.positions(&all)?) };
        let x = positions.as_ref().map_or(&[][..], Positions::x);
        let (from, to) = (x.first().copied().unwrap_or(0.0), x.last().copied().unwrap_or(0.0));
        // One checkpoint stands in the middle.
        let (from, to) = if to > from { (from, to) } else { (from - 1.0, to + 1.0) };
        Ok(Self { points, positions, from, to })
    }

    pub fn len(&self) -> usize {
        self.points.len()
    }

    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }

    /// In units of the axis, as `t50` is.
    pub fn x(&self) -> &[f64] {
        self.positions.as_ref().map_or(&[], Positions::x)
    }

    /// Place of a position in units of the axis; beyond the ends at the ends.
    pub fn place(&self, x: f64) -> f64 {
        (MARGIN + (1.0 - 2.0 * MARGIN) * (x - self.from) / (self.to - self.from)).clamp(0.0, 1.0)
    }

    /// Place of a checkpoint.
    pub fn at(&self, t: usize) -> f64 {
        self.place(self.x()[t])
    }

    /// The step there, where checkpoints have steps.
    pub fn step_at(&self, x: f64) -> Option<f64> {
        self.positions.as_ref()?.step_at(x)
    }

    /// Place of a step since the start of the series, where checkpoints have steps.
    pub fn place_of_step(&self, step: f64) -> Option<f64> {
        let steps = self.x().iter().map(|&x| self.step_at(x)).collect::<Option<Vec<f64>>>()?;
        let after = steps.partition_point(|&known| known < step).clamp(1, steps.len().checked_sub(1)?);
        let share = (step - steps[after - 1]) / (steps[after] - steps[after - 1]);
        let x = self.x();
        Some(self.place(x[after - 1] + share.clamp(0.0, 1.0) * (x[after] - x[after - 1])))
    }

    /// What stands at a checkpoint's tick: its step since the start of the series, its tokens, or its number.
    pub fn label(&self, t: usize) -> String {
        let point = &self.points[t];
        match (self.step_at(self.x()[t]), point.step, point.tokens) {
            (Some(step), ..) => crate::report::words::count(step.round() as u64),
            // One checkpoint has no pair to read steps from.
            (None, Some(step), _) => crate::report::words::count(step),
            (None, None, Some(tokens)) => compact(tokens as f64),
            (None, None, None) => t.to_string(),
        }
    }

    /// What the labels are.
    pub fn unit(&self) -> &'static str {
        match self.points.first() {
            Some(Point { step: Some(_), .. }) => "step",
            Some(Point { tokens: Some(_), .. }) => "tokens",
            _ => "checkpoint",
        }
    }

    /// Ticks with labels that do not touch, when a character is `wide` of the axis: the last one, and as many before as fit.
    pub fn ticks(&self, wide: f64) -> Vec<(f64, String)> {
        let mut ticks: Vec<(f64, String)> = Vec::new();
        let mut free = f64::INFINITY;
        for t in (0..self.len()).rev() {
            let (place, label) = (self.at(t), self.label(t));
            let half = 0.5 * wide * label.chars().count() as f64;
            if place + half < free {
                free = place - half - 1.5 * wide;
                ticks.push((place, label));
            }
        }
        ticks.reverse();
        ticks
    }

    /// The stages in order.
    pub fn stages(&self) -> Vec<Stage<'_>> {
        let mut first = 0;
        let groups = self.points.chunk_by(|a, b| a.stage == b.stage);
        let mut stages: Vec<Stage<'_>> = groups
            .map(|group| {
                let last = first + group.len() - 1;
                let left = if first == 0 { 0.0 } else { self.at(first - 1) };
                let stage = Stage { name: &group[0].stage, first, last, left, right: self.at(last) };
                first = last + 1;
                stage
            })
            .collect();
        if let Some(last) = stages.last_mut() {
            last.right = 1.0;
        }
        stages
    }

    /// Position of a checkpoint by its id.
    pub fn find(&self, id: &str) -> Option<usize> {
        self.points.iter().position(|point| point.id == id)
    }

    /// One axis for two runs, from the first checkpoint of either to the last one of either.
    pub fn widen(&mut self, other: &Self) {
        if !self.is_empty() && !other.is_empty() {
            (self.from, self.to) = (self.from.min(other.from), self.to.max(other.to));
        }
    }
}

/// `1.5B`.
fn compact(n: f64) -> String {
    let (share, unit) = match n {
        n if n >= 1e12 => (n / 1e12, "T"),
        n if n >= 1e9 => (n / 1e9, "B"),
        n if n >= 1e6 => (n / 1e6, "M"),
        n if n >= 1e3 => (n / 1e3, "k"),
        n => (n, ""),
    };
    format!("{}{unit}", crate::report::words::number((10.0 * share).round() / 10.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(stage: &str, step: Option<u64>, order: usize) -> Point {
        Point { id: format!("{stage}-{order}"), stage: stage.to_owned(), step, tokens: None, order, reference: false }
    }

    #[test]
    fn places_and_steps_agree_and_stages_meet() {
        let points = [("base", 0), ("sft", 10), ("sft", 20), ("rl", 5)];
        let points = points.iter().enumerate().map(|(order, (stage, step))| point(stage, Some(*step), order)).collect();
        let time = Time::new(Axis::StepLog, points).unwrap();
        assert_eq!((time.label(3), time.unit()), ("25".to_owned(), "step"));
        for t in 0..4 {
            let step = time.step_at(time.x()[t]).unwrap();
            assert!((time.place_of_step(step).unwrap() - time.at(t)).abs() < 1e-9);
        }
        let stages = time.stages();
        assert_eq!(
            stages.iter().map(|stage| (stage.name, stage.first, stage.last)).collect::<Vec<_>>(),
            [("base", 0, 0), ("sft", 1, 2), ("rl", 3, 3)]
        );
        assert!(stages.windows(2).all(|pair| pair[0].right == pair[1].left));
    }

    #[test]
    fn ticks_do_not_touch_and_one_checkpoint_stands_in_the_middle() {
        let many = (0..200).map(|order| point("sft", Some(1000 * order as u64), order)).collect();
        let ticks = Time::new(Axis::Index, many).unwrap().ticks(0.02);
        let touches =
            |pair: &[(f64, String)]| pair[1].0 - pair[0].0 < 0.01 * (pair[0].1.chars().count() + pair[1].1.chars().count()) as f64;
        assert!(ticks.len() > 3 && !ticks.windows(2).any(touches), "{ticks:?}");
        let one = Time::new(Axis::Index, vec![point("sft", Some(7), 0)]).unwrap();
        assert_eq!((one.at(0), one.label(0)), (0.5, "7".to_owned()));
        assert_eq!(Time::new(Axis::Index, Vec::new()).unwrap().ticks(0.1), []);
    }

    #[test]
    fn tokens_are_compact() {
        assert_eq!([950.0, 1.5e6, 3e9].map(compact), ["950", "1.5M", "3B"]);
    }
}
