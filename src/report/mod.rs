//! What people read on stdout, made from tables and never the other way round.

pub mod words;
pub mod summary;
pub mod hypotheses;
pub mod verify;
pub mod check;
pub mod page;
pub mod forest;
pub mod ended;
