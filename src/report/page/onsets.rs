//! The forest plot of onsets: one line per concept and measure on the axis of the run, null topics grey behind.

use super::html::{Figure, Source, at_layer, class, escape, percent, section};
use super::measures;
use super::rows::Rows;
use super::time::Time;
use crate::analysis::OnsetRow;
use crate::report::words::{self, several, undated};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const READ: &str = "A dot is the midpoint of a rise, the bar its 95% interval over groups of prompts; a dashed bar is open, so that the rise \
     lies beyond it. Shades are stages, ticks checkpoints. Grey strokes are dates of topics that nobody teaches, by the same measure: \
     a measure with many of them is not to be believed. <b>q</b> is the chance of dating anything untaught in this run, had this row \
     been the weakest that is believed; <b>others</b> are answers or topics of the same kind, which nobody taught.";
const CANNOT: &str = "An interval says what other prompts would have changed, given these checkpoints, and nothing about another training \
     run. <i>Not shown</i> is no rise beyond its error, beyond what nobody teaches, and beyond its baseline. A concept without a date was not shown to appear, which is not to say that it did not: its row says how large a rise could \
     hide.";

/// The whole section.
pub fn html(rows: &Rows) -> String {
    let concepts = rows.concepts();
    let null = null_dates(rows);
    let mut body = String::new();
    let mut shown = 0;
    for concept in &concepts {
        let mut own: Vec<_> = rows.shown().filter(|(_, row)| row.concept == *concept).collect();
        own.sort_by_key(|(_, row)| measures::order(&row.measure));
        for (again, (at, row)) in own.into_iter().enumerate() {
            body += &line(&rows.time, *at, row, null.get(row.measure.as_str()), again > 0, shown);
            shown += 1;
        }
    }
    if shown == 0 {
        let why = "No concept was followed by a measure that could date it. <a href=\"#audits\">What was left out and why</a> is below.";
        return section("onsets", "When did what appear?", &super::html::absent(why));
    }
    let measures: BTreeSet<usize> = rows.shown().map(|(_, row)| measures::order(&row.measure)).collect();
    let table = format!(
        "{}<table class=\"forest\" style=\"--stages:{}\"><caption class=\"hidden\">Date of every concept by every measure</caption>\
         <thead><tr>{}{}<th scope=\"col\" class=\"plot\">{}</th>{}<th scope=\"col\">How sure</th></tr></thead>\n\
         <tbody>{body}</tbody>\n<tbody class=\"null\">{}</tbody></table>{}",
        controls(&measures),
        stages(&rows.time),
        head("concept", "Concept"),
        head("measure", "Measure"),
        axis(&rows.time),
        head("date", &format!("Date ({})", rows.time.unit())),
        null_lines(rows, &null),
        elsewhere(rows)
    );
    section("onsets", "When did what appear?", &Figure { body: table, read: READ, cannot: CANNOT, tables: &["onset"] }.html())
}

/// A heading that sorts, once the script makes a button of it.
fn head(key: &str, title: &str) -> String {
    format!("<th scope=\"col\" data-sort=\"{key}\">{title}</th>")
}

fn controls(measures: &BTreeSet<usize>) -> String {
    let mut out = String::from("<form class=\"controls\" hidden><label>Concept <input type=\"search\" name=\"concept\"></label>");
    out += "<label>Measure <select name=\"measure\"><option value=\"\">all</option>";
    for measure in measures.iter().filter_map(|&at| measures::MEASURES.get(at)) {
        let _ = write!(out, "<option value=\"{}\">{}</option>", measure.name, measure.title);
    }
    out += "</select></label><label>Status <select name=\"status\"><option value=\"\">all</option>\
         <option value=\"dated\">has a date</option><option value=\"present\">there, without a date</option>\
         <option value=\"silent\">not shown</option><option value=\"open\">cannot be dated</option></select></label>\
         <output aria-live=\"polite\"></output></form>";
    out
}

/// Stages as a background, every second one shaded.
pub fn stages(time: &Time) -> String {
    let stops: Vec<String> = time
        .stages()
        .iter()
        .enumerate()
        .map(|(number, stage)| {
            let colour = if number % 2 == 0 { "transparent" } else { "var(--shade)" };
            format!("{colour} {} {}", percent(stage.left), percent(stage.right))
        })
        .collect();
    if stops.is_empty() { "none".to_owned() } else { format!("linear-gradient(90deg,{})", stops.join(",")) }
}

/// Stages by name, ticks of checkpoints and their steps.
pub fn axis(time: &Time) -> String {
    /// A character's share of the narrowest plot.
    const WIDE: f64 = 0.02;
    let mut out = String::from("<svg class=\"axis\" aria-hidden=\"true\">");
    for stage in time.stages() {
        if !stage.name.is_empty() && stage.right - stage.left > WIDE * (stage.name.chars().count() as f64 + 1.0) {
            let _ = write!(out, "<text x=\"{}\" dx=\"3\" y=\"11\" class=\"stage\">{}</text>", percent(stage.left), escape(stage.name));
        }
    }
    for (place, label) in time.ticks(WIDE) {
        let _ = write!(out, "<text x=\"{}\" y=\"27\" text-anchor=\"middle\">{label}</text>", percent(place));
    }
    for t in 0..time.len() {
        let at = percent(time.at(t));
        let _ = write!(out, "<line x1=\"{at}\" x2=\"{at}\" y1=\"31\" y2=\"36\"/>");
    }
    out + "</svg>"
}

/// A dot with its interval, by places on the axis; an end that is missing is open.
pub fn mark(class: &str, [value, lower, upper]: [Option<f64>; 3]) -> String {
    let mut out = format!("<g class=\"{class}\">");
    if [value, lower, upper].iter().all(Option::is_none) {
        return out + "</g>";
    }
    // What is known reaches from end to end; what is not goes on to the edge.
    let inner = [lower.or(value).or(upper).unwrap_or(0.0), upper.or(value).or(lower).unwrap_or(1.0)];
    let stroke = |kind: &str, from: f64, to: f64| {
        format!("<line class=\"{kind}\" x1=\"{}\" x2=\"{}\" y1=\"50%\" y2=\"50%\"/>", percent(from), percent(to))
    };
    if lower.is_none() {
        out += &stroke("open", 0.0, inner[0]);
    }
    if upper.is_none() {
        out += &stroke("open", inner[1], 1.0);
    }
    out += &stroke("ci", inner[0], inner[1]);
    if value.is_none() {
        // A bound by itself has no length to be seen by.
        for end in [lower, upper].into_iter().flatten() {
            let _ = write!(out, "<line class=\"bound\" x1=\"{0}\" x2=\"{0}\" y1=\"25%\" y2=\"75%\"/>", percent(end));
        }
    }
    if let Some(value) = value {
        let _ = write!(out, "<circle cx=\"{}\" cy=\"50%\" r=\"4.5\"/>", percent(value));
    }
    out + "</g>"
}

/// Places of a row's date and its interval.
pub fn places(time: &Time, row: &OnsetRow) -> [Option<f64>; 3] {
    if row.status != "ok" {
        return [None; 3];
    }
    row.t50.parts().map(|x| x.map(|x| time.place(x)))
}

/// A date in words with where its numbers are from.
pub fn date(at: usize, row: &OnsetRow) -> String {
    let source = Source { table: "onset", row: at };
    words::date(row, &|column, date| source.triple(column, date), &|column, bound| source.number(column, Some(bound)))
}

/// `at 592.3 [591.1, 592.5]`, or `after 945`.
pub fn when(at: usize, row: &OnsetRow) -> String {
    let date = date(at, row);
    if date.starts_with('<') { format!("at {date}") } else { date }
}

fn line(time: &Time, at: usize, row: &OnsetRow, null: Option<&Vec<f64>>, again: bool, order: usize) -> String {
    let why = undated(row);
    let kind = match (row.status.as_str(), &why) {
        ("ok", None) => "dated",
        ("ok", Some(_)) => "present",
        ("gate_fail", _) => "silent",
        _ => "open",
    };
    let mut plot = String::new();
    match &why {
        Some(why) => {
            let hidden = match row.mde {
                Some(_) if row.status == "gate_fail" => {
                    format!("; could hide a rise of {}", Source { table: "onset", row: at }.number("mde", row.mde))
                }
                _ => String::new(),
            };
            plot += &format!("<span class=\"why\">{}{hidden}</span>", escape(why));
        }
        None => {
            plot += "<svg class=\"mark\" aria-hidden=\"true\">";
            plot += &null.map_or_else(String::new, |null| strokes(null));
            plot += &mark(&class(&row.measure), places(time, row));
            plot += "</svg>";
        }
    }
    let layer = at_layer(row.layer);
    let shape = if why.is_none() {
        format!(" <small class=\"shape\">{}</small>", escape(&row.shape.as_str().replace('_', " ")))
    } else {
        String::new()
    };
    format!(
        "<tr data-k=\"{kind}\" data-m=\"{}\" data-o=\"{order}\"{}{}>{}<td class=\"m\"><i class=\"{}\"></i>{}{layer}</td>\
         <td class=\"plot\">{plot}</td><td class=\"date\">{}{shape}</td><td class=\"sure\">{}</td></tr>\n",
        escape(&row.measure),
        row.date_or_bound().filter(|_| why.is_none()).map_or_else(String::new, |x| format!(" data-d=\"{x:.4}\"")),
        if again { " class=\"again\"" } else { "" },
        name(&row.concept),
        class(&row.measure),
        escape(&measures::title(&row.measure)),
        if why.is_none() { date(at, row) } else { "\u{2013}".to_owned() },
        sure(at, row)
    )
}

/// The heading of a row; a long name may break.
pub fn name(concept: &str) -> String {
    let class = if concept.chars().count() > 24 { " class=\"long\"" } else { "" };
    format!("<th scope=\"row\"{class}>{}</th>", escape(concept))
}

/// What speaks for a date, or how much could hide where there is none.
fn sure(at: usize, row: &OnsetRow) -> String {
    let source = Source { table: "onset", row: at };
    let mut parts = Vec::new();
    if row.q.is_some_and(|q| q < 1.0) {
        parts.push(format!("q {}", source.probability("q", row.q)));
    }
    if let (Some(_), n @ 1..) = (row.null_percentile, row.n_null) {
        parts.push(format!("above {} of {n} others", source.percent("null_percentile", row.null_percentile)));
    }
    if parts.is_empty() { "\u{2013}".to_owned() } else { parts.join(" \u{b7} ") }
}

/// Dates of null topics as places, by measure.
fn null_dates(rows: &Rows) -> BTreeMap<&str, Vec<f64>> {
    let mut dates: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for (_, row) in rows.shown().filter(|(_, row)| row.null_bank) {
        let own = dates.entry(row.measure.as_str()).or_default();
        own.extend(row.date_or_bound().filter(|_| row.status == "ok").map(|x| rows.time.place(x)));
    }
    dates
}

fn strokes(places: &[f64]) -> String {
    let stroke = |place: &f64| format!("<line class=\"nulls\" x1=\"{0}\" x2=\"{0}\" y1=\"10%\" y2=\"90%\"/>", percent(*place));
    places.iter().map(stroke).collect()
}

/// A line per measure about all null topics together.
fn null_lines(rows: &Rows, dates: &BTreeMap<&str, Vec<f64>>) -> String {
    let mut names: Vec<&&str> = dates.keys().collect();
    names.sort_by_key(|name| measures::order(name));
    let mut out = String::new();
    for name in names {
        let own: Vec<&OnsetRow> = rows.shown().map(|(_, row)| row).filter(|row| row.null_bank && row.measure == **name).collect();
        let dated: Vec<&str> = own.iter().filter(|row| row.status == "ok").map(|row| row.concept.as_str()).collect();
        let could = own.iter().any(|row| row.status != "no_foils");
        let plot = match (dated.is_empty(), could) {
            (false, _) => format!("<svg class=\"mark\" aria-hidden=\"true\">{}</svg>", strokes(&dates[*name])),
            (true, true) => "<span class=\"why\">none of them is dated</span>".to_owned(),
            (true, false) => "<span class=\"why\">followed, and dated neither here nor for concepts</span>".to_owned(),
        };
        let _ = writeln!(
            out,
            "<tr data-m=\"{}\"><th scope=\"row\">{}</th><td class=\"m\">{}</td><td class=\"plot\">{plot}</td><td class=\"date\">{} dated</td>\
             <td class=\"sure\">{}</td></tr>",
            escape(name),
            several(own.len(), "null topic"),
            escape(&measures::title(name)),
            dated.len(),
            escape(&dated.join(", "))
        );
    }
    out
}

/// What other readouts found, which the plot does not show.
fn elsewhere(rows: &Rows) -> String {
    let best = rows.best();
    let others = rows.onsets.iter().map(|(_, row)| row).filter(|row| {
        let own = best.get(&(row.concept.clone(), row.measure.clone()));
        row.primary && !row.null_bank && own.is_some_and(|own| *own != super::rows::preference(row))
    });
    let others: Vec<&OnsetRow> = others.collect();
    let dated = others.iter().filter(|row| row.status == "ok").count();
    match others.len() {
        0 => String::new(),
        n => format!(
            "<p class=\"note\">{} about other readouts and label families, {dated} of them dated, are in the table.</p>",
            several(n, "row")
        ),
    }
}
