//! The resamples of the groups, drawn once and shared by every checkpoint, layer and run.
//!
//! Sharing is what makes the later steps simple: the maximum over checkpoints of one flip is a max-T
//! null (Westfall & Young 1993), and replicate `b` of one curve is paired with replicate `b` of
//! another. The draws depend on a seed and a key alone (the key names the item set, such as a concept),
//! so a run on another machine, or a second run that is compared with the first, has the same ones.

use anyhow::{Result, ensure};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Up to this many groups all sign patterns are enumerated (2^13 = 8,192) instead of sampled.
pub const EXACT_UP_TO: usize = 13;
/// Sampled sign patterns: the smallest attainable p is 1e-4.
pub const FLIPS: usize = 9_999;
/// Bootstrap resamples.
pub const RESAMPLES: usize = 999;
/// Fewest units whose mean has an interval: resamples are of at least two of them, so those of two are all alike.
pub const FEWEST: usize = 3;

/// Shared resamples of `groups` exchangeable groups.
#[derive(Clone, Debug, PartialEq)]
pub struct Draws {
    groups: usize,
    exact: bool,
    /// Signs -1 and 1, `[n_flips, groups]` row-major.
    signs: Vec<f32>,
    /// How often each group was drawn, `[n_resamples, groups]` row-major; a row sums to `groups`.
    multiplicities: Vec<f32>,
}

impl Draws {
    /// [`FLIPS`] flips (all of them up to [`EXACT_UP_TO`] groups) and [`RESAMPLES`] resamples.
    ///
    /// # Errors
    /// With fewer than two groups there is no pair of groups, and nothing can be estimated.
    pub fn new(groups: usize, seed: u64, key: &str) -> Result<Self> {
        Self::with_counts(groups, FLIPS, RESAMPLES, seed, key)
    }

    /// As [`Draws::new`] with other numbers of flips and resamples.
    pub fn with_counts(groups: usize, flips: usize, resamples: usize, seed: u64, key: &str) -> Result<Self> {
        ensure!(groups >= 2, "resampling `{key}` needs at least 2 groups, found {groups}");
        let exact = groups <= EXACT_UP_TO;
        let signs =
            if exact { every_sign(groups) } else { random_signs(groups, flips, &mut generator(seed, &format!("signs/{groups}/{key}"))) };
        let mut generator = generator(seed, &format!("resamples/{groups}/{key}"));
        let multiplicities = bootstrap(groups, resamples, &mut generator);
        Ok(Self { groups, exact, signs, multiplicities })
    }

    /// Number of groups G.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Whether the flips are all 2^G sign patterns, the identity included.
    pub fn exact(&self) -> bool {
        self.exact
    }

    /// Sign flips, `[n_flips, groups]` row-major. The exact set holds each pattern and its negation:
    /// redundant for quadratic statistics, needed for linear ones.
    pub fn signs(&self) -> &[f32] {
        &self.signs
    }

    /// Bootstrap multiplicities, `[n_resamples, groups]` row-major. Resamples in which a single group
    /// was drawn G times have no pair of groups and were redrawn; from six groups on that is rarer
    /// than 1 in 7,000.
    pub fn multiplicities(&self) -> &[f32] {
        &self.multiplicities
    }

    /// Means of `values`, one per group, under every resample: `[n_resamples]`.
    ///
    /// # Panics
    /// With another number of values than groups.
    pub fn means(&self, values: &[f64]) -> Vec<f64> {
        assert_eq!(values.len(), self.groups, "one value per group");
        let mean = |counts: &[f32]| values.iter().zip(counts).map(|(x, count)| x * f64::from(*count)).sum::<f64>() / self.groups as f64;
        self.multiplicities.chunks_exact(self.groups).map(mean).collect()
    }

    /// Number of sign flips B.
    pub fn n_flips(&self) -> usize {
        self.signs.len() / self.groups
    }

    /// Number of bootstrap resamples B'.
    pub fn n_resamples(&self) -> usize {
        self.multiplicities.len() / self.groups
    }
}

/// A generator that depends on `seed` and `key` only: BLAKE3 of both seeds ChaCha8, so that different
/// keys give independent streams whatever their order of use.
pub fn generator(seed: u64, key: &str) -> ChaCha8Rng {
    let mut hasher = blake3::Hasher::new_derive_key("selftrace 2026 draws");
    hasher.update(&seed.to_le_bytes());
    hasher.update(key.as_bytes());
    ChaCha8Rng::from_seed(*hasher.finalize().as_bytes())
}

/// A uniform index below `n`, without bias (Lemire 2019).
///
/// Written out rather than taken from `rand`, whose mapping may change between releases: published
/// intervals have to be reproducible after an upgrade.
pub fn uniform_index(n: usize, generator: &mut ChaCha8Rng) -> usize {
    let n = u32::try_from(n).expect("fewer than 2^32 groups");
    let rejected_below = n.wrapping_neg() % n;
    loop {
        let product = u64::from(generator.next_u32()) * u64::from(n);
        if product as u32 >= rejected_below {
            return (product >> 32) as usize;
        }
    }
}

/// A random order (Fisher & Yates).
pub fn shuffle<T>(values: &mut [T], generator: &mut ChaCha8Rng) {
    for last in (1..values.len()).rev() {
        values.swap(last, uniform_index(last + 1, generator));
    }
}

/// A random order of `n`, two or more, that is not the one that they have.
pub fn another_order(n: usize, generator: &mut ChaCha8Rng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..n).collect();
    while order.is_sorted() {
        shuffle(&mut order, generator);
    }
    order
}

/// A uniform number in the open interval (0, 1), 53 bits.
pub fn uniform(generator: &mut ChaCha8Rng) -> f64 {
    ((generator.next_u64() >> 11) as f64 + 0.5) * (-53f64).exp2()
}

/// A standard normal number (Box & Muller 1958).
pub fn normal(generator: &mut ChaCha8Rng) -> f64 {
    let radius = (-2.0 * uniform(generator).ln()).sqrt();
    radius * (std::f64::consts::TAU * uniform(generator)).cos()
}

/// All sign patterns, `[2^groups, groups]`; row `r` is -1 where bit `g` of `r` is set.
fn every_sign(groups: usize) -> Vec<f32> {
    let pattern = |row: usize| (0..groups).map(move |g| if row >> g & 1 == 1 { -1.0 } else { 1.0 });
    (0..1usize << groups).flat_map(pattern).collect()
}

/// Signs -1 and 1, `[flips, groups]` row-major.
pub fn random_signs(groups: usize, flips: usize, generator: &mut ChaCha8Rng) -> Vec<f32> {
    let mut signs = Vec::with_capacity(groups * flips);
    let mut bits = 0u64;
    for index in 0..groups * flips {
        if index % 64 == 0 {
            bits = generator.next_u64();
        }
        signs.push(if bits >> (index % 64) & 1 == 1 { -1.0 } else { 1.0 });
    }
    signs
}

fn bootstrap(groups: usize, resamples: usize, generator: &mut ChaCha8Rng) -> Vec<f32> {
    let mut multiplicities = vec![0f32; groups * resamples];
    for row in multiplicities.chunks_exact_mut(groups) {
        loop {
            row.fill(0.0);
            for _ in 0..groups {
                row[uniform_index(groups, generator)] += 1.0;
            }
            if row.iter().filter(|&&count| count > 0.0).count() > 1 {
                break;
            }
        }
    }
    multiplicities
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_and_key_give_the_same_draws_and_others_do_not() {
        let draws = Draws::new(48, 7, "ai_vs_human").unwrap();
        assert_eq!(draws, Draws::new(48, 7, "ai_vs_human").unwrap());
        assert_ne!(draws.signs(), Draws::new(48, 8, "ai_vs_human").unwrap().signs());
        assert_ne!(draws.signs(), Draws::new(48, 7, "honesty").unwrap().signs());
    }

    /// Published intervals depend on these bytes: a failure here means that old runs can no longer be
    /// reproduced.
    #[test]
    fn the_draws_of_a_release_stay_as_they_are() {
        let draws = Draws::new(24, 0, "ai_vs_human").unwrap();
        let mut hasher = blake3::Hasher::new();
        for value in draws.signs().iter().chain(draws.multiplicities()) {
            hasher.update(&value.to_le_bytes());
        }
        assert_eq!(&hasher.finalize().to_hex()[..16], "37143c1687a386da");
    }

    #[test]
    fn few_groups_are_enumerated_with_the_identity() {
        let draws = Draws::new(5, 0, "few").unwrap();
        assert!(draws.exact());
        assert_eq!(draws.n_flips(), 32);
        assert_eq!(&draws.signs()[..5], &[1.0; 5]);
        let distinct: std::collections::BTreeSet<Vec<i8>> =
            draws.signs().chunks(5).map(|row| row.iter().map(|&s| s as i8).collect()).collect();
        assert_eq!(distinct.len(), 32);
    }

    #[test]
    fn signs_and_multiplicities_have_their_moments() {
        let draws = Draws::new(20, 1, "moments").unwrap();
        assert!(!draws.exact());
        assert_eq!((draws.n_flips(), draws.n_resamples()), (FLIPS, RESAMPLES));
        let mean = draws.signs().iter().sum::<f32>() / draws.signs().len() as f32;
        assert!(mean.abs() < 0.01, "mean sign {mean}");
        let mut squares = 0.0;
        for row in draws.multiplicities().chunks(20) {
            assert_eq!(row.iter().sum::<f32>(), 20.0);
            squares += row.iter().map(|w| (w - 1.0) * (w - 1.0)).sum::<f32>();
        }
        let variance = squares / draws.multiplicities().len() as f32; // multinomial: 1 - 1/G
        assert!((variance - 0.95).abs() < 0.03, "variance {variance}");
    }

    #[test]
    fn a_resample_always_has_two_groups() {
        let draws = Draws::new(2, 3, "two").unwrap();
        assert!(draws.multiplicities().iter().all(|&w| w == 1.0));
        assert!(Draws::new(1, 3, "one").is_err());
    }
}
