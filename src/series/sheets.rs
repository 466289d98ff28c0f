//! The files of a store beside the readouts: what checkpoints answered under conditions, through other blocks, or behind conversations.

use super::Series;
use crate::walk::store::Readouts;
use anyhow::Result;
use std::path::{Path, PathBuf};

impl Series {
    /// The file of a checkpoint in a folder of the store beside that of the readouts.
    pub fn sheet(&self, folder: &str, t: usize) -> PathBuf {
        self.folder.join(folder).join(format!("{}.safetensors", self.points[t].id))
    }

    /// What such files are; nothing where there are none.
    pub fn sheets(&self, folder: &str) -> String {
        let identity = |path: PathBuf| Readouts::open(&path).map_or_else(|_| "none ".to_owned(), |sheet| sheet.identity() + " ");
        let paths: Vec<PathBuf> = (0..self.points.len()).map(|t| self.sheet(folder, t)).collect();
        if paths.iter().any(|path| path.is_file()) { paths.into_iter().map(identity).collect() } else { String::new() }
    }

    /// What `open` makes of them, by checkpoint; `None` where a checkpoint has no such file, or one that was made from other weights than its
    /// readouts.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn opened<T>(&self, folder: &str, open: impl Fn(&Path) -> Result<T>) -> Result<Vec<Option<T>>> {
        let is_own = |t: usize, path: &Path| {
            let of = Readouts::open(path).ok().and_then(|sheet| sheet.metadata("fingerprint").map(str::to_owned));
            let is_own = of.as_deref().zip(self.fingerprint(t)).is_none_or(|(of, own)| of == own);
            if !is_own {
                tracing::warn!(
                    "{}: it was made from other weights than the readouts of {}; walk it again",
                    path.display(),
                    self.points[t].id
                );
            }
            is_own
        };
        let at =
            |t: usize| Some(self.sheet(folder, t)).filter(|path| path.is_file() && is_own(t, path)).map(|path| open(&path)).transpose();
        (0..self.points.len()).map(at).collect()
    }
}
