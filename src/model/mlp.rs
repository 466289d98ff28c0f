//! The position-wise half of a block.

use super::config::Activation;
use super::layers::Linear;
use anyhow::Result;
use tch::Tensor;

/// `down(act(up(x)))`, or gated: `down(act(gate(x)) * up(x))` (Shazeer 2020).
pub struct Mlp {
    /// `[d_mlp, d_model]`, or with `gated` gate and up stacked: `[2 d_mlp, d_model]`.
    pub up: Linear,
    pub down: Linear,
    pub gated: bool,
    pub activation: Activation,
}

impl Mlp {
    /// `[node, d_model] -> [node, d_model]`.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let hidden = self.up.forward(x)?;
        let hidden = if self.gated {
            let parts = hidden.f_chunk(2, -1)?;
            self.activation.forward(&parts[0])?.f_mul(&parts[1])?
        } else {
            self.activation.forward(&hidden)?
        };
        self.down.forward(&hidden)
    }
}
