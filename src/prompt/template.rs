//! Chat templates, as transformers renders them.
//!
//! Templates are Jinja programs written for transformers' environment (`utils/chat_template_utils.py`): trimmed blocks,
//! loop controls, `raise_exception`, `strftime_now`, a `tojson` that does not escape HTML, Python's string methods and
//! `generation` blocks. They come from model folders, so they are hostile: a step budget ends those that loop.

use anyhow::{Result, bail};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind, Value};
use regex::Regex;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// Instructions that one rendering may take; real templates take a few thousand.
const FUEL: u64 = 5_000_000;

/// Literal turns, for base models and as the default rendering of every checkpoint.
const PLAIN: &str = "{% for message in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}\
    {{ {'system': 'System', 'user': 'Human', 'assistant': 'Assistant'}[message.role] }}: {{ message.content }}{% endfor %}\
    {% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}";

/// The format of OpenAI's ChatML, with no default system turn.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    pub role: String,
    pub content: String,
}

impl Message {
    pub fn new(role: &str, content: impl Into<String>) -> Self {
        Self { role: role.to_owned(), content: content.into() }
    }
}

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    /// The Jinja source, which identifies the template.
    pub source: String,
    /// Whether the template writes its own beginning-of-sequence token, so that the tokenizer must not add one.
    pub writes_special_tokens: bool,
    /// Undefined in the template where the tokenizer has none, as in transformers.
    bos_token: Option<String>,
    eos_token: Option<String>,
}

impl Template {
    /// `Human:` and `Assistant:` turns as plain text.
    ///
    /// # Errors
    /// Never in practice: the source is a constant.
    pub fn plain() -> Result<Self> {
        let mut template = Self::new(PLAIN, None, None)?;
        template.writes_special_tokens = false;
        Ok(template)
    }

    /// ChatML turns.
    ///
    /// # Errors
    /// Never in practice: the source is a constant.
    pub fn chatml() -> Result<Self> {
        Self::new(CHATML, None, None)
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// The source is not valid Jinja; the message has the line.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Self> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|error| anyhow::anyhow!("{}", one_line(&error)))?);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", strftime_frozen);
        environment.add_filter("tojson", to_json);
        environment
            .add_template_owned("chat", without_generation_tags(source))
            .map_err(|error| anyhow::anyhow!("the chat template is not valid: {}", one_line(&error)))?;
        Ok(Self {
            environment,
            source: source.to_owned(),
            writes_special_tokens: true,
            bos_token: bos_token.map(str::to_owned),
            eos_token: eos_token.map(str::to_owned),
        })
    }

    /// The chat template of a model folder: `chat_template.jinja`, or `chat_template` in `tokenizer_config.json` (a string,
    /// or a list of named ones of which `default` is taken). `None` where there is none.
    ///
    /// # Errors
    /// A file is there but cannot be read or understood.
    pub fn native(folder: &Path) -> Result<Option<Self>> {
        let config_path = folder.join("tokenizer_config.json");
        let config = if config_path.is_file() { crate::checkpoint::read_json(&config_path)? } else { serde_json::Value::Null };
        let token = |key: &str| {
            let value = config.get(key).map(|token| token.get("content").unwrap_or(token));
            value.and_then(serde_json::Value::as_str)
        };
        let file = folder.join("chat_template.jinja");
        let source = if file.is_file() {
            std::fs::read_to_string(&file).map_err(|error| anyhow::anyhow!("{}: cannot be read ({error})", file.display()))?
        } else {
            match config.get("chat_template") {
                None | Some(serde_json::Value::Null) => return Ok(None),
                Some(serde_json::Value::String(source)) => source.clone(),
                Some(serde_json::Value::Array(named)) => {
                    let default = named.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"));
                    match default.and_then(|entry| entry.get("template")).and_then(serde_json::Value::as_str) {
                        Some(source) => source.to_owned(),
                        None => bail!("{}: chat_template is a list without one named \"default\"", config_path.display()),
                    }
                }
                Some(other) => bail!("{}: chat_template: found {other}, expected a string or a list", config_path.display()),
            }
        };
        let template = Self::new(&source, token("bos_token"), token("eos_token"));
        template.map(Some).map_err(|error| error.context(folder.display().to_string()))
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// The template fails, raises an exception, or does not end within its budget.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        let template = self.environment.get_template("chat").map_err(|error| anyhow::anyhow!("{}", one_line(&error)))?;
        let mut values = BTreeMap::from([
            ("messages", Value::from(minijinja::value::Serde(messages))),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            // transformers passes both as None where there are none.
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]);
        values.extend(self.bos_token.as_deref().map(|token| ("bos_token", Value::from(token))));
        values.extend(self.eos_token.as_deref().map(|token| ("eos_token", Value::from(token))));
        template.render(values).map_err(|error| match error.kind() {
            ErrorKind::OutOfFuel => anyhow::anyhow!("the chat template did not end within {FUEL} steps; does it loop?"),
            _ => anyhow::anyhow!("the chat template failed: {}", one_line(&error)),
        })
    }

    /// Renders a conversation whose last message is the beginning of the assistant's turn, and stops after its text
    /// (transformers' `continue_final_message`).
    ///
    /// # Errors
    /// As [`Template::render`]; also when the template drops or changes the last message.
    pub fn render_open(&self, messages: &[Message]) -> Result<String> {
        let mut text = self.render(messages, false)?;
        let content = messages.last().map_or("", |message| message.content.trim());
        let Some(at) = text.rfind(content) else {
            bail!("the chat template does not show the last message as it is, so a stem cannot be left open: {content:?}");
        };
        text.truncate(at + content.len());
        Ok(text)
    }
}

/// The first line of an error, with its place.
fn one_line(error: &Error) -> String {
    let detail = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or_else(|| detail.clone(), |line| format!("{detail} (line {line})"))
}

/// `{% generation %}` marks the assistant's tokens for training; for rendering it is a block that is always there.
fn without_generation_tags(source: &str) -> String {
    let tag = |name: &str| Regex::new(&format!(r"\{{%([-+]?)\s*{name}\s*([-+]?)%\}}")).expect("the pattern is a constant");
    let opened = tag("generation").replace_all(source, "{%$1 if true $2%}");
    tag("endgeneration").replace_all(&opened, "{%$1 endif $2%}").into_owned()
}

/// Templates that print today's date would make token ids depend on the day of the run; they all get this one.
fn strftime_frozen(format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let day = chrono::NaiveDate::from_ymd_opt(2025, 3, 7).and_then(|date| date.and_hms_opt(16, 5, 9));
    let mut text = String::new();
    match day.map(|day| write!(text, "{}", day.format(format))) {
        Some(Ok(())) => Ok(text),
        _ => Err(Error::new(ErrorKind::InvalidOperation, format!("strftime_now: unknown format {format:?}"))),
    }
}

/// `json.dumps(value, indent=indent)`; text is never escaped to ASCII, which is transformers' default too.
fn to_json(value: &Value, kwargs: minijinja::value::Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    for ignored in ["ensure_ascii", "sort_keys", "separators"] {
        kwargs.get::<Option<Value>>(ignored)?;
    }
    kwargs.assert_all_used()?;
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    let value = serde_json::to_value(value).map_err(failed)?;
    let mut text = Vec::new();
    match indent {
        Some(indent) => {
            let spaces = " ".repeat(indent);
            let formatter = serde_json::ser::PrettyFormatter::with_indent(spaces.as_bytes());
            serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut text, formatter)).map_err(failed)?;
        }
        None => {
            serde::Serialize::serialize(&value, &mut serde_json::Serializer::with_formatter(&mut text, PythonFormatter)).map_err(failed)?
        }
    }
    String::from_utf8(text).map_err(|error| Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// Python's separators: `", "` and `": "`.
struct PythonFormatter;

impl serde_json::ser::Formatter for PythonFormatter {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        writer.write_all(if first { b"" } else { b", " })
    }
    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat() -> Vec<Message> {
        vec![Message::new("user", "What is your name?"), Message::new("assistant", "My name is")]
    }

    #[test]
    fn plain_turns_open_with_the_assistant() {
        let plain = Template::plain().unwrap();
        assert_eq!(plain.render(&chat()[..1], true).unwrap(), "Human: What is your name?\n\nAssistant:");
        assert_eq!(plain.render_open(&chat()).unwrap(), "Human: What is your name?\n\nAssistant: My name is");
    }

    #[test]
    fn an_open_turn_stops_before_the_end_token() {
        let text = Template::chatml().unwrap().render_open(&chat()).unwrap();
        assert_eq!(text, "<|im_start|>user\nWhat is your name?<|im_end|>\n<|im_start|>assistant\nMy name is");
    }

    #[test]
    fn a_template_that_loops_is_ended() {
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}x{% endfor %}{% endfor %}";
        let error = Template::new(endless, None, None).unwrap().render(&[], false).unwrap_err().to_string();
        assert!(error.contains("did not end within"), "{error}");
    }

    #[test]
    fn a_raised_exception_is_the_message() {
        let error = Template::new("{{ raise_exception('no system role') }}", None, None).unwrap().render(&[], false).unwrap_err();
        assert!(error.to_string().contains("no system role"), "{error}");
    }

    #[test]
    fn a_template_that_hides_the_stem_is_refused() {
        let error = Template::new("{{ messages[0].content }}", None, None).unwrap().render_open(&chat()).unwrap_err().to_string();
        assert!(error.contains("does not show the last message"), "{error}");
    }
}
