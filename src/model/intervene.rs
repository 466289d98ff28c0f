//! Interventions: a function applied to the residual at one layer, after which the stream goes on as it would.
//!
//! Blocks below a layer do not know what is done at it, so the clean residual of that layer, computed once, is copied for every
//! condition. From there all conditions go through each block while it is in memory. What a sweep costs is therefore the nodes of its
//! conditions times the blocks above their layers, and one reading of these blocks per pass. Residuals of the conditions are what is
//! in memory: a sweep that does not fit a budget is done in several passes, each from the kept residual.

use super::Checkpoint;
use super::stream::{Compute, Prepared, advance, each_block};
use crate::prompt::forest::Forest;
use anyhow::{Result, ensure};
use std::collections::BTreeMap;
use std::ops::Range;
use tch::{Kind, Tensor};

/// What is done to the residual, at all positions of all prompts or at some nodes.
#[derive(Debug)]
pub enum Intervention {
    /// Adds a vector, `[d_model]` f32: steering.
    Add(Tensor),
    /// Projects a direction out, `[d_model]` f32, of unit length: ablation.
    Ablate(Tensor),
    /// Adds to each of `nodes: [place]` one of `vectors: [vector, d_model]` f32, the one at `which: [place]`: injection. No node stands twice.
    AddAt { nodes: Tensor, which: Tensor, vectors: Tensor },
    /// Gives each of `nodes: [place]` the residual of another, `from: [place]`.
    Exchange { nodes: Tensor, from: Tensor },
}

impl Intervention {
    /// Adds `amount * direction`.
    ///
    /// # Errors
    /// The vector cannot be made.
    pub fn steer(direction: &[f32], amount: f64) -> Result<Self> {
        Ok(Self::Add(Tensor::f_from_slice(direction)?.f_mul_scalar(amount)?))
    }

    /// Projects `direction`, of unit length, out.
    ///
    /// # Errors
    /// The vector cannot be made.
    pub fn ablate(direction: &[f32]) -> Result<Self> {
        Ok(Self::Ablate(Tensor::f_from_slice(direction)?))
    }

    /// Adds one of `vectors: [vector, d_model]` to every node that is named with its number.
    ///
    /// # Errors
    /// The indices cannot be made.
    pub fn inject(places: &[(i64, i64)], vectors: &Tensor) -> Result<Self> {
        let (nodes, which): (Vec<i64>, Vec<i64>) = places.iter().copied().unzip();
        Ok(Self::AddAt { nodes: Tensor::f_from_slice(&nodes)?, which: Tensor::f_from_slice(&which)?, vectors: vectors.shallow_clone() })
    }

    /// Gives the first of each pair of nodes the residual of the second.
    ///
    /// # Errors
    /// The indices cannot be made.
    pub fn exchange(places: &[(i64, i64)]) -> Result<Self> {
        let (nodes, from): (Vec<i64>, Vec<i64>) = places.iter().copied().unzip();
        Ok(Self::Exchange { nodes: Tensor::f_from_slice(&nodes)?, from: Tensor::f_from_slice(&from)? })
    }

    /// `[node, d_model] -> [node, d_model]`, in a new place. Computed in f32 (or wider, where the residual is) and rounded once.
    ///
    /// # Errors
    /// Widths differ, or the device is out of memory.
    pub fn apply(&self, resid: &Tensor) -> Result<Tensor> {
        let kind = if resid.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let place = |direction: &Tensor| direction.f_to_kind(kind)?.f_to_device(resid.device());
        let wide = resid.f_to_kind(kind)?;
        let changed = match self {
            Self::Add(vector) => wide.f_add(&place(vector)?)?,
            Self::Ablate(direction) => {
                let direction = place(direction)?;
                wide.f_sub(&wide.f_matmul(&direction)?.f_unsqueeze(1)?.f_mul(&direction.f_unsqueeze(0)?)?)?
            }
            Self::AddAt { nodes, which, vectors } => {
                let added = place(vectors)?.f_index_select(0, &which.f_to_device(resid.device())?)?;
                wide.f_index_add(0, &nodes.f_to_device(resid.device())?, &added)?
            }
            Self::Exchange { nodes, from } => {
                let [nodes, from] = [nodes, from].map(|index| index.f_to_device(resid.device()));
                wide.f_index_copy(0, &nodes?, &wide.f_index_select(0, &from?)?)?
            }
        };
        Ok(changed.f_to_kind(resid.kind())?)
    }
}

/// A condition: which prompts are computed, and what is done to them where.
#[derive(Debug)]
pub struct Condition {
    /// Number of the forest.
    pub forest: usize,
    pub layer: usize,
    pub intervention: Intervention,
}

/// What a sweep did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SweepCost {
    /// Nodes times blocks that were computed.
    pub node_blocks: usize,
    /// Readings of the blocks above the lowest layer of the pass.
    pub passes: usize,
}

/// What a sweep works on, and with how much memory.
#[derive(Clone, Copy)]
pub struct Sweep<'a> {
    pub checkpoint: &'a Checkpoint,
    pub forests: &'a [&'a Forest],
    pub compute: Compute,
    /// Layer at which every condition ends.
    pub last: usize,
    /// Bytes of residuals that may be in memory at a time.
    pub budget: usize,
}

impl Sweep<'_> {
    /// Takes `conditions` from the clean residuals of their layers, `clean(layer, forest): [node, d_model]`, to the last layer, as many at
    /// a time as fit the budget (at least one). Calls `visit(condition, layer, resid)` at the condition's own layer, after the
    /// intervention, and after every block above it. A condition's numbers depend neither on the others nor on the budget.
    ///
    /// # Errors
    /// As [`super::stream::stream`]; a condition names no forest or a layer above the last; or whatever `visit` returns.
    pub fn run(
        &self,
        clean: &dyn Fn(usize, usize) -> Result<Tensor>,
        conditions: &[Condition],
        visit: &mut dyn FnMut(usize, usize, &Tensor) -> Result<()>,
    ) -> Result<SweepCost> {
        let _no_grad = tch::no_grad_guard();
        let &Self { checkpoint, forests, compute, last, budget } = self;
        for condition in conditions {
            ensure!(condition.forest < forests.len(), "a condition asks for forest {} of {}", condition.forest, forests.len());
            ensure!(condition.layer <= last, "an intervention at layer {} of {last}", condition.layer);
        }
        let prepared = forests.iter().map(|forest| Prepared::new(checkpoint, forest, compute)).collect::<Result<Vec<_>>>()?;
        let width = checkpoint.config.d_model as usize * compute.kind.elt_size_in_bytes();
        let mut order: Vec<usize> = (0..conditions.len()).collect();
        order.sort_by_key(|&index| conditions[index].layer);
        let sizes: Vec<usize> = order.iter().map(|&index| forests[conditions[index].forest].len() * width).collect();
        let mut cost = SweepCost::default();
        for range in passes(&sizes, budget) {
            let pass = &order[range];
            let Some(first) = pass.first().map(|&index| conditions[index].layer) else { continue };
            // In the order of the conditions, not of their layers.
            let mut resids: BTreeMap<usize, Tensor> = BTreeMap::new();
            let begin = |layer: usize, resids: &mut BTreeMap<usize, Tensor>| -> Result<()> {
                for &index in pass.iter().filter(|&&index| conditions[index].layer == layer) {
                    let Condition { forest, intervention, .. } = &conditions[index];
                    resids.insert(index, intervention.apply(&clean(layer, *forest)?)?);
                }
                Ok(())
            };
            begin(first, &mut resids)?;
            resids.iter().try_for_each(|(&index, resid)| visit(index, first, resid))?;
            cost.passes += 1;
            each_block(checkpoint, compute, first + 1..=last, &mut |layer, block| {
                for (&index, resid) in &mut resids {
                    let forest = conditions[index].forest;
                    advance(block, resid, &prepared[forest].plan, &prepared[forest].rotations)?;
                    cost.node_blocks += forests[forest].len();
                }
                begin(layer, &mut resids)?;
                resids.iter().try_for_each(|(&index, resid)| visit(index, layer, resid))
            })?;
        }
        Ok(cost)
    }
}

/// Consecutive conditions whose sizes fit `budget` together, or one that does not fit by itself.
fn passes(sizes: &[usize], budget: usize) -> Vec<Range<usize>> {
    let (mut ranges, mut start, mut sum) = (Vec::new(), 0, 0usize);
    for (index, size) in sizes.iter().enumerate() {
        if index > start && sum.saturating_add(*size) > budget {
            ranges.push(start..index);
            (start, sum) = (index, 0);
        }
        sum = sum.saturating_add(*size);
    }
    if start < sizes.len() {
        ranges.push(start..sizes.len());
    }
    ranges
}
