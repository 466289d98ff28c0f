//! Does it emerge? One gate per concept, in parts that are all reported.
//!
//! A rise from the reference checkpoints to the late ones has to be (1) larger than its sampling error,
//! after a correction over concepts, (2) accompanied by a contrast in a late checkpoint that sign flips
//! do not give, (3) larger than what concepts that nobody teaches do, and (4) at a level above what words
//! or random weights give. Each part alone is fooled by something: norms grow, random networks have contrasts, templates
//! leak. "First checkpoint with p < .05" is fooled by all of them. Method section 3.

use std::ops::Range;

use anyhow::{Result, ensure};

use super::curve::{Curve, mean, share_below};
use super::multiplicity::{Correction, adjusted};
use crate::stats::estimate::{Estimate, mean_sd};
use crate::stats::tails::{normal_upper_tail, student_upper_tail};

/// Level of the false-discovery rate and of the family-wise test.
pub const LEVEL: f64 = 0.05;
/// The concept has to rise more than this share of the null bank. By chance that happens with
/// probability 1/20 in a bank of 19, and more often in a smaller one.
pub const BANK_SHARE: f64 = 0.95;
/// Two-sided 5% test with power .8: `1.96 + 0.84` standard errors (Cohen 1988).
const DETECTABLE: f64 = 2.8;
/// Standard errors of a one-sided test at [`LEVEL`].
const ONE_SIDED: f64 = 1.644_853_626_951_472;

/// First and last checkpoints that are compared by default: `max(1, T/5)` of each.
pub fn reference_and_late(checkpoints: usize) -> (Range<usize>, Range<usize>) {
    let size = (checkpoints / 5).max(1).min(checkpoints);
    (0..size, checkpoints - size..checkpoints)
}

/// The gate of one concept. A part that does not apply is `None` and does not decide; `q` is the
/// exception, since a rise has to be tested.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Gate {
    /// Mean late amplitude minus mean reference amplitude, with its bootstrap interval.
    pub delta: Estimate,
    /// Bootstrap standard deviation of the rise, in units of `delta`.
    pub sd: f64,
    /// The rise over its standard deviation; of amplitudes, that of the squares.
    pub z: f64,
    /// What `z` tests of an amplitude; `None` for other measures.
    pub squares: Option<Squares>,
    /// One-sided p of `z` under the normal distribution.
    pub p: f64,
    /// The smallest true rise that would have been found with probability .8: `2.8 sd`.
    pub mde: f64,
    /// `p` adjusted over concepts by [`adjust`]; `None` before that.
    pub q: Option<f64>,
    /// Smallest family-wise sign-flip p among the late checkpoints and their mean, which is a member of the family too: what is
    /// weak in each of them adds up. `None` for measures without a sign-flip null.
    pub max_t_p: Option<f64>,
    /// Share of the foils, or of the null bank, with a smaller `delta`; `None` without any.
    pub null_percentile: Option<f64>,
    /// One-sided p that `delta` is one more of the null bank's, see [`Standing::p`]; `None` with fewer than three null concepts.
    pub null_p: Option<f64>,
    /// Mean late level minus what words, or random weights, reach by the same measure, with its bootstrap interval; `None` for measures
    /// without such a baseline.
    pub excess: Option<Estimate>,
}

/// The rise of an amplitude as one of its squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Squares {
    /// Late minus reference, with its bootstrap standard deviation.
    pub rise: f64,
    pub sd: f64,
    /// Sum of the two levels, at least 0: `rise / slope` is the difference of the levels.
    pub slope: f64,
}

impl Squares {
    /// The rise as one of an amplitude, of a concept that is at `level` (a slope) if it is not there: if the square of its mean level
    /// is within its own error, by a one-sided test at [`LEVEL`].
    fn read_at(&self, level: f64) -> f64 {
        let noise = 2.0 * (ONE_SIDED * self.sd).sqrt();
        let slope = self.slope.max(level.min(noise));
        if slope > 0.0 { self.rise / slope } else { 0.0 }
    }
}

impl Gate {
    /// Measures the rise of `curve`; the other parts are for the caller to fill in.
    ///
    /// # Errors
    /// When a set of checkpoints is empty or outside the curve, when they overlap, or when there are
    /// fewer than two replicates.
    pub fn measure(curve: &Curve, reference: &Range<usize>, late: &Range<usize>) -> Result<Self> {
        let t = curve.checkpoints();
        ensure!(
            !reference.is_empty() && reference.end <= late.start && !late.is_empty() && late.end <= t,
            "reference {reference:?} and late {late:?} are not two sets among {t} checkpoints"
        );
        let rise = |row: &[f64]| mean(&row[late.clone()]) - mean(&row[reference.clone()]);
        let b = curve.replicate_rows().len();
        let delta = curve.statistic(rise).filter(|_| b >= 2);
        let Some(delta) = delta else { anyhow::bail!("a gate needs replicates, found {b}") };
        let (_, sd) = mean_sd(curve.replicate_rows().map(rise));
        // A curve without any spread (a measure that is 0 by construction) gives no evidence.
        let z = if sd > 0.0 { delta.value / sd } else { 0.0 };
        Ok(Self {
            delta,
            sd,
            z,
            squares: None,
            p: normal_upper_tail(z),
            mde: DETECTABLE * sd,
            q: None,
            max_t_p: None,
            null_percentile: None,
            null_p: None,
            excess: None,
        })
    }

    /// [`Gate::measure`] for amplitudes: the rise is tested on their squares ([`Curve::squares`]) and reported as an amplitude.
    ///
    /// # Errors
    /// As [`Gate::measure`].
    pub fn of_amplitudes(curve: &Curve, reference: &Range<usize>, late: &Range<usize>) -> Result<Self> {
        let squares = curve.squares();
        let tested = Self::measure(&squares, reference, late)?;
        let plain = Self::measure(curve, reference, late)?;
        let level = |set: &Range<usize>| mean(&squares.value[set.clone()]).max(0.0);
        let (before, after) = (level(reference), level(late));
        let slope = before.sqrt() + after.sqrt();
        Ok(Self {
            delta: plain.delta,
            sd: if slope > 0.0 { tested.sd / slope } else { plain.sd },
            squares: Some(Squares { rise: tested.delta.value, sd: tested.sd, slope }),
            // From the level that there is, to the one that would be noticed.
            mde: (before + tested.mde).sqrt() - before.sqrt(),
            ..tested
        })
    }

    /// Places the rise among those of the null bank, in units of the curve.
    ///
    /// An amplitude near 0 scatters more than the same noise does at the level of a concept that is there. So a null concept that is
    /// not there is read at the level of the concept it is compared with, and one that is there as it is.
    pub fn compare_with_gates<'a>(&mut self, bank: impl Iterator<Item = &'a Self>) {
        let own = self.squares;
        let read = |other: &Self| match (own, other.squares) {
            (Some(own), Some(other)) => other.read_at(own.slope),
            _ => other.delta.value,
        };
        let standing = Standing::new(read(self), &bank.map(read).collect::<Vec<_>>());
        self.null_percentile = standing.share;
        self.null_p = standing.p;
    }

    /// Places the rise among those of the null bank; an empty bank leaves the part not applicable.
    pub fn compare_with_bank(&mut self, deltas: impl Iterator<Item = f64>) {
        let standing = Standing::new(self.delta.value, &deltas.collect::<Vec<_>>());
        self.null_percentile = standing.share;
        self.null_p = standing.p;
    }

    /// The rise has to beat both its own error and the spread of untaught concepts, so the larger p counts (an
    /// intersection-union test, Berger 1982).
    fn combined_p(&self) -> f64 {
        self.null_p.map_or(self.p, |null| null.max(self.p))
    }

    /// The parts by name, with their verdict where they apply.
    pub fn parts(&self) -> [(&'static str, Option<bool>); 4] {
        [
            ("rise", Some(self.q.is_some_and(|q| q <= LEVEL) && self.delta.value > 0.0)),
            ("max_t", self.max_t_p.map(|p| p <= LEVEL)),
            ("null_bank", self.null_percentile.map(|share| share > BANK_SHARE)),
            ("baseline", self.excess.map(|excess| excess.lower > 0.0)),
        ]
    }

    /// Whether all parts that apply hold.
    pub fn passed(&self) -> bool {
        self.parts().iter().all(|(_, held)| held.unwrap_or(true))
    }
}

/// Where a value stands among those of the null bank.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Share of the bank below, ties counted by half; `None` for an empty bank.
    pub share: Option<f64>,
    /// One-sided p of the value as the next draw from the bank: Student's t of its distance to the bank's mean over the standard
    /// deviation of a prediction, `s sqrt(1 + 1/n)` (Geisser 1993, section 2.1). A share among n concepts cannot be
    /// smaller than 1/n by chance, and this can. `None` with fewer than three, or without spread.
    pub p: Option<f64>,
}

impl Standing {
    /// Of `value` among `bank`.
    pub fn new(value: f64, bank: &[f64]) -> Self {
        let n = bank.len() as f64;
        let (mean, sd) = mean_sd(bank.iter().copied());
        let p = (bank.len() >= 3 && sd > 0.0)
            .then(|| student_upper_tail((value - mean) / (sd * (1.0 + 1.0 / n).sqrt()), bank.len() as u32 - 1));
        Self { share: share_below(value, bank.iter().copied()), p }
    }

    /// Larger than (nearly) all of the bank and than what its spread explains; true where there is no bank to tell.
    pub fn stands_out(&self) -> bool {
        self.share.is_none_or(|share| share > BANK_SHARE) && self.p.is_none_or(|p| p <= LEVEL)
    }
}

/// Fills in `q` of the gates of one family of tests, which may spend this share of the level, after they were compared with their null.
pub fn adjust(gates: &mut [Gate], correction: Correction, share: f64) {
    let ps: Vec<f64> = gates.iter().map(Gate::combined_p).collect();
    for (gate, q) in gates.iter_mut().zip(adjusted(&ps, correction)) {
        gate.q = Some((q / share).min(1.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four replicates with rises 1, 2, 3 and 4 around a rise of 2.5.
    fn rising() -> Curve {
        let replicate = |rise: f64| [0.0, 0.0, 0.0, 0.0, rise];
        let replicates = [1.0, 2.0, 3.0, 4.0].into_iter().flat_map(replicate).collect();
        Curve::new(replicate(2.5).to_vec(), replicates).unwrap()
    }

    #[test]
    fn the_rise_is_late_minus_reference_over_its_bootstrap_spread() {
        let (reference, late) = reference_and_late(5);
        let gate = Gate::measure(&rising(), &reference, &late).unwrap();
        assert_eq!(gate.delta.value, 2.5);
        assert!((gate.sd - (5f64 / 3.0).sqrt()).abs() < 1e-12);
        assert!((gate.z - 2.5 / gate.sd).abs() < 1e-12);
        assert!((gate.mde - 2.8 * gate.sd).abs() < 1e-12);
        assert!(Gate::measure(&rising(), &(0..3), &(2..5)).is_err());
    }

    #[test]
    fn every_part_that_applies_has_to_hold() {
        let (reference, late) = reference_and_late(5);
        let mut gate = Gate::measure(&rising(), &reference, &late).unwrap();
        assert!(!gate.passed(), "an untested rise does not pass");
        gate.q = Some(0.04);
        assert!(gate.passed());
        gate.compare_with_bank(std::iter::empty());
        assert_eq!(gate.parts()[2], ("null_bank", None));
        assert!(gate.passed());
        gate.compare_with_bank([1.0, 2.0, 3.0].into_iter());
        assert_eq!(gate.null_percentile, Some(2.0 / 3.0));
        assert!(!gate.passed());
        gate.compare_with_bank([1.0, 2.0].into_iter());
        gate.max_t_p = Some(0.2);
        assert!(!gate.passed());
        gate.max_t_p = Some(0.01);
        gate.excess = Some(Estimate { value: 0.1, lower: -0.1, upper: 0.3 });
        assert!(!gate.passed());
        gate.excess = Some(Estimate { value: 0.2, lower: 0.1, upper: 0.3 });
        assert!(gate.passed());
    }

    #[test]
    fn the_largest_of_a_small_bank_does_not_stand_out() {
        let bank = [0.1, -0.2, 0.3, 0.0, -0.1, 0.2];
        assert!(!Standing::new(0.35, &bank).stands_out());
        assert!(Standing::new(1.5, &bank).stands_out());
        assert!(Standing::new(0.35, &[]).stands_out());
    }

    /// A null concept that is there moves as it does, whatever the level of the concept; one within its noise is read at that level,
    /// but never below the level that noise has.
    #[test]
    fn null_concepts_are_read_at_their_own_level_if_they_are_there() {
        let squares = |rise: f64, slope: f64| Squares { rise, sd: 1.0, slope };
        assert_eq!(squares(1.0, 4.0).read_at(10.0), 0.25);
        assert_eq!(squares(1.0, 0.1).read_at(2.0), 0.5);
        assert!((squares(1.0, 0.1).read_at(10.0) - 0.5 / ONE_SIDED.sqrt()).abs() < 1e-12);
        assert_eq!(Squares { rise: 0.0, sd: 0.0, slope: 0.0 }.read_at(10.0), 0.0);
    }

    #[test]
    fn a_fall_never_passes() {
        let falling: Vec<f64> = rising().value.iter().map(|v| -v).collect();
        let replicates = rising().replicates.iter().map(|v| -v).collect();
        let curve = Curve::new(falling, replicates).unwrap();
        let mut gates = [Gate::measure(&curve, &(0..1), &(4..5)).unwrap()];
        adjust(&mut gates, Correction::BenjaminiHochberg, 1.0);
        assert!(gates[0].p > 0.9 && !gates[0].passed());
    }

    #[test]
    fn default_sets_are_a_fifth_each_and_at_least_one() {
        assert_eq!(reference_and_late(20), (0..4, 16..20));
        assert_eq!(reference_and_late(3), (0..1, 2..3));
    }

    /// The example of Benjamini & Hochberg (1995), section 3.2: four rejections at .05.
    #[test]
    fn the_false_discovery_rate_of_the_paper() {
        let ps = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000];
        let rejected = |correction| adjusted(&ps, correction).iter().filter(|&&q| q <= 0.05).count();
        assert_eq!(rejected(Correction::BenjaminiHochberg), 4);
        assert_eq!(rejected(Correction::BenjaminiYekutieli), 3);
    }
}
