//! Planted features: what dictionaries along a series find, and when, where it is known what there is.
//!
//! [`planted`] makes series of activations, [`methods`] asks them in our way and in the usual ones. What is asked of an answer: how many of
//! the features that come it has, how many of these it dates into the right gap, and how much of all else it says to come. The nulls are
//! a series in which every checkpoint is the first one, one that changes as much without any lesson, and the lessons' own checkpoints in
//! another order.

pub mod planted;
mod methods;

use crate::console::check_interrupt;
use crate::dictionary::stability::{best_cosines, shared};
use crate::report::summary::Text;
use crate::stats::estimate::mean_sd;
use anyhow::Result;
use methods::{Answer, Fitted, components};
use planted::{Planted, Training};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use tch::Tensor;

/// Cosine from which on a direction is that of a feature, and from which on it belongs to it at all.
const SAME: f64 = 0.9;
const OF: f64 = 0.7;

/// One row of `benchmark_features.parquet`: a method on planted series of one kind. `_se` are standard errors over series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FeatureRow {
    /// `lessons`, `lessons, template not masked`, or a null: `one checkpoint`, `another order`, `generic training`.
    pub series: String,
    /// `selftrace`, or a usual way.
    pub method: String,
    /// Series.
    pub n: i32,
    /// Share of the features that come of which there is a latent.
    pub recovery: Option<f64>,
    pub recovery_se: Option<f64>,
    /// Share of these whose latent is dated into the gap before the checkpoint with which the feature comes.
    pub exact: Option<f64>,
    pub exact_se: Option<f64>,
    /// Share of the latents of nothing that comes which are said to come.
    pub false_emergence: f64,
    pub false_emergence_se: f64,
    /// Latents that are said to come, mean over series.
    pub emerging: f64,
    /// Latents that are on at all.
    pub live: f64,
    /// Share of the variance that is explained, mean over checkpoints; null for principal components.
    pub explained: Option<f64>,
    /// Latents that are on at a token.
    pub per_token: Option<f64>,
}

/// What one answer is worth.
#[derive(Debug, Clone, Copy)]
struct Score {
    recovery: Option<f64>,
    exact: Option<f64>,
    false_emergence: f64,
    emerging: f64,
    live: f64,
    explained: f64,
    per_token: f64,
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let lengths = (dot(a, a) * dot(b, b)).sqrt();
    if lengths > 0.0 { dot(a, b) / lengths } else { 0.0 }
}

/// Holds an answer against a series. `signed`: whether a direction's sign means something.
fn score(planted: &Planted, answer: &Answer, signed: bool, ordered: bool) -> Score {
    let last = planted.checkpoints - 1;
    let truth: Vec<Vec<f64>> = (0..planted.features.len()).map(|feature| planted.direction(feature, last)).collect();
    let near = |feature: usize, latent: usize| {
        let cosine = cosine(&truth[feature], &answer.latents[latent].direction);
        if signed { cosine } else { cosine.abs() }
    };
    let best = |among: usize, of: &dyn Fn(usize) -> f64| (0..among).map(|at| (at, of(at))).max_by(|a, b| a.1.total_cmp(&b.1));
    let coming: Vec<usize> = (0..truth.len()).filter(|&feature| ordered && planted.comes(feature).is_some()).collect();
    let found: Vec<(usize, usize)> = coming
        .iter()
        .filter_map(|&feature| {
            Some((feature, best(answer.latents.len(), &|latent| near(feature, latent)).filter(|(_, near)| *near >= SAME)?.0))
        })
        .collect();
    let right = found.iter().filter(|(feature, latent)| {
        let gap = planted.comes(*feature).map(|at| at as f64 - 1.0..at as f64);
        gap.zip(answer.latents[*latent].comes).is_some_and(|(gap, date)| gap.contains(&date))
    });
    let of_what_comes = |latent: usize| {
        best(truth.len(), &|feature| near(feature, latent)).is_some_and(|(feature, near)| near >= OF && coming.contains(&feature))
    };
    let others: Vec<usize> = (0..answer.latents.len()).filter(|&latent| !of_what_comes(latent)).collect();
    let wrong = others.iter().filter(|&&latent| answer.latents[latent].comes.is_some()).count();
    let share = |part: usize, whole: usize| (whole > 0).then(|| part as f64 / whole as f64);
    Score {
        recovery: share(found.len(), coming.len()),
        exact: share(right.count(), found.len()),
        false_emergence: share(wrong, others.len()).unwrap_or(0.0),
        emerging: answer.latents.iter().filter(|latent| latent.comes.is_some()).count() as f64,
        live: answer.latents.len() as f64,
        explained: answer.explained,
        per_token: answer.per_token,
    }
}

const OURS: &str = "selftrace";
const LENGTHS: &str = "lengths alone";
const L1: &str = "L1, lengths";
const PCA: &str = "principal components";

/// Plants `n` series of every kind and scores every method on them.
///
/// # Errors
/// An interrupt.
pub fn benchmark(n: usize) -> Result<Vec<FeatureRow>> {
    let one = |seed: u64| -> Result<Vec<(&'static str, &'static str, Score)>> {
        let mut scores = Vec::new();
        let lessons = Planted::new(Training::Lessons, seed);
        let coming = (0..lessons.features.len()).filter(|&feature| lessons.comes(feature).is_some()).count();
        let mut fitted = Fitted::new(&lessons, seed)?;
        let mut push = |series, method, planted: &Planted, answer: &Answer, ordered| {
            scores.push((series, method, score(planted, answer, method != PCA, ordered)));
        };
        push("lessons", OURS, &lessons, &fitted.by_strength()?, true);
        push("lessons", LENGTHS, &lessons, &fitted.by_length()?, true);
        push("lessons", L1, &lessons, &Fitted::with_l1(&lessons, seed)?.by_length()?, true);
        push("lessons", PCA, &lessons, &components(&lessons, coming)?, true);
        fitted.shuffle(seed);
        push("another order", OURS, &lessons, &fitted.by_strength()?, false);
        push("another order", LENGTHS, &lessons, &fitted.by_length()?, false);
        let mut open = lessons;
        open.masked = false;
        push("lessons, template not masked", OURS, &open, &Fitted::new(&open, seed)?.by_strength()?, true);
        for (name, training) in [("one checkpoint", Training::None), ("generic training", Training::Generic)] {
            check_interrupt()?;
            let null = Planted::new(training, seed);
            let fitted = Fitted::new(&null, seed)?;
            push(name, OURS, &null, &fitted.by_strength()?, true);
            push(name, LENGTHS, &null, &fitted.by_length()?, true);
            push(name, L1, &null, &Fitted::with_l1(&null, seed)?.by_length()?, true);
            push(name, PCA, &null, &components(&null, coming)?, true);
        }
        Ok(scores)
    };
    let all = (0..n as u64).into_par_iter().map(one).collect::<Result<Vec<_>>>()?;
    let cells = all.first().map_or(0, Vec::len);
    Ok((0..cells).map(|cell| row(all[0][cell].0, all[0][cell].1, &all.iter().map(|scores| scores[cell].2).collect::<Vec<_>>())).collect())
}

fn row(series: &str, method: &str, scores: &[Score]) -> FeatureRow {
    let of = |get: &dyn Fn(&Score) -> Option<f64>| {
        let found: Vec<f64> = scores.iter().filter_map(get).collect();
        let (mean, sd) = mean_sd(found.iter().copied());
        let se = (found.len() > 1).then(|| sd / (found.len() as f64).sqrt());
        (!found.is_empty()).then_some((mean, se))
    };
    let mean = |get: &dyn Fn(&Score) -> f64| of(&|score| Some(get(score))).map_or(0.0, |(mean, _)| mean);
    let (recovery, exact) = (of(&|score| score.recovery), of(&|score| score.exact));
    let wrong = of(&|score| Some(score.false_emergence));
    let is_dictionary = method != PCA;
    FeatureRow {
        series: series.to_owned(),
        method: method.to_owned(),
        n: scores.len() as i32,
        recovery: recovery.map(|(mean, _)| mean),
        recovery_se: recovery.and_then(|(_, se)| se),
        exact: exact.map(|(mean, _)| mean),
        exact_se: exact.and_then(|(_, se)| se),
        false_emergence: wrong.map_or(0.0, |(mean, _)| mean),
        false_emergence_se: wrong.and_then(|(_, se)| se).unwrap_or(0.0),
        emerging: mean(&|score| score.emerging),
        live: mean(&|score| score.live),
        explained: is_dictionary.then(|| mean(&|score| score.explained)),
        per_token: is_dictionary.then(|| mean(&|score| score.per_token)),
    }
}

/// The rows as text.
pub fn render(rows: &[FeatureRow]) -> String {
    let mut text = Text::new(&["planted features", "method", "n", "recovered", "exact date", "false", "come", "live", "explained", "on"]);
    for row in rows {
        let number = |value: Option<f64>, digits: usize| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
        text.push(vec![
            row.series.clone(),
            row.method.clone(),
            row.n.to_string(),
            number(row.recovery, 3),
            number(row.exact, 3),
            number(Some(row.false_emergence), 3),
            number(Some(row.emerging), 1),
            number(Some(row.live), 1),
            number(row.explained, 3),
            number(row.per_token, 2),
        ]);
    }
    text.render()
}

/// How much of a dictionary is there again with another seed: the share of latents with a twin, and what those that come span together.
///
/// # Errors
/// Activations that are not finite.
pub fn stability(seed: u64) -> Result<(f64, Option<f64>)> {
    let planted = Planted::new(Training::Lessons, seed);
    let [one, other] = [Fitted::new(&planted, seed)?, Fitted::new(&planted, seed + 1000)?];
    let cosines = best_cosines(&one.crosscoder, &other.crosscoder)?;
    let again = cosines.iter().filter(|cosine| f64::from(**cosine) >= SAME).count() as f64 / cosines.len() as f64;
    let rows = |fitted: &Fitted| -> Result<Tensor> {
        let coming: Vec<f32> = fitted
            .by_strength()?
            .latents
            .iter()
            .filter(|latent| latent.comes.is_some())
            .flat_map(|latent| &latent.direction)
            .map(|x| *x as f32)
            .collect();
        Ok(Tensor::f_from_slice(&coming)?.f_view([-1, planted.d_model as i64])?)
    };
    Ok((again, shared(&rows(&one)?, &rows(&other)?)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_dated_and_nothing_comes_where_all_checkpoints_are_one() {
        let lessons = Planted::new(Training::Lessons, 1);
        let found = score(&lessons, &Fitted::new(&lessons, 1).unwrap().by_strength().unwrap(), true, true);
        assert!(found.recovery >= Some(0.85) && found.exact >= Some(0.85) && found.false_emergence <= 0.04, "{found:?}");
        let null = Planted::new(Training::None, 1);
        let nothing = score(&null, &Fitted::new(&null, 1).unwrap().by_strength().unwrap(), true, true);
        assert!(nothing.recovery.is_none() && nothing.emerging == 0.0 && nothing.live > 30.0, "{nothing:?}");
    }

    #[test]
    fn an_answer_is_scored_by_what_was_planted() {
        let planted = Planted::new(Training::Lessons, 2);
        let latent = |feature: usize, comes: Option<f64>| methods::Latent { direction: planted.direction(feature, 7), comes };
        let comes: Vec<usize> = (0..planted.features.len()).filter(|&feature| planted.comes(feature).is_some()).collect();
        let gap = |feature: usize| planted.comes(feature).map(|at| at as f64 - 0.5);
        // One is dated right, one wrong, and a feature that was always there is said to come.
        let latents = vec![latent(comes[0], gap(comes[0])), latent(comes[1], Some(6.9)), latent(0, Some(3.0)), latent(1, None)];
        let scored = score(&planted, &Answer { latents, ..Answer::default() }, true, true);
        assert_eq!((scored.recovery, scored.exact), (Some(2.0 / 15.0), Some(0.5)));
        assert_eq!((scored.false_emergence, scored.emerging), (0.5, 3.0));
    }
}
