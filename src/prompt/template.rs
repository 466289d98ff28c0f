//! Chat templates, as transformers renders them.
//!
//! Templates are Jinja programs that come from model folders, so they are hostile: the environment (module `jinja`) bounds what they may
//! do, and they run on a stack of their own.

use super::conversation::Conversation;
pub use super::conversation::Message;
use super::jinja::{self, CHAT, FUEL, Unbound};
use super::vocabulary::{NAMED, special_tokens};
use crate::guard::{brief, on_a_large_stack};
use anyhow::{Context, Result, anyhow, bail, ensure};
use minijinja::value::Serde;
use minijinja::{Environment, Error, ErrorKind, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

/// Literal turns, for base models and as the default rendering of every checkpoint.
const PLAIN: &str = "{% for message in messages %}{% if not loop.first %}{{ '\n\n' }}{% endif %}\
    {{ {'system': 'System', 'user': 'Human', 'assistant': 'Assistant'}[message.role] }}: {{ message.content }}{% endfor %}\
    {% if add_generation_prompt %}{{ '\n\nAssistant:' }}{% endif %}";

/// The format of OpenAI's ChatML, with no default system turn.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
    {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// A compiled chat template.
pub struct Template {
    environment: Environment<'static>,
    /// The Jinja source, which identifies the template.
    pub source: String,
    /// Whether the template writes its own beginning-of-sequence token, so that the tokenizer must not add one.
    pub writes_special_tokens: bool,
    /// Special tokens by name, as the template may ask for them.
    tokens: BTreeMap<String, String>,
    /// It was written here, so that it needs no stack of its own.
    is_ours: bool,
}

impl Template {
    /// `Human:` and `Assistant:` turns as plain text.
    ///
    /// # Errors
    /// Never in practice: the source is a constant.
    pub fn plain() -> Result<Self> {
        let template = Self::compile(PLAIN, BTreeMap::new())?;
        Ok(Self { writes_special_tokens: false, is_ours: true, ..template })
    }

    /// ChatML turns.
    ///
    /// # Errors
    /// Never in practice: the source is a constant.
    pub fn chatml() -> Result<Self> {
        Ok(Self { is_ours: true, ..Self::compile(CHATML, BTreeMap::new())? })
    }

    /// Compiles a template.
    ///
    /// # Errors
    /// The source is not valid Jinja; the message has the line.
    pub fn new(source: &str, bos_token: Option<&str>, eos_token: Option<&str>) -> Result<Self> {
        let pairs = [("bos_token", bos_token), ("eos_token", eos_token)];
        let tokens = pairs.into_iter().filter_map(|(name, token)| Some((name.to_owned(), token?.to_owned())));
        Self::compile(source, tokens.collect())
    }

    /// Compiles a template that may ask for `tokens`, special tokens by their name.
    ///
    /// # Errors
    /// As [`Template::new`].
    pub fn compile(source: &str, tokens: BTreeMap<String, String>) -> Result<Self> {
        let compiled = on_a_large_stack("the template engine", || jinja::environment(source))?;
        let environment = compiled.map_err(|error| anyhow!("the chat template is not valid: {}", one_line(&error)))?;
        Ok(Self { environment, source: source.to_owned(), writes_special_tokens: true, tokens, is_ours: false })
    }

    /// The chat template of a model folder with the special tokens of its tokenizer: `chat_template.jinja`, or `chat_template` in
    /// `tokenizer_config.json` (a string, or a list of named ones of which `default` is taken). `None` where there is none.
    ///
    /// # Errors
    /// A file is there but cannot be read or understood.
    pub fn native(folder: &Path) -> Result<Option<Self>> {
        let Some(source) = native_source(folder)? else { return Ok(None) };
        let template = Self::compile(&source, special_tokens(folder)?);
        template.map(Some).with_context(|| folder.display().to_string())
    }

    /// The same template with the special tokens of another tokenizer.
    pub fn with_tokens(self, tokens: BTreeMap<String, String>) -> Self {
        Self { tokens, ..self }
    }

    /// Renders a conversation.
    ///
    /// # Errors
    /// The template fails, raises an exception, asks for a special token that the tokenizer does not have, or does not end within its
    /// budget.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String> {
        self.render_conversation(&messages.into(), add_generation_prompt)
    }

    /// As [`Template::render`]. Content in parts is handed over as it is where the template can read it, and as one text where not.
    ///
    /// # Errors
    /// As [`Template::render`].
    pub fn render_conversation(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<String> {
        if conversation.has_parts() && !self.reads_parts(conversation, add_generation_prompt) {
            return self.run(&conversation.joined(), add_generation_prompt);
        }
        self.run(conversation, add_generation_prompt)
    }

    /// Whether text of a part is in what comes out, and no part as a list would print it. Which parts are written is the template's to say.
    fn reads_parts(&self, conversation: &Conversation, add_generation_prompt: bool) -> bool {
        let Ok(rendered) = self.run(conversation, add_generation_prompt) else { return false };
        let printed = ["\"type\": \"text\"", "'type': 'text'"].iter().any(|list| rendered.contains(list));
        !printed && conversation.part_texts().any(|text| !text.trim().is_empty() && rendered.contains(text.trim()))
    }

    fn run(&self, conversation: &Conversation, add_generation_prompt: bool) -> Result<String> {
        let mut values = BTreeMap::from([
            ("messages", Value::from(Serde(conversation.turns()))),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            // transformers passes both as None where there are none.
            ("tools", Value::from(())),
            ("documents", Value::from(())),
        ]);
        let printed = Arc::<Mutex<BTreeSet<String>>>::default();
        for name in NAMED.into_iter().filter(|name| !self.tokens.contains_key(*name)) {
            values.insert(name, Value::from_object(Unbound { name: name.to_owned(), printed: Arc::clone(&printed) }));
        }
        values.extend(self.tokens.iter().map(|(name, token)| (name.as_str(), Value::from(token.as_str()))));
        let render = || self.environment.get_template(CHAT).and_then(|template| template.render(values));
        let rendered = if self.is_ours { render() } else { on_a_large_stack("the template engine", render)? };
        let unbound = printed.lock().unwrap_or_else(PoisonError::into_inner).iter().next().cloned();
        match (rendered, unbound) {
            (Ok(_), Some(name)) => {
                bail!("the chat template writes {name}, which the tokenizer does not have; name it in tokenizer_config.json")
            }
            (Ok(text), None) => Ok(text),
            (Err(error), _) if error.kind() == ErrorKind::OutOfFuel => {
                bail!("the chat template did not end within {FUEL} steps; does it loop, or write megabytes?")
            }
            (Err(error), _) => {
                let missing = NAMED.iter().find(|name| !self.tokens.contains_key(**name) && self.source.contains(**name));
                let hint = missing.map_or_else(String::new, |name| format!("; it asks for {name}, which the tokenizer does not have"));
                bail!("the chat template failed: {}{hint}", one_line(&error))
            }
        }
    }

    /// Renders a conversation whose last message is the beginning of the assistant's turn, and stops after its text
    /// (transformers' `continue_final_message`).
    ///
    /// # Errors
    /// As [`Template::render`]; also when the template drops or changes the last message.
    pub fn render_open(&self, messages: &[Message]) -> Result<String> {
        let conversation = Conversation::from(messages);
        let mark = private_use().find(|c| !conversation.contains(*c) && !self.source.contains(*c));
        self.render_until(&conversation, mark.context("every private-use character occurs in the messages")?)
    }

    /// As [`Template::render_open`]: `mark`, which occurs nowhere, stands at the end of the last message while it is rendered. White space
    /// in front of the mark is kept if the template keeps a space behind it, as transformers does.
    ///
    /// # Errors
    /// As [`Template::render_open`].
    pub fn render_until(&self, conversation: &Conversation, mark: char) -> Result<String> {
        let content = conversation.last_text().context("the last message, of the assistant, has no content that could be gone on with")?;
        let mut marked = conversation.clone();
        marked.mark_end(&format!("{mark} "));
        let mut text = self.render_conversation(&marked, false)?;
        let at = text.rfind(mark).filter(|_| text.contains(content.trim()));
        let hidden = || format!("the chat template does not show the last message as it is, so a stem cannot be left open: {content:?}");
        let at = at.with_context(hidden)?;
        let keeps_space = text[at + mark.len_utf8()..].starts_with(' ');
        text.truncate(at);
        ensure!(!text.contains(mark), "the chat template shows the last message twice, so a stem cannot be left open: {content:?}");
        if !keeps_space {
            text.truncate(text.trim_end().len());
        }
        Ok(text)
    }
}

/// Characters that have no meaning of their own, for stand-ins.
pub(super) fn private_use() -> impl Iterator<Item = char> {
    ('\u{E100}'..='\u{F8FF}').chain('\u{F0000}'..='\u{FFFFD}').chain('\u{100000}'..='\u{10FFFD}')
}

/// The source of a folder's chat template.
fn native_source(folder: &Path) -> Result<Option<String>> {
    // Of named templates in files transformers takes the one that is called default.
    for name in ["additional_chat_templates/default.jinja", "chat_template.jinja"] {
        let file = folder.join(name);
        if file.is_file() {
            let source = std::fs::read_to_string(&file);
            return source.map(Some).map_err(|error| anyhow!("{}: cannot be read ({error})", file.display()));
        }
    }
    let path = folder.join("tokenizer_config.json");
    if !path.is_file() {
        return Ok(None);
    }
    let config = crate::checkpoint::read_json(&path)?;
    match config.get("chat_template") {
        None | Some(serde_json::Value::Null) => Ok(None),
        Some(serde_json::Value::String(source)) => Ok(Some(source.clone())),
        Some(serde_json::Value::Array(named)) => {
            let default = named.iter().find(|entry| entry.get("name").is_some_and(|name| name == "default"));
            let source = default.and_then(|entry| entry.get("template")).and_then(serde_json::Value::as_str);
            let source = source.with_context(|| format!("{}: chat_template is a list without one named \"default\"", path.display()))?;
            Ok(Some(source.to_owned()))
        }
        Some(serde_json::Value::Object(named)) => {
            let source = named.get("default").and_then(serde_json::Value::as_str);
            let source =
                source.with_context(|| format!("{}: chat_template is a table without a text named \"default\"", path.display()))?;
            Ok(Some(source.to_owned()))
        }
        Some(other) => bail!("{}: chat_template: found {}, expected a string or a list", path.display(), brief(&other.to_string())),
    }
}

/// The first line of an error, with its place.
fn one_line(error: &Error) -> String {
    let detail = brief(&error.detail().map_or_else(|| error.kind().to_string(), str::to_owned));
    error.line().map_or_else(|| detail.clone(), |line| format!("{detail} (line {line})"))
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
