//! What a run computes at a checkpoint beside its readouts, a sheet each: where the manifest has `[causal]`, `[stitching]`, `[introspection]`,
//! `[context]`, `[replay]` or `[conversation]`.

use super::{Job, Record, bases};
use crate::console::{bar, check_interrupt};
use crate::lease::Lease;
use crate::manifest::{CheckpointSpec, Readout};
use crate::model::Checkpoint;
use crate::model::device;
use crate::model::stream::Compute;
use crate::prompt::asker::Asker;
use crate::walk::conversation::{self, Said};
use crate::walk::interventions::{self, Request};
use crate::walk::introspection;
use crate::walk::sheets::Cost;
use crate::walk::stitching;
use crate::walk::store::Readouts;
use crate::walk::talks;
use anyhow::{Context, Result};
use std::path::Path;
use std::time::{Duration, Instant};
use tch::Kind;

impl Job {
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

    /// The same of injected thoughts; nothing without `[introspection]`.
    fn with_introspection<T>(
        &self,
        n_layers: usize,
        compute: Compute,
        then: impl FnOnce(&introspection::Request) -> Result<T>,
    ) -> Result<Option<T>> {
        let (Some(wanted), Some(injected)) = (&self.manifest.introspection, &self.injected) else { return Ok(None) };
        let request = introspection::Request {
            injected,
            layers: &wanted.layers(n_layers)?,
            strengths: &wanted.strengths,
            seed: self.manifest.run.seed,
            compute,
            budget: wanted.memory_mb.saturating_mul(1_000_000),
        };
        then(&request).map(Some)
    }

    /// The same of stitching, with the first checkpoint; nothing without `[stitching]`.
    fn with_stitching<T>(
        &self,
        n_layers: usize,
        compute: Compute,
        then: impl FnOnce(&stitching::Request, &CheckpointSpec) -> Result<T>,
    ) -> Result<Option<T>> {
        let (Some(wanted), Some(first)) = (&self.manifest.stitching, self.manifest.checkpoints.first()) else { return Ok(None) };
        let request = stitching::Request { set: &self.set, layers: &wanted.layers(n_layers)?, first: &bases::source(first), compute };
        then(&request, first).map(Some)
    }

    /// The same of conversations at a checkpoint, by the folder of their sheets.
    fn with_talks<T>(
        &self,
        folder: &str,
        id: &str,
        n_layers: usize,
        compute: Compute,
        then: impl FnOnce(&talks::Request) -> Result<T>,
    ) -> Result<Option<T>> {
        let Some((_, talks)) = self.talks.iter().find(|(own, _)| *own == folder) else { return Ok(None) };
        let wanted = if folder == talks::CONTEXT { &self.manifest.context } else { &self.manifest.replay };
        let Some(wanted) = wanted else { return Ok(None) };
        let layers = wanted.layers(&self.manifest.model.layers.resolve(n_layers)?, n_layers)?;
        let first = self.manifest.checkpoints.first().map_or("", |first| first.id.as_str());
        then(&talks::Request { talks, layers: &layers, compute, readers: [id, first] }).map(Some)
    }

    /// The same of conversations that a checkpoint carries on by itself; nothing without `[conversation]`.
    fn with_conversation<T>(
        &self,
        n_layers: usize,
        compute: Compute,
        then: impl FnOnce(&conversation::Request) -> Result<T>,
    ) -> Result<Option<T>> {
        let (Some(wanted), Some(prepared)) = (&self.manifest.conversation, &self.conversation) else { return Ok(None) };
        let layers = wanted.talk.layers(&self.manifest.model.layers.resolve(n_layers)?, n_layers)?;
        let asker = Asker::new(&wanted.talk, &self.concepts, &self.replies, &self.manifest.concepts.parameters, &self.ruler)?;
        let (ruler, seed) = (&self.ruler, self.manifest.run.seed);
        then(&conversation::Request { wanted, prepared, asker: &asker, ruler, layers: &layers, seed, compute }).map(Some)
    }

    /// Intervenes on a checkpoint whose readouts have been written, unless its sheets are there. The record of the walk is written first, so
    /// that a sweep that is interrupted does not cost the readouts.
    ///
    /// # Errors
    /// As [`Request::run`] and [`introspection::Request::run`], or the manifest asks for layers that are not there.
    pub(super) fn intervene(&self, spec: &CheckpointSpec, record: Record, label: &str, lease: &Lease) -> Result<Record> {
        let manifest = &self.manifest;
        let asks_nothing = self.causal.is_none() && self.injected.is_none() && manifest.stitching.is_none() && self.talks.is_empty();
        if asks_nothing && manifest.conversation.is_none() {
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
            let path = self.sheet_path(interventions::FOLDER, &spec.id);
            if is_sheet(&path, &request.hash(), fingerprint) {
                return Ok(());
            }
            let expected = request.cost(n_layers, self.manifest.personas.is_some());
            tracing::info!("{label}: {} interventions, {} nodes through a block", expected.conditions, expected.node_blocks);
            let readouts = Readouts::open(&self.readout_path(&spec.id))?;
            let (spent, whole) = sweep(&checkpoint, label, "intervention", expected.ticks, lease, |tick| {
                request.run(&checkpoint, fingerprint, &readouts, &path, tick)
            });
            let spent = spent.context("interventions")?;
            let [whole, scoring] = [whole, spent.scoring].map(|time| time.as_secs_f64());
            tracing::info!("{label}: interventions took {whole:.1} s in {} passes, {scoring:.1} s of it to score answers", spent.passes);
            Ok(())
        })?;
        self.with_stitching(n_layers, compute, |request, first| {
            let (path, stat_key) = (self.sheet_path(stitching::FOLDER, &spec.id), bases::stat_key(first)?);
            if is_sheet(&path, &request.hash(), fingerprint) && is_first(&path, &stat_key) {
                return Ok(());
            }
            let opened = if spec.id == first.id { None } else { Some(self.open(first).context("the first checkpoint")?) };
            let expected = request.cost(n_layers);
            let (done, whole) = sweep(&checkpoint, label, "stitching", expected.ticks, lease, |tick| {
                request.run(&checkpoint, opened.as_ref(), [fingerprint, &stat_key], &path, tick)
            });
            done.context("stitching")?;
            tracing::info!("{label}: stitching took {:.1} s", whole.as_secs_f64());
            Ok(())
        })?;
        self.with_introspection(n_layers, compute, |request| {
            let path = self.sheet_path(introspection::FOLDER, &spec.id);
            if is_sheet(&path, &request.hash(), fingerprint) {
                return Ok(());
            }
            let expected = request.cost(n_layers)?;
            tracing::info!("{label}: {} injections, {} nodes through a block", expected.conditions, expected.node_blocks);
            let (done, whole) =
                sweep(&checkpoint, label, "injection", expected.ticks, lease, |tick| request.run(&checkpoint, fingerprint, &path, tick));
            done.context("introspection")?;
            tracing::info!("{label}: injections took {:.1} s", whole.as_secs_f64());
            Ok(())
        })?;
        for (folder, _) in &self.talks {
            self.with_talks(folder, &spec.id, n_layers, compute, |request| {
                let path = self.sheet_path(folder, &spec.id);
                if is_sheet(&path, &request.hash(), fingerprint) {
                    return Ok(());
                }
                let expected = request.cost(n_layers, checkpoint.config.d_model as usize);
                tracing::info!("{label}: [{folder}], {} nodes", expected.nodes);
                let (done, whole) =
                    sweep(&checkpoint, label, folder, expected.ticks, lease, |tick| request.run(&checkpoint, fingerprint, &path, tick));
                let too_long = done.with_context(|| format!("[{folder}]"))?;
                if too_long > 0 {
                    let positions = checkpoint.config.positions().unwrap_or_default();
                    tracing::warn!(
                        "{label}: [{folder}]: {too_long} moments are longer than the model's {positions} positions and have no numbers"
                    );
                }
                tracing::info!("{label}: [{folder}] took {:.1} s", whole.as_secs_f64());
                Ok(())
            })?;
        }
        self.with_conversation(n_layers, compute, |request| {
            let path = self.sheet_path(conversation::FOLDER, &spec.id);
            if let Some(said) = said(&path, &request.hash(), fingerprint) {
                return request.write_lines(&said.dialogues, &path);
            }
            let expected = request.cost(n_layers, checkpoint.config.d_model as usize);
            tracing::info!("{label}: [conversation], {} tokens at most", expected.generated);
            let (done, whole) = sweep(&checkpoint, label, conversation::FOLDER, expected.ticks, lease, |tick| {
                request.run(&checkpoint, fingerprint, &path, tick)
            });
            done.context("[conversation]")?.say(label, &path);
            tracing::info!("{label}: [conversation] took {:.1} s", whole.as_secs_f64());
            Ok(())
        })?;
        Ok(record)
    }

    /// Whether nothing is left to intervene on.
    pub(super) fn is_intervened(&self, id: &str, n_layers: usize, compute: Compute, fingerprint: Option<&str>) -> bool {
        let fingerprint = fingerprint.unwrap_or_default();
        let causal = self.with_causal(n_layers, compute, |request| {
            Ok(is_sheet(&self.sheet_path(interventions::FOLDER, id), &request.hash(), fingerprint))
        });
        let injected = self.with_introspection(n_layers, compute, |request| {
            Ok(is_sheet(&self.sheet_path(introspection::FOLDER, id), &request.hash(), fingerprint))
        });
        let stitched = self.with_stitching(n_layers, compute, |request, first| {
            let path = self.sheet_path(stitching::FOLDER, id);
            // Weights that are gone have not changed.
            let same_first = bases::stat_key(first).map_or(true, |key| is_first(&path, &key));
            Ok(is_sheet(&path, &request.hash(), fingerprint) && same_first)
        });
        let talks = self.talks.iter().map(|(folder, _)| {
            self.with_talks(folder, id, n_layers, compute, |request| {
                Ok(is_sheet(&self.sheet_path(folder, id), &request.hash(), fingerprint))
            })
        });
        let talked = self.with_conversation(n_layers, compute, |request| {
            let path = self.sheet_path(conversation::FOLDER, id);
            Ok(said(&path, &request.hash(), fingerprint).is_some() && conversation::lines_path(&path).is_file())
        });
        [causal, stitched, injected, talked].into_iter().chain(talks).all(|there| there.is_ok_and(|there| there.unwrap_or(true)))
    }

    /// What each sheet of a checkpoint takes, with what it is called; none without the tables that ask for them.
    ///
    /// # Errors
    /// The manifest asks for layers that are not there.
    pub fn sheet_costs(&self, n_layers: usize, d_model: usize) -> Result<Vec<(&'static str, Cost)>> {
        let compute = Compute { device: self.device, kind: Kind::Float };
        let personas = self.manifest.personas.is_some();
        let causal = self.with_causal(n_layers, compute, |request| Ok(request.cost(n_layers, personas)))?;
        let stitching = self.with_stitching(n_layers, compute, |request, _| Ok(request.cost(n_layers)))?;
        let introspection = self.with_introspection(n_layers, compute, |request| request.cost(n_layers))?;
        let last = self.manifest.checkpoints.last().map_or("", |last| last.id.as_str());
        let [context, replay] = [talks::CONTEXT, talks::REPLAY]
            .map(|folder| self.with_talks(folder, last, n_layers, compute, |request| Ok(request.cost(n_layers, d_model))));
        let conversation = self.with_conversation(n_layers, compute, |request| Ok(request.cost(n_layers, d_model)))?;
        let all = [
            ("Interventions", causal),
            ("Stitching", stitching),
            ("Introspection", introspection),
            ("Context", context?),
            ("Replay", replay?),
            ("Conversation", conversation),
        ];
        Ok(all.into_iter().filter_map(|(what, cost)| Some((what, cost?))).collect())
    }
}

fn is_sheet(path: &Path, request: &str, fingerprint: &str) -> bool {
    Readouts::open(path).is_ok_and(|sheet| sheet.metadata("request") == Some(request) && sheet.metadata("fingerprint") == Some(fingerprint))
}

/// What was said by the sheet at `path`; `None` where it is none or another one.
fn said(path: &Path, request: &str, fingerprint: &str) -> Option<Said> {
    if is_sheet(path, request, fingerprint) { Said::read(&Readouts::open(path).ok()?).ok() } else { None }
}

/// Whether a sheet was stitched with the first checkpoint as its files are.
fn is_first(path: &Path, stat_key: &str) -> bool {
    Readouts::open(path).is_ok_and(|sheet| sheet.metadata("first") == Some(stat_key))
}

/// Runs a sweep with its bar, and says how long it took.
fn sweep<T>(
    checkpoint: &Checkpoint,
    label: &str,
    what: &'static str,
    ticks: usize,
    lease: &Lease,
    run: impl FnOnce(&mut dyn FnMut() -> Result<()>) -> Result<T>,
) -> (Result<T>, Duration) {
    let bar = bar(ticks, label);
    let start = Instant::now();
    let mut done = 0;
    let mut tick = || {
        bar.inc(1);
        done += 1;
        lease.tell(what, done, ticks);
        Ok(check_interrupt()?)
    };
    let found = device::with_threads(checkpoint.config.d_model, || run(&mut tick));
    bar.finish_and_clear();
    (found, start.elapsed())
}
