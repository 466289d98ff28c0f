//! Gemma 3: Gemma 2 without bounds on scores, with queries and keys normed per head, and rotary angles per layer type. The text
//! half of the multimodal models is read, too.

use super::{Architecture, gemma2, parts};
use crate::model::block::Block;
use crate::model::config::{DecoderConfig, Sizes};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::rope::{Dialect, LLAMA, PerType};
use anyhow::{Context, Result, ensure};
use tch::Tensor;

pub const TEXT: Architecture = Architecture {
    names: &["Gemma3ForCausalLM"],
    model_type: "gemma3_text",
    layout: parts::LAYOUT,
    config,
    embed,
    block,
    ends: parts::ends,
};

pub const MULTIMODAL: Architecture = Architecture {
    names: &["Gemma3ForConditionalGeneration"],
    model_type: "gemma3",
    layout: parts::LAYOUT,
    config: text_config,
    embed,
    block,
    ends: parts::ends,
};

const GLOBAL: Dialect = Dialect { base: 1e6, ..LLAMA };
const LOCAL: Dialect = Dialect { base_key: "rope_local_base_freq", base: 1e4, ..LLAMA };

/// Published configurations leave out what their model has in common with transformers' `Gemma3TextConfig`.
const SIZES: Sizes = Sizes { d_model: 2304, n_layers: 26, n_heads: 8, n_kv_heads: 4, d_head: 256, d_mlp: 9216, d_vocab: 262_208 };

/// Defaults are those of transformers' `Gemma3TextConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = gemma2::read(keys, Some(SIZES))?;
    let window = parts::window(keys, Some(4096))?;
    // transformers 4 wrote it, 5 writes the underlined one beside `layer_types` and does not read it without them.
    let pattern = keys.size_or("sliding_window_pattern", 6)? as usize;
    let noted = keys.size_or("_sliding_window_pattern", pattern as i64)? as usize;
    ensure!(
        noted == pattern || keys.get("layer_types").is_some(),
        "_sliding_window_pattern: found {noted} without layer_types, which transformers reads as {pattern}; name it sliding_window_pattern"
    );
    let PerType { full, sliding } = PerType::parse(keys, decoder.d_head, &GLOBAL, &LOCAL)?;
    Ok(DecoderConfig {
        logit_cap: keys.switch("final_logit_softcapping", None)?,
        views: parts::views(keys, decoder.n_layers, window, (0, 1), |index| (index + 1) % pattern != 0)?,
        ropes: vec![full, sliding],
        ..decoder
    })
}

/// The keys of the text model stand in a table of their own; images are not read.
fn text_config(keys: &Keys) -> Result<DecoderConfig> {
    keys.unused(&["vision_config", "mm_tokens_per_image"]);
    let text = keys.table("text_config")?.context("key `text_config` is missing")?;
    let mut decoder = config(&text)?;
    // The reference passes over it in the multimodal class.
    ensure!(decoder.logit_cap.is_none(), "text_config.final_logit_softcapping: expected null in a multimodal model");
    decoder.tied = keys.flag_or("tie_word_embeddings", true)?;
    text.finish()?;
    Ok(decoder)
}

fn embed(loader: &Loader, tokens: &[i64], _positions: &[i64]) -> Result<Tensor> {
    gemma2::scaled_embed(loader, parts::EMBED, tokens)
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let attention = parts::attention_qk_normed(loader, index, parts::per_head(loader.config))?;
    parts::around(loader, attention, parts::gated(loader, &parts::at(index, "mlp"))?, &|name: &str| parts::at(index, name))
}
