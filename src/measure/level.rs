//! Numbers of a run that are not dated and are compared all the same: their mean over the late checkpoints, with its resamples. A share
//! or a ratio is there only where its gate is passed, so it makes no curve; two runs differ in it or they do not.

use crate::onset::curve::Curve;
use crate::onset::gate::reference_and_late;
use crate::onset::trace::{Role, Trace};
use crate::series::Family;
use crate::stats::estimate::Sampled;
use crate::words::Status;
use std::ops::Range;

/// Quantities of one concept at one place, each collected over the late checkpoints.
pub struct Levels {
    late: Range<usize>,
    found: Vec<(&'static str, Vec<Result<Sampled, Status>>)>,
}

impl Levels {
    /// For a series of so many checkpoints.
    pub fn new(checkpoints: usize) -> Self {
        Self { late: reference_and_late(checkpoints).1, found: Vec::new() }
    }

    /// What a quantity is at a checkpoint, or the status that says why it is not there. Early ones are not kept.
    pub fn push(&mut self, t: usize, quantity: &'static str, found: Result<&Sampled, Status>) {
        if !self.late.contains(&t) {
            return;
        }
        // Half of the resamples have to be there, as for every interval.
        let found = found.and_then(|sampled| if sampled.estimate().is_some() { Ok(sampled.clone()) } else { Err(Status::GateFail) });
        match self.found.iter_mut().find(|(name, _)| *name == quantity) {
            Some((_, own)) => own.push(found),
            None => self.found.push((quantity, vec![found])),
        }
    }

    /// One trace per quantity, which is not dated. Where a late checkpoint lacks the number, its status says why.
    pub fn traces(self, family: &Family) -> Vec<Trace> {
        let last = self.late.end.saturating_sub(1);
        let trace = |(quantity, found): (&'static str, Vec<Result<Sampled, Status>>)| {
            let (status, level) = match found.into_iter().collect::<Result<Vec<Sampled>, _>>() {
                Ok(found) => (None, mean(&found)),
                Err(status) => (Some(status), Sampled { value: f64::NAN, replicates: Vec::new() }),
            };
            // Not by `Curve::new`: a resample without the number is NaN, and pairs leave it out.
            let curve = Curve { value: vec![level.value], replicates: level.replicates };
            Trace { role: Role::Level, status, ..Trace::new(quantity, family, vec![last], curve) }
        };
        self.found.into_iter().map(trace).collect()
    }
}

/// Resample by resample.
fn mean(found: &[Sampled]) -> Sampled {
    let n = found.len() as f64;
    let resamples = found.iter().map(|sampled| sampled.replicates.len()).min().unwrap_or(0);
    Sampled {
        value: found.iter().map(|sampled| sampled.value).sum::<f64>() / n,
        replicates: (0..resamples).map(|b| found.iter().map(|sampled| sampled.replicates[b]).sum::<f64>() / n).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::label_family::LabelFamily;

    #[test]
    fn late_checkpoints_are_averaged_and_a_gap_is_a_status() {
        let family = Family::named("a", LabelFamily::Crossed);
        let sampled = |value: f64| Sampled { value, replicates: vec![value - 1.0, value, f64::NAN, value + 1.0] };
        let (mut levels, one) = (Levels::new(10), sampled(1.0));
        for t in 0..10 {
            levels.push(t, "there", Ok(&sampled(t as f64)));
            levels.push(t, "gone", if t == 9 { Err(Status::NoAxis) } else { Ok(&one) });
        }
        levels.push(9, "noise", Ok(&Sampled { value: 1.0, replicates: vec![f64::NAN; 4] }));
        let traces = levels.traces(&family);
        let found: Vec<_> = traces.iter().map(|trace| (trace.place.measure, trace.status, trace.role)).collect();
        assert_eq!(
            found,
            [("there", None, Role::Level), ("gone", Some(Status::NoAxis), Role::Level), ("noise", Some(Status::GateFail), Role::Level)]
        );
        assert_eq!((traces[0].curve.value[0], traces[0].curve.replicates[0], traces[0].curve.replicates[3]), (8.5, 7.5, 9.5));
        assert!(traces[0].curve.replicates[2].is_nan() && traces[1].curve.value[0].is_nan());
    }
}
