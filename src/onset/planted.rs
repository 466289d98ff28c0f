//! Planted truth, level 0: Gaussian group contrasts along a series in which a concept appears where we
//! put it.
//!
//! Four items per group with unit noise in each of d coordinates give contrasts `delta_g ~ N(mu_t, I)`;
//! `mu_t` has the length `amplitude * level(t)`, so the amplitude e estimates that length. Noise is
//! AR(1) along the checkpoints, as activations of neighbouring checkpoints are alike. Everything can
//! grow with training, and a constant contrast can lie beneath as a lexical leak does. Method section 7.

use anyhow::Result;

use crate::stats::draws::{generator, normal};
use crate::stats::gram::Gram;

/// How the level of the concept runs over the checkpoints 0 ..= T - 1, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    Absent,
    FromStart,
    /// From 0 to 1 at position `at`.
    Step {
        at: f64,
    },
    /// Half way at `at`; `width` in checkpoints.
    Sigmoid {
        at: f64,
        width: f64,
    },
    /// There between `from` and `to` only.
    Transient {
        from: f64,
        to: f64,
    },
    /// From 1 to 0 around `at`.
    Vanishes {
        at: f64,
        width: f64,
    },
    /// There from the start; at `at` it turns into an orthogonal direction.
    Reoriented {
        at: f64,
    },
}

impl Course {
    /// Level at checkpoint `x` along (first direction, second direction).
    pub fn level(&self, x: f64) -> (f64, f64) {
        let on = |there: bool| (f64::from(there), 0.0);
        let sigmoid = |z: f64| 1.0 / (1.0 + (-z).exp());
        match *self {
            Self::Absent => (0.0, 0.0),
            Self::FromStart => (1.0, 0.0),
            Self::Step { at } => on(x >= at),
            Self::Sigmoid { at, width } => (sigmoid((x - at) / width), 0.0),
            Self::Transient { from, to } => on((from..to).contains(&x)),
            Self::Vanishes { at, width } => (sigmoid((at - x) / width), 0.0),
            Self::Reoriented { at } => (f64::from(x < at), f64::from(x >= at)),
        }
    }
}

/// A series with a known answer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Planted {
    pub course: Course,
    /// Length of the mean contrast at level 1, in units of the contrasts' noise per coordinate.
    pub amplitude: f64,
    /// Length of a constant contrast in a direction of its own.
    pub leak: f64,
    /// Factor by which contrasts, noise included, grow geometrically from first to last checkpoint.
    pub norm_growth: f64,
    /// Correlation of the noise of neighbouring checkpoints.
    pub autocorrelation: f64,
    /// T.
    pub checkpoints: usize,
    /// G.
    pub groups: usize,
    /// Coordinates, at least 3.
    pub d: usize,
}

impl Planted {
    /// The contrasts `[groups, d]` of each checkpoint. The noise is isotropic, so the directions may be
    /// coordinates: 0 and 1 for the concept, 2 for the leak.
    pub fn contrasts(&self, seed: u64) -> Vec<Vec<f32>> {
        let mut generator = generator(seed, "planted");
        let mut noise: Vec<f64> = (0..self.groups * self.d).map(|_| normal(&mut generator)).collect();
        let fresh = (1.0 - self.autocorrelation * self.autocorrelation).sqrt();
        let last = (self.checkpoints - 1).max(1) as f64;
        let mut series = Vec::with_capacity(self.checkpoints);
        for checkpoint in 0..self.checkpoints {
            if checkpoint > 0 {
                for value in &mut noise {
                    *value = self.autocorrelation * *value + fresh * normal(&mut generator);
                }
            }
            let x = checkpoint as f64;
            let growth = self.norm_growth.powf(x / last);
            let (first, second) = self.course.level(x);
            let mean = [self.amplitude * first, self.amplitude * second, self.leak];
            let value = |(index, noise): (usize, &f64)| {
                let mean = mean.get(index % self.d).copied().unwrap_or(0.0);
                (growth * (noise + mean)) as f32
            };
            series.push(noise.iter().enumerate().map(value).collect());
        }
        series
    }

    /// Gram matrices of [`Planted::contrasts`].
    ///
    /// # Errors
    /// With fewer than two groups.
    pub fn grams(&self, seed: u64) -> Result<Vec<Gram>> {
        self.contrasts(seed).iter().map(|delta| Gram::new(delta, self.d)).collect()
    }
}

/// The amplitude at which a mass-mean probe trained on `groups` groups reaches the held-out AUROC with
/// `margin = sqrt(2) * probit(AUROC)`, the separation of the two labels' scores in standard deviations.
///
/// The probe's direction has the squared cosine `a^2 / (a^2 + d / groups)` with the true one, and the
/// margin is the amplitude times that cosine; solved for `a`.
pub fn amplitude_for(margin: f64, groups: usize, d: usize) -> f64 {
    let m2 = margin * margin;
    let noise = d as f64 / groups as f64;
    ((m2 + (m2 * m2 + 4.0 * m2 * noise).sqrt()) / 2.0).sqrt()
}

#[cfg(test)]
#[path = "planted_tests.rs"]
mod tests;
