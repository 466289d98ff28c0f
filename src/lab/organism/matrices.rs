//! Weights by name into which circuits are written, row by row and column by column, along directions of a random basis.

use super::network::{D, Network};
use super::save::Weight;
use crate::stats::draws::{generator, normal};
use crate::stats::matrix::dot_f64;
use anyhow::{Context, Result};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::collections::BTreeMap;

/// The matrices of a decoder by name.
#[derive(Clone)]
pub struct Matrices(BTreeMap<String, Weight>);

impl Matrices {
    /// Random ones; those of blocks scaled by `background`.
    ///
    /// # Errors
    /// `config` is not one of a decoder.
    pub fn random(config: &Value, generator: &mut ChaCha8Rng, background: f32) -> Result<Self> {
        let network = Network::new(config, generator)?;
        let mut weights: BTreeMap<String, Weight> = network.weights()?.into_iter().map(|weight| (weight.name.clone(), weight)).collect();
        for weight in weights.values_mut().filter(|weight| weight.shape.len() == 2 && weight.name.starts_with("model.layers")) {
            weight.values.iter_mut().for_each(|x| *x *= background);
        }
        Ok(Self(weights))
    }

    /// # Errors
    /// There is no such matrix.
    pub fn get(&mut self, name: &str) -> Result<&mut Weight> {
        self.0.get_mut(name).with_context(|| format!("{name}: there is no such matrix"))
    }

    /// Adds `factor` times a direction to a row: the unit reads it.
    ///
    /// # Errors
    /// As [`Matrices::get`].
    pub fn read(&mut self, name: &str, row: usize, direction: &[f64], factor: f64) -> Result<()> {
        let columns = direction.len();
        let row = &mut self.get(name)?.values[row * columns..(row + 1) * columns];
        row.iter_mut().zip(direction).for_each(|(x, along)| *x += (factor * along) as f32);
        Ok(())
    }

    /// Adds `factor` times a direction to a column: the unit writes it.
    ///
    /// # Errors
    /// As [`Matrices::get`].
    pub fn write(&mut self, name: &str, column: usize, direction: &[f64], factor: f64) -> Result<()> {
        let matrix = self.get(name)?;
        let columns = matrix.shape[1];
        let column = matrix.values.iter_mut().skip(column).step_by(columns);
        column.zip(direction).for_each(|(x, along)| *x += (factor * along) as f32);
        Ok(())
    }

    /// The weights, in the order of their names.
    pub fn weights(&self) -> Vec<Weight> {
        self.0.values().cloned().collect()
    }
}

/// A random orthonormal basis, by Gram and Schmidt: `[feature][d_model]`.
pub fn orthonormal(seed: u64) -> Vec<Vec<f64>> {
    let mut generator = generator(seed, "surgery/basis");
    let mut basis: Vec<Vec<f64>> = Vec::with_capacity(D);
    while basis.len() < D {
        let mut row: Vec<f64> = (0..D).map(|_| normal(&mut generator)).collect();
        for _ in 0..2 {
            for other in &basis {
                let along = dot_f64(&row, other);
                row.iter_mut().zip(other).for_each(|(x, other)| *x -= along * other);
            }
        }
        let length = dot_f64(&row, &row).sqrt();
        row.iter_mut().for_each(|x| *x /= length);
        basis.push(row);
    }
    basis
}
