//! Learned change: what training did to the activation at the beginning of an answer about oneself, beyond what it did to the
//! same answer about others, and beyond what it did for topics that nobody teaches.
//!
//! Per group `dd = (self - mean others)_t - (self - mean others)_0`, over the scale of the first checkpoint. Activations of a series
//! share a basis, so no probe is fitted. The excess over the median of the null bank is what is dated.

use super::contrast::third;
use super::{Measure, Measured, Part};
use crate::console::check_interrupt;
use crate::onset::curve::{Curve, excess_over_bank, percentile_in_bank};
use crate::onset::trace::{Role, Trace};
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Reported, amplitude, quantile};
use crate::stats::gram::Gram;
use crate::table::{Table, finite};
use crate::words::Status;
use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "change";
const TABLE: Table = Table::keyed::<Change>("change");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };

/// One row of `change.parquet` behind the keys. `e` is in units of the neutral pool's root mean square at the first checkpoint.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Change {
    concept: String,
    null_bank: bool,
    layer: i32,
    readout: String,
    status: Status,
    /// Amplitude of the mean change, self minus others: the root of `u`, with its sign.
    e: Reported,
    /// Unbiased for the squared length of the mean change.
    u: Option<f64>,
    /// `e` minus the median of the null bank (without the concept itself, if it belongs to it).
    excess: Reported,
    /// Share of the null bank below.
    percentile: Option<f64>,
    /// Change along the direction of the last checkpoint's.
    frozen_e: Option<f64>,
    n_groups: i32,
}

/// A concept's self items and, per group, the others'.
pub struct Pairs<'a> {
    pub family: &'a Family,
    /// Self item and other items per group.
    pub groups: Vec<(usize, Vec<usize>)>,
}

/// Concepts with answer stems.
pub fn stems(series: &Series) -> Vec<Pairs<'_>> {
    let of = |family: &'_ Family| -> Option<Vec<(usize, Vec<usize>)>> {
        let others = series.family(&family.concept, &LabelFamily::StemOther)?;
        let find = |id: &str| others.groups.iter().find(|(other, _)| other == id).map(|(_, items)| items.clone());
        let pairs = family.groups.iter().filter_map(|(id, items)| Some((*items.first()?, find(id).filter(|others| !others.is_empty())?)));
        Some(pairs.collect())
    };
    let selves = series.families.iter().filter(|family| family.label_family == LabelFamily::StemSelf);
    selves.filter_map(|family| Some(Pairs { family, groups: of(family).filter(|groups| groups.len() >= 2)? })).collect()
}

fn run(series: &Series) -> Result<Measured> {
    let stems = stems(series);
    let Some(readout) = series.last_prompt(NAME) else { return Measured::of_rows::<Change>(TABLE, &[]) };
    let layers: Vec<usize> = (0..series.layers.len()).collect();
    let parts = layers.par_iter().map(|&layer| at_layer(series, &stems, readout, layer)).collect::<Result<Vec<_>>>()?;
    Measured::of_parts(TABLE, parts)
}

/// One concept at one layer.
struct Learned {
    curve: Curve,
    u: Vec<f64>,
    frozen: Vec<Option<f64>>,
    third: f64,
}

fn at_layer(series: &Series, stems: &[Pairs], readout: usize, layer: usize) -> Result<Part<Change>> {
    let n = series.points.len();
    let has_reference = n > series.references();
    let measured = if has_reference {
        stems
            .iter()
            .map(|pairs| check_interrupt().map_err(Into::into).and_then(|()| measure(series, pairs, readout, layer)))
            .collect::<Result<Vec<_>>>()?
    } else {
        Vec::new()
    };
    let (mut rows, mut traces) = (Vec::new(), Vec::new());
    for (index, pairs) in stems.iter().enumerate() {
        let empty = Change {
            concept: pairs.family.concept.clone(),
            null_bank: pairs.family.null_bank,
            layer: series.layers[layer] as i32,
            readout: series.readouts[readout].clone(),
            status: Status::NoReference,
            n_groups: pairs.groups.len() as i32,
            ..Change::default()
        };
        let Some(own) = measured.get(index) else {
            rows.extend((0..n).map(|t| (series.key(t), empty.clone())));
            continue;
        };
        let bank: Vec<Curve> = (0..stems.len())
            .filter(|&other| other != index && stems[other].family.null_bank)
            .map(|other| measured[other].curve.clone())
            .collect();
        let excess = if bank.is_empty() { None } else { Some(excess_over_bank(&own.curve, &bank)?) };
        let percentiles = percentile_in_bank(&own.curve, &bank)?;
        for t in 0..n {
            let mut row = Change {
                status: Status::Ok,
                u: finite(own.u[t]),
                percentile: percentiles.as_ref().map(|share| share[t]),
                frozen_e: own.frozen[t],
                ..empty.clone()
            };
            row.e = own.curve.at(t).into();
            row.excess = excess.as_ref().and_then(|excess| excess.at(t)).into();
            rows.push((series.key(t), row));
        }
        let mut last: Vec<f64> = bank.iter().map(|curve| curve.value[n - 1]).collect();
        last.sort_unstable_by(f64::total_cmp);
        let floor = excess.is_none().then_some(0.0);
        let choice = own.third - if last.is_empty() { 0.0 } else { quantile(&last, 0.5) };
        let curve = excess.unwrap_or_else(|| own.curve.clone());
        let trace = Trace::new(NAME, pairs.family, (0..n).collect(), curve).at(series, readout, layer);
        traces.push(Trace { role: Role::Companion, choice, floor, ..trace.of_stems() });
    }
    Ok((rows, traces))
}

/// `dd` of every checkpoint, `[group, d]` each, and d.
///
/// # Errors
/// The store cannot be read, or d_model changes along the series.
pub fn deltas(series: &Series, pairs: &Pairs, readout: usize, layer: usize) -> Result<(Vec<Vec<f32>>, usize)> {
    let n = series.points.len();
    let mut contrasts: Vec<Vec<f64>> = Vec::with_capacity(n);
    let mut width = 0;
    for t in 0..n {
        let (contrast, d) = self_minus_others(series, [t, readout, layer], pairs, &|row| row.iter().map(|x| f64::from(*x)).collect())?;
        ensure!(width == 0 || width == d, "{}: d_model is {d}, that of earlier checkpoints {width}", series.points[t].id);
        width = d;
        contrasts.push(contrast);
    }
    // The first checkpoint alone is the zero: a mean of several would split what is learned between them into a change of both.
    let (scale, reference) = (series.scale(0, readout, layer), &contrasts[0]);
    let deltas = contrasts.iter().map(|contrast| contrast.iter().zip(reference).map(|(x, r)| unrounded((x - r) / scale)).collect());
    Ok((deltas.collect(), width))
}

/// The resamples of a concept's pairs.
///
/// # Errors
/// With fewer than two pairs.
pub fn draws(series: &Series, pairs: &Pairs) -> Result<Draws> {
    Draws::with_counts(pairs.groups.len(), series.flips, series.bootstraps, series.seed, &format!("{}/stem", pairs.family.concept))
}

fn measure(series: &Series, pairs: &Pairs, readout: usize, layer: usize) -> Result<Learned> {
    let n = series.points.len();
    let (deltas, width) = deltas(series, pairs, readout, layer)?;
    let grams = deltas.iter().map(|delta| Gram::new(delta, width)).collect::<Result<Vec<_>>>()?;
    let draws = draws(series, pairs)?;
    let along = amplitude(grams[n - 1].u());
    let frozen = deltas
        .iter()
        .map(|delta| Ok((along > 0.0).then_some(Gram::cross(delta, &deltas[n - 1], width)?.u() / along)))
        .collect::<Result<_>>()?;
    Ok(Learned {
        curve: Curve::of_amplitudes(&grams, &draws)?,
        u: grams.iter().map(Gram::u).collect(),
        frozen,
        third: third(&deltas[n - 1], width)?,
    })
}

/// Zero where nothing but rounding is left, as at the embedding of a token that self and others share.
fn unrounded(x: f64) -> f32 {
    if x.abs() < 1e-9 { 0.0 } else { x as f32 }
}

/// `[group, d]`, self minus the mean of the others, of activations as `read` makes them, and d. The numbers are of checkpoint, readout
/// and layer.
///
/// # Errors
/// The store cannot be read.
pub fn self_minus_others(
    series: &Series,
    [t, readout, layer]: [usize; 3],
    pairs: &Pairs,
    read: &dyn Fn(&[f32]) -> Vec<f64>,
) -> Result<(Vec<f64>, usize)> {
    let items: Vec<usize> = pairs.groups.iter().flat_map(|(own, others)| std::iter::once(own).chain(others)).copied().collect();
    let (rows, d) = series.rows(t, readout, layer, &items)?;
    let mut rows = rows.chunks_exact(d).map(read);
    let mut contrast = Vec::with_capacity(pairs.groups.len() * d);
    for (_, others) in &pairs.groups {
        let mut row = rows.next().unwrap_or_default();
        for other in rows.by_ref().take(others.len()) {
            row.iter_mut().zip(other).for_each(|(x, other)| *x -= other / others.len() as f64);
        }
        contrast.extend(row);
    }
    Ok((contrast, d))
}
