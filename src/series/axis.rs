//! Where the checkpoints of a series stand: the x of every curve over training.
//!
//! Order comes from the manifest and is not questioned here, except that an axis which contradicts it
//! is an error. Stages restart their step count (supervised fine-tuning at 1,000, then preference
//! optimisation at 0); a restart continues where the stage before ended, so that x increases strictly.

use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};

/// The unit of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Axis {
    /// ln(1 + training tokens).
    TokensLog,
    /// ln(1 + optimiser steps).
    StepLog,
    /// 0, 1, 2, ...: every pair of neighbours is one apart.
    Index,
    /// Number of the stage plus the share of it that is done: stage s ends at s + 1.
    StageProgress,
}

impl Axis {
    /// As manifests and tables spell it.
    pub fn name(self) -> String {
        serde_json::to_value(self).ok().and_then(|axis| axis.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

/// What an axis needs to know of one checkpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mark<'a> {
    pub id: &'a str,
    pub stage: &'a str,
    pub step: Option<u64>,
    pub tokens: Option<u64>,
}

/// The checkpoints of a series on an axis.
#[derive(Clone, Debug, PartialEq)]
pub struct Positions {
    axis: Axis,
    /// `[T]`, strictly increasing.
    x: Vec<f64>,
    /// Steps since the start of the series, `[T]`, where every checkpoint has one.
    steps: Option<Vec<f64>>,
}

impl Positions {
    /// Places `marks`, in the order of the manifest.
    ///
    /// # Errors
    /// When there is no checkpoint, when the axis needs a step or a token count that a checkpoint does
    /// not have, or when counts that the checkpoints have do not increase within a stage.
    pub fn new(axis: Axis, marks: &[Mark]) -> Result<Self> {
        ensure!(!marks.is_empty(), "a series needs at least one checkpoint");
        let steps = continued(marks, "step", |mark| mark.step)?;
        let tokens = continued(marks, "tokens", |mark| mark.tokens)?;
        let x = match axis {
            Axis::StepLog => logarithm(required(marks, "step_log", "step", &steps)?),
            Axis::TokensLog => logarithm(required(marks, "tokens_log", "tokens", &tokens)?),
            Axis::Index => (0..marks.len()).map(|index| index as f64).collect(),
            Axis::StageProgress => stage_progress(marks),
        };
        Ok(Self { axis, x, steps: steps.into_iter().collect() })
    }

    /// The unit of x.
    pub fn axis(&self) -> Axis {
        self.axis
    }

    /// Positions `[T]`, strictly increasing.
    pub fn x(&self) -> &[f64] {
        &self.x
    }

    /// Steps since the start of the series at position `x`, interpolated between the checkpoints
    /// around it (on a logarithmic axis in ln(1 + step)). Up to half a gap beyond the ends it is
    /// extrapolated from the outermost pair, never below 0. `None` where a checkpoint has no step, or
    /// there is one checkpoint only.
    pub fn step_at(&self, x: f64) -> Option<f64> {
        let steps = self.steps.as_ref()?;
        let last_pair = self.x.len().checked_sub(2)?;
        let at = self.x.partition_point(|&position| position <= x).saturating_sub(1).min(last_pair);
        let share = (x - self.x[at]) / (self.x[at + 1] - self.x[at]);
        let between = |from: f64, to: f64| from + share * (to - from);
        let step = match self.axis {
            Axis::TokensLog | Axis::StepLog => between(steps[at].ln_1p(), steps[at + 1].ln_1p()).exp_m1(),
            Axis::Index | Axis::StageProgress => between(steps[at], steps[at + 1]),
        };
        Some(step.max(0.0))
    }
}

/// Counts since the start of the series, `[T]`, `None` where a checkpoint has none. At the first
/// checkpoint of a stage a count that is not larger than the one before is a restart, and is added to
/// it; a restart at 0 (the same weights again) counts as 1, because x has to increase.
fn continued(marks: &[Mark], name: &str, count: impl Fn(&Mark) -> Option<u64>) -> Result<Vec<Option<f64>>> {
    let mut counts = Vec::with_capacity(marks.len());
    let (mut offset, mut before): (u64, Option<(u64, &Mark)>) = (0, None);
    for mark in marks {
        let Some(own) = count(mark) else {
            counts.push(None);
            continue;
        };
        if let Some((previous, earlier)) = before
            && own <= previous
        {
            if mark.stage == earlier.stage {
                bail!(
                    "checkpoint `{}` with {name} {own} comes after `{}` with {name} {previous} in stage `{}`",
                    mark.id,
                    earlier.id,
                    mark.stage
                );
            }
            offset += previous + u64::from(own == 0);
        }
        counts.push(Some((offset + own) as f64));
        before = Some((own, mark));
    }
    Ok(counts)
}

fn required(marks: &[Mark], axis: &str, key: &str, counts: &[Option<f64>]) -> Result<Vec<f64>> {
    let with_name = |(mark, count): (&Mark, &Option<f64>)| {
        count.with_context(|| format!("axis `{axis}` needs `{key}`, which checkpoint `{}` does not have", mark.id))
    };
    marks.iter().zip(counts).map(with_name).collect()
}

fn logarithm(counts: Vec<f64>) -> Vec<f64> {
    counts.into_iter().map(f64::ln_1p).collect()
}

/// Stage number plus share of the stage: by steps where the whole stage has them, else by rank. The
/// share is above 0 (it is `(1 + step) / (1 + last step)`), so that step 0 of a stage does not coincide
/// with the end of the one before.
fn stage_progress(marks: &[Mark]) -> Vec<f64> {
    let mut x = Vec::with_capacity(marks.len());
    for (number, stage) in marks.chunk_by(|a, b| a.stage == b.stage).enumerate() {
        let steps: Option<Vec<u64>> = stage.iter().map(|mark| mark.step).collect();
        let done: Vec<f64> = match steps {
            Some(steps) => steps.iter().map(|&step| 1.0 + step as f64).collect(),
            None => (1..=stage.len()).map(|rank| rank as f64).collect(),
        };
        let all = done[done.len() - 1];
        x.extend(done.iter().map(|done| number as f64 + done / all));
    }
    x
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks<'a>(rows: &[(&'a str, Option<u64>)]) -> Vec<Mark<'a>> {
        rows.iter().map(|&(stage, step)| Mark { id: "c", stage, step, tokens: step.map(|s| 1000 * s) }).collect()
    }

    #[test]
    fn a_new_stage_continues_the_count() {
        let series = marks(&[("base", Some(0)), ("sft", Some(10)), ("sft", Some(30)), ("dpo", Some(0)), ("dpo", Some(20))]);
        let positions = Positions::new(Axis::StepLog, &series).unwrap();
        let steps: Vec<f64> = positions.x().iter().map(|x| x.exp_m1().round()).collect();
        assert_eq!(steps, [0.0, 10.0, 30.0, 31.0, 51.0]);
        for axis in [Axis::StepLog, Axis::TokensLog, Axis::Index, Axis::StageProgress] {
            let positions = Positions::new(axis, &series).unwrap();
            assert!(positions.x().is_sorted_by(|a, b| a < b), "{axis:?}: {:?}", positions.x());
        }
    }

    #[test]
    fn a_series_out_of_order_or_without_steps_is_refused() {
        let swapped = marks(&[("sft", Some(20)), ("sft", Some(10))]);
        let error = Positions::new(Axis::Index, &swapped).unwrap_err().to_string();
        assert!(error.contains("step 10 comes after"), "{error}");
        let missing = marks(&[("sft", Some(20)), ("sft", None)]);
        let error = Positions::new(Axis::StepLog, &missing).unwrap_err().to_string();
        assert!(error.contains("needs `step`"), "{error}");
        let positions = Positions::new(Axis::Index, &missing).unwrap();
        assert_eq!(positions.step_at(0.5), None);
    }

    #[test]
    fn steps_are_interpolated_in_the_unit_of_the_axis() {
        let series = marks(&[("sft", Some(0)), ("sft", Some(100)), ("sft", Some(300))]);
        let index = Positions::new(Axis::Index, &series).unwrap();
        assert_eq!(index.step_at(1.5), Some(200.0));
        assert_eq!(index.step_at(2.5), Some(400.0));
        assert_eq!(index.step_at(-0.5), Some(0.0));
        let log = Positions::new(Axis::StepLog, &series).unwrap();
        assert!((log.step_at(51f64.ln()).unwrap() - 50.0).abs() < 1e-9);
    }

    #[test]
    fn stages_without_steps_progress_by_rank() {
        let series = marks(&[("base", Some(0)), ("sft", None), ("sft", Some(9)), ("dpo", Some(4))]);
        let x = Positions::new(Axis::StageProgress, &series).unwrap();
        assert_eq!(x.x(), [1.0, 1.5, 2.0, 3.0]);
    }
}
