//! A model that stays in memory and writes: the blocks of the stream, kept, with a cache of keys and values.
//!
//! Prompts are read as a forest, so what they share is computed once; after that every sequence goes on by one token at a time, all of them
//! through each block together. A token's own computation is that of the stream: the same projections, the same block equation.

use super::Checkpoint;
use super::attention::Heads;
use super::block::Block;
use super::cache::Cache;
use super::config::DecoderConfig;
use super::device::Threads;
use super::layers::{Linear, Loader, Norm};
use super::logits;
use super::plan::{KeysValues, Rotation};
use super::stream::{Compute, Prepared};
use crate::checkpoint::tensors::Rows;
use crate::console::check_interrupt;
use crate::prompt::forest::Forest;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};
use tch::{Device, Kind, Tensor};

/// Products of numbers in the attention of a block from which on libtorch's threads bring more than they cost. Between its operations they
/// spin, which takes a processor from the products of packed matrices, and those are most of a step until texts are long.
const WIDE_ATTENTION: i64 = 1 << 22;

/// A model does not fit into memory: its weights, and what is free, in GB.
#[derive(Debug, thiserror::Error)]
#[error("the weights are {0:.1} GB in memory and {1:.1} GB are free; to generate, a model has to fit as a whole (a walk needs two blocks)")]
pub struct TooLarge(f64, f64);

/// A checkpoint with all of its weights on a device.
pub struct Resident<'a> {
    checkpoint: &'a Checkpoint,
    compute: Compute,
    blocks: Vec<Block>,
    ln_final: Norm,
    head: Linear,
}

impl<'a> Resident<'a> {
    /// Reads all weights.
    ///
    /// # Errors
    /// They do not fit into the memory that is free; the model has no head; or as [`Loader::tensor`].
    pub fn load(checkpoint: &'a Checkpoint, compute: Compute) -> Result<Self> {
        let config = &checkpoint.config;
        let needed = checkpoint.weights.n_params() * compute.kind.elt_size_in_bytes() as u64;
        if compute.device == Device::Cpu
            && let Some(free) = free_memory()
        {
            let gigabytes = |bytes: u64| bytes as f64 / 1e9;
            ensure!(needed <= free, TooLarge(gigabytes(needed), gigabytes(free)));
        }
        let loader = Loader::new(&checkpoint.weights, config, compute.kind, compute.device);
        let read = |index: usize| {
            check_interrupt()?;
            let mut block = (checkpoint.architecture.block)(&loader, index).with_context(|| format!("block {}", index + 1))?;
            block.pack()?;
            Ok(block)
        };
        let blocks = (0..config.n_layers).map(read).collect::<Result<_>>()?;
        let (ends, head) = (logits::ends(checkpoint, compute)?, logits::head(checkpoint)?);
        let whole = Rows::Range(0, config.d_vocab);
        let weight = checkpoint.weights.unembedding(head, &[config.d_vocab, config.d_model], whole, compute.kind)?;
        let mut head = Linear::new(weight.f_to_device(compute.device)?, None);
        head.pack()?;
        Ok(Self { checkpoint, compute, blocks, ln_final: ends.ln_final, head })
    }

    /// The model's configuration.
    pub fn config(&self) -> &DecoderConfig {
        &self.checkpoint.config
    }

    /// Where it computes.
    pub fn device(&self) -> Device {
        self.compute.device
    }

    /// Bytes of keys and values per token.
    pub fn bytes_per_token(&self) -> usize {
        let DecoderConfig { n_layers, n_kv_heads, d_head, .. } = *self.config();
        2 * n_layers * (n_kv_heads * d_head) as usize * self.compute.kind.elt_size_in_bytes()
    }

    /// Reads prompts, none of them empty. Returns their cache, one row each, and the logits of the next token: `[row, d_vocab]`, f32.
    ///
    /// # Errors
    /// A token is outside the vocabulary, a prompt is longer than the model's positions reach, a signal has arrived, or the device is out
    /// of memory.
    pub fn read<P: AsRef<[i64]>>(&self, prompts: &[P]) -> Result<(Cache, Tensor)> {
        let _no_grad = tch::no_grad_guard();
        let config = self.config();
        let forest = Forest::new(prompts);
        let Prepared { plan, rotations } = Prepared::new(self.checkpoint, &forest, self.compute)?;
        let last = forest.last.iter().map(|node| node.context("a prompt has no tokens")).collect::<Result<Vec<_>>>()?;
        let lengths: Vec<i64> = prompts.iter().map(|prompt| prompt.as_ref().len() as i64).collect();
        let mut cache = Cache::new(&lengths);
        let (rows, slots) = (lengths.len() as i64, forest.max_depth());
        // The node in every slot of every row; padding holds the row's first token, which nobody sees there.
        let nodes: Vec<i64> = last
            .iter()
            .flat_map(|&last| {
                let path = forest.path(last);
                let padding = std::iter::repeat_n(path[0], slots - path.len());
                padding.chain(path.iter().copied()).map(|node| node as i64).collect::<Vec<_>>()
            })
            .collect();
        let nodes = self.place(&nodes)?;
        let _threads = self.threads(forest.token.len(), slots as i64);
        let resid = self.embed(&forest.token, &forest.depth)?;
        for block in &self.blocks {
            let (mut past, mut keys, mut values) = (None, Vec::new(), Vec::new());
            for (chunk, rotations) in plan.chunks.iter().zip(&rotations) {
                check_interrupt()?;
                let mut part = resid.f_narrow(0, chunk.start, chunk.len)?;
                let out = block.around(&part, |x| {
                    let heads = block.attention.project(x, rotations)?;
                    let (out, next) = block.attention.over_chunk(&heads, past.take(), chunk)?;
                    past = next;
                    keys.push(heads.own.keys);
                    values.push(heads.own.values);
                    Ok(out)
                })?;
                part.f_copy_(&out)?;
            }
            let spread = |parts: &[Tensor]| -> Result<Tensor> {
                let slotted = Tensor::f_cat(parts, 1)?.f_index_select(1, &nodes)?;
                Ok(slotted.f_view([config.n_kv_heads, rows, slots as i64, config.d_head])?.f_transpose(0, 1)?)
            };
            cache.push(&KeysValues { keys: spread(&keys)?, values: spread(&values)? })?;
        }
        let last: Vec<i64> = last.into_iter().map(|node| node as i64).collect();
        let logits = self.logits(&resid.f_index_select(0, &self.place(&last)?)?)?;
        Ok((cache, logits))
    }

    /// One more token in every row. Returns the logits of the token after it: `[row, d_vocab]`, f32.
    ///
    /// # Errors
    /// A token is outside the vocabulary, a row is longer than the model's positions reach, or the device is out of memory.
    pub fn step(&self, cache: &mut Cache, tokens: &[i64]) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let config = self.config();
        let positions = cache.lengths();
        ensure!(
            config.longest.is_none_or(|limit| positions.iter().all(|position| *position < limit)),
            "a text is longer than the {} positions of the model",
            config.longest.unwrap_or_default()
        );
        cache.extend()?;
        let mut resid = self.embed(tokens, &positions)?;
        let positions = self.place(&positions)?;
        let rotations = config.ropes.iter().map(|rope| Rotation::new(rope, &positions, self.compute.kind)).collect::<Result<Vec<_>>>()?;
        let seen: BTreeSet<i64> = config.views.iter().map(|view| cache.seen(view.window)).collect();
        let _threads = self.threads(tokens.len(), seen.last().copied().unwrap_or(0));
        let sight = |seen: i64| Ok((seen, cache.visible(seen, self.compute.device)?));
        let sights = seen.into_iter().map(sight).collect::<Result<BTreeMap<i64, Tensor>>>()?;
        for (layer, block) in self.blocks.iter().enumerate() {
            resid = block.around(&resid, |x| {
                let Heads { queries, own } = block.attention.project(x, &rotations)?;
                let seen = cache.seen(block.attention.view.window);
                block.attention.over_cache(&queries, &cache.put(layer, &own, seen)?, &sights[&seen])
            })?;
        }
        self.logits(&resid)
    }

    /// Leaves libtorch one thread where its own products are few: `tokens` that see `seen` tokens each.
    fn threads(&self, tokens: usize, seen: i64) -> Option<Threads> {
        let DecoderConfig { n_heads, d_head, .. } = *self.config();
        (self.head.is_packed() && tokens as i64 * seen * n_heads * d_head < WIDE_ATTENTION).then(|| Threads::set(1))
    }

    /// `[node, d_model]`.
    fn embed(&self, tokens: &[i64], positions: &[i64]) -> Result<Tensor> {
        let loader = Loader::new(&self.checkpoint.weights, self.config(), self.compute.kind, self.compute.device);
        (self.checkpoint.architecture.embed)(&loader, tokens, positions)
    }

    fn logits(&self, resid: &Tensor) -> Result<Tensor> {
        let logits = self.head.forward(&self.ln_final.forward(resid)?)?;
        let wide = if logits.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        logits::bounded(logits.f_to_kind(wide)?, self.config())
    }

    fn place(&self, values: &[i64]) -> Result<Tensor> {
        Ok(Tensor::f_from_slice(values)?.f_to_device(self.compute.device)?)
    }
}

/// Bytes of memory that programs can still have, where the system says so (Linux).
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}
