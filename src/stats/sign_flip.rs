//! p-values from sign flips of the groups, for one contrast and for a family of them.

use anyhow::{Result, ensure};

use super::estimate::{amplitude, quantile};

/// U with its values under sign flips.
#[derive(Clone, Debug)]
pub struct FlipNull {
    /// The observed U.
    pub u: f64,
    /// Standard deviation of the null over all flips; its mean is exactly 0.
    pub sd: f64,
    /// `U(s)`, `[n_flips]` in the order of the draws.
    pub flips: Vec<f64>,
    /// Largest error of a flip that rounding explains: a flip this close to the observed U is a tie.
    pub(super) rounding: f64,
    /// Whether `flips` are all of them, the observed one included.
    pub(super) exact: bool,
}

impl FlipNull {
    /// One-sided p: the share of flips with `U(s) >= U`. Sampled flips get the observed one added,
    /// `(1 + #) / (B + 1)` (Phipson & Smyth 2010); the exact set contains it.
    pub fn p_value(&self) -> f64 {
        let threshold = self.u - self.rounding;
        let above = self.flips.iter().filter(|&&flip| flip >= threshold).count();
        p_value(above, self.flips.len(), self.exact)
    }

    /// U in null standard deviations; 0 when every flip gives the same.
    pub fn z(&self) -> f64 {
        self.studentised(self.u)
    }

    /// The 95% quantile of the null, as an amplitude: the height that e has to clear by itself.
    pub fn amplitude95(&self) -> f64 {
        let mut sorted = self.flips.clone();
        sorted.sort_unstable_by(f64::total_cmp);
        amplitude(quantile(&sorted, 0.95))
    }

    fn studentised(&self, u: f64) -> f64 {
        if self.sd > 0.0 { u / self.sd } else { 0.0 }
    }
}

/// `above` of `flips` as a p-value; the observed statistic is added unless the set contains it.
pub fn p_value(above: usize, flips: usize, exact: bool) -> f64 {
    let added = usize::from(!exact);
    (above + added) as f64 / (flips + added) as f64
}

/// Family-wise p-values over members (checkpoints, layers) whose nulls come from the same draws:
/// single-step max-T (Westfall & Young 1993, algorithm 2.5), which respects the correlation between
/// members. Each U is divided by its null standard deviation first, so that a layer with large norms
/// does not own the maximum.
///
/// Members are pushed one at a time and only the running maximum is kept, so a family of any size needs
/// the memory of one null.
#[derive(Clone, Debug, Default)]
pub struct MaxT {
    observed: Vec<f64>,
    largest: Vec<f64>,
    exact: bool,
}

impl MaxT {
    /// Adds a member.
    ///
    /// # Errors
    /// When its flips are not those of the earlier members, as far as their number tells.
    pub fn push(&mut self, null: &FlipNull) -> Result<()> {
        if self.observed.is_empty() {
            self.largest = vec![f64::NEG_INFINITY; null.flips.len()];
            self.exact = null.exact;
        }
        let (found, first) = (null.flips.len(), self.largest.len());
        ensure!(
            found == first && null.exact == self.exact,
            "a family shares its draws, but this member has {found} flips and the first {first}"
        );
        self.observed.push(null.studentised(null.u - null.rounding));
        for (largest, &flip) in self.largest.iter_mut().zip(&null.flips) {
            *largest = largest.max(null.studentised(flip));
        }
        Ok(())
    }

    /// The family-wise p of each member, in the order of [`MaxT::push`].
    pub fn p_values(mut self) -> Vec<f64> {
        self.largest.sort_unstable_by(f64::total_cmp);
        let flips = self.largest.len();
        let p = |&t: &f64| {
            let below = self.largest.partition_point(|&largest| largest < t);
            p_value(flips - below, flips, self.exact)
        };
        self.observed.iter().map(p).collect()
    }
}
