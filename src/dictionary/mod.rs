//! Sparse dictionaries along a series: one latent, N decoders.
//!
//! A crosscoder (Lindsey et al. 2024) reads the same token at all checkpoints at once and explains it by few latents, each of which has
//! a direction of its own at every checkpoint. So a feature that turns keeps its number, one that grows has a longer direction, and one
//! that is not there yet has none. With one checkpoint it is a sparse autoencoder. Sparsity is BatchTopK (Bussmann et al. 2024): the
//! `k * tokens` largest activations of a batch, weighted by the length of what they decode to. There is no L1 term, because a penalty
//! on lengths makes latents that seem to belong to one checkpoint (Minder, Dumas et al. 2025).
//!
//! ```text
//! lanes       loops over rows
//! active      which latents are on at which tokens, and how much
//! crosscoder  weights, encoding, decoding, inference by threshold
//! dense       one step of the fit as products of tensors, on any device
//! sparse      the same step on a CPU, where most of these products are with zeros
//! fit         all steps: learning rate, silent latents, threshold, a state to go on from
//! scale       what makes checkpoints comparable: centre and size of each one's activations
//! strength    how strong every latent is at every checkpoint, on tokens that nothing was fitted on
//! stability   what is there again with another seed
//! sheet       a dictionary with its strengths, as a file of a run
//! ```
//!
//! Activations are made as they are needed and handed over in buffers ([`fit::Paired`]); nothing but results is kept.

mod lanes;
pub mod active;
pub mod crosscoder;
pub mod dense;
mod sparse;
pub mod scale;
pub mod fit;
pub mod strength;
pub mod stability;
pub mod sheet;

pub use active::Active;
pub use crosscoder::{Crosscoder, Shape};
