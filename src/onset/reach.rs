//! An answer among its foils where several layers compete to be the one that is looked at.
//!
//! The layer is chosen for the answer, so every foil is taken at the layer that suits it best, too. Untaught, the answer is then one more of
//! them however alike or different the layers are.

use super::curve::mean;
use crate::stats::estimate::mean_sd;
use std::ops::Range;

/// The layer (a position) at which choice 0, the answer, stands out most, and how far every choice does at its own best layer, in
/// standard deviations. `rises` is `[layer][choice]`; `None` without layers.
///
/// All choices of a layer share one scale, the answer's own rise in it. With a scale that leaves each choice out in turn the values are
/// heavy-tailed before they are compared, and a test among fourteen is passed at .001 four times as often as it should be.
pub fn at_best_layers(rises: &[Vec<f64>]) -> Option<(usize, Vec<f64>)> {
    let standing: Vec<Vec<f64>> = rises.iter().map(|rises| standardized(rises)).collect();
    let first_best = |best: usize, at: usize| if standing[at][0] > standing[best][0] { at } else { best };
    let chosen = (0..standing.len()).reduce(first_best)?;
    let best = |choice: usize| standing.iter().map(|rises| rises[choice]).fold(f64::NEG_INFINITY, f64::max);
    Some((chosen, (0..standing[chosen].len()).map(best).collect()))
}

/// How far the answer and every foil, `[foil][checkpoint]`, rise from the reference to the late checkpoints, the answer first.
pub fn rises(answer: &[f64], foils: &[Vec<f64>], reference: &Range<usize>, late: &Range<usize>) -> Vec<f64> {
    let rise = |curve: &[f64]| mean(&curve[late.clone()]) - mean(&curve[reference.clone()]);
    std::iter::once(rise(answer)).chain(foils.iter().map(|foil| rise(foil))).collect()
}

/// Every value less the mean of all, in their standard deviations; 0 where they do not differ.
fn standardized(values: &[f64]) -> Vec<f64> {
    let (mean, sd) = mean_sd(values.iter().copied());
    values.iter().map(|value| if sd > 0.0 { (value - mean) / sd } else { 0.0 }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::onset::gate::Standing;
    use crate::stats::draws::{generator, normal};

    #[test]
    fn one_layer_is_what_the_plain_standing_is() {
        let rises = [3.0, 1.0, -0.5, 0.25, 2.0, 0.0];
        let (chosen, reach) = at_best_layers(&[rises.to_vec()]).unwrap();
        let (plain, reached) = (Standing::new(rises[0], &rises[1..]), Standing::new(reach[0], &reach[1..]));
        assert!(chosen == 0 && (plain.p.unwrap() - reached.p.unwrap()).abs() < 1e-12 && plain.share == reached.share);
        assert_eq!(at_best_layers(&[]), None);
        assert_eq!(at_best_layers(&[vec![1.0; 4]]), Some((0, vec![0.0; 4])));
    }

    #[test]
    fn the_layer_is_the_answers_and_foils_have_theirs() {
        let (chosen, reach) = at_best_layers(&[vec![1.0, 9.0, 0.0, 0.0], vec![8.0, 0.0, 1.0, 1.0]]).unwrap();
        assert_eq!(chosen, 1);
        assert!(reach[0] > 1.4 && reach[1] > 1.4 && reach[2] < 0.0);
    }

    /// Fourteen choices, untaught, at one, two and eleven layers that are alike in part: small p are as rare as they say, or rarer.
    #[test]
    fn untaught_answers_pass_no_more_often_than_the_level() {
        const RUNS: u64 = 20_000;
        for layers in [1, 2, 11] {
            let mut small = [0usize; 2];
            for seed in 0..RUNS {
                let mut rng = generator(seed, "reach");
                let shared: Vec<f64> = (0..14).map(|_| normal(&mut rng)).collect();
                let layer: Vec<Vec<f64>> = (0..layers).map(|_| shared.iter().map(|own| own + 0.7 * normal(&mut rng)).collect()).collect();
                let (_, reach) = at_best_layers(&layer).unwrap();
                let p = Standing::new(reach[0], &reach[1..]).p.unwrap();
                small.iter_mut().zip([0.01, 0.001]).for_each(|(count, level)| *count += usize::from(p <= level));
            }
            // 200 and 20 are expected, and three standard errors above are 242 and 33.
            assert!(small[0] <= 242 && small[1] <= 33, "{layers} layers: {small:?}");
        }
    }
}
