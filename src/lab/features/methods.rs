//! Ways to say which features come, and when: ours, and the usual ones, on the same tokens.

use super::planted::{Buffers, Planted, shuffled};
use crate::dictionary::Crosscoder;
use crate::dictionary::crosscoder::values;
use crate::dictionary::dense::Weights;
use crate::dictionary::fit::{Fit, Paired, Settings};
use crate::dictionary::scale::Scale;
use crate::dictionary::strength::Strength;
use crate::onset::family;
use crate::series::axis::Axis;
use crate::series::{Point, Timeline};
use crate::stats::draws::Draws;
use anyhow::Result;
use tch::{Device, Kind, Tensor};

/// How a dictionary of planted features is fitted. Two features are on at a token on average, in half as many latents as there are.
const SETTINGS: Settings = Settings { latents: 80, k: 3, batch: 256, tokens: 320_000, rate: Some(5e-3), seed: 0 };
/// Weight of the lengths in an L1 crosscoder: with it as many latents are on.
const L1: f64 = 0.8;
/// Buffers that nothing was fitted on, from this number on.
const HELD_OUT: usize = 1 << 20;
const HELD_OUT_BUFFERS: usize = 4;
/// Groups of texts.
pub const GROUPS: usize = 48;
const RESAMPLES: usize = 199;
/// A latent that is on at fewer tokens is none.
const LIVE: f64 = 1e-4;
/// Share of its greatest length below which a latent is said not to be there yet (Lindsey et al. 2024, bins of relative norm).
const BIN: f64 = 0.3;

/// What a method says of one direction.
#[derive(Debug, Clone)]
pub struct Latent {
    /// At the last checkpoint.
    pub direction: Vec<f64>,
    /// When it comes, between checkpoints; `None` where it does not.
    pub comes: Option<f64>,
}

/// What a method says of a series.
#[derive(Debug, Clone, Default)]
pub struct Answer {
    /// Those that are used at all.
    pub latents: Vec<Latent>,
    /// Share of the variance that is explained, mean over checkpoints.
    pub explained: f64,
    pub per_token: f64,
}

/// A crosscoder of a planted series.
pub struct Fitted {
    pub crosscoder: Crosscoder,
    strength: Strength,
    order: Vec<usize>,
}

impl Fitted {
    /// By BatchTopK.
    ///
    /// # Errors
    /// Activations that are not finite.
    pub fn new(planted: &Planted, seed: u64) -> Result<Self> {
        let scale = Scale::of(&planted.tokens(0)?.0, planted.checkpoints)?;
        let mut fit = Fit::new(planted.checkpoints, planted.d_model, Settings { seed, ..SETTINGS }, Device::Cpu)?;
        fit.run(&mut Buffers { planted, scale: &scale }, None, &mut |_, _| Ok(crate::console::check_interrupt()?))?;
        Self::measured(planted, &scale, fit.weights.crosscoder)
    }

    /// With a penalty on lengths instead, and with all latents that are above 0 on.
    ///
    /// # Errors
    /// As [`Fitted::new`].
    pub fn with_l1(planted: &Planted, seed: u64) -> Result<Self> {
        let scale = Scale::of(&planted.tokens(0)?.0, planted.checkpoints)?;
        let settings = Settings { seed, ..SETTINGS };
        let mut weights = Fit::new(planted.checkpoints, planted.d_model, settings, Device::Cpu)?.weights;
        let mut source = Buffers { planted, scale: &scale };
        let (mut buffer, steps) = (0, settings.steps());
        while (weights.step as usize) < steps {
            let x = source.buffer(buffer)?;
            for batch in x.f_split(settings.batch as i64, 0)? {
                let done = weights.step as f64 / steps as f64;
                // The penalty grows in the first tenth, as is usual, or latents die before they are anything.
                let penalty = L1 * (10.0 * done).min(1.0);
                let rate = settings.rate.unwrap_or(1e-3) * (5.0 * (1.0 - done)).min(1.0);
                if (weights.step as usize) < steps {
                    penalised(&mut weights, &batch, penalty, rate)?;
                }
            }
            buffer += 1;
        }
        Self::measured(planted, &scale, weights.crosscoder)
    }

    fn measured(planted: &Planted, scale: &Scale, crosscoder: Crosscoder) -> Result<Self> {
        let mut strength = Strength::new(crosscoder.shape, GROUPS);
        for buffer in 0..HELD_OUT_BUFFERS {
            let (x, texts) = planted.tokens(HELD_OUT + buffer)?;
            let groups: Vec<u32> = texts.iter().map(|text| text % GROUPS as u32).collect();
            strength.add(&crosscoder, &scale.apply(&x)?, &groups)?;
        }
        Ok(Self { order: (0..planted.checkpoints).collect(), crosscoder, strength })
    }

    /// The same with its checkpoints in another order: what comes then comes by chance.
    pub fn shuffle(&mut self, seed: u64) {
        self.order = shuffled(self.order.len(), seed);
    }

    fn live(&self) -> Vec<usize> {
        (0..self.crosscoder.shape.latents).filter(|&latent| self.strength.share_on(latent) > LIVE).collect()
    }

    fn answer(&self, comes: impl Fn(usize) -> Option<f64>) -> Result<Answer> {
        let live = self.live();
        let decoder = values(&self.crosscoder.decoder)?;
        let (width, d) = (self.crosscoder.shape.width(), self.crosscoder.shape.d_model);
        let last = self.crosscoder.shape.checkpoints - 1;
        let direction = |latent: usize| decoder[latent * width + last * d..latent * width + (last + 1) * d].iter().map(|x| f64::from(*x));
        let explained: f64 = (0..=last).filter_map(|c| self.strength.explained(c)).sum::<f64>() / (last + 1) as f64;
        Ok(Answer {
            latents: live.iter().map(|&latent| Latent { direction: direction(latent).collect(), comes: comes(latent) }).collect(),
            explained,
            per_token: self.strength.per_token(),
        })
    }

    /// By the strengths on held-out tokens, as a run dates them.
    ///
    /// # Errors
    /// Strengths that are not finite.
    pub fn by_strength(&self) -> Result<Answer> {
        let draws = Draws::with_counts(GROUPS, 9, RESAMPLES, 0, "dictionary")?;
        let n = self.order.len();
        let curves = family::curves(&self.strength, &self.order, &draws)?;
        let points: Vec<Point> = (0..n).map(Point::numbered).collect();
        let dated = family::dates(&Timeline { points: &points, axis: Axis::Index }, &curves)?;
        self.answer(|latent| Some(&dated[latent]).filter(|dated| dated.emerges())?.onset.as_ref()?.t50.map(|t50| t50.value))
    }

    /// By the lengths of the decoders alone.
    ///
    /// # Errors
    /// The weights cannot be read.
    pub fn by_length(&self) -> Result<Answer> {
        let length = |latent: usize, at: usize| self.strength.length(latent, self.order[at]);
        self.answer(|latent| {
            let most = (0..self.order.len()).map(|at| length(latent, at)).fold(0.0, f64::max);
            let first = (0..self.order.len()).find(|&at| length(latent, at) >= 0.5 * most)?;
            (length(latent, 0) < BIN * most && first > 0).then_some(first as f64 - 0.5)
        })
    }
}

/// One step on squared error and the activations' lengths.
fn penalised(weights: &mut Weights, x: &Tensor, penalty: f64, rate: f64) -> Result<()> {
    let c = &mut weights.crosscoder;
    let tensors = [&mut c.encoder, &mut c.encoder_bias, &mut c.decoder, &mut c.decoder_bias];
    for tensor in tensors {
        *tensor = tensor.f_detach()?.f_set_requires_grad(true)?;
    }
    let f = c.pre(x)?.f_relu()?;
    let error = x.f_sub(&f.f_matmul(&c.decoder)?)?.f_sub(&c.decoder_bias)?;
    let each = 1.0 / (x.size()[0] * c.shape.checkpoints as i64) as f64;
    let lengths = f.f_mul(&c.lengths()?.f_sum_dim_intlist(1i64, false, Kind::Float)?)?.f_sum(Kind::Float)?;
    let loss = error.f_square()?.f_sum(Kind::Float)?.f_add(&lengths.f_mul_scalar(penalty)?)?.f_mul_scalar(each)?;
    loss.f_backward()?;
    let gradients = [c.encoder.f_grad()?, c.encoder_bias.f_grad()?, c.decoder.f_grad()?, c.decoder_bias.f_grad()?];
    let _no_grad = tch::no_grad_guard();
    weights.descend(&gradients, rate)
}

/// The principal components of what changes from the first checkpoint to the last, as many as features come; a component comes where half
/// of its final variance is reached.
///
/// # Errors
/// Activations that are not finite.
pub fn components(planted: &Planted, rank: usize) -> Result<Answer> {
    let scale = Scale::of(&planted.tokens(0)?.0, planted.checkpoints)?;
    let d = planted.d_model as i64;
    let mut covariance =
        (0..planted.checkpoints).map(|_| Ok(Tensor::f_zeros([d, d], (Kind::Double, Device::Cpu))?)).collect::<Result<Vec<_>>>()?;
    for buffer in 0..4 {
        let x = scale.apply(&planted.tokens(buffer)?.0)?.f_to_kind(Kind::Double)?;
        let at = |checkpoint: i64| x.f_narrow(1, checkpoint * d, d);
        for (checkpoint, sum) in covariance.iter_mut().enumerate() {
            let change = at(checkpoint as i64)?.f_sub(&at(0)?)?;
            *sum = sum.f_add(&change.f_tr()?.f_matmul(&change)?)?;
        }
    }
    let (_, vectors) = covariance[planted.checkpoints - 1].f_linalg_eigh("L")?;
    let mut latents = Vec::new();
    for number in 0..rank as i64 {
        // Ascending.
        let vector = vectors.f_select(1, d - 1 - number)?;
        let variance =
            covariance.iter().map(|sum| Ok(vector.f_dot(&sum.f_mv(&vector)?)?.f_double_value(&[])?)).collect::<Result<Vec<f64>>>()?;
        let whole = variance[planted.checkpoints - 1];
        let comes = variance.iter().position(|variance| *variance >= 0.5 * whole).filter(|_| whole > 0.0).map(|first| first as f64 - 0.5);
        latents.push(Latent { direction: values(&vector)?.into_iter().map(f64::from).collect(), comes });
    }
    Ok(Answer { latents, ..Answer::default() })
}
