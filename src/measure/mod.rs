//! The measures: each follows every concept along the series in its own units, writes its own table, and hands its curves to
//! the onset. Measures are never merged.
//!
//! To add one: a file beside these and a line in [`MEASURES`].

pub mod level;
pub mod foils;
pub mod contrast;
pub mod cluster;
pub mod probes;
pub mod change;
pub mod lens;
pub mod recognition;
pub mod placement;
pub mod behaviour;
pub mod agreement;
pub mod prediction;
pub mod endogenous;
pub mod assistant_axis;
pub mod persistence;
pub mod residual;
pub mod causal;

use crate::onset::trace::Trace;
use crate::series::Series;
use crate::table::{self, Key};
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A measure by name, and what computes and writes it.
pub struct Measure {
    pub name: &'static str,
    /// Writes the measure's tables and returns its curves.
    pub run: fn(&Series) -> Result<Vec<Trace>>,
}

/// All measures, in the order in which they are computed.
pub const MEASURES: &[Measure] = &[
    Measure { name: contrast::NAME, run: contrast::run },
    Measure { name: cluster::NAME, run: cluster::run },
    Measure { name: probes::NAME, run: probes::run },
    Measure { name: change::NAME, run: change::run },
    Measure { name: lens::NAME, run: lens::run },
    Measure { name: recognition::NAME, run: recognition::run },
    Measure { name: placement::NAME, run: placement::run },
    Measure { name: behaviour::NAME, run: behaviour::run },
    Measure { name: agreement::NAME, run: agreement::run },
    Measure { name: prediction::NAME, run: prediction::run },
    Measure { name: endogenous::NAME, run: endogenous::run },
    Measure { name: assistant_axis::NAME, run: assistant_axis::run },
    Measure { name: persistence::NAME, run: persistence::run },
    Measure { name: residual::NAME, run: residual::run },
    Measure { name: causal::NAME, run: causal::run },
];

/// Rows of a measure's table and its curves, as one of its tasks returns them.
pub type Part<R> = (Vec<(Key, R)>, Vec<Trace>);

/// Writes the rows of all parts as one table and returns their curves, in order.
///
/// # Errors
/// The table cannot be written.
pub fn write_parts<R: Serialize + DeserializeOwned>(series: &Series, name: &str, parts: Vec<Part<R>>) -> Result<Vec<Trace>> {
    let (mut rows, mut traces) = (Vec::new(), Vec::new());
    for (part_rows, part_traces) in parts {
        rows.extend(part_rows);
        traces.extend(part_traces);
    }
    table::write_keyed(&series.folder.join(name), &rows, &series.run_hash)?;
    Ok(traces)
}

/// Label families that have a y and are read as contrasts.
pub const CONTRASTED: &[&str] = &["crossed", "control", "frame", "content", "endogenous"];

/// `kept` of `all` layers (by position), evenly spaced, the last one included.
pub fn spread(all: usize, kept: usize) -> impl Iterator<Item = usize> {
    (1..=kept).map(move |layer| layer * all / kept - 1)
}

/// Groups (by position) that choose the primary layer: every third.
pub fn held_out_third(groups: usize) -> impl Iterator<Item = usize> {
    (0..groups).step_by(3)
}
