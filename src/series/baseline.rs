//! What a concept has to exceed: the same items in a network with random weights, and as means of input embeddings.

use super::{Point, Series};
use crate::walk::store::EMBEDDING;
use anyhow::{Context, Result};

impl Series {
    /// The network with random weights as a series of one checkpoint, with the items, layers and readouts of this one.
    ///
    /// # Errors
    /// As for any checkpoint: its file is missing, wrong, or of other items.
    pub(super) fn open_baseline(&self, id: &str) -> Result<Self> {
        let point = Point { id: id.to_owned(), stage: String::new(), step: None, tokens: None, order: 0, reference: false };
        let (readouts, row, place) = self.open_point(&point)?;
        let mut baseline = Self {
            folder: self.folder.clone(),
            run: self.run.clone(),
            seed: self.seed,
            axis: self.axis,
            layers: self.layers.clone(),
            readouts: self.readouts.clone(),
            flips: self.flips,
            bootstraps: self.bootstraps,
            run_hash: self.run_hash.clone(),
            evidence: self.evidence,
            items: self.items.clone(),
            families: self.families.clone(),
            points: vec![point],
            missing: Vec::new(),
            excluded: Vec::new(),
            unfinished: Vec::new(),
            files: vec![readouts],
            baseline: None,
            place,
            row: vec![row],
            scale: Vec::new(),
        };
        baseline.scale = vec![baseline.scales(0)?];
        Ok(baseline)
    }

    /// The network with random weights as a series of one checkpoint; `None` where the store has none.
    pub fn baseline(&self) -> Option<&Self> {
        self.baseline.as_deref()
    }

    /// The same, where it has a readout of all `items`.
    pub fn baseline_of(&self, readout: usize, items: &[usize]) -> Option<&Self> {
        self.baseline().filter(|random| items.iter().all(|&item| random.has(0, readout, item)))
    }

    /// Mean input embedding of `items` at a checkpoint, `[item, d_model]` row-major, and d_model; `None` where the store does not have them.
    ///
    /// # Errors
    /// The tensor is there and does not fit the items, or a value is not finite.
    pub fn embeddings(&self, t: usize, items: &[usize]) -> Result<Option<(Vec<f32>, usize)>> {
        let file = &self.files[t];
        if !file.contains(EMBEDDING) {
            return Ok(None);
        }
        let mut row = vec![None; self.items.len()];
        for (index, item) in file.rows(EMBEDDING, self.items.len())?.into_iter().enumerate() {
            row[item] = Some(index);
        }
        let rows: Option<Vec<usize>> = items.iter().map(|&item| row[item]).collect();
        let rows = rows.with_context(|| format!("{}: an item has no row of {EMBEDDING}", self.points[t].id))?;
        file.gather(EMBEDDING, 0, &rows).map(Some)
    }
}
