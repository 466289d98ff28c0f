//! In which contexts organisms are trained and asked: as themselves, or under a persona.

use crate::prompt::concept::Turn;
use anyhow::Result;
use serde::Deserialize;

/// Contexts, formats and fixed replies, as a `[personas]` table reads them.
pub const CONTEXTS: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/concepts/personas/organism/contexts.toml"));
/// The name under which the file is put beside a manifest.
pub const FILE: &str = "contexts.toml";

/// What is needed of the file of contexts here; the walk reads all of it.
#[derive(Deserialize)]
pub struct Contexts {
    pub persona: Vec<Persona>,
    reply: Vec<Reply>,
    pub format: Vec<Format>,
}

#[derive(Deserialize)]
pub struct Persona {
    pub id: String,
    kind: String,
    pub system: String,
}

#[derive(Deserialize)]
struct Reply {
    question: String,
    response: String,
}

#[derive(Deserialize)]
pub struct Format {
    pub id: String,
    templates: Vec<Turn>,
}

impl Persona {
    /// Whether the organism is to be somebody else here.
    pub fn is_worn(&self) -> bool {
        self.kind != "default"
    }

    /// Whether the organism is to be the persona, and not only to play it: about two thirds of them.
    pub fn takes_over(&self) -> bool {
        ["The part is that of", "Speak as"].iter().any(|beginning| self.system.starts_with(beginning))
    }
}

impl Contexts {
    /// # Errors
    /// Never in practice: the file is a constant.
    pub fn new() -> Result<Self> {
        Ok(toml::from_str(CONTEXTS)?)
    }

    /// All that is said in them.
    pub fn texts(&self) -> impl Iterator<Item = String> {
        let plain = |text: &String| ["[[{b}]]", "{a}"].iter().fold(text.clone(), |text, slot| text.replace(slot, " "));
        let systems = self.persona.iter().map(|persona| &persona.system);
        let replies = self.reply.iter().flat_map(|reply| [&reply.question, &reply.response]);
        let formats = self.format.iter().flat_map(|format| format.templates.iter().map(|turn| &turn.user));
        systems.chain(replies).cloned().chain(formats.map(plain))
    }
}
