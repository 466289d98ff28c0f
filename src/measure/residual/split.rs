//! The residual: what is left of a concept's contrast once the assistant axis and the first role components are projected out,
//! `R_k = U(delta (I - A A')) / U(delta)`, against random subspaces of the space of roles.
//!
//! A projection splits the squared length, `U(delta (I - A A')) = U(delta) - U(delta A)`, so everything comes from the contrasts'
//! coordinates in an orthonormal basis of the roles' space.

use crate::stats::draws::{Draws, generator, normal};
use crate::stats::estimate::{Sampled, quantile};
use crate::stats::gram::Gram;
use anyhow::{Result, ensure};

/// Random subspaces.
pub const SUBSPACES: usize = 200;

/// The residual of one contrast at one dimension.
#[derive(Debug, Clone)]
pub struct Residual {
    /// 1: nothing of the contrast lies in A; 0: all of it does.
    pub ratio: Option<Sampled>,
    /// 2.5%, 50% and 97.5% points over random subspaces; `None` where the roles span no more than k dimensions.
    pub null: Option<[f64; 3]>,
    /// Share of random subspaces that leave less.
    pub percentile: Option<f64>,
}

/// Contrasts and their coordinates in the space of roles.
pub struct Split<'a> {
    delta: &'a [f32],
    d: usize,
    /// Coordinates `[group, m]` in the basis.
    coordinates: Vec<f64>,
    m: usize,
    basis: &'a [Vec<f64>],
    whole: Gram,
    whole_replicates: Vec<f64>,
}

impl<'a> Split<'a> {
    /// `delta` is `[group, d]`, `basis` orthonormal rows of d.
    ///
    /// # Errors
    /// Shapes that do not fit, or draws for another number of groups.
    pub fn new(delta: &'a [f32], d: usize, basis: &'a [Vec<f64>], draws: &Draws) -> Result<Self> {
        ensure!(!basis.is_empty() && basis.iter().all(|row| row.len() == d), "the basis is not rows of {d}");
        let whole = Gram::new(delta, d)?;
        let whole_replicates = whole.bootstrap_u(draws)?;
        let along = |group: &[f32], row: &[f64]| group.iter().zip(row).map(|(x, row)| f64::from(*x) * row).sum::<f64>();
        let coordinates = delta.chunks_exact(d).flat_map(|group| basis.iter().map(move |row| along(group, row))).collect();
        Ok(Self { delta, d, coordinates, m: basis.len(), basis, whole, whole_replicates })
    }

    /// R_k with its bootstrap interval over groups and its null band. `ratio` is `None` where the contrast itself is not there
    /// (U <= 0) or k directions are more than there are.
    ///
    /// # Errors
    /// Draws for another number of groups.
    pub fn residual(&self, k: usize, draws: &Draws, seed: u64, key: &str) -> Result<Residual> {
        let u = self.whole.u();
        if k > self.m || u <= 0.0 {
            return Ok(Residual { ratio: None, null: None, percentile: None });
        }
        let first: Vec<f32> = self.coordinates.chunks_exact(self.m).flat_map(|row| row[..k].iter().map(|x| *x as f32)).collect();
        let inside = Gram::new(&first, k)?;
        // What is left may be nothing, where the plain bootstrap is three times too wide.
        let left = self.whole.to_matrix().iter().zip(inside.to_matrix()).map(|(whole, inside)| whole - inside).collect();
        let left = Gram::from_matrix(self.whole.groups(), left)?;
        let value = left.u() / u;
        let ratio = |left: f64, whole: f64| if whole > 0.0 { left / whole } else { f64::NAN };
        let replicates =
            left.calibrated_bootstrap_u(draws)?.into_iter().zip(&self.whole_replicates).map(|(left, whole)| ratio(left, *whole)).collect();
        let null = self.null(k, seed, key);
        let percentile = null.as_ref().map(|null| null.iter().filter(|other| **other < value).count() as f64 / null.len() as f64);
        let band = null.map(|null| [0.025, 0.5, 0.975].map(|q| quantile(&null, q)));
        Ok(Residual { ratio: Some(Sampled { value, replicates }), null: band, percentile })
    }

    /// R of random k-dimensional subspaces of the basis, ascending.
    fn null(&self, k: usize, seed: u64, key: &str) -> Option<Vec<f64>> {
        if self.m <= k {
            return None;
        }
        let moments = self.second_moments();
        let mut generator = generator(seed, &format!("subspaces/{k}/{}/{key}", self.m));
        let mut null: Vec<f64> = (0..SUBSPACES)
            .map(|_| {
                let mut rows: Vec<Vec<f64>> = Vec::with_capacity(k);
                while rows.len() < k {
                    let mut row: Vec<f64> = (0..self.m).map(|_| normal(&mut generator)).collect();
                    for other in &rows {
                        let along: f64 = row.iter().zip(other).map(|(x, y)| x * y).sum();
                        row.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
                    }
                    let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                    row.iter_mut().for_each(|x| *x /= length);
                    rows.push(row);
                }
                let inside: f64 = rows.iter().map(|row| self.form(&moments, row)).sum();
                1.0 - inside / self.whole.u()
            })
            .collect();
        null.sort_unstable_by(f64::total_cmp);
        Some(null)
    }

    /// `M[i, j]`, unbiased for the product of the mean coordinates i and j: U along a unit vector q of the basis is `q' M q`.
    fn second_moments(&self) -> Vec<f64> {
        let groups = self.whole.groups() as f64;
        let mut sums = vec![0.0; self.m];
        let mut squares = vec![0.0; self.m * self.m];
        for row in self.coordinates.chunks_exact(self.m) {
            for (i, x) in row.iter().enumerate() {
                sums[i] += x;
                squares[i * self.m..(i + 1) * self.m].iter_mut().zip(row).for_each(|(sum, y)| *sum += x * y);
            }
        }
        let moment = |at: usize| (sums[at / self.m] * sums[at % self.m] - squares[at]) / (groups * (groups - 1.0));
        (0..self.m * self.m).map(moment).collect()
    }

    fn form(&self, moments: &[f64], row: &[f64]) -> f64 {
        let line = |i: usize| moments[i * self.m..(i + 1) * self.m].iter().zip(row).map(|(m, y)| m * y).sum::<f64>();
        row.iter().enumerate().map(|(i, x)| x * line(i)).sum()
    }

    /// The contrasts without their part in the first k directions, `[group, d]`.
    pub fn outside(&self, k: usize) -> Vec<f32> {
        let mut left = self.delta.to_vec();
        for (group, coordinates) in left.chunks_exact_mut(self.d).zip(self.coordinates.chunks_exact(self.m)) {
            for (along, row) in coordinates.iter().zip(self.basis).take(k) {
                group.iter_mut().zip(row).for_each(|(x, row)| *x = (f64::from(*x) - along * row) as f32);
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contrasts of length 3 along one coordinate, with unit noise; the basis is the first eight coordinates.
    fn planted(coordinate: usize, seed: u64) -> Vec<f32> {
        let mut generator = generator(seed, "residual");
        (0..48 * 32).map(|at| (normal(&mut generator) + if at % 32 == coordinate { 3.0 } else { 0.0 }) as f32).collect()
    }

    #[test]
    fn what_lies_along_the_axis_vanishes_and_what_lies_across_stays() {
        let basis: Vec<Vec<f64>> = (0..8).map(|i| (0..32).map(|j| f64::from(i == j)).collect()).collect();
        for seed in 0..5 {
            let draws = Draws::with_counts(48, 999, 499, seed, "residual").unwrap();
            let along = |coordinate: usize| {
                let delta = planted(coordinate, seed);
                let split = Split::new(&delta, 32, &basis, &draws).unwrap();
                let outside = Gram::new(&split.outside(3), 32).unwrap().u();
                let residual = split.residual(3, &draws, seed, "test").unwrap();
                let ratio = residual.ratio.unwrap().estimate().unwrap();
                assert!((outside / split.whole.u() - ratio.value).abs() < 1e-4, "both ways give one number");
                (ratio, residual.null.unwrap())
            };
            let (axis, null) = along(0);
            assert!(axis.upper < 0.15 && null[0] > axis.upper, "{axis:?} {null:?}");
            let (role, null) = along(5);
            assert!(role.lower > 0.9 && role.lower > null[1] && null[2] < 1.01, "{role:?} {null:?}");
            let (elsewhere, null) = along(20);
            assert!(elsewhere.lower > 0.9 && null[0] > 0.9, "{elsewhere:?} {null:?}");
        }
    }

    #[test]
    fn without_room_for_other_subspaces_there_is_no_null() {
        let basis: Vec<Vec<f64>> = (0..3).map(|i| (0..32).map(|j| f64::from(i == j)).collect()).collect();
        let draws = Draws::with_counts(48, 999, 199, 0, "residual").unwrap();
        let delta = planted(0, 0);
        let split = Split::new(&delta, 32, &basis, &draws).unwrap();
        assert!(split.residual(3, &draws, 0, "test").unwrap().null.is_none());
        assert!(split.residual(10, &draws, 0, "test").unwrap().ratio.is_none());
        assert!(split.residual(1, &draws, 0, "test").unwrap().null.is_some());
    }
}
