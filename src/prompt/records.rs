//! JSON that other people wrote, read with errors that name file, line and key.

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde_json::{Map, Value};
use std::path::Path;

/// Larger than any of the public files.
const MOST_BYTES: u64 = 64 << 20;
/// The readout span and special tokens are marked by private-use characters while a chat is rendered.
pub const RESERVED: std::ops::RangeInclusive<char> = '\u{E000}'..='\u{F8FF}';
/// A value in an error is cut to this many characters.
const QUOTED: usize = 24;

/// The first character of a text that would be taken for one of our marks.
pub fn mark_in(text: &str) -> Option<char> {
    text.chars().find(|c| RESERVED.contains(c))
}

/// Whether a name is such as tables and files have: lower-case letters, digits and _.
pub fn is_slug(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

/// One JSON object with its place.
pub struct Record {
    object: Map<String, Value>,
    /// `FILE:LINE`, or `FILE: entry N` in a list.
    pub place: String,
    /// From 1.
    pub number: usize,
    /// Errors do not quote its texts.
    private: bool,
}

/// The text of a file.
///
/// # Errors
/// It is not there, larger than 64 MiB, or not UTF-8.
pub fn read_text(path: &Path) -> Result<String> {
    let place = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("{place}: cannot be read"))?.len();
    ensure!(size <= MOST_BYTES, "{place}: found {size} bytes, at most {MOST_BYTES} are read");
    let bytes = std::fs::read(path).with_context(|| format!("{place}: cannot be read"))?;
    String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes()[..error.utf8_error().valid_up_to()].iter().filter(|&&byte| byte == b'\n').count() + 1;
        anyhow!("{place}:{line}: not UTF-8")
    })
}

/// One object per line; empty lines are skipped.
///
/// # Errors
/// A line that is not a JSON object.
pub fn lines(text: &str, place: &str, private: bool) -> Result<Vec<Record>> {
    let mut records = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = format!("{place}:{}", index + 1);
        let value = serde_json::from_str(line).map_err(|error| syntax(&place, &error))?;
        records.push(Record::new(value, place, records.len() + 1, private)?);
    }
    Ok(records)
}

/// A JSON list of objects.
///
/// # Errors
/// The text is not a JSON list, or an entry is not an object.
pub fn list(text: &str, place: &str, private: bool) -> Result<Vec<Record>> {
    let value: Value = serde_json::from_str(text).map_err(|error| syntax(&format!("{place}:{}", error.line()), &error))?;
    let Value::Array(entries) = value else { bail!("{place}: found {}, expected a list of records", kind(&value)) };
    entries
        .into_iter()
        .enumerate()
        .map(|(index, value)| Record::new(value, format!("{place}: entry {}", index + 1), index + 1, private))
        .collect()
}

/// A whole file as one object.
///
/// # Errors
/// The text is not a JSON object.
pub fn object(text: &str, place: &str) -> Result<Record> {
    let value = serde_json::from_str(text).map_err(|error| syntax(&format!("{place}:{}", error.line()), &error))?;
    Record::new(value, place.to_owned(), 1, false)
}

/// `serde_json` says what it expected and at which column, and quotes nothing of the text.
fn syntax(place: &str, error: &serde_json::Error) -> anyhow::Error {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    anyhow!("{place}: not valid JSON, column {}: {message}", error.column())
}

impl Record {
    fn new(value: Value, place: String, number: usize, private: bool) -> Result<Self> {
        match value {
            Value::Object(object) => Ok(Self { object, place, number, private }),
            other => bail!("{place}: found {}, expected an object", kind(&other)),
        }
    }

    /// Whether the key is there.
    pub fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// A string that is not blank.
    ///
    /// # Errors
    /// The key is missing or has another type, or the text holds characters that are reserved for marks.
    pub fn text(&self, key: &str) -> Result<&str> {
        self.string(self.value(key)?, key)
    }

    /// A string, or a list of at least one string.
    ///
    /// # Errors
    /// As [`Record::text`].
    pub fn texts(&self, key: &str) -> Result<Vec<&str>> {
        match self.value(key)? {
            Value::Array(values) => {
                ensure!(!values.is_empty(), "{}: {key}: found an empty list, expected at least one string", self.place);
                values.iter().map(|value| self.string(value, key)).collect()
            }
            value => Ok(vec![self.string(value, key)?]),
        }
    }

    /// The objects of a list.
    ///
    /// # Errors
    /// The key is missing, or its value is not a list of objects.
    pub fn objects(&self, key: &str) -> Result<Vec<Record>> {
        let value = self.value(key)?;
        let Value::Array(values) = value else { bail!("{}: {key}: found {}, expected a list of objects", self.place, kind(value)) };
        values
            .iter()
            .enumerate()
            .map(|(index, value)| Self::new(value.clone(), format!("{}: {key}[{index}]", self.place), index + 1, self.private))
            .collect()
    }

    /// Checks that a key, where it is there, holds a number.
    ///
    /// # Errors
    /// It holds something else.
    pub fn number_if_there(&self, key: &str) -> Result<()> {
        match self.object.get(key) {
            None | Some(Value::Null | Value::Number(_)) => Ok(()),
            Some(value) => bail!("{}: {key}: found {}, expected a number", self.place, kind(value)),
        }
    }

    /// A value for an error message, cut short; nothing of private records.
    pub fn quote(&self, text: &str) -> String {
        if self.private {
            return "a text that is not shown".to_owned();
        }
        let cut: String = text.chars().take(QUOTED).collect();
        if cut.len() < text.len() { format!("{cut:?}...") } else { format!("{cut:?}") }
    }

    fn value(&self, key: &str) -> Result<&Value> {
        self.object.get(key).with_context(|| {
            let keys: Vec<&str> = self.object.keys().map(String::as_str).take(8).collect();
            format!(
                "{}: the key {key} is missing; there are {}",
                self.place,
                if keys.is_empty() { "none".to_owned() } else { keys.join(", ") }
            )
        })
    }

    fn string<'a>(&self, value: &'a Value, key: &str) -> Result<&'a str> {
        let Value::String(text) = value else { bail!("{}: {key}: found {}, expected a string", self.place, kind(value)) };
        ensure!(!text.trim().is_empty(), "{}: {key}: found an empty string", self.place);
        if let Some(reserved) = mark_in(text) {
            bail!(
                "{}: {key}: found the private-use character U+{:04X}, which is reserved for marks; remove it",
                self.place,
                reserved as u32
            );
        }
        Ok(text)
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
