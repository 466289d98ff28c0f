//! JSON as Python's `json.dumps` writes it.

use serde_json::Value;
use std::fmt::Write;

/// The options of `json.dumps`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    pub ensure_ascii: bool,
    /// What a level is indented by; everything on one line without.
    pub indent: Option<String>,
    /// Between items, and between a key and its value.
    pub separators: (String, String),
    pub sort_keys: bool,
}

impl Style {
    /// The value as text.
    pub fn dumps(&self, value: &Value) -> String {
        let mut out = String::new();
        self.write(value, 0, &mut out);
        out
    }

    fn write(&self, value: &Value, depth: usize, out: &mut String) {
        match value {
            Value::Null => out.push_str("null"),
            Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Value::Number(number) => match number.as_f64().filter(|_| number.is_f64()) {
                Some(float) => out.push_str(&python_float(float)),
                None => out.push_str(&number.to_string()),
            },
            Value::String(text) => self.write_text(text, out),
            Value::Array(values) if values.is_empty() => out.push_str("[]"),
            Value::Array(values) => {
                out.push('[');
                for (number, value) in values.iter().enumerate() {
                    self.begin(number, depth, out);
                    self.write(value, depth + 1, out);
                }
                self.end(depth, out);
                out.push(']');
            }
            Value::Object(table) if table.is_empty() => out.push_str("{}"),
            Value::Object(table) => {
                let mut entries: Vec<_> = table.iter().collect();
                if self.sort_keys {
                    entries.sort_by_key(|(key, _)| *key);
                }
                out.push('{');
                for (number, (key, value)) in entries.into_iter().enumerate() {
                    self.begin(number, depth, out);
                    self.write_text(key, out);
                    out.push_str(&self.separators.1);
                    self.write(value, depth + 1, out);
                }
                self.end(depth, out);
                out.push('}');
            }
        }
    }

    /// What stands before an item.
    fn begin(&self, number: usize, depth: usize, out: &mut String) {
        if number > 0 {
            out.push_str(&self.separators.0);
        }
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth + 1));
        }
    }

    /// What stands behind the last item.
    fn end(&self, depth: usize, out: &mut String) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            out.push_str(&indent.repeat(depth));
        }
    }

    fn write_text(&self, text: &str, out: &mut String) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                // Writing into a String does not fail.
                c if c < ' ' => _ = write!(out, "\\u{:04x}", c as u32),
                c if self.ensure_ascii && c as u32 > 0x7e => {
                    c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| _ = write!(out, "\\u{unit:04x}"));
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// `repr(x)`: the shortest digits, with an exponent of at least two digits.
pub fn python_float(x: f64) -> String {
    let text = format!("{x:?}");
    match text.split_once('e') {
        None => text,
        Some((digits, exponent)) => {
            let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
            format!("{digits}e{sign}{exponent:0>2}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn text_is_what_python_writes() {
        // json.dumps({"b": [1, 2.0, 1e-05, 1e+16], "a": "é\u007f🙂\n", "c": {}}, ...) of Python 3.11.
        let value = json!({"b": [1, 2.0, 1e-05, 1e16], "a": "é\u{7f}🙂\n", "c": {}});
        let plain = Style { ensure_ascii: false, indent: None, separators: (", ".into(), ": ".into()), sort_keys: false };
        assert_eq!(plain.dumps(&value), "{\"b\": [1, 2.0, 1e-05, 1e+16], \"a\": \"é\u{7f}🙂\\n\", \"c\": {}}");
        let ascii = Style { ensure_ascii: true, separators: (",".into(), ":".into()), sort_keys: true, ..plain.clone() };
        assert_eq!(ascii.dumps(&value), r#"{"a":"\u00e9\u007f\ud83d\ude42\n","b":[1,2.0,1e-05,1e+16],"c":{}}"#);
        let indented = Style { indent: Some("  ".into()), separators: (",".into(), ": ".into()), ..plain };
        assert_eq!(indented.dumps(&json!({"a": [1], "b": []})), "{\n  \"a\": [\n    1\n  ],\n  \"b\": []\n}");
    }
}
