//! Online codelength: how many bits it takes to send the labels to somebody who has the activations.
//!
//! After Voita & Titov (2020, section 2.2): the labels of the first block cost one bit each; every later block is coded with the
//! probabilities of a probe that was fitted to all blocks before it. A representation from which few examples are enough has a
//! short code, which accuracy at the end does not show. Blocks end at [`FRACTIONS`] of the groups, taken in a random order
//! that is the same at all checkpoints and layers; groups stay whole. The receiver has all activations, so features are
//! standardised by all items, and the penalty of each block's probe is chosen by cross-validation within the blocks before it.

use anyhow::{Result, ensure};

use super::folds::INNER;
use super::kernel::Split;
use super::logistic::{TIGHT, fit_chosen};
use super::newton::Losses;

/// Ends of the blocks as shares of the groups, rounded up to whole groups.
pub const FRACTIONS: [f64; 5] = [0.0625, 0.125, 0.25, 0.5, 1.0];

/// Codelength of `labels` in bits; without a probe it would be one bit per item. `whole` holds all items
/// ([`super::kernel::Design::whole`]), `groups` are numbers as of [`super::folds::numbered`], and `order` lists them as they are sent.
///
/// # Errors
/// When lengths differ, `order` is no order of the groups, or a fit does not converge.
pub fn codelength(whole: &Split, labels: &[bool], groups: &[usize], order: &[usize]) -> Result<f64> {
    ensure!(groups.len() == labels.len(), "{} groups and {} labels", groups.len(), labels.len());
    let mut rank = vec![usize::MAX; order.len()];
    for (position, &group) in order.iter().enumerate() {
        ensure!(group < rank.len() && rank[group] == usize::MAX, "{order:?} is no order of {} groups", order.len());
        rank[group] = position;
    }
    ensure!(groups.iter().all(|&group| group < rank.len()), "an item's group is not among the {} in order", order.len());
    let ends: Vec<usize> = FRACTIONS.iter().map(|fraction| (fraction * order.len() as f64).ceil() as usize).collect();
    let block = |from: usize, to: usize| -> Vec<usize> { (0..labels.len()).filter(|&i| (from..to).contains(&rank[groups[i]])).collect() };
    let mut bits = block(0, ends[0]).len() as f64;
    for pair in ends.windows(2) {
        let (known, next) = (block(0, pair[0]), block(pair[0], pair[1]));
        if next.is_empty() {
            continue;
        }
        let part = whole.part(&known, &next)?;
        bits += match fit_chosen(&part, labels, groups, INNER, TIGHT)? {
            Some((fit, _)) => {
                let decisions = fit.held_decisions(&part).into_iter().zip(next.iter().map(|&i| labels[i]));
                Losses::of(decisions) / std::f64::consts::LN_2
            }
            None => next.len() as f64, // one label only so far: nothing to learn from
        };
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, normal};
    use crate::stats::kernel::Design;

    /// Bits for 48 groups of 4 with a direction of strength `signal`.
    fn bits(signal: f64, flip: bool) -> f64 {
        let (n, d) = (192, 30);
        let mut generator = generator(1, "online");
        let labels: Vec<bool> = (0..n).map(|i| matches!(i % 4, 0 | 3)).collect();
        let side = |i: usize| if labels[i] { signal } else { -signal };
        let x: Vec<f32> = (0..n * d).map(|at| (normal(&mut generator) + if at % d == 0 { side(at / d) } else { 0.0 }) as f32).collect();
        let groups: Vec<usize> = (0..n).map(|i| i / 4).collect();
        let order: Vec<usize> = (0..48).map(|g| g * 7 % 48).collect();
        let labels: Vec<bool> = labels.iter().map(|label| label ^ flip).collect();
        codelength(&Design::new(&x, d).unwrap().whole(), &labels, &groups, &order).unwrap()
    }

    #[test]
    fn a_strong_representation_has_a_short_code_and_noise_a_long_one() {
        // 192 labels. What few examples teach about one weak feature of 30 is worth little more than a guess, and noise costs extra.
        let (none, weak, strong) = (bits(0.0, false), bits(1.0, false), bits(4.0, false));
        assert!(strong < 60.0 && strong < weak && weak < none && none > 190.0, "{none} {weak} {strong}");
        assert!((bits(1.0, true) - weak).abs() < 1e-3, "exchanged labels are as long");
    }

    #[test]
    fn labels_of_one_kind_cost_a_bit_each() {
        let x: Vec<f32> = (0..32).map(|i| i as f32).collect();
        let groups: Vec<usize> = (0..16).map(|i| i / 2).collect();
        let whole = Design::new(&x, 2).unwrap().whole();
        assert_eq!(codelength(&whole, &[true; 16], &groups, &[0, 1, 2, 3, 4, 5, 6, 7]).unwrap(), 16.0);
        assert!(codelength(&whole, &[true; 16], &groups, &[0, 0, 2, 3, 4, 5, 6, 7]).is_err());
        assert!(codelength(&whole, &[true; 16], &groups, &[0, 1]).is_err());
    }
}
