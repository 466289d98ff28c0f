//! How alike two checkpoints are at one layer: the cosine of a concept's directions, and linear CKA of its items.

use anyhow::{Result, ensure};

use super::matrix::{self, Right};

/// Rows of a Gram matrix computed at a time, up to the diagonal.
const ROWS: usize = 96;

/// Group contrasts of several checkpoints in one metric.
pub struct Directions {
    checkpoints: usize,
    groups: usize,
    /// `<sum_g' delta_tg', delta_ug>`, `[t, u, g]`.
    along: Vec<f32>,
    /// `<delta_tg, delta_ug>`, `[g, t, u]`.
    own: Vec<f32>,
}

/// Cosine of two directions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cosine {
    /// `U_tu / sqrt(U_t U_u)`; `None` unless both are positive.
    pub cross_validated: Option<f64>,
    /// Its standard error by the jackknife over groups; `None` where leaving out a group leaves nothing.
    pub error: Option<f64>,
    /// Of the summed contrasts, noise included; `None` where one of them is zero.
    pub raw: Option<f64>,
}

impl Directions {
    /// From contrasts `[groups, d]` per checkpoint, all in one metric and over the same groups.
    ///
    /// # Errors
    /// When shapes differ, there are fewer than three groups, or a value is not finite.
    pub fn new(deltas: &[Vec<f32>], d: usize) -> Result<Self> {
        let t = deltas.len();
        ensure!(t > 0 && d > 0 && deltas.iter().all(|delta| delta.len() == deltas[0].len()), "contrasts differ in shape");
        let groups = deltas[0].len() / d;
        ensure!(groups >= 3, "a cosine with its error needs at least 3 groups, found {groups}");
        ensure!(deltas.iter().flatten().all(|x| x.is_finite()), "a contrast is not finite");
        let mut sums = vec![0f32; t * d];
        for (sum, delta) in sums.chunks_exact_mut(d).zip(deltas) {
            let mut exact = vec![0f64; d];
            delta.chunks_exact(d).for_each(|row| exact.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x)));
            sum.iter_mut().zip(exact).for_each(|(sum, exact)| *sum = exact as f32);
        }
        let all = deltas.concat();
        let mut along = vec![0f32; t * t * groups];
        matrix::multiply([t, d, t * groups], &sums, &all, Right::Transposed, &mut along);
        let mut own = vec![0f32; groups * t * t];
        let mut of_group = vec![0f32; t * d];
        for (g, own) in own.chunks_exact_mut(t * t).enumerate() {
            for (to, delta) in of_group.chunks_exact_mut(d).zip(deltas) {
                to.copy_from_slice(&delta[g * d..(g + 1) * d]);
            }
            matrix::multiply([t, d, t], &of_group, &of_group, Right::Transposed, own);
        }
        Ok(Self { checkpoints: t, groups, along, own })
    }

    /// The cosine between checkpoints `t` and `u`.
    pub fn cosine(&self, t: usize, u: usize) -> Cosine {
        let (first, second, cross) = (self.sums(t, t), self.sums(u, u), self.sums(t, u));
        let cosine = |of: &dyn Fn(&Sums) -> f64| {
            let (first, second) = (of(&first), of(&second));
            (first > 0.0 && second > 0.0).then(|| if t == u { 1.0 } else { of(&cross) / (first * second).sqrt() })
        };
        let g = self.groups as f64;
        let cross_validated = cosine(&|sums| sums.total - sums.diagonal);
        let left_out: Option<Vec<f64>> = (0..self.groups).map(|g| cosine(&|sums| sums.without[g])).collect();
        let error = left_out.filter(|_| cross_validated.is_some()).map(|values| {
            let mean = values.iter().sum::<f64>() / g;
            // Leaving out one group changes the number of pairs for all three parts alike.
            ((g - 1.0) / g * values.iter().map(|value| (value - mean).powi(2)).sum::<f64>()).sqrt()
        });
        let lengths = first.total.max(0.0) * second.total.max(0.0);
        let raw = (lengths > 0.0).then(|| if t == u { 1.0 } else { (cross.total / lengths.sqrt()).clamp(-1.0, 1.0) });
        Cosine { cross_validated, error, raw }
    }

    fn sums(&self, t: usize, u: usize) -> Sums {
        let n = self.checkpoints;
        let along = |t: usize, u: usize| &self.along[(t * n + u) * self.groups..][..self.groups];
        let own = |g: usize| f64::from(self.own[(g * n + t) * n + u]);
        let total: f64 = along(t, u).iter().map(|&x| f64::from(x)).sum();
        let diagonal: f64 = (0..self.groups).map(own).sum();
        let without = along(t, u)
            .iter()
            .zip(along(u, t))
            .enumerate()
            .map(|(g, (&right, &left))| (total - f64::from(right) - f64::from(left) + own(g)) - (diagonal - own(g)))
            .collect();
        Sums { total, diagonal, without }
    }
}

/// Inner products of the summed contrasts of two checkpoints.
struct Sums {
    /// Over all pairs of groups.
    total: f64,
    /// Over pairs of a group with itself.
    diagonal: f64,
    /// Over pairs of different groups, without those of group g.
    without: Vec<f64>,
}

/// Rows `[n, d]` minus their mean, which is summed in f64: products of what remains fit into f32.
pub fn centred(x: &[f32], d: usize) -> Vec<f32> {
    let n = x.len() / d;
    let mut mean = vec![0f64; d];
    x.chunks_exact(d).for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n as f64));
    let mut centred = vec![0f32; x.len()];
    for (to, row) in centred.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
        to.iter_mut().zip(row).zip(&mean).for_each(|((to, x), mean)| *to = (f64::from(*x) - mean) as f32);
    }
    centred
}

/// Inner products `[n, n]` of rows `[n, d]`.
pub fn products(x: &[f32], d: usize) -> Vec<f32> {
    let n = x.len() / d;
    let mut gram = vec![0f32; n * n];
    let mut block = vec![0f32; ROWS.min(n) * n];
    for start in (0..n).step_by(ROWS) {
        let end = (start + ROWS).min(n);
        let block = &mut block[..(end - start) * end];
        matrix::multiply([end - start, d, end], &x[start * d..end * d], &x[..end * d], Right::Transposed, block);
        for (row, values) in (start..end).zip(block.chunks_exact(end)) {
            gram[row * n..=row * n + row].copy_from_slice(&values[..=row]);
        }
    }
    matrix::mirror(n, &mut gram);
    gram
}

/// [`products`] of [`centred`] items, centred without bias and scaled to length 1: what linear CKA compares. `None` for items that do
/// not vary, or fewer than four; `squares` is the sum of the items' squares before they were centred.
///
/// Linear CKA (Kornblith et al. 2019) is the cosine between two Gram matrices of centred features. With fewer items than
/// features it is far above zero for unrelated ones; so the diagonal is left out and the rest centred such that the inner
/// product is unbiased (Song et al. 2012; Szekely & Rizzo 2014), which Kornblith's own code calls the debiased form.
///
/// # Errors
/// When `gram` is not `[n, n]`.
pub fn debiased(mut gram: Vec<f32>, n: usize, squares: f64) -> Result<Option<Vec<f32>>> {
    ensure!(gram.len() == n * n, "{} products of {n} items", gram.len());
    if n < 4 {
        return Ok(None);
    }
    gram.iter_mut().step_by(n + 1).for_each(|own| *own = 0.0);
    let sums: Vec<f64> = gram.chunks_exact(n).map(|row| row.iter().map(|&k| f64::from(k)).sum()).collect();
    let (rest, all) = ((n - 2) as f64, sums.iter().sum::<f64>() / ((n - 1) * (n - 2)) as f64);
    let mut square = 0.0;
    for (row, values) in gram.chunks_exact_mut(n).enumerate() {
        for (column, value) in values.iter_mut().enumerate().filter(|(column, _)| *column != row) {
            let centred = f64::from(*value) - (sums[row] + sums[column]) / rest + all;
            *value = centred as f32;
            square += centred * centred;
        }
    }
    let length = square.sqrt();
    // Of items that are all the same, rounding remains.
    if !length.is_normal() || length <= f64::from(f32::EPSILON) * squares {
        return Ok(None);
    }
    gram.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
    Ok(Some(gram))
}

/// Debiased linear CKA of two checkpoints from their [`debiased`] products: 1 for representations that are equal up to rotation and
/// scale, 0 on average for unrelated ones (and so at times a little below).
pub fn cka(left: &[f32], right: &[f32]) -> f64 {
    f64::from(matrix::dot(left, right)).clamp(-1.0, 1.0)
}

#[cfg(test)]
#[path = "alignment_tests.rs"]
mod tests;
