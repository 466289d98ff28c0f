//! What was said in a conversation.

use crate::model::generate::Finish;
use crate::prompt::template::Message;
use crate::prompt::transcript::Transcript;
use crate::words::words;
use serde::{Deserialize, Serialize};

words! {
    /// Whose turn it is.
    #[derive(Default)]
    pub enum Speaker {
        /// A line of the script, or what the other instance is given as its first one.
        Given = "given",
        /// The model: what is read is read behind its turns.
        #[default]
        Model = "model",
        /// Another instance of it.
        Partner = "partner",
    }
}

/// A turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turn {
    /// From 1: what is said to the model, and what it answers, have one number.
    pub exchange: u32,
    pub speaker: Speaker,
    /// Empty where nothing was written: then it is the last one.
    pub text: String,
    /// Tokens that were written, with the one that ended it.
    pub tokens: Option<u32>,
    /// Why it ended: a [`Finish`], by name, or `refused`.
    pub finish: Option<String>,
}

impl Turn {
    /// A turn that nobody wrote.
    pub fn given(exchange: u32, text: &str) -> Self {
        Self { exchange, speaker: Speaker::Given, text: text.to_owned(), tokens: None, finish: None }
    }
}

/// A conversation from its beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Dialogue {
    pub arm: String,
    /// Its number, which says how it begins and what its random numbers are.
    pub seed: u32,
    pub temperature: f64,
    pub turns: Vec<Turn>,
}

impl Dialogue {
    /// Whether more can be said: what was said last is not empty, and its numbers were finite.
    pub fn goes_on(&self) -> bool {
        let is_sound = |finish: &String| *finish != Finish::NotFinite.name() && *finish != Finish::TooLong.name();
        self.turns.last().is_some_and(|turn| !turn.text.is_empty() && turn.finish.as_ref().is_none_or(is_sound))
    }

    /// The conversation as whoever speaks next has it: its own turns are the assistant's. The partner begins with what the model said first.
    pub fn heard_by(&self, speaker: Speaker) -> Vec<Message> {
        let of_partner = speaker == Speaker::Partner;
        let message = |turn: &Turn| {
            let is_own = (turn.speaker == Speaker::Model) != of_partner;
            Message::new(if is_own { "assistant" } else { "user" }, turn.text.as_str())
        };
        self.turns.iter().skip(usize::from(of_partner)).map(message).collect()
    }

    /// The model's turns that say something, by exchange.
    pub fn said(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter().filter(|turn| turn.speaker == Speaker::Model && !turn.text.is_empty())
    }

    /// What was written, in order, whoever wrote it.
    pub fn written(&self) -> impl Iterator<Item = &Turn> {
        self.turns.iter().filter(|turn| turn.speaker != Speaker::Given && !turn.text.is_empty())
    }

    /// Up to the model's last turn that says something; `None` without one.
    pub fn transcript(&self) -> Option<Transcript> {
        let said = self.turns.iter().rposition(|turn| turn.speaker == Speaker::Model && !turn.text.is_empty())?;
        let mut messages = self.heard_by(Speaker::Model);
        messages.truncate(said + 1);
        Some(Transcript { arm: self.arm.clone(), id: self.seed.to_string(), writer: None, messages })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(exchange: u32, speaker: Speaker, text: &str, finish: &str) -> Turn {
        Turn { speaker, tokens: Some(1), finish: Some(finish.to_owned()), ..Turn::given(exchange, text) }
    }

    #[test]
    fn each_instance_hears_the_other_as_its_user() {
        let mut dialogue = Dialogue { arm: "self_talk".to_owned(), seed: 3, temperature: 1.0, turns: vec![Turn::given(1, "o")] };
        dialogue.turns.push(turn(1, Speaker::Model, "a", "stop"));
        dialogue.turns.push(turn(1, Speaker::Partner, "b", "length"));
        let roles = |speaker| {
            let messages = dialogue.heard_by(speaker);
            messages.iter().map(|message| format!("{} {}", message.role, message.content)).collect::<Vec<_>>()
        };
        assert_eq!(roles(Speaker::Model), ["user o", "assistant a", "user b"]);
        assert_eq!(roles(Speaker::Partner), ["user a", "assistant b"]);
        assert_eq!(dialogue.transcript().unwrap().messages.len(), 2);
        assert!(dialogue.goes_on());
        dialogue.turns.push(turn(2, Speaker::Model, "", "stop"));
        assert!(!dialogue.goes_on());
        assert_eq!(dialogue.transcript().unwrap().messages.len(), 2);
        assert_eq!((dialogue.said().count(), dialogue.written().count()), (1, 2));
    }

    #[test]
    fn a_temperature_of_many_digits_is_the_same_in_a_file() {
        let dialogue = Dialogue { arm: "user".to_owned(), seed: 0, temperature: 1.1884567000000175, turns: Vec::new() };
        assert_eq!(serde_json::from_str::<Dialogue>(&serde_json::to_string(&dialogue).unwrap()).unwrap(), dialogue);
    }

    #[test]
    fn nothing_goes_on_behind_what_is_not_finite() {
        let turns = vec![Turn::given(1, "o"), turn(1, Speaker::Model, "a", "not_finite")];
        let dialogue = Dialogue { arm: "user".to_owned(), seed: 0, temperature: 0.0, turns };
        assert!(!dialogue.goes_on());
    }
}
