//! Which layer is looked at first, and where every curve stands among its foils or the null bank: what has to be known of all curves
//! of a run before one of them can be named.

use super::curve::mean;
use super::date::OnsetGrid;
#[cfg(doc)]
use super::gate::LEVEL;
use super::gate::{Gate, Standing, adjust};
use super::multiplicity::Correction;
use super::reach::{at_best_layers, scores, standings};
use super::shape::{FEWEST, Shape};
use super::trace::{Null, Role, Trace};
use super::verdict::{Verdict, conclude, highest};
use crate::series::Timeline;
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Parts of the level that primary rows may spend, so that the probability that a run dates anything that nobody taught is at most
/// [`LEVEL`]: named measures, the others, and the null bank. Where one of the first two has no rows, the other one has its part too.
const PARTS: [f64; 3] = [0.6, 0.3, 0.1];

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
    let rises = score(&verdicts, &rises);
    let primaries = choose_layers(&mut verdicts, &rises);
    compare_with_foils(&mut verdicts, rises, primaries);
    compare_with_bank(&mut verdicts);
    mark_what_is_said(&mut verdicts);
    adjust_for_all(&mut verdicts);
    Ok(verdicts)
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
        fall_standing: None,
        n_null: 0,
        preferred: false,
        n_tests: 1,
        status: Status::NotRun,
        shape: Shape::Undetermined,
        onset: None,
    })
}

/// How far every choice rises from the reference to the late checkpoints.
fn rises(verdict: &Verdict) -> Option<Vec<f64>> {
    verdict.of_choices(|curve| mean(&curve[verdict.late.clone()]) - mean(&curve[verdict.start()]))
}

/// How far a number of every choice lies beyond those of the others of its kind, see [`scores`], by row; `None` without foils.
fn score(verdicts: &[Verdict], of: &dyn Fn(&Verdict) -> Option<Vec<f64>>) -> Vec<Option<Vec<f64>>> {
    let mut all = vec![None; verdicts.len()];
    for members in by_layer(verdicts) {
        let (rows, kinds): (Vec<usize>, Vec<Vec<f64>>) = members.iter().filter_map(|&index| Some((index, of(&verdicts[index])?))).unzip();
        rows.into_iter().zip(scores(&kinds)).for_each(|(index, scores)| all[index] = Some(scores));
    }
    all
}

/// Marks one primary layer per concept, family, measure and readout. Returns, of those whose layers compete, the row and how far every
/// choice rises at the layer that suits it best.
fn choose_layers(verdicts: &mut [Verdict], rises: &[Option<Vec<f64>>]) -> Vec<(usize, Vec<f64>)> {
    let mut places: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, Verdict { trace, .. }) in verdicts.iter().enumerate().filter(|(_, verdict)| verdict.trace.role != Role::Companion) {
        let key = (trace.place.measure, trace.place.concept.as_str(), &trace.place.label_family, &trace.place.readout);
        places.entry(key).or_default().push(index);
    }
    let mut reached = Vec::new();
    for layers in places.into_values() {
        let competing = among_foils(verdicts, rises, &layers);
        let chosen = competing.as_ref().map_or_else(
            || {
                // The embedding knows one token: it is reported, but it is not where a concept is.
                let choice = |index: &usize| {
                    let trace = verdicts[*index].trace;
                    if trace.place.layer == Some(0) { f64::NEG_INFINITY } else { trace.choice }
                };
                let first_best = |best: usize, other: &usize| if choice(other) > choice(&best) { *other } else { best };
                layers[1..].iter().fold(layers[0], first_best)
            },
            |(chosen, _)| *chosen,
        );
        verdicts[chosen].primary = true;
        reached.extend(competing);
    }
    reached
}

/// The layer at which the answer stands out most from its foils, and how far every choice does at its own best layer; `None` where layers
/// do not compete.
fn among_foils(verdicts: &[Verdict], rises: &[Option<Vec<f64>>], layers: &[usize]) -> Option<(usize, Vec<f64>)> {
    if layers.iter().any(|&index| !matches!(verdicts[index].trace.null, Null::Foils(_))) {
        return None;
    }
    let competes = |trace: &Trace| trace.place.layer.is_some_and(|layer| layer > 0) && trace.choice >= 0.0;
    let competing = layers.iter().copied().filter(|&index| competes(verdicts[index].trace));
    let (rows, scores): (Vec<usize>, Vec<&[f64]>) = competing.filter_map(|index| Some((index, rises[index].as_deref()?))).unzip();
    at_best_layers(&scores).map(|(chosen, reach)| (rows[chosen], reach))
}

/// Where answers stand among their foils by a score of every choice, by row: each by the tail of all foils in its group.
fn stand(groups: &[Vec<usize>], scores: &[Option<Vec<f64>>]) -> Vec<(usize, Standing)> {
    let stand = |members: &Vec<usize>| {
        let known = members.iter().filter_map(|&index| Some((index, scores[index].as_deref()?)));
        let (rows, scores): (Vec<usize>, Vec<&[f64]>) = known.unzip();
        rows.into_iter().zip(standings(&scores))
    };
    groups.iter().flat_map(stand).collect()
}

/// Fills in where answers stand among their foils, primary ones whose layers compete among all choices at their best layers.
fn compare_with_foils(verdicts: &mut [Verdict], mut rises: Vec<Option<Vec<f64>>>, primaries: Vec<(usize, Vec<f64>)>) {
    let layers = by_layer(verdicts);
    let [levels, peaks, falls] = [
        score(verdicts, &|verdict| verdict.of_choices(|curve| mean(&curve[verdict.start()]))),
        score(verdicts, &|verdict| verdict.of_choices(highest)),
        score(verdicts, &|verdict| Some(self::rises(verdict)?.into_iter().map(|rise| -rise).collect())),
    ]
    .map(|scores| stand(&layers, &scores));
    let mut risen = stand(&layers, &rises);
    let mut families: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, reach) in primaries {
        let place = &verdicts[index].trace.place;
        families.entry((place.measure, &place.label_family, &place.readout)).or_default().push(index);
        rises[index] = Some(reach);
    }
    risen.extend(stand(&families.into_values().collect::<Vec<_>>(), &rises));
    levels.into_iter().for_each(|(index, standing)| verdicts[index].level_standing = Some(standing));
    peaks.into_iter().for_each(|(index, standing)| verdicts[index].peak_standing = Some(standing));
    falls.into_iter().for_each(|(index, standing)| verdicts[index].fall_standing = Some(standing));
    for (index, standing) in risen {
        if let Some(gate) = verdicts[index].gate.as_mut() {
            (gate.null_percentile, gate.null_p) = (standing.share, standing.p);
        }
    }
    for verdict in verdicts {
        if let Null::Foils(foils) = &verdict.trace.null {
            verdict.n_null = foils.len();
        }
    }
}

/// Rows of a measure, family and readout at one layer (layers differ in scale).
fn by_layer(verdicts: &[Verdict]) -> Vec<Vec<usize>> {
    let mut layers: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, Verdict { trace, .. }) in verdicts.iter().enumerate() {
        layers.entry((trace.place.measure, &trace.place.label_family, &trace.place.readout, trace.place.layer)).or_default().push(index);
    }
    layers.into_values().collect()
}

/// Fills in where a curve without foils stands among null concepts at the same measure, readout and layer.
fn compare_with_bank(verdicts: &mut [Verdict]) {
    for members in by_layer(verdicts) {
        let bank = members.iter().filter(|&&index| verdicts[index].trace.place.null_bank);
        let null: Vec<(usize, Option<Gate>, f64, f64)> =
            bank.map(|&index| (index, verdicts[index].gate, verdicts[index].level(), verdicts[index].peak())).collect();
        for &index in &members {
            if matches!(verdicts[index].trace.null, Null::Foils(_)) {
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
    // What conversations add is no answer by itself: it has a readout, that of its arm.
    let is_plain = |trace: &Trace| trace.place.layer.is_none() && trace.place.readout.is_none();
    let output = |verdict: &&Verdict| is_plain(verdict.trace) && matches!(verdict.trace.null, Null::Foils(_));
    let said = verdicts.iter().filter(output).filter(|verdict| verdict.is_preferred());
    let said: BTreeSet<&str> = said.map(|verdict| verdict.trace.place.concept.as_str()).collect();
    for verdict in verdicts.iter_mut() {
        verdict.preferred = said.contains(verdict.trace.place.concept.as_str()) || verdict.is_preferred();
    }
}

/// Fills in q: at a layer over the concepts of that layer, at primary layers over all primary rows of all measures. Rows that cannot be dated,
/// for want of a null or because the reference prefers the answer, are no tests.
fn adjust_for_all(verdicts: &mut [Verdict]) {
    let is_bank = |index: &usize| verdicts[*index].trace.place.null_bank;
    // The concepts that are asked about are one family of tests, the null bank is another.
    let at_layers = by_layer(verdicts).into_iter().flat_map(|members| {
        let (bank, asked): (Vec<usize>, Vec<usize>) = members.into_iter().partition(is_bank);
        [(asked, Correction::BenjaminiYekutieli, 1.0), (bank, Correction::BenjaminiYekutieli, 1.0)]
    });
    let primary = (0..verdicts.len()).filter(|&index| verdicts[index].primary);
    let (bank, asked): (Vec<usize>, Vec<usize>) = primary.partition(is_bank);
    let (named, others): (Vec<usize>, Vec<usize>) = asked.into_iter().partition(|&index| verdicts[index].trace.role == Role::Named);
    let [of_named, of_others, of_bank] = PARTS;
    let (of_named, of_others) = match (named.is_empty(), others.is_empty()) {
        (false, false) => (of_named, of_others),
        _ => (of_named + of_others, of_named + of_others),
    };
    let primaries = [(named, of_named), (others, of_others), (bank, of_bank)];
    // Primary rows come last and overrule.
    let families: Vec<_> = at_layers.chain(primaries.map(|(rows, part)| (rows, Correction::Holm, part))).collect();
    for (family, correction, part) in families {
        let is_test = |index: &usize| {
            let verdict = &verdicts[*index];
            verdict.gate.is_some() && !verdict.preferred && !matches!(verdict.trace.null, Null::Missing(_))
        };
        let tested: Vec<usize> = family.iter().copied().filter(is_test).collect();
        let mut gates: Vec<Gate> = tested.iter().filter_map(|&index| verdicts[index].gate).collect();
        adjust(&mut gates, correction, part);
        for (&index, gate) in tested.iter().zip(gates) {
            verdicts[index].gate = Some(gate);
        }
        for index in family {
            verdicts[index].n_tests = (tested.len() as f64 / part).ceil() as usize;
        }
    }
}
