//! Walking: every checkpoint of a manifest over the forest, its readouts written as they come, and what is checked on the way.
//!
//! [`job`] is the main loop; the others are what it does at a checkpoint. [`store`] is the file that a checkpoint becomes: all that follows
//! reads it and knows no model.

pub mod store;
pub mod readout;
mod answers;
pub mod sheets;
pub mod interventions;
pub mod introspection;
pub mod stitching;
pub mod talks;
pub mod conversation;
pub mod audit;
mod lines;
pub mod texts;
pub mod paired;
pub mod job;
pub mod opened;
pub mod extract;
pub mod generate;
