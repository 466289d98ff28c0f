//! Products of a few rows with a large matrix on a CPU, as a model that writes needs them: one row per text.
//!
//! General products first put the matrix into the order in which they read it, and with few rows that takes longer than the product. A model
//! that stays in memory has its matrices in that order once and for all: in panels of sixteen outputs, read from front to back. Each output is
//! summed over the inputs one by one, whatever the number of rows, so a row's result does not depend on the others.

use anyhow::{Result, ensure};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// Outputs of a panel: two registers of eight.
const WIDE: usize = 16;
/// Rows that are computed at once: with [`WIDE`], eight registers of sums.
const ROWS: usize = 4;
/// Rows that a matrix passes by at once: with their inputs and sums, some hundred kilobytes.
const MOST_ROWS: usize = 64;
/// Products of numbers below which threads cost more than they bring.
const SMALL: usize = 1 << 19;

/// A matrix in panels: `[panel, d_in, 16]`, the last one filled up with zeros.
pub struct Packed {
    panels: Vec<f32>,
    d_in: usize,
    d_out: usize,
    /// As many as libtorch had when the matrix was packed: it is left one where the others would wait for it spinning.
    threads: usize,
}

impl Packed {
    /// Packs `weight: [d_out, d_in]`; `None` where it is not in f32 on a CPU with the instructions for it (AVX2 and FMA).
    ///
    /// # Errors
    /// The weight is no matrix.
    pub fn new(weight: &Tensor) -> Result<Option<Self>> {
        if weight.kind() != Kind::Float || weight.device() != Device::Cpu || !is_fast() {
            return Ok(None);
        }
        let (d_out, d_in) = weight.size2()?;
        let (d_out, d_in) = (d_out as usize, d_in as usize);
        if d_out * d_in == 0 {
            return Ok(None);
        }
        let mut panels = vec![0.0; d_out.div_ceil(WIDE) * d_in * WIDE];
        for (first, panel) in panels.chunks_exact_mut(d_in * WIDE).enumerate() {
            let rows = WIDE.min(d_out - first * WIDE);
            let part = weight.f_narrow(0, (first * WIDE) as i64, rows as i64)?;
            for (column, row) in Vec::<f32>::try_from(part.f_flatten(0, -1)?)?.chunks_exact(d_in).enumerate() {
                row.iter().zip(panel.iter_mut().skip(column).step_by(WIDE)).for_each(|(value, place)| *place = *value);
            }
        }
        Ok(Some(Self { panels, d_in, d_out, threads: tch::get_num_threads().max(1) as usize }))
    }

    /// `x W'`: `[rows, d_in] -> [rows, d_out]`.
    ///
    /// # Errors
    /// The width of `x` is another one.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (rows, d_in) = x.size2()?;
        ensure!(d_in as usize == self.d_in, "a product of width {d_in} with a matrix of {} inputs", self.d_in);
        let x = Vec::<f32>::try_from(x.f_contiguous()?.f_flatten(0, -1)?)?;
        let mut out = vec![0.0; rows as usize * self.d_out];
        // Some rows at a time, which stay near the processor while the matrix passes by.
        let blocks = x.chunks(MOST_ROWS * self.d_in);
        blocks.zip(out.chunks_mut(MOST_ROWS * self.d_out)).for_each(|(x, out)| self.multiply(x, out));
        Ok(Tensor::f_from_slice(&out)?.f_view([rows, self.d_out as i64])?)
    }

    /// `x: [row, d_in]` into `out: [row, d_out]`.
    fn multiply(&self, x: &[f32], out: &mut [f32]) {
        let (rows, size) = (out.len() / self.d_out, self.d_in * WIDE);
        // By panel, so that threads write to places of their own.
        let mut sums = vec![0.0; self.panels.len() / self.d_in * rows];
        // SAFETY: there is a value only where the processor has the instructions.
        #[allow(unused_unsafe)]
        let product = |(panel, sums): (&[f32], &mut [f32])| unsafe { multiply(panel, x, self.d_in, sums) };
        let threads = if rows * self.d_in * self.d_out < SMALL { 1 } else { self.threads };
        if threads == 1 {
            self.panels.chunks_exact(size).zip(sums.chunks_exact_mut(rows * WIDE)).for_each(product);
        } else {
            let panels = self.panels.par_chunks_exact(size);
            let each = panels.len().div_ceil(threads);
            panels.zip(sums.par_chunks_exact_mut(rows * WIDE)).with_min_len(each).for_each(product);
        }
        for (first, sums) in sums.chunks_exact(rows * WIDE).enumerate() {
            let wide = WIDE.min(self.d_out - first * WIDE);
            for (row, sums) in sums.chunks_exact(WIDE).enumerate() {
                let at = row * self.d_out + first * WIDE;
                out[at..at + wide].copy_from_slice(&sums[..wide]);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn is_fast() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
fn is_fast() -> bool {
    false
}

/// All rows of `x: [row, d_in]` with one panel: `[row, 16]`.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
fn multiply(panel: &[f32], x: &[f32], d_in: usize, sums: &mut [f32]) {
    let mut at = 0;
    let rows = sums.len() / WIDE;
    while rows - at >= ROWS {
        some::<ROWS>(panel, &x[at * d_in..], d_in, &mut sums[at * WIDE..]);
        at += ROWS;
    }
    while at < rows {
        some::<1>(panel, &x[at * d_in..], d_in, &mut sums[at * WIDE..]);
        at += 1;
    }
}

/// The first `N` rows.
#[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
fn some<const N: usize>(panel: &[f32], x: &[f32], d_in: usize, sums: &mut [f32]) {
    let mut sum = [[0f32; WIDE]; N];
    let x: [&[f32]; N] = std::array::from_fn(|row| &x[row * d_in..(row + 1) * d_in]);
    for (input, weights) in panel.as_chunks::<WIDE>().0.iter().enumerate().take(d_in) {
        for (sum, x) in sum.iter_mut().zip(&x) {
            let x = x[input];
            for (sum, weight) in sum.iter_mut().zip(weights) {
                *sum = x.mul_add(*weight, *sum);
            }
        }
    }
    for (place, sum) in sums.as_chunks_mut::<WIDE>().0.iter_mut().zip(sum) {
        *place = sum;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_product_is_that_of_libtorch_and_of_each_row_alone() {
        for (rows, d_in, d_out) in [(1, 5, 3), (4, 64, 16), (7, 33, 50), (150, 576, 200), (9, 600, 1000)] {
            let draw = |shape: [i64; 2]| Tensor::randn(shape, (Kind::Float, Device::Cpu));
            let (x, weight) = (draw([rows, d_in]), draw([d_out, d_in]));
            let Some(packed) = Packed::new(&weight).unwrap() else { return };
            let ours = packed.forward(&x).unwrap();
            let exact = x.to_kind(Kind::Double).matmul(&weight.to_kind(Kind::Double).transpose(0, 1));
            let difference = (ours.to_kind(Kind::Double) - exact).abs().max().double_value(&[]);
            assert!(difference < 2e-6 * (d_in as f64).sqrt() * 10.0, "{rows} x {d_in} x {d_out}: {difference:.1e}");
            for row in 0..rows {
                let alone = packed.forward(&x.narrow(0, row, 1)).unwrap();
                assert_eq!(alone, ours.narrow(0, row, 1), "row {row} of {rows}");
            }
        }
    }
}
