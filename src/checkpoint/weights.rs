//! The weights of one checkpoint, as a block's loader asks for them: the tensors of a folder, with the changes of adapters added
//! to those that they change while they are read.
//!
//! Random numbers may stand in the place of all of them. Merging happens per tensor, in f32, so an adapted model is never on disk
//! nor in memory as a whole, and every family gets it for free. The tensors of a base are shared by all adapters over it: mapped
//! once, hashed once.

use super::adapter::Adapter;
use super::names::Layout;
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
    /// One over the other, the first one over the base.
    adapters: Vec<Adapter>,
    /// What is read instead of the files' numbers.
    random: Option<Random>,
    /// Norms of the tensors that adapters changed, as they were read.
    changed_norms: Mutex<BTreeMap<String, f64>>,
}

/// What is known of one tensor for comparing it with that of another checkpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    pub name: String,
    /// Equal for equal content: of the bytes, or of what an adapter makes of them.
    pub digest: blake3::Hash,
    /// Frobenius norm, adapter included; only of tensors that were read as a whole.
    pub norm: Option<f64>,
    /// The file that it is in.
    pub shard: String,
}

impl Weights {
    /// Opens a model folder without reading any weight, and names its tensors as the family does. Of a model that is `tied`, the
    /// one matrix may be there by either name.
    ///
    /// # Errors
    /// As [`Tensors::open`] and [`Tensors::arrange`].
    pub fn open(folder: &Path, layout: Layout, tied: bool) -> Result<Self> {
        let mut base = Tensors::open(folder)?;
        base.arrange(layout, tied)?;
        Ok(Self { base: Arc::new(base), adapters: Vec::new(), random: None, changed_norms: Mutex::default() })
    }

    /// The same tensors under adapters, the first one first. `tied` says that the unembedding is the embedding, `d_vocab` how many
    /// tokens the base has.
    ///
    /// # Errors
    /// As [`Adapter::open`].
    pub fn adapted(&self, folders: &[&Path], tied: bool, d_vocab: i64) -> Result<Self> {
        let mut weights = self.share();
        for folder in folders {
            let d_vocab = weights.vocabulary().unwrap_or(d_vocab);
            weights.adapters.push(Adapter::open(folder, &self.base, tied, d_vocab)?);
        }
        Ok(weights)
    }

    /// The same tensors without an adapter.
    pub fn share(&self) -> Self {
        Self { base: self.base.clone(), adapters: Vec::new(), random: None, changed_norms: Mutex::default() }
    }

    /// Random numbers in the place of the tensors.
    pub fn reinitialised(&self, random: Random) -> Self {
        Self { random: Some(random), ..self.share() }
    }

    /// Folder that the weights came from; with adapters, their base's.
    pub fn folder(&self) -> &Path {
        self.base.folder()
    }

    /// The tensors of the folder, without adapters.
    pub fn base(&self) -> &Tensors {
        &self.base
    }

    /// The adapters over the weights.
    pub fn adapters(&self) -> &[Adapter] {
        &self.adapters
    }

    /// Whether an adapter changes a tensor.
    pub fn is_changed(&self, name: &str) -> bool {
        self.adapters.iter().any(|adapter| adapter.changes(name))
    }

    /// The number of tokens, where an adapter brought an embedding.
    pub fn vocabulary(&self) -> Option<i64> {
        self.adapters.iter().rev().find_map(Adapter::vocabulary)
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

    /// Whether a tensor of this name exists.
    pub fn contains(&self, name: &str) -> bool {
        self.base.contains(name)
    }

    /// Reads a whole tensor as `kind` on the CPU.
    ///
    /// # Errors
    /// As [`Tensors::read`]; also what an adapter makes of the tensor is not finite.
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
        // What comes before a replacement does not matter.
        let first = self.adapters.iter().rposition(|adapter| adapter.replaces(name)).unwrap_or(0);
        let changing: Vec<&Adapter> = self.adapters[first..].iter().filter(|adapter| adapter.changes(name)).collect();
        let Some(last) = changing.last() else { return self.base.read(name, shape, target) };
        if changing.len() > 1 || !last.read_replaced(name, shape, target)? {
            self.merge(name, shape, target, &changing)?;
        }
        let norm = norm(target)?;
        let norm = norm.with_context(|| format!("{}: the adapter makes {name} non-finite", last.folder().display()))?;
        self.changed_norms.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), norm);
        Ok(())
    }

    fn merge(&self, name: &str, shape: &[i64], target: &Tensor, changing: &[&Adapter]) -> Result<()> {
        let mut target = target.shallow_clone();
        let is_wide = matches!(target.kind(), Kind::Float | Kind::Double);
        let mut sum = if is_wide { target.shallow_clone() } else { Tensor::f_empty(shape, (Kind::Float, Device::Cpu))? };
        if !changing[0].replaces(name) {
            self.base.read(name, shape, &sum)?;
        }
        for adapter in changing {
            adapter.apply(name, &mut sum)?;
        }
        if !is_wide {
            target.f_copy_(&sum)?;
        }
        Ok(())
    }

    /// Reads some rows of the unembedding as `kind`: `[row, shape[1]]`.
    ///
    /// # Errors
    /// As [`Weights::get`]; also a row outside the matrix.
    pub fn unembedding(&self, name: &str, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        self.some(name, true, shape, rows, kind)
    }

    /// Reads the given rows of an embedding as `kind`: `[rows.len(), shape[1]]`. Only the pages of these rows are touched.
    ///
    /// # Errors
    /// As [`Weights::get`]; also a row outside the matrix.
    pub fn rows(&self, name: &str, shape: &[i64; 2], rows: &[i64], kind: Kind) -> Result<Tensor> {
        self.some(name, false, shape, Rows::Listed(rows), kind)
    }

    /// Rows of the unembedding (`head`) or of another matrix.
    fn some(&self, name: &str, head: bool, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        if let Some(random) = &self.random {
            return random.rows(&self.base, name, shape, rows, kind);
        }
        if self.adapters.is_empty() {
            return self.base.rows(name, shape, rows, kind);
        }
        let wide = if kind == Kind::Double { Kind::Double } else { Kind::Float };
        let first = self.adapters.iter().rposition(|adapter| adapter.replaces_rows(name, head));
        let mut sum = match first {
            Some(_) => Tensor::f_empty([0, shape[1]], (wide, Device::Cpu))?,
            None => self.base.rows(name, shape, rows, wide)?,
        };
        for adapter in &self.adapters[first.unwrap_or(0)..] {
            adapter.apply_to_rows(name, head, &mut sum, shape, rows)?;
        }
        Ok(sum.f_to_kind(kind)?)
    }

    /// Content hash of every tensor and of the adapters, or of what random numbers are drawn from; reads what was not read yet.
    pub fn fingerprint(&self) -> String {
        if let Some(random) = &self.random {
            return random.fingerprint(&self.base);
        }
        let over =
            |below: blake3::Hash, adapter: &Adapter| blake3::hash([*below.as_bytes(), *adapter.fingerprint().as_bytes()].as_flattened());
        self.adapters.iter().fold(self.base.fingerprint(), over).to_hex().to_string()
    }

    /// Digest and norm of every tensor; reads what was not read yet for the digests.
    pub fn traces(&self) -> Vec<Trace> {
        let norms = self.changed_norms.lock().unwrap_or_else(PoisonError::into_inner);
        let trace = |name: &str| {
            let over = |below: blake3::Hash, adapter: &Adapter| adapter.digest(name, &below).unwrap_or(below);
            let digest = self.adapters.iter().fold(self.base.digest(name)?, over);
            let norm = if self.is_changed(name) { norms.get(name).copied() } else { self.base.norm(name) };
            let shard = self.base.file(name).unwrap_or_default().to_owned();
            Some(Trace { name: name.to_owned(), digest, norm, shard })
        };
        self.base.names().filter_map(trace).collect()
    }

    /// Reads every tensor of numbers that was not read as a whole yet, for its norm. Buffers of other types are left out.
    ///
    /// # Errors
    /// As [`Weights::get`].
    pub fn read_all(&self) -> Result<()> {
        let unknown = |name: &&str| self.base.is_number(name) && (self.is_changed(name) || self.base.norm(name).is_none());
        for name in self.base.names().filter(unknown) {
            let mut shape = self.base.shape(name).unwrap_or_default().to_vec();
            if let (Some(d_vocab), Some((layout, _))) = (self.vocabulary(), self.base.layout())
                && [layout.embedding(), layout.unembedding()].iter().any(|end| end == name)
            {
                shape[0] = d_vocab;
            }
            let _ = self.get(name, &shape, Kind::Float)?;
        }
        Ok(())
    }

    /// Whether the last adapter changes nothing; false without one.
    ///
    /// # Errors
    /// As [`Adapter::is_identity`].
    pub fn is_unchanged(&self) -> Result<bool> {
        self.adapters.last().map_or(Ok(false), |adapter| adapter.is_identity(&self.base))
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
