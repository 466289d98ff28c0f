//! Many curves of one kind at once, none of which has a null of its own: latents of a dictionary.
//!
//! Each has to rise beyond its own sampling error after a correction over all of them (Benjamini & Yekutieli 2001, since latents share
//! tokens); then it is named and dated as any curve is. How many such dates there are where nothing happens is not decided here: the
//! same is asked of series of which that is known.

use super::curve::Curve;
use super::date::{Onset, OnsetGrid};
use super::gate::{Gate, adjust};
use super::multiplicity::Correction;
use super::shape::{FEWEST, PEAK_LEVEL, Shape, shape};
use crate::dictionary::strength::Strength;
use crate::series::Timeline;
use crate::stats::draws::Draws;
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use std::ops::Range;

/// Groups in which a latent has to be on, to have a curve.
const FEWEST_GROUPS: usize = 8;

/// Strengths of all latents over their checkpoints, taken in this order; `None` for one that is on in too few groups of texts.
///
/// # Errors
/// Draws for another number of groups.
pub fn curves(strength: &Strength, order: &[usize], draws: &Draws) -> Result<Vec<Option<Curve>>> {
    let curve = |latent: usize| -> Result<Option<Curve>> {
        if strength.groups_on(latent) < FEWEST_GROUPS {
            return Ok(None);
        }
        let Some(replicates) = strength.resampled(latent, draws) else { return Ok(None) };
        let value = order.iter().filter_map(|&checkpoint| strength.strength(latent, checkpoint)).collect();
        let replicates = replicates.chunks_exact(order.len()).flat_map(|row| order.iter().map(|&checkpoint| row[checkpoint])).collect();
        Curve::new(value, replicates).map(Some)
    };
    (0..strength.shape.latents).into_par_iter().map(curve).collect()
}

/// What one curve says.
#[derive(Debug, Clone)]
pub struct Dated {
    /// `None` without a curve, or with too few checkpoints.
    pub gate: Option<Gate>,
    pub status: Status,
    pub shape: Shape,
    /// Where the status is `ok`, and dates were asked for.
    pub onset: Option<Onset>,
}

impl Dated {
    fn without(status: Status) -> Self {
        Self { gate: None, status, shape: Shape::Undetermined, onset: None }
    }

    /// Whether it was not there at the reference, and is in the end.
    pub fn emerges(&self) -> bool {
        self.status == Status::Ok && self.shape == Shape::Emerges
    }
}

/// Dates curves over all checkpoints of a series, each of them 0 where there is nothing; `None` is one that has too few groups.
///
/// # Errors
/// The checkpoints cannot be placed on the axis.
pub fn dates(timeline: &Timeline, curves: &[Option<Curve>]) -> Result<Vec<Dated>> {
    decide(timeline, curves, true)
}

/// As [`dates`], without the dates, which take longest.
///
/// # Errors
/// As [`dates`].
pub fn shapes(timeline: &Timeline, curves: &[Option<Curve>]) -> Result<Vec<Dated>> {
    decide(timeline, curves, false)
}

fn decide(timeline: &Timeline, curves: &[Option<Curve>], dated: bool) -> Result<Vec<Dated>> {
    let n = timeline.points.len();
    if n < FEWEST {
        return Ok(curves.iter().map(|_| Dated::without(Status::TooFewCheckpoints)).collect());
    }
    let (reference, late) = (0..timeline.references(), n - (n / 5).max(1)..n);
    if reference.end > late.start {
        return Ok(curves.iter().map(|_| Dated::without(Status::NoReference)).collect());
    }
    let positions = || timeline.positions(&(0..n).collect::<Vec<_>>());
    let grid = if dated { Some(OnsetGrid::new(&positions()?)?) } else { None };
    let measured = curves.par_iter().map(|curve| curve.as_ref().map(|curve| Gate::measure(curve, &reference, &late)).transpose());
    let measured = measured.collect::<Result<Vec<_>>>()?;
    let mut gates: Vec<Gate> = measured.iter().flatten().copied().collect();
    adjust(&mut gates, Correction::BenjaminiYekutieli, 1.0);
    let mut gates = gates.into_iter();
    let gates: Vec<Option<Gate>> = measured.iter().map(|measured| measured.as_ref().and_then(|_| gates.next())).collect();
    let named = curves.par_iter().zip(gates).map(|(curve, gate)| match (curve, gate) {
        (Some(curve), Some(gate)) => named(curve, gate, [&reference, &late], grid.as_ref()),
        _ => Ok(Dated::without(Status::TooFewGroups)),
    });
    named.collect()
}

fn named(curve: &Curve, gate: Gate, [reference, late]: [&Range<usize>; 2], grid: Option<&OnsetGrid>) -> Result<Dated> {
    let passed = gate.passed();
    let shape = shape(curve, reference, late, passed, None, Some(PEAK_LEVEL))?;
    let onset = match grid.filter(|_| passed) {
        Some(grid) => grid.fit(curve, Some(0.0))?,
        None => None,
    };
    let status = if passed { Status::Ok } else { Status::GateFail };
    Ok(Dated { gate: Some(gate), status, shape, onset })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Point;
    use crate::series::axis::Axis;
    use crate::stats::draws::{Draws, generator, normal};

    /// Twenty groups at eight checkpoints around `level`.
    fn curve(key: &str, level: impl Fn(usize) -> f64) -> Option<Curve> {
        let mut rng = generator(0, key);
        let values: Vec<Vec<f64>> = (0..8).map(|t| (0..20).map(|_| level(t) + 0.3 * normal(&mut rng)).collect()).collect();
        Some(Curve::of_means(&values, &Draws::with_counts(20, 9, 199, 0, "family").unwrap()).unwrap())
    }

    #[test]
    fn what_rises_from_nothing_is_dated_among_many_that_do_not() {
        let points: Vec<Point> = (0..8).map(Point::numbered).collect();
        let timeline = Timeline { points: &points, axis: Axis::Index };
        let mut curves: Vec<Option<Curve>> = (0..60).map(|n| curve(&format!("flat {n}"), |_| 1.0)).collect();
        curves.push(curve("rises", |t| if t < 5 { 0.0 } else { 1.0 }));
        curves.push(curve("grows", |t| if t < 5 { 1.0 } else { 2.0 }));
        curves.push(None);
        let dated = dates(&timeline, &curves).unwrap();
        assert!(dated[..60].iter().filter(|dated| dated.status == Status::Ok).count() <= 1);
        assert!(dated[60].emerges());
        let t50 = dated[60].onset.as_ref().unwrap().t50.unwrap().value;
        assert!(4.0 < t50 && t50 < 5.0, "{t50}");
        assert_eq!((dated[61].status, dated[61].shape), (Status::Ok, Shape::Strengthens));
        assert_eq!((dated[62].status, dated[62].shape), (Status::TooFewGroups, Shape::Undetermined));
        let few = Timeline { points: &points[..5], axis: Axis::Index };
        assert!(dates(&few, &curves).unwrap().iter().all(|dated| dated.status == Status::TooFewCheckpoints));
    }
}
