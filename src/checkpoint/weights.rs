//! The weights of one checkpoint, as a block's loader asks for them: the tensors of a folder, with an adapter's changes added
//! to those that it changes while they are read.
//!
//! Random numbers may stand in the place of all of them. Merging happens per tensor, in f32, so an adapted model is never on disk nor in memory as a whole, and every family gets
//! it for free. The tensors of a base are shared by all adapters over it: mapped once, hashed once.

use super::adapter::Adapter;
use super::random::Random;
use super::tensors::{Rows, Tensors, norm};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// All tensors of a checkpoint, by name.
pub struct Weights {
    base: Arc<Tensors>,
    adapter: Option<Adapter>,
    /// What is read instead of the files' numbers.
    random: Option<Random>,
    /// Norms of the tensors that the adapter changed, as they were read.
    changed_norms: Mutex<BTreeMap<String, f64>>,
}

/// What is known of one tensor for comparing it with that of another checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// Name on disk.
    pub name: String,
    /// Equal for equal content: of the bytes, or of what an adapter makes of them.
    pub digest: blake3::Hash,
    /// Frobenius norm, adapter included; only of tensors that were read as a whole.
    pub norm: Option<f64>,
    /// The file that it is in.
    pub shard: String,
}

impl Weights {
    /// Opens a model folder without reading any weight.
    ///
    /// # Errors
    /// As [`Tensors::open`].
    pub fn open(folder: &Path) -> Result<Self> {
        Ok(Self { base: Arc::new(Tensors::open(folder)?), adapter: None, random: None, changed_norms: Mutex::default() })
    }

    /// The same tensors under an adapter. `tied` says that the unembedding is the embedding.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn adapted(&self, folder: &Path, tied: bool) -> Result<Self> {
        let adapter = Adapter::open(folder, &self.base, tied)?;
        Ok(Self { adapter: Some(adapter), ..self.share() })
    }

    /// The same tensors without an adapter.
    pub fn share(&self) -> Self {
        Self { base: self.base.clone(), adapter: None, random: None, changed_norms: Mutex::default() }
    }

    /// Random numbers in the place of the tensors.
    pub fn reinitialised(&self, random: Random) -> Self {
        Self { random: Some(random), ..self.share() }
    }

    /// Folder that the weights came from; with an adapter, its base's.
    pub fn folder(&self) -> &Path {
        self.base.folder()
    }

    /// The adapter over the weights.
    pub fn adapter(&self) -> Option<&Adapter> {
        self.adapter.as_ref()
    }

    /// Number of parameters of the model. Those of low-rank factors are not counted: merged, they are in its matrices.
    pub fn n_params(&self) -> u64 {
        self.base.n_params()
    }

    /// Element type of the largest tensor: the dtype that people mean when they name the checkpoint's.
    pub fn dtype(&self) -> String {
        self.base.dtype()
    }

    /// The compute kind that corresponds to [`Weights::dtype`].
    pub fn kind(&self) -> Kind {
        kind(&self.dtype())
    }

    /// Whether a tensor of this name exists, with or without its first name segment (`model.`, `gpt_neox.`).
    pub fn contains(&self, name: &str) -> bool {
        self.base.resolve(name).is_some()
    }

    /// Reads a whole tensor as `kind` on the CPU. `name` is the Hugging Face name; its first segment may be absent on disk.
    ///
    /// # Errors
    /// As [`Tensors::read`]; also what the adapter makes of the tensor is not finite.
    pub fn get(&self, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor> {
        let tensor = Tensor::f_empty(shape, (kind, Device::Cpu))?;
        self.read(name, shape, &tensor)?;
        Ok(tensor)
    }

    /// Reads a whole tensor into `target`, which is contiguous, has its shape and may be of another kind and on another device. Beside
    /// `target` only a few MiB are needed, and for a tensor that an adapter changes one f32 copy if `target` is not f32.
    ///
    /// # Errors
    /// As [`Weights::get`], or the device is out of memory.
    pub fn read(&self, name: &str, shape: &[i64], target: &Tensor) -> Result<()> {
        if let Some(random) = &self.random {
            return random.read(&self.base, name, shape, target);
        }
        let Some((adapter, name)) = self.changed(name) else { return self.base.read(name, shape, target) };
        adapter.read(&self.base, name, shape, target)?;
        let norm = norm(target)?;
        let norm = norm.with_context(|| format!("{}: the adapter makes {name} non-finite", adapter.folder().display()))?;
        self.changed_norms.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), norm);
        Ok(())
    }

    /// Reads some rows of the unembedding as `kind`: `[row, shape[1]]`.
    ///
    /// # Errors
    /// As [`Weights::get`]; also a row outside the matrix.
    pub fn unembedding(&self, name: &str, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        match (&self.random, &self.adapter) {
            (Some(random), _) => random.rows(&self.base, name, shape, rows, kind),
            (None, Some(adapter)) => adapter.unembedding(&self.base, name, shape, rows, kind),
            (None, None) => self.base.rows(name, shape, rows, kind),
        }
    }

    /// Reads the given rows of an embedding as `kind`: `[rows.len(), shape[1]]`. Only the pages of these rows are touched.
    ///
    /// # Errors
    /// As [`Weights::get`]; also a row outside the matrix.
    pub fn rows(&self, name: &str, shape: &[i64; 2], rows: &[i64], kind: Kind) -> Result<Tensor> {
        let rows = Rows::Listed(rows);
        match (&self.random, &self.adapter) {
            (Some(random), _) => random.rows(&self.base, name, shape, rows, kind),
            (None, Some(adapter)) => adapter.embedding(&self.base, name, shape, rows, kind),
            (None, None) => self.base.rows(name, shape, rows, kind),
        }
    }

    /// The adapter and the name on disk, if the adapter changes this tensor.
    fn changed(&self, name: &str) -> Option<(&Adapter, &str)> {
        let adapter = self.adapter.as_ref()?;
        let name = self.base.resolve(name)?;
        adapter.changes(name).then_some((adapter, name))
    }

    /// Content hash of every tensor and of the adapter, or of what random numbers are drawn from; reads what was not read yet.
    pub fn fingerprint(&self) -> String {
        if let Some(random) = &self.random {
            return random.fingerprint(&self.base);
        }
        let base = self.base.fingerprint();
        match &self.adapter {
            None => base.to_hex().to_string(),
            Some(adapter) => blake3::hash([*base.as_bytes(), *adapter.fingerprint().as_bytes()].as_flattened()).to_hex().to_string(),
        }
    }

    /// Digest and norm of every tensor; reads what was not read yet for the digests.
    pub fn traces(&self) -> Vec<Trace> {
        let norms = self.changed_norms.lock().unwrap_or_else(PoisonError::into_inner);
        let trace = |name: &str| {
            let base = self.base.digest(name)?;
            let change = self.adapter.as_ref().and_then(|adapter| adapter.digest(name, &base));
            let norm = if change.is_some() { norms.get(name).copied() } else { self.base.norm(name) };
            let shard = self.base.file(name).unwrap_or_default().to_owned();
            Some(Trace { name: name.to_owned(), digest: change.unwrap_or(base), norm, shard })
        };
        self.base.names().filter_map(trace).collect()
    }

    /// Reads every tensor of numbers that was not read as a whole yet, for its norm. Buffers of other types are left out.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn read_all(&self) -> Result<()> {
        let unknown = |name: &&str| self.base.is_number(name) && (self.changed(name).is_some() || self.base.norm(name).is_none());
        for name in self.base.names().filter(unknown) {
            let _ = self.get(name, self.base.shape(name).unwrap_or_default(), Kind::Float)?;
        }
        Ok(())
    }

    /// Whether the adapter changes nothing; false without one.
    ///
    /// # Errors
    /// As [`Adapter::is_identity`].
    pub fn is_unchanged(&self) -> Result<bool> {
        self.adapter.as_ref().map_or(Ok(false), |adapter| adapter.is_identity(&self.base))
    }
}

/// The compute kind of a dtype as [`Weights::dtype`] names it.
pub fn kind(dtype: &str) -> Kind {
    match dtype {
        "f16" => Kind::Half,
        "bf16" => Kind::BFloat16,
        _ => Kind::Float,
    }
}
