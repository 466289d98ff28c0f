//! Planted items: activations in which a concept takes a course that we chose, before any statistic has touched them.
//!
//! Quartets of unit Gaussian noise in d coordinates, AR(1) along the checkpoints; y = 1 and y = 0 are apart by
//! `amplitude * level(t)` in one direction, and by a constant lexical leak in another. Everything grows geometrically with training.

use crate::measure::contrast::Sides;
use crate::onset::planted::Course;
use crate::series::axis::Axis;
use crate::series::{Point, Timeline};
use crate::stats::draws::{generator, normal};

/// Correlation of the noise of neighbouring checkpoints.
const AUTOCORRELATION: f64 = 0.6;
/// Items per group.
const CELLS: usize = 4;
/// Axis position of the first checkpoint of an uneven series: ln(1 + step) of a step that is large enough to round.
const FIRST: f64 = 4.0;
/// Mean gap of an uneven series, in ln(1 + step), and how far gaps alternate around it.
const GAP: f64 = 0.5;
const UNEVEN: f64 = 0.6;

/// A series with a known answer, in units of its mean gap from the first checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Simulated {
    pub course: Course,
    /// Distance of the labels' means at level 1, in units of an item's noise.
    pub amplitude: f64,
    /// Distance of the labels' means that is there at all checkpoints, in another direction.
    pub leak: f64,
    /// Factor by which activations grow from the first to the last checkpoint.
    pub norm_growth: f64,
    /// Share of the noise's variance that belongs to the item and is the same at all checkpoints and in all runs.
    pub common: f64,
    pub groups: usize,
    pub checkpoints: usize,
    /// Coordinates, at least 3.
    pub d: usize,
    /// Gaps alternate between wide and narrow, on a logarithmic axis of steps.
    pub uneven: bool,
    /// A new stage starts half way: all noise is new, and all items move together.
    pub jump: bool,
}

impl Simulated {
    /// Items of each group by label, as rows of [`Simulated::items`].
    pub fn sides(&self) -> Vec<Sides> {
        (0..self.groups).map(|g| g * CELLS).map(|g| Sides { ones: vec![g, g + 3], zeros: vec![g + 1, g + 2] }).collect()
    }

    /// Activations `[4 groups, d]` of each checkpoint. Runs with one `items` share what is common to the items.
    pub fn items(&self, key: &str, items: &str) -> Vec<Vec<f32>> {
        let n = self.groups * CELLS * self.d;
        let mut own = generator(0, items);
        let item: Vec<f64> = if self.common > 0.0 { (0..n).map(|_| normal(&mut own)).collect() } else { vec![0.0; n] };
        let mut generator = generator(0, key);
        let mut noise: Vec<f64> = (0..n).map(|_| normal(&mut generator)).collect();
        let mut offset = vec![0.0; self.d];
        let fresh = (1.0 - AUTOCORRELATION * AUTOCORRELATION).sqrt();
        let last = (self.checkpoints - 1).max(1) as f64;
        let (of_item, of_run) = (self.common.sqrt(), (1.0 - self.common).sqrt());
        let mut series = Vec::with_capacity(self.checkpoints);
        for (checkpoint, position) in self.positions().into_iter().enumerate() {
            if self.jump && checkpoint == self.checkpoints / 2 {
                noise.iter_mut().for_each(|value| *value = normal(&mut generator));
                offset.iter_mut().for_each(|value| *value = 3.0 * normal(&mut generator));
            } else if checkpoint > 0 {
                noise.iter_mut().for_each(|value| *value = AUTOCORRELATION * *value + fresh * normal(&mut generator));
            }
            let growth = self.norm_growth.powf(checkpoint as f64 / last);
            let (first, second) = self.course.level(position);
            let mean = [self.amplitude * first, self.amplitude * second, self.leak];
            let value = |index: usize| {
                let (row, j) = (index / self.d, index % self.d);
                let side = if matches!(row % CELLS, 0 | 3) { 0.5 } else { -0.5 };
                let signal = side * mean.get(j).copied().unwrap_or(0.0);
                (growth * (of_item * item[index] + of_run * noise[index] + signal + offset[j])) as f32
            };
            series.push((0..n).map(value).collect());
        }
        series
    }

    /// Where the checkpoints are, in mean gaps from the first: 0, 1, 2 ... where spacing is even.
    pub fn positions(&self) -> Vec<f64> {
        let wide = |t: usize| if self.uneven && t % 2 == 1 { UNEVEN / 2.0 } else { 0.0 };
        (0..self.checkpoints).map(|t| t as f64 + wide(t)).collect()
    }

    /// The checkpoints as a series has them.
    pub fn points(&self) -> Vec<Point> {
        let step = |position: f64| if self.uneven { (FIRST + GAP * position).exp_m1().round() } else { position };
        let stage = |t: usize| if self.jump && t >= self.checkpoints / 2 { "sft" } else { "base" };
        let of = |(order, position): (usize, f64)| Point {
            id: format!("c{order}"),
            stage: stage(order).to_owned(),
            step: Some(step(position) as u64),
            tokens: None,
            order,
            reference: false,
        };
        self.positions().into_iter().enumerate().map(of).collect()
    }

    /// `points` on their axis.
    pub fn timeline<'a>(&self, points: &'a [Point]) -> Timeline<'a> {
        Timeline { points, axis: if self.uneven { Axis::StepLog } else { Axis::Index } }
    }

    /// A date on the axis in mean gaps from the first checkpoint.
    pub fn in_gaps(&self, x: f64) -> f64 {
        if self.uneven { (x - FIRST) / GAP } else { x }
    }

    /// When the concept appears, in mean gaps from the first checkpoint; a step only as far as checkpoints tell. `None` where it
    /// does not.
    pub fn truth(&self) -> Option<f64> {
        match self.course {
            Course::Sigmoid { at, .. } => Some(at),
            Course::Step { at } => {
                let positions = self.positions();
                let after = positions.partition_point(|&position| position < at).clamp(1, positions.len() - 1);
                Some((positions[after - 1] + positions[after]) / 2.0)
            }
            _ => None,
        }
    }
}
