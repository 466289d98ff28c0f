//! What a decoder computes, independent of the family that it comes from, and how `config.json` is read.
//!
//! A missing key is an error, never a silent default, unless the reference implementation (transformers) defaults it; then
//! the default stands beside the key in the family's file.

use anyhow::{Result, bail, ensure};
use serde_json::Value;

/// Sizes and switches of a decoder. Everything that a forward pass needs beside weights.
#[derive(Debug, Clone, PartialEq)]
pub struct DecoderConfig {
    pub d_model: i64,
    pub n_layers: usize,
    pub n_heads: i64,
    /// Key and value heads; fewer than `n_heads` in grouped-query attention.
    pub n_kv_heads: i64,
    pub d_head: i64,
    pub d_mlp: i64,
    pub d_vocab: i64,
    pub norm: NormKind,
    pub norm_eps: f64,
    pub activation: Activation,
    /// The MLP reads `resid_pre` instead of `resid_mid`.
    pub parallel: bool,
    pub attention_bias: bool,
    pub mlp_bias: bool,
    /// The unembedding is the embedding.
    pub tied: bool,
    pub rope: Rope,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, with weight (Zhang & Sennrich 2019).
    Rms,
    /// Mean and variance, with weight and bias (Ba et al. 2016).
    Layer,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    Silu,
    /// Exact, through the error function.
    Gelu,
    /// The tanh approximation.
    GeluTanh,
    Relu,
}

impl Activation {
    /// From the name in `config.json` (keys of transformers' `ACT2FN`).
    ///
    /// # Errors
    /// The name is not one of those implemented.
    pub fn parse(name: &str) -> Result<Self> {
        Ok(match name {
            "silu" | "swish" => Self::Silu,
            "gelu" => Self::Gelu,
            "gelu_new" | "gelu_fast" | "gelu_pytorch_tanh" => Self::GeluTanh,
            "relu" => Self::Relu,
            other => bail!("hidden_act: found {other:?}, expected one of silu, gelu, gelu_new, gelu_fast, gelu_pytorch_tanh, relu"),
        })
    }
}

/// Rotary position embedding (Su et al. 2021), rotating the first `2 * inv_freq.len()` dimensions of every head.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Angle per position, one per rotated pair. In f32, as transformers computes it.
    pub inv_freq: Vec<f32>,
    /// Scale of cosines and sines; 1 except under YaRN.
    pub scale: f32,
}

impl Rope {
    /// `theta ^ (-2 i / dim)` for i in 0..dim/2.
    pub fn new(theta: f64, dim: i64) -> Self {
        let inv_freq = (0..dim / 2).map(|i| (1.0 / theta.powf(2.0 * i as f64 / dim as f64)) as f32).collect();
        Self { inv_freq, scale: 1.0 }
    }

    /// Reads base and scaling in either dialect: transformers 4 (`rope_theta` beside `rope_scaling`) or 5 (`rope_parameters`).
    /// `base_key` is the family's old name for the base; `dim` the number of rotated dimensions per head.
    ///
    /// # Errors
    /// A key is missing or has a wrong type, or the scaling type is not implemented.
    pub fn parse(json: &Value, base_key: &str, dim: i64) -> Result<Self> {
        let (scaling, theta) = match (json.get("rope_parameters"), json.get("rope_scaling")) {
            (Some(parameters @ Value::Object(_)), _) => (Some(parameters), number(parameters, "rope_theta")?),
            // transformers 4 (LlamaConfig, GPTNeoXConfig) defaults the base to 10,000.
            (_, Some(scaling @ Value::Object(_))) => (Some(scaling), number_or(json, base_key, 10_000.0)?),
            _ => (None, number_or(json, base_key, 10_000.0)?),
        };
        let mut rope = Self::new(theta, dim);
        let Some(scaling) = scaling else { return Ok(rope) };
        let kind = scaling.get("rope_type").or_else(|| scaling.get("type")).and_then(Value::as_str);
        match kind {
            Some("default") => {}
            Some("linear") => {
                let factor = number(scaling, "factor")? as f32;
                rope.inv_freq.iter_mut().for_each(|freq| *freq /= factor);
            }
            Some("llama3") => rope.scale_llama3(scaling)?,
            Some("yarn") => rope.scale_yarn(scaling, theta, dim as f64)?,
            other => bail!("rope type: found {other:?}, expected one of default, linear, llama3, yarn"),
        }
        Ok(rope)
    }

    /// Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, with a smooth ramp between
    /// (`_compute_llama3_parameters` in transformers' `modeling_rope_utils.py`).
    fn scale_llama3(&mut self, scaling: &Value) -> Result<()> {
        let factor = number(scaling, "factor")?;
        let (low, high) = (number(scaling, "low_freq_factor")?, number(scaling, "high_freq_factor")?);
        let context = number(scaling, "original_max_position_embeddings")?;
        ensure!(high > low, "high_freq_factor: found {high}, expected more than low_freq_factor ({low})");
        for freq in &mut self.inv_freq {
            let wavelength = 2.0 * std::f64::consts::PI / f64::from(*freq);
            let smooth = ((context / wavelength - low) / (high - low)).clamp(0.0, 1.0);
            *freq = ((1.0 - smooth) * f64::from(*freq) / factor + smooth * f64::from(*freq)) as f32;
        }
        Ok(())
    }
}

impl Rope {
    /// YaRN (Peng et al. 2023): dimensions that turn often over the original context are kept, those that turn less than
    /// once are interpolated, with a ramp between (`_compute_yarn_parameters` in transformers' `modeling_rope_utils.py`,
    /// whose defaults these are).
    fn scale_yarn(&mut self, scaling: &Value, theta: f64, dim: f64) -> Result<()> {
        let factor = number(scaling, "factor")?;
        let context = number(scaling, "original_max_position_embeddings")?;
        let dimension_of = |turns: f64| dim * (context / (turns * 2.0 * std::f64::consts::PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) =
            (dimension_of(number_or(scaling, "beta_fast", 32.0)?), dimension_of(number_or(scaling, "beta_slow", 1.0)?));
        if flag_or(scaling, "truncate", true)? {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        let width = if high == low { 0.001 } else { high - low };
        for (i, freq) in self.inv_freq.iter_mut().enumerate() {
            let interpolated = ((i as f64 - low) / width).clamp(0.0, 1.0);
            let kept = f64::from(*freq);
            *freq = (kept / factor * interpolated + kept * (1.0 - interpolated)) as f32;
        }
        let mscale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let (all, one) = (number_or(scaling, "mscale_all_dim", 0.0)?, number_or(scaling, "mscale", 0.0)?);
        let default = if all != 0.0 && one != 0.0 { mscale(one) / mscale(all) } else { mscale(1.0) };
        self.scale = number_or(scaling, "attention_factor", default)? as f32;
        Ok(())
    }
}

fn missing(key: &str) -> anyhow::Error {
    anyhow::anyhow!("key `{key}` is missing")
}

/// A positive integer.
///
/// # Errors
/// The key is missing, not an integer, or not positive.
pub fn size(json: &Value, key: &str) -> Result<i64> {
    let value = json.get(key).filter(|value| !value.is_null()).ok_or_else(|| missing(key))?;
    match value.as_i64() {
        Some(n) if (1..=1 << 32).contains(&n) => Ok(n),
        _ => bail!("{key}: found {value}, expected a positive integer"),
    }
}

/// A positive integer, or `default` where the key is absent or null.
///
/// # Errors
/// The value is not a positive integer.
pub fn size_or(json: &Value, key: &str, default: i64) -> Result<i64> {
    if json.get(key).is_none_or(Value::is_null) { Ok(default) } else { size(json, key) }
}

/// A finite number.
///
/// # Errors
/// The key is missing or not a number.
pub fn number(json: &Value, key: &str) -> Result<f64> {
    let value = json.get(key).ok_or_else(|| missing(key))?;
    value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| anyhow::anyhow!("{key}: found {value}, expected a number"))
}

/// A finite number, or `default` where the key is absent or null.
///
/// # Errors
/// The value is not a number.
pub fn number_or(json: &Value, key: &str, default: f64) -> Result<f64> {
    if json.get(key).is_none_or(Value::is_null) { Ok(default) } else { number(json, key) }
}

/// A boolean, or `default` where the key is absent or null.
///
/// # Errors
/// The value is not a boolean.
pub fn flag_or(json: &Value, key: &str, default: bool) -> Result<bool> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::Bool(value)) => Ok(*value),
        Some(other) => bail!("{key}: found {other}, expected true or false"),
    }
}

/// A string, or `default` where the key is absent.
///
/// # Errors
/// The value is not a string.
pub fn text_or<'a>(json: &'a Value, key: &str, default: &'a str) -> Result<&'a str> {
    match json.get(key) {
        None | Some(Value::Null) => Ok(default),
        Some(Value::String(value)) => Ok(value),
        Some(other) => bail!("{key}: found {other}, expected a string"),
    }
}

impl DecoderConfig {
    /// Checks what no single key can: sizes that must divide each other.
    ///
    /// # Errors
    /// Names the keys whose values do not fit together.
    pub fn validated(self) -> Result<Self> {
        ensure!(
            self.n_heads % self.n_kv_heads == 0,
            "num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
            self.n_heads,
            self.n_kv_heads
        );
        let rotated = 2 * self.rope.inv_freq.len() as i64;
        ensure!(rotated <= self.d_head, "rotary dimensions ({rotated}) exceed the head dimension ({})", self.d_head);
        Ok(self)
    }
}
