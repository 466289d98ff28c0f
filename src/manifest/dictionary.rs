//! `[dictionary]`: which crosscoders are fitted over the checkpoints, and on what.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::model::{Layers, read_layers};
use super::source::resolve;
use super::spanned::{Choice, Field, Section};
use super::{DICTIONARY, DICTIONARY_LAYERS};

/// `[dictionary]`; without the table nothing is fitted and it costs nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dictionary {
    pub kind: Kind,
    /// Among the layers that are kept. The default is half of the depth.
    pub layers: Layers,
    pub latents: usize,
    /// Latents that are on at a token, on average.
    pub k: usize,
    /// Tokens of a fit.
    pub tokens: usize,
    pub text: Vec<TextSource>,
    /// Tokens of a text, at most.
    pub length: usize,
    /// Fits of every layer.
    pub seeds: usize,
    /// Ids; empty means all.
    pub checkpoints: Vec<String>,
    /// Where the table begins, to begin complaints with.
    #[serde(skip)]
    pub place: String,
}

/// What is fitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// One dictionary over all checkpoints.
    Crosscoder,
}

impl Choice for Kind {
    const ALL: &'static [(&'static str, Self)] = &[("crosscoder", Self::Crosscoder)];
}

/// Where tokens come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TextSource {
    /// What the run asks.
    Items,
    /// Plain text, or JSON lines with `text` or `messages`.
    File(PathBuf),
}

impl Dictionary {
    /// What decides the numbers of a fit, beside texts, layers and checkpoints.
    pub fn settings(&self) -> (Kind, usize, usize, usize, usize) {
        (self.kind, self.latents, self.k, self.tokens, self.seeds)
    }

    pub(super) fn read(top: &Section, folder: &Path) -> Result<Option<Self>> {
        let Some(section) = top.table("dictionary", DICTIONARY)? else { return Ok(None) };
        let count = |key: &str, range, default: usize| match section.get(key) {
            Some(field) => field.integer(range).map(|n| n as usize),
            None => Ok(default),
        };
        let latents = count("latents", 16..=1 << 20, 1024)?;
        let k = count("k", 1..=4096, 16)?;
        if k >= latents {
            let field = section.get("k").or_else(|| section.get("latents"));
            return Err(field.map_or_else(
                || anyhow::anyhow!("{DICTIONARY} k"),
                |field| field.wrong(format!("k below the number of latents, {latents}")),
            ));
        }
        Ok(Some(Self {
            kind: section.get("kind").map_or(Ok(Kind::Crosscoder), |field| field.choice())?,
            layers: match section.get("layers") {
                Some(field) => read_layers(&field, DICTIONARY_LAYERS)?,
                None => Layers::Depth(vec![0.5]),
            },
            latents,
            k,
            tokens: count("tokens", 1000..=1 << 40, 1_000_000)?,
            text: match section.get("text") {
                Some(field) => field.distinct("a list of \"items\" and files", |text| read_text(text, folder))?,
                None => vec![TextSource::Items],
            },
            length: count("length", 8..=8192, 256)?,
            seeds: count("seeds", 1..=9, 3)?,
            checkpoints: match section.get("checkpoints") {
                Some(field) => field.distinct("a list of checkpoint ids", |id| id.text("a checkpoint id").map(str::to_owned))?,
                None => Vec::new(),
            },
            place: section.place(),
        }))
    }
}

fn read_text(field: &Field, folder: &Path) -> Result<TextSource> {
    let text = field.text("\"items\" or a file")?;
    if text == "items" {
        return Ok(TextSource::Items);
    }
    let path = resolve(folder, text).map_err(|error| field.error(error))?;
    if !path.is_file() {
        return Err(field.wrong(format!("items, or a file of plain text or JSON lines; there is no {}", path.display())));
    }
    Ok(TextSource::File(path))
}
