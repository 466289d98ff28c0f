//! One run: what it asks of which checkpoints, and how one of them is walked. [`Job::walk`] is the loop over them.

use crate::checkpoint::hub::{self, Hub};
use crate::console::{bar, check_interrupt};
use crate::lease::Lease;
use crate::manifest::{CheckpointSpec, DeviceChoice, Manifest};
use crate::model::Checkpoint;
use crate::model::config::DecoderConfig;
use crate::model::cost::{self, Cost};
use crate::model::device;
use crate::model::stream::Compute;
use crate::prompt::choices::Asked;
use crate::prompt::concept::Concept;
use crate::prompt::injected::Injected;
use crate::prompt::item::ItemSet;
use crate::prompt::persona::Reply;
use crate::prompt::talks::Talks;
use crate::prompt::tokenize::Ruler;
use crate::walk::conversation;
use crate::walk::readout::{Common, Request};
use anyhow::{Result, bail, ensure};
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
mod kept;
mod state;
mod pass;
mod dictionary;

pub use dictionary::DictionaryCost;
use prompts::Prompts;
pub use record::Record;
pub use state::State;

/// A manifest with everything resolved that does not need a model's weights: what is asked, of whom, and where it goes.
pub struct Job {
    pub manifest: Manifest,
    /// `reports/<run>`.
    pub folder: PathBuf,
    pub concepts: Vec<Concept>,
    pub set: ItemSet,
    /// What is asked under interventions; `None` without `[causal]`.
    pub causal: Option<Asked>,
    /// What is asked about injected thoughts; `None` without `[introspection]`.
    injected: Option<Injected>,
    /// What is read behind conversations, by the folder of its sheets; of `[context]` and `[replay]`.
    talks: Vec<(&'static str, Talks)>,
    /// What conversations begin with; `None` without `[conversation]`.
    conversation: Option<conversation::Prepared>,
    /// Fixed replies of the contexts.
    replies: Vec<Reply>,
    pub ruler: Ruler,
    pub device: Device,
    /// Nothing will be computed: what was walked on any device is complete.
    looking: bool,
    /// One of several processes of one command: its number, from 0, and how many there are.
    turn: Option<(usize, usize)>,
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
    /// What `status` finds waiting or being walked.
    pub unfinished: usize,
}

impl Job {
    /// Resolves sources, concepts, tokenizer, template and device, and tokenises every item.
    ///
    /// # Errors
    /// Anything that would stop every checkpoint: see [`Hub::resolve`], [`hub::check_unmoved`], [`ItemSet::new`], [`concept::load`],
    /// [`Ruler::load`].
    pub fn new(manifest: Manifest) -> Result<Self> {
        let device = device::resolve(manifest.model.device)?;
        Self::on(manifest, device, false)
    }

    /// As [`Job::new`] on another device than the manifest's, which is no part of what a run is; `turn` is the
    /// number, from 0, of one of several processes of one command, and how many there are.
    ///
    /// # Errors
    /// As [`Job::new`].
    pub fn on_device(manifest: Manifest, choice: DeviceChoice, turn: Option<(usize, usize)>) -> Result<Self> {
        Ok(Self { turn, ..Self::on(manifest, device::resolve(choice)?, false)? })
    }

    /// As [`Job::new`] for who only looks at a run: a login node need not have the device that walks.
    ///
    /// # Errors
    /// As [`Job::new`].
    pub fn looking(manifest: Manifest) -> Result<Self> {
        Self::on(manifest, Device::Cpu, true)
    }

    fn on(mut manifest: Manifest, device: Device, looking: bool) -> Result<Self> {
        let hub = Hub::from_env();
        hub.resolve(&mut manifest)?;
        kept::keep(&mut manifest);
        hub::check_unmoved(&manifest, &manifest.run.folder().join("run.json"))?;
        if !manifest.keep {
            hub.delete_after_use(manifest.run.folder().join("downloads.txt"));
        }
        let ruler = ruler::resolve(&manifest, &hub)?;
        let prompts = Prompts::of(&mut manifest, &ruler)?;
        let talks = prompts.talks(&manifest, &ruler)?;
        let conversation = prompts.conversation(&manifest, &ruler)?;
        let Prompts { concepts, set, causal, replies } = prompts;
        if let Some(stitching) = &manifest.stitching {
            ensure!(
                manifest.keep || !manifest.uses_hub(),
                "{}: needs the first checkpoint's weights beside every other's, which [hub] keep = false deletes; set keep = true",
                stitching.place
            );
        }
        let injected = manifest.introspection.as_ref().map(|wanted| Injected::new(wanted, &ruler)).transpose()?;
        let baseline = baseline::entry(&manifest, set.max_token())?;
        Ok(Self {
            folder: manifest.run.folder(),
            manifest,
            concepts,
            set,
            causal,
            injected,
            talks,
            conversation,
            replies,
            ruler,
            device,
            looking,
            turn: None,
            hub,
            baseline,
            base: Mutex::default(),
        })
    }

    /// The store's file of a checkpoint.
    pub fn readout_path(&self, id: &str) -> PathBuf {
        self.sheet_path("readouts", id)
    }

    /// The file of a checkpoint in a folder of the store.
    pub fn sheet_path(&self, folder: &str, id: &str) -> PathBuf {
        self.folder.join(folder).join(format!("{id}.safetensors"))
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

    /// Fetches the small files of checkpoints that are on the hub, so that what is wrong with one is said before any is walked.
    ///
    /// # Errors
    /// See [`Hub::prepare`].
    pub fn prepare(&self, specs: &[&CheckpointSpec]) -> Result<()> {
        let sources = specs.iter().flat_map(|spec| std::iter::once(&spec.source).chain(spec.adapters()));
        self.hub.prepare(&sources.collect::<Vec<_>>())
    }

    fn walk_one(&self, spec: &CheckpointSpec, label: &str, common: &mut Option<Common>, lease: &Lease) -> Result<Record> {
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
        let mut tick = |layer| {
            bar.inc(1);
            lease.tell("layer", layer, checkpoint.config.n_layers);
            Ok(check_interrupt()?)
        };
        let walk = || request.walk(&checkpoint, &path, old.as_ref(), common, &mut tick);
        let cost = device::with_threads(checkpoint.config.d_model, walk);
        bar.finish_and_clear();
        let cost = cost?;
        // What the hub's cache holds does not change.
        if !spec.source.is_hub() && !spec.changing().is_hub() && bases::stat_key(spec).ok().as_ref() != Some(&stat_key) {
            std::fs::remove_file(&path)?;
            bail!("{}: its files changed while they were read; walk it again when they are whole", bases::source(spec));
        }
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
}

/// Largest resident size of this process so far, in bytes (Linux).
pub fn peak_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<i64>().ok()? * 1024)
}
