//! Partial files that say whose they are, so that only those of a dead process are deleted.

use super::owner::{ME, started};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Partial files of other machines are deleted when nobody has written to them for this long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

const PARTIAL: &str = ".partial-";

/// Folders that this process has swept: those that it writes to.
static SWEPT: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// How this process's partial files of `name` begin.
pub fn partial(name: &str) -> String {
    format!("{PARTIAL}{name}-{}-{}-", ME.machine, ME.pid)
}

/// Deletes the partial files in a folder whose process is gone. Those of others stay: they may be at work.
pub fn sweep(folder: &Path) {
    SWEPT.lock().unwrap_or_else(PoisonError::into_inner).push(folder.to_owned());
    delete(folder, |pid| started(pid).is_none());
}

/// Deletes the partial files of this process, which is about to end in the midst of its work.
pub(super) fn delete_own() {
    let swept = SWEPT.try_lock().map(|folders| folders.clone()).unwrap_or_default();
    swept.iter().for_each(|folder| delete(folder, |pid| pid == ME.pid));
}

fn delete(folder: &Path, is_gone: impl Fn(u32) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PARTIAL) else { continue };
        let mut parts = rest.rsplitn(4, '-');
        let (_, pid, machine) = (parts.next(), parts.next().and_then(|pid| pid.parse().ok()), parts.next());
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        let is_gone = match pid {
            Some(pid) if machine == Some(&ME.machine) => is_gone(pid),
            _ => age().is_some_and(|age| age > ABANDONED),
        };
        if is_gone {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}
