//! Frozen conversations along the series: the text stays, so what moves is the model.
//!
//! What is read behind a conversation is compared with what is read before it, at the same checkpoint (drift), and with what the first checkpoint
//! makes of the same text (change). Conversations with a user drift too, and so do neutral ones: arms are there to be compared.

use super::{Asked, Cell, Quantity, Reading, draws, estimate, minus};
use crate::measure::{Measure, Measured};
use crate::prompt::specification::Specification;
use crate::series::Series;
use crate::stats::draws::Draws;
use crate::stats::estimate::Reported;
use crate::table::{Key, Table};
use crate::walk::talks::REPLAY;
use crate::words::Status;
use anyhow::Result;
use serde::{Deserialize, Serialize};

pub const TABLE: Table = Table::keyed::<Row>("replay");
pub const MEASURE: Measure = Measure { name: REPLAY, tables: &[TABLE], run };

/// One row of `replay.parquet` behind the keys; units and intervals are those of `context`.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// The kind of conversation.
    pub arm: String,
    /// Exchanges before it is read.
    pub turns: i32,
    /// `margin`, `lens`, `axis`, or `nll`: the negative log-likelihood of the model's last turn, per token.
    pub quantity: Quantity,
    /// Empty for the axis and the likelihood.
    pub concept: String,
    pub null_bank: bool,
    /// Whether model specifications name the concept; null where nobody says.
    pub specification: Option<Specification>,
    /// Of the lens and of the axis.
    pub layer: Option<i32>,
    pub answer: Option<String>,
    pub status: Status,
    /// Behind the conversations, whose text is the same at every checkpoint.
    pub level: Reported,
    /// Minus the same before the first exchange; of the likelihood, minus that of the first turn that is read.
    pub drift: Reported,
    /// Minus the same at the first checkpoint.
    pub change: Reported,
    /// Mean tokens of the conversations.
    pub tokens: f64,
    /// Conversations of the arm.
    pub n_conversations: i32,
}

/// Without sheets the table is empty. A checkpoint without one, or with one of other conversations than the last, has rows without numbers.
fn run(series: &Series) -> Result<Measured> {
    let Some(reading) = Reading::open(series, REPLAY)? else { return Measured::of_rows::<Row>(TABLE, &[]) };
    let cells = reading.cells(|_| true);
    let mut rows: Vec<(Key, Row)> = Vec::new();
    let drawn = cells.iter().map(|cell| draws(series, &cell.arm, cell.moments.len())).collect::<Result<Vec<_>>>()?;
    for t in 0..series.points.len() {
        for (cell, draws) in cells.iter().zip(&drawn) {
            let of_turn = Asked { quantity: Quantity::Nll, concept: None, layer: None };
            let asked = reading.all().into_iter().chain((cell.turns > 0).then_some(of_turn));
            rows.extend(asked.map(|asked| (series.key(t), row(&reading, &cells, t, cell, asked, draws.as_ref()))));
        }
    }
    Measured::of_rows(TABLE, &rows)
}

fn row(reading: &Reading, cells: &[Cell], t: usize, cell: &Cell, asked: Asked, draws: Option<&Draws>) -> Row {
    let concept = asked.concept.map(|concept| &reading.header.asked[concept]);
    let mut row = Row {
        arm: cell.arm.clone(),
        turns: cell.turns as i32,
        quantity: asked.quantity,
        concept: concept.map_or_else(String::new, |concept| concept.concept.clone()),
        null_bank: concept.is_some_and(|concept| concept.null_bank),
        specification: concept.and_then(|concept| concept.specification),
        layer: reading.layer(asked),
        answer: concept.map(|concept| concept.answer.clone()),
        tokens: reading.tokens(&cell.moments),
        n_conversations: cell.moments.len() as i32,
        status: reading.status(t, asked),
        ..Row::default()
    };
    let Some(level) = reading.values(t, &cell.moments, asked) else { return row };
    row.status = if draws.is_some() { Status::Ok } else { Status::TooFewGroups };
    row.level = estimate(&level, draws).into();
    // The same conversations, where they begin.
    let fewest = usize::from(asked.quantity == Quantity::Nll);
    let script = |moment: &usize| reading.header.moments[*moment].script.as_str();
    let first = cells.iter().find(|first| first.arm == cell.arm && first.turns >= fewest).filter(|first| first.turns < cell.turns);
    let before = first.and_then(|first| {
        let same = |moment: &usize| first.moments.iter().find(|other| script(other) == script(moment)).copied();
        reading.values(t, &cell.moments.iter().map(same).collect::<Option<Vec<_>>>()?, asked)
    });
    row.drift = before.and_then(|before| estimate(&minus(&level, &before), draws)).into();
    let reference = if t > 0 { reading.values(0, &cell.moments, asked) } else { None };
    row.change = reference.and_then(|reference| estimate(&minus(&level, &reference), draws)).into();
    row
}
