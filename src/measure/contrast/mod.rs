//! The contrast of y = 1 against y = 0 per group: how strongly a concept is represented (method: Gram matrix, U, sign flips).

mod delta;
mod kind;
pub mod similarity;

use super::{CONTRASTED, Measure, Measured, held_out_third};
use crate::console::check_interrupt;
use crate::onset::curve::Curve;
use crate::onset::gate::reference_and_late;
use crate::onset::trace::{Null, Presence, Trace};
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Reported, Sampled, amplitude};
use crate::stats::gram::{Gram, cosine};
use crate::stats::sign_flip::MaxT;
use crate::table::{self, Key, Table};
use crate::words::Status;
use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use kind::Kind;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use delta::{Contrasts, Sides, divisors, whitened};

pub const NAME: &str = "contrast";
const TRAJECTORY: Table = Table::keyed::<Trajectory>("trajectory");
const GRAM: Table = Table::keyed::<GramRow>("gram");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TRAJECTORY, GRAM, similarity::TABLE], run };

/// One row of `trajectory.parquet` behind the keys. `e` is an amplitude in units of the spread within groups.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Trajectory {
    concept: String,
    label_family: LabelFamily,
    layer: i32,
    readout: String,
    status: Status,
    /// Amplitude of the mean contrast: the root of `u`, with its sign.
    e: Reported,
    /// Unbiased for the squared length of the mean contrast.
    u: Option<f64>,
    /// Sign-flip p of this row alone.
    p: Option<f64>,
    /// Sign-flip p, family-wise over the concept's checkpoints and layers.
    p_max_t: Option<f64>,
    /// 95% point of e under sign flips.
    e_null95: Option<f64>,
    /// Contrast along the direction of the last checkpoint.
    frozen_e: Option<f64>,
    n_groups: i32,
}

/// One row of `gram.parquet` behind the keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct GramRow {
    concept: String,
    label_family: LabelFamily,
    layer: i32,
    readout: String,
    /// Ids of the groups, in the order of the rows of `k`.
    group_ids: Vec<String>,
    /// Inner products of the contrasts, G x G, row-major.
    k: Vec<f32>,
}

/// What one family at one readout contributes.
#[derive(Default)]
struct Part {
    trajectory: Vec<(Key, Trajectory)>,
    grams: Vec<RecordBatch>,
    /// Pairs of checkpoints per layer, until their gate is known.
    similar: Vec<(usize, Vec<similarity::Pair>)>,
    similarity: Vec<RecordBatch>,
    traces: Vec<Trace>,
}

fn run(series: &Series) -> Result<Measured> {
    let families: Vec<&Family> = series.families.iter().filter(|family| CONTRASTED.contains(&family.label_family)).collect();
    let tasks: Vec<(&Family, usize)> =
        families.iter().flat_map(|family| (0..series.readouts.len()).map(move |readout| (*family, readout))).collect();
    let parts = tasks.par_iter().map(|(family, readout)| part(series, family, *readout)).collect::<Result<Vec<Part>>>()?;
    let mut all = Part::default();
    for part in parts {
        all.trajectory.extend(part.trajectory);
        all.grams.extend(part.grams);
        all.similarity.extend(part.similarity);
        all.traces.extend(part.traces);
    }
    let trajectory = TRAJECTORY.filled(vec![table::keyed(&all.trajectory)?])?;
    let tables = vec![trajectory, GRAM.filled(all.grams)?, similarity::TABLE.filled(all.similarity)?];
    Ok(Measured { tables, traces: all.traces, ..Measured::default() })
}

/// Groups that have both labels, as positions into `items`, which lists their items in order.
pub fn labelled(series: &Series, family: &Family) -> (Vec<String>, Vec<Sides>, Vec<usize>) {
    let (mut ids, mut sides, mut items) = (Vec::new(), Vec::new(), Vec::new());
    for (id, members) in &family.groups {
        let mut side = Sides { ones: Vec::new(), zeros: Vec::new() };
        let labelled: Vec<usize> = members.iter().copied().filter(|&item| matches!(series.items[item].y, Some(0 | 1))).collect();
        for (offset, &item) in labelled.iter().enumerate() {
            let to = if series.items[item].y == Some(1) { &mut side.ones } else { &mut side.zeros };
            to.push(items.len() + offset);
        }
        if !side.ones.is_empty() && !side.zeros.is_empty() {
            ids.push(id.clone());
            sides.push(side);
            items.extend(labelled);
        }
    }
    (ids, sides, items)
}

fn part(series: &Series, family: &Family, readout: usize) -> Result<Part> {
    let (ids, sides, mut items) = labelled(series, family);
    let kind = Kind::new(series, family, &ids, &mut items);
    // Every choice of the kind, or the quartet alone.
    let contrasts_of = |rows: &[f32], d: usize| match &kind {
        Some(kind) => kind.contrasts(rows, d),
        None => vec![Contrasts::new(rows, d, &sides)],
    };
    let mut part = Part::default();
    let points: Vec<usize> = (0..series.points.len()).collect();
    if !points.iter().all(|&t| items.iter().all(|&item| series.has(t, readout, item))) {
        return Ok(part); // a readout that these items do not have
    }
    let row = |status: Status, layer: usize| Trajectory {
        concept: family.concept.clone(),
        label_family: family.label_family.clone(),
        layer: series.layers[layer] as i32,
        readout: series.readouts[readout].clone(),
        status,
        n_groups: ids.len() as i32,
        ..Trajectory::default()
    };
    if ids.len() < 2 {
        for layer in 0..series.layers.len() {
            part.trajectory.extend(points.iter().map(|&t| (series.key(t), row(Status::DegenerateLabel, layer))));
            if similarity::applies(series, family, layer) {
                part.similarity.push(similarity::rows(series, family, readout, layer, ids.len(), &similarity::none(points.len()), &[])?);
            }
        }
        return Ok(part);
    }
    let draws = draws(series, family, ids.len())?;
    let mut family_wise = MaxT::default();
    let keep_gram = family.label_family == LabelFamily::Crossed;
    for layer in 0..series.layers.len() {
        let (mut contrasts, mut foils, mut compared, mut width) = (Vec::new(), Vec::<Vec<f64>>::new(), Vec::new(), 0);
        let paired = similarity::applies(series, family, layer);
        for &t in &points {
            check_interrupt()?;
            let (rows, d) = series.rows(t, readout, layer, &items)?;
            ensure!(width == 0 || width == d, "{}: d_model is {d}, that of earlier checkpoints {width}", series.points[t].id);
            width = d;
            let mut all = contrasts_of(&rows, d).into_iter();
            contrasts.extend(all.next());
            let amplitudes = all.map(|foil| Ok(amplitude(Gram::new(&foil.whitened(), d)?.u()))).collect::<Result<Vec<_>>>()?;
            foils.resize(amplitudes.len(), Vec::new());
            foils.iter_mut().zip(amplitudes).for_each(|(foil, amplitude)| foil.push(amplitude));
            if paired {
                compared.push(similarity::Items::new(&rows, d)?);
            }
        }
        if paired {
            let scales: Vec<f64> = points.iter().map(|&t| series.scale(t, readout, layer)).collect();
            part.similar.push((layer, similarity::compare(&contrasts, &scales, &compared, width)?));
        }
        let baseline = baseline(series, readout, layer, &items, &|rows, d| contrasts_of(rows, d).swap_remove(0), &draws)?;
        let deltas: Vec<Vec<f32>> = contrasts.iter().map(Contrasts::whitened).collect();
        let followed = follow(family, &deltas, width, &draws)?;
        let Followed { grams, cross, curve, .. } = &followed;
        let scale = amplitude(grams[grams.len() - 1].u());
        let mut grams_of_layer = Vec::new();
        let nulls = Gram::sign_flip_nulls(grams, &draws)?;
        for (t, (gram, null)) in grams.iter().zip(&nulls).enumerate() {
            family_wise.push(null)?;
            let mut filled = Trajectory {
                u: table::finite(gram.u()),
                p: Some(null.p_value()),
                e_null95: table::finite(null.amplitude95()),
                frozen_e: (scale > 0.0).then(|| cross[t].u() / scale),
                ..row(Status::Ok, layer)
            };
            filled.e = curve.at(t).into();
            part.trajectory.push((series.key(points[t]), filled));
            if keep_gram {
                let gram = GramRow {
                    concept: family.concept.clone(),
                    label_family: family.label_family.clone(),
                    layer: series.layers[layer] as i32,
                    readout: series.readouts[readout].clone(),
                    group_ids: ids.clone(),
                    k: gram.to_matrix(),
                };
                grams_of_layer.push((series.key(points[t]), gram));
            }
        }
        family_wise.push(&followed.late.sign_flip_null(&draws)?)?;
        if keep_gram {
            part.grams.push(table::keyed(&grams_of_layer)?);
        }
        let (choice, null) = match foils.is_empty() {
            true => (followed.trace.choice, Null::Missing(Status::NoFoils)),
            false => (0.0, Null::Foils(foils)),
        };
        part.traces.push(Trace { choice, null, baseline, ..followed.trace.at(series, readout, layer) });
    }
    // Family-wise p values come back in the order in which the nulls were pushed: layer by layer, checkpoint by checkpoint, and
    // after these the mean of the late ones.
    let p = family_wise.p_values();
    let by_layer: Vec<&[f64]> = p.chunks(points.len() + 1).collect();
    for ((_, row), p) in part.trajectory.iter_mut().zip(by_layer.iter().flat_map(|p| &p[..points.len()])) {
        row.p_max_t = Some(*p);
    }
    for (trace, p) in part.traces.iter_mut().zip(&by_layer) {
        trace.presence = Some(Presence { points: p[..points.len()].to_vec(), late: p[points.len()] });
    }
    for (layer, pairs) in std::mem::take(&mut part.similar) {
        let gates = by_layer.get(layer).map_or(&[][..], |p| &p[..points.len()]);
        part.similarity.push(similarity::rows(series, family, readout, layer, ids.len(), &pairs, gates)?);
    }
    Ok(part)
}

/// The amplitude that the same contrast has with random weights.
fn baseline(
    series: &Series,
    readout: usize,
    layer: usize,
    items: &[usize],
    contrasts_of: &dyn Fn(&[f32], usize) -> Contrasts,
    draws: &Draws,
) -> Result<Option<Sampled>> {
    let Some(random) = series.baseline_of(readout, items) else { return Ok(None) };
    let (rows, d) = random.rows(0, readout, layer, items)?;
    let gram = Gram::new(&contrasts_of(&rows, d).whitened(), d)?;
    Ok(Some(Curve::of_amplitudes(&[gram], draws)?.sampled(0)))
}

/// The contrasts of one concept at one layer along the checkpoints.
pub struct Followed {
    /// Of each checkpoint.
    pub grams: Vec<Gram>,
    /// Of each checkpoint with the last one.
    pub cross: Vec<Gram>,
    /// The mean of those of the late checkpoints.
    pub late: Gram,
    pub curve: Curve,
    /// Ready but for its place and the family-wise p-values.
    pub trace: Trace,
}

/// Follows contrasts `[group, width]` of a family, one set per checkpoint. This is all that happens between activations and verdicts, so
/// planted activations come through here too.
///
/// # Errors
/// Contrasts that are not finite, or draws for another number of groups.
pub fn follow(family: &Family, deltas: &[Vec<f32>], width: usize, draws: &Draws) -> Result<Followed> {
    let grams = deltas.iter().map(|delta| Gram::new(delta, width)).collect::<Result<Vec<_>>>()?;
    let curve = Curve::of_amplitudes(&grams, draws)?;
    let last = deltas.len() - 1;
    let with = |direction: &[f32]| deltas.iter().map(|delta| Gram::cross(delta, direction, width)).collect::<Result<Vec<_>>>();
    let cross = with(&deltas[last])?;
    let (_, late) = reference_and_late(deltas.len());
    let pooled: Vec<f32> =
        (0..deltas[last].len()).map(|i| deltas[late.clone()].iter().map(|delta| delta[i]).sum::<f32>() / late.len() as f32).collect();
    let aligned = Curve::of_projections(&with(&pooled)?, &Gram::new(&pooled, width)?, draws)?;
    let trace = Trace {
        cosine: direction_cosine(&cross[0], &grams[0], &grams[last], draws)?,
        aligned,
        floor: Some(0.0),
        choice: third(&deltas[last], width)?,
        null: Null::Bank,
        ..Trace::new(NAME, family, (0..deltas.len()).collect(), curve.clone())
    };
    let late = Gram::mean(&grams[late])?;
    Ok(Followed { grams, cross, late, curve, trace })
}

/// The resamples of a family's labelled groups.
///
/// # Errors
/// With fewer than two groups.
pub fn draws(series: &Series, family: &Family, groups: usize) -> Result<Draws> {
    Draws::with_counts(groups, series.flips, series.bootstraps, series.seed, &format!("{}/{}", family.concept, family.label_family))
}

/// Amplitude from every third group only: what chooses the primary layer.
pub fn third(delta: &[f32], width: usize) -> Result<f64> {
    let rows: Vec<f32> = held_out_third(delta.len() / width).flat_map(|g| &delta[g * width..(g + 1) * width]).copied().collect();
    if rows.len() < 2 * width { Ok(f64::NEG_INFINITY) } else { Ok(amplitude(Gram::new(&rows, width)?.u())) }
}

/// Cosine between two directions with its bootstrap interval; `None` where one of them is not there.
///
/// # Errors
/// When the draws are for another number of groups.
pub fn direction_cosine(cross: &Gram, first: &Gram, last: &Gram, draws: &Draws) -> Result<Option<Estimate>> {
    let Some(value) = cosine(cross.u(), first.u(), last.u()) else { return Ok(None) };
    let (cross, first, last) = (cross.bootstrap_u(draws)?, first.bootstrap_u(draws)?, last.bootstrap_u(draws)?);
    let replicates: Vec<f64> =
        cross.iter().zip(first.iter().zip(&last)).map(|(cross, (first, last))| cosine(*cross, *first, *last).unwrap_or(f64::NAN)).collect();
    Ok(Estimate::percentile(value, &replicates))
}
