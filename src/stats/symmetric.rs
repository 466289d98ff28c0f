//! Systems and eigenvalues of symmetric matrices, by nalgebra: single-threaded, so the same bits in any worker thread.
//!
//! Matrices are `[n, n]`; rows and columns of a symmetric one are the same, so neither order of storage is meant.

use nalgebra::{DMatrix, DVectorViewMut, Dyn, SymmetricEigen};

/// A factor L with `L L' = A`.
#[derive(Clone, Debug)]
pub struct Cholesky(nalgebra::Cholesky<f64, Dyn>);

impl Cholesky {
    /// Factors `a`, `[n, n]`. `None` when it is not positive definite to working precision.
    ///
    /// # Panics
    /// When `a` is not `[n, n]`.
    pub fn new(n: usize, a: Vec<f64>) -> Option<Self> {
        nalgebra::Cholesky::new(DMatrix::from_vec(n, n, a)).map(Self)
    }

    /// Solves `A x = b` in place.
    ///
    /// # Panics
    /// When `b` is not `[n]`.
    pub fn solve(&self, b: &mut [f64]) {
        let n = b.len();
        self.0.solve_mut(&mut DVectorViewMut::from_slice(b, n));
    }
}

/// Eigenvalues `[n]`, in no order, and eigenvectors of `a`, `[n, n]`: component `row` of vector `k` is at `row * n + k`. All of them are
/// not-a-number where something in `a` is.
///
/// # Panics
/// When `a` is not `[n, n]`.
pub fn symmetric_eigen(a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    // Iterations would not end.
    if !a.iter().all(|value| value.is_finite()) {
        return (vec![f64::NAN; n], vec![f64::NAN; n * n]);
    }
    let SymmetricEigen { eigenvectors, eigenvalues } = SymmetricEigen::new(DMatrix::from_vec(n, n, a));
    (eigenvalues.as_slice().to_vec(), eigenvectors.transpose().as_slice().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, normal};

    /// `B B' + ridge I` of a random B, `[n, rank]`.
    fn positive_definite(n: usize, rank: usize, ridge: f64) -> Vec<f64> {
        let mut generator = generator(0, "symmetric");
        let b: Vec<f64> = (0..n * rank).map(|_| normal(&mut generator)).collect();
        let product = |i: usize, j: usize| (0..rank).map(|k| b[i * rank + k] * b[j * rank + k]).sum::<f64>();
        (0..n * n).map(|at| product(at / n, at % n) + if at / n == at % n { ridge } else { 0.0 }).collect()
    }

    #[test]
    fn solutions_solve_whatever_the_size() {
        for n in [1, 2, 33, 205] {
            let a = positive_definite(n, n.div_ceil(2), 0.1);
            let x: Vec<f64> = (0..n).map(|i| (i as f64).sin()).collect();
            let mut b: Vec<f64> = (0..n).map(|i| (0..n).map(|j| a[i * n + j] * x[j]).sum()).collect();
            Cholesky::new(n, a).unwrap().solve(&mut b);
            for (found, expected) in b.iter().zip(&x) {
                assert!((found - expected).abs() < 1e-9, "n {n}: {found} {expected}");
            }
        }
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        assert!(Cholesky::new(2, vec![1.0, 2.0, 2.0, 1.0]).is_none());
        assert!(Cholesky::new(1, vec![0.0]).is_none());
        assert!(Cholesky::new(1, vec![f64::NAN]).is_none());
        let mut a = positive_definite(80, 80, 0.1);
        a[79 * 80 + 79] = -1.0;
        assert!(Cholesky::new(80, a).is_none());
    }

    #[test]
    fn eigenvectors_are_orthonormal_and_rebuild_the_matrix() {
        let n = 30;
        let a = positive_definite(n, n, 0.0);
        let (values, v) = symmetric_eigen(a.clone(), n);
        for (at, expected) in a.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let rebuilt: f64 = (0..n).map(|k| v[i * n + k] * values[k] * v[j * n + k]).sum();
            let product: f64 = (0..n).map(|k| v[k * n + i] * v[k * n + j]).sum();
            assert!((rebuilt - expected).abs() < 1e-9 && (product - f64::from(i == j)).abs() < 1e-12, "{i} {j}: {rebuilt} {product}");
        }
        assert!(symmetric_eigen(vec![1.0, f64::NAN, f64::NAN, 1.0], 2).0.iter().all(|value| value.is_nan()));
    }
}
