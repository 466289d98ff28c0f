//! Apertus: queries and keys normed per head, and an MLP without gate whose activation has parameters of its own (xIELU).

use super::{Architecture, parts};
use crate::model::block::Block;
use crate::model::config::{Activation, DecoderConfig, Defaults, Xielu};
use crate::model::keys::Keys;
use crate::model::layers::Loader;
use crate::model::mixture::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::rope::{Dialect, LLAMA, Rope};
use anyhow::{Result, ensure};

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["ApertusForCausalLM"],
    model_type: "apertus",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block,
    ends: parts::ends,
};

/// Defaults are those of transformers' `ApertusConfig`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { norm_eps: 1e-5, ..Defaults::LLAMA })?;
    let bias = keys.flag_or("attention_bias", false)?;
    let activation = match keys.text_or("hidden_act", "xielu")? {
        "xielu" => Activation::Xielu(Xielu::INITIAL),
        other => Activation::parse(other)?,
    };
    ensure!(keys.flag_or("qk_norm", true)?, "qk_norm: found false, expected true: the reference norms queries and keys");
    ensure!(
        keys.table("rope_parameters")?.is_some() || keys.table("rope_scaling")?.is_some(),
        "rope_parameters and rope_scaling are both absent or null, which transformers 4 and 5 read differently; write rope_parameters, with \
         rope_type \"default\" for plain rotary positions"
    );
    let rope = Rope::parse(keys, decoder.d_head, &Dialect { base: 12e6, ..LLAMA })?;
    Ok(DecoderConfig { activation, qkv_bias: bias, out_bias: bias, ropes: vec![rope], ..decoder })
}

fn block(loader: &Loader, index: usize) -> Result<Block> {
    let c = loader.config;
    let at = |name: &str| parts::at(index, name);
    let activation = if let Activation::Xielu(initial) = c.activation { xielu(loader, &at("mlp.act_fn"), initial)? } else { c.activation };
    let mlp = Mlp {
        up: loader.linear(&at("mlp.up_proj"), c.d_mlp, c.d_model, false)?,
        down: loader.linear(&at("mlp.down_proj"), c.d_model, c.d_mlp, false)?,
        gated: false,
        activation,
    };
    Ok(Block {
        ln1: Some(loader.norm(&at("attention_layernorm"), c.d_model)?),
        attention: parts::attention_qk_normed(loader, index, parts::per_head(c))?,
        ln1_post: None,
        ln2: Some(loader.norm(&at("feedforward_layernorm"), c.d_model)?),
        mlp: FeedForward::Dense(mlp),
        ln2_post: None,
        parallel: false,
        residual_scale: c.residual_scale,
    })
}

/// The parameters of one layer, rounded where `XIELUActivation` rounds them. `beta` and `eps` are constants that files may
/// leave out.
fn xielu(loader: &Loader, name: &str, initial: Xielu) -> Result<Activation> {
    let stored = |part: &str, shape: &[i64]| loader.tensor(&format!("{name}.{part}"), shape);
    let constant = |part: &str, default: f64| {
        if loader.weights.contains(&format!("{name}.{part}")) { Ok(stored(part, &[])?.f_double_value(&[])?) } else { anyhow::Ok(default) }
    };
    let (beta, eps) = (constant("beta", initial.beta)?, constant("eps", initial.eps)?);
    let positive = stored("alpha_p", &[1])?.f_softplus()?;
    let negative = stored("alpha_n", &[1])?.f_softplus()?.f_add_scalar(beta)?;
    Ok(Activation::Xielu(Xielu { positive: positive.f_double_value(&[0])?, negative: negative.f_double_value(&[0])?, beta, eps }))
}
