//! What the last checkpoint says when it is let talk, and what is read behind it.

use super::bars::{Bar, Plot};
use super::html::{Figure, Source, absent, at_layer, escape, section};
use super::rows::{Numbered, Rows};
use crate::measure::talks::Quantity;
use crate::measure::talks::conversation::Row;
use crate::measure::talks::transcripts::Line;
use crate::walk::conversation::FOLDER;
use crate::walk::conversation::dialogue::Speaker;
use std::fmt::Write;

const TITLE: &str = "What does it say by itself?";
const READ: &str = "Each row is a kind of conversation that the last checkpoint carried on by itself: with another instance of itself, or with a \
     user whose lines are fixed. A conversation is in a loop where a turn and all later ones repeat one of the two turns before it, but for a \
     fifth of the words; bars are Wilson's 95% intervals. Below, the dot is what is read behind the last turn minus what is read before the \
     conversation, the bar its 95% interval over conversations. On the axis, 1 is the way from the mean role to the assistant; of answers, \
     nats beyond other answers, and beyond what is said of another.";
const CANNOT: &str = "Any conversation drifts: only what goes beyond the control arm says something about its subject. What a model says of itself \
     in a conversation is text, and no report of anything in it. The conversation that is shown is the first one, and not a typical one.";
/// Concepts that are drawn; the others are in the table.
const MOST: usize = 6;
/// Turns of the conversation that is shown.
const TURNS: usize = 12;

/// The whole section.
pub fn html(rows: &Rows) -> String {
    let shown: Vec<&Numbered<Row>> = rows.spoken.iter().filter(|(_, row)| row.turns > 0).collect();
    let Some(most) = shown.iter().map(|(_, row)| row.turns).max() else {
        let why = "No checkpoint was let talk: with a <code>[conversation]</code> table in the manifest, they are.";
        return section("spoken", TITLE, &absent(why));
    };
    let looping: Vec<_> = shown.iter().copied().filter(|(_, row)| row.turns == most && row.quantity == Quantity::Looping).collect();
    let bars: Vec<Bar> = looping.iter().map(|(at, row)| bar(*at, row, "level", row.level, &change(*at, row))).collect();
    let plot = Plot {
        title: format!("In a loop after {most} exchanges"),
        caption: "Share of conversations in a loop, by kind of conversation",
        heads: ["Conversation", "Tokens", "Share", "Change since the first checkpoint"],
        unit: "all",
        is_share: true,
    };
    let mut body = plot.html(&bars);
    // What is read behind the last turn after which it is asked.
    let read = shown.iter().filter(|(_, row)| row.quantity == Quantity::Nll).map(|(_, row)| row.turns).max();
    let behind = |quantity: Quantity, concept: &str| -> Vec<_> {
        let is_here = |row: &Row| row.quantity == quantity && row.concept == concept && Some(row.turns) == read;
        shown.iter().copied().filter(|(_, row)| is_here(row)).collect()
    };
    let axis = behind(Quantity::Axis, "");
    let layer = axis.iter().filter_map(|(_, row)| row.layer).max();
    let axis: Vec<_> = axis.into_iter().filter(|(_, row)| row.layer == layer).collect();
    body += &drift(format!("Drift on the assistant axis{}", at_layer(layer)), "roles to assistant", &axis);
    let mut concepts = rows.concepts();
    concepts.retain(|concept| !behind(Quantity::Margin, concept).is_empty());
    for concept in concepts.iter().take(MOST) {
        let own = behind(Quantity::Margin, concept);
        let answer = own.iter().find_map(|(_, row)| row.answer.as_deref()).unwrap_or_default();
        body += &drift(format!("Drift of {} <small>{}</small>", escape(concept), escape(answer)), "nats", &own);
    }
    if concepts.len() > MOST {
        let _ = write!(body, "<p>{} more concepts are in the table.</p>", concepts.len() - MOST);
    }
    body += &transcript(&rows.said);
    section("spoken", TITLE, &Figure { body, read: READ, cannot: CANNOT, tables: &[FOLDER, "transcripts"] }.html())
}

fn bar<'a>(at: usize, row: &Row, column: &'a str, value: crate::stats::estimate::Reported, beside: &str) -> Bar<'a> {
    let source = Source { table: FOLDER, row: at };
    let temperature = row.temperature.map_or_else(String::new, |temperature| format!(", temperature {temperature}"));
    Bar {
        name: format!("{}{temperature}", row.arm.replace('_', " ")),
        size: source.number("tokens", row.tokens),
        source,
        column,
        value,
        status: row.status,
        beside: beside.to_owned(),
    }
}

fn change(at: usize, row: &Row) -> String {
    Source { table: FOLDER, row: at }.triple("change", row.change)
}

/// One quantity, a row per arm; `title` is markup.
fn drift(title: String, unit: &str, rows: &[&Numbered<Row>]) -> String {
    let bars: Vec<Bar> = rows
        .iter()
        .map(|(at, row)| {
            let beyond = Source { table: FOLDER, row: *at }.triple("beyond", row.beyond);
            bar(*at, row, "drift", row.drift, if beyond.is_empty() { "the control" } else { &beyond })
        })
        .collect();
    let plot = Plot {
        title,
        caption: "Drift by kind of conversation",
        heads: ["Conversation", "Tokens", "Drift", "Level beyond the control arm"],
        unit,
        is_share: false,
    };
    plot.html(&bars)
}

/// The first conversation of the first arm, as far as a page has room for it.
fn transcript(said: &[Numbered<Line>]) -> String {
    let Some((_, first)) = said.first() else { return String::new() };
    let own: Vec<&Line> = said
        .iter()
        .map(|(_, line)| line)
        .filter(|line| (&line.arm, line.seed) == (&first.arm, first.seed) && line.temperature == first.temperature)
        .collect();
    let speaker = |speaker: Speaker| match speaker {
        Speaker::Given => "given",
        Speaker::Model => "model",
        Speaker::Partner => "another instance",
    };
    let mut body = format!(
        "<h3>One conversation <small>{}, temperature {}</small></h3><dl class=\"said\">",
        escape(&first.arm.replace('_', " ")),
        first.temperature
    );
    for line in own.iter().take(TURNS) {
        let text = if line.text.is_empty() { "(nothing)" } else { &line.text };
        let _ = write!(body, "<dt>{}</dt><dd>{}</dd>", speaker(line.speaker), escape(text));
    }
    body += "</dl>";
    if own.len() > TURNS {
        let _ = write!(body, "<p>{} more turns are in the table.</p>", own.len() - TURNS);
    }
    body
}
