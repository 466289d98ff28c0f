//! Arguments in, exit code out.

use crate::cluster::crew::{self, Devices};
use crate::cluster::rank::{self, Share};
use crate::cluster::status::Status;
use crate::cluster::tables::{self, Updated};
use crate::cluster::{submit, watch};
use crate::compare;
use crate::console::{self, say};
use crate::guard::sentence;
use crate::lab::benchmark::{self, Size};
use crate::lab::demo;
use crate::lease;
use crate::manifest::{CheckpointSpec, DtypeChoice, Manifest};
use crate::model::device;
use crate::model::sample::Sampling;
use crate::report::{check, ended, page, summary, verify};
use crate::walk::extract::{self, Keep, Words};
use crate::walk::generate::{self, Wanted};
use crate::walk::job::{Job, Outcome};
use crate::walk::opened::{self, Opened};
use anyhow::{Context, Result, bail};
use clap::Parser;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

mod arguments;

use arguments::{
    AnalyzeArguments, Arguments, BenchmarkArguments, CheckArguments, Command, CompareArguments, ConceptsArguments, DemoArguments,
    ExtractArguments, GenerateArguments, ReportArguments, RunArguments, StatusArguments, VerifyArguments, WalkArguments,
};

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if console::start(arguments.log_format, arguments.quiet, lease::abandon).is_err() {
        return ExitCode::from(2);
    }
    match execute(arguments.command) {
        Ok(Outcome { unfinished: 1.., .. }) => ExitCode::from(3),
        Ok(Outcome { failed: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => match error.downcast_ref::<console::Interrupted>() {
            Some(interrupted) => {
                tracing::warn!("{interrupted}");
                ExitCode::from((128 + interrupted.0) as u8)
            }
            None => {
                tracing::error!("error: {}", sentence(&error));
                ExitCode::from(2)
            }
        },
    }
}

fn execute(command: Command) -> Result<Outcome> {
    match command {
        Command::Run(arguments) => run(&arguments),
        Command::Check(arguments) => check(&arguments),
        Command::Walk(arguments) => walk(&arguments),
        Command::Analyze(arguments) => analyze(&arguments),
        Command::Status(arguments) => status(&arguments),
        Command::Watch(arguments) => {
            let every = Duration::from_secs(arguments.every);
            watch::watch(&arguments.manifest.manifest, every, arguments.until.as_deref())
        }
        Command::Submit(arguments) => submit::submit(&arguments.manifest.manifest, &arguments.options),
        Command::Compare(arguments) => run_compare(&arguments),
        Command::Report(arguments) => report(&arguments),
        Command::Extract(arguments) => run_extract(&arguments),
        Command::Generate(arguments) => run_generate(&arguments),
        Command::Verify(arguments) => run_verify(&arguments),
        Command::Concepts(arguments) => concepts(&arguments),
        Command::Demo(arguments) => demo(&arguments),
        Command::Benchmark(arguments) => run_benchmark(&arguments),
    }
}

fn walk(arguments: &WalkArguments) -> Result<Outcome> {
    let manifest = Manifest::load(&arguments.manifest.manifest)?;
    let devices = arguments.devices.devices.as_ref().map(Devices::resolve).transpose()?.unwrap_or_default();
    let job = match (arguments.worker, devices.first()) {
        (Some(worker), _) => {
            worker.follow();
            Job::on_device(manifest, worker.device, Some((worker.number, worker.of)))?
        }
        (None, Some(&first)) => Job::on_device(manifest, first, None)?,
        (None, None) => Job::new(manifest)?,
    };
    for id in &arguments.checkpoints {
        if !job.entries().any(|spec| spec.id == *id) {
            let known: Vec<&str> = job.entries().map(|spec| spec.id.as_str()).collect();
            bail!("--checkpoint {id}: no such checkpoint; there are {}", known.join(", "));
        }
    }
    let whole = Share::Part { part: 1, parts: 1 };
    let share = match arguments.shard {
        Some((part, parts)) => Share::Part { part, parts },
        None if !arguments.checkpoints.is_empty() => whole,
        None => rank::share(&|name| std::env::var(name).ok()).map_or(whole, |(share, rule)| {
            tracing::info!("{rule}");
            share
        }),
    };
    let (first, part, parts) = match share {
        Share::Part { part, parts } => (0, part, parts),
        Share::From(first) => (first, 1, 1),
    };
    let wanted = |spec: &CheckpointSpec| {
        (arguments.checkpoints.is_empty() || arguments.checkpoints.contains(&spec.id)) && spec.order % parts == part - 1
    };
    if devices.is_empty() {
        return job.walk_from(first, &wanted);
    }
    let mut same: Vec<OsString> = walk_arguments(&arguments.manifest.manifest, (part, parts));
    same.extend(arguments.checkpoints.iter().flat_map(|id| ["--checkpoint".into(), id.into()]));
    crew::walk(&job, &devices, &same, &wanted)
}

/// The command line of a walk of one part of a series, whatever the environment says of a rank.
fn walk_arguments(manifest: &Path, (part, parts): (usize, usize)) -> Vec<OsString> {
    vec!["walk".into(), manifest.into(), "--shard".into(), format!("{part}/{parts}").into()]
}

fn run_compare(arguments: &CompareArguments) -> Result<Outcome> {
    let (a, b) = if arguments.runs.len() == 2 { arguments.runs.split_at(1) } else { (&arguments.a[..], &arguments.b[..]) };
    let comparison = compare::compare(a, b, arguments.out.as_deref())?;
    say(&format!("{}{}", summary::comparison(&comparison.rows), summary::void(&comparison.void)));
    tracing::info!("table: {}", comparison.table.display());
    ended::after_comparison(&comparison, [&a[0], &b[0]]);
    Ok(Outcome::default())
}

/// Writes the page that is asked for.
fn report(arguments: &ReportArguments) -> Result<Outcome> {
    let out = arguments.out.as_deref();
    let page = match &arguments.run_b {
        None => page::write(&arguments.run, out, &ended::command())?,
        Some(run_b) => {
            let (a, b) = (&arguments.run, run_b);
            let comparison = compare::compare(std::slice::from_ref(a), std::slice::from_ref(b), None)?;
            page::write_comparison(&comparison, [a, b], out, &ended::command())?
        }
    };
    tracing::info!("page: {}", page.display());
    Ok(Outcome::default())
}

fn run_verify(arguments: &VerifyArguments) -> Result<Outcome> {
    let opened = opened::open(&arguments.model, "SOURCE", &arguments.over.adapter, &arguments.over.ignore)?;
    let verified = verify::verify(&opened.checkpoint, &arguments.python)?;
    say(&verified.table());
    Ok(Outcome { failed: usize::from(!verified.agrees()), ..Outcome::default() })
}

fn run_extract(arguments: &ExtractArguments) -> Result<Outcome> {
    let Opened { checkpoint, folders } = opened::open(&arguments.model, "--model", &arguments.over.adapter, &arguments.over.ignore)?;
    // An adapter's own words come before those of the model under it.
    let folders: Vec<&Path> = folders.iter().map(PathBuf::as_path).collect();
    extract::check_out(&arguments.out, &[&folders[..], &[arguments.prompts.as_path()]].concat())?;
    let layers = arguments.layers.resolve(checkpoint.config.n_layers).context("--layers")?;
    let prompts = extract::read_prompts(&arguments.prompts, &Words { folders }, arguments.readout == Keep::Mean)?;
    let compute = device::compute(device::resolve(arguments.device)?, DtypeChoice::Auto, checkpoint.weights.kind());
    extract::extract(&checkpoint, &prompts, arguments.readout, &layers, arguments.dtype, compute, &arguments.out)?;
    Ok(Outcome::default())
}

fn run_generate(arguments: &GenerateArguments) -> Result<Outcome> {
    let Opened { checkpoint, folders } = opened::open(&arguments.model, "--model", &arguments.over.adapter, &arguments.over.ignore)?;
    let words = Words { folders: folders.iter().map(PathBuf::as_path).collect() };
    let prompts = extract::read_prompts(&arguments.prompts, &words, false)?;
    let compute = device::compute(device::resolve(arguments.device)?, DtypeChoice::Auto, checkpoint.weights.kind());
    let wanted = Wanted {
        max_tokens: arguments.max_tokens as usize,
        sampling: Sampling { temperature: arguments.temperature, top_p: arguments.top_p },
        seeds: u64::from(arguments.seeds),
        stream: arguments.stream,
    };
    let failed = generate::generate(&checkpoint, &words, &prompts, wanted, compute, &mut std::io::stdout())?;
    Ok(Outcome { failed, ..Outcome::default() })
}

fn run(arguments: &RunArguments) -> Result<Outcome> {
    let path = &arguments.manifest.manifest;
    let manifest = Manifest::load(path)?;
    let Some(devices) = &arguments.devices.devices else {
        return tables::run(&Job::new(manifest)?);
    };
    let devices = devices.resolve()?;
    let job = Job::on_device(manifest, devices[0], None)?;
    tables::after(&job, crew::walk(&job, &devices, &walk_arguments(path, (1, 1)), &|_| true)?)
}

fn analyze(arguments: &AnalyzeArguments) -> Result<Outcome> {
    let (folder, wanted) = match &arguments.store {
        Some(folder) => (folder.clone(), true),
        None => Manifest::load(&arguments.manifest.manifest).map(|manifest| (manifest.run.folder(), manifest.run.report))?,
    };
    let Updated { written, left_out } = tables::update(&folder)?;
    ended::after(&folder, wanted, written.as_ref());
    if written.is_none() {
        tracing::info!("{}: the tables are up to date, nothing to do", folder.display());
    }
    Ok(Outcome { failed: left_out, ..Outcome::default() })
}

fn status(arguments: &StatusArguments) -> Result<Outcome> {
    let status = Status::of(&Job::looking(Manifest::load_growing(&arguments.manifest.manifest)?)?);
    say(&if arguments.json { status.json()? } else { status.text() });
    Ok(status.outcome())
}

fn check(arguments: &CheckArguments) -> Result<Outcome> {
    let manifest = Manifest::load(&arguments.manifest.manifest)?;
    let devices = arguments.devices.devices.as_ref().map(Devices::resolve).transpose()?.unwrap_or_default();
    let job = devices.first().map_or_else(|| Job::new(manifest.clone()), |&first| Job::on_device(manifest.clone(), first, None))?;
    let plan = check::plan(&job, arguments.weights, &devices)?;
    say(&plan.text);
    Ok(Outcome { failed: plan.problems, ..Outcome::default() })
}

fn concepts(arguments: &ConceptsArguments) -> Result<Outcome> {
    let manifest = arguments.manifest.as_deref().map(Manifest::load).transpose()?;
    say(&summary::concepts(manifest, arguments.name.as_deref(), arguments.groups)?);
    Ok(Outcome::default())
}

fn run_benchmark(arguments: &BenchmarkArguments) -> Result<Outcome> {
    let size = if arguments.quick { Size::QUICK } else { Size::FULL };
    let (series, pairs) = (arguments.series.unwrap_or(size.series), arguments.series.unwrap_or(size.pairs));
    let features = arguments.series.unwrap_or(size.features).min(size.features);
    let tables = benchmark::benchmark(Size { series, pairs, features, ..size })?;
    tables.write(&arguments.out)?;
    say(&tables.render());
    tracing::info!("tables: {}", arguments.out.display());
    Ok(Outcome::default())
}

fn demo(arguments: &DemoArguments) -> Result<Outcome> {
    let demo = demo::demo(&arguments.out, arguments.seed, arguments.order)?;
    let out = arguments.out.display();
    let places = format!("The series is in {out}/series, its manifest is {out}/checkpoints.toml, the tables are {out}/*.parquet.");
    say(&format!("{}\n{}\n{places}\n", demo.table(), demo.evidence()));
    if let Some(page) = ended::after(&arguments.out, true, Some(&demo.tables)) {
        say(&format!("Look at {}\n", page.display()));
    }
    Ok(demo.outcome)
}
