//! `[conversation]`: a checkpoint talks, with another instance of itself or with a scripted user, and is read behind its own turns.
//!
//! The text is the checkpoint's own, so two checkpoints differ in what they say and in what they make of it; `[replay]` tells the two apart. All
//! conversations begin with the same words and the same random numbers at every checkpoint.

pub mod dialogue;
mod talking;

use super::sheets::{self, Cost};
use super::store::Readouts;
use super::talks::sheet::Header;
use super::talks::{self, Read};
use crate::guard::brief;
use crate::manifest::Conversation;
use crate::model::Checkpoint;
use crate::model::resident::{Resident, TooLarge};
use crate::model::stream::Compute;
use crate::prompt::asker::Asker;
use crate::prompt::endings::Endings;
use crate::prompt::forest::Forest;
use crate::prompt::openings::{Arm, Partner};
use crate::prompt::talks::Talks;
use crate::prompt::template::Message;
use crate::prompt::tokenize::Ruler;
use crate::prompt::transcript::Transcript;
use crate::stats::draws::FEWEST;
use crate::table::write_atomically;
use anyhow::{Context, Result, ensure};
use dialogue::Dialogue;
use safetensors::Dtype;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::{Path, PathBuf};
use talking::Talking;

/// Folder of the sheets in that of a run.
pub const FOLDER: &str = "conversation";
/// Tokens of a line of a script, about, with what a template puts around a turn.
const LINE: usize = 16;

/// Nodes that take as long as a token that is written: on two cores, a batch of some twenty rows has a third of a forest's rate.
const WRITING: usize = 3;

/// What is there before any checkpoint talks.
pub struct Prepared {
    pub arms: Vec<Arm>,
    /// What is asked before any conversation, once per seed.
    pub before: Talks,
    /// Digest of the tokenizer and the template, which later turns go through.
    ruler: String,
}

impl Prepared {
    /// Reads the openings, and says what cannot be as it was asked for.
    ///
    /// # Errors
    /// As [`crate::prompt::openings::load`] and [`Talks::before_any`], or a line cannot be rendered.
    pub fn new(wanted: &Conversation, asker: &Asker, ruler: &Ruler) -> Result<Self> {
        let arms = crate::prompt::openings::load(&wanted.talk)?;
        let place = &wanted.talk.place;
        for arm in &arms {
            for line in arm.said().into_iter().flatten() {
                let message = Message::new("user", line.as_str());
                ruler.encode_chat(&[message]).with_context(|| format!("{place}: arm {}: {:?}", arm.name, brief(line)))?;
            }
        }
        let fewest = arms.iter().map(Arm::n_openings).min().unwrap_or(0);
        if wanted.seeds < FEWEST {
            tracing::warn!("{place}: found seeds = {}; of fewer than {FEWEST} conversations only shares have intervals", wanted.seeds);
        }
        if wanted.temperatures.contains(&0.0) && wanted.seeds > fewest {
            tracing::warn!(
                "{place}: at temperature 0 nothing is drawn, so of {} seeds those with one opening are one conversation ({fewest} openings)",
                wanted.seeds
            );
        }
        if let Some((text, back)) = ruler.changes()? {
            tracing::warn!(
                "{place}: the tokenizer does not give back what it is given ({text:?} becomes {back:?}): turns are what it decodes, read again"
            );
        }
        Ok(Self { arms, before: Talks::before_any(&wanted.talk, asker, wanted.seeds)?, ruler: ruler.hash()? })
    }
}

/// What is done at every checkpoint of a run.
pub struct Request<'a> {
    pub wanted: &'a Conversation,
    pub prepared: &'a Prepared,
    pub asker: &'a Asker<'a>,
    pub ruler: &'a Ruler,
    /// Of the lens and of the replies, ascending.
    pub layers: &'a [usize],
    pub seed: u64,
    pub compute: Compute,
}

/// What is to be said of a checkpoint's conversations.
#[derive(Debug, Default)]
pub struct Told {
    /// Why there are none.
    pub too_large: Option<String>,
    /// Conversations that ended before the last exchange.
    pub ended: usize,
    /// Those that cannot be rendered further, each in a sentence.
    pub refused: Vec<String>,
    /// Moments that are longer than the model's positions.
    pub too_long: usize,
    /// Why there is nothing behind some of the conversations, each in a sentence.
    pub left_out: Vec<String>,
}

impl Told {
    /// Says it, of the checkpoint with this label and the sheet that was written.
    pub fn say(&self, label: &str, path: &Path) {
        if let Some(why) = &self.too_large {
            tracing::warn!("{label}: [conversation]: {why}; it says nothing here, and to try again, delete {}", path.display());
        }
        if self.ended > 0 {
            tracing::info!(
                "{label}: [conversation]: {} conversations ended early, with an empty turn, at the model's last position, or where the template refuses them",
                self.ended
            );
        }
        if let Some(first) = self.refused.first() {
            tracing::warn!("{label}: [conversation]: {} of them cannot be rendered any further; {first}", self.refused.len());
        }
        if self.too_long > 0 {
            tracing::warn!("{label}: [conversation]: {} moments are longer than the model's positions and have no numbers", self.too_long);
        }
        if let Some(first) = self.left_out.first() {
            tracing::warn!("{label}: [conversation]: nothing can be asked behind {} conversations; {first}", self.left_out.len());
        }
    }
}

impl Request<'_> {
    /// Digest of everything but the weights that determines a sheet.
    pub fn hash(&self) -> String {
        let text = format!("{} {:?} {}", self.way(), self.layers, self.compute.describe());
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Digest of how conversations begin, how they are written, and what is asked behind them.
    fn way(&self) -> String {
        let Conversation { talk, exchanges, max_tokens, seeds, temperatures, top_p } = self.wanted;
        let writing = (exchanges, max_tokens, seeds, temperatures, top_p, self.seed, &talk.turns);
        let Prepared { arms, before, ruler } = self.prepared;
        let arms: Vec<_> = arms.iter().map(|arm| (&arm.name, arm.partner, arm.control, arm.said())).collect();
        let text = format!("conversation-2 {arms:?} {writing:?} {} {ruler}", before.hash());
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Turns of a conversation of an arm that somebody writes.
    fn written(&self, arm: &Arm) -> usize {
        self.wanted.exchanges + if arm.partner == Partner::Itself { self.wanted.exchanges - 1 } else { 0 }
    }

    /// What a checkpoint of `n_layers` blocks and width `d_model` takes at most.
    pub fn cost(&self, n_layers: usize, d_model: usize) -> Cost {
        let Conversation { talk, exchanges, max_tokens, seeds, temperatures, .. } = self.wanted;
        let per_arm = seeds * temperatures.len();
        let generated: usize = self.prepared.arms.iter().map(|arm| per_arm * self.written(arm) * max_tokens).sum();
        // Both sides read what the other one says; what was read before is kept.
        let heard = |arm: &Arm| match arm.partner {
            Partner::Itself => 2 * exchanges * (max_tokens + LINE),
            Partner::Script => 2 * exchanges * LINE,
        };
        let heard: usize = self.prepared.arms.iter().map(|arm| per_arm * heard(arm)).sum();
        let before = &self.prepared.before;
        let asked = Forest::new(&before.texts).len() / seeds.max(&1);
        let conversations = self.prepared.arms.len() * seeds;
        let moments = seeds + conversations * talk.turns.len();
        let nodes = moments * asked + conversations * exchanges * (max_tokens + LINE) + heard;
        let values: usize = talks::Request { talks: before, layers: self.layers, compute: self.compute, readers: ["", ""] }.values(d_model);
        Cost {
            nodes,
            node_blocks: n_layers * (nodes + WRITING * generated),
            generated,
            ticks: conversations * temperatures.len() * (2 * exchanges - 1) + n_layers + 1,
            // Some eight bytes of text, with what stands around it, are a token.
            store_bytes: 4 * (values / seeds.max(&1) * moments + 2 * generated),
            ..Cost::default()
        }
    }

    /// Lets one checkpoint talk, whose fingerprint is known, reads it behind its turns, and writes its sheet, with what was said beside it as
    /// JSON lines. `tick` is called after every turn and every block and may stop it.
    ///
    /// # Errors
    /// Whatever is wrong with the checkpoint, by name; a file cannot be written; or the error of `tick`.
    pub fn run(&self, checkpoint: &Checkpoint, fingerprint: &str, path: &Path, tick: &mut dyn FnMut() -> Result<()>) -> Result<Told> {
        let (max_token, d_vocab) = (self.prepared.before.max_token(), checkpoint.config.d_vocab);
        ensure!(max_token < d_vocab, "the vocabulary has {d_vocab} tokens, the conversations use token id {max_token}");
        let mut told = Told::default();
        let dialogues = match self.talk(checkpoint, &mut told.refused, tick) {
            Err(error) if error.is::<TooLarge>() => {
                told.too_large = Some(error.to_string());
                Vec::new()
            }
            dialogues => dialogues?,
        };
        told.ended = dialogues.iter().filter(|dialogue| dialogue.said().count() < self.wanted.exchanges).count();
        let read = self.read(checkpoint, &dialogues, &mut told, tick)?;
        let control = self.prepared.arms.iter().find(|arm| arm.control).map(|arm| arm.name.clone());
        let Conversation { exchanges, talk, .. } = self.wanted;
        let said = Said {
            exchanges: *exchanges,
            read: talk.turns.clone(),
            control,
            way: self.way(),
            too_large: told.too_large.clone(),
            dialogues,
        };
        let text = serde_json::to_vec(&said)?;
        let mut tensors = read.tensors;
        tensors.push(("text".to_owned(), Dtype::U8, vec![text.len()], text));
        self.write_lines(&said.dialogues, path)?;
        sheets::write(path, self.layers, fingerprint, &[("request", self.hash()), read.header], &tensors)?;
        Ok(told)
    }

    fn talk(&self, checkpoint: &Checkpoint, refused: &mut Vec<String>, tick: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Dialogue>> {
        let resident = Resident::load(checkpoint, self.compute)?;
        let endings = Endings::read(&checkpoint.folder, None, &|token| self.ruler.id(token))?;
        let Self { wanted, ruler, seed, .. } = *self;
        let talking = Talking { resident: &resident, ruler, endings, wanted, arms: &self.prepared.arms, seed };
        let each = wanted.temperatures.iter().map(|temperature| talking.talk(*temperature, refused, tick));
        Ok(each.collect::<Result<Vec<_>>>()?.concat())
    }

    /// What the checkpoint makes of what it said at the first temperature.
    fn read(&self, checkpoint: &Checkpoint, dialogues: &[Dialogue], told: &mut Told, tick: &mut dyn FnMut() -> Result<()>) -> Result<Read> {
        let first = Self::first(dialogues);
        let scripts: Vec<(usize, Transcript)> =
            first.filter_map(|dialogue| Some((dialogue.seed as usize, dialogue.transcript()?))).collect();
        let mut talks = Talks::before_any(&self.wanted.talk, self.asker, self.wanted.seeds)?;
        talks.add_scripts(&self.wanted.talk, self.asker, &scripts, &self.ruler.counter()?);
        told.left_out = std::mem::take(&mut talks.left_out);
        let request = talks::Request { talks: &talks, layers: self.layers, compute: self.compute, readers: ["", ""] };
        let read = request.read(checkpoint, tick)?;
        told.too_long = read.too_long;
        Ok(read)
    }

    /// Conversations at the temperature that counts, which is the first one.
    fn first(dialogues: &[Dialogue]) -> impl Iterator<Item = &Dialogue> {
        let temperature = dialogues.first().map(|dialogue| dialogue.temperature);
        dialogues.iter().filter(move |dialogue| Some(dialogue.temperature) == temperature)
    }

    /// Writes what was said at the first temperature, in the form that `[replay] sets` reads, beside the sheet at `path`.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_lines(&self, dialogues: &[Dialogue], path: &Path) -> Result<()> {
        let checkpoint = path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
        let line = |script: Transcript| {
            let messages: Vec<_> =
                script.messages.iter().map(|message| json!({ "role": message.role, "content": message.content })).collect();
            format!("{}\n", json!({ "id": script.id, "arm": script.arm, "checkpoint": checkpoint, "messages": messages }))
        };
        let lines: String = Self::first(dialogues).filter_map(Dialogue::transcript).map(line).collect();
        write_atomically(&lines_path(path), lines.as_bytes())
    }
}

/// Where what a checkpoint said is, beside its sheet.
pub fn lines_path(sheet: &Path) -> PathBuf {
    sheet.with_extension("jsonl")
}

/// What a sheet holds beside what was read: its tensor `text`, as JSON.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Said {
    /// Turns of the model in a whole conversation.
    pub exchanges: usize,
    /// Those after which it was asked.
    pub read: Vec<usize>,
    /// The arm that the others are held against.
    pub control: Option<String>,
    /// Digest of how conversations begin and how they are written; the text is each checkpoint's own.
    pub way: String,
    /// Why nothing was said.
    pub too_large: Option<String>,
    pub dialogues: Vec<Dialogue>,
}

impl Said {
    /// Reads what a sheet holds.
    ///
    /// # Errors
    /// It holds no conversations.
    pub fn read(file: &Readouts) -> Result<Self> {
        let read = || -> Result<Self> { serde_json::from_slice(file.bytes("text")?).context("what was said") };
        read().with_context(|| file.again())
    }
}

/// What two checkpoints have to have in common: what is asked, and where it is read. Where a conversation ended is each one's own.
pub fn is_alike(a: &Header, b: &Header) -> bool {
    (&a.asked, a.groups, a.replies, &a.layers) == (&b.asked, b.groups, b.replies, &b.layers)
}
