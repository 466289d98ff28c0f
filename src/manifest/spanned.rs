//! A TOML document that remembers where everything was written, so that every complaint has one
//! form: `checkpoints.toml:12: [model] dtype: found "fp32", expected one of auto, f32, f16, bf16`.
//!
//! A [`Document`] is the file, a [`Section`] one of its tables, a [`Field`] one value with its
//! place. Which keys a table may have is in [`KEYS`]; nothing here knows what they mean.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::Path;

use anyhow::{Error, Result, anyhow};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::KEYS;
use crate::guard::brief;

/// A setting with a closed list of values.
pub trait Choice: Copy + 'static {
    /// Every value with its spelling in the manifest.
    const ALL: &'static [(&'static str, Self)];
}

/// The manifest's text and the name to call it by.
pub(super) struct Document<'a> {
    name: String,
    text: &'a str,
}

impl<'a> Document<'a> {
    pub fn new(path: &Path, text: &'a str) -> Self {
        Document { name: path.display().to_string(), text }
    }

    pub fn parse(&self) -> Result<Spanned<DeTable<'a>>> {
        DeTable::parse(self.text).map_err(|error| {
            let span = error.span().unwrap_or(0..0);
            let line = self.text.lines().nth(self.line(span.start) - 1).unwrap_or("").trim();
            let near = match line.split_once('=') {
                _ if line.is_empty() => String::new(),
                Some((_, value)) if is_bare_word(value.trim()) => format!(", in `{}`; strings stand in quotes", brief(line)),
                _ => format!(", in `{}`", brief(line)),
            };
            self.error(span.start, format!("not valid TOML: {}{near}", brief(error.message())))
        })
    }

    pub fn error(&self, offset: usize, problem: impl Display) -> Error {
        anyhow!("{}:{}: {problem}", self.name, self.line(offset))
    }

    /// The line, from 1, of a byte offset.
    pub fn line(&self, offset: usize) -> usize {
        let before = self.text.as_bytes().iter().take(offset);
        before.filter(|&&byte| byte == b'\n').count() + 1
    }

    /// What was written there, if it is short enough to repeat; otherwise what kind of value it is.
    fn quote(&self, span: Range<usize>, value: &DeValue) -> String {
        match (self.text.get(span), value) {
            (Some(text), DeValue::Array(_)) if !text.starts_with('[') || text.starts_with("[[") => "a list of tables".into(),
            (Some(text), DeValue::Table(_)) if !text.starts_with('{') => "a table".into(),
            (Some(text), _) if text.len() <= 80 && !text.contains('\n') => text.into(),
            (_, DeValue::Array(_)) => "a list".into(),
            (_, DeValue::Table(_)) => "a table".into(),
            _ => format!("a long {}", value.type_str()),
        }
    }
}

/// One table of the manifest.
#[derive(Clone)]
pub(super) struct Section<'a> {
    document: &'a Document<'a>,
    /// As the user writes it: `[model]`, `[[series]]`; empty for the top level.
    label: &'static str,
    /// Byte offset of its header.
    pub start: usize,
    table: &'a DeTable<'a>,
}

impl<'a> Section<'a> {
    pub fn top(document: &'a Document<'a>, table: &'a Spanned<DeTable<'a>>) -> Self {
        Section { document, label: "", start: 0, table: table.get_ref() }
    }

    /// Refuses the first key that [`KEYS`] does not list for this table, and says what it may mean.
    pub fn known(self) -> Result<Self> {
        let of_this = KEYS.iter().filter(|(label, _)| *label == self.label);
        let known: Vec<&str> = of_this.flat_map(|(_, keys)| keys.iter().copied()).collect();
        let unknown = self.table.keys().filter(|key| !known.contains(&key.get_ref().as_ref()));
        let Some(key) = unknown.min_by_key(|key| key.span().start) else {
            return Ok(self);
        };
        let name = key.get_ref().as_ref();
        let owners = KEYS.iter().filter(|(_, keys)| keys.contains(&name));
        let owners: Vec<&str> = owners.map(|(label, _)| if label.is_empty() { "the top level" } else { *label }).collect();
        let remedy = match nearest(name, known.iter().copied()) {
            _ if !owners.is_empty() => format!("it belongs in {}", owners.join(" or ")),
            Some(near) => format!("did you mean {near}?"),
            None => format!("expected one of {}", known.join(", ")),
        };
        let problem = format!("{}: unknown key; {remedy}", self.label_of(name));
        Err(self.document.error(key.span().start, problem))
    }

    /// The line of its header.
    pub fn line(&self) -> usize {
        self.document.line(self.start)
    }

    /// `checkpoints.toml:12: [personas]`, for complaints that are made later.
    pub fn place(&self) -> String {
        format!("{}:{}: {}", self.document.name, self.line(), self.label)
    }

    /// The keys that are there, in the order of the file.
    pub fn fields(&self) -> Vec<Field<'a>> {
        let mut fields: Vec<_> = self.table.keys().filter_map(|key| self.get(key.get_ref().as_ref())).collect();
        fields.sort_by_key(|field| field.value.span().start);
        fields
    }

    pub fn get(&self, key: &str) -> Option<Field<'a>> {
        let (key, value) = self.table.get_key_value(key)?;
        Some(Field { document: self.document, label: self.label_of(key.get_ref()), key: key.get_ref().as_ref(), value })
    }

    /// A complaint about the table as a whole.
    pub fn error(&self, problem: impl Display) -> Error {
        let colon = if self.label.is_empty() { "" } else { ": " };
        self.document.error(self.start, format!("{}{colon}{problem}", self.label))
    }

    /// The table `key`, if it is there, with known keys only.
    pub fn table(&self, key: &str, label: &'static str) -> Result<Option<Section<'a>>> {
        self.get(key).map(|field| field.section(label)?.known()).transpose()
    }

    /// A key that has no default; `expected` says what to write.
    pub fn need(&self, key: &str, expected: &str) -> Result<Field<'a>> {
        self.get(key).ok_or_else(|| {
            let place = self.label_of(key);
            self.document.error(self.start, format!("{place}: missing, expected {expected}"))
        })
    }

    fn label_of(&self, key: &str) -> String {
        if self.label.is_empty() { key.into() } else { format!("{} {key}", self.label) }
    }
}

/// One value of the manifest and its place.
#[derive(Clone)]
pub(super) struct Field<'a> {
    document: &'a Document<'a>,
    label: String,
    pub key: &'a str,
    value: &'a Spanned<DeValue<'a>>,
}

impl<'a> Field<'a> {
    /// `checkpoints.toml:12: [model] dtype: {problem}`
    pub fn error(&self, problem: impl Display) -> Error {
        self.document.error(self.value.span().start, format!("{}: {problem}", self.label))
    }

    /// `checkpoints.toml:12: [model] dtype: found "fp32", expected {expected}`
    pub fn wrong(&self, expected: impl Display) -> Error {
        let found = self.document.quote(self.value.span(), self.value.get_ref());
        self.error(format!("found {found}, expected {expected}"))
    }

    /// `checkpoints.toml:12: [model] dtype`, for complaints that are made later.
    pub fn place(&self) -> String {
        let line = self.document.line(self.value.span().start);
        format!("{}:{line}: {}", self.document.name, self.label)
    }

    /// A string that is not blank.
    pub fn text(&self, expected: &str) -> Result<&'a str> {
        let text = self.value.get_ref().as_str();
        text.filter(|text| !text.trim().is_empty()).ok_or_else(|| self.wrong(expected))
    }

    /// A string that is safe as the name of a file or folder on every file system.
    pub fn file_name(&self) -> Result<&'a str> {
        const EXPECTED: &str = "a name of letters, digits, '.', '_' and '-' that does not start with '.'";
        let name = self.text(EXPECTED)?;
        if is_file_name(name) { Ok(name) } else { Err(self.wrong(EXPECTED)) }
    }

    pub fn choice<T: Choice>(&self) -> Result<T> {
        let found = self.value.get_ref().as_str();
        let choice = T::ALL.iter().find(|(name, _)| Some(*name) == found);
        choice.map(|(_, value)| *value).ok_or_else(|| {
            let names: Vec<_> = T::ALL.iter().map(|(name, _)| *name).collect();
            self.wrong(format!("one of {}", names.join(", ")))
        })
    }

    pub fn boolean(&self) -> Result<bool> {
        self.value.get_ref().as_bool().ok_or_else(|| self.wrong("true or false"))
    }

    pub fn integer(&self, range: RangeInclusive<u64>) -> Result<u64> {
        let integer = self.value.get_ref().as_integer();
        let value = integer.and_then(|i| u64::from_str_radix(i.as_str(), i.radix()).ok());
        value.filter(|value| range.contains(value)).ok_or_else(|| {
            let (low, high) = range.clone().into_inner();
            let full = if self.value.get_ref().is_float() { ", without point or exponent" } else { "" };
            self.wrong(match high {
                u64::MAX if integer.is_some_and(|i| !i.as_str().starts_with('-')) => format!("a whole number from {low} to 2^64 - 1"),
                u64::MAX => format!("a whole number, {low} or more{full}"),
                _ => format!("a whole number from {low} to {high}{full}"),
            })
        })
    }

    /// A number in `range`, written with or without a decimal point.
    pub fn number(&self, range: RangeInclusive<f64>) -> Result<f64> {
        let value = match self.value.get_ref() {
            DeValue::Float(float) => float.as_str().parse().ok(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().parse().ok(),
            _ => None,
        };
        value.filter(|value| range.contains(value)).ok_or_else(|| self.wrong(format!("a number from {} to {}", range.start(), range.end())))
    }

    /// The elements of a list that is not empty.
    pub fn list(&self, expected: &str) -> Result<Vec<Field<'a>>> {
        let array = self.value.get_ref().as_array().filter(|array| !array.is_empty());
        let array = array.ok_or_else(|| self.wrong(expected))?;
        Ok(array.iter().map(|value| Field { value, ..self.clone() }).collect())
    }

    /// As [`Field::list`], every element read by `read` and none of them twice.
    pub fn distinct<T: PartialEq>(&self, expected: &str, read: impl Fn(&Field<'a>) -> Result<T>) -> Result<Vec<T>> {
        let mut values = Vec::new();
        for element in self.list(expected)? {
            let value = read(&element)?;
            if values.contains(&value) {
                return Err(element.wrong("each value once"));
            }
            values.push(value);
        }
        Ok(values)
    }

    /// The table that stands here; `label` is how to write it.
    pub fn section(&self, label: &'static str) -> Result<Section<'a>> {
        let DeValue::Table(table) = self.value.get_ref() else {
            return Err(self.wrong(format!("a table, {label}")));
        };
        Ok(Section { document: self.document, label, start: self.value.span().start, table })
    }

    pub fn is_text(&self) -> bool {
        self.value.get_ref().is_str()
    }

    pub fn is_list(&self) -> bool {
        self.value.get_ref().is_array()
    }

    pub fn is_table(&self) -> bool {
        self.value.get_ref().is_table()
    }
}

/// Whether a value looks like a string that was written without quotes.
fn is_bare_word(value: &str) -> bool {
    value.starts_with(|c: char| c.is_ascii_alphabetic()) && !value.contains(['"', '\'']) && value != "true" && value != "false"
}

/// Whether a name is safe for a file or folder on every file system.
pub(super) fn is_file_name(name: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    (1..=100).contains(&name.len()) && name.chars().all(safe) && !name.starts_with('.')
}

/// The candidate that differs from `word` by a slip of the keyboard, if one does.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let close = candidates.into_iter().map(|candidate| (distance(word, candidate), candidate));
    let (slips, candidate) = close.min_by_key(|(slips, _)| *slips)?;
    (slips <= 1 + word.chars().count() / 4).then_some(candidate)
}

/// Edit distance in which swapping two neighbours is one slip (optimal string alignment).
pub(super) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j - 1] + differs).min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}
