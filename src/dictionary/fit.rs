//! All steps of a fit: learning rate, silent latents, threshold, and a state to go on from.

use super::crosscoder::{Crosscoder, Shape, save, tensor};
use super::dense::{Batch, Taken, Weights};
use crate::model::device::Threads;
use crate::stats::draws::{generator, shuffle};
use anyhow::{Context, Result, ensure};
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tch::{Device, Tensor};

/// Tokens of a source, at all checkpoints, as they are needed.
pub trait Paired {
    /// Buffer number `index` of an endless row, `[token, checkpoint * d_model]`, centred and scaled. The same number is the same buffer.
    ///
    /// # Errors
    /// Whatever the source does.
    fn buffer(&mut self, index: usize) -> Result<Tensor>;
}

/// How a crosscoder is fitted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    pub latents: usize,
    /// Latents that are on at a token, on average.
    pub k: usize,
    /// Tokens of a step.
    pub batch: usize,
    /// Tokens of all steps.
    pub tokens: usize,
    /// Peak of the learning rate; `None` is 2e-4 at 2^14 latents, and as the root of their number falls (Gao et al. 2024, figure 3).
    pub rate: Option<f64>,
    pub seed: u64,
}

/// Tokens that pass before a latent that is never on counts as silent, at most (Gao et al. 2024), and the share of all tokens where there
/// are fewer.
const SILENT_AFTER: usize = 10_000_000;
const SILENT_SHARE: usize = 20;
/// Steps in which the rate rises, at most, and the share of all steps where there are fewer; it falls in the last fifth.
const WARM_UP: usize = 1000;
const WARM_UP_SHARE: usize = 20;
const LAST: usize = 5;
/// Multiplications of a product below which one thread of libtorch is faster than several that wait for each other.
const SMALL: usize = 1 << 25;
/// Time between two states on disk.
const EVERY: Duration = Duration::from_secs(60);

impl Settings {
    /// Number of steps.
    pub fn steps(&self) -> usize {
        self.tokens.div_ceil(self.batch.max(1)).max(1)
    }

    fn peak(&self) -> f64 {
        self.rate.unwrap_or_else(|| 2e-4 / (self.latents as f64 / f64::from(1 << 14)).sqrt())
    }

    /// Learning rate of step number `step`.
    fn rate(&self, step: usize) -> f64 {
        let steps = self.steps();
        let warm_up = WARM_UP.min(steps / WARM_UP_SHARE).max(1);
        let last = (steps / LAST).max(1);
        let rising = (step + 1) as f64 / warm_up as f64;
        let falling = (steps - step) as f64 / last as f64;
        self.peak() * rising.min(falling).min(1.0)
    }

    fn silent_after(&self) -> u64 {
        SILENT_AFTER.min(self.tokens / SILENT_SHARE) as u64
    }
}

/// A fit on its way.
#[derive(Debug)]
pub struct Fit {
    pub settings: Settings,
    pub weights: Weights,
    /// Tokens since each latent was on.
    silent: Vec<u64>,
    /// Smallest activations that stayed on in the steps of the last fifth, and their number: their mean is the threshold.
    least: (f64, u64),
    /// The buffer that is next.
    buffer: usize,
    /// Squared error of the last step.
    pub squared: f64,
    floor: f32,
}

impl Fit {
    /// A fit that has not begun.
    ///
    /// # Errors
    /// Sizes that make no dictionary, or the device is out of memory.
    pub fn new(checkpoints: usize, d_model: usize, settings: Settings, device: Device) -> Result<Self> {
        let Settings { latents, k, batch, .. } = settings;
        ensure!(checkpoints > 0 && d_model > 0 && batch > 0, "a dictionary needs checkpoints, a width and tokens");
        ensure!(0 < k && k < latents, "k is {k}, expected 1 to {} of {latents} latents", latents.saturating_sub(1));
        let shape = Shape { checkpoints, d_model, latents };
        Ok(Self {
            settings,
            weights: Weights::new(Crosscoder::random(shape, settings.seed, device)?)?,
            silent: vec![0; latents],
            least: (0.0, 0),
            buffer: 0,
            squared: f64::NAN,
            floor: 0.0,
        })
    }

    /// Steps that were taken.
    pub fn step(&self) -> usize {
        self.weights.step as usize
    }

    /// Takes all steps that are left. With a `state`, goes on from what is there if it is of the same fit (`key` says of which data) and
    /// leaves what it has reached there every minute. `tick` hears of every step and may stop the fit.
    ///
    /// # Errors
    /// Those of the source and of `tick`; a state that cannot be written; activations that are not finite.
    pub fn run(
        &mut self,
        source: &mut dyn Paired,
        state: Option<(&Path, &str)>,
        tick: &mut dyn FnMut(usize, f64) -> Result<()>,
    ) -> Result<()> {
        Self::run_all(std::slice::from_mut(self), source, &state.map(|(path, key)| (vec![path.to_owned()], key)), tick)
    }

    /// As [`Fit::run`] for several fits on the same buffers, each with its own path of a state.
    ///
    /// # Errors
    /// As [`Fit::run`].
    pub fn run_all(
        fits: &mut [Self],
        source: &mut dyn Paired,
        states: &Option<(Vec<PathBuf>, &str)>,
        tick: &mut dyn FnMut(usize, f64) -> Result<()>,
    ) -> Result<()> {
        let paths = || states.iter().flat_map(|(paths, key)| paths.iter().map(move |path| (path, *key)));
        for (fit, (path, key)) in fits.iter_mut().zip(paths()) {
            fit.resume(path, key)?;
        }
        let mut saved = Instant::now();
        while let Some(index) = fits.iter().filter(|fit| !fit.is_done()).map(|fit| fit.buffer).min() {
            let buffer = source.buffer(index)?;
            for fit in fits.iter_mut().filter(|fit| !fit.is_done() && fit.buffer == index) {
                fit.take_all(&buffer, tick)?;
            }
            if saved.elapsed() > EVERY {
                fits.iter().zip(paths()).filter(|(fit, _)| !fit.is_done()).try_for_each(|(fit, (path, key))| fit.save(path, key))?;
                saved = Instant::now();
            }
        }
        for fit in fits {
            fit.weights.crosscoder.threshold = (fit.least.0 / fit.least.1.max(1) as f64) as f32;
        }
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.step() >= self.settings.steps()
    }

    /// The steps of the buffer that is next.
    fn take_all(&mut self, buffer: &Tensor, tick: &mut dyn FnMut(usize, f64) -> Result<()>) -> Result<()> {
        let multiplications = self.settings.batch * self.weights.crosscoder.shape.width() * self.settings.latents;
        let _threads = (multiplications < SMALL).then(|| Threads::set(1));
        let order = order(buffer.size()[0] as usize, self.settings.seed, self.buffer);
        let batch = self.settings.batch.min(order.len());
        ensure!(batch > 0, "a buffer has no tokens");
        for places in order.chunks_exact(batch) {
            if !self.is_done() {
                let places = Tensor::f_from_slice(places)?.f_to_device(buffer.device())?;
                self.take(&buffer.f_index_select(0, &places)?)?;
                tick(self.step(), self.squared)?;
            }
        }
        self.buffer += 1;
        Ok(())
    }

    /// One step on tokens `x`.
    fn take(&mut self, x: &Tensor) -> Result<()> {
        let (step, tokens) = (self.step(), x.size()[0] as usize);
        let after = self.settings.silent_after();
        let silent: Vec<u32> = (0..self.silent.len()).filter(|&j| self.silent[j] > after).map(|j| j as u32).collect();
        let count = self.settings.k * tokens;
        let batch = Batch { x, count, silent: &silent, rate: self.settings.rate(step), floor: self.floor };
        let Taken { squared, fired, least, .. } = self.weights.take(&batch)?;
        ensure!(squared.is_finite(), "step {step}: the error is not finite; are the activations?");
        self.squared = squared;
        for (silent, fired) in self.silent.iter_mut().zip(fired) {
            *silent = if fired { 0 } else { *silent + tokens as u64 };
        }
        // A little below the last one, so that few candidates have to be sorted.
        self.floor = 0.8 * least.unwrap_or(0.0);
        if step + self.settings.steps() / LAST >= self.settings.steps() - 1 {
            self.least.0 += f64::from(least.unwrap_or(0.0));
            self.least.1 += 1;
        }
        Ok(())
    }

    /// What a state has to be of, to go on from.
    fn key(&self, key: &str) -> String {
        format!("1 {:?} {:?} {key}", self.settings, self.weights.crosscoder.shape)
    }

    /// Writes what was reached; the file appears whole or not at all.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn save(&self, path: &Path, key: &str) -> Result<()> {
        let silent = Tensor::f_from_slice(&self.silent.iter().map(|&n| n.min(1 << 24) as f32).collect::<Vec<_>>())?;
        let parameters = self.weights.crosscoder.tensors();
        let names: Vec<[String; 3]> =
            parameters.iter().map(|(name, _)| ["", "first.", "second."].map(|of| format!("{of}{name}"))).collect();
        let mut tensors = vec![("silent", &silent)];
        for ((names, (_, parameter)), [first, second]) in names.iter().zip(&parameters).zip(&self.weights.moments) {
            tensors.extend(names.iter().map(String::as_str).zip([*parameter, first, second]));
        }
        let facts = [
            ("key", self.key(key)),
            ("step", self.step().to_string()),
            ("buffer", self.buffer.to_string()),
            ("least", format!("{} {}", self.least.0, self.least.1)),
            ("floor", self.floor.to_string()),
            ("squared", self.squared.to_string()),
        ];
        save(path, &tensors, facts.map(|(name, fact)| (name.to_owned(), fact)).into())
    }

    /// Goes on from a state if it is of this fit; anything else is passed over, since it costs nothing but time.
    fn resume(&mut self, path: &Path, key: &str) -> Result<()> {
        let Ok(bytes) = std::fs::read(path) else { return Ok(()) };
        match self.read(&bytes, key) {
            Ok(true) => tracing::info!("{}: goes on at step {} of {}", path.display(), self.step(), self.settings.steps()),
            Ok(false) => tracing::info!("{}: of another fit, begins anew", path.display()),
            Err(error) => tracing::warn!("{}: {error:#}; begins anew", path.display()),
        }
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], key: &str) -> Result<bool> {
        let (_, header) = SafeTensors::read_metadata(bytes)?;
        let facts = header.metadata().clone().unwrap_or_default();
        let fact = |name: &str| facts.get(name).map(String::as_str).with_context(|| format!("{name} is missing"));
        if fact("key")? != self.key(key) {
            return Ok(false);
        }
        let file = SafeTensors::deserialize(bytes)?;
        let device = self.weights.crosscoder.encoder.device();
        let mut read = Vec::new();
        for (name, parameter) in self.weights.crosscoder.tensors() {
            let take = |of: &str| tensor(&file, &format!("{of}{name}"), &parameter.size(), device);
            read.push((take("")?, [take("first.")?, take("second.")?]));
        }
        let silent = super::crosscoder::values(&tensor(&file, "silent", &[self.silent.len() as i64], Device::Cpu)?)?;
        let (sum, count) = fact("least")?.split_once(' ').context("least is no pair")?;
        let (step, buffer, least) = (fact("step")?.parse()?, fact("buffer")?.parse()?, (sum.parse()?, count.parse()?));
        let (floor, squared) = (fact("floor")?.parse()?, fact("squared")?.parse()?);
        let [encoder, encoder_bias, decoder, decoder_bias] = <[_; 4]>::try_from(read).ok().context("four parameters")?;
        let c = &mut self.weights.crosscoder;
        (c.encoder, c.encoder_bias, c.decoder, c.decoder_bias) = (encoder.0, encoder_bias.0, decoder.0, decoder_bias.0);
        self.weights.moments = [encoder.1, encoder_bias.1, decoder.1, decoder_bias.1];
        self.weights.step = step;
        self.silent = silent.into_iter().map(|n| n as u64).collect();
        (self.buffer, self.least, self.floor, self.squared) = (buffer, least, floor, squared);
        Ok(true)
    }
}

/// The order in which the tokens of a buffer are taken.
fn order(tokens: usize, seed: u64, buffer: usize) -> Vec<i64> {
    let mut order: Vec<i64> = (0..tokens as i64).collect();
    shuffle(&mut order, &mut generator(seed, &format!("dictionary/buffer/{buffer}")));
    order
}

#[cfg(test)]
#[path = "fit_tests.rs"]
mod tests;
