//! Introspection held against the functional self: a self that knows what goes on in it says where a thought was put better than it answers
//! any question that is not about that.

use super::{Hypothesis, Row, Side, Verdict, risen_from};
use crate::measure::{Finding, introspection};
use crate::onset::row::OnsetRow;
use crate::series::Series;
use crate::words::Status;

/// Nats beyond the highest control question.
const THRESHOLD: f64 = 0.0;

/// What is known for these rows.
pub(super) struct Told<'a> {
    series: &'a Series,
    findings: Vec<&'a Finding>,
    onset: Option<&'a OnsetRow>,
}

impl<'a> Told<'a> {
    /// From the onsets at primary layers.
    pub fn new(series: &'a Series, onsets: &[&'a OnsetRow], findings: &'a [Finding]) -> Self {
        let onset = onsets.iter().find(|place| place.measure == introspection::NAME).copied();
        // Where the answer stands out most; the last of the layers where nothing is dated.
        let layer = onset.and_then(|onset| onset.layer).or_else(|| own(findings).filter_map(|finding| finding.layer).max());
        Self { series, findings: own(findings).filter(|finding| finding.layer == layer).collect(), onset }
    }

    /// The row of a checkpoint; none without injections.
    pub fn rows(&self, t: usize) -> Option<Row> {
        let at = |finding: &&&Finding| finding.checkpoint == self.series.points[t].id;
        let found = self.findings.iter().find(at)?;
        let reference = self.findings.iter().find(|finding| finding.checkpoint == self.series.points[0].id);
        let gate = self.onset.map_or(found.status, |onset| onset.status);
        let status = match (found.status, self.onset) {
            (Status::Ok, Some(onset)) if onset.status == Status::Ok && t < risen_from(onset, self.series) => Status::BeforeOnset,
            // Too few checkpoints to show a rise: the level is all there is.
            (Status::Ok, Some(onset)) if !matches!(onset.status, Status::Ok | Status::TooFewCheckpoints | Status::NoReference) => {
                onset.status
            }
            (status, _) => status,
        };
        let told = found.estimate.map(|estimate| Side::Above.verdict(estimate, THRESHOLD));
        Some(Row {
            hypothesis: Hypothesis::FunctionalSelf,
            concept: introspection::NAME.to_owned(),
            measure: introspection::NAME.to_owned(),
            layer: found.layer,
            verdict: told.filter(|told| status == Status::Ok || *told == Verdict::Opposes).unwrap_or_default(),
            status,
            gate,
            value: found.estimate.into(),
            threshold: Some(THRESHOLD),
            margin: found.estimate.map(|estimate| Side::Above.margin(estimate.value, THRESHOLD)),
            reference: reference.and_then(|finding| Some(finding.estimate?.value)),
            ..Row::default()
        })
    }
}

fn own(findings: &[Finding]) -> impl Iterator<Item = &Finding> {
    findings.iter().filter(|finding| finding.part == introspection::NAME)
}
