//! The main loop: walk every checkpoint that is not complete, write after each, go on after a failure.

use crate::checkpoint::hub::{self, Hub};
use crate::checkpoint::weights;
use crate::console::{Interrupted, bar, check_interrupt};
use crate::lease::{self, Lease, Taken};
use crate::manifest::{CheckpointSpec, Manifest};
use crate::model::Checkpoint;
use crate::model::config::DecoderConfig;
use crate::model::cost::{self, Cost};
use crate::model::device;
use crate::model::stream::Compute;
use crate::prompt::choices::Asked;
use crate::prompt::concept::Concept;
use crate::prompt::item::ItemSet;
use crate::prompt::tokenize::Ruler;
use crate::table;
use crate::walk::readout::{Common, Request};
use crate::walk::store::Readouts;
use anyhow::Result;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;
use tch::{Device, Kind};

mod baseline;
mod bases;
mod prompts;
mod room;
mod ruler;
mod integrity;
mod record;
mod interventions;

use prompts::Prompts;
pub use record::Record;

/// A manifest with everything resolved that does not need a model's weights: what is asked, of whom, and where it goes.
pub struct Job {
    pub manifest: Manifest,
    /// `reports/<run>`.
    pub folder: PathBuf,
    pub concepts: Vec<Concept>,
    pub set: ItemSet,
    /// What is asked under interventions; `None` without `[causal]`.
    pub causal: Option<Asked>,
    pub ruler: Ruler,
    pub device: Device,
    pub hub: Hub,
    /// The network with random weights; `None` with `[run] baseline = false`.
    pub baseline: Option<CheckpointSpec>,
    /// The base that was opened last, and what its files were.
    base: Mutex<Option<(String, Checkpoint)>>,
}

/// How a walk ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub walked: usize,
    pub skipped: usize,
    pub failed: usize,
    /// Another process is at work on them.
    pub busy: usize,
}

impl Job {
    /// Resolves sources, concepts, tokenizer, template and device, and tokenises every item.
    ///
    /// # Errors
    /// Anything that would stop every checkpoint: see [`Hub::resolve`], [`hub::check_unmoved`], [`ItemSet::new`], [`concept::load`],
    /// [`Ruler::load`].
    pub fn new(mut manifest: Manifest) -> Result<Self> {
        let hub = Hub::from_env();
        hub.resolve(&mut manifest)?;
        hub::check_unmoved(&manifest, &manifest.run.folder().join("run.json"))?;
        if !manifest.keep {
            hub.delete_after_use(manifest.run.folder().join("downloads.txt"));
        }
        let ruler = ruler::resolve(&manifest, &hub)?;
        let Prompts { concepts, set, causal } = Prompts::of(&mut manifest, &ruler)?;
        let device = device::resolve(manifest.model.device)?;
        let baseline = baseline::entry(&manifest, set.max_token())?;
        Ok(Self { folder: manifest.run.folder(), manifest, concepts, set, causal, ruler, device, hub, baseline, base: Mutex::default() })
    }

    /// The store's file of a checkpoint.
    pub fn readout_path(&self, id: &str) -> PathBuf {
        self.folder.join("readouts").join(format!("{id}.safetensors"))
    }

    fn lease_path(&self, id: &str) -> PathBuf {
        self.folder.join("readouts").join(format!("{id}.lease"))
    }

    fn request<'a>(&'a self, layers: &'a [usize], compute: Compute) -> Request<'a> {
        Self::request_of(&self.manifest, &self.set, layers, compute)
    }

    fn request_of<'a>(manifest: &'a Manifest, set: &'a ItemSet, layers: &'a [usize], compute: Compute) -> Request<'a> {
        Request { set, readouts: &manifest.model.readouts, layers, keep: manifest.run.keep, compute }
    }

    /// What a store's size does not depend on.
    fn sizing(&self) -> Compute {
        Compute { device: self.device, kind: Kind::Float }
    }

    /// Walks the entries that `wanted` accepts and that are not complete; the outcome counts checkpoints. Every checkpoint is written before the next begins;
    /// one that fails becomes a record with its error, and the walk goes on.
    ///
    /// # Errors
    /// The run folder is not writable, or [`Interrupted`].
    pub fn walk(&self, wanted: &dyn Fn(&CheckpointSpec) -> bool) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut common = None;
        let specs: Vec<&CheckpointSpec> = self.entries().filter(|spec| wanted(spec)).collect();
        let open: Vec<usize> = (0..specs.len()).filter(|&number| !self.is_complete(specs[number])).collect();
        outcome.skipped = (0..specs.len()).filter(|number| !open.contains(number) && !specs[*number].reinitialised).count();
        let rest: Vec<&CheckpointSpec> = open.iter().map(|&number| specs[number]).collect();
        for folder in [self.folder.clone(), self.folder.join("readouts"), self.folder.join("causal")] {
            lease::sweep(&folder);
        }
        self.prepare(&rest)?;
        self.require_room(&rest)?;
        self.write_run_file()?;
        table::write(&self.folder.join("items.parquet"), &self.set.items, &self.hash())?;
        let fetch = |position: usize| self.hub.fetch_checkpoint(rest[position]);
        let positions: Vec<usize> = (0..rest.len()).collect();
        hub::ahead(&self.hub, &positions, &fetch, &mut |position, fetched| {
            check_interrupt()?;
            let spec = rest[position];
            let label = format!("[{}/{}] {}", open[position] + 1, specs.len(), spec.id);
            // Until this checkpoint is done.
            let _lease = match Lease::take(&self.lease_path(&spec.id))? {
                Taken::Ours(_) if self.is_complete(spec) => {
                    tracing::info!("{label}: another process has walked it");
                    outcome.skipped += usize::from(!spec.reinitialised);
                    return Ok(());
                }
                Taken::Ours(lease) => lease,
                Taken::Theirs(owner, silent) => {
                    tracing::warn!(
                        "{label}: is being walked by process {} on {} since {} (last sign of life {} s ago; after {} s without one it \
                         can be taken over by walking again)",
                        owner.pid,
                        owner.host,
                        owner.since,
                        silent.as_secs(),
                        lease::SILENCE.as_secs()
                    );
                    outcome.busy += 1;
                    return Ok(());
                }
            };
            let walked = fetched.and_then(|()| self.walk_one(spec, &label, &mut common));
            match walked.and_then(|record| if spec.reinitialised { Ok(record) } else { self.intervene(spec, record, &label) }) {
                Ok(record) => {
                    tracing::info!(
                        "{label}: {} nodes for {} tokens in {:.1} s",
                        record.nodes,
                        record.tokens,
                        record.seconds_read + record.seconds_compute
                    );
                    self.write_record(spec, &record)?;
                    outcome.walked += usize::from(!spec.reinitialised);
                }
                Err(error) if error.is::<Interrupted>() => return Err(error),
                Err(error) => {
                    let message = format!("{error:#}");
                    tracing::error!("{label}: failed: {message}");
                    let failed = Record {
                        source: bases::source(spec),
                        commit: spec.commit.clone(),
                        device: device::name(self.device),
                        status: "failed".to_owned(),
                        error: Some(message),
                        ..Record::default()
                    };
                    self.write_record(spec, &failed)?;
                    outcome.failed += 1;
                }
            }
            if let Err(error) = self.hub.release_checkpoint(spec, &rest[position + 1..]) {
                tracing::warn!("{label}: {error:#}");
            }
            Ok(())
        })?;
        // Another process may have finished a checkpoint after its record was read here, and have written these before.
        let mut records = None;
        while records.as_ref() != Some(&self.records()) {
            records = Some(self.records());
            let findings = self.audit(false);
            self.write_integrity(&findings)?;
            self.write_checkpoints(&findings)?;
        }
        Ok(outcome)
    }

    /// Fetches the small files of checkpoints that are on the hub, so that what is wrong with one is said before any is walked.
    ///
    /// # Errors
    /// See [`Hub::prepare`].
    pub fn prepare(&self, specs: &[&CheckpointSpec]) -> Result<()> {
        let sources = specs.iter().flat_map(|spec| std::iter::once(&spec.source).chain(spec.adapters()));
        self.hub.prepare(&sources.collect::<Vec<_>>())
    }

    fn walk_one(&self, spec: &CheckpointSpec, label: &str, common: &mut Option<Common>) -> Result<Record> {
        let start = Instant::now();
        let checkpoint = self.open(spec)?;
        if !spec.reinitialised {
            checkpoint.notes.iter().for_each(|note| tracing::warn!("{label}: {note}"));
        }
        let stat_key = bases::stat_key(spec)?;
        if !spec.reinitialised {
            self.prepare_common(spec, &checkpoint, common)?;
        }
        let shares = |common: &&mut Common| checkpoint.unchanged_layers().is_some_and(|layer| common.layer <= layer);
        let common = common.as_mut().filter(|_| !spec.reinitialised).filter(shares);
        let compute = device::compute(self.device, self.manifest.model.dtype, checkpoint.weights.kind());
        let layers = self.manifest.model.layers.resolve(checkpoint.config.n_layers)?;
        let request = self.request(&layers, compute);
        let old = self.reusable(spec, &checkpoint, &layers, &stat_key);
        let seconds_read = start.elapsed().as_secs_f64();
        let path = self.readout_path(&spec.id);
        let bar = bar(checkpoint.config.n_layers + 1, label);
        let mut tick = |_| {
            bar.inc(1);
            Ok(check_interrupt()?)
        };
        let walk = || request.walk(&checkpoint, &path, old.as_ref(), common, &mut tick);
        let cost = device::with_threads(checkpoint.config.d_model, walk);
        bar.finish_and_clear();
        let cost = cost?;
        if !spec.reinitialised {
            self.write_facts(spec, &checkpoint)?;
        }
        Ok(Record {
            source: bases::source(spec),
            commit: spec.commit.clone(),
            base_commit: spec.base_commit().map(str::to_owned),
            fingerprint: Some(cost.fingerprint),
            architecture: checkpoint.architecture.names.first().map(|name| (*name).to_owned()),
            n_params: Some(checkpoint.weights.n_params() as i64),
            n_layers: Some(checkpoint.config.n_layers as i32),
            d_model: Some(checkpoint.config.d_model as i32),
            dtype: Some(checkpoint.weights.dtype()),
            device: device::name(self.device),
            tokens: cost.prompt_tokens as i64,
            nodes: cost.nodes as i64,
            items: self.set.items.len() as i64,
            reused_items: cost.reused as i64,
            shared_layers: Some(cost.shared_layers as i32),
            seconds_read,
            seconds_compute: start.elapsed().as_secs_f64() - seconds_read,
            peak_bytes: peak_bytes(),
            status: "ok".to_owned(),
            error: None,
            notes: (!checkpoint.notes.is_empty()).then(|| checkpoint.notes.join("; ")),
            left_out: None,
            finite: true,
            stat_key: Some(stat_key),
            request: Some(request.hash()),
            layers: layers.iter().map(|&layer| layer as i32).collect(),
        })
    }

    /// What a walk of a checkpoint will cost, with `prompts` that are `nodes` nodes as a forest. Reads and computes one block.
    ///
    /// # Errors
    /// The block cannot be read, or the manifest asks for layers that are not there.
    pub fn cost(&self, checkpoint: &Checkpoint, prompts: &[Vec<i64>], nodes: usize) -> Result<Cost> {
        let compute = device::compute(self.device, self.manifest.model.dtype, checkpoint.weights.kind());
        cost::estimate(checkpoint, prompts, nodes, checkpoint.config.n_layers, compute)
    }

    /// Size of the activations of one checkpoint in the store.
    ///
    /// # Errors
    /// The manifest asks for layers that are not there.
    pub fn store_bytes(&self, config: &DecoderConfig) -> Result<usize> {
        let layers = self.manifest.model.layers.resolve(config.n_layers)?;
        Ok(self.request(&layers, self.sizing()).bytes(config.d_model as usize))
    }

    /// Whether the store holds what would be computed: same weights, same items, same layers.
    pub fn is_complete(&self, spec: &CheckpointSpec) -> bool {
        let complete = || -> Option<bool> {
            let record = self.record(&spec.id).filter(|record| record.status == "ok")?;
            let readouts = Readouts::open(&self.readout_path(&spec.id)).ok()?;
            let layers: Vec<usize> = self.manifest.model.layers.resolve(record.n_layers? as usize).ok()?;
            // The dtype of `auto` is the checkpoint's own.
            let compute = device::compute(self.device, self.manifest.model.dtype, weights::kind(record.dtype.as_deref()?));
            let request = self.request(&layers, compute).hash();
            let fingerprint = record.fingerprint.as_deref();
            let same_request = readouts.metadata("request") == Some(request.as_str()) && readouts.metadata("fingerprint") == fingerprint;
            let answers = readouts.contains("answers.rows");
            let intervened =
                || Some(spec.reinitialised || !answers || self.is_intervened(&spec.id, record.n_layers? as usize, compute, fingerprint));
            // A record of before says nothing about that.
            let names: Vec<&str> = self.manifest.model.readouts.iter().map(|readout| readout.name()).collect();
            let finite = || record.finite || readouts.is_finite(&names);
            if !same_request || !finite() || !intervened()? {
                return Some(false);
            }
            // The weights of a commit may have been deleted after their walk.
            let same_source = record.source == bases::source(spec);
            let same_commit = same_source && hub::is_same(spec, record.commit.as_deref(), record.base_commit.as_deref());
            let same_files = || Some(bases::stat_key(spec).ok()? == record.stat_key.clone()?);
            let same_weights = || Some(self.open(spec).ok()?.fingerprint() == record.fingerprint.clone()?);
            Some(same_commit || same_files()? || same_weights()?)
        };
        complete().unwrap_or(false)
    }

    /// An earlier file of the same weights at the same layers, whose rows can be taken over where items did not change.
    fn reusable(&self, spec: &CheckpointSpec, checkpoint: &Checkpoint, layers: &[usize], stat_key: &str) -> Option<Readouts> {
        let record = self.record(&spec.id).filter(|record| record.status == "ok" && record.device == device::name(self.device))?;
        let readouts = Readouts::open(&self.readout_path(&spec.id)).ok()?;
        let compute = device::compute(self.device, self.manifest.model.dtype, checkpoint.weights.kind());
        let same_weights = record.stat_key.as_deref() == Some(stat_key) || Some(checkpoint.fingerprint()) == record.fingerprint;
        let same_layers = readouts.metadata("layers") == Some(json!(layers).to_string().as_str());
        let same_dtype = readouts.metadata("compute") == Some(device::dtype_name(compute.kind));
        (same_weights && same_layers && same_dtype && readouts.metadata("fingerprint") == record.fingerprint.as_deref()).then_some(readouts)
    }
}

/// Largest resident size of this process so far, in bytes (Linux).
pub fn peak_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<i64>().ok()? * 1024)
}
