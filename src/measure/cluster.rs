//! Whether the concepts that are asked about share a direction more than unrelated ones do: `cluster.parquet`.
//!
//! At a few layers the mean contrasts of all crossed concepts are compared in one metric, corrected for noise, and the first
//! eigenvalue of their cosines is held against random sets of as many null concepts. One cause behind many answers would show here.

use super::contrast::{Contrasts, draws, labelled, whitened};
use super::level::Levels;
use super::{Finding, Measure, Measured, spread};
use crate::console::check_interrupt;
use crate::onset::trace::Trace;
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::estimate::{Reported, Sampled};
use crate::stats::shared_direction::{Cluster, Direction, cluster};
use crate::table::{Key, Table};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "cluster";
const TABLE: Table = Table::keyed::<Row>("cluster");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };

/// What its level is a level of.
const ALL: &str = "all";

/// Layers that are looked at, the last one included.
const LAYERS: usize = 5;

/// One row of `cluster.parquet` behind the keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    pub layer: i32,
    pub readout: String,
    /// `ok`, `too_few_concepts` or `no_bank` (fewer null concepts than are asked about: no band).
    pub status: Status,
    /// First eigenvalue of the corrected cosines over the number of concepts.
    pub share: Reported,
    /// 2.5% point over random sets of null concepts.
    pub null_lower: Option<f64>,
    /// Their median.
    pub null_median: Option<f64>,
    /// Their 97.5% point.
    pub null_upper: Option<f64>,
    /// Concepts that are asked about and whose contrast is there (U > 0).
    pub n_concepts: i32,
    /// The same of null concepts.
    pub n_null: i32,
}

/// It has no curves, since it is about all concepts at once, but a level per layer, which is compared between runs. The middle one of the
/// layers is the primary one: nothing but the shares themselves could choose it.
fn run(series: &Series) -> Result<Measured> {
    let Some(readout) = series.last_prompt(NAME) else { return Measured::of_rows::<Row>(TABLE, &[]) };
    let families: Vec<&Family> = series.families.iter().filter(|family| family.label_family == LabelFamily::Crossed).collect();
    let layers: Vec<usize> = spread(series.layers.len(), LAYERS.min(series.layers.len())).collect();
    let n = series.points.len();
    let tasks: Vec<(usize, usize)> = layers.iter().flat_map(|&layer| (0..n).map(move |t| (t, layer))).collect();
    let found = tasks.par_iter().map(|&(t, layer)| row(series, &families, readout, t, layer)).collect::<Result<Vec<_>>>()?;
    let all = Family::named(ALL, LabelFamily::Crossed);
    let mut traces = Vec::new();
    for (position, (layer, found)) in layers.iter().zip(found.chunks_exact(n)).enumerate() {
        let mut levels = Levels::new(n);
        for (t, (.., share)) in found.iter().enumerate() {
            levels.push(t, NAME, share.as_ref().ok_or(Status::TooFewConcepts));
        }
        let choice = -(position.abs_diff(layers.len() / 2) as f64);
        traces.extend(levels.traces(&all).into_iter().map(|level| Trace { choice, ..level.at(series, readout, *layer) }));
    }
    let rows: Vec<(Key, Row)> = found.into_iter().map(|(key, row, _)| (key, row)).collect();
    let finding = |(key, row): &(Key, Row)| Finding {
        checkpoint: key.checkpoint.clone(),
        part: NAME,
        layer: Some(row.layer),
        status: row.status,
        estimate: row.share.estimate(),
        null: row.null_lower.zip(row.null_upper).map(<[f64; 2]>::from),
        contexts: usize::MAX,
        ..Finding::default()
    };
    let findings = rows.iter().map(finding).collect();
    Ok(Measured { traces, findings, ..Measured::of_rows(TABLE, &rows)? })
}

fn row(series: &Series, families: &[&Family], readout: usize, t: usize, layer: usize) -> Result<(Key, Row, Option<Sampled>)> {
    check_interrupt()?;
    let mut contrasts: Vec<(&Family, Contrasts, usize)> = Vec::new();
    for family in families {
        let (ids, sides, items) = labelled(series, family);
        if ids.len() >= 2 && items.iter().all(|&item| series.has(t, readout, item)) {
            let (rows, d) = series.rows(t, readout, layer, &items)?;
            contrasts.push((family, Contrasts::new(&rows, d, &sides), ids.len()));
        }
    }
    // One metric for all: the spread within groups, averaged over concepts.
    let d = contrasts.first().map_or(0, |(_, contrast, _)| contrast.variance.len());
    let mut variance = vec![0f64; d];
    for (_, contrast, _) in &contrasts {
        variance.iter_mut().zip(&contrast.variance).for_each(|(sum, v)| *sum += v / contrasts.len() as f64);
    }
    let (mut own, mut null) = (Vec::new(), Vec::new());
    for (family, contrast, groups) in &contrasts {
        let delta = whitened(&contrast.delta, &variance, 1.0);
        let direction = Direction::new(&delta, d, &draws(series, family, *groups)?, !family.null_bank)?;
        if direction.is_there() {
            if family.null_bank { &mut null } else { &mut own }.push(direction);
        }
    }
    let found = cluster(&own.iter().collect::<Vec<_>>(), &null.iter().collect::<Vec<_>>(), series.seed);
    let band = found.as_ref().and_then(|found| found.null);
    let mut row = Row {
        layer: series.layers[layer] as i32,
        readout: series.readouts[readout].clone(),
        status: match &found {
            None => Status::TooFewConcepts,
            Some(Cluster { null: None, .. }) => Status::NoBank,
            Some(_) => Status::Ok,
        }
        .to_owned(),
        null_lower: band.map(|[lower, ..]| lower),
        null_median: band.map(|[_, median, _]| median),
        null_upper: band.map(|[.., upper]| upper),
        n_concepts: own.len() as i32,
        n_null: null.len() as i32,
        ..Row::default()
    };
    row.share = found.as_ref().map(|found| found.share).into();
    let share = found.map(|found| Sampled { value: found.share.value, replicates: found.replicates });
    Ok((series.key(t), row, share))
}
