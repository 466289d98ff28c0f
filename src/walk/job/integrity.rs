//! The integrity audit of a run: what is known of every checkpoint's files, kept beside its readouts, and what that says.

use super::Job;
use crate::guard::sentence;
use crate::manifest::CheckpointSpec;
use crate::model::Checkpoint;
use crate::table::{self, Key, write_atomically};
use crate::walk::audit::{self, Facts, Finding, Subject};
use anyhow::{Error, Result};
use std::path::{Path, PathBuf};

impl Job {
    fn facts_path(&self, id: &str) -> PathBuf {
        self.folder.join("readouts").join(format!("{id}.facts.json"))
    }

    /// Keeps what a walk learned about a checkpoint's files.
    pub(super) fn write_facts(&self, spec: &CheckpointSpec, checkpoint: &Checkpoint) -> Result<()> {
        let text = serde_json::to_vec(&Facts::new(checkpoint, &self.folders(spec)?, true)?)?;
        write_atomically(&self.facts_path(&spec.id), &text)
    }

    /// Folders that a tokenizer may be in, the adapter's first.
    fn folders<'a>(&self, spec: &'a CheckpointSpec) -> Result<Vec<&'a Path>> {
        let adapters = spec.adapter.iter().chain(spec.beneath.iter().rev());
        adapters.chain([&spec.source]).map(|source| source.folder()).collect()
    }

    /// Facts of an entry: those of its walk, or else what its headers and small files say; with `weights`, everything, or why they
    /// cannot be read.
    fn facts(&self, spec: &CheckpointSpec, weights: bool) -> Result<(Facts, Option<Error>)> {
        let known = std::fs::read(self.facts_path(&spec.id)).ok().and_then(|text| serde_json::from_slice::<Facts>(&text).ok());
        if let Some(facts) = known.filter(|_| self.is_complete(spec)) {
            return Ok((facts, None));
        }
        let checkpoint = self.open(spec)?;
        let unread = if weights { checkpoint.weights.read_all().err() } else { None };
        Ok((Facts::new(&checkpoint, &self.folders(spec)?, weights && unread.is_none())?, unread))
    }

    /// Audits the checkpoints of the manifest. `weights` reads and hashes those that were not walked yet.
    pub fn audit(&self, weights: bool) -> Vec<(Key, Finding)> {
        let specs = &self.manifest.checkpoints;
        let subjects: Vec<Subject> = specs
            .iter()
            .map(|spec| {
                let failed = self.record(&spec.id).and_then(|record| record.error);
                let (facts, error) = match self.facts(spec, weights) {
                    Ok((facts, unread)) => (facts, failed.or_else(|| unread.map(|error| sentence(&error)))),
                    Err(error) => (Facts::default(), failed.or_else(|| Some(sentence(&error)))),
                };
                Subject { id: spec.id.clone(), step: spec.step, facts, error }
            })
            .collect();
        let findings = audit::audit(&subjects, self.manifest.run.audit);
        findings.into_iter().map(|(index, finding)| (self.key(&specs[index]), finding)).collect()
    }

    /// Writes `integrity.parquet`.
    pub(super) fn write_integrity(&self, findings: &[(Key, Finding)]) -> Result<()> {
        table::write_keyed(&self.folder.join("integrity.parquet"), findings, &self.hash())
    }
}
