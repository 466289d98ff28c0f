//! Behavioural persistence: whether what was learned is said in every context, held against the hypotheses that the contrast's
//! persistence is held against, with the same thresholds. It is about answers, so what has to have risen is behaviour.

use super::{Place, Row, onsets, read_keyed, verdict};
use crate::measure::behaviour;
use crate::measure::carried::CONTEXTS;
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
    onsets: BTreeMap<String, Place>,
}

impl<'a> Carried<'a> {
    /// From `behaviour.parquet` and `onset.parquet`.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn new(series: &'a Series) -> Result<Self> {
        let mut means: BTreeMap<String, Vec<Mean>> = BTreeMap::new();
        for (key, row) in read_keyed::<Mean>(&series.folder.join("behaviour.parquet"))? {
            if row.persona == CONTEXTS {
                means.entry(key.checkpoint).or_default().push(row);
            }
        }
        let onsets = onsets(&series.folder, |place| place.measure == behaviour::NAME)?;
        Ok(Self { series, means, onsets: onsets.into_iter().map(|place| (place.concept.clone(), place)).collect() })
    }

    /// Rows of a checkpoint.
    pub fn rows(&self, t: usize) -> Vec<Row> {
        let means = self.means.get(&self.series.key(t).checkpoint);
        means.into_iter().flatten().flat_map(|mean| self.held(mean, t)).collect()
    }

    fn held(&self, mean: &Mean, t: usize) -> [Row; 3] {
        let limits = &self.series.evidence;
        let onset = self.onsets.get(&mean.concept);
        let gate = onset.map_or("not_run", |onset| onset.status.as_str());
        let status = match (mean.status.as_str(), onset) {
            ("ok", Some(onset)) if onset.status == "ok" && t < onset.risen_from(self.series) => "before_onset",
            ("ok", _) if gate != "ok" => gate,
            ("ok", _) if (mean.n_contexts as usize) < limits.personas => "too_few_personas",
            (status, _) => status,
        };
        let interval = mean.carried.zip(mean.carried_lower).zip(mean.carried_upper).filter(|_| status == "ok");
        let row = |hypothesis: &str, threshold: f64, below: bool| {
            let said = interval.map_or((false, false), |((_, lower), upper)| {
                if below { (upper < threshold, lower >= threshold) } else { (lower >= threshold, upper < threshold) }
            });
            Row {
                hypothesis: hypothesis.to_owned(),
                concept: mean.concept.clone(),
                null_bank: mean.null_bank,
                measure: NAME.to_owned(),
                layer: None,
                readout: None,
                verdict: verdict(said.0, said.1),
                status: status.to_owned(),
                gate: gate.to_owned(),
                value: mean.carried,
                lower: mean.carried_lower,
                upper: mean.carried_upper,
                threshold: Some(threshold),
                margin: mean.carried.map(|value| if below { threshold - value } else { value - threshold }),
                reference: None,
            }
        };
        [
            row("functional_self", limits.persistence, false),
            row("self_is_assistant", limits.persistence, false),
            row("personas_all_the_way_down", limits.persistence_absent, true),
        ]
    }
}
