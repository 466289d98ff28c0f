//! A process among those of all machines that see a folder, and how far it has come.

use super::SILENCE;
use serde::{Deserialize, Serialize};
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    pub host: String,
    pub pid: u32,
    /// What tells it from a later process of the same number: clock ticks from boot to its start.
    pub(super) started: u64,
    /// The machine's boot and the space in which the process number counts.
    pub(super) machine: String,
    /// When the lease was taken, for people.
    pub since: String,
}

/// How far an owner has come with what it has a lease on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// What is counted: layers or interventions; empty before the first.
    pub unit: String,
    pub done: usize,
    pub of: usize,
    /// Time left of `of`, if the rest goes as fast as what is done.
    pub seconds_left: Option<f64>,
}

/// This process.
pub(super) static ME: LazyLock<Owner> = LazyLock::new(|| {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let space = std::fs::read_link("/proc/self/ns/pid").unwrap_or_default();
    let host = read("/proc/sys/kernel/hostname");
    let boot = read("/proc/sys/kernel/random/boot_id");
    let machine = blake3::hash(format!("{host} {boot} {}", space.display()).as_bytes());
    Owner {
        host: if host.is_empty() { "this machine".to_owned() } else { host },
        pid: std::process::id(),
        started: started(std::process::id()).unwrap_or(0),
        machine: machine.to_hex()[..12].to_owned(),
        since: String::new(),
    }
});

/// Start of a process of this machine, in clock ticks since boot; `None` where there is no such process.
pub(super) fn started(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may have anything in it; the state is the first field behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    (fields.first() != Some(&"Z")).then(|| fields.get(19)?.parse().ok()).flatten()
}

impl Owner {
    /// This process, from now on.
    pub(super) fn now() -> Self {
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs() as i64);
        let since = chrono::DateTime::from_timestamp(seconds, 0).map(|now| now.format("%F %T UTC").to_string());
        Self { since: since.unwrap_or_default(), ..ME.clone() }
    }

    /// Whether it is, or was, a process of this machine, of which the system says whether it lives.
    pub(super) fn is_here(&self) -> bool {
        self.machine == ME.machine
    }

    pub(super) fn is_gone(&self, silent: Duration) -> bool {
        if self.is_here() { started(self.pid) != Some(self.started) } else { silent > SILENCE }
    }
}
