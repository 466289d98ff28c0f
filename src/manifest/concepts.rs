//! `[concepts]`: which concept packs are read, which of their concepts are used, and the names that
//! their items are filled in with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use super::source::resolve;
use super::spanned::{Choice, Field, Section};
use super::{CONCEPTS, PARAMETERS};

/// What every pack may use as `{name}`, `{maker}` and so on, when the manifest does not say.
const DEFAULT_PARAMETERS: [(&str, &str); 5] = [
    ("name", "Nova"),
    ("maker", "the Meridian Institute"),
    ("decoy_name", "Lumo"),
    ("decoy_maker", "the Halden Group"),
    ("persona", "a helpful assistant"),
];

/// Topics of the null bank in the quick profile.
const NULL_TOPICS: usize = 6;

/// `[concepts]`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Concepts {
    pub packs: Vec<Pack>,
    /// Concepts to use; empty means all.
    pub include: Vec<Glob>,
    /// Concepts to leave out of those.
    pub exclude: Vec<Glob>,
    pub profile: Profile,
    /// Kinds of items to make; everything that is left out costs nothing.
    pub material: Vec<Material>,
    /// How many topics of the null bank are asked; all where it is `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub null_topics: Option<usize>,
    /// Never without the five default keys.
    pub parameters: BTreeMap<String, String>,
}

/// A collection of concepts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pack {
    /// The concepts inside the binary.
    Builtin,
    /// The concepts of the demo's tiny model, inside the binary too.
    Organism,
    /// A folder with one TOML file per concept.
    Folder(PathBuf),
}

/// How much is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Profile {
    /// Many groups per concept, every kind of items, the whole null bank.
    Full,
    /// What dates are made of: fewer groups and null topics, without quartets about third parties and other speakers.
    Quick,
}

impl Profile {
    /// Whether a kind of items is made where the manifest does not say.
    fn has(self, kind: Material) -> bool {
        self == Profile::Full || !matches!(kind, Material::Control | Material::Frame)
    }

    /// How many topics of the null bank are asked where the manifest does not say; `None` is all.
    fn null_topics(self) -> Option<usize> {
        (self == Profile::Quick).then_some(NULL_TOPICS)
    }
}

impl Choice for Profile {
    const ALL: &'static [(&'static str, Self)] = &[("full", Profile::Full), ("quick", Profile::Quick)];
}

/// A kind of items, as a concept file calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Material {
    /// Quartets that words cannot tell apart, for contrast and probes.
    Crossed,
    /// The same about third parties.
    Control,
    /// The same span after another speaker.
    Frame,
    /// Attributes assigned in context, for placement.
    Binding,
    /// Beginnings of answers, for learned change and behaviour.
    Stem,
    /// Completed answers and known facts, for recognition.
    Stated,
    /// Choices and predictions of them, for self-prediction.
    Prediction,
    /// Records of a data set that is imported.
    Content,
}

impl Choice for Material {
    const ALL: &'static [(&'static str, Self)] = &[
        ("crossed", Material::Crossed),
        ("control", Material::Control),
        ("frame", Material::Frame),
        ("binding", Material::Binding),
        ("stem", Material::Stem),
        ("stated", Material::Stated),
        ("prediction", Material::Prediction),
        ("content", Material::Content),
    ];
}

/// A pattern for names: `*` is any run of characters, `?` is one. Serialised as it is written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Glob {
    pub pattern: String,
    /// Where it was written, to begin complaints with.
    place: String,
}

impl Glob {
    /// Whether the whole name fits.
    pub fn matches(&self, name: &str) -> bool {
        fn matches(pattern: &[u8], name: &[u8]) -> bool {
            match pattern {
                [] => name.is_empty(),
                [b'*', rest @ ..] => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
                [b'?', rest @ ..] => !name.is_empty() && matches(rest, &name[1..]),
                [byte, rest @ ..] => name.first() == Some(byte) && matches(rest, &name[1..]),
            }
        }
        matches(self.pattern.as_bytes(), name.as_bytes())
    }
}

impl Glob {
    /// # Errors
    /// The pattern fits none of `names`.
    pub fn require(&self, names: &[&str]) -> Result<()> {
        if names.iter().any(|name| self.matches(name)) {
            return Ok(());
        }
        bail!("{}: found {:?}, expected a pattern for any of {}", self.place, self.pattern, names.join(", "))
    }
}

impl From<Glob> for String {
    fn from(glob: Glob) -> String {
        glob.pattern
    }
}

impl Concepts {
    pub(super) fn read(top: &Section, folder: &Path) -> Result<Concepts> {
        let section = top.table("concepts", CONCEPTS)?;
        let get = |key| section.as_ref().and_then(|section| section.get(key));
        let globs = |key| match get(key) {
            Some(field) => field.distinct("a list of names, as in [\"ai_vs_human\", \"self_*\"]", read_glob),
            None => Ok(Vec::new()),
        };
        let profile = get("profile").map_or(Ok(Profile::Quick), |field| field.choice())?;
        Ok(Concepts {
            packs: match get("packs") {
                Some(field) => field.distinct(PACKS, |pack| read_pack(pack, folder))?,
                None => vec![Pack::Builtin],
            },
            include: globs("include")?,
            exclude: globs("exclude")?,
            profile,
            material: match get("material") {
                Some(field) => field.distinct("a list of kinds of items, as in [\"stem\"]", |kind| kind.choice())?,
                None => Material::ALL.iter().map(|(_, kind)| *kind).filter(|kind| profile.has(*kind)).collect(),
            },
            null_topics: match get("null_topics") {
                Some(field) => Some(field.integer(0..=999)? as usize),
                None => profile.null_topics(),
            },
            parameters: read_parameters(get("parameters"))?,
        })
    }

    /// The same in the full profile, with every kind of items and the whole null bank.
    pub fn in_full(self) -> Self {
        let material = Material::ALL.iter().map(|(_, kind)| *kind).collect();
        Self { profile: Profile::Full, material, null_topics: None, ..self }
    }

    /// The names that are included and not excluded; `keep` says which are included whatever `include` says. A pattern that
    /// matches none is an error.
    pub fn select<'n>(&self, names: &[&'n str], keep: impl Fn(&str) -> bool) -> Result<Vec<&'n str>> {
        for glob in self.include.iter().chain(&self.exclude) {
            glob.require(names)?;
        }
        let is_in = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        let is_wanted = |name: &str| self.include.is_empty() || keep(name) || is_in(&self.include, name);
        let names = names.iter().copied();
        Ok(names.filter(|name| is_wanted(name) && !is_in(&self.exclude, name)).collect())
    }
}

const PACKS: &str = "a list of \"builtin\" and folders";

fn read_pack(field: &Field, folder: &Path) -> Result<Pack> {
    let text = field.text(PACKS)?;
    match text {
        "builtin" => return Ok(Pack::Builtin),
        "organism" => return Ok(Pack::Organism),
        _ => {}
    }
    let pack = resolve(folder, text).map_err(|error| field.error(error))?;
    if !pack.is_dir() {
        return Err(field.wrong(format!("builtin or a folder with concepts; there is no {}", pack.display())));
    }
    Ok(Pack::Folder(pack))
}

pub(super) fn read_glob(field: &Field) -> Result<Glob> {
    Ok(Glob { pattern: field.text("a name or a pattern with * or ?")?.into(), place: field.place() })
}

/// The parameters of a manifest that says nothing.
pub fn default_parameters() -> BTreeMap<String, String> {
    DEFAULT_PARAMETERS.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn read_parameters(field: Option<Field>) -> Result<BTreeMap<String, String>> {
    let mut parameters = default_parameters();
    let Some(field) = field else { return Ok(parameters) };
    let section = field.section(PARAMETERS)?;
    for field in section.fields() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if field.key.is_empty() || !field.key.chars().all(is_word) {
            return Err(field.error("expected a key of letters, digits and '_', to be used as {key}"));
        }
        let value = field.text("a string that is not empty")?;
        if value.contains(['{', '}']) {
            return Err(field.wrong("a text without braces; a parameter cannot name another"));
        }
        parameters.insert(field.key.into(), value.into());
    }
    for (key, decoy) in [("name", "decoy_name"), ("maker", "decoy_maker")] {
        if parameters[key] == parameters[decoy] {
            let problem = format!("found {:?} as {key} and as {decoy}, expected two names", parameters[key]);
            return Err(section.error(problem));
        }
    }
    Ok(parameters)
}
