//! Emergence: from one number per checkpoint to "does it appear, when, and in what shape".
//!
//! [`axis`] says where the checkpoints stand, [`curve`] holds a measure along them with its bootstrap
//! replicates, [`gate`] decides whether there is anything to date, [`onset`] dates it by the midpoint of a [`sigmoid`], [`confirm`]
//! checks the date in two cruder ways, and [`shape`] names the course. [`planted`] makes series whose
//! answer is known.

pub mod axis;
pub mod curve;
pub mod gate;
pub mod sigmoid;
pub mod onset;
pub mod confirm;
pub mod shape;
pub mod planted;
