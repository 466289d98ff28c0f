//! The two leaf layers, and the loader that reads them from a checkpoint by name and expected shape.

use super::config::{Activation, DecoderConfig, NormKind, Xielu};
use super::packed::Packed;
use super::survey::Survey;
use crate::checkpoint::weights::Weights;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// `x W' + b`, with `weight: [d_out, d_in]`.
pub struct Linear {
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    /// The weight in another order, in which it is used where it is there; `weight` is empty then.
    packed: Option<Packed>,
}

impl Linear {
    pub fn new(weight: Tensor, bias: Option<Tensor>) -> Self {
        Self { weight, bias, packed: None }
    }

    /// `[rows, d_in] -> [rows, d_out]`.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Some(packed) = &self.packed else { return Ok(x.f_linear(&self.weight, self.bias.as_ref())?) };
        let product = packed.forward(x)?;
        Ok(match &self.bias {
            Some(bias) => product.f_add(bias)?,
            None => product,
        })
    }

    /// Puts the weight into the order that suits a few rows at a time, where there is one for this processor and kind of number.
    ///
    /// # Errors
    /// As [`Packed::new`].
    pub fn pack(&mut self) -> Result<()> {
        if let Some(packed) = Packed::new(&self.weight)? {
            self.packed = Some(packed);
            self.weight = Tensor::f_empty([0, 0], (Kind::Float, Device::Cpu))?;
        }
        Ok(())
    }

    /// Whether it is in that order.
    pub fn is_packed(&self) -> bool {
        self.packed.is_some()
    }
}

/// RMS norm (no bias) or layer norm (bias) over the last dimension.
pub struct Norm {
    pub kind: NormKind,
    pub weight: Tensor,
    pub bias: Option<Tensor>,
    pub eps: f64,
}

impl Norm {
    /// `[rows, d] -> [rows, d]`. RMS norm is computed in f32 for half precision, as transformers does; weights that are kept in
    /// f32 are applied before rounding, others after.
    ///
    /// # Errors
    /// Shapes differ, or the device is out of memory.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let shape = self.weight.size();
        match self.kind {
            NormKind::Layer | NormKind::LayerPlain => Ok(x.f_layer_norm(&shape, Some(&self.weight), self.bias.as_ref(), self.eps, true)?),
            NormKind::Rms => {
                let normed = x.f_to_kind(wide(x.kind()))?.f_rms_norm(&shape, None::<&Tensor>, self.eps)?;
                Ok(normed.f_to_kind(x.kind())?.f_mul(&self.weight)?)
            }
            NormKind::RmsWide | NormKind::RmsPlusOne => {
                Ok(x.f_to_kind(wide(x.kind()))?.f_rms_norm(&shape, Some(&self.weight), self.eps)?.f_to_kind(x.kind())?)
            }
        }
    }
}

/// The kind in which norms are computed.
fn wide(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}

impl Activation {
    /// Element-wise.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn forward(self, x: &Tensor) -> Result<Tensor> {
        Ok(match self {
            Self::Silu => x.f_silu()?,
            Self::Gelu => x.f_gelu("none")?,
            Self::GeluTanh => x.f_gelu("tanh")?,
            Self::Relu => x.f_relu()?,
            Self::Xielu(Xielu { positive, negative, beta, eps }) => {
                let linear = x.f_mul_scalar(beta)?;
                let right = x.f_mul_scalar(positive)?.f_mul(x)?;
                let left = x.f_clamp_max(eps)?.f_expm1()?.f_sub(x)?.f_mul_scalar(negative)?;
                right.f_where_self(&x.f_gt(0.0)?, &left)?.f_add(&linear)?
            }
        })
    }
}

/// Reads layers from a checkpoint onto a device, as `kind`.
pub struct Loader<'a> {
    pub weights: &'a Weights,
    pub config: &'a DecoderConfig,
    pub kind: Kind,
    pub device: Device,
    /// Where it is noted what would be read; nothing is read then.
    pub survey: Option<&'a Survey>,
}

impl<'a> Loader<'a> {
    /// A loader that reads.
    pub fn new(weights: &'a Weights, config: &'a DecoderConfig, kind: Kind, device: Device) -> Self {
        Self { weights, config, kind, device, survey: None }
    }

    /// One tensor on the device.
    ///
    /// # Errors
    /// As [`Weights::get`], or the device is out of memory.
    pub fn tensor(&self, name: &str, shape: &[i64]) -> Result<Tensor> {
        if let Some(survey) = self.survey {
            return survey.note(self.weights, name, shape, self.kind);
        }
        let tensor = Tensor::f_empty(shape, (self.kind, self.device))?;
        self.read(name, shape, &tensor)?;
        Ok(tensor)
    }

    /// One tensor, into a place that is there.
    fn read(&self, name: &str, shape: &[i64], target: &Tensor) -> Result<()> {
        self.weights.read(name, shape, target)
    }

    /// `<name>.weight: [d_out, d_in]` and, with `bias`, `<name>.bias: [d_out]`.
    ///
    /// # Errors
    /// As [`Loader::tensor`].
    pub fn linear(&self, name: &str, d_out: i64, d_in: i64, bias: bool) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[d_out, d_in])?;
        let bias = bias.then(|| self.tensor(&format!("{name}.bias"), &[d_out])).transpose()?;
        Ok(Linear::new(weight, bias))
    }

    /// Several linears that read the same input as one: outputs are concatenated in order. One large product is faster
    /// than several small ones.
    ///
    /// # Errors
    /// As [`Loader::tensor`].
    pub fn fused(&self, parts: &[(String, i64)], d_in: i64, bias: bool) -> Result<Linear> {
        let rows = parts.iter().map(|(_, d_out)| d_out).sum::<i64>();
        if self.survey.is_some() {
            for (name, d_out) in parts {
                self.linear(name, *d_out, d_in, bias)?;
            }
            let bias = bias.then(|| Survey::blank(&[rows], self.kind)).transpose()?;
            return Ok(Linear::new(Survey::blank(&[rows, d_in], self.kind)?, bias));
        }
        let weight = Tensor::f_empty([rows, d_in], (self.kind, self.device))?;
        let biases = if bias { Some(Tensor::f_empty([rows], (self.kind, self.device))?) } else { None };
        // Part by part into place, so that no second copy of the block is ever in memory.
        let mut start = 0;
        for (name, d_out) in parts {
            self.read(&format!("{name}.weight"), &[*d_out, d_in], &weight.f_narrow(0, start, *d_out)?)?;
            if let Some(biases) = &biases {
                self.read(&format!("{name}.bias"), &[*d_out], &biases.f_narrow(0, start, *d_out)?)?;
            }
            start += d_out;
        }
        Ok(Linear::new(weight, biases))
    }

    /// A linear whose weight is stored as `[d_in, d_out]`, with bias (`Conv1D` of GPT-2).
    ///
    /// # Errors
    /// As [`Loader::tensor`].
    pub fn transposed(&self, name: &str, d_out: i64, d_in: i64) -> Result<Linear> {
        let weight = self.tensor(&format!("{name}.weight"), &[d_in, d_out])?.f_transpose(0, 1)?;
        let weight = if self.survey.is_some() { weight } else { weight.f_contiguous()? };
        Ok(Linear::new(weight, Some(self.tensor(&format!("{name}.bias"), &[d_out])?)))
    }

    /// The model's norm over `d` dimensions: `<name>.weight`, and `<name>.bias` for layer norm.
    ///
    /// # Errors
    /// As [`Loader::tensor`].
    pub fn norm(&self, name: &str, d: i64) -> Result<Norm> {
        let kind = self.config.norm;
        let stored = |kind| Loader { kind, ..*self }.tensor(&format!("{name}.weight"), &[d]);
        let weight = match kind {
            NormKind::Rms | NormKind::Layer => stored(self.kind),
            NormKind::RmsWide => stored(wide(self.kind)),
            NormKind::RmsPlusOne => stored(wide(self.kind)).and_then(|weight| Ok(weight.f_add_scalar(1.0)?)),
            NormKind::LayerPlain => Ok(Tensor::f_ones([d], (self.kind, self.device))?),
        }?;
        let bias = matches!(kind, NormKind::Layer).then(|| self.tensor(&format!("{name}.bias"), &[d])).transpose()?;
        Ok(Norm { kind, weight, bias, eps: self.config.norm_eps })
    }
}
