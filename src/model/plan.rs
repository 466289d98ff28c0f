//! A forest cut into chunks of consecutive nodes, and chunks into tiles, with everything on the device that attention needs.
//!
//! Projections and MLPs run on a whole chunk, since large products are fast products; attention runs tile by tile, since most of
//! what it computes against its own tile is masked. Depth-first order makes the keys from outside a tile exactly the path to its
//! first node. So a block works through the tiles in order and carries only that path's keys and values along: memory is one
//! chunk's, not the forest's.

use super::rope::Rope;
use crate::prompt::forest::Forest;
use anyhow::Result;
use std::ops::Range;
use tch::{Device, Kind, Tensor};

/// Keys and values of nodes, each `[kv_head, node, d_head]`, after rotation.
pub struct KeysValues {
    pub keys: Tensor,
    pub values: Tensor,
}

impl KeysValues {
    /// These, followed by others.
    pub fn then(&self, next: &Self) -> Result<Self> {
        Ok(Self { keys: Tensor::f_cat(&[&self.keys, &next.keys], 1)?, values: Tensor::f_cat(&[&self.values, &next.values], 1)? })
    }
}

/// Chunks of a forest on a device.
pub struct Plan {
    pub chunks: Vec<Chunk>,
}

/// Consecutive nodes `start .. start + len`.
pub struct Chunk {
    pub start: i64,
    pub len: i64,
    pub tiles: Vec<Tile>,
    /// Position per node: `[node]`.
    depth: Tensor,
}

/// Consecutive nodes of a chunk whose attention is computed together.
pub struct Tile {
    /// First node, counted from the chunk's.
    pub start: i64,
    pub len: i64,
    /// Node per key, past first: `[1, key]`.
    key: Tensor,
    /// End of the key's subtree: `[1, key]`.
    key_end: Tensor,
    /// Node per query: `[query, 1]`.
    query: Tensor,
    /// Positions of keys and queries: `[1, key]` and `[query, 1]`.
    key_depth: Tensor,
    query_depth: Tensor,
    /// Index among the keys of each node on the path to the next tile's first node; `None` when that is a root.
    carry: Option<Tensor>,
}

impl Plan {
    /// Cuts `forest` into chunks of at most `chunk` nodes, and these into tiles of at most `tile`.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(forest: &Forest, chunk: usize, tile: usize, device: Device) -> Result<Self> {
        let mut past = Vec::new();
        let mut chunks = Vec::new();
        for start in (0..forest.len()).step_by(chunk.max(1)) {
            let end = (start + chunk.max(1)).min(forest.len());
            let mut tiles = Vec::new();
            for first in (start..end).step_by(tile.max(1)) {
                let (tile, next) = Tile::new(forest, start, first..(first + tile.max(1)).min(end), &past, device)?;
                tiles.push(tile);
                past = next;
            }
            let depth = Tensor::f_from_slice(&forest.depth[start..end])?.f_to_device(device)?;
            chunks.push(Chunk { start: start as i64, len: (end - start) as i64, tiles, depth });
        }
        Ok(Self { chunks })
    }
}

impl Tile {
    /// The tile of `nodes` in the chunk that begins at `chunk`, with the path to the first node after it. `past` is the path to its
    /// own first node.
    fn new(forest: &Forest, chunk: usize, nodes: Range<usize>, past: &[usize], device: Device) -> Result<(Self, Vec<usize>)> {
        let keys: Vec<usize> = past.iter().copied().chain(nodes.clone()).collect();
        let end = nodes.end;
        let next: Vec<usize> =
            if end < forest.len() { forest.path(end).into_iter().take_while(|&node| node < end).collect() } else { Vec::new() };
        let carry: Vec<i64> = next.iter().filter_map(|node| keys.binary_search(node).ok()).map(|index| index as i64).collect();
        let vector = |values: Vec<i64>| Tensor::f_from_slice(&values)?.f_to_device(device);
        let tile = Self {
            start: (nodes.start - chunk) as i64,
            len: nodes.len() as i64,
            key: vector(keys.iter().map(|&node| node as i64).collect())?.f_unsqueeze(0)?,
            key_end: vector(keys.iter().map(|&node| forest.subtree_end[node]).collect())?.f_unsqueeze(0)?,
            key_depth: vector(keys.iter().map(|&node| forest.depth[node]).collect())?.f_unsqueeze(0)?,
            query_depth: vector(forest.depth[nodes.clone()].to_vec())?.f_unsqueeze(1)?,
            query: vector(nodes.map(|node| node as i64).collect())?.f_unsqueeze(1)?,
            carry: if carry.is_empty() { None } else { Some(vector(carry)?) },
        };
        Ok((tile, next))
    }

    /// Which keys a query may read: `[query, key]`, true where the key is the query or an ancestor of it, and fewer than `window`
    /// positions before it.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn visible(&self, window: Option<i64>) -> Result<Tensor> {
        let ancestor = self.query.f_ge_tensor(&self.key)?.f_logical_and(&self.query.f_lt_tensor(&self.key_end)?)?;
        let Some(window) = window else { return Ok(ancestor) };
        Ok(ancestor.f_logical_and(&self.query_depth.f_sub(&self.key_depth)?.f_lt(window)?)?)
    }

    /// Keys and values of the path to the next tile.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn carry(&self, kv: &KeysValues) -> Result<Option<KeysValues>> {
        let Some(carry) = &self.carry else { return Ok(None) };
        Ok(Some(KeysValues { keys: kv.keys.f_index_select(1, carry)?, values: kv.values.f_index_select(1, carry)? }))
    }
}

impl Chunk {
    /// Rotary tables for the chunk's positions, one for each of the model's ropes.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn rotations(&self, ropes: &[Rope], kind: Kind) -> Result<Vec<Rotation>> {
        ropes.iter().map(|rope| Rotation::new(rope, &self.depth, kind)).collect()
    }
}

/// Cosines and sines per node, `[node, rotated]`, in the half-split layout of transformers' `rotate_half`.
pub struct Rotation {
    cos: Tensor,
    sin: Tensor,
}

impl Rotation {
    /// The table for `positions: [node]` (i64).
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(rope: &Rope, positions: &Tensor, kind: Kind) -> Result<Self> {
        let freq = Tensor::f_from_slice(&rope.inv_freq)?.f_to_device(positions.device())?;
        let angle = positions.f_to_kind(Kind::Float)?.f_unsqueeze(1)?.f_mul(&freq.f_unsqueeze(0)?)?;
        let angle = Tensor::f_cat(&[&angle, &angle], 1)?;
        let scale = f64::from(rope.scale);
        Ok(Self { cos: angle.f_cos()?.f_mul_scalar(scale)?.f_to_kind(kind)?, sin: angle.f_sin()?.f_mul_scalar(scale)?.f_to_kind(kind)? })
    }

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
