//! One checkpoint, as an entry of the manifest names it.

use serde::Serialize;

use super::source::Source;

/// One checkpoint to walk.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CheckpointSpec {
    /// Unique, and safe as a file name.
    pub id: String,
    /// The model; with an adapter, the base that it changes.
    pub source: Source,
    /// A PEFT adapter over `source`.
    pub adapter: Option<Source>,
    /// Adapters between the two, the first one over `source`: what `adapter` was trained over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub beneath: Vec<Source>,
    pub stage: String,
    pub step: Option<u64>,
    /// Training tokens seen so far.
    pub tokens: Option<u64>,
    /// The commit that it was trained or published at, in hexadecimal; on the hub, all digits of the one that is read.
    pub commit: Option<String>,
    /// Ids with weights that add up to 1; none if it has no parent in this manifest.
    pub parents: Vec<(String, f64)>,
    pub reference: bool,
    /// Not a checkpoint of the series: random weights in the architecture of `source`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reinitialised: bool,
    /// Index in the order of the manifest.
    pub order: usize,
    /// The line of the entry that it comes from.
    pub line: usize,
}

impl CheckpointSpec {
    /// All adapters, the first one over `source`.
    pub fn adapters(&self) -> impl Iterator<Item = &Source> {
        self.beneath.iter().chain(&self.adapter)
    }

    /// What makes it a checkpoint of its own: the adapter, or else the model.
    pub fn changing(&self) -> &Source {
        self.adapter.as_ref().unwrap_or(&self.source)
    }

    /// The commit of the model under an adapter, if that is on the hub.
    pub fn base_commit(&self) -> Option<&str> {
        self.adapter.as_ref().and(self.source.commit())
    }
}
