//! Whether the model says where a thought was put, beside what it says when it is asked something else or given something else.

use super::html::{Figure, Source, absent, escape, guide, percent, section};
use super::onsets::mark;
use super::rows::{Numbered, Rows};
use crate::measure::introspection::{NAME, Row};
use crate::report::words::{meaning, number};
use std::fmt::Write;

const TITLE: &str = "Does it know what is put into it?";
const READ: &str = "Something was added while one of several sentences was read, and the model was asked in which. The dot is how much more \
     likely that sentence's label became than the others', in nats, the bar its 95% interval; the line is 0, where nothing is told. The first \
     row is the question about thoughts. It says something only where it is beyond all that follows: the same answer to other questions, and \
     to random directions or another sentence's activations.";
const CANNOT: &str = "A model that knows and does not say so by these labels is missed. That it says where does not say that it feels anything \
     there.";

/// The whole section: the last checkpoint, at the layer that is dated, in the largest strength that counts there.
pub fn html(rows: &Rows) -> String {
    let dated = rows.onsets.iter().find(|(_, row)| row.measure == NAME && row.primary).and_then(|(_, row)| row.layer);
    let layer = dated.or_else(|| rows.thoughts.iter().map(|(_, row)| row.layer).max());
    let at_layer = || rows.thoughts.iter().filter(|(_, row)| Some(row.layer) == layer);
    let is_place = |row: &Row| !matches!(row.question.as_str(), "stronger" | "about");
    let counts = |(_, row): &&Numbered<Row>| row.status == "ok" && row.strength.is_some() && is_place(row);
    let strength = at_layer().filter(counts).filter_map(|(_, row)| row.strength).max_by(f64::total_cmp);
    let (Some(layer), Some(strength)) = (layer, strength) else {
        let why = match rows.thoughts.first() {
            None => "Nothing was injected: with an <code>[introspection]</code> table in the manifest, thoughts are put into sentences, and the \
                     model is asked in which."
                .to_owned(),
            Some((_, row)) => format!("No strength counts: {}.", escape(&meaning(row.status.as_str()))),
        };
        return section("thoughts", TITLE, &absent(&why));
    };
    let shown = |(_, row): &&Numbered<Row>| match row.question.as_str() {
        // Of two thoughts the weaker one is named.
        "stronger" => row.status == "ok",
        _ => row.strength.is_none_or(|own| own == strength),
    };
    let own: Vec<&Numbered<Row>> = at_layer().filter(shown).collect();
    let ends = own.iter().flat_map(|(_, row)| row.score.parts()).flatten();
    let (low, high) = ends.fold((0.0f64, 0.1f64), |(low, high), x| (low.min(x), high.max(x)));
    let place = |x: f64| (0.03 + 0.94 * (x - low) / (high - low)).clamp(0.0, 1.0);
    let mut body = format!(
        "<table class=\"forest\"><caption class=\"hidden\">Scores by question and injection</caption><thead><tr><th scope=\"col\">Question</th>\
         <th scope=\"col\">Injected</th><th scope=\"col\" class=\"plot\"><svg class=\"axis\" aria-hidden=\"true\">\
         <text x=\"{}\" y=\"27\" text-anchor=\"middle\">0</text><text x=\"97%\" y=\"27\" text-anchor=\"end\">{} nats</text></svg></th>\
         <th scope=\"col\">Score</th><th scope=\"col\">First row beyond it</th></tr></thead><tbody>",
        percent(place(0.0)),
        number(high)
    );
    for (at, row) in own {
        let source = Source { table: NAME, row: *at };
        let colour = if row.question == "where" && row.injected == "thought" { "m-behaviour" } else { "m-other" };
        let plot = match row.score.value {
            Some(_) => {
                let places = row.score.parts().map(|x| x.map(place));
                format!("<svg class=\"mark\" aria-hidden=\"true\">{}{}</svg>", guide(place(0.0)), mark(colour, places))
            }
            None => format!("<span class=\"why\">{}</span>", escape(&meaning(row.status.as_str()))),
        };
        let excess = source.triple("excess", row.excess);
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td class=\"m\">{}{}</td><td class=\"plot\">{plot}</td><td class=\"date\">{}</td><td class=\"sure\">{}</td></tr>",
            escape(&row.question.replace('_', " ")),
            escape(&row.injected),
            row.strength.map_or_else(String::new, |strength| format!(" <small>{}</small>", number(strength))),
            if row.score.value.is_some() { source.triple("score", row.score) } else { "\u{2013}".to_owned() },
            if excess.is_empty() { "\u{2013}".to_owned() } else { excess },
        );
    }
    let head = format!("<p>At layer {layer}, {} times the length of the residual, at the last checkpoint.</p>", number(strength));
    section("thoughts", TITLE, &Figure { body: head + &body + "</tbody></table>", read: READ, cannot: CANNOT, tables: &[NAME] }.html())
}
