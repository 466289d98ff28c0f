//! GPT-2: learned positions, layer norms, biases everywhere, and weights stored transposed.

use super::{Architecture, Ends, embed_rows, rows};
use crate::checkpoint::names::Layout;
use crate::model::attention::Attention;
use crate::model::block::Block;
use crate::model::config::{Activation, DecoderConfig, NormKind, Sizes, View};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::mixture::FeedForward;
use crate::model::mlp::Mlp;
use anyhow::{Result, ensure};
use tch::Tensor;

pub const ARCHITECTURE: Architecture =
    Architecture { names: &["GPT2LMHeadModel"], model_type: "gpt2", layout: LAYOUT, config, embed, block, ends };

const EMBED: &str = "transformer.wte.weight";

const LAYOUT: Layout =
    Layout { backbone: "transformer", embed: "wte", blocks: "h", others: &["wpe", "ln_f"], head: "lm_head", renamed: &[] };

/// Defaults are those of transformers' `GPT2Config`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let (d_model, n_heads, n_layers) = (keys.size("n_embd")?, keys.size("n_head")?, keys.size("n_layer")?);
    ensure!(d_model % n_heads == 0, "n_embd ({d_model}) must be a multiple of n_head ({n_heads})");
    ensure!(n_layers <= 10_000, "n_layer: found {n_layers}, expected at most 10000");
    keys.never("add_cross_attention", "cross-attention")?;
    // The first changes only where half precision is rounded, the others are of a model before this one.
    keys.unused(&["reorder_and_upcast_attn", "n_special", "predict_special_tokens"]);
    let (d_head, n_layers) = (d_model / n_heads, n_layers as usize);
    let (d_mlp, d_vocab) = (keys.size_or("n_inner", 4 * d_model)?, keys.size("vocab_size")?);
    let plain = DecoderConfig::plain(Sizes { d_model, n_layers, n_heads, n_kv_heads: n_heads, d_head, d_mlp, d_vocab });
    Ok(DecoderConfig {
        norm: NormKind::Layer,
        norm_eps: keys.number_or("layer_norm_epsilon", 1e-5)?,
        activation: Activation::parse(keys.text_or("activation_function", "gelu_new")?)?,
        qkv_bias: true,
        out_bias: true,
        mlp_bias: true,
        tied: keys.flag_or("tie_word_embeddings", true)?,
        views: vec![View { window: None, rope: None }; n_layers],
        longest: Some(keys.size_or("n_positions", 1024)?),
        score_scale: if keys.flag_or("scale_attn_weights", true)? { plain.score_scale } else { 1.0 },
        score_by_layer: keys.flag_or("scale_attn_by_inverse_layer_idx", false)?,
        ..plain
    })
}

/// Token embedding plus position embedding.
fn embed(loader: &Loader, tokens: &[i64], positions: &[i64]) -> Result<Tensor> {
    let c = loader.config;
    let places = c.longest.unwrap_or_default();
    let positions = rows(loader, "transformer.wpe.weight", places, positions)?;
    Ok(embed_rows(loader, EMBED, tokens)?.f_add(&positions)?)
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let c = loader.config;
    let at = |name: &str| format!("transformer.h.{index}.{name}");
    let mlp = Mlp {
        up: loader.transposed(&at("mlp.c_fc"), c.d_mlp, c.d_model)?,
        down: loader.transposed(&at("mlp.c_proj"), c.d_model, c.d_mlp)?,
        gated: false,
        activation: c.activation,
    };
    let qkv = loader.transposed(&at("attn.c_attn"), 3 * c.d_model, c.d_model)?;
    Ok(Block {
        ln1: Some(loader.norm(&at("ln_1"), c.d_model)?),
        attention: Attention::new(c, index, qkv, loader.transposed(&at("attn.c_proj"), c.d_model, c.d_model)?),
        ln1_post: None,
        ln2: Some(loader.norm(&at("ln_2"), c.d_model)?),
        mlp: FeedForward::Dense(mlp),
        ln2_post: None,
        parallel: false,
        residual_scale: c.residual_scale,
    })
}

fn ends(loader: &Loader) -> Result<Ends> {
    Ok(Ends { ln_final: loader.norm("transformer.ln_f", loader.config.d_model)? })
}
