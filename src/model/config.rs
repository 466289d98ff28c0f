//! What a decoder computes, independent of the family that it comes from.
//!
//! A missing key of `config.json` is an error, never a silent default, unless the reference implementation (transformers)
//! defaults it; then the default stands beside the key in the family's file.

use super::keys::Keys;
use super::rope::Rope;
use anyhow::{Result, bail, ensure};

/// The largest size that is read: far beyond any model's.
const LARGEST: i64 = 1 << 24;

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
    /// Biases of the query, key and value projections, of attention's output, and of the MLP.
    pub qkv_bias: bool,
    pub out_bias: bool,
    pub mlp_bias: bool,
    /// The unembedding is the embedding.
    pub tied: bool,
    /// What attention sees, per layer (0-based): of length `n_layers`.
    pub views: Vec<View>,
    /// The rotary angles that `views` point into; none where positions are learned.
    pub ropes: Vec<Rope>,
    /// Longest prompt in tokens, where the model cannot compute longer ones.
    pub longest: Option<i64>,
    /// Positions that it was made for, where its files say so; rotary angles can be computed beyond them.
    pub made_for: Option<i64>,
    /// Factor of the embeddings (Gemma, Granite).
    pub embed_scale: f64,
    /// Factor of attention's scores: `1 / sqrt(d_head)` unless the family says otherwise.
    pub score_scale: f64,
    /// Scores are divided by the 1-based number of the layer, too (an option of GPT-2).
    pub score_by_layer: bool,
    /// `cap tanh(score / cap)` bounds attention's scores (Gemma 2).
    pub score_cap: Option<f64>,
    /// Bound on the absolute value of queries, keys and values (OLMo).
    pub clip_qkv: Option<f64>,
    /// Factor of what a sublayer adds to the residual stream (Granite).
    pub residual_scale: f64,
    /// Factor of the logits, then `cap tanh(logit / cap)` bounds them (Granite; Gemma 2).
    pub logit_scale: f64,
    pub logit_cap: Option<f64>,
    /// Sizes of mixtures of experts, where there are any.
    pub experts: Option<Experts>,
}

/// What transformers' configuration classes default the shared keys to.
pub struct Defaults {
    pub norm_eps: f64,
    pub tied: bool,
    /// `None`: one key head per query head.
    pub n_kv_heads: Option<i64>,
    /// `None`: `d_model / n_heads`.
    pub d_head: Option<i64>,
    /// Those of a whole model, where published configurations leave them out.
    pub sizes: Option<Sizes>,
}

impl Defaults {
    /// Those of `LlamaConfig`.
    pub const LLAMA: Self = Self { norm_eps: 1e-6, tied: false, n_kv_heads: None, d_head: None, sizes: None };
}

/// The sizes of a decoder.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    pub d_model: i64,
    pub n_layers: usize,
    pub n_heads: i64,
    pub n_kv_heads: i64,
    pub d_head: i64,
    pub d_mlp: i64,
    pub d_vocab: i64,
}

/// Where attention looks in one layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// A key is visible when it lies fewer than this many positions before the query; `None`: every key before it.
    pub window: Option<i64>,
    /// Index among the ropes; `None`: queries and keys are not rotated (learned positions, or NoPE).
    pub rope: Option<usize>,
}

impl View {
    /// Everything before the query, with the only rotary angles there are.
    pub const FULL: Self = Self { window: None, rope: Some(0) };
}

/// A mixture of experts: each token goes through the `n_active` whose router probability is largest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    pub n: i64,
    pub n_active: i64,
    pub d_mlp: i64,
    /// The probabilities of the active experts are rescaled to sum to one.
    pub normalized: bool,
    /// Per layer: a mixture (true) or a dense MLP (false).
    pub layers: Vec<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square (Zhang & Sennrich 2019), rounded to the model's dtype and then weighted (Llama).
    Rms,
    /// Root mean square, weighted in f32 and then rounded (OLMo 2).
    RmsWide,
    /// Root mean square, weighted in f32 by one plus the stored weight and then rounded (Gemma).
    RmsPlusOne,
    /// Mean and variance, with weight and bias (Ba et al. 2016).
    Layer,
    /// Mean and variance alone (OLMo).
    LayerPlain,
}

impl NormKind {
    /// Whether the mean is taken away first.
    pub fn is_layer(self) -> bool {
        matches!(self, Self::Layer | Self::LayerPlain)
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    Silu,
    /// Exact, through the error function.
    Gelu,
    /// The tanh approximation.
    GeluTanh,
    Relu,
    /// With parameters of its own in every layer (Apertus).
    Xielu(Xielu),
}

/// The expanded integral of the exponential linear unit (Huang & Schlag 2024):
/// `positive x^2 + beta x` for positive x, `negative (expm1(min(x, eps)) - x) + beta x` otherwise.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Xielu {
    pub positive: f64,
    pub negative: f64,
    pub beta: f64,
    pub eps: f64,
}

impl Xielu {
    /// Where training starts (`XIELUActivation` in transformers' `activations.py`).
    pub const INITIAL: Self = Self { positive: 0.8, negative: 0.8, beta: 0.5, eps: -1e-6 };
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

impl DecoderConfig {
    /// RMS norms, SiLU, no biases, full attention, and no positions yet.
    pub fn plain(sizes: Sizes) -> Self {
        let Sizes { d_model, n_layers, n_heads, n_kv_heads, d_head, d_mlp, d_vocab } = sizes;
        Self {
            d_model,
            n_layers,
            n_heads,
            n_kv_heads,
            d_head,
            d_mlp,
            d_vocab,
            norm: NormKind::Rms,
            norm_eps: 1e-6,
            activation: Activation::Silu,
            parallel: false,
            qkv_bias: false,
            out_bias: false,
            mlp_bias: false,
            tied: false,
            views: vec![View::FULL; n_layers],
            ropes: Vec::new(),
            longest: None,
            made_for: None,
            embed_scale: 1.0,
            score_scale: (d_head as f64).powf(-0.5),
            score_by_layer: false,
            score_cap: None,
            clip_qkv: None,
            residual_scale: 1.0,
            logit_scale: 1.0,
            logit_cap: None,
            experts: None,
        }
    }

    /// What most families share: sizes under the names of `LlamaConfig`. Families change what differs.
    ///
    /// # Errors
    /// A size is missing or not positive, or a value has a wrong type.
    pub fn read(keys: &Keys, defaults: &Defaults) -> Result<Self> {
        let size = |key: &str, default: fn(&Sizes) -> i64| match &defaults.sizes {
            Some(sizes) => keys.size_or(key, default(sizes)),
            None => keys.size(key),
        };
        let d_model = size("hidden_size", |sizes| sizes.d_model)?;
        let n_heads = size("num_attention_heads", |sizes| sizes.n_heads)?;
        // Null means what Llama's default means, also in families with another default.
        let default = |key: &str, llama: i64, family: Option<i64>| if keys.stated(key) { llama } else { family.unwrap_or(llama) };
        let d_head = keys.size_or("head_dim", default("head_dim", d_model / n_heads, defaults.d_head))?;
        let n_kv_heads = keys.size_or("num_key_value_heads", default("num_key_value_heads", n_heads, defaults.n_kv_heads))?;
        let norm_eps = keys.number_or("rms_norm_eps", defaults.norm_eps)?;
        let n_layers = size("num_hidden_layers", |sizes| sizes.n_layers as i64)?;
        ensure!(n_layers <= 10_000, "num_hidden_layers: found {n_layers}, expected at most 10000");
        ensure!(d_head > 0, "hidden_size ({d_model}) is smaller than num_attention_heads ({n_heads})");
        let d_mlp = size("intermediate_size", |sizes| sizes.d_mlp)?;
        let d_vocab = size("vocab_size", |sizes| sizes.d_vocab)?;
        let sizes = Sizes { d_model, n_layers: n_layers as usize, n_heads, n_kv_heads, d_head, d_mlp, d_vocab };
        Ok(Self { norm_eps, tied: keys.flag_or("tie_word_embeddings", defaults.tied)?, ..Self::plain(sizes) })
    }

    /// With the activation that `hidden_act` names (`silu` where it is absent, as in all of the families that read it here), and
    /// with `attention_bias` (false where it is absent) on all four projections.
    ///
    /// # Errors
    /// An unknown activation, or a value of a wrong type.
    pub fn with_activation_and_bias(self, keys: &Keys) -> Result<Self> {
        let activation = Activation::parse(keys.text_or("hidden_act", "silu")?)?;
        let bias = keys.flag_or("attention_bias", false)?;
        Ok(Self { activation, qkv_bias: bias, out_bias: bias, ..self })
    }

    /// Tokens that a text may have: beyond them the model is one that nobody trained.
    pub fn positions(&self) -> Option<usize> {
        self.longest.into_iter().chain(self.made_for).min().map(|positions| positions as usize)
    }

    /// Checks what no single key can: sizes that must divide each other.
    ///
    /// # Errors
    /// Names the keys whose values do not fit together.
    pub fn validated(mut self) -> Result<Self> {
        ensure!(
            self.n_heads % self.n_kv_heads == 0,
            "num_attention_heads ({}) must be a multiple of num_key_value_heads ({})",
            self.n_heads,
            self.n_kv_heads
        );
        // Shapes are products of sizes.
        let heads = self.n_heads.saturating_mul(self.d_head);
        for (key, size) in
            [("hidden_size", self.d_model), ("intermediate_size", self.d_mlp), ("vocab_size", self.d_vocab), ("heads", heads)]
        {
            ensure!(size <= LARGEST, "{key}: found {size}, expected at most {LARGEST}");
        }
        ensure!(self.norm_eps > 0.0, "the epsilon of the norms: found {}, expected a positive number", self.norm_eps);
        for rope in &self.ropes {
            let rotated = 2 * rope.inv_freq.len() as i64;
            let is_finite = rope.scale.is_finite() && rope.inv_freq.iter().all(|angle| angle.is_finite());
            ensure!(is_finite, "the scaling of the rotary angles makes numbers that are not finite; expected factors nearer to 1");
            ensure!(rotated <= self.d_head, "rotary dimensions ({rotated}) exceed the head dimension ({})", self.d_head);
            self.longest = self.longest.into_iter().chain(rope.longest).min();
        }
        if let Some(Experts { n, n_active, .. }) = &self.experts {
            ensure!(n_active <= n, "num_experts_per_tok ({n_active}) exceeds the number of experts ({n})");
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use crate::model::architecture::resolve;
    use serde_json::{Value, json};

    fn refused(change: impl FnOnce(&mut Value)) -> String {
        let mut config = json!({
            "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
            "intermediate_size": 16, "vocab_size": 32, "max_position_embeddings": 64,
        });
        change(&mut config);
        resolve(&config).err().expect("it is refused").to_string()
    }

    #[test]
    fn a_model_has_the_positions_that_it_was_made_for() {
        let config = |key: &str, value: Value| {
            let mut config = json!({
                "architectures": ["LlamaForCausalLM"], "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1,
                "intermediate_size": 16, "vocab_size": 32,
            });
            config[key] = value;
            resolve(&config).unwrap().1.positions()
        };
        assert_eq!(config("max_position_embeddings", json!(64)), Some(64));
        assert_eq!(config("max_position_embeddings", json!(null)), None);
        assert_eq!(config("vocab_size", json!(32)), None);
    }

    #[test]
    fn angles_and_shapes_have_to_be_numbers() {
        let tiny = json!({"rope_type": "linear", "factor": 1e-300});
        assert!(refused(|config| config["rope_scaling"] = tiny).contains("not finite"));
        let error = refused(|config| config["vocab_size"] = json!(1u64 << 32));
        assert!(error.contains("vocab_size: found 4294967296, expected at most 16777216"), "{error}");
        assert!(refused(|config| config["head_dim"] = json!(1 << 24)).contains("head"));
    }
}
