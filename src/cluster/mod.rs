//! Runs as jobs: the main job itself, the rank of a task in an array, how far a run is, following a training,
//! and submission to Slurm.
//!
//! No scheduler of our own: what several processes do at once on one run is settled by leases
//! ([`crate::lease`]), so any engine that starts processes will do.

pub mod rank;
pub mod crew;
pub mod tables;
pub mod status;
pub mod watch;
pub mod submit;
