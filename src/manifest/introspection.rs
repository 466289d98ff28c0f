//! `[introspection]`: where thoughts are injected, how strongly, and what is asked about them.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::model::{Layers, read_layers};
use super::source::resolve;
use super::spanned::Section;
use super::{INTROSPECTION, INTROSPECTION_LAYERS};

/// `[introspection]`; without the table, or with `enabled = false`, nothing is injected and it costs nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Introspection {
    /// Layers of the injections. The default is a tenth, a quarter, half and seven tenths of the depth.
    pub layers: Layers,
    /// Lengths of what is added, over the mean length of the residual at the sentences; ascending.
    pub strengths: Vec<f64>,
    /// Sets of sentences: the groups.
    pub groups: usize,
    /// Sentences and questions; `None` is those inside the binary.
    pub material: Option<PathBuf>,
    /// Residuals of conditions that may be in memory at a time, in units of 10^6 bytes. It changes no number, and no hash.
    #[serde(skip)]
    pub memory_mb: usize,
    /// Where the table begins, to begin complaints with.
    #[serde(skip)]
    pub place: String,
}

impl Introspection {
    pub(super) fn read(top: &Section, folder: &Path) -> Result<Option<Self>> {
        let Some(section) = top.table("introspection", INTROSPECTION)? else { return Ok(None) };
        let enabled = section.get("enabled").map_or(Ok(true), |field| field.boolean())?;
        let count = |key, range| section.get(key).map(|field| field.integer(range)).transpose().map(|n| n.map(|n| n as usize));
        let mut strengths = match section.get("strengths") {
            Some(field) => field.distinct("a list, as in [0.25, 0.5, 1.0]", |strength| strength.number(0.001..=100.0))?,
            None => vec![0.25, 0.5, 1.0],
        };
        strengths.sort_by(f64::total_cmp);
        let material = match section.get("material") {
            None => None,
            Some(field) => {
                let path = resolve(folder, field.text("a file")?).map_err(|error| field.error(error))?;
                if !path.is_file() {
                    return Err(field.wrong(format!("a file with sentences and questions; there is no {}", path.display())));
                }
                Some(path)
            }
        };
        let introspection = Self {
            layers: match section.get("layers") {
                Some(field) => read_layers(&field, INTROSPECTION_LAYERS)?,
                None => Layers::Depth(vec![0.1, 0.25, 0.5, 0.7]),
            },
            strengths,
            groups: count("groups", 4..=999)?.unwrap_or(12),
            material,
            memory_mb: count("memory_mb", 1..=99_999_999)?.unwrap_or(2_000),
            place: section.place(),
        };
        Ok(enabled.then_some(introspection))
    }

    /// Layers of the injections, ascending, in a model of `n_layers` blocks. Fractions of the depth mean the nearest one, the embedding and
    /// the last block aside where there are others.
    ///
    /// # Errors
    /// The model does not have a layer that was asked for.
    pub fn layers(&self, n_layers: usize) -> Result<Vec<usize>> {
        self.layers.anywhere(n_layers, &self.place)
    }
}
