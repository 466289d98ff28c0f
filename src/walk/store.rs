//! The readout store: one safetensors file per checkpoint, written layer by layer as the stream reaches it.
//!
//! Tensors are `[layer, row, d_model]` f32, one per readout. Where only some items have a readout, `rows.<readout>` (i64) says
//! which item each row is; without it, row i is item i. Where only some layers have it, `layers.<readout>` (i64) lists them. With
//! `centre.<readout>` `[layer, d_model]` and `scale.<readout>` `[layer]` beside it, a tensor is f16 and a value is centre + scale * x.
//! `item_hash` lets a later run take over rows of items that did not change. `answers.log_probability` `[row, 2]` and
//! `foils.log_probability` `[row, foil]` (NaN where an item has fewer) belong to the items of `answers.rows`; `embedding_mean` is that of
//! each labelled item's tokens; `unembedding.rows` `[token, d_model]` of `unembedding.tokens` is what the lens reads with. The file
//! appears under its name only when it is complete.

use crate::checkpoint::file::{Whole, whole};
use crate::lease::partial;
use crate::table::LAYER_CONVENTION;
use anyhow::{Context, Result, anyhow, bail, ensure};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Map, Value, json};
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Mean input embedding over the tokens of labelled items, `[1, row, d_model]`.
pub const EMBEDDING: &str = "embedding_mean";

/// No model is wider. A tensor without rows may claim any width, and sums over it are as long.
const WIDEST: usize = 1 << 20;

/// What a layer of a readout in 16 bits has beside it: centre `[d_model]` and scale.
pub struct Encoding {
    pub centre: Vec<f32>,
    pub scale: f32,
}

impl Encoding {
    /// Names of the tensors of a readout's centres and scales.
    pub fn names(readout: &str) -> [String; 2] {
        ["centre", "scale"].map(|what| format!("{what}.{readout}"))
    }
}

/// A safetensors file whose data arrive in any order. The `safetensors` crate wants every tensor in memory at once, which
/// would make a walk's memory grow with the number of layers.
pub struct Writer {
    path: PathBuf,
    file: NamedTempFile,
    tensors: Vec<(String, Dtype, Vec<usize>)>,
    offsets: Vec<Range<u64>>,
    metadata: Map<String, Value>,
    header: u64,
}

impl Writer {
    /// Lays out `tensors` (name, dtype, shape) in this order and reserves their space. `metadata` values must be strings;
    /// they may be replaced on [`Writer::finish`] by values of the same length.
    ///
    /// # Errors
    /// The folder is not writable or the disk is full.
    pub fn create(path: &Path, tensors: Vec<(String, Dtype, Vec<usize>)>, metadata: Map<String, Value>) -> Result<Self> {
        let place = || format!("{}: cannot be written", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(place)?;
        let prefix = partial(&path.file_name().unwrap_or_default().to_string_lossy());
        let file = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder).with_context(place)?;
        let mut writer = Self { path: path.to_owned(), file, tensors, offsets: Vec::new(), metadata, header: 0 };
        let mut end = 0;
        for (_, dtype, shape) in &writer.tensors {
            let len = (shape.iter().product::<usize>() * dtype.bitsize() / 8) as u64;
            writer.offsets.push(end..end + len);
            end += len;
        }
        writer.header = writer.header_bytes().len() as u64;
        writer.file.as_file().set_len(writer.header + end).with_context(place)?;
        Ok(writer)
    }

    /// Writes a tensor by name, as [`Writer::write`].
    ///
    /// # Errors
    /// There is no such tensor, the bytes do not fit, or the disk is full.
    pub fn write_named(&self, name: &str, at: u64, bytes: &[u8]) -> Result<()> {
        let tensor = self.tensors.iter().position(|(other, ..)| other == name).with_context(|| format!("no tensor {name} was laid out"))?;
        self.write(tensor, at, bytes)
    }

    fn header_bytes(&self) -> Vec<u8> {
        let mut header = Map::new();
        header.insert("__metadata__".to_owned(), Value::Object(self.metadata.clone()));
        for ((name, dtype, shape), range) in self.tensors.iter().zip(&self.offsets) {
            header.insert(name.clone(), json!({"dtype": format!("{dtype:?}"), "shape": shape, "data_offsets": [range.start, range.end]}));
        }
        let mut text = Value::Object(header).to_string().into_bytes();
        // Data start at a multiple of eight, as the format asks.
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text);
        bytes
    }

    /// Writes `bytes` into tensor number `tensor`, `at` bytes from its start.
    ///
    /// # Errors
    /// The bytes do not fit, or the disk is full.
    pub fn write(&self, tensor: usize, at: u64, bytes: &[u8]) -> Result<()> {
        let range = &self.offsets[tensor];
        ensure!(
            range.start + at + bytes.len() as u64 <= range.end,
            "{} bytes at {at} do not fit into {}",
            bytes.len(),
            self.tensors[tensor].0
        );
        let place = || format!("{}: cannot be written", self.path.display());
        self.file.as_file().write_all_at(bytes, self.header + range.start + at).with_context(place)
    }

    /// Writes the header with final metadata and gives the file its name.
    ///
    /// # Errors
    /// The metadata changed length, or the file cannot be written.
    pub fn finish(mut self, replace: &[(&str, String)]) -> Result<()> {
        for (key, value) in replace {
            self.metadata.insert((*key).to_owned(), Value::String(value.clone()));
        }
        let header = self.header_bytes();
        ensure!(header.len() as u64 == self.header, "metadata must keep its length");
        let place = || format!("{}: cannot be written", self.path.display());
        self.file.as_file().write_all_at(&header, 0).with_context(place)?;
        self.file.as_file().sync_all().with_context(place)?;
        self.file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).with_context(place)?;
        self.file.persist(&self.path).map_err(|error| error.error).with_context(place)?;
        Ok(())
    }
}

/// The readouts of one checkpoint, memory-mapped.
pub struct Readouts {
    path: PathBuf,
    map: Whole,
    header: safetensors::tensor::Metadata,
    /// Where the tensor data start.
    data: usize,
}

impl Readouts {
    /// Opens and validates a file of the store.
    ///
    /// # Errors
    /// The file is missing, truncated or not safetensors.
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
        let map = whole(&mut file).with_context(|| format!("{}: cannot be read", path.display()))?;
        let invalid = |error| anyhow!("{}: not a valid safetensors file ({error}); delete it and walk again", path.display());
        let (len, header) = SafeTensors::read_metadata(&map).map_err(invalid)?;
        SafeTensors::deserialize(&map).map_err(invalid)?;
        Ok(Self { path: path.to_owned(), map, header, data: 8 + len })
    }

    /// What to do about a file that holds something else than it should.
    pub fn again(&self) -> String {
        format!("{}: delete it and walk again", self.path.display())
    }

    /// A value of the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.header.metadata().as_ref()?.get(key).map(String::as_str)
    }

    /// What the file was made from, where it says so (a walk's fingerprint and request); a hash of its bytes otherwise.
    pub fn identity(&self) -> String {
        match (self.metadata("fingerprint"), self.metadata("request")) {
            (Some(fingerprint), Some(request)) => format!("{fingerprint} {request}"),
            _ => blake3::Hasher::new().update_rayon(&self.map).finalize().to_hex().to_string(),
        }
    }

    fn tensor(&self, name: &str) -> Result<(&[usize], Dtype, &[u8])> {
        let Some(info) = self.header.info(name) else { bail!("{}: tensor {name} is missing", self.path.display()) };
        let bytes = &self.map[self.data + info.data_offsets.0..self.data + info.data_offsets.1];
        Ok((&info.shape, info.dtype, bytes))
    }

    /// Whether a tensor is there.
    pub fn contains(&self, name: &str) -> bool {
        self.header.info(name).is_some()
    }

    /// Shape of a tensor.
    ///
    /// # Errors
    /// The tensor is missing.
    pub fn shape(&self, name: &str) -> Result<&[usize]> {
        Ok(self.tensor(name)?.0)
    }

    /// Item of each row of a readout, out of `n_items`.
    ///
    /// # Errors
    /// The readout is missing, is not `[layer, row, d_model]`, or has rows that are no items.
    pub fn rows(&self, readout: &str, n_items: usize) -> Result<Vec<usize>> {
        let shape = self.shape(readout)?;
        let &[_, rows, 1..=WIDEST] = shape else {
            bail!("{}: {readout} has shape {shape:?}, expected [layer, item, d_model]", self.path.display())
        };
        let name = format!("rows.{readout}");
        let items: Vec<usize> = if self.contains(&name) {
            self.integers(&name)?.into_iter().map(|item| usize::try_from(item).unwrap_or(usize::MAX)).collect()
        } else {
            ensure!(rows == n_items, "{}: {readout} has {rows} rows, expected one per item ({n_items})", self.path.display());
            (0..rows).collect()
        };
        ensure!(
            items.len() == rows && items.iter().all(|&item| item < n_items),
            "{}: {name} does not name {rows} of the {n_items} items",
            self.path.display()
        );
        Ok(items)
    }

    /// One layer of a readout as f32: `[row, d_model]`, row-major. `index` counts the layers that were kept.
    ///
    /// # Errors
    /// The tensor is missing, has fewer layers, or is not f16, bf16 or f32.
    pub fn layer(&self, readout: &str, index: usize) -> Result<Vec<f32>> {
        let (shape, dtype, bytes) = self.tensor(readout)?;
        let &[layers, rows, width] = shape else {
            bail!("{}: {readout} has shape {shape:?}, expected three dimensions", self.path.display())
        };
        ensure!(index < layers, "{}: {readout} has {layers} layers, layer number {index} was asked for", self.path.display());
        let size = rows * width * dtype.bitsize() / 8;
        let values =
            to_f32(dtype, &bytes[index * size..(index + 1) * size]).with_context(|| format!("{}: {readout}", self.path.display()))?;
        self.decode(readout, index, values)
    }

    /// One layer of a tensor as it is stored. `index` counts its layers.
    ///
    /// # Errors
    /// The tensor is missing or has fewer layers.
    pub fn layer_bytes(&self, name: &str, index: usize) -> Result<&[u8]> {
        let (shape, _, bytes) = self.tensor(name)?;
        let size = bytes.len() / shape.first().copied().unwrap_or(1).max(1);
        let end = (index + 1) * size;
        bytes.get(index * size..end).with_context(|| format!("{}: {name} has no layer number {index}", self.path.display()))
    }

    /// Numbers of the layers of a readout, where it does not have all.
    ///
    /// # Errors
    /// The list is not one of integers.
    pub fn layers(&self, readout: &str) -> Result<Option<Vec<usize>>> {
        let name = format!("layers.{readout}");
        let numbers = self.contains(&name).then(|| self.integers(&name)).transpose()?;
        Ok(numbers.map(|numbers| numbers.into_iter().map(|layer| usize::try_from(layer).unwrap_or(usize::MAX)).collect()))
    }

    /// Whether a readout has 16 bits about a centre.
    pub fn is_encoded(&self, readout: &str) -> bool {
        self.contains(&Encoding::names(readout)[0])
    }

    /// What a layer of a readout is centred and scaled by. `index` counts the layers that it has.
    ///
    /// # Errors
    /// It is not, or not as it should be.
    pub fn encoding(&self, readout: &str, index: usize) -> Result<Encoding> {
        let [centre, scale] = Encoding::names(readout);
        let centre = floats(self.layer_bytes(&centre, index)?);
        let scale = floats(self.layer_bytes(&scale, index)?);
        let &[scale] = scale.as_slice() else { bail!("{}: scale.{readout} is not one number per layer", self.path.display()) };
        let is_as_wide = self.shape(readout)?.last() == Some(&centre.len());
        ensure!(is_as_wide, "{}: centre.{readout} is not as wide as {readout}", self.path.display());
        Ok(Encoding { centre, scale })
    }

    /// Values of a readout as they were before they were centred and scaled.
    fn decode(&self, readout: &str, index: usize, mut values: Vec<f32>) -> Result<Vec<f32>> {
        if self.is_encoded(readout) {
            let Encoding { centre, scale } = self.encoding(readout, index)?;
            let rows = values.chunks_exact_mut(centre.len().max(1));
            rows.for_each(|row| row.iter_mut().zip(&centre).for_each(|(x, centre)| *x = *x * scale + centre));
        }
        Ok(values)
    }

    /// Some rows of one layer of a readout: `[rows.len(), d_model]`, row-major, and d_model. Only their pages are touched.
    ///
    /// # Errors
    /// As [`Readouts::layer`]; also a row outside the tensor, or a value that is not finite.
    pub fn gather(&self, readout: &str, index: usize, rows: &[usize]) -> Result<(Vec<f32>, usize)> {
        let place = || format!("{}: {readout}", self.path.display());
        let (shape, dtype, bytes) = self.tensor(readout)?;
        let &[layers, n, width] = shape else { bail!("{} has shape {shape:?}, expected three dimensions", place()) };
        ensure!(index < layers, "{} has {layers} layers, layer number {index} was asked for", place());
        let size = width * dtype.bitsize() / 8;
        let mut values = Vec::with_capacity(rows.len() * width);
        for &row in rows {
            ensure!(row < n, "{} has {n} rows, row {row} was asked for", place());
            let start = (index * n + row) * size;
            values.extend(to_f32(dtype, &bytes[start..start + size]).with_context(place)?);
        }
        let values = self.decode(readout, index, values)?;
        ensure!(values.iter().all(|x| x.is_finite()), "{} has values that are not finite", place());
        Ok((values, width))
    }

    /// Whether every activation in it is finite.
    pub fn is_finite(&self, readouts: &[&str]) -> bool {
        readouts.iter().all(|name| self.check_finite(name).is_ok())
    }

    /// Refuses a tensor with a value that is not finite: no statistic survives one, so it has to be known from the start.
    ///
    /// # Errors
    /// The tensor is missing, is of a type that is not read, or has such a value.
    pub fn check_finite(&self, name: &str) -> Result<()> {
        let (_, dtype, bytes) = self.tensor(name)?;
        let is_read = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16);
        ensure!(is_read, "{}: {name}: {}", self.path.display(), unreadable(dtype));
        // All bits of the exponent are set. Without a short cut inside of a chunk, so that it vectorises.
        let bad = |chunk: &[u8]| match dtype {
            Dtype::F32 => chunk.as_chunks().0.iter().fold(false, |bad, b| bad | (u32::from_le_bytes(*b) & 0x7f80_0000 == 0x7f80_0000)),
            Dtype::F16 => chunk.as_chunks().0.iter().fold(false, |bad, b| bad | (u16::from_le_bytes(*b) & 0x7c00 == 0x7c00)),
            Dtype::BF16 => chunk.as_chunks().0.iter().fold(false, |bad, b| bad | (u16::from_le_bytes(*b) & 0x7f80 == 0x7f80)),
            _ => true,
        };
        ensure!(!bytes.par_chunks(1 << 16).any(bad), "{}: {name} has values that are not finite", self.path.display());
        Ok(())
    }

    /// A tensor of integers.
    ///
    /// # Errors
    /// The tensor is missing or not i64.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>> {
        let (_, dtype, bytes) = self.tensor(name)?;
        ensure!(dtype == Dtype::I64, "{}: {name} is {dtype:?}, expected I64", self.path.display());
        Ok(bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
    }

    /// A whole tensor as f32.
    ///
    /// # Errors
    /// The tensor is missing or not f16, bf16 or f32.
    pub fn values(&self, name: &str) -> Result<Vec<f32>> {
        let (_, dtype, bytes) = self.tensor(name)?;
        to_f32(dtype, bytes).with_context(|| format!("{}: {name}", self.path.display()))
    }

    /// Raw bytes of a tensor.
    ///
    /// # Errors
    /// The tensor is missing.
    pub fn bytes(&self, name: &str) -> Result<&[u8]> {
        Ok(self.tensor(name)?.2)
    }
}

/// f32 of little-endian bytes.
pub fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect()
}

fn unreadable(dtype: Dtype) -> String {
    format!("dtype {dtype:?}, expected F32, F16 or BF16")
}

fn to_f32(dtype: Dtype, bytes: &[u8]) -> Result<Vec<f32>> {
    Ok(match dtype {
        Dtype::F32 => floats(bytes),
        Dtype::F16 => bytes.as_chunks::<2>().0.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        Dtype::BF16 => bytes.as_chunks::<2>().0.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
        other => bail!(unreadable(other)),
    })
}

/// Metadata that every file of activations carries.
pub fn metadata(layers: &[usize], fingerprint: &str) -> Map<String, Value> {
    let mut metadata = Map::new();
    let mut put = |key: &str, value: String| metadata.insert(key.to_owned(), Value::String(value));
    put("format", "pt".to_owned());
    put("selftrace", env!("CARGO_PKG_VERSION").to_owned());
    put("layer_convention", LAYER_CONVENTION.to_owned());
    put("layers", json!(layers).to_string());
    put("fingerprint", fingerprint.to_owned());
    metadata
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
