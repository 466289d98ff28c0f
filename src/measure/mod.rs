//! The measures: each follows every concept along the series in its own units, writes its own table, and hands its curves to
//! the onset. Measures are never merged.
//!
//! To add one: a file beside these and a line in [`MEASURES`].

pub mod baseline;
pub mod level;
pub mod similarity;
pub mod contrast;
pub mod transfer;
pub mod cluster;
pub mod probes;
pub mod change;
pub mod foils;
pub mod lens;
pub mod placement;
pub mod carried;
pub mod behaviour;
pub mod agreement;
pub mod prediction;
pub mod endogenous;
pub mod persona;
pub mod persistence;
pub mod residual;
pub mod causal;

use crate::emergence::curve::Curve;
use crate::estimate::Estimate;
use crate::series::{Family, Series};
use crate::table::{self, Key};
use anyhow::Result;
use baseline::Baseline;
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
    Measure { name: placement::NAME, run: placement::run },
    Measure { name: behaviour::NAME, run: behaviour::run },
    Measure { name: agreement::NAME, run: agreement::run },
    Measure { name: prediction::NAME, run: prediction::run },
    Measure { name: endogenous::NAME, run: endogenous::run },
    Measure { name: persona::NAME, run: persona::run },
    Measure { name: persistence::NAME, run: persistence::run },
    Measure { name: residual::NAME, run: residual::run },
    Measure { name: causal::NAME, run: causal::run },
];

/// One concept along the series, by one measure at one layer.
#[derive(Debug, Clone)]
pub struct Trace {
    pub measure: &'static str,
    pub concept: String,
    pub label_family: String,
    pub null_bank: bool,
    pub readout: Option<String>,
    /// Layer number; `None` for measures of the model's output.
    pub layer: Option<usize>,
    /// Checkpoints that the curve covers, as indices into the series.
    pub points: Vec<usize>,
    pub curve: Curve,
    /// The same along the direction of the late checkpoints, where the measure has directions: it is dated instead of `curve`
    /// unless the direction turns, because it has less noise.
    pub aligned: Option<Curve>,
    /// Smallest true value of the measure, if it has one.
    pub floor: Option<f64>,
    /// Family-wise p that the concept is there at all, per point; empty for measures without such a test.
    pub max_t: Vec<f64>,
    /// The same for the mean of the late checkpoints, from the same family of tests.
    pub max_t_late: Option<f64>,
    /// The layer with the largest choice is the primary one. Never computed from the groups or items that decide.
    pub choice: f64,
    /// Cosine between the first and the last direction.
    pub cosine: Option<Estimate>,
    /// The same for answers that could stand in this one's place, `[rival][point]`, where the measure has such: the curve is then compared
    /// with them and not with the null bank.
    pub rivals: Vec<Vec<f64>>,
    /// What words, or random weights, reach by the same measure, with replicates that are paired with the curve's.
    pub baseline: Option<Baseline>,
    /// Why there is no curve to speak of; then `curve` may cover few points.
    pub status: Option<&'static str>,
    /// Whether it is a curve along the series. If not, it is one number ([`level`]), and only comparisons of runs have a use for it.
    pub dated: bool,
    /// -1 where the curve is of minus the quantity, so that it rises; runs are compared with the quantity's own sign.
    pub sign: f64,
}

impl Trace {
    /// A curve of a concept over checkpoints `points`, of no layer, and without what only some measures have.
    pub fn new(measure: &'static str, family: &Family, points: Vec<usize>, curve: Curve) -> Self {
        Self {
            measure,
            concept: family.concept.clone(),
            label_family: family.label_family.clone(),
            null_bank: family.null_bank,
            readout: None,
            layer: None,
            points,
            curve,
            aligned: None,
            floor: None,
            max_t: Vec::new(),
            max_t_late: None,
            choice: 0.0,
            cosine: None,
            rivals: Vec::new(),
            baseline: None,
            status: None,
            dated: true,
            sign: 1.0,
        }
    }

    /// The same, read at a layer; both are numbers of the series.
    pub fn at(self, series: &Series, readout: usize, layer: usize) -> Self {
        Self { readout: Some(series.readouts[readout].clone()), layer: Some(series.layers[layer]), ..self }
    }
}

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

/// An estimate as three nullable columns.
pub fn columns(estimate: Option<Estimate>) -> (Option<f64>, Option<f64>, Option<f64>) {
    estimate.map_or((None, None, None), |e| (Some(e.value), Some(e.lower), Some(e.upper)))
}
