//! Cholesky factors of symmetric positive definite matrices, for systems of a few hundred unknowns.
//!
//! Left-looking in blocks of columns, so that nearly all the work is the matrix product (Golub & Van Loan 2013, section
//! 4.2.6); the triangular solve against a diagonal block is a product with its inverse. Pure Rust and single-threaded: it
//! gives the same bits in any worker thread, and there is no thread pool to tame.

use super::matrix::{self, Strided};

/// Columns per block: small enough for the scalar part, large enough for the product.
const BLOCK: usize = 32;

/// A factor L with `L L' = A`.
#[derive(Clone, Debug)]
pub struct Cholesky {
    n: usize,
    /// L in the lower triangle, `[n, n]` row-major; what is above the diagonal has no meaning.
    l: Vec<f64>,
}

impl Cholesky {
    /// Factors `a`, `[n, n]` row-major, of which only the lower triangle is read. `None` when it is not positive definite
    /// to working precision.
    ///
    /// # Panics
    /// When `a` is not `[n, n]`.
    pub fn new(n: usize, mut a: Vec<f64>) -> Option<Self> {
        assert_eq!(a.len(), n * n, "matrix is not [{n}, {n}]");
        let mut panel = vec![0.0; n * BLOCK];
        for start in (0..n).step_by(BLOCK) {
            let (width, rows) = (BLOCK.min(n - start), n - start);
            let panel = &mut panel[..rows * width];
            for (row, out) in panel.chunks_exact_mut(width).enumerate() {
                let at = (start + row) * n + start;
                let lower = width.min(row + 1);
                out[..lower].copy_from_slice(&a[at..at + lower]);
                out[lower..].fill(0.0);
            }
            // panel = A[start.., block] - L[start.., ..start] L[block, ..start]'
            let left = Strided::rows(&a[start * n..], n);
            matrix::accumulate([rows, start, width], -1.0, left, left.transposed(), panel, width);
            let inverse = invert_factor(panel, width)?;
            // L[start.., block] = panel L_block^-T; the first rows of that are L_block itself.
            let out = &mut a[start * n + start..];
            for row in 0..rows {
                out[row * n..row * n + width].fill(0.0);
            }
            matrix::accumulate([rows, width, width], 1.0, Strided::rows(panel, width), Strided::rows(&inverse, width).transposed(), out, n);
        }
        Some(Self { n, l: a })
    }

    /// Solves `A x = b` in place.
    ///
    /// # Panics
    /// When `b` is not `[n]`.
    pub fn solve(&self, b: &mut [f64]) {
        let n = self.n;
        assert_eq!(b.len(), n, "right-hand side is not [{n}]");
        for row in 0..n {
            let (solved, rest) = b.split_at_mut(row);
            let l = &self.l[row * n..=row * n + row];
            rest[0] = (rest[0] - matrix::dot_f64(&l[..row], solved)) / l[row];
        }
        for row in (0..n).rev() {
            let (rest, solved) = b.split_at_mut(row);
            let l = &self.l[row * n..=row * n + row];
            solved[0] /= l[row];
            for (value, &factor) in rest.iter_mut().zip(l) {
                *value -= factor * solved[0];
            }
        }
    }
}

/// The inverse `[width, width]` of the factor of the first `width` rows of `panel`.
fn invert_factor(panel: &[f64], width: usize) -> Option<[f64; BLOCK * BLOCK]> {
    let mut l = [0.0; BLOCK * BLOCK];
    for row in 0..width {
        for column in 0..=row {
            let (above, below) = l.split_at(row * width);
            let other = if column == row { &below[..column] } else { &above[column * width..column * width + column] };
            let rest = panel[row * width + column] - matrix::dot_f64(&below[..column], other);
            l[row * width + column] = if column < row {
                rest / l[column * width + column]
            } else if rest > 0.0 {
                rest.sqrt()
            } else {
                return None; // not-a-number included
            };
        }
    }
    let mut inverse = [0.0; BLOCK * BLOCK];
    for row in 0..width {
        let (done, out) = inverse.split_at_mut(row * width);
        for (k, &factor) in l[row * width..row * width + row].iter().enumerate() {
            for (value, &known) in out[..=k].iter_mut().zip(&done[k * width..=k * width + k]) {
                *value -= factor * known;
            }
        }
        let diagonal = l[row * width + row];
        out[..row].iter_mut().for_each(|value| *value /= diagonal);
        out[row] = 1.0 / diagonal;
    }
    Some(inverse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, normal};

    /// `B B' + ridge I` of a random B, `[n, rank]`.
    fn positive_definite(n: usize, rank: usize, ridge: f64, key: &str) -> Vec<f64> {
        let mut generator = generator(0, key);
        let b: Vec<f64> = (0..n * rank).map(|_| normal(&mut generator)).collect();
        let mut a = vec![0.0; n * n];
        for i in 0..n {
            for j in 0..n {
                let inner: f64 = (0..rank).map(|k| b[i * rank + k] * b[j * rank + k]).sum();
                a[i * n + j] = inner + if i == j { ridge } else { 0.0 };
            }
        }
        a
    }

    #[test]
    fn solutions_solve_whatever_the_size() {
        for n in [1, 2, 31, 32, 33, 64, 100, 205] {
            let a = positive_definite(n, n.div_ceil(2), 0.1, "solve");
            let x: Vec<f64> = (0..n).map(|i| (i as f64).sin()).collect();
            let mut b: Vec<f64> = (0..n).map(|i| (0..n).map(|j| a[i * n + j] * x[j]).sum()).collect();
            Cholesky::new(n, a).unwrap().solve(&mut b);
            for (found, expected) in b.iter().zip(&x) {
                assert!((found - expected).abs() < 1e-9, "n {n}: {found} {expected}");
            }
        }
    }

    #[test]
    fn only_the_lower_triangle_is_read() {
        let n = 70;
        let mut a = positive_definite(n, n, 0.1, "lower");
        let mut b = vec![1.0; n];
        Cholesky::new(n, a.clone()).unwrap().solve(&mut b);
        for i in 0..n {
            a[i * n + i + 1..(i + 1) * n].fill(f64::NAN);
        }
        let mut again = vec![1.0; n];
        Cholesky::new(n, a).unwrap().solve(&mut again);
        assert_eq!(b, again);
    }

    #[test]
    fn what_is_not_positive_definite_has_no_factor() {
        assert!(Cholesky::new(2, vec![1.0, 2.0, 2.0, 1.0]).is_none());
        assert!(Cholesky::new(1, vec![0.0]).is_none());
        assert!(Cholesky::new(1, vec![f64::NAN]).is_none());
        let mut a = positive_definite(80, 80, 0.1, "indefinite");
        a[79 * 80 + 79] = -1.0;
        assert!(Cholesky::new(80, a).is_none());
    }
}
