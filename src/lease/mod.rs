//! Who is at work: leases on what one process at a time may make, and partial files that say whose they are.
//!
//! A lease is a file that is made by a link, which either is there or not, also on network file systems. Its
//! owner writes it again every [`BEAT`], with how far it has come; the time of that is the file server's, so
//! that clocks of different machines do not matter. Whoever finds a lease whose owner is gone takes it over:
//! at once where the owner was a process of this machine, otherwise when it has been silent for [`SILENCE`].
//! Results appear whole, under their name, and do not depend on who made them, so a lease that was taken from
//! a suspended process costs time and spoils nothing.

use crate::console::{Interrupted, check_interrupt};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

mod owner;
mod partial;
#[cfg(test)]
mod tests;

pub use owner::{Owner, Progress};
pub use partial::{partial, sweep};

/// How often an owner gives a sign of life.
const BEAT: Duration = Duration::from_secs(10);
/// After how much silence an owner on another machine counts as gone.
pub const SILENCE: Duration = Duration::from_secs(120);
/// Bytes of a lease: a sign of life never changes its length, so that nobody reads the end of a longer one.
const LENGTH: usize = 640;

/// Leases of this process.
static HELD: Mutex<Vec<(PathBuf, Owner)>> = Mutex::new(Vec::new());

/// What is in a lease.
#[derive(Serialize, Deserialize)]
struct Text {
    #[serde(flatten)]
    owner: Owner,
    #[serde(default)]
    progress: Progress,
}

impl Text {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text.trim_end()).ok()
    }

    fn bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(self)?;
        bytes.resize(bytes.len().max(LENGTH), b' ');
        Ok(bytes)
    }
}

/// What this process alone may make, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    owner: Owner,
    progress: Arc<Mutex<Progress>>,
    /// When what is counted now began.
    begun: Mutex<Instant>,
    /// Closed on drop, which ends the signs of life.
    _beat: Sender<()>,
}

/// Whether a lease could be had.
#[derive(Debug)]
pub enum Taken {
    Ours(Lease),
    Theirs(Other),
}

/// Somebody else who is at work.
#[derive(Debug, Clone)]
pub struct Other {
    pub owner: Owner,
    pub progress: Progress,
    /// Time since the last sign of life.
    pub silent: Duration,
}

impl Lease {
    /// Takes the lease at `path`, whose folder is made where it is missing.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn take(path: &Path) -> Result<Taken> {
        let place = || format!("{}: cannot be written", path.display());
        let folder = path.parent().unwrap_or(Path::new("."));
        std::fs::create_dir_all(folder).with_context(place)?;
        let text = Text { owner: Owner::now(), progress: Progress::default() };
        let bytes = text.bytes()?;
        let prefix = partial(&path.file_name().unwrap_or_default().to_string_lossy());
        let draft = tempfile::Builder::new().prefix(&prefix).tempfile_in(folder).with_context(place)?;
        draft.as_file().write_all_at(&bytes, 0).with_context(place)?;
        loop {
            match std::fs::hard_link(draft.path(), path) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(place),
            }
            // By the clock that gives files their times.
            draft.as_file().write_all_at(&bytes, 0).with_context(place)?;
            let now = draft.as_file().metadata().and_then(|file| file.modified()).with_context(place)?;
            let Some((found, other)) = read(path, now) else { continue };
            let other = match other {
                Some(other) if !other.owner.is_gone(other.silent) => return Ok(Taken::Theirs(other)),
                other => other,
            };
            if let Some(other) = other {
                tracing::warn!("{}: taking over from {other}, which is gone", path.display());
            }
            put_aside(path, &found, &prefix).with_context(place)?;
        }
        let owner = text.owner;
        HELD.lock().unwrap_or_else(PoisonError::into_inner).push((path.to_owned(), owner.clone()));
        let file = File::options().write(true).open(path).with_context(place)?;
        let (beat, ended) = channel::<()>();
        let progress = Arc::<Mutex<Progress>>::default();
        let sign = (owner.clone(), Arc::clone(&progress));
        std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || {
                while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                    let progress = sign.1.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let text = Text { owner: sign.0.clone(), progress };
                    // A sign that cannot be given is one that others do not see.
                    let _ = text.bytes().map(|bytes| file.write_all_at(&bytes, 0));
                }
            })
            .context("no thread for a lease")?;
        Ok(Taken::Ours(Self { path: path.to_owned(), owner, progress, begun: Mutex::new(Instant::now()), _beat: beat }))
    }

    /// Takes the lease at `path` as soon as nobody has it; `what` its owner does is said once to whoever has
    /// to wait for more than a moment.
    ///
    /// # Errors
    /// As [`Lease::take`], or [`Interrupted`].
    pub fn wait(path: &Path, what: &str) -> Result<Self> {
        let (begun, mut said) = (Instant::now(), false);
        loop {
            let other = match Self::take(path)? {
                Taken::Ours(lease) => return Ok(lease),
                Taken::Theirs(other) => other,
            };
            if !said && begun.elapsed() > Duration::from_secs(2) {
                tracing::info!("{}: waiting for {other}, which {what}", path.display());
                said = true;
            }
            doze(Duration::from_millis(200))?;
        }
    }

    /// Says how far the work is, for others to read.
    pub fn tell(&self, unit: &str, done: usize, of: usize) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        if progress.unit != unit {
            *begun = Instant::now();
        }
        let rest = of.saturating_sub(done) as f64 / done as f64;
        let seconds_left = (done > 0).then(|| begun.elapsed().as_secs_f64() * rest);
        *progress = Progress { unit: unit.to_owned(), done, of, seconds_left };
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        release(&self.path, &self.owner);
        HELD.lock().unwrap_or_else(PoisonError::into_inner).retain(|(path, _)| *path != self.path);
    }
}

/// Deletes a lease unless somebody has taken it over while this process was suspended.
fn release(path: &Path, owner: &Owner) {
    let is_ours = std::fs::read_to_string(path).is_ok_and(|text| Text::parse(&text).is_some_and(|text| text.owner == *owner));
    if is_ours {
        let _ = std::fs::remove_file(path);
    }
}

/// Gives every lease of this process back and deletes its partial files: what has to be done before it ends
/// in the midst of its work.
pub fn abandon() {
    let held = HELD.try_lock().map(|held| held.clone()).unwrap_or_default();
    held.iter().for_each(|(path, owner)| release(path, owner));
    partial::delete_own();
}

/// Who is at work on what has its lease at `path`, without taking anything. By this machine's clock.
pub fn look(path: &Path) -> Option<Other> {
    read(path, SystemTime::now())?.1.filter(|other| !other.owner.is_gone(other.silent))
}

/// Whether the lease at `path` will be left by a process that was first seen at `seen` and may be gone: waits
/// until it is free (true), or gives a sign of life (false).
///
/// # Errors
/// As [`Lease::take`], or [`Interrupted`].
pub fn outlast(path: &Path, seen: Instant) -> Result<bool> {
    // Times of files may be whole seconds.
    const GRAIN: Duration = Duration::from_secs(2);
    let mut said = false;
    loop {
        let Taken::Theirs(other) = Lease::take(path)? else { return Ok(true) };
        if other.owner.is_here() || other.silent + GRAIN < seen.elapsed() {
            return Ok(false);
        }
        if !said && other.silent > 2 * BEAT {
            let left = SILENCE.saturating_sub(other.silent).as_secs();
            tracing::info!("{}: {other} may be gone; taking over in {left} s unless it gives a sign of life", path.display());
            said = true;
        }
        doze(Duration::from_secs(1))?;
    }
}

impl std::fmt::Display for Other {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Owner { host, pid, since, .. } = &self.owner;
        write!(f, "process {pid} on {host} since {since} (last sign of life {} s ago)", self.silent.as_secs())
    }
}

/// Sleeps, in pieces that a signal may end.
///
/// # Errors
/// [`Interrupted`].
pub fn doze(time: Duration) -> Result<(), Interrupted> {
    let end = Instant::now() + time;
    loop {
        check_interrupt()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        std::thread::sleep(left.min(Duration::from_millis(200)));
    }
}

/// The text of a lease and whose it is; nothing where there is none. An owner is missing where the text is no
/// lease's and nobody has touched it for long: it may be one that is being written.
fn read(path: &Path, now: SystemTime) -> Option<(String, Option<Other>)> {
    let found = std::fs::read_to_string(path).ok()?;
    let written = std::fs::metadata(path).and_then(|file| file.modified()).ok()?;
    let silent = now.duration_since(written).unwrap_or_default();
    let other = match Text::parse(&found) {
        Some(text) => Some(Other { owner: text.owner, progress: text.progress, silent }),
        None if silent < SILENCE => {
            let owner = Owner { host: "an unknown machine".to_owned(), pid: 0, machine: String::new(), ..Owner::now() };
            Some(Other { owner, progress: Progress::default(), silent })
        }
        None => None,
    };
    Some((found, other))
}

/// Removes a lease whose text is `found`. Another process may have taken it over in between: then its lease
/// is put back.
fn put_aside(path: &Path, found: &str, prefix: &str) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let aside = tempfile::Builder::new().prefix(prefix).tempfile_in(folder)?.into_temp_path();
    match std::fs::rename(path, &aside) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        result => result?,
    }
    if std::fs::read_to_string(&aside).is_ok_and(|text| text != found) {
        let _ = std::fs::hard_link(&aside, path);
    }
    Ok(())
}
