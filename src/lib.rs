//! selftrace walks a series of post-training checkpoints and writes the tables that say when self-related features appear.
//!
//! Modules stand in the order in which data flow; each imports only from those above it. To follow one prompt from
//! `checkpoints.toml` to a row of `onset.parquet`, read from top to bottom, or open `run` first.

/// Log lines, progress and signals.
pub mod console;
/// Panics and deep recursion of other people's code.
pub mod guard;
/// Who is at work: leases and partial files.
pub mod lease;
/// Parquet files: the row struct is the schema.
pub mod table;
/// `checkpoints.toml`, validated.
pub mod manifest;
/// Sign flips and bootstrap resamples, shared by everything.
pub mod draws;
/// A checkpoint's files: downloads, mapped weights, fingerprints.
pub mod checkpoint;
/// Concepts to items to frozen token ids to a forest.
pub mod prompt;
/// One decoder for all families, streamed block by block over the forest.
pub mod model;
/// Readouts on disk, one safetensors file per checkpoint.
pub mod store;
/// Stream x forest to readouts.
pub mod readout;
/// Whether the checkpoints are what their steps say.
pub mod audit;
/// A number with its interval.
pub mod estimate;
/// Products of row-major matrices.
pub mod matrix;
/// Cholesky factors of a few hundred unknowns.
pub mod cholesky;
/// Eigenvalues of a few dozen unknowns.
pub mod eigen;
/// How strongly a concept is represented at one checkpoint and layer.
pub mod probe;
/// Whether, when and in what shape it appears along the series.
pub mod emergence;
/// Assistant axis, roles, and what persists or is left beside them.
pub mod persona;
/// What directions do to self-descriptions and choices when they are added to the residual or taken out of it.
pub mod causal;
/// A tiny decoder, post-trained here with a known curriculum.
pub mod organism;
/// A store of readouts, opened.
pub mod series;
/// What is followed along the series: contrast, probes, change, placement, behaviour, how all that fares under personas, and what it causes.
pub mod measure;
/// What the curves say: gate, shape and date of every concept.
pub mod verdict;
/// Which of two measures dates a concept first.
pub mod leadlag;
/// Hypotheses held against the measures.
pub mod evidence;
/// From a store to its tables, `onset.parquet` last.
pub mod analysis;
/// Two runs, or two sets of runs: which has a concept earlier, and which has more of it.
pub mod compare;
/// Activations of any prompts.
pub mod extract;
/// The main loop.
pub mod run;
/// What is printed: concepts, onsets, comparisons.
pub mod summary;
/// What is printed about hypotheses.
pub mod hypotheses;
/// What `check` prints.
pub mod plan;
/// The organism, walked and analysed.
pub mod demo;
/// Organisms of a known kind, walked, analysed and named.
pub mod naming;
/// Planted items with a known answer, through the code of `analyze` and `compare`.
pub mod benchmark;
/// Arguments in, exit code out.
pub mod cli;
