//! From one number per checkpoint to "does it appear, when, and in what shape": values in, values out.
//!
//! [`curve`] holds a measure along the checkpoints with its bootstrap replicates, and [`trace`] that of one concept at one layer. [`gate`] decides whether there is anything to date, [`date`] dates it by the midpoint of a
//! [`sigmoid`], [`confirm`] checks the date in two cruder ways, [`shape`] names the course, and [`reach`] compares an answer with its
//! foils where layers compete. [`verdict`] puts all that together for the traces of a series, [`row`] is what is written of it, and
//! [`leadlag`] compares dates. [`family`] does the same for many
//! curves at once. [`planted`] makes series whose answer is known.

pub mod curve;
pub mod trace;
pub mod multiplicity;
pub mod gate;
pub mod sigmoid;
pub mod date;
pub mod confirm;
pub mod shape;
pub mod reach;
pub mod family;
pub mod planted;
pub mod verdict;
pub mod weigh;
pub mod row;
pub mod leadlag;
