//! What conversations do to what a model says of itself, to what its residual stream holds there, and to where it stands on the assistant axis
//! ([`crate::walk::talks`]).

pub mod context;
pub mod replay;
mod spoken;
pub mod transcripts;
pub mod conversation;

use super::assistant_axis::Replies;
use super::foils::against_others;
use super::lens::{is_told_apart, telling};
use crate::series::{Lens, Series};
use crate::stats::draws::{Draws, FEWEST};
use crate::stats::estimate::{Estimate, Sampled};
use crate::stats::role_space::RoleSpace;
use crate::walk::talks::sheet::{Header, Sheet};
use crate::words::{Status, words};
use anyhow::Result;
use std::collections::BTreeMap;

words! {
    /// What is read behind a conversation, and what is counted of the text of one that a checkpoint wrote itself.
    #[derive(Default)]
    pub enum Quantity {
        /// Log-probability of the answer against the mean of its foils, self minus other, in nats.
        #[default]
        Margin = "margin",
        /// The same by the first checkpoint's unembedding at a layer.
        Lens = "lens",
        /// Place of fixed replies on the checkpoint's assistant axis: 0 is the mean role, 1 the assistant.
        Axis = "axis",
        /// Negative log-likelihood of the model's last turn, per token, in nats.
        Nll = "nll",
        /// Share of conversations whose turn repeats, word by word, one of the two turns before it that were written.
        Verbatim = "verbatim",
        /// The same where a fifth of the words may differ.
        NearVerbatim = "near_verbatim",
        /// Share of conversations whose turn and all later ones repeat so.
        Looping = "looping",
        /// Share of conversations that ended before this turn: the turn is empty, or there is no position left.
        Ended = "ended",
        /// Different words over all words, in windows of 20.
        TypeToken = "type_token",
        /// All that was written so far: bytes after DEFLATE over bytes before.
        Compression = "compression",
        /// Share of the characters that are emoji.
        Emoji = "emoji",
        /// Words of the turn.
        Words = "words",
    }
}

/// What a run read behind conversations, by the folder of the sheets; `None` where it did not. Two runs are comparable where this is the same.
pub fn read(series: &Series, folder: &str) -> Option<Header> {
    let last = (0..series.points.len()).rev().find_map(|t| Sheet::open(&series.sheet(folder, t)).ok())?;
    Some(Header { layers: Vec::new(), ..last.header })
}

/// What is read, of which concept and at which layer, both by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Asked {
    quantity: Quantity,
    concept: Option<usize>,
    layer: Option<usize>,
}

/// Conversations of one arm after so many exchanges: moments, by script.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cell {
    arm: String,
    turns: usize,
    moments: Vec<usize>,
}

/// All sheets of a folder with what they are read with.
struct Reading {
    header: Header,
    /// By checkpoint; `None` where there is none, or one of other conversations.
    sheets: Vec<Option<Sheet>>,
    lens: Option<Lens>,
    /// Directions of the answer and of the foils, by concept; `None` where the lens cannot read or cannot tell them apart.
    directions: Vec<Option<Vec<Vec<f64>>>>,
    /// `[checkpoint][layer]`; `None` without an axis.
    spaces: Vec<Vec<Option<RoleSpace>>>,
}

impl Reading {
    /// Of these sheets, by checkpoint; `None` without any. Those that are not `alike` with the last one are passed over.
    fn new(series: &Series, mut sheets: Vec<Option<Sheet>>, alike: impl Fn(&Header, &Header) -> bool) -> Result<Option<Self>> {
        let Some(header) = sheets.iter().rev().flatten().map(|sheet| sheet.header.clone()).next() else { return Ok(None) };
        sheets.iter_mut().for_each(|sheet| *sheet = sheet.take().filter(|sheet| alike(&sheet.header, &header)));
        let lens = series.lens(0)?;
        let directions = header.asked.iter().map(|asked| {
            let ids = Some(&asked.answer_ids).filter(|ids| ids.len() > 2 && is_told_apart(ids))?;
            telling(ids).iter().map(|tokens| lens.as_ref()?.direction(tokens)).collect()
        });
        let directions = directions.collect();
        let replies = Replies::of(series).filter(|replies| replies.suffice() && header.replies > 0);
        let space = |t: usize, layer: &usize| -> Result<Option<RoleSpace>> {
            let place = series.layers.iter().position(|own| own == layer);
            match (&replies, place, &sheets[t]) {
                (Some(replies), Some(place), Some(_)) => Ok(Some(replies.space(series, t, place)?)),
                _ => Ok(None),
            }
        };
        let spaces = (0..sheets.len()).map(|t| header.layers.iter().map(|layer| space(t, layer)).collect()).collect::<Result<_>>()?;
        Ok(Some(Self { header, sheets, lens, directions, spaces }))
    }

    /// Arms in the order of the sheets, each with its numbers of exchanges in ascending order.
    fn cells(&self, is_read: impl Fn(&crate::prompt::talks::Moment) -> bool) -> Vec<Cell> {
        let mut arms: Vec<&str> = Vec::new();
        let mut cells: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        for (number, moment) in self.header.moments.iter().enumerate().filter(|(_, moment)| is_read(moment)) {
            let arm = arms.iter().position(|arm| *arm == moment.arm).unwrap_or_else(|| {
                arms.push(&moment.arm);
                arms.len() - 1
            });
            cells.entry((arm, moment.turns)).or_default().push(number);
        }
        cells.into_iter().map(|((arm, turns), moments)| Cell { arm: arms[arm].to_owned(), turns, moments }).collect()
    }

    /// All that is read at a moment, but for the likelihood of the turn.
    fn all(&self) -> Vec<Asked> {
        let concepts = || (0..self.header.asked.len()).map(Some);
        let layers = || (0..self.header.layers.len()).map(Some);
        let margins = concepts().map(|concept| Asked { quantity: Quantity::Margin, concept, layer: None });
        let lens = concepts().flat_map(|concept| layers().map(move |layer| Asked { quantity: Quantity::Lens, concept, layer }));
        let axis = layers().map(|layer| Asked { quantity: Quantity::Axis, concept: None, layer });
        margins.chain(lens).chain(axis).collect()
    }

    /// What is read at a moment: of answers and foils, in the mean of the wordings, self minus other, or one number.
    fn choices(&self, t: usize, moment: usize, asked: Asked) -> Option<Vec<f64>> {
        let sheet = self.sheets[t].as_ref()?;
        let groups = self.header.groups;
        let mean = |each: Vec<Vec<f64>>| -> Vec<f64> {
            (0..each[0].len()).map(|choice| each.iter().map(|own| own[choice]).sum::<f64>() / groups as f64).collect()
        };
        match (asked.quantity, asked.concept, asked.layer) {
            (Quantity::Margin, Some(concept), _) => {
                let of = |wording: usize| {
                    let [own, other] = [0, 1].map(|side| sheet.choices(moment, concept, wording, side));
                    Some(own?.iter().zip(other?).map(|(own, other)| own - other).collect())
                };
                (0..groups).map(of).collect::<Option<Vec<_>>>().map(mean)
            }
            (Quantity::Lens, Some(concept), Some(layer)) => {
                let directions = self.directions[concept].as_ref()?;
                let of = |wording: usize| {
                    let contrast = sheet.lens(layer, moment, concept, wording);
                    let along = |direction: &Vec<f64>| direction.iter().zip(contrast).map(|(u, x)| u * f64::from(*x)).sum::<f64>();
                    let scores: Vec<f64> = directions.iter().map(along).collect();
                    scores.iter().all(|x| x.is_finite()).then_some(scores)
                };
                (0..groups).map(of).collect::<Option<Vec<_>>>().map(mean)
            }
            (Quantity::Axis, _, Some(layer)) => {
                let space = self.spaces[t][layer].as_ref()?;
                let rows: Vec<f32> = (0..self.header.replies).flat_map(|reply| sheet.reply(layer, moment, reply)).copied().collect();
                space.place(&rows).filter(|place| place.is_finite()).map(|place| vec![place])
            }
            (Quantity::Nll, ..) => sheet.nll(moment).map(|nll| vec![nll]),
            _ => None,
        }
    }

    /// One number of a moment: the answer against the mean of the others, where there are several.
    fn value(&self, t: usize, moment: usize, asked: Asked) -> Option<f64> {
        let choices = self.choices(t, moment, asked)?;
        if choices.len() > 1 { Some(against_others(&choices)[0]) } else { choices.first().copied() }
    }

    /// Of several moments.
    fn values(&self, t: usize, moments: &[usize], asked: Asked) -> Option<Vec<f64>> {
        moments.iter().map(|moment| self.value(t, *moment, asked)).collect()
    }

    /// Why a checkpoint has no number.
    fn status(&self, t: usize, asked: Asked) -> Status {
        let has_directions = asked.concept.is_none_or(|concept| self.directions[concept].is_some());
        let mixed = asked.concept.is_some_and(|concept| self.header.asked[concept].answer_ids.is_empty());
        match asked.quantity {
            _ if self.sheets[t].is_none() => Status::NotRun,
            Quantity::Lens if self.lens.is_none() => Status::NoUnembedding,
            Quantity::Lens if mixed => Status::MixedAnswers,
            Quantity::Lens if !has_directions => Status::FoilsNotToldApart,
            Quantity::Axis if asked.layer.is_none_or(|layer| self.spaces[t][layer].is_none()) => Status::NoAxis,
            _ => Status::NotScored,
        }
    }

    /// Number of a layer in the tables.
    fn layer(&self, asked: Asked) -> Option<i32> {
        asked.layer.map(|layer| self.header.layers[layer] as i32)
    }

    /// Mean of the tokens of some moments.
    fn tokens(&self, moments: &[usize]) -> f64 {
        moments.iter().map(|moment| self.header.moments[*moment].tokens as f64).sum::<f64>() / moments.len() as f64
    }
}

/// Draws of conversations; `None` with too few.
fn draws(series: &Series, what: &str, scripts: usize) -> Result<Option<Draws>> {
    (scripts >= FEWEST).then(|| Draws::with_counts(scripts, 99, series.bootstraps, series.seed, &format!("talks/{what}"))).transpose()
}

/// Mean over conversations with its interval.
fn estimate(values: &[f64], draws: Option<&Draws>) -> Option<Estimate> {
    let draws = draws?;
    Sampled { value: values.iter().sum::<f64>() / values.len() as f64, replicates: draws.means(values) }.estimate()
}

/// `a - b`, pair by pair.
fn minus(a: &[f64], b: &[f64]) -> Vec<f64> {
    a.iter().zip(b).map(|(a, b)| a - b).collect()
}
