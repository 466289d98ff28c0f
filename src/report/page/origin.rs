//! How the run was made: command, hashes, versions, every checkpoint's files, and the manifest as it was resolved.

use super::html::{escape, list, section};
use super::rows::Rows;
use std::fmt::Write;

/// The whole section.
pub fn html(rows: &Rows, command: &str) -> String {
    let run = &rows.run;
    let manifest = run.manifest["path"].as_str();
    let again = manifest.map_or_else(|| "not known: the store was made by another tool".to_owned(), |path| format!("selftrace run {path}"));
    let unknown = || "not known".to_owned();
    let facts = [
        ("This page", format!("<code>{}</code>", escape(command))),
        ("The run", format!("<code>{}</code>", escape(&again))),
        (
            "Version of selftrace",
            escape(&format!("{} walked, {} wrote this page", run.version.clone().unwrap_or_else(unknown), env!("CARGO_PKG_VERSION"))),
        ),
        ("Seed", run.seed.to_string()),
        ("Axis", escape(&run.axis.name())),
        ("Layers", escape(&list(&run.layers))),
        ("Readouts", escape(&list(&run.readouts))),
        ("Hash of the run", hash(run.run_hash.as_deref())),
        ("Hash of the items", hash(run.items.as_deref())),
        ("Hash of the ruler (tokenizer and template)", hash(run.ruler.as_deref())),
    ];
    let mut body = String::from("<dl>");
    for (name, value) in facts {
        let _ = write!(body, "<dt>{name}</dt><dd>{value}</dd>");
    }
    body += "</dl>";
    body += &checkpoints(rows);
    if !run.manifest.is_null() {
        let text = serde_json::to_string_pretty(&run.manifest).unwrap_or_default();
        let _ = write!(body, "<details><summary>The manifest as it was resolved</summary><pre>{}</pre></details>", escape(&text));
    }
    section("origin", "How was it made?", &body)
}

fn hash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).map_or_else(|| "not known".to_owned(), |text| format!("<code>{}</code>", escape(text)))
}

fn checkpoints(rows: &Rows) -> String {
    if rows.checkpoints.is_empty() {
        return String::new();
    }
    let mut out = String::from(
        "<details><summary>Every checkpoint with its source</summary><div class=\"wide\"><table class=\"grid\"><caption class=\"hidden\">Checkpoints</caption><thead><tr>\
         <th scope=\"col\">Checkpoint</th><th scope=\"col\">Stage</th><th scope=\"col\">Source</th><th scope=\"col\">Commit</th><th scope=\"col\">Fingerprint</th>\
         <th scope=\"col\">Read as</th><th scope=\"col\">To be known</th></tr></thead><tbody>",
    );
    for (_, row) in &rows.checkpoints {
        let known: Vec<String> = [&row.error, &row.left_out, &row.notes].into_iter().flatten().map(|text| escape(text)).collect();
        let short = |text: &Option<String>| {
            text.as_deref().map_or_else(|| "\u{2013}".to_owned(), |text| escape(&text.chars().take(12).collect::<String>()))
        };
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td><code>{}</code></td><td><code>{}</code></td><td>{}</td><td>{}</td></tr>",
            escape(&row.checkpoint),
            escape(&row.stage),
            escape(&row.source),
            short(&row.commit),
            short(&row.fingerprint),
            escape(&list([row.dtype.as_deref().unwrap_or("\u{2013}"), &row.device])),
            if known.is_empty() { "\u{2013}".to_owned() } else { known.join("; ") }
        );
    }
    out + "</tbody></table></div></details>"
}
