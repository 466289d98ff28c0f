//! Which rows of a matrix are read: an unembedding is read in slices, an embedding where its tokens are.

use anyhow::Result;
use tch::Tensor;

/// Which rows of a matrix are read.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// `start .. start + len`.
    Range(i64, i64),
    /// These, in this order.
    Listed(&'a [i64]),
}

impl Rows<'_> {
    /// These rows of a matrix that is in memory.
    ///
    /// # Errors
    /// A row is outside the matrix.
    pub fn of(self, matrix: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Rows::Range(start, len) => matrix.f_narrow(0, start, len)?,
            Rows::Listed(rows) => matrix.f_index_select(0, &Tensor::f_from_slice(rows)?)?,
        })
    }
}
