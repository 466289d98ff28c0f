//! The subspace in which items vary most at one checkpoint, and the principal angles between two of them (Björck & Golub 1973).

use anyhow::{Result, ensure};

use super::draws::{generator, random_signs};
use super::matrix::{self, Right, dot_f64};
use super::symmetric::symmetric_eigen;

/// Dimensions that are compared.
pub const DIMENSIONS: usize = 3;
/// Subspace iteration goes on with a few more, which makes it faster (Golub & Van Loan, section 8.2.4) ...
const WIDTH: usize = DIMENSIONS + 7;
/// ... until the subspace turns by less than this many degrees, or this many times: with a spectrum so flat, no three components stand out.
const SETTLED: f64 = 0.002;
const ROUNDS: usize = 100;
/// Dimensions with less than this share of the largest variance are rounding.
const RANK: f64 = 1e-9;

/// The first [`DIMENSIONS`] principal components of items.
pub struct Subspace {
    /// `[DIMENSIONS][d]`, orthonormal.
    basis: Vec<Vec<f64>>,
}

impl Subspace {
    /// Of items `[n, d]` around their mean, with their products `[n, n]`; `None` where they vary in fewer dimensions.
    ///
    /// # Errors
    /// When lengths differ.
    pub fn new(centred: &[f32], products: &[f32], d: usize) -> Result<Option<Self>> {
        ensure!(d > 0 && centred.len().is_multiple_of(d), "{} values are not rows of {d}", centred.len());
        let n = centred.len() / d;
        ensure!(products.len() == n * n, "{} products of {n} items", products.len());
        if n <= DIMENSIONS || d < DIMENSIONS {
            return Ok(None);
        }
        let width = WIDTH.min(n);
        // Signs begin as well as normals would, and cost nothing beside the rest.
        let start = random_signs(n, width, &mut generator(0, "subspace"));
        let mut rows = widened(&start, n);
        let mut image = vec![0f32; width * n];
        let mut found: Vec<Vec<f64>> = Vec::new();
        let mut variances = [0.0; DIMENSIONS];
        for _ in 0..ROUNDS {
            orthonormalise(&mut rows);
            matrix::multiply([width, n, n], &narrow(&rows), products, Right::AsIs, &mut image);
            let wide = widened(&image, n);
            // Rayleigh-Ritz: the components within what was found so far.
            let ritz = |at: usize| (dot_f64(&rows[at / width], &wide[at % width]) + dot_f64(&rows[at % width], &wide[at / width])) / 2.0;
            let (values, vectors) = symmetric_eigen((0..width * width).map(ritz).collect(), width);
            let mut order: Vec<usize> = (0..width).collect();
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
            variances = std::array::from_fn(|k| values[order[k]]);
            let component = |&k: &usize| -> Vec<f64> {
                (0..n).map(|item| (0..width).map(|row| vectors[row * width + k] * rows[row][item]).sum()).collect()
            };
            let now: Vec<Vec<f64>> = order[..DIMENSIONS].iter().map(component).collect();
            let settled = !found.is_empty() && angles(&found, &now)[DIMENSIONS - 1] < SETTLED;
            (found, rows) = (now, wide);
            if settled {
                break;
            }
        }
        if variances[DIMENSIONS - 1] <= RANK * variances[0] || !variances[0].is_normal() {
            return Ok(None);
        }
        let mut basis = vec![0f32; DIMENSIONS * d];
        matrix::multiply([DIMENSIONS, n, d], &narrow(&found), centred, Right::AsIs, &mut basis);
        let mut basis = widened(&basis, d);
        orthonormalise(&mut basis);
        Ok(Some(Self { basis }))
    }

    /// Principal angles to another subspace of the same space, in degrees, ascending; good to a hundredth of a degree.
    pub fn angles(&self, other: &Self) -> [f64; DIMENSIONS] {
        angles(&self.basis, &other.basis)
    }
}

/// Of two orthonormal bases.
fn angles(left: &[Vec<f64>], right: &[Vec<f64>]) -> [f64; DIMENSIONS] {
    let cosines: Vec<f64> = left.iter().flat_map(|a| right.iter().map(move |b| dot_f64(a, b))).collect();
    // Squared singular values of the cosines.
    let row = |i: usize| &cosines[i * DIMENSIONS..(i + 1) * DIMENSIONS];
    let squares = (0..DIMENSIONS * DIMENSIONS).map(|at| dot_f64(row(at / DIMENSIONS), row(at % DIMENSIONS))).collect();
    let (values, _) = symmetric_eigen(squares, DIMENSIONS);
    let mut angles: [f64; DIMENSIONS] = std::array::from_fn(|k| values[k].clamp(0.0, 1.0).sqrt().acos().to_degrees());
    angles.sort_unstable_by(f64::total_cmp);
    angles
}

fn narrow(rows: &[Vec<f64>]) -> Vec<f32> {
    rows.iter().flatten().map(|&x| x as f32).collect()
}

fn widened(rows: &[f32], width: usize) -> Vec<Vec<f64>> {
    rows.chunks_exact(width).map(|row| row.iter().map(|&x| f64::from(x)).collect()).collect()
}

/// Gram-Schmidt, twice, since once leaves rounding behind where rows are close. A row without anything of its own becomes zero.
fn orthonormalise(rows: &mut [Vec<f64>]) {
    for k in 0..rows.len() {
        let (done, rest) = rows.split_at_mut(k);
        let row = &mut rest[0];
        let whole = dot_f64(row, row).sqrt();
        for _ in 0..2 {
            for other in &*done {
                let along = dot_f64(row, other);
                row.iter_mut().zip(other).for_each(|(x, y)| *x -= along * y);
            }
        }
        let length = dot_f64(row, row).sqrt();
        let factor = if length > 1e-6 * whole { 1.0 / length } else { 0.0 };
        row.iter_mut().for_each(|x| *x *= factor);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::alignment::{centred, products};
    use crate::stats::draws::normal;

    /// Items that vary along three given directions, and a little everywhere.
    fn items(directions: &[Vec<f64>], noise: f64, seed: u64) -> Vec<f32> {
        let (n, d) = (60, directions[0].len());
        let mut rng = generator(seed, "items");
        let mut x = Vec::new();
        for _ in 0..n {
            let mut row: Vec<f64> = (0..d).map(|_| 7.0 + noise * normal(&mut rng)).collect();
            for (k, direction) in directions.iter().enumerate() {
                let score = (3.0 - k as f64) * normal(&mut rng);
                row.iter_mut().zip(direction).for_each(|(x, y)| *x += score * y);
            }
            x.extend(row.iter().map(|&x| x as f32));
        }
        x
    }

    fn space(x: &[f32], d: usize) -> Option<Subspace> {
        let centred = centred(x, d);
        Subspace::new(&centred, &products(&centred, d), d).unwrap()
    }

    fn unit(d: usize, k: usize, turned: f64) -> Vec<f64> {
        let mut unit = vec![0.0; d];
        (unit[k], unit[d - 1 - k]) = (turned.to_radians().cos(), turned.to_radians().sin());
        unit
    }

    #[test]
    fn planted_angles_are_found_whatever_the_scale_and_offset() {
        let d = 40;
        let plain: Vec<Vec<f64>> = (0..3).map(|k| unit(d, k, 0.0)).collect();
        let turned: Vec<Vec<f64>> = [(0, 20.0), (1, 0.0), (2, 70.0)].map(|(k, angle)| unit(d, k, angle)).to_vec();
        let [a, b] = [items(&plain, 0.0, 1), items(&turned, 0.0, 2)];
        let angles = space(&a, d).unwrap().angles(&space(&b, d).unwrap());
        for (found, planted) in angles.iter().zip([0.0, 20.0, 70.0]) {
            assert!((found - planted).abs() < 0.02, "{angles:?}");
        }
        let moved: Vec<f32> = b.iter().map(|x| 5.0 * x - 3.0).collect();
        assert!(space(&a, d).unwrap().angles(&space(&moved, d).unwrap()).iter().zip(angles).all(|(x, y)| (x - y).abs() < 0.02));
        assert!(space(&a, d).unwrap().angles(&space(&a, d).unwrap()).iter().all(|angle| *angle < 0.02));
    }

    #[test]
    fn items_in_fewer_dimensions_have_no_subspace() {
        let d = 12;
        assert!(space(&items(&[unit(d, 0, 0.0), unit(d, 1, 0.0)], 0.0, 3), d).is_none());
        assert!(space(&vec![1.0; 20 * d], d).is_none());
        assert!(space(&[1.0, 2.0, 3.0, 4.0], 2).is_none());
        assert!(Subspace::new(&[1.0, 2.0, 3.0], &[1.0], 2).is_err());
    }
}
