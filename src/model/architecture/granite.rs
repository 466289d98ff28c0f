//! Granite 3: Llama with four multipliers: of embeddings, of what sublayers add, of attention's scores and of logits.

use super::{Architecture, parts};
use crate::model::config::{DecoderConfig, Defaults};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::rope::{LLAMA, Rope};
use anyhow::{Result, ensure};
use tch::Tensor;

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["GraniteForCausalLM"],
    model_type: "granite",
    layout: parts::LAYOUT,
    config,
    embed,
    block: parts::block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `GraniteConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults::LLAMA)?.with_activation_and_bias(keys)?;
    let divisor = keys.number_or("logits_scaling", 1.0)?;
    ensure!(divisor != 0.0, "logits_scaling: found 0, expected a number to divide logits by");
    Ok(DecoderConfig {
        mlp_bias: keys.flag_or("mlp_bias", false)?,
        embed_scale: keys.number_or("embedding_multiplier", 1.0)?,
        residual_scale: keys.number_or("residual_multiplier", 1.0)?,
        score_scale: keys.number_or("attention_multiplier", 1.0)?,
        logit_scale: 1.0 / divisor,
        ropes: vec![Rope::parse(keys, decoder.d_head, &LLAMA)?],
        ..decoder
    })
}

fn embed(loader: &Loader, tokens: &[i64], positions: &[i64]) -> Result<Tensor> {
    Ok(parts::embed(loader, tokens, positions)?.f_mul_scalar(loader.config.embed_scale)?)
}
