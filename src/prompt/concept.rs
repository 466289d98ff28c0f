//! Concept files: data that say what is asked. One TOML file per concept; the built-in ones are embedded in the binary.
//!
//! A file holds up to six kinds of material, each with its own reading (see `design`): crossed quartets, matched controls,
//! frame companions, binding items, answer stems, and choices with predictions of them. Slots in braces are filled by the design; `[[...]]` marks the
//! span that is read out. It may also name a public data set, whose records come in as they are (see `import`).

use super::import::{Import, Imported};
use super::records::is_slug;
use super::specification::Specification;
use crate::manifest::{Choice, Concepts, Material, Pack};
use anyhow::{Context, Result, ensure};
use include_dir::{Dir, include_dir};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

static CONCEPTS: Dir = include_dir!("$CARGO_MANIFEST_DIR/concepts");

pub(super) const NEUTRAL: &str = "neutral.toml";

/// One concept file.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concept {
    pub name: String,
    pub title: String,
    pub description: String,
    /// Nobody teaches this: it belongs to the null distribution.
    #[serde(default)]
    pub null_bank: bool,
    /// What model specifications say about it.
    pub specification: Option<Specification>,
    pub source: String,
    pub license: String,
    pub crossed: Option<Crossed>,
    /// Matched control: the same shape about third parties.
    pub control: Option<Crossed>,
    pub frame: Option<Frame>,
    pub binding: Option<Binding>,
    pub stem: Option<Stem>,
    pub prediction: Option<Prediction>,
    /// A public data set: items with content labels.
    pub import: Option<Import>,
    /// What `import` names, once it is read.
    #[serde(skip)]
    pub imported: Option<Imported>,
}

/// A chat with an optional beginning of the assistant's turn.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Turn {
    pub system: Option<String>,
    pub user: String,
    pub assistant: Option<String>,
}

/// A question and the beginning of its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub user: String,
    pub stem: String,
}

/// Quartets {a0, a1} x {b0, b1}.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crossed {
    pub label: Label,
    #[serde(default)]
    pub templates: Vec<Turn>,
    pub a: Vec<[String; 2]>,
    pub b: Vec<[String; 2]>,
    /// What could stand in the place of either side of every row of b: of the same kind, and taught to nobody. The contrast of the first
    /// side with all of them is then dated by how it fares among theirs.
    #[serde(default)]
    pub foils: Vec<String>,
    #[serde(default)]
    pub fill: BTreeMap<String, Vec<String>>,
}

/// What makes y = 1 in a quartet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Label {
    /// The sides of a and b fit: the interaction of the factors.
    Fits,
    /// The side of b; for swap designs, where both sides of b occur in every text.
    B,
}

/// The same span after a different speaker.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    pub templates: Vec<Turn>,
    pub speaker: Vec<[String; 2]>,
    pub claim: Vec<String>,
}

/// Attributes assigned in context and swapped.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Binding {
    pub poles: Vec<[String; 2]>,
    pub contexts: Vec<String>,
    pub entities: Vec<String>,
    pub named: Vec<Question>,
    /// The same questions, parallel to `named`, about the addressee.
    #[serde(rename = "self")]
    pub own: Vec<Question>,
}

/// Fewer foils cannot tell a lesson from chance.
pub const FEWEST_FOILS: usize = 8;

/// Questions about oneself and about unnamed others, read at the beginning of the answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stem {
    /// `[self, other]`; every question goes with every stem.
    pub questions: Vec<[String; 2]>,
    pub stems: Vec<[String; 2]>,
    pub others: Vec<String>,
    /// Two continuations, the taught or true one first.
    pub answers: Option<[String; 2]>,
    /// Other answers that could stand in the first one's place: of the same kind, and taught to nobody. How the first fares among them
    /// is what a lesson is told from (`lens`, `behaviour`).
    #[serde(default)]
    pub foils: Vec<String>,
}

/// Choices, and what somebody would choose who were asked. Slots {x} and {y} are the options, in both orders.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Prediction {
    pub options: Vec<[String; 2]>,
    /// The choice itself.
    pub choice: Vec<Question>,
    /// The question what the choice would be, parallel to `choice`.
    pub hypothetical: Vec<Question>,
}

impl Concept {
    /// Reads a concept file; `place` names it in errors.
    ///
    /// # Errors
    /// Not valid TOML, an unknown or missing key (with its line), or lists that do not fit together.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let concept: Self = parse_toml(text, place)?;
        concept.check().with_context(|| place.to_owned())?;
        Ok(concept)
    }

    /// Reads what `import` names; `folder` is that of the concept file.
    ///
    /// # Errors
    /// As [`Import::read`].
    fn read_import(&mut self, folder: &Path) -> Result<()> {
        let Some(import) = &self.import else { return Ok(()) };
        let imported = import.read(folder)?;
        tracing::info!(
            "{}: {} records of {}, {} duplicates dropped, {} left without a record of the other label",
            self.name,
            imported.records,
            import.file.display(),
            imported.duplicates,
            imported.unpaired
        );
        self.imported = Some(imported);
        Ok(())
    }

    fn check(&self) -> Result<()> {
        ensure!(is_slug(&self.name), "name: found {:?}, expected lower-case letters, digits and _", self.name);
        if let Some(crossed) = &self.crossed {
            crossed.check("crossed", &crossed.templates)?;
        }
        if let Some(control) = &self.control {
            control.check("control", self.control_templates())?;
        }
        if let Some(frame) = &self.frame {
            ensure!(
                !frame.templates.is_empty() && !frame.speaker.is_empty() && !frame.claim.is_empty(),
                "[frame] needs templates, speaker and claim"
            );
            for turn in &frame.templates {
                require(turn, "frame", &["{speaker}", "{claim}", "[[", "]]"])?;
            }
        }
        if let Some(binding) = &self.binding {
            let (named, own) = (binding.named.len(), binding.own.len());
            ensure!(named == own, "[binding] named has {named} questions, self has {own}; they go in pairs");
            ensure!(binding.entities.len() >= 3, "[binding] entities: found {}, expected at least 3", binding.entities.len());
            ensure!(
                !binding.poles.is_empty() && !binding.contexts.is_empty() && !binding.named.is_empty(),
                "[binding] needs poles, contexts and named"
            );
            for context in &binding.contexts {
                for slot in ["{e0}", "{p0}", "{e1}", "{p1}"] {
                    ensure!(context.contains(slot), "[binding] context {context:?} lacks {slot}; both entities need their pole");
                }
            }
        }
        if let Some(stem) = &self.stem {
            ensure!(!stem.questions.is_empty() && !stem.stems.is_empty(), "[stem] needs questions and stems");
            ensure!(stem.others.len() >= 3, "[stem] others: found {}, expected at least 3", stem.others.len());
            ensure!(
                stem.foils.is_empty() || (stem.foils.len() >= FEWEST_FOILS && stem.answers.is_some()),
                "[stem] foils: found {}{}, expected at least {FEWEST_FOILS} beside answers, or none",
                stem.foils.len(),
                if stem.answers.is_some() { "" } else { " without answers" }
            );
        }
        if let Some(prediction) = &self.prediction {
            let (choices, hypotheticals) = (prediction.choice.len(), prediction.hypothetical.len());
            ensure!(prediction.options.len() >= 8, "[prediction] options: found {}, expected at least 8", prediction.options.len());
            ensure!(
                choices > 0 && choices == hypotheticals,
                "[prediction] has {choices} choices and {hypotheticals} hypotheticals, expected as many of each, at least one"
            );
            for question in prediction.choice.iter().chain(&prediction.hypothetical) {
                for slot in ["{x}", "{y}"] {
                    ensure!(question.user.contains(slot), "[prediction] question {:?} lacks {slot}", question.user);
                }
            }
        }
        Ok(())
    }

    /// Drops the material that is not wanted; says whether any is left.
    fn keep(&mut self, wanted: &[Material]) -> bool {
        // The control may have its templates from the crossed quartets.
        let templates = self.control_templates().to_vec();
        self.control.iter_mut().for_each(|control| control.templates = templates.clone());
        let keep = |kind| wanted.contains(&kind);
        self.crossed = self.crossed.take().filter(|_| keep(Material::Crossed));
        self.control = self.control.take().filter(|_| keep(Material::Control));
        self.frame = self.frame.take().filter(|_| keep(Material::Frame));
        self.binding = self.binding.take().filter(|_| keep(Material::Binding));
        self.stem = self.stem.take().filter(|_| keep(Material::Stem));
        self.prediction = self.prediction.take().filter(|_| keep(Material::Prediction));
        self.import = self.import.take().filter(|_| keep(Material::Content));
        let quartets = self.crossed.is_some() || self.control.is_some() || self.frame.is_some();
        quartets || self.binding.is_some() || self.stem.is_some() || self.prediction.is_some() || self.import.is_some()
    }

    /// Templates of the control; those of the crossed quartets where it has none of its own.
    pub fn control_templates(&self) -> &[Turn] {
        match (&self.control, &self.crossed) {
            (Some(control), Some(crossed)) if control.templates.is_empty() => &crossed.templates,
            (Some(control), _) => &control.templates,
            (None, _) => &[],
        }
    }
}

impl Crossed {
    fn check(&self, table: &str, templates: &[Turn]) -> Result<()> {
        ensure!(!templates.is_empty(), "[{table}] needs templates");
        ensure!(!self.a.is_empty() && !self.b.is_empty(), "[{table}] needs rows in a and b");
        let foils = self.foils.len();
        ensure!(
            foils == 0 || (foils >= FEWEST_FOILS && self.label == Label::Fits),
            "[{table}] foils: found {foils} with label {:?}, expected at least {FEWEST_FOILS} with label \"fits\", or none",
            format!("{:?}", self.label).to_lowercase()
        );
        for turn in templates {
            // A slot that is missing, or there for one side only, makes an unbalanced quartet: words would give y away.
            require(turn, table, &["{b}", "[[", "]]"])?;
            match self.label {
                Label::Fits => require(turn, table, &["{a}"])?,
                Label::B => require(turn, table, &["{b_}"])?,
            }
            let text = turn.text();
            ensure!(
                text.contains("{a}") || !text.contains("{a_}"),
                "[{table}] template {text:?} has {{a_}} without {{a}}: the quartet is unbalanced"
            );
        }
        Ok(())
    }
}

impl Turn {
    fn text(&self) -> String {
        [self.system.as_deref(), Some(self.user.as_str()), self.assistant.as_deref()].into_iter().flatten().collect::<Vec<_>>().join("\n")
    }
}

fn require(turn: &Turn, table: &str, parts: &[&str]) -> Result<()> {
    let text = turn.text();
    for part in parts {
        ensure!(text.contains(part), "[{table}] template {text:?} lacks {part}");
    }
    Ok(())
}

/// Concepts of the manifest's packs, by name: a later pack replaces concepts of an earlier one. The null bank stays whatever
/// `include` says, since without it no verdict can be given; `exclude` can remove it.
///
/// # Errors
/// A file that is wrong, a folder without concept files, or a pattern that matches nothing.
pub fn load(wanted: &Concepts) -> Result<Vec<Concept>> {
    let mut concepts: BTreeMap<String, Concept> = BTreeMap::new();
    for pack in &wanted.packs {
        for concept in load_pack(pack)? {
            concepts.insert(concept.name.clone(), concept);
        }
    }
    let names: Vec<&str> = concepts.keys().map(String::as_str).collect();
    let chosen: BTreeSet<String> = wanted.select(&names, |name| concepts[name].null_bank)?.into_iter().map(str::to_owned).collect();
    concepts.retain(|name, _| chosen.contains(name));
    ensure!(!concepts.is_empty(), "[concepts]: include and exclude leave no concept");
    concepts.retain(|_, concept| concept.keep(&wanted.material));
    ensure!(!concepts.is_empty(), "[concepts] material: none of the concepts has {}", named(&wanted.material));
    if let Some(most) = wanted.null_topics {
        // Topics that have foils go through everything that dates.
        let mut topics: Vec<&Concept> = concepts.values().filter(|concept| concept.null_bank).collect();
        topics.sort_by_key(|topic| topic.stem.as_ref().is_none_or(|stem| stem.foils.is_empty()));
        let left: BTreeSet<String> = topics.iter().skip(most).map(|topic| topic.name.clone()).collect();
        concepts.retain(|name, _| !left.contains(name));
    }
    Ok(concepts.into_values().collect())
}

/// Kinds of items as a manifest names them. Statements are completed stems, so that they need these too.
fn named(material: &[Material]) -> String {
    let name = |kind: &Material| Material::ALL.iter().find(|(_, other)| other == kind).map_or("", |(name, _)| *name);
    let names: Vec<&str> = material.iter().map(name).collect();
    let hint = if *material == [Material::Stated] { "; statements are completed stems, so add \"stem\"" } else { "" };
    format!("{}{hint}", names.join(", "))
}

/// All concepts of one pack, in the order of their file names.
///
/// # Errors
/// As [`load`].
pub fn load_pack(pack: &Pack) -> Result<Vec<Concept>> {
    let mut concepts = Vec::new();
    for folder in built_in_folders(pack) {
        for file in folder.files().filter(|file| is_concept_file(file.path())) {
            concepts.push(Concept::parse(file.contents_utf8().unwrap_or_default(), &format!("concepts/{}", file.path().display()))?);
        }
    }
    if let Pack::Folder(folder) = pack {
        let listed = std::fs::read_dir(folder).with_context(|| format!("{}: cannot be listed", folder.display()))?;
        let mut paths: Vec<_> = listed.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_concept_file(path)).collect();
        paths.sort();
        for path in paths {
            let text = std::fs::read_to_string(&path).with_context(|| format!("{}: cannot be read", path.display()))?;
            let mut concept = Concept::parse(&text, &path.display().to_string())?;
            concept.read_import(folder)?;
            concepts.push(concept);
        }
        ensure!(!concepts.is_empty(), "{}: the concept pack holds no .toml file", folder.display());
    }
    Ok(concepts)
}

pub(super) fn built_in_folders(pack: &Pack) -> Vec<&'static Dir<'static>> {
    match pack {
        Pack::Builtin => [Some(&CONCEPTS), CONCEPTS.get_dir("null")].into_iter().flatten().collect(),
        Pack::Organism => CONCEPTS.get_dir("organism").into_iter().collect(),
        Pack::Folder(_) => Vec::new(),
    }
}

/// A data file; `place` names it in errors, with the line.
pub(super) fn parse_toml<T: DeserializeOwned>(text: &str, place: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let line = error.span().map_or(1, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        anyhow::anyhow!("{place}:{line}: {}", error.message().replace('\n', "; "))
    })
}

/// `neutral.toml` holds the normalisation pool and `facts.toml` facts, no concepts.
fn is_concept_file(path: &Path) -> bool {
    is_toml(path) && !path.ends_with(NEUTRAL) && !path.ends_with("facts.toml")
}

pub(super) fn is_toml(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "toml")
}

#[cfg(test)]
#[path = "concept_tests.rs"]
mod tests;
