//! The forest plot of onsets in text, for the end of a run: a line per concept, its measures as letters on the axis of the run.

use super::page::rows::Rows;
use super::page::time::Time;
use super::words::{self, number, several, undated};
use crate::analysis::OnsetRow;
use std::collections::BTreeMap;
use std::fmt::Write;

/// Columns of the axis, and of names at most.
const WIDE: usize = 52;
const NAME: usize = 24;
/// Measures that date, with their letters and colours (of 256), in the order in which they hide each other.
const LETTERS: [(&str, char, u8); 7] = [
    ("behaviour", 'B', 166),
    ("recognition", 'R', 125),
    ("stitched", 'S', 64),
    ("lens", 'L', 32),
    ("contrast", 'C', 36),
    ("introspection", 'I', 245),
    ("assistant_axis", 'A', 245),
];

/// What stands in one column.
type Cell = (char, Option<u8>);

/// The plot; with colours only where it is asked for them.
pub fn text(rows: &Rows, colour: bool) -> String {
    let time = &rows.time;
    let concepts = rows.concepts();
    if concepts.is_empty() || time.is_empty() {
        return String::new();
    }
    let mut out = stages(time);
    for concept in concepts {
        let own: Vec<&OnsetRow> = rows.shown().map(|(_, row)| row).filter(|row| row.concept == concept).collect();
        let dated: Vec<(&OnsetRow, char, u8)> = LETTERS
            .iter()
            .filter_map(|(measure, letter, ink)| {
                Some((*own.iter().find(|row| row.measure == *measure && undated(row).is_none())?, *letter, *ink))
            })
            .collect();
        let mut line: Vec<Cell> = vec![(' ', None); WIDE];
        for (row, letter, ink) in dated.iter().rev() {
            draw(time, &mut line, row, *letter, *ink);
        }
        let words = match dated.is_empty() {
            false => dated.iter().map(|(row, letter, _)| format!("{letter} {}", date(row))).collect::<Vec<_>>().join("  "),
            true => own.iter().find_map(|row| undated(row)).unwrap_or_else(|| "not asked".to_owned()),
        };
        let _ = writeln!(out, "{} {} {words}", name(concept), paint(&line, colour));
    }
    let null: Vec<&OnsetRow> = rows.shown().map(|(_, row)| row).filter(|row| row.null_bank && row.status == "ok").collect();
    let topics = rows.null_topics().len();
    if topics > 0 {
        let mut line: Vec<Cell> = vec![(' ', None); WIDE];
        null.iter().for_each(|row| draw(time, &mut line, row, '|', 245));
        let words = if null.is_empty() { "none dated".to_owned() } else { several(null.len(), "date") };
        let _ = writeln!(out, "{} {} {words}", name(&several(topics, "null topic")), paint(&line, colour));
    }
    out += &steps(time);
    let known: BTreeMap<char, &str> = LETTERS
        .iter()
        .filter(|(measure, ..)| rows.shown().any(|(_, row)| row.measure == *measure))
        .map(|(measure, letter, _)| (*letter, *measure))
        .collect();
    let key: Vec<String> = known.iter().map(|(letter, measure)| format!("{letter} {}", measure.replace('_', " "))).collect();
    out + &format!("{} {}; lines are 95% intervals\n", " ".repeat(NAME), key.join(", "))
}

/// A name in as many columns as there are for one.
fn name(text: &str) -> String {
    // A name may have anything in it; a terminal takes control characters as commands.
    let plain: String = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    let short: String = if plain.chars().count() > NAME { plain.chars().take(NAME - 1).chain(['\u{2026}']).collect() } else { plain };
    format!("{short:<NAME$}")
}

fn column(place: f64) -> usize {
    ((place * (WIDE - 1) as f64).round() as usize).min(WIDE - 1)
}

fn draw(time: &Time, line: &mut [Cell], row: &OnsetRow, letter: char, ink: u8) {
    let [value, lower, upper] = row.t50.parts().map(|x| x.map(|x| column(time.place(x))));
    let (from, to) = (lower.unwrap_or(0), upper.unwrap_or(WIDE - 1));
    for (at, cell) in line.iter_mut().enumerate().take(to + 1).skip(from) {
        let open = (lower.is_none() && at == 0) || (upper.is_none() && at + 1 == WIDE);
        *cell = (if open { if at == 0 { '<' } else { '>' } } else { '\u{2500}' }, Some(ink));
    }
    if let Some(at) = value {
        line[at] = (letter, Some(ink));
    }
}

fn date(row: &OnsetRow) -> String {
    words::date(row, &|_, date| date.value.map_or_else(String::new, number), &|_, bound| number(bound))
}

fn paint(line: &[Cell], colour: bool) -> String {
    if !colour {
        return line.iter().map(|(character, _)| character).collect();
    }
    let piece = |run: &[Cell]| {
        let text: String = run.iter().map(|(character, _)| character).collect();
        run[0].1.map_or(text.clone(), |ink| format!("\u{1b}[38;5;{ink}m{text}\u{1b}[0m"))
    };
    line.chunk_by(|a, b| a.1 == b.1).map(piece).collect()
}

/// Names of stages where they begin.
fn stages(time: &Time) -> String {
    let mut line = vec![' '; WIDE];
    let mut free = 0;
    for stage in time.stages() {
        let text: Vec<char> = std::iter::once('\u{2502}').chain(stage.name.chars().filter(|c| !c.is_control())).collect();
        let at = column(stage.left);
        if at >= free && at + text.len() <= WIDE {
            line[at..at + text.len()].copy_from_slice(&text);
            free = at + text.len() + 1;
        }
    }
    format!("\n{} {}\n", " ".repeat(NAME), line.iter().collect::<String>().trim_end())
}

/// The axis with its steps.
fn steps(time: &Time) -> String {
    let (mut marks, mut line) = (vec!['\u{2500}'; WIDE], vec![' '; WIDE]);
    (0..time.len()).for_each(|t| marks[column(time.at(t))] = '\u{253c}');
    for (place, label) in time.ticks(1.2 / WIDE as f64) {
        let text: Vec<char> = label.chars().collect();
        let at = column(place).saturating_sub(text.len() / 2).min(WIDE - text.len());
        line[at..at + text.len()].copy_from_slice(&text);
    }
    let (marks, line): (String, String) = (marks.iter().collect(), line.iter().collect());
    format!("{} {marks}\n{} {line} {}\n", " ".repeat(NAME), " ".repeat(NAME), time.unit())
}
