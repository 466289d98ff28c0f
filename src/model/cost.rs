//! What a walk will cost, from sizes and from one block that is read and computed for it.

use super::Checkpoint;
use super::device;
use super::layers::Loader;
use super::plan::Plan;
use super::stream::{Compute, advance};
use crate::prompt::forest::Forest;
use anyhow::Result;
use std::time::Instant;
use tch::{Kind, Tensor};

/// An estimate for one checkpoint.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cost {
    pub seconds: f64,
    /// Two blocks, the residual, one chunk's activations, and what libtorch itself needs.
    pub memory_bytes: u64,
}

/// Nodes of the trial: a chunk, so that its products are as fast as those of the walk.
const TRIAL: usize = 2048;
/// Resident size of the program and libtorch before anything is read, measured on Linux.
const BASE_BYTES: u64 = 200 << 20;

/// Estimates a walk of `prompts`, which are `nodes` nodes as a forest, through blocks 1 ..= `last_layer`. Block 1 is read and computed
/// on some of the prompts; reading and computing overlap, so the slower of the two counts.
///
/// # Errors
/// Block 1 cannot be read, or the device is out of memory.
pub fn estimate(checkpoint: &Checkpoint, prompts: &[Vec<i64>], nodes: usize, last_layer: usize, compute: Compute) -> Result<Cost> {
    let config = &checkpoint.config;
    let element = compute.kind.elt_size_in_bytes() as u64;
    let embeddings = (config.d_vocab * config.d_model * if config.tied { 1 } else { 2 }) as u64;
    let block = checkpoint.weights.n_params().saturating_sub(embeddings) / config.n_layers.max(1) as u64 * element;
    let chunk = compute.chunk(config);
    let widest = (2 * config.d_mlp + 4 * config.d_model) as u64;
    let memory_bytes = BASE_BYTES + 2 * block + (nodes as u64 * config.d_model as u64 + chunk as u64 * widest * 2) * element;
    if prompts.is_empty() || last_layer == 0 {
        return Ok(Cost { seconds: 0.0, memory_bytes });
    }

    let _no_grad = tch::no_grad_guard();
    let mut tokens = 0;
    let enough = prompts.iter().position(|ids| {
        tokens += ids.len();
        tokens >= TRIAL
    });
    let some = &prompts[..enough.map_or(prompts.len(), |last| last + 1)];
    let forest = Forest::new(some);
    let trial = || -> Result<(f64, f64)> {
        let loader = Loader::new(&checkpoint.weights, config, compute.kind, compute.device);
        let plan = Plan::new(&forest, chunk, compute.tile(), compute.device)?;
        let rotations = plan.chunks.iter().map(|chunk| chunk.rotations(&config.ropes, compute.kind)).collect::<Result<Vec<_>>>()?;
        let start = Instant::now();
        let block = (checkpoint.architecture.block)(&loader, 0)?;
        let read = start.elapsed().as_secs_f64();
        let mut resid = (checkpoint.architecture.embed)(&loader, &forest.token, &forest.depth)?;
        let mut seconds = f64::INFINITY;
        // The first round pays for first touches.
        for _ in 0..2 {
            let start = Instant::now();
            advance(&block, &mut resid, &plan, &rotations)?;
            wait(&resid)?;
            seconds = seconds.min(start.elapsed().as_secs_f64());
        }
        Ok((read, seconds))
    };
    let (read, seconds) = device::with_threads(config.d_model, trial)?;
    let computed = seconds * nodes as f64 / forest.len() as f64;
    Ok(Cost { seconds: last_layer as f64 * read.max(computed), memory_bytes })
}

/// Waits until a tensor has been computed, on a device that computes on its own.
fn wait(tensor: &Tensor) -> Result<()> {
    tensor.f_narrow(0, 0, 1)?.f_sum(Kind::Float)?.f_double_value(&[])?;
    Ok(())
}
