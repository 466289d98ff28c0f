//! Behavioural and conversational persistence: whether what was learned is said in every context and behind every conversation, held against the
//! hypotheses that the contrast's persistence is held against, with the same thresholds. Both are about answers, so what has to have risen is
//! behaviour.

use super::{Hypothesis, Row, Side, Verdict, risen_from};
use crate::measure::talks::context;
use crate::measure::{Finding, behaviour};
use crate::onset::row::OnsetRow;
use crate::series::Series;
use crate::words::Status;
use std::collections::BTreeMap;

const PARTS: [&str; 2] = [behaviour::PERSISTENCE, context::PERSISTENCE];

/// What is known for these rows.
pub(super) struct Carried<'a> {
    series: &'a Series,
    /// What carries over in the mean of the contexts or conversations, by checkpoint, in order.
    means: BTreeMap<&'a str, Vec<&'a Finding>>,
    /// Behaviour's onsets, by concept.
    onsets: BTreeMap<&'a str, &'a OnsetRow>,
}

impl<'a> Carried<'a> {
    /// From the onsets at primary layers.
    pub fn new(series: &'a Series, onsets: &[&'a OnsetRow], findings: &'a [Finding]) -> Self {
        let mut means: BTreeMap<&str, Vec<&Finding>> = BTreeMap::new();
        for finding in findings.iter().filter(|finding| PARTS.contains(&finding.part)) {
            means.entry(&finding.checkpoint).or_default().push(finding);
        }
        let onsets = onsets.iter().filter(|place| place.measure == behaviour::NAME).map(|place| (place.concept.as_str(), *place));
        Self { series, means, onsets: onsets.collect() }
    }

    /// Rows of a checkpoint.
    pub fn rows(&self, t: usize) -> Vec<Row> {
        let means = self.means.get(self.series.points[t].id.as_str());
        means.into_iter().flatten().flat_map(|mean| self.held(mean, t)).collect()
    }

    fn held(&self, mean: &Finding, t: usize) -> [Row; 3] {
        let limits = &self.series.evidence;
        let onset = self.onsets.get(mean.concept.as_str());
        let gate = onset.map_or(Status::NotRun, |onset| onset.status);
        let status = match (mean.status, onset) {
            (Status::Ok, Some(onset)) if onset.status == Status::Ok && t < risen_from(onset, self.series) => Status::BeforeOnset,
            (Status::Ok, _) if gate != Status::Ok => gate,
            (Status::Ok, _) if mean.contexts < limits.personas => Status::TooFewPersonas,
            (status, _) => status,
        };
        let said = mean.estimate.filter(|_| status == Status::Ok);
        let row = |hypothesis: Hypothesis, threshold: f64, side: Side| Row {
            hypothesis,
            concept: mean.concept.clone(),
            null_bank: mean.null_bank,
            measure: mean.part.to_owned(),
            verdict: said.map_or_else(Verdict::default, |carried| side.verdict(carried, threshold)),
            status,
            gate: gate.to_owned(),
            value: mean.estimate.into(),
            threshold: Some(threshold),
            margin: mean.estimate.map(|carried| side.margin(carried.value, threshold)),
            ..Row::default()
        };
        [
            row(Hypothesis::FunctionalSelf, limits.persistence, Side::Above),
            row(Hypothesis::SelfIsAssistant, limits.persistence, Side::Above),
            row(Hypothesis::PersonasAllTheWayDown, limits.persistence_absent, Side::Below),
        ]
    }
}
