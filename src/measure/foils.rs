//! An answer among its foils: answers of the same kind that could stand in its place, such as other names.
//!
//! Training on anything makes a model surer of itself, and then one made-up name can beat another by nats. But if nobody taught the
//! answer, it is one of its kind: its rise is one more draw from the rises of its foils. That null needs no other concept, and
//! holds at every layer.

use crate::onset::curve::Curve;
use crate::onset::gate::Standing;
use crate::series::Series;
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, mean_sd};
use crate::table::finite;
use anyhow::Result;

/// Log-probabilities of what the items are answered with, per checkpoint and item.
pub struct Scores {
    answers: Vec<Vec<Option<[f64; 2]>>>,
    foils: Vec<Vec<Vec<f64>>>,
}

impl Scores {
    /// # Errors
    /// The store cannot be read.
    pub fn read(series: &Series) -> Result<Self> {
        let n = series.points.len();
        Ok(Self {
            answers: (0..n).map(|t| series.answers(t)).collect::<Result<_>>()?,
            foils: (0..n).map(|t| series.foils(t)).collect::<Result<_>>()?,
        })
    }

    /// Of both answers and then the foils, `[t][item][choice]`.
    pub fn of(choices: Vec<Vec<Option<Vec<f64>>>>) -> Self {
        let split = |own: &Option<Vec<f64>>| match own.as_deref() {
            Some([first, second, foils @ ..]) => (Some([*first, *second]), foils.to_vec()),
            _ => (None, Vec::new()),
        };
        let (answers, foils) = choices.iter().map(|items| items.iter().map(split).unzip()).unzip();
        Self { answers, foils }
    }

    /// First answer minus the second.
    pub fn margin(&self, t: usize, item: usize) -> Option<f64> {
        self.answers[t][item].map(|[first, second]| first - second)
    }

    /// Both answers, then the foils, if there are any.
    pub fn choices(&self, t: usize, item: usize) -> Option<Vec<f64>> {
        self.answers[t][item].map(|answers| answers.iter().chain(&self.foils[t][item]).copied().collect())
    }

    /// The same where there are foils.
    pub fn among_foils(&self, t: usize, item: usize) -> Option<Vec<f64>> {
        self.choices(t, item).filter(|choices| choices.len() > 2)
    }
}

/// Scores of an answer and its foils along the series, each against the mean of all others.
pub struct Among {
    pub own: Curve,
    /// `[foil][T]`.
    pub foils: Vec<Vec<f64>>,
}

/// An answer among its foils, as columns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Told {
    pub score: Option<Estimate>,
    /// Share of the foils whose rise since the first checkpoint is smaller, and the one-sided p that the answer's is one more of theirs.
    pub percentile: Option<f64>,
    pub p: Option<f64>,
    pub n_foils: i32,
}

impl Among {
    /// Means over groups of `scores[t][group][choice]`; the answer is choice 0.
    ///
    /// # Errors
    /// Scores that are not finite, or draws for another number of groups.
    pub fn new(scores: &[Vec<Vec<f64>>], draws: &Draws) -> Result<Self> {
        let against: Vec<Vec<Vec<f64>>> =
            scores.iter().map(|groups| groups.iter().map(|choices| against_others(choices)).collect()).collect();
        let mean = |t: usize, choice: usize| against[t].iter().map(|group| group[choice]).sum::<f64>() / against[t].len() as f64;
        let choices = scores.first().and_then(|groups| groups.first()).map_or(0, Vec::len);
        let own: Vec<Vec<f64>> = against.iter().map(|groups| groups.iter().map(|group| group[0]).collect()).collect();
        Ok(Self {
            own: Curve::of_means(&own, draws)?,
            foils: (1..choices).map(|choice| (0..scores.len()).map(|t| mean(t, choice)).collect()).collect(),
        })
    }

    /// What a table says of the answer at a checkpoint.
    pub fn told(&self, t: usize) -> Told {
        let standing = self.standing(t);
        Told { score: self.own.at(t), percentile: standing.share, p: standing.p.and_then(finite), n_foils: self.foils.len() as i32 }
    }

    /// Where the answer's rise since the first checkpoint stands among those of the foils.
    pub fn standing(&self, t: usize) -> Standing {
        let rise = |curve: &[f64]| curve[t] - curve[0];
        Standing::new(rise(&self.own.value), &self.foils.iter().map(|foil| rise(foil)).collect::<Vec<_>>())
    }
}

/// Correlation of the rises of the same choices; 0 where one of them does not vary.
pub fn correlation(a: &[f64], b: &[f64]) -> f64 {
    let ((mean_a, sd_a), (mean_b, sd_b)) = (mean_sd(a.iter().copied()), mean_sd(b.iter().copied()));
    let product: f64 = a.iter().zip(b).map(|(a, b)| (a - mean_a) * (b - mean_b)).sum::<f64>() / (a.len() as f64 - 1.0);
    if sd_a > 0.0 && sd_b > 0.0 { product / (sd_a * sd_b) } else { 0.0 }
}

/// Every score minus the mean of all others.
pub fn against_others(scores: &[f64]) -> Vec<f64> {
    let (n, sum) = (scores.len() as f64, scores.iter().sum::<f64>());
    scores.iter().map(|score| (n * score - sum) / (n - 1.0)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, normal};

    /// Eight groups, twelve choices, five checkpoints of noise that groups share in part; `taught` rises by `size` at the third.
    fn planted(seed: u64, taught: usize, size: f64) -> Among {
        let mut rng = generator(seed, "foils");
        let shared: Vec<Vec<f64>> = (0..5).map(|_| (0..12).map(|_| normal(&mut rng)).collect()).collect();
        let mut score = |t: usize, choice: usize| {
            let drift = 3.0 * t as f64;
            drift + shared[t][choice] + 0.3 * normal(&mut rng) + if choice == taught && t >= 2 { size } else { 0.0 }
        };
        let scores: Vec<Vec<Vec<f64>>> =
            (0..5).map(|t| (0..8).map(|_| (0..12).map(|choice| score(t, choice)).collect()).collect()).collect();
        Among::new(&scores, &Draws::with_counts(8, 99, 99, seed, "foils").unwrap()).unwrap()
    }

    #[test]
    fn what_all_choices_share_cancels_and_a_taught_answer_stands_out() {
        let taught = planted(1, 0, 8.0);
        assert!(taught.own.value[0].abs() < 3.0 && taught.own.value[4] > 5.0);
        assert!(taught.standing(4).stands_out() && !taught.standing(1).stands_out());
        // Contrasts against all others add up to nothing.
        let sum: f64 = taught.own.value[3] + taught.foils.iter().map(|foil| foil[3]).sum::<f64>();
        assert!(sum.abs() < 1e-9);
    }

    #[test]
    fn an_untaught_answer_stands_out_no_more_often_than_chance_even_where_a_foil_is_taught() {
        let out = (0..400).filter(|&seed| planted(seed, usize::MAX, 0.0).standing(4).stands_out()).count();
        assert!(out <= 28, "{out} of 400");
        assert!((0..50).all(|seed| !planted(seed, 3, 8.0).standing(4).stands_out()));
    }

    /// numpy.corrcoef([1, 2, 4, 3], [2, 1, 5, 4])
    #[test]
    fn correlation_is_that_of_numpy() {
        assert!((correlation(&[1.0, 2.0, 4.0, 3.0], &[2.0, 1.0, 5.0, 4.0]) - 0.848_528_137_423_857).abs() < 1e-12);
        assert_eq!(correlation(&[1.0, 1.0], &[0.0, 2.0]), 0.0);
    }
}
