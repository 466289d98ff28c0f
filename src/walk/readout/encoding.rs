//! Readouts in half of the bytes: 16 bits per number, about a centre and in units of a scale that each layer has.
//!
//! A residual stream has a few dimensions that are thousands of times larger than the rest and the same for every prompt (Sun et al. 2024,
//! arXiv 2402.17762). Around the mean of the normalisation pool they are as small as others, so that what is rounded, by one part in 2,048 of
//! an item's distance to that mean, is far below what differs between prompts. Centre and scale come from the pool alone: a row does not
//! depend on which other items are asked.

use super::Request;
use crate::manifest::Keep;
use crate::prompt::label_family::LabelFamily;
use crate::walk::store::Encoding;
use anyhow::{Result, ensure};
use half::f16;

impl Encoding {
    /// Of the rows `anchors` among `rows`, `[row, width]`: their mean, and the power of two next below the root mean square around it.
    pub(super) fn of(rows: &[f32], width: usize, anchors: &[usize]) -> Self {
        let n = anchors.len() as f64;
        let row = |at: &usize| &rows[at * width..(at + 1) * width];
        let mut centre = vec![0f64; width];
        anchors.iter().for_each(|at| centre.iter_mut().zip(row(at)).for_each(|(mean, x)| *mean += f64::from(*x) / n));
        let centre: Vec<f32> = centre.into_iter().map(|x| x as f32).collect();
        let squares: f64 = anchors.iter().flat_map(|at| row(at).iter().zip(&centre)).map(|(x, mean)| f64::from(x - mean).powi(2)).sum();
        let rms = (squares / (n * width as f64)).sqrt();
        // A power of two divides without rounding.
        let scale = if rms > 0.0 { rms.log2().floor().exp2() as f32 } else { 1.0 };
        Self { centre, scale }
    }

    /// `[row, width]` as f16, little endian.
    ///
    /// # Errors
    /// A value that is beyond 65,504 scales.
    pub(super) fn encode(&self, rows: &[f32]) -> Result<Vec<u8>> {
        let width = self.centre.len();
        let mut bytes = Vec::with_capacity(rows.len() * 2);
        for row in rows.chunks_exact(width) {
            for (x, centre) in row.iter().zip(&self.centre) {
                let encoded = f16::from_f32((x - centre) / self.scale);
                ensure!(
                    encoded.is_finite(),
                    "an activation of {x} is beyond what 16 bits hold beside the others; set [run] keep = \"activations\""
                );
                bytes.extend(encoded.to_le_bytes());
            }
        }
        Ok(bytes)
    }
}

impl Request<'_> {
    /// Rows, by position among `items`, that centre a readout of these items: those of the normalisation pool, or of known facts; `None`
    /// where it is stored as it is.
    pub(super) fn anchors(&self, items: &[usize]) -> Option<Vec<usize>> {
        let those = |is: &dyn Fn(usize) -> bool| -> Option<Vec<usize>> {
            let found: Vec<usize> = (0..items.len()).filter(|&at| is(items[at])).collect();
            (found.len() >= 2).then_some(found)
        };
        let all = &self.set.items;
        let found = || those(&|item| all[item].neutral).or_else(|| those(&|item| all[item].label_family == LabelFamily::Known));
        if self.keep == Keep::Measures { found() } else { None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, normal};

    /// Rows of unit noise about a mean with one dimension of 5,000: each comes back to one part in 2,048 of its distance to the mean.
    #[test]
    fn large_dimensions_that_all_prompts_share_cost_nothing() {
        let mut rng = generator(1, "encoding");
        let (n, width) = (40, 16);
        let mut rows: Vec<f32> = (0..n * width).map(|_| normal(&mut rng) as f32).collect();
        rows.chunks_exact_mut(width).for_each(|row| row[3] += 5000.0);
        let encoding = Encoding::of(&rows, width, &(0..20).collect::<Vec<_>>());
        assert!(encoding.scale == 0.5 || encoding.scale == 1.0, "{}", encoding.scale);
        let bytes = encoding.encode(&rows).unwrap();
        let back = bytes.as_chunks::<2>().0.iter().map(|x| f16::from_le_bytes(*x).to_f32());
        for ((x, back), centre) in rows.iter().zip(back).zip(encoding.centre.iter().cycle()) {
            let (distance, error) = (x - centre, x - (centre + encoding.scale * back));
            // And one unit in the last place of the f32 that holds 5,000.
            assert!(error.abs() <= distance.abs() / 2048.0 + 5e-4 * f32::from(u8::from(centre.abs() > 1.0)) + 1e-6, "{x}: {error}");
        }
        let error = encoding.encode(&[1e6; 16]).unwrap_err().to_string();
        assert!(error.contains("keep = \"activations\""), "{error}");
    }
}
