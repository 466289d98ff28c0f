//! How conversations begin that checkpoints go on with by themselves, and what is said to them on the way.
//!
//! A scripted user does not hear what the model answers: its lines are such that they can follow on anything.

use super::concept::{is_toml, parse_toml};
use super::records::{is_slug, mark_in, read_text};
use super::talks::NONE;
use super::transcript::{NEUTRAL, SHUFFLED};
use crate::manifest::{Talk, TalkSet};
use anyhow::{Context, Result, bail, ensure};
use include_dir::{Dir, include_dir};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

static SET: Dir = include_dir!("$CARGO_MANIFEST_DIR/concepts/conversations");

/// Arms inside the binary, in the order in which they are looked at.
const ORDER: [&str; 4] = ["self_talk", "user", "task", "off_topic"];

/// Who talks with the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Partner {
    /// Another instance of it.
    Itself,
    /// A user whose lines are fixed.
    Script,
}

/// One kind of conversation, as its file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Arm {
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "license")]
    _license: String,
    #[serde(rename = "arm")]
    pub name: String,
    #[serde(rename = "description")]
    _description: String,
    pub partner: Partner,
    /// Whether the other arms are held against it.
    #[serde(default)]
    pub control: bool,
    openings: Vec<String>,
    #[serde(default)]
    follow_ups: Vec<String>,
}

impl Arm {
    /// What is said first in conversation number `seed`.
    pub fn opening(&self, seed: usize) -> &str {
        self.openings[seed % self.openings.len()].trim()
    }

    /// Conversations that begin differently.
    pub fn n_openings(&self) -> usize {
        self.openings.len()
    }

    /// What the scripted user says after the model's turn number `exchange`, from 1; every conversation begins elsewhere in the list.
    pub fn follow_up(&self, seed: usize, exchange: usize) -> &str {
        // Seven is prime to the sixteen lines of the sets in the binary, so that the first sixteen conversations all begin elsewhere.
        self.follow_ups[(7 * seed + exchange - 1) % self.follow_ups.len()].trim()
    }

    /// All that is said to the model: openings, then what follows.
    pub fn said(&self) -> [&[String]; 2] {
        [&self.openings, &self.follow_ups]
    }

    fn parse(text: &str, place: &str) -> Result<Self> {
        let arm: Self = parse_toml(text, place)?;
        let name = &arm.name;
        ensure!(is_slug(name), "{place}: arm: found {name:?}, expected lower-case letters, digits and _");
        ensure!(
            ![NONE, NEUTRAL, SHUFFLED].contains(&name.as_str()),
            "{place}: arm: found {name:?}, which the tables use for arms of their own; choose another"
        );
        ensure!(!arm.openings.is_empty(), "{place}: openings: found none, expected what conversations begin with");
        match arm.partner {
            Partner::Script => {
                ensure!(!arm.follow_ups.is_empty(), "{place}: follow_ups: found none, expected the lines of the user after the first one");
            }
            Partner::Itself => {
                ensure!(arm.follow_ups.is_empty(), "{place}: follow_ups: found some, expected none with partner = \"itself\"");
            }
        }
        for (key, texts) in [("openings", &arm.openings), ("follow_ups", &arm.follow_ups)] {
            ensure!(texts.iter().all(|text| !text.trim().is_empty()), "{place}: {key}: found an empty one");
            if let Some(mark) = texts.iter().find_map(|text| mark_in(text)) {
                bail!("{place}: {key}: found U+{:04X}, which is reserved for marks; remove it", u32::from(mark));
            }
        }
        Ok(arm)
    }
}

/// Reads the sets of a manifest's table, with its arms in its order.
///
/// # Errors
/// A file that cannot be read or understood, an arm that is there twice, two controls, or a pattern that matches none.
pub fn load(wanted: &Talk) -> Result<Vec<Arm>> {
    let mut arms: Vec<Arm> = Vec::new();
    for set in &wanted.sets {
        let mut own = match set {
            TalkSet::Builtin => SET
                .files()
                .filter(|file| is_toml(file.path()))
                .map(|file| {
                    Arm::parse(file.contents_utf8().unwrap_or_default(), &format!("concepts/conversations/{}", file.path().display()))
                })
                .collect::<Result<Vec<_>>>()?,
            TalkSet::Path(path) => {
                let read = |path: &PathBuf| Arm::parse(&read_text(path)?, &path.display().to_string());
                files(path)?.iter().map(read).collect::<Result<Vec<_>>>()?
            }
        };
        own.sort_by_key(|arm| ORDER.iter().position(|name| *name == arm.name).unwrap_or(ORDER.len()));
        arms.append(&mut own);
    }
    let names: Vec<&str> = arms.iter().map(|arm| arm.name.as_str()).collect();
    if let Some(name) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(*name)) {
        ensure!(false, "{} sets: found arm {name:?} twice, expected every arm once", wanted.place);
    }
    wanted.arms.iter().try_for_each(|glob| glob.require(&names))?;
    if !wanted.arms.is_empty() {
        let place = |arm: &Arm| wanted.arms.iter().position(|glob| glob.matches(&arm.name));
        arms.retain(|arm| place(arm).is_some());
        arms.sort_by_key(place);
    }
    let controls: Vec<&str> = arms.iter().filter(|arm| arm.control).map(|arm| arm.name.as_str()).collect();
    ensure!(
        controls.len() < 2,
        "{}: found control = true in the arms {}, expected one arm that the others are held against; leave out all but one with arms",
        wanted.place,
        controls.join(" and ")
    );
    Ok(arms)
}

/// A file, or those of a folder.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        ensure!(is_toml(path), "{}: expected a file that ends in .toml, with openings", path.display());
        return Ok(vec![path.to_owned()]);
    }
    let listed = std::fs::read_dir(path).with_context(|| format!("{}: cannot be listed", path.display()))?;
    let mut paths: Vec<PathBuf> = listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_toml(path)).collect();
    paths.sort();
    ensure!(!paths.is_empty(), "{}: the folder holds no .toml file with openings", path.display());
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn arms(table: &str, files: &[(&str, &str)]) -> Result<Vec<Arm>> {
        let folder = tempfile::tempdir()?;
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text)?;
        }
        let manifest = folder.path().join("m.toml");
        let text = format!("[conversation]\n{table}\n[[checkpoint]]\nid = \"a\"\nstage = \"base\"\nsource = \"random:gpt2\"\n");
        std::fs::create_dir(folder.path().join("random:gpt2"))?;
        std::fs::write(&manifest, text)?;
        load(&Manifest::load(&manifest)?.conversation.context("there is a table")?.talk)
    }

    const FILE: &str = "source = \"x\"\nlicense = \"x\"\narm = \"chat\"\ndescription = \"x\"\n";

    #[test]
    fn the_sets_in_the_binary_have_a_control_and_conversations_that_all_differ() {
        let arms = arms("", &[]).unwrap();
        assert_eq!(arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>(), ORDER);
        assert_eq!(arms.iter().filter(|arm| arm.control).map(|arm| arm.name.as_str()).collect::<Vec<_>>(), ["off_topic"]);
        for arm in &arms {
            assert_eq!(arm.n_openings(), 16, "{}", arm.name);
            let scripts: std::collections::BTreeSet<String> = (0..16)
                .map(|seed| {
                    let lines = (1..16).filter(|_| arm.partner == Partner::Script).map(|exchange| arm.follow_up(seed, exchange));
                    std::iter::once(arm.opening(seed)).chain(lines).collect::<Vec<_>>().join("|")
                })
                .collect();
            assert_eq!(scripts.len(), 16, "{}", arm.name);
        }
    }

    #[test]
    fn arms_are_those_of_the_manifest_in_its_order() {
        let file = format!("{FILE}partner = \"itself\"\nopenings = [\"Hello.\"]\n");
        let found = arms("sets = [\"builtin\", \"a.toml\"]\narms = [\"chat\", \"*_t*\"]", &[("a.toml", &file)]).unwrap();
        assert_eq!(found.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>(), ["chat", "self_talk", "off_topic"]);
    }

    #[test]
    fn mistakes_have_a_sentence() {
        let of = |rest: &str| format!("{:#}", arms("sets = [\"a.toml\"]", &[("a.toml", &format!("{FILE}{rest}"))]).unwrap_err());
        for (rest, expected) in [
            ("partner = \"script\"\nopenings = [\"Hello.\"]\n", "follow_ups: found none"),
            ("partner = \"itself\"\nopenings = []\n", "openings: found none"),
            ("partner = \"itself\"\nopenings = [\" \"]\n", "openings: found an empty one"),
            ("partner = \"itself\"\nopenings = [\"a\"]\nfollow_ups = [\"b\"]\n", "expected none with partner"),
            ("partner = \"nobody\"\nopenings = [\"a\"]\n", "nobody"),
        ] {
            let found = of(rest);
            assert!(found.contains("a.toml") && found.contains(expected), "{found}");
        }
        let twice = format!("{:#}", arms("sets = [\"builtin\", \"builtin\"]", &[]).unwrap_err());
        assert!(twice.contains("each value once"), "{twice}");
        let none = format!("{:#}", arms("arms = [\"self_tlak\"]", &[]).unwrap_err());
        assert!(none.contains("self_tlak") && none.contains("self_talk"), "{none}");
    }
}
