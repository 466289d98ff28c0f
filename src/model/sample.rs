//! Which token comes next: the most probable one, or one drawn at a temperature from the most probable ones.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// How tokens are chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Logits are divided by it; 0 takes the most probable token.
    pub temperature: f64,
    /// Tokens are drawn from the smallest set of most probable ones that holds this much probability (Holtzman et al. 2020).
    pub top_p: f64,
}

impl Sampling {
    /// Whether there is nothing to draw: at temperature 0, and below what a logit can be divided by in 32 bits.
    pub fn is_greedy(self) -> bool {
        self.temperature < f64::from(f32::MIN_POSITIVE)
    }

    /// One token per row of `logits: [row, d_vocab]`; `uniform(row)` is asked for a number in (0, 1) where one is drawn. `None` for a row
    /// that holds a number that is not finite.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn choose(self, logits: &Tensor, uniform: &mut dyn FnMut(usize) -> f64) -> Result<Vec<Option<i64>>> {
        let _no_grad = tch::no_grad_guard();
        let largest = logits.f_amax([-1], true)?;
        // A NaN anywhere is the largest; minus infinity is a token that cannot be.
        let is_finite = Vec::<bool>::try_from(largest.f_isfinite()?.f_flatten(0, -1)?.f_to_device(Device::Cpu)?)?;
        let chosen: Vec<i64> = if self.is_greedy() {
            Vec::try_from(logits.f_argmax(-1, false)?.f_to_device(Device::Cpu)?)?
        } else {
            // Less the largest first, so that no temperature makes an infinity of it.
            let probabilities = logits.f_sub(&largest)?.f_div_scalar(self.temperature)?.f_softmax(-1, Kind::Float)?;
            let width = probabilities.size()[1] as usize;
            let probabilities = Vec::<f32>::try_from(probabilities.f_flatten(0, -1)?.f_to_device(Device::Cpu)?)?;
            let row = |(row, probabilities): (usize, &[f32])| {
                if is_finite[row] { draw(probabilities, self.top_p, uniform(row)) as i64 } else { 0 }
            };
            probabilities.chunks(width).enumerate().map(row).collect()
        };
        Ok(chosen.into_iter().zip(is_finite).map(|(token, is_finite)| is_finite.then_some(token)).collect())
    }
}

/// The token at `uniform`, in (0, 1), of the cumulative distribution over the nucleus of `probabilities`: the most probable tokens, as long as
/// those before hold less than `top_p`; the lower id first where two are equal. With `top_p` of 1 that is all tokens, in their own order.
pub fn draw(probabilities: &[f32], top_p: f64, uniform: f64) -> usize {
    if top_p >= 1.0 {
        let total: f64 = probabilities.iter().map(|p| f64::from(*p)).sum();
        return at(probabilities.iter().copied().enumerate(), total * uniform);
    }
    let nucleus = nucleus(probabilities, top_p);
    let total: f64 = nucleus.iter().map(|(_, p)| f64::from(*p)).sum();
    at(nucleus.into_iter(), total * uniform)
}

/// Tokens with their probabilities, the most probable ones first, up to the one that makes them hold `top_p`.
pub fn nucleus(probabilities: &[f32], top_p: f64) -> Vec<(usize, f32)> {
    let total: f64 = probabilities.iter().map(|p| f64::from(*p)).sum();
    // Few tokens hold nearly all probability, so few have to be sorted: those above a bound that is lowered until they hold enough.
    let mut bound = 1.0 / 64.0;
    let mut tokens: Vec<(usize, f32)> = loop {
        let above: Vec<(usize, f32)> = probabilities.iter().copied().enumerate().filter(|(_, p)| *p >= bound).collect();
        if bound == 0.0 || above.iter().map(|(_, p)| f64::from(*p)).sum::<f64>() >= top_p * total {
            break above;
        }
        bound = if bound < 1e-12 { 0.0 } else { bound / 32.0 };
    };
    tokens.sort_by(|(a, p), (b, q)| q.total_cmp(p).then(a.cmp(b)));
    let mut before = 0.0;
    let held = tokens.iter().take_while(|(_, p)| {
        let is_held = before < top_p * total;
        before += f64::from(*p);
        is_held
    });
    // The most probable one is always in.
    let n = held.count().max(1);
    tokens.truncate(n);
    tokens
}

/// The first token at which the sum exceeds `target`; the last one that can be where rounding lets none.
fn at(tokens: impl Iterator<Item = (usize, f32)>, target: f64) -> usize {
    let (mut sum, mut last) = (0.0, 0);
    for (token, p) in tokens.filter(|(_, p)| *p > 0.0) {
        sum += f64::from(p);
        last = token;
        if sum > target {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nucleus_is_the_shortest_head_that_holds_enough() {
        let probabilities = [0.1, 0.4, 0.05, 0.4, 0.05];
        let tokens = |top_p: f64| nucleus(&probabilities, top_p).into_iter().map(|(token, _)| token).collect::<Vec<_>>();
        assert_eq!(tokens(1e-9), [1]);
        assert_eq!(tokens(0.39), [1]);
        assert_eq!(tokens(0.5), [1, 3]);
        assert_eq!(tokens(0.85), [1, 3, 0]);
        assert_eq!(tokens(0.99), [1, 3, 0, 2, 4]);
        // Where none stands out, the bound has to be lowered.
        let flat = vec![1e-5f32; 100_000];
        assert!((nucleus(&flat, 0.5).len() as i64 - 50_000).abs() <= 1);
    }

    #[test]
    fn a_draw_follows_the_cumulative_distribution() {
        let probabilities = [0.25, 0.5, 0.0, 0.25];
        let drawn = |top_p, uniform| draw(&probabilities, top_p, uniform);
        assert_eq!([0.1, 0.3, 0.74, 0.76, 0.999_999].map(|u| drawn(1.0, u)), [0, 1, 1, 3, 3]);
        // Of 1 and 0, which hold two thirds and a third.
        assert_eq!([0.1, 0.6, 0.7, 0.999].map(|u| drawn(0.7, u)), [1, 1, 0, 0]);
    }

    #[test]
    fn what_is_not_finite_is_no_token() {
        let logits = Tensor::from_slice(&[0.0f32, 1.0, f32::NAN, 2.0, 3.0, f32::NEG_INFINITY, f32::INFINITY, 0.0, 0.0]).view([3, 3]);
        for temperature in [0.0, 1e-30, 1.0] {
            let chosen = Sampling { temperature, top_p: 1.0 }.choose(&logits, &mut |_| 0.99).unwrap();
            assert_eq!(chosen, [None, Some(1), None], "{temperature}");
        }
    }
}
