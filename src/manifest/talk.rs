//! `[context]` and `[replay]`: conversations that are put in front of what a model is asked about itself.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use super::concepts::{Glob, read_glob};
use super::model::{Layers, read_layers};
use super::source::resolve;
use super::spanned::{Field, Section};
use super::{CONTEXT, CONTEXT_LAYERS, REPLAY, REPLAY_LAYERS};

/// What is read behind conversations; without the table, or with `enabled = false`, none is read and it costs nothing.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Talk {
    pub sets: Vec<TalkSet>,
    /// Arms to read, in this order; empty means all. The first one that is there is the one of which susceptibility is dated.
    pub arms: Vec<Glob>,
    /// After how many exchanges it is asked, ascending.
    pub turns: Vec<usize>,
    /// Concepts that are asked about; empty means all that have foils and are not of the null bank, and three that are.
    pub concepts: Vec<Glob>,
    /// Wordings of each concept behind a conversation.
    pub groups: usize,
    /// Fixed replies that are read behind a conversation, where the manifest has `[personas]`.
    pub replies: usize,
    /// Layers of the lens and of the axis, out of those that are kept. The default is the one that is nearest to two thirds of the depth.
    pub layers: Layers,
    /// Where the table begins, to begin complaints with.
    #[serde(skip)]
    pub place: String,
}

/// A collection of conversations.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TalkSet {
    /// Those inside the binary.
    Builtin,
    /// A file (TOML, JSON lines of messages, or a JSON log of Inspect), or a folder of them.
    Path(PathBuf),
}

impl Talk {
    /// `[context]`.
    pub(super) fn read_context(top: &Section, folder: &Path) -> Result<Option<Self>> {
        let Some(section) = top.table("context", CONTEXT)? else { return Ok(None) };
        Self::read(&section, folder, CONTEXT_LAYERS, (1..=999, &[8]))
    }

    /// `[replay]`.
    pub(super) fn read_replay(top: &Section, folder: &Path) -> Result<Option<Self>> {
        let Some(section) = top.table("replay", REPLAY)? else { return Ok(None) };
        Self::read(&section, folder, REPLAY_LAYERS, (0..=999, &[0, 2, 8]))
    }

    /// What is read, in any of the tables; `range` and `turns` are the numbers of exchanges that there can be, and the default ones.
    pub(super) fn read(
        section: &Section,
        folder: &Path,
        of_layers: &'static str,
        (range, turns): (RangeInclusive<u64>, &[usize]),
    ) -> Result<Option<Self>> {
        let enabled = section.get("enabled").map_or(Ok(true), |field| field.boolean())?;
        let globs = |key| match section.get(key) {
            Some(field) => field.distinct("a list of names, as in [\"task\", \"summary_*\"]", read_glob),
            None => Ok(Vec::new()),
        };
        let count = |key, range, default| match section.get(key) {
            Some(field) => field.integer(range).map(|n| n as usize),
            None => Ok(default),
        };
        let mut turns = match section.get("turns") {
            Some(field) => {
                field.distinct("a list of numbers of exchanges, as in [2, 8]", |turns| Ok(turns.integer(range.clone())? as usize))?
            }
            None => turns.to_vec(),
        };
        turns.sort_unstable();
        let talk = Self {
            sets: match section.get("sets") {
                Some(field) => field.distinct("a list of \"builtin\", files and folders", |set| read_set(set, folder))?,
                None => vec![TalkSet::Builtin],
            },
            arms: globs("arms")?,
            turns,
            concepts: globs("concepts")?,
            groups: count("groups", 1..=96, 1)?,
            replies: count("replies", 0..=96, 4)?,
            layers: match section.get("layers") {
                Some(field) => read_layers(&field, of_layers)?,
                None => Layers::Depth(vec![2.0 / 3.0]),
            },
            place: section.place(),
        };
        Ok(enabled.then_some(talk))
    }

    /// Layers out of those that are `kept` of a model of `n_layers` blocks, ascending.
    ///
    /// # Errors
    /// A layer that was asked for by number is not kept.
    pub fn layers(&self, kept: &[usize], n_layers: usize) -> Result<Vec<usize>> {
        self.layers.among(kept, n_layers, &format!("{} layers", self.place))
    }
}

fn read_set(field: &Field, folder: &Path) -> Result<TalkSet> {
    let text = field.text("\"builtin\", a file or a folder")?;
    if text == "builtin" {
        return Ok(TalkSet::Builtin);
    }
    let path = resolve(folder, text).map_err(|error| field.error(error))?;
    if !path.exists() {
        return Err(field.wrong(format!("builtin, or a file or folder of conversations; there is no {}", path.display())));
    }
    Ok(TalkSet::Path(path))
}
