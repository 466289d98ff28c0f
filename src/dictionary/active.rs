//! Which latents are on at which tokens, and how much.

use rayon::prelude::*;
use std::ops::Range;

/// Activations that are not zero, token by token and in the order of latents.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Active {
    /// Where each token's entries begin, and behind them where the last ends: `[token + 1]`.
    pub starts: Vec<usize>,
    pub latent: Vec<u32>,
    pub value: Vec<f32>,
}

/// The same, latent by latent and in the order of tokens.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ByLatent {
    /// `[latent + 1]`.
    pub starts: Vec<usize>,
    pub token: Vec<u32>,
    pub value: Vec<f32>,
}

impl Active {
    /// Number of tokens.
    pub fn tokens(&self) -> usize {
        self.starts.len().saturating_sub(1)
    }

    /// Number of activations.
    pub fn len(&self) -> usize {
        self.latent.len()
    }

    /// Whether nothing is on.
    pub fn is_empty(&self) -> bool {
        self.latent.is_empty()
    }

    /// Latents and activations at a token.
    pub fn at(&self, token: usize) -> impl Iterator<Item = (usize, f32)> {
        let range = self.range(token);
        self.latent[range.clone()].iter().map(|&latent| latent as usize).zip(self.value[range].iter().copied())
    }

    fn range(&self, token: usize) -> Range<usize> {
        self.starts[token]..self.starts[token + 1]
    }

    /// The activations `pre`, `[token, latent]`, whose product with the latent's weight is above `threshold` and positive.
    pub fn above(pre: &[f32], weights: &[f32], threshold: f32) -> Self {
        let found = rows(pre, weights.len()).map(|(_, row)| {
            let on = row.iter().zip(weights).enumerate().filter(|(_, (x, w))| **x > 0.0 && **x * **w > threshold);
            on.map(|(latent, (x, _))| (latent as u32, *x)).collect::<Vec<_>>()
        });
        Self::joined(found.collect())
    }

    /// The `count` activations of a batch `pre`, `[token, latent]`, whose products with the latents' weights are largest; none that is not
    /// positive. Of equal ones the first are taken. `floor` is where to begin looking: it decides nothing but the time.
    pub fn largest(pre: &[f32], weights: &[f32], count: usize, floor: f32) -> Self {
        let above = |floor: f32| -> Vec<Vec<(f32, u32)>> {
            let scored = rows(pre, weights.len()).map(|(_, row)| {
                let scores = row.iter().zip(weights).map(|(x, w)| x * w).enumerate();
                scores.filter(|(_, score)| *score > floor).map(|(latent, score)| (score, latent as u32)).collect()
            });
            scored.collect()
        };
        let mut candidates = above(floor.max(0.0));
        if floor > 0.0 && candidates.iter().map(Vec::len).sum::<usize>() < count {
            candidates = above(0.0);
        }
        // Of all candidates in order the last one that is taken: largest score first, then earliest place.
        let mut order: Vec<(f32, u32)> =
            candidates.iter().flatten().map(|(score, _)| *score).enumerate().map(|(at, score)| (score, at as u32)).collect();
        let before = |a: &(f32, u32), b: &(f32, u32)| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
        let last = if count == 0 || order.is_empty() {
            None
        } else if count < order.len() {
            Some(*order.select_nth_unstable_by(count - 1, before).1)
        } else {
            Some((f32::NEG_INFINITY, u32::MAX))
        };
        let mut at = 0;
        let chosen = candidates.iter().enumerate().map(|(token, candidates)| {
            let kept = candidates.iter().filter_map(|(score, latent)| {
                let place = (*score, at);
                at += 1;
                let taken = last.is_some_and(|last| !before(&last, &place).is_lt());
                taken.then(|| (*latent, pre[token * weights.len() + *latent as usize]))
            });
            kept.collect()
        });
        Self::joined(chosen.collect())
    }

    fn joined(rows: Vec<Vec<(u32, f32)>>) -> Self {
        let mut all = Self { starts: vec![0], ..Self::default() };
        for row in rows {
            for (latent, value) in row {
                all.latent.push(latent);
                all.value.push(value);
            }
            all.starts.push(all.latent.len());
        }
        all
    }

    /// The same by latent, of which there are `latents`.
    pub fn by_latent(&self, latents: usize) -> ByLatent {
        let mut starts = vec![0; latents + 1];
        self.latent.iter().for_each(|&latent| starts[latent as usize + 1] += 1);
        for latent in 0..latents {
            starts[latent + 1] += starts[latent];
        }
        let mut next = starts.clone();
        let mut turned = ByLatent { starts, token: vec![0; self.len()], value: vec![0.0; self.len()] };
        for token in 0..self.tokens() {
            for (latent, value) in self.at(token) {
                let at = next[latent];
                next[latent] += 1;
                (turned.token[at], turned.value[at]) = (token as u32, value);
            }
        }
        turned
    }

    /// All of it as `[token, latent]`.
    pub fn dense(&self, latents: usize) -> Vec<f32> {
        let mut out = vec![0.0; self.tokens() * latents];
        for token in 0..self.tokens() {
            self.at(token).for_each(|(latent, value)| out[token * latents + latent] = value);
        }
        out
    }
}

impl ByLatent {
    /// Tokens and activations of a latent.
    pub fn of(&self, latent: usize) -> impl Iterator<Item = (usize, f32)> {
        let range = self.starts[latent]..self.starts[latent + 1];
        self.token[range.clone()].iter().map(|&token| token as usize).zip(self.value[range].iter().copied())
    }

    /// Number of tokens at which a latent is on.
    pub fn count(&self, latent: usize) -> usize {
        self.starts[latent + 1] - self.starts[latent]
    }
}

/// Rows of so many numbers that are worth a thread.
pub(super) fn at_least(width: usize) -> usize {
    (1 << 16) / width.max(1) + 1
}

fn rows(pre: &[f32], latents: usize) -> impl IndexedParallelIterator<Item = (usize, &[f32])> {
    pre.par_chunks_exact(latents.max(1)).enumerate().with_min_len(at_least(latents))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_largest_of_a_batch_are_not_as_many_for_every_token() {
        let pre = [3.0, 0.5, -1.0, 0.1, 0.2, 2.0];
        let found = Active::largest(&pre, &[1.0, 1.0, 1.0], 3, 0.0);
        assert_eq!((found.starts.as_slice(), found.latent.as_slice()), (&[0, 2, 3][..], &[0, 1, 2][..]));
        assert_eq!(found.value, [3.0, 0.5, 2.0]);
        // Weighted, the value that is kept is still the activation.
        let weighted = Active::largest(&pre, &[0.01, 1.0, 1.0], 2, 0.0);
        assert_eq!((weighted.latent.as_slice(), weighted.value.as_slice()), (&[1, 2][..], &[0.5, 2.0][..]));
        assert!(Active::largest(&[-1.0, -2.0], &[1.0, 1.0], 2, 0.0).is_empty());
    }

    #[test]
    fn a_threshold_is_on_weighted_activations() {
        let found = Active::above(&[0.5, 2.0, 0.0, 0.9], &[3.0, 0.5], 1.0);
        assert_eq!((found.starts, found.latent, found.value), (vec![0, 1, 1], vec![0], vec![0.5]));
    }

    proptest! {
        #[test]
        fn where_to_begin_looking_decides_nothing(
            pre in prop::collection::vec(-3i8..6, 12), count in 0usize..14, floor in 0i8..6,
        ) {
            let pre: Vec<f32> = pre.into_iter().map(f32::from).collect();
            let weights = [1.0, 2.0, 0.5];
            let found = Active::largest(&pre, &weights, count, f32::from(floor));
            prop_assert_eq!(&found, &Active::largest(&pre, &weights, count, 0.0));
            let mut scores: Vec<f32> = (0..12).map(|at| pre[at] * weights[at % 3]).filter(|score| *score > 0.0).collect();
            scores.sort_unstable_by(|a, b| b.total_cmp(a));
            scores.truncate(count);
            let mut kept: Vec<f32> = found.latent.iter().zip(&found.value).map(|(j, x)| x * weights[*j as usize]).collect();
            kept.sort_unstable_by(|a, b| b.total_cmp(a));
            prop_assert_eq!(kept, scores);
            let turned = found.by_latent(3);
            let back: Vec<(usize, usize, f32)> = (0..3).flat_map(|j| turned.of(j).map(move |(n, x)| (n, j, x))).collect();
            let dense = found.dense(3);
            prop_assert_eq!(back.len(), found.len());
            prop_assert!(back.iter().all(|(n, j, x)| dense[n * 3 + j] == *x));
        }
    }
}
