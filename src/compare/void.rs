//! Whether runs that differ in nothing but their seed end with other answers where specifications are silent than where they speak:
//! `void.parquet`, method section 5.
//!
//! The margin of a run is that of [`late_margins`]: the first answer about oneself against the concept's other answers, late in
//! training, in nats. Its variance over the runs of an arm holds what training varies and what measuring adds; the interval is that of
//! normal margins (chi-squared). `both` pools the two arms, each around its own mean, so that what an arm does is no variance.
//!
//! Margins differ in scale from concept to concept, so sets of concepts are compared by their geometric means: the ratio is
//! `exp(mean log variance of the silent ones - of the explicit ones)`, with Welch's interval of the logarithms, and the concept is the
//! unit. The bias of a logarithm is the same on both sides and cancels.

use super::shift::between_runs;
use crate::evidence::{Verdict, verdict};
use crate::measure::agreement::{Margin, late_margins};
use crate::onset::curve::mean;
use crate::prompt::specification::Specification;
use crate::series::Series;
use crate::stats::estimate::{Estimate, Reported};
use crate::stats::tails::chi_squared_quantile;
use crate::words::Status;
use anyhow::Result;
use serde::{Deserialize, Serialize};

pub const TABLE: &str = "void.parquet";
/// Values of `quantity`.
pub const VARIANCE: &str = "between_run_variance";
pub const RATIO: &str = "variance_ratio";
/// Runs of an arm without which there is no variance, and concepts of a set without which there is no ratio.
const FEWEST: usize = 2;

/// One row of `void.parquet`: a concept's variance between runs, or a ratio of such variances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VoidRow {
    /// Names of the runs of arm A, joined by commas.
    pub run_a: String,
    /// Those of arm B.
    pub run_b: String,
    /// `a`, `b`, or `both`.
    pub arm: String,
    /// `between_run_variance` of a concept, in squared nats; `variance_ratio` of the silent concepts over the explicit ones or, with
    /// `null_bank`, of the null bank's silent topics over the explicit ones.
    pub quantity: String,
    /// Null for ratios.
    pub concept: Option<String>,
    pub specification: Option<Specification>,
    pub null_bank: bool,
    /// `ok`; `needs_seeds` (one run in the arm); why a run has no margin, as in `agreement.parquet`, or `not_run`; `equal_runs` (the
    /// margins are the same to the last digit); `too_few_concepts` (fewer than two on a side of a ratio).
    pub status: Status,
    /// Mean late margin over the runs.
    pub margin: Option<f64>,
    /// The variance or the ratio.
    pub value: Reported,
    /// `[evidence] variance_ratio` of the first run, for the ratio of what is asked about.
    pub threshold: Option<f64>,
    /// `supports`, `opposes` or `inconclusive`: on which side of the threshold the whole interval is.
    pub verdict: Option<Verdict>,
    /// Runs that it was computed over.
    pub n_runs: i32,
    /// Concepts that went in.
    pub n_concepts: i32,
}

/// A concept with its margins in the runs of both arms.
struct Asked {
    concept: String,
    null_bank: bool,
    specification: Option<Specification>,
    /// The first reason why a run has no margin.
    status: [Status; 2],
    margins: [Vec<f64>; 2],
}

/// All rows, for runs that have the same items, the first `n_a` of them arm A's.
///
/// # Errors
/// A store cannot be read.
pub(super) fn rows(stores: &[Series], n_a: usize, run_a: &str, run_b: &str) -> Result<Vec<VoidRow>> {
    let margins = stores.iter().map(late_margins).collect::<Result<Vec<_>>>()?;
    let arms = [&margins[..n_a], &margins[n_a..]];
    let concepts = asked(arms);
    let threshold = stores[0].evidence.variance_ratio;
    let mut rows = Vec::new();
    for (name, members) in [("a", &[0][..]), ("b", &[1]), ("both", &[0, 1])] {
        let n_runs = members.iter().map(|&arm: &usize| arms[arm].len()).sum::<usize>();
        let row = VoidRow {
            run_a: run_a.to_owned(),
            run_b: run_b.to_owned(),
            arm: name.to_owned(),
            quantity: VARIANCE.to_owned(),
            concept: None,
            specification: None,
            null_bank: false,
            status: Status::Ok,
            margin: None,
            value: Reported::default(),
            threshold: None,
            verdict: None,
            n_runs: n_runs as i32,
            n_concepts: 1,
        };
        let enough = members.iter().all(|&arm| arms[arm].len() >= FEWEST);
        let mut own: Vec<VoidRow> = concepts.iter().map(|asked| variance_row(&row, asked, members, enough)).collect();
        let ratios = [false, true].map(|null_bank| ratio_row(&row, &own, null_bank, enough, threshold));
        own.extend(ratios);
        rows.extend(own);
    }
    Ok(rows)
}

/// Concepts in the order of the first run that has them. What they are is what the runs say, and nothing where these contradict one another.
fn asked(arms: [&[Vec<Margin>]; 2]) -> Vec<Asked> {
    let all = || arms.iter().flat_map(|arm| arm.iter());
    let mut names: Vec<&str> = Vec::new();
    for margin in all().flatten() {
        if !names.contains(&margin.concept.as_str()) {
            names.push(&margin.concept);
        }
    }
    let of = |name: &str| {
        let find = |run: &'_ Vec<Margin>| run.iter().find(|margin| margin.concept == name).cloned();
        let found: Vec<Margin> = all().filter_map(find).collect();
        let mut said: Vec<Specification> = found.iter().filter_map(|margin| margin.specification).collect();
        said.sort_unstable();
        said.dedup();
        let status = |arm: &[Vec<Margin>]| {
            let status = |run: &Vec<Margin>| find(run).map_or(Status::NotRun, |margin| margin.status);
            arm.iter().map(status).find(|status| *status != Status::Ok).unwrap_or(Status::Ok)
        };
        let margins = |arm: &[Vec<Margin>]| arm.iter().filter_map(|run| find(run)?.value).collect();
        Asked {
            concept: name.to_owned(),
            null_bank: found.iter().any(|margin| margin.null_bank),
            specification: if said.len() == 1 { said.first().copied() } else { None },
            status: arms.map(status),
            margins: arms.map(margins),
        }
    };
    names.into_iter().map(of).collect()
}

fn variance_row(row: &VoidRow, asked: &Asked, members: &[usize], enough: bool) -> VoidRow {
    let row =
        VoidRow { concept: Some(asked.concept.clone()), specification: asked.specification, null_bank: asked.null_bank, ..row.clone() };
    let wrong = members.iter().map(|&arm| asked.status[arm]).find(|status| *status != Status::Ok);
    if let Some(status) = if enough { wrong } else { Some(Status::NeedsSeeds) } {
        return VoidRow { status, ..row };
    }
    let arms: Vec<&[f64]> = members.iter().map(|&arm| asked.margins[arm].as_slice()).collect();
    let margin = Some(mean(&arms.concat()));
    match between_run_variance(&arms) {
        Some(found) => VoidRow { margin, value: Some(found).into(), ..row },
        None => VoidRow { margin, status: Status::EqualRuns, ..row },
    }
}

/// Variance around the arms' means with `sum (n - 1)` degrees of freedom, and its interval if margins are normal. `None` where nothing
/// varies.
fn between_run_variance(arms: &[&[f64]]) -> Option<Estimate> {
    let squares: f64 = arms
        .iter()
        .map(|runs| {
            let middle = mean(runs);
            runs.iter().map(|x| (x - middle).powi(2)).sum::<f64>()
        })
        .sum();
    let freedom: usize = arms.iter().map(|runs| runs.len() - 1).sum();
    let end = |p: f64| squares / chi_squared_quantile(p, freedom as u32);
    (squares > 0.0).then(|| Estimate { value: squares / freedom as f64, lower: end(0.975), upper: end(0.025) })
}

/// Silent concepts, or the null bank's silent topics, over explicit concepts.
fn ratio_row(row: &VoidRow, concepts: &[VoidRow], null_bank: bool, enough: bool, threshold: f64) -> VoidRow {
    let logs = |specification: Specification, null_bank: bool| -> Vec<f64> {
        let own = concepts.iter().filter(|row| row.specification == Some(specification) && row.null_bank == null_bank);
        own.filter_map(|row| row.value.value).map(f64::ln).collect()
    };
    let (silent, explicit) = (logs(Specification::Silent, null_bank), logs(Specification::Explicit, false));
    let found = between_runs(&explicit, &silent)
        .map(|log| Estimate { value: log.value.exp(), lower: log.lower.exp(), upper: log.upper.exp() })
        .filter(|ratio| ratio.upper.is_finite());
    let said = found.map_or([false, false], |ratio| [ratio.lower >= threshold, ratio.upper < threshold]);
    let status = match found {
        _ if !enough => Status::NeedsSeeds,
        None => Status::TooFewConcepts,
        Some(_) => Status::Ok,
    };
    VoidRow {
        quantity: RATIO.to_owned(),
        specification: Some(Specification::Silent),
        null_bank,
        status,
        value: found.into(),
        threshold: (!null_bank).then_some(threshold),
        verdict: (!null_bank).then(|| verdict(said[0], said[1])),
        n_concepts: (silent.len() + explicit.len()) as i32,
        ..row.clone()
    }
}

#[cfg(test)]
#[path = "void_tests.rs"]
mod tests;
