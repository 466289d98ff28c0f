//! OLMo 3: OLMo 2 with a sliding window in three of four layers, and rotary angles per layer type.

use super::{Architecture, olmo2, parts};
use crate::model::config::{DecoderConfig, Defaults, NormKind};
use crate::model::keys::Keys;
use crate::model::rope::{Dialect, LLAMA, PerType};
use anyhow::{Result, ensure};

pub const ARCHITECTURE: Architecture = Architecture {
    names: &["Olmo3ForCausalLM"],
    model_type: "olmo3",
    layout: parts::LAYOUT,
    config,
    embed: parts::embed,
    block: olmo2::block,
    ends: parts::ends,
};

const BASE: f64 = 500_000.0;
const DIALECT: Dialect = Dialect { base: BASE, ..LLAMA };

/// Defaults are those of transformers' `Olmo3Config`.
fn config(keys: &Keys) -> Result<DecoderConfig> {
    let decoder = DecoderConfig::read(keys, &Defaults { norm_eps: 1e-5, ..Defaults::LLAMA })?.with_activation_and_bias(keys)?;
    let base = keys.number_or("rope_theta", BASE)?;
    ensure!(
        base == BASE || keys.table("rope_parameters")?.is_some(),
        "rope_theta: found {base}, which transformers 4 uses in all layers and transformers 5 only in those without a window; \
         write rope_parameters, which say it per layer type"
    );
    let window = parts::window(keys, Some(4096))?;
    let PerType { full, sliding } = PerType::parse(keys, decoder.d_head, &DIALECT, &DIALECT)?;
    Ok(DecoderConfig {
        norm: NormKind::RmsWide,
        views: parts::views(keys, decoder.n_layers, window, (0, 1), |index| (index + 1) % 4 != 0)?,
        ropes: vec![full, sliding],
        ..decoder
    })
}
