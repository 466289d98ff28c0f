//! The weights of a crosscoder, and what they make of activations.

use super::active::{Active, at_least};
use super::lanes::add;
use crate::stats::draws::{generator, normal};
use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::HashMap;
use std::path::Path;
use tch::{Device, Kind, Tensor};

/// Sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    pub checkpoints: usize,
    pub d_model: usize,
    pub latents: usize,
}

impl Shape {
    /// Length of a token at all checkpoints.
    pub fn width(&self) -> usize {
        self.checkpoints * self.d_model
    }
}

/// `f = ReLU(E x + b)`, `x' = D f + c`, where x is one token at all checkpoints, `[checkpoint, d_model]`.
#[derive(Debug)]
pub struct Crosscoder {
    pub shape: Shape,
    /// `[latent, checkpoint * d_model]`, f32.
    pub encoder: Tensor,
    /// `[latent]`.
    pub encoder_bias: Tensor,
    /// `[latent, checkpoint * d_model]`; row j holds latent j's direction at every checkpoint.
    pub decoder: Tensor,
    /// `[checkpoint * d_model]`.
    pub decoder_bias: Tensor,
    /// Weighted activation above which a latent is on, where there is no batch to compare with.
    pub threshold: f32,
}

impl Crosscoder {
    /// Random directions of length 1, the same at all checkpoints, since these share a basis; the encoder is their mean product.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn random(shape: Shape, seed: u64, device: Device) -> Result<Self> {
        let mut rng = generator(seed, "dictionary/directions");
        let mut decoder = Vec::with_capacity(shape.latents * shape.width());
        for _ in 0..shape.latents {
            let direction: Vec<f64> = (0..shape.d_model).map(|_| normal(&mut rng)).collect();
            let length = direction.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
            (0..shape.checkpoints).for_each(|_| decoder.extend(direction.iter().map(|x| (x / length) as f32)));
        }
        let size = [shape.latents as i64, shape.width() as i64];
        let decoder = Tensor::f_from_slice(&decoder)?.f_view(size)?.f_to_device(device)?;
        let zeros = |n: usize| Tensor::f_zeros([n as i64], (Kind::Float, device));
        Ok(Self {
            encoder: decoder.f_div_scalar(shape.checkpoints as f64)?,
            encoder_bias: zeros(shape.latents)?,
            decoder,
            decoder_bias: zeros(shape.width())?,
            threshold: 0.0,
            shape,
        })
    }

    /// Lengths of the decoders, `[latent, checkpoint]`.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn lengths(&self) -> Result<Tensor> {
        let Shape { checkpoints, d_model, latents } = self.shape;
        let parts = self.decoder.f_view([latents as i64, checkpoints as i64, d_model as i64])?;
        Ok(parts.f_square()?.f_sum_dim_intlist(2i64, false, Kind::Float)?.f_sqrt()?)
    }

    /// What activations are weighted by, `[latent]`: the length of what they decode to, all checkpoints taken together, so that those
    /// stay on which explain most. The sum of the lengths, which is more usual, has four times less for what comes at the last two of eight
    /// checkpoints than for what is always there, and such latents are then lost.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn weights(&self) -> Result<Tensor> {
        Ok(self.decoder.f_square()?.f_sum_dim_intlist(1i64, false, Kind::Float)?.f_sqrt()?)
    }

    /// `E x + b` of tokens `x`, `[token, checkpoint * d_model]`: `[token, latent]`.
    ///
    /// # Errors
    /// The tokens are of other checkpoints, or the device is out of memory.
    pub fn pre(&self, x: &Tensor) -> Result<Tensor> {
        Ok(self.encoder_bias.f_addmm(x, &self.encoder.f_tr()?)?)
    }

    /// What is on at tokens `x`, `[token, checkpoint * d_model]`, by the threshold.
    ///
    /// # Errors
    /// As [`Crosscoder::pre`].
    pub fn encode(&self, x: &Tensor) -> Result<Active> {
        let _no_grad = tch::no_grad_guard();
        let (pre, weights) = (values(&self.pre(x)?)?, values(&self.weights()?)?);
        Ok(Active::above(&pre, &weights, self.threshold))
    }

    /// What activations decode to, `[token, checkpoint * d_model]`.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub fn decode(&self, active: &Active) -> Result<Vec<f32>> {
        let (decoder, bias) = (values(&self.decoder)?, values(&self.decoder_bias)?);
        Ok(decode(active, &decoder, &bias))
    }

    /// Writes the weights; the file appears whole or not at all.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn save(&self, path: &Path) -> Result<()> {
        let Shape { checkpoints, d_model, .. } = self.shape;
        let facts = [("checkpoints", checkpoints.to_string()), ("d_model", d_model.to_string()), ("threshold", self.threshold.to_string())];
        save(path, &self.tensors(), facts.map(|(key, value)| (key.to_owned(), value)).into())
    }

    /// Reads what [`Crosscoder::save`] wrote.
    ///
    /// # Errors
    /// Names the file: it cannot be read, or is none of these.
    pub fn load(path: &Path, device: Device) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        Self::of_bytes(&bytes, device).with_context(|| format!("{}: no dictionary of this program", path.display()))
    }

    fn of_bytes(bytes: &[u8], device: Device) -> Result<Self> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let facts = header.metadata().clone().unwrap_or_default();
        let number = |key: &str| facts.get(key).with_context(|| format!("{key} is missing"));
        let (checkpoints, d_model) = (number("checkpoints")?.parse()?, number("d_model")?.parse()?);
        let file = SafeTensors::deserialize(bytes)?;
        let take = |name: &str, shape: &[i64]| tensor(&file, name, shape, device);
        let latents = file.tensor("encoder_bias")?.shape().iter().product::<usize>();
        let shape = Shape { checkpoints, d_model, latents };
        let (rows, width) = (latents as i64, shape.width() as i64);
        Ok(Self {
            encoder: take("encoder", &[rows, width])?,
            encoder_bias: take("encoder_bias", &[rows])?,
            decoder: take("decoder", &[rows, width])?,
            decoder_bias: take("decoder_bias", &[width])?,
            threshold: number("threshold")?.parse()?,
            shape,
        })
    }

    /// The weights by name.
    pub fn tensors(&self) -> [(&'static str, &Tensor); 4] {
        [("encoder", &self.encoder), ("encoder_bias", &self.encoder_bias), ("decoder", &self.decoder), ("decoder_bias", &self.decoder_bias)]
    }
}

/// `D f + c` row by row.
pub(super) fn decode(active: &Active, decoder: &[f32], bias: &[f32]) -> Vec<f32> {
    let width = bias.len();
    let mut out = vec![0f32; active.tokens() * width];
    out.par_chunks_exact_mut(width.max(1)).enumerate().with_min_len(at_least(16 * width)).for_each(|(token, row)| {
        row.copy_from_slice(bias);
        active.at(token).for_each(|(latent, value)| add(value, &decoder[latent * width..(latent + 1) * width], row));
    });
    out
}

/// Values of a tensor, row-major.
///
/// # Errors
/// They cannot be copied from the device.
pub fn values(tensor: &Tensor) -> Result<Vec<f32>> {
    let flat = tensor.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?.f_view([-1])?;
    let mut out = vec![0f32; flat.numel()];
    flat.f_copy_data(&mut out, flat.numel())?;
    Ok(out)
}

/// Writes tensors of f32 with facts about them; the file appears whole or not at all.
pub(super) fn save(path: &Path, tensors: &[(&str, &Tensor)], facts: HashMap<String, String>) -> Result<()> {
    let bytes = |tensor: &Tensor| Ok::<_, anyhow::Error>(values(tensor)?.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    let data = tensors.iter().map(|(_, tensor)| bytes(tensor)).collect::<Result<Vec<_>>>()?;
    let views = tensors.iter().zip(&data).map(|((name, tensor), data)| {
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        Ok((*name, TensorView::new(Dtype::F32, shape, data)?))
    });
    let file = safetensors::serialize(views.collect::<Result<Vec<_>>>()?, Some(facts))?;
    crate::table::write_atomically(path, &file)
}

/// A tensor of f32 by name.
pub(super) fn tensor(file: &SafeTensors, name: &str, shape: &[i64], device: Device) -> Result<Tensor> {
    let view = file.tensor(name)?;
    let found: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
    ensure!(view.dtype() == Dtype::F32 && found == shape, "{name} is {:?} {found:?}, expected F32 {shape:?}", view.dtype());
    let numbers: Vec<f32> = view.data().as_chunks::<4>().0.iter().map(|x| f32::from_le_bytes(*x)).collect();
    Ok(Tensor::f_from_slice(&numbers)?.f_view(shape)?.f_to_device(device)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dictionary_reads_back() {
        let shape = Shape { checkpoints: 2, d_model: 3, latents: 5 };
        let mut written = Crosscoder::random(shape, 1, Device::Cpu).unwrap();
        written.threshold = 0.25;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("dictionary.safetensors");
        written.save(&path).unwrap();
        let read = Crosscoder::load(&path, Device::Cpu).unwrap();
        assert_eq!((read.shape, read.threshold), (shape, 0.25));
        for ((name, a), (_, b)) in written.tensors().iter().zip(read.tensors()) {
            assert_eq!(values(a).unwrap(), values(b).unwrap(), "{name}");
        }
        std::fs::write(&path, "no").unwrap();
        let error = format!("{:#}", Crosscoder::load(&path, Device::Cpu).unwrap_err());
        assert!(error.contains("dictionary.safetensors: no dictionary"), "{error}");
    }

    #[test]
    fn decoding_is_the_product_with_the_directions() {
        let shape = Shape { checkpoints: 2, d_model: 4, latents: 6 };
        let mut crosscoder = Crosscoder::random(shape, 2, Device::Cpu).unwrap();
        crosscoder.threshold = 0.1;
        crosscoder.decoder_bias = Tensor::arange(8, (Kind::Float, Device::Cpu));
        let x = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([3, 8]).sin();
        let active = crosscoder.encode(&x).unwrap();
        let on = crosscoder.pre(&x).unwrap().relu();
        let on = &on * (&on * crosscoder.weights().unwrap()).gt(0.1).to_kind(Kind::Float);
        let expected = values(&(on.matmul(&crosscoder.decoder) + &crosscoder.decoder_bias)).unwrap();
        let found = crosscoder.decode(&active).unwrap();
        assert!(!active.is_empty() && active.len() < 18);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?} {expected:?}");
    }
}
