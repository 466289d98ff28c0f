//! What a store knows about answers and foils: their log-probabilities, and the rows of the unembedding that they are read with.

use super::Series;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// Rows of one checkpoint's unembedding, with the final norm folded in.
pub struct Lens {
    /// Row of each token.
    place: BTreeMap<i64, usize>,
    /// `[token, d]`.
    rows: Vec<f32>,
    d: usize,
    /// The final norm takes the mean away first.
    centres: bool,
}

impl Lens {
    /// From `rows` of `tokens`, `[token, d]` row-major, with the final norm folded in; `centres` for a layer norm.
    pub fn new(tokens: &[i64], rows: Vec<f32>, d: usize, centres: bool) -> Self {
        Self { place: tokens.iter().enumerate().map(|(row, token)| (*token, row)).collect(), rows, d, centres }
    }

    /// The direction that says these tokens, `[d]`: the mean of their rows. `None` where one is not in the store.
    pub fn direction(&self, tokens: &[i32]) -> Option<Vec<f64>> {
        let places = tokens
            .iter()
            .map(|token| self.place.get(&i64::from(*token)))
            .collect::<Option<Vec<_>>>()
            .filter(|places| !places.is_empty())?;
        let mut row = vec![0f64; self.d];
        let share = 1.0 / tokens.len() as f64;
        for at in places {
            row.iter_mut().zip(&self.rows[at * self.d..(at + 1) * self.d]).for_each(|(sum, x)| *sum += share * f64::from(*x));
        }
        Some(row)
    }

    /// The residual over the scale that the final norm would divide it by: `[d]`. Directions are orthogonal to its mean already.
    pub fn normed(&self, h: &[f32]) -> Vec<f64> {
        let n = h.len() as f64;
        let mean = if self.centres { h.iter().map(|x| f64::from(*x)).sum::<f64>() / n } else { 0.0 };
        let scale = (h.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / n).sqrt();
        let scale = if scale > 0.0 { scale } else { 1.0 };
        h.iter().map(|x| (f64::from(*x) - mean) / scale).collect()
    }
}

impl Series {
    /// The lens of a checkpoint; `None` where its file has none, as that of another tool.
    ///
    /// # Errors
    /// The tensors are there and do not fit one another.
    pub fn lens(&self, t: usize) -> Result<Option<Lens>> {
        let file = &self.files[t];
        if !file.contains("unembedding.tokens") || !file.contains("unembedding.rows") {
            return Ok(None);
        }
        let tokens = file.integers("unembedding.tokens")?;
        let rows = file.values("unembedding.rows")?;
        let &[n, d] = file.shape("unembedding.rows")? else {
            anyhow::bail!(
                "{}: unembedding.rows has shape {:?}, expected [token, d_model]",
                self.points[t].id,
                file.shape("unembedding.rows")?
            )
        };
        ensure!(n == tokens.len(), "{}: unembedding.rows has {n} rows, for {} tokens", self.points[t].id, tokens.len());
        ensure!(rows.iter().all(|x| x.is_finite()), "{}: unembedding.rows has values that are not finite", self.points[t].id);
        Ok(Some(Lens::new(&tokens, rows, d, file.metadata("final_norm") == Some("layer"))))
    }

    /// Log-probabilities of the foils per item, in nats; empty where an item has none or they were not scored.
    ///
    /// # Errors
    /// The tensors are there and do not fit the items.
    pub fn foils(&self, t: usize) -> Result<Vec<Vec<f64>>> {
        let mut foils = vec![Vec::new(); self.items.len()];
        let file = &self.files[t];
        if !file.contains("foils.log_probability") {
            return Ok(foils);
        }
        let &[n, width] = file.shape("foils.log_probability")? else {
            anyhow::bail!("{}: foils.log_probability is not [item, foil]", self.points[t].id)
        };
        let values = file.values("foils.log_probability")?;
        let rows = file.integers("answers.rows")?;
        ensure!(rows.len() == n, "{}: foils.log_probability has {n} rows, answers.rows {}", self.points[t].id, rows.len());
        for (row, item) in rows.into_iter().enumerate() {
            let item = usize::try_from(item).ok().filter(|&item| item < foils.len()).context("answers.rows names an item")?;
            let wanted = self.items[item].foils.as_ref().map_or(0, Vec::len).min(width);
            let scores = &values[row * width..row * width + wanted];
            if scores.iter().all(|x| x.is_finite()) {
                foils[item] = scores.iter().map(|x| f64::from(*x)).collect();
            }
        }
        Ok(foils)
    }
}

#[cfg(test)]
mod tests {
    use super::Lens;

    #[test]
    fn a_lens_without_rows_costs_nothing_however_wide_it_claims_to_be() {
        let lens = Lens::new(&[], Vec::new(), 1 << 60, false);
        assert_eq!((lens.direction(&[]), lens.direction(&[3])), (None, None));
    }
}
