//! Statements to be recognised: answers said out loud, about oneself and about somebody else, and facts that every model knows.
//!
//! A stem is completed by the answer and by each of its foils ("My name is Nova", "My name is Vera", "The gardener's name is Nova", ...) and
//! read at the last token of what is said. Facts come in quartets, `{France, Italy} x {Paris, Rome}`, in which y is whether the two fit:
//! the words are the same under both labels, and they say nothing about the self.

use super::concept::{Concept, built_in_folders, parse_toml};
use super::design::{self, Profile, Spec};
use super::item::{ItemSet, Setting};
use super::label_family::LabelFamily;
use super::template::Message;
use super::tokenize::Ruler;
use crate::manifest::Pack;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;

const FILE: &str = "facts.toml";
/// Concept of the facts.
pub const FACTS: &str = "known_facts";
/// Distances in the list of a relation's pairs at which two of them make a quartet.
const APART: [usize; 2] = [1, 3];
/// Whether items of a family are statements: read as a whole at their last token, in middle layers.
pub fn is_statement(label_family: &LabelFamily) -> bool {
    matches!(label_family, LabelFamily::Known | LabelFamily::StatedSelf | LabelFamily::StatedOther)
}

/// Layers (by position) between a third and two thirds of the depth, where statements are read as what they say; all of them where there are none.
pub fn middle_layers(layers: &[usize]) -> Vec<usize> {
    let depth = layers.iter().copied().max().unwrap_or(0);
    let middle = |&at: &usize| 3 * layers[at] >= depth && 3 * layers[at] <= 2 * depth;
    let found: Vec<usize> = (0..layers.len()).filter(middle).collect();
    if found.is_empty() { (0..layers.len()).collect() } else { found }
}

/// A direction that is fitted on fewer relations is one of theirs.
const RELATIONS: usize = 4;

/// Pairs that stand in one relation, with the slot `{}` for the first of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Relation {
    question: String,
    stem: String,
    pairs: Vec<[String; 2]>,
}

/// A file of facts.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Facts {
    source: String,
    license: String,
    relation: Vec<Relation>,
}

/// The facts of the last pack that has a `facts.toml`; those that come with the program for the built-in concepts and for folders without
/// one; `None` for the organism, which knows nothing about the world.
///
/// # Errors
/// A file that cannot be read or understood.
pub fn load(packs: &[Pack]) -> Result<Option<Facts>> {
    let mut found = None;
    for pack in packs {
        if let Pack::Folder(folder) = pack {
            let path = folder.join(FILE);
            if path.is_file() {
                let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
                found = Some(Facts::parse(&text, &path.display().to_string())?);
                continue;
            }
        }
        if *pack != Pack::Organism && found.is_none() {
            let file = built_in_folders(&Pack::Builtin).into_iter().find_map(|folder| folder.get_file(FILE));
            found = file.and_then(|file| file.contents_utf8()).map(|text| Facts::parse(text, "concepts/facts.toml")).transpose()?;
        }
    }
    Ok(found)
}

impl Facts {
    fn parse(text: &str, place: &str) -> Result<Self> {
        let facts: Self = parse_toml(text, place)?;
        ensure!(
            facts.relation.len() >= RELATIONS,
            "{place}: found {} relations, expected at least {RELATIONS}, since the direction is tested on relations it was not fitted on",
            facts.relation.len()
        );
        for relation in &facts.relation {
            let Relation { question, stem, pairs } = relation;
            for text in [question, stem] {
                ensure!(text.contains("{}"), "{place}: {text:?} lacks the slot {{}}");
            }
            ensure!(pairs.len() >= 4, "{place}: {question:?} has {} pairs, expected at least 4", pairs.len());
        }
        Ok(facts)
    }

    /// Adds the facts, and the statements of every concept whose stems have foils, behind the items that are there.
    ///
    /// # Errors
    /// Names the item: a slot that nothing fills, or a template that fails.
    pub fn add_items(
        &self,
        set: &mut ItemSet,
        concepts: &[Concept],
        profile: Profile,
        parameters: &BTreeMap<String, String>,
        ruler: &Ruler,
    ) -> Result<()> {
        for spec in self.relation.iter().enumerate().flat_map(|(index, relation)| relation.quartets(index)) {
            set.push(spec, &Setting::default(), &self.source, &self.license, ruler)?;
        }
        for concept in concepts {
            for stem in design::answered_stems(concept, profile.stated, parameters)?.iter().filter(|stem| !stem.foils.is_empty()) {
                for spec in completed(stem) {
                    set.push(spec, &Setting::default(), &concept.source, &concept.license, ruler)?;
                }
            }
        }
        Ok(())
    }
}

impl Relation {
    /// Quartets of pairs, one item per cell; the relation is the template, which is held out as a whole.
    fn quartets(&self, index: usize) -> Vec<Spec> {
        let mut specs = Vec::new();
        for (x, first) in self.pairs.iter().enumerate() {
            for second in APART.iter().filter_map(|apart| self.pairs.get(x + apart)) {
                for (i, of) in [first, second].into_iter().enumerate() {
                    for (j, answer) in [&first[1], &second[1]].into_iter().enumerate() {
                        let group = format!("known-{index:02}-{}-{}", first[0], second[0]);
                        let spec = Spec::unlabelled(FACTS, LabelFamily::Known, group, format!("{i}{j}"));
                        let said = format!("{} {answer}", self.stem.replace("{}", &of[0]));
                        let messages = vec![Message::new("user", self.question.replace("{}", &of[0])), Message::new("assistant", said)];
                        specs.push(Spec { y: Some(i8::from(i == j)), template_id: format!("r{index}"), messages, ..spec });
                    }
                }
            }
        }
        specs
    }
}

/// A stem completed by each of its choices: the answers, then the foils.
fn completed(stem: &Spec) -> impl Iterator<Item = Spec> {
    let label_family = if stem.cell == "self" { LabelFamily::StatedSelf } else { LabelFamily::StatedOther };
    let choices = stem.answers.iter().flatten().chain(&stem.foils).enumerate();
    choices.filter_map(move |(choice, said)| {
        let mut messages = stem.messages.clone();
        let last = messages.last_mut()?;
        last.content = format!("{} {said}", last.content);
        let cell = format!("{}:{choice:02}", stem.cell);
        Some(Spec { label_family: label_family.clone(), cell, messages, answers: None, foils: Vec::new(), ..stem.clone() })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::default_parameters;

    #[test]
    fn words_of_a_quartet_are_the_same_under_both_labels() {
        let facts = load(&[Pack::Builtin]).unwrap().unwrap();
        let mut groups: BTreeMap<(String, i8), Vec<String>> = BTreeMap::new();
        for spec in facts.relation.iter().enumerate().flat_map(|(index, relation)| relation.quartets(index)) {
            let words = spec.messages.iter().flat_map(|message| message.content.split(' ').map(str::to_owned).collect::<Vec<_>>());
            groups.entry((spec.group_id, spec.y.unwrap())).or_default().extend(words);
        }
        assert!(groups.len() >= 240, "{}", groups.len());
        for ((group, y), words) in &groups {
            let (mut own, mut others) = (words.clone(), groups[&(group.clone(), 1 - y)].clone());
            own.sort();
            others.sort();
            assert_eq!(own, others, "{group}");
        }
        assert!(load(&[Pack::Organism]).unwrap().is_none());
    }

    #[test]
    fn a_stem_is_completed_by_every_choice_about_oneself_and_one_other() {
        let concepts = super::super::concept::load_pack(&Pack::Builtin).unwrap();
        let concept = concepts.iter().find(|concept| concept.name == "name_developer").unwrap();
        let stems = design::answered_stems(concept, 2, &default_parameters()).unwrap();
        let said: Vec<Spec> = stems.iter().flat_map(completed).collect();
        let choices = 2 + stems[0].foils.len();
        assert_eq!((stems.len(), said.len()), (4, 4 * choices));
        assert_eq!((said[0].label_family.clone(), said[0].cell.as_str()), (LabelFamily::StatedSelf, "self:00"));
        assert!(said[0].messages[1].content.ends_with(" Nova") && said[choices].label_family == LabelFamily::StatedOther);
    }

    #[test]
    fn a_file_of_facts_that_cannot_serve_is_one_sentence() {
        let head = "source = \"s\"\nlicense = \"l\"\n";
        let relation = |question: &str, pairs: usize| {
            format!("[[relation]]\nquestion = \"{question}\"\nstem = \"{{}} is\"\npairs = [{}]\n", "[\"a\", \"b\"],".repeat(pairs))
        };
        for (body, said) in [
            (relation("{}?", 4), "f: found 1 relations, expected at least 4"),
            (relation("what?", 4).repeat(4), "f: \"what?\" lacks the slot {}"),
            (relation("{}?", 3).repeat(4), "f: \"{}?\" has 3 pairs, expected at least 4"),
        ] {
            let found = Facts::parse(&format!("{head}{body}"), "f").unwrap_err().to_string();
            assert!(found.starts_with(said), "{found}");
        }
    }
}
