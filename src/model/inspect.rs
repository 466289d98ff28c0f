//! Whether a checkpoint's files hold what its family's code will read, and nothing of the model beside it: found out from headers.
//!
//! The code that loads blocks is run over all of them without reading a number. What it asks for has to be there in the expected
//! shape; what it does not ask for must not be a part of the model. A bias that no code adds, or the factors of an adapter that
//! was never merged, would make other numbers than the model that was trained, and nothing would say so.

use super::architecture::Architecture;
use super::config::DecoderConfig;
use super::layers::Loader;
use super::survey::Survey;
use crate::checkpoint::names::{Layout, is_beside_text};
use crate::checkpoint::tensors::Tensors;
use crate::checkpoint::weights::Weights;
use anyhow::{Result, bail};
use tch::{Device, Kind};

/// Checks the tensors of a checkpoint.
///
/// # Errors
/// One sentence that names file and tensor: it is missing, has another shape or cannot be read, or it is a part of the model that
/// nothing reads.
pub fn survey(architecture: &Architecture, config: &DecoderConfig, weights: &Weights) -> Result<()> {
    let (base, layout) = (weights.base(), &architecture.layout);
    let part = |name: &&str| name.split('.').any(|segment| segment.starts_with("lora_") || segment == "base_layer");
    if let Some(name) = base.names().filter(|name| !is_beside_text(name)).find(part) {
        bail!(
            "{}: tensor {name} belongs to an adapter that was never merged; load the model with PEFT, merge_and_unload and save it",
            place(base, name)
        );
    }
    let survey = Survey::default();
    let loader = Loader { weights, config, kind: Kind::Float, device: Device::Cpu, survey: Some(&survey) };
    let _ = (architecture.embed)(&loader, &[0], &[0])?;
    for index in 0..config.n_layers {
        (architecture.block)(&loader, index)?;
    }
    (architecture.ends)(&loader)?;
    let read = survey.names();
    let left = base.names().filter(|name| !read.contains(*name)).find(|name| is_part(layout, config, base, name));
    match left {
        None => Ok(()),
        Some(name) => bail!(
            "{}: nothing reads tensor {name} in {}, so the numbers would not be those of the model that was trained; {}",
            place(base, name),
            architecture.names[0],
            advice(name)
        ),
    }
}

fn place(base: &Tensors, name: &str) -> String {
    base.folder().join(base.file(name).unwrap_or_default()).display().to_string()
}

/// Whether a tensor is a part of the language model: not another head or the prediction of later tokens, a part for images, a block past the last one or a buffer.
fn is_part(layout: &Layout, config: &DecoderConfig, base: &Tensors, name: &str) -> bool {
    if is_beside_text(name) || is_buffer(name, base.shape(name).unwrap_or_default()) {
        return false;
    }
    if let Some(block) = layout.block_of(name) {
        return block < config.n_layers;
    }
    match name.split_once('.') {
        // The other end is settled elsewhere.
        Some((first, rest)) if first == layout.head => rest != "weight",
        Some((first, rest)) if first == layout.backbone => {
            let part = rest.split('.').next().unwrap_or_default();
            !["head", "score", "classifier", "mtp"].iter().any(|head| part.contains(head))
        }
        _ => false,
    }
}

/// What old versions of transformers stored though it follows from the configuration: rotary angles and causal masks.
fn is_buffer(name: &str, shape: &[i64]) -> bool {
    let is_mask = || name.ends_with(".bias") && shape.len() > 2 || name.ends_with(".masked_bias");
    name.split('.').any(|segment| segment == "rotary_emb") || is_mask()
}

/// What to do about a tensor that nothing reads.
fn advice(name: &str) -> &'static str {
    let ends = |ends: &[&str]| ends.iter().any(|end| name.ends_with(end));
    if name.ends_with(".bias") {
        "if it has been trained, say so in config.json (attention_bias, mlp_bias) or name its architecture; else remove it"
    } else if ends(&["scale", "scales", "scale_inv", "zero_point", "qzeros", "g_idx", "absmax", "quant_map"]) {
        "if the weights are quantised, dequantise them and save them again"
    } else if name.contains("norm") {
        "is it another architecture than config.json says?"
    } else {
        "if it has no part in the model, remove it"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_and_angles_are_buffers_and_biases_are_not() {
        assert!(is_buffer("transformer.h.0.attn.bias", &[1, 1, 64, 64]));
        assert!(is_buffer("gpt_neox.layers.0.attention.masked_bias", &[]));
        assert!(is_buffer("model.layers.0.self_attn.rotary_emb.inv_freq", &[4]));
        assert!(!is_buffer("model.layers.0.self_attn.q_proj.bias", &[32]));
        assert!(!is_buffer("transformer.h.0.attn.c_attn.bias", &[96]));
    }
}
