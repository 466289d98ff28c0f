//! Eigenvalues and eigenvectors of small symmetric matrices.

/// Eigenvalues and eigenvectors (columns) of a symmetric matrix `[n, n]` by cyclic Jacobi rotations (Golub & Van Loan, section 8.5). Made
/// for a few dozen unknowns.
pub fn symmetric_eigen(mut a: Vec<f64>, n: usize) -> (Vec<f64>, Vec<f64>) {
    let mut v: Vec<f64> = (0..n * n).map(|at| f64::from(at / n == at % n)).collect();
    for _ in 0..64 {
        let off: f64 = (0..n * n).filter(|at| at / n != at % n).map(|at| a[at] * a[at]).sum();
        let all: f64 = a.iter().map(|x| x * x).sum();
        if off <= 1e-28 * all {
            break;
        }
        for p in 0..n {
            for q in p + 1..n {
                if a[p * n + q] == 0.0 {
                    continue;
                }
                let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * a[p * n + q]);
                let t = 1f64.copysign(theta) / (theta.abs() + (theta * theta + 1.0).sqrt());
                let c = 1.0 / (t * t + 1.0).sqrt();
                let s = t * c;
                let rotate = |m: &mut [f64], i: usize, j: usize| {
                    let (x, y) = (m[i], m[j]);
                    (m[i], m[j]) = (c * x - s * y, s * x + c * y);
                };
                for k in 0..n {
                    rotate(&mut a, k * n + p, k * n + q);
                }
                for k in 0..n {
                    rotate(&mut a, p * n + k, q * n + k);
                    rotate(&mut v, k * n + p, k * n + q);
                }
            }
        }
    }
    ((0..n).map(|k| a[k * n + k]).collect(), v)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, normal};

    #[test]
    fn eigenvectors_are_orthonormal_and_rebuild_the_matrix() {
        let n = 30;
        let mut generator = generator(1, "eigen");
        let b: Vec<f64> = (0..n * n).map(|_| normal(&mut generator)).collect();
        let a: Vec<f64> = (0..n * n).map(|at| (0..n).map(|k| b[at / n * n + k] * b[at % n * n + k]).sum()).collect();
        let (values, v) = symmetric_eigen(a.clone(), n);
        for (at, expected) in a.iter().enumerate() {
            let (i, j) = (at / n, at % n);
            let rebuilt: f64 = (0..n).map(|k| v[i * n + k] * values[k] * v[j * n + k]).sum();
            let product: f64 = (0..n).map(|k| v[k * n + i] * v[k * n + j]).sum();
            assert!((rebuilt - expected).abs() < 1e-9 && (product - f64::from(i == j)).abs() < 1e-12, "{i} {j}: {rebuilt} {product}");
        }
    }
}
