//! What pushing the model along a concept does to what it says of itself and to what it chooses.

use super::html::{Figure, Source, absent, escape, guide, percent, section};
use super::onsets::mark;
use super::rows::Rows;
use crate::measure::causal::CONCEPT;
use crate::report::words::{meaning, number};
use std::fmt::Write;

const TITLE: &str = "Does it do anything?";
const READ: &str = "The dot is how much stronger the answer moves along the concept's direction than along random directions of the same \
     size and shape (1 is as much as they do), the bar its 95% interval; the line is where an effect is taken for real. <b>Report</b> is \
     what the model says of itself, <b>behaviour</b> what it chooses when nothing is said about the self.";
const CANNOT: &str = "Strengths that disturb neutral text or facts do not count, so a concept that acts only beyond them is missed. That a \
     direction acts does not say that the model uses it by itself.";

/// The whole section.
pub fn html(rows: &Rows) -> String {
    let own: Vec<_> = rows.causes.iter().filter(|(_, row)| !row.null_bank && row.direction == CONCEPT).collect();
    if own.is_empty() {
        let why = "Nothing was pushed: with a <code>[causal]</code> table in the manifest, directions are added to the residual stream and \
             projected out.";
        return section("causes", TITLE, &absent(why));
    }
    let threshold = rows.run.manifest["evidence"]["effect_z"].as_f64();
    let ends = own.iter().flat_map(|(_, row)| [row.z.value, row.z.upper]).flatten().chain(threshold);
    let most = ends.fold(1.0, f64::max);
    let place = |z: f64| (0.03 + 0.94 * z / most).clamp(0.0, 1.0);
    let guide = threshold.map_or_else(String::new, |z| guide(place(z)));
    let label = threshold
        .map_or_else(String::new, |z| format!("<text x=\"{}\" y=\"27\" text-anchor=\"middle\">{}</text>", percent(place(z)), number(z)));
    let mut body = format!(
        "<table class=\"forest\"><caption class=\"hidden\">Effects of directions</caption><thead><tr><th scope=\"col\">Concept</th><th scope=\"col\">Outcome</th>\
         <th scope=\"col\" class=\"plot\"><svg class=\"axis\" aria-hidden=\"true\"><text x=\"3%\" y=\"27\">0</text>{label}<text x=\"97%\" y=\"27\" text-anchor=\"end\">z {}</text></svg></th>\
         <th scope=\"col\">z</th><th scope=\"col\">When projected out</th></tr></thead><tbody>",
        number(most)
    );
    for (at, row) in own {
        let source = Source { table: "causal", row: *at };
        let plot = match row.z.value {
            Some(_) => {
                let places = row.z.parts().map(|z| z.map(place));
                let colour = if row.outcome == "report" { "m-lens" } else { "m-behaviour" };
                format!("<svg class=\"mark\" aria-hidden=\"true\">{guide}{}</svg>", mark(colour, places))
            }
            None => format!("<span class=\"why\">{}</span>", escape(&meaning(row.status.as_str()))),
        };
        let flagged = if row.ablation_flagged == Some(true) { " <small>disturbs neutral text</small>" } else { "" };
        let ablation = source.triple("ablation", row.ablation);
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td class=\"m\">{} <small>layer {}</small></td><td class=\"plot\">{plot}</td><td class=\"date\">{}</td>\
             <td class=\"sure\">{}{flagged}</td></tr>",
            escape(&row.concept),
            escape(&row.outcome),
            row.layer,
            if row.z.value.is_some() { source.triple("z", row.z) } else { "\u{2013}".to_owned() },
            if ablation.is_empty() { "\u{2013}".to_owned() } else { format!("{ablation} nats") },
        );
    }
    section("causes", TITLE, &Figure { body: body + "</tbody></table>", read: READ, cannot: CANNOT, tables: &["causal"] }.html())
}
