//! What many demos found: how often anything untaught is dated, and how often what was taught is, with binomial intervals.
//!
//! Training amplifies rounding, so the same seed is another organism on another processor. What is claimed of a trained organism is
//! claimed over seeds and kinds of arithmetic.

use crate::report::summary::Text;
use crate::stats::share::wilson;
use serde::{Deserialize, Serialize};

/// What one demo found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Kind of arithmetic, as the caller names it.
    pub arithmetic: String,
    pub seed: u64,
    /// Primary rows of concepts that nobody teaches, and of null topics, that have a date: concept and measure.
    pub untaught_dated: Vec<(String, String)>,
    /// Taught concepts, and by measure how many of them are dated after their lesson.
    pub taught: usize,
    pub dated: Vec<(String, usize)>,
    /// Verdicts that the curriculum decides, and those that are as planted.
    pub planted: usize,
    pub as_planted: usize,
    /// Verdicts about concepts that nobody teaches, and those that support a hypothesis.
    pub untaught_verdicts: usize,
    pub untaught_supports: usize,
}

/// What is counted of a set of demos: a line by name, hits and of how many.
fn counts(tallies: &[&Tally]) -> Vec<(String, usize, usize)> {
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(|tally| of(tally)).sum::<usize>();
    let erring = tallies.iter().filter(|tally| !tally.untaught_dated.is_empty()).count();
    let mut counts = vec![("runs in which anything untaught is dated".to_owned(), erring, tallies.len())];
    let measures = tallies.first().map_or(&[][..], |tally| tally.dated.as_slice()).iter().map(|(measure, _)| measure);
    for (place, measure) in measures.enumerate() {
        let dated = tallies.iter().filter_map(|tally| tally.dated.get(place)).map(|(_, dated)| dated).sum();
        counts.push((format!("taught concepts dated after their lesson by {measure}"), dated, sum(|tally| tally.taught)));
    }
    counts.push(("verdicts as planted".to_owned(), sum(|tally| tally.as_planted), sum(|tally| tally.planted)));
    counts.push((
        "verdicts about untaught concepts that support".to_owned(),
        sum(|tally| tally.untaught_supports),
        sum(|tally| tally.untaught_verdicts),
    ));
    counts
}

/// The table: all demos, then each kind of arithmetic, and what erred where.
pub fn table(tallies: &[Tally]) -> String {
    let mut kinds: Vec<&str> = Vec::new();
    for tally in tallies {
        if !kinds.contains(&tally.arithmetic.as_str()) {
            kinds.push(&tally.arithmetic);
        }
    }
    let mut text = Text::new(&[&["", "all", "share", "95% interval"], kinds.as_slice()].concat());
    let all: Vec<&Tally> = tallies.iter().collect();
    let by_kind: Vec<Vec<(String, usize, usize)>> =
        kinds.iter().map(|kind| counts(&all.iter().copied().filter(|tally| tally.arithmetic == *kind).collect::<Vec<_>>())).collect();
    for (line, (name, hits, of)) in counts(&all).into_iter().enumerate() {
        let (lower, upper) = wilson(hits, of);
        let mut row =
            vec![name, format!("{hits} of {of}"), format!("{:.3}", hits as f64 / of.max(1) as f64), format!("[{lower:.3}, {upper:.3}]")];
        row.extend(by_kind.iter().filter_map(|counts| counts.get(line)).map(|(_, hits, of)| format!("{hits} of {of}")));
        text.push(row);
    }
    let mut out = text.render();
    for tally in tallies {
        for (concept, measure) in &tally.untaught_dated {
            out += &format!("{}, seed {}: {concept} is dated by {measure}\n", tally.arithmetic, tally.seed);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tallies_add_up_and_errors_are_named() {
        let tally = |arithmetic: &str, untaught: &[(&str, &str)]| Tally {
            arithmetic: arithmetic.to_owned(),
            seed: 0,
            untaught_dated: untaught.iter().map(|(concept, measure)| ((*concept).to_owned(), (*measure).to_owned())).collect(),
            taught: 3,
            dated: vec![("behaviour".to_owned(), 3), ("lens".to_owned(), 2)],
            planted: 11,
            as_planted: 10,
            untaught_verdicts: 70,
            untaught_supports: 0,
        };
        let text = table(&[tally("avx2", &[]), tally("default", &[("hat", "lens"), ("hat", "contrast")])]);
        let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        assert!(line("runs in which").contains("1 of 2") && line("runs in which").ends_with("1 of 1"), "{text}");
        assert!(line("taught concepts dated after their lesson by lens").contains("4 of 6"), "{text}");
        assert!(text.contains("default, seed 0: hat is dated by contrast"), "{text}");
    }
}
