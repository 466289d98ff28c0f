//! What most families share: tensor names of Llama, norms before each sublayer, separate projections, gated MLPs, and the keys
//! that describe sliding windows and mixtures.

use super::{Ends, embed_rows};
use crate::checkpoint::names::Layout;
use crate::model::attention::Attention;
use crate::model::block::Block;
use crate::model::config::{DecoderConfig, Experts, View};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::mixture::{FeedForward, Mixture};
use crate::model::mlp::Mlp;
use anyhow::{Result, ensure};
use tch::Tensor;

/// Where most families keep the parts of a model.
pub const LAYOUT: Layout =
    Layout { backbone: "model", embed: "embed_tokens", blocks: "layers", others: &["norm"], head: "lm_head", renamed: &[] };

/// Name of the embedding.
pub const EMBED: &str = "model.embed_tokens.weight";

/// Name of a tensor or layer of a block.
pub fn at(index: usize, name: &str) -> String {
    format!("model.layers.{index}.{name}")
}

/// Rows of the embedding.
///
/// # Errors
/// The tensor is missing or misshapen, or a token id is outside it.
pub fn embed(loader: &Loader, tokens: &[i64], _positions: &[i64]) -> Result<Tensor> {
    embed_rows(loader, EMBED, tokens)
}

/// The final norm.
///
/// # Errors
/// The norm is missing or misshapen.
pub fn ends(loader: &Loader) -> Result<Ends> {
    Ok(Ends { ln_final: loader.norm("model.norm", loader.config.d_model)? })
}

/// A block with a norm before each sublayer and a gated MLP.
///
/// # Errors
/// A tensor is missing or misshapen.
pub fn block(loader: &Loader, index: usize) -> Result<Block> {
    before(loader, attention(loader, index, &at(index, "self_attn"))?, gated(loader, &at(index, "mlp"))?, index)
}

/// A block with a norm before each sublayer.
///
/// # Errors
/// A norm is missing or misshapen.
pub fn before(loader: &Loader, attention: Attention, mlp: FeedForward, index: usize) -> Result<Block> {
    let c = loader.config;
    Ok(Block {
        ln1: Some(loader.norm(&at(index, "input_layernorm"), c.d_model)?),
        attention,
        ln1_post: None,
        ln2: Some(loader.norm(&at(index, "post_attention_layernorm"), c.d_model)?),
        mlp,
        ln2_post: None,
        parallel: false,
        residual_scale: c.residual_scale,
    })
}

/// A block with a norm after each sublayer (OLMo 2): what is added to the residual stream is normed, what is read from it is not.
///
/// # Errors
/// A tensor is missing or misshapen.
pub fn after(loader: &Loader, attention: Attention, mlp: FeedForward, index: usize) -> Result<Block> {
    let c = loader.config;
    Ok(Block {
        ln1: None,
        attention,
        ln1_post: Some(loader.norm(&at(index, "post_attention_layernorm"), c.d_model)?),
        ln2: None,
        mlp,
        ln2_post: Some(loader.norm(&at(index, "post_feedforward_layernorm"), c.d_model)?),
        parallel: false,
        residual_scale: c.residual_scale,
    })
}

/// A block with a norm before and after each sublayer (Gemma). `at` names a layer of the block.
///
/// # Errors
/// A tensor is missing or misshapen.
pub fn around(loader: &Loader, attention: Attention, mlp: FeedForward, at: &dyn Fn(&str) -> String) -> Result<Block> {
    let c = loader.config;
    let norm = |name: &str| loader.norm(&at(name), c.d_model).map(Some);
    Ok(Block {
        ln1: norm("input_layernorm")?,
        attention,
        ln1_post: norm("post_attention_layernorm")?,
        ln2: norm("pre_feedforward_layernorm")?,
        mlp,
        ln2_post: norm("post_feedforward_layernorm")?,
        parallel: false,
        residual_scale: c.residual_scale,
    })
}

/// Attention with separate projections `<name>.{q,k,v,o}_proj`.
///
/// # Errors
/// A tensor is missing or misshapen.
pub fn attention(loader: &Loader, index: usize, name: &str) -> Result<Attention> {
    let c = loader.config;
    let (d_q, d_kv) = (c.n_heads * c.d_head, c.n_kv_heads * c.d_head);
    let qkv = [(format!("{name}.q_proj"), d_q), (format!("{name}.k_proj"), d_kv), (format!("{name}.v_proj"), d_kv)];
    let out = loader.linear(&format!("{name}.o_proj"), c.d_model, d_q, c.out_bias)?;
    Ok(Attention::new(c, index, loader.fused(&qkv, c.d_model, c.qkv_bias)?, out))
}

/// As [`attention`], with norms of queries and keys, which are as wide as `widths`.
///
/// # Errors
/// As [`attention`].
pub fn attention_qk_normed(loader: &Loader, index: usize, widths: (i64, i64)) -> Result<Attention> {
    let mut attention = attention(loader, index, &at(index, "self_attn"))?;
    attention.q_norm = Some(loader.norm(&at(index, "self_attn.q_norm"), widths.0)?);
    attention.k_norm = Some(loader.norm(&at(index, "self_attn.k_norm"), widths.1)?);
    Ok(attention)
}

/// Widths of query and key norms that go over one head.
pub fn per_head(config: &DecoderConfig) -> (i64, i64) {
    (config.d_head, config.d_head)
}

/// Widths of query and key norms that go over all heads.
pub fn all_heads(config: &DecoderConfig) -> (i64, i64) {
    (config.n_heads * config.d_head, config.n_kv_heads * config.d_head)
}

/// A gated MLP with projections `<name>.{gate,up,down}_proj`.
///
/// # Errors
/// A tensor is missing or misshapen.
pub fn gated(loader: &Loader, name: &str) -> Result<FeedForward> {
    let c = loader.config;
    let up = loader.fused(&[(format!("{name}.gate_proj"), c.d_mlp), (format!("{name}.up_proj"), c.d_mlp)], c.d_model, c.mlp_bias)?;
    let down = loader.linear(&format!("{name}.down_proj"), c.d_model, c.d_mlp, c.mlp_bias)?;
    Ok(FeedForward::Dense(Mlp { up, down, gated: true, activation: c.activation }))
}

/// A mixture of gated MLPs: `<name>.gate` is the router; experts are `<name>.experts.<i>.{gate,up,down}_proj`, or stacked as
/// `<name>.experts.{gate_up_proj,down_proj}`, as transformers 5 holds them in memory.
///
/// # Errors
/// A tensor is missing or misshapen.
pub fn mixture(loader: &Loader, experts: &Experts, name: &str) -> Result<FeedForward> {
    let c = loader.config;
    let Experts { n, n_active, d_mlp, normalized, .. } = *experts;
    let router = loader.tensor(&format!("{name}.gate.weight"), &[n, c.d_model])?;
    let mut mixture = Mixture { router, experts: Vec::with_capacity(n as usize), n_active, normalized };
    let stacked = format!("{name}.experts.gate_up_proj");
    if loader.weights.contains(&stacked) {
        let up = loader.tensor(&stacked, &[n, 2 * d_mlp, c.d_model])?;
        let down = loader.tensor(&format!("{name}.experts.down_proj"), &[n, c.d_model, d_mlp])?;
        for expert in 0..n {
            mixture.push(up.f_get(expert)?, down.f_get(expert)?, c.activation);
        }
        return Ok(FeedForward::Mixture(mixture));
    }
    for expert in 0..n {
        let [gate, up, down] = ["gate_proj", "up_proj", "down_proj"].map(|part| format!("{name}.experts.{expert}.{part}"));
        let up = loader.fused(&[(gate, d_mlp), (up, d_mlp)], c.d_model, false)?;
        mixture.push(up.weight, loader.linear(&down, c.d_model, d_mlp, false)?.weight, c.activation);
    }
    Ok(FeedForward::Mixture(mixture))
}

/// `sliding_window`, which null switches off; `default` where the key is absent.
///
/// # Errors
/// Not a positive integer.
pub fn window(keys: &Keys, default: Option<i64>) -> Result<Option<i64>> {
    let key = "sliding_window";
    if keys.get(key).is_none() {
        return Ok(if keys.stated(key) { None } else { default });
    }
    keys.size(key).map(Some)
}

/// Views of layers whose type is given by `layer_types`, or by `sliding(index)` where that key is absent. `rope` is the index of
/// the rotary angles for layers that see everything, and for those with a window.
///
/// # Errors
/// `layer_types` has another length or an unknown type, or a layer slides without a window.
pub fn views(
    keys: &Keys,
    n_layers: usize,
    window: Option<i64>,
    rope: (usize, usize),
    sliding: impl Fn(usize) -> bool,
) -> Result<Vec<View>> {
    let types = keys.list("layer_types", "a list of full_attention and sliding_attention", |value| match value.as_str() {
        Some("full_attention") => Some(false),
        Some("sliding_attention") => Some(true),
        _ => None,
    })?;
    let types = types.unwrap_or_else(|| (0..n_layers).map(sliding).collect());
    ensure!(types.len() == n_layers, "layer_types: found {} types, expected {n_layers}, one per layer", types.len());
    ensure!(
        window.is_some() || !types.contains(&true),
        "layer_types: found sliding_attention, but no window is in use: give sliding_window (and use_sliding_window where the family has it)"
    );
    let view = |&slides: &bool| if slides { View { window, rope: Some(rope.1) } } else { View { window: None, rope: Some(rope.0) } };
    Ok(types.iter().map(view).collect())
}
