//! `[stitching]`: layers from which the first checkpoint's upper blocks finish what every checkpoint began.

use anyhow::Result;
use serde::Serialize;

use super::model::{Layers, read_layers};
use super::spanned::Section;
use super::{STITCHING, STITCHING_LAYERS};

/// `[stitching]`; without the table, or with `enabled = false`, nothing is stitched and it costs nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stitching {
    /// The default is a third, half and two thirds of the depth.
    pub layers: Layers,
    /// Where the table begins, to begin complaints with.
    #[serde(skip)]
    pub place: String,
}

impl Stitching {
    pub(super) fn read(top: &Section) -> Result<Option<Self>> {
        let Some(section) = top.table("stitching", STITCHING)? else { return Ok(None) };
        let enabled = section.get("enabled").map_or(Ok(true), |field| field.boolean())?;
        let stitching = Self {
            layers: match section.get("layers") {
                Some(field) => read_layers(&field, STITCHING_LAYERS)?,
                None => Layers::Depth(vec![1.0 / 3.0, 0.5, 2.0 / 3.0]),
            },
            place: section.place(),
        };
        Ok(enabled.then_some(stitching))
    }

    /// Layers of a model of `n_layers` blocks, ascending.
    ///
    /// # Errors
    /// The model does not have a layer that was asked for.
    pub fn layers(&self, n_layers: usize) -> Result<Vec<usize>> {
        self.layers.anywhere(n_layers, &self.place)
    }
}
