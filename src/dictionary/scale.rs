//! What makes checkpoints comparable: each one's activations are centred and divided by their size.
//!
//! Norms grow in training whatever is learned, so a latent is as strong as its share of its checkpoint's activations.

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

/// Centre and size of the activations of every checkpoint.
#[derive(Debug)]
pub struct Scale {
    /// `[checkpoint * d_model]`.
    pub centre: Tensor,
    /// What centred activations are multiplied by, `[checkpoint]`: their mean square length becomes d_model.
    pub factor: Vec<f64>,
}

impl Scale {
    /// Of tokens `x`, `[token, checkpoint * d_model]`.
    ///
    /// # Errors
    /// Activations of a checkpoint that are not finite or do not vary.
    pub fn of(x: &Tensor, checkpoints: usize) -> Result<Self> {
        let _no_grad = tch::no_grad_guard();
        let centre = x.f_mean_dim(0i64, false, Kind::Float)?;
        let (tokens, width) = (x.size()[0], x.size()[1]);
        let d_model = width / checkpoints.max(1) as i64;
        let factor = (0..checkpoints as i64).map(|c| {
            let part = x.f_sub(&centre)?.f_narrow(1, c * d_model, d_model)?;
            let square = part.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])? / tokens as f64;
            ensure!(square.is_finite() && square > 0.0, "activations of checkpoint number {} do not vary or are not finite", c + 1);
            Ok((d_model as f64 / square).sqrt())
        });
        let factor = factor.collect::<Result<Vec<_>>>()?;
        Ok(Self { centre, factor })
    }

    /// Tokens `x`, centred and scaled.
    ///
    /// # Errors
    /// They are of other checkpoints, or the device is out of memory.
    pub fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let (tokens, width) = (x.size()[0], x.size()[1]);
        let d_model = width / self.factor.len() as i64;
        let factor = Tensor::f_from_slice(&self.factor)?.f_to_kind(Kind::Float)?.f_to_device(x.device())?.f_view([1, -1, 1])?;
        let centred = x.f_sub(&self.centre)?.f_view([tokens, self.factor.len() as i64, d_model])?;
        Ok(centred.f_mul(&factor)?.f_view([tokens, width])?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    #[test]
    fn every_checkpoint_has_one_size() {
        let x = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([4, 6]).sin();
        let grown = Tensor::cat(&[&x.narrow(1, 0, 3), &(x.narrow(1, 3, 3) * 7.0 + 2.0)], 1);
        let scaled = Scale::of(&grown, 2).unwrap().apply(&grown).unwrap();
        for c in 0..2 {
            let part = scaled.narrow(1, 3 * c, 3);
            assert!((part.square().sum(Kind::Double).double_value(&[]) / 4.0 - 3.0).abs() < 1e-5);
            assert!(part.mean(Kind::Double).double_value(&[]).abs() < 1e-6);
        }
        let error = Scale::of(&Tensor::ones([4, 6], (Kind::Float, Device::Cpu)), 2).unwrap_err();
        assert!(error.to_string().contains("checkpoint number 1 do not vary"));
    }
}
