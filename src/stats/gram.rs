//! The contrast of a concept: how far apart its two labels are, group by group, and whether by chance.
//!
//! Group `g` has the contrast `delta_g` in R^d, the mean activation under y = 1 minus that under
//! y = 0. Everything asked about it (size, sign-flip null, bootstrap interval, cosine to another
//! checkpoint) is a quadratic form in the G x G matrix of inner products `K = delta delta'`. Only the
//! inner products of *different* groups carry signal without noise, so the diagonal is kept apart: with
//! the hollow matrix `H = K - diag K`,
//!
//! ```text
//! U    = 1'H1 / (G (G - 1))              unbiased for |E delta|^2
//! U(s) = s'Hs / (G (G - 1))              sign flip s in {-1, 1}^G
//! U_w  = w'Hw / ((sum w)^2 - sum w^2)    bootstrap multiplicities w
//! ```
//!
//! U is the U-statistic of Serfling (1980, chapter 5) with kernel `<delta_g, delta_g'>`, as used for
//! distances between patterns by Walther et al. (2016). Method section 2.

use anyhow::{Result, ensure};

use super::draws::Draws;
use super::matrix::{self, Right};
use super::sign_flip::FlipNull;

/// Matrices that are multiplied with the flips at a time.
const TOGETHER: usize = 8;

/// Inner products between the group contrasts of one or two checkpoints (or formats, or runs), at one
/// layer.
#[derive(Clone, Debug)]
pub struct Gram {
    groups: usize,
    /// H, `[groups, groups]`: inner products of different groups, zeros on the diagonal.
    hollow: Vec<f32>,
    /// `<delta_g, delta_g>`, `[groups]`.
    diagonal: Vec<f32>,
}

impl Gram {
    /// Gram matrix of the contrasts `delta`, `[groups, d]` row-major.
    ///
    /// # Errors
    /// When `delta` is not whole rows of `d`, has fewer than two, or has a value that is not finite.
    pub fn new(delta: &[f32], d: usize) -> Result<Self> {
        Self::cross(delta, delta, d)
    }

    /// Cross-Gram matrix `K[g, g'] = <left_g, right_g'>` of two sets of contrasts over the *same
    /// groups*, both `[groups, d]`; not symmetric. Groups must be aligned because noise that both
    /// sides share within a group sits on the diagonal, which is left out.
    ///
    /// # Errors
    /// As [`Gram::new`], and when the shapes differ.
    pub fn cross(left: &[f32], right: &[f32], d: usize) -> Result<Self> {
        ensure!(d > 0 && left.len().is_multiple_of(d), "{} values are not rows of {d}", left.len());
        ensure!(left.len() == right.len(), "{} values against {}", left.len(), right.len());
        let groups = left.len() / d;
        ensure!(groups >= 2, "a contrast needs at least 2 groups, found {groups}");
        let mut k = vec![0.0; groups * groups];
        matrix::multiply([groups, d, groups], left, right, Right::Transposed, &mut k);
        Self::from_matrix(groups, k)
    }

    /// From a stored matrix K, `[groups, groups]` row-major.
    ///
    /// # Errors
    /// When K is not square with at least two groups, or has a value that is not finite.
    pub fn from_matrix(groups: usize, mut k: Vec<f32>) -> Result<Self> {
        ensure!(groups >= 2, "a contrast needs at least 2 groups, found {groups}");
        ensure!(k.len() == groups * groups, "{} values for {groups} x {groups}", k.len());
        if let Some(at) = k.iter().position(|value| !value.is_finite()) {
            let (row, column) = (at / groups, at % groups);
            anyhow::bail!("contrasts of groups {row} and {column} have inner product {}", k[at]);
        }
        let diagonal = (0..groups).map(|g| std::mem::take(&mut k[g * groups + g])).collect();
        Ok(Self { groups, hollow: k, diagonal })
    }

    /// Mean of matrices over the same groups. U, its flips and its resamples are linear in the matrix, so those of the mean are the
    /// means of theirs: several checkpoints tested as one.
    ///
    /// # Errors
    /// When there are none, or they differ in their number of groups.
    pub fn mean(grams: &[Self]) -> Result<Self> {
        let Some(first) = grams.first() else { anyhow::bail!("there are no contrasts to average") };
        ensure!(grams.iter().all(|gram| gram.groups == first.groups), "contrasts of different numbers of groups are not averaged");
        let over = |of: fn(&Self) -> &[f32]| -> Vec<f32> {
            let sum = |at: usize| grams.iter().map(|gram| f64::from(of(gram)[at])).sum::<f64>();
            (0..of(first).len()).map(|at| (sum(at) / grams.len() as f64) as f32).collect()
        };
        Ok(Self { groups: first.groups, hollow: over(|gram| &gram.hollow), diagonal: over(|gram| &gram.diagonal) })
    }

    /// Number of groups G.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// K with its diagonal, `[groups, groups]` row-major, as stored in `gram.parquet`.
    pub fn to_matrix(&self) -> Vec<f32> {
        let mut k = self.hollow.clone();
        for (g, &square) in self.diagonal.iter().enumerate() {
            k[g * self.groups + g] = square;
        }
        k
    }

    /// U, unbiased for `|E delta|^2` (for `<E left, E right>` of a cross-Gram matrix); negative when
    /// the groups agree less than by chance.
    pub fn u(&self) -> f64 {
        self.hollow.iter().map(|&k| f64::from(k)).sum::<f64>() / self.pairs()
    }

    /// Standard deviation of `U(s)` over all 2^G sign flips: the coefficient of `s_g s_g'` is
    /// `K_gg' + K_g'g`, and these products are uncorrelated, so no draw is needed.
    pub fn flip_sd(&self) -> f64 {
        let mut variance = 0.0;
        for g in 0..self.groups {
            for other in 0..g {
                let both = f64::from(self.hollow[g * self.groups + other]) + f64::from(self.hollow[other * self.groups + g]);
                variance += both * both;
            }
        }
        variance.sqrt() / self.pairs()
    }

    /// The sign-flip null of U: under "no effect" `delta_g` and `-delta_g` are equally likely
    /// (Winkler et al. 2014). One product `S H`, then row-wise inner products with S.
    ///
    /// # Errors
    /// When `draws` are for another number of groups.
    pub fn sign_flip_null(&self, draws: &Draws) -> Result<FlipNull> {
        Ok(Self::sign_flip_nulls(std::slice::from_ref(self), draws)?.remove(0))
    }

    /// [`Gram::sign_flip_null`] of several matrices over the same groups, which share the reading of the flips: half of the time.
    ///
    /// # Errors
    /// When `draws` are for another number of groups.
    pub fn sign_flip_nulls(grams: &[Self], draws: &Draws) -> Result<Vec<FlipNull>> {
        let n = draws.groups();
        let mut nulls = Vec::with_capacity(grams.len());
        for grams in grams.chunks(TOGETHER) {
            if let Some(gram) = grams.iter().find(|gram| gram.groups != n) {
                anyhow::bail!("draws for {n} groups, contrasts of {}", gram.groups);
            }
            let mut flips = vec![Vec::with_capacity(draws.n_flips()); grams.len()];
            let hollow: Vec<&[f32]> = grams.iter().map(|gram| gram.hollow.as_slice()).collect();
            matrix::forms_of(n, draws.signs(), &hollow, |index, form| flips[index].push(form / grams[index].pairs()));
            nulls.extend(grams.iter().zip(flips).map(|(gram, flips)| {
                // f32 sums in another order may put a flip that equals the observed U a little below it.
                let absolute: f64 = gram.hollow.iter().map(|&k| f64::from(k.abs())).sum();
                let rounding = 8.0 * f64::from(f32::EPSILON) * absolute / gram.pairs();
                FlipNull { u: gram.u(), sd: gram.flip_sd(), flips, rounding, exact: draws.exact() }
            }));
        }
        Ok(nulls)
    }

    /// Sampling variance of U without signal, `2 tr(Sigma^2) / (G (G - 1))` with Sigma the covariance
    /// of the contrasts: unbiased whether or not there is signal, because each pair of groups is
    /// centred on the mean of the others (Chen & Qin 2010, section 2). 0 for two groups, or where
    /// chance makes the estimate negative. Of a cross-Gram matrix only the symmetric part matters, as for U.
    pub fn noise_variance(&self) -> f64 {
        if self.groups < 3 {
            return 0.0;
        }
        let (groups, others) = (self.groups, (self.groups - 1) as f64);
        let k = |g: usize, other: usize| (f64::from(self.hollow[g * groups + other]) + f64::from(self.hollow[other * groups + g])) / 2.0;
        let sums: Vec<f64> = (0..groups).map(|g| (0..groups).map(|other| k(g, other)).sum()).collect();
        let mut trace = 0.0;
        for g in 0..groups {
            for other in (0..groups).filter(|&other| other != g) {
                let scaled = others * k(g, other);
                trace += (scaled - sums[g]) * (scaled - sums[other]);
            }
        }
        let trace = trace / (self.pairs() * (others - 1.0).powi(2));
        2.0 * trace.max(0.0) / self.pairs()
    }

    /// [`Gram::bootstrap_u`] with the spread that U has.
    ///
    /// U is degenerate without signal, and there the plain bootstrap has three times its variance: it
    /// resamples around the observed mean contrast, whose noise counts as signal. In general the
    /// excess is twice the [`Gram::noise_variance`]. On the other side the bootstrap variance of a mean
    /// is short by `(G - 1) / G`, twice over for a product of two. Deviations from U are scaled by the
    /// one factor that corrects both; it tends to 1 as signal and groups grow. Ours; the test holds it
    /// against simulation.
    ///
    /// # Errors
    /// When `draws` are for another number of groups.
    pub fn calibrated_bootstrap_u(&self, draws: &Draws) -> Result<Vec<f64>> {
        let (u, noise) = (self.u(), self.noise_variance());
        let mut replicates = self.bootstrap_u(draws)?;
        let deviations = replicates.iter().map(|replicate| (replicate - u).powi(2));
        let variance = deviations.sum::<f64>() / replicates.len() as f64;
        if noise > 0.0 && variance > 0.0 {
            let g = self.groups as f64;
            let whole = variance * (g / (g - 1.0)).powi(2);
            let factor = ((whole - 2.0 * noise).max(noise) / variance).sqrt();
            replicates.iter_mut().for_each(|replicate| *replicate = u + factor * (*replicate - u));
        }
        Ok(replicates)
    }

    /// Bootstrap replicates of U over groups, one per resample of `draws`. Pairs of copies of one
    /// group are left out, so that replicates centre on U (Arcones & Gine 1992). Too wide where the
    /// signal is weak: see [`Gram::calibrated_bootstrap_u`].
    ///
    /// # Errors
    /// When `draws` are for another number of groups.
    pub fn bootstrap_u(&self, draws: &Draws) -> Result<Vec<f64>> {
        let mut replicates = Vec::with_capacity(draws.n_resamples());
        self.quadratic_forms(draws.groups(), draws.multiplicities(), |w, form| {
            let (mut sum, mut squares) = (0.0, 0.0);
            for &count in w {
                sum += f64::from(count);
                squares += f64::from(count * count);
            }
            replicates.push(form / (sum * sum - squares));
        })?;
        Ok(replicates)
    }

    /// Calls `each(v, v'Hv)` for the rows v of `rows`, `[n, groups]`, in order.
    fn quadratic_forms(&self, groups: usize, rows: &[f32], each: impl FnMut(&[f32], f64)) -> Result<()> {
        let found = self.groups;
        ensure!(groups == found, "draws for {groups} groups, contrasts of {found}");
        matrix::quadratic_forms(groups, rows, &self.hollow, each);
        Ok(())
    }

    /// Number of ordered pairs of different groups.
    fn pairs(&self) -> f64 {
        (self.groups * (self.groups - 1)) as f64
    }
}

/// Cosine between the true directions of two checkpoints from unbiased parts,
/// `U_tt' / sqrt(U_t U_t')`: noise does not pull it towards zero as it does the raw cosine (Walther et
/// al. 2016). It can exceed 1 by chance. `None` unless both `u_left` and `u_right` are positive; the
/// caller asks for more than that (both pass their gate).
pub fn cosine(u_cross: f64, u_left: f64, u_right: f64) -> Option<f64> {
    (u_left > 0.0 && u_right > 0.0).then(|| u_cross / (u_left * u_right).sqrt())
}

#[cfg(test)]
#[path = "gram_tests.rs"]
mod tests;
