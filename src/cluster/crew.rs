//! Several checkpoints at once on one node: a process per device, each of which walks what nobody has.
//!
//! Leases settle who walks what, as between the tasks of an array, and the cache of the hub is shared, so a
//! file is downloaded once. Each process begins at another place of the series, and one that a bad checkpoint
//! takes down leaves the others at work. A worker ends when the process that started it does.

use crate::console::{self, Interrupted, check_interrupt, run_bar};
use crate::manifest::{CheckpointSpec, DeviceChoice};
use crate::model::device;
use crate::walk::job::{Job, Outcome};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGINT, SIGUSR1};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::{BufRead, BufReader};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// Devices as `--devices` names them: a worker for each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Devices {
    /// Every CUDA device that is found.
    All,
    These(Vec<DeviceChoice>),
}

impl Devices {
    /// Reads `all`, or a list such as `cuda:0,cuda:1` or `cpu:2`, which is two workers on the CPU.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        const EXPECTED: &str = "expected all, or a list such as cuda:0,cuda:1 or cpu:2 (two workers on the CPU)";
        if text.trim() == "all" {
            return Ok(Self::All);
        }
        let (mut these, mut gpus) = (Vec::new(), BTreeSet::new());
        for word in text.split(',').map(str::trim) {
            match word.split_once(':') {
                None if word == "cpu" => these.push(DeviceChoice::Cpu),
                Some(("cpu", number)) => {
                    let number = number.parse::<usize>().ok().filter(|number| (1..=1024).contains(number)).ok_or(EXPECTED)?;
                    these.extend(std::iter::repeat_n(DeviceChoice::Cpu, number));
                }
                Some(("cuda", number)) => {
                    let number = number.parse::<u8>().map_err(|_| EXPECTED)?;
                    if !gpus.insert(number) {
                        return Err(format!("cuda:{number} is named twice: a device has one worker"));
                    }
                    these.push(DeviceChoice::Cuda(number.into()));
                }
                _ => return Err(EXPECTED.to_owned()),
            }
        }
        Ok(Self::These(these))
    }

    /// A device per worker, at least one.
    ///
    /// # Errors
    /// A CUDA device is named that is not there, or all of them and there is none.
    pub fn resolve(&self) -> Result<Vec<DeviceChoice>> {
        let these = match self {
            Self::These(these) => these.clone(),
            Self::All => {
                let found = device::cuda_devices();
                ensure!(found > 0, "--devices all: no CUDA device was found; cpu:2 is two workers on the CPU");
                (0..found).map(DeviceChoice::Cuda).collect()
            }
        };
        these.iter().try_for_each(|choice| device::resolve(*choice).map(drop)).context("--devices")?;
        Ok(these)
    }
}

/// One of a crew, as `--worker` names it: its number, from 0, of how many, and its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Worker {
    pub number: usize,
    pub of: usize,
    pub device: DeviceChoice,
}

impl Worker {
    /// Reads what [`Worker::argument`] writes.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        let read = || {
            let (turn, name) = text.split_once('@')?;
            let (number, of) = turn.split_once('/')?;
            let device = match name.strip_prefix("cuda:") {
                Some(index) => DeviceChoice::Cuda(index.parse().ok()?),
                None => (name == "cpu").then_some(DeviceChoice::Cpu)?,
            };
            Some(Self { number: number.parse().ok()?, of: of.parse().ok().filter(|of| *of > 0)?, device })
        };
        read().ok_or_else(|| "expected I/N@DEVICE".to_owned())
    }

    fn argument(self) -> String {
        format!("{}/{}@{}", self.number, self.of, name(self.device))
    }

    /// Asks the system to end this process politely when the one that started it is gone.
    pub fn follow(self) {
        #[cfg(target_os = "linux")]
        let _ = rustix::process::set_parent_process_death_signal(Some(Signal::TERM));
    }
}

fn name(choice: DeviceChoice) -> String {
    match choice {
        DeviceChoice::Cuda(index) => format!("cuda:{index}"),
        _ => "cpu".to_owned(),
    }
}

/// A process that walks.
struct Hand {
    device: String,
    child: Child,
    /// Passes its lines on.
    lines: Option<JoinHandle<()>>,
    ended: Option<ExitStatus>,
}

impl Hand {
    fn start(worker: Worker, arguments: &[OsString], threads: usize) -> Result<Self> {
        let program = std::env::current_exe().context("the place of this program is not known")?;
        let mut command = Command::new(&program);
        command.args(console::flags()).args(arguments).arg("--worker").arg(worker.argument());
        // A terminal tells this process of an interrupt, and this process tells its workers, once.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        for variable in ["OMP_NUM_THREADS", "RAYON_NUM_THREADS"] {
            if std::env::var_os(variable).is_none() {
                command.env(variable, threads.to_string());
            }
        }
        let mut child = command.spawn().with_context(|| format!("{}: cannot be started", program.display()))?;
        let stderr = child.stderr.take();
        let lines = std::thread::spawn(move || {
            let mut from = stderr.map(BufReader::new);
            let mut line = Vec::new();
            while from.as_mut().is_some_and(|from| from.read_until(b'\n', &mut line).is_ok_and(|read| read > 0)) {
                console::relay(&line);
                line.clear();
            }
        });
        Ok(Self { device: name(worker.device), child, lines: Some(lines), ended: None })
    }

    fn is_running(&mut self) -> bool {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended.is_none()
    }

    fn tell(&mut self, signal: i32) {
        let signal = match signal {
            SIGINT => Signal::INT,
            SIGUSR1 => Signal::USR1,
            _ => Signal::TERM,
        };
        if self.is_running() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }

    /// How it ended, where that is no end of a walk.
    fn accident(&self) -> Option<String> {
        let status = self.ended?;
        let how = match (status.code(), status.signal()) {
            (Some(0 | 1), _) => return None,
            (Some(code), _) => format!("ended with code {code}"),
            (None, signal) => format!("was killed by signal {}", signal.unwrap_or_default()),
        };
        Some(format!("the worker on {} {how}", self.device))
    }
}

/// Walks the entries that `wanted` accepts, with a worker per device; `arguments` are those of a `walk` of the
/// same entries. With one entry to walk there is nothing to share out, and this process walks it.
///
/// # Errors
/// As [`Job::walk`], or a worker was lost and what it was to walk is not walked.
pub fn walk(job: &Job, devices: &[DeviceChoice], arguments: &[OsString], wanted: &dyn Fn(&CheckpointSpec) -> bool) -> Result<Outcome> {
    let specs: Vec<&CheckpointSpec> = job.entries().filter(|spec| wanted(spec)).collect();
    let (complete, open): (Vec<&CheckpointSpec>, Vec<&CheckpointSpec>) = specs.iter().partition(|spec| job.is_complete(spec));
    let of = devices.len().min(open.len());
    if of < 2 {
        return job.walk(wanted);
    }
    let before: Vec<Option<SystemTime>> = open.iter().map(|spec| job.recorded(&spec.id)).collect();
    let on_cpu = devices[..of].iter().filter(|device| **device == DeviceChoice::Cpu).count().max(1);
    let threads = (std::thread::available_parallelism().map_or(1, usize::from) / on_cpu).max(1);
    tracing::info!("{of} workers: {}", devices[..of].iter().map(|choice| name(*choice)).collect::<Vec<_>>().join(", "));
    let mut crew: Vec<Hand> = Vec::new();
    for (number, &device) in devices[..of].iter().enumerate() {
        match Hand::start(Worker { number, of, device }, arguments, threads) {
            Ok(hand) => crew.push(hand),
            // As many as there are do it too.
            Err(error) if !crew.is_empty() => tracing::warn!("{error:#}"),
            Err(error) => return Err(error),
        }
    }
    let ended = || open.iter().zip(&before).map(|(spec, before)| job.ended_since(&spec.id, *before));
    let interrupted = attend(&mut crew, open.len(), &|| ended().filter(Option::is_some).count());
    if let Some(signal) = interrupted {
        return Err(Interrupted(signal).into());
    }
    let mut outcome = Outcome { skipped: complete.iter().filter(|spec| !spec.reinitialised).count(), ..Outcome::default() };
    for (spec, record) in open.iter().zip(ended()) {
        match record {
            Some(record) if record.status == "failed" => outcome.failed += 1,
            Some(_) => outcome.walked += usize::from(!spec.reinitialised),
            None => outcome.busy += usize::from(!spec.reinitialised),
        }
    }
    let accidents: Vec<String> = crew.iter().filter_map(Hand::accident).collect();
    if let Some(first) = accidents.first() {
        if ended().any(|record| record.is_none()) {
            bail!("{}; what is complete is kept, run the same command again to go on", accidents.join(", "));
        }
        tracing::warn!("{first}; the others have walked what was left");
    }
    Ok(outcome)
}

/// Waits until all have ended, and returns the signal that asked for a stop, if one did.
fn attend(crew: &mut [Hand], len: usize, done: &dyn Fn() -> usize) -> Option<i32> {
    let bar = run_bar(len);
    let (mut told, mut looked) = (None, Instant::now());
    while crew.iter_mut().filter_map(|hand| hand.is_running().then_some(())).count() > 0 {
        if let (None, Err(Interrupted(signal))) = (told, check_interrupt()) {
            crew.iter_mut().for_each(|hand| hand.tell(signal));
            told = Some(signal);
        }
        if looked.elapsed() > Duration::from_secs(1) {
            bar.set_position(done() as u64);
            looked = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    for hand in crew {
        let _ = hand.lines.take().map(JoinHandle::join);
    }
    bar.finish_and_clear();
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_read_as_they_are_named() {
        use DeviceChoice::{Cpu, Cuda};
        assert_eq!(Devices::parse("all"), Ok(Devices::All));
        assert_eq!(Devices::parse("cuda:0,cuda:3"), Ok(Devices::These(vec![Cuda(0), Cuda(3)])));
        assert_eq!(Devices::parse("cpu:2"), Ok(Devices::These(vec![Cpu, Cpu])));
        assert_eq!(Devices::parse("cuda:1, cpu"), Ok(Devices::These(vec![Cuda(1), Cpu])));
        for wrong in ["", "gpu", "cpu:0", "cpu:-1", "cuda", "cuda:x", "cuda:0,", "all,cpu"] {
            assert!(Devices::parse(wrong).unwrap_err().starts_with("expected all, or a list"), "{wrong:?}");
        }
        assert!(Devices::parse("cuda:0,cuda:0").unwrap_err().contains("named twice"));
    }

    #[test]
    fn a_worker_reads_its_own_name() {
        let worker = Worker { number: 1, of: 3, device: DeviceChoice::Cuda(2) };
        assert_eq!(Worker::parse(&worker.argument()), Ok(worker));
        for wrong in ["", "1/2", "1/0@cpu", "x/2@cpu", "0/1@gpu"] {
            assert!(Worker::parse(wrong).is_err(), "{wrong}");
        }
    }
}
