//! Probes whose labels are the checkpoint's own answers: whether the residual at a question about what it would choose already carries
//! what it chooses when asked to. `endogenous.parquet`.
//!
//! Labels are the choices of [`prediction`](super::prediction), so they differ between checkpoints and there is neither a frozen ruler
//! nor a date. With label `choice`, y says whether the word that is chosen stands first in the question; every pair is asked in both
//! orders, so words are balanced over y, and a liking for the first place is no label. With `right`, y says whether the hypothetical
//! answer is the choice; words may tell that, and some checkpoints are always right. Both stand beside what words, mean input
//! embeddings and random weights make of the same labels.

use super::prediction::{Asked, Pair, Said, asked};
use super::{Measure, Measured};
use crate::console::check_interrupt;
use crate::series::Series;
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Reported, Sampled};
use crate::stats::evaluate::{Evaluation, Scale, evaluate};
use crate::stats::folds::{OUTER, grouped};
use crate::stats::kernel::Design;
use crate::stats::lexical::{self, Labelled};
use crate::stats::logistic;
use crate::table::{Key, Table};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "endogenous";
const TABLE: Table = Table::keyed::<Row>("endogenous");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };

/// Fewer pairs make no folds to speak of.
const FEWEST: usize = 8;

/// One row of `endogenous.parquet` behind the keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub concept: String,
    /// What y says: `choice` (the word that is chosen stands first) or `right` (the hypothetical answer is
    /// the choice).
    pub label: String,
    pub layer: i32,
    pub readout: String,
    /// `ok`, `failed`, `degenerate_label` (a fold is trained on one label), `not_scored` (no answers), `no_order` (cells do not end in
    /// `-xy` and `-yx`) or `too_few_groups` (fewer than eight pairs).
    pub status: Status,
    /// Of the logistic probe, held out over groups.
    pub auroc: Reported,
    pub accuracy: Reported,
    /// What counts of words, or lengths, make of the same labels.
    pub lexical_auroc: Option<f64>,
    pub embedding_auroc: Option<f64>,
    pub reinitialised_auroc: Option<f64>,
    /// `auroc` minus the best of these three.
    pub excess_auc: Reported,
    /// Items with y = 1.
    pub n_positive: i32,
    pub n: i32,
    pub n_groups: i32,
}

/// What is asked of the residual: a label by name, `None` where an item has none.
type Label = (&'static str, fn(&Said, first: Option<bool>) -> Option<bool>);

/// `first` says whether the first option stands first in the question.
const LABELS: [Label; 2] =
    [("choice", |said, first| first.map(|first| said.choice == first)), ("right", |said, _| Some(said.choice == said.hypothetical))];

fn run(series: &Series) -> Result<Measured> {
    let asked = asked(series)?;
    let readouts = |asked: &Asked| -> Vec<usize> {
        let items = || asked.pairs.iter().flat_map(|pair| &pair.hypothetical);
        let read = |readout: &usize| (0..series.points.len()).all(|t| items().all(|&item| series.has(t, *readout, item)));
        (0..series.readouts.len()).filter(read).collect()
    };
    let mut tasks = Vec::new();
    for asked in &asked {
        let readouts = readouts(asked);
        for t in 0..series.points.len() {
            tasks.extend(LABELS.iter().map(|label| (asked, readouts.clone(), t, label)));
        }
    }
    let rows = tasks.into_par_iter().map(|(asked, readouts, t, label)| rows(series, asked, &readouts, t, label));
    let rows: Vec<(Key, Row)> = rows.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
    Measured::of_rows(TABLE, &rows)
}

/// Items with a checkpoint's labels.
struct Set {
    items: Vec<usize>,
    labels: Vec<bool>,
    groups: Vec<usize>,
    folds: Vec<usize>,
    draws: Draws,
}

impl Set {
    /// `Err` has the status where there is nothing to fit.
    fn new(series: &Series, concept: &str, asked: &[(&Pair, Option<Said>)], label: &Label) -> Result<Result<Self, Status>> {
        let (mut items, mut labels, mut groups) = (Vec::new(), Vec::new(), Vec::new());
        let scored: Vec<(&Pair, &Said)> = asked.iter().filter_map(|(pair, said)| Some((*pair, said.as_ref()?))).collect();
        for (group, (pair, said)) in scored.iter().enumerate() {
            for &item in &pair.hypothetical {
                if let Some(y) = label.1(said, first(&series.items[item].cell)) {
                    items.push(item);
                    labels.push(y);
                    groups.push(group);
                }
            }
        }
        let n_groups = groups.last().map_or(0, |last| last + 1);
        if n_groups == 0 {
            return Ok(Err(if scored.is_empty() { Status::NotScored } else { Status::NoOrder }));
        }
        if n_groups < FEWEST {
            return Ok(Err(Status::TooFewGroups));
        }
        let draws = Draws::with_counts(n_groups, 1, series.bootstraps, series.seed, &format!("{concept}/{NAME}"))?;
        Ok(Ok(Self { folds: grouped(&groups, OUTER)?, items, labels, groups, draws }))
    }

    fn evaluated(&self, scores: Option<&[f64]>, scale: Scale) -> Result<Option<Evaluation>> {
        scores.map(|scores| evaluate(scores, &self.labels, &self.groups, scale, &self.draws)).transpose()
    }

    /// The logistic probe on `rows`, `[item, d]`; `Err` has the status where there is none.
    fn probed(&self, (rows, d): (Vec<f32>, usize)) -> Result<Result<Evaluation, Status>> {
        let splits = Design::new(&rows, d)?.whole().folds(&self.folds)?;
        let held = match logistic::held_out(&splits, &self.labels, &self.groups) {
            Ok(held) => held,
            Err(error) => {
                tracing::warn!("a probe of choices: {error:#}");
                return Ok(Err(Status::Failed));
            }
        };
        let scores = held.as_ref().map(|held| held.scores.as_slice());
        Ok(self.evaluated(scores, Scale::LogOdds)?.filter(|evaluation| evaluation.auroc.is_some()).ok_or(Status::DegenerateLabel))
    }

    /// The better of counts and lengths.
    fn words(&self, series: &Series, concept: &str) -> Result<Option<Sampled>> {
        let set = Labelled {
            concept,
            label_family: NAME,
            texts: self.items.iter().map(|&item| series.items[item].text.as_deref()).collect(),
            labels: self.labels.clone(),
            groups: self.groups.clone(),
        };
        let best = lexical::audit(&set, &self.draws)?.iter().filter_map(|row| row.auroc.value).reduce(f64::max);
        Ok(best.map(|value| Sampled { value, replicates: Vec::new() }))
    }

    fn embeddings(&self, series: &Series, t: usize) -> Result<Option<Sampled>> {
        let Some((rows, d)) = series.embeddings(t, &self.items)? else { return Ok(None) };
        let scores = lexical::embedding_scores(&rows, d, &self.labels, &self.folds)?;
        Ok(self.evaluated(scores.as_deref(), Scale::Margin)?.and_then(level))
    }
}

/// Whether the first option stands first, by the cell of the item.
fn first(cell: &str) -> Option<bool> {
    match cell.rsplit('-').next() {
        Some("xy") => Some(true),
        Some("yx") => Some(false),
        _ => None,
    }
}

fn level(evaluation: Evaluation) -> Option<Sampled> {
    evaluation.auroc.map(|auroc| Sampled { value: auroc.value, replicates: evaluation.auroc_replicates })
}

/// One checkpoint and label, at every readout and layer.
fn rows(series: &Series, asked: &Asked, readouts: &[usize], t: usize, label: &Label) -> Result<Vec<(Key, Row)>> {
    let places = readouts.iter().flat_map(|&readout| (0..series.layers.len()).map(move |layer| (readout, layer)));
    let empty = |(readout, layer): (usize, usize), status: Status| Row {
        concept: asked.concept.to_owned(),
        label: label.0.to_owned(),
        layer: series.layers[layer] as i32,
        readout: series.readouts[readout].clone(),
        status,
        ..Row::default()
    };
    let said: Vec<(&Pair, Option<Said>)> = asked.pairs.iter().zip(asked.said[t].iter().copied()).collect();
    let set = match Set::new(series, asked.concept, &said, label)? {
        Ok(set) => set,
        Err(status) => return Ok(places.map(|place| (series.key(t), empty(place, status))).collect()),
    };
    let (words, embeddings) = (set.words(series, asked.concept)?, set.embeddings(series, t)?);
    places
        .map(|(readout, layer)| {
            check_interrupt()?;
            let own = set.probed(series.rows(t, readout, layer, &set.items)?)?;
            let random = match series.baseline_of(readout, &set.items) {
                Some(random) => set.probed(random.rows(0, readout, layer, &set.items)?)?.ok().and_then(level),
                None => None,
            };
            let best = Sampled::highest([&words, &embeddings, &random].map(Option::as_ref));
            let (status, own) = own.map_or_else(|status| (status, None), |own| (Status::Ok, Some(own)));
            let auroc = own.as_ref().and_then(|own| own.auroc);
            let excess = own.as_ref().zip(auroc).zip(best).and_then(|((own, auroc), best)| {
                let replicates: Vec<f64> = own.auroc_replicates.iter().enumerate().map(|(b, area)| area - best.at(b)).collect();
                Estimate::percentile(auroc.value - best.value, &replicates)
            });
            let mut row = empty((readout, layer), status);
            row.auroc = auroc.into();
            row.accuracy = own.and_then(|own| own.accuracy).into();
            row.excess_auc = excess.into();
            [row.lexical_auroc, row.embedding_auroc, row.reinitialised_auroc] =
                [&words, &embeddings, &random].map(|baseline| baseline.as_ref().map(|baseline| baseline.value));
            row.n_positive = set.labels.iter().filter(|&&y| y).count() as i32;
            (row.n, row.n_groups) = (set.items.len() as i32, set.draws.groups() as i32);
            Ok((series.key(t), row))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_of_the_choice_and_not_of_the_place() {
        let said = |choice: bool, hypothetical: bool| Said { choice, hypothetical };
        let [choice, right] = LABELS.map(|(_, label)| label);
        // The first option is chosen: it stands first in one order and second in the other.
        let both = |said: &Said| ["hypothetical-xy", "hypothetical-yx"].map(|cell| choice(said, first(cell)));
        assert_eq!(both(&said(true, true)), [Some(true), Some(false)]);
        assert_eq!(both(&said(false, true)), [Some(false), Some(true)]);
        assert_eq!(choice(&said(true, true), first("other")), None);
        assert_eq!([right(&said(true, true), None), right(&said(false, true), None)], [Some(true), Some(false)]);
    }
}
