//! One safetensors file: its validated header, and its bytes, mapped or read.
//!
//! A private map costs nothing until a page is touched, and its pages can be handed back. Some file systems refuse maps
//! (FUSE, network mounts) or kill the process on a page that cannot be fetched, which no program can catch: files that
//! cannot be mapped are read instead, and `SELFTRACE_MMAP=0` reads all of them.

use anyhow::{Context, Result, anyhow, ensure};
use memmap2::{Mmap, MmapOptions, UncheckedAdvice};
use safetensors::tensor::{Metadata, TensorInfo};
use std::borrow::Cow;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// All of a file.
pub enum Whole {
    Mapped(Mmap),
    Read(Vec<u8>),
}

impl std::ops::Deref for Whole {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Read(bytes) => bytes,
        }
    }
}

/// Maps a file that is never changed in place, or reads it.
///
/// # Errors
/// It cannot be read.
pub fn whole(file: &mut std::fs::File) -> std::io::Result<Whole> {
    // SAFETY: the map is read-only and private, and the file is replaced by rename.
    if let Some(map) = is_mapping().then(|| unsafe { MmapOptions::new().map_copy_read_only(&*file) }.ok()).flatten() {
        return Ok(Whole::Mapped(map));
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(file, &mut bytes)?;
    Ok(Whole::Read(bytes))
}

/// Whether files may be mapped.
fn is_mapping() -> bool {
    std::env::var_os("SELFTRACE_MMAP").is_none_or(|choice| choice != "0")
}

/// An opened file.
pub struct TensorFile {
    /// Its plain name.
    pub name: String,
    bytes: Bytes,
    /// Where the tensors begin.
    start: usize,
}

enum Bytes {
    Mapped(Mmap),
    Read(std::fs::File),
}

impl TensorFile {
    /// Opens `folder/name` and returns it with what its header says of every tensor. No tensor is read.
    ///
    /// # Errors
    /// One sentence that names the file: it is missing, truncated, or not safetensors.
    pub fn open(folder: &Path, name: String) -> Result<(Self, Vec<(String, TensorInfo)>)> {
        Self::open_as(folder, name, is_mapping())
    }

    /// As [`TensorFile::open`], with or without a try at mapping it.
    fn open_as(folder: &Path, name: String, mapped: bool) -> Result<(Self, Vec<(String, TensorInfo)>)> {
        let path = folder.join(&name);
        let handle = std::fs::File::open(&path).with_context(|| format!("{}: cannot be opened", path.display()))?;
        let (header, start) = header(&handle).map_err(|error| {
            let path = path.display();
            anyhow!(
                "{path}: not a valid safetensors file ({error:#}); it may be truncated, or a pointer of Git LFS: download or copy it again"
            )
        })?;
        // SAFETY: the map is read-only and private. A concurrent truncation of the file is the one thing that the
        // type system cannot exclude; checkpoints are written once.
        let map = mapped.then(|| unsafe { MmapOptions::new().map_copy_read_only(&handle) }.ok()).flatten();
        let bytes = map.map_or(Bytes::Read(handle), Bytes::Mapped);
        Ok((Self { name, bytes, start }, header))
    }

    /// `len` bytes from `start` on, counted from the first tensor's first.
    ///
    /// # Errors
    /// The file cannot be read any more, or has become shorter.
    pub fn bytes(&self, start: usize, len: usize) -> Result<Cow<'_, [u8]>> {
        let start = self.start + start;
        match &self.bytes {
            Bytes::Mapped(map) => map.get(start..start + len).map(Cow::Borrowed).with_context(|| format!("{}: ends early", self.name)),
            Bytes::Read(file) => {
                let mut bytes = vec![0; len];
                file.read_exact_at(&mut bytes, start as u64).with_context(|| format!("{}: cannot be read", self.name))?;
                Ok(Cow::Owned(bytes))
            }
        }
    }

    /// Hands the pages that lie entirely inside a range of bytes back to the kernel.
    pub fn release(&self, start: usize, len: usize) {
        const PAGE: usize = 4096;
        let Bytes::Mapped(map) = &self.bytes else { return };
        let start = self.start + start;
        let (from, to) = (start.next_multiple_of(PAGE), (start + len) / PAGE * PAGE);
        if from < to {
            // SAFETY: the map is a private, read-only view of a file: dropped pages are read again when touched. Failure
            // only costs memory.
            let _ = unsafe { map.unchecked_advise_range(UncheckedAdvice::DontNeed, from, to - from) };
        }
    }
}

/// What a header says of every tensor, and where the data begin.
fn header(file: &std::fs::File) -> Result<(Vec<(String, TensorInfo)>, usize)> {
    let (parsed, start) = metadata(file)?;
    let named = |name: String| parsed.info(&name).cloned().map(|info| (name, info));
    Ok((parsed.offset_keys().into_iter().filter_map(named).collect(), start))
}

/// The header of a safetensors file, and where the data begin. Nothing else is read; bounds, overlap and sizes are proved by the crate.
///
/// # Errors
/// The file cannot be read, or is not safetensors.
pub fn metadata(file: &std::fs::File) -> Result<(Metadata, usize)> {
    /// The most that the reference implementation accepts.
    const LARGEST: u64 = 100_000_000;
    let size = file.metadata()?.len();
    ensure!(size >= 8, "it has {size} bytes, fewer than a header");
    let mut first = [0; 8];
    file.read_exact_at(&mut first, 0)?;
    let len = u64::from_le_bytes(first);
    ensure!(len <= LARGEST && len + 8 <= size, "its header would have {len} bytes, the file has {size}");
    let mut text = vec![0; len as usize];
    file.read_exact_at(&mut text, 8)?;
    let parsed: Metadata = serde_json::from_slice(&text)?;
    let expected = 8 + len + parsed.data_len() as u64;
    ensure!(expected == size, "it should have {expected} bytes and has {size}");
    Ok((parsed, 8 + len as usize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

    #[test]
    fn a_file_that_cannot_be_mapped_is_read_and_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..96).collect();
        let view = |from: usize, len: usize| TensorView::new(Dtype::F32, vec![len / 4], &data[from..from + len]).unwrap();
        serialize_to_file([("a", view(0, 32)), ("b", view(32, 64))], None, &folder.path().join("x.safetensors")).unwrap();
        let open = |mapped| TensorFile::open_as(folder.path(), "x.safetensors".to_owned(), mapped).unwrap();
        let ((mapped, header), (read, same)) = (open(true), open(false));
        assert!(matches!((&mapped.bytes, &read.bytes), (Bytes::Mapped(_), Bytes::Read(_))));
        assert_eq!(format!("{header:?}"), format!("{same:?}"));
        for (_, info) in &header {
            let (from, to) = info.data_offsets;
            assert_eq!(mapped.bytes(from, to - from).unwrap(), read.bytes(from, to - from).unwrap());
        }
        assert_eq!(*mapped.bytes(32, 64).unwrap(), data[32..]);
        assert!(mapped.bytes(90, 10).is_err() && read.bytes(90, 10).is_err());
    }
}
