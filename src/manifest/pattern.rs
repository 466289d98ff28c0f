//! Names with numbers in them, such as `stage1-step{step}-tokens{tokens}B` or `epoch_{epoch}/step_{step}`.
//!
//! `{step}` and `{tokens}` are whole numbers, also written with a unit (`1k`, `1.5M`, `3B`, `15T`); a unit may also stand behind
//! `{tokens}` in the pattern. `{epoch}` may be a fraction. A pattern may go over several folders.

use regex::Regex;
use serde::Serialize;
use std::cmp::Ordering;
use std::fmt;

/// What may stand in a pattern.
pub(super) const PLACEHOLDERS: [&str; 3] = [STEP, TOKENS, EPOCH];
pub(super) const STEP: &str = "{step}";
pub(super) const TOKENS: &str = "{tokens}";
pub(super) const EPOCH: &str = "{epoch}";
const NUMBER: &str = r"([0-9]+(?:\.[0-9]+)?[kKMBT]?)";
const UNITS: [(char, u32); 5] = [('k', 3), ('K', 3), ('M', 6), ('B', 9), ('T', 12)];

/// A name with numbers in it.
#[derive(Debug, Clone, Serialize)]
#[serde(into = "String")]
pub struct Pattern {
    text: String,
    /// In the order of the text.
    placeholders: Vec<&'static str>,
    /// Power of ten by which the unit behind `{tokens}` multiplies.
    tokens_unit: u32,
    whole: Regex,
    /// One per folder that the pattern goes over.
    parts: Vec<Regex>,
}

/// The numbers in a name.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Numbers {
    pub step: Option<u64>,
    pub tokens: Option<u64>,
    /// As it is written, and its value.
    pub epoch: Option<(String, f64)>,
}

impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> String {
        pattern.text
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Pattern {
    /// Reads a name in which at least one placeholder stands, each at most once, and no other braces.
    pub fn parse(text: &str) -> Option<Pattern> {
        let placeholders = in_order(text);
        let rest = PLACEHOLDERS.iter().fold(text.to_owned(), |rest, placeholder| rest.replacen(placeholder, "", 1));
        if placeholders.is_empty() || rest.contains(['{', '}']) {
            return None;
        }
        let unit = || {
            let mut behind = text.split_once(TOKENS)?.1.chars();
            let (_, power) = UNITS.into_iter().find(|(unit, _)| behind.clone().next() == Some(*unit))?;
            behind.nth(1).is_none_or(|c| !c.is_alphanumeric()).then_some(power)
        };
        let regex = |text: &str| {
            let mut pattern = regex::escape(text);
            for placeholder in PLACEHOLDERS {
                pattern = pattern.replace(&regex::escape(placeholder), NUMBER);
            }
            Regex::new(&format!("^(?:{pattern})$")).ok()
        };
        Some(Pattern {
            tokens_unit: unit().unwrap_or(0),
            whole: regex(text)?,
            parts: text.split('/').map(regex).collect::<Option<_>>()?,
            placeholders,
            text: text.to_owned(),
        })
    }

    /// Whether a placeholder stands in it.
    pub fn has(&self, placeholder: &str) -> bool {
        self.placeholders.contains(&placeholder)
    }

    /// Over how many folders it goes.
    pub fn depth(&self) -> usize {
        self.parts.len()
    }

    /// Whether a folder's name fits the part of the pattern for its depth.
    pub(super) fn fits_part(&self, depth: usize, name: &str) -> bool {
        self.parts.get(depth).is_some_and(|part| part.is_match(name))
    }

    /// The numbers in a name; none where it does not fit, where a step or tokens are no whole number, or where one is above 2^64.
    pub fn numbers(&self, name: &str) -> Option<Numbers> {
        let found = self.whole.captures(name)?;
        let mut numbers = Numbers::default();
        for (place, placeholder) in self.placeholders.iter().enumerate() {
            let text = found.get(place + 1)?.as_str();
            match *placeholder {
                STEP => numbers.step = Some(whole(text, 0)?),
                TOKENS => numbers.tokens = Some(whole(text, if ends_in_unit(text) { 0 } else { self.tokens_unit })?),
                _ => numbers.epoch = Some((text.to_owned(), text.parse().ok()?)),
            }
        }
        Some(numbers)
    }

    /// Whether a name would fit if steps and tokens could be fractions.
    pub(super) fn fits_as_fraction(&self, name: &str) -> bool {
        self.whole.is_match(name) && self.numbers(name).is_none()
    }
}

impl Numbers {
    /// What is put behind the series' id: the step or else the epoch or the tokens.
    pub fn label(&self) -> String {
        match (self.step, &self.epoch, self.tokens) {
            (Some(step), ..) => step.to_string(),
            (None, Some((epoch, _)), _) => epoch.clone(),
            (None, None, tokens) => tokens.unwrap_or_default().to_string(),
        }
    }

    /// Order along training: by step, or else by epoch or by tokens.
    pub fn order(&self, other: &Self) -> Ordering {
        let epoch = |numbers: &Self| numbers.epoch.as_ref().map_or(0.0, |(_, epoch)| *epoch);
        self.step.cmp(&other.step).then(epoch(self).total_cmp(&epoch(other))).then(self.tokens.cmp(&other.tokens))
    }

    /// Whether both stand for one place in training.
    pub fn is_at(&self, other: &Self) -> bool {
        if self.step.is_some() { self.step == other.step } else { self.order(other) == Ordering::Equal }
    }
}

/// The placeholders of a text in their order.
fn in_order(text: &str) -> Vec<&'static str> {
    let mut found: Vec<(usize, &'static str)> = PLACEHOLDERS.iter().filter_map(|name| Some((text.find(name)?, *name))).collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).collect()
}

fn ends_in_unit(text: &str) -> bool {
    text.ends_with(|c: char| c.is_ascii_alphabetic())
}

/// A whole number, written in digits, with a unit, or as a fraction with a unit.
fn whole(text: &str, power: u32) -> Option<u64> {
    let unit = UNITS.iter().find(|(unit, _)| text.ends_with(*unit));
    let digits = unit.map_or(text, |(unit, _)| text.trim_end_matches(*unit));
    let (before, after) = digits.split_once('.').unwrap_or((digits, ""));
    let after = after.trim_end_matches('0');
    let power = (power + unit.map_or(0, |(_, power)| *power)).checked_sub(u32::try_from(after.len()).ok()?)?;
    format!("{before}{after}").parse::<u64>().ok()?.checked_mul(10u64.checked_pow(power)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pattern: &str, name: &str) -> Option<Numbers> {
        Pattern::parse(pattern).unwrap().numbers(name)
    }

    #[test]
    fn a_step_is_a_whole_number_also_with_a_unit() {
        let step = |pattern: &str, name: &str| read(pattern, name).and_then(|numbers| numbers.step);
        for (name, expected) in [("step007-hf", Some(7)), ("step-hf", None), ("step+7-hf", None), ("step7", None), ("xstep7-hf", None)] {
            assert_eq!(step("step{step}-hf", name), expected, "{name}");
        }
        for (name, expected) in [("1k", 1000), ("1.5k", 1500), ("2K", 2000), ("1.0", 1), ("3B", 3_000_000_000), ("0.25M", 250_000)] {
            assert_eq!(step("step_{step}", &format!("step_{name}")), Some(expected), "{name}");
        }
        for name in ["0.5", "1.0005k", "99999999999999999999", "1m", "1e3", ".5", "-1"] {
            assert_eq!(step("step_{step}", &format!("step_{name}")), None, "{name}");
        }
    }

    #[test]
    fn several_numbers_stand_in_one_name_or_in_several_folders() {
        let published = read("stage1-step{step}-tokens{tokens}B", "stage1-step1000-tokens3B").unwrap();
        assert_eq!((published.step, published.tokens), (Some(1000), Some(3_000_000_000)));
        assert_eq!(read("tokens{tokens}", "tokens4.2T").unwrap().tokens, Some(4_200_000_000_000));
        assert_eq!(read("{tokens}Bytes", "7Bytes").unwrap().tokens, Some(7), "no unit, as a word goes on");
        let folders = Pattern::parse("epoch_{epoch}/step_{step}").unwrap();
        assert_eq!(folders.depth(), 2);
        assert!(folders.fits_part(0, "epoch_0.5") && !folders.fits_part(1, "epoch_0.5"));
        let numbers = folders.numbers("epoch_0.5/step_100").unwrap();
        assert_eq!((numbers.step, numbers.epoch), (Some(100), Some(("0.5".to_owned(), 0.5))));
    }

    #[test]
    fn other_braces_are_no_pattern() {
        for text in ["final", "{steps}", "{step}-{step}", "{step}-{seed}", "{step"] {
            assert!(Pattern::parse(text).is_none(), "{text}");
        }
    }
}
