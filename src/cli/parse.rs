//! Values of options.

use crate::manifest::{DeviceChoice, Layers};
use safetensors::Dtype;

/// `I/N`.
pub fn parse_shard(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
    match parsed {
        Some((part, parts)) if (1..=parts).contains(&part) => Ok((part, parts)),
        _ => Err("expected I/N with 1 <= I <= N, as in 2/8".to_owned()),
    }
}

/// `all`, or numbers.
pub fn parse_layers(text: &str) -> Result<Layers, String> {
    if text == "all" {
        return Ok(Layers::All);
    }
    let numbers: Result<Vec<usize>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    numbers.map(Layers::Numbers).map_err(|_| "expected all, or numbers as in 0,8,16".to_owned())
}

/// `f32`, `f16` or `bf16`.
pub fn parse_dtype(text: &str) -> Result<Dtype, String> {
    match text {
        "f32" => Ok(Dtype::F32),
        "f16" => Ok(Dtype::F16),
        "bf16" => Ok(Dtype::BF16),
        _ => Err("expected f32, f16 or bf16".to_owned()),
    }
}

/// `auto`, `cpu` or `cuda:N`.
pub fn parse_device(text: &str) -> Result<DeviceChoice, String> {
    match text {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        _ => text
            .strip_prefix("cuda:")
            .and_then(|number| number.parse().ok())
            .map(DeviceChoice::Cuda)
            .ok_or_else(|| "expected auto, cpu or cuda:N".to_owned()),
    }
}
