//! `report.html`: one page about a run that opens from the disk, without network, with or without scripts.
//!
//! Rows come in ([`rows`]), from tables ([`tables`]) or from memory; every section is a function from them to HTML with drawings in SVG.
//! Each number in words says in `data-at` which row and column of which table it is. Style and script are files beside this one.

mod html;
mod measures;
pub mod time;
pub mod rows;
mod tables;
mod cells;
mod onsets;
mod curves;
mod maps;
mod lags;
mod evidence;
mod causes;
mod bars;
mod talks;
mod spoken;
mod thoughts;
mod audits;
mod head;
mod origin;
mod comparison;

use crate::compare::Comparison;
use crate::table::write_atomically;
use anyhow::Result;
use comparison::Compared;
use html::{Drawings, escape};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use rows::{Rows, RunFile};
use std::path::{Path, PathBuf};
pub use tables::AtHand;
use time::Time;

/// Name of the page in a run's folder.
pub const PAGE: &str = "report.html";
/// What an address may not have as it is.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Reads the tables of a run and writes its page, by default into its folder; returns where it is.
///
/// # Errors
/// The run was not analysed, a table is of another version, or the page cannot be written.
pub fn write(folder: &Path, out: Option<&Path>, command: &str) -> Result<PathBuf> {
    write_rows(&Rows::read(folder)?, folder, out, command)
}

/// As [`write()`], of rows that are at hand; `folder` is where their tables are.
///
/// # Errors
/// The page cannot be written.
pub fn write_rows(rows: &Rows, folder: &Path, out: Option<&Path>, command: &str) -> Result<PathBuf> {
    let path = out.map_or_else(|| folder.join(PAGE), Path::to_owned);
    let page = relinked(render(rows, command), folder, &path);
    write_atomically(&path, page.as_bytes())?;
    Ok(path)
}

/// The page of a run.
pub fn render(rows: &Rows, command: &str) -> String {
    let mut drawings = Drawings::default();
    let body = [
        head::html(rows),
        onsets::html(rows),
        curves::html(rows, &mut drawings),
        maps::layers(rows, &mut drawings),
        maps::pairs(rows, &mut drawings),
        lags::html(rows, &mut drawings),
        evidence::html(rows),
        causes::html(rows),
        thoughts::html(rows),
        talks::html(rows),
        spoken::html(rows),
        audits::html(rows),
        origin::html(rows, command),
    ];
    document(&rows.run.run, &body.concat())
}

/// Writes the page of a comparison into the folder of its tables, and returns where it is. Of several runs on a side the first gives the axis.
///
/// # Errors
/// A run is missing or of another version, or the page cannot be written.
pub fn write_comparison(comparison: &Comparison, [a, b]: [&Path; 2], out: Option<&Path>, command: &str) -> Result<PathBuf> {
    let folder = comparison.table.parent().unwrap_or(Path::new("."));
    let read = |folder: &Path| -> Result<(RunFile, Time)> {
        let run = RunFile::read(folder)?;
        let time = run.time(&tables::rows(&folder.join("checkpoints.parquet"))?)?;
        Ok((run, time))
    };
    let ((run_a, mut time_a), (run_b, time_b)) = (read(a)?, read(b)?);
    time_a.widen(&time_b);
    let path = out.map_or_else(|| folder.join(PAGE), Path::to_owned);
    let compared = Compared {
        rows: comparison.rows.iter().cloned().enumerate().collect(),
        void: comparison.void.iter().cloned().enumerate().collect(),
        pages: [a, b].map(|run| address(&run.join(PAGE), &home(&path))),
        a: run_a,
        b: run_b,
        time_a,
        time_b,
    };
    let [name_a, name_b] = [&compared.a.run, &compared.b.run];
    let page = document(&format!("{name_a} against {name_b}"), &comparison::html(&compared, command));
    let page = relinked(page, folder, &path);
    write_atomically(&path, page.as_bytes())?;
    Ok(path)
}

/// A whole document around what is in it.
fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>{} \u{b7} selftrace</title>\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"><meta name=\"color-scheme\" content=\"light dark\">\n\
         <link rel=\"icon\" href=\"data:,\"><style>\n{STYLE}</style></head>\n<body><main>\n{body}</main>\n<script>\n{SCRIPT}</script></body></html>\n",
        escape(title)
    )
}

/// Links to tables lead to the run's folder, wherever the page is.
fn relinked(page: String, folder: &Path, path: &Path) -> String {
    let home = address(folder, &home(path));
    if home == "." {
        return page;
    }
    let Ok(table) = regex::Regex::new(r#"href="(\w+\.parquet)""#) else { return page };
    table.replace_all(&page, format!("href=\"{home}/$1\"").as_str()).into_owned()
}

/// The folder of a file.
fn home(path: &Path) -> PathBuf {
    let path = absolute(path);
    path.parent().map_or_else(|| path.clone(), Path::to_owned)
}

fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

/// Address of a file or folder, as seen from a folder: both may be moved together.
fn address(path: &Path, from: &Path) -> String {
    let (path, from) = (absolute(path), absolute(from));
    let shared = path.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = std::iter::repeat_n("..".to_owned(), from.components().count() - shared);
    let encode = |part: std::path::Component| utf8_percent_encode(&part.as_os_str().to_string_lossy(), PLAIN).to_string();
    let parts: Vec<String> = up.chain(path.components().skip(shared).map(encode)).collect();
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Colours of a scheme by name, from the block of `:root` that follows `from`.
    fn colours(from: &str) -> std::collections::BTreeMap<String, [f64; 3]> {
        let rest = STYLE.split_once(from).unwrap().1;
        let block = rest.trim_start().trim_start_matches(":root {").split_once('}').unwrap().0;
        let rule = regex::Regex::new(r"--([\w-]+): #([0-9a-f]{6});").unwrap();
        let channel = |hex: &str, at: usize| f64::from(u8::from_str_radix(&hex[at..at + 2], 16).unwrap()) / 255.0;
        rule.captures_iter(block).map(|found| (found[1].to_owned(), [0, 2, 4].map(|at| channel(&found[2], at)))).collect()
    }

    /// Contrast of two colours by WCAG 2.2.
    fn contrast(a: [f64; 3], b: [f64; 3]) -> f64 {
        let linear = |c: f64| if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) };
        let light = |[r, g, b]: [f64; 3]| 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
        let (a, b) = (light(a) + 0.05, light(b) + 0.05);
        a.max(b) / a.min(b)
    }

    #[test]
    fn words_and_marks_stand_out_in_both_schemes() {
        assert!((contrast([0.0; 3], [1.0; 3]) - 21.0).abs() < 1e-9);
        for from in [":root {", "(prefers-color-scheme: dark) {"] {
            let colours = colours(from);
            for ground in ["paper", "shade"].map(|name| colours[name]) {
                for word in ["ink", "soft", "accent", "warn", "behaviour", "lens"] {
                    assert!(contrast(colours[word], ground) >= 4.5, "{word} in {from}: {}", contrast(colours[word], ground));
                }
                for measure in measures::MEASURES {
                    let name = if measure.name == "assistant_axis" { "axis" } else { measure.name };
                    assert!(contrast(colours[name], ground) >= 3.0, "{name} in {from}: {}", contrast(colours[name], ground));
                }
                assert!(contrast(colours["null-edge"], ground) >= 3.0, "null topics in {from}");
            }
            // Shades of maps get farther from the middle in steps that are seen.
            for side in [["p0", "p1", "p2", "p3", "p4"], ["p0", "n1", "n2", "n3", "n4"]] {
                for pair in side.windows(2) {
                    assert!(contrast(colours[pair[0]], colours[pair[1]]) > 1.1, "{pair:?} in {from}");
                }
                assert!(contrast(colours[side[0]], colours[side[4]]) >= 4.5, "{side:?} in {from}");
            }
        }
    }

    #[test]
    fn addresses_lead_from_one_folder_to_another() {
        let address = |path: &str, from: &str| address(Path::new(path), Path::new(from));
        assert_eq!(address("/runs/a b/report.html", "/runs/a-vs-b"), "../a%20b/report.html");
        assert_eq!(address("/runs/a", "/runs/a"), ".");
        assert_eq!(address("/runs/<a>/x", "/"), "runs/%3Ca%3E/x");
    }
}
