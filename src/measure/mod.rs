//! The measures: each follows every concept along the series in its own units, and hands over its table, its curves, which the onset
//! dates, and the numbers that hypotheses are held against. Measures are never merged.
//!
//! To add one: a file beside these, its `mod` line and a line in [`MEASURES`].

pub mod measured;
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
pub mod stitched;
pub mod agreement;
pub mod prediction;
pub mod endogenous;
pub mod assistant_axis;
pub mod persistence;
pub mod residual;
pub mod causal;
pub mod introspection;
pub mod talks;
pub mod dictionary;

use crate::prompt::label_family::LabelFamily;

pub use measured::{Finding, Measure, Measured, Part, joined};

/// All measures, in the order in which they are computed.
pub const MEASURES: &[Measure] = &[
    contrast::MEASURE,
    cluster::MEASURE,
    probes::MEASURE,
    change::MEASURE,
    lens::MEASURE,
    recognition::MEASURE,
    placement::MEASURE,
    behaviour::MEASURE,
    stitched::MEASURE,
    agreement::MEASURE,
    prediction::MEASURE,
    endogenous::MEASURE,
    assistant_axis::MEASURE,
    persistence::MEASURE,
    residual::MEASURE,
    causal::MEASURE,
    introspection::MEASURE,
    talks::context::MEASURE,
    talks::replay::MEASURE,
    talks::conversation::MEASURE,
    dictionary::MEASURE,
];

/// Label families that have a y and are read as contrasts.
pub const CONTRASTED: &[LabelFamily] =
    &[LabelFamily::Crossed, LabelFamily::Control, LabelFamily::Frame, LabelFamily::Content, LabelFamily::Endogenous];

/// `kept` of `all` layers (by position), evenly spaced, the last one included.
pub fn spread(all: usize, kept: usize) -> impl Iterator<Item = usize> {
    (1..=kept).map(move |layer| layer * all / kept - 1)
}

/// Groups (by position) that choose the primary layer: every third.
pub fn held_out_third(groups: usize) -> impl Iterator<Item = usize> {
    (0..groups).step_by(3)
}
