//! Frozen conversations along the series: the text stays, so what moves is the model.
//!
//! What is read behind a conversation is compared with what is read before it, at the same checkpoint (drift), and with what the first checkpoint
//! makes of the same text (change). Conversations with a user drift too, and so do neutral ones: arms are there to be compared.
//!
//! Where checkpoints wrote conversations themselves, the frozen ones are the first checkpoint's, and beside them stand the checkpoint's own: the
//! difference is what the text that moved adds to the model that moved.

use super::{Asked, Cell, Quantity, Reading, draws, estimate, minus};
use crate::measure::{Measure, Measured};
use crate::prompt::specification::Specification;
use crate::series::Series;
use crate::stats::draws::Draws;
use crate::stats::estimate::Reported;
use crate::table::{Key, Table};
use crate::walk::talks::REPLAY;
use crate::walk::talks::sheet::{Header, Sheet};
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
    /// Behind the conversations that this checkpoint wrote itself; null where nobody says who wrote them.
    pub own: Reported,
    /// Own minus frozen, of conversations of one id.
    pub difference: Reported,
    /// Conversations that it wrote itself.
    pub n_own: i32,
    /// Mean tokens of the conversations.
    pub tokens: f64,
    /// Conversations of the arm.
    pub n_conversations: i32,
}

/// Without sheets the table is empty. A checkpoint without one, or with one of other conversations than the last, has rows without numbers.
fn run(series: &Series) -> Result<Measured> {
    let Some(reading) = Reading::new(series, series.opened(REPLAY, Sheet::read)?, Header::eq)? else {
        return Measured::of_rows::<Row>(TABLE, &[]);
    };
    // What is frozen, and what each checkpoint wrote.
    let written = |id: &str| reading.cells(|moment| moment.writer.as_deref() == Some(id));
    let frozen = reading.cells(|moment| moment.writer.is_none() || moment.writer == reading.header.first);
    let with_draws = |cell: Cell| Ok((draws(series, &cell.arm, cell.moments.len())?, cell));
    let frozen = frozen.into_iter().map(with_draws).collect::<Result<Vec<Drawn>>>()?;
    let mut rows: Vec<(Key, Row)> = Vec::new();
    for (t, point) in series.points.iter().enumerate() {
        let own = written(&point.id).into_iter().map(with_draws).collect::<Result<Vec<Drawn>>>()?;
        let replay = Replay { reading: &reading, frozen: &frozen, t };
        for place in &frozen {
            let (_, cell) = place;
            let own = own.iter().find(|(_, own)| own.arm == cell.arm && own.turns == cell.turns);
            let of_turn = Asked { quantity: Quantity::Nll, concept: None, layer: None };
            let asked = reading.all().into_iter().chain((cell.turns > 0).then_some(of_turn));
            rows.extend(asked.map(|asked| (series.key(t), replay.row(place, own, asked))));
        }
    }
    Measured::of_rows(TABLE, &rows)
}

/// Conversations with the draws of them.
type Drawn = (Option<Draws>, Cell);

/// A checkpoint of a run.
struct Replay<'a> {
    reading: &'a Reading,
    frozen: &'a [Drawn],
    t: usize,
}

impl Replay<'_> {
    fn script(&self, moment: usize) -> &str {
        &self.reading.header.moments[moment].script
    }

    /// Moments of another cell with the ids of these, in their order.
    fn same(&self, moments: &[usize], other: &Cell) -> Option<Vec<usize>> {
        let find = |moment: &usize| other.moments.iter().find(|other| self.script(**other) == self.script(*moment)).copied();
        moments.iter().map(find).collect()
    }

    fn row(&self, (draws, cell): &Drawn, own: Option<&Drawn>, asked: Asked) -> Row {
        let Self { reading, t, .. } = *self;
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
            n_own: own.map_or(0, |(_, own)| own.moments.len() as i32),
            status: reading.status(t, asked),
            ..Row::default()
        };
        let Some(level) = reading.values(t, &cell.moments, asked) else { return row };
        row.status = if draws.is_some() { Status::Ok } else { Status::TooFewGroups };
        row.level = estimate(&level, draws.as_ref()).into();
        // The same conversations, where they begin.
        let fewest = usize::from(asked.quantity == Quantity::Nll);
        let begin = |(_, first): &&Drawn| first.arm == cell.arm && first.turns >= fewest;
        let first = self.frozen.iter().find(begin).filter(|(_, first)| first.turns < cell.turns);
        let before = first.and_then(|(_, first)| reading.values(t, &self.same(&cell.moments, first)?, asked));
        row.drift = before.and_then(|before| estimate(&minus(&level, &before), draws.as_ref())).into();
        let reference = if t > 0 { reading.values(0, &cell.moments, asked) } else { None };
        row.change = reference.and_then(|reference| estimate(&minus(&level, &reference), draws.as_ref())).into();
        let Some((draws, own)) = own else { return row };
        let Some(said) = reading.values(t, &own.moments, asked) else { return row };
        row.own = estimate(&said, draws.as_ref()).into();
        let paired = self.same(&own.moments, cell).and_then(|frozen| reading.values(t, &frozen, asked));
        row.difference = paired.and_then(|frozen| estimate(&minus(&said, &frozen), draws.as_ref())).into();
        row
    }
}
