//! What shapes, statuses and hypotheses mean, in the words in which people read them.

use crate::analysis::OnsetRow;

/// Values of `shape`.
pub const SHAPES: &[(&str, &str)] = &[
    ("absent", "not shown to appear"),
    ("already_present", "there from the start, and no stronger in the end"),
    ("emerges", "rises from nothing"),
    ("strengthens", "there from the start, and rises"),
    ("transient", "comes and goes"),
    ("vanishes", "there from the start, and goes"),
    ("reoriented", "there at both ends, in another direction"),
    ("undetermined", "no shape"),
];

/// Values of `status` in all tables: why there is no number, or that there is one.
pub const STATUSES: &[(&str, &str)] = &[
    ("ok", "computed, and where it is a date, shown"),
    ("already_preferred", "stood out before, so a rise shows nothing"),
    ("before_onset", "earlier than the rise of the concept, so it supports nothing"),
    ("chance", "no more than chance"),
    ("degenerate_label", "one of the two labels is missing"),
    ("equal_runs", "the runs are the same to the last digit"),
    ("failed", "could not be computed"),
    ("foils_not_told_apart", "the measure cannot tell the foils apart"),
    ("gate_fail", "not shown: no rise beyond its error, what nobody teaches, and its baseline"),
    ("lexical_leak", "words alone give the label away"),
    ("mixed_answers", "groups have different answers"),
    ("needs_seeds", "takes several runs: selftrace compare --a A1 A2 --b B1 B2"),
    ("no_answers", "the concept has no answers to choose from"),
    ("no_axis", "there is no direction to measure along"),
    ("no_bank", "no null topics to hold it against"),
    ("no_date", "there is no date to compare"),
    ("no_direction", "there is no direction to push along"),
    ("no_effect", "there is no effect of which this could be a share"),
    ("no_explicit_date", "no concept with an explicit specification has a date"),
    ("no_foils", "not dated: nothing of its kind to hold it against"),
    ("no_interval", "too few resamples have a date for an interval"),
    ("no_null", "no random direction to hold it against"),
    ("no_order", "the order of the answers is not balanced"),
    ("no_reference", "no checkpoint marks the start"),
    ("no_rise", "has not risen, so there is no share of a rise"),
    ("no_unembedding", "the first checkpoint's unembedding was not kept"),
    ("not_late", "not a late checkpoint"),
    ("not_run", "what it takes was not asked for"),
    ("not_scored", "the answers were not scored"),
    ("side_effects", "every strength disturbs neutral text or facts, so none counts"),
    ("spec_explicit", "the specification speaks about it, so it says nothing about the void"),
    ("token_mismatch", "the tokens are not those of the other checkpoints"),
    ("too_few_checkpoints", "fewer than six checkpoints have no shape or date"),
    ("too_few_concepts", "too few concepts"),
    ("too_few_differences", "too few items differ"),
    ("too_few_foils", "too few of its kind to hold it against"),
    ("too_few_groups", "too few groups of items"),
    ("too_few_personas", "too few personas"),
    ("unclassified", "nothing says whether a specification speaks about it"),
];

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

fn of(list: &'static [(&str, &str)], name: &str) -> Option<&'static str> {
    list.iter().find(|(known, _)| *known == name).map(|(_, words)| *words)
}

/// A status in words; one that is not known here as it is.
pub fn meaning(status: &str) -> String {
    of(STATUSES, status).map_or_else(|| status.replace('_', " "), str::to_owned)
}

/// A shape in words; one that is not known here as it is.
pub fn shape(name: &str) -> String {
    of(SHAPES, name).map_or_else(|| name.replace('_', " "), str::to_owned)
}

/// Why a row of `onset.parquet` has no date, or what there is of one; `None` where a date or a bound says it all.
pub fn undated(row: &OnsetRow) -> Option<String> {
    let bounded = row.t50.or(row.t50_lower).or(row.t50_upper).is_some();
    match row.status.as_str() {
        "ok" if bounded => None,
        "ok" => Some(shape(row.shape.as_str())),
        // A gate that is not passed says less than a shape that was seen.
        "gate_fail" if !matches!(row.shape.as_str(), "undetermined" | "absent") => Some(shape(row.shape.as_str())),
        // What that takes is said once, and not in every line.
        "gate_fail" => Some("not shown".to_owned()),
        status => Some(meaning(status)),
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
        for (name, _) in STATUSES.iter().chain(SHAPES) {
            assert!(text.contains(&format!("    \"{name}\": ")), "python does not know {name}");
        }
        let known = text.lines().filter(|line| line.starts_with("    \"") && line.contains("\": \"")).count();
        assert_eq!(known, STATUSES.len() + SHAPES.len(), "python knows others");
    }
}
