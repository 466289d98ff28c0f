//! Conversations that each checkpoint carries on by itself: whether they run into a loop, how their text changes from turn to turn, and what the
//! model says of itself behind them.
//!
//! Any conversation drifts, so every number stands beside the same one in the control arm, beside that before the conversation, and beside that of
//! the first checkpoint; conversations of one number begin alike everywhere and are paired. How far the first arm moves an answer, among its
//! foils, is a curve along the series with a date of its own.

use super::spoken::{COUNTED, Spoken, is_share};
use super::transcripts::{self, Line};
use super::{Asked, Quantity, Reading, draws, estimate};
use crate::measure::behaviour::carried::{carried, mean};
use crate::measure::foils::Among;
use crate::measure::talks::context::PERSISTENCE;
use crate::measure::{Finding, Measure, Measured};
use crate::onset::curve::Curve;
use crate::onset::trace::{Null, Role, Trace};
use crate::prompt::label_family::LabelFamily;
use crate::prompt::specification::Specification;
use crate::prompt::talks::NONE;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Reported};
use crate::stats::share;
use crate::table::{self, Key, Table};
use crate::walk::conversation::dialogue::{Dialogue, Speaker};
use crate::walk::conversation::{FOLDER, Said, is_alike};
use crate::walk::talks::CONTEXT;
use crate::walk::talks::sheet::Sheet;
use crate::words::Status;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Of the curves.
pub const NAME: &str = "conversation_drift";
pub const TABLE: Table = Table::keyed::<Row>("conversation");
pub const MEASURE: Measure = Measure { name: FOLDER, tables: &[TABLE, transcripts::TABLE], run };

/// One row of `conversation.parquet` behind the keys. Units are those of `context`; intervals are over conversations: Wilson's of shares,
/// Newcombe's of their differences, of everything else by bootstrap.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// The kind of conversation; `none` for what is read before any.
    pub arm: String,
    /// At which it was written; null before any.
    pub temperature: Option<f64>,
    /// Turns of the model so far.
    pub turns: i32,
    /// `margin`, `lens`, `axis` or `nll`, at the first temperature; of the text `verbatim`, `near_verbatim`, `looping`, `ended`, `type_token`,
    /// `compression`, `emoji` or `words`.
    pub quantity: Quantity,
    /// Empty but for margins and the lens.
    pub concept: String,
    pub null_bank: bool,
    /// Whether model specifications name the concept; null where nobody says.
    pub specification: Option<Specification>,
    /// Of the lens and of the axis.
    pub layer: Option<i32>,
    pub answer: Option<String>,
    pub status: Status,
    /// At this turn.
    pub level: Reported,
    /// Minus the same before any conversation; of the text and of the likelihood, minus that of the first turn.
    pub drift: Reported,
    /// Minus the same in the control arm.
    pub beyond: Reported,
    /// Minus the same at the first checkpoint.
    pub change: Reported,
    /// Mean tokens that were written so far, by both sides.
    pub tokens: Option<f64>,
    /// Conversations that have the number.
    pub n_conversations: i32,
}

/// Without sheets both tables are empty. A checkpoint without one, or with one of other questions than the last, has rows without numbers.
fn run(series: &Series) -> Result<Measured> {
    let mut opened = series.opened(FOLDER, |file| Ok((Said::read(file)?, Sheet::read(file)?)))?;
    let way = opened.iter().rev().flatten().map(|(said, _)| said.way.clone()).next();
    for (t, own) in opened.iter_mut().enumerate().filter(|(_, own)| own.as_ref().is_some_and(|(said, _)| Some(&said.way) != way.as_ref())) {
        tracing::warn!("{}: [conversation]: it was let talk in another way than the last checkpoint; walk it again", series.points[t].id);
        *own = None;
    }
    let (said, sheets): (Vec<Option<Said>>, Vec<Option<Sheet>>) = opened.into_iter().map(Option::unzip).unzip();
    let Some(reading) = Reading::new(series, sheets, is_alike)? else {
        let tables = vec![TABLE.filled(Vec::new())?, transcripts::TABLE.filled(Vec::new())?];
        return Ok(Measured { tables, ..Measured::default() });
    };
    let most = said.iter().flatten().flat_map(|said| &said.dialogues).map(|dialogue| dialogue.seed as usize + 1).max().unwrap_or(0);
    let most = most.max(reading.header.moments.iter().filter(|moment| moment.arm == NONE).count());
    let draws = (0..=most).map(|n| draws(series, FOLDER, n)).collect::<Result<Vec<_>>>()?;
    let talked = Talked::new(&reading, &said, draws);
    let mut rows: Vec<(Key, Row)> = Vec::new();
    let mut lines: Vec<(Key, Line)> = Vec::new();
    for t in 0..series.points.len() {
        for place in &talked.places {
            rows.extend(talked.asked(place).into_iter().map(|asked| (series.key(t), talked.row(t, place, asked))));
        }
        let dialogues = said[t].iter().flat_map(|said| &said.dialogues);
        lines.extend(dialogues.flat_map(transcripts::lines).map(|line| (series.key(t), line)));
    }
    let tables = vec![TABLE.filled(vec![table::keyed(&rows)?])?, transcripts::TABLE.filled(vec![table::keyed(&lines)?])?];
    let mut measured = Measured { tables, ..Measured::default() };
    let last = talked.last();
    for concept in 0..reading.header.asked.len() {
        for (number, place) in last.iter().enumerate() {
            let role = if number == 0 { Role::Dated } else { Role::Companion };
            measured.traces.extend(talked.trace(place, concept)?.map(|trace| Trace { role, ..trace }));
        }
        // What scripted conversations say of persistence comes first: it is the same text for all.
        if series.sheets(CONTEXT).is_empty() && !last.is_empty() {
            measured.findings.extend(talked.persistence(series, concept, &last)?);
        }
    }
    Ok(measured)
}

/// How checkpoints of a run were let talk; `None` where they were not. Two runs are comparable where this is the same.
///
/// # Errors
/// A sheet is damaged.
pub fn asked(series: &Series) -> Result<Option<String>> {
    let said = series.opened(FOLDER, Said::read)?;
    Ok(said.into_iter().rev().flatten().map(|said| said.way).next())
}

/// Conversations of one arm and temperature at a turn of the model.
#[derive(Debug, Clone, PartialEq)]
struct Place {
    arm: String,
    temperature: Option<f64>,
    turns: usize,
    /// Whether it is asked behind this turn.
    is_read: bool,
}

/// A number per conversation, by seed.
type Values = BTreeMap<u32, f64>;

struct Talked<'a> {
    reading: &'a Reading,
    said: &'a [Option<Said>],
    /// By checkpoint, with the conversations they are of.
    spoken: Vec<Vec<(&'a Dialogue, Spoken)>>,
    /// By number of conversations.
    draws: Vec<Option<Draws>>,
    control: Option<&'a str>,
    /// In the order of the table: what is read before any conversation, then arm by arm, temperature by temperature.
    places: Vec<Place>,
}

impl<'a> Talked<'a> {
    fn new(reading: &'a Reading, said: &'a [Option<Said>], draws: Vec<Option<Draws>>) -> Self {
        let of = |said: &'a Option<Said>| {
            said.iter().flat_map(|said| &said.dialogues).map(|dialogue| (dialogue, Spoken::new(dialogue))).collect::<Vec<_>>()
        };
        let mut places = vec![Place { arm: NONE.to_owned(), temperature: None, turns: 0, is_read: true }];
        // The last checkpoint that said something knows all of them.
        let last = said.iter().rev().flatten().find(|said| !said.dialogues.is_empty());
        let mut arms: Vec<&str> = Vec::new();
        let mut temperatures: Vec<f64> = Vec::new();
        for dialogue in last.iter().flat_map(|said| &said.dialogues) {
            if !arms.contains(&dialogue.arm.as_str()) {
                arms.push(&dialogue.arm);
            }
            if !temperatures.contains(&dialogue.temperature) {
                temperatures.push(dialogue.temperature);
            }
        }
        let exchanges = said.iter().flatten().map(|said| said.exchanges).max().unwrap_or(0);
        for arm in arms {
            for (number, temperature) in temperatures.iter().enumerate() {
                for turns in 1..=exchanges {
                    let is_read = number == 0 && last.is_some_and(|said| said.read.contains(&turns));
                    places.push(Place { arm: arm.to_owned(), temperature: Some(*temperature), turns, is_read });
                }
            }
        }
        let control = last.and_then(|said| said.control.as_deref());
        Self { reading, said, spoken: said.iter().map(of).collect(), draws, control, places }
    }

    /// What there is at a place.
    fn asked(&self, place: &Place) -> Vec<Asked> {
        let plain = |quantity| Asked { quantity, concept: None, layer: None };
        let mut asked = if place.is_read { self.reading.all() } else { Vec::new() };
        if place.turns > 0 {
            asked.extend(place.is_read.then(|| plain(Quantity::Nll)));
            asked.extend(COUNTED.map(plain));
        }
        asked
    }

    /// Moments of a place at a checkpoint, by seed.
    fn moments(&self, t: usize, place: &Place) -> BTreeMap<u32, usize> {
        let moments = self.reading.sheets[t].iter().flat_map(|sheet| sheet.header.moments.iter().enumerate());
        let here = moments.filter(|(_, moment)| place.is_read && moment.arm == place.arm && moment.turns == place.turns);
        here.filter_map(|(number, moment)| Some((moment.script.parse().ok()?, number))).collect()
    }

    fn spoken(&self, t: usize, place: &Place) -> impl Iterator<Item = &(&'a Dialogue, Spoken)> {
        self.spoken[t].iter().filter(|(dialogue, _)| dialogue.arm == place.arm && Some(dialogue.temperature) == place.temperature)
    }

    fn values(&self, t: usize, place: &Place, asked: Asked) -> Values {
        if COUNTED.contains(&asked.quantity) {
            let of = |(dialogue, spoken): &(&Dialogue, Spoken)| Some((dialogue.seed, spoken.value(asked.quantity, place.turns)?));
            return self.spoken(t, place).filter_map(of).collect();
        }
        let moments = self.moments(t, place);
        moments.into_iter().filter_map(|(seed, moment)| Some((seed, self.reading.value(t, moment, asked)?))).collect()
    }

    /// Of one place.
    fn level(&self, values: &Values, quantity: Quantity) -> Option<Estimate> {
        let values: Vec<f64> = values.values().copied().collect();
        if is_share(quantity) { share::share(&yes(&values)) } else { estimate(&values, self.draws[values.len()].as_ref()) }
    }

    /// Of the conversations that both have.
    fn difference(&self, a: &Values, b: &Values, quantity: Quantity) -> Option<Estimate> {
        let (a, b): (Vec<f64>, Vec<f64>) = a.iter().filter_map(|(seed, a)| Some((*a, *b.get(seed)?))).unzip();
        if is_share(quantity) {
            return share::paired_difference(&yes(&a), &yes(&b));
        }
        estimate(&super::minus(&a, &b), self.draws[a.len()].as_ref())
    }

    fn row(&self, t: usize, place: &Place, asked: Asked) -> Row {
        let concept = asked.concept.map(|concept| &self.reading.header.asked[concept]);
        let values = self.values(t, place, asked);
        let counted = COUNTED.contains(&asked.quantity);
        let mut row = Row {
            arm: place.arm.clone(),
            temperature: place.temperature,
            turns: place.turns as i32,
            quantity: asked.quantity,
            concept: concept.map_or_else(String::new, |concept| concept.concept.clone()),
            null_bank: concept.is_some_and(|concept| concept.null_bank),
            specification: concept.and_then(|concept| concept.specification),
            layer: self.reading.layer(asked),
            answer: concept.map(|concept| concept.answer.clone()),
            tokens: self.tokens(t, place),
            n_conversations: values.len() as i32,
            ..Row::default()
        };
        row.level = self.level(&values, asked.quantity).into();
        row.status = match (&self.said[t], values.len()) {
            (None, _) => Status::NotRun,
            (Some(said), 0) if said.too_large.is_some() && place.turns > 0 => Status::TooLarge,
            (Some(_), 0) if !counted => self.reading.status(t, asked),
            (Some(_), _) if row.level.value.is_none() => Status::TooFewGroups,
            _ => Status::Ok,
        };
        let at = |arm: &str, turns: usize| {
            self.places
                .iter()
                .find(|other| other.arm == arm && other.turns == turns && (turns == 0 || other.temperature == place.temperature))
        };
        let begin = if counted || asked.quantity == Quantity::Nll { at(&place.arm, 1) } else { at(NONE, 0) };
        let against = |other: Option<&Place>, t: usize| {
            let other = other.filter(|other| *other != place)?;
            self.difference(&values, &self.values(t, other, asked), asked.quantity)
        };
        row.drift = against(begin, t).into();
        let control = self.control.filter(|control| *control != place.arm && place.turns > 0);
        row.beyond = against(control.and_then(|control| at(control, place.turns)), t).into();
        let first = (t > 0).then(|| self.values(0, place, asked));
        row.change = first.and_then(|first| self.difference(&values, &first, asked.quantity)).into();
        row
    }

    fn tokens(&self, t: usize, place: &Place) -> Option<f64> {
        let written = |dialogue: &Dialogue| -> u32 {
            let own = dialogue.turns.iter().filter(|turn| {
                let exchange = turn.exchange as usize;
                exchange < place.turns || (exchange == place.turns && turn.speaker == Speaker::Model)
            });
            own.filter_map(|turn| turn.tokens).sum()
        };
        let tokens: Vec<f64> = self.spoken(t, place).map(|(dialogue, _)| f64::from(written(dialogue))).collect();
        (!tokens.is_empty()).then(|| tokens.iter().sum::<f64>() / tokens.len() as f64)
    }

    /// Each arm behind the last turn after which it is asked, in their order; the control aside.
    fn last(&self) -> Vec<&Place> {
        let mut last: Vec<&Place> = Vec::new();
        for place in self.places.iter().filter(|place| place.is_read && place.turns > 0 && Some(place.arm.as_str()) != self.control) {
            match last.last_mut() {
                Some(latest) if latest.arm == place.arm => *latest = place,
                _ => last.push(place),
            }
        }
        last
    }

    /// Checkpoints that have some places, and the conversations that all of these have there.
    fn shared(&self, places: &[&Place]) -> (Vec<usize>, Vec<u32>) {
        let has_all = |t: &usize| places.iter().all(|place| !self.moments(*t, place).is_empty());
        let points: Vec<usize> = (0..self.said.len()).filter(has_all).collect();
        let all = || points.iter().flat_map(|t| places.iter().map(|place| self.moments(*t, place)));
        let first: Vec<u32> = all().next().map_or_else(Vec::new, |moments| moments.into_keys().collect());
        let shared = first.into_iter().filter(|seed| all().all(|moments| moments.contains_key(seed))).collect();
        (points, shared)
    }

    /// How far the answer to a concept is moved, along the series.
    fn trace(&self, place: &Place, concept: usize) -> Result<Option<Trace>> {
        let asked = Asked { quantity: Quantity::Margin, concept: Some(concept), layer: None };
        let Some(none) = self.places.first() else { return Ok(None) };
        let (points, seeds) = self.shared(&[place, none]);
        let moved = |t: &usize| -> Option<Vec<Vec<f64>>> {
            let [behind, before] = [place, none].map(|place| self.moments(*t, place));
            let of = |seed: &u32| {
                let [behind, before] = [behind.get(seed)?, before.get(seed)?].map(|moment| self.reading.choices(*t, *moment, asked));
                Some(super::minus(&behind?, &before?))
            };
            seeds.iter().map(of).collect()
        };
        let shifts: Option<Vec<Vec<Vec<f64>>>> = points.iter().map(moved).collect();
        let (Some(shifts), Some(draws)) = (shifts.filter(|shifts| !shifts.is_empty()), self.draws[seeds.len()].as_ref()) else {
            return Ok(None);
        };
        let known = &self.reading.header.asked[concept];
        let among = Among::new(&shifts, draws)?;
        let null = if known.foils > 0 { Null::Foils(among.foils) } else { Null::Missing(Status::NoFoils) };
        let family = Family { null_bank: known.null_bank, ..Family::named(&known.concept, LabelFamily::Stem) };
        let trace = Trace::new(NAME, &family, points, among.own).named(Some(place.arm.clone()), None);
        Ok(Some(Trace { null, ..trace }))
    }

    /// What of the rise before any conversation is there behind all of them, at every checkpoint.
    fn persistence(&self, series: &Series, concept: usize, last: &[&Place]) -> Result<Vec<Finding>> {
        let asked = Asked { quantity: Quantity::Margin, concept: Some(concept), layer: None };
        let places: Vec<&Place> = self.places.first().into_iter().chain(last.iter().copied()).collect();
        let (points, seeds) = self.shared(&places);
        let curve = |place: &&Place| -> Result<Option<Curve>> {
            let Some(draws) = self.draws[seeds.len()].as_ref() else { return Ok(None) };
            let of = |t: &usize| -> Option<Vec<f64>> {
                let values = self.values(*t, place, asked);
                seeds.iter().map(|seed| values.get(seed).copied()).collect()
            };
            points.iter().map(of).collect::<Option<Vec<_>>>().map(|values| Curve::of_means(&values, draws)).transpose()
        };
        let curves = places.iter().map(curve).collect::<Result<Option<Vec<Curve>>>>()?;
        let plain = curves.as_ref().and_then(|curves| curves.first());
        let behind = curves.as_ref().and_then(|curves| mean(&curves[1..].iter().collect::<Vec<_>>()));
        let known = &self.reading.header.asked[concept];
        let finding = |t: usize| {
            let place = points.iter().position(|point| *point == t);
            let estimate = place.zip(plain.zip(behind.as_ref())).and_then(|(at, (plain, behind))| carried(plain, behind, at));
            let status = match (place, plain, estimate) {
                (None, ..) | (_, None, _) => Status::NotRun,
                (.., None) => Status::NoRise,
                _ => Status::Ok,
            };
            Finding {
                checkpoint: series.key(t).checkpoint,
                concept: known.concept.clone(),
                null_bank: known.null_bank,
                part: PERSISTENCE,
                status,
                estimate,
                contexts: last.len() * seeds.len(),
                ..Finding::default()
            }
        };
        Ok((0..series.points.len()).map(finding).collect())
    }
}

/// Of zeros and ones.
fn yes(values: &[f64]) -> Vec<bool> {
    values.iter().map(|x| *x > 0.5).collect()
}
