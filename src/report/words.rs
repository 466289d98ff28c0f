//! What shapes, statuses and hypotheses mean, in the words in which people read them.

use crate::analysis::OnsetRow;
use crate::onset::shape::Shape;
use crate::stats::estimate::Reported;
use crate::words::Status;

/// Hypotheses of `evidence.parquet`: name, title, and what would support it.
pub const HYPOTHESES: &[(&str, &str, &str)] = &[
    (
        "functional_self",
        "A functional self",
        "The concept keeps its direction under other personas and formats, lies outside of the assistant's space, acts on choices, \
         and shares a direction with the other concepts about the self.",
    ),
    (
        "self_is_assistant",
        "The self is the assistant",
        "The concept persists, but nothing of it is left outside of the assistant's space, and the assistant axis alone gives its effect.",
    ),
    (
        "personas_all_the_way_down",
        "Personas all the way down",
        "The concept is strong within a persona and gone, or another, in the next one: what there is belongs to the character in play.",
    ),
    (
        "epiphenomenal",
        "A self-model without effect",
        "The representation is there, and pushing the model along it changes neither what it says of itself nor what it chooses.",
    ),
    (
        "void",
        "The assistant is a void",
        "What specifications leave open is answered firmly and alike whatever the wording, and differently in every training run.",
    ),
];

/// A status in words; one that is not known here as it is.
pub fn meaning(status: &str) -> String {
    Status::of(status).map_or_else(|| status.replace('_', " "), |status| status.meaning().to_owned())
}

/// A shape in words; one that is not known here as it is.
pub fn shape(name: &str) -> String {
    Shape::of(name).map_or_else(|| name.replace('_', " "), |shape| shape.meaning().to_owned())
}

/// Why a row of `onset.parquet` has no date, or what there is of one; `None` where a date or a bound says it all.
pub fn undated(row: &OnsetRow) -> Option<String> {
    let bounded = row.date_or_bound().is_some();
    match row.status.as_str() {
        "ok" if bounded => None,
        "ok" => Some(row.shape.meaning().to_owned()),
        // A gate that is not passed says less than a shape that was seen.
        "gate_fail" if !matches!(row.shape.as_str(), "undetermined" | "absent") => Some(row.shape.meaning().to_owned()),
        // What that takes is said once, and not in every line.
        "gate_fail" => Some("not shown".to_owned()),
        status => Some(meaning(status)),
    }
}

/// The date of a row in words, in steps where it has any: `at` writes a midpoint with its interval, `bound` one of its ends where that is all
/// that is known, both by their column; nothing where there is no date.
pub fn date(row: &OnsetRow, at: &dyn Fn(&str, Reported) -> String, bound: &dyn Fn(&str, f64) -> String) -> String {
    let (columns, date) = match row.t50_step.parts().iter().any(Option::is_some) {
        true => (["t50_step", "t50_step_lower", "t50_step_upper"], row.t50_step),
        false => (["t50", "t50_lower", "t50_upper"], row.t50),
    };
    let [column, from, to] = columns;
    match date.parts() {
        [Some(_), ..] => at(column, date),
        [None, Some(lower), Some(upper)] => format!("between {} and {}", bound(from, lower), bound(to, upper)),
        [None, Some(lower), None] => format!("after {}", bound(from, lower)),
        [None, None, Some(upper)] => format!("before {}", bound(to, upper)),
        [None, None, None] => String::new(),
    }
}

/// Four significant digits at most, no exponent.
pub fn number(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return "0".to_owned();
    }
    let digits = (3 - value.abs().log10().floor() as i32).clamp(0, 12) as usize;
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    text.replace('-', "\u{2212}")
}

/// A whole number with its thousands apart.
pub fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) && digits.len() > 4 {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// `1 concept`, `2 concepts`.
pub fn several(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{} {word}s", count(n as u64)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_digits_and_no_exponent() {
        let shown: Vec<String> = [602.84, -0.012_341, 0.0, 1234.5, 1.0, 0.5, 0.000_012_3].map(number).into();
        assert_eq!(shown, ["602.8", "\u{2212}0.01234", "0", "1234", "1", "0.5", "0.0000123"]);
        assert_eq!([7, 4321, 12_345, 1_234_567].map(count), ["7", "4321", "12\u{202f}345", "1\u{202f}234\u{202f}567"]);
    }

    #[test]
    fn the_package_for_python_knows_the_same_statuses_and_shapes() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("python/selftrace/_words.py");
        let text = std::fs::read_to_string(path).unwrap();
        let names = || Status::ALL.iter().map(|status| status.as_str()).chain(Shape::ALL.iter().map(|shape| shape.as_str()));
        for name in names() {
            assert!(text.contains(&format!("    \"{name}\": ")), "python does not know {name}");
        }
        let known = text.lines().filter(|line| line.starts_with("    \"") && line.contains("\": \"")).count();
        assert_eq!(known, names().count(), "python knows others");
    }
}
