//! `[causal]`: which directions are steered along and taken out, where, how strongly, and what is asked meanwhile.

use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::concepts::{Glob, read_glob};
use super::model::{Layers, read_layers};
use super::source::resolve;
use super::spanned::{Field, Section};
use super::{CAUSAL, CAUSAL_LAYERS};

/// `[causal]`; without the table, or with `enabled = false`, nothing is intervened on and it costs nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Causal {
    /// Concepts whose directions are used; empty means all that have quartets and answers and are not of the null bank.
    pub concepts: Vec<Glob>,
    /// Layers of the interventions, among those that are kept. The default is a third, half and two thirds of the depth.
    pub layers: Layers,
    /// Lengths of what is added, over the mean length of the residual; each is used with both signs.
    pub strengths: Vec<f64>,
    /// Random directions that a concept's is compared with.
    pub directions: usize,
    /// Groups of answer stems per concept; `None` is 12, or 8 with `profile = "quick"`.
    pub groups: Option<usize>,
    /// Where object-level choices and facts come from.
    pub sets: Vec<ChoiceSet>,
    /// Residuals of conditions that may be in memory at a time, in units of 10^6 bytes. It changes no number, and no hash.
    #[serde(skip)]
    pub memory_mb: usize,
    /// Where the table begins, to begin complaints with.
    #[serde(skip)]
    pub place: String,
}

/// A collection of object-level choices and facts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ChoiceSet {
    /// Those inside the binary.
    Builtin,
    /// A TOML file.
    File(PathBuf),
}

impl Causal {
    pub(super) fn read(top: &Section, folder: &Path) -> Result<Option<Self>> {
        let Some(section) = top.table("causal", CAUSAL)? else { return Ok(None) };
        let enabled = section.get("enabled").map_or(Ok(true), |field| field.boolean())?;
        let count = |key, range| section.get(key).map(|field| field.integer(range)).transpose().map(|n| n.map(|n| n as usize));
        let causal = Self {
            concepts: match section.get("concepts") {
                Some(field) => field.distinct("a list of names, as in [\"ai_vs_human\", \"self_*\"]", read_glob)?,
                None => Vec::new(),
            },
            layers: match section.get("layers") {
                Some(field) => read_layers(&field, CAUSAL_LAYERS)?,
                None => Layers::Depth(vec![1.0 / 3.0, 0.5, 2.0 / 3.0]),
            },
            strengths: match section.get("strengths") {
                Some(field) => field.distinct("a list, as in [0.02, 0.05, 0.1]", |strength| strength.number(0.001..=1.0))?,
                None => vec![0.02, 0.05, 0.1],
            },
            directions: count("directions", 8..=999)?.unwrap_or(32),
            groups: count("groups", 2..=24)?,
            sets: match section.get("sets") {
                Some(field) => field.distinct("a list of \"builtin\" and files", |set| read_set(set, folder))?,
                None => vec![ChoiceSet::Builtin],
            },
            memory_mb: count("memory_mb", 1..=99_999_999)?.unwrap_or(2_000),
            place: section.place(),
        };
        Ok(enabled.then_some(causal))
    }

    /// Layers of the interventions, ascending, out of those that are `kept` of a model of `n_layers` blocks. Fractions of the depth mean
    /// the nearest one, the embedding and the last block aside where there are others.
    ///
    /// # Errors
    /// A layer that was asked for by number is not kept.
    pub fn layers(&self, kept: &[usize], n_layers: usize) -> Result<Vec<usize>> {
        self.layers.among(kept, n_layers, &format!("{} layers", self.place))
    }

    /// All strengths with both signs, ascending.
    pub fn signed_strengths(&self) -> Vec<f64> {
        let mut strengths: Vec<f64> = self.strengths.iter().flat_map(|&strength| [-strength, strength]).collect();
        strengths.sort_by(f64::total_cmp);
        strengths
    }
}

fn read_set(field: &Field, folder: &Path) -> Result<ChoiceSet> {
    let text = field.text("\"builtin\" or a file")?;
    if text == "builtin" {
        return Ok(ChoiceSet::Builtin);
    }
    let path = resolve(folder, text).map_err(|error| field.error(error))?;
    if !path.is_file() {
        return Err(field.wrong(format!("builtin, or a file with choices; there is no {}", path.display())));
    }
    Ok(ChoiceSet::File(path))
}

#[cfg(test)]
mod tests {
    use super::super::Manifest;

    fn loaded(table: &str) -> Manifest {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("base")).unwrap();
        std::fs::write(folder.path().join("mine.toml"), "").unwrap();
        let text = format!("{table}\n[[checkpoint]]\nid = \"base\"\nsource = \"base\"\nstage = \"base\"\n");
        std::fs::write(folder.path().join("checkpoints.toml"), text).unwrap();
        Manifest::load(&folder.path().join("checkpoints.toml")).unwrap()
    }

    #[test]
    fn nothing_is_intervened_on_unless_the_table_is_there_and_on() {
        assert!(loaded("").causal.is_none() && loaded("[causal]\nenabled = false").causal.is_none());
        let causal = loaded("[causal]\nsets = [\"builtin\", \"mine.toml\"]").causal.unwrap();
        assert_eq!(causal.signed_strengths(), [-0.1, -0.05, -0.02, 0.02, 0.05, 0.1]);
        assert_eq!((causal.directions, causal.groups, causal.sets.len()), (32, None, 2));
        // The same manifest hashes the same with and without a table that is off, and whatever the memory.
        let text = |table: &str| serde_json::to_string(&loaded(table).causal).unwrap();
        assert_eq!(text("[causal]\nmemory_mb = 7"), text("[causal]"));
        assert_ne!(text("[causal]\nstrengths = [0.3]"), text("[causal]"));
    }

    #[test]
    fn layers_are_those_that_are_kept() {
        let all: Vec<usize> = (0..=12).collect();
        let default = loaded("[causal]").causal.unwrap();
        assert_eq!(default.layers(&all, 12).unwrap(), [4, 6, 8]);
        assert_eq!(default.layers(&[0, 3, 9, 12], 12).unwrap(), [3, 9], "the nearest that are kept, not the ends");
        assert_eq!(default.layers(&[0, 1], 1).unwrap(), [0, 1], "a model of one block has ends only");
        let some = loaded("[causal]\nlayers = [8, 2]").causal.unwrap();
        assert_eq!(some.layers(&all, 12).unwrap(), [2, 8]);
        let refused = some.layers(&[0, 8], 12).unwrap_err().to_string();
        assert!(refused.ends_with("[causal] layers: found 2, expected layers that [model] layers keeps: 0, 8"), "{refused}");
    }
}
