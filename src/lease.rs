//! Who is at work: leases on what one process at a time may make, and partial files that say whose they are.
//!
//! A lease is a file that is made by a link, which either is there or not, also on network file systems. Its owner writes it again every
//! [`BEAT`]; the time of that is the file server's, so that clocks of different machines do not matter. Whoever finds a lease whose owner is gone
//! takes it over: at once where the owner was a process of this machine, otherwise when it has been silent for [`SILENCE`].

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::{Duration, SystemTime};

/// How often an owner gives a sign of life.
const BEAT: Duration = Duration::from_secs(10);
/// After how much silence an owner on another machine counts as gone.
pub const SILENCE: Duration = Duration::from_secs(120);
/// Partial files of other machines are deleted when nobody has written to them for this long.
const ABANDONED: Duration = Duration::from_secs(24 * 3600);

const PARTIAL: &str = ".partial-";

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub host: String,
    pub pid: u32,
    /// What tells it from a later process of the same number: clock ticks from boot to its start.
    started: u64,
    /// The machine's boot and the space in which the process number counts.
    machine: String,
    /// When the lease was taken, for people.
    pub since: String,
}

static ME: LazyLock<Owner> = LazyLock::new(|| {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let host = read("/proc/sys/kernel/hostname");
    let machine = blake3::hash(format!("{host} {} {}", read("/proc/sys/kernel/random/boot_id"), space.display()).as_bytes());
    Owner {
        host: if host.is_empty() { "this machine".to_owned() } else { host },
        pid: std::process::id(),
        started: started(std::process::id()).unwrap_or(0),
        machine: machine.to_hex()[..12].to_owned(),
        since: String::new(),
    }
});

/// Start of a process of this machine, in clock ticks since boot; `None` where there is no such process.
fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have anything in it; the state is the first field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19)?.parse().ok()).flatten()
}

impl Owner {
    fn is_gone(&self, silent: Duration) -> bool {
        if self.machine == ME.machine { started(self.pid) != Some(self.started) } else { silent > SILENCE }
    }
}

/// What this process alone may make, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    path: PathBuf,
    text: String,
    /// Closed on drop, which ends the signs of life.
    _beat: Sender<()>,
}

/// Whether a lease could be had.
#[derive(Debug)]
pub enum Taken {
    Ours(Lease),
    /// Somebody else is at work, who gave the last sign of life so long ago.
    Theirs(Owner, Duration),
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
        let since = chrono::DateTime::from_timestamp(seconds(SystemTime::now()), 0).map(|now| now.format("%F %T UTC").to_string());
        let owner = Owner { since: since.unwrap_or_default(), ..ME.clone() };
        let text = serde_json::to_string(&owner)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let draft = tempfile::Builder::new().prefix(&partial(&name)).tempfile_in(folder).with_context(place)?;
        draft.as_file().write_all_at(text.as_bytes(), 0).with_context(place)?;
        loop {
            match std::fs::hard_link(draft.path(), path) {
                Ok(()) => break,
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).with_context(place),
            }
            // By the clock that gives files their times.
            draft.as_file().write_all_at(text.as_bytes(), 0).with_context(place)?;
            let now = draft.as_file().metadata().and_then(|file| file.modified()).with_context(place)?;
            let Ok(found) = std::fs::read_to_string(path) else { continue };
            let silent = std::fs::metadata(path).and_then(|file| file.modified());
            let silent = silent.map_or(Duration::ZERO, |then| now.duration_since(then).unwrap_or_default());
            match serde_json::from_str::<Owner>(&found) {
                Ok(owner) if !owner.is_gone(silent) => return Ok(Taken::Theirs(owner, silent)),
                Err(_) if silent < SILENCE => {
                    return Ok(Taken::Theirs(Owner { host: "an unknown machine".to_owned(), pid: 0, ..ME.clone() }, silent));
                }
                Ok(owner) => tracing::warn!(
                    "{}: taking over from process {} on {}, which is gone (last sign of life {} s ago)",
                    path.display(),
                    owner.pid,
                    owner.host,
                    silent.as_secs()
                ),
                Err(_) => {}
            }
            put_aside(path, &found, &partial(&name)).with_context(place)?;
        }
        let file = File::options().write(true).open(path).with_context(place)?;
        let (beat, ended) = channel::<()>();
        let sign = text.clone();
        std::thread::Builder::new()
            .name("lease".to_owned())
            .spawn(move || {
                while ended.recv_timeout(BEAT) == Err(RecvTimeoutError::Timeout) {
                    // A sign that cannot be given is one that others do not see.
                    let _ = file.write_all_at(sign.as_bytes(), 0);
                }
            })
            .context("no thread for a lease")?;
        Ok(Taken::Ours(Self { path: path.to_owned(), text, _beat: beat }))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Somebody may have taken it over while this process was suspended.
        if std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Removes a lease whose text is `found`. Another process may have taken it over in between: then its lease is put back.
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

fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64)
}

/// How this process's partial files of `name` begin.
pub fn partial(name: &str) -> String {
    format!("{PARTIAL}{name}-{}-{}-", ME.machine, ME.pid)
}

/// Deletes the partial files in a folder whose process is gone. Those of others stay: they may be at work.
pub fn sweep(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(rest) = name.strip_prefix(PARTIAL) else { continue };
        let mut parts = rest.rsplitn(4, '-');
        let (_, pid, machine) = (parts.next(), parts.next().and_then(|pid| pid.parse().ok()), parts.next());
        let age = || entry.metadata().ok()?.modified().ok()?.elapsed().ok();
        let is_gone = match pid {
            Some(pid) if machine == Some(&ME.machine) => started(pid).is_none(),
            _ => age().is_some_and(|age| age > ABANDONED),
        };
        if is_gone {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
