//! Texts that dictionaries are fitted on: token ids, and which of them count.
//!
//! Special tokens, the words of the chat template and the first token of a text are computed and left out: they have activations of
//! their own that change with every fine-tuning, and would be most of what a dictionary finds (Minder, Dumas et al. 2025).

use super::lines;
use crate::manifest::{Dictionary, TextSource};
use crate::prompt::conversation::Conversation;
use crate::prompt::item::ItemSet;
use crate::prompt::template::Message;
use crate::prompt::tokenize::Ruler;
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::Path;

/// One of so many groups of texts is held out.
const HELD_OUT: usize = 8;
/// Groups without which nothing can be held out.
const FEWEST: usize = 16;
/// Groups of held-out texts, at most; more are joined.
pub const GROUPS: usize = 64;

/// One text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    pub ids: Vec<i64>,
    /// Places of the tokens that count, ascending.
    pub kept: Vec<usize>,
    /// What it belongs together with: texts of one group are fitted on, or held out, together.
    group: usize,
}

/// All texts of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    pub fitted: Vec<Text>,
    /// With the number of its group, below [`GROUPS`].
    pub held_out: Vec<(Text, u32)>,
}

impl Texts {
    /// Reads what `[dictionary]` names.
    ///
    /// # Errors
    /// Names file and line: it cannot be read or tokenised; or there are too few texts.
    pub fn new(wanted: &Dictionary, set: &ItemSet, ruler: &Ruler) -> Result<Self> {
        let mut reader = Reader { ruler, frame: Frame::new(ruler)?, length: wanted.length, texts: Vec::new(), groups: BTreeMap::new() };
        for source in &wanted.text {
            match source {
                TextSource::Items => reader.items(set),
                TextSource::File(path) => reader.file(path)?,
            }
        }
        let Reader { texts, groups, .. } = reader;
        ensure!(
            groups.len() >= FEWEST,
            "{} text: found {} texts that belong to nothing else, expected {FEWEST} or more, to hold some out",
            wanted.place,
            groups.len()
        );
        let mut split = Self::default();
        for text in texts {
            let (round, place) = (text.group / HELD_OUT, text.group % HELD_OUT);
            if place == HELD_OUT - 1 { split.held_out.push((text, (round % GROUPS) as u32)) } else { split.fitted.push(text) }
        }
        Ok(split)
    }

    /// Tokens that are fitted on, once through.
    pub fn tokens(&self) -> usize {
        self.fitted.iter().map(|text| text.kept.len()).sum()
    }

    /// Groups of the held-out texts.
    pub fn groups(&self) -> usize {
        self.held_out.iter().map(|(_, group)| *group as usize + 1).max().unwrap_or(0)
    }

    /// Largest token id.
    pub fn max_token(&self) -> i64 {
        self.fitted.iter().chain(self.held_out.iter().map(|(text, _)| text)).flat_map(|text| &text.ids).copied().max().unwrap_or(-1)
    }

    /// Digest of everything.
    pub fn hash(&self) -> String {
        blake3::hash(format!("{self:?}").as_bytes()).to_hex().to_string()
    }
}

/// Tokens that a chat template writes around what is said.
#[derive(Debug, Default)]
struct Frame {
    /// Before what is said first, between it and an answer, and behind it where the answer is to come.
    parts: Vec<Vec<i64>>,
}

impl Frame {
    /// Found by what chats of different words have in common. Where the tokenizer has no different words, nothing is found, and the
    /// template's special tokens are left out all the same.
    fn new(ruler: &Ruler) -> Result<Self> {
        let chat = |said: &[(&str, &str)]| -> Result<Vec<i64>> {
            let messages: Vec<Message> = said.iter().map(|(role, content)| Message::new(role, *content)).collect();
            Ok(ruler.encode_chat(&messages)?.ids)
        };
        let (one, two) = (chat(&[("user", "Seven")])?, chat(&[("user", "Three")])?);
        let (first, red, blue) = (
            chat(&[("user", "Seven"), ("assistant", "Red")])?,
            chat(&[("user", "Three"), ("assistant", "Red")])?,
            chat(&[("user", "Three"), ("assistant", "Blue")])?,
        );
        if one == two || red == blue || first == red {
            return Ok(Self::default());
        }
        let head = |a: &[i64], b: &[i64]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
        let tail = |a: &[i64], b: &[i64]| a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
        let (start, end) = (red.len() - tail(&first, &red), head(&red, &blue));
        let middle = if start < end { red[start..end].to_vec() } else { Vec::new() };
        let parts = [two[..head(&one, &two)].to_vec(), middle, two[two.len() - tail(&one, &two)..].to_vec()];
        Ok(Self { parts: parts.into_iter().filter(|part| !part.is_empty()).collect() })
    }

    /// Which tokens of a chat are the template's.
    fn of(&self, ids: &[i64]) -> Vec<bool> {
        let mut found = vec![false; ids.len()];
        for part in &self.parts {
            for start in 0..(ids.len() + 1).saturating_sub(part.len()) {
                if ids[start..].starts_with(part) {
                    found[start..start + part.len()].fill(true);
                }
            }
        }
        found
    }
}

struct Reader<'a> {
    ruler: &'a Ruler,
    frame: Frame,
    length: usize,
    texts: Vec<Text>,
    groups: BTreeMap<String, usize>,
}

impl Reader<'_> {
    fn push(&mut self, mut ids: Vec<i64>, is_chat: bool, group: &str) {
        ids.truncate(self.length);
        let framed = if is_chat { self.frame.of(&ids) } else { vec![false; ids.len()] };
        let kept: Vec<usize> = (1..ids.len()).filter(|&at| !framed[at] && !self.ruler.is_special(ids[at])).collect();
        if !kept.is_empty() {
            let next = self.groups.len();
            let group = *self.groups.entry(group.to_owned()).or_insert(next);
            self.texts.push(Text { ids, kept, group });
        }
    }

    /// Everything that is asked plainly, a wording at a time.
    fn items(&mut self, set: &ItemSet) {
        for (item, prompt) in set.items.iter().zip(&set.prompts).filter(|(item, _)| item.is_plain()) {
            self.push(prompt.ids.clone(), true, &format!("items {} {}", item.concept, item.group_id));
        }
    }

    fn file(&mut self, path: &Path) -> Result<()> {
        let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read as text", path.display()))?;
        let is_json = path.extension().is_some_and(|end| end == "jsonl" || end == "json");
        if !is_json {
            for (number, text) in text.split("\n\n").map(str::trim).enumerate().filter(|(_, text)| !text.is_empty()) {
                let ids = self.ruler.encode_text(text).with_context(|| format!("{}: text number {}", path.display(), number + 1))?;
                self.push(ids, false, &format!("{} {number}", path.display()));
            }
            return Ok(());
        }
        lines::each(path, &text, |line, place| match (line.text, line.messages) {
            (Some(text), None) => {
                let ids = self.ruler.encode_text(&text).with_context(|| place.to_owned())?;
                self.push(ids, false, place);
                Ok(())
            }
            (None, Some(messages)) => {
                let conversation = Conversation::read(messages).with_context(|| place.to_owned())?;
                let ids = self.ruler.encode_conversation(&conversation).with_context(|| place.to_owned())?.ids;
                self.push(ids, true, place);
                Ok(())
            }
            _ => bail!("{place}: expected one of `text`, `messages`"),
        })
    }
}
