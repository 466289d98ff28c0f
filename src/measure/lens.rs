//! What the residual stream already says about oneself: the logit lens (nostalgebraist 2020) on answer stems.
//!
//! At every layer the residual at "My name is" is read with the first checkpoint's final norm and unembedding, for the answer
//! that is asked about and for its foils, and so is that at "The gardener's name is". Score = self minus others, answer minus
//! the mean of its foils. The ruler is frozen, so nothing but the residual can move it, and the null is the foils' own
//! ([`super::foils`]).

use super::change::{Pairs, draws, self_minus_others, stems};
use super::foils::{Among, correlation};
use super::{Measure, Measured, Part};
use crate::console::check_interrupt;
use crate::onset::gate::reference_and_late;
use crate::onset::reach::rises;
use crate::onset::trace::{Null, Role, Trace};
use crate::prompt::concept::FEWEST_FOILS;
use crate::series::{Lens, Series};
use crate::stats::estimate::Reported;
use crate::table::{Key, Table};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub const NAME: &str = "lens";
const TABLE: Table = Table::keyed::<Row>("lens");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// Correlation with the rises at the last layer from which a layer can be read.
const READS: f64 = 0.5;

/// One row of `lens.parquet` behind the keys; scores are in nats, as of logits.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    concept: String,
    null_bank: bool,
    layer: i32,
    readout: String,
    answer: Option<String>,
    status: Status,
    /// Answer against foils, self against others.
    lens: Reported,
    /// Share of the foils whose rise since the first checkpoint is smaller.
    foil_percentile: Option<f64>,
    foil_p: Option<f64>,
    n_foils: i32,
    n_groups: i32,
}

/// Concepts whose stems have foils.
fn run(series: &Series) -> Result<Measured> {
    let pairs: Vec<Pairs> = stems(series).into_iter().filter(|pairs| series.items[pairs.groups[0].0].foils.is_some()).collect();
    let Some(readout) = series.last_prompt(NAME) else { return Measured::of_rows::<Row>(TABLE, &[]) };
    let lens = series.lens(0)?;
    let layers: Vec<usize> = (0..series.layers.len()).collect();
    let found = layers
        .par_iter()
        .map(|&layer| {
            let at = |pairs: &Pairs| {
                check_interrupt()?;
                concept(series, lens.as_ref(), pairs, readout, layer)
            };
            pairs.iter().map(at).collect::<Result<Vec<_>>>()
        })
        .collect::<Result<Vec<_>>>()?;
    let last: Vec<Vec<f64>> = found.last().map_or_else(Vec::new, |places| places.iter().map(|place| place.rises.clone()).collect());
    let mut parts: Vec<Part<Row>> = Vec::new();
    for (&layer, places) in layers.iter().zip(found) {
        for ((pairs, place), last) in pairs.iter().zip(places).zip(&last) {
            let choice = choice(&place.rises, last);
            let trace = place.among.map(|Among { own, foils }| {
                let trace = Trace::new(NAME, pairs.family, (0..series.points.len()).collect(), own).at(series, readout, layer);
                let null = if place.told_apart { Null::Foils(foils) } else { Null::Missing(Status::FoilsNotToldApart) };
                Trace { role: Role::Named, choice, null, ..trace.of_stems() }
            });
            parts.push((place.rows, trace.into_iter().collect()));
        }
    }
    Measured::of_parts(TABLE, parts)
}

/// The layers that compete to be primary are those that the unembedding can read: before these, the lens
/// orders the choices otherwise than it does at the last layer (Belrose et al. 2023, arXiv 2303.08112).
fn choice(rises: &[f64], last: &[f64]) -> f64 {
    let correlation = correlation(rises, last);
    if correlation >= READS { 0.0 } else { correlation - 1.0 }
}

/// A concept at one layer.
struct Place {
    rows: Vec<(Key, Row)>,
    among: Option<Among>,
    /// Whether enough foils differ from the answer in the tokens that are read.
    told_apart: bool,
    /// Of every choice.
    rises: Vec<f64>,
}

fn concept(series: &Series, lens: Option<&Lens>, pairs: &Pairs, readout: usize, layer: usize) -> Result<Place> {
    let n = series.points.len();
    let item = &series.items[pairs.groups[0].0];
    let foils = item.foils.as_ref().map_or(0, Vec::len) + usize::from(item.answer_1.is_some());
    let empty = Row {
        concept: pairs.family.concept.clone(),
        null_bank: pairs.family.null_bank,
        layer: series.layers[layer] as i32,
        readout: series.readouts[readout].clone(),
        answer: item.answer_0.clone(),
        status: Status::NoUnembedding,
        n_foils: foils as i32,
        n_groups: pairs.groups.len() as i32,
        ..Row::default()
    };
    let Some(scores) = lens.map(|lens| scores(series, lens, pairs, readout, layer)).transpose()?.flatten() else {
        let rows = (0..n).map(|t| (series.key(t), empty.clone())).collect();
        return Ok(Place { rows, among: None, told_apart: false, rises: Vec::new() });
    };
    let among = Among::new(&scores, &draws(series, pairs)?)?;
    let told_apart = pairs.groups.iter().all(|(own, _)| is_told_apart(series.items[*own].answer_ids.as_deref().unwrap_or_default()));
    let row = |t: usize| {
        let told = among.told(t);
        let status = if told_apart { Status::Ok } else { Status::FoilsNotToldApart };
        let mut row = Row { status, foil_percentile: told.percentile, foil_p: told.p, ..empty.clone() };
        row.lens = told.score.into();
        row
    };
    let rows = (0..n).map(|t| (series.key(t), row(t))).collect();
    let rises = rises(&among.own.value, &among.foils, &(0..series.references().min(n)), &reference_and_late(n).1);
    Ok(Place { rows, among: Some(among), told_apart, rises })
}

/// `[t][group][choice]`, self minus the mean of the others; `None` where a token is not in the lens.
fn scores(series: &Series, lens: &Lens, pairs: &Pairs, readout: usize, layer: usize) -> Result<Option<Vec<Vec<Vec<f64>>>>> {
    let mut directions: BTreeMap<&[Vec<i32>], Vec<Vec<f64>>> = BTreeMap::new();
    for (own, _) in &pairs.groups {
        let answers = series.items[*own].answer_ids.as_deref().unwrap_or_default();
        if !directions.contains_key(answers) {
            let rows: Option<Vec<_>> = telling(answers).iter().map(|tokens| lens.direction(tokens)).collect();
            let Some(rows) = rows.filter(|rows| rows.len() > 2) else { return Ok(None) };
            directions.insert(answers, rows);
        }
    }
    let mut all = Vec::with_capacity(series.points.len());
    for t in 0..series.points.len() {
        let (contrasts, d) = self_minus_others(series, [t, readout, layer], pairs, &|row| lens.normed(row))?;
        let score = |((own, _), contrast): (&(usize, Vec<usize>), &[f64])| {
            let directions = &directions[series.items[*own].answer_ids.as_deref().unwrap_or_default()];
            directions.iter().map(|row| row.iter().zip(contrast).map(|(u, x)| u * x).sum()).collect()
        };
        all.push(pairs.groups.iter().zip(contrasts.chunks_exact(d)).map(score).collect());
    }
    Ok(Some(all))
}

/// Tokens that tell an answer from the others: those in at most half of them ("the" of most makers is not one), or all where none is.
pub(super) fn telling(answers: &[Vec<i32>]) -> Vec<Vec<i32>> {
    let common = |token: &i32| 2 * answers.iter().filter(|answer| answer.contains(token)).count() > answers.len();
    let own = |answer: &Vec<i32>| answer.iter().copied().filter(|token| !common(token)).collect::<Vec<_>>();
    answers.iter().map(|answer| Some(own(answer)).filter(|own| !own.is_empty()).unwrap_or_else(|| answer.clone())).collect()
}

/// Whether at least [`FEWEST_FOILS`] foils, if there are so many, are read by other tokens than the answer.
pub(super) fn is_told_apart(answers: &[Vec<i32>]) -> bool {
    let telling = telling(answers);
    let Some((own, foils)) = telling.split_first() else { return false };
    let set = |tokens: &Vec<i32>| tokens.iter().copied().collect::<BTreeSet<i32>>();
    let different = foils.iter().filter(|foil| set(foil) != set(own)).count();
    different >= FEWEST_FOILS.min(foils.len())
}

#[cfg(test)]
mod tests {
    use super::{is_told_apart, telling};

    #[test]
    fn foils_that_share_all_telling_tokens_with_the_answer_are_none() {
        let foils = |own: i32| (0..9).map(move |foil| vec![1, if foil < 3 { own } else { 20 + foil }]);
        let answers = |own: i32| std::iter::once(vec![1, 7]).chain(foils(own)).collect::<Vec<_>>();
        assert!(is_told_apart(&answers(6)) && !is_told_apart(&answers(7)));
    }

    #[test]
    fn tokens_that_most_answers_share_tell_nothing() {
        let answers = [vec![1, 10, 11], vec![1, 12], vec![1, 10], vec![13], vec![1]];
        assert_eq!(telling(&answers), [vec![10, 11], vec![12], vec![10], vec![13], vec![1]]);
    }
}
