//! Linear probes, refitted at every checkpoint and layer: what most readers look for first. `probes.parquet`.
//!
//! Held out are groups, templates or lexicons, never items. The ruler is native (refitted at each checkpoint) or frozen (the last
//! checkpoint's probe, on groups that it has not seen). The logistic probe over groups is the one that is dated; it alone has
//! a selectivity, a codelength and a frozen ruler, and is handed to `transfer`.

mod set;
mod transfer;

use super::contrast::similarity;
use super::{CONTRASTED, Measure, Measured};
use crate::console::check_interrupt;
use crate::onset::curve::Curve;
use crate::onset::trace::Trace;
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::stats::estimate::{Reported, Sampled};
use crate::stats::evaluate::{Evaluation, Scale, accuracy, evaluate};
use crate::stats::folds::INNER;
use crate::stats::kernel::{Design, Split};
use crate::stats::logistic::{self, Held};
use crate::stats::{mass_mean, online};
use crate::table::{self, Key, Table, finite};
use crate::words::Status;
use anyhow::Result;
use arrow::array::RecordBatch;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use set::Set;
use transfer::Native;

pub const NAME: &str = "probe";
const TABLE: Table = Table::keyed::<ProbeRow>("probes");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE, transfer::TABLE], run };

/// What is held out, by the column that names it: all probes over groups, [`Probe::everywhere`] over the others.
const SPLITS: [&str; 3] = ["group", "template", "lexicon"];

/// A probe by name.
struct Probe {
    name: &'static str,
    scale: Scale,
    /// Whether it is also cross-validated over templates and lexicons.
    everywhere: bool,
    /// Held-out scores, `None` where a training set has one label only.
    held_out: fn(&Cell) -> Result<Option<Outcome>>,
}

/// To add a probe: a line here.
const PROBES: &[Probe] = &[
    Probe {
        name: "logistic",
        scale: Scale::LogOdds,
        everywhere: true,
        held_out: |cell| {
            let held = logistic::held_out_by(cell.splits, &cell.set.labels, &cell.set.groups, cell.inner)?;
            Ok(held.map(|mut held| Outcome { scores: std::mem::take(&mut held.scores), logistic: Some(held) }))
        },
    },
    Probe {
        name: "mass_mean",
        scale: Scale::Margin,
        everywhere: true,
        held_out: |cell| Ok(mass_mean::held_out(cell.design, cell.splits, &cell.set.labels)?.map(Outcome::from)),
    },
    Probe {
        name: "mass_mean_cov",
        scale: Scale::Margin,
        everywhere: false,
        held_out: |cell| Ok(mass_mean::whitened_held_out(cell.splits, &cell.set.labels)?.map(Outcome::from)),
    },
];

/// What a probe is given.
struct Cell<'a> {
    design: &'a Design<'a>,
    splits: &'a [Split],
    set: &'a Set<'a>,
    /// Inner folds by which a penalty is chosen: all over groups, one over templates and lexicons.
    inner: usize,
}

/// What a probe found.
struct Outcome {
    scores: Vec<f64>,
    /// Penalties and fits, without the scores.
    logistic: Option<Held>,
}

impl From<Vec<f64>> for Outcome {
    fn from(scores: Vec<f64>) -> Self {
        Self { scores, logistic: None }
    }
}

/// One row of `probes.parquet` behind the keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct ProbeRow {
    concept: String,
    label_family: LabelFamily,
    null_bank: bool,
    layer: i32,
    readout: String,
    /// `logistic`, `mass_mean` or `mass_mean_cov` (with the covariance within classes).
    probe: String,
    /// What is held out: `group`, `template` or `lexicon`.
    split: String,
    /// `native`: refitted here; `frozen`: the last checkpoint's.
    ruler: String,
    status: Status,
    auroc: Reported,
    accuracy: Reported,
    /// Mean squared error of its probabilities; null for probes without any.
    brier: Option<f64>,
    /// What the same logistic probe reaches over groups on the items' mean input embeddings.
    embedding_auroc: Option<f64>,
    reinitialised_auroc: Option<f64>,
    /// AUROC minus the best baseline: counts of words, lengths, mean embeddings, random weights.
    excess_auc: Option<f64>,
    /// The same probe's accuracy on control labels.
    control_accuracy: Option<f64>,
    /// `accuracy` minus `control_accuracy`.
    selectivity: Option<f64>,
    /// Online codelength of the labels; without a probe it would be `n`.
    mdl_bits: Option<f64>,
    n: i32,
    n_groups: i32,
}

/// What one layer contributes.
struct Part {
    rows: RecordBatch,
    transfer: Option<RecordBatch>,
    trace: Option<Trace>,
}

/// The curves are those of the logistic probe's AUROC.
fn run(series: &Series) -> Result<Measured> {
    let families = series.families.iter().filter(|family| CONTRASTED.contains(&family.label_family));
    let sets = families.collect::<Vec<_>>().into_par_iter().map(|family| Set::new(series, family)).collect::<Result<Vec<_>>>()?;
    let read = |set: &Set, readout: usize| (0..series.points.len()).all(|t| set.items.iter().all(|&item| series.has(t, readout, item)));
    let mut tasks: Vec<(&Set, usize, usize)> = Vec::new();
    for set in &sets {
        for readout in (0..series.readouts.len()).filter(|&readout| read(set, readout)) {
            tasks.extend((0..series.layers.len()).map(|layer| (set, readout, layer)));
        }
    }
    let parts = tasks.par_iter().map(|&(set, readout, layer)| at_layer(series, set, readout, layer)).collect::<Result<Vec<_>>>()?;
    let (mut rows, mut transfer, mut traces) = (Vec::new(), Vec::new(), Vec::new());
    for part in parts {
        rows.push(part.rows);
        transfer.extend(part.transfer);
        traces.extend(part.trace);
    }
    let tables = vec![TABLE.filled(rows)?, transfer::TABLE.filled(transfer)?];
    Ok(Measured { tables, traces, ..Measured::default() })
}

impl Set<'_> {
    fn row(&self, series: &Series, (readout, layer): (usize, usize), [probe, split, ruler]: [&str; 3], status: Status) -> ProbeRow {
        ProbeRow {
            concept: self.family.concept.clone(),
            label_family: self.family.label_family.clone(),
            null_bank: self.family.null_bank,
            layer: series.layers[layer] as i32,
            readout: series.readouts[readout].clone(),
            probe: probe.to_owned(),
            split: split.to_owned(),
            ruler: ruler.to_owned(),
            status,
            n: self.items.len() as i32,
            n_groups: self.n_groups as i32,
            ..ProbeRow::default()
        }
    }

    fn evaluated(&self, row: ProbeRow, evaluation: &Evaluation, t: usize, random: Option<&Sampled>) -> ProbeRow {
        let auroc = evaluation.auroc.map(|auroc| auroc.value);
        let mut row = ProbeRow {
            status: if auroc.is_some() { Status::Ok } else { Status::DegenerateLabel },
            brier: evaluation.brier.map(|brier| brier.value),
            embedding_auroc: self.words.embedding(t),
            reinitialised_auroc: random.map(|baseline| baseline.value),
            excess_auc: auroc.zip(self.words.best(t, random)).map(|(auroc, baseline)| auroc - baseline.value),
            ..row
        };
        row.auroc = evaluation.auroc.into();
        row.accuracy = evaluation.accuracy.into();
        row
    }
}

fn at_layer(series: &Series, set: &Set, readout: usize, layer: usize) -> Result<Part> {
    let n = series.points.len();
    let paired = similarity::applies(series, set.family, layer);
    let random = set::of_random_weights(series, set, readout, layer)?;
    let (mut rows, mut native): (Vec<(Key, ProbeRow)>, Vec<Option<Native>>) = (Vec::new(), Vec::new());
    let mut areas = Vec::new();
    for t in 0..n {
        check_interrupt()?;
        let mut at = At { random: random.as_ref(), ..At::new(series, set, (readout, layer), t)? };
        for (index, split) in SPLITS.into_iter().enumerate() {
            at.split(index, split)?;
        }
        rows.extend(at.rows.into_iter().map(|row| (series.key(t), row)));
        if let Some(Sampled { value, replicates }) = at.auroc {
            // A resample without both labels says nothing; the observed value stands in for it.
            let replicates = replicates.into_iter().map(|area| if area.is_finite() { area } else { value }).collect();
            areas.push(Sampled { value, replicates });
        }
        native.push(at.native);
    }
    let fold = set.folds[0].as_deref().unwrap_or_default();
    let (frozen, transfer) = transfer::at_layer(series, set, (readout, layer), fold, &native, paired)?;
    for (t, scores) in frozen.iter().enumerate() {
        let row = |status| set.row(series, (readout, layer), ["logistic", "group", "frozen"], status);
        let row = match (scores, &set.draws) {
            (Some(scores), Some(draws)) => {
                set.evaluated(row(Status::Ok), &evaluate(scores, &set.labels, &set.groups, Scale::LogOdds, draws)?, t, random.as_ref())
            }
            _ => row(set.absent(0)),
        };
        rows.push((series.key(t), row));
    }
    let trace = match native.last() {
        Some(Some(last)) if areas.len() == n => {
            let trace = Trace::new(NAME, set.family, (0..n).collect(), Curve::of_sampled(&areas)?).at(series, readout, layer);
            Some(Trace { choice: set.choice(&last.scores)?, baseline: set.words.best(n - 1, random.as_ref()), ..trace })
        }
        _ => None,
    };
    Ok(Part { rows: table::keyed(&rows)?, transfer, trace })
}

/// One checkpoint and layer, probe by probe.
struct At<'a> {
    series: &'a Series,
    set: &'a Set<'a>,
    /// Readout and layer.
    place: (usize, usize),
    checkpoint: usize,
    activations: Vec<f32>,
    d: usize,
    /// What random weights reach at the layer.
    random: Option<&'a Sampled>,
    /// All items under one kernel; `None` where there is nothing to fit.
    whole: Option<Split>,
    rows: Vec<ProbeRow>,
    /// The logistic probe over groups: its area with replicates, and its fits.
    auroc: Option<Sampled>,
    native: Option<Native>,
}

impl<'a> At<'a> {
    fn new(series: &'a Series, set: &'a Set, place: (usize, usize), checkpoint: usize) -> Result<Self> {
        let (readout, layer) = place;
        let (activations, d) = series.rows(checkpoint, readout, layer, &set.items)?;
        let whole = if set.draws.is_some() { Some(Design::new(&activations, d)?.whole()) } else { None };
        Ok(Self { series, set, place, checkpoint, activations, d, random: None, whole, rows: Vec::new(), auroc: None, native: None })
    }

    /// Every probe with entry `index` of [`SPLITS`] held out.
    fn split(&mut self, index: usize, split: &str) -> Result<()> {
        let set = self.set;
        let probes = || PROBES.iter().filter(|probe| index == 0 || probe.everywhere);
        let all = self.whole.take();
        let (Some(fold), Some(draws), Some(whole)) = (&set.folds[index], &set.draws, &all) else {
            let status = set.absent(index);
            self.rows.extend(probes().map(|probe| set.row(self.series, self.place, [probe.name, split, "native"], status)));
            self.whole = all;
            return Ok(());
        };
        let activations = std::mem::take(&mut self.activations);
        let design = Design::new(&activations, self.d)?;
        let splits = whole.folds(fold)?;
        let inner = if index == 0 { INNER } else { 1 };
        for probe in probes() {
            let row = |status| set.row(self.series, self.place, [probe.name, split, "native"], status);
            let outcome = match (probe.held_out)(&Cell { design: &design, splits: &splits, set, inner }) {
                Ok(Some(outcome)) => outcome,
                Ok(None) => {
                    self.rows.push(row(Status::DegenerateLabel));
                    continue;
                }
                Err(error) => {
                    self.warn(&error);
                    self.rows.push(row(Status::Failed));
                    continue;
                }
            };
            let evaluation = evaluate(&outcome.scores, &set.labels, &set.groups, probe.scale, draws)?;
            let mut row = set.evaluated(row(Status::Ok), &evaluation, self.checkpoint, self.random);
            if let (0, Some(held)) = (index, &outcome.logistic) {
                match self.beside(whole, &splits, &held.lambdas) {
                    Ok((control, bits)) => {
                        row.control_accuracy = control;
                        row.selectivity = row.accuracy.value.zip(control).map(|(real, control)| real - control);
                        row.mdl_bits = finite(bits);
                    }
                    Err(error) => self.warn(&error),
                }
                self.auroc = evaluation.auroc.map(|auroc| Sampled { value: auroc.value, replicates: evaluation.auroc_replicates });
                let linear = held.fits.iter().zip(&splits).map(|(fit, split)| fit.linear(&design, split)).collect();
                self.native = Some(Native { linear, scores: outcome.scores });
            }
            self.rows.push(row);
        }
        (self.activations, self.whole) = (activations, all);
        Ok(())
    }
    /// Accuracy on the control labels, with the penalties of the real ones, and the codelength in bits.
    fn beside(&self, whole: &Split, splits: &[Split], lambdas: &[f64]) -> Result<(Option<f64>, f64)> {
        let set = self.set;
        let of_control = |control: &Vec<bool>| -> Result<Option<f64>> {
            let scores = logistic::held_out_at(splits, control, lambdas)?;
            Ok(scores.and_then(|scores| accuracy(&scores, control, &vec![1.0; control.len()], Scale::LogOdds)))
        };
        let control = set.control.as_ref().map(of_control).transpose()?.flatten();
        Ok((control, online::codelength(whole, &set.labels, &set.groups, &set.order)?))
    }

    fn warn(&self, error: &anyhow::Error) {
        let (_, layer) = self.place;
        let (id, layer) = (&self.series.points[self.checkpoint].id, self.series.layers[layer]);
        tracing::warn!("{id}, {}, layer {layer}: {error:#}", self.set.family.concept);
    }
}
