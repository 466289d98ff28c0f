//! `report.html`: one page about a run that opens from the disk, without network, with or without scripts.
//!
//! Rows come in ([`rows`]), from tables ([`tables`]) or from memory; every section is a function from them to HTML with drawings in SVG.
//! Each number in words says in `data-at` which row and column of which table it is. Style and script are files beside this one.

mod html;
mod measures;
mod time;
pub mod rows;
mod tables;
mod cells;
mod onsets;
mod curves;
mod maps;
mod lags;
mod evidence;
mod causes;
mod audits;
mod head;
mod origin;

use crate::table::write_atomically;
use anyhow::Result;
use html::{Drawings, escape};
use rows::Rows;
use std::io::Write;
use std::path::{Path, PathBuf};

/// Name of the page in a run's folder.
pub const PAGE: &str = "report.html";
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("script.js");

/// Writes the page of a run, by default into its folder, and returns where it is.
///
/// # Errors
/// The run was not analysed, a table is of another version, or the page cannot be written.
pub fn write(folder: &Path, out: Option<&Path>, command: &str) -> Result<PathBuf> {
    let page = render(&Rows::read(folder)?, command);
    let path = out.map_or_else(|| folder.join(PAGE), Path::to_owned);
    let page = relinked(page, folder, &path);
    write_atomically(&path, |file| Ok(file.write_all(page.as_bytes())?))?;
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
        audits::html(rows),
        origin::html(rows, command),
    ];
    document(&rows.run.run, &body.concat())
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
    let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let (folder, home) = (absolute(folder), absolute(path));
    if home.parent() == Some(folder.as_path()) {
        return page;
    }
    let encode = |part: &str| percent_encoding::utf8_percent_encode(part, percent_encoding::NON_ALPHANUMERIC).to_string();
    let parts: Vec<String> = folder.components().skip(1).map(|part| encode(&part.as_os_str().to_string_lossy())).collect();
    let table = regex::Regex::new(r#"href="(\w+\.parquet)""#);
    table.map_or(page.clone(), |table| table.replace_all(&page, format!("href=\"file:///{}/$1\"", parts.join("/")).as_str()).into_owned())
}
