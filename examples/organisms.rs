//! Organisms by weight surgery, walked, analysed and named, for `benches/organisms.sh`.
//!
//!     organisms [SEEDS [FOLDER [ORGANISM]]]
//!
//! Prints organism by part of the evidence over seeds 0 .. SEEDS, what is said of those that are asked about injected thoughts, and what is not
//! as it has to be; exits 1 if anything is not. Series and tables stay in FOLDER if one is given. One ORGANISM instead of all nine, by name,
//! makes many seeds affordable.

use anyhow::{Context, Result, ensure};
use selftrace::lab::introspecting::find;
use selftrace::lab::naming::{name, table};
use selftrace::lab::organism::introspective;
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
    let is_asked = |organism: &introspective::Organism| only.as_ref().is_none_or(|only| only == organism.name());
    let thinking: Vec<introspective::Organism> = introspective::Organism::ALL.into_iter().filter(is_asked).collect();
    ensure!(!asked.is_empty() || !thinking.is_empty(), "no organism is called {}", only.unwrap_or_default());
    let begin = Instant::now();
    let mut namings = Vec::new();
    for organism in asked {
        for seed in 0..seeds {
            namings.push(name(&folder.join(organism.name()).join(seed.to_string()), organism, seed)?);
        }
    }
    print!("{}", if namings.is_empty() { String::new() } else { table(&namings) });
    let mut faults: Vec<String> = Vec::new();
    for naming in &namings {
        faults.extend(naming.faults.iter().map(|fault| format!("{} seed {}: {fault}", naming.organism.name(), naming.seed)));
    }
    let (mut named, mut all) = (namings.iter().filter(|naming| naming.faults.is_empty()).count(), namings.len());
    for organism in thinking {
        for seed in 0..seeds {
            let found = find(&folder.join(organism.name()).join(seed.to_string()), organism, seed)?;
            println!(
                "{} seed {seed}: {}, dated {}, evidence {}, {:.2} nats, {:.2} beyond the highest control",
                organism.name(),
                found.status,
                found.date.map_or("-".to_owned(), |date| format!("{date:.0}")),
                found.verdict,
                found.score,
                found.excess
            );
            (named, all) = (named + usize::from(found.faults.is_empty()), all + 1);
            faults.extend(found.faults.iter().map(|fault| format!("{} seed {seed}: {fault}", organism.name())));
        }
    }
    faults.iter().for_each(|fault| println!("{fault}"));
    println!("{named} of {all} named, {:.0} s", begin.elapsed().as_secs_f64());
    Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
