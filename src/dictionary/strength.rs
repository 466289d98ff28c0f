//! How strong every latent is at every checkpoint, in closed form and on tokens that nothing was fitted on.
//!
//! For latent j at checkpoint c, with f its activation and u its direction there (of length 1), the strength is the least-squares factor
//! of `f u` in y, the activations less what all other latents make of them: `sum_n f_n u'y_n / sum_n f_n^2` (latent scaling, Minder,
//! Dumas et al. 2025). A direction that was fitted to noise has a length, and on other tokens no strength: strengths of what is not there
//! are around 0. Sums are kept by group of texts, so that groups can be resampled.
//!
//! Beside it stand the two ratios of that paper, along the direction of the checkpoint where the latent is longest: what the error of
//! another checkpoint still has along it, and what that one's own reconstruction has, each over the same number where it is longest.
//! Near 0 the latent is truly not there; a large error ratio says that the dictionary hides it.

use super::active::{Active, ByLatent};
use super::crosscoder::{Crosscoder, Shape, values};
use crate::stats::draws::Draws;
use crate::stats::matrix::dot;
use anyhow::{Result, ensure};
use rayon::prelude::*;
use tch::Tensor;

/// Sums over held-out tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct Strength {
    pub shape: Shape,
    pub groups: usize,
    /// Of `f u'y`: `[latent, checkpoint, group]`.
    pub(super) along: Vec<f64>,
    /// Of `f^2`: `[latent, group]`.
    pub(super) squares: Vec<f64>,
    /// Of f times the error, and the reconstruction, along the longest direction: `[latent, checkpoint]`.
    pub(super) error: Vec<f64>,
    pub(super) reconstruction: Vec<f64>,
    /// Lengths of the directions `[latent, checkpoint]`.
    pub(super) lengths: Vec<f64>,
    /// Tokens at which each latent was on, and how much in sum.
    pub(super) on: Vec<u64>,
    pub(super) sum: Vec<f64>,
    /// Squared lengths of the errors and of the activations, and their sums, to take off the mean: `[checkpoint]`, `[width]`.
    pub(super) left: Vec<f64>,
    pub(super) whole: Vec<f64>,
    pub(super) total: Vec<f64>,
    pub(super) tokens: u64,
}

/// One buffer at one checkpoint.
struct Seen<'a> {
    /// Activations that strengths are of.
    home: &'a ByLatent,
    /// Activations by which the checkpoint itself is explained.
    own: &'a ByLatent,
    /// `[token, d_model]`.
    x: &'a [f32],
    error: &'a [f32],
    group: &'a [u32],
}

impl Strength {
    /// No token yet.
    pub fn new(shape: Shape, groups: usize) -> Self {
        let cells = shape.latents * shape.checkpoints;
        Self {
            shape,
            groups,
            along: vec![0.0; cells * groups],
            squares: vec![0.0; shape.latents * groups],
            error: vec![0.0; cells],
            reconstruction: vec![0.0; cells],
            lengths: vec![0.0; cells],
            on: vec![0; shape.latents],
            sum: vec![0.0; shape.latents],
            left: vec![0.0; shape.checkpoints],
            whole: vec![0.0; shape.checkpoints],
            total: vec![0.0; shape.width()],
            tokens: 0,
        }
    }

    /// Adds tokens `x`, `[token, checkpoint * d_model]`, of these groups, as a crosscoder sees them.
    ///
    /// # Errors
    /// Another number of groups than tokens, or the device is out of memory.
    pub fn add(&mut self, crosscoder: &Crosscoder, x: &Tensor, group: &[u32]) -> Result<()> {
        let active = crosscoder.encode(x)?;
        let (x, decoder) = (values(x)?, values(&crosscoder.decoder)?);
        let mut error = crosscoder.decode(&active)?;
        error.iter_mut().zip(&x).for_each(|(error, x)| *error = x - *error);
        let home = active.by_latent(self.shape.latents);
        self.add_activations(&home, group)?;
        for checkpoint in 0..self.shape.checkpoints {
            let part = |all: &[f32]| columns(all, self.shape, checkpoint);
            let seen = Seen { home: &home, own: &home, x: &part(&x), error: &part(&error), group };
            self.add_checkpoint(checkpoint, &seen, &decoder);
        }
        Ok(())
    }

    /// Adds tokens at one checkpoint of a dictionary whose directions are the same at all of them: `home` is what is on where the
    /// dictionary is at home, `own` what is on at this checkpoint, and `error` what the checkpoint's own latents leave of `x`, `[token, d_model]`.
    /// The checkpoint with number 0 has to come first.
    ///
    /// # Errors
    /// Another number of groups than tokens.
    pub fn add_frozen(
        &mut self,
        checkpoint: usize,
        [home, own]: [&Active; 2],
        [x, error]: [&[f32]; 2],
        group: &[u32],
        decoder: &[f32],
    ) -> Result<()> {
        let [home, own] = [home, own].map(|active| active.by_latent(self.shape.latents));
        if checkpoint == 0 {
            self.add_activations(&home, group)?;
        }
        self.add_checkpoint(checkpoint, &Seen { home: &home, own: &own, x, error, group }, decoder);
        Ok(())
    }

    fn add_activations(&mut self, home: &ByLatent, group: &[u32]) -> Result<()> {
        ensure!(group.iter().all(|&group| (group as usize) < self.groups), "a token is of no group");
        for latent in 0..self.shape.latents {
            for (token, value) in home.of(latent) {
                ensure!(token < group.len(), "a token has no group");
                self.squares[latent * self.groups + group[token] as usize] += f64::from(value).powi(2);
                self.sum[latent] += f64::from(value);
            }
            self.on[latent] += home.count(latent) as u64;
        }
        self.tokens += group.len() as u64;
        Ok(())
    }

    /// `decoder` is `[latent, checkpoint * d_model]`, or `[latent, d_model]` where all checkpoints share it.
    fn add_checkpoint(&mut self, checkpoint: usize, seen: &Seen, decoder: &[f32]) {
        let Shape { checkpoints, d_model, latents } = self.shape;
        let stride = decoder.len() / latents.max(1);
        let direction = |latent: usize, checkpoint: usize| {
            let start = latent * stride + if stride == d_model { 0 } else { checkpoint * d_model };
            &decoder[start..start + d_model]
        };
        let length = |latent: usize, checkpoint: usize| f64::from(dot(direction(latent, checkpoint), direction(latent, checkpoint))).sqrt();
        let groups = self.groups;
        let sums = self.along.par_chunks_exact_mut(checkpoints * groups).zip(self.error.par_chunks_exact_mut(checkpoints));
        let sums = sums.zip(self.reconstruction.par_chunks_exact_mut(checkpoints)).zip(self.lengths.par_chunks_exact_mut(checkpoints));
        sums.enumerate().for_each(|(latent, (((along, error), reconstruction), lengths))| {
            lengths[checkpoint] = length(latent, checkpoint);
            let longest = longest((0..checkpoints).map(|c| length(latent, c)));
            let along = &mut along[checkpoint * groups..(checkpoint + 1) * groups];
            let (here, there) = (direction(latent, checkpoint), direction(latent, longest));
            let [here_length, there_length] =
                [length(latent, checkpoint), length(latent, longest)].map(|length| length.max(f64::MIN_POSITIVE));
            let mut own = seen.own.of(latent).peekable();
            for (token, value) in seen.home.of(latent) {
                while own.next_if(|(other, _)| *other < token).is_some() {}
                let itself = own.peek().filter(|(other, _)| *other == token).map_or(0.0, |(_, value)| f64::from(*value));
                let (x, e) = (&seen.x[token * d_model..(token + 1) * d_model], &seen.error[token * d_model..(token + 1) * d_model]);
                let value = f64::from(value);
                along[seen.group[token] as usize] += value * (f64::from(dot(here, e)) / here_length + itself * lengths[checkpoint]);
                let error_along = f64::from(dot(there, e)) / there_length;
                error[checkpoint] += value * error_along;
                reconstruction[checkpoint] += value * (f64::from(dot(there, x)) / there_length - error_along);
            }
        });
        for (x, error) in seen.x.chunks_exact(d_model).zip(seen.error.chunks_exact(d_model)) {
            self.left[checkpoint] += f64::from(dot(error, error));
            self.whole[checkpoint] += f64::from(dot(x, x));
            self.total[checkpoint * d_model..(checkpoint + 1) * d_model].iter_mut().zip(x).for_each(|(total, x)| *total += f64::from(*x));
        }
    }

    /// Share of a checkpoint's variance that is explained.
    pub fn explained(&self, checkpoint: usize) -> Option<f64> {
        let d_model = self.shape.d_model;
        let mean: f64 = self.total[checkpoint * d_model..(checkpoint + 1) * d_model].iter().map(|total| total * total).sum();
        let whole = self.whole[checkpoint] - mean / self.tokens.max(1) as f64;
        (whole > 0.0).then(|| 1.0 - self.left[checkpoint] / whole)
    }

    /// Tokens that were added.
    pub fn tokens(&self) -> u64 {
        self.tokens
    }

    /// Latents that are on at a token, on average.
    pub fn per_token(&self) -> f64 {
        self.on.iter().sum::<u64>() as f64 / self.tokens.max(1) as f64
    }

    /// Share of the tokens at which a latent is on.
    pub fn share_on(&self, latent: usize) -> f64 {
        self.on[latent] as f64 / self.tokens.max(1) as f64
    }

    /// Mean activation of a latent where it is on.
    pub fn mean_on(&self, latent: usize) -> Option<f64> {
        (self.on[latent] > 0).then(|| self.sum[latent] / self.on[latent] as f64)
    }

    /// Groups in which a latent is on at all.
    pub fn groups_on(&self, latent: usize) -> usize {
        self.squares_of(latent).iter().filter(|square| **square > 0.0).count()
    }

    /// Length of a latent's direction at a checkpoint.
    pub fn length(&self, latent: usize, checkpoint: usize) -> f64 {
        self.lengths[latent * self.shape.checkpoints + checkpoint]
    }

    /// Strength of a latent at a checkpoint; `None` where it is never on.
    pub fn strength(&self, latent: usize, checkpoint: usize) -> Option<f64> {
        let squares: f64 = self.squares_of(latent).iter().sum();
        (squares > 0.0).then(|| self.along_of(latent, checkpoint).iter().sum::<f64>() / squares)
    }

    /// The same under every resample of the groups, `[resample, checkpoint]`; `None` where a resample has no token at which it is on.
    pub fn resampled(&self, latent: usize, draws: &Draws) -> Option<Vec<f64>> {
        let squares = self.squares_of(latent);
        let of = |counts: &[f32], sums: &[f64]| counts.iter().zip(sums).map(|(count, sum)| f64::from(*count) * sum).sum::<f64>();
        let mut out = Vec::with_capacity(draws.n_resamples() * self.shape.checkpoints);
        for counts in draws.multiplicities().chunks_exact(self.groups) {
            let whole = of(counts, squares);
            if whole <= 0.0 {
                return None;
            }
            out.extend((0..self.shape.checkpoints).map(|checkpoint| of(counts, self.along_of(latent, checkpoint)) / whole));
        }
        Some(out)
    }

    /// Error ratio and reconstruction ratio of a latent at a checkpoint, see the module; `None` where it is never on, or nowhere.
    pub fn ratios(&self, latent: usize, checkpoint: usize) -> Option<[f64; 2]> {
        let n = self.shape.checkpoints;
        let squares: f64 = self.squares_of(latent).iter().sum();
        let longest = longest((0..n).map(|c| self.length(latent, c)));
        let length = self.length(latent, longest);
        let at = |sums: &[f64], checkpoint: usize| sums[latent * n + checkpoint] / squares;
        // Where it is longest, what it makes itself is no error.
        let error = |checkpoint: usize| at(&self.error, checkpoint) + if checkpoint == longest { length } else { 0.0 };
        let (whole_error, whole) = (error(longest), at(&self.reconstruction, longest));
        (squares > 0.0 && whole_error > 0.0 && whole > 0.0)
            .then(|| [error(checkpoint) / whole_error, at(&self.reconstruction, checkpoint) / whole])
    }

    fn squares_of(&self, latent: usize) -> &[f64] {
        &self.squares[latent * self.groups..(latent + 1) * self.groups]
    }

    fn along_of(&self, latent: usize, checkpoint: usize) -> &[f64] {
        let start = (latent * self.shape.checkpoints + checkpoint) * self.groups;
        &self.along[start..start + self.groups]
    }
}

/// The first place of the largest number.
fn longest(lengths: impl Iterator<Item = f64>) -> usize {
    lengths.enumerate().fold((0, f64::NEG_INFINITY), |best, (at, length)| if length > best.1 { (at, length) } else { best }).0
}

/// The columns of one checkpoint, `[token, d_model]`.
fn columns(all: &[f32], shape: Shape, checkpoint: usize) -> Vec<f32> {
    let at = checkpoint * shape.d_model;
    all.chunks_exact(shape.width()).flat_map(|row| &row[at..at + shape.d_model]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    /// Three latents in four dimensions at three checkpoints: the first is always there, with another direction in the end; the second
    /// comes with the third checkpoint, and the dictionary gives it a length at the first, too; the third is never on.
    fn planted() -> (Crosscoder, Tensor, Vec<u32>) {
        let shape = Shape { checkpoints: 3, d_model: 4, latents: 3 };
        let decoder: [[f32; 12]; 3] = [
            [2.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 3.0],
            [0.0, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.5, 0.0, 0.0],
            [0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        ];
        let mut c = Crosscoder::random(shape, 0, Device::Cpu).unwrap();
        c.decoder = Tensor::from_slice(decoder.as_flattened()).view([3, 12]);
        let mut encoder = [[0f32; 12]; 3];
        (encoder[0][0], encoder[1][9]) = (0.5, 1.0 / 1.5);
        c.encoder = Tensor::from_slice(encoder.as_flattened()).view([3, 12]);
        let f: Vec<f32> = (0..30).flat_map(|n| [1.0 + (n % 3) as f32, if n % 2 == 0 { 1.0 + (n % 5) as f32 } else { 0.0 }]).collect();
        let mut truth = decoder;
        truth[1][1] = 0.0;
        let x = Tensor::from_slice(&f).view([30, 2]).matmul(&Tensor::from_slice(truth[..2].as_flattened()).view([2, 12]));
        (c, x, (0..30).map(|n| n / 10).collect())
    }

    #[test]
    fn a_length_that_nothing_has_is_no_strength() {
        let (c, x, group) = planted();
        let mut strength = Strength::new(c.shape, 3);
        strength.add(&c, &x.narrow(0, 0, 20), &group[..20]).unwrap();
        strength.add(&c, &x.narrow(0, 20, 10), &group[20..]).unwrap();
        let of = |latent: usize| [0, 1, 2].map(|c| strength.strength(latent, c));
        let near = |found: [Option<f64>; 3], expected: [f64; 3]| found.iter().zip(expected).all(|(a, b)| (a.unwrap() - b).abs() < 1e-5);
        assert!(near(of(0), [2.0, 2.0, 3.0]), "{:?}", of(0));
        assert!(near(of(1), [0.0, 0.0, 1.5]), "{:?}", of(1));
        assert_eq!(of(2), [None; 3]);
        assert_eq!((strength.length(1, 0), strength.groups_on(1), strength.share_on(1)), (0.5, 3, 0.5));
        // Where it is not, it is what the wrong length was taken off: the reconstruction has a third of it, the error minus a third.
        let ratios = strength.ratios(1, 0).unwrap();
        assert!((ratios[0] + 1.0 / 3.0).abs() < 1e-5 && (ratios[1] - 1.0 / 3.0).abs() < 1e-5, "{ratios:?}");
        assert!((strength.ratios(1, 2).unwrap()[0] - 1.0).abs() < 1e-5);
        assert!(strength.explained(2).unwrap() > 0.999_99 && strength.explained(0).unwrap() < 1.0);
        let draws = Draws::with_counts(3, 10, 20, 0, "strength").unwrap();
        let resampled = strength.resampled(0, &draws).unwrap();
        assert!(resampled.chunks(3).all(|row| (row[2] - 3.0).abs() < 1e-5));
    }

    #[test]
    fn a_frozen_dictionary_follows_what_is_on_at_home() {
        let shape = Shape { checkpoints: 2, d_model: 3, latents: 2 };
        let decoder = [1.0f32, 0.0, 0.0, 0.0, 2.0, 0.0];
        let home = Active::above(&[1.0, 0.0, 2.0, 1.0], &[1.0, 1.0], 0.0);
        // At the other checkpoint the first has half its size, which only the error knows, and the second is as it was.
        let own = Active::above(&[0.0, 0.0, 0.0, 1.0], &[1.0, 1.0], 0.0);
        let x = [[1.0f32, 0.0, 0.0, 2.0, 2.0, 0.0], [0.5, 0.0, 0.0, 1.0, 2.0, 0.0]];
        let error = [[0.0f32; 6], [0.5, 0.0, 0.0, 1.0, 0.0, 0.0]];
        let mut strength = Strength::new(shape, 2);
        strength.add_frozen(0, [&home, &home], [&x[0], &error[0]], &[0, 1], &decoder).unwrap();
        strength.add_frozen(1, [&home, &own], [&x[1], &error[1]], &[0, 1], &decoder).unwrap();
        assert_eq!([0, 1].map(|c| strength.strength(0, c).unwrap()), [1.0, 0.5]);
        assert_eq!([0, 1].map(|c| strength.strength(1, c).unwrap()), [2.0, 2.0]);
        assert_eq!(strength.tokens(), 2);
        assert!(strength.add_frozen(0, [&home, &home], [&x[0], &error[0]], &[0, 2], &decoder).is_err());
    }
}
