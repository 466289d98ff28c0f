//! Contexts, and the hypotheses held against them: each is explained before its rows.

use super::cells::{Shades, class};
use super::html::{Figure, Source, absent, at_layer, escape, guide, percent, section};
use super::onsets::mark;
use super::rows::{Carried, Context, Numbered, Rows};
use crate::evidence::{Row, Verdict};
use crate::report::words::{HYPOTHESES, meaning, several};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const AXIS_READ: &str = "Each line is a context in which the same replies were read, at the last checkpoint: 0 is where the mean role lies \
     on the assistant axis, 1 the mean default context; bars are 95% intervals.";
const AXIS_CANNOT: &str = "The axis is one direction; a context may be far from the assistant without moving along it.";
const CARRIED_READ: &str = "How much of what was learned by the last checkpoint is said in each context: 1 as much as in none, 0 nothing, \
     below 0 the opposite.";
const CARRIED_CANNOT: &str = "These are answers. What carries them inside is in the persistence of the representation, below.";
const EVIDENCE_READ: &str = "Each row is one part of what a hypothesis predicts, at the last checkpoint: it supports or opposes only where \
     its whole interval is on one side of the threshold. Parts are never added up.";
const EVIDENCE_CANNOT: &str = "No row says that there is a self, and rows that point both ways are a finding. Nothing here is about \
     consciousness.";
/// Statuses of parts that were not looked at.
const UNASKED: [&str; 6] = ["not_run", "spec_explicit", "unclassified", "needs_seeds", "no_answers", "not_scored"];

/// The whole section.
pub fn html(rows: &Rows) -> String {
    let mut body = axis(rows) + &carried(rows);
    if body.is_empty() {
        body = absent(
            "No contexts were asked: with a <code>[personas]</code> table in the manifest, concepts are asked again under other personas \
             and in other formats.",
        );
    }
    section("evidence", "Is it more than a persona?", &(body + &hypotheses(rows)))
}

/// Where contexts lie on the assistant axis.
fn axis(rows: &Rows) -> String {
    let layer = rows.onsets.iter().find(|(_, row)| row.measure == "assistant_axis" && row.primary).and_then(|(_, row)| row.layer);
    let mut own: Vec<&Numbered<Context>> =
        rows.contexts.iter().filter(|(_, row)| row.projection.value.is_some() && (layer.is_none() || row.layer == layer)).collect();
    if own.is_empty() {
        return String::new();
    }
    own.sort_by(|(_, a), (_, b)| b.projection.value.unwrap_or(0.0).total_cmp(&a.projection.value.unwrap_or(0.0)));
    let ends = || own.iter().flat_map(|(_, row)| row.projection.parts()).flatten();
    let (low, high) = (ends().fold(0.0, f64::min), ends().fold(1.0, f64::max));
    let place = |value: f64| 0.03 + 0.94 * (value - low) / (high - low);
    let guides: String = [0.0, 1.0].map(|at| guide(place(at))).concat();
    let heads: String = [(0.0, "mean role"), (1.0, "default")]
        .map(|(at, name)| format!("<text x=\"{}\" y=\"27\" text-anchor=\"middle\">{name}</text>", percent(place(at))))
        .concat();
    let mut out = format!(
        "<h3>Contexts on the assistant axis{}</h3><table class=\"forest\"><caption class=\"hidden\">Contexts on the assistant axis</caption><thead><tr>\
         <th scope=\"col\">Context</th><th scope=\"col\">Kind</th><th scope=\"col\" class=\"plot\"><svg class=\"axis\" aria-hidden=\"true\">{heads}</svg></th>\
         <th scope=\"col\">Place</th></tr></thead><tbody>",
        layer.map_or_else(String::new, |layer| format!(", layer {layer}"))
    );
    for (at, row) in own {
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"m\">{}</td><td class=\"plot\"><svg class=\"mark\" aria-hidden=\"true\">{guides}{}</svg></td>\
             <td class=\"date\">{}</td></tr>",
            escape(&row.context),
            escape(&row.kind.replace('_', " ")),
            mark("m-assistant-axis", row.projection.parts().map(|value| value.map(place))),
            Source { table: "persona", row: *at }.triple("projection", row.projection)
        );
    }
    Figure { body: out + "</tbody></table>", read: AXIS_READ, cannot: AXIS_CANNOT, tables: &["persona"] }.html()
}

/// What is said in each context.
fn carried(rows: &Rows) -> String {
    let shown = |row: &Carried| !row.null_bank && !row.persona.is_empty() && row.persona != "default" && !row.persona.starts_with('(');
    let own: Vec<&Numbered<Carried>> = rows.carried.iter().filter(|(_, row)| shown(row)).collect();
    if own.is_empty() {
        return String::new();
    }
    let concepts: BTreeSet<&str> = own.iter().map(|(_, row)| row.concept.as_str()).collect();
    let mut contexts: Vec<(&str, &str)> = own.iter().map(|(_, row)| (row.persona_kind.as_str(), row.persona.as_str())).collect();
    contexts.sort_unstable();
    contexts.dedup();
    let cells: BTreeMap<(&str, &str), &&Numbered<Carried>> =
        own.iter().map(|cell| ((cell.1.persona.as_str(), cell.1.concept.as_str()), cell)).collect();
    let shades = Shades { zero: 0.0, most: 1.0, one_sided: false };
    let heads: String = concepts.iter().map(|concept| format!("<th scope=\"col\">{}</th>", escape(concept))).collect();
    let mut out = format!(
        "<h3>What is said in each context {}</h3><div class=\"wide\"><table class=\"grid\"><caption class=\"hidden\">Share that is said in each context</caption>\
         <thead><tr><th scope=\"col\">Context</th><th scope=\"col\">Kind</th>{heads}</tr></thead><tbody>",
        shades.legend()
    );
    for (kind, persona) in contexts {
        let _ = write!(out, "<tr><th scope=\"row\">{}</th><td>{}</td>", escape(persona), escape(&kind.replace('_', " ")));
        for concept in &concepts {
            let cell = cells.get(&(persona, concept));
            let shade = cell.and_then(|(_, row)| row.carried.value).map(|value| shades.shade(value));
            let text = match cell {
                Some((at, row)) if row.carried.value.is_some() => Source { table: "behaviour", row: *at }.triple("carried", row.carried),
                Some((_, row)) => format!("<small>{}</small>", escape(&meaning(&row.status))),
                None => "<small>not asked</small>".to_owned(),
            };
            let _ = write!(out, "<td><i class=\"{}\"></i>{text}</td>", class(shade));
        }
        out += "</tr>\n";
    }
    Figure { body: out + "</tbody></table></div>", read: CARRIED_READ, cannot: CARRIED_CANNOT, tables: &["behaviour"] }.html()
}

/// Every hypothesis with its sentence and its rows.
fn hypotheses(rows: &Rows) -> String {
    let mut body = String::from("<h3>Hypotheses</h3>");
    for (name, title, sentence) in HYPOTHESES {
        let own = || rows.evidence.iter().filter(|(_, row)| row.hypothesis == *name);
        let _ = write!(body, "<h4>{title}</h4><p class=\"hypothesis\">{sentence}</p>");
        let said: Vec<&Numbered<Row>> = own().filter(|(_, row)| !row.null_bank && !UNASKED.contains(&row.status.as_str())).collect();
        body += &table(&said, title);
        body += &null(&own().map(|(_, row)| row).filter(|row| row.null_bank && row.status == "ok").collect::<Vec<_>>());
        let mut unasked: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (_, row) in own().filter(|(_, row)| !row.null_bank && UNASKED.contains(&row.status.as_str())) {
            unasked.entry(row.status.as_str()).or_default().insert(&row.measure);
        }
        for (status, parts) in unasked {
            let parts: Vec<String> = parts.into_iter().map(|part| escape(&part.replace('_', " "))).collect();
            let _ = write!(
                body,
                "<p class=\"note\">Not looked at, or not for all concepts: {} ({}).</p>",
                parts.join(", "),
                escape(&meaning(status))
            );
        }
        if own().next().is_none() {
            body += &absent("No row: nothing of what it predicts was computed.");
        }
    }
    Figure { body, read: EVIDENCE_READ, cannot: EVIDENCE_CANNOT, tables: &["evidence"] }.html()
}

fn table(rows: &[&Numbered<Row>], title: &str) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut out = format!(
        "<div class=\"wide\"><table class=\"grid\"><caption class=\"hidden\">{title}</caption><thead><tr><th scope=\"col\">Concept</th><th scope=\"col\">Part</th>\
         <th scope=\"col\">Verdict</th><th scope=\"col\">Value</th><th scope=\"col\">Threshold</th><th scope=\"col\">At first</th><th scope=\"col\">What is to be known</th></tr></thead><tbody>"
    );
    for (at, row) in rows {
        let source = Source { table: "evidence", row: *at };
        let (sign, kind) = match row.verdict {
            Verdict::Supports => ("\u{25b2}", "supports"),
            Verdict::Opposes => ("\u{25bc}", "opposes"),
            Verdict::Inconclusive => ("\u{25c6}", "open"),
        };
        let layer = at_layer(row.layer);
        let known = match (row.status.as_str(), row.gate.as_str()) {
            ("ok", "ok" | "not_run" | "") => String::new(),
            ("ok", gate) => format!("its contrast: {}", meaning(gate)),
            (status, _) => meaning(status),
        };
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td>{}{layer}</td><td class=\"{kind}\">{sign} {}</td><td>{}</td><td>{}</td><td>{}</td><td><small>{}</small></td></tr>",
            escape(&row.concept),
            escape(&row.measure.replace('_', " ")),
            escape(row.verdict.as_str()),
            source.triple("value", row.value),
            row.threshold.map_or_else(|| "\u{2013}".to_owned(), |_| source.number("threshold", row.threshold)),
            row.reference.map_or_else(|| "\u{2013}".to_owned(), |_| source.number("reference", row.reference)),
            escape(&known)
        );
    }
    out + "</tbody></table></div>"
}

/// How often null topics would support it, part by part.
fn null(rows: &[&Row]) -> String {
    let mut parts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for row in rows {
        let (supports, all) = parts.entry(&row.measure).or_default();
        *supports += usize::from(row.verdict == Verdict::Supports);
        *all += 1;
    }
    if parts.is_empty() {
        return String::new();
    }
    let parts: Vec<String> =
        parts.iter().map(|(part, (supports, all))| format!("{}: {supports} of {all}", escape(&part.replace('_', " ")))).collect();
    format!(
        "<p class=\"note\">Null topics that would support it, {} that say something: {}.</p>",
        several(rows.len(), "row"),
        parts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_topics_are_counted_by_part() {
        let row = |measure: &str, verdict| Row { measure: measure.to_owned(), verdict, ..Row::default() };
        let rows = [row("persistence", Verdict::Supports), row("persistence", Verdict::Opposes), row("icc_item", Verdict::Inconclusive)];
        let text = null(&rows.iter().collect::<Vec<_>>());
        assert!(text.contains("icc item: 0 of 1, persistence: 1 of 2"), "{text}");
    }
}
