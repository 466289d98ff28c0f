//! Worlds whose truth is known: series that are trained or built here, and planted items, through the code that anybody's go through.

pub mod organism;
pub mod tally;
pub mod demo;
pub mod naming;
pub mod introspecting;
pub mod features;
pub mod benchmark;
