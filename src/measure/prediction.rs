//! Self-prediction: whether a checkpoint says what it would choose, and whether that tells its own choices from another checkpoint's
//! (Binder et al. 2024, arXiv 2410.13787). `prediction.parquet`.
//!
//! A pair of words is chosen from, and asked about hypothetically, in both orders; margins are means over orders, so that a liking for
//! the first place cancels. Agreement alone may be a liking that every checkpoint has; only pairs that two checkpoints choose
//! differently tell which of them is predicted.

use super::{Measure, Measured};
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Reported};
use crate::table::{Key, Table};
use crate::words::Status;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const NAME: &str = "prediction";
const TABLE: Table = Table::keyed::<Row>("prediction");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };

/// Fewer pairs that differ say nothing.
const FEWEST: usize = 8;

/// One row of `prediction.parquet` behind the keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub concept: String,
    /// The other checkpoint; null for the agreement of a checkpoint with itself over all pairs.
    pub to_checkpoint: Option<String>,
    pub to_step: Option<i64>,
    pub to_order: Option<i32>,
    /// `ok`, or `too_few_differences` (fewer than eight pairs that the two choose differently).
    pub status: Status,
    /// Share of the pairs for which the hypothetical is the choice; with another checkpoint, among pairs that the two choose differently.
    pub accuracy: Reported,
    /// Accuracy about itself minus accuracy about the other, among these pairs: above 0 where it predicts itself.
    pub advantage: Reported,
    /// Pairs that were counted.
    pub n: i32,
}

/// Items of one pair of options.
#[derive(Default)]
pub struct Pair {
    pub choice: Vec<usize>,
    pub hypothetical: Vec<usize>,
}

/// What a concept's pairs were answered with.
pub struct Asked<'a> {
    pub concept: &'a str,
    pub pairs: Vec<Pair>,
    /// By checkpoint and pair; `None` where an answer has no score.
    pub said: Vec<Vec<Option<Said>>>,
}

/// Predictions are compared, not dated.
fn run(series: &Series) -> Result<Measured> {
    let rows = asked(series)?.iter().map(|asked| compare(series, asked.concept, &asked.said)).collect::<Result<Vec<_>>>()?.concat();
    Measured::of_rows(TABLE, &rows)
}

/// Every concept that has choices with hypotheticals.
///
/// # Errors
/// The store cannot be read.
pub fn asked(series: &Series) -> Result<Vec<Asked<'_>>> {
    let mut concepts: BTreeMap<&str, BTreeMap<&str, Pair>> = BTreeMap::new();
    for (index, item) in series.items.iter().enumerate().filter(|(_, item)| item.is_plain()) {
        if item.label_family == LabelFamily::Object || item.label_family == LabelFamily::Hypothetical {
            let pair = concepts.entry(&item.concept).or_default().entry(&item.group_id).or_default();
            if item.label_family == LabelFamily::Object { &mut pair.choice } else { &mut pair.hypothetical }.push(index);
        }
    }
    if concepts.is_empty() {
        return Ok(Vec::new());
    }
    let answers = (0..series.points.len()).map(|t| series.answers(t)).collect::<Result<Vec<_>>>()?;
    let margin = |t: usize, items: &[usize]| -> Option<f64> {
        let margins = items.iter().map(|&item| answers[t][item].map(|[first, second]| first - second));
        Some(margins.sum::<Option<f64>>()? / items.len() as f64)
    };
    let said = |t: usize, pair: &Pair| -> Option<Said> {
        Some(Said { choice: margin(t, &pair.choice)? > 0.0, hypothetical: margin(t, &pair.hypothetical)? > 0.0 })
    };
    let of = |(concept, pairs): (_, BTreeMap<&str, Pair>)| {
        let pairs: Vec<Pair> = pairs.into_values().filter(|pair| !pair.choice.is_empty() && !pair.hypothetical.is_empty()).collect();
        let said = (0..series.points.len()).map(|t| pairs.iter().map(|pair| said(t, pair)).collect()).collect();
        Asked { concept, pairs, said }
    };
    Ok(concepts.into_iter().map(of).collect())
}

/// Whether the first option was chosen, and said to be what would be chosen.
#[derive(Clone, Copy)]
pub struct Said {
    pub choice: bool,
    pub hypothetical: bool,
}

fn compare(series: &Series, concept: &str, said: &[Vec<Option<Said>>]) -> Result<Vec<(Key, Row)>> {
    let mut rows = Vec::new();
    for (t, own) in said.iter().enumerate() {
        let row = |to: Option<usize>, hits: &[f64]| -> Result<(Key, Row)> {
            let enough = hits.len() >= FEWEST;
            let found = if enough { share(hits, series, concept)? } else { None };
            let doubled =
                to.and(found).map(|e| Estimate { value: 2.0 * e.value - 1.0, lower: 2.0 * e.lower - 1.0, upper: 2.0 * e.upper - 1.0 });
            let to = to.map(|to| series.key(to));
            let mut row = Row {
                concept: concept.to_owned(),
                to_checkpoint: to.as_ref().map(|to| to.checkpoint.clone()),
                to_step: to.as_ref().and_then(|to| to.step),
                to_order: to.as_ref().map(|to| to.order),
                status: if enough { Status::Ok } else { Status::TooFewDifferences },
                n: hits.len() as i32,
                ..Row::default()
            };
            row.accuracy = found.into();
            row.advantage = doubled.into();
            Ok((series.key(t), row))
        };
        rows.push(row(None, &hits(own, None))?);
        for (to, other) in said.iter().enumerate().filter(|(to, _)| *to != t) {
            rows.push(row(Some(to), &hits(own, Some(other)))?);
        }
    }
    Ok(rows)
}

/// Per pair, 1 where the hypothetical is the choice; only where `other` chose otherwise, if there is one.
fn hits(own: &[Option<Said>], other: Option<&Vec<Option<Said>>>) -> Vec<f64> {
    let differs = |pair: usize, own: Said| other.is_none_or(|other| other[pair].is_some_and(|other| other.choice != own.choice));
    own.iter()
        .enumerate()
        .filter_map(|(pair, said)| said.filter(|said| differs(pair, *said)))
        .map(|said| f64::from(said.choice == said.hypothetical))
        .collect()
}

/// Mean with its bootstrap interval over pairs.
fn share(hits: &[f64], series: &Series, concept: &str) -> Result<Option<Estimate>> {
    let draws = Draws::with_counts(hits.len(), 1, series.bootstraps, series.seed, &format!("{concept}/prediction"))?;
    Ok(Estimate::percentile(hits.iter().sum::<f64>() / hits.len() as f64, &draws.means(hits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pairs_that_two_checkpoints_choose_differently_tell_which_of_them_is_predicted() {
        let said = |choice: bool, hypothetical: bool| Some(Said { choice, hypothetical });
        let own = vec![said(true, true), said(true, false), said(false, false), None];
        let other = vec![said(true, false), said(false, true), said(true, true), said(true, true)];
        assert_eq!(hits(&own, None), [1.0, 0.0, 1.0]);
        assert_eq!(hits(&own, Some(&other)), [0.0, 1.0]);
    }
}
