//! What stands behind every moment of a conversation: wordings of concepts, their answers, and fixed replies.

use super::concept::Concept;
use super::design::{self, Spec};
use super::label_family::LabelFamily;
use super::persona::{Reply, has_system_role, in_context};
use super::template::Message;
use super::tokenize::{Encoded, Ruler};
use crate::manifest::Talk;
use anyhow::{Context, Result, bail, ensure};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// Null concepts that are asked about when the manifest names no concepts.
const NULL_CONCEPTS: usize = 3;
/// Wordings of a concept that are looked at.
const WORDINGS: usize = 96;
/// Tokens of a stem's end that settle how what follows is tokenised.
const TAIL: usize = 16;

/// Tokens of a stem, and of its answers.
pub type Stem = (Vec<i64>, Vec<Vec<i64>>);

/// A concept's wordings.
pub struct Question<'a> {
    pub concept: &'a Concept,
    /// About oneself, and about another.
    pub wordings: Vec<[Spec; 2]>,
}

/// What stands behind every moment.
pub struct Asker<'a> {
    ruler: &'a Ruler,
    has_role: bool,
    pub questions: Vec<Question<'a>>,
    pub replies: &'a [Reply],
    /// Stems without a conversation, with the tokens of their answers, by concept, wording and side.
    plain: RefCell<BTreeMap<(String, usize, usize), Stem>>,
}

impl<'a> Asker<'a> {
    /// Of the concepts that are wanted.
    ///
    /// # Errors
    /// A pattern that matches none, none can be asked about, or the template does not render conversations.
    pub fn new(
        wanted: &Talk,
        concepts: &'a [Concept],
        replies: &'a [Reply],
        parameters: &BTreeMap<String, String>,
        ruler: &'a Ruler,
    ) -> Result<Self> {
        check_template(ruler).with_context(|| format!("{}: the chat template", wanted.place))?;
        let questions = questions(wanted, concepts, parameters)?;
        let replies = &replies[..wanted.replies.min(replies.len())];
        Ok(Self { ruler, has_role: has_system_role(&ruler.template), questions, replies, plain: RefCell::default() })
    }

    /// Renders messages behind a conversation; a system message goes to the head of the first turn where the template has no system role.
    ///
    /// # Errors
    /// The template refuses them.
    pub fn encode(&self, before: &[Message], own: &[Message]) -> Result<Encoded> {
        let system = before.first().filter(|first| first.role == "system" && !self.has_role);
        let rest = &before[usize::from(system.is_some())..];
        let messages = rest.iter().chain(own).cloned().collect();
        let system = system.map_or("", |system| system.content.as_str());
        self.ruler.encode_chat(&in_context(messages, system, self.has_role))
    }

    /// The tokens of a stem behind a conversation, and of its answers.
    ///
    /// # Errors
    /// The template refuses the messages, or an answer does not continue the stem.
    pub fn stem(&self, before: &[Message], question: &Question, wording: usize, side: usize) -> Result<Stem> {
        let spec = &question.wordings[wording][side];
        let stem = self.encode(before, &spec.messages)?;
        let key = (question.concept.name.clone(), wording, side);
        let tail = |ids: &[i64]| ids[ids.len().saturating_sub(TAIL)..].to_vec();
        // How an answer is tokenised is settled by the words before it, so whole conversations are not gone through for each of them.
        let known =
            self.plain.borrow().get(&key).filter(|(ids, _)| tail(&stem.ids).ends_with(&tail(ids))).map(|(_, answers)| answers.clone());
        let answers = match known {
            Some(answers) => answers,
            None => {
                let texts = spec.answers.iter().flatten().chain(&spec.foils);
                texts.map(|answer| self.ruler.continuation(&stem, answer)).collect::<Result<Vec<_>>>()?
            }
        };
        if before.is_empty() {
            self.plain.borrow_mut().insert(key, (stem.ids.clone(), answers.clone()));
        }
        Ok((stem.ids, answers))
    }
}

/// Some templates write the last message only: behind them every conversation would be as none.
fn check_template(ruler: &Ruler) -> Result<()> {
    let turns = [("user", "xylophone"), ("assistant", "kestrel"), ("user", "harbour")];
    let text = ruler.encode_chat(&turns.map(|(role, text)| Message::new(role, text)))?.text;
    let lost = turns.into_iter().find(|(_, word)| !text.contains(word));
    if let Some((role, _)) = lost {
        bail!("leaves out the {role}'s earlier turn, expected one that writes whole conversations; choose another with [model] template");
    }
    Ok(())
}

/// Concepts that can be asked about, of those that are wanted.
fn questions<'a>(wanted: &Talk, concepts: &'a [Concept], parameters: &BTreeMap<String, String>) -> Result<Vec<Question<'a>>> {
    let mut able: Vec<Question> = Vec::new();
    for concept in concepts {
        let mut pairs: BTreeMap<String, [Option<Spec>; 2]> = BTreeMap::new();
        for spec in design::answered_stems(concept, WORDINGS, parameters)? {
            let side = usize::from(spec.label_family != LabelFamily::StemSelf);
            let pair = pairs.entry(spec.group_id.clone()).or_default();
            pair[side] = Some(spec);
        }
        let whole = |pair: [Option<Spec>; 2]| match pair {
            [Some(own), Some(other)] if own.answers == other.answers && own.foils == other.foils => Some([own, other]),
            _ => None,
        };
        let wordings: Vec<[Spec; 2]> = pairs.into_values().filter_map(whole).collect();
        if !wordings.is_empty() {
            able.push(Question { concept, wordings });
        }
    }
    let names: Vec<&str> = able.iter().map(|question| question.concept.name.as_str()).collect();
    wanted.concepts.iter().try_for_each(|glob| glob.require(&names))?;
    let mut null = 0;
    able.retain(|question| {
        if !wanted.concepts.is_empty() {
            return wanted.concepts.iter().any(|glob| glob.matches(&question.concept.name));
        }
        null += usize::from(question.concept.null_bank);
        !question.wordings[0][0].foils.is_empty() && (!question.concept.null_bank || null <= NULL_CONCEPTS)
    });
    ensure!(!able.is_empty(), "{}: no concept has stems with answers and foils, about oneself and about another", wanted.place);
    Ok(able)
}
