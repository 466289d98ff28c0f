//! Behavioural persistence: whether what was learned is said in every context, held against the hypotheses that the contrast's
//! persistence is held against, with the same thresholds. It is about answers, so what has to have risen is behaviour.

use super::{INCONCLUSIVE, Place, Row, Side, read_keyed};
use crate::measure::behaviour;
use crate::measure::behaviour::carried::CONTEXTS;
use crate::series::Series;
use anyhow::Result;
use serde::Deserialize;
use std::collections::BTreeMap;

pub const NAME: &str = "behavioural_persistence";

/// Columns of `behaviour.parquet`.
#[derive(Debug, Clone, Deserialize)]
struct Mean {
    concept: String,
    null_bank: bool,
    persona: String,
    status: String,
    carried: Option<f64>,
    carried_lower: Option<f64>,
    carried_upper: Option<f64>,
    n_contexts: i32,
}

/// What is known for these rows.
pub(super) struct Carried<'a> {
    series: &'a Series,
    /// By checkpoint, in order.
    means: BTreeMap<String, Vec<Mean>>,
    /// Behaviour's onsets, by concept.
    onsets: BTreeMap<&'a str, &'a Place>,
}

impl<'a> Carried<'a> {
    /// From `behaviour.parquet` and the onsets at primary layers.
    ///
    /// # Errors
    /// The table cannot be read.
    pub fn new(series: &'a Series, onsets: &'a [Place]) -> Result<Self> {
        let mut means: BTreeMap<String, Vec<Mean>> = BTreeMap::new();
        for (key, row) in read_keyed::<Mean>(&series.folder.join("behaviour.parquet"))? {
            if row.persona == CONTEXTS {
                means.entry(key.checkpoint).or_default().push(row);
            }
        }
        let onsets = onsets.iter().filter(|place| place.measure == behaviour::NAME).map(|place| (place.concept.as_str(), place));
        Ok(Self { series, means, onsets: onsets.collect() })
    }

    /// Rows of a checkpoint.
    pub fn rows(&self, t: usize) -> Vec<Row> {
        let means = self.means.get(&self.series.key(t).checkpoint);
        means.into_iter().flatten().flat_map(|mean| self.held(mean, t)).collect()
    }

    fn held(&self, mean: &Mean, t: usize) -> [Row; 3] {
        let limits = &self.series.evidence;
        let onset = self.onsets.get(mean.concept.as_str());
        let gate = onset.map_or("not_run", |onset| onset.status.as_str());
        let status = match (mean.status.as_str(), onset) {
            ("ok", Some(onset)) if onset.status == "ok" && t < onset.risen_from(self.series) => "before_onset",
            ("ok", _) if gate != "ok" => gate,
            ("ok", _) if (mean.n_contexts as usize) < limits.personas => "too_few_personas",
            (status, _) => status,
        };
        let interval = mean.carried.zip(mean.carried_lower).zip(mean.carried_upper).filter(|_| status == "ok");
        let interval = interval.map(|((value, lower), upper)| [value, lower, upper]);
        let row = |hypothesis: &str, threshold: f64, side: Side| Row {
            hypothesis: hypothesis.to_owned(),
            concept: mean.concept.clone(),
            null_bank: mean.null_bank,
            measure: NAME.to_owned(),
            verdict: interval.map_or_else(|| INCONCLUSIVE.to_owned(), |interval| side.verdict(interval, threshold)),
            status: status.to_owned(),
            gate: gate.to_owned(),
            value: mean.carried,
            lower: mean.carried_lower,
            upper: mean.carried_upper,
            threshold: Some(threshold),
            margin: mean.carried.map(|value| side.margin(value, threshold)),
            ..Row::default()
        };
        [
            row("functional_self", limits.persistence, Side::Above),
            row("self_is_assistant", limits.persistence, Side::Above),
            row("personas_all_the_way_down", limits.persistence_absent, Side::Below),
        ]
    }
}
