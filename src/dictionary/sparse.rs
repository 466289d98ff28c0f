//! One step of the fit on a CPU. Of five products as large as the dictionary, four are with activations that are nearly all zero: only
//! the encoder's is done in full. Every latent then makes its gradients from the tokens at which it is on, and takes its own step while
//! its rows are in the cache; no gradient is ever stored.

use super::active::{Active, ByLatent, at_least};
use super::crosscoder::{decode, values};
use super::dense::{Auxiliary, BETA, Batch, Corrected, EPSILON, Taken, Weights, auxiliary};
use super::lanes::{add, wide};
use crate::stats::matrix::dot;
use anyhow::{Result, ensure};
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

/// The values of a tensor in place.
///
/// # Errors
/// It is not f32, not contiguous, or not on the CPU.
fn in_place(tensor: &mut Tensor) -> Result<&mut [f32]> {
    ensure!(
        tensor.device() == Device::Cpu && tensor.kind() == Kind::Float && tensor.is_contiguous(),
        "a tensor is not plain f32 on the CPU"
    );
    let (start, len) = (tensor.data_ptr().cast::<f32>(), tensor.numel());
    // SAFETY: the tensor holds `len` contiguous f32 on the CPU, lives as long as the slice, and is borrowed for as long.
    Ok(if len == 0 { &mut [] } else { unsafe { std::slice::from_raw_parts_mut(start, len) } })
}

/// Adam on a row.
fn adam(row: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32], &Corrected { rate, root }: &Corrected) {
    let ([keep, square], rate, root, epsilon) = (BETA.map(|beta| beta as f32), rate as f32, root as f32, EPSILON as f32);
    let rest = BETA.map(|beta| (1.0 - beta) as f32);
    wide(
        #[inline(always)]
        || {
            for (((x, g), m), v) in row.iter_mut().zip(gradient).zip(first).zip(second) {
                *m = keep * *m + rest[0] * g;
                *v = square * *v + rest[1] * g * g;
                *x -= rate * (*m / (v.sqrt() * root + epsilon));
            }
        },
    );
}

/// A row of every parameter that belongs to a latent, with its moments.
struct Rows<'a> {
    encoder: [&'a mut [f32]; 3],
    bias: [&'a mut f32; 3],
    decoder: [&'a mut [f32]; 3],
}

impl Weights {
    /// One step of Adam on a batch, by whichever of the two ways suits the device.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn take(&mut self, batch: &Batch) -> Result<Taken> {
        let _no_grad = tch::no_grad_guard();
        if batch.x.device() == Device::Cpu { step(self, batch) } else { self.step(batch) }
    }
}

/// As [`Weights::step`].
pub(super) fn step(weights: &mut Weights, batch: &Batch) -> Result<Taken> {
    let c = &weights.crosscoder;
    let (shape, width) = (c.shape, c.shape.width());
    let x_values = values(batch.x)?;
    let tokens = batch.x.size()[0] as usize;
    let scores = values(&c.weights()?)?;
    let mut pre = c.pre(batch.x)?;
    let active = Active::largest(in_place(&mut pre)?, &scores, batch.count, batch.floor);
    let (decoder, bias) = (values(&c.decoder)?, values(&c.decoder_bias)?);
    // What is left of x.
    let mut error = decode(&active, &decoder, &bias);
    drop(decoder);
    error.par_iter_mut().zip(&x_values).with_min_len(1 << 16).for_each(|(error, x)| *error = x - *error);
    let squares: Vec<f64> = error.par_chunks_exact(width).with_min_len(at_least(width)).map(|row| f64::from(dot(row, row))).collect();
    let each = (tokens * shape.checkpoints) as f64;
    let silent = if batch.silent.is_empty() {
        None
    } else {
        let error = Tensor::f_from_slice(&error)?.f_view([tokens as i64, width as i64])?;
        auxiliary(c, batch.x, &error, batch.silent)?
    };
    let by_latent = active.by_latent(shape.latents);
    let taken = Taken {
        squared: squares.iter().sum::<f64>() / each,
        auxiliary: silent.as_ref().map_or(0.0, |silent| silent.loss),
        fired: (0..shape.latents).map(|latent| by_latent.count(latent) > 0).collect(),
        least: active.latent.iter().zip(&active.value).map(|(latent, value)| value * scores[*latent as usize]).reduce(f32::min),
    };
    weights.step += 1;
    let rate = Corrected::new(weights.step, batch.rate);
    let by_error = (-2.0 / each) as f32;
    let seen = Seen { x: &x_values, error: &error, by_latent: &by_latent, by_error, width };
    update(weights, &seen, &Silent::new(batch.silent, silent.as_ref())?, &rate)?;
    let mut gradient = vec![0f32; width];
    error.chunks_exact(width).for_each(|row| add(by_error, row, &mut gradient));
    let [.., [first, second]] = &mut weights.moments;
    adam(in_place(&mut weights.crosscoder.decoder_bias)?, &gradient, in_place(first)?, in_place(second)?, &rate);
    Ok(taken)
}

/// What gradients are made of.
struct Seen<'a> {
    /// `[token, width]`, as the error.
    x: &'a [f32],
    error: &'a [f32],
    by_latent: &'a ByLatent,
    /// Factor of the error in the gradient.
    by_error: f32,
    width: usize,
}

/// Gradients of the auxiliary loss, by latent.
struct Silent<'a> {
    latents: &'a [u32],
    gradients: Option<[Vec<f32>; 3]>,
}

impl<'a> Silent<'a> {
    fn new(latents: &'a [u32], of: Option<&Auxiliary>) -> Result<Self> {
        let gradients = of.map(|of| Ok::<_, anyhow::Error>([values(&of.encoder)?, values(&of.encoder_bias)?, values(&of.decoder)?]));
        Ok(Self { latents, gradients: gradients.transpose()? })
    }

    /// Adds those of a latent to its gradients.
    fn add(&self, latent: usize, encoder: &mut [f32], bias: &mut f32, decoder: &mut [f32]) {
        let (Some([by_encoder, by_bias, by_decoder]), Ok(at)) = (&self.gradients, self.latents.binary_search(&(latent as u32))) else {
            return;
        };
        let width = encoder.len();
        add(1.0, &by_encoder[at * width..(at + 1) * width], encoder);
        add(1.0, &by_decoder[at * width..(at + 1) * width], decoder);
        *bias += by_bias[at];
    }
}

/// Every latent's gradients and its step.
fn update(weights: &mut Weights, seen: &Seen, silent: &Silent, rate: &Corrected) -> Result<()> {
    let width = seen.width;
    let c = &mut weights.crosscoder;
    let [[em, ev], [bm, bv], [dm, dv], _] = &mut weights.moments;
    let [encoder, em, ev] = [in_place(&mut c.encoder)?, in_place(em)?, in_place(ev)?].map(|all| all.par_chunks_exact_mut(width));
    let [decoder, dm, dv] = [in_place(&mut c.decoder)?, in_place(dm)?, in_place(dv)?].map(|all| all.par_chunks_exact_mut(width));
    let [bias, bm, bv] = [in_place(&mut c.encoder_bias)?, in_place(bm)?, in_place(bv)?].map(|all| all.par_iter_mut());
    let rows = encoder.zip(em).zip(ev).zip(decoder.zip(dm).zip(dv)).zip(bias.zip(bm).zip(bv));
    let scratch = || [vec![0f32; width], vec![0f32; width]];
    rows.enumerate().with_min_len(at_least(8 * width)).for_each_init(scratch, |scratch, (latent, ((e, d), b))| {
        let (((encoder, em), ev), ((decoder, dm), dv), ((bias, bm), bv)) = (e, d, b);
        let rows = Rows { encoder: [encoder, em, ev], bias: [bias, bm, bv], decoder: [decoder, dm, dv] };
        one(latent, rows, scratch, seen, silent, rate);
    });
    Ok(())
}

/// One latent's gradients and its step.
fn one(latent: usize, rows: Rows, [by_encoder, by_decoder]: &mut [Vec<f32>; 2], seen: &Seen, silent: &Silent, rate: &Corrected) {
    let width = seen.width;
    by_encoder.fill(0.0);
    by_decoder.fill(0.0);
    let mut by_bias = 0f32;
    let [decoder, dm, dv] = rows.decoder;
    for (token, value) in seen.by_latent.of(latent) {
        let (x, error) = (&seen.x[token * width..(token + 1) * width], &seen.error[token * width..(token + 1) * width]);
        let by_activation = seen.by_error * dot(error, decoder);
        add(by_activation, x, by_encoder);
        add(seen.by_error * value, error, by_decoder);
        by_bias += by_activation;
    }
    silent.add(latent, by_encoder, &mut by_bias, by_decoder);
    let [encoder, em, ev] = rows.encoder;
    adam(encoder, by_encoder, em, ev, rate);
    adam(decoder, by_decoder, dm, dv, rate);
    let [bias, bm, bv] = rows.bias;
    let one = std::slice::from_mut::<f32>;
    adam(one(bias), &[by_bias], one(bm), one(bv), rate);
}
