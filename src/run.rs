//! The main loop: walk every checkpoint that is not complete, write after each, go on after a failure.

use crate::checkpoint::hub::{self, Hub};
use crate::checkpoint::weights;
use crate::console::{Interrupted, bar, check_interrupt};
use crate::manifest::{CheckpointSpec, Manifest, Profile, Readout, Source};
use crate::model::Checkpoint;
use crate::model::config::DecoderConfig;
use crate::model::cost::{self, Cost};
use crate::model::device;
use crate::model::stream::Compute;
use crate::prompt::choices::{self, Asked};
use crate::prompt::concept::{self, Concept};
use crate::prompt::design;
use crate::prompt::item::ItemSet;
use crate::prompt::persona;
use crate::prompt::tokenize::Ruler;
use crate::readout::{Common, Request};
use crate::store::Readouts;
use crate::table::{self, Key, LAYER_CONVENTION, write_atomically};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Instant;
use tch::{Device, Kind};

mod bases;
mod causal;
mod integrity;
mod ruler;

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
    /// The base that was opened last, and what its files were.
    base: Mutex<Option<(String, Checkpoint)>>,
}

/// One row of `checkpoints.parquet` behind the keys, and what a later run needs to know that nothing changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Record {
    pub source: String,
    pub commit: Option<String>,
    /// That of the model under an adapter, if it is on the hub.
    pub base_commit: Option<String>,
    pub fingerprint: Option<String>,
    pub architecture: Option<String>,
    pub n_params: Option<i64>,
    pub n_layers: Option<i32>,
    pub d_model: Option<i32>,
    pub dtype: Option<String>,
    pub device: String,
    /// Prompt tokens before sharing, and nodes that were computed.
    pub tokens: i64,
    pub nodes: i64,
    pub items: i64,
    pub reused_items: i64,
    /// Layers that were taken over from an earlier walk over the same base.
    pub shared_layers: Option<i32>,
    /// Wall time of the walk: opening and planning, and everything after.
    pub seconds_read: f64,
    pub seconds_compute: f64,
    pub peak_bytes: Option<i64>,
    pub status: String,
    pub error: Option<String>,
    /// Inodes, sizes and times of the files, hashed.
    pub stat_key: Option<String>,
    /// Hash of what was asked.
    pub request: Option<String>,
    /// Layers that were kept.
    pub layers: Vec<i32>,
}

/// How a walk ended.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub walked: usize,
    pub skipped: usize,
    pub failed: usize,
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
        let concepts = concept::load(&manifest.concepts)?;
        let pool = concept::neutral(&manifest.concepts.packs)?;
        let profile = match manifest.concepts.profile {
            Profile::Full => design::Profile::FULL,
            Profile::Quick => design::Profile::QUICK,
        };
        let ruler = ruler::resolve(&manifest, &hub)?;
        let mut set = ItemSet::new(&concepts, &pool, profile, &manifest.concepts.parameters, &ruler)?;
        if let Some(personas) = &manifest.personas {
            persona::load(personas, &concepts)?.add_items(&mut set, &concepts, profile, &manifest.concepts.parameters, &ruler)?;
            if !manifest.model.readouts.contains(&Readout::ResponseMean) {
                manifest.model.readouts.push(Readout::ResponseMean);
                set.keep_responses_of_contexts();
            }
        }
        let causal = manifest.causal.as_ref().map(|wanted| choices::load(wanted, &concepts, profile)).transpose()?;
        causal.iter().try_for_each(|asked| asked.add_items(&mut set, &concepts, &manifest.concepts.parameters, &ruler))?;
        let device = device::resolve(manifest.model.device)?;
        Ok(Self { folder: manifest.run.folder(), manifest, concepts, set, causal, ruler, device, hub, base: Mutex::default() })
    }

    /// The store's file of a checkpoint.
    pub fn readout_path(&self, id: &str) -> PathBuf {
        self.folder.join("readouts").join(format!("{id}.safetensors"))
    }

    fn record_path(&self, id: &str) -> PathBuf {
        self.folder.join("readouts").join(format!("{id}.json"))
    }

    /// The record of an earlier walk.
    pub fn record(&self, id: &str) -> Option<Record> {
        serde_json::from_str(&std::fs::read_to_string(self.record_path(id)).ok()?).ok()
    }

    fn request<'a>(&'a self, layers: &'a [usize], compute: Compute) -> Request<'a> {
        Request { set: &self.set, readouts: &self.manifest.model.readouts, layers, compute }
    }

    /// Walks the checkpoints that `wanted` accepts and that are not complete. Every checkpoint is written before the next begins;
    /// one that fails becomes a record with its error, and the walk goes on.
    ///
    /// # Errors
    /// The run folder is not writable, or [`Interrupted`].
    pub fn walk(&self, wanted: &dyn Fn(&CheckpointSpec) -> bool) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut common = None;
        let specs: Vec<&CheckpointSpec> = self.manifest.checkpoints.iter().filter(|spec| wanted(spec)).collect();
        let open: Vec<usize> = (0..specs.len()).filter(|&number| !self.is_complete(specs[number])).collect();
        outcome.skipped = specs.len() - open.len();
        let rest: Vec<&CheckpointSpec> = open.iter().map(|&number| specs[number]).collect();
        self.prepare(&rest)?;
        self.write_run_file()?;
        table::write(&self.folder.join("items.parquet"), &self.set.items, &self.hash())?;
        let fetch = |position: usize| self.hub.fetch_checkpoint(rest[position]);
        let positions: Vec<usize> = (0..rest.len()).collect();
        hub::ahead(&self.hub, &positions, &fetch, &mut |position, fetched| {
            check_interrupt()?;
            let spec = rest[position];
            let label = format!("[{}/{}] {}", open[position] + 1, specs.len(), spec.id);
            let walked = fetched.and_then(|()| self.walk_one(spec, &label, &mut common));
            match walked.and_then(|record| self.intervene(spec, record, &label)) {
                Ok(record) => {
                    tracing::info!(
                        "{label}: {} nodes for {} tokens in {:.1} s",
                        record.nodes,
                        record.tokens,
                        record.seconds_read + record.seconds_compute
                    );
                    self.write_record(spec, &record)?;
                    outcome.walked += 1;
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
        self.write_checkpoints()?;
        self.write_integrity()?;
        Ok(outcome)
    }

    /// Fetches the small files of checkpoints that are on the hub, so that what is wrong with one is said before any is walked.
    ///
    /// # Errors
    /// See [`Hub::prepare`].
    pub fn prepare(&self, specs: &[&CheckpointSpec]) -> Result<()> {
        let sources = specs.iter().flat_map(|spec| [Some(&spec.source), spec.adapter.as_ref()]);
        self.hub.prepare(&sources.flatten().collect::<Vec<_>>())
    }

    fn walk_one(&self, spec: &CheckpointSpec, label: &str, common: &mut Option<Common>) -> Result<Record> {
        let start = Instant::now();
        let checkpoint = self.open(spec)?;
        let stat_key = bases::stat_key(spec)?;
        self.prepare_common(spec, &checkpoint, common)?;
        let common = common.as_mut().filter(|common| checkpoint.unchanged_layers().is_some_and(|layer| common.layer <= layer));
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
        self.write_facts(spec, &checkpoint)?;
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
        Ok(self.request(&layers, Compute { device: self.device, kind: Kind::Float }).bytes(config.d_model as usize))
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
            if !same_request || !self.is_intervened(&spec.id, record.n_layers? as usize, compute, fingerprint) {
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

    fn write_record(&self, spec: &CheckpointSpec, record: &Record) -> Result<()> {
        let text = serde_json::to_vec_pretty(record)?;
        write_atomically(&self.record_path(&spec.id), |file| Ok(std::io::Write::write_all(file, &text)?))
    }

    /// Writes `checkpoints.parquet` from the records that are there.
    ///
    /// # Errors
    /// The run folder is not writable.
    pub fn write_checkpoints(&self) -> Result<()> {
        let rows: Vec<(Key, Record)> = self
            .manifest
            .checkpoints
            .iter()
            .map(|spec| {
                let missing = || Record { source: bases::source(spec), status: "not_run".to_owned(), ..Record::default() };
                (self.key(spec), self.record(&spec.id).unwrap_or_else(missing))
            })
            .collect();
        table::write_keyed(&self.folder.join("checkpoints.parquet"), &rows, &self.hash())
    }

    fn key(&self, spec: &CheckpointSpec) -> Key {
        Key {
            run: self.manifest.run.name.clone(),
            checkpoint: spec.id.clone(),
            stage: spec.stage.clone(),
            step: spec.step.map(|step| step as i64),
            order: spec.order as i32,
        }
    }

    /// Digest of the resolved manifest and of every item.
    pub fn hash(&self) -> String {
        let manifest = serde_json::to_string(&self.manifest).unwrap_or_default();
        blake3::hash(format!("{manifest}{}", self.set.hash()).as_bytes()).to_hex().to_string()
    }

    /// Writes `run.json`: what an analysis needs to know, and the resolved manifest.
    fn write_run_file(&self) -> Result<()> {
        let checkpoints: Vec<_> = self.manifest.checkpoints.iter().map(|spec| {
            json!({
                "id": spec.id, "stage": spec.stage, "step": spec.step, "tokens": spec.tokens, "order": spec.order, "reference": spec.reference,
                "source": spec.changing(), "commit": spec.commit,
                "base_source": spec.adapter.as_ref().map(|_| &spec.source), "base_commit": spec.base_commit(),
            })
        }).collect();
        let tokenizer = self.manifest.tokenizer_source();
        let layers = self.manifest.checkpoints.iter().rev().find_map(|spec| {
            let depth = || Some(Checkpoint::config(spec.source.folder().ok()?).ok()?.1.n_layers);
            let n_layers = depth().or_else(|| Some(self.record(&spec.id)?.n_layers? as usize))?;
            self.manifest.model.layers.resolve(n_layers).ok()
        });
        let run = json!({
            "run": self.manifest.run.name,
            "seed": self.manifest.run.seed,
            "axis": self.manifest.run.axis,
            "flips": self.manifest.analysis.flips,
            "bootstraps": self.manifest.analysis.bootstraps,
            "evidence": self.manifest.evidence,
            "layers": layers.unwrap_or_default(),
            "layer_convention": LAYER_CONVENTION,
            "readouts": self.manifest.model.readouts.iter().map(|readout: &Readout| readout.name()).collect::<Vec<_>>(),
            "checkpoints": checkpoints,
            "tokenizer_source": tokenizer,
            "tokenizer_commit": tokenizer.and_then(Source::commit),
            "version": env!("CARGO_PKG_VERSION"),
            "items": self.set.hash(),
            "ruler": self.ruler.hash()?,
            "run_hash": self.hash(),
            "manifest": self.manifest,
        });
        let text = serde_json::to_vec_pretty(&run)?;
        write_atomically(&self.folder.join("run.json"), |file| Ok(std::io::Write::write_all(file, &text)?))
    }
}

/// Largest resident size of this process so far, in bytes (Linux).
pub fn peak_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<i64>().ok()? * 1024)
}
