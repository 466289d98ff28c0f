//! The files of a store beside the readouts: what checkpoints answered under conditions, through other blocks, or behind conversations.

use super::Series;
use crate::walk::store::Readouts;
use anyhow::Result;
use std::path::PathBuf;

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

    /// What `read` makes of them, by checkpoint; `None` where a checkpoint has no such file, or one that was made from other weights than its
    /// readouts.
    ///
    /// # Errors
    /// A file is damaged, or those of `read`.
    pub fn opened<T>(&self, folder: &str, read: impl Fn(&Readouts) -> Result<T>) -> Result<Vec<Option<T>>> {
        let at = |t: usize| -> Result<Option<T>> {
            let path = self.sheet(folder, t);
            if !path.is_file() {
                return Ok(None);
            }
            let sheet = Readouts::open(&path)?;
            let is_own = sheet.metadata("fingerprint").zip(self.fingerprint(t)).is_none_or(|(of, own)| of == own);
            if !is_own {
                let (path, id) = (path.display(), &self.points[t].id);
                tracing::warn!("{path}: it was made from other weights than the readouts of {id}; walk it again");
                return Ok(None);
            }
            read(&sheet).map(Some)
        };
        (0..self.points.len()).map(at).collect()
    }
}
