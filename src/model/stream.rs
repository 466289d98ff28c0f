//! Weights stream, residuals stay: all nodes advance through block l before block l + 1 is needed, and while block l
//! computes, a background thread reads block l + 1.
//!
//! Peak memory is two blocks, the residual `[node, d_model]` and one chunk's activations, whatever the model's size.

use super::Checkpoint;
use super::block::Block;
use super::config::DecoderConfig;
use super::layers::Loader;
use super::plan::{Plan, Rotation};
use crate::console::check_interrupt;
use crate::prompt::forest::Forest;
use anyhow::{Context, Result, anyhow, ensure};
use std::ops::RangeInclusive;
use std::sync::mpsc::sync_channel;
use tch::{Device, Kind, Tensor};

/// Where and how a stream computes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compute {
    pub device: Device,
    pub kind: Kind,
}

impl Compute {
    /// What of it decides the numbers: the kind of device and the dtype.
    pub fn describe(self) -> String {
        let device = if self.device == Device::Cpu { "cpu" } else { "cuda" };
        format!("{device} {:?}", self.kind)
    }

    /// Nodes per chunk: enough for full-speed products, few enough that the widest activation stays below a bound (on the CPU also
    /// below the size from which malloc maps, and the kernel clears, fresh pages for every buffer).
    pub(super) fn chunk(self, config: &DecoderConfig) -> usize {
        let widest = (2 * config.d_mlp).max((config.n_heads + 2 * config.n_kv_heads) * config.d_head) as usize;
        let (bytes, most) = if self.device == Device::Cpu { (24 << 20, 2048) } else { (256 << 20, 8192) };
        (bytes / (widest * self.kind.elt_size_in_bytes())).clamp(self.tile(), most)
    }

    /// Nodes per tile: the part of attention that is masked (a tile against itself) grows with it.
    pub(super) fn tile(self) -> usize {
        if self.device == Device::Cpu { 256 } else { 1024 }
    }
}

/// Advances every node of `forest` through blocks 1 ..= `last_layer`, calling `visit(layer, resid)` with `resid: [node, d_model]`
/// for layer 0 (embedding) ..= `last_layer`. `resid` is overwritten after `visit` returns.
///
/// # Errors
/// A tensor is missing, misshapen or non-finite; a token id is outside the vocabulary; a prompt is longer than the model's
/// positions reach; the device is out of memory; or whatever `visit` returns, which also stops the stream.
pub fn stream(
    checkpoint: &Checkpoint,
    forest: &Forest,
    compute: Compute,
    last_layer: usize,
    visit: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
) -> Result<()> {
    stream_from(checkpoint, forest, compute, None, last_layer, visit)
}

/// As [`stream`], but given the residual of some layer `start`, `[node, d_model]`: earlier blocks are neither read nor computed, and
/// the first visit is that layer's.
///
/// # Errors
/// As [`stream`].
pub fn stream_from(
    checkpoint: &Checkpoint,
    forest: &Forest,
    compute: Compute,
    start: Option<(usize, &Tensor)>,
    last_layer: usize,
    visit: &mut dyn FnMut(usize, &Tensor) -> Result<()>,
) -> Result<()> {
    let _no_grad = tch::no_grad_guard();
    let Compute { device, kind } = compute;
    let config = &checkpoint.config;
    let Prepared { plan, rotations } = Prepared::new(checkpoint, forest, compute)?;
    let mut resid = match start {
        // Blocks overwrite it.
        Some((_, resid)) => resid.f_detach_copy()?,
        None => {
            let loader = Loader::new(&checkpoint.weights, config, kind, device);
            (checkpoint.architecture.embed)(&loader, &forest.token, &forest.depth)?
        }
    };
    let first = start.map_or(0, |(layer, _)| layer);
    visit(first, &resid)?;
    each_block(checkpoint, compute, first + 1..=last_layer, &mut |layer, block| {
        advance(block, &mut resid, &plan, &rotations)?;
        visit(layer, &resid)
    })
}

/// A forest as a model's blocks want it.
pub(super) struct Prepared {
    pub plan: Plan,
    pub rotations: Vec<Vec<Rotation>>,
}

impl Prepared {
    /// Cuts the forest into chunks and tabulates their rotations.
    ///
    /// # Errors
    /// A prompt is longer than the model's positions reach, or the device is out of memory.
    pub fn new(checkpoint: &Checkpoint, forest: &Forest, compute: Compute) -> Result<Self> {
        let config = &checkpoint.config;
        let longest = forest.depth.iter().max().map_or(0, |depth| depth + 1);
        ensure!(
            config.longest.is_none_or(|limit| longest <= limit),
            "a prompt has {longest} tokens, at most {} can be computed with this model's positions",
            config.longest.unwrap_or_default()
        );
        let plan = Plan::new(forest, compute.chunk(config), compute.tile(), compute.device)?;
        let rotations = plan.chunks.iter().map(|chunk| chunk.rotations(&config.ropes, compute.kind)).collect::<Result<Vec<_>>>()?;
        Ok(Self { plan, rotations })
    }
}

/// Calls `visit(layer, block)` for the blocks `layers` (1-based), in order; while one is being used, the next is read.
pub(super) fn each_block(
    checkpoint: &Checkpoint,
    compute: Compute,
    layers: RangeInclusive<usize>,
    visit: &mut dyn FnMut(usize, &Block) -> Result<()>,
) -> Result<()> {
    let loader = Loader::new(&checkpoint.weights, &checkpoint.config, compute.kind, compute.device);
    let block = checkpoint.architecture.block;
    std::thread::scope(|scope| {
        // A rendezvous: one block is being computed while one, at most, is read or waits.
        let (send, receive) = sync_channel::<Result<Block>>(0);
        let (loader, read) = (&loader, layers.clone());
        scope.spawn(move || {
            for layer in read {
                // A closed channel means that the stream stopped; its own error is the one to report.
                if send.send(block(loader, layer - 1)).is_err() {
                    break;
                }
            }
        });
        for layer in layers {
            let block = receive.recv().map_err(|_| anyhow!("the loader of block {layer} stopped"))?;
            visit(layer, &block.with_context(|| format!("block {layer}"))?)?;
        }
        Ok(())
    })
}

/// Replaces `resid` by the output of `block`, chunk by chunk.
pub(super) fn advance(block: &Block, resid: &mut Tensor, plan: &Plan, rotations: &[Vec<Rotation>]) -> Result<()> {
    let mut past = None;
    for (chunk, rotations) in plan.chunks.iter().zip(rotations) {
        check_interrupt()?;
        let mut rows = resid.f_narrow(0, chunk.start, chunk.len)?;
        let (out, next) = block.forward(&rows, past, chunk, rotations)?;
        rows.f_copy_(&out)?;
        past = next;
    }
    Ok(())
}
