//! Demos over seeds and kinds of arithmetic, for `benches/machines.sh`.
//!
//!     machines one FOLDER SEED ARITHMETIC     a demo in FOLDER; prints its tally as a line of JSON
//!     machines again FOLDER ARITHMETIC        the same of a demo whose readouts are in FOLDER, analysed anew
//!     machines table FILE                     the table of such lines; exits 1 if more runs err than the level allows

use anyhow::{Context, Result, bail};
use selftrace::analysis::analyze;
use selftrace::lab::demo::{Demo, demo};
use selftrace::lab::organism::Order;
use selftrace::lab::tally::{Tally, table};
use selftrace::series::Series;
use selftrace::stats::share::wilson;
use std::path::Path;
use std::process::ExitCode;

/// The share of runs in which anything untaught may be dated.
const LEVEL: f64 = 0.05;

fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["one", folder, seed, arithmetic] => {
            let found = demo(Path::new(folder), seed.parse().context("SEED is a number")?, Order::NameFirst)?;
            println!("{}", serde_json::to_string(&found.tally(arithmetic))?);
            Ok(ExitCode::SUCCESS)
        }
        ["again", folder, arithmetic] => {
            let folder = Path::new(folder);
            analyze(&Series::open(folder)?)?;
            println!("{}", serde_json::to_string(&Demo::read(folder)?.tally(arithmetic))?);
            Ok(ExitCode::SUCCESS)
        }
        ["table", file] => {
            let text = std::fs::read_to_string(file).with_context(|| format!("{file}: cannot be read"))?;
            let tallies = text.lines().map(serde_json::from_str).collect::<Result<Vec<Tally>, _>>().with_context(|| (*file).to_owned())?;
            print!("{}", table(&tallies));
            let erring = tallies.iter().filter(|tally| !tally.untaught_dated.is_empty()).count();
            // Few runs cannot show a share; that it is above the level they can.
            let above = wilson(erring, tallies.len()).0 > LEVEL;
            Ok(if above { ExitCode::FAILURE } else { ExitCode::SUCCESS })
        }
        _ => bail!("usage: machines one FOLDER SEED ARITHMETIC | machines again FOLDER ARITHMETIC | machines table FILE"),
    }
}
