//! Mixtures of experts, and the choice between one and a dense MLP.

use super::config::Activation;
use super::layers::Linear;
use super::mlp::Mlp;
use anyhow::Result;
use tch::{Kind, Tensor};

/// The position-wise half of a block.
pub enum FeedForward {
    Dense(Mlp),
    Mixture(Mixture),
}

impl FeedForward {
    /// `[node, d_model] -> [node, d_model]`.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        match self {
            Self::Dense(mlp) => mlp.forward(x),
            Self::Mixture(mixture) => mixture.forward(x),
        }
    }
}

/// Gated MLPs of which every token goes through a few (Shazeer et al. 2017; Fedus et al. 2022).
pub struct Mixture {
    /// `[expert, d_model]`.
    pub router: Tensor,
    pub experts: Vec<Mlp>,
    /// Experts per token.
    pub n_active: i64,
    /// The probabilities of a token's experts are rescaled to sum to one.
    pub normalized: bool,
}

impl Mixture {
    /// Adds an expert: gate and up stacked, `[2 d_mlp, d_model]`, and down, `[d_model, d_mlp]`.
    pub fn push(&mut self, up: Tensor, down: Tensor, activation: Activation) {
        let linear = |weight| Linear::new(weight, None);
        self.experts.push(Mlp { up: linear(up), down: linear(down), gated: true, activation });
    }

    /// `[node, d_model] -> [node, d_model]`. Probabilities are a softmax over all experts in f32, as in transformers.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let wide = if x.kind() == Kind::Double { Kind::Double } else { Kind::Float };
        let probabilities = x.f_linear(&self.router, None::<&Tensor>)?.f_softmax(-1, wide)?;
        let (mut weight, expert) = probabilities.f_topk(self.n_active, -1, true, true)?;
        if self.normalized {
            weight = weight.f_div(&weight.f_sum_dim_intlist(-1, true, wide)?)?;
        }
        let weight = weight.f_to_kind(x.kind())?.f_flatten(0, -1)?;
        // Pairs of token and expert, sorted by expert: each expert's tokens are one run.
        let expert = expert.f_flatten(0, -1)?;
        let runs = expert.f_bincount(None::<&Tensor>, self.experts.len() as i64)?;
        let pairs = expert.f_argsort_stable(true, 0, false)?;
        let tokens = pairs.f_floor_divide_scalar(self.n_active)?;
        let mut out = x.f_zeros_like()?;
        let mut start = 0;
        for (expert, len) in self.experts.iter().zip(Vec::<i64>::try_from(runs)?) {
            if len > 0 {
                let tokens = tokens.f_narrow(0, start, len)?;
                let weight = weight.f_index_select(0, &pairs.f_narrow(0, start, len)?)?.f_unsqueeze(1)?;
                let hidden = expert.forward(&x.f_index_select(0, &tokens)?)?.f_mul(&weight)?;
                out = out.f_index_add_(0, &tokens, &hidden)?;
            }
            start += len;
        }
        Ok(out)
    }
}
