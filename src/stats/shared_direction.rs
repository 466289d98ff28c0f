//! Whether concepts share one direction: the share of the first eigenvalue in the matrix of their cosines, corrected for the noise
//! that each direction has (disattenuation, Spearman 1904).

use super::draws::{Draws, generator, uniform_index};
use super::estimate::{Estimate, mean_sd, quantile};
use super::gram::Gram;
use super::matrix::{self, Right, dot_f64};
use anyhow::Result;

/// Random sets of null concepts.
pub const SETS: usize = 200;
/// Bootstrap resamples: each needs a matrix of cosines.
const RESAMPLES: usize = 200;
/// Half of a 95% interval in standard errors.
const HALF: f64 = 1.959_963_984_540_054;

/// Mean contrast and squared length of one concept, as they are and under resamples of its groups.
pub struct Direction {
    /// `[1 + RESAMPLES, d]`; the first row is the estimate.
    means: Vec<Vec<f64>>,
    u: Vec<f64>,
}

impl Direction {
    /// From contrasts `[group, d]`; with `resampled`, also under the first draws.
    ///
    /// # Errors
    /// Draws for another number of groups.
    pub fn new(delta: &[f32], d: usize, draws: &Draws, resampled: bool) -> Result<Self> {
        let gram = Gram::new(delta, d)?;
        let groups = delta.len() / d;
        let (mut counts, mut u) = (vec![1f32; groups], vec![gram.u()]);
        if resampled {
            counts.extend(draws.multiplicities().iter().take(RESAMPLES * groups));
            u.extend(gram.calibrated_bootstrap_u(draws)?.into_iter().take(RESAMPLES));
        }
        let rows = counts.len() / groups;
        let mut sums = vec![0f32; rows * d];
        matrix::multiply([rows, groups, d], &counts, delta, Right::AsIs, &mut sums);
        let means = sums.chunks_exact(d).map(|sum| sum.iter().map(|&x| f64::from(x) / groups as f64).collect()).collect();
        Ok(Self { means, u })
    }

    /// Whether there is a direction at all.
    pub fn is_there(&self) -> bool {
        self.u[0] > 0.0
    }
}

/// How far concepts share one direction.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// First eigenvalue over the number of concepts: 1/n without anything shared, 1 for one direction.
    pub share: Estimate,
    /// Resamples of it, moved so that their mean is the share.
    pub replicates: Vec<f64>,
    /// 2.5%, 50% and 97.5% points over random sets of as many null concepts; `None` where there are too few.
    pub null: Option<[f64; 3]>,
}

/// The share among `own`, beside that of sets of `null` concepts. Every direction must be there. `None` for fewer than three concepts.
pub fn cluster(own: &[&Direction], null: &[&Direction], seed: u64) -> Option<Cluster> {
    if own.len() < 3 {
        return None;
    }
    let value = share(own, 0);
    let replicates: Vec<f64> = (1..own.iter().map(|direction| direction.u.len()).min()?).map(|b| share(own, b)).collect();
    // Resampling adds noise to directions that have noise, and noise adds to eigenvalues: the spread of the resamples is that of the
    // estimate, their centre is not.
    let (centre, sd) = mean_sd(replicates.iter().copied());
    let half = HALF * sd;
    let replicates = replicates.into_iter().map(|x| x - centre + value).collect();
    let mut rng = generator(seed, "cluster");
    let shares = (null.len() > own.len()).then(|| {
        let mut shares: Vec<f64> = (0..SETS)
            .map(|_| {
                let mut pool = null.to_vec();
                let set: Vec<&Direction> = (0..own.len()).map(|_| pool.swap_remove(uniform_index(pool.len(), &mut rng))).collect();
                share(&set, 0)
            })
            .collect();
        shares.sort_unstable_by(f64::total_cmp);
        shares
    });
    let share = Estimate { value, lower: value - half, upper: value + half };
    Some(Cluster { share, replicates, null: shares.map(|shares| [0.025, 0.5, 0.975].map(|q| quantile(&shares, q))) })
}

/// First eigenvalue of the cosines of resample `b` over their number.
fn share(concepts: &[&Direction], b: usize) -> f64 {
    let n = concepts.len();
    let mut matrix = vec![0f64; n * n];
    for i in 0..n {
        matrix[i * n + i] = 1.0;
        for j in 0..i {
            let scale = (concepts[i].u[b].max(0.0) * concepts[j].u[b].max(0.0)).sqrt();
            let product = dot_f64(&concepts[i].means[b], &concepts[j].means[b]);
            let cosine = if scale > 0.0 { (product / scale).clamp(-1.0, 1.0) } else { 0.0 };
            (matrix[i * n + j], matrix[j * n + i]) = (cosine, cosine);
        }
    }
    first_eigenvalue(&matrix, n) / n as f64
}

/// Largest eigenvalue of a symmetric matrix with entries up to 1, by power iteration on it plus n, which makes all eigenvalues
/// positive and the largest one the first.
fn first_eigenvalue(matrix: &[f64], n: usize) -> f64 {
    // No start is orthogonal to the first eigenvector for rounding's sake.
    let mut vector: Vec<f64> = (0..n).map(|i| 1.0 + i as f64 / 64.0).collect();
    let mut value = 0.0;
    for _ in 0..10_000 {
        let next: Vec<f64> = (0..n)
            .map(|i| n as f64 * vector[i] + matrix[i * n..(i + 1) * n].iter().zip(&vector).map(|(m, v)| m * v).sum::<f64>())
            .collect();
        let length = next.iter().map(|x| x * x).sum::<f64>().sqrt();
        let along: f64 = next.iter().zip(&vector).map(|(x, v)| x * v).sum::<f64>() / vector.iter().map(|v| v * v).sum::<f64>();
        vector = next.into_iter().map(|x| x / length).collect();
        let settled = (along - value).abs() < 1e-13 * along;
        value = along;
        if settled {
            break;
        }
    }
    value - n as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::normal;

    const D: usize = 40;
    const GROUPS: usize = 48;

    /// A concept along `shared` times a common direction plus one of its own.
    fn concept(number: usize, shared: f64, seed: u64) -> Direction {
        let mut rng = generator(seed, &format!("concept {number}"));
        let own: Vec<f64> = (0..D).map(|_| 0.25 * normal(&mut rng)).collect();
        let delta: Vec<f32> = (0..GROUPS * D)
            .map(|i| {
                let j = i % D;
                let common = if j < 4 { shared } else { 0.0 };
                (common + own[j] + normal(&mut rng)) as f32
            })
            .collect();
        let draws = Draws::with_counts(GROUPS, 9, 99, 0, &format!("{number}")).unwrap();
        Direction::new(&delta, D, &draws, true).unwrap()
    }

    /// numpy.linalg.eigvalsh([[1, .5, -.2], [.5, 1, .3], [-.2, .3, 1]])[-1]
    #[test]
    fn the_first_eigenvalue_is_that_of_numpy() {
        let value = first_eigenvalue(&[1.0, 0.5, -0.2, 0.5, 1.0, 0.3, -0.2, 0.3, 1.0], 3);
        assert!((value - 1.512_839_47).abs() < 1e-6, "{value}");
        assert!((first_eigenvalue(&[1.0, -1.0, -1.0, 1.0], 2) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_shared_direction_lifts_the_share_above_the_bank() {
        let bank: Vec<Direction> = (100..124).map(|number| concept(number, 0.0, 1)).collect();
        let bank: Vec<&Direction> = bank.iter().collect();
        let of = |shared: f64| {
            let own: Vec<Direction> = (0..6).map(|number| concept(number, shared, 1)).collect();
            cluster(&own.iter().collect::<Vec<_>>(), &bank, 0).unwrap()
        };
        let (apart, together) = (of(0.0), of(1.0));
        let [low, _, high] = together.null.unwrap();
        assert!(together.share.lower > high && together.share.value > 0.5, "{together:?}");
        assert!(apart.share.lower < high && apart.share.upper > low, "{apart:?}");
        assert!(cluster(&bank[..2], &bank, 0).is_none());
        assert!(cluster(&bank[..6], &bank[..4], 0).unwrap().null.is_none());
    }
}
