//! The residual of every concept's contrast outside of the assistant axis and the first role components, along the series.
//!
//! The axis comes from the fixed replies, the contrasts from the crossed quartets, so neither can make the other. Both are in the
//! coordinates in which contrasts are whitened. The curve that is dated is the amplitude of what is left at k = 3;
//! the share that is left is a level, which is compared between runs.

mod split;

use super::assistant_axis::Replies;
use super::contrast::{Contrasts, Sides, divisors, labelled, third};
use super::level::Levels;
use super::{Finding, Measure, Measured, Part, joined};
use crate::onset::curve::Curve;
use crate::onset::trace::Trace;
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::Reported;
use crate::stats::gram::Gram;
use crate::stats::role_space::RoleSpace;
use crate::table::{Key, Table, finite};
use crate::words::Status;
use anyhow::{Result, ensure};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use split::Split;

pub const NAME: &str = "residual";
const TABLE: Table = Table::keyed::<Residual>("residual");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// Dimensions that are taken out.
const DIMENSIONS: [usize; 3] = [1, 3, 10];
/// The one that is dated and that hypotheses are held against.
const DATED: usize = 3;
/// The share at that k, as it is compared between runs.
pub const LEVEL: &str = "residual_3";
/// One-sided 5% point of the standard normal: a contrast below it is not there, and nothing is left of nothing.
const GATE: f64 = 1.645;

/// One row of `residual.parquet` behind the keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Residual {
    pub concept: String,
    pub null_bank: bool,
    pub layer: i32,
    pub readout: String,
    /// Dimensions that are taken out: the assistant axis and k - 1 role components.
    pub k: i32,
    pub status: Status,
    /// Squared length that is left, as a share.
    pub residual: Reported,
    /// Lower end of the 95% band over 200 random k-dimensional subspaces of the space of roles.
    pub null_lower: Option<f64>,
    /// Their median.
    pub null_median: Option<f64>,
    /// Upper end of the band.
    pub null_upper: Option<f64>,
    /// Share of these subspaces that leave less.
    pub null_percentile: Option<f64>,
    /// U of the whole contrast.
    pub u: Option<f64>,
    pub n_groups: i32,
}

fn run(series: &Series) -> Result<Measured> {
    let replies = Replies::of(series).filter(Replies::suffice);
    let families = series.families.iter().filter(|family| family.label_family == LabelFamily::Crossed && replies.is_some());
    let asked: Vec<Asked> = families.flat_map(|family| Asked::of(series, family)).collect::<Result<_>>()?;
    let mut parts = Vec::new();
    for layer in 0..series.layers.len() {
        let Some(replies) = &replies else { break };
        // Every contrast at a layer shares the spaces of its checkpoints.
        let points: Vec<usize> = (0..series.points.len()).collect();
        let spaces = points.par_iter().map(|&t| replies.space(series, t, layer)).collect::<Result<Vec<_>>>()?;
        parts.extend(asked.par_iter().map(|asked| asked.at_layer(series, &spaces, layer)).collect::<Result<Vec<_>>>()?);
    }
    let (rows, traces) = joined(parts);
    let findings = rows.iter().filter(|(_, row)| row.k == DATED as i32).map(finding).collect();
    Ok(Measured { traces, findings, ..Measured::of_rows(TABLE, &rows)? })
}

fn finding((key, row): &(Key, Residual)) -> Finding {
    Finding {
        checkpoint: key.checkpoint.clone(),
        concept: row.concept.clone(),
        null_bank: row.null_bank,
        part: LEVEL,
        layer: Some(row.layer),
        readout: Some(row.readout.clone()),
        status: row.status,
        estimate: row.residual.estimate(),
        null: row.null_lower.zip(row.null_upper).map(<[f64; 2]>::from),
        contexts: usize::MAX,
        ..Finding::default()
    }
}

/// A concept's contrasts at one readout.
struct Asked<'a> {
    family: &'a Family,
    readout: usize,
    sides: Vec<Sides>,
    items: Vec<usize>,
    key: String,
    draws: Draws,
}

impl<'a> Asked<'a> {
    /// One per readout that all items have.
    fn of(series: &Series, family: &'a Family) -> Vec<Result<Self>> {
        let key = format!("{}/{}", family.concept, family.label_family);
        let covered =
            |readout: &usize, items: &[usize]| (0..series.points.len()).all(|t| items.iter().all(|&item| series.has(t, *readout, item)));
        let of = |readout: usize| {
            let (ids, sides, items) = labelled(series, family);
            if ids.len() < 2 || !covered(&readout, &items) {
                return None;
            }
            let draws = Draws::with_counts(ids.len(), series.flips, series.bootstraps, series.seed, &key);
            Some(draws.map(|draws| Self { family, readout, sides, items, key: key.clone(), draws }))
        };
        (0..series.readouts.len()).filter_map(of).collect()
    }

    fn at_layer(&self, series: &Series, spaces: &[RoleSpace], layer: usize) -> Result<Part<Residual>> {
        let Self { family, readout, sides, items, key, draws } = self;
        let (readout, n) = (*readout, series.points.len());
        let (mut rows, mut outside, mut choice) = (Vec::new(), Vec::new(), f64::NEG_INFINITY);
        let mut levels = Levels::new(n);
        for (t, space) in spaces.iter().enumerate() {
            let (activations, d) = series.rows(t, readout, layer, items)?;
            ensure!(space.d == d, "{}: replies have d_model {}, contrasts {d}", series.points[t].id, space.d);
            let contrasts = Contrasts::new(&activations, d, sides);
            let delta = contrasts.whitened();
            let scale: Vec<f64> = divisors(&contrasts.variance).iter().map(|divisor| 1.0 / divisor).collect();
            let basis = space.basis(&scale);
            let empty = |k: usize, status: Status| Residual {
                concept: family.concept.clone(),
                null_bank: family.null_bank,
                layer: series.layers[layer] as i32,
                readout: series.readouts[readout].clone(),
                k: k as i32,
                status,
                n_groups: sides.len() as i32,
                ..Residual::default()
            };
            if basis.is_empty() {
                // Contexts leave no trace here, as in the embedding of a token.
                levels.push(t, LEVEL, Err(Status::NoAxis));
                rows.extend(DIMENSIONS.map(|k| (series.key(t), empty(k, Status::NoAxis))));
                continue;
            }
            let gram = Gram::new(&delta, d)?;
            let there = gram.u() > GATE * gram.flip_sd();
            let split = Split::new(&delta, d, &basis, draws)?;
            for k in DIMENSIONS {
                let u = finite(gram.u());
                let found = if there { Some(split.residual(k, draws, series.seed, key)?) } else { None };
                if k == DATED {
                    let ratio = found.as_ref().map(|found| found.ratio.as_ref().ok_or(Status::NoAxis));
                    levels.push(t, LEVEL, ratio.unwrap_or(Err(Status::GateFail)));
                }
                let Some(found) = found else {
                    rows.push((series.key(t), Residual { u, ..empty(k, Status::GateFail) }));
                    continue;
                };
                let ratio = found.ratio.and_then(|ratio| ratio.estimate());
                let null = |at: usize| found.null.map(|null| null[at]);
                let row = Residual {
                    residual: ratio.into(),
                    null_lower: null(0),
                    null_median: null(1),
                    null_upper: null(2),
                    null_percentile: found.percentile,
                    u,
                    ..empty(k, if ratio.is_some() { Status::Ok } else { Status::NoAxis })
                };
                rows.push((series.key(t), row));
            }
            outside.push(Gram::new(&split.outside(DATED.min(basis.len())), d)?);
            choice = third(&delta, d)?;
        }
        let mut traces = Vec::new();
        if outside.len() == n {
            let trace = Trace::new(NAME, family, (0..n).collect(), Curve::of_amplitudes(&outside, draws)?).at(series, readout, layer);
            traces.push(Trace { floor: Some(0.0), choice, ..trace });
        }
        traces.extend(levels.traces(family).into_iter().map(|level| Trace { choice, ..level.at(series, readout, layer) }));
        Ok((rows, traces))
    }
}
