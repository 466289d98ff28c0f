//! Series of activations whose features are known: which there are, when each comes, and which way it points at every checkpoint.
//!
//! A token has few features, each along a direction of its own; the same tokens are seen at all checkpoints. What training does besides
//! is there too: activations grow, directions turn, a gain drifts, and a chat template has features of its own that come while nothing
//! else does.

use crate::dictionary::fit::Paired;
use crate::stats::draws::{another_order, generator, normal, uniform, uniform_index};
use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use tch::{Kind, Tensor};

/// What a feature does along the series.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Course {
    /// There throughout.
    Kept,
    /// Not there before this checkpoint.
    Comes(usize),
    /// There throughout; its direction turns by a right angle.
    Turns,
    /// There throughout; twice as strong in the end as in the beginning.
    Grows,
    /// Of the template's tokens alone, and not there before this checkpoint.
    OfTemplate(usize),
}

/// A feature.
#[derive(Debug, Clone)]
pub struct Feature {
    pub course: Course,
    /// Of length 1 and at right angles.
    from: Vec<f64>,
    to: Vec<f64>,
}

/// What the checkpoints of a series have to do with each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Training {
    /// Features take their courses.
    Lessons,
    /// Every checkpoint is the first one.
    None,
    /// No feature comes: all turn and change their gain a little, by as much in all as the lessons change.
    Generic,
}

/// A planted series.
#[derive(Debug, Clone)]
pub struct Planted {
    pub features: Vec<Feature>,
    pub checkpoints: usize,
    pub d_model: usize,
    pub training: Training,
    /// Whether the template's tokens are kept out, as a walk keeps them out.
    pub masked: bool,
    seed: u64,
    /// Normal numbers that noise is taken from, since drawing each anew would take longer than fitting.
    noise: Vec<f32>,
}

/// Share of the tokens that are the template's, how often a feature is on, and the noise of a coordinate.
const TEMPLATE: f64 = 0.15;
const RARE: f64 = 0.05;
const NOISE: f64 = 0.05;
/// Numbers to take noise from.
const POOL: usize = 1 << 18;
/// Tokens of a buffer, and of a text.
const BUFFER: usize = 4096;
const TEXT: usize = 32;
/// By how much activations grow over the series.
const GROWTH: f64 = 2.0;
/// Turn, in right angles, and drift of the gain in generic training.
const GENERIC: (f64, f64) = (0.45, 0.45);

impl Planted {
    /// A series of eight checkpoints.
    pub fn new(training: Training, seed: u64) -> Self {
        let (checkpoints, d_model) = (8, 48);
        let mut rng = generator(seed, "features");
        let mut features = Vec::new();
        let mut add = |count: usize, course: &dyn Fn(usize) -> Course| {
            for number in 0..count {
                let (from, to) = directions(d_model, &mut rng);
                features.push(Feature { course: course(number), from, to });
            }
        };
        add(15, &|_| Course::Kept);
        add(15, &|number| Course::Comes(2 + number % 5));
        add(5, &|_| Course::Turns);
        add(5, &|_| Course::Grows);
        add(3, &|number| Course::OfTemplate(2 + number % 5));
        let noise = (0..POOL).map(|_| (NOISE * normal(&mut rng)) as f32).collect();
        Self { features, checkpoints, d_model, training, masked: true, seed, noise }
    }

    /// Direction of a feature at a checkpoint, as long as it is strong there.
    pub fn direction(&self, feature: usize, checkpoint: usize) -> Vec<f64> {
        let Feature { course, from, to } = &self.features[feature];
        let done = checkpoint as f64 / (self.checkpoints - 1) as f64;
        let (gain, turn) = match (self.training, course) {
            (Training::None, _) => (1.0, 0.0),
            (Training::Generic, _) => {
                // Some grow, and some shrink.
                let sign = if feature.is_multiple_of(2) { 1.0 } else { -1.0 };
                (1.0 + sign * GENERIC.1 * done, GENERIC.0 * done)
            }
            (_, Course::Kept) => (1.0, 0.0),
            (_, Course::Comes(at) | Course::OfTemplate(at)) => (f64::from(u8::from(checkpoint >= *at)), 0.0),
            (_, Course::Turns) => (1.0, done),
            (_, Course::Grows) => (0.5 + 0.5 * done, 0.0),
        };
        let (sin, cos) = (turn * std::f64::consts::FRAC_PI_2).sin_cos();
        from.iter().zip(to).map(|(from, to)| gain * (cos * from + sin * to)).collect()
    }

    /// When a feature comes; `None` for one that does not.
    pub fn comes(&self, feature: usize) -> Option<usize> {
        match self.features[feature].course {
            Course::Comes(at) if self.training == Training::Lessons => Some(at),
            _ => None,
        }
    }

    /// Tokens number `index`, `[token, checkpoint * d_model]`, with the text that each is in. Nothing is centred or scaled.
    ///
    /// # Errors
    /// Out of memory.
    pub fn tokens(&self, index: usize) -> Result<(Tensor, Vec<u32>)> {
        let mut rng = generator(self.seed, &format!("tokens {index}"));
        let (mut f, mut texts, mut n) = (Vec::new(), Vec::new(), 0);
        for token in 0..BUFFER {
            let is_template = uniform(&mut rng) < TEMPLATE;
            let row = self.activations(is_template, &mut rng);
            if !(is_template && self.masked) {
                f.extend(row);
                texts.push((index * (BUFFER / TEXT) + token / TEXT) as u32);
                n += 1;
            }
        }
        let f = Tensor::f_from_slice(&f)?.f_view([n, self.features.len() as i64])?;
        let mut parts = Vec::new();
        for checkpoint in 0..self.checkpoints {
            let directions: Vec<f32> =
                (0..self.features.len()).flat_map(|feature| self.direction(feature, checkpoint)).map(|x| x as f32).collect();
            let directions = Tensor::f_from_slice(&directions)?.f_view([self.features.len() as i64, self.d_model as i64])?;
            let mut noise = Vec::with_capacity(n as usize * self.d_model);
            for _ in 0..n {
                let start = uniform_index(POOL - self.d_model, &mut rng);
                noise.extend_from_slice(&self.noise[start..start + self.d_model]);
            }
            let noise = Tensor::f_from_slice(&noise)?.f_view([n, self.d_model as i64])?;
            let growth = if self.training == Training::None { 1.0 } else { GROWTH.powf(checkpoint as f64 / (self.checkpoints - 1) as f64) };
            parts.push(f.f_matmul(&directions)?.f_add(&noise)?.f_mul_scalar(growth)?);
        }
        Ok((Tensor::f_cat(&parts, 1)?.f_to_kind(Kind::Float)?, texts))
    }

    fn activations(&self, is_template: bool, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let on = |feature: &Feature, rng: &mut ChaCha8Rng| {
            let chance = match feature.course {
                Course::OfTemplate(_) => {
                    if is_template {
                        0.5
                    } else {
                        0.0
                    }
                }
                _ => RARE,
            };
            // Half of the size is the feature's presence, half how much of it there is.
            if uniform(rng) < chance { (1.0 + uniform(rng)) as f32 } else { 0.0 }
        };
        self.features.iter().map(|feature| on(feature, rng)).collect()
    }
}

/// Two random directions of length 1 at right angles.
fn directions(d: usize, rng: &mut ChaCha8Rng) -> (Vec<f64>, Vec<f64>) {
    let mut draw = || (0..d).map(|_| normal(rng)).collect::<Vec<f64>>();
    let unit = |x: Vec<f64>| {
        let length = x.iter().map(|x| x * x).sum::<f64>().sqrt();
        x.into_iter().map(|x| x / length).collect::<Vec<f64>>()
    };
    let from = unit(draw());
    let other = draw();
    let along: f64 = from.iter().zip(&other).map(|(a, b)| a * b).sum();
    let to = unit(other.iter().zip(&from).map(|(x, from)| x - along * from).collect());
    (from, to)
}

/// What is fitted: the tokens of a planted series, centred and scaled as those of a walk are, beginning with number `first`.
pub struct Buffers<'a> {
    pub planted: &'a Planted,
    pub scale: &'a crate::dictionary::scale::Scale,
}

impl Paired for Buffers<'_> {
    fn buffer(&mut self, index: usize) -> Result<Tensor> {
        self.scale.apply(&self.planted.tokens(index)?.0)
    }
}

/// A random order of `n`, not the one that they have.
pub fn shuffled(n: usize, seed: u64) -> Vec<usize> {
    another_order(n, &mut generator(seed, "order"))
}
