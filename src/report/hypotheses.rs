//! What is printed about hypotheses: the rows of `evidence.parquet` at the last checkpoint that say something, one by one and never
//! added up.

use super::summary::Text;
use crate::evidence::{self, BEHAVIOURAL_PERSISTENCE, CONVERSATIONAL_PERSISTENCE, Hypothesis, Row, Verdict};
use crate::measure::{causal, persistence, residual};
use crate::table::Key;
use crate::words::Status;
use std::collections::BTreeSet;
use std::fmt::Write;

/// The evidence of a run as text; empty where there are neither contexts nor interventions nor answers to agree about.
pub fn text(evidence: &[(Key, Row)]) -> String {
    let (checkpoint, rows) = evidence::last(evidence);
    // A representation by itself is what the onsets say already.
    let asked: BTreeSet<&str> =
        rows.iter().filter(|row| is_asked(row) && row.status != Status::NotRun).map(|row| row.concept.as_str()).collect();
    let shown = |row: &&Row| row.hypothesis == Hypothesis::Void || asked.contains(row.concept.as_str());
    let shown: Vec<&Row> = rows.iter().filter(|row| !row.null_bank && says_something(row)).filter(shown).collect();
    if asked.is_empty() && shown.is_empty() {
        return String::new();
    }
    let mut table = Text::new(&[
        "hypothesis",
        "concept",
        "measure",
        "layer",
        "verdict",
        "value",
        "95% interval",
        "threshold",
        "at first",
        "status",
        "contrast",
    ]);
    let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
    for row in shown {
        table.push(vec![
            row.hypothesis.to_string(),
            row.concept.clone(),
            row.measure.clone(),
            row.layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string()),
            row.verdict.to_string(),
            number(row.value.value),
            row.value.ends().map_or_else(|| "-".to_owned(), |[lower, upper]| format!("[{lower:.2}, {upper:.2}]")),
            number(row.threshold),
            number(row.reference),
            row.status.to_string(),
            row.gate.to_string(),
        ]);
    }
    let mut out = format!("\nEvidence at {checkpoint}, part by part; hypotheses get no score\n{}", table.render());
    let null: Vec<&Row> = rows
        .iter()
        .filter(|row| row.null_bank && (is_asked(row) || row.hypothesis == Hypothesis::Void) && row.status == Status::Ok)
        .collect();
    let parts: BTreeSet<(Hypothesis, &str)> = null.iter().map(|row| (row.hypothesis, row.measure.as_str())).collect();
    for (hypothesis, measure) in parts {
        let own = || null.iter().filter(|row| row.hypothesis == hypothesis && row.measure == measure);
        let supports = own().filter(|row| row.verdict == Verdict::Supports).count();
        let _ = writeln!(out, "null bank, {hypothesis} by {measure}: {supports} of {} would support it", own().count());
    }
    let missing: BTreeSet<String> =
        rows.iter().filter(|row| row.status == Status::NotRun).map(|row| format!("{} {}", row.hypothesis, row.measure)).collect();
    if !missing.is_empty() {
        let _ = writeln!(out, "not run: {}", missing.into_iter().collect::<Vec<_>>().join(", "));
    }
    out.push_str("void between_run_variance needs several runs: selftrace compare --a A1 A2 --b B1 B2\n");
    out
}

/// Whether a row has more to say than why it is empty.
fn says_something(row: &Row) -> bool {
    !matches!(
        row.status,
        Status::NotRun | Status::SpecExplicit | Status::Unclassified | Status::NeedsSeeds | Status::NoAnswers | Status::NotScored
    )
}

/// Contexts or interventions.
fn is_asked(row: &Row) -> bool {
    let measure = row.measure.as_str();
    let is_effect = causal::CURVES.contains(&measure) || matches!(measure, "behavioural_effect" | "steering_along_axis");
    is_effect
        || measure.starts_with(residual::NAME)
        || measure == persistence::NAME
        || measure == BEHAVIOURAL_PERSISTENCE
        || measure == CONVERSATIONAL_PERSISTENCE
        || matches!(measure, "icc_item" | "within_persona" | "consistency")
}
