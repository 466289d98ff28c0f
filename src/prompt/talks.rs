//! What is asked behind conversations: the same stems and the same fixed replies, after some exchanges of each of them.
//!
//! A moment is a conversation up to the model's k-th turn. Behind it stand branches that know nothing of one another: the question of a concept
//! about oneself and about somebody else, with the answers that are scored, and fixed replies. Script k of every arm is asked in the same
//! wordings, so that arms differ in the conversation alone.

use super::asker::{Asker, Question};
use super::concept::Concept;
use super::injected::Branch;
use super::persona::Reply;
use super::specification::Specification;
use super::template::Message;
use super::tokenize::{Ruler, SPAN_CLOSE, SPAN_OPEN};
use super::transcript::{Library, Transcript};
use crate::manifest::Talk;
use anyhow::{Context, Result, bail, ensure};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

/// Arm of the moments with no conversation at all.
pub const NONE: &str = "none";

/// A conversation up to a turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    pub arm: String,
    pub script: String,
    /// Exchanges so far.
    pub turns: usize,
    /// Of all messages so far.
    pub tokens: usize,
    /// The moment of a neutral conversation that is as long.
    pub neutral: Option<usize>,
    /// The checkpoint that wrote the conversation, where one did: it is read at that one and at the first.
    #[serde(default)]
    pub writer: Option<String>,
}

/// A concept that is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked {
    pub concept: String,
    pub null_bank: bool,
    pub specification: Option<Specification>,
    /// The first answer, and token ids of it, of the second and of the foils; none where they depend on the wording.
    pub answer: String,
    pub answer_ids: Vec<Vec<i32>>,
    /// The second answer is one of them.
    pub foils: usize,
}

/// A text, and some of its tokens.
pub type Place = (usize, Range<usize>);

/// Everything that is read, tokenised.
#[derive(Debug, Default)]
pub struct Talks {
    pub moments: Vec<Moment>,
    pub asked: Vec<Asked>,
    /// Wordings of a concept at a moment.
    pub groups: usize,
    /// Numbers of the fixed replies, as in the group ids of their items.
    pub replies: usize,
    pub texts: Vec<Vec<i64>>,
    /// `[moment, concept, wording]`: about oneself, and about another.
    pub branches: Vec<[Branch; 2]>,
    /// `[moment, reply]`.
    pub replied: Vec<Place>,
    /// `[moment]`: the model's last turn.
    pub said: Vec<Option<Place>>,
    /// What could not be read: a sentence each.
    pub left_out: Vec<String>,
    /// The digest, once somebody asked for it: it is asked for at every checkpoint.
    pub(crate) digest: OnceLock<String>,
}

impl Talks {
    /// Tokenises what a manifest's table asks for; with `controls` as a replay: from no exchange on, with arms of shuffled and of neutral turns,
    /// otherwise with a neutral conversation beside each of the others.
    ///
    /// # Errors
    /// As [`Library::load`]; a conversation of a checkpoint that is not among `checkpoints`; no concept can be asked about; or what is asked cannot be rendered even without a conversation.
    pub fn new(
        wanted: &Talk,
        controls: bool,
        concepts: &[Concept],
        replies: &[Reply],
        parameters: &BTreeMap<String, String>,
        checkpoints: &[&str],
        ruler: &Ruler,
    ) -> Result<Self> {
        let mut library = Library::load(wanted)?;
        let tokens = ruler.counter()?;
        if controls {
            library.add_controls(&wanted.arms, checkpoints.first().copied(), &tokens)?;
        } else {
            // Beside neutral ones it does not matter who wrote them: they are the same for all.
            library.arms.iter_mut().flat_map(|(_, scripts)| scripts).for_each(|script| script.writer = None);
        }
        let asker = Asker::new(wanted, concepts, replies, parameters, ruler)?;
        let left_out = std::mem::take(&mut library.left_out);
        let most = library.arms.iter().flat_map(|(_, scripts)| numbered(scripts)).map(|(number, _)| number + 1).max().unwrap_or(0);
        let mut writers = library.arms.iter().flat_map(|(_, scripts)| scripts).filter_map(|script| script.writer.as_deref());
        if let Some(writer) = writers.find(|writer| !checkpoints.contains(writer)) {
            bail!(
                "{}: a conversation has checkpoint {writer:?}, expected the id of an entry, as {:?}",
                wanted.place,
                checkpoints.first().unwrap_or(&"")
            );
        }
        ensure!(most > 0, "{}: found no conversation{}", wanted.place, left_out.first().map_or_else(String::new, |why| format!("; {why}")));
        let mut talks = Self { left_out, ..Self::before_any(wanted, &asker, most)? };
        if controls {
            talks.truncate(0);
        }
        for (number, script) in library.arms.iter().flat_map(|(_, scripts)| numbered(scripts)) {
            let neutral = if controls { None } else { Some(library.neutral(number, script, &tokens)?) };
            talks.add_or_leave(&asker, number, script, neutral.as_ref(), &wanted.turns, &tokens);
        }
        let heard = talks.moments.iter().any(|moment| moment.arm != NONE);
        let why = || talks.left_out.first().map_or_else(|| "none has so many exchanges as turns asks for".to_owned(), Clone::clone);
        ensure!(heard, "{}: no conversation can be read: {}", wanted.place, why());
        Ok(talks)
    }

    /// What is read without any conversation, once for each of so many. If this fails, no conversation is to blame.
    ///
    /// # Errors
    /// What is asked cannot be rendered.
    pub fn before_any(wanted: &Talk, asker: &Asker, numbers: usize) -> Result<Self> {
        let mut talks = Self { groups: wanted.groups, replies: asker.replies.len(), ..Self::default() };
        for number in 0..numbers {
            let none = Transcript { arm: NONE.to_owned(), id: number.to_string(), writer: None, messages: Vec::new() };
            talks.add(asker, number, &none, 0, &|_| Ok(0)).with_context(|| wanted.place.clone())?;
        }
        talks.asked = talks.asked(&asker.questions);
        Ok(talks)
    }

    /// Adds conversations with their numbers, and nothing beside them. One that cannot be read after some turn is left out from there on, with
    /// a sentence.
    pub fn add_scripts(&mut self, wanted: &Talk, asker: &Asker, scripts: &[(usize, Transcript)], tokens: &dyn Fn(&str) -> Result<usize>) {
        for (number, script) in scripts {
            if let Err(error) = self.add_script(asker, *number, script, None, &wanted.turns, tokens) {
                self.truncate(self.moments.len());
                self.left_out.push(format!("{} {}: {error:#}", script.arm, script.id));
            }
        }
    }

    fn add_or_leave(
        &mut self,
        asker: &Asker,
        number: usize,
        script: &Transcript,
        neutral: Option<&Transcript>,
        turns: &[usize],
        tokens: &dyn Fn(&str) -> Result<usize>,
    ) {
        let before = self.moments.len();
        if let Err(error) = self.add_script(asker, number, script, neutral, turns, tokens) {
            self.truncate(before);
            self.left_out.push(format!("{} {}: {error:#}; this conversation is left out", script.arm, script.id));
        }
    }

    fn add_script(
        &mut self,
        asker: &Asker,
        number: usize,
        script: &Transcript,
        neutral: Option<&Transcript>,
        turns: &[usize],
        tokens: &dyn Fn(&str) -> Result<usize>,
    ) -> Result<()> {
        let spoken = script.messages.iter().filter(|message| message.role == "assistant").count();
        // A conversation that is a system message only is read behind it.
        let turns: Vec<usize> = if spoken == 0 { vec![0] } else { turns.iter().copied().filter(|turns| *turns <= spoken).collect() };
        for turns in turns {
            self.add(asker, number, script, turns, tokens)?;
            if let Some(neutral) = neutral {
                self.add(asker, number, neutral, turns, tokens)?;
                let last = self.moments.len() - 1;
                self.moments[last - 1].neutral = Some(last);
            }
        }
        Ok(())
    }

    /// Adds a moment with all that stands behind it.
    fn add(
        &mut self,
        asker: &Asker,
        number: usize,
        script: &Transcript,
        turns: usize,
        tokens: &dyn Fn(&str) -> Result<usize>,
    ) -> Result<()> {
        let before = up_to(&script.messages, turns);
        let mut count = 0;
        for message in before {
            count += tokens(&message.content)?;
        }
        let moment = Moment {
            arm: script.arm.clone(),
            script: script.id.clone(),
            turns,
            tokens: count,
            neutral: None,
            writer: script.writer.clone(),
        };
        let (mut branches, mut replied) = (Vec::new(), Vec::new());
        for question in &asker.questions {
            for wording in 0..self.groups {
                let at = (number * self.groups + wording) % question.wordings.len();
                let [own, other] = [0, 1].map(|side| self.branch(asker, before, (question, at, side)));
                branches.push([own?, other?]);
            }
        }
        for reply in asker.replies {
            let response = format!("{SPAN_OPEN}{}{SPAN_CLOSE}", reply.response.trim());
            let encoded = asker.encode(before, &[Message::new("user", reply.question.trim()), Message::new("assistant", response)])?;
            let response = encoded.response.context("a reply is the last turn")?;
            self.texts.push(encoded.ids);
            replied.push((self.texts.len() - 1, response));
        }
        let said = match before.split_last() {
            Some((last, rest)) if last.role == "assistant" => {
                let marked = Message::new("assistant", format!("{SPAN_OPEN}{}{SPAN_CLOSE}", last.content.trim()));
                let encoded = asker.encode(rest, &[marked])?;
                let span = encoded.span.context("the template leaves out the model's last turn")?;
                self.texts.push(encoded.ids);
                Some((self.texts.len() - 1, span))
            }
            _ => None,
        };
        self.moments.push(moment);
        self.branches.extend(branches);
        self.replied.extend(replied);
        self.said.push(said);
        Ok(())
    }

    fn branch(&mut self, asker: &Asker, before: &[Message], (question, wording, side): (&Question, usize, usize)) -> Result<Branch> {
        let (stem, answers) = asker.stem(before, question, wording, side)?;
        let branch = Branch { text: self.texts.len(), stem: stem.len(), answers };
        // Nothing follows an answer's last token.
        let continued = branch.answers.iter().map(|answer| [stem.as_slice(), &answer[..answer.len() - 1]].concat());
        self.texts.extend(continued);
        Ok(branch)
    }

    /// What is asked, from moments without a conversation.
    fn asked(&self, questions: &[Question]) -> Vec<Asked> {
        let each = questions.len() * self.groups;
        let asked = |(number, question): (usize, &Question)| {
            let [own, _] = &question.wordings[0];
            let wordings = || self.branches.chunks_exact(each).flat_map(|moment| &moment[number * self.groups..(number + 1) * self.groups]);
            let first = wordings().next().map_or(&[][..], |pair| &pair[0].answers);
            let same = wordings().flatten().all(|branch| branch.answers == first);
            let narrow = |ids: &Vec<i64>| ids.iter().map(|id| *id as i32).collect();
            Asked {
                concept: question.concept.name.clone(),
                null_bank: question.concept.null_bank,
                specification: question.concept.specification,
                answer: own.answers.as_ref().map_or_else(String::new, |[answer, _]| answer.clone()),
                answer_ids: if same { first.iter().map(narrow).collect() } else { Vec::new() },
                foils: own.foils.len(),
            }
        };
        questions.iter().enumerate().map(asked).collect()
    }

    /// Keeps the first `moments`; texts that nothing stands behind any more stay out of the forest, see [`Talks::longest`].
    fn truncate(&mut self, moments: usize) {
        self.moments.truncate(moments);
        self.branches.truncate(moments * self.asked.len() * self.groups);
        self.replied.truncate(moments * self.replies);
        self.said.truncate(moments);
        let last_answer = self.branches.iter().flatten().map(|branch| branch.text + branch.answers.len()).max();
        let last_place = self.replied.iter().chain(self.said.iter().flatten()).map(|(text, _)| text + 1).max();
        self.texts.truncate(last_answer.max(last_place).unwrap_or(0));
    }

    /// Branches of a moment, `[concept, wording]`.
    pub fn branches_of(&self, moment: usize) -> &[[Branch; 2]] {
        let each = self.asked.len() * self.groups;
        &self.branches[moment * each..(moment + 1) * each]
    }

    /// Fixed replies of a moment.
    pub fn replies_of(&self, moment: usize) -> &[Place] {
        &self.replied[moment * self.replies..(moment + 1) * self.replies]
    }

    /// Tokens of the longest text behind a moment.
    pub fn longest(&self, moment: usize) -> usize {
        let answers = self.branches_of(moment).iter().flatten().flat_map(|branch| branch.text..branch.text + branch.answers.len());
        let places = self.replies_of(moment).iter().chain(self.said[moment].iter()).map(|(text, _)| *text);
        answers.chain(places).map(|text| self.texts[text].len()).max().unwrap_or(0)
    }

    /// Largest token id.
    pub fn max_token(&self) -> i64 {
        let answers = self.branches.iter().flatten().flat_map(|branch| branch.answers.iter().flatten());
        self.texts.iter().flatten().chain(answers).copied().max().unwrap_or(0)
    }

    /// Digest of all that is read.
    pub fn hash(&self) -> &str {
        self.digest.get_or_init(|| {
            let answers: Vec<&Vec<Vec<i64>>> = self.branches.iter().flatten().map(|branch| &branch.answers).collect();
            let text = format!("{:?} {:?} {answers:?} {:?} {:?}", self.moments, self.texts, self.replied, self.said);
            blake3::hash(text.as_bytes()).to_hex().to_string()
        })
    }
}

/// Conversations with their numbers: those of one id have one, whoever wrote them.
fn numbered(scripts: &[Transcript]) -> impl Iterator<Item = (usize, &Transcript)> {
    let mut numbers: BTreeMap<&str, usize> = BTreeMap::new();
    scripts.iter().map(move |script| {
        let next = numbers.len();
        (*numbers.entry(script.id.as_str()).or_insert(next), script)
    })
}

/// Messages up to the model's turn of this number; the system's alone for 0.
fn up_to(messages: &[Message], turns: usize) -> &[Message] {
    if turns == 0 {
        let system = messages.iter().take_while(|message| message.role == "system").count();
        return &messages[..system];
    }
    let mut spoken = messages.iter().enumerate().filter(|(_, message)| message.role == "assistant");
    spoken.nth(turns - 1).map_or(messages, |(at, _)| &messages[..=at])
}
