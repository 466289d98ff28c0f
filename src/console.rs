//! What people see while a job runs: log lines and progress on stderr, and the signals that end it politely.
//!
//! On a terminal progress is a bar with rate and time left; elsewhere it is one plain line per step, fit for
//! a job's log. A line that cannot be written ends no job.

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};
use signal_hook::iterator::Signals;
use signal_hook::low_level;
use std::io::{ErrorKind, IsTerminal, Write};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{LazyLock, OnceLock};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
static SIGNAL: AtomicI32 = AtomicI32::new(0);
/// The options of this process about log lines, for processes that it starts.
static FLAGS: OnceLock<Vec<&'static str>> = OnceLock::new();

/// How long after a signal the process ends, wherever it is then. Schedulers wait for 30 s, some for 20.
const GRACE: Duration = Duration::from_secs(15);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Work was stopped by a signal; everything that was complete is written.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what is complete is kept, run the same command again to go on")]
pub struct Interrupted(pub i32);

/// Sends log lines to stderr and catches SIGINT, SIGTERM and SIGUSR1. The first one asks for a stop, which
/// comes between two chunks of a layer or two tables; if it does not come within [`GRACE`], or at a second
/// SIGINT, `abandon` is called and the process ends. Whatever is written appears whole or not at all, so that
/// loses no more than a stop between two checkpoints would.
///
/// # Errors
/// Handlers cannot be installed.
pub fn start(format: LogFormat, quiet: bool, abandon: fn()) -> anyhow::Result<()> {
    let json = (format == LogFormat::Json).then_some("--log-format=json");
    let _ = FLAGS.set(json.into_iter().chain(quiet.then_some("--quiet")).collect());
    let filter = EnvFilter::try_from_env("SELFTRACE_LOG").unwrap_or_else(|_| EnvFilter::new(if quiet { "warn" } else { "info" }));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| BehindBars).with_target(false);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.without_time().with_level(false).with_ansi(std::io::stderr().is_terminal()).init(),
    }
    if format == LogFormat::Json || quiet {
        BARS.set_draw_target(ProgressDrawTarget::hidden());
    }
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGUSR1])?;
    let end = move |signal: i32| {
        abandon();
        low_level::exit(128 + signal)
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        for signal in signals.forever() {
            // A scheduler may send several, to this process and through its script.
            if SIGNAL.compare_exchange(0, signal, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
                std::thread::spawn(move || {
                    std::thread::sleep(GRACE);
                    end(signal)
                });
            } else if signal == SIGINT {
                end(signal)
            }
        }
    })?;
    Ok(())
}

/// An error when a signal has arrived; called between chunks of a layer and between tables.
///
/// # Errors
/// [`Interrupted`].
pub fn check_interrupt() -> Result<(), Interrupted> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Interrupted(signal)),
    }
}

/// Options with which another process of this program says as much as this one, in the same form.
pub fn flags() -> &'static [&'static str] {
    FLAGS.get().map_or(&[], Vec::as_slice)
}

/// Passes a line of such a process on to stderr, behind the bars.
pub fn relay(line: &[u8]) {
    let _ = BehindBars.write(line);
}

/// Prints what was asked for on stdout. Where nobody reads it any more, that is all right; a full disk is
/// said.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => tracing::warn!("stdout cannot be written: {error}"),
        _ => {}
    }
}

/// Writes log lines without tearing the bars. What cannot be written is lost: it would end the job for want
/// of a line.
struct BehindBars;

impl Write for BehindBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        let _ = BARS.suspend(|| std::io::stderr().write_all(line));
        Ok(line.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A bar for `len` steps; invisible where stderr is not a terminal.
pub fn bar(len: usize, label: &str) -> ProgressBar {
    styled(len as u64, label, "{msg:<28!} {wide_bar} {pos}/{len}  {per_sec}  {eta} left")
}

/// A bar for a whole run, above those of its checkpoints; invisible where there is one checkpoint, or no terminal.
pub fn run_bar(len: usize) -> ProgressBar {
    if len < 2 {
        return ProgressBar::hidden();
    }
    styled(len as u64, "all checkpoints", "{msg:<28!} {wide_bar} {pos}/{len}  {elapsed} gone  {eta} left")
}

/// A bar for `len` bytes that are downloaded; invisible where stderr is not a terminal.
pub fn bytes_bar(len: u64, label: &str) -> ProgressBar {
    styled(len, label, "{msg:<28!} {wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")
}

fn styled(len: u64, label: &str, template: &str) -> ProgressBar {
    let bar = BARS.add(ProgressBar::new(len).with_message(label.to_owned()));
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(250));
    bar
}
