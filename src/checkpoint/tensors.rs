//! Tensors of a folder, read one at a time from memory-mapped safetensors files.
//!
//! A shard is hostile input until proved otherwise: the header is validated by the `safetensors` crate (bounds, overlap,
//! sizes), index files may only name files beside them, and every tensor is checked for its expected shape and for
//! non-finite values when it is read. Pages are handed back to the kernel as soon as a tensor has been copied, so that
//! the resident size of a walk does not depend on the size of the checkpoint.

use anyhow::{Context, Result, bail, ensure};
use memmap2::{Mmap, UncheckedAdvice};
use safetensors::{Dtype, SafeTensors};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Kind, Tensor};

/// All tensors of a folder, by name.
pub struct Tensors {
    folder: PathBuf,
    shards: Vec<Shard>,
    tensors: BTreeMap<String, Entry>,
    /// Digest per tensor, filled as tensors are read and completed by [`Tensors::fingerprint`].
    digests: Mutex<BTreeMap<String, blake3::Hash>>,
    /// Frobenius norm of every tensor that was read as a whole.
    norms: Mutex<BTreeMap<String, f64>>,
}

/// Which rows of a matrix are read.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// `start .. start + len`.
    Range(i64, i64),
    /// These, in this order.
    Listed(&'a [i64]),
}

impl Rows<'_> {
    /// These rows of a matrix that is in memory.
    ///
    /// # Errors
    /// A row is outside the matrix.
    pub fn of(self, matrix: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Rows::Range(start, len) => matrix.f_narrow(0, start, len)?,
            Rows::Listed(rows) => matrix.f_index_select(0, &Tensor::f_from_slice(rows)?)?,
        })
    }
}

struct Shard {
    file: String,
    map: Mmap,
}

struct Entry {
    shard: usize,
    dtype: Dtype,
    shape: Vec<i64>,
    /// Byte range in the shard's map.
    start: usize,
    len: usize,
}

impl Tensors {
    /// Opens `model.safetensors`, or the shards that `model.safetensors.index.json` names, without reading any weight.
    ///
    /// # Errors
    /// One sentence that names the file: no weights, pickled or quantised weights, an index that names a missing shard
    /// or a path outside the folder, a truncated file, a header that does not fit the data.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_files(folder, shard_files(folder)?)
    }

    /// Opens the given files of a folder, without reading any tensor.
    ///
    /// # Errors
    /// One sentence that names the file: it is missing, truncated, or not safetensors.
    pub fn open_files(folder: &Path, files: Vec<String>) -> Result<Self> {
        let mut tensors = Self {
            folder: folder.to_owned(),
            shards: Vec::new(),
            tensors: BTreeMap::new(),
            digests: Mutex::default(),
            norms: Mutex::default(),
        };
        for file in files {
            tensors.add_shard(file)?;
        }
        ensure!(!tensors.tensors.is_empty(), "{}: the safetensors files hold no tensor", folder.display());
        Ok(tensors)
    }

    fn add_shard(&mut self, file: String) -> Result<()> {
        let path = self.folder.join(&file);
        let handle = File::open(&path).with_context(|| format!("{}: cannot be opened", path.display()))?;
        // SAFETY: the map is read-only and private. A concurrent truncation of the file is the one thing that the
        // type system cannot exclude; checkpoints are written once.
        let map = unsafe { Mmap::map(&handle) }.with_context(|| format!("{}: cannot be mapped", path.display()))?;
        let header = SafeTensors::deserialize(&map).map_err(|error| {
            anyhow::anyhow!("{}: not a valid safetensors file ({error}); it may be truncated, copy it again", path.display())
        })?;
        let base = map.as_ptr() as usize;
        for (name, view) in header.iter() {
            let shape = view.shape().iter().map(|&n| i64::try_from(n)).collect::<Result<Vec<_>, _>>();
            let entry = Entry {
                shard: self.shards.len(),
                dtype: view.dtype(),
                shape: shape.with_context(|| format!("{}: {name}: impossible shape", path.display()))?,
                start: view.data().as_ptr() as usize - base,
                len: view.data().len(),
            };
            if let Some(first) = self.tensors.insert(name.to_owned(), entry) {
                bail!("{}: tensor {name} is also in {}", path.display(), self.shards[first.shard].file);
            }
        }
        self.shards.push(Shard { file, map });
        Ok(())
    }

    /// Folder that the weights came from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Number of parameters on disk.
    pub fn n_params(&self) -> u64 {
        self.tensors.values().map(|entry| entry.shape.iter().product::<i64>() as u64).sum()
    }

    /// Element type of the largest tensor: the dtype that people mean when they name the checkpoint's.
    pub fn dtype(&self) -> String {
        let largest = self.tensors.values().max_by_key(|entry| entry.len);
        largest.map_or_else(String::new, |entry| format!("{:?}", entry.dtype).to_lowercase())
    }

    /// The compute kind that corresponds to [`Weights::dtype`].
    pub fn kind(&self) -> Kind {
        match self.dtype().as_str() {
            "f16" => Kind::Half,
            "bf16" => Kind::BFloat16,
            _ => Kind::Float,
        }
    }

    /// Names on disk, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The name on disk of a tensor: as it is, or without its first segment (`model.`, `gpt_neox.`).
    pub fn resolve(&self, name: &str) -> Option<&str> {
        let bare = name.split_once('.').map(|(_, rest)| rest);
        let (name, _) = self.tensors.get_key_value(name).or_else(|| self.tensors.get_key_value(bare?))?;
        Some(name)
    }

    /// Shape of a tensor by its name on disk.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Whether a tensor, by its name on disk, can be read: f32, f16 or bf16.
    pub fn is_number(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|entry| is_number(entry.dtype))
    }

    /// File, for messages, of a tensor by its name on disk.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.tensors.get(name).map(|entry| self.shards[entry.shard].file.as_str())
    }

    fn place(&self, name: &str, entry: &Entry) -> String {
        format!("{}: tensor {name}", self.folder.join(&self.shards[entry.shard].file).display())
    }

    fn entry(&self, name: &str, shape: &[i64]) -> Result<(&str, &Entry)> {
        let found = self.resolve(name).and_then(|name| self.tensors.get_key_value(name));
        let Some((name, entry)) = found else {
            bail!("{}: tensor {name} is missing, expected shape {shape:?}", self.folder.display());
        };
        let place = || self.place(name, entry);
        ensure!(entry.shape == shape, "{} has shape {:?}, expected {shape:?} from config.json", place(), entry.shape);
        ensure!(
            is_number(entry.dtype),
            "{} has dtype {:?}, expected F32, F16 or BF16; quantised weights must be dequantised and saved again",
            place(),
            entry.dtype
        );
        Ok((name, entry))
    }

    fn bytes(&self, entry: &Entry) -> &[u8] {
        &self.shards[entry.shard].map[entry.start..entry.start + entry.len]
    }

    /// The name on disk of a tensor that has this shape and can be read.
    ///
    /// # Errors
    /// Names folder, tensor, what was found and what was expected: missing, another shape or an unsupported dtype.
    pub fn expect(&self, name: &str, shape: &[i64]) -> Result<&str> {
        Ok(self.entry(name, shape)?.0)
    }

    /// Reads a whole tensor into `target`, which is contiguous, has its shape and may be of another kind and on another device. `name`
    /// is the Hugging Face name; its first segment may be absent on disk. Beside `target` only a few MiB are needed.
    ///
    /// # Errors
    /// Names folder, tensor, what was found and what was expected: missing, another shape, an unsupported dtype, or
    /// non-finite values; or the device is out of memory.
    pub fn read(&self, name: &str, shape: &[i64], target: &Tensor) -> Result<()> {
        const PIECE: usize = 4 << 20;
        let (name, entry) = self.entry(name, shape)?;
        let bytes = self.bytes(entry);
        lock(&self.digests).entry(name.to_owned()).or_insert_with(|| digest(entry, bytes));
        let width = entry.len / (shape.iter().product::<i64>().max(1) as usize);
        let target = target.f_view([-1])?;
        let (mut start, mut squares) = (0, 0.0);
        for piece in bytes.chunks(PIECE) {
            let len = (piece.len() / width.max(1)) as i64;
            let (part, norm) = self.tensor(name, entry, piece, &[len], target.kind())?;
            target.f_narrow(0, start, len)?.f_copy_(&part)?;
            squares += norm * norm;
            start += len;
        }
        lock(&self.norms).insert(name.to_owned(), squares.sqrt());
        self.release(entry.shard, entry.start, entry.len);
        Ok(())
    }

    /// Reads some rows of a matrix as `kind` on the CPU: `[row, shape[1]]`. Of listed rows only their pages are touched.
    ///
    /// # Errors
    /// As [`Tensors::read`]; also a row outside the matrix.
    pub fn rows(&self, name: &str, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        let (name, entry) = self.entry(name, shape)?;
        let (bytes, height) = (self.bytes(entry), shape[0]);
        let row = entry.len / height.max(1) as usize;
        match rows {
            Rows::Range(start, len) => {
                ensure!(0 <= start && 0 <= len && start + len <= height, "rows {start}..{} of {name}, which has {height}", start + len);
                let (from, size) = (start as usize * row, len as usize * row);
                let (tensor, _) = self.tensor(name, entry, &bytes[from..from + size], &[len, shape[1]], kind)?;
                self.release(entry.shard, entry.start + from, size);
                Ok(tensor)
            }
            Rows::Listed(rows) => {
                let mut gathered = Vec::with_capacity(rows.len() * row);
                for &index in rows {
                    ensure!((0..height).contains(&index), "token id {index} is outside {name}, which has {height} rows");
                    gathered.extend_from_slice(&bytes[index as usize * row..(index as usize + 1) * row]);
                }
                let (tensor, _) = self.tensor(name, entry, &gathered, &[rows.len() as i64, shape[1]], kind)?;
                self.release(entry.shard, entry.start, entry.len);
                Ok(tensor)
            }
        }
    }

    /// A tensor of `bytes` and its norm.
    fn tensor(&self, name: &str, entry: &Entry, bytes: &[u8], shape: &[i64], kind: Kind) -> Result<(Tensor, f64)> {
        let stored = match entry.dtype {
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            _ => Kind::Float,
        };
        let tensor = Tensor::f_from_data_size(bytes, shape, stored)?.f_to_kind(kind)?;
        if let Some(norm) = norm(&tensor)? {
            return Ok((tensor, norm));
        }
        let place = self.place(name, entry);
        let fits = kind == stored || norm(&Tensor::f_from_data_size(bytes, shape, stored)?)?.is_none();
        ensure!(fits, "{place} has weights that do not fit into {kind:?} (f16 ends at 65504); set [model] dtype to bf16 or f32");
        bail!("{place} holds non-finite values (NaN or infinity)")
    }

    /// Hands the pages that lie entirely inside a byte range of a shard back to the kernel.
    fn release(&self, shard: usize, start: usize, len: usize) {
        const PAGE: usize = 4096;
        let (from, to) = (start.next_multiple_of(PAGE), (start + len) / PAGE * PAGE);
        if from < to {
            // SAFETY: the map is a private, read-only view of a file: dropped pages are read again when touched. Failure
            // only costs memory.
            let _ = unsafe { self.shards[shard].map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
        }
    }

    /// Content hash of one tensor (dtype, shape, bytes) by its name on disk; reads it unless it was read before.
    pub fn digest(&self, name: &str) -> Option<blake3::Hash> {
        let entry = self.tensors.get(name)?;
        let hash = lock(&self.digests).get(name).copied();
        Some(hash.unwrap_or_else(|| {
            let hash = digest(entry, self.bytes(entry));
            self.release(entry.shard, entry.start, entry.len);
            lock(&self.digests).insert(name.to_owned(), hash);
            hash
        }))
    }

    /// Frobenius norm of a tensor by its name on disk, once it was read as a whole.
    pub fn norm(&self, name: &str) -> Option<f64> {
        lock(&self.norms).get(name).copied()
    }

    /// Content hash of every tensor (name, dtype, shape, bytes), independent of sharding; reads what was not read yet.
    pub fn fingerprint(&self) -> blake3::Hash {
        let mut whole = blake3::Hasher::new();
        for (name, hash) in self.names().filter_map(|name| Some((name, self.digest(name)?))) {
            whole.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes()).update(hash.as_bytes());
        }
        whole.finalize()
    }
}

/// Frobenius norm, in f32 or wider; `None` if a value is not finite.
///
/// # Errors
/// The device is out of memory.
pub fn norm(tensor: &Tensor) -> Result<Option<f64>> {
    let wide = if tensor.kind() == Kind::Double { Kind::Double } else { Kind::Float };
    let norm = tensor.f_norm_scalaropt_dtype(2.0, wide)?.f_double_value(&[])?;
    // A norm is finite only if every value is (or it overflows, which the second look tells apart), and needs no mask.
    let finite = norm.is_finite() || tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? == 1;
    Ok(finite.then_some(norm))
}

/// What a thread that panicked left behind is still a map of finished entries.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_number(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

fn digest(entry: &Entry, bytes: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{:?}{:?}", entry.dtype, entry.shape).as_bytes()).update(bytes);
    hasher.finalize()
}

/// The safetensors files of a folder: the single file, or the shards of the index, each a plain name in the folder.
fn shard_files(folder: &Path) -> Result<Vec<String>> {
    const SINGLE: &str = "model.safetensors";
    const INDEX: &str = "model.safetensors.index.json";
    ensure!(folder.is_dir(), "{}: no such folder", folder.display());
    if folder.join(SINGLE).is_file() {
        return Ok(vec![SINGLE.to_owned()]);
    }
    let index = folder.join(INDEX);
    if !index.is_file() {
        bail!("{}: {}", folder.display(), explain_missing(folder));
    }
    let text = std::fs::read_to_string(&index).with_context(|| format!("{}: cannot be read", index.display()))?;
    let json: serde_json::Value = serde_json::from_str(&text).map_err(|e| anyhow::anyhow!("{}: not valid JSON ({e})", index.display()))?;
    let Some(map) = json.get("weight_map").and_then(|map| map.as_object()) else {
        bail!("{}: expected a table `weight_map` of tensor names to files", index.display());
    };
    let mut files = BTreeSet::new();
    for (tensor, file) in map {
        let file = file.as_str().unwrap_or_default();
        let plain = Path::new(file).file_name().is_some_and(|name| name == file) && file.ends_with(".safetensors");
        ensure!(plain, "{}: {tensor} is in {file:?}, expected the plain name of a .safetensors file in the same folder", index.display());
        ensure!(folder.join(file).is_file(), "{}: {tensor} is in {file}, which is missing; download or copy it", index.display());
        files.insert(file.to_owned());
    }
    Ok(files.into_iter().collect())
}

/// Why a folder has no weights, in one clause that says what to do.
fn explain_missing(folder: &Path) -> String {
    let mut names: Vec<String> =
        std::fs::read_dir(folder).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect();
    names.sort();
    // What trainers leave beside the weights is no reason.
    names.retain(|name| !["training_args", "optimizer", "scheduler", "rng_state", "scaler"].iter().any(|other| name.starts_with(other)));
    let has = |suffix: &str| names.iter().find(|name| name.ends_with(suffix));
    if let Some(name) = has("adapter_model.safetensors") {
        return format!("found {name}, an adapter: give it as `adapter` beside the `base` that it was trained on");
    }
    let shards = ["zero_pp_rank", "pytorch_model_fsdp", "global_step"];
    if let Some(name) = has(".distcp").or_else(|| names.iter().find(|name| shards.iter().any(|shard| name.contains(shard)))) {
        return format!("found {name}, a training shard: consolidate it and save the model with save_pretrained(safe_serialization=True)");
    }
    if let Some(name) = has(".bin").or_else(|| has(".pt")).or_else(|| has(".pth")) {
        return format!("found {name}, a pickle, which is never loaded: convert it with save_pretrained(safe_serialization=True)");
    }
    if let Some(name) = has(".gguf") {
        return format!(
            "found {name}, quantised or in another layout: load it with from_pretrained(gguf_file={name:?}) and save it with save_pretrained"
        );
    }
    "no model.safetensors and no model.safetensors.index.json; expected the weights in Hugging Face layout".to_owned()
}
