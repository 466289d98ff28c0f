//! Gemma 2: norms around each sublayer, weighted by one plus what is stored, bounded scores and logits, scaled embeddings, and a
//! sliding window in every other layer.

use super::{Architecture, embed_rows, parts};
use crate::model::block::Block;
use crate::model::config::{Activation, DecoderConfig, Defaults, NormKind, Sizes};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::rope::{LLAMA, Rope};
use anyhow::{Result, ensure};
use tch::Tensor;

pub const ARCHITECTURE: Architecture =
    Architecture { names: &["Gemma2ForCausalLM"], model_type: "gemma2", layout: parts::LAYOUT, config, embed, block, ends: parts::ends };

/// Defaults are those of transformers' `Gemma2Config`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = read(keys, None)?;
    let window = parts::window(keys, Some(4096))?;
    Ok(DecoderConfig {
        score_cap: keys.switch("attn_logit_softcapping", Some(50.0))?,
        logit_cap: keys.switch("final_logit_softcapping", Some(30.0))?,
        views: parts::views(keys, decoder.n_layers, window, (0, 0), |index| index % 2 == 0)?,
        ropes: vec![Rope::parse(keys, decoder.d_head, &LLAMA)?],
        ..decoder
    })
}

/// What Gemma 2 and 3 share. `sizes` are what the configuration's class defaults sizes to.
///
/// # Errors
/// As [`DecoderConfig::read`]; also attention that is not causal.
pub fn read(keys: &Keys, sizes: Option<Sizes>) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { norm_eps: 1e-6, tied: true, n_kv_heads: Some(4), d_head: Some(256), sizes })?;
    keys.never("use_bidirectional_attention", "attention to later tokens")?;
    // Beside `hidden_activation`, which is the one that counts.
    keys.unused(&["hidden_act"]);
    let scalar = keys.number_or("query_pre_attn_scalar", 256.0)?;
    ensure!(scalar > 0.0, "query_pre_attn_scalar: found {scalar}, expected a positive number");
    let bias = keys.flag_or("attention_bias", false)?;
    Ok(DecoderConfig {
        norm: NormKind::RmsPlusOne,
        activation: Activation::parse(keys.text_or("hidden_activation", "gelu_pytorch_tanh")?)?,
        qkv_bias: bias,
        out_bias: bias,
        embed_scale: (decoder.d_model as f64).sqrt(),
        score_scale: scalar.powf(-0.5),
        ..decoder
    })
}

fn embed(loader: &Loader, tokens: &[i64], _positions: &[i64]) -> Result<Tensor> {
    scaled_embed(loader, parts::EMBED, tokens)
}

/// Rows of the embedding `name` times the scale of embeddings, which transformers rounds to the model's dtype first.
///
/// # Errors
/// The tensor is missing or misshapen, or a token id is outside it.
pub fn scaled_embed(loader: &Loader, name: &str, tokens: &[i64]) -> Result<Tensor> {
    let scale = Tensor::from(loader.config.embed_scale).f_to_kind(loader.kind)?.f_double_value(&[])?;
    Ok(embed_rows(loader, name, tokens)?.f_mul_scalar(scale)?)
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let at = |name: &str| parts::at(index, name);
    parts::around(loader, parts::attention(loader, index, &at("self_attn"))?, parts::gated(loader, &at("mlp"))?, &at)
}
