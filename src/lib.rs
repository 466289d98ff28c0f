//! selftrace walks a series of post-training checkpoints and writes the tables that say when self-related features appear.
//!
//! Modules stand in the order in which data flow; each imports only from those above it. To follow one prompt from
//! `checkpoints.toml` to a row of `onset.parquet`, read from top to bottom, or open `walk` first.

/// Log lines, progress and signals.
pub mod console;
/// Panics and deep recursion of other people's code.
pub mod guard;
/// Who is at work: leases and partial files.
pub mod lease;
/// Parquet files: the row struct is the schema.
pub mod table;
/// Words that stand in tables.
pub mod words;
/// `checkpoints.toml`, validated.
pub mod manifest;
/// Statistics on arrays.
pub mod stats;
/// A checkpoint's files: downloads, mapped weights, fingerprints.
pub mod checkpoint;
/// Concepts to items to frozen token ids to a forest.
pub mod prompt;
/// One decoder for all families, streamed block by block over the forest.
pub mod model;
/// Sparse dictionaries along a series: crosscoders, how they are fitted, and how strong their latents are.
pub mod dictionary;
/// The main loop: every checkpoint over the forest, its readouts to the store.
pub mod walk;
/// A store of readouts, opened.
pub mod series;
/// Whether, when and in what shape something appears along the series.
pub mod onset;
/// What is followed along the series: contrast, probes, change, placement, behaviour, how all that fares under personas, and what it causes.
pub mod measure;
/// Hypotheses held against the measures.
pub mod evidence;
/// From a store to its tables, `onset.parquet` last.
pub mod analysis;
/// Two runs, or two sets of runs: which has a concept earlier, and which has more of it.
pub mod compare;
/// What is printed: plans, concepts, onsets, hypotheses, comparisons.
pub mod report;
/// Worlds whose truth is known: the organism and its demo, organisms that are to be named, planted items.
pub mod lab;
/// Runs as jobs: tables, ranks, status, watching, submission.
pub mod cluster;
/// Arguments in, exit code out.
pub mod cli;
