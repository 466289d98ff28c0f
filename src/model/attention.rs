//! Causal self-attention of a chunk of forest nodes against their ancestors.
//!
//! There is no batch dimension. Keys are those of the path to a tile's first node (`past`) followed by the tile's own;
//! a key is visible to a query exactly when it is the query itself or an ancestor, that is, when the query lies in the
//! key's subtree, and, in layers with a window, the key is not too far above.

use super::config::{DecoderConfig, View};
use super::layers::{Linear, Norm};
use super::plan::{Chunk, KeysValues, Rotation};
use anyhow::Result;
use tch::{Kind, Tensor};

/// What attention makes of some nodes before they look at each other.
pub struct Heads {
    /// `[head, node, d_head]`.
    pub queries: Tensor,
    /// `[kv_head, node, d_head]` each.
    pub own: KeysValues,
}

/// Multi-head attention, grouped-query when there are fewer key heads than query heads.
pub struct Attention {
    /// Query, key and value rows stacked: `[(n_heads + 2 n_kv_heads) d_head, d_model]`.
    pub qkv: Linear,
    pub out: Linear,
    /// Norms of queries and keys, over one head or over all of them: as wide as their weights.
    pub q_norm: Option<Norm>,
    pub k_norm: Option<Norm>,
    pub n_heads: i64,
    pub n_kv_heads: i64,
    pub d_head: i64,
    pub view: View,
    /// Factor of scores, and their bound.
    pub score_scale: f64,
    pub score_cap: Option<f64>,
    /// Bound on the absolute value of queries, keys and values.
    pub clip_qkv: Option<f64>,
}

impl Attention {
    /// Of the block `index` (0-based), with the sizes and switches of `config` and no query or key norm.
    pub fn new(config: &DecoderConfig, index: usize, qkv: Linear, out: Linear) -> Self {
        let DecoderConfig { n_heads, n_kv_heads, d_head, score_scale, score_cap, clip_qkv, .. } = *config;
        let score_scale = if config.score_by_layer { score_scale / (index + 1) as f64 } else { score_scale };
        let view = config.views[index];
        Self { qkv, out, q_norm: None, k_norm: None, n_heads, n_kv_heads, d_head, view, score_scale, score_cap, clip_qkv }
    }

    /// `x: [node, d_model]`, the normed input of the chunk's nodes; `past` the path to its first one; `rotations` one for each of the
    /// model's ropes. Returns `[node, d_model]` and the keys and values of the path to the next chunk.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn forward(
        &self,
        x: &Tensor,
        past: Option<KeysValues>,
        chunk: &Chunk,
        rotations: &[Rotation],
    ) -> Result<(Tensor, Option<KeysValues>)> {
        self.over_chunk(&self.project(x, rotations)?, past, chunk)
    }

    /// Queries, keys and values of `x: [node, d_model]`, normed and rotated to each node's position.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn project(&self, x: &Tensor, rotations: &[Rotation]) -> Result<Heads> {
        let (d_q, d_kv) = (self.n_heads * self.d_head, self.n_kv_heads * self.d_head);
        let qkv = self.qkv.forward(x)?.f_split_with_sizes([d_q, d_kv, d_kv], 1)?;
        let (mut queries, mut keys) = (self.heads(&qkv[0], &self.q_norm)?, self.heads(&qkv[1], &self.k_norm)?);
        let values = self.heads(&qkv[2], &None)?;
        if let Some(rope) = self.view.rope {
            (queries, keys) = (rotations[rope].apply(&queries)?, rotations[rope].apply(&keys)?);
        }
        Ok(Heads { queries, own: KeysValues { keys, values } })
    }

    /// As [`Attention::forward`], for nodes that are projected already.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn over_chunk(&self, heads: &Heads, past: Option<KeysValues>, chunk: &Chunk) -> Result<(Tensor, Option<KeysValues>)> {
        let Heads { queries, own: KeysValues { keys, values } } = heads;
        let mut past = past;
        let mut mixed = Vec::with_capacity(chunk.tiles.len());
        for tile in &chunk.tiles {
            let of_tile = |x: &Tensor| x.f_narrow(1, tile.start, tile.len);
            let mut kv = KeysValues { keys: of_tile(keys)?, values: of_tile(values)? };
            if let Some(past) = &past {
                kv = past.then(&kv)?;
            }
            mixed.push(self.over_tile(&of_tile(queries)?, &kv, &tile.visible(self.view.window)?)?);
            past = tile.carry(&kv)?;
        }
        Ok((self.out.forward(&Tensor::f_cat(&mixed, 0)?)?, past))
    }

    /// Normed and bounded: `[node, n d_head] -> [n, node, d_head]`.
    fn heads(&self, x: &Tensor, norm: &Option<Norm>) -> Result<Tensor> {
        let nodes = x.size()[0];
        let mut heads = x.f_view([nodes, -1, self.d_head])?;
        if let Some(norm) = norm {
            heads = norm.forward(&x.f_view([nodes, -1, norm.weight.size()[0]])?)?.f_view([nodes, -1, self.d_head])?;
        }
        if let Some(bound) = self.clip_qkv {
            heads = heads.f_clamp(-bound, bound)?;
        }
        Ok(heads.f_transpose(0, 1)?)
    }

    /// `queries: [head, query, d_head] -> [query, n_heads d_head]`, one `visible: [query, key]` for all heads.
    fn over_tile(&self, queries: &Tensor, kv: &KeysValues, visible: &Tensor) -> Result<Tensor> {
        let mixed = self.mix(&queries.f_unsqueeze(0)?, &self.per_query_head(&kv.keys)?, &self.per_query_head(&kv.values)?, visible)?;
        Ok(mixed.f_squeeze_dim(0)?.f_transpose(0, 1)?.f_reshape([-1, self.n_heads * self.d_head])?)
    }

    /// One new token per row against the row's cache: `queries: [head, row, d_head]`, `kv: [row, kv_head, slot, d_head]` each and
    /// `visible: [row, 1, 1, slot]` give `[row, d_model]`. The query heads that share a key head are the queries of one product, so keys
    /// are not repeated.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn over_cache(&self, queries: &Tensor, kv: &KeysValues, visible: &Tensor) -> Result<Tensor> {
        let (rows, group) = (queries.size()[1], self.n_heads / self.n_kv_heads);
        let queries = queries.f_view([self.n_kv_heads, group, rows, self.d_head])?.f_permute([2, 0, 1, 3])?;
        let mixed = self.mix(&queries, &kv.keys, &kv.values, visible)?;
        self.out.forward(&mixed.f_reshape([rows, self.n_heads * self.d_head])?)
    }

    /// Values of the visible keys, weighted: `queries: [batch, head, query, d_head]`, and keys and values `[batch, head, key, d_head]`,
    /// give `[batch, head, query, d_head]`.
    fn mix(&self, queries: &Tensor, keys: &Tensor, values: &Tensor, visible: &Tensor) -> Result<Tensor> {
        if let Some(cap) = self.score_cap {
            let scores = queries.f_matmul(&keys.f_transpose(2, 3)?)?.f_mul_scalar(self.score_scale)?;
            let scores = scores.f_div_scalar(cap)?.f_tanh()?.f_mul_scalar(cap)?;
            let scores = scores.f_masked_fill(&visible.f_logical_not()?, f64::NEG_INFINITY)?;
            let wide = if scores.kind() == Kind::Double { Kind::Double } else { Kind::Float };
            return Ok(scores.f_softmax(-1, wide)?.f_to_kind(values.kind())?.f_matmul(values)?);
        }
        let scale = Some(self.score_scale);
        Ok(Tensor::f_scaled_dot_product_attention(queries, keys, values, Some(visible), 0.0, false, scale, false)?)
    }

    /// `[kv_head, key, d_head] -> [1, head, key, d_head]`: each key head serves a run of consecutive query heads.
    fn per_query_head(&self, x: &Tensor) -> Result<Tensor> {
        let group = self.n_heads / self.n_kv_heads;
        let (keys, d_head) = (x.size()[1], self.d_head);
        let grouped = x.f_unsqueeze(1)?.f_expand([self.n_kv_heads, group, keys, d_head], false)?;
        Ok(grouped.f_reshape([1, self.n_heads, keys, d_head])?)
    }
}
