//! Behaviour beside representation: curves laid over each other, and how long one lags behind the other.

use super::curves::{SIZE, Scale, path, thin};
use super::html::{Drawings, Figure, Source, absent, class, escape, guide, section};
use super::measures;
use super::onsets::mark;
use super::rows::Rows;
use crate::onset::leadlag::Row;
use crate::report::words::{meaning, number, several};
use std::collections::BTreeMap;
use std::fmt::Write;

const TITLE: &str = "Does behaviour come with it?";
const READ: &str = "Above, each line runs from its own lowest to its own highest number, so that only the order of the rises is to be \
     compared. Below, a dot is by how much the second measure is later than the first, in units of the axis of the run, the bar its 95% interval: \
     right of the line the first leads, left of it the second.";
const CANNOT: &str = "Who comes first is not who causes whom. Two checkpoints close together can hide an order, and an interval that \
     touches the line leaves it open.";

/// The whole section.
pub fn html(rows: &Rows, drawings: &mut Drawings) -> String {
    let panels: String = rows.concepts().into_iter().map(|concept| overlaid(rows, concept, drawings)).collect();
    let own: Vec<&(usize, Row)> = rows.lags.iter().filter(|(_, row)| !row.null_bank).collect();
    let (with, without): (Vec<_>, Vec<_>) = own.into_iter().partition(|(_, row)| row.status == "ok" && row.lag.value.is_some());
    let mut why: BTreeMap<&str, usize> = BTreeMap::new();
    without.iter().for_each(|(_, row)| *why.entry(row.status.as_str()).or_default() += 1);
    let why: Vec<String> = why.iter().map(|(status, n)| format!("{n}: {}", escape(&meaning(status)))).collect();
    let rest = match without.len() {
        0 => String::new(),
        n => format!("<p class=\"note\">{} of measures have no lag ({}).</p>", several(n, "pair"), why.join("; ")),
    };
    if panels.is_empty() && with.is_empty() {
        let why = "A lag takes a concept that two measures date, and there is none.";
        return section("lags", TITLE, &(absent(why) + &rest));
    }
    let panels = if panels.is_empty() { panels } else { format!("<div class=\"panels\">{panels}</div>") };
    let figure = Figure { body: panels + &table(&with) + &rest, read: READ, cannot: CANNOT, tables: &["leadlag"] };
    section("lags", TITLE, &figure.html())
}

/// The curves of a concept that have a date, each over its own range; nothing where behaviour has none.
fn overlaid(rows: &Rows, concept: &str, drawings: &mut Drawings) -> String {
    let dated = |name: &str| rows.onset(concept, name).is_some_and(|(_, row)| row.status == "ok" && row.t50.value.is_some());
    let beside: Vec<_> = measures::MEASURES.iter().filter(|measure| dated(measure.name)).collect();
    if beside.len() < 2 || !dated("behaviour") {
        return String::new();
    }
    let mut body = String::from("<use href=\"#frame\"/>");
    let mut names = Vec::new();
    for measure in &beside {
        let Some(points) = rows.find(concept, measure.name).and_then(|curves| curves.chosen()) else { continue };
        let _ = write!(
            body,
            "<g class=\"{}\"><path class=\"line\" d=\"{}\"/></g>",
            class(measure.name),
            path(&rows.time, &Scale::of(points), &thin(points))
        );
        names.push(format!("<span class=\"key\"><i class=\"{}\"></i>{}</span>", class(measure.name), measure.title));
    }
    let titles: Vec<&str> = beside.iter().map(|measure| measure.title).collect();
    let drawing =
        drawings.svg("curve", SIZE, &format!("{concept}: {}", titles.join(", ")), "Each from its lowest to its highest number.", &body);
    format!(
        "<div class=\"panel\"><p class=\"panel-title\"><b>{}</b></p><p class=\"words\">{}</p>{drawing}</div>",
        escape(concept),
        names.join(" ")
    )
}

fn table(rows: &[&(usize, Row)]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let ends = rows.iter().flat_map(|(_, row)| row.lag.parts()).flatten();
    let most = ends.fold(0.0, |most: f64, end| most.max(end.abs())).max(1e-12);
    let place = |value: Option<f64>| value.map(|value| 0.5 + 0.46 * value / most);
    let mut out = String::from(
        "<table class=\"forest\"><caption class=\"hidden\">Lags between measures</caption><thead><tr><th scope=\"col\">Concept</th>\
         <th scope=\"col\">First, then second</th><th scope=\"col\" class=\"plot\">",
    );
    let label = number(most);
    let _ = write!(
        out,
        "<svg class=\"axis\" aria-hidden=\"true\"><text x=\"4%\" y=\"27\">second leads by {label}</text><text x=\"50%\" y=\"27\" text-anchor=\"middle\">0</text>\
         <text x=\"96%\" y=\"27\" text-anchor=\"end\">first leads by {label}</text></svg></th><th scope=\"col\">Lag</th><th scope=\"col\">P(first leads)</th></tr></thead><tbody>"
    );
    for (at, row) in rows {
        let source = Source { table: "leadlag", row: *at };
        let colour = class(&row.first);
        let _ = writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td class=\"m\"><i class=\"{colour}\"></i>{} \u{2192} {}</td><td class=\"plot\"><svg class=\"mark\" aria-hidden=\"true\">\
             {}{}</svg></td><td class=\"date\">{}</td><td class=\"sure\"><span class=\"narrow\">P(first leads) </span>{}</td></tr>",
            escape(&row.concept),
            escape(&measures::title(&row.first)),
            escape(&measures::title(&row.second)),
            guide(0.5),
            mark(&colour, row.lag.parts().map(place)),
            source.triple("lag", row.lag),
            source.number("p_first", row.p_first),
        );
    }
    out + "</tbody></table>"
}
