//! `[conversation]`: what checkpoints say when they are let talk.

use std::path::Path;

use anyhow::Result;
use serde::Serialize;

use super::spanned::Section;
use super::talk::Talk;
use super::{CONVERSATION, CONVERSATION_LAYERS};

/// What is written, and what is read behind it; without the table, or with `enabled = false`, nothing is, and it costs nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Conversation {
    /// What is read; its sets hold openings instead of conversations.
    #[serde(flatten)]
    pub talk: Talk,
    /// Of a conversation.
    pub exchanges: usize,
    /// Most tokens of a turn.
    pub max_tokens: usize,
    /// Conversations of each arm.
    pub seeds: usize,
    /// Behind those at the first one it is asked; the others say how much the text depends on it.
    pub temperatures: Vec<f64>,
    pub top_p: f64,
}

impl Conversation {
    pub(super) fn read(top: &Section, folder: &Path) -> Result<Option<Self>> {
        let Some(section) = top.table("conversation", CONVERSATION)? else { return Ok(None) };
        let count = |key, range, default| match section.get(key) {
            Some(field) => field.integer(range).map(|n| n as usize),
            None => Ok(default),
        };
        let exchanges = count("exchanges", 1..=999, 8)?;
        let mut turns = vec![1, exchanges.div_ceil(2), exchanges];
        turns.dedup();
        let Some(talk) = Talk::read(&section, folder, CONVERSATION_LAYERS, (1..=exchanges as u64, &turns))? else { return Ok(None) };
        Ok(Some(Self {
            talk,
            exchanges,
            max_tokens: count("max_tokens", 1..=9_999, 48)?,
            seeds: count("seeds", 1..=999, 15)?,
            temperatures: match section.get("temperatures") {
                Some(field) => field.distinct("a list, the one that counts first, as in [1.0, 0.7, 1.3]", |t| t.number(0.0..=100.0))?,
                None => vec![1.0, 0.7, 1.3],
            },
            top_p: section.get("top_p").map_or(Ok(1.0), |field| field.number(0.000_001..=1.0))?,
        }))
    }
}
