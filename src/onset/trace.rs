//! A measure of one concept along the series, as it is handed to the onset.

use super::curve::Curve;
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::estimate::{Estimate, Sampled};
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

/// What a curve is of, and where it is read; equal in runs that are compared.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub measure: &'static str,
    pub null_bank: bool,
    pub concept: String,
    pub label_family: LabelFamily,
    pub readout: Option<String>,
    /// Layer number; `None` for measures of the model's output.
    pub layer: Option<usize>,
}

/// What a curve is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// As `Dated`, by a measure that a reader looks at first, named before anything is seen: what the model says, and what its unembedding
    /// reads there. These may spend the larger part of the level.
    Named,
    /// It is dated, and may be the primary one of its measure.
    Dated,
    /// Never primary at any layer: it has no null of its kind by construction, and stands beside measures that have.
    Companion,
    /// One number and no curve along the series: only comparisons of runs have a use for it.
    Level,
}

/// Family-wise p that a concept is there at all.
#[derive(Debug, Clone, PartialEq)]
pub struct Presence {
    pub points: Vec<f64>,
    /// The same for the mean of the late checkpoints, from the same family of tests.
    pub late: f64,
}

/// One concept along the series, by one measure at one layer.
#[derive(Debug, Clone)]
pub struct Trace {
    pub place: Place,
    pub role: Role,
    /// Why there is no curve to speak of; then `curve` may cover few points.
    pub status: Option<Status>,
    /// Checkpoints that the curve covers, as indices into the series.
    pub points: Vec<usize>,
    pub curve: Curve,
    /// The same along the direction of the late checkpoints, where the measure has directions: it is dated instead of `curve`
    /// unless the direction turns, because it has less noise.
    pub aligned: Option<Curve>,
    /// Cosine between the first and the last direction.
    pub cosine: Option<Estimate>,
    /// Smallest true value of the measure, if it has one.
    pub floor: Option<f64>,
    /// -1 where the curve is of minus the quantity, so that it rises; runs are compared with the quantity's own sign.
    pub sign: f64,
    /// The layer with the largest choice is the primary one, and is never computed from the groups or items that decide. Of curves with foils
    /// all layers with a choice of 0 or more compete, each choice for the layer at which it stands out most.
    pub choice: f64,
    /// What the curve would be if nobody taught the concept.
    pub null: Null,
    /// What words, or random weights, reach by the same measure, with replicates that are paired with the curve's.
    pub baseline: Option<Sampled>,
    /// `None` for measures without such a test.
    pub presence: Option<Presence>,
}

impl Trace {
    /// A curve of a concept over checkpoints `points`, of no layer, and without what only some measures have.
    pub fn new(measure: &'static str, family: &Family, points: Vec<usize>, curve: Curve) -> Self {
        Self {
            place: Place {
                measure,
                null_bank: family.null_bank,
                concept: family.concept.clone(),
                label_family: family.label_family.clone(),
                readout: None,
                layer: None,
            },
            role: Role::Dated,
            status: None,
            points,
            curve,
            aligned: None,
            cosine: None,
            floor: None,
            sign: 1.0,
            choice: 0.0,
            null: Null::Missing(Status::NoFoils),
            baseline: None,
            presence: None,
        }
    }

    /// The same, read at a layer; both are numbers of the series.
    pub fn at(self, series: &Series, readout: usize, layer: usize) -> Self {
        self.named(Some(series.readouts[readout].clone()), Some(series.layers[layer]))
    }

    /// The same, read at a readout and layer of these names.
    pub fn named(self, readout: Option<String>, layer: Option<usize>) -> Self {
        Self { place: Place { readout, layer, ..self.place }, ..self }
    }

    /// The same, of stems, whoever they are about.
    pub fn of_stems(self) -> Self {
        Self { place: Place { label_family: LabelFamily::Stem, ..self.place }, ..self }
    }
}
