//! One step of the fit as products of tensors, on any device.
//!
//! Loss: squared error, mean over tokens and checkpoints, plus [`AUXILIARY`] times how badly the silent latents alone explain what is
//! left (Gao et al. 2024, appendix A.2), over its variance. Gradients are written out: there are few, and most of them are of zeros.

use super::crosscoder::{Crosscoder, values};
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// Weight of the auxiliary loss.
pub const AUXILIARY: f64 = 1.0 / 32.0;
/// Adam (Kingma & Ba 2015), with PyTorch's defaults.
pub(super) const BETA: [f64; 2] = [0.9, 0.999];
pub(super) const EPSILON: f64 = 1e-8;

/// A crosscoder that is being fitted.
#[derive(Debug)]
pub struct Weights {
    pub crosscoder: Crosscoder,
    /// First and second moments of the gradients, in the order of [`Crosscoder::tensors`].
    pub moments: [[Tensor; 2]; 4],
    /// Steps that were taken.
    pub step: u64,
}

/// What one step is of.
pub struct Batch<'a> {
    /// `[token, checkpoint * d_model]`.
    pub x: &'a Tensor,
    /// Activations that stay on.
    pub count: usize,
    /// Latents that have not been on for long, ascending.
    pub silent: &'a [u32],
    pub rate: f64,
    /// A weighted activation that few below it will be among those that stay; it decides nothing but the time.
    pub floor: f32,
}

/// What a step found on its way.
#[derive(Debug, Clone, PartialEq)]
pub struct Taken {
    /// Squared error, mean over tokens and checkpoints.
    pub squared: f64,
    /// Of the silent latents; 0 where there are none.
    pub auxiliary: f64,
    /// Latents that were on.
    pub fired: Vec<bool>,
    /// Smallest weighted activation that stayed on.
    pub least: Option<f32>,
}

/// Gradients of what silent latents explain.
pub(super) struct Auxiliary {
    pub loss: f64,
    /// `[silent, width]`, `[silent]` and `[silent, width]`.
    pub encoder: Tensor,
    pub encoder_bias: Tensor,
    pub decoder: Tensor,
}

impl Weights {
    /// # Errors
    /// The device is out of memory.
    pub fn new(crosscoder: Crosscoder) -> Result<Self> {
        let zeros = |(_, tensor): (_, &Tensor)| Ok::<_, anyhow::Error>([tensor.f_zeros_like()?, tensor.f_zeros_like()?]);
        let [a, b, c, d] = crosscoder.tensors();
        let moments = [zeros(a)?, zeros(b)?, zeros(c)?, zeros(d)?];
        Ok(Self { crosscoder, moments, step: 0 })
    }

    /// One step by products of tensors.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn step(&mut self, batch: &Batch) -> Result<Taken> {
        let _no_grad = tch::no_grad_guard();
        let (c, x) = (&self.crosscoder, batch.x);
        let (tokens, latents) = (x.size()[0], c.shape.latents as i64);
        let on = c.pre(x)?.f_relu()?;
        let scores = on.f_mul(&c.weights()?)?;
        let count = (batch.count as i64).min(tokens * latents);
        let (best, places) = scores.f_view([-1])?.f_topk(count, 0, true, false)?;
        let kept = on.f_view([-1])?.f_index_select(0, &places)?;
        let f = on.f_view([-1])?.f_zeros_like()?.f_scatter(0, &places, &kept)?.f_view([tokens, latents])?;
        let error = x.f_sub(&f.f_matmul(&c.decoder)?)?.f_sub(&c.decoder_bias)?;
        let squared = error.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])? / (tokens * c.shape.checkpoints as i64) as f64;
        let scale = -2.0 / (tokens * c.shape.checkpoints as i64) as f64;
        let by_activation = error.f_matmul(&c.decoder.f_tr()?)?.f_mul(&f.f_gt(0.0)?.f_to_kind(Kind::Float)?)?.f_mul_scalar(scale)?;
        let mut gradients = [
            by_activation.f_tr()?.f_matmul(x)?,
            by_activation.f_sum_dim_intlist(0i64, false, Kind::Float)?,
            f.f_tr()?.f_matmul(&error)?.f_mul_scalar(scale)?,
            error.f_sum_dim_intlist(0i64, false, Kind::Float)?.f_mul_scalar(scale)?,
        ];
        let auxiliary = auxiliary(c, x, &error, batch.silent)?;
        if let Some(auxiliary) = &auxiliary {
            let index = indices(batch.silent, x.device())?;
            for (gradient, more) in gradients.iter_mut().zip([&auxiliary.encoder, &auxiliary.encoder_bias, &auxiliary.decoder]) {
                *gradient = gradient.f_index_add(0, &index, more)?;
            }
        }
        let least = best.f_masked_select(&best.f_gt(0.0)?)?;
        let taken = Taken {
            squared,
            auxiliary: auxiliary.map_or(0.0, |auxiliary| auxiliary.loss),
            fired: values(&f.f_sum_dim_intlist(0i64, false, Kind::Float)?)?.iter().map(|sum| *sum > 0.0).collect(),
            least: if least.numel() == 0 { None } else { Some(least.f_min()?.f_double_value(&[])? as f32) },
        };
        self.descend(&gradients, batch.rate)?;
        Ok(taken)
    }

    /// One step of Adam along gradients, in the order of [`Crosscoder::tensors`].
    ///
    /// # Errors
    /// Shapes differ.
    pub fn descend(&mut self, gradients: &[Tensor; 4], rate: f64) -> Result<()> {
        self.step += 1;
        let Corrected { rate, root } = Corrected::new(self.step, rate);
        let c = &mut self.crosscoder;
        let parameters = [&mut c.encoder, &mut c.encoder_bias, &mut c.decoder, &mut c.decoder_bias];
        for ((parameter, gradient), [first, second]) in parameters.into_iter().zip(gradients).zip(&mut self.moments) {
            *first = first.f_lerp(gradient, 1.0 - BETA[0])?;
            *second = second.f_mul_scalar(BETA[1])?.f_add(&gradient.f_square()?.f_mul_scalar(1.0 - BETA[1])?)?;
            let size = second.f_sqrt()?.f_mul_scalar(root)?.f_add_scalar(EPSILON)?;
            *parameter = parameter.f_sub(&first.f_div(&size)?.f_mul_scalar(rate)?)?;
        }
        Ok(())
    }
}

/// Adam's corrections at a step: of the rate by the first moment's bias, and of the root of the second moment by its own.
pub(super) struct Corrected {
    pub rate: f64,
    pub root: f64,
}

impl Corrected {
    pub fn new(step: u64, rate: f64) -> Self {
        let left = BETA.map(|beta| 1.0 - beta.powf(step as f64));
        Self { rate: rate / left[0], root: 1.0 / left[1].sqrt() }
    }
}

fn indices(latents: &[u32], device: Device) -> Result<Tensor> {
    let latents: Vec<i64> = latents.iter().map(|&latent| i64::from(latent)).collect();
    Ok(Tensor::f_from_slice(&latents)?.f_to_device(device)?)
}

/// What the silent latents, at most half as many as d_model per token, make of `error`, `[token, width]`.
pub(super) fn auxiliary(c: &Crosscoder, x: &Tensor, error: &Tensor, silent: &[u32]) -> Result<Option<Auxiliary>> {
    let tokens = x.size()[0] as f64;
    let centred = error.f_sub(&error.f_mean_dim(0i64, true, Kind::Float)?)?;
    let variance = centred.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])? / tokens;
    if silent.is_empty() || variance <= 0.0 {
        return Ok(None);
    }
    let index = indices(silent, x.device())?;
    let (encoder, decoder) = (c.encoder.f_index_select(0, &index)?, c.decoder.f_index_select(0, &index)?);
    let mut on = c.encoder_bias.f_index_select(0, &index)?.f_addmm(x, &encoder.f_tr()?)?.f_relu()?;
    let most = (c.shape.d_model / 2).max(1);
    if silent.len() > most {
        let (_, places) = on.f_mul(&c.weights()?.f_index_select(0, &index)?)?.f_topk(most as i64, 1, true, false)?;
        on = on.f_zeros_like()?.f_scatter(1, &places, &on.f_gather(1, &places, false)?)?;
    }
    let left = error.f_sub(&on.f_matmul(&decoder)?)?;
    let loss = left.f_square()?.f_sum(Kind::Double)?.f_double_value(&[])? / tokens / variance;
    let scale = -2.0 * AUXILIARY / (tokens * variance);
    let by_activation = left.f_matmul(&decoder.f_tr()?)?.f_mul(&on.f_gt(0.0)?.f_to_kind(Kind::Float)?)?.f_mul_scalar(scale)?;
    Ok(Some(Auxiliary {
        loss,
        encoder: by_activation.f_tr()?.f_matmul(x)?,
        encoder_bias: by_activation.f_sum_dim_intlist(0i64, false, Kind::Float)?,
        decoder: on.f_tr()?.f_matmul(&left)?.f_mul_scalar(scale)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dictionary::Shape;
    use safetensors::SafeTensors;

    /// Steps of the reference implementation, see `tests/fixtures/dictionary/make.py`: after each, weights and losses.
    const STEPS: &[u8] = include_bytes!("../../tests/fixtures/dictionary/steps.safetensors");

    struct Golden {
        file: SafeTensors<'static>,
    }

    impl Golden {
        fn take(&self, name: &str) -> Tensor {
            let view = self.file.tensor(name).unwrap();
            let shape: Vec<i64> = view.shape().iter().map(|&n| n as i64).collect();
            super::super::crosscoder::tensor(&self.file, name, &shape, Device::Cpu).unwrap()
        }

        fn weights(&self) -> Weights {
            let [encoder, encoder_bias, decoder, decoder_bias] =
                ["encoder", "encoder_bias", "decoder", "decoder_bias"].map(|name| self.take(&format!("0.{name}")));
            let shape = Shape { checkpoints: 3, d_model: 8, latents: decoder.size()[0] as usize };
            Weights::new(Crosscoder { shape, encoder, encoder_bias, decoder, decoder_bias, threshold: 0.0 }).unwrap()
        }
    }

    fn golden() -> Golden {
        Golden { file: SafeTensors::deserialize(STEPS).unwrap() }
    }

    /// Largest distance of two tensors.
    fn apart(a: &Tensor, b: &Tensor) -> f64 {
        (a - b).abs().max().double_value(&[])
    }

    #[test]
    fn both_ways_of_a_step_are_those_of_the_reference() {
        let golden = golden();
        let silent: Vec<u32> = values(&golden.take("silent")).unwrap().into_iter().map(|j| j as u32).collect();
        assert!(silent.len() > 4, "more than half of d_model, so that some stay off");
        let ways: [fn(&mut Weights, &Batch) -> Result<Taken>; 2] = [Weights::step, super::super::sparse::step];
        for (way, take) in ways.into_iter().enumerate() {
            let mut weights = golden.weights();
            for step in 1..=3 {
                let x = golden.take(&format!("{step}.x"));
                let batch = Batch { x: &x, count: 4 * x.size()[0] as usize, silent: &silent, rate: 3e-3, floor: 0.1 };
                let taken = take(&mut weights, &batch).unwrap();
                let losses = values(&golden.take(&format!("{step}.losses"))).unwrap();
                assert!((taken.squared - f64::from(losses[0])).abs() < 1e-4, "{way} {step}: {taken:?} {losses:?}");
                assert!((taken.auxiliary - f64::from(losses[1])).abs() < 1e-4, "{way} {step}: {taken:?} {losses:?}");
                for (name, tensor) in weights.crosscoder.tensors() {
                    let distance = apart(tensor, &golden.take(&format!("{step}.{name}")));
                    // Adam divides by what may be nearly nothing, so a rounding may be a large part of one step.
                    assert!(distance < 2e-5, "way {way}, step {step}, {name}: {distance}");
                }
            }
        }
    }
}
