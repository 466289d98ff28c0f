//! Items as rendered and tokenised, the unit of everything that follows: one row of `items.parquet`.

use super::concept::Concept;
use super::design::{self, Profile, Spec};
use super::label_family::LabelFamily;
use super::specification::Specification;
use super::tokenize::Ruler;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

/// Concept of the fixed replies.
pub const AXIS: &str = "persona_axis";
/// Persona and format of every item that is not asked in a context.
pub const DEFAULT: &str = "default";
pub const CHAT: &str = "chat";

/// One row of `items.parquet`: an item. An analysis needs the columns up to `y`; a store made elsewhere may leave out the
/// rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Name of the item; unique.
    pub item_id: String,
    pub concept: String,
    /// `crossed`, `control`, `frame`, `content`, `endogenous`; `binding`, `placement_self`, `placement_other`; `stem_self`, `stem_other`; `object`, `hypothetical`; `persona_axis`; `neutral`.
    pub label_family: LabelFamily,
    pub null_bank: bool,
    /// Item of the pool by whose spread activations are scaled.
    pub neutral: bool,
    /// Group of the item, the unit of every resampling; a quartet, or a wording.
    pub group_id: String,
    /// Place in the group: `00`, `01`, `10` or `11` of a quartet.
    pub cell: String,
    /// The label; null for items without one.
    pub y: Option<i8>,
    /// Whether model specifications name the concept; null where nobody says. No part of the hash.
    #[serde(default)]
    pub specification: Option<Specification>,
    /// Which wording.
    #[serde(default)]
    pub template_id: String,
    /// Which words were filled in.
    #[serde(default)]
    pub lexicon_id: String,
    /// `default`, or the context in which the item is asked.
    #[serde(default)]
    pub persona_id: String,
    /// `default`, `role`, `conflict` or `frame`; empty outside of contexts.
    #[serde(default)]
    pub persona_kind: String,
    /// `chat`, or the form in which the item is asked.
    #[serde(default)]
    pub format_id: String,
    /// The template has no system role: the context stands at the head of the user's turn.
    #[serde(default)]
    pub system_in_user: bool,
    /// Null for data that must not be redistributed; then `hash` stands for it.
    #[serde(default)]
    pub text: Option<String>,
    /// Tokens of the prompt.
    #[serde(default)]
    pub n_tokens: Option<i32>,
    /// First token of the marked span.
    #[serde(default)]
    pub span_start: Option<i32>,
    /// Token after the marked span.
    #[serde(default)]
    pub span_end: Option<i32>,
    /// First token of the assistant's fixed response.
    #[serde(default)]
    pub response_start: Option<i32>,
    /// The answer that is asked about, as a continuation whose log-probability is read.
    #[serde(default)]
    pub answer_0: Option<String>,
    /// The answer that it is compared with.
    #[serde(default)]
    pub answer_1: Option<String>,
    /// Other continuations that could stand in the first one's place, and which nobody teaches.
    #[serde(default)]
    pub foils: Option<Vec<String>>,
    /// Token ids of the answers and the foils, in this order.
    #[serde(default)]
    pub answer_ids: Option<Vec<Vec<i32>>>,
    /// Tokens of the prompt, the same for every checkpoint.
    #[serde(default)]
    pub token_ids: Option<Vec<i32>>,
    /// Where the text comes from.
    #[serde(default)]
    pub source: String,
    /// Under what it may be used.
    #[serde(default)]
    pub license: String,
    /// Digest of the token ids, of where they are read and of what is scored: equal hashes have equal readouts.
    #[serde(default)]
    pub hash: String,
}

impl Item {
    /// Whether it is asked plainly, in no context and as a chat; every statistic that is not about contexts uses these only.
    pub fn is_plain(&self) -> bool {
        let is = |id: &str, plain: &str| id.is_empty() || id == plain;
        is(&self.persona_id, DEFAULT) && is(&self.format_id, CHAT)
    }
}

/// In which context and form an item is asked.
#[derive(Debug, Clone)]
pub(super) struct Setting {
    pub persona_id: String,
    pub persona_kind: String,
    pub format_id: String,
    pub system_in_user: bool,
    /// The first message is the text, without a chat template.
    pub raw: bool,
}

impl Default for Setting {
    fn default() -> Self {
        Self { persona_id: DEFAULT.to_owned(), persona_kind: String::new(), format_id: CHAT.to_owned(), system_in_user: false, raw: false }
    }
}

/// An item with what a walk needs beside the table row.
#[derive(Debug, Clone)]
pub struct Prompt {
    pub ids: Vec<i64>,
    pub span: Option<Range<usize>>,
    pub response: Option<Range<usize>>,
    /// Token ids of the two answers.
    pub answers: Option<[Vec<i64>; 2]>,
    /// Token ids of the foils.
    pub foils: Vec<Vec<i64>>,
}

/// All items of a run, in order; `items[i]` is described by `prompts[i]`.
pub struct ItemSet {
    pub items: Vec<Item>,
    pub prompts: Vec<Prompt>,
}

impl ItemSet {
    /// Renders and tokenises every item of `concepts` and of the normalisation pool.
    ///
    /// # Errors
    /// Names concept and item: a slot that nothing fills, a template that fails, a span that no token covers, or an answer
    /// that does not continue its stem.
    pub fn new(
        concepts: &[Concept],
        pool: &[super::concept::Question],
        profile: Profile,
        parameters: &BTreeMap<String, String>,
        ruler: &Ruler,
    ) -> Result<Self> {
        let mut set = Self { items: Vec::new(), prompts: Vec::new() };
        for spec in design::neutral(pool) {
            set.push(spec, &Setting::default(), "written for selftrace", "CC0-1.0", ruler)?;
        }
        for concept in concepts {
            for spec in design::specs(concept, profile, parameters)? {
                set.push(spec, &Setting::default(), &concept.source, &concept.license, ruler)?;
            }
        }
        Ok(set)
    }

    pub(super) fn push(&mut self, spec: Spec, setting: &Setting, source: &str, license: &str, ruler: &Ruler) -> Result<()> {
        let mut item_id = format!("{}/{}/{}", spec.concept, spec.group_id, spec.cell);
        for (id, plain, mark) in [(&setting.persona_id, DEFAULT, '@'), (&setting.format_id, CHAT, '#')] {
            if id != plain {
                item_id.extend([mark.to_string().as_str(), id]);
            }
        }
        let encoded = match spec.messages.first() {
            Some(text) if setting.raw => ruler.encode_raw(&text.content),
            _ => ruler.encode_chat(&spec.messages),
        };
        let encoded = encoded.with_context(|| item_id.clone())?;
        let answers = match &spec.answers {
            Some([a, b]) => Some([
                ruler.continuation(&encoded, a).with_context(|| item_id.clone())?,
                ruler.continuation(&encoded, b).with_context(|| item_id.clone())?,
            ]),
            None => None,
        };
        let foil = |foil: &String| ruler.continuation(&encoded, foil).with_context(|| item_id.clone());
        let foils = spec.foils.iter().map(foil).collect::<Result<Vec<_>>>()?;
        let prompt = Prompt { ids: encoded.ids, span: encoded.span, response: encoded.response, answers, foils };
        let [answer_0, answer_1] = spec.answers.map_or([None, None], |[a, b]| [Some(a), Some(b)]);
        self.items.push(Item {
            item_id,
            neutral: spec.label_family == LabelFamily::Neutral,
            concept: spec.concept,
            label_family: spec.label_family.clone(),
            null_bank: spec.null_bank,
            group_id: spec.group_id,
            cell: spec.cell,
            y: spec.y,
            specification: spec.specification,
            template_id: spec.template_id,
            lexicon_id: spec.lexicon_id,
            persona_id: setting.persona_id.clone(),
            persona_kind: setting.persona_kind.clone(),
            format_id: setting.format_id.clone(),
            system_in_user: setting.system_in_user,
            text: (!spec.private).then_some(encoded.text),
            n_tokens: Some(prompt.ids.len() as i32),
            span_start: prompt.span.as_ref().map(|span| span.start as i32),
            span_end: prompt.span.as_ref().map(|span| span.end as i32),
            response_start: prompt.response.as_ref().map(|response| response.start as i32),
            answer_0,
            answer_1,
            foils: (!spec.foils.is_empty()).then_some(spec.foils),
            answer_ids: prompt.answers.is_some().then(|| prompt.choices().map(|ids| ids.iter().map(|&id| id as i32).collect()).collect()),
            token_ids: (!spec.private).then(|| prompt.ids.iter().map(|&id| id as i32).collect()),
            source: source.to_owned(),
            license: license.to_owned(),
            hash: prompt.hash(),
        });
        self.prompts.push(prompt);
        Ok(())
    }

    /// Leaves response means to the fixed replies, which need them, and to the normalisation pool: what a manifest gets that asks
    /// for contexts but not for this readout.
    pub fn keep_responses_of_contexts(&mut self) {
        for (item, prompt) in self.items.iter().zip(&mut self.prompts) {
            if item.label_family != LabelFamily::PersonaAxis && !item.neutral {
                prompt.response = None;
            }
        }
    }

    /// Digest of all items in order.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        for (item, prompt) in self.items.iter().zip(&self.prompts) {
            hasher.update(item.item_id.as_bytes()).update(b"\n").update(item.hash.as_bytes()).update(b"\n");
            if item.response_start.is_some() && prompt.response.is_none() {
                hasher.update(b"no response mean\n");
            }
        }
        hasher.finalize().to_hex().to_string()
    }

    /// What does not fit into a vocabulary of `d_vocab` tokens, in words, with the ways out; `None` where everything fits.
    pub fn beyond(&self, d_vocab: i64) -> Option<String> {
        let is_beyond = |prompt: &Prompt| prompt.ids.iter().chain(prompt.choices().flatten()).any(|id| *id >= d_vocab);
        let places: Vec<usize> = (0..self.items.len()).filter(|at| is_beyond(&self.prompts[*at])).collect();
        let first = places.first()?;
        Some(format!(
            "its vocabulary has {d_vocab} tokens, but {} of {} items use token ids up to {}, as {}; set [model] template = \"plain\", or \
             tokenizer to one that all checkpoints share",
            places.len(),
            self.items.len(),
            self.max_token(),
            self.items[*first].item_id,
        ))
    }

    /// Largest token id that occurs, answers included; -1 when there is none.
    pub fn max_token(&self) -> i64 {
        let answers = self.prompts.iter().flat_map(|prompt| prompt.choices().flatten());
        self.prompts.iter().flat_map(|prompt| &prompt.ids).chain(answers).copied().max().unwrap_or(-1)
    }
}

impl Prompt {
    /// Token ids of the answers, then of the foils.
    pub fn choices(&self) -> impl Iterator<Item = &Vec<i64>> {
        self.answers.iter().flatten().chain(&self.foils)
    }

    /// What is computed for it: the prompt, and the prompt with every choice of several tokens, but for the choice's last token, which nothing
    /// follows.
    pub fn texts(&self) -> impl Iterator<Item = Vec<i64>> {
        let longer = self.choices().filter(|choice| choice.len() > 1);
        std::iter::once(self.ids.clone()).chain(longer.map(|choice| self.continued(choice)))
    }

    /// The prompt with a choice but for its last token.
    pub fn continued(&self, choice: &[i64]) -> Vec<i64> {
        self.ids.iter().chain(&choice[..choice.len() - 1]).copied().collect()
    }

    fn hash(&self) -> String {
        let text = format!("{:?} {:?} {:?} {:?} {:?}", self.ids, self.span, self.response, self.answers, self.foils);
        blake3::hash(text.as_bytes()).to_hex()[..32].to_owned()
    }
}
