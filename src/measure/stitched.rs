//! What middle layers already know about oneself, read by the first checkpoint's own upper blocks ([`crate::walk::stitching`]).
//!
//! Every checkpoint computes up to a layer and the first one goes on from there and answers. Nothing above the layer has learnt anything, so a
//! rise is there because of what the layers below it made of the prompt, at whichever token: a fact about oneself need not have reached the
//! token at which a probe or the lens would look for it. Score = self minus others, answer minus the mean of its foils, as of behaviour
//! ([`super::behaviour`]), which it becomes behind the last block but for the norm and the unembedding. It is a companion of behaviour, not an
//! independent witness: it says by which layer.

use super::behaviour::among;
use super::change::{draws, stems};
use super::foils::Scores;
use super::{Measure, Measured, Part};
use crate::console::check_interrupt;
use crate::onset::trace::{Null, Trace};
use crate::series::Series;
use crate::stats::estimate::Reported;
use crate::table::Table;
use crate::walk::stitching;
use crate::walk::stitching::sheet::Sheet;
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "stitched";
const TABLE: Table = Table::keyed::<Row>("stitched");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };

/// One row of `stitched.parquet` behind the keys; scores are in nats.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    concept: String,
    null_bank: bool,
    /// Up to which the checkpoint itself computes; from there on it is the first one.
    layer: i32,
    answer: Option<String>,
    status: Status,
    /// The answer against the mean of its foils, self minus others.
    stitched: Reported,
    /// Share of the foils whose rise since the first checkpoint is smaller.
    foil_percentile: Option<f64>,
    foil_p: Option<f64>,
    n_foils: i32,
    n_groups: i32,
}

/// Without sheets the table is empty. Where one of the checkpoints has none, or one of other layers or items, concepts have rows without numbers.
fn run(series: &Series) -> Result<Measured> {
    let sheets = series.opened(stitching::FOLDER, |file| Sheet::read(file, &series.items))?;
    let sheets: Vec<Option<Sheet>> = sheets.into_iter().map(Option::flatten).collect();
    let Some(layers) = sheets.iter().rev().flatten().map(|sheet| sheet.layers.clone()).next() else {
        return Measured::of_rows::<Row>(TABLE, &[]);
    };
    let whole: Option<Vec<&Sheet>> = sheets.iter().map(|sheet| sheet.as_ref().filter(|sheet| sheet.layers == layers)).collect();
    let parts = (0..layers.len()).into_par_iter().map(|layer| at_layer(series, whole.as_deref(), layer, layers[layer]));
    Measured::of_parts(TABLE, parts.collect::<Result<Vec<_>>>()?)
}

/// All concepts at one layer, by its number in the sheets.
fn at_layer(series: &Series, sheets: Option<&[&Sheet]>, number: usize, layer: usize) -> Result<Part<Row>> {
    let n = series.points.len();
    let scores = sheets.map(|sheets| {
        let at = |sheet: &&Sheet| (0..series.items.len()).map(|item| sheet.choices(number, item)).collect();
        Scores::of(sheets.iter().map(at).collect())
    });
    let (mut rows, mut traces) = (Vec::new(), Vec::new());
    for pairs in stems(series).iter().filter(|pairs| series.items[pairs.groups[0].0].foils.is_some()) {
        check_interrupt()?;
        let groups: Vec<_> = pairs.groups.iter().collect();
        let among = match &scores {
            Some(scores) => among(&groups, n, scores, &draws(series, pairs)?)?,
            None => None,
        };
        let row = |t: usize| {
            let told = among.as_ref().map(|among| among.told(t)).unwrap_or_default();
            Row {
                concept: pairs.family.concept.clone(),
                null_bank: pairs.family.null_bank,
                layer: layer as i32,
                answer: series.items[pairs.groups[0].0].answer_0.clone(),
                status: if among.is_some() { Status::Ok } else { Status::NotRun },
                stitched: told.score.into(),
                foil_percentile: told.percentile,
                foil_p: told.p,
                n_foils: told.n_foils,
                n_groups: groups.len() as i32,
            }
        };
        rows.extend((0..n).map(|t| (series.key(t), row(t))));
        traces.extend(among.map(|among| {
            let trace = Trace::new(NAME, pairs.family, (0..n).collect(), among.own).named(None, Some(layer));
            Trace { null: Null::Foils(among.foils), ..trace.of_stems() }
        }));
    }
    Ok((rows, traces))
}
