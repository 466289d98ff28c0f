//! Arguments in, exit code out.

use crate::analysis;
use crate::compare;
use crate::console::{self, LogFormat};
use crate::lab::benchmark::{self, Size};
use crate::lab::demo;
use crate::manifest::{CheckpointSpec, DeviceChoice, DtypeChoice, Layers, Manifest};
use crate::model::device;
use crate::report::{check, hypotheses, summary, verify};
use crate::series::Series;
use crate::walk::extract::{self, Keep, Words};
use crate::walk::job::{Job, Outcome};
use crate::walk::opened::{self, Opened};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use safetensors::Dtype;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// When, during post-training, does a language model develop something like a self?
///
/// Walks a series of checkpoints, reads the residual stream on self-related prompts and writes Parquet tables that say when
/// features appear, how strong they are, and how sure that is. Exit codes: 0 all done, 1 some checkpoints failed (the
/// rest is complete), 2 could not start, 130 or 143 interrupted (run again to go on).
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Arguments {
    /// How log lines on stderr look
    #[arg(long, global = true, value_enum, default_value = "text")]
    log_format: LogFormat,
    /// Only warnings and errors on stderr
    #[arg(long, short, global = true)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Walk every checkpoint and write the tables: the main job
    Run(ManifestArgument),
    /// Resolve everything and run nothing: the plan, what it will cost, and the integrity and lexical audits
    Check(CheckArguments),
    /// Read the checkpoints into the store, without analysing
    Walk(WalkArguments),
    /// Write the tables from the readouts that are there
    Analyze(AnalyzeArguments),
    /// Compare two runs of the same items: shifts of onset, differences of final level
    Compare(CompareArguments),
    /// Write activations of your own prompts to a safetensors file
    Extract(ExtractArguments),
    /// Compare every layer of a model with what transformers computes in the Python that is there
    Verify(VerifyArguments),
    /// List the concepts, or show one with its items, tokens and readout spans
    Concepts(ConceptsArguments),
    /// Post-train a tiny model with a known curriculum, walk it and analyse it
    Demo(DemoArguments),
    /// Plant concepts with a known answer, and score what is found beside the usual ways to date them
    Benchmark(BenchmarkArguments),
}

#[derive(Debug, Args)]
struct ManifestArgument {
    /// The manifest
    #[arg(default_value = "checkpoints.toml")]
    manifest: PathBuf,
}

#[derive(Debug, Args)]
struct CheckArguments {
    #[command(flatten)]
    manifest: ManifestArgument,
    /// Read and hash all weights for the integrity audit, which a walk does anyway
    #[arg(long)]
    weights: bool,
}

#[derive(Debug, Args)]
struct WalkArguments {
    #[command(flatten)]
    manifest: ManifestArgument,
    /// Walk only this checkpoint; may be given several times
    #[arg(long = "checkpoint", value_name = "ID")]
    checkpoints: Vec<String>,
    /// Walk the I-th of N parts of the series, counting from 1, as in 2/8
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    shard: Option<(usize, usize)>,
}

#[derive(Debug, Args)]
struct AnalyzeArguments {
    #[command(flatten)]
    manifest: ManifestArgument,
    /// Analyse a store made by any tool: a folder with run.json, items.parquet and readouts/
    #[arg(long, value_name = "DIR", conflicts_with = "manifest")]
    store: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct CompareArguments {
    /// The two run folders, A and B; differences are B minus A
    #[arg(value_names = ["RUN_A", "RUN_B"], num_args = 2, required_unless_present = "a", conflicts_with_all = ["a", "b"])]
    runs: Vec<PathBuf>,
    /// Several seeds of A, at least two; then the seed is the unit (Welch's t)
    #[arg(long, value_name = "RUN", num_args = 1.., requires = "b")]
    a: Vec<PathBuf>,
    /// Several seeds of B, at least two
    #[arg(long, value_name = "RUN", num_args = 1.., requires = "a")]
    b: Vec<PathBuf>,
    /// Folder for compare.parquet; <A>-vs-<B> beside the first run unless given
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Debug, Args)]
struct OverArguments {
    /// Folder of a PEFT LoRA adapter over the model; may be given several times, the first one over the model
    #[arg(long, value_name = "SOURCE")]
    adapter: Vec<String>,
    /// Key of config.json that need not be understood; may be given several times
    #[arg(long, value_name = "KEY")]
    ignore: Vec<String>,
}

#[derive(Debug, Args)]
struct ExtractArguments {
    /// Model folder in Hugging Face layout, or hub:OWNER/NAME[@REVISION][#SUBFOLDER]
    #[arg(long, value_name = "SOURCE")]
    model: String,
    #[command(flatten)]
    over: OverArguments,
    /// JSON lines with `text`, `messages` or `token_ids`, and optionally `id`; other columns are passed over
    #[arg(long, value_name = "FILE.jsonl")]
    prompts: PathBuf,
    /// Where to write
    #[arg(long, value_name = "FILE.safetensors")]
    out: PathBuf,
    /// Tokens to keep; the mean leaves out the tokenizer's special tokens
    #[arg(long, value_enum, default_value = "last")]
    readout: Keep,
    /// Layers to keep: all, or numbers as in 0,8,16 (0 is the embedding, l the output of block l before the final norm)
    #[arg(long, default_value = "all", value_parser = parse_layers)]
    layers: Layers,
    /// Type of the numbers in the output; the computation is in f32 on a CPU and in the model's own type on a GPU
    #[arg(long, default_value = "f32", value_parser = parse_dtype)]
    dtype: Dtype,
    /// auto, cpu, or cuda:N
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    device: DeviceChoice,
}

#[derive(Debug, Args)]
struct VerifyArguments {
    /// Model folder in Hugging Face layout, or hub:OWNER/NAME[@REVISION][#SUBFOLDER]
    #[arg(value_name = "SOURCE")]
    model: String,
    #[command(flatten)]
    over: OverArguments,
    /// A Python with torch and transformers, for adapters also peft
    #[arg(long, value_name = "PATH", default_value = "python3")]
    python: PathBuf,
}

#[derive(Debug, Args)]
struct ConceptsArguments {
    /// Concept to show
    name: Option<String>,
    /// Take packs, parameters, tokenizer and template from this manifest
    #[arg(long, value_name = "MANIFEST")]
    manifest: Option<PathBuf>,
    /// How many groups to show of every kind
    #[arg(long, default_value_t = 1)]
    groups: usize,
}

#[derive(Debug, Args)]
struct DemoArguments {
    /// Folder for the model, the manifest and the tables
    #[arg(long, default_value = "reports/demo")]
    out: PathBuf,
    /// Seed of the training and of the analysis
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[derive(Debug, Args)]
struct BenchmarkArguments {
    /// A small set of strata with few series: a minute or two
    #[arg(long)]
    quick: bool,
    /// Series per stratum and pairs of runs per comparison
    #[arg(long, value_name = "N")]
    series: Option<usize>,
    /// Folder for benchmark.parquet, benchmark_shapes.parquet and benchmark_compare.parquet
    #[arg(long, default_value = "reports/benchmark")]
    out: PathBuf,
}

/// Runs the program and returns its exit code.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = console::start(arguments.log_format, arguments.quiet) {
        eprintln!("error: {error:#}");
        return ExitCode::from(2);
    }
    match execute(arguments.command) {
        Ok(Outcome { failed: 0, .. }) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::from(1),
        Err(error) => match error.downcast_ref::<console::Interrupted>() {
            Some(interrupted) => {
                tracing::warn!("{interrupted}");
                ExitCode::from((128 + interrupted.0) as u8)
            }
            None => {
                tracing::error!("error: {error:#}");
                ExitCode::from(2)
            }
        },
    }
}

fn execute(command: Command) -> Result<Outcome> {
    match command {
        Command::Run(ManifestArgument { manifest }) => run(&manifest),
        Command::Check(arguments) => check(&arguments.manifest.manifest, arguments.weights),
        Command::Walk(arguments) => walk(&arguments),
        Command::Analyze(arguments) => analyze(&arguments),
        Command::Compare(arguments) => run_compare(&arguments),
        Command::Extract(arguments) => run_extract(&arguments),
        Command::Verify(arguments) => run_verify(&arguments),
        Command::Concepts(arguments) => concepts(&arguments),
        Command::Demo(arguments) => demo(&arguments),
        Command::Benchmark(arguments) => run_benchmark(&arguments),
    }
}

fn walk(arguments: &WalkArguments) -> Result<Outcome> {
    let job = Job::new(Manifest::load(&arguments.manifest.manifest)?)?;
    for id in &arguments.checkpoints {
        if !job.entries().any(|spec| spec.id == *id) {
            let known: Vec<&str> = job.entries().map(|spec| spec.id.as_str()).collect();
            bail!("--checkpoint {id}: no such checkpoint; there are {}", known.join(", "));
        }
    }
    let (part, parts) = arguments.shard.unwrap_or((1, 1));
    let wanted = |spec: &CheckpointSpec| {
        (arguments.checkpoints.is_empty() || arguments.checkpoints.contains(&spec.id)) && spec.order % parts == part - 1
    };
    job.walk(&wanted)
}

fn run_compare(arguments: &CompareArguments) -> Result<Outcome> {
    let (a, b) = if arguments.runs.len() == 2 { arguments.runs.split_at(1) } else { (&arguments.a[..], &arguments.b[..]) };
    let comparison = compare::compare(a, b, arguments.out.as_deref())?;
    print!("{}{}", summary::comparison(&comparison.rows), summary::void(&comparison.void));
    tracing::info!("table: {}", comparison.table.display());
    Ok(Outcome::default())
}

fn run_verify(arguments: &VerifyArguments) -> Result<Outcome> {
    let opened = opened::open(&arguments.model, "SOURCE", &arguments.over.adapter, &arguments.over.ignore)?;
    let verified = verify::verify(&opened.checkpoint, &arguments.python)?;
    print!("{}", verified.table());
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

fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    match parsed {
        Some((part, parts)) if (1..=parts).contains(&part) => Ok((part, parts)),
        _ => Err("expected I/N with 1 <= I <= N, as in 2/8".to_owned()),
    }
}

fn parse_layers(text: &str) -> Result<Layers, String> {
    if text == "all" {
        return Ok(Layers::All);
    }
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    numbers.map(Layers::Numbers).map_err(|_| "expected all, or numbers as in 0,8,16".to_owned())
}

fn parse_dtype(text: &str) -> Result<Dtype, String> {
    match text {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::BF16),
        _ => Err("expected f32, f16 or bf16".to_owned()),
    }
}

fn parse_device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|number| number.parse().ok())
            .map(DeviceChoice::Cuda)
            .ok_or_else(|| "expected auto, cpu or cuda:N".to_owned()),
    }
}

fn run(path: &Path) -> Result<Outcome> {
    let job = Job::new(Manifest::load(path)?)?;
    let mut outcome = job.walk(&|_| true)?;
    let Analyzed { written: analyzed, left_out } = analyze_store(&job.folder)?;
    let idle = outcome.walked == 0 && outcome.failed == 0 && !analyzed;
    outcome.failed = outcome.failed.max(left_out);
    if analyzed {
        print!("{}", check::findings(&job.audit(false)));
    }
    if idle {
        tracing::info!("{}: everything is up to date, nothing to do", job.folder.display());
    }
    Ok(outcome)
}

fn analyze(arguments: &AnalyzeArguments) -> Result<Outcome> {
    let folder = match &arguments.store {
        Some(folder) => folder.clone(),
        None => Manifest::load(&arguments.manifest.manifest)?.run.folder(),
    };
    let Analyzed { written, left_out } = analyze_store(&folder)?;
    if !written {
        tracing::info!("{}: the tables are up to date, nothing to do", folder.display());
    }
    Ok(Outcome { failed: left_out, ..Outcome::default() })
}

/// What became of the tables of a store.
struct Analyzed {
    written: bool,
    /// Checkpoints that they are without.
    left_out: usize,
}

/// Writes the tables of a store unless they are up to date.
fn analyze_store(folder: &Path) -> Result<Analyzed> {
    let series = Series::open(folder)?;
    for (point, error) in &series.missing {
        tracing::warn!("{}: left out: {error}", point.id);
    }
    let left_out = series.missing.len();
    if analysis::is_current(&series)? {
        return Ok(Analyzed { written: false, left_out });
    }
    let found = analysis::analyze(&series)?;
    print!("{}{}", summary::onsets(&found.onsets), hypotheses::text(&found.evidence));
    tracing::info!("tables: {}", folder.display());
    Ok(Analyzed { written: true, left_out })
}

fn check(path: &Path, weights: bool) -> Result<Outcome> {
    let job = Job::new(Manifest::load(path)?)?;
    let plan = check::plan(&job, weights)?;
    print!("{}", plan.text);
    Ok(Outcome { failed: plan.problems, ..Outcome::default() })
}

fn concepts(arguments: &ConceptsArguments) -> Result<Outcome> {
    let manifest = arguments.manifest.as_deref().map(Manifest::load).transpose()?;
    print!("{}", summary::concepts(manifest, arguments.name.as_deref(), arguments.groups)?);
    Ok(Outcome::default())
}

fn run_benchmark(arguments: &BenchmarkArguments) -> Result<Outcome> {
    let size = if arguments.quick { Size::QUICK } else { Size::FULL };
    let (series, pairs) = (arguments.series.unwrap_or(size.series), arguments.series.unwrap_or(size.pairs));
    let tables = benchmark::benchmark(Size { series, pairs, ..size })?;
    tables.write(&arguments.out)?;
    print!("{}", tables.render());
    tracing::info!("tables: {}", arguments.out.display());
    Ok(Outcome::default())
}

fn demo(arguments: &DemoArguments) -> Result<Outcome> {
    let demo = demo::demo(&arguments.out, arguments.seed)?;
    print!("{}\n{}", demo.table(), demo.evidence());
    let out = arguments.out.display();
    println!("\nThe series is in {out}/series, its manifest is {out}/checkpoints.toml, the tables are {out}/*.parquet.");
    Ok(demo.outcome)
}
