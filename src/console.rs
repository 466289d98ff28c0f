//! What people see while a job runs: log lines and progress on stderr, and the two signals that end it politely.
//!
//! On a terminal progress is a bar with rate and time left; elsewhere it is one plain line per step, fit for a job's log.

use clap::ValueEnum;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use signal_hook::consts::{SIGINT, SIGTERM};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tracing_subscriber::EnvFilter;

static BARS: LazyLock<MultiProgress> = LazyLock::new(MultiProgress::new);
static SIGNAL: LazyLock<Arc<AtomicUsize>> = LazyLock::new(Arc::default);

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Work was stopped by a signal; everything that was complete is written.
#[derive(Debug, thiserror::Error)]
#[error("interrupted; what is complete is kept, run the same command again to go on")]
pub struct Interrupted(pub usize);

/// Sends log lines to stderr and catches SIGINT and SIGTERM: the first asks for a stop between two layers, a second
/// ends the process at once.
///
/// # Errors
/// Handlers cannot be installed.
pub fn start(format: LogFormat, quiet: bool) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_env("SELFTRACE_LOG").unwrap_or_else(|_| EnvFilter::new(if quiet { "warn" } else { "info" }));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| BehindBars).with_target(false);
    match format {
        LogFormat::Json => log.json().flatten_event(true).init(),
        LogFormat::Text => log.without_time().with_level(false).with_ansi(std::io::stderr().is_terminal()).init(),
    }
    if format == LogFormat::Json || quiet {
        BARS.set_draw_target(ProgressDrawTarget::hidden());
    }
    let again = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal arms the shutdown that a second one finds.
        signal_hook::flag::register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
        signal_hook::flag::register(signal, Arc::clone(&again))?;
        signal_hook::flag::register_usize(signal, Arc::clone(&SIGNAL), signal as usize)?;
    }
    Ok(())
}

/// An error when a signal has arrived; called between layers.
///
/// # Errors
/// [`Interrupted`].
pub fn check_interrupt() -> Result<(), Interrupted> {
    match SIGNAL.load(Ordering::Relaxed) {
        0 => Ok(()),
        signal => Err(Interrupted(signal)),
    }
}

/// Writes log lines without tearing the bars.
struct BehindBars;

impl Write for BehindBars {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        BARS.suspend(|| std::io::stderr().write_all(line)).map(|()| line.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        std::io::stderr().flush()
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
