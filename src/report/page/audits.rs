//! Whether the data can be trusted: what was left out, what the files are, and what words alone give away.

use super::html::{Figure, Source, escape, section};
use super::rows::{Numbered, Rows};
use crate::report::words::{meaning, several};
use crate::stats::lexical::LexicalAudit;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const INTEGRITY_READ: &str = "Each row is something about a checkpoint's files that is not as its place in the series says. Those that would \
     put a wrong or a repeated point into a curve are left out.";
const INTEGRITY_CANNOT: &str = "It sees equal and implausible weights, not a wrong learning rate.";
const LEXICAL_READ: &str = "How well a bag of words, or the length of the text, tells the two labels apart (0.5 is chance), with groups held \
     out. Where words tell them apart, a probe might read them and not the concept: such a concept is not dated.";
const LEXICAL_CANNOT: &str = "It sees words and lengths, not what a phrase implies.";
/// Drifts and findings in words.
const KINDS: &[(&str, &str)] = &[
    ("duplicate_of", "has the weights of another checkpoint"),
    ("equals_final", "has the weights of the last checkpoint"),
    ("partial_duplicate", "has tensors of another step"),
    ("outlier_norm", "has tensors of an unlikely size"),
    ("no_change", "its adapter changes nothing"),
    ("nonfinite", "has numbers that are not finite"),
    ("vocab_drift", "has another vocabulary"),
    ("tokenizer_drift", "has another tokenizer"),
    ("template_drift", "has another chat template"),
    ("config_drift", "has another configuration"),
    ("dtype_drift", "has another type of numbers"),
    ("other_base", "its adapter says that it was trained over another base"),
];

/// The whole section.
pub fn html(rows: &Rows) -> String {
    let mut body = left_out(rows) + &integrity(rows) + &lexical(rows);
    if !rows.missing.is_empty() {
        let missing = super::html::list(rows.missing.iter().map(|table| format!("{table}.parquet")));
        let _ = write!(body, "<p class=\"note\">Not in the run's folder: {missing}.</p>");
    }
    section("audits", "Can the data be trusted?", &body)
}

/// Checkpoints that are on no curve, and why; all others with their state.
fn left_out(rows: &Rows) -> String {
    let reasons = reasons(rows);
    if reasons.is_empty() {
        return "<h3>Checkpoints</h3><p>All checkpoints were walked, and all are on the curves.</p>".to_owned();
    }
    let items: String = reasons.iter().map(|(id, why)| format!("<li><b>{}</b>: {}</li>", escape(id), escape(why))).collect();
    format!("<h3>Checkpoints that are on no curve</h3><ul>{items}</ul>")
}

/// Checkpoints that are left out, with a sentence each.
pub fn reasons(rows: &Rows) -> Vec<(&str, String)> {
    let mut out = Vec::new();
    for point in &rows.run.checkpoints {
        if rows.time.find(&point.id).is_some() {
            continue;
        }
        let row = rows.checkpoints.iter().map(|(_, row)| row).find(|row| row.checkpoint == point.id);
        let finding = rows.integrity.iter().find(|(_, (key, finding))| key.checkpoint == point.id && finding.excluded);
        let why = row.and_then(|row| row.error.clone().or_else(|| row.left_out.clone()));
        let why = why.or_else(|| finding.map(|(_, (_, finding))| format!("{} ({})", kind(&finding.kind), finding.detail)));
        out.push((point.id.as_str(), why.unwrap_or_else(|| "it was not walked".to_owned())));
    }
    out
}

fn kind(name: &str) -> String {
    KINDS.iter().find(|(known, _)| *known == name).map_or_else(|| name.replace('_', " "), |(_, words)| (*words).to_owned())
}

fn integrity(rows: &Rows) -> String {
    let head = "<h3>Files</h3>";
    if rows.integrity.is_empty() {
        return format!(
            "{head}<p>No finding: no checkpoint is a copy of another, and none drifts in tokenizer, template or configuration.</p>"
        );
    }
    let mut body = format!(
        "{head}<div class=\"wide\"><table class=\"grid\"><caption class=\"hidden\">Findings about files</caption><thead><tr><th scope=\"col\">Checkpoint</th>\
         <th scope=\"col\">Finding</th><th scope=\"col\">Compared with</th><th scope=\"col\">Detail</th><th scope=\"col\">Left out</th></tr></thead><tbody>"
    );
    for (_, (key, finding)) in &rows.integrity {
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&key.checkpoint),
            escape(&kind(&finding.kind)),
            finding.other.as_deref().map_or_else(|| "\u{2013}".to_owned(), escape),
            escape(&finding.detail),
            if finding.excluded { "yes" } else { "no" }
        );
    }
    Figure { body: body + "</tbody></table></div>", read: INTEGRITY_READ, cannot: INTEGRITY_CANNOT, tables: &["integrity"] }.html()
}

fn lexical(rows: &Rows) -> String {
    let head = "<h3>Words</h3>";
    if rows.lexical.is_empty() {
        return format!("{head}<p>There was nothing to audit: no concept of this run has labels that words could give away.</p>");
    }
    let null = rows.null_topics();
    let baselines: BTreeSet<&str> = rows.lexical.iter().map(|(_, row)| row.baseline.as_str()).collect();
    let mut cells: BTreeMap<(&str, &str), BTreeMap<&str, &Numbered<LexicalAudit>>> = BTreeMap::new();
    for cell in rows.lexical.iter().filter(|(_, row)| !null.contains(row.concept.as_str())) {
        cells.entry((&cell.1.concept, &cell.1.label_family)).or_default().insert(&cell.1.baseline, cell);
    }
    let heads: String = baselines.iter().map(|name| format!("<th scope=\"col\">{}</th>", escape(&of_baseline(name)))).collect();
    let mut body = format!(
        "{head}<div class=\"wide\"><table class=\"grid\"><caption class=\"hidden\">What words and lengths reach</caption><thead><tr><th scope=\"col\">Concept</th>\
         <th scope=\"col\">Items</th>{heads}<th scope=\"col\">Verdict</th></tr></thead><tbody>"
    );
    for ((concept, family), own) in &cells {
        let _ = write!(body, "<tr><th scope=\"row\">{}</th><td>{}</td>", escape(concept), escape(family));
        for name in &baselines {
            let text =
                own.get(name).map_or_else(String::new, |(at, row)| Source { table: "lexical_audit", row: *at }.triple("auroc", row.auroc));
            let _ = write!(body, "<td>{}</td>", if text.is_empty() { "\u{2013}" } else { &text });
        }
        let worst = own.values().map(|(_, row)| row.status.as_str()).find(|status| *status != "ok");
        let _ = writeln!(body, "<td>{}</td></tr>", worst.map_or_else(|| "words do not tell".to_owned(), |status| escape(&meaning(status))));
    }
    let of_null = rows.lexical.iter().filter(|(_, row)| null.contains(row.concept.as_str()));
    let leaky: BTreeSet<&str> =
        of_null.clone().filter(|(_, row)| row.status == "lexical_leak").map(|(_, row)| row.concept.as_str()).collect();
    let all: BTreeSet<&str> = of_null.map(|(_, row)| row.concept.as_str()).collect();
    body += "</tbody></table></div>";
    if !all.is_empty() {
        let _ = write!(body, "<p class=\"note\">Of {}, words give {} away.</p>", several(all.len(), "null topic"), leaky.len());
    }
    Figure { body, read: LEXICAL_READ, cannot: LEXICAL_CANNOT, tables: &["lexical_audit"] }.html()
}

fn of_baseline(name: &str) -> String {
    match name {
        "ngram" => "Words (AUROC)".to_owned(),
        "length" => "Length (AUROC)".to_owned(),
        name => format!("{} (AUROC)", name.replace('_', " ")),
    }
}
