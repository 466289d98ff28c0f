//! What a checkpoint's lower blocks make the first checkpoint answer: `stitched/<checkpoint>.safetensors`, a file of the store.
//!
//! `scores` `[layer, item, choice]` f32 are log-probabilities in nats of both answers and then of the foils (NaN where an item has fewer), `items`
//! (i64) are rows of `items.parquet`, and `item_hash` (u8) their hashes as text.

use crate::prompt::item::Item;
use crate::walk::sheets::is_of;
use crate::walk::store::Readouts;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;

/// A sheet, read and checked.
pub struct Sheet {
    pub layers: Vec<usize>,
    /// Place among the sheet's items, by row of `items.parquet`.
    places: BTreeMap<usize, usize>,
    scores: Vec<f32>,
    width: usize,
}

impl Sheet {
    /// Reads a sheet; `None` if it was made for other items than these.
    ///
    /// # Errors
    /// It is none, or its tensors do not fit each other.
    pub fn read(file: &Readouts, items: &[Item]) -> Result<Option<Self>> {
        let read = || -> Result<Option<Self>> {
            let layers: Vec<usize> = serde_json::from_str(file.metadata("layers").context("the metadata lack the key layers")?)?;
            if !is_of(file, items)? {
                return Ok(None);
            }
            let rows = file.integers("items")?;
            let places: BTreeMap<usize, usize> = rows.iter().enumerate().map(|(place, row)| (*row as usize, place)).collect();
            let shape = file.shape("scores")?.to_vec();
            let [n_layers, n_items, width] = shape[..] else { anyhow::bail!("scores has {} dimensions, expected 3", shape.len()) };
            ensure!((n_layers, n_items) == (layers.len(), rows.len()), "scores are of {n_layers} layers and {n_items} items");
            Ok(Some(Self { layers, places, scores: file.values("scores")?, width }))
        };
        read().with_context(|| file.again())
    }

    /// Log-probabilities of an item's answers and foils at a layer, by its number in the sheet; `None` where it was not asked.
    pub fn choices(&self, layer: usize, item: usize) -> Option<Vec<f64>> {
        let at = (layer * self.places.len() + self.places.get(&item)?) * self.width;
        Some(self.scores[at..at + self.width].iter().map(|x| f64::from(*x)).take_while(|x| x.is_finite()).collect())
    }
}
