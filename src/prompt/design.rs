//! From a concept to its items: which rows meet in which template, and what y is.
//!
//! The design is balanced and fixed: it does not depend on the seed, so that a prompt set is the same in every run and
//! readouts can be reused. A group is the unit of every resampling.

use super::balance::balanced;
use super::concept::{Binding, Concept, Crossed, Frame, Label, Prediction, Question, Stem, Turn};
use super::import::Imported;
use super::label_family::LabelFamily;
use super::slots::{Slots, capitalised, fill, possessive};
use super::specification::Specification;
use super::template::Message;
use super::tokenize::{SPAN_CLOSE, SPAN_OPEN};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// Unnamed others per self item in a stem group.
const OTHERS: usize = 3;

/// How many groups of each kind are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Profile {
    pub crossed: usize,
    pub binding: usize,
    pub stem: usize,
    pub null_crossed: usize,
    /// Stems that are completed by every choice: what differs between choices, and not between stems, limits what they tell.
    pub stated: usize,
}

impl Profile {
    /// 96 crossed groups per concept, 48 per null concept.
    pub const FULL: Self = Self { crossed: 96, binding: 48, stem: 48, null_crossed: 48, stated: 12 };
    /// 16 to 24 groups, for CPUs and tests.
    pub const QUICK: Self = Self { crossed: 24, binding: 16, stem: 24, null_crossed: 16, stated: 8 };
}

/// An item before rendering.
#[derive(Debug, Clone, PartialEq)]
pub struct Spec {
    pub concept: String,
    pub label_family: LabelFamily,
    pub null_bank: bool,
    pub specification: Option<Specification>,
    /// Unit of resampling, unique within the concept.
    pub group_id: String,
    pub cell: String,
    pub y: Option<i8>,
    pub template_id: String,
    pub lexicon_id: String,
    pub messages: Vec<Message>,
    /// Two continuations whose log-probabilities are compared.
    pub answers: Option<[String; 2]>,
    /// Other continuations of the first one's kind.
    pub foils: Vec<String>,
    /// The text must not be stored.
    pub private: bool,
}

impl Spec {
    /// An item without y, template, lexicon or messages.
    pub(super) fn unlabelled(concept: &str, label_family: LabelFamily, group_id: String, cell: String) -> Self {
        Self {
            concept: concept.to_owned(),
            label_family,
            null_bank: false,
            specification: None,
            group_id,
            cell,
            y: None,
            template_id: String::new(),
            lexicon_id: String::new(),
            messages: Vec::new(),
            answers: None,
            foils: Vec::new(),
            private: false,
        }
    }
}

/// All items of a concept. `parameters` fill `{name}`, `{maker}` and so on.
///
/// # Errors
/// A slot that nothing fills, or fewer combinations than groups.
pub fn specs(concept: &Concept, profile: Profile, parameters: &BTreeMap<String, String>) -> Result<Vec<Spec>> {
    let writer = Writer { concept, parameters };
    let mut specs = Vec::new();
    let crossed = if concept.null_bank { profile.null_crossed } else { profile.crossed };
    if let Some(block) = &concept.crossed {
        writer.crossed(LabelFamily::Crossed, block, &block.templates, crossed, &mut specs)?;
    }
    if let Some(block) = &concept.control {
        writer.crossed(LabelFamily::Control, block, concept.control_templates(), crossed, &mut specs)?;
    }
    if let Some(frame) = &concept.frame {
        writer.frame(frame, crossed, &mut specs)?;
    }
    if let Some(binding) = &concept.binding {
        writer.binding(binding, profile.binding, &mut specs)?;
    }
    if let Some(stem) = &concept.stem {
        writer.stem(stem, profile.stem, &mut specs)?;
    }
    if let Some(prediction) = &concept.prediction {
        writer.prediction(prediction, profile.stem, &mut specs)?;
    }
    match (&concept.import, &concept.imported) {
        (Some(_), Some(imported)) => writer.content(imported, crossed, &mut specs),
        (Some(import), None) => bail!("{}: {} has not been read; load the concept from a pack", concept.name, import.file.display()),
        (None, _) => {}
    }
    Ok(specs)
}

/// The first `groups` crossed quartets of a concept, as [`specs`] makes them, or with the same rows in other templates, without foils.
///
/// # Errors
/// As [`specs`].
pub fn first_quartets(
    concept: &Concept,
    profile: Profile,
    groups: usize,
    parameters: &BTreeMap<String, String>,
    other: Option<&[Turn]>,
) -> Result<Vec<Spec>> {
    let mut specs = Vec::new();
    if let Some(block) = &concept.crossed {
        let all = if concept.null_bank { profile.null_crossed } else { profile.crossed };
        let mut triples = balanced(all, [block.templates.len(), block.a.len(), block.b.len()]);
        triples.truncate(groups);
        if let Some(templates) = other {
            triples.iter_mut().enumerate().for_each(|(k, [t, ..])| *t = k % templates.len());
        }
        Writer { concept, parameters }.quartets(LabelFamily::Crossed, block, other.unwrap_or(&block.templates), &triples, &mut specs)?;
    }
    specs.retain(|spec| spec.label_family != LabelFamily::CrossedFoil);
    Ok(specs)
}

/// The first `groups` answer stems of a concept, as [`specs`] makes them, each about oneself and about one other, without foils.
///
/// # Errors
/// As [`specs`].
pub fn first_stems(concept: &Concept, groups: usize, parameters: &BTreeMap<String, String>) -> Result<Vec<Spec>> {
    let mut specs = answered_stems(concept, groups, parameters)?;
    specs.iter_mut().for_each(|spec| spec.foils.clear());
    Ok(specs)
}

/// The same with their foils.
///
/// # Errors
/// As [`specs`].
pub fn answered_stems(concept: &Concept, groups: usize, parameters: &BTreeMap<String, String>) -> Result<Vec<Spec>> {
    let mut specs = Vec::new();
    if let Some(stem) = concept.stem.as_ref().filter(|stem| stem.answers.is_some()) {
        Writer { concept, parameters }.stem(stem, groups, &mut specs)?;
    }
    specs.retain(|spec| spec.label_family == LabelFamily::StemSelf || spec.cell == "other0");
    Ok(specs)
}

/// Items of the normalisation pool: every question once before generation and once at the beginning of its answer.
pub fn neutral(pool: &[Question]) -> Vec<Spec> {
    let spec = |index: usize, cell: &str, messages: Vec<Message>| {
        let spec = Spec::unlabelled("neutral", LabelFamily::Neutral, format!("n{index:03}"), cell.to_owned());
        Spec { messages, ..spec }
    };
    let marked = |text: &str| format!("{SPAN_OPEN}{text}{SPAN_CLOSE}");
    let mut specs = Vec::new();
    for (index, question) in pool.iter().enumerate() {
        let user = Message::new("user", marked(&question.user));
        specs.push(spec(index, "question", vec![user]));
        let answer = Message::new("assistant", marked(&question.stem));
        specs.push(spec(index, "stem", vec![Message::new("user", question.user.as_str()), answer]));
    }
    specs
}

struct Writer<'a> {
    concept: &'a Concept,
    parameters: &'a BTreeMap<String, String>,
}

impl Writer<'_> {
    fn spec(&self, label_family: LabelFamily, group_id: String, cell: &str, y: Option<i8>, messages: Vec<Message>) -> Spec {
        let spec = Spec::unlabelled(&self.concept.name, label_family, group_id, cell.to_owned());
        Spec { null_bank: self.concept.null_bank, specification: self.concept.specification, y, messages, ..spec }
    }

    fn crossed(&self, family: LabelFamily, block: &Crossed, templates: &[Turn], groups: usize, specs: &mut Vec<Spec>) -> Result<()> {
        let rows = [templates.len(), block.a.len(), block.b.len()];
        let combinations = rows.iter().product::<usize>();
        ensure!(
            combinations >= groups,
            "{}: [{family}] has {combinations} combinations of template, a and b, expected at least {groups}",
            self.concept.name
        );
        self.quartets(family, block, templates, &balanced(groups, rows), specs)
    }

    fn quartets(
        &self,
        family: LabelFamily,
        block: &Crossed,
        templates: &[Turn],
        triples: &[[usize; 3]],
        specs: &mut Vec<Spec>,
    ) -> Result<()> {
        for (k, &[t, a, b]) in triples.iter().enumerate() {
            let filled = block.fill.iter();
            let filled: Slots =
                filled.map(|(slot, values)| (slot.as_str(), values.get(k % values.len().max(1)).map_or("", String::as_str))).collect();
            let mut push = |label_family, cell: String, y, [own, other]: [&str; 2], [claim, counter]: [&str; 2]| -> Result<()> {
                let mut slots: Slots = vec![("a", own), ("a_", other), ("b", claim), ("b_", counter)];
                slots.extend(&filled);
                let mut spec = self.spec(label_family, format!("{family}-{k:03}"), &cell, y, self.turn(&templates[t], &slots)?);
                // The row of a alone: pairs of rows are new in nearly every group, and leaving one out would hold out no word.
                (spec.template_id, spec.lexicon_id) = (format!("t{t}"), format!("a{a}"));
                specs.push(spec);
                Ok(())
            };
            let (speakers, claims) = (&block.a[a], &block.b[b]);
            for (i, j) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
                let y = match block.label {
                    Label::Fits => i == j,
                    Label::B => j == 1,
                };
                let sides = [[&speakers[i], &speakers[1 - i]], [&claims[j], &claims[1 - j]]].map(|side| side.map(String::as_str));
                push(family.clone(), format!("{i}{j}"), Some(i8::from(y)), sides[0], sides[1])?;
            }
            for (f, foil) in block.foils.iter().enumerate().filter(|_| family == LabelFamily::Crossed) {
                for i in [0, 1] {
                    push(LabelFamily::CrossedFoil, format!("{i}:{f:02}"), None, [&speakers[i], &speakers[1 - i]], [foil, &claims[0]])?;
                }
            }
        }
        Ok(())
    }

    fn frame(&self, frame: &Frame, groups: usize, specs: &mut Vec<Spec>) -> Result<()> {
        let rows = [frame.templates.len(), frame.speaker.len(), frame.claim.len()];
        let groups = groups.min(rows.iter().product());
        for (k, [t, s, c]) in balanced(groups, rows).into_iter().enumerate() {
            for (side, y) in [(0, 1), (1, 0)] {
                let slots: Slots = vec![("speaker", &frame.speaker[s][side]), ("claim", &frame.claim[c])];
                let messages = self.turn(&frame.templates[t], &slots)?;
                let mut spec = self.spec(LabelFamily::Frame, format!("frame-{k:03}"), &side.to_string(), Some(y), messages);
                (spec.template_id, spec.lexicon_id) = (format!("t{t}"), format!("s{s}"));
                specs.push(spec);
            }
        }
        Ok(())
    }

    /// Four binding items (assignment x asked), and in the same contexts two about the addressee and two about somebody of
    /// whom nothing was said.
    fn binding(&self, binding: &Binding, groups: usize, specs: &mut Vec<Spec>) -> Result<()> {
        let rows = [binding.contexts.len(), binding.named.len(), binding.poles.len()];
        let groups = groups.min(rows.iter().product());
        let n = binding.entities.len();
        for (k, [c, q, p]) in balanced(groups, rows).into_iter().enumerate() {
            let (first, second) = (k % n, (k + 1 + (k / n) % (n - 1)) % n);
            let third = (0..n).map(|step| (k + n / 2 + step) % n).find(|e| *e != first && *e != second).context("three entities")?;
            let group_id = format!("binding-{k:03}");
            for swap in [0, 1] {
                let poles = [&binding.poles[p][swap], &binding.poles[p][1 - swap]];
                let context: Slots =
                    vec![("e0", &binding.entities[first]), ("e1", &binding.entities[second]), ("p0", poles[0]), ("p1", poles[1])];
                let context = self.fill(&binding.contexts[c], &context)?;
                let mut push = |family, cell: String, y, question: &Question, entity: &str| -> Result<()> {
                    let slots: Slots = vec![("e", entity)];
                    let user = format!("{context} {}", self.fill(&question.user, &slots)?);
                    let messages = vec![Message::new("user", user), Message::new("assistant", self.fill(&question.stem, &slots)?)];
                    let mut spec = self.spec(family, group_id.clone(), &cell, y, messages);
                    (spec.template_id, spec.lexicon_id) = (format!("c{c}q{q}"), format!("p{p}"));
                    specs.push(spec);
                    Ok(())
                };
                for (asked, entity) in [first, second].into_iter().enumerate() {
                    let y = i8::from(asked != swap);
                    push(LabelFamily::Binding, format!("{swap}{asked}"), Some(y), &binding.named[q], &binding.entities[entity])?;
                }
                push(LabelFamily::PlacementSelf, format!("self{swap}"), None, &binding.own[q], "")?;
                push(LabelFamily::PlacementOther, format!("other{swap}"), None, &binding.named[q], &binding.entities[third])?;
            }
        }
        Ok(())
    }

    fn stem(&self, stem: &Stem, groups: usize, specs: &mut Vec<Spec>) -> Result<()> {
        let (questions, stems) = (stem.questions.len(), stem.stems.len());
        let none = Vec::new();
        let filled = |[a, b]: &[String; 2]| Ok::<_, anyhow::Error>([self.fill(a, &none)?, self.fill(b, &none)?]);
        let answers = stem.answers.as_ref().map(filled).transpose()?;
        let foils = self.foils(stem, answers.as_ref())?;
        for k in 0..groups.min(questions * stems) {
            let (q, s) = (k % questions, (k / questions + k % questions) % stems);
            let mut push = |family, cell: String, user: String, open: String| {
                // One of the others is enough to tell what is said of anybody, and long foils cost many nodes.
                let with_foils = matches!(cell.as_str(), "self" | "other0");
                let mut spec = self.spec(
                    family,
                    format!("stem-{k:03}"),
                    &cell,
                    None,
                    vec![Message::new("user", user), Message::new("assistant", open)],
                );
                (spec.template_id, spec.lexicon_id) = (format!("q{q}"), format!("s{s}"));
                spec.answers.clone_from(&answers);
                if with_foils {
                    spec.foils.clone_from(&foils);
                }
                specs.push(spec);
            };
            push(LabelFamily::StemSelf, "self".to_owned(), self.fill(&stem.questions[q][0], &none)?, self.fill(&stem.stems[s][0], &none)?);
            for o in 0..OTHERS {
                let other = &stem.others[(OTHERS * k + o) % stem.others.len()];
                let (owner, capital) = (possessive(other), capitalised(other));
                let capital_owner = possessive(&capital);
                let slots: Slots = vec![("o", other), ("O", &capital), ("o's", &owner), ("O's", &capital_owner)];
                push(
                    LabelFamily::StemOther,
                    format!("other{o}"),
                    self.fill(&stem.questions[q][1], &slots)?,
                    self.fill(&stem.stems[s][1], &slots)?,
                );
            }
        }
        Ok(())
    }

    /// Every pair of options as a choice and as a prediction of it, in both orders.
    fn prediction(&self, prediction: &Prediction, groups: usize, specs: &mut Vec<Spec>) -> Result<()> {
        for (k, options) in prediction.options.iter().take(groups).enumerate() {
            let q = k % prediction.choice.len();
            for (family, question) in
                [(LabelFamily::Object, &prediction.choice[q]), (LabelFamily::Hypothetical, &prediction.hypothetical[q])]
            {
                for (cell, [x, y]) in [("xy", [0, 1]), ("yx", [1, 0])] {
                    let slots: Slots = vec![("x", &options[x]), ("y", &options[y])];
                    let messages = vec![
                        Message::new("user", self.fill(&question.user, &slots)?),
                        Message::new("assistant", self.fill(&question.stem, &slots)?),
                    ];
                    let mut spec = self.spec(family.clone(), format!("prediction-{k:03}"), &format!("{family}-{cell}"), None, messages);
                    spec.template_id = format!("q{q}");
                    spec.answers = Some(options.clone());
                    specs.push(spec);
                }
            }
        }
        Ok(())
    }

    /// Foils that are neither of the answers, which may come from the manifest, each once.
    fn foils(&self, stem: &Stem, answers: Option<&[String; 2]>) -> Result<Vec<String>> {
        let mut said: BTreeSet<String> = answers.into_iter().flatten().map(|answer| answer.to_lowercase()).collect();
        let foils = stem.foils.iter().map(|foil| self.fill(foil, &Vec::new())).collect::<Result<Vec<_>>>()?;
        Ok(foils.into_iter().filter(|foil| said.insert(foil.to_lowercase())).collect())
    }

    /// Records of a data set as they are; nothing in them is a slot.
    fn content(&self, imported: &Imported, groups: usize, specs: &mut Vec<Spec>) {
        for (k, entries) in imported.spread(groups).enumerate() {
            for (index, entry) in entries.iter().enumerate() {
                let cell = format!("{index}-{}", u8::from(entry.y));
                let mut spec =
                    self.spec(LabelFamily::Content, format!("content-{k:03}"), &cell, Some(i8::from(entry.y)), entry.messages.clone());
                spec.lexicon_id = format!("r{}", entry.record);
                spec.private = imported.private;
                specs.push(spec);
            }
        }
    }

    fn turn(&self, turn: &Turn, slots: &Slots) -> Result<Vec<Message>> {
        let parts = [("system", turn.system.as_deref()), ("user", Some(turn.user.as_str())), ("assistant", turn.assistant.as_deref())];
        let mut messages = Vec::new();
        for (role, text) in parts {
            if let Some(text) = text {
                messages.push(Message::new(
                    role,
                    self.fill(text, slots)?.replace("[[", &SPAN_OPEN.to_string()).replace("]]", &SPAN_CLOSE.to_string()),
                ));
            }
        }
        Ok(messages)
    }

    fn fill(&self, text: &str, slots: &Slots) -> Result<String> {
        fill(text, slots, self.parameters).with_context(|| self.concept.name.clone())
    }
}

#[cfg(test)]
#[path = "design_tests.rs"]
mod tests;
