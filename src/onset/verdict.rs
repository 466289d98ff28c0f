//! What the curves of a series say about emergence: one verdict per concept, measure, layer and readout.
//!
//! First every curve is looked at by itself, then among its family and the null bank ([`weigh`]), and only then is it named and
//! dated ([`conclude`]). Nothing here reads a store: what is measured and what is planted go the same way.

use super::curve::{Curve, mean};
use super::date::{Onset, OnsetGrid};
use super::gate::{Gate, LEVEL, Standing, adjust};
use super::multiplicity::Correction;
use super::reach::{at_best_layers, rises};
use super::shape::{FEWEST, PEAK_LEVEL, Shape, shape, shape_of_amplitudes};
use super::trace::{Null, Role, Trace};
use crate::prompt::concept::FEWEST_FOILS;
use crate::series::Timeline;
use crate::stats::estimate::{Estimate, amplitude};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

/// An answer that the reference prefers to its foils at this one-sided p is no one of them: any training makes it surer.
const PREFERRED: f64 = 0.01;
/// The part of the level that is spent on what is asked about; the rest is for the null bank, so that the probability that a run dates
/// anything that nobody taught is at most [`LEVEL`].
const ASKED: f64 = 0.8;

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
    /// Foils, or null concepts, that it was compared with.
    pub n_null: usize,
    /// The reference prefers the answer to its foils already, by this measure or in what it says.
    pub preferred: bool,
    /// Of a primary row whose layers compete: how far every choice stands out at its own best layer, the answer first.
    pub reach: Option<Vec<f64>>,
    /// Tests in the family that its q is adjusted over.
    pub n_tests: usize,
    /// `ok`, or why there is no date.
    pub status: Status,
    pub shape: Shape,
    /// The date, where the status is `ok` and the curve rises.
    pub onset: Option<Onset>,
}

/// The verdict on every trace, in order. `leaks` says whose words give the label away.
///
/// # Errors
/// The checkpoints cannot be placed on the axis.
pub fn verdicts<'a>(timeline: &Timeline, traces: &'a [Trace], leaks: &(dyn Fn(&Trace) -> bool + Sync)) -> Result<Vec<Verdict<'a>>> {
    let mut weighed = weigh(timeline, traces)?;
    let mut grids: BTreeMap<&[usize], OnsetGrid> = BTreeMap::new();
    for trace in traces.iter().filter(|trace| trace.points.len() >= FEWEST) {
        if !grids.contains_key(trace.points.as_slice()) {
            grids.insert(&trace.points, OnsetGrid::new(&timeline.positions(&trace.points)?)?);
        }
    }
    weighed.par_iter_mut().try_for_each(|verdict| {
        let grid = grids.get(verdict.trace.points.as_slice());
        conclude(verdict, grid, leaks(verdict.trace))
    })?;
    Ok(weighed)
}

/// Gates and standings of `traces`, not yet named or dated.
///
/// # Errors
/// As [`Gate::measure`].
pub fn weigh<'a>(timeline: &Timeline, traces: &'a [Trace]) -> Result<Vec<Verdict<'a>>> {
    let mut verdicts = traces.iter().map(|trace| first_look(timeline, trace)).collect::<Result<Vec<_>>>()?;
    choose_layers(&mut verdicts);
    compare(&mut verdicts);
    mark_what_is_said(&mut verdicts);
    adjust_for_all(&mut verdicts);
    Ok(verdicts)
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
    fn start(&self) -> Range<usize> {
        if self.reference.is_empty() { 0..1 } else { self.reference.clone() }
    }

    /// Mean level at the reference.
    fn level(&self) -> f64 {
        if self.of_amplitudes() {
            amplitude(mean(&self.trace.curve.squares().value[self.start()]))
        } else {
            mean(&self.trace.curve.value[self.start()])
        }
    }

    /// Compares the curve with those of its foils.
    fn compare_with_foils(&mut self, foils: &[Vec<f64>]) {
        let start = self.start();
        let each = |of: &dyn Fn(&[f64]) -> f64| foils.iter().map(|foil| of(foil)).collect::<Vec<_>>();
        self.level_standing = Some(Standing::new(mean(&self.trace.curve.value[start.clone()]), &each(&|foil| mean(&foil[start.clone()]))));
        self.peak_standing = Some(Standing::new(self.peak(), &each(&highest)));
        self.n_null = foils.len();
        let (rises, reach) = (self.rises(foils), self.reach.take());
        if let Some(gate) = self.gate.as_mut() {
            gate.compare_with_bank(rises.into_iter().skip(1));
            // The layer was chosen for the answer. So every foil is taken at the layer that suits it best, too.
            if let Some((own, others)) = reach.as_deref().and_then(<[f64]>::split_first) {
                let standing = Standing::new(*own, others);
                (gate.null_percentile, gate.null_p) = (standing.share, standing.p);
            }
        }
        self.reach = reach;
    }

    /// How far every choice rises from the reference to the late checkpoints, the answer first.
    fn rises(&self, foils: &[Vec<f64>]) -> Vec<f64> {
        rises(&self.trace.curve.value, foils, &self.start(), &self.late)
    }

    /// Whether the curve falls as its foils do: then it is their like that has risen.
    fn falls_with_foils(&self) -> bool {
        let Null::Foils(foils) = &self.trace.null else { return false };
        let fall = |values: &[f64]| mean(&values[self.start()]) - mean(&values[self.late.clone()]);
        !Standing::new(fall(&self.trace.curve.value), &foils.iter().map(|foil| fall(foil)).collect::<Vec<_>>()).stands_out()
    }

    /// Whether the answer stands out from its foils at the reference already.
    fn is_preferred(&self) -> bool {
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

    fn peak(&self) -> f64 {
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

fn highest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn mean_of(values: impl Iterator<Item = f64>) -> f64 {
    mean(&values.collect::<Vec<_>>())
}

fn first_look<'a>(timeline: &Timeline, trace: &'a Trace) -> Result<Verdict<'a>> {
    let t = trace.points.len();
    // References that this trace covers; it needs one on each side.
    let references = trace.points.iter().filter(|&&point| point < timeline.references()).count();
    let late = (t / 5).max(1).min(t);
    let (reference, late) = (0..references, (t - late)..t);
    let comparable = !reference.is_empty() && reference.end <= late.start && trace.curve.replicate_rows().len() >= 2;
    let measure = if trace.floor == Some(0.0) { Gate::of_amplitudes } else { Gate::measure };
    let mut gate = if comparable { Some(measure(&trace.curve, &reference, &late)?) } else { None };
    if let (Some(gate), Some(presence)) = (gate.as_mut(), &trace.presence) {
        gate.max_t_p = presence.points[late.clone()].iter().copied().chain([presence.late]).reduce(f64::min);
    }
    if let (Some(gate), Some(baseline)) = (gate.as_mut(), &trace.baseline) {
        gate.excess = trace.curve.excess(baseline, &late);
    }
    Ok(Verdict {
        trace,
        reference,
        late,
        gate,
        primary: false,
        level_standing: None,
        peak_standing: None,
        n_null: 0,
        preferred: false,
        reach: None,
        n_tests: 1,
        status: Status::NotRun,
        shape: Shape::Undetermined,
        onset: None,
    })
}

/// One primary layer per concept, family, measure and readout.
fn choose_layers(verdicts: &mut [Verdict]) {
    let mut places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, Verdict { trace, .. }) in verdicts.iter().enumerate().filter(|(_, verdict)| verdict.trace.role != Role::Companion) {
        let key = (trace.place.measure, trace.place.concept.as_str(), &trace.place.label_family, &trace.place.readout);
        places.entry(key).or_default().push(index);
    }
    for layers in places.into_values() {
        let (chosen, reach) = among_foils(verdicts, &layers).map(|(chosen, reach)| (chosen, Some(reach))).unwrap_or_else(|| {
            // The embedding knows one token: it is reported, but it is not where a concept is.
            let choice = |index: &usize| {
                let trace = verdicts[*index].trace;
                if trace.place.layer == Some(0) { f64::NEG_INFINITY } else { trace.choice }
            };
            let first_best = |best: usize, other: &usize| if choice(other) > choice(&best) { *other } else { best };
            (layers[1..].iter().fold(layers[0], first_best), None)
        });
        (verdicts[chosen].primary, verdicts[chosen].reach) = (true, reach);
    }
}

/// The layer at which the answer stands out most from its foils, and how far every choice does at its own best layer; `None` where layers do
/// not compete.
fn among_foils(verdicts: &[Verdict], layers: &[usize]) -> Option<(usize, Vec<f64>)> {
    let foils = |index: usize| match &verdicts[index].trace.null {
        Null::Foils(foils) => Some(foils),
        _ => None,
    };
    if layers.iter().any(|&index| foils(index).is_none()) {
        return None;
    }
    let competes = |trace: &Trace| trace.place.layer.is_some_and(|layer| layer > 0) && trace.choice >= 0.0;
    let competing: Vec<usize> = layers.iter().copied().filter(|&index| competes(verdicts[index].trace)).collect();
    let rises: Vec<Vec<f64>> = competing.iter().filter_map(|&index| Some(verdicts[index].rises(foils(index)?))).collect();
    at_best_layers(&rises).map(|(chosen, reach)| (competing[chosen], reach))
}

/// Rows of a measure, family and readout at one layer (layers differ in scale).
fn by_layer(verdicts: &[Verdict]) -> Vec<Vec<usize>> {
    let mut layers: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, Verdict { trace, .. }) in verdicts.iter().enumerate() {
        layers.entry((trace.place.measure, &trace.place.label_family, &trace.place.readout, trace.place.layer)).or_default().push(index);
    }
    layers.into_values().collect()
}

/// Fills in the standing among foils or, for what has none, among null concepts at the same measure, readout and layer.
fn compare(verdicts: &mut [Verdict]) {
    for members in by_layer(verdicts) {
        let bank = members.iter().filter(|&&index| verdicts[index].trace.place.null_bank);
        let null: Vec<(usize, Option<Gate>, f64, f64)> =
            bank.map(|&index| (index, verdicts[index].gate, verdicts[index].level(), verdicts[index].peak())).collect();
        for &index in &members {
            if let Null::Foils(foils) = &verdicts[index].trace.null {
                verdicts[index].compare_with_foils(foils);
                continue;
            }
            // A null concept stands among the others.
            let others = || null.iter().filter(move |(other, ..)| *other != index);
            let (level, peak) = (verdicts[index].level(), verdicts[index].peak());
            verdicts[index].level_standing = Some(Standing::new(level, &others().map(|(.., level, _)| *level).collect::<Vec<_>>()));
            verdicts[index].peak_standing = Some(Standing::new(peak, &others().map(|(.., peak)| *peak).collect::<Vec<_>>()));
            verdicts[index].n_null = others().count();
            if let Some(gate) = verdicts[index].gate.as_mut() {
                gate.compare_with_gates(others().filter_map(|(_, gate, ..)| gate.as_ref()));
            }
        }
    }
}

/// What a model says already it says more surely after any training, and not only where it says it: the concept is dated by no measure.
fn mark_what_is_said(verdicts: &mut [Verdict]) {
    let output = |verdict: &&Verdict| verdict.trace.place.layer.is_none() && matches!(verdict.trace.null, Null::Foils(_));
    let said = verdicts.iter().filter(output).filter(|verdict| verdict.is_preferred());
    let said: BTreeSet<&str> = said.map(|verdict| verdict.trace.place.concept.as_str()).collect();
    for verdict in verdicts.iter_mut() {
        verdict.preferred = said.contains(verdict.trace.place.concept.as_str()) || verdict.is_preferred();
    }
}

/// Fills in q: at a layer over the concepts of that layer, at primary layers over all primary rows of all measures. Rows that cannot be dated,
/// for want of a null or because the reference prefers the answer, are no tests.
fn adjust_for_all(verdicts: &mut [Verdict]) {
    let primary = (0..verdicts.len()).filter(|&index| verdicts[index].primary).collect();
    // The family of primary rows comes last and overrules.
    let families = by_layer(verdicts).into_iter().map(|members| (members, Correction::BenjaminiYekutieli, [1.0; 2]));
    for (members, correction, shares) in families.chain(std::iter::once((primary, Correction::Holm, [ASKED, 1.0 - ASKED]))) {
        // The concepts that are asked about are one family of tests, the null bank is another.
        let (bank, asked): (Vec<usize>, Vec<usize>) = members.into_iter().partition(|&index| verdicts[index].trace.place.null_bank);
        for (family, share) in [asked, bank].into_iter().zip(shares) {
            let is_test = |index: &usize| {
                let verdict = &verdicts[*index];
                verdict.gate.is_some() && !verdict.preferred && !matches!(verdict.trace.null, Null::Missing(_))
            };
            let tested: Vec<usize> = family.iter().copied().filter(is_test).collect();
            let mut gates: Vec<Gate> = tested.iter().filter_map(|&index| verdicts[index].gate).collect();
            adjust(&mut gates, correction, share);
            for (&index, gate) in tested.iter().zip(gates) {
                verdicts[index].gate = Some(gate);
            }
            for index in family {
                verdicts[index].n_tests = (tested.len() as f64 / share).ceil() as usize;
            }
        }
    }
}
