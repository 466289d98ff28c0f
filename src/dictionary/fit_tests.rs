//! Fits of planted features.

use super::*;
use crate::dictionary::crosscoder::values;
use crate::stats::draws::{normal, uniform};
use tch::Kind;

const D: usize = 24;
const FEATURES: usize = 24;

/// Two checkpoints of sparse features in random directions, the same in both.
struct Planted {
    directions: Tensor,
}

impl Planted {
    fn new() -> Self {
        let mut rng = generator(3, "fit tests");
        let directions: Vec<f32> = (0..FEATURES * D).map(|_| normal(&mut rng) as f32).collect();
        let directions = Tensor::from_slice(&directions).view([FEATURES as i64, D as i64]);
        let lengths = directions.square().sum_dim_intlist(1i64, true, Kind::Float).sqrt();
        Self { directions: directions / lengths }
    }
}

impl Paired for Planted {
    fn buffer(&mut self, index: usize) -> Result<Tensor> {
        let mut rng = generator(index as u64, "fit tests tokens");
        let f: Vec<f32> =
            (0..512 * FEATURES).map(|_| if uniform(&mut rng) < 0.08 { 2.0 + uniform(&mut rng) as f32 } else { 0.0 }).collect();
        let x = Tensor::from_slice(&f).view([512, FEATURES as i64]).matmul(&self.directions);
        Ok(Tensor::cat(&[&x, &(&x * 1.5)], 1))
    }
}

fn settings(tokens: usize) -> Settings {
    Settings { latents: 48, k: 2, batch: 128, tokens, rate: Some(3e-3), seed: 0 }
}

#[test]
fn planted_features_are_found_and_lengths_are_those_of_the_checkpoints() {
    let mut fit = Fit::new(2, D, settings(120_000), Device::Cpu).unwrap();
    fit.run(&mut Planted::new(), None, &mut |_, _| Ok(())).unwrap();
    let c = &fit.weights.crosscoder;
    let directions = Planted::new().directions;
    let first = c.decoder.narrow(1, 0, D as i64);
    let cosines = directions.matmul(&first.tr()) / c.lengths().unwrap().select(1, 0);
    let best = values(&cosines.max_dim(1, false).0).unwrap();
    let found = best.iter().filter(|cosine| **cosine > 0.95).count();
    assert!(found >= FEATURES - 2, "{found} of {FEATURES}: {best:?}");
    let x = Planted::new().buffer(10_000).unwrap();
    let active = c.encode(&x).unwrap();
    let per_token = active.len() as f64 / 512.0;
    assert!((1.0..3.0).contains(&per_token), "{per_token} with threshold {}", c.threshold);
    let grown = values(&c.lengths().unwrap()).unwrap();
    let ratios: Vec<f32> = grown.chunks(2).map(|pair| pair[1] / pair[0]).collect();
    let on = active.by_latent(48);
    let live: Vec<f32> = (0..48).filter(|&j| on.count(j) > 10).map(|j| ratios[j]).collect();
    assert!(live.len() >= FEATURES - 2 && live.iter().all(|ratio| (ratio - 1.5).abs() < 0.1), "{live:?}");
}

#[test]
fn a_fit_that_was_stopped_ends_as_one_that_was_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state.safetensors");
    let weights = |fit: &Fit| (fit.weights.crosscoder.threshold, fit.weights.crosscoder.tensors().map(|(_, t)| values(t).unwrap()));
    let mut whole = Fit::new(2, D, settings(4096), Device::Cpu).unwrap();
    whole.run(&mut Planted::new(), None, &mut |_, _| Ok(())).unwrap();
    let mut first = Fit::new(2, D, settings(4096), Device::Cpu).unwrap();
    // A state is of whole buffers: 4 steps each.
    let stop = |step: usize, _: f64| if step == 12 { anyhow::bail!("stopped") } else { Ok(()) };
    assert!(first.run(&mut Planted::new(), None, &mut { stop }).is_err());
    first.buffer += 1;
    first.save(&path, "data").unwrap();
    let mut second = Fit::new(2, D, settings(4096), Device::Cpu).unwrap();
    let mut begun = None;
    second
        .run(&mut Planted::new(), Some((&path, "data")), &mut |step, _| {
            begun.get_or_insert(step);
            Ok(())
        })
        .unwrap();
    assert_eq!(begun, Some(13));
    assert_eq!(weights(&whole), weights(&second));
    // Of other data, or with another seed, it is no state to go on from.
    let mut other = Fit::new(2, D, settings(4096), Device::Cpu).unwrap();
    other.resume(&path, "other data").unwrap();
    assert_eq!(other.step(), 0);
}

#[test]
fn silent_latents_are_brought_back() {
    let mut fit = Fit::new(2, D, settings(60_000), Device::Cpu).unwrap();
    // All but a few begin far below zero.
    fit.weights.crosscoder.encoder_bias = Tensor::from_slice(&[-0.5f32; 48]);
    let _ = fit.weights.crosscoder.encoder_bias.narrow(0, 0, 3).fill_(0.5);
    fit.run(&mut Planted::new(), None, &mut |_, _| Ok(())).unwrap();
    let x = Planted::new().buffer(10_000).unwrap();
    let on = fit.weights.crosscoder.encode(&x).unwrap().by_latent(48);
    let live = (0..48).filter(|&j| on.count(j) > 0).count();
    assert!(live >= 20, "{live}");
}

#[test]
fn sizes_that_make_no_dictionary_are_refused() {
    let error = Fit::new(2, D, Settings { k: 48, ..settings(100) }, Device::Cpu).unwrap_err();
    assert_eq!(error.to_string(), "k is 48, expected 1 to 47 of 48 latents");
}
