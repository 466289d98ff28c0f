//! One opened checkpoint: configuration, family and weights.

use super::architecture::{self, Architecture};
use super::config::{DecoderConfig, NormKind};
use super::inspect::survey;
use crate::checkpoint::adapter::Adapter;
use crate::checkpoint::base_name;
use crate::checkpoint::random::Random;
use crate::checkpoint::read_json;
use crate::checkpoint::tensors::Tensors;
use crate::checkpoint::weights::Weights;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One opened checkpoint. Nothing but headers has been read.
pub struct Checkpoint {
    pub folder: PathBuf,
    pub architecture: &'static Architecture,
    pub config: DecoderConfig,
    pub weights: Weights,
    /// Name of the unembedding, `[d_vocab, d_model]`; `None` where the files have none (a bare backbone, a classifier).
    pub unembedding: Option<String>,
    /// What is to be known of how it was read, a sentence each.
    pub notes: Vec<String>,
    /// Hash of `config.json`.
    digest: String,
}

impl Checkpoint {
    /// Opens a folder in Hugging Face layout.
    ///
    /// # Errors
    /// One sentence naming folder, file and key or tensor: no folder, no `config.json`, an unsupported architecture, a
    /// configuration that lacks a key or asks for something that is not implemented, weights that cannot be opened, that lack a
    /// tensor, or that hold a part of the model that nothing reads.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_ignoring(folder, &[])
    }

    /// As [`Checkpoint::open`]; the keys `ignored` of `config.json` may be unknown.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn open_ignoring(folder: &Path, ignored: &[String]) -> Result<Self> {
        let (architecture, config, digest) = Self::config_ignoring(folder, ignored)?;
        let json = read_json(&folder.join("config.json"))?;
        let weights = Weights::open(folder, architecture.layout, config.tied)?;
        let quantised = json.get("quantization_config").filter(|value| !value.is_null());
        survey(architecture, &config, &weights).map_err(|error| match quantised {
            Some(config) => {
                let method = config.get("quant_method").and_then(Value::as_str).unwrap_or("unknown");
                error.context(format!("the weights are quantised ({method}); dequantise them and save them as bfloat16"))
            }
            None => error,
        })?;
        let mut notes: Vec<String> = Vec::new();
        if quantised.is_some() {
            notes.push("quantization_config of config.json is left over: the weights are not quantised".to_owned());
        }
        notes.extend(ignored.iter().filter_map(|key| {
            let value = key.split('.').try_fold(&json, |table, key| table.get(key))?;
            Some(format!("key {key} = {value} of config.json was ignored, as [model] ignore says"))
        }));
        let folder = folder.to_owned();
        Self { folder, architecture, config, weights, unembedding: None, notes, digest }.with_head()
    }

    /// Finds the unembedding. As transformers 5 has it, a head that differs from the embedding is a head of its own, whatever the
    /// configuration says of the two.
    fn with_head(mut self) -> Result<Self> {
        let layout = &self.architecture.layout;
        let (embedding, head) = (layout.embedding(), layout.unembedding());
        let shape = [self.config.d_vocab, self.config.d_model];
        let base = self.weights.base();
        if base.contains(&head) {
            base.expect(&head, &shape)?;
            if self.config.tied && !base.are_equal(&embedding, &head, &shape)? {
                self.config.tied = false;
                self.notes.push(format!(
                    "config.json ties the unembedding to the embedding, but {head} is another matrix; it is read, as transformers 5 does"
                ));
            }
        }
        self.unembedding = match self.config.tied {
            true => Some(embedding),
            false if base.contains(&head) => Some(head),
            false => {
                self.notes.push(format!("there is no head ({head}) in the files, so there are no answers; is it tied to the embedding?"));
                None
            }
        };
        Ok(self)
    }

    /// Architecture, configuration and the hash of `config.json` of a folder, which needs no weights in it yet.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn config(folder: &Path) -> Result<(&'static Architecture, DecoderConfig, String)> {
        Self::config_ignoring(folder, &[])
    }

    /// As [`Checkpoint::config`]; the keys `ignored` may be unknown.
    ///
    /// # Errors
    /// As [`Checkpoint::open`].
    pub fn config_ignoring(folder: &Path, ignored: &[String]) -> Result<(&'static Architecture, DecoderConfig, String)> {
        ensure!(folder.is_dir(), "{}: no such folder", folder.display());
        let file = folder.join("config.json");
        let json = read_json(&file)?;
        let (architecture, config) = architecture::resolve_ignoring(&json, ignored).with_context(|| file.display().to_string())?;
        Ok((architecture, config, blake3::hash(json.to_string().as_bytes()).to_hex().to_string()))
    }

    /// Opens a base folder and, if there is one, the adapter over it. Configuration and family are the base's.
    ///
    /// # Errors
    /// As [`Checkpoint::open`] and [`Weights::adapted`].
    pub fn open_adapted(base: &Path, adapter: Option<&Path>) -> Result<Self> {
        Self::open(base)?.with_adapters(adapter.as_slice())
    }

    /// The same model, under adapters, the first one over the base; its tensors stay mapped, and hashed, once.
    ///
    /// # Errors
    /// As [`Weights::adapted`].
    pub fn with_adapters(&self, adapters: &[&Path]) -> Result<Self> {
        let mut adapted = self.with_weights(self.weights.adapted(adapters, self.config.tied, self.config.d_vocab)?);
        adapted.config.d_vocab = adapted.weights.vocabulary().unwrap_or(self.config.d_vocab);
        Ok(adapted)
    }

    /// The same architecture before any training: random weights from `seed` in the place of its own.
    ///
    /// # Errors
    /// `config.json` cannot be read any more.
    pub fn reinitialised(&self, seed: u64) -> Result<Self> {
        /// What transformers' configuration classes default `initializer_range` to.
        const INITIALIZER_RANGE: f64 = 0.02;
        let json = read_json(&self.folder.join("config.json"))?;
        let sd = json.get("initializer_range").and_then(Value::as_f64).unwrap_or(INITIALIZER_RANGE);
        let neutral = if self.config.norm == NormKind::RmsPlusOne { 0.0 } else { 1.0 };
        Ok(self.with_weights(self.weights.reinitialised(Random { seed, sd, neutral })))
    }

    fn with_weights(&self, weights: Weights) -> Self {
        Self {
            folder: self.folder.clone(),
            architecture: self.architecture,
            config: self.config.clone(),
            weights,
            unembedding: self.unembedding.clone(),
            notes: self.notes.clone(),
            digest: self.digest.clone(),
        }
    }

    /// What the first adapter says that it was trained over, where that is another model than this base.
    pub fn other_base(&self) -> Option<&str> {
        let named = self.weights.adapters().first()?.trained_over()?;
        base_name::is_another(named, self.weights.base()).then_some(named)
    }

    /// The last layer that no adapter reaches: its residual is the base's. `n_layers` without an adapter; `None` if the embedding
    /// is changed.
    pub fn unchanged_layers(&self) -> Option<usize> {
        let first = self.weights.adapters().iter().map(Adapter::first_block);
        first.into_iter().try_fold(self.config.n_layers, |lowest, first| Some(lowest.min(first?)))
    }

    /// Equal for checkpoints that are read in the same way: configuration, names and shapes of tensors, and those of adapters with
    /// their options; of this version of the program.
    pub fn kind(&self) -> String {
        let shapes = |tensors: &Tensors| format!("{:?}", tensors.names().map(|name| (name, tensors.shape(name))).collect::<Vec<_>>());
        let mut text = format!("{} {} {:?}", env!("CARGO_PKG_VERSION"), self.architecture.model_type, self.config);
        text += &shapes(self.weights.base());
        for adapter in self.weights.adapters() {
            text += &shapes(adapter.tensors());
            text += &std::fs::read_to_string(adapter.folder().join("adapter_config.json")).unwrap_or_default();
        }
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }

    /// Content hash of configuration and weights. Reads the tensors that were not read yet.
    pub fn fingerprint(&self) -> String {
        blake3::hash(format!("{}{}", self.digest, self.weights.fingerprint()).as_bytes()).to_hex().to_string()
    }
}
