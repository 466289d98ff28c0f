//! Organisms by weight surgery, walked, analysed and named, for `benches/organisms.sh`.
//!
//!     organisms [SEEDS [FOLDER [ORGANISM]]]
//!
//! Prints organism by part of the evidence over seeds 0 .. SEEDS, and what is not as it has to be; exits 1 if anything is not. Series and
//! tables stay in FOLDER if one is given. One ORGANISM instead of all five, by name, makes many seeds affordable.

use anyhow::{Context, Result, ensure};
use selftrace::lab::naming::{name, table};
use selftrace::lab::organism::surgery::Organism;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    let seeds: u64 = arguments.next().map_or(Ok(5), |seeds| seeds.parse().context("usage: organisms [SEEDS [FOLDER [ORGANISM]]]"))?;
    let scratch = tempfile::tempdir()?;
    let folder = arguments.next().map_or_else(|| scratch.path().to_owned(), PathBuf::from);
    let only = arguments.next();
    let asked: Vec<Organism> =
        Organism::ALL.into_iter().filter(|organism| only.as_ref().is_none_or(|only| only == organism.name())).collect();
    ensure!(!asked.is_empty(), "no organism is called {}", only.unwrap_or_default());
    let begin = Instant::now();
    let mut namings = Vec::new();
    for organism in asked {
        for seed in 0..seeds {
            namings.push(name(&folder.join(organism.name()).join(seed.to_string()), organism, seed)?);
        }
    }
    print!("{}", table(&namings));
    for naming in &namings {
        naming.faults.iter().for_each(|fault| println!("{} seed {}: {fault}", naming.organism.name(), naming.seed));
    }
    println!(
        "{} of {} named, {:.0} s",
        namings.iter().filter(|n| n.faults.is_empty()).count(),
        namings.len(),
        begin.elapsed().as_secs_f64()
    );
    Ok(if namings.iter().all(|naming| naming.faults.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
