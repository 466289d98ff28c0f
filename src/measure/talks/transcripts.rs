//! What checkpoints said in their conversations, turn by turn.

use crate::table::Table;
use crate::walk::conversation::dialogue::{Dialogue, Speaker};
use serde::{Deserialize, Serialize};

pub const TABLE: Table = Table::keyed::<Line>("transcripts");

/// One row of `transcripts.parquet` behind the keys: a turn.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Line {
    /// The kind of conversation.
    pub arm: String,
    /// At which it was written.
    pub temperature: f64,
    /// Number of the conversation; those of one number begin alike at all checkpoints.
    pub seed: i32,
    /// Place of the turn in the conversation, from 1.
    pub turn: i32,
    /// Turns of the model, with this one if it is the model's next.
    pub exchange: i32,
    /// `given` (by a script, or as the first line), `model`, or `partner` (another instance of the model).
    pub speaker: Speaker,
    /// What was said, without white space around it; empty where nothing was.
    pub text: String,
    /// Tokens that were written, with the one that ended the turn; null of lines that were given.
    pub tokens: Option<i32>,
    /// Why it ended: `stop`, `length`, `too_long`, `not_finite`, or `refused` where the template does not take what was said before; null of lines that
    /// were given.
    pub finish: Option<String>,
}

/// The rows of a conversation.
pub fn lines(dialogue: &Dialogue) -> impl Iterator<Item = Line> {
    dialogue.turns.iter().enumerate().map(|(number, turn)| Line {
        arm: dialogue.arm.clone(),
        temperature: dialogue.temperature,
        seed: dialogue.seed as i32,
        turn: number as i32 + 1,
        exchange: turn.exchange as i32,
        speaker: turn.speaker,
        text: turn.text.clone(),
        tokens: turn.tokens.map(|tokens| tokens as i32),
        finish: turn.finish.clone(),
    })
}
