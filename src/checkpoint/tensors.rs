//! Tensors of a folder, read one at a time from its safetensors files.
//!
//! A file is hostile input until proved otherwise: the header is validated by the `safetensors` crate (bounds, overlap,
//! sizes), index files may only name files beside them, and every tensor is checked for its expected shape and for
//! non-finite values when it is read. Pages are handed back to the kernel as soon as a tensor has been copied, so that
//! the resident size of a walk does not depend on the size of the checkpoint.

use super::file::TensorFile;
use super::names::{Layout, unwrapped};
pub use super::rows::Rows;
use super::shards::{self, INDEX};
use anyhow::{Context, Result, bail, ensure};
use safetensors::Dtype;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use tch::{Device, Kind, Tensor};

/// Bytes that are read at a time.
const PIECE: usize = 4 << 20;

/// All tensors of a folder, by name.
pub struct Tensors {
    folder: PathBuf,
    files: Vec<TensorFile>,
    tensors: BTreeMap<String, Entry>,
    /// How a model's parts are named, and where in the files they stand.
    layout: Option<(Layout, String)>,
    /// Digest per tensor, filled as tensors are read and completed by [`Tensors::fingerprint`].
    digests: Mutex<BTreeMap<String, blake3::Hash>>,
    /// Frobenius norm of every tensor that was read as a whole.
    norms: Mutex<BTreeMap<String, f64>>,
}

struct Entry {
    file: usize,
    dtype: Dtype,
    shape: Vec<i64>,
    /// Range of bytes in the file.
    start: usize,
    len: usize,
}

impl Tensors {
    /// Opens the files that hold a model's weights, without reading any.
    ///
    /// # Errors
    /// As [`shards::find`] and [`Tensors::open_files`].
    pub fn open(folder: &Path) -> Result<Self> {
        let (files, index) = shards::find(folder)?;
        Self::open_indexed(folder, files, &index)
    }

    /// Opens the given files of a folder, without reading any tensor. Names are without what wrappers added.
    ///
    /// # Errors
    /// One sentence that names the file: it is missing, truncated, or not safetensors; or two tensors have one name.
    pub fn open_files(folder: &Path, files: Vec<String>) -> Result<Self> {
        Self::open_indexed(folder, files, &BTreeMap::new())
    }

    /// Where two files have a tensor, the one counts that `index` names.
    fn open_indexed(folder: &Path, files: Vec<String>, index: &BTreeMap<String, String>) -> Result<Self> {
        let mut tensors = Self {
            folder: folder.to_owned(),
            files: Vec::new(),
            tensors: BTreeMap::new(),
            layout: None,
            digests: Mutex::default(),
            norms: Mutex::default(),
        };
        for file in files {
            tensors.add_file(file, index)?;
        }
        for (name, file) in index {
            let found = tensors.tensors.get(unwrapped(name).as_ref());
            ensure!(
                found.is_some(),
                "{}: {INDEX} says that tensor {name} is in {file}, where it is not; was the file saved completely?",
                folder.display()
            );
        }
        ensure!(!tensors.tensors.is_empty(), "{}: the safetensors files hold no tensor", folder.display());
        Ok(tensors)
    }

    fn add_file(&mut self, file: String, index: &BTreeMap<String, String>) -> Result<()> {
        let path = self.folder.join(&file);
        let (file, header) = TensorFile::open(&self.folder, file)?;
        for (name, info) in header {
            let shape = info.shape.iter().map(|&n| i64::try_from(n)).collect::<Result<Vec<_>, _>>();
            let (start, end) = info.data_offsets;
            let entry = Entry {
                file: self.files.len(),
                dtype: info.dtype,
                shape: shape.with_context(|| format!("{}: {name}: impossible shape", path.display()))?,
                start,
                len: end - start,
            };
            let plain = unwrapped(&name).into_owned();
            if let Some(first) = self.tensors.get(&plain) {
                // `entry.file` is not among the files yet.
                let other = self.files.get(first.file).map(|file| file.name.as_str());
                match (other, index.get(&name)) {
                    (Some(_), Some(indexed)) if *indexed == file.name => {}
                    // Whether the named file has it is checked in the end.
                    (Some(_), Some(_)) => continue,
                    (Some(other), _) => bail!("{}: tensor {name} is also in {other}", path.display()),
                    (None, _) => bail!("{}: two tensors are {plain} without what wrappers put into their names", path.display()),
                }
            }
            self.tensors.insert(plain, entry);
        }
        self.files.push(file);
        Ok(())
    }

    /// Gives tensors the names that a family has for them, wherever in the files its language model stands. The only matrix of a
    /// model whose ends are `tied` is its embedding, whichever end it was saved as.
    ///
    /// # Errors
    /// Two tensors would have one name.
    pub fn arrange(&mut self, layout: Layout, tied: bool) -> Result<()> {
        let place = layout.place(self.tensors.keys().map(String::as_str));
        let mut arranged = BTreeMap::new();
        for (name, entry) in std::mem::take(&mut self.tensors) {
            let known = layout.canonical(&place, &name).unwrap_or_else(|| name.clone());
            if arranged.insert(known.clone(), entry).is_some() {
                bail!("{}: tensor {name} and another one are both the model's {known}", self.folder.display());
            }
        }
        if tied && !arranged.contains_key(&layout.embedding()) {
            arranged.remove(&layout.unembedding()).map(|entry| arranged.insert(layout.embedding(), entry));
        }
        self.tensors = arranged;
        self.layout = Some((layout, place));
        Ok(())
    }

    /// How a model's parts are named, and where in the files they stand; `None` before [`Tensors::arrange`].
    pub fn layout(&self) -> Option<(&Layout, &str)> {
        self.layout.as_ref().map(|(layout, place)| (layout, place.as_str()))
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

    /// Names, in alphabetical order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Shape of a tensor.
    pub fn shape(&self, name: &str) -> Option<&[i64]> {
        self.tensors.get(name).map(|entry| entry.shape.as_slice())
    }

    /// Whether a tensor can be read: floating point of 16, 32 or 64 bits.
    pub fn is_number(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|entry| is_number(entry.dtype))
    }

    /// File, for messages, of a tensor.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.tensors.get(name).map(|entry| self.files[entry.file].name.as_str())
    }

    fn place(&self, name: &str, entry: &Entry) -> String {
        format!("{}: tensor {name}", self.folder.join(&self.files[entry.file].name).display())
    }

    fn entry(&self, name: &str, shape: &[i64]) -> Result<(&str, &Entry)> {
        let Some((name, entry)) = self.tensors.get_key_value(name) else {
            bail!("{}: tensor {name} is missing, expected shape {shape:?}", self.folder.display());
        };
        let place = || self.place(name, entry);
        ensure!(entry.shape == shape, "{} has shape {:?}, expected {shape:?} from config.json", place(), entry.shape);
        ensure!(
            is_number(entry.dtype),
            "{} has dtype {:?}, expected F64, F32, F16 or BF16; quantised weights must be dequantised and saved again",
            place(),
            entry.dtype
        );
        Ok((name, entry))
    }

    /// The bytes of a tensor, a few MiB at a time.
    fn pieces<'t>(&'t self, entry: &'t Entry) -> impl Iterator<Item = Result<Cow<'t, [u8]>>> {
        let file = &self.files[entry.file];
        (0..entry.len).step_by(PIECE).map(move |at| file.bytes(entry.start + at, PIECE.min(entry.len - at)))
    }

    /// Checks that a tensor has this shape and can be read.
    ///
    /// # Errors
    /// Names folder, tensor, what was found and what was expected: missing, another shape or an unsupported dtype.
    pub fn expect(&self, name: &str, shape: &[i64]) -> Result<()> {
        self.entry(name, shape).map(drop)
    }

    /// Reads a whole tensor into `target`, which is contiguous, has its shape and may be of another kind and on another device.
    /// Beside `target` only a few MiB are needed.
    ///
    /// # Errors
    /// Names folder, tensor, what was found and what was expected: missing, another shape, an unsupported dtype, or
    /// non-finite values; or the device is out of memory.
    pub fn read(&self, name: &str, shape: &[i64], target: &Tensor) -> Result<()> {
        let (name, entry) = self.entry(name, shape)?;
        let width = entry.len / (shape.iter().product::<i64>().max(1) as usize);
        let target = target.f_view([-1])?;
        let (mut start, mut squares) = (0, 0.0);
        let mut hasher = hasher(entry);
        for piece in self.pieces(entry) {
            let piece = piece?;
            hasher.update(&piece);
            let len = (piece.len() / width.max(1)) as i64;
            let (part, norm) = self.tensor(name, entry, &piece, &[len], target.kind())?;
            target.f_narrow(0, start, len)?.f_copy_(&part)?;
            squares += norm * norm;
            start += len;
        }
        lock(&self.digests).entry(name.to_owned()).or_insert_with(|| hasher.finalize());
        lock(&self.norms).insert(name.to_owned(), squares.sqrt());
        self.files[entry.file].release(entry.start, entry.len);
        Ok(())
    }

    /// Reads some rows of a matrix as `kind` on the CPU: `[row, shape[1]]`. Of listed rows only their pages are touched.
    ///
    /// # Errors
    /// As [`Tensors::read`]; also a row outside the matrix.
    pub fn rows(&self, name: &str, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        let (name, entry) = self.entry(name, shape)?;
        let (file, height) = (&self.files[entry.file], shape[0]);
        let row = entry.len / height.max(1) as usize;
        match rows {
            Rows::Range(start, len) => {
                ensure!(0 <= start && 0 <= len && start + len <= height, "rows {start}..{} of {name}, which has {height}", start + len);
                let (from, size) = (entry.start + start as usize * row, len as usize * row);
                let (tensor, _) = self.tensor(name, entry, &file.bytes(from, size)?, &[len, shape[1]], kind)?;
                file.release(from, size);
                Ok(tensor)
            }
            Rows::Listed(rows) => {
                let mut gathered = Vec::with_capacity(rows.len() * row);
                for &index in rows {
                    ensure!((0..height).contains(&index), "token id {index} is outside {name}, which has {height} rows");
                    gathered.extend_from_slice(&file.bytes(entry.start + index as usize * row, row)?);
                }
                let (tensor, _) = self.tensor(name, entry, &gathered, &[rows.len() as i64, shape[1]], kind)?;
                file.release(entry.start, entry.len);
                Ok(tensor)
            }
        }
    }

    /// Whether two tensors hold the same numbers. Stops at the first piece that differs.
    ///
    /// # Errors
    /// As [`Tensors::read`].
    pub fn are_equal(&self, a: &str, b: &str, shape: &[i64]) -> Result<bool> {
        let ((a, first), (b, second)) = (self.entry(a, shape)?, self.entry(b, shape)?);
        if first.dtype == second.dtype {
            for (a, b) in self.pieces(first).zip(self.pieces(second)) {
                if a? != b? {
                    return Ok(false);
                }
            }
            return Ok(true);
        }
        let read = |name: &str| -> Result<Tensor> {
            let tensor = Tensor::f_empty(shape, (Kind::Double, Device::Cpu))?;
            self.read(name, shape, &tensor)?;
            Ok(tensor)
        };
        Ok(read(a)?.f_equal(&read(b)?)?)
    }

    /// Whether tensors of the same name differ in shape, type or their first bytes: a cheap proof that these are other weights.
    ///
    /// # Errors
    /// A file cannot be read.
    pub fn differ_at_a_glance(&self, other: &Self) -> Result<bool> {
        const GLANCE: usize = 4096;
        for (name, entry) in &self.tensors {
            let Some(same) = other.tensors.get(name) else { continue };
            if (entry.dtype, &entry.shape) != (same.dtype, &same.shape) {
                return Ok(true);
            }
            let len = GLANCE.min(entry.len);
            if self.files[entry.file].bytes(entry.start, len)? != other.files[same.file].bytes(same.start, len)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// A tensor of `bytes` and its norm.
    fn tensor(&self, name: &str, entry: &Entry, bytes: &[u8], shape: &[i64], kind: Kind) -> Result<(Tensor, f64)> {
        let stored = match entry.dtype {
            Dtype::F16 => Kind::Half,
            Dtype::BF16 => Kind::BFloat16,
            Dtype::F64 => Kind::Double,
            _ => Kind::Float,
        };
        let read = Tensor::f_from_data_size(bytes, shape, stored)?;
        let tensor = read.f_to_kind(kind)?;
        if let Some(norm) = norm(&tensor)? {
            return Ok((tensor, norm));
        }
        let place = self.place(name, entry);
        let fits = kind == stored || norm(&read)?.is_none();
        ensure!(fits, "{place} has weights that do not fit into {kind:?} (f16 ends at 65504); set [model] dtype to bf16 or f32");
        bail!("{place} holds non-finite values (NaN or infinity)")
    }

    /// Content hash of one tensor (dtype, shape, bytes); reads it unless it was read before. `None` if it is not there or
    /// cannot be read any more.
    pub fn digest(&self, name: &str) -> Option<blake3::Hash> {
        let entry = self.tensors.get(name)?;
        if let Some(hash) = lock(&self.digests).get(name) {
            return Some(*hash);
        }
        let mut hasher = hasher(entry);
        for piece in self.pieces(entry) {
            hasher.update(&piece.ok()?);
        }
        self.files[entry.file].release(entry.start, entry.len);
        lock(&self.digests).insert(name.to_owned(), hasher.finalize());
        Some(hasher.finalize())
    }

    /// Frobenius norm of a tensor, once it was read as a whole.
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
    matches!(dtype, Dtype::F64 | Dtype::F32 | Dtype::F16 | Dtype::BF16)
}

/// What a tensor's digest begins with.
fn hasher(entry: &Entry) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(format!("{:?}{:?}", entry.dtype, entry.shape).as_bytes());
    hasher
}
