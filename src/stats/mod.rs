//! Probes: how strongly a concept is represented at one checkpoint and layer.

pub mod contrast;
pub mod sign_flip;
pub mod evaluate;
pub mod folds;
pub mod kernel;
mod newton;
pub mod logistic;
pub mod mass_mean;
pub mod control;
pub mod online;
pub mod clustered;
pub mod similarity;
pub mod subspace;
pub mod cluster;
pub mod lexical;
