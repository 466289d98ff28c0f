//! Object-level choices and facts, asked while the model is intervened on.
//!
//! A choice is between two ways to go on, of which the first is what a concept would lean to, in a text that says nothing about who is
//! asked: it is behaviour, not a report about oneself. Every pair is asked in both orders. Facts are questions with a right and a wrong
//! answer: what they lose under an intervention is a side effect. Both are data, one TOML file per set.

use super::concept::{Concept, parse_toml};
use super::design::{Profile, Spec};
use super::item::{ItemSet, Setting};
use super::label_family::LabelFamily;
use super::slots::{Slots, fill};
use super::template::Message;
use super::tokenize::Ruler;
use crate::manifest::{Causal, ChoiceSet};
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::collections::BTreeMap;

const BUILTIN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/concepts/causal/choices.toml"));

/// Concept of the facts.
pub const FACT: &str = "fact";

/// A question, and the beginning of its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Frame {
    user: String,
    stem: String,
}

/// A question with a right and a wrong answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fact {
    user: String,
    stem: String,
    answers: [String; 2],
}

/// A file of choices and facts; a file for one concept may have no facts of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    source: String,
    license: String,
    /// Texts with the slots {x} and {y}, for the two options in either order.
    #[serde(default)]
    frame: Vec<Frame>,
    /// Pairs of options per concept, the one that the concept leans to first.
    #[serde(default)]
    choices: BTreeMap<String, Vec<[String; 2]>>,
    #[serde(default)]
    fact: Vec<Fact>,
}

/// What is asked under interventions.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Concepts whose directions are used, in the order of their names.
    pub concepts: Vec<String>,
    files: Vec<File>,
    groups: usize,
}

impl File {
    fn parse(text: &str, place: &str) -> Result<Self> {
        let file: Self = parse_toml(text, place)?;
        ensure!(!file.choices.is_empty() || !file.fact.is_empty(), "{place}: found neither [choices] nor [[fact]]");
        ensure!(file.choices.is_empty() || !file.frame.is_empty(), "{place}: found [choices] without a [[frame]] to ask them in");
        for frame in &file.frame {
            let text = format!("{} {}", frame.user, frame.stem);
            for slot in ["{x}", "{y}"] {
                ensure!(text.contains(slot), "{place}: [[frame]] {:?} lacks the slot {slot}", frame.user);
            }
        }
        for (concept, pairs) in &file.choices {
            ensure!(pairs.len() >= 2, "{place}: [choices] {concept}: found {} pairs, expected at least 2", pairs.len());
        }
        Ok(file)
    }
}

/// Chooses the concepts and reads the sets. Choices of a later set replace those of an earlier one for the same concept; facts of a
/// later set, if it has any, replace all.
///
/// # Errors
/// A file that is wrong, a pattern that matches nothing, no concept that has both quartets and answers, or fewer than four facts.
pub fn load(wanted: &Causal, concepts: &[Concept], profile: Profile) -> Result<Asked> {
    let place = &wanted.place;
    let mut files: Vec<File> = Vec::new();
    for set in &wanted.sets {
        let file = match set {
            ChoiceSet::Builtin => File::parse(BUILTIN, "concepts/causal/choices.toml")?,
            ChoiceSet::File(path) => {
                let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
                File::parse(&text, &path.display().to_string())?
            }
        };
        for before in &mut files {
            before.choices.retain(|concept, _| !file.choices.contains_key(concept));
            if !file.fact.is_empty() {
                before.fact.clear();
            }
        }
        files.push(file);
    }
    let facts: usize = files.iter().map(|file| file.fact.len()).sum();
    ensure!(facts >= 4, "{place}: sets: found {facts} facts, expected at least 4 to tell side effects by");
    let able = |concept: &&Concept| concept.crossed.is_some() && concept.stem.as_ref().is_some_and(|stem| stem.answers.is_some());
    let able: Vec<&Concept> = concepts.iter().filter(able).collect();
    let names: Vec<&str> = able.iter().map(|concept| concept.name.as_str()).collect();
    wanted.concepts.iter().try_for_each(|glob| glob.require(&names))?;
    let is_wanted = |concept: &&&Concept| match wanted.concepts.is_empty() {
        true => !concept.null_bank,
        false => wanted.concepts.iter().any(|glob| glob.matches(&concept.name)),
    };
    let mut chosen: Vec<String> = able.iter().filter(is_wanted).map(|concept| concept.name.clone()).collect();
    ensure!(!chosen.is_empty(), "{place}: no concept has both quartets, for a direction, and answer stems, for an outcome");
    chosen.sort();
    let groups = wanted.groups.unwrap_or(if profile.crossed < Profile::FULL.crossed { 8 } else { 12 });
    Ok(Asked { concepts: chosen, files, groups })
}

impl Asked {
    /// Adds the choices of the chosen concepts and the facts behind the items that are there.
    ///
    /// # Errors
    /// Names the item: a slot that nothing fills, a template that fails, or an answer that does not continue its stem.
    pub fn add_items(&self, set: &mut ItemSet, concepts: &[Concept], parameters: &BTreeMap<String, String>, ruler: &Ruler) -> Result<()> {
        for file in &self.files {
            let push = |set: &mut ItemSet, spec: Spec| set.push(spec, &Setting::default(), &file.source, &file.license, ruler);
            for (name, pairs) in file.choices.iter().filter(|(name, _)| self.concepts.contains(name)) {
                let null_bank = concepts.iter().any(|concept| concept.name == *name && concept.null_bank);
                for (k, pair) in pairs.iter().enumerate() {
                    let frame = &file.frame[k % file.frame.len()];
                    let filled = |text: &str, slots: &Slots| fill(text, slots, parameters).with_context(|| name.clone());
                    let options = [filled(&pair[0], &Vec::new())?, filled(&pair[1], &Vec::new())?];
                    for (cell, order) in [("xy", [0, 1]), ("yx", [1, 0])] {
                        let slots: Slots = vec![("x", &options[order[0]]), ("y", &options[order[1]])];
                        let mut spec = Spec::unlabelled(name, LabelFamily::Choice, format!("choice-{k:03}"), cell.to_owned());
                        (spec.null_bank, spec.template_id) = (null_bank, format!("f{}", k % file.frame.len()));
                        spec.messages = chat(&filled(&frame.user, &slots)?, &filled(&frame.stem, &slots)?);
                        spec.answers = Some(options.clone());
                        push(set, spec)?;
                    }
                }
            }
            for (k, fact) in file.fact.iter().enumerate() {
                let mut spec = Spec::unlabelled(FACT, LabelFamily::Fact, format!("fact-{k:03}"), "fact".to_owned());
                spec.messages = chat(&fact.user, &fact.stem);
                spec.answers = Some(fact.answers.clone());
                push(set, spec)?;
            }
        }
        Ok(())
    }

    /// Items whose margins are the outcomes of a concept: self-descriptions, of every other group, since the rest of the groups may make
    /// directions, and choices.
    pub fn outcomes(&self, set: &ItemSet, concept: &str) -> Vec<usize> {
        let (mut groups, mut items): (Vec<&str>, Vec<usize>) = Default::default();
        for (index, item) in set.items.iter().enumerate().filter(|(_, item)| item.concept == concept && item.is_plain()) {
            if item.label_family == LabelFamily::StemSelf {
                groups.push(&item.group_id);
                if groups.len().is_multiple_of(2) && groups.len() / 2 <= self.groups {
                    items.push(index);
                }
            } else if item.label_family == LabelFamily::Choice {
                items.push(index);
            }
        }
        items.retain(|&item| set.prompts[item].answers.is_some());
        items
    }
}

fn chat(user: &str, stem: &str) -> Vec<Message> {
    vec![Message::new("user", user), Message::new("assistant", stem)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_concept_has_choices_that_do_not_speak_of_the_one_who_is_asked() {
        let file = File::parse(BUILTIN, "choices.toml").unwrap();
        for concept in super::super::concept::load_pack(&crate::manifest::Pack::Builtin).unwrap() {
            let able = concept.crossed.is_some() && concept.stem.as_ref().is_some_and(|stem| stem.answers.is_some());
            if able && !concept.null_bank {
                assert!(file.choices.get(&concept.name).is_some_and(|pairs| pairs.len() >= 6), "{}", concept.name);
            }
        }
        let texts = file.choices.values().flatten().flatten();
        let texts = texts.chain(file.frame.iter().flat_map(|frame| [&frame.user, &frame.stem]));
        for text in texts {
            let mut words = text.split(|c: char| !c.is_alphanumeric());
            let own = ["i", "me", "my", "myself", "you", "your", "yourself", "assistant", "ai", "model"];
            assert!(words.all(|word| !own.contains(&word.to_lowercase().as_str())), "{text}");
        }
    }

    #[test]
    fn a_file_that_asks_nothing_is_refused_in_one_sentence() {
        let head = "source = \"s\"\nlicense = \"l\"\n";
        for (body, said) in [
            ("", "f: found neither [choices] nor [[fact]]"),
            ("[choices]\na = [[\"b\", \"c\"]]\n", "f: found [choices] without a [[frame]] to ask them in"),
            ("[[frame]]\nuser = \"{x}?\"\nstem = \"So\"\n[choices]\na = [[\"b\", \"c\"]]\n", "f: [[frame]] \"{x}?\" lacks the slot {y}"),
            (
                "[[frame]]\nuser = \"{x}, {y}?\"\nstem = \"So\"\n[choices]\na = [[\"b\", \"c\"]]\n",
                "f: [choices] a: found 1 pairs, expected at least 2",
            ),
            ("[choices]\na = [[\"b\"]]\n", "f:4: "),
        ] {
            let found = File::parse(&format!("{head}{body}"), "f").unwrap_err().to_string();
            assert!(found.starts_with(said), "{found}");
        }
    }
}
