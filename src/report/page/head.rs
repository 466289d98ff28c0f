//! What the run is, and what there is to know in a few sentences; then the questions that the page answers.

use super::html::{Source, escape, list, percent};
use super::measures;
use super::onsets;
use super::rows::{Checkpoint, Rows};
use super::time::Time;
use crate::analysis::OnsetRow;
use crate::report::words::{count, several};
use std::collections::BTreeSet;
use std::fmt::Write;

/// What a reader asks, and where on the page it is answered.
pub const QUESTIONS: &[(&str, &str)] = &[
    ("onsets", "When did what appear?"),
    ("curves", "How did it rise?"),
    ("layers", "Where in the network?"),
    ("pairs", "Is it the same thing throughout?"),
    ("lags", "Does behaviour come with it?"),
    ("evidence", "Is it more than a persona?"),
    ("causes", "Does it do anything?"),
    ("thoughts", "Does it know what is put into it?"),
    ("talks", "Does a conversation move it?"),
    ("spoken", "What does it say by itself?"),
    ("audits", "Can the data be trusted?"),
    ("origin", "How was it made?"),
];

/// The top of the page.
pub fn html(rows: &Rows) -> String {
    let nav: String = QUESTIONS.iter().map(|(id, question)| format!("<li><a href=\"#{id}\">{question}</a></li>")).collect();
    format!(
        "<header><p class=\"kicker\">selftrace</p><h1>{}</h1>{}{}</header>\n<section id=\"glance\"><h2>At a glance</h2>{}</section>\n\
         <nav aria-label=\"Questions\"><ol>{nav}</ol></nav>\n",
        escape(&rows.run.run),
        model(rows),
        ribbon(&rows.time),
        glance(rows)
    )
}

fn model(rows: &Rows) -> String {
    let walked = rows.checkpoints.iter().find(|(_, row)| row.architecture.is_some());
    let mut facts = Vec::new();
    if let Some((at, Checkpoint { architecture: Some(architecture), n_params, n_layers: Some(layers), d_model: Some(width), .. })) = walked
    {
        let source = Source { table: "checkpoints", row: *at };
        facts.push(escape(architecture));
        facts.extend(n_params.map(|_| format!("{} parameters", source.whole("n_params", *n_params))));
        facts.push(format!("{} layers", source.whole("n_layers", Some(i64::from(*layers)))));
        facts.push(format!("width {}", source.whole("d_model", Some(i64::from(*width)))));
    }
    let stages: Vec<String> = rows
        .time
        .stages()
        .iter()
        .map(|stage| {
            let name = if stage.name.is_empty() { "one stage".to_owned() } else { escape(stage.name) };
            format!("{name} ({})", stage.last - stage.first + 1)
        })
        .collect();
    facts.push(format!("{} in {}: {}", several(rows.time.len(), "checkpoint"), several(stages.len(), "stage"), stages.join(", ")));
    let mut out = format!("<p class=\"facts\">{}</p>", facts.join(" \u{b7} "));
    let reasons = super::audits::reasons(rows);
    if !reasons.is_empty() {
        let few = reasons.iter().take(3).map(|(id, why)| format!("<b>{}</b> ({})", escape(id), escape(why)));
        let more = if reasons.len() > 3 { " and others" } else { "" };
        let _ = write!(
            out,
            "<p class=\"warning\">{} left out: {}{more}; <a href=\"#audits\">why</a>.</p>",
            several(reasons.len(), "checkpoint"),
            list(few)
        );
    }
    out
}

/// The series as a line: stages and checkpoints.
fn ribbon(time: &Time) -> String {
    if time.is_empty() {
        return super::html::absent("No checkpoint could be read.");
    }
    let dots: String = (0..time.len()).map(|t| format!("<circle cx=\"{}\" cy=\"50%\" r=\"3\"/>", percent(time.at(t)))).collect();
    format!(
        "<div class=\"ribbon\" style=\"--stages:{}\"><svg class=\"mark\" aria-hidden=\"true\">{dots}</svg>{}<p class=\"unit\">{}</p></div>",
        onsets::stages(time),
        onsets::axis(time),
        time.unit()
    )
}

/// The findings in sentences.
fn glance(rows: &Rows) -> String {
    let asked = rows.concepts();
    let shown: Vec<(usize, &OnsetRow)> = rows.shown().map(|(at, row)| (*at, row)).collect();
    let mut out = String::from("<ul>");
    let dated = |concept: &str| {
        let mut own: Vec<(usize, &OnsetRow)> = shown
            .iter()
            .filter(|(_, row)| row.concept == concept && row.status == "ok" && !onsets::date(0, row).is_empty())
            .copied()
            .collect();
        own.sort_by_key(|(_, row)| measures::order(&row.measure));
        own
    };
    let with: Vec<&str> = asked.iter().copied().filter(|concept| !dated(concept).is_empty()).collect();
    let few = rows.time.len() < crate::onset::shape::FEWEST;
    if few {
        let _ = write!(
            out,
            "<li>{} {} too few for a date: {} are needed. Levels and differences are below.</li>",
            several(rows.time.len(), "checkpoint"),
            if rows.time.len() == 1 { "is" } else { "are" },
            crate::onset::shape::FEWEST
        );
    }
    for concept in &with {
        // What was there from the start does not appear.
        let stood = |row: &OnsetRow| row.shape.as_str() == "strengthens";
        let own = dated(concept);
        let verb = if own.iter().all(|(_, row)| stood(row)) { "strengthens" } else { "appears" };
        let parts = own.iter().map(|(at, row)| {
            let before = if stood(row) && verb == "appears" { " (there before)" } else { "" };
            format!("by {} {}{before}", measures::title(&row.measure).to_lowercase(), onsets::when(*at, row))
        });
        let _ = write!(out, "<li><b>{}</b> {verb} {}.</li>", escape(concept), list(parts));
    }
    if !few {
        let n = asked.len() - with.len();
        let silent: Vec<String> = asked.iter().filter(|concept| !with.contains(concept)).map(|concept| escape(concept)).collect();
        match n {
            0 => {}
            n if n <= 8 => drop(write!(out, "<li>Without a date: {}.</li>", silent.join(", "))),
            n => drop(write!(out, "<li>{} without a date.</li>", several(n, "concept"))),
        }
    }
    let null = rows.null_topics();
    let erred: BTreeSet<&str> =
        shown.iter().filter(|(_, row)| row.null_bank && row.status == "ok").map(|(_, row)| row.concept.as_str()).collect();
    let words = match (null.len(), erred.len()) {
        (0, _) => "No null topics were asked, so nothing shows how often this run dates what nobody teaches.".to_owned(),
        (n, 0) => format!("Of {} that nobody teaches none is dated.", several(n, "null topic")),
        (n, k) => format!(
            "Of {} that nobody teaches <b>{} dated</b> ({}): read all dates by these measures with care.",
            several(n, "null topic"),
            if k == 1 { "one is".to_owned() } else { format!("{} are", count(k as u64)) },
            list(erred.iter().map(|topic| escape(topic)))
        ),
    };
    out + &format!("<li>{words}</li></ul>")
}
