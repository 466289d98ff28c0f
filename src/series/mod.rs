//! A store of readouts with what is known about it: the input of every measure.
//!
//! It needs `run.json`, `items.parquet` and `readouts/`, made by a walk or by any other tool.

use crate::manifest::{Evidence, Readout};
use crate::prompt::item::Item;
use crate::prompt::label_family::LabelFamily;
use crate::prompt::specification::Specification;
use crate::stats::lexical::LexicalAudit;
use crate::table::{self, Key};
use crate::walk::store::Readouts;
use anyhow::{Context, Result, bail, ensure};
use axis::Axis;
use rayon::prelude::*;
use serde::Deserialize;
use std::path::{Path, PathBuf};

pub mod axis;
mod timeline;
mod baseline;
mod choices;
mod sheets;
mod families;

pub use choices::Lens;
pub use families::{Family, audit, families};
pub use timeline::{Point, Timeline};

/// `run.json`, as far as an analysis needs it.
#[derive(Debug, Clone, Deserialize)]
struct RunFile {
    run: String,
    #[serde(default)]
    seed: u64,
    #[serde(default = "index")]
    axis: Axis,
    layers: Vec<usize>,
    readouts: Vec<String>,
    checkpoints: Vec<Point>,
    #[serde(default = "flips")]
    flips: usize,
    #[serde(default = "bootstraps")]
    bootstraps: usize,
    #[serde(default)]
    run_hash: String,
    #[serde(default)]
    evidence: Evidence,
    #[serde(default)]
    baseline: Option<String>,
}

fn index() -> Axis {
    Axis::Index
}

fn flips() -> usize {
    crate::stats::draws::FLIPS
}

fn bootstraps() -> usize {
    crate::stats::draws::RESAMPLES
}

/// What an analysis needs to know of `integrity.parquet`.
#[derive(Debug, Clone, Deserialize)]
struct Integrity {
    checkpoint: String,
    kind: String,
    other: Option<String>,
    excluded: bool,
}

/// A file of the store, its row per readout and item, and its place per readout and layer.
type Opened = (Readouts, Vec<Vec<Option<u32>>>, Vec<Vec<Option<usize>>>);

/// A series whose readouts are open.
pub struct Series {
    /// Where the store is, and where tables go.
    pub folder: PathBuf,
    pub run: String,
    pub seed: u64,
    pub axis: Axis,
    /// Layer numbers, in the order in which they are stored.
    pub layers: Vec<usize>,
    pub readouts: Vec<String>,
    pub flips: usize,
    pub bootstraps: usize,
    pub run_hash: String,
    /// Thresholds of the verdicts.
    pub evidence: Evidence,
    pub items: Vec<Item>,
    pub families: Vec<Family>,
    /// Checkpoints with readouts, in order.
    pub points: Vec<Point>,
    /// Checkpoints without, and why.
    pub missing: Vec<(Point, String)>,
    /// Ids of those among `missing` that the integrity audit left out.
    pub excluded: Vec<String>,
    /// Ids of those among `missing` that a walk did not come to yet. One that failed, or whose file is wrong, is not among them.
    pub unfinished: Vec<String>,
    files: Vec<Readouts>,
    /// The network with random weights, where it was walked.
    baseline: Option<Box<Self>>,
    /// Row per item, `[checkpoint][readout][item]`.
    row: Vec<Vec<Vec<Option<u32>>>>,
    /// Place of a layer in a readout's tensor, `[readout][layer]`; the same at every checkpoint.
    place: Vec<Vec<Option<usize>>>,
    /// Root mean square of the centred neutral pool, `[checkpoint][readout][layer]`.
    scale: Vec<Vec<Vec<f64>>>,
}

impl Series {
    /// Opens a store. A checkpoint whose readouts are missing or wrong is reported in `missing`, not fatal.
    ///
    /// # Errors
    /// `run.json` or `items.parquet` is missing or wrong, or no checkpoint has readouts.
    pub fn open(folder: &Path) -> Result<Self> {
        let path = folder.join("run.json");
        let text = std::fs::read_to_string(&path)
            .map_err(|error| anyhow::anyhow!("{}: cannot be read ({error}); walk the series first", path.display()))?;
        let mut file: RunFile = serde_json::from_str(&text).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))?;
        ensure!(!file.layers.is_empty() && !file.readouts.is_empty(), "{}: layers and readouts must not be empty", path.display());
        for (key, count, most) in [("flips", file.flips, 999_999), ("bootstraps", file.bootstraps, 99_999)] {
            ensure!((1..=most).contains(&count), "{}: {key}: found {count}, expected a number from 1 to {most}", path.display());
        }
        file.checkpoints.sort_by_key(|point| point.order);
        let items: Vec<Item> = table::read(&folder.join("items.parquet"))?;
        let mut series = Self {
            folder: folder.to_owned(),
            run: file.run,
            seed: file.seed,
            axis: file.axis,
            layers: file.layers,
            readouts: file.readouts,
            flips: file.flips,
            bootstraps: file.bootstraps,
            run_hash: file.run_hash,
            evidence: file.evidence,
            families: families(&items),
            items,
            points: Vec::new(),
            missing: Vec::new(),
            excluded: Vec::new(),
            unfinished: Vec::new(),
            files: Vec::new(),
            baseline: None,
            row: Vec::new(),
            place: Vec::new(),
            scale: Vec::new(),
        };
        let audit = folder.join("integrity.parquet");
        let findings: Vec<Integrity> = if audit.is_file() { table::read(&audit)? } else { Vec::new() };
        for point in file.checkpoints {
            if let Some(finding) = findings.iter().find(|finding| finding.excluded && finding.checkpoint == point.id) {
                series.excluded.push(point.id.clone());
                let other = finding.other.as_ref().map_or_else(String::new, |other| format!(" {other}"));
                series.missing.push((point, format!("integrity audit: {}{other}", finding.kind)));
                continue;
            }
            match series.open_point(&point) {
                Ok((readouts, row, place)) => {
                    series.place = place;
                    series.points.push(point);
                    series.files.push(readouts);
                    series.row.push(row);
                }
                Err(error) => {
                    if series.is_unfinished(&point) {
                        series.unfinished.push(point.id.clone());
                    }
                    series.missing.push((point, format!("{error:#}")));
                }
            }
        }
        if series.points.is_empty() {
            bail!(
                "{}: no checkpoint has readouts; the first problem: {}",
                folder.display(),
                series.missing.first().map_or("none is listed", |(_, error)| error)
            );
        }
        series.scale = (0..series.points.len()).into_par_iter().map(|t| series.scales(t)).collect::<Result<_>>()?;
        if let Some(id) = &file.baseline {
            match series.open_baseline(id) {
                Ok(baseline) => series.baseline = Some(Box::new(baseline)),
                Err(error) => tracing::warn!("no level of random weights: {error:#}"),
            }
        }
        Ok(series)
    }

    fn open_point(&self, point: &Point) -> Result<Opened> {
        let plain = Path::new(&point.id).file_name().is_some_and(|name| name == point.id.as_str());
        ensure!(plain, "checkpoint id {:?} is not a plain file name", point.id);
        let path = self.folder.join("readouts").join(format!("{}.safetensors", point.id));
        let readouts = Readouts::open(&path)?;
        ensure!(
            self.is_of_these_items(&readouts),
            "{}: its readouts are of other items than items.parquet lists; the walk is not finished, walk it again",
            path.display()
        );
        let (mut rows, mut places) = (Vec::new(), Vec::new());
        for readout in &self.readouts {
            let named = readouts.rows(readout, self.items.len())?;
            readouts.check_finite(readout)?;
            let layers = readouts.shape(readout)?[0];
            let own = readouts.layers(readout)?;
            let expected = own.as_ref().map_or(self.layers.len(), Vec::len);
            ensure!(layers == expected, "{}: {readout} has {layers} layers, expected {expected}", path.display());
            places.push(match own {
                Some(own) => self.layers.iter().map(|layer| own.iter().position(|other| other == layer)).collect(),
                None => (0..layers).map(Some).collect(),
            });
            let mut row = vec![None; self.items.len()];
            for (index, item) in named.into_iter().enumerate() {
                row[item] = Some(u32::try_from(index)?);
            }
            rows.push(row);
        }
        let same = self.place.is_empty() || self.place == places;
        ensure!(same, "{}: its readouts are of other layers than those of the checkpoints before it", path.display());
        Ok((readouts, rows, places))
    }

    /// Whether a file holds the items of this series, in this order. A walk that begins writes the list of items first, so until it is
    /// done there are files of an earlier list. What another tool made may not say.
    fn is_of_these_items(&self, readouts: &Readouts) -> bool {
        let hashes = self.items.iter().flat_map(|item| item.hash.bytes());
        readouts.bytes("item_hash").map_or(true, |found| found.iter().copied().eq(hashes))
    }

    /// Whether a checkpoint that could not be opened is one that a walk has still to come to.
    fn is_unfinished(&self, point: &Point) -> bool {
        let folder = self.folder.join("readouts");
        let record = std::fs::read_to_string(folder.join(format!("{}.json", point.id))).unwrap_or_default();
        let record: serde_json::Value = serde_json::from_str(&record).unwrap_or_default();
        let has_failed = record.get("status").and_then(serde_json::Value::as_str) == Some("failed");
        let path = folder.join(format!("{}.safetensors", point.id));
        !has_failed && (!path.is_file() || Readouts::open(&path).is_ok_and(|readouts| !self.is_of_these_items(&readouts)))
    }

    /// Scale per readout and layer of one checkpoint. Where the store has no neutral items, all items stand in for them.
    fn scales(&self, t: usize) -> Result<Vec<Vec<f64>>> {
        let neutral: Vec<usize> = (0..self.items.len()).filter(|&item| self.items[item].neutral).collect();
        let all = || (0..self.items.len()).filter(|&item| self.items[item].is_plain()).collect();
        let pool: Vec<usize> = if neutral.len() >= 2 { neutral } else { all() };
        let of = |readout: usize, layer: usize| -> Result<f64> {
            if !self.keeps(readout, layer) {
                return Ok(1.0);
            }
            let pool: Vec<usize> = pool.iter().copied().filter(|&item| self.has(t, readout, item)).collect();
            let (rows, width) = self.rows(t, readout, layer, &pool)?;
            let n = pool.len().max(1) as f64;
            let mut mean = vec![0f64; width];
            rows.chunks_exact(width).for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n));
            let squares: f64 =
                rows.chunks_exact(width).flat_map(|row| row.iter().zip(&mean).map(|(x, mean)| (f64::from(*x) - mean).powi(2))).sum();
            let scale = (squares / (n * width as f64)).sqrt();
            // A layer at which the pool does not vary (a constant readout) has no scale; 1 leaves its zeros zeros.
            Ok(if scale > 0.0 { scale } else { 1.0 })
        };
        (0..self.readouts.len()).map(|readout| (0..self.layers.len()).map(|layer| of(readout, layer)).collect()).collect()
    }

    /// Fingerprint of a checkpoint's weights, where the store has one.
    pub fn fingerprint(&self, t: usize) -> Option<&str> {
        self.files[t].metadata("fingerprint")
    }

    /// Whether an item has a readout at a checkpoint.
    pub fn has(&self, t: usize, readout: usize, item: usize) -> bool {
        self.row[t][readout][item].is_some()
    }

    /// Whether a readout was kept at a layer.
    pub fn keeps(&self, readout: usize, layer: usize) -> bool {
        self.place[readout][layer].is_some()
    }

    /// Root mean square of the neutral pool: activations over it are in comparable units across layers and checkpoints.
    pub fn scale(&self, t: usize, readout: usize, layer: usize) -> f64 {
        self.scale[t][readout][layer]
    }

    /// Activations of `items`, `[item, d_model]` row-major, and d_model.
    ///
    /// # Errors
    /// An item does not have the readout, the layer was not kept for it, or a value is not finite.
    pub fn rows(&self, t: usize, readout: usize, layer: usize, items: &[usize]) -> Result<(Vec<f32>, usize)> {
        let row = &self.row[t][readout];
        let rows: Option<Vec<usize>> = items.iter().map(|&item| row[item].map(|row| row as usize)).collect();
        let rows = rows.with_context(|| format!("{}: an item has no readout {}", self.points[t].id, self.readouts[readout]))?;
        let place = self.place[readout][layer];
        let place = place.with_context(|| format!("readout {} was not kept at layer {}", self.readouts[readout], self.layers[layer]))?;
        self.files[t].gather(&self.readouts[readout], place, &rows)
    }

    /// Log-probabilities of the two answers per item, in nats; `None` where they were not scored.
    ///
    /// # Errors
    /// The tensors are there and do not fit the items.
    pub fn answers(&self, t: usize) -> Result<Vec<Option<[f64; 2]>>> {
        let mut answers = vec![None; self.items.len()];
        if self.files[t].contains("answers.log_probability") {
            let values = self.files[t].values("answers.log_probability")?;
            for (row, item) in self.files[t].integers("answers.rows")?.into_iter().enumerate() {
                let slot = usize::try_from(item).ok().and_then(|item| answers.get_mut(item));
                let pair = values.get(2 * row..2 * row + 2).filter(|pair| pair.iter().all(|x| x.is_finite()));
                if let (Some(slot), Some(pair)) = (slot, pair) {
                    *slot = Some([f64::from(pair[0]), f64::from(pair[1])]);
                }
            }
        }
        Ok(answers)
    }

    /// Digest of the settings, the items and the readouts; two stores with one digest have the same tables.
    pub fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let settings = (&self.run, self.seed, self.axis, &self.layers, &self.readouts, self.flips, self.bootstraps, self.evidence);
        hasher.update(format!("{settings:?} {:?} {:?} {:?}", self.points, self.missing, self.items).as_bytes());
        for file in self.files.iter().chain(self.baseline().into_iter().flat_map(|baseline| &baseline.files)) {
            hasher.update(file.identity().as_bytes());
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Number of a readout by name.
    pub fn readout(&self, name: &str) -> Option<usize> {
        self.readouts.iter().position(|readout| readout == name)
    }

    /// Number of the last prompt token's readout, at which everything is read that is not asked for elsewhere. A store of another tool
    /// may be without: then `measure`, which needs it, is said not to be there.
    pub fn last_prompt(&self, measure: &str) -> Option<usize> {
        let name = Readout::LastPrompt.name();
        let found = self.readout(name);
        if found.is_none() {
            tracing::warn!("{}: the store has no readout {name}, so its table of {measure} is empty", self.run);
        }
        found
    }

    /// The family of a concept.
    pub fn family(&self, concept: &str, label_family: &LabelFamily) -> Option<&Family> {
        self.families.iter().find(|family| family.concept == concept && family.label_family == *label_family)
    }

    /// What model specifications say about a concept, where its items tell.
    pub fn specification(&self, concept: &str) -> Option<Specification> {
        self.families.iter().filter(|family| family.concept == concept).find_map(|family| family.specification)
    }

    /// The lexical audit of a family: how well its words and its lengths tell y, before any model runs.
    ///
    /// # Errors
    /// Resamples cannot be drawn.
    pub fn audit(&self, family: &Family) -> Result<Vec<LexicalAudit>> {
        audit(family, &self.items, self.bootstraps, self.seed)
    }

    /// Keys of the checkpoints' rows.
    pub fn key(&self, t: usize) -> Key {
        let point = &self.points[t];
        Key {
            run: self.run.clone(),
            checkpoint: point.id.clone(),
            stage: point.stage.clone(),
            step: point.step.map(|step| step as i64),
            order: point.order as i32,
        }
    }

    /// The checkpoints that have readouts.
    pub fn timeline(&self) -> Timeline<'_> {
        Timeline { points: &self.points, axis: self.axis }
    }

    /// As [`Timeline::references`].
    pub fn references(&self) -> usize {
        self.timeline().references()
    }
}
