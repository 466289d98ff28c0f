//! Conversations as people write them down, made ready for a template: what transformers does to messages before it renders them
//! (`_normalize_chat_messages` and `_alias_reasoning_fields` in `utils/chat_template_utils.py`), and stand-ins for what must stay text.

use crate::guard::brief;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

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

/// Names under which templates look for a message's reasoning; the first is the usual one.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// The turns of a conversation: objects with a `role`, usually a `content`, and whatever else a template may ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation(Vec<Map<String, Value>>);

impl From<&[Message]> for Conversation {
    fn from(messages: &[Message]) -> Self {
        let turn = |message: &Message| {
            let pair = |key: &str, value: &str| (key.to_owned(), Value::from(value));
            Map::from_iter([pair("role", &message.role), pair("content", &message.content)])
        };
        Self(messages.iter().map(turn).collect())
    }
}

impl Conversation {
    /// Reads a list of messages. Keys that are null are left out, as transformers does; content may be text or a list of text parts.
    ///
    /// # Errors
    /// No message, one without a role, or content that is no text.
    pub fn read(messages: Vec<Map<String, Value>>) -> Result<Self> {
        ensure!(!messages.is_empty(), "`messages` is empty, expected at least one message");
        let mut turns = Vec::new();
        for (number, mut turn) in messages.into_iter().enumerate() {
            turn.retain(|_, value| !value.is_null());
            let place = || format!("message {}", number + 1);
            ensure!(turn.get("role").is_some_and(Value::is_string), "{}: expected `role`, as in \"user\"", place());
            if let Some(content) = turn.get("content") {
                check_content(content).with_context(place)?;
            }
            let reasoning = REASONING.iter().find_map(|key| turn.get(*key)).cloned();
            if let Some(reasoning) = reasoning {
                turn.entry("thinking").or_insert_with(|| reasoning.clone());
                turn.insert(REASONING[0].to_owned(), reasoning);
            }
            turns.push(turn);
        }
        Ok(Self(turns))
    }

    /// As JSON, for the template.
    pub fn turns(&self) -> &[Map<String, Value>] {
        &self.0
    }

    /// Whether the last message is the beginning of an answer.
    pub fn is_open(&self) -> bool {
        self.0.last().is_some_and(|turn| turn.get("role").is_some_and(|role| role == "assistant"))
    }

    /// Whether some content is a list of parts.
    pub fn has_parts(&self) -> bool {
        self.0.iter().any(|turn| turn.get("content").is_some_and(Value::is_array))
    }

    /// The texts of all parts.
    pub fn part_texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|turn| turn.get("content")).flat_map(texts)
    }

    /// The same with the parts of every content joined to one text.
    pub fn joined(&self) -> Self {
        let mut turns = self.0.clone();
        for content in turns.iter_mut().filter_map(|turn| turn.get_mut("content")).filter(|content| content.is_array()) {
            let text: String = texts(content).collect();
            *content = Value::String(text);
        }
        Self(turns)
    }

    /// Text at the end of the last message: where an open turn goes on.
    pub fn last_text(&self) -> Option<&str> {
        let content = self.0.last()?.get("content")?;
        content.as_str().or_else(|| texts(content).last())
    }

    /// Puts `mark` at the end of the last message's text.
    pub(super) fn mark_end(&mut self, mark: &str) {
        let content = self.0.last_mut().and_then(|turn| turn.get_mut("content"));
        let text = match content {
            Some(Value::Array(parts)) => parts.iter_mut().rev().find_map(|part| part.get_mut("text")),
            other => other,
        };
        if let Some(Value::String(text)) = text {
            text.push_str(mark);
        }
    }

    /// Applies `change` to every text in it, however deep; keys stay.
    pub(super) fn change_texts(&mut self, change: &mut dyn FnMut(&str) -> String) {
        self.0.iter_mut().flat_map(Map::values_mut).for_each(|value| change_text(value, change));
    }

    /// Whether a character occurs anywhere in it.
    pub(super) fn contains(&self, c: char) -> bool {
        fn inside(value: &Value, c: char) -> bool {
            match value {
                Value::String(text) => text.contains(c),
                Value::Array(values) => values.iter().any(|value| inside(value, c)),
                Value::Object(table) => table.iter().any(|(key, value)| key.contains(c) || inside(value, c)),
                _ => false,
            }
        }
        self.0.iter().flat_map(Map::values).any(|value| inside(value, c))
    }
}

fn change_text(value: &mut Value, change: &mut dyn FnMut(&str) -> String) {
    match value {
        Value::String(text) => *text = change(text),
        Value::Array(values) => values.iter_mut().for_each(|value| change_text(value, change)),
        Value::Object(table) => table.values_mut().for_each(|value| change_text(value, change)),
        _ => {}
    }
}

fn texts(content: &Value) -> impl DoubleEndedIterator<Item = &str> {
    content.as_array().into_iter().flatten().filter_map(|part| part.get("text").and_then(Value::as_str))
}

fn check_content(content: &Value) -> Result<()> {
    let Value::Array(parts) = content else {
        ensure!(content.is_string(), "content: found {}, expected text or a list of text parts", brief(&content.to_string()));
        return Ok(());
    };
    for part in parts {
        let kind = part.get("type").and_then(Value::as_str).unwrap_or("text");
        if kind != "text" {
            bail!("content: found a part of type {kind:?}, expected text alone, as the text model reads nothing else");
        }
        let has_text = part.get("text").is_some_and(Value::is_string);
        ensure!(has_text, "content: found {}, expected {{\"type\": \"text\", \"text\": ...}}", brief(&part.to_string()));
    }
    Ok(())
}
