//! Arguments as people write them; what they say about themselves is `--help`.

use crate::cluster::crew::{Devices, Worker};
use crate::cluster::submit;
use crate::console::LogFormat;
use crate::lab::organism::Order;
use crate::manifest::{DeviceChoice, Layers};
use crate::walk::extract::Keep;
use clap::{Args, Parser, Subcommand};
use safetensors::Dtype;
use std::path::PathBuf;

/// When, during post-training, does a language model develop something like a self?
///
/// Walks a series of checkpoints, reads the residual stream on self-related prompts and writes Parquet tables that say when
/// features appear, how strong they are, and how sure that is. Exit codes: 0 all done, 1 some checkpoints failed (the
/// rest is complete), 2 could not start or no room to write, 3 unfinished (`status`), 130, 138 or 143 stopped by SIGINT,
/// SIGUSR1 or SIGTERM within 20 s (run again to go on).
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100)]
pub struct Arguments {
    /// How log lines on stderr look
    #[arg(long, global = true, value_enum, default_value = "text")]
    pub(super) log_format: LogFormat,
    /// Only warnings and errors on stderr
    #[arg(long, short, global = true)]
    pub(super) quiet: bool,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Walk every checkpoint and write the tables: the main job
    Run(RunArguments),
    /// Resolve everything and run nothing: the plan, what it will cost, and the integrity and lexical audits
    Check(CheckArguments),
    /// Read the checkpoints into the store, without analysing
    Walk(WalkArguments),
    /// Write the tables from the readouts that are there
    Analyze(AnalyzeArguments),
    /// How far a run is: per checkpoint waiting, running, done or failed; exit code 0 all done, 1 some failed, 3 unfinished
    Status(StatusArguments),
    /// Walk checkpoints as a training writes them, and analyse after each round
    Watch(WatchArguments),
    /// Write a batch script that walks what is missing, and hand it to the scheduler
    Submit(SubmitArguments),
    /// Compare two runs of the same items: shifts of onset, differences of final level
    Compare(CompareArguments),
    /// Write the page of a run, or of two runs beside each other: report.html
    Report(ReportArguments),
    /// Write activations of your own prompts to a safetensors file
    Extract(ExtractArguments),
    /// Write texts that go on from your own prompts, as JSON lines on stdout
    Generate(GenerateArguments),
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
pub(super) struct ManifestArgument {
    /// The manifest
    #[arg(default_value = "checkpoints.toml")]
    pub(super) manifest: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct DevicesArgument {
    /// Walk several checkpoints at once on this node, a process per device: all (CUDA devices), or a list such as
    /// cuda:0,cuda:1 or cpu:2 (two on the CPU)
    #[arg(long, value_name = "LIST", value_parser = Devices::parse)]
    pub(super) devices: Option<Devices>,
}

#[derive(Debug, Args)]
pub(super) struct RunArguments {
    #[command(flatten)]
    pub(super) manifest: ManifestArgument,
    #[command(flatten)]
    pub(super) devices: DevicesArgument,
}

#[derive(Debug, Args)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    pub(super) manifest: ManifestArgument,
    /// Read and hash all weights for the integrity audit, which a walk does anyway
    #[arg(long)]
    pub(super) weights: bool,
    #[command(flatten)]
    pub(super) devices: DevicesArgument,
}

#[derive(Debug, Args)]
pub(super) struct WalkArguments {
    #[command(flatten)]
    pub(super) manifest: ManifestArgument,
    /// Walk only this checkpoint; may be given several times
    #[arg(long = "checkpoint", value_name = "ID")]
    pub(super) checkpoints: Vec<String>,
    /// Walk the I-th of N parts of the series, counting from 1, as in 2/8; in an array of Slurm, Kubernetes, PBS, Grid Engine or
    /// HyperQueue each task has its part without this
    #[arg(long, value_name = "I/N", value_parser = parse_shard)]
    pub(super) shard: Option<(usize, usize)>,
    #[command(flatten)]
    pub(super) devices: DevicesArgument,
    /// Which of the processes of a `--devices` this is
    #[arg(long, hide = true, value_parser = Worker::parse, conflicts_with = "devices")]
    pub(super) worker: Option<Worker>,
}

#[derive(Debug, Args)]
pub(super) struct AnalyzeArguments {
    #[command(flatten)]
    pub(super) manifest: ManifestArgument,
    /// Analyse a store made by any tool: a folder with run.json, items.parquet and readouts/
    #[arg(long, value_name = "DIR", conflicts_with = "manifest")]
    pub(super) store: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct StatusArguments {
    #[command(flatten)]
    pub(super) manifest: ManifestArgument,
    /// One JSON object instead of a table
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct WatchArguments {
    #[command(flatten)]
    pub(super) manifest: ManifestArgument,
    /// Seconds between two looks; a checkpoint is walked when its files are whole and were the same at two looks
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) every: u64,
    /// End when this file is there, after a last round [default: `finished` in the run folder]
    #[arg(long, value_name = "FILE")]
    pub(super) until: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct SubmitArguments {
    #[command(flatten)]
    pub(super) manifest: ManifestArgument,
    #[command(flatten)]
    pub(super) options: submit::Options,
}

#[derive(Debug, Args)]
pub(super) struct CompareArguments {
    /// The two run folders, A and B; differences are B minus A
    #[arg(value_names = ["RUN_A", "RUN_B"], num_args = 2, required_unless_present = "a", conflicts_with_all = ["a", "b"])]
    pub(super) runs: Vec<PathBuf>,
    /// Several seeds of A, at least two; then the seed is the unit (Welch's t)
    #[arg(long, value_name = "RUN", num_args = 1.., requires = "b")]
    pub(super) a: Vec<PathBuf>,
    /// Several seeds of B, at least two
    #[arg(long, value_name = "RUN", num_args = 1.., requires = "a")]
    pub(super) b: Vec<PathBuf>,
    /// Folder for compare.parquet; <A>-vs-<B> beside the first run unless given
    #[arg(long, value_name = "DIR")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ReportArguments {
    /// The run's folder
    #[arg(value_name = "RUN")]
    pub(super) run: PathBuf,
    /// Another run of the same items, to be compared with the first
    #[arg(value_name = "RUN_B")]
    pub(super) run_b: Option<PathBuf>,
    /// Where to write; report.html in the run's folder, or in that of the comparison, unless given
    #[arg(long, value_name = "FILE")]
    pub(super) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct OverArguments {
    /// Folder of a PEFT LoRA adapter over the model; may be given several times, the first one over the model
    #[arg(long, value_name = "SOURCE")]
    pub(super) adapter: Vec<String>,
    /// Key of config.json that need not be understood; may be given several times
    #[arg(long, value_name = "KEY")]
    pub(super) ignore: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct ExtractArguments {
    /// Model folder in Hugging Face layout, or hub:OWNER/NAME[@REVISION][#SUBFOLDER]
    #[arg(long, value_name = "SOURCE")]
    pub(super) model: String,
    #[command(flatten)]
    pub(super) over: OverArguments,
    /// JSON lines with `text`, `messages` or `token_ids`, and optionally `id`; other columns are passed over, but for those that would change what a template writes
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) prompts: PathBuf,
    /// Where to write
    #[arg(long, value_name = "FILE.safetensors")]
    pub(super) out: PathBuf,
    /// Tokens to keep; the mean leaves out the tokenizer's special tokens
    #[arg(long, value_enum, default_value = "last")]
    pub(super) readout: Keep,
    /// Layers to keep: all, or numbers as in 0,8,16 (0 is the embedding, l the output of block l before the final norm)
    #[arg(long, default_value = "all", value_parser = parse_layers)]
    pub(super) layers: Layers,
    /// Type of the numbers in the output; the computation is in f32 on a CPU and in the model's own type on a GPU
    #[arg(long, default_value = "f32", value_parser = parse_dtype)]
    pub(super) dtype: Dtype,
    /// auto, cpu, or cuda:N
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    pub(super) device: DeviceChoice,
}

#[derive(Debug, Args)]
pub(super) struct GenerateArguments {
    /// Model folder in Hugging Face layout, or hub:OWNER/NAME[@REVISION][#SUBFOLDER]; it has to fit into memory as a whole
    #[arg(long, value_name = "SOURCE")]
    pub(super) model: String,
    #[command(flatten)]
    pub(super) over: OverArguments,
    /// JSON lines with `text`, `messages` or `token_ids`, and optionally `id`; other columns are passed over, but for those that would change what a template writes
    #[arg(long, value_name = "FILE.jsonl")]
    pub(super) prompts: PathBuf,
    /// Most tokens of a text; `finish` is "length" where it goes no further, and "stop" where the model ended it
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) max_tokens: u32,
    /// 0 takes the most probable token, 1 draws from the model's own distribution; settings of generation_config.json are not followed
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true, value_parser = parse_temperature)]
    pub(super) temperature: f64,
    /// Draw from the most probable tokens alone that hold this much probability
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true, value_parser = parse_top_p)]
    pub(super) top_p: f64,
    /// Texts per prompt, with the seeds 0 to N - 1
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) seeds: u32,
    /// Also write a line `id, seed, piece` as soon as some text is settled
    #[arg(long)]
    pub(super) stream: bool,
    /// auto, cpu, or cuda:N
    #[arg(long, default_value = "auto", value_parser = parse_device)]
    pub(super) device: DeviceChoice,
}

#[derive(Debug, Args)]
pub(super) struct VerifyArguments {
    /// Model folder in Hugging Face layout, or hub:OWNER/NAME[@REVISION][#SUBFOLDER]
    #[arg(value_name = "SOURCE")]
    pub(super) model: String,
    #[command(flatten)]
    pub(super) over: OverArguments,
    /// A Python with torch and transformers, for adapters also peft
    #[arg(long, value_name = "PATH", default_value = "python3")]
    pub(super) python: PathBuf,
}

#[derive(Debug, Args)]
pub(super) struct ConceptsArguments {
    /// Concept to show
    pub(super) name: Option<String>,
    /// Take packs, parameters, tokenizer and template from this manifest
    #[arg(long, value_name = "MANIFEST")]
    pub(super) manifest: Option<PathBuf>,
    /// How many groups to show of every kind
    #[arg(long, default_value_t = 1)]
    pub(super) groups: usize,
}

#[derive(Debug, Args)]
pub(super) struct DemoArguments {
    /// Folder for the model, the manifest and the tables
    #[arg(long, default_value = "reports/demo")]
    pub(super) out: PathBuf,
    /// Seed of the training and of the analysis
    #[arg(long, default_value_t = 0)]
    pub(super) seed: u64,
    /// What is taught first; a second demo needs a folder of its own
    #[arg(long, value_enum, default_value = "name-first")]
    pub(super) order: Order,
}

#[derive(Debug, Args)]
pub(super) struct BenchmarkArguments {
    /// A small set of strata with few series: a minute or two
    #[arg(long)]
    pub(super) quick: bool,
    /// Series per stratum and pairs of runs per comparison; of planted features at most as many
    #[arg(long, value_name = "N")]
    pub(super) series: Option<usize>,
    /// Folder for benchmark.parquet, benchmark_shapes.parquet, benchmark_compare.parquet and benchmark_features.parquet
    #[arg(long, default_value = "reports/benchmark")]
    pub(super) out: PathBuf,
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

fn parse_temperature(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| number.is_finite() && *number >= 0.0);
    number.ok_or_else(|| "expected 0 or a positive number, as in 0.7".to_owned())
}

fn parse_top_p(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number > 0.0 && *number <= 1.0);
    number.ok_or_else(|| "expected a number above 0, at most 1, as in 0.9".to_owned())
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
