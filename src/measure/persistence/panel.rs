//! Persistence: whether the direction of a concept, fitted in no context, tells its items apart under personas that it never saw.
//!
//! The direction is the mean of the default contrasts, cross-fitted: a group is never scored by a direction that it went into. Scores
//! of the same items under default and under every persona give
//!
//! ```text
//! d'(p)     mean contrast of the scores over their spread within groups
//! P         mean over personas of d'(p) / d'(default)
//! ICC_item  of the variance that y makes, the share that is the same in all contexts: the square of the mean contrast, over that
//!           plus the variance of the contrast between contexts, both less their noise
//! W         mean over personas of e(p) / e(default): how strong the contrast is within a persona, in whatever direction
//! C         mean cross-validated cosine of the contrast between formats
//! ```
//!
//! The null band of P and ICC is that of directions from sign-flipped contrasts, which carry nothing of the concept.

use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Sampled, amplitude, quantile};
use crate::stats::gram::{Gram, cosine};
use crate::stats::matrix::{self, Right};
use anyhow::{Result, ensure};

/// Directions from flipped contrasts.
pub const FLIPS: usize = 99;
const FOLDS: usize = 4;

/// A quantity with its interval and the 95% band of what it is without the concept.
#[derive(Debug, Clone, Default)]
pub struct Quantity {
    /// `None` where there is nothing to compute it from.
    pub sampled: Option<Sampled>,
    pub null: Option<[f64; 2]>,
}

/// Items of some groups under default and under personas.
pub struct Panel<'a> {
    pub d: usize,
    /// Default contrasts of all groups, `[fit group, d]`.
    pub fit: &'a [f32],
    /// Position of every asked group among the fitted ones; `None` if it is not there.
    pub place: &'a [Option<usize>],
    /// y of the items, per asked group.
    pub labels: &'a [Vec<bool>],
    /// Activations in the coordinates of the contrasts: `[context, item, d]`, items group by group, context 0 the default.
    pub rows: &'a [f32],
}

/// d' under default, d' per persona, and what follows.
pub struct Persistence {
    pub default: Option<Estimate>,
    /// d' of the mean persona, with replicates, for a curve over checkpoints.
    pub personas: Sampled,
    /// d'(p) / d'(default) per persona.
    pub each: Vec<Option<Estimate>>,
    pub persistence: Quantity,
    pub icc: Quantity,
}

/// What one group's scores add up to in one context.
#[derive(Clone, Copy)]
struct Stat {
    contrast: f64,
    /// Sum of squares around the middle of the group's two labels.
    squares: f64,
    n: f64,
}

impl Panel<'_> {
    fn n_items(&self) -> usize {
        self.labels.iter().map(Vec::len).sum()
    }

    /// # Errors
    /// Shapes that do not fit, a group without both labels, or draws for another number of groups.
    pub fn measure(&self, draws: &Draws) -> Result<Persistence> {
        let (groups, items) = (self.labels.len(), self.n_items());
        ensure!(groups == self.place.len() && groups == draws.groups(), "{groups} groups, draws for {}", draws.groups());
        ensure!(
            items > 0 && self.rows.len().is_multiple_of(items * self.d),
            "{} values are not contexts of {items} items",
            self.rows.len()
        );
        ensure!(self.labels.iter().all(|ys| ys.contains(&true) && ys.contains(&false)), "a group lacks one of its labels");
        let contexts = self.rows.len() / (items * self.d);
        ensure!(contexts >= 2, "persistence needs a default context and a persona");
        let directions = 1 + FLIPS;
        let scores = self.scores(contexts, draws)?;
        let one = vec![1f32; groups];
        // By direction; the first is the real one.
        let of = |direction: usize| -> Vec<Vec<Stat>> {
            self.stats(contexts, &|context, item| f64::from(scores[(context * items + item) * directions + direction]))
        };
        let stats = of(0);
        let ratio = |persona: f64, default: f64| if default > 0.0 { persona / default } else { f64::NAN };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let d_primes = |weights: &[f32]| stats.iter().map(|stats| d_prime(stats, weights)).collect::<Vec<f64>>();
        let value = d_primes(&one);
        let replicates: Vec<Vec<f64>> = draws.multiplicities().chunks_exact(groups).map(d_primes).collect();
        let each = (1..contexts)
            .map(|p| {
                Estimate::percentile(ratio(value[p], value[0]), &replicates.iter().map(|row| ratio(row[p], row[0])).collect::<Vec<_>>())
            })
            .collect();
        let persistence = Sampled {
            value: ratio(mean(&value[1..]), value[0]),
            replicates: replicates.iter().map(|row| ratio(mean(&row[1..]), row[0])).collect(),
        };
        let icc_replicates = draws.multiplicities().chunks_exact(groups).map(|weights| icc(&stats, weights)).collect();
        let (mut null, mut icc_null) = (Vec::new(), Vec::new());
        for direction in 1..directions {
            let stats = of(direction);
            null.push(ratio(mean(&stats[1..].iter().map(|stats| d_prime(stats, &one)).collect::<Vec<_>>()), value[0]));
            icc_null.push(icc(&stats, &one));
        }
        Ok(Persistence {
            default: Estimate::percentile(value[0], &replicates.iter().map(|row| row[0]).collect::<Vec<_>>()),
            personas: Sampled { value: mean(&value[1..]), replicates: replicates.iter().map(|row| mean(&row[1..])).collect() },
            each,
            persistence: Quantity { sampled: Some(persistence), null: band(null) },
            icc: Quantity { sampled: Some(Sampled { value: icc(&stats, &one), replicates: icc_replicates }), null: band(icc_null) },
        })
    }

    /// Scores `[context, item, direction]`: along the cross-fitted direction and along those of flipped contrasts, each of unit length.
    fn scores(&self, contexts: usize, draws: &Draws) -> Result<Vec<f32>> {
        let (n_fit, items, directions) = (self.fit.len() / self.d, self.n_items(), 1 + FLIPS);
        let mut gram = vec![0f32; n_fit * n_fit];
        matrix::multiply([n_fit, self.d, n_fit], self.fit, self.fit, Right::Transposed, &mut gram);
        let mut products = vec![0f32; contexts * items * n_fit];
        matrix::multiply([contexts * items, self.d, n_fit], self.rows, self.fit, Right::Transposed, &mut products);
        let signs = Draws::with_counts(n_fit, FLIPS, 1, 0, "persona directions")?;
        let folds = FOLDS.min(draws.groups());
        let mut scores = vec![0f32; contexts * items * directions];
        let first_item: Vec<usize> = self.labels.iter().scan(0, |at, ys| Some(std::mem::replace(at, *at + ys.len()))).collect();
        for fold in 0..folds {
            let own: Vec<usize> = (0..self.labels.len()).filter(|group| group % folds == fold).collect();
            let left_out: Vec<usize> = own.iter().filter_map(|&group| self.place[group]).collect();
            // [fit group, direction]
            let mut weights = vec![0f32; n_fit * directions];
            for g in (0..n_fit).filter(|g| !left_out.contains(g)) {
                weights[g * directions] = 1.0;
                for flip in 0..FLIPS {
                    // All sign patterns of few groups are fewer than the flips; then they repeat.
                    weights[g * directions + 1 + flip] = signs.signs()[(1 + flip) % signs.n_flips() * n_fit + g];
                }
            }
            let mut images = vec![0f32; n_fit * directions];
            matrix::multiply([n_fit, n_fit, directions], &gram, &weights, Right::AsIs, &mut images);
            let length = |direction: usize| {
                let square: f64 = (0..n_fit)
                    .map(|g| f64::from(weights[g * directions + direction]) * f64::from(images[g * directions + direction]))
                    .sum();
                square.max(f64::MIN_POSITIVE).sqrt()
            };
            let lengths: Vec<f64> = (0..directions).map(length).collect();
            let rows: Vec<usize> = (0..contexts)
                .flat_map(|context| own.iter().flat_map(move |&group| (0..self.labels[group].len()).map(move |i| (context, group, i))))
                .map(|(context, group, i)| context * items + first_item[group] + i)
                .collect();
            let gathered: Vec<f32> = rows.iter().flat_map(|row| &products[row * n_fit..(row + 1) * n_fit]).copied().collect();
            let mut out = vec![0f32; rows.len() * directions];
            matrix::multiply([rows.len(), n_fit, directions], &gathered, &weights, Right::AsIs, &mut out);
            for (row, out) in rows.iter().zip(out.chunks_exact(directions)) {
                let scores = &mut scores[row * directions..(row + 1) * directions];
                scores.iter_mut().zip(out.iter().zip(&lengths)).for_each(|(score, (x, length))| *score = (f64::from(*x) / length) as f32);
            }
        }
        Ok(scores)
    }

    /// Per context and group.
    fn stats(&self, contexts: usize, score: &dyn Fn(usize, usize) -> f64) -> Vec<Vec<Stat>> {
        let of = |context: usize| {
            let mut at = 0;
            let stat = |ys: &Vec<bool>| {
                let scores: Vec<f64> = (0..ys.len()).map(|i| score(context, at + i)).collect();
                at += ys.len();
                let mean = |side: bool| {
                    let own = || scores.iter().zip(ys).filter(|(_, y)| **y == side).map(|(x, _)| *x);
                    own().sum::<f64>() / own().count() as f64
                };
                let (ones, zeros) = (mean(true), mean(false));
                let middle = (ones + zeros) / 2.0;
                Stat { contrast: ones - zeros, squares: scores.iter().map(|x| (x - middle).powi(2)).sum(), n: ys.len() as f64 }
            };
            self.labels.iter().map(stat).collect()
        };
        (0..contexts).map(of).collect()
    }
}

/// Variance components of the contrasts, groups by contexts (two-way analysis of variance; both are samples). NaN where neither
/// component is there.
fn icc(stats: &[Vec<Stat>], weights: &[f32]) -> f64 {
    let contexts = stats.len() as f64;
    let groups: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
    let by_context: Vec<f64> = stats
        .iter()
        .map(|row| row.iter().zip(weights).map(|(stat, weight)| f64::from(*weight) * stat.contrast).sum::<f64>() / groups)
        .collect();
    let all = by_context.iter().sum::<f64>() / contexts;
    let (mut products, mut pairs, mut rest) = ((all * groups).powi(2), groups * groups, 0.0);
    for (g, weight) in weights.iter().enumerate() {
        let (own, weight) = (stats.iter().map(|row| row[g].contrast).sum::<f64>() / contexts, f64::from(*weight));
        // Pairs of one group with itself carry its noise; copies of it in a resample do too.
        products -= (weight * own).powi(2);
        pairs -= weight * weight;
        rest += weight * stats.iter().zip(&by_context).map(|(row, context)| (row[g].contrast - own - context + all).powi(2)).sum::<f64>();
    }
    let between_contexts = groups * by_context.iter().map(|context| (context - all).powi(2)).sum::<f64>() / (contexts - 1.0);
    let rest = rest / ((groups - 1.0) * (contexts - 1.0));
    let of_contexts = ((between_contexts - rest) / groups).max(0.0);
    let shared = (products / pairs - of_contexts / contexts).max(0.0);
    shared / (shared + of_contexts)
}

/// Mean contrast over the spread of the items around their group's middle and the mean contrast.
fn d_prime(stats: &[Stat], weights: &[f32]) -> f64 {
    let sum = |of: &dyn Fn(&Stat) -> f64| stats.iter().zip(weights).map(|(stat, weight)| f64::from(*weight) * of(stat)).sum::<f64>();
    let groups = sum(&|_| 1.0);
    let effect = sum(&|stat| stat.contrast) / groups;
    // Items of label y are expected at middle +- effect / 2.
    let squares = sum(&|stat| stat.squares - stat.n * effect * stat.contrast / 2.0 + stat.n * effect * effect / 4.0);
    let df = sum(&|stat| stat.n - 1.0) - 1.0;
    if squares > 0.0 && df > 0.0 { effect / (squares / df).sqrt() } else { f64::NAN }
}

fn band(mut null: Vec<f64>) -> Option<[f64; 2]> {
    null.retain(|x| x.is_finite());
    null.sort_unstable_by(f64::total_cmp);
    (null.len() >= FLIPS / 2).then(|| [quantile(&null, 0.025), quantile(&null, 0.975)])
}

/// W: amplitude of the contrast within a persona over that under default, the mean over personas. `default` and every persona are
/// `[group, d]` on the same groups.
///
/// # Errors
/// Shapes that do not fit.
pub fn within(default: &[f32], personas: &[Vec<f32>], d: usize, draws: &Draws) -> Result<Sampled> {
    let ratio = |persona: f64, default: f64| if default > 0.0 { amplitude(persona) / amplitude(default) } else { f64::NAN };
    let default = Gram::new(default, d)?;
    let default_replicates = default.bootstrap_u(draws)?;
    let (mut value, mut replicates) = (0.0, vec![0.0; draws.n_resamples()]);
    for persona in personas {
        let gram = Gram::new(persona, d)?;
        value += ratio(gram.u(), default.u()) / personas.len() as f64;
        let sample = gram.bootstrap_u(draws)?;
        for (sum, (own, default)) in replicates.iter_mut().zip(sample.iter().zip(&default_replicates)) {
            *sum += ratio(*own, *default) / personas.len() as f64;
        }
    }
    Ok(Sampled { value, replicates })
}

/// C over formats, each `[group, d]` on the same groups, and the number of formats in which the contrast is there (sign-flip p <=
/// .05); the others have no direction to compare. `None` where fewer than two are left.
///
/// # Errors
/// Shapes that do not fit.
pub fn consistency(formats: &[Vec<f32>], d: usize, draws: &Draws) -> Result<(Quantity, usize)> {
    let grams = formats.iter().map(|delta| Gram::new(delta, d)).collect::<Result<Vec<_>>>()?;
    let mut there = Vec::new();
    for (format, gram) in grams.iter().enumerate() {
        if gram.u() > 0.0 && gram.sign_flip_null(draws)?.p_value() <= 0.05 {
            there.push((format, gram.bootstrap_u(draws)?));
        }
    }
    let pairs = there.len() * there.len().saturating_sub(1) / 2;
    if pairs == 0 {
        return Ok((Quantity::default(), there.len()));
    }
    let groups = draws.groups();
    let (mut value, mut replicates, mut null) = (0.0, vec![0.0; draws.n_resamples()], vec![0.0; FLIPS]);
    for (position, (a, a_replicates)) in there.iter().enumerate() {
        for (b, b_replicates) in &there[position + 1..] {
            let cross = Gram::cross(&formats[*a], &formats[*b], d)?;
            let share = 1.0 / pairs as f64;
            value += share * cosine(cross.u(), grams[*a].u(), grams[*b].u()).unwrap_or(f64::NAN);
            for (sum, (cross, (a, b))) in
                replicates.iter_mut().zip(cross.bootstrap_u(draws)?.iter().zip(a_replicates.iter().zip(b_replicates)))
            {
                *sum += share * cosine(*cross, *a, *b).unwrap_or(f64::NAN);
            }
            // One side flipped: what cosines are when directions have nothing in common.
            let k = cross.to_matrix();
            let rows: Vec<f64> =
                (0..groups).map(|g| (0..groups).filter(|other| *other != g).map(|other| f64::from(k[g * groups + other])).sum()).collect();
            let length = (grams[*a].u() * grams[*b].u()).sqrt() * (groups * (groups - 1)) as f64;
            for (flip, sum) in null.iter_mut().enumerate() {
                let signs = &draws.signs()[(1 + flip) % draws.n_flips() * groups..][..groups];
                *sum += share * rows.iter().zip(signs).map(|(row, sign)| row * f64::from(*sign)).sum::<f64>() / length;
            }
        }
    }
    Ok((Quantity { sampled: Some(Sampled { value, replicates }), null: band(null) }, there.len()))
}
