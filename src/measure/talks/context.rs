//! What accumulated context does: what is read behind a conversation minus the same behind a neutral one that is as long.
//!
//! A conversation of any kind moves what is said after it, and the longer the further, so a conversation about the model itself says something
//! only beyond another one of its length. Conversations are the units of resampling. How far the first arm moves an answer, among its foils, is
//! a curve along the series: susceptibility, with a date of its own. What has been learnt in plain conversation and is still said behind these
//! ones is held against the functional self.

use super::{Asked, Cell, Quantity, Reading, draws, estimate, minus};
use crate::measure::behaviour::carried::{carried, mean};
use crate::measure::foils::Among;
use crate::measure::{Finding, Measure, Measured};
use crate::onset::curve::Curve;
use crate::onset::gate::Standing;
use crate::onset::trace::{Null, Role, Trace};
use crate::prompt::label_family::LabelFamily;
use crate::prompt::specification::Specification;
use crate::prompt::talks::NONE;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::Reported;
use crate::table::{Key, Table, finite};
use crate::walk::talks::CONTEXT;
use crate::walk::talks::sheet::{Header, Sheet};
use crate::words::Status;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Of the curves.
pub const NAME: &str = "susceptibility";
pub const TABLE: Table = Table::keyed::<Row>("context");
pub const MEASURE: Measure = Measure { name: CONTEXT, tables: &[TABLE], run };
/// What of a rise is still there behind conversations, as hypotheses are held against it.
pub const PERSISTENCE: &str = "conversational_persistence";

/// One row of `context.parquet` behind the keys. Margins and the lens are in nats, the axis in units of the distance from the mean role to the
/// assistant. Intervals are over conversations, of which it takes three.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// The kind of conversation; `none` for no conversation at all.
    pub arm: String,
    /// Exchanges before it is asked.
    pub turns: i32,
    /// `margin`, `lens` or `axis`.
    pub quantity: Quantity,
    /// Empty for the axis.
    pub concept: String,
    pub null_bank: bool,
    /// Whether model specifications name the concept; null where nobody says.
    pub specification: Option<Specification>,
    /// Of the lens and of the axis.
    pub layer: Option<i32>,
    pub answer: Option<String>,
    pub status: Status,
    /// Behind the conversations.
    pub level: Reported,
    /// Behind neutral ones of the same length.
    pub neutral: Reported,
    /// The first minus the second.
    pub shift: Reported,
    /// Share of the foils that are shifted less, and the one-sided p that the answer is shifted as one of them.
    pub foil_percentile: Option<f64>,
    pub foil_p: Option<f64>,
    pub n_foils: i32,
    /// Mean tokens of the conversations.
    pub tokens: f64,
    /// Mean tokens of the neutral ones.
    pub neutral_tokens: Option<f64>,
    /// Conversations of the arm.
    pub n_conversations: i32,
}

/// Without sheets the table is empty. A checkpoint without one, or with one of other conversations than the last, has rows without numbers.
fn run(series: &Series) -> Result<Measured> {
    let Some(reading) = Reading::new(series, series.opened(CONTEXT, Sheet::read)?, Header::eq)? else {
        return Measured::of_rows::<Row>(TABLE, &[]);
    };
    let cells = reading.cells(|moment| moment.neutral.is_some() || moment.arm == NONE);
    let drawn = cells.iter().map(|cell| draws(series, &cell.arm, cell.moments.len())).collect::<Result<Vec<_>>>()?;
    let context = Context { series, reading: &reading };
    let mut rows: Vec<(Key, Row)> = Vec::new();
    for t in 0..series.points.len() {
        for (cell, draws) in cells.iter().zip(&drawn) {
            rows.extend(reading.all().into_iter().map(|asked| (series.key(t), context.row(t, cell, asked, draws.as_ref()))));
        }
    }
    // Each arm after the most exchanges, the first one first; no conversation is what these are held against.
    let mut last: Vec<(&Cell, &Draws)> = Vec::new();
    let mut none = None;
    for (cell, draws) in cells.iter().zip(&drawn).filter_map(|(cell, draws)| Some((cell, draws.as_ref()?))) {
        match last.last_mut() {
            _ if cell.arm == NONE => none = Some((cell, draws)),
            Some(latest) if latest.0.arm == cell.arm => *latest = (cell, draws),
            _ => last.push((cell, draws)),
        }
    }
    let mut traces = Vec::new();
    for (number, (cell, draws)) in last.iter().enumerate() {
        let role = if number == 0 { Role::Dated } else { Role::Companion };
        for concept in 0..reading.header.asked.len() {
            traces.extend(context.trace(cell, concept, draws)?.map(|trace| Trace { role, ..trace }));
        }
    }
    let findings = match none {
        Some(none) => {
            (0..reading.header.asked.len()).map(|concept| context.persistence(concept, none, &last)).collect::<Result<Vec<_>>>()?
        }
        None => Vec::new(),
    };
    Ok(Measured { traces, findings: findings.concat(), ..Measured::of_rows(TABLE, &rows)? })
}

struct Context<'a> {
    series: &'a Series,
    reading: &'a Reading,
}

impl Context<'_> {
    /// Neutral moments beside those of a cell; none beside no conversation.
    fn neutral(&self, cell: &Cell) -> Option<Vec<usize>> {
        cell.moments.iter().map(|moment| self.reading.header.moments[*moment].neutral).collect()
    }

    fn row(&self, t: usize, cell: &Cell, asked: Asked, draws: Option<&Draws>) -> Row {
        let reading = self.reading;
        let concept = asked.concept.map(|concept| &reading.header.asked[concept]);
        let neutral = self.neutral(cell);
        let mut row = Row {
            arm: cell.arm.clone(),
            turns: cell.turns as i32,
            quantity: asked.quantity,
            concept: concept.map_or_else(String::new, |concept| concept.concept.clone()),
            null_bank: concept.is_some_and(|concept| concept.null_bank),
            specification: concept.and_then(|concept| concept.specification),
            layer: reading.layer(asked),
            answer: concept.map(|concept| concept.answer.clone()),
            n_foils: concept.map_or(0, |concept| concept.foils as i32),
            tokens: reading.tokens(&cell.moments),
            neutral_tokens: neutral.as_ref().map(|moments| reading.tokens(moments)),
            n_conversations: cell.moments.len() as i32,
            status: reading.status(t, asked),
            ..Row::default()
        };
        let Some(level) = reading.values(t, &cell.moments, asked) else { return row };
        if draws.is_none() {
            row.status = Status::TooFewGroups;
            return row;
        }
        row.status = Status::Ok;
        row.level = estimate(&level, draws).into();
        let Some(beside) = neutral.as_ref().and_then(|moments| reading.values(t, moments, asked)) else { return row };
        row.neutral = estimate(&beside, draws).into();
        row.shift = estimate(&minus(&level, &beside), draws).into();
        let shifts = self.shifts(t, cell, asked).filter(|shifts| shifts[0].len() > 2);
        if let Some(shifts) = shifts {
            let mean = |choice: usize| shifts.iter().map(|own| own[choice]).sum::<f64>() / shifts.len() as f64;
            let all: Vec<f64> = super::against_others(&(0..shifts[0].len()).map(mean).collect::<Vec<_>>());
            let standing = Standing::new(all[0], &all[1..]);
            (row.foil_percentile, row.foil_p) = (standing.share, standing.p.and_then(finite));
        }
        row
    }

    /// By how much every choice is shifted, `[conversation][choice]`.
    fn shifts(&self, t: usize, cell: &Cell, asked: Asked) -> Option<Vec<Vec<f64>>> {
        let neutral = self.neutral(cell)?;
        let of = |(moment, neutral): (&usize, &usize)| {
            let [own, beside] = [moment, neutral].map(|moment| self.reading.choices(t, *moment, asked));
            Some(minus(&own?, &beside?))
        };
        cell.moments.iter().zip(&neutral).map(of).collect()
    }

    /// How far the answer to a concept is shifted, along the series.
    fn trace(&self, cell: &Cell, concept: usize, draws: &Draws) -> Result<Option<Trace>> {
        let asked = Asked { quantity: Quantity::Margin, concept: Some(concept), layer: None };
        let shifts = (0..self.series.points.len()).filter_map(|t| Some((t, self.shifts(t, cell, asked)?)));
        let (points, shifts): (Vec<usize>, Vec<Vec<Vec<f64>>>) = shifts.unzip();
        let known = &self.reading.header.asked[concept];
        if points.is_empty() {
            return Ok(None);
        }
        let among = Among::new(&shifts, draws)?;
        let null = if known.foils > 0 { Null::Foils(among.foils) } else { Null::Missing(Status::NoFoils) };
        let family = Family { null_bank: known.null_bank, ..Family::named(&known.concept, LabelFamily::Stem) };
        let trace = Trace::new(NAME, &family, points, among.own).named(Some(cell.arm.clone()), None);
        Ok(Some(Trace { null, ..trace }))
    }

    /// What of the rise without any conversation is there behind all of them, at every checkpoint.
    fn persistence(&self, concept: usize, none: (&Cell, &Draws), last: &[(&Cell, &Draws)]) -> Result<Vec<Finding>> {
        let asked = Asked { quantity: Quantity::Margin, concept: Some(concept), layer: None };
        let n = self.series.points.len();
        let curve = |(cell, draws): (&Cell, &Draws)| -> Result<Option<Curve>> {
            let values: Option<Vec<Vec<f64>>> = (0..n).map(|t| self.reading.values(t, &cell.moments, asked)).collect();
            values.map(|values| Curve::of_means(&values, draws)).transpose()
        };
        let plain = curve(none)?;
        let behind = last.iter().map(|pair| curve(*pair)).collect::<Result<Option<Vec<Curve>>>>()?;
        let behind = behind.and_then(|curves| mean(&curves.iter().collect::<Vec<_>>()));
        let known = &self.reading.header.asked[concept];
        let finding = |t: usize| {
            let estimate = plain.as_ref().zip(behind.as_ref()).and_then(|(plain, behind)| carried(plain, behind, t));
            let status = match (&plain, estimate) {
                (None, _) => Status::NotRun,
                (_, None) => Status::NoRise,
                _ => Status::Ok,
            };
            Finding {
                checkpoint: self.series.key(t).checkpoint,
                concept: known.concept.clone(),
                null_bank: known.null_bank,
                part: PERSISTENCE,
                status,
                estimate,
                contexts: last.iter().map(|(cell, _)| cell.moments.len()).sum(),
                ..Finding::default()
            }
        };
        Ok((0..n).map(finding).collect())
    }
}
