//! The assistant axis and the space of roles (Lu et al. 2026, arXiv 2601.10387): mean of the default contexts minus mean of the
//! roles, and the principal components of the roles around their mean.
//!
//! Replies are the unit of resampling. Whatever is quadratic in activations (the axis' length, cosines, projections) uses pairs of
//! different replies only, so that the noise of a reply does not count as signal.

use super::draws::Draws;
use super::estimate::{Sampled, amplitude};
use super::gram::{Gram, cosine};
use super::symmetric::symmetric_eigen;
use anyhow::{Result, ensure};

/// Eigenvalues below this share of the largest are rounding.
const RANK: f64 = 1e-9;

/// What one checkpoint makes of the contexts at one layer.
#[derive(Debug, Clone)]
pub struct RoleSpace {
    /// d_model.
    pub d: usize,
    /// Default minus roles, per reply: `[reply, d]`.
    per_reply: Vec<f32>,
    /// Mean of the roles per reply, `[reply, d]`.
    roles: Vec<f32>,
    /// Default minus roles, `[d]`.
    pub axis: Vec<f64>,
    /// Principal components of the role vectors, unit length, the largest first: `[component][d]`.
    pub components: Vec<Vec<f64>>,
    /// Share of the variance between roles per component.
    pub shares: Vec<f64>,
}

impl RoleSpace {
    /// From activations `[context, reply, d]`, row-major; `default` and `roles` are contexts by number.
    ///
    /// # Errors
    /// No default context, fewer than two roles or replies, or activations of another shape.
    pub fn new(rows: &[f32], d: usize, replies: usize, default: &[usize], roles: &[usize]) -> Result<Self> {
        ensure!(!default.is_empty() && roles.len() >= 2, "an axis needs a default context and two roles");
        ensure!(
            d > 0 && replies >= 2 && rows.len().is_multiple_of(d * replies),
            "{} values are not contexts of {replies} replies",
            rows.len()
        );
        let mean_of = |contexts: &[usize], at: usize| {
            contexts.iter().map(|context| f64::from(rows[context * replies * d + at])).sum::<f64>() / contexts.len() as f64
        };
        let role_means: Vec<f64> = (0..replies * d).map(|at| mean_of(roles, at)).collect();
        let differences: Vec<f64> = role_means.iter().enumerate().map(|(at, role)| mean_of(default, at) - role).collect();
        let over_replies = |of: &dyn Fn(usize) -> f64, j: usize| (0..replies).map(|reply| of(reply * d + j)).sum::<f64>() / replies as f64;
        let axis: Vec<f64> = (0..d).map(|j| over_replies(&|at| differences[at], j)).collect();
        let vectors: Vec<Vec<f64>> = roles
            .iter()
            .map(|role| {
                let own = |at: usize| f64::from(rows[role * replies * d + at]) - role_means[at];
                (0..d).map(|j| over_replies(&own, j)).collect()
            })
            .collect();
        let (components, shares) = principal_components(&vectors);
        let narrow = |values: Vec<f64>| values.into_iter().map(|x| x as f32).collect();
        Ok(Self { d, per_reply: narrow(differences), roles: narrow(role_means), axis, components, shares })
    }

    /// Default minus roles per reply, `[reply, d]`.
    pub fn per_reply(&self) -> &[f32] {
        &self.per_reply
    }

    /// Length of the axis, `sign(U) sqrt|U|` with U unbiased for its square, in units of the activations.
    ///
    /// # Errors
    /// The draws are for another number of replies.
    pub fn length(&self, draws: &Draws) -> Result<Sampled> {
        let gram = Gram::new(&self.per_reply, self.d)?;
        let replicates = gram.calibrated_bootstrap_u(draws)?.into_iter().map(amplitude).collect();
        Ok(Sampled { value: amplitude(gram.u()), replicates })
    }

    /// Two-sided sign-flip p that the axis is there.
    ///
    /// # Errors
    /// As [`RoleSpace::length`].
    pub fn p_value(&self, draws: &Draws) -> Result<f64> {
        Ok(Gram::new(&self.per_reply, self.d)?.sign_flip_null(draws)?.p_value())
    }

    /// Cross-validated cosine with the axis of another checkpoint on the same replies; `None` where one of them has no length.
    ///
    /// # Errors
    /// The widths differ, or the draws are for another number of replies.
    pub fn cosine_with(&self, other: &Self, draws: &Draws) -> Result<Option<Sampled>> {
        let cross = Gram::cross(&self.per_reply, &other.per_reply, self.d)?;
        let (own, its) = (Gram::new(&self.per_reply, self.d)?, Gram::new(&other.per_reply, self.d)?);
        let Some(value) = cosine(cross.u(), own.u(), its.u()) else { return Ok(None) };
        let (cross, own, its) = (cross.bootstrap_u(draws)?, own.bootstrap_u(draws)?, its.bootstrap_u(draws)?);
        let replicates = cross.iter().zip(own.iter().zip(&its)).map(|(c, (a, b))| cosine(*c, *a, *b).unwrap_or(f64::NAN)).collect();
        Ok(Some(Sampled { value, replicates }))
    }

    /// Where a context lies on the axis: 0 is the mean role, 1 the mean default context. `rows` is the context's `[reply, d]`.
    /// `None` where the axis has no length.
    ///
    /// # Errors
    /// The draws are for another number of replies.
    pub fn project(&self, rows: &[f32], draws: &Draws) -> Result<Option<Sampled>> {
        ensure!(rows.len() == self.roles.len(), "{} values against {}", rows.len(), self.roles.len());
        let from_roles: Vec<f32> = rows.iter().zip(&self.roles).map(|(x, role)| x - role).collect();
        let (cross, own) = (Gram::cross(&from_roles, &self.per_reply, self.d)?, Gram::new(&self.per_reply, self.d)?);
        if own.u() <= 0.0 {
            return Ok(None);
        }
        let ratio = |cross: f64, own: f64| if own > 0.0 { cross / own } else { f64::NAN };
        let (value, own) = (ratio(cross.u(), own.u()), own.bootstrap_u(draws)?);
        let replicates = cross.bootstrap_u(draws)?.into_iter().zip(own).map(|(cross, own)| ratio(cross, own)).collect();
        Ok(Some(Sampled { value, replicates }))
    }

    /// Where one reading of the first replies lies on the axis, as in [`RoleSpace::project`]; `rows` is `[reply, d]`. `None` where the axis has no
    /// length, or there are more replies than it is made from.
    pub fn place(&self, rows: &[f32]) -> Option<f64> {
        let (n, read) = (self.per_reply.len() / self.d, rows.len() / self.d);
        let length = Gram::new(&self.per_reply, self.d).ok()?.u();
        if length <= 0.0 || read == 0 || read > n || n < 2 {
            return None;
        }
        // Of a reply, the axis of all others, as there.
        let along = |reply: usize| {
            let at = reply * self.d..(reply + 1) * self.d;
            let own = rows[at.clone()].iter().zip(&self.roles[at.clone()]).map(|(x, role)| f64::from(*x) - f64::from(*role));
            let others =
                self.axis.iter().zip(&self.per_reply[at]).map(|(mean, own)| (n as f64 * mean - f64::from(*own)) / (n as f64 - 1.0));
            own.zip(others).map(|(x, axis)| x * axis).sum::<f64>()
        };
        Some((0..read).map(along).sum::<f64>() / read as f64 / length)
    }

    /// Raw cosine of the axis with a component; its sign is arbitrary, so it is the absolute value.
    pub fn cosine_with_component(&self, component: usize) -> f64 {
        let length = dot(&self.axis, &self.axis).sqrt();
        if length > 0.0 { (dot(&self.axis, &self.components[component]) / length).abs() } else { 0.0 }
    }

    /// Orthonormal basis of the axis, then the role components, in coordinates scaled by `scale` `[d]` (whitening). The first k
    /// rows span the axis and the first k - 1 components. Directions that add nothing are left out.
    pub fn basis(&self, scale: &[f64]) -> Vec<Vec<f64>> {
        let mut basis: Vec<Vec<f64>> = Vec::new();
        for direction in std::iter::once(&self.axis).chain(&self.components) {
            let mut left: Vec<f64> = direction.iter().zip(scale).map(|(x, scale)| x * scale).collect();
            let whole = dot(&left, &left).sqrt();
            // Twice, since once leaves rounding behind where directions are close.
            for _ in 0..2 {
                for row in &basis {
                    let along = dot(&left, row);
                    left.iter_mut().zip(row).for_each(|(x, row)| *x -= along * row);
                }
            }
            let length = dot(&left, &left).sqrt();
            if length > 1e-6 * whole {
                left.iter_mut().for_each(|x| *x /= length);
                basis.push(left);
            }
        }
        basis
    }
}

pub(super) fn dot(a: &[f64], b: &[f64]) -> f64 {
    crate::stats::matrix::dot_f64(a, b)
}

/// Unit principal components of centred vectors and their shares of the variance, from the Gram matrix of the vectors.
fn principal_components(vectors: &[Vec<f64>]) -> (Vec<Vec<f64>>, Vec<f64>) {
    let n = vectors.len();
    let gram: Vec<f64> = (0..n * n).map(|at| dot(&vectors[at / n], &vectors[at % n])).collect();
    let (values, eigenvectors) = symmetric_eigen(gram, n);
    let total: f64 = values.iter().filter(|value| **value > 0.0).sum();
    let mut order: Vec<usize> = (0..n).collect();
    order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
    let (mut components, mut shares) = (Vec::new(), Vec::new());
    for k in order {
        if values[k] <= RANK * total {
            break;
        }
        let d = vectors[0].len();
        let mut component = vec![0.0; d];
        for (row, vector) in vectors.iter().enumerate() {
            let weight = eigenvectors[row * n + k] / values[k].sqrt();
            component.iter_mut().zip(vector).for_each(|(sum, x)| *sum += weight * x);
        }
        // The sign is arbitrary; the largest coordinate is positive, so that runs agree.
        let largest = component.iter().copied().max_by(|a, b| a.abs().total_cmp(&b.abs())).unwrap_or(1.0);
        component.iter_mut().for_each(|x| *x *= largest.signum());
        components.push(component);
        shares.push(values[k] / total);
    }
    (components, shares)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, normal};

    #[test]
    fn noise_makes_no_axis_and_every_context_of_a_planted_one_is_where_it_was_put() {
        let (d, replies, contexts) = (64, 20, 12);
        let mut generator = generator(2, "axis");
        let place = |context: usize| if context < 2 { 1.0 } else { (context as f64 - 6.5) / 20.0 };
        let mut rows = Vec::new();
        for at in 0..contexts * replies * d {
            let planted = if at % d == 0 { 5.0 * place(at / d / replies) } else { 0.0 };
            rows.push((planted + normal(&mut generator)) as f32);
        }
        let (default, roles): (Vec<usize>, Vec<usize>) = ((0..2).collect(), (2..contexts).collect());
        let draws = Draws::with_counts(replies, 999, 199, 0, "axis").unwrap();
        let space = RoleSpace::new(&rows, d, replies, &default, &roles).unwrap();
        assert!((space.length(&draws).unwrap().value - 5.0).abs() < 0.5 && space.p_value(&draws).unwrap() < 0.01);
        for context in 0..contexts {
            let own = &rows[context * replies * d..(context + 1) * replies * d];
            let on_axis = space.project(own, &draws).unwrap().unwrap();
            assert!((on_axis.value - place(context)).abs() < 0.15, "{context}: {}", on_axis.value);
            assert!((space.place(own).unwrap() - on_axis.value).abs() < 1e-4, "all replies are read alike");
            assert!((space.place(&own[..8 * d]).unwrap() - place(context)).abs() < 0.3, "{context}: some of them");
        }
        let noise: Vec<f32> = (0..contexts * replies * d).map(|_| normal(&mut generator) as f32).collect();
        let none = RoleSpace::new(&noise, d, replies, &default, &roles).unwrap();
        assert!(none.p_value(&draws).unwrap() > 0.01 && none.length(&draws).unwrap().value < 1.0);
        assert!(RoleSpace::new(&rows, d, replies, &[], &roles).is_err() && RoleSpace::new(&rows, d, replies, &default, &[3]).is_err());
        let basis = space.basis(&vec![1.0; d]);
        assert!(basis.len() == roles.len() && (dot(&basis[0], &basis[1])).abs() < 1e-9);
    }
}
