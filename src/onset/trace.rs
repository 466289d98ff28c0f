//! A measure of one concept along the series, as it is handed to the onset.

use super::baseline::Baseline;
use super::curve::Curve;
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::estimate::Estimate;
use crate::words::Status;

/// What a curve is held against. Other topics are no match for a concept about the self: any post-training moves all that is said of
/// oneself. What nobody taught is one more of its own kind, so only that is a null.
#[derive(Debug, Clone, PartialEq)]
pub enum Null {
    /// Curves of answers that could stand in this one's place, `[foil][point]`, by the same measure.
    Foils(Vec<Vec<f64>>),
    /// The null bank at the same measure, readout and layer, for what is of one kind with it (as in planted series), or is no concept.
    Bank,
    /// Nothing: the status that says why, instead of a date.
    Missing(Status),
}

/// One concept along the series, by one measure at one layer.
#[derive(Debug, Clone)]
pub struct Trace {
    pub measure: &'static str,
    pub concept: String,
    pub label_family: LabelFamily,
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
    /// The layer with the largest choice is the primary one, and is never computed from the groups or items that decide. Of curves with foils
    /// all layers with a choice of 0 or more compete, each choice for the layer at which it stands out most.
    pub choice: f64,
    /// Cosine between the first and the last direction.
    pub cosine: Option<Estimate>,
    /// What the curve would be if nobody taught the concept.
    pub null: Null,
    /// What words, or random weights, reach by the same measure, with replicates that are paired with the curve's.
    pub baseline: Option<Baseline>,
    /// Never primary at any layer: it has no null of its kind by construction, and stands beside measures that have.
    pub companion: bool,
    /// Why there is no curve to speak of; then `curve` may cover few points.
    pub status: Option<Status>,
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
            null: Null::Missing(Status::NoFoils),
            baseline: None,
            companion: false,
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
