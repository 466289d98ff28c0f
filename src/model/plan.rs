//! A forest cut into chunks of consecutive nodes, with everything on the device that attention needs per chunk.
//!
//! Depth-first order makes the keys from outside a chunk exactly the path to its first node. So a block works through the
//! chunks in order and carries only that path's keys and values along: memory is one chunk's, not the forest's.

use super::attention::KeysValues;
use super::config::Rope;
use crate::prompt::forest::Forest;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// Chunks of a forest on a device.
pub struct Plan {
    pub chunks: Vec<Chunk>,
}

/// Consecutive nodes `start .. start + len`.
pub struct Chunk {
    pub start: i64,
    pub len: i64,
    /// Node per key, past first: `[1, key]`.
    key: Tensor,
    /// End of the key's subtree: `[1, key]`.
    key_end: Tensor,
    /// Node per query: `[query, 1]`.
    query: Tensor,
    /// Position per query: `[query]`.
    depth: Tensor,
    /// Index among the keys of each node on the path to the next chunk's first node; `None` when that is a root.
    carry: Option<Tensor>,
}

impl Plan {
    /// Cuts `forest` into chunks of at most `size` nodes.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(forest: &Forest, size: usize, device: Device) -> Result<Self> {
        let mut chunks = Vec::new();
        let mut past: Vec<usize> = Vec::new();
        let mut start = 0;
        while start < forest.len() {
            let end = (start + size.max(1)).min(forest.len());
            let keys: Vec<usize> = past.iter().copied().chain(start..end).collect();
            // The path to the next chunk's first node, without that node.
            let next: Vec<usize> =
                if end < forest.len() { forest.path(end).into_iter().take_while(|&node| node < end).collect() } else { Vec::new() };
            let carry: Vec<i64> = next.iter().filter_map(|node| keys.binary_search(node).ok()).map(|index| index as i64).collect();
            let vector = |values: Vec<i64>| Tensor::f_from_slice(&values)?.f_to_device(device);
            chunks.push(Chunk {
                start: start as i64,
                len: (end - start) as i64,
                key: vector(keys.iter().map(|&node| node as i64).collect())?.f_unsqueeze(0)?,
                key_end: vector(keys.iter().map(|&node| forest.subtree_end[node]).collect())?.f_unsqueeze(0)?,
                query: vector((start as i64..end as i64).collect())?.f_unsqueeze(1)?,
                depth: vector(forest.depth[start..end].to_vec())?,
                carry: if carry.is_empty() { None } else { Some(vector(carry)?) },
            });
            past = next;
            start = end;
        }
        Ok(Self { chunks })
    }
}

impl Chunk {
    /// Which keys a query may read: `[query, key]`, true where the key is the query or an ancestor of it.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn visible(&self) -> Result<Tensor> {
        Ok(self.query.f_ge_tensor(&self.key)?.f_logical_and(&self.query.f_lt_tensor(&self.key_end)?)?)
    }

    /// Keys and values of the path to the next chunk.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn carry(&self, kv: &KeysValues) -> Result<Option<KeysValues>> {
        let Some(carry) = &self.carry else { return Ok(None) };
        Ok(Some(KeysValues { keys: kv.keys.f_index_select(1, carry)?, values: kv.values.f_index_select(1, carry)? }))
    }

    /// Rotary tables for the chunk's positions.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn rotation(&self, rope: &Rope, kind: Kind) -> Result<Rotation> {
        let freq = Tensor::f_from_slice(&rope.inv_freq)?.f_to_device(self.depth.device())?;
        let angle = self.depth.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&freq.f_unsqueeze(0)?)?;
        let angle = Tensor::f_cat(&[&angle, &angle], 1)?;
        let scale = f64::from(rope.scale);
        Ok(Rotation {
            cos: angle.f_cos()?.f_mul_scalar(scale)?.f_to_kind(kind)?,
            sin: angle.f_sin()?.f_mul_scalar(scale)?.f_to_kind(kind)?,
        })
    }
}

/// Cosines and sines per node, `[node, rotated]`, in the half-split layout of transformers' `rotate_half`.
pub struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// Rotates the first dimensions of `x: [head, node, d_head]`.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let rotated = self.cos.size()[1];
        let pass = x.size()[2] - rotated;
        let head = x.f_narrow(2, 0, rotated)?;
        let halves = head.f_chunk(2, -1)?;
        let turned = Tensor::f_cat(&[&halves[1].f_neg()?, &halves[0]], -1)?;
        let head = head.f_mul(&self.cos)?.f_add(&turned.f_mul(&self.sin)?)?;
        if pass == 0 { Ok(head) } else { Ok(Tensor::f_cat(&[&head, &x.f_narrow(2, rotated, pass)?], -1)?) }
    }
}
