//! What conversations do to what a model says of itself, at the last checkpoint.

use super::bars::{Bar, Plot};
use super::html::{Figure, Source, absent, at_layer, escape, section};
use super::rows::{Numbered, Rows};
use crate::measure::talks::Quantity;
use crate::measure::talks::context::Row;
use crate::walk::talks::CONTEXT;
use std::fmt::Write;

const TITLE: &str = "Does a conversation move it?";
const READ: &str = "Each row is a kind of conversation that the model was given before it was asked. The dot is what is read behind it minus \
     what is read behind a neutral conversation of the same length, the bar its 95% interval over conversations; the line is 0, where it \
     does no more than any other talk. On the axis, 1 is the way from the mean role to the assistant; of answers, nats beyond other answers, \
     and beyond what is said of another.";
const CANNOT: &str = "The conversations are scripted: what the model would say by itself in them is another question. That an answer moves does \
     not say that anything in the model was persuaded.";
/// Concepts that are drawn; the others are in the table.
const MOST: usize = 6;

/// The whole section.
pub fn html(rows: &Rows) -> String {
    // Each arm after the most exchanges.
    let turns = |arm: &str| rows.talks.iter().filter(|(_, row)| row.arm == arm).map(|(_, row)| row.turns).max();
    let shown: Vec<&Numbered<Row>> =
        rows.talks.iter().filter(|(_, row)| row.neutral_tokens.is_some() && Some(row.turns) == turns(&row.arm)).collect();
    if shown.is_empty() {
        let why = "No conversation was put before what is asked: with a <code>[context]</code> table in the manifest, some are.";
        return section("talks", TITLE, &absent(why));
    }
    let mut body = String::new();
    let layer = shown.iter().filter(|(_, row)| row.quantity == Quantity::Axis).filter_map(|(_, row)| row.layer).max();
    let axis: Vec<_> = shown.iter().copied().filter(|(_, row)| row.quantity == Quantity::Axis && row.layer == layer).collect();
    body += &forest(&format!("Place on the assistant axis{}", at_layer(layer)), "roles to assistant", &axis);
    let mut concepts = rows.concepts();
    concepts.retain(|concept| shown.iter().any(|(_, row)| row.concept == *concept));
    for concept in concepts.iter().take(MOST) {
        let own: Vec<_> = shown.iter().copied().filter(|(_, row)| row.quantity == Quantity::Margin && row.concept == *concept).collect();
        let answer = own.iter().find_map(|(_, row)| row.answer.as_deref()).unwrap_or_default();
        body += &forest(&format!("{} <small>{}</small>", escape(concept), escape(answer)), "nats", &own);
    }
    if concepts.len() > MOST {
        let _ = write!(body, "<p>{} more concepts are in the table.</p>", concepts.len() - MOST);
    }
    section("talks", TITLE, &Figure { body, read: READ, cannot: CANNOT, tables: &[CONTEXT] }.html())
}

/// One quantity, a row per arm; `title` is markup.
fn forest(title: &str, unit: &str, rows: &[&Numbered<Row>]) -> String {
    let bar = |(at, row): &&Numbered<Row>| {
        let source = Source { table: CONTEXT, row: *at };
        Bar {
            name: row.arm.replace('_', " "),
            size: format!(
                "{} <small>{}</small>",
                source.number("tokens", Some(row.tokens)),
                source.number("neutral_tokens", row.neutral_tokens)
            ),
            source,
            column: "shift",
            value: row.shift,
            status: row.status,
            beside: format!("{}, {}", source.number("level", row.level.value), source.number("neutral", row.neutral.value)),
        }
    };
    let plot = Plot {
        title: title.to_owned(),
        caption: "Shift by kind of conversation",
        heads: ["Conversation", "Tokens <small>neutral</small>", "Shift", "Behind it, and behind a neutral one"],
        unit,
        is_share: false,
    };
    plot.html(&rows.iter().map(bar).collect::<Vec<_>>())
}
