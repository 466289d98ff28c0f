//! What the curves of a series say about emergence: one verdict per concept, measure, layer and readout.
//!
//! First every curve is looked at by itself, then among its foils or the null bank ([`super::weigh`]), and only then is it named and
//! dated ([`conclude`]). Nothing here reads a store: what is measured and what is planted go the same way.

use super::curve::{Curve, mean};
use super::date::{Onset, OnsetGrid};
use super::gate::{Gate, LEVEL, Standing};
use super::shape::{FEWEST, PEAK_LEVEL, Shape, shape, shape_of_amplitudes};
use super::trace::{Null, Trace};
use crate::prompt::concept::FEWEST_FOILS;
use crate::stats::estimate::{Estimate, amplitude};
use crate::words::Status;
use anyhow::Result;
use std::ops::Range;

/// An answer that the reference prefers to its foils at this one-sided p is no one of them: any training makes it surer.
const PREFERRED: f64 = 0.01;
/// What one trace says, compared with others.
#[derive(Debug, Clone)]
pub struct Verdict<'a> {
    pub trace: &'a Trace,
    /// Reference and late checkpoints, as positions among the trace's points.
    pub reference: Range<usize>,
    pub late: Range<usize>,
    /// `None` without a reference.
    pub gate: Option<Gate>,
    /// The layer of its concept, measure and readout that is looked at first, see [`Trace::choice`].
    pub primary: bool,
    /// Where the level at the reference and the peak stand among those of the null bank.
    pub level_standing: Option<Standing>,
    pub peak_standing: Option<Standing>,
    /// Where the fall from the reference to the late checkpoints stands among those of the foils; `None` without foils.
    pub fall_standing: Option<Standing>,
    /// Foils, or null concepts, that it was compared with.
    pub n_null: usize,
    /// The reference prefers the answer to its foils already, by this measure or in what it says.
    pub preferred: bool,
    /// Tests in the family that its q is adjusted over.
    pub n_tests: usize,
    /// `ok`, or why there is no date.
    pub status: Status,
    pub shape: Shape,
    /// The date, where the status is `ok` and the curve rises.
    pub onset: Option<Onset>,
}

/// Fills in status, shape and, where the gate is passed, the date. `grid` is that of the trace's points; without one there are
/// fewer than [`FEWEST`].
///
/// # Errors
/// As [`shape`] and [`OnsetGrid::fit`].
pub fn conclude(verdict: &mut Verdict, grid: Option<&OnsetGrid>, leaks: bool) -> Result<()> {
    let trace = verdict.trace;
    let too_few = trace.points.len() < FEWEST;
    let passed = verdict.gate.as_ref().is_some_and(Gate::passed);
    verdict.status = match trace.status {
        Some(status) => status,
        None if leaks => Status::LexicalLeak,
        None if too_few => Status::TooFewCheckpoints,
        None if verdict.gate.is_none() => Status::NoReference,
        None => match &trace.null {
            Null::Missing(status) => *status,
            Null::Foils(foils) if foils.len() < FEWEST_FOILS => Status::TooFewFoils,
            Null::Foils(_) if verdict.preferred => Status::AlreadyPreferred,
            _ if !passed => Status::GateFail,
            _ => Status::Ok,
        },
    };
    verdict.shape = match verdict.status {
        Status::Ok | Status::GateFail => verdict.named()?,
        // What rises was there before.
        Status::AlreadyPreferred => match verdict.named()? {
            Shape::Emerges => Shape::Strengthens,
            shape => shape,
        },
        _ => Shape::Undetermined,
    };
    verdict.onset = match grid {
        Some(grid) if verdict.status == Status::Ok => grid.fit(verdict.dated_curve(), trace.floor)?,
        _ => None,
    };
    Ok(())
}

impl Verdict<'_> {
    /// Whether the curve is of amplitudes, which cannot truly be below 0 and are tested by their squares.
    fn of_amplitudes(&self) -> bool {
        self.trace.floor == Some(0.0)
    }

    /// Reference checkpoints, the first one where none is marked.
    pub fn start(&self) -> Range<usize> {
        if self.reference.is_empty() { 0..1 } else { self.reference.clone() }
    }

    /// Mean level at the reference.
    pub fn level(&self) -> f64 {
        if self.of_amplitudes() {
            amplitude(mean(&self.trace.curve.squares().value[self.start()]))
        } else {
            mean(&self.trace.curve.value[self.start()])
        }
    }

    /// A number of the curve of every choice, the answer first; `None` without foils.
    pub fn of_choices(&self, of: impl Fn(&[f64]) -> f64) -> Option<Vec<f64>> {
        let Null::Foils(foils) = &self.trace.null else { return None };
        Some(std::iter::once(&self.trace.curve.value).chain(foils).map(|curve| of(curve)).collect())
    }

    /// Whether the curve falls as its foils do: then it is their like that has risen.
    fn falls_with_foils(&self) -> bool {
        self.fall_standing.is_some_and(|standing| !standing.stands_out())
    }

    /// Whether the answer stands out from its foils at the reference already.
    pub fn is_preferred(&self) -> bool {
        if !matches!(self.trace.null, Null::Foils(_)) {
            return false;
        }
        self.level_standing.is_some_and(|standing| standing.stands_out() && standing.p.is_some_and(|p| p <= PREFERRED))
    }

    /// The curve along the late direction, unless a significant part of the concept has another direction on the way: then a
    /// ruler that is blind to it would come late.
    fn dated_curve(&self) -> &Curve {
        let Some(aligned) = &self.trace.aligned else { return &self.trace.curve };
        let outside = |native: &[f64], along: &[f64]| mean_of(native.iter().zip(along).map(|(e, a)| e * e.abs() - a * a));
        let replicates = self.trace.curve.replicate_rows().zip(aligned.replicate_rows()).map(|(native, along)| outside(native, along));
        let outside = Estimate::percentile(outside(&self.trace.curve.value, &aligned.value), &replicates.collect::<Vec<_>>());
        if outside.is_some_and(|outside| outside.lower > 0.0) { &self.trace.curve } else { aligned }
    }

    pub fn peak(&self) -> f64 {
        highest(&self.trace.curve.value)
    }

    /// The shape that the curve has, as far as it stands out from the null bank: a level or a peak that untaught concepts have too
    /// is no presence.
    fn named(&self) -> Result<Shape> {
        let passed = self.gate.as_ref().is_some_and(Gate::passed);
        let of = if self.of_amplitudes() { shape_of_amplitudes } else { shape };
        let of = |peak| of(&self.trace.curve, &self.reference, &self.late, passed, self.trace.cosine, peak);
        let beyond = |standing: Option<Standing>| standing.is_none_or(|standing| standing.stands_out());
        // Among foils, a shape that says that something changed has to pay for all that was looked at, as a date has.
        let has_foils = matches!(self.trace.null, Null::Foils(_));
        let paid = |standing: Option<Standing>| {
            let p = standing.and_then(|standing| standing.p).unwrap_or(1.0);
            beyond(standing) && (!has_foils || p * self.n_tests as f64 <= LEVEL)
        };
        let banked = |standing: Option<Standing>| standing.is_some_and(|standing| standing.p.is_some());
        // A peak that the bank confirms needs no stricter test than a rise.
        let mut shape = of(Some(if banked(self.peak_standing) { LEVEL } else { PEAK_LEVEL }))?;
        // A level that is there from the start and wavers has no peak, nor has what untaught concepts reach too.
        let wavers = banked(self.level_standing) && beyond(self.level_standing);
        if shape == Shape::Transient && (wavers || !paid(self.peak_standing)) {
            shape = of(None)?;
        }
        // Every direction turns in training, those of foils too, and how far is not held against them.
        if has_foils && shape == Shape::Reoriented {
            shape = if passed { Shape::Strengthens } else { Shape::AlreadyPresent };
        }
        Ok(match shape {
            // What it turned or grew from is what untaught concepts have too.
            Shape::Strengthens | Shape::Reoriented if passed && !beyond(self.level_standing) => Shape::Emerges,
            Shape::AlreadyPresent | Shape::Vanishes | Shape::Reoriented if !beyond(self.level_standing) => Shape::Absent,
            Shape::Vanishes if !paid(self.level_standing) || self.falls_with_foils() => Shape::Absent,
            other => other,
        })
    }
}

pub fn highest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn mean_of(values: impl Iterator<Item = f64>) -> f64 {
    mean(&values.collect::<Vec<_>>())
}
