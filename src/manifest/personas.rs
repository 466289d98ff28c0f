//! `[personas]` and `[evidence]`: the contexts in which concepts are asked again, and from where on a number counts as evidence.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};

use super::concepts::{Glob, read_glob};
use super::source::resolve;
use super::spanned::{Field, Section};
use super::{EVIDENCE, PERSONAS};

/// `[personas]`; without the table there are no personas and they cost nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Personas {
    pub sets: Vec<PersonaSet>,
    /// Contexts to use, by id; empty means all. Default contexts stay whatever this says.
    pub include: Vec<Glob>,
    /// Contexts to leave out of those.
    pub exclude: Vec<Glob>,
    /// Concepts whose quartets are asked in every context; empty means all that are not of the null bank, and three that are.
    pub concepts: Vec<Glob>,
    /// Quartets per concept and context; `None` is 12, or 8 with `profile = "quick"`.
    pub groups: Option<usize>,
    /// Whether quartets are asked in other formats too.
    pub formats: bool,
    /// Where the table begins, to begin complaints with.
    #[serde(skip)]
    pub place: String,
}

/// A collection of contexts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PersonaSet {
    /// The contexts inside the binary.
    Builtin,
    /// A TOML file, or a folder of them.
    Path(PathBuf),
}

/// `[evidence]`: thresholds of the verdicts.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Persistence from which on a concept persists over personas.
    pub persistence: f64,
    /// Persistence up to which it does not.
    pub persistence_absent: f64,
    /// Consistency over formats.
    pub consistency: f64,
    /// Share of variance between items below which personas matter more than items.
    pub icc: f64,
    /// Residual up to which nothing is left outside the assistant's space; above one minus this nothing was in it.
    pub equivalence: f64,
    /// Held-out personas without which there is no verdict.
    pub personas: usize,
    /// How many times the effect of a direction is that of random ones, from which on it matters.
    pub effect_z: f64,
    /// The same, below which it is no effect.
    pub effect_equivalence: f64,
    /// Share of an effect that the assistant axis gives, from which on it is the axis' effect.
    pub axis_share: f64,
    /// Divergence on neutral text, in nats, up to which a condition counts.
    pub guard_kl: f64,
    /// Loss of margin on factual questions, in nats, up to which it does.
    pub guard_facts: f64,
    /// Probability that two wordings get the same answer, from which on they agree.
    pub agreement: f64,
    /// How many times the variance between runs on concepts that specifications leave open is that on those they name, from which on it
    /// is much larger.
    pub variance_ratio: f64,
}

impl Default for Evidence {
    fn default() -> Self {
        Self {
            persistence: 0.7,
            persistence_absent: 0.3,
            consistency: 0.5,
            icc: 0.4,
            equivalence: 0.2,
            personas: 16,
            effect_z: 3.0,
            effect_equivalence: 2.0,
            axis_share: 0.8,
            guard_kl: 0.05,
            guard_facts: 0.5,
            agreement: 0.8,
            variance_ratio: 2.0,
        }
    }
}

impl Personas {
    pub(super) fn read(top: &Section, folder: &Path) -> Result<Option<Self>> {
        let Some(section) = top.table("personas", PERSONAS)? else { return Ok(None) };
        let globs = |key| match section.get(key) {
            Some(field) => field.distinct("a list of names, as in [\"clerk\", \"self_*\"]", read_glob),
            None => Ok(Vec::new()),
        };
        let groups = section.get("groups").map(|field| field.integer(4..=96)).transpose()?;
        Ok(Some(Self {
            sets: match section.get("sets") {
                Some(field) => field.distinct("a list of \"builtin\", files and folders", |set| read_set(set, folder))?,
                None => vec![PersonaSet::Builtin],
            },
            include: globs("include")?,
            exclude: globs("exclude")?,
            concepts: globs("concepts")?,
            groups: groups.map(|groups| groups as usize),
            formats: section.get("formats").map_or(Ok(true), |field| field.boolean())?,
            place: section.place(),
        }))
    }
}

fn read_set(field: &Field, folder: &Path) -> Result<PersonaSet> {
    let text = field.text("\"builtin\", a file or a folder")?;
    if text == "builtin" {
        return Ok(PersonaSet::Builtin);
    }
    let path = resolve(folder, text).map_err(|error| field.error(error))?;
    if !path.exists() {
        return Err(field.wrong(format!("builtin, or a file or folder with personas; there is no {}", path.display())));
    }
    Ok(PersonaSet::Path(path))
}

impl Evidence {
    pub(super) fn read(top: &Section) -> Result<Self> {
        let default = Self::default();
        let Some(section) = top.table("evidence", EVIDENCE)? else { return Ok(default) };
        let share = |key, default| section.get(key).map_or(Ok(default), |field| field.number(0.0..=1.0));
        let amount = |key, default| section.get(key).map_or(Ok(default), |field| field.number(0.0..=100.0));
        Ok(Self {
            persistence: share("persistence", default.persistence)?,
            persistence_absent: share("persistence_absent", default.persistence_absent)?,
            consistency: share("consistency", default.consistency)?,
            icc: share("icc", default.icc)?,
            equivalence: share("equivalence", default.equivalence)?,
            personas: section.get("personas").map_or(Ok(default.personas), |field| field.integer(2..=999).map(|n| n as usize))?,
            effect_z: amount("effect_z", default.effect_z)?,
            effect_equivalence: amount("effect_equivalence", default.effect_equivalence)?,
            axis_share: share("axis_share", default.axis_share)?,
            guard_kl: amount("guard_kl", default.guard_kl)?,
            guard_facts: amount("guard_facts", default.guard_facts)?,
            agreement: share("agreement", default.agreement)?,
            variance_ratio: amount("variance_ratio", default.variance_ratio)?,
        })
    }
}
