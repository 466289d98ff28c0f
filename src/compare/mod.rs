//! Two training runs: which of them has a concept earlier, and which has more of it in the end.
//!
//! Both runs were read on the same items, and both are resampled here with the same draws (those of the first run's seed), so every
//! resample gives a difference, and what the items have in common cancels. With two or more seeds in both arms the seed is the
//! unit instead: Welch's t over runs, because a bootstrap of items knows nothing about another seed.
//!
//! [`same`] refuses what cannot be compared, [`shift`] holds the statistics. Method section 4, "Two runs".

pub mod same;
pub mod shift;
pub(crate) mod run;
mod direction;
pub mod void;

use crate::analysis::{audit, leaks, measure};
use crate::guard::brief;
use crate::onset::trace::{Place, Trace};
use crate::onset::weigh::verdicts;
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::stats::estimate::Reported;
use crate::table;
use crate::words::Status;
use anyhow::{Context, Result, ensure};
use direction::Directions;
use run::{Known, Run};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use void::VoidRow;

/// One row of `compare.parquet`: a concept by one measure at one layer, in both arms. Differences are B minus A.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareRow {
    /// Names of the runs of arm A, joined by commas.
    pub run_a: String,
    /// Those of arm B.
    pub run_b: String,
    pub concept: String,
    pub label_family: LabelFamily,
    pub null_bank: bool,
    pub measure: String,
    /// Layer 0 is the embedding, l the output of block l; null for measures of the model's output.
    pub layer: Option<i32>,
    pub readout: Option<String>,
    /// The layer that is looked at first, which is the same in all runs: that with the largest choice over all of them or, among foils, the
    /// one of their primary layers at which the answer stands out most.
    pub primary: bool,
    /// `ok` where there is a date in every run or, for what is not dated, a level; else the first reason why not, A's before B's.
    /// `not_run`: a run has nothing there, for instance no `[personas]` or no `[causal]`.
    pub status: Status,
    /// Why arm A has no date or level, or `ok`.
    pub status_a: Status,
    /// The same of arm B.
    pub status_b: Status,
    /// Course in A. Empty for what is not dated: `persistence_ratio`, `icc_item`, `within_persona`,
    /// `consistency`, `residual_3`, `cluster` and `behaviour_in_contexts`.
    pub shape_a: String,
    /// Course in B, likewise.
    pub shape_b: String,
    /// Midpoint of the rise in A, in units of the axis.
    pub t50_a: Reported,
    /// Midpoint of the rise in B.
    pub t50_b: Reported,
    /// t50 of B minus t50 of A; positive where A is earlier.
    pub shift: Reported,
    /// The same in steps.
    pub shift_step: Reported,
    /// P(t50 of A < t50 of B): share of resamples, or of pairs of runs; ties count by half.
    pub p_a_first: Option<f64>,
    /// Mean over the late checkpoints of A, in units of the measure; of effects, with the sign that they have
    /// in each arm.
    pub level_a: Option<f64>,
    /// The same of B.
    pub level_b: Option<f64>,
    /// Level of B minus level of A.
    pub level_difference: Reported,
    /// Cosine between the final directions, corrected for noise; null unless both runs start from the same weights and both
    /// have the direction.
    pub cosine: Reported,
    /// What was resampled or counted: `group` or `run`.
    pub unit: String,
    /// Runs of A.
    pub n_a: i32,
    /// Runs of B.
    pub n_b: i32,
    pub axis: String,
}

/// What was compared and where it is written.
pub struct Comparison {
    pub rows: Vec<CompareRow>,
    /// Rows of `void.parquet`, beside the table.
    pub void: Vec<VoidRow>,
    pub table: PathBuf,
}

/// Compares two runs, or two sets of runs, from their stores, and writes `compare.parquet` and `void.parquet` into `out` (by default
/// `<A>-vs-<B>` beside the first run). The runs' own folders are only read.
///
/// # Errors
/// A store cannot be read, a walk is not finished (its open checkpoints are named), the runs differ in items, tokens or axis (the first differences are named), one arm has one run and
/// the other several, or the table cannot be written.
pub fn compare(a: &[PathBuf], b: &[PathBuf], out: Option<&Path>) -> Result<Comparison> {
    ensure!(!a.is_empty() && !b.is_empty(), "a comparison needs a run on each side");
    let several = a.len() > 1 || b.len() > 1;
    ensure!(
        !several || (a.len() > 1 && b.len() > 1),
        "{} against {} runs: with several seeds the seed is the unit, so both sides need at least two; or give one run on each side",
        a.len(),
        b.len()
    );
    let mut stores = a.iter().chain(b).map(|folder| Series::open(folder)).collect::<Result<Vec<_>>>()?;
    stores.iter().try_for_each(same::require_finished)?;
    for store in &stores[1..] {
        same::require_comparable(&stores[0], store)?;
        for table in same::one_sided(&stores[0], store) {
            tracing::warn!(
                "{} and {}: only one of them has {table}; what takes it has the status not_run in the other",
                stores[0].run,
                store.run
            );
        }
    }
    for (store, (table, without)) in stores.iter().flat_map(|store| same::partial(store).into_iter().map(move |partial| (store, partial))) {
        let ids = brief(&without.join(", "));
        tracing::warn!("{}: {table} was not walked at {ids}; what it compares is of the other checkpoints", store.run);
    }
    for store in stores[1..].iter().filter(|store| same::counts_differently(&stores[0], store)) {
        tracing::warn!(
            "{}: checkpoint n is not that of {}, so dates on this axis are not at the same training; compare shift_step, or set axis = \"step_log\"",
            store.run,
            stores[0].run
        );
    }
    share_draws(&mut stores);
    let mut traces = Vec::new();
    for store in &stores {
        for (point, error) in &store.missing {
            tracing::warn!("{}: {} left out: {error}", store.run, point.id);
        }
        let mut own = Vec::new();
        measure(store, &mut |measured| {
            own.extend(measured.traces);
            Ok(())
        })?;
        traces.push(own);
    }
    share_layers(&mut traces);
    let directions = if several { None } else { Directions::new(&stores[0], &stores[1])? };
    let audit = audit(&stores[0])?;
    let mut runs = Vec::new();
    for (store, traces) in stores.iter().zip(&traces) {
        let verdicts = verdicts(&store.timeline(), traces, &|trace| leaks(&audit, trace))?;
        runs.push(
            verdicts
                .iter()
                .map(|verdict| Ok((verdict.trace.place.clone(), Known::new(&store.timeline(), verdict)?)))
                .collect::<Result<Run>>()?,
        );
    }
    drop(traces);
    let (runs_a, runs_b) = runs.split_at(a.len());
    let places: BTreeSet<&Place> = runs.iter().flat_map(Run::keys).collect();
    let names = |stores: &[Series]| stores.iter().map(|store| store.run.clone()).collect::<Vec<_>>().join(",");
    let (run_a, run_b) = (names(&stores[..a.len()]), names(&stores[a.len()..]));
    let shared = shared_layers(&runs);
    let mut rows = Vec::new();
    for place in places {
        let mut row = run::row(place, runs_a, runs_b)?;
        row.primary = shared.contains(place);
        (row.run_a, row.run_b) = (run_a.clone(), run_b.clone());
        row.axis = serde_json::to_value(stores[0].axis)?.as_str().unwrap_or_default().to_owned();
        if let (Some(directions), Some(a), Some(b)) = (&directions, runs_a[0].get(place), runs_b[0].get(place)) {
            row.cosine = directions.cosine(place, a, b)?.into();
        }
        rows.push(row);
    }
    let folder = folder(a, b, out)?;
    let table = folder.join("compare.parquet");
    let hash = stores.iter().map(|store| store.digest()).collect::<Vec<_>>().join(" ");
    let hash = blake3::hash(hash.as_bytes()).to_hex();
    let void = void::rows(&stores, a.len(), &run_a, &run_b)?;
    table::write(&table, &rows, &hash)?;
    table::write(&folder.join(void::TABLE), &void, &hash)?;
    Ok(Comparison { rows, void, table })
}

/// Lets all runs resample as the first does: replicates are pairs only if they drew the same groups.
fn share_draws(stores: &mut [Series]) {
    let Some((first, others)) = stores.split_first_mut() else { return };
    for other in others {
        if (other.seed, other.bootstraps, other.flips) != (first.seed, first.bootstraps, first.flips) {
            tracing::info!(
                "{}: resampled with seed {} and {} bootstraps as {}, not with its own seed {} and {}, so that resamples are pairs",
                other.run,
                first.seed,
                first.bootstraps,
                first.run,
                other.seed,
                other.bootstraps
            );
        }
        (other.seed, other.bootstraps, other.flips) = (first.seed, first.bootstraps, first.flips);
    }
}

/// Gives every place the mean choice over runs, so that all have the same primary layer, whichever comes first.
fn share_layers(traces: &mut [Vec<Trace>]) {
    let mut choices: BTreeMap<Place, Vec<f64>> = BTreeMap::new();
    for trace in traces.iter().flatten() {
        choices.entry(trace.place.clone()).or_default().push(trace.choice);
    }
    let n = traces.len() as f64;
    for trace in traces.iter_mut().flatten() {
        let found = choices.get_mut(&trace.place);
        // A sum that does not depend on the order of the runs.
        trace.choice = found.map_or(trace.choice, |choices| {
            choices.sort_unstable_by(f64::total_cmp);
            // A layer that a run does not have cannot be primary in it.
            if choices.len() as f64 == n { choices.iter().sum::<f64>() / n } else { f64::NEG_INFINITY }
        });
    }
}

/// One primary layer for all runs. Where foils choose, runs may have chosen differently: of their layers it is the one with the smallest mean p
/// over all runs.
fn shared_layers(runs: &[Run]) -> BTreeSet<Place> {
    let mut best: BTreeMap<Place, (f64, &Place)> = BTreeMap::new();
    for place in runs.iter().flat_map(|run| run.iter().filter(|(_, known)| known.primary)).map(|(place, _)| place) {
        let p = |run: &Run| run.get(place).and_then(|known| known.null_p).unwrap_or(1.0);
        let mean = runs.iter().map(p).sum::<f64>() / runs.len() as f64;
        let found = best.entry(Place { layer: None, ..place.clone() }).or_insert((mean, place));
        if (mean, place) < *found {
            *found = (mean, place);
        }
    }
    best.into_values().map(|(_, place)| place.clone()).collect()
}

/// Where the table goes.
fn folder(a: &[PathBuf], b: &[PathBuf], out: Option<&Path>) -> Result<PathBuf> {
    if let Some(out) = out {
        return Ok(out.to_owned());
    }
    let name = |runs: &[PathBuf]| -> Result<(PathBuf, String)> {
        let path = std::path::absolute(&runs[0])?;
        let name = path.file_name().with_context(|| format!("{}: not a run folder; give --out", path.display()))?;
        Ok((path.parent().unwrap_or(Path::new("/")).to_owned(), name.to_string_lossy().into_owned()))
    };
    let ((parent, a), (_, b)) = (name(a)?, name(b)?);
    Ok(parent.join(format!("{a}-vs-{b}")))
}
