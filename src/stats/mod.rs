//! Statistics on arrays: numbers in, numbers out, with no files and no tensors.
//!
//! First what everything is made of: the [`draws`] that all measures share, an [`estimate`], [`tails`] of distributions, products and
//! factors of matrices. Then how strongly a concept is represented at one checkpoint and layer: the [`gram`] matrix of its contrasts, and
//! probes. Then how directions and spaces compare, what [`lexical`] cues alone reach, and what is counted of what was said.

pub mod draws;
pub mod estimate;
pub mod tails;
pub mod matrix;
pub mod symmetric;
pub mod sign_flip;
pub mod gram;
pub mod evaluate;
pub mod clustered;
pub mod folds;
pub mod kernel;
mod newton;
pub mod logistic;
pub mod mass_mean;
pub mod control;
pub mod online;
pub mod alignment;
pub mod subspace;
pub mod role_space;
pub mod shared_direction;
pub mod lexical;
pub mod share;
pub mod text;
