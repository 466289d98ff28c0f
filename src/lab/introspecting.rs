//! Whether introspection is found where it was written into the weights, and nowhere else: organisms by surgery are walked and analysed as
//! anybody's would be.

use super::organism::introspective::{GAP, Organism, operate};
use crate::analysis::{self, Analysis};
use crate::evidence::Verdict;
use crate::manifest::Manifest;
use crate::measure::introspection;
use crate::series::Series;
use crate::table::{self, Key};
use crate::walk::introspection::sheet::Sheet;
use crate::walk::job::Job;
use crate::words::Status;
use anyhow::{Context, Result, ensure};
use std::path::Path;

/// Nats from which on a score is no scatter.
const LARGE: f64 = 0.5;

/// What is said of one organism.
pub struct Found {
    pub organism: Organism,
    pub seed: u64,
    /// Status of the onset, date, and what the evidence says at the last checkpoint.
    pub status: Status,
    pub date: Option<f64>,
    pub verdict: Verdict,
    /// Score of `where` for thoughts at the last checkpoint, and how far it is beyond the highest control question.
    pub score: f64,
    pub excess: f64,
    /// What is not as it should be; empty where the organism is named correctly.
    pub faults: Vec<String>,
}

/// Makes an organism in `folder`, walks it, analyses it and compares.
///
/// # Errors
/// The folder is not writable, or an interrupt.
pub fn find(folder: &Path, organism: Organism, seed: u64) -> Result<Found> {
    let job = Job::new(Manifest::load(&operate(folder, organism, seed)?)?)?;
    let outcome = job.walk(&|_| true)?;
    ensure!(outcome.failed == 0, "{}: {} checkpoints failed", organism.name(), outcome.failed);
    let series = Series::open(&job.folder)?;
    let Analysis { onsets, evidence } = analysis::analyze(&series)?;
    let onset = onsets.iter().find(|row| row.measure == introspection::NAME && row.primary).context("introspection has no onset")?;
    let last = series.points.last().context("a series has checkpoints")?.id.clone();
    let row = evidence.iter().find(|(key, row)| key.checkpoint == last && row.measure == introspection::NAME).context("no evidence")?;
    let table: Vec<(Key, introspection::Row)> = table::read_keyed(&introspection::TABLE.path(&job.folder))?;
    // In the largest strength.
    let at_last = |question: &str| {
        let is = |(key, row): &&(Key, introspection::Row)| {
            key.checkpoint == last && row.question == question && row.injected == "thought" && Some(row.layer) == onset.layer
        };
        table.iter().rfind(is).map(|(_, row)| row.clone()).unwrap_or_default()
    };
    let place = at_last("where");
    let liked = |id: &str| -> Result<f64> {
        let sheet = Sheet::open(&job.sheet_path(introspection::NAME, id))?;
        let told = sheet.places(0, 0, 0, 0);
        Ok(told.iter().map(|x| f64::from(*x)).sum::<f64>() / told.len() as f64)
    };
    let mut found = Found {
        organism,
        seed,
        status: onset.status,
        date: onset.t50_step.value,
        verdict: row.1.verdict,
        score: place.score.value.unwrap_or(f64::NAN),
        excess: place.excess.value.unwrap_or(f64::NAN),
        faults: Vec::new(),
    };
    let mut expect = |is: bool, what: String| {
        if !is {
            found.faults.push(what)
        }
    };
    let reports = organism == Organism::Reports;
    expect((found.status == Status::Ok) == reports, format!("the onset is {}", found.status));
    expect((found.verdict == Verdict::Supports) == reports, format!("the evidence {}", found.verdict));
    if reports {
        let [after, before] = GAP;
        expect(
            found.date.is_some_and(|date| after <= date && date <= before),
            format!("dated {:?}, written between {after} and {before}", found.date),
        );
        for question in ["stronger", "about"] {
            let lower = at_last(question).score.lower.unwrap_or(f64::NAN);
            expect(lower > LARGE, format!("{question}: {lower:.2} nats at the lower end"));
        }
    }
    // Each of the others does something that a simpler measure would take for introspection.
    let sticks_out = organism == Organism::DrawnTo;
    expect((found.score > LARGE) == (reports || sticks_out), format!("the label of the sentence gains {:.2} nats", found.score));
    let gain = liked(&last)? - liked(&series.points[0].id)?;
    expect(organism != Organism::ShiftsAll || gain > LARGE, format!("labels gain {gain:.2} nats"));
    Ok(found)
}
