//! The organism's decoder: the crate's own blocks around parameters that require gradients.

use super::save::Weight;
use crate::model::architecture;
use crate::model::attention::Attention;
use crate::model::block::Block;
use crate::model::config::DecoderConfig;
use crate::model::layers::{Linear, Norm};
use crate::model::mixture::FeedForward;
use crate::model::mlp::Mlp;
use crate::model::plan::Plan;
use crate::stats::draws::normal;
use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use tch::{Kind, Tensor};

/// Width of the residual stream, of a head, and of an MLP.
pub const D: usize = 64;
pub const D_HEAD: usize = 16;
pub const D_MLP: usize = 192;

/// Sizes, as a user of the saved checkpoints finds them in `config.json`.
pub fn config(d_vocab: usize) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": d_vocab,
        "hidden_size": D,
        "intermediate_size": D_MLP,
        "num_hidden_layers": 4,
        "num_attention_heads": D / D_HEAD,
        "num_key_value_heads": D / D_HEAD,
        "max_position_embeddings": 128,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "attention_bias": false,
        "mlp_bias": false,
        "tie_word_embeddings": false,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "torch_dtype": "float32",
    })
}

/// A tensor that is trained, and the names under which its rows are saved.
pub struct Parameter {
    /// Name and number of rows, in the order of the rows.
    pub parts: Vec<(String, i64)>,
    pub tensor: Tensor,
}

/// A decoder in training. Blocks hold the parameters' own storage.
pub struct Network {
    pub config: DecoderConfig,
    pub parameters: Vec<Parameter>,
    embed: Tensor,
    blocks: Vec<Block>,
    ln_final: Norm,
    unembed: Linear,
}

impl Network {
    /// A network with random weights, of the sizes in `json`.
    ///
    /// # Errors
    /// The configuration is not one of a decoder.
    pub fn new(json: &Value, generator: &mut ChaCha8Rng) -> Result<Self> {
        let (_, config) = architecture::resolve(json)?;
        let mut init = Init { generator, parameters: Vec::new(), config: &config };
        let (d_model, d_vocab) = (config.d_model, config.d_vocab);
        let embed = init.matrix(&[("model.embed_tokens.weight".to_owned(), d_vocab)], d_model, 0.3)?.weight;
        let blocks = (0..config.n_layers).map(|layer| init.block(layer)).collect::<Result<_>>()?;
        let ln_final = init.norm("model.norm.weight".to_owned())?;
        let unembed = init.matrix(&[("lm_head.weight".to_owned(), d_vocab)], d_model, 1.0)?;
        let parameters = init.parameters;
        Ok(Self { config, parameters, embed, blocks, ln_final, unembed })
    }

    /// The residual stream of every node of a planned forest, `[node, d_model]` at layers 0 ..= n_layers.
    ///
    /// # Errors
    /// A token is outside the vocabulary.
    pub fn forward(&self, tokens: &[i64], plan: &Plan) -> Result<Vec<Tensor>> {
        let rotations = plan.chunks.iter().map(|chunk| chunk.rotations(&self.config.ropes, Kind::Float)).collect::<Result<Vec<_>>>()?;
        let mut layers = vec![self.embed.f_index_select(0, &Tensor::f_from_slice(tokens)?)?];
        for block in &self.blocks {
            let resid = &layers[layers.len() - 1];
            let (mut past, mut outs) = (None, Vec::new());
            for (chunk, rotations) in plan.chunks.iter().zip(&rotations) {
                let (out, next) = block.forward(&resid.f_narrow(0, chunk.start, chunk.len)?, past, chunk, rotations)?;
                outs.push(out);
                past = next;
            }
            layers.push(Tensor::f_cat(&outs, 0)?);
        }
        Ok(layers)
    }

    /// All parameters under their Hugging Face names, as they are now.
    ///
    /// # Errors
    /// Out of memory.
    pub fn weights(&self) -> Result<Vec<Weight>> {
        let mut weights = Vec::new();
        for parameter in &self.parameters {
            let mut start = 0;
            for (name, rows) in &parameter.parts {
                let part = parameter.tensor.detach().f_narrow(0, start, *rows)?;
                let shape = part.size().iter().map(|&size| size as usize).collect();
                let values = Vec::try_from(part.f_contiguous()?.f_view([-1])?)?;
                weights.push(Weight { name: name.clone(), shape, values });
                start += rows;
            }
        }
        Ok(weights)
    }

    /// `[row, d_model] -> [row, d_vocab]`.
    ///
    /// # Errors
    /// Shapes differ.
    pub fn logits(&self, resid: &Tensor) -> Result<Tensor> {
        self.unembed.forward(&self.ln_final.forward(resid)?)
    }
}

/// Makes parameters, in the order in which they are asked for.
struct Init<'a> {
    generator: &'a mut ChaCha8Rng,
    parameters: Vec<Parameter>,
    config: &'a DecoderConfig,
}

impl Init<'_> {
    fn parameter(&mut self, parts: &[(String, i64)], tensor: Tensor) -> Result<Tensor> {
        let tensor = tensor.f_set_requires_grad(true)?;
        self.parameters.push(Parameter { parts: parts.to_vec(), tensor: tensor.shallow_clone() });
        Ok(tensor)
    }

    /// Normal with standard deviation `gain / sqrt(d_in)`.
    fn matrix(&mut self, parts: &[(String, i64)], d_in: i64, gain: f64) -> Result<Linear> {
        let rows: i64 = parts.iter().map(|(_, rows)| rows).sum();
        let scale = gain / (d_in as f64).sqrt();
        let values: Vec<f32> = (0..rows * d_in).map(|_| (scale * normal(self.generator)) as f32).collect();
        let weight = self.parameter(parts, Tensor::f_from_slice(&values)?.f_view([rows, d_in])?)?;
        Ok(Linear::new(weight, None))
    }

    fn norm(&mut self, name: String) -> Result<Norm> {
        let d = self.config.d_model;
        let weight = self.parameter(&[(name, d)], Tensor::f_ones([d], (Kind::Float, tch::Device::Cpu))?)?;
        Ok(Norm { kind: self.config.norm, weight, bias: None, eps: self.config.norm_eps })
    }

    fn block(&mut self, layer: usize) -> Result<Block> {
        let c = self.config;
        let at = |name: &str| format!("model.layers.{layer}.{name}.weight");
        let (d_q, d_kv) = (c.n_heads * c.d_head, c.n_kv_heads * c.d_head);
        // Outputs are scaled so that the residual does not grow with depth (Radford et al. 2019).
        let out = 1.0 / (2.0 * c.n_layers as f64).sqrt();
        let qkv = [(at("self_attn.q_proj"), d_q), (at("self_attn.k_proj"), d_kv), (at("self_attn.v_proj"), d_kv)];
        let gate_up = [(at("mlp.gate_proj"), c.d_mlp), (at("mlp.up_proj"), c.d_mlp)];
        Ok(Block {
            ln1: Some(self.norm(at("input_layernorm"))?),
            attention: Attention::new(
                c,
                layer,
                self.matrix(&qkv, c.d_model, 1.0)?,
                self.matrix(&[(at("self_attn.o_proj"), c.d_model)], d_q, out)?,
            ),
            ln1_post: None,
            ln2: Some(self.norm(at("post_attention_layernorm"))?),
            mlp: FeedForward::Dense(Mlp {
                up: self.matrix(&gate_up, c.d_model, 1.0)?,
                down: self.matrix(&[(at("mlp.down_proj"), c.d_model)], c.d_mlp, out)?,
                gated: true,
                activation: c.activation,
            }),
            ln2_post: None,
            parallel: c.parallel,
            residual_scale: c.residual_scale,
        })
    }
}
