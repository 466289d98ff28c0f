//! The contrast of every group at one checkpoint and layer, and the spread that it is measured in.

use crate::onset::curve::mean;

/// Items of a group by label.
pub struct Sides {
    pub ones: Vec<usize>,
    pub zeros: Vec<usize>,
}

/// Contrasts of one checkpoint and layer, before they are whitened.
pub struct Contrasts {
    /// `[group, d]`, mean of y = 1 minus mean of y = 0.
    pub delta: Vec<f32>,
    /// `[d]`, variance that is left within groups once the group's mean and the mean contrast are removed.
    pub variance: Vec<f64>,
}

impl Contrasts {
    /// From activations `[item, d]`.
    pub fn new(rows: &[f32], d: usize, sides: &[Sides]) -> Self {
        let mut delta = vec![0f32; sides.len() * d];
        let mut squares = vec![0f64; d];
        let mut means = [vec![0f64; d], vec![0f64; d]];
        for (sides, delta) in sides.iter().zip(delta.chunks_exact_mut(d)) {
            for (mean, items) in means.iter_mut().zip([&sides.zeros, &sides.ones]) {
                mean.fill(0.0);
                let row = |item: usize| &rows[item * d..(item + 1) * d];
                for &item in items {
                    mean.iter_mut().zip(row(item)).for_each(|(mean, x)| *mean += f64::from(*x));
                }
                mean.iter_mut().for_each(|mean| *mean /= items.len() as f64);
                for &item in items {
                    let deviations = squares.iter_mut().zip(row(item)).zip(&*mean);
                    deviations.for_each(|((square, x), mean)| *square += (f64::from(*x) - mean).powi(2));
                }
            }
            let [zeros, ones] = &means;
            delta.iter_mut().zip(ones.iter().zip(zeros)).for_each(|(delta, (one, zero))| *delta = (one - zero) as f32);
        }
        // A group's contrast beyond the mean contrast is half above and half below its centre.
        let mut effect = vec![0f64; d];
        for delta in delta.chunks_exact(d) {
            effect.iter_mut().zip(delta).for_each(|(effect, x)| *effect += f64::from(*x) / sides.len() as f64);
        }
        for (sides, delta) in sides.iter().zip(delta.chunks_exact(d)) {
            let items = (sides.ones.len() + sides.zeros.len()) as f64;
            let beyond = squares.iter_mut().zip(delta).zip(&effect);
            beyond.for_each(|((square, x), effect)| *square += items * ((f64::from(*x) - effect) / 2.0).powi(2));
        }
        let residuals: usize = sides.iter().map(|sides| sides.ones.len() + sides.zeros.len() - 1).sum::<usize>().saturating_sub(1);
        squares.iter_mut().for_each(|square| *square /= residuals.max(1) as f64);
        Self { delta, variance: squares }
    }

    /// Each dimension over its [`divisors`].
    pub fn whitened(&self) -> Vec<f32> {
        whitened(&self.delta, &self.variance, 1.0)
    }
}

/// Contrasts times `factor`, each dimension over the [`divisors`] of the given variances, `[d]`.
pub fn whitened(delta: &[f32], variance: &[f64], factor: f64) -> Vec<f32> {
    let factors: Vec<f64> = divisors(variance).into_iter().map(|divisor| factor / divisor).collect();
    delta.chunks_exact(variance.len()).flat_map(|row| row.iter().zip(&factors).map(|(x, factor)| (f64::from(*x) * factor) as f32)).collect()
}

/// `(sd_j + mean sd) / 2` per dimension; ones where nothing varies.
pub fn divisors(variance: &[f64]) -> Vec<f64> {
    let sd: Vec<f64> = variance.iter().map(|variance| variance.sqrt()).collect();
    let mean_sd = mean(&sd);
    sd.into_iter().map(|sd| if mean_sd > 0.0 { (sd + mean_sd) / 2.0 } else { 1.0 }).collect()
}
