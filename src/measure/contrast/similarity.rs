//! How alike two checkpoints are: what `contrast` knows about each layer, compared in pairs. `similarity.parquet`.
//!
//! Directions are compared in one metric: activations over the neutral pool's scale, whitened by the spread within groups averaged
//! over all checkpoints. The corrected cosine is null unless both checkpoints pass the family-wise sign-flip test
//! (`p_max_t <= .05` in `trajectory.parquet`): a direction that is not there has no angle. CKA and the angles compare all
//! items of the concept as they are, and need no gate.

use super::delta::{Contrasts, whitened};
use crate::measure::spread;
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::alignment::{Cosine, Directions, centred, cka, debiased, products};
use crate::stats::estimate::Reported;
use crate::stats::subspace::{DIMENSIONS, Subspace};
use crate::table::{self, Table, finite};
use crate::words::Status;
use anyhow::{Result, ensure};
use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

pub const TABLE: Table = Table::keyed::<Similarity>("similarity");
/// Family-wise p up to which a direction is there.
const GATE: f64 = 0.05;
/// Half of a 95% interval in standard errors.
const HALF: f64 = 1.959_963_984_540_054;

/// One row of `similarity.parquet` behind the keys: these are of one checkpoint, and `to_...` are of the other.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Similarity {
    to_checkpoint: String,
    to_step: Option<i64>,
    to_order: i32,
    concept: String,
    label_family: LabelFamily,
    null_bank: bool,
    layer: i32,
    readout: String,
    /// Status of `cos_cv`.
    status: Status,
    /// Cosine of the directions without the noise in them, with a jackknife interval over groups; may exceed 1 by chance.
    cos_cv: Reported,
    /// Cosine of the mean contrasts as they are.
    cos_raw: Option<f64>,
    /// Debiased linear CKA of the items' activations.
    cka: Option<f64>,
    /// The first principal angle, in degrees, between the subspaces of the items' first three principal
    /// components; null where they vary in fewer. Two that have nothing to do with each other are close to 90
    /// degrees apart in all of them.
    angle_1: Option<f64>,
    /// The second of them.
    angle_2: Option<f64>,
    /// The third.
    angle_3: Option<f64>,
    n_groups: i32,
}

/// Two checkpoints, by their position among those with readouts.
#[derive(Clone, Copy)]
pub struct Pair {
    first: usize,
    second: usize,
    cosine: Option<Cosine>,
    cka: Option<f64>,
    angles: Option<[f64; DIMENSIONS]>,
}

/// What is known of a concept's items at one checkpoint, for CKA and for angles; `None` where they do not vary enough.
pub struct Items {
    gram: Option<Vec<f32>>,
    space: Option<Subspace>,
}

impl Items {
    /// From activations `[n, d]`.
    ///
    /// # Errors
    /// When `rows` are not whole.
    pub fn new(rows: &[f32], d: usize) -> Result<Self> {
        ensure!(d > 0 && rows.len().is_multiple_of(d), "{} values are not rows of {d}", rows.len());
        let (centred, squares) = (centred(rows, d), rows.iter().map(|x| f64::from(x * x)).sum());
        let products = products(&centred, d);
        let space = Subspace::new(&centred, &products, d)?;
        Ok(Self { gram: debiased(products, rows.len() / d, squares)?, space })
    }
}

/// Pairs of checkpoints times layers that are compared for each concept: all 31 layers of 25 checkpoints.
const PAIRS: usize = 20_000;

/// Layers, by their number in the store, at which checkpoints are compared in pairs: all of them up to [`PAIRS`] pairs, else as many
/// as fit (at least five), evenly spaced, the last one included.
fn layers(series: &Series) -> Vec<usize> {
    let (all, pairs) = (series.layers.len(), series.points.len() * series.points.len());
    let kept = (PAIRS / pairs).max(5).min(all);
    spread(all, kept).collect()
}

/// Whether pairs are made: for crossed labels, at [`layers`].
pub fn applies(series: &Series, family: &Family, layer: usize) -> bool {
    family.label_family == LabelFamily::Crossed && layers(series).contains(&layer)
}

/// All pairs at one layer from every checkpoint's contrasts, neutral scale, and items.
///
/// # Errors
/// A contrast is not finite.
pub fn compare(contrasts: &[Contrasts], scales: &[f64], items: &[Items], d: usize) -> Result<Vec<Pair>> {
    let n = contrasts.len();
    let mut variance = vec![0f64; d];
    for (contrast, scale) in contrasts.iter().zip(scales) {
        variance.iter_mut().zip(&contrast.variance).for_each(|(sum, v)| *sum += v / (scale * scale) / n as f64);
    }
    let deltas: Vec<Vec<f32>> = contrasts.iter().zip(scales).map(|(c, scale)| whitened(&c.delta, &variance, 1.0 / scale)).collect();
    let directions = if deltas[0].len() >= 3 * d { Some(Directions::new(&deltas, d)?) } else { None };
    let mut pairs = Vec::with_capacity(n * n);
    for first in 0..n {
        for second in 0..n {
            if second < first {
                pairs.push(Pair { first, second, ..pairs[second * n + first] });
                continue;
            }
            let [a, b] = [&items[first], &items[second]];
            pairs.push(Pair {
                first,
                second,
                cosine: directions.as_ref().map(|directions| directions.cosine(first, second)),
                cka: a.gram.as_ref().zip(b.gram.as_ref()).map(|(a, b)| if first == second { 1.0 } else { cka(a, b) }),
                angles: a.space.as_ref().zip(b.space.as_ref()).map(|(a, b)| if first == second { [0.0; DIMENSIONS] } else { a.angles(b) }),
            });
        }
    }
    Ok(pairs)
}

/// All pairs of `n` checkpoints, with nothing to compare.
pub fn none(n: usize) -> Vec<Pair> {
    (0..n * n).map(|pair| Pair { first: pair / n, second: pair % n, cosine: None, cka: None, angles: None }).collect()
}

/// The rows of one layer; `p` is the family-wise p of each checkpoint there.
///
/// # Errors
/// A row cannot be represented.
pub fn rows(
    series: &Series,
    family: &Family,
    readout: usize,
    layer: usize,
    n_groups: usize,
    pairs: &[Pair],
    p: &[f64],
) -> Result<RecordBatch> {
    let there = |t: usize| p.get(t).is_some_and(|&p| p <= GATE);
    let row = |pair: &Pair| {
        let to = series.key(pair.second);
        let passed = there(pair.first) && there(pair.second);
        let cos_cv = pair.cosine.and_then(|cosine| cosine.cross_validated).filter(|_| passed);
        let half = pair.cosine.and_then(|cosine| cosine.error).map(|error| HALF * error);
        let end = |side: f64| cos_cv.zip(half).and_then(|(value, half)| finite(value + side * half));
        let row = Similarity {
            to_checkpoint: to.checkpoint,
            to_step: to.step,
            to_order: to.order,
            concept: family.concept.clone(),
            label_family: family.label_family.clone(),
            null_bank: family.null_bank,
            layer: series.layers[layer] as i32,
            readout: series.readouts[readout].clone(),
            status: match pair.cosine {
                None => Status::TooFewGroups,
                Some(_) if cos_cv.is_none() => Status::GateFail,
                Some(_) => Status::Ok,
            }
            .to_owned(),
            cos_cv: Reported { value: cos_cv.and_then(finite), lower: end(-1.0), upper: end(1.0) },
            cos_raw: pair.cosine.and_then(|cosine| cosine.raw).and_then(finite),
            cka: pair.cka.and_then(finite),
            angle_1: pair.angles.map(|angles| angles[0]),
            angle_2: pair.angles.map(|angles| angles[1]),
            angle_3: pair.angles.map(|angles| angles[2]),
            n_groups: n_groups as i32,
        };
        (series.key(pair.first), row)
    };
    table::keyed(&pairs.iter().map(row).collect::<Vec<_>>())
}
