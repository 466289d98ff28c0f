//! Paraphrase agreement: how probable it is that two wordings of a question about oneself get the same favourite answer.
//! `agreement.parquet`.
//!
//! A group is a wording. Its favourite is the most probable of the concept's answers and foils, all of their tokens counted. Agreement
//! is the share of pairs of different wordings with the same favourite, a U-statistic without bias. Answers that are likely words agree
//! whoever is asked about: what the same wordings agree by about an unstated other is `chance`, and `excess` is what is left. Wordings
//! that are indifferent agree in `1 / n_choices`. Nothing here is dated; it is what the hypothesis of the void is held against.

use super::foils::{Scores, against_others};
use crate::console::check_interrupt;
use crate::onset::gate::reference_and_late;
use crate::onset::trace::Trace;
use crate::prompt::item::Item;
use crate::prompt::specification::Specification;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, columns};
use crate::table::{self, Key};
use anyhow::Result;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "agreement";
pub const TABLE: &str = "agreement.parquet";

/// With fewer wordings that all agree, another one could well differ.
const FEWEST: usize = 8;

/// One row of `agreement.parquet` behind the keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub concept: String,
    pub null_bank: bool,
    /// What model specifications say about the concept; null where its file does not tell.
    pub specification: Option<Specification>,
    /// `ok`; `no_answers` (the concept has stems without answers), `mixed_answers` (not all wordings have the same ones), `not_scored`
    /// (this checkpoint has no log-probabilities of them) or `too_few_groups` (fewer than eight wordings).
    pub status: String,
    /// Probability that two different wordings about oneself have the same favourite.
    pub agreement: Option<f64>,
    pub agreement_lower: Option<f64>,
    pub agreement_upper: Option<f64>,
    /// The same about an unstated other; null without others.
    pub chance: Option<f64>,
    pub chance_lower: Option<f64>,
    pub chance_upper: Option<f64>,
    /// Agreement minus chance, resample by resample.
    pub excess: Option<f64>,
    pub excess_lower: Option<f64>,
    pub excess_upper: Option<f64>,
    /// Favourite of most wordings about oneself.
    pub favourite: Option<String>,
    /// Share of these wordings that it is the favourite of.
    pub favourite_share: Option<f64>,
    /// Answers and foils.
    pub n_choices: i32,
    pub n_groups: i32,
}

/// Mean late margin of a concept's first answer about oneself, against the mean of its other candidates, in nats.
#[derive(Debug, Clone, PartialEq)]
pub struct Margin {
    pub concept: String,
    pub null_bank: bool,
    pub specification: Option<Specification>,
    /// As [`Row::status`].
    pub status: &'static str,
    /// `None` unless the status is `ok`.
    pub value: Option<f64>,
}

/// Writes `agreement.parquet`; it has no curves.
///
/// # Errors
/// The store cannot be read or the table cannot be written.
pub fn run(series: &Series) -> Result<Vec<Trace>> {
    let scores = Scores::read(series)?;
    let mut rows = Vec::new();
    for asked in Asked::all(series, &scores) {
        check_interrupt()?;
        for t in 0..series.points.len() {
            rows.push((series.key(t), asked.row(series, &scores, t)?));
        }
    }
    table::write_keyed(&series.folder.join(TABLE), &rows, &series.run_hash)?;
    Ok(Vec::new())
}

/// Rows of a run's `agreement.parquet`.
///
/// # Errors
/// The table is missing or of another version.
pub fn read(folder: &std::path::Path) -> Result<Vec<(Key, Row)>> {
    let path = folder.join(TABLE);
    Ok(table::read::<Key>(&path)?.into_iter().zip(table::read::<Row>(&path)?).collect())
}

/// Late margins of every concept with answer stems, in the order of the items.
///
/// # Errors
/// The store cannot be read.
pub fn late_margins(series: &Series) -> Result<Vec<Margin>> {
    let scores = Scores::read(series)?;
    let late = reference_and_late(series.points.len()).1;
    let margin = |asked: &Asked| {
        let status = late.clone().map(|t| asked.status(&scores, t)).find(|status| *status != "ok").unwrap_or("ok");
        let of = |t: usize, item: usize| scores.choices(t, item).map(|choices| against_others(&choices)[0]);
        let all: Vec<f64> = late.clone().flat_map(|t| asked.groups.iter().filter_map(move |group| of(t, group.own))).collect();
        Margin {
            concept: asked.family.concept.clone(),
            null_bank: asked.family.null_bank,
            specification: asked.family.specification,
            status,
            value: (status == "ok").then(|| all.iter().sum::<f64>() / all.len() as f64),
        }
    };
    Ok(Asked::all(series, &scores).iter().map(margin).collect())
}

/// One wording: the item about oneself, and the first one about an unstated other that has the same candidates.
struct Wording {
    own: usize,
    other: Option<usize>,
}

/// A concept and its wordings that were scored wherever the concept was.
struct Asked<'a> {
    family: &'a Family,
    candidates: Vec<&'a str>,
    groups: Vec<Wording>,
    /// Why nothing can be said at any checkpoint.
    wrong: Option<&'static str>,
}

/// What an item may be answered with.
fn candidates(item: &Item) -> Vec<&str> {
    let answers = item.answer_0.iter().chain(&item.answer_1);
    answers.chain(item.foils.iter().flatten()).map(String::as_str).collect()
}

impl<'a> Asked<'a> {
    fn all(series: &'a Series, scores: &Scores) -> Vec<Self> {
        series.families.iter().filter(|family| family.label_family == "stem_self").map(|family| Self::of(series, scores, family)).collect()
    }

    fn of(series: &'a Series, scores: &Scores, family: &'a Family) -> Self {
        let own: Vec<(&str, usize)> = family.groups.iter().filter_map(|(id, items)| Some((id.as_str(), *items.first()?))).collect();
        let all = own.first().map_or_else(Vec::new, |(_, item)| candidates(&series.items[*item]));
        let wrong = match all.len() {
            0 | 1 => Some("no_answers"),
            _ if own.iter().any(|(_, item)| candidates(&series.items[*item]) != all) => Some("mixed_answers"),
            _ => None,
        };
        let scored = |t: usize, item: usize| scores.choices(t, item).is_some_and(|choices| choices.len() == all.len());
        let points: Vec<usize> = (0..series.points.len()).filter(|&t| own.iter().any(|(_, item)| scored(t, *item))).collect();
        let whole = |item: usize| points.iter().all(|&t| scored(t, item));
        let others = series.family(&family.concept, "stem_other");
        let other = |id: &str| {
            let (_, items) = others?.groups.iter().find(|(other, _)| other == id)?;
            items.iter().copied().find(|&item| candidates(&series.items[item]) == all && whole(item))
        };
        let groups = own.iter().filter(|(_, item)| whole(*item)).map(|(id, item)| Wording { own: *item, other: other(id) }).collect();
        Self { family, candidates: all, groups, wrong }
    }

    fn status(&self, scores: &Scores, t: usize) -> &'static str {
        let scored = |group: &Wording| scores.choices(t, group.own).is_some_and(|choices| choices.len() == self.candidates.len());
        match self.wrong {
            Some(wrong) => wrong,
            None if !self.groups.iter().any(scored) => "not_scored",
            None if self.groups.len() < FEWEST => "too_few_groups",
            None => "ok",
        }
    }

    fn row(&self, series: &Series, scores: &Scores, t: usize) -> Result<Row> {
        let status = self.status(scores, t);
        let empty = Row {
            concept: self.family.concept.clone(),
            null_bank: self.family.null_bank,
            specification: self.family.specification,
            status: status.to_owned(),
            agreement: None,
            agreement_lower: None,
            agreement_upper: None,
            chance: None,
            chance_lower: None,
            chance_upper: None,
            excess: None,
            excess_lower: None,
            excess_upper: None,
            favourite: None,
            favourite_share: None,
            n_choices: self.candidates.len() as i32,
            n_groups: self.groups.len() as i32,
        };
        if status != "ok" {
            return Ok(empty);
        }
        let key = format!("{}/stem", self.family.concept);
        let draws = Draws::with_counts(self.groups.len(), series.flips, series.bootstraps, series.seed, &key)?;
        let favourites = |item: &dyn Fn(&Wording) -> Option<usize>| -> Option<Vec<usize>> {
            self.groups.iter().map(|group| scores.choices(t, item(group)?).map(|choices| favourite(&choices))).collect()
        };
        let Some(own) = favourites(&|group| Some(group.own)) else { return Ok(empty) };
        let found = Agreement::new(&own, &draws);
        let chance = favourites(&|group| group.other).map(|others| Agreement::new(&others, &draws));
        let (agreement, agreement_lower, agreement_upper) = columns(found.estimate());
        let (excess, excess_lower, excess_upper) = columns(chance.as_ref().and_then(|chance| found.minus(chance)));
        let (chance, chance_lower, chance_upper) = columns(chance.and_then(|chance| chance.estimate()));
        let counts: Vec<usize> = (0..self.candidates.len()).map(|choice| own.iter().filter(|own| **own == choice).count()).collect();
        let most = favourite(&counts.iter().map(|&count| count as f64).collect::<Vec<_>>());
        Ok(Row {
            agreement,
            agreement_lower,
            agreement_upper,
            chance,
            chance_lower,
            chance_upper,
            excess,
            excess_lower,
            excess_upper,
            favourite: Some(self.candidates[most].to_owned()),
            favourite_share: Some(counts[most] as f64 / own.len() as f64),
            ..empty
        })
    }
}

/// The first of the largest.
fn favourite(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |best, choice| if scores[choice] > scores[best] { choice } else { best })
}

/// Agreement as it is and under resamples of the wordings.
struct Agreement {
    wordings: usize,
    value: f64,
    replicates: Vec<f64>,
}

impl Agreement {
    fn new(favourites: &[usize], draws: &Draws) -> Self {
        let replicates = draws.multiplicities().chunks_exact(favourites.len()).map(|weights| agreement(favourites, weights)).collect();
        Self { wordings: favourites.len(), value: agreement(favourites, &vec![1.0; favourites.len()]), replicates }
    }

    /// Wordings that all agree have no resample that does not. The share of their favourite is then above `.025^(1/n)` with the
    /// same confidence (Clopper & Pearson 1934), and two wordings agree at least in the square of that.
    fn estimate(&self) -> Option<Estimate> {
        let found = Estimate::percentile(self.value, &self.replicates)?;
        let share = 0.025f64.powf(1.0 / self.wordings as f64);
        Some(if self.value < 1.0 { found } else { Estimate { lower: share * share, ..found } })
    }

    fn minus(&self, other: &Self) -> Option<Estimate> {
        crate::stats::estimate::paired((other.value, &other.replicates), (self.value, &self.replicates))
    }
}

/// Share of the pairs of different wordings with the same favourite, pairs weighted by the product of their weights:
/// `(sum_a W_a^2 - sum w^2) / ((sum w)^2 - sum w^2)` with `W_a` the weight of the wordings that prefer a. Copies of one wording are no pair.
fn agreement(favourites: &[usize], weights: &[f32]) -> f64 {
    let mut by_choice = vec![0f64; favourites.iter().max().map_or(0, |last| last + 1)];
    let (mut sum, mut squares) = (0f64, 0f64);
    for (&choice, &weight) in favourites.iter().zip(weights) {
        let weight = f64::from(weight);
        by_choice[choice] += weight;
        sum += weight;
        squares += weight * weight;
    }
    (by_choice.iter().map(|weight| weight * weight).sum::<f64>() - squares) / (sum * sum - squares)
}

#[cfg(test)]
#[path = "agreement_tests.rs"]
mod tests;
