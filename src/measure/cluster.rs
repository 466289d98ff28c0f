//! Whether the concepts that are asked about share a direction more than unrelated ones do: `cluster.parquet`.
//!
//! At a few layers the mean contrasts of all crossed concepts are compared in one metric, corrected for noise, and the first
//! eigenvalue of their cosines is held against random sets of as many null concepts. One cause behind many answers would show here.

use super::contrast::{Contrasts, draws, labelled, whitened};
use super::{Trace, columns, spread};
use crate::console::check_interrupt;
use crate::probe::cluster::{Cluster, Direction, cluster};
use crate::series::{Family, Series};
use crate::table::{self, Key};
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "cluster";
pub const TABLE: &str = "cluster.parquet";

/// Layers that are looked at, the last one included.
const LAYERS: usize = 5;

/// One row of `cluster.parquet` behind the keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    pub layer: i32,
    pub readout: String,
    /// `ok`, `too_few_concepts` or `no_bank` (fewer null concepts than are asked about: no band).
    pub status: String,
    /// First eigenvalue of the corrected cosines over the number of concepts.
    pub share: Option<f64>,
    pub share_lower: Option<f64>,
    pub share_upper: Option<f64>,
    /// 2.5%, 50% and 97.5% points over random sets of null concepts.
    pub null_lower: Option<f64>,
    pub null_median: Option<f64>,
    pub null_upper: Option<f64>,
    /// Concepts whose contrast is there (U > 0), asked about and null.
    pub n_concepts: i32,
    pub n_null: i32,
}

/// Writes `cluster.parquet`; it has no curves, since it is about all concepts at once.
///
/// # Errors
/// The store cannot be read or the table cannot be written.
pub fn run(series: &Series) -> Result<Vec<Trace>> {
    let readout = series.readout("last_prompt").unwrap_or(0);
    let families: Vec<&Family> = series.families.iter().filter(|family| family.label_family == "crossed").collect();
    let layers = spread(series.layers.len(), LAYERS.min(series.layers.len()));
    let tasks: Vec<(usize, usize)> = layers.flat_map(|layer| (0..series.points.len()).map(move |t| (t, layer))).collect();
    let rows = tasks.par_iter().map(|&(t, layer)| row(series, &families, readout, t, layer)).collect::<Result<Vec<_>>>()?;
    table::write_keyed(&series.folder.join(TABLE), &rows, &series.run_hash)?;
    Ok(Vec::new())
}

fn row(series: &Series, families: &[&Family], readout: usize, t: usize, layer: usize) -> Result<(Key, Row)> {
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
    let (share, share_lower, share_upper) = columns(found.map(|found| found.share));
    let band = found.and_then(|found| found.null);
    let row = Row {
        layer: series.layers[layer] as i32,
        readout: series.readouts[readout].clone(),
        status: match found {
            None => "too_few_concepts",
            Some(Cluster { null: None, .. }) => "no_bank",
            Some(_) => "ok",
        }
        .to_owned(),
        share,
        share_lower,
        share_upper,
        null_lower: band.map(|[lower, ..]| lower),
        null_median: band.map(|[_, median, _]| median),
        null_upper: band.map(|[.., upper]| upper),
        n_concepts: own.len() as i32,
        n_null: null.len() as i32,
    };
    Ok((series.key(t), row))
}
