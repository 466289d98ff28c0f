//! One opened checkpoint: configuration, family and weights.

use super::architecture::{self, Architecture};
use super::config::{DecoderConfig, NormKind};
use crate::checkpoint::random::Random;
use crate::checkpoint::read_json;
use crate::checkpoint::weights::Weights;
use anyhow::{Context, Result, ensure};
use std::path::{Path, PathBuf};

/// One opened checkpoint. Nothing but headers has been read.
pub struct Checkpoint {
    pub folder: PathBuf,
    pub architecture: &'static Architecture,
    pub config: DecoderConfig,
    pub weights: Weights,
    /// Hash of `config.json`.
    digest: String,
}

impl Checkpoint {
    /// Opens a folder in Hugging Face layout.
    ///
    /// # Errors
    /// One sentence naming folder, file and key: no folder, no `config.json`, an unsupported architecture, a configuration
    /// that lacks a key or asks for something that is not implemented, or weights that cannot be opened.
    pub fn open(folder: &Path) -> Result<Self> {
        let (architecture, config, digest) = Self::config(folder)?;
        Ok(Self { folder: folder.to_owned(), architecture, config, weights: Weights::open(folder)?, digest })
    }

    /// Architecture, configuration and the hash of `config.json` of a folder, which needs no weights in it yet.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn config(folder: &Path) -> Result<(&'static Architecture, DecoderConfig, String)> {
        ensure!(folder.is_dir(), "{}: no such folder", folder.display());
        let json = read_json(&folder.join("config.json"))?;
        let (architecture, config) = architecture::resolve(&json).with_context(|| folder.join("config.json").display().to_string())?;
        Ok((architecture, config, blake3::hash(json.to_string().as_bytes()).to_hex().to_string()))
    }

    /// Opens a base folder and, if there is one, the adapter over it. Configuration and family are the base's.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Weights::adapted`].
    pub fn open_adapted(base: &Path, adapter: Option<&Path>) -> Result<Self> {
        Self::open(base)?.with_adapter(adapter)
    }

    /// The same model, under an adapter if there is one; its tensors stay mapped, and hashed, once.
    ///
    /// # Errors
    /// As [`Weights::adapted`].
    pub fn with_adapter(&self, adapter: Option<&Path>) -> Result<Self> {
        let weights = match adapter {
            Some(folder) => self.weights.adapted(folder, self.config.tied)?,
            None => self.weights.share(),
        };
        let (architecture, config) = (self.architecture, self.config.clone());
        Ok(Self { folder: self.folder.clone(), architecture, config, weights, digest: self.digest.clone() })
    }

    /// The same architecture before any training: random weights from `seed` in the place of its own.
    ///
    /// # Errors
    /// `config.json` cannot be read any more.
    pub fn reinitialised(&self, seed: u64) -> Result<Self> {
        /// What transformers' configuration classes default `initializer_range` to.
        const INITIALIZER_RANGE: f64 = 0.02;
        let json = read_json(&self.folder.join("config.json"))?;
        let sd = json.get("initializer_range").and_then(serde_json::Value::as_f64).unwrap_or(INITIALIZER_RANGE);
        let neutral = if self.config.norm == NormKind::RmsPlusOne { 0.0 } else { 1.0 };
        let weights = self.weights.reinitialised(Random { seed, sd, neutral });
        let (architecture, config) = (self.architecture, self.config.clone());
        Ok(Self { folder: self.folder.clone(), architecture, config, weights, digest: self.digest.clone() })
    }

    /// The last layer that no adapter reaches: its residual is the base's. `n_layers` without an adapter; `None` if the embedding
    /// is changed.
    pub fn unchanged_layers(&self) -> Option<usize> {
        let first = self.weights.adapter().map_or(Some(usize::MAX), |adapter| adapter.first_block())?;
        Some(first.min(self.config.n_layers))
    }

    /// Content hash of configuration and weights. Reads the tensors that were not read yet.
    pub fn fingerprint(&self) -> String {
        blake3::hash(format!("{}{}", self.digest, self.weights.fingerprint()).as_bytes()).to_hex().to_string()
    }
}
