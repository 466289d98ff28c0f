//! Paraphrase agreement: how probable it is that two wordings of a question about oneself get the same favourite answer.
//! `agreement.parquet`.
//!
//! A group is a wording. Its favourite is the most probable of the concept's answers and foils, all of their tokens counted. Agreement
//! is the share of pairs of different wordings with the same favourite, a U-statistic without bias. Answers that are likely words agree
//! whoever is asked about: what the same wordings agree by about an unstated other is `chance`, and `excess` is what is left. Wordings
//! that are indifferent agree in `1 / n_choices`. Nothing here is dated; it is what the hypothesis of the void is held against.

use super::foils::{Scores, against_others};
use super::{Finding, Measure, Measured};
use crate::console::check_interrupt;
use crate::onset::gate::reference_and_late;
use crate::prompt::item::Item;
use crate::prompt::label_family::LabelFamily;
use crate::prompt::specification::Specification;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Reported, Sampled};
use crate::table::{Key, Table};
use crate::words::Status;
use anyhow::Result;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "agreement";
const TABLE: Table = Table::keyed::<Row>("agreement");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// Agreement late in training, as the hypothesis of the void is held against it.
pub const LATE: &str = "late_agreement";

/// With fewer wordings that all agree, another one could well differ.
const FEWEST: usize = 8;

/// One row of `agreement.parquet` behind the keys.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub concept: String,
    pub null_bank: bool,
    /// What model specifications say about the concept; null where its file does not tell.
    pub specification: Option<Specification>,
    /// `ok`; `no_answers` (the concept has stems without answers), `mixed_answers` (not all wordings have the same ones), `not_scored`
    /// (this checkpoint has no log-probabilities of them) or `too_few_groups` (fewer than eight wordings).
    pub status: Status,
    /// Probability that two different wordings about oneself have the same favourite.
    pub agreement: Reported,
    /// The same about an unstated other; null without others.
    pub chance: Reported,
    /// Agreement minus chance, resample by resample.
    pub excess: Reported,
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
    pub status: Status,
    /// `None` unless the status is `ok`.
    pub value: Option<f64>,
}

/// It has no curves.
fn run(series: &Series) -> Result<Measured> {
    let scores = Scores::read(series)?;
    let mut rows = Vec::new();
    for asked in Asked::all(series, &scores) {
        check_interrupt()?;
        for t in 0..series.points.len() {
            rows.push((series.key(t), asked.row(series, &scores, t)?));
        }
    }
    let findings = rows.iter().map(finding).collect();
    Ok(Measured { findings, ..Measured::of_rows(TABLE, &rows)? })
}

fn finding((key, row): &(Key, Row)) -> Finding {
    Finding {
        checkpoint: key.checkpoint.clone(),
        concept: row.concept.clone(),
        null_bank: row.null_bank,
        part: LATE,
        status: row.status,
        estimate: row.agreement.estimate(),
        excess: row.excess.estimate(),
        ..Finding::default()
    }
}

/// Late margins of every concept with answer stems, in the order of the items.
///
/// # Errors
/// The store cannot be read.
pub fn late_margins(series: &Series) -> Result<Vec<Margin>> {
    let scores = Scores::read(series)?;
    let late = reference_and_late(series.points.len()).1;
    let margin = |asked: &Asked| {
        let status = late.clone().map(|t| asked.status(&scores, t)).find(|status| *status != Status::Ok).unwrap_or(Status::Ok);
        let of = |t: usize, item: usize| scores.choices(t, item).map(|choices| against_others(&choices)[0]);
        let all: Vec<f64> = late.clone().flat_map(|t| asked.groups.iter().filter_map(move |group| of(t, group.own))).collect();
        Margin {
            concept: asked.family.concept.clone(),
            null_bank: asked.family.null_bank,
            specification: asked.family.specification,
            status,
            value: (status == Status::Ok).then(|| all.iter().sum::<f64>() / all.len() as f64),
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
    wrong: Option<Status>,
}

/// What an item may be answered with.
fn candidates(item: &Item) -> Vec<&str> {
    let answers = item.answer_0.iter().chain(&item.answer_1);
    answers.chain(item.foils.iter().flatten()).map(String::as_str).collect()
}

impl<'a> Asked<'a> {
    fn all(series: &'a Series, scores: &Scores) -> Vec<Self> {
        series
            .families
            .iter()
            .filter(|family| family.label_family == LabelFamily::StemSelf)
            .map(|family| Self::of(series, scores, family))
            .collect()
    }

    fn of(series: &'a Series, scores: &Scores, family: &'a Family) -> Self {
        let own: Vec<(&str, usize)> = family.groups.iter().filter_map(|(id, items)| Some((id.as_str(), *items.first()?))).collect();
        let all = own.first().map_or_else(Vec::new, |(_, item)| candidates(&series.items[*item]));
        let wrong = match all.len() {
            0 | 1 => Some(Status::NoAnswers),
            _ if own.iter().any(|(_, item)| candidates(&series.items[*item]) != all) => Some(Status::MixedAnswers),
            _ => None,
        };
        let scored = |t: usize, item: usize| scores.choices(t, item).is_some_and(|choices| choices.len() == all.len());
        let points: Vec<usize> = (0..series.points.len()).filter(|&t| own.iter().any(|(_, item)| scored(t, *item))).collect();
        let whole = |item: usize| points.iter().all(|&t| scored(t, item));
        let others = series.family(&family.concept, &LabelFamily::StemOther);
        let other = |id: &str| {
            let (_, items) = others?.groups.iter().find(|(other, _)| other == id)?;
            items.iter().copied().find(|&item| candidates(&series.items[item]) == all && whole(item))
        };
        let groups = own.iter().filter(|(_, item)| whole(*item)).map(|(id, item)| Wording { own: *item, other: other(id) }).collect();
        Self { family, candidates: all, groups, wrong }
    }

    fn status(&self, scores: &Scores, t: usize) -> Status {
        let scored = |group: &Wording| scores.choices(t, group.own).is_some_and(|choices| choices.len() == self.candidates.len());
        match self.wrong {
            Some(wrong) => wrong,
            None if !self.groups.iter().any(scored) => Status::NotScored,
            None if self.groups.len() < FEWEST => Status::TooFewGroups,
            None => Status::Ok,
        }
    }

    fn row(&self, series: &Series, scores: &Scores, t: usize) -> Result<Row> {
        let status = self.status(scores, t);
        let mut row = Row {
            concept: self.family.concept.clone(),
            null_bank: self.family.null_bank,
            specification: self.family.specification,
            status,
            n_choices: self.candidates.len() as i32,
            n_groups: self.groups.len() as i32,
            ..Row::default()
        };
        if status != Status::Ok {
            return Ok(row);
        }
        let key = format!("{}/stem", self.family.concept);
        let draws = Draws::with_counts(self.groups.len(), series.flips, series.bootstraps, series.seed, &key)?;
        let favourites = |item: &dyn Fn(&Wording) -> Option<usize>| -> Option<Vec<usize>> {
            self.groups.iter().map(|group| scores.choices(t, item(group)?).map(|choices| favourite(&choices))).collect()
        };
        let Some(own) = favourites(&|group| Some(group.own)) else { return Ok(row) };
        let found = resampled(&own, &draws);
        let chance = favourites(&|group| group.other).map(|others| resampled(&others, &draws));
        row.agreement = estimate(&found, self.groups.len()).into();
        row.excess = chance.as_ref().and_then(|chance| found.minus(chance)).into();
        row.chance = chance.and_then(|chance| estimate(&chance, self.groups.len())).into();
        let counts: Vec<usize> = (0..self.candidates.len()).map(|choice| own.iter().filter(|own| **own == choice).count()).collect();
        let most = favourite(&counts.iter().map(|&count| count as f64).collect::<Vec<_>>());
        row.favourite = Some(self.candidates[most].to_owned());
        row.favourite_share = Some(counts[most] as f64 / own.len() as f64);
        Ok(row)
    }
}

/// The first of the largest.
fn favourite(scores: &[f64]) -> usize {
    (1..scores.len()).fold(0, |best, choice| if scores[choice] > scores[best] { choice } else { best })
}

/// Agreement as it is and under resamples of the wordings.
fn resampled(favourites: &[usize], draws: &Draws) -> Sampled {
    let replicates = draws.multiplicities().chunks_exact(favourites.len()).map(|weights| agreement(favourites, weights)).collect();
    Sampled { value: agreement(favourites, &vec![1.0; favourites.len()]), replicates }
}

/// Wordings that all agree have no resample that does not. The share of their favourite is then above `.025^(1/n)` with the same confidence
/// (Clopper & Pearson 1934), and two wordings agree at least in the square of that.
fn estimate(agreement: &Sampled, wordings: usize) -> Option<Estimate> {
    let found = agreement.estimate()?;
    let share = 0.025f64.powf(1.0 / wordings as f64);
    Some(if agreement.value < 1.0 { found } else { Estimate { lower: share * share, ..found } })
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
