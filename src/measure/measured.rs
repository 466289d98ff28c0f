//! What a measure hands over: tables, curves, and numbers that hypotheses are held against. Nothing here writes.

use crate::onset::trace::Trace;
use crate::series::Series;
use crate::stats::estimate::Estimate;
use crate::table::{self, Filled, Key, Table};
use crate::words::Status;
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A measure by name.
pub struct Measure {
    pub name: &'static str,
    /// What it fills, always all of it: a table may be empty.
    pub tables: &'static [Table],
    pub run: fn(&Series) -> Result<Measured>,
}

/// What a measure found in a series.
#[derive(Default)]
pub struct Measured {
    pub tables: Vec<Filled>,
    pub traces: Vec<Trace>,
    pub findings: Vec<Finding>,
}

/// Rows of a measure's table and its curves, as one of its tasks returns them.
pub type Part<R> = (Vec<(Key, R)>, Vec<Trace>);

impl Measured {
    /// One table, its rows in order, and no curves.
    ///
    /// # Errors
    /// A row cannot be represented.
    pub fn of_rows<R: Serialize + DeserializeOwned>(table: Table, rows: &[(Key, R)]) -> Result<Self> {
        Ok(Self { tables: vec![table.filled(vec![table::keyed(rows)?])?], ..Self::default() })
    }

    /// One table and curves, those of all parts in order.
    ///
    /// # Errors
    /// As [`Measured::of_rows`].
    pub fn of_parts<R: Serialize + DeserializeOwned>(table: Table, parts: Vec<Part<R>>) -> Result<Self> {
        let (rows, traces) = joined(parts);
        Ok(Self { traces, ..Self::of_rows(table, &rows)? })
    }
}

/// All parts as one, in order.
pub fn joined<R>(parts: Vec<Part<R>>) -> Part<R> {
    let (rows, traces): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    (rows.into_iter().flatten().collect(), traces.into_iter().flatten().collect())
}

/// A number at a checkpoint that hypotheses are held against.
#[derive(Debug, Clone, Default)]
pub struct Finding {
    /// Id of the checkpoint.
    pub checkpoint: String,
    /// Empty for what is about all concepts at once.
    pub concept: String,
    pub null_bank: bool,
    /// Which part of a signature it is.
    pub part: &'static str,
    /// Where it was found; none for answers.
    pub layer: Option<i32>,
    pub readout: Option<String>,
    pub status: Status,
    pub estimate: Option<Estimate>,
    /// 95% band of what it is without the concept.
    pub null: Option<[f64; 2]>,
    /// What is left of it beyond chance, where it has a chance level.
    pub excess: Option<Estimate>,
    /// Contexts or formats that it is a mean over; many where that is no question.
    pub contexts: usize,
}
