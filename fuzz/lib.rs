//! What the targets share: a folder in memory, and what an error may look like.

use std::path::Path;
use std::sync::OnceLock;
use tempfile::TempDir;

/// A folder of this process, in memory where the system has such a place.
pub fn folder() -> &'static Path {
    static FOLDER: OnceLock<TempDir> = OnceLock::new();
    let made = || {
        let shared = Path::new("/dev/shm");
        let made = if shared.is_dir() { tempfile::tempdir_in(shared) } else { tempfile::tempdir() };
        made.expect("a temporary folder")
    };
    FOLDER.get_or_init(made).path()
}

/// Writes a file of the folder.
pub fn write(name: &str, data: &[u8]) {
    std::fs::write(folder().join(name), data).expect("the temporary folder can be written");
}

/// What was read does not matter; that an error is said in a sentence does.
pub fn said<T, E: Into<Box<dyn std::error::Error + Send + Sync>>>(result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(!error.into().to_string().is_empty(), "an error without words");
            None
        }
    }
}
