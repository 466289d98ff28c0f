//! Interventions of a run: a sheet beside the readouts of every checkpoint, where the manifest has `[causal]`.

use super::{Job, Record};
use crate::console::{bar, check_interrupt};
use crate::lease::Lease;
use crate::manifest::{CheckpointSpec, Readout};
use crate::model::device;
use crate::model::stream::Compute;
use crate::walk::interventions::{Cost, Request};
use crate::walk::store::Readouts;
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::time::Instant;
use tch::Kind;

impl Job {
    /// The store's file of a checkpoint's answers under interventions.
    pub fn causal_path(&self, id: &str) -> PathBuf {
        self.folder.join("causal").join(format!("{id}.safetensors"))
    }

    /// Hands over what is asked of a model of `n_layers` blocks; nothing without `[causal]`.
    fn with_causal<T>(&self, n_layers: usize, compute: Compute, then: impl FnOnce(&Request) -> Result<T>) -> Result<Option<T>> {
        let (Some(causal), Some(asked)) = (&self.manifest.causal, &self.causal) else { return Ok(None) };
        let kept = self.manifest.model.layers.resolve(n_layers)?;
        let layers = causal.layers(&kept, n_layers)?;
        let readouts = &self.manifest.model.readouts;
        let readout = readouts.iter().find(|readout| **readout == Readout::LastPrompt).or(readouts.first());
        let request = Request {
            set: &self.set,
            asked,
            kept: &kept,
            layers: &layers,
            strengths: &causal.signed_strengths(),
            directions: causal.directions,
            readout: readout.map_or("", |readout| readout.name()),
            seed: self.manifest.run.seed,
            compute,
            budget: causal.memory_mb.saturating_mul(1_000_000),
        };
        then(&request).map(Some)
    }

    /// Intervenes on a checkpoint whose readouts have been written, unless its sheet is there. The record of the walk is written first, so
    /// that a sweep that is interrupted does not cost the readouts.
    ///
    /// # Errors
    /// As [`Request::run`], or the manifest asks for layers that are not there.
    pub(super) fn intervene(&self, spec: &CheckpointSpec, record: Record, label: &str, lease: &Lease) -> Result<Record> {
        if self.causal.is_none() {
            return Ok(record);
        }
        self.write_record(spec, &record)?;
        let checkpoint = self.open(spec)?;
        if checkpoint.unembedding.is_none() {
            tracing::warn!("{label}: no interventions, as there are no answers without a head");
            return Ok(record);
        }
        let compute = device::compute(self.device, self.manifest.model.dtype, checkpoint.weights.kind());
        let fingerprint = record.fingerprint.as_deref().unwrap_or_default();
        let n_layers = checkpoint.config.n_layers;
        self.with_causal(n_layers, compute, |request| {
            if self.has_sheet(&spec.id, &request.hash(), fingerprint) {
                return Ok(());
            }
            let expected = request.cost(n_layers, self.manifest.personas.is_some());
            tracing::info!("{label}: {} interventions, {} nodes through a block", expected.conditions, expected.node_blocks);
            let readouts = Readouts::open(&self.readout_path(&spec.id))?;
            let bar = bar(expected.ticks, label);
            let start = Instant::now();
            let mut done = 0;
            let mut tick = || {
                bar.inc(1);
                done += 1;
                lease.tell("intervention", done, expected.ticks);
                Ok(check_interrupt()?)
            };
            let sweep = || request.run(&checkpoint, fingerprint, &readouts, &self.causal_path(&spec.id), &mut tick);
            let spent = device::with_threads(checkpoint.config.d_model, sweep);
            bar.finish_and_clear();
            let spent = spent.context("interventions")?;
            let [whole, scoring] = [start.elapsed(), spent.scoring].map(|time| time.as_secs_f64());
            tracing::info!("{label}: interventions took {whole:.1} s in {} passes, {scoring:.1} s of it to score answers", spent.passes);
            Ok(())
        })?;
        Ok(record)
    }

    fn has_sheet(&self, id: &str, request: &str, fingerprint: &str) -> bool {
        Readouts::open(&self.causal_path(id))
            .is_ok_and(|sheet| sheet.metadata("request") == Some(request) && sheet.metadata("fingerprint") == Some(fingerprint))
    }

    /// Whether nothing is left to intervene on.
    pub(super) fn is_intervened(&self, id: &str, n_layers: usize, compute: Compute, fingerprint: Option<&str>) -> bool {
        let there = self.with_causal(n_layers, compute, |request| Ok(self.has_sheet(id, &request.hash(), fingerprint.unwrap_or_default())));
        there.is_ok_and(|there| there.unwrap_or(true))
    }

    /// What interventions on one checkpoint take; `None` without `[causal]`.
    ///
    /// # Errors
    /// The manifest asks for layers that are not there.
    pub fn causal_cost(&self, n_layers: usize) -> Result<Option<Cost>> {
        let compute = Compute { device: self.device, kind: Kind::Float };
        self.with_causal(n_layers, compute, |request| Ok(request.cost(n_layers, self.manifest.personas.is_some())))
    }
}
