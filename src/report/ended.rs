//! What stands at the end of a run: the forest plot, and the page.

use super::forest;
use super::page::{self, AtHand, rows::Rows};
use crate::compare::Comparison;
use crate::console::say;
use anyhow::Result;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};

/// Ends a run: the forest plot on stdout where it was just analysed, from the tables that are `at_hand` then, and the page where one is wanted
/// and missing or out of date. Tables are what counts, so a page that cannot be written is a warning.
pub fn after(folder: &Path, wanted: bool, at_hand: Option<&AtHand>) -> Option<PathBuf> {
    if at_hand.is_none() && (!wanted || folder.join(page::PAGE).is_file()) {
        return None;
    }
    let written = || -> Result<Option<PathBuf>> {
        let rows = at_hand.map_or_else(|| Rows::read(folder), |at_hand| Rows::of(folder, at_hand))?;
        if at_hand.is_some() {
            say(&forest::text(&rows, colours()));
        }
        if wanted { page::write_rows(&rows, folder, None, &command()).map(Some) } else { Ok(None) }
    };
    match written() {
        Ok(page) => {
            page.iter().for_each(|page| tracing::info!("page: {}", page.display()));
            page
        }
        Err(error) => {
            tracing::warn!("there is no page: {error:#}");
            None
        }
    }
}

/// Whether stdout takes colours: a terminal, and nobody said that there should be none (no-color.org).
fn colours() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Writes the page of a comparison beside its tables.
pub fn after_comparison(comparison: &Comparison, runs: [&Path; 2]) {
    match page::write_comparison(comparison, runs, None, &command()) {
        Ok(page) => tracing::info!("page: {}", page.display()),
        Err(error) => tracing::warn!("there is no page: {error:#}"),
    }
}

/// What was typed, so that it can be typed again.
pub fn command() -> String {
    let plain = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-_./=:@#,+".contains(c));
    let quoted = |word: String| if plain(&word) { word } else { format!("'{}'", word.replace('\'', r"'\''")) };
    let words = std::env::args_os().map(|word| word.to_string_lossy().into_owned());
    let name = |(at, word): (usize, String)| match at {
        0 => Path::new(&word).file_name().map_or(word.clone(), |name| name.to_string_lossy().into_owned()),
        _ => word,
    };
    words.enumerate().map(|word| quoted(name(word))).collect::<Vec<_>>().join(" ")
}
