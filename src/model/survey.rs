//! A list of the tensors that loading code asks for, in the place of the tensors.

use crate::checkpoint::weights::Weights;
use anyhow::Result;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use tch::{Device, Kind, Tensor};

/// Names of the tensors that were asked for.
#[derive(Default)]
pub struct Survey(Mutex<BTreeSet<String>>);

impl Survey {
    /// Checks one tensor and notes its name; the answer is a tensor of its shape without storage of its own.
    ///
    /// # Errors
    /// As [`Tensors::expect`].
    pub fn note(&self, weights: &Weights, name: &str, shape: &[i64], kind: Kind) -> Result<Tensor> {
        weights.base().expect(name, shape)?;
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        Self::blank(shape, kind)
    }

    /// A tensor of this shape without storage of its own.
    ///
    /// # Errors
    /// The shape is negative.
    pub fn blank(shape: &[i64], kind: Kind) -> Result<Tensor> {
        Ok(Tensor::f_zeros([], (kind, Device::Cpu))?.f_expand(shape, false)?)
    }

    /// What was asked for.
    pub fn names(self) -> BTreeSet<String> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
