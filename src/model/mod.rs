//! One decoder for every family: a configuration, one block equation, and a stream that advances a forest through the
//! blocks of a checkpoint with two of them in memory.
//!
//! What has to write, not only to be read, is a [`resident::Resident`]: the same blocks, all of them in memory, with a cache.
//!
//! Layer 0 is the embedding; layer l is the output of block l (1-based), before the final norm.

pub mod keys;
pub mod rope;
pub mod config;
pub mod survey;
pub mod packed;
pub mod layers;
pub mod plan;
pub mod attention;
pub mod mlp;
pub mod mixture;
pub mod block;
pub mod architecture;
pub mod inspect;
pub mod checkpoint;
pub mod stream;
pub mod intervene;
pub mod device;
pub mod logits;
pub mod cost;
pub mod cache;
pub mod resident;
pub mod sample;
pub mod generate;

pub use checkpoint::Checkpoint;
