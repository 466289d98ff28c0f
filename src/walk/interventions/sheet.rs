//! What a checkpoint answered under every condition: `causal/<checkpoint>.safetensors`, a file of the store.
//!
//! Settings of a direction are its strengths with both signs, ascending, then the ablation. Tensors are f32 unless it is said:
//! `items` (i64, rows of `items.parquet`) and `item_hash` (u8, their hashes as text), `clean.margin` `[item]` in nats, `scale`
//! `[layer]`; along random directions `random.margin` `[layer, direction, setting, item]` and `random.kl` `[layer, direction, setting]`;
//! along the axis, where there is one, the same under `axis.` without `direction`, and `axis.direction` `[layer, d_model]`; along a
//! concept's direction the same under `concept.<name>.`, where items are only those at the positions `concept.<name>.items` (i64)
//! of `items`.

use crate::prompt::item::Item;
use crate::walk::sheets::is_of;
use crate::walk::store::Readouts;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

/// What the metadata of a sheet say about it, under the key `causal`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    pub concepts: Vec<String>,
    /// Layer numbers.
    pub layers: Vec<usize>,
    /// With both signs, ascending.
    pub strengths: Vec<f64>,
    /// Random directions.
    pub directions: usize,
    /// Whether the assistant axis is among the directions.
    pub axis: bool,
    /// Where directions were read.
    pub readout: String,
}

impl Header {
    /// Settings per direction.
    pub fn settings(&self) -> usize {
        self.strengths.len() + 1
    }
}

/// What an intervention goes along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Along {
    /// Random direction by number.
    Random(usize),
    Axis,
    /// Concept by number.
    Concept(usize),
}

/// Margins and divergences along one kind of direction.
struct Part {
    margin: Vec<f32>,
    kl: Vec<f32>,
    direction: Vec<f32>,
    /// Positions among the sheet's items.
    items: Vec<usize>,
}

/// A sheet, read and checked.
pub struct Sheet {
    pub header: Header,
    /// Rows of `items.parquet`.
    pub items: Vec<usize>,
    pub clean: Vec<f32>,
    random: Part,
    axis: Option<Part>,
    concepts: Vec<Part>,
    d_model: usize,
}

impl Sheet {
    /// Reads a sheet; `None` if it was made for other items than these.
    ///
    /// # Errors
    /// It is none, or its tensors do not fit each other.
    pub fn read(file: &Readouts, items: &[Item]) -> Result<Option<Self>> {
        let read = || if is_of(file, items)? { Self::of(file, items.len()).map(Some) } else { Ok(None) };
        read().with_context(|| file.again())
    }

    fn of(file: &Readouts, n_items: usize) -> Result<Self> {
        let header = file.metadata("causal").context("the metadata lack the key causal")?;
        let header: Header = serde_json::from_str(header).context("the key causal of the metadata")?;
        let positions = |name: &str, below: usize| -> Result<Vec<usize>> {
            let found: Option<Vec<usize>> =
                file.integers(name)?.into_iter().map(|item| usize::try_from(item).ok().filter(|item| *item < below)).collect();
            found.with_context(|| format!("{name} names an item that is not among {below}"))
        };
        let items = positions("items", n_items)?;
        let clean = finite(file, "clean.margin", items.len())?;
        let (layers, settings) = (header.layers.len(), header.settings());
        let mut d_model = 0;
        let mut part = |name: &str, items: Vec<usize>, directions: usize, directed: bool| -> Result<Part> {
            let rows = layers.checked_mul(directions).and_then(|n| n.checked_mul(settings)).context("too many conditions")?;
            let margins = rows.checked_mul(items.len()).context("too many conditions")?;
            let direction = if directed {
                let direction = file.values(&format!("{name}.direction"))?;
                ensure!(layers > 0 && direction.len().is_multiple_of(layers), "{name}.direction is not one for each of {layers} layers");
                d_model = direction.len() / layers;
                direction
            } else {
                Vec::new()
            };
            let (margin, kl) = (finite(file, &format!("{name}.margin"), margins)?, finite(file, &format!("{name}.kl"), rows)?);
            Ok(Part { margin, kl, direction, items })
        };
        let all: Vec<usize> = (0..items.len()).collect();
        let random = part("random", all.clone(), header.directions, false)?;
        let axis = if header.axis { Some(part("axis", all, 1, true)?) } else { None };
        let mut concepts = Vec::new();
        for name in &header.concepts {
            let own = positions(&format!("concept.{name}.items"), items.len())?;
            concepts.push(part(&format!("concept.{name}"), own, 1, true)?);
        }
        let widths = axis.iter().chain(&concepts).all(|part| part.direction.len() == layers * d_model);
        ensure!(widths, "directions have different widths");
        Ok(Self { header, items, clean, random, axis, concepts, d_model })
    }

    fn part(&self, along: Along) -> Option<(&Part, usize)> {
        match along {
            Along::Random(number) => Some((&self.random, number)),
            Along::Axis => self.axis.as_ref().map(|part| (part, 0)),
            Along::Concept(number) => self.concepts.get(number).map(|part| (part, 0)),
        }
    }

    /// Positions among the sheet's items that were asked along a direction.
    pub fn asked(&self, along: Along) -> &[usize] {
        self.part(along).map_or(&[], |(part, _)| &part.items)
    }

    /// Margins of [`Sheet::asked`] at one layer (by position) and setting, in nats.
    pub fn margins(&self, along: Along, layer: usize, setting: usize) -> &[f32] {
        let Some((part, number)) = self.part(along) else { return &[] };
        let directions = if matches!(along, Along::Random(_)) { self.header.directions } else { 1 };
        let row = (layer * directions + number) * self.header.settings() + setting;
        &part.margin[row * part.items.len()..(row + 1) * part.items.len()]
    }

    /// Divergence on neutral text at one layer and setting, in nats.
    pub fn kl(&self, along: Along, layer: usize, setting: usize) -> f64 {
        let Some((part, number)) = self.part(along) else { return 0.0 };
        let directions = if matches!(along, Along::Random(_)) { self.header.directions } else { 1 };
        f64::from(part.kl[(layer * directions + number) * self.header.settings() + setting])
    }

    /// A unit direction at one layer, or zeros where there was none.
    pub fn direction(&self, along: Along, layer: usize) -> &[f32] {
        self.part(along).map_or(&[], |(part, _)| part.direction.get(layer * self.d_model..(layer + 1) * self.d_model).unwrap_or(&[]))
    }
}

fn finite(file: &Readouts, name: &str, expected: usize) -> Result<Vec<f32>> {
    let values = file.values(name)?;
    ensure!(values.len() == expected, "{name} has {} values, expected {expected}", values.len());
    ensure!(values.iter().all(|x| x.is_finite()), "{name} has values that are not finite");
    Ok(values)
}
