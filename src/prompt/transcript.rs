//! Conversations that somebody wrote down, and neutral ones of the same length.
//!
//! Three kinds of files are read: TOML with the scripts of an arm, JSON lines of messages, and JSON logs of Inspect. What a file holds that is no
//! conversation is left out with a sentence that says why; the others go on.

use super::concept::{is_toml, parse_toml};
use super::conversation::Conversation;
use super::records::{is_slug, mark_in, read_text};
use super::template::Message;
use crate::guard::brief;
use crate::manifest::{Glob, Talk, TalkSet};
use crate::stats::draws::{generator, uniform_index};
use anyhow::{Context, Result, anyhow, bail, ensure};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::Path;

static SET: Dir = include_dir!("$CARGO_MANIFEST_DIR/concepts/transcripts");

/// Arm of the neutral material.
pub const NEUTRAL: &str = "neutral";
/// Arm of the self-talk whose turns stand in another order, in replays.
pub const SHUFFLED: &str = "shuffled";
/// Whose turns these are.
const SELF_TALK: &str = "self_talk";
/// Arms inside the binary, in the order in which they are looked at.
const ORDER: [&str; 7] = ["awakening", SELF_TALK, "summary_self", "summary_other", "story", "task", "off_topic"];

/// A conversation, from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transcript {
    pub arm: String,
    pub id: String,
    /// The checkpoint that wrote it, where a file says so.
    pub writer: Option<String>,
    pub messages: Vec<Message>,
}

/// Sentences about something that is nobody's self.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Topic {
    user: Vec<String>,
    assistant: Vec<String>,
}

/// A file of scripts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "license")]
    _license: String,
    arm: String,
    #[serde(rename = "description")]
    _description: String,
    #[serde(default)]
    script: Vec<Script>,
    #[serde(default)]
    topic: Vec<Topic>,
}

/// A system message, exchanges of a user and the model, or both.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    #[serde(default)]
    system: String,
    #[serde(default)]
    turns: Vec<[String; 2]>,
}

/// Conversations by arm, and what neutral ones are made of.
#[derive(Debug, Clone, Default)]
pub struct Library {
    /// Arms in order, each with its conversations.
    pub arms: Vec<(String, Vec<Transcript>)>,
    topics: Vec<Topic>,
    /// What is no conversation: a sentence each.
    pub left_out: Vec<String>,
}

impl Library {
    /// Reads the sets of a manifest's table, with its arms in its order.
    ///
    /// # Errors
    /// A file that cannot be read or is of no known kind, a pattern that matches no arm, or no conversation at all.
    pub fn load(wanted: &Talk) -> Result<Self> {
        let mut library = Self::default();
        // Neutral material is always there.
        let builtin = SET.files().filter(|file| is_toml(file.path()));
        let builtin = builtin.map(|file| (file.path().display().to_string(), file.contents_utf8().unwrap_or_default().to_owned()));
        let mut builtin: Vec<File> =
            builtin.map(|(name, text)| File::parse(&text, &format!("concepts/transcripts/{name}"))).collect::<Result<_>>()?;
        builtin.sort_by_key(|file| ORDER.iter().position(|arm| *arm == file.arm));
        library.topics = builtin.iter().flat_map(|file| file.topic.clone()).collect();
        for set in &wanted.sets {
            match set {
                TalkSet::Builtin => builtin.iter().for_each(|file| library.add_file(file)),
                TalkSet::Path(path) => library.add_path(path)?,
            }
        }
        let names: Vec<String> = library.arms.iter().map(|(arm, _)| arm.clone()).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).chain([NEUTRAL, SHUFFLED]).collect();
        wanted.arms.iter().try_for_each(|glob| glob.require(&names))?;
        library.keep(&wanted.arms);
        ensure!(!library.topics.is_empty(), "{}: there is no neutral material", wanted.place);
        Ok(library)
    }

    /// Keeps the arms that these name, in their order; all where there are none.
    fn keep(&mut self, arms: &[Glob]) {
        if arms.is_empty() {
            return;
        }
        let place = |arm: &str| arms.iter().position(|glob| glob.matches(arm));
        self.arms.retain(|(arm, _)| place(arm).is_some());
        self.arms.sort_by_key(|(arm, _)| place(arm));
    }

    /// Adds what replays have beside the arms: self-talk in another order, and neutral conversations as long as it. Of conversations that
    /// checkpoints wrote, those of the `first` one are what is frozen, and so what these stand beside.
    ///
    /// # Errors
    /// As `tokens`.
    pub fn add_controls(&mut self, arms: &[Glob], first: Option<&str>, tokens: &dyn Fn(&str) -> Result<usize>) -> Result<()> {
        let is_wanted = |arm: &str| arms.is_empty() || arms.iter().any(|glob| glob.matches(arm));
        let Some((_, own)) = self.arms.iter().find(|(arm, _)| arm == SELF_TALK).or(self.arms.first()) else { return Ok(()) };
        let is_frozen = |script: &&Transcript| script.writer.is_none() || script.writer.as_deref() == first;
        let own: Vec<Transcript> = own.iter().filter(is_frozen).cloned().collect();
        if is_wanted(SHUFFLED) && own.iter().any(|script| script.arm == SELF_TALK) {
            self.arms.push((SHUFFLED.to_owned(), own.iter().map(shuffled).collect()));
        }
        if is_wanted(NEUTRAL) {
            let neutral = own.iter().enumerate().map(|(number, script)| self.neutral(number, script, tokens));
            self.arms.push((NEUTRAL.to_owned(), neutral.collect::<Result<_>>()?));
        }
        Ok(())
    }

    /// A neutral conversation in the form of another one: the same roles, and as many tokens as whole sentences allow. `number` says where in the
    /// material it begins.
    ///
    /// # Errors
    /// As `tokens`, which counts those of a text.
    pub fn neutral(&self, number: usize, other: &Transcript, tokens: &dyn Fn(&str) -> Result<usize>) -> Result<Transcript> {
        // What has been written beyond the other, so that the sum stays close.
        let mut beyond = 0isize;
        let mut messages = Vec::with_capacity(other.messages.len());
        let (mut exchange, each) = (0, 8);
        for message in &other.messages {
            let wanted = tokens(&message.content)? as isize - beyond;
            let of = |topic: &Topic| if message.role == "user" { topic.user.clone() } else { topic.assistant.clone() };
            let first = number * each + exchange;
            let mut sentences = (0..self.topics.len()).flat_map(|k| of(&self.topics[(first + k) % self.topics.len()]));
            let mut text = sentences.next().context("there is neutral material")?;
            let mut has = tokens(&text)? as isize;
            for sentence in sentences {
                let longer = format!("{text} {sentence}");
                let would = tokens(&longer)? as isize;
                if (would - wanted).abs() >= (has - wanted).abs() {
                    break;
                }
                (text, has) = (longer, would);
            }
            beyond = has - wanted;
            exchange += usize::from(message.role == "assistant");
            messages.push(Message::new(&message.role, text));
        }
        Ok(Transcript { arm: NEUTRAL.to_owned(), id: other.id.clone(), writer: None, messages })
    }

    fn add(&mut self, transcript: Transcript) {
        match self.arms.iter_mut().find(|(arm, _)| *arm == transcript.arm) {
            Some((_, own)) => own.push(transcript),
            None => self.arms.push((transcript.arm.clone(), vec![transcript])),
        }
    }

    fn add_file(&mut self, file: &File) {
        for (number, script) in file.script.iter().enumerate() {
            let system = (!script.system.is_empty()).then(|| Message::new("system", script.system.as_str()));
            let turns = script.turns.iter().flat_map(|[user, model]| [("user", user), ("assistant", model)]);
            let messages = system.into_iter().chain(turns.map(|(role, text)| Message::new(role, text.as_str()))).collect();
            self.add(Transcript { arm: file.arm.clone(), id: number.to_string(), writer: None, messages });
        }
    }

    fn add_path(&mut self, path: &Path) -> Result<()> {
        if path.is_dir() {
            let listed = std::fs::read_dir(path).with_context(|| format!("{}: cannot be listed", path.display()))?;
            let known = |path: &Path| ["toml", "jsonl", "json"].iter().any(|kind| path.extension().is_some_and(|own| own == *kind));
            let mut paths: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| known(path)).collect();
            paths.sort();
            ensure!(!paths.is_empty(), "{}: the folder of conversations holds no .toml, .jsonl or .json file", path.display());
            return paths.iter().try_for_each(|path| self.add_path(path));
        }
        let (place, text) = (path.display().to_string(), read_text(path)?);
        let stem = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        match path.extension().and_then(|kind| kind.to_str()) {
            Some("toml") => self.add_file(&File::parse(&text, &place)?),
            Some("jsonl") => {
                for (number, line) in text.trim_start_matches('\u{feff}').lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
                    let place = format!("{place}:{}", number + 1);
                    let line: Line = serde_json::from_str(line).map_err(|error| anyhow!("{place}: {}", brief(&error.to_string())))?;
                    let id = line.id.as_ref().map_or_else(|| (number + 1).to_string(), spelled);
                    let arm = line.arm.unwrap_or_else(|| stem.clone());
                    self.take(arm, id, line.checkpoint, line.messages, &place);
                }
            }
            Some("json") => {
                let log: Log = serde_json::from_str(&text)
                    .map_err(|error| anyhow!("{place}: expected a log of Inspect with `samples`: {}", brief(&error.to_string())))?;
                let arm = log.eval.and_then(|eval| eval.task).unwrap_or(stem);
                for (number, sample) in log.samples.into_iter().enumerate() {
                    let id = sample.id.as_ref().map_or_else(|| (number + 1).to_string(), spelled);
                    let epoch = sample.epoch.map_or_else(String::new, |epoch| format!("/{epoch}"));
                    self.take(arm.clone(), format!("{id}{epoch}"), None, sample.messages, &format!("{place}: sample {}", number + 1));
                }
            }
            _ => bail!("{place}: expected a file that ends in .toml, .jsonl or .json"),
        }
        Ok(())
    }

    /// Adds what is a conversation, and says of what is not why.
    fn take(&mut self, arm: String, id: String, writer: Option<String>, messages: Vec<Map<String, Value>>, place: &str) {
        match messages_of(messages) {
            Ok(messages) => self.add(Transcript { arm, id, writer, messages }),
            Err(error) => self.left_out.push(format!("{place}: {error:#}; this conversation is left out")),
        }
    }
}

/// A line of JSON; other keys are passed over.
#[derive(Deserialize)]
struct Line {
    id: Option<Value>,
    arm: Option<String>,
    checkpoint: Option<String>,
    messages: Vec<Map<String, Value>>,
}

/// What is read of a log of Inspect (its `EvalLog`, written with `--log-format json`).
#[derive(Deserialize)]
struct Log {
    eval: Option<Eval>,
    samples: Vec<Sample>,
}

#[derive(Deserialize)]
struct Eval {
    task: Option<String>,
}

#[derive(Deserialize)]
struct Sample {
    id: Option<Value>,
    epoch: Option<u64>,
    messages: Vec<Map<String, Value>>,
}

fn spelled(id: &Value) -> String {
    id.as_str().map_or_else(|| id.to_string(), str::to_owned)
}

/// Role and text of every message.
fn messages_of(messages: Vec<Map<String, Value>>) -> Result<Vec<Message>> {
    let conversation = Conversation::read(messages)?.joined();
    let turn = |(number, turn): (usize, &Map<String, Value>)| {
        let text = |key: &str| turn.get(key).and_then(Value::as_str).unwrap_or_default();
        ensure!(!text("content").trim().is_empty(), "message {} of role {} has no text", number + 1, brief(text("role")));
        if let Some(mark) = mark_in(text("content")) {
            bail!("message {} holds U+{:04X}, which is reserved for marks; remove it", number + 1, mark as u32);
        }
        Ok(Message::new(text("role"), text("content")))
    };
    let messages = conversation.turns().iter().enumerate().map(turn).collect::<Result<Vec<_>>>()?;
    let speaks = messages.iter().any(|message| message.role == "assistant") || messages.iter().all(|message| message.role == "system");
    ensure!(speaks, "the assistant says nothing in it");
    Ok(messages)
}

/// The same turns in another order, users' among users' and the model's among the model's, so that nothing answers what is before it.
fn shuffled(script: &Transcript) -> Transcript {
    let mut messages = script.messages.clone();
    for role in ["user", "assistant"] {
        let places: Vec<usize> = (0..messages.len()).filter(|at| messages[*at].role == role).collect();
        let mut random = generator(0, &format!("shuffled/{}/{role}", script.id));
        // Sattolo's cycle: no turn stays where it was.
        let mut order: Vec<usize> = (0..places.len()).collect();
        for last in (1..order.len()).rev() {
            order.swap(last, uniform_index(last, &mut random));
        }
        places.iter().zip(order).for_each(|(at, from)| messages[*at].content.clone_from(&script.messages[places[from]].content));
    }
    Transcript { arm: SHUFFLED.to_owned(), id: script.id.clone(), writer: None, messages }
}

impl File {
    fn parse(text: &str, place: &str) -> Result<Self> {
        let file: Self = parse_toml(text, place)?;
        ensure!(is_slug(&file.arm), "{place}: arm: found {:?}, expected lower-case letters, digits and _", file.arm);
        ensure!(!file.script.is_empty() || !file.topic.is_empty(), "{place}: found neither [[script]] nor [[topic]]");
        for (number, script) in file.script.iter().enumerate() {
            let place = format!("{place}: [[script]] {}", number + 1);
            ensure!(!script.turns.is_empty() || !script.system.trim().is_empty(), "{place}: found neither turns nor system");
            ensure!(script.turns.iter().flatten().all(|text| !text.trim().is_empty()), "{place}: turns: found an empty one");
        }
        for (number, topic) in file.topic.iter().enumerate() {
            let filled = |texts: &[String]| !texts.is_empty() && texts.iter().all(|text| !text.trim().is_empty());
            ensure!(filled(&topic.user) && filled(&topic.assistant), "{place}: [[topic]] {}: expected sentences of both", number + 1);
        }
        Ok(file)
    }
}

#[cfg(test)]
#[path = "transcript_tests.rs"]
mod tests;
