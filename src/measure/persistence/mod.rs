//! Persistence of every concept that is asked in contexts, along the series: does the direction that is fitted in no context still
//! read under personas, and is it the same in other formats? The curve that is dated is the mean d' under personas; ratios and cosines are
//! levels, which are compared between runs.

mod panel;

use super::contrast::{Contrasts, Sides, divisors, labelled, third};
use super::level::Levels;
use super::{Finding, Measure, Measured, Part, joined};
use crate::onset::curve::Curve;
use crate::onset::trace::Trace;
use crate::prompt::item::Item;
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Reported, Sampled};
use crate::stats::gram::Gram;
use crate::table::{Key, Table};
use crate::words::Status;
use anyhow::Result;
use panel::{Panel, Persistence as Found, Quantity, consistency, within};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

pub const NAME: &str = "persistence";
const TABLE: Table = Table::keyed::<Persistence>("persistence");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// Levels that are compared between runs: `persistence`, `icc_item` and `within_persona` of the table, and consistency.
pub const LEVELS: [&str; 3] = ["persistence_ratio", "icc_item", "within_persona"];
pub const CONSISTENCY: &str = "consistency";
/// Quantities that hypotheses are held against.
pub const PARTS: [&str; 4] = [NAME, LEVELS[1], LEVELS[2], CONSISTENCY];
/// One-sided 5% point of the standard normal: below it the default contrast is not there, and nothing can persist.
const GATE: f64 = 1.645;

/// One row of `persistence.parquet` behind the keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Persistence {
    pub concept: String,
    pub null_bank: bool,
    pub layer: i32,
    pub readout: String,
    /// `persistence`, `icc_item`, `within_persona`, `consistency`; `persona`: persistence under one; `d_prime_default`, `d_prime_personas`.
    pub quantity: String,
    /// The context, where the row is about one.
    pub persona: Option<String>,
    pub persona_kind: Option<String>,
    pub status: Status,
    /// The quantity.
    pub value: Reported,
    /// Lower end of the 95% band of what it is for directions that carry nothing of the concept.
    pub null_lower: Option<f64>,
    /// Upper end of it.
    pub null_upper: Option<f64>,
    pub n_groups: i32,
    /// Held-out personas, or formats, the chat among them.
    pub n_contexts: i32,
    /// Formats in which the contrast is there.
    pub n_there: Option<i32>,
}

/// A concept's items in no context, and the same ones elsewhere.
struct Asked<'a> {
    family: &'a Family,
    /// All plain groups: ids, labels and items.
    ids: Vec<String>,
    sides: Vec<Sides>,
    items: Vec<usize>,
    /// Groups that every persona has, or every format, as positions among `ids`.
    persona_groups: Vec<usize>,
    format_groups: Vec<usize>,
    /// Ids and kinds of personas, and their items, group by group in the order of the plain ones.
    personas: Vec<(String, String, Vec<usize>)>,
    formats: Vec<Vec<usize>>,
}

/// Items of a concept in one context or format, by group and cell.
type Elsewhere<'a> = BTreeMap<(&'a str, &'a str), usize>;

impl<'a> Asked<'a> {
    fn of(series: &'a Series, family: &'a Family) -> Option<Self> {
        let (ids, sides, items) = labelled(series, family);
        let own =
            |item: &&(usize, &Item)| item.1.concept == family.concept && item.1.label_family == family.label_family && !item.1.is_plain();
        let all: Vec<(usize, &Item)> = series.items.iter().enumerate().collect();
        let mut personas: Vec<(&str, &str, Elsewhere)> = Vec::new();
        let mut formats: Vec<(&str, &str, Elsewhere)> = Vec::new();
        for (index, item) in all.iter().filter(own) {
            let is_persona = !item.persona_kind.is_empty();
            let (list, id) = if is_persona { (&mut personas, item.persona_id.as_str()) } else { (&mut formats, item.format_id.as_str()) };
            let at = list.iter().position(|(other, ..)| *other == id).unwrap_or_else(|| {
                list.push((id, &item.persona_kind, Elsewhere::new()));
                list.len() - 1
            });
            list[at].2.insert((&item.group_id, &item.cell), *index);
        }
        let same = |group: usize, elsewhere: &Elsewhere| -> Option<Vec<usize>> {
            let plain = members(&sides[group]).into_iter().map(|at| &series.items[items[at]]);
            plain.map(|item| elsewhere.get(&(item.group_id.as_str(), item.cell.as_str())).copied()).collect()
        };
        let shared = |list: &[(&str, &str, Elsewhere)]| -> Vec<usize> {
            (0..ids.len())
                .filter(|&group| !list.is_empty() && list.iter().all(|(.., elsewhere)| same(group, elsewhere).is_some()))
                .collect()
        };
        let (persona_groups, format_groups) = (shared(&personas), shared(&formats));
        let take = |groups: &[usize], elsewhere: &Elsewhere| groups.iter().filter_map(|&group| same(group, elsewhere)).flatten().collect();
        let personas = personas.iter().map(|(id, kind, map)| ((*id).to_owned(), (*kind).to_owned(), take(&persona_groups, map))).collect();
        let formats = formats.iter().map(|(.., map)| take(&format_groups, map)).collect();
        let asked = Self { family, ids, sides, items, persona_groups, format_groups, personas, formats };
        (asked.has_personas() || asked.has_formats()).then_some(asked)
    }

    fn has_personas(&self) -> bool {
        self.persona_groups.len() >= 2
    }

    fn has_formats(&self) -> bool {
        self.format_groups.len() >= 2
    }

    /// Whether a readout covers all items at all checkpoints.
    fn covered(&self, series: &Series, readout: usize) -> bool {
        let elsewhere = self.personas.iter().flat_map(|(.., items)| items).chain(self.formats.iter().flatten());
        let all: Vec<usize> = self.items.iter().chain(elsewhere).copied().collect();
        (0..series.points.len()).all(|t| all.iter().all(|&item| series.has(t, readout, item)))
    }

    /// y of the items of some groups, in the order of [`members`].
    fn labels(&self, groups: &[usize]) -> Vec<Vec<bool>> {
        let of = |sides: &Sides| members(sides).into_iter().map(|at| sides.ones.contains(&at)).collect();
        groups.iter().map(|&group| of(&self.sides[group])).collect()
    }
}

/// Items of a group, in the order of the store.
fn members(sides: &Sides) -> Vec<usize> {
    let mut all: Vec<usize> = sides.ones.iter().chain(&sides.zeros).copied().collect();
    all.sort_unstable();
    all
}

/// Contrasts `[group, d]` of whitened rows that lie group by group.
fn contrasts(rows: &[f32], d: usize, labels: &[Vec<bool>]) -> Vec<f32> {
    let mut delta = Vec::with_capacity(labels.len() * d);
    let mut rest = rows;
    for ys in labels {
        let (own, later) = rest.split_at(ys.len() * d);
        rest = later;
        let ones = ys.iter().filter(|y| **y).count() as f64;
        let zeros = ys.len() as f64 - ones;
        let weight = |y: bool| if y { 1.0 / ones } else { -1.0 / zeros };
        delta.extend((0..d).map(|j| ys.iter().enumerate().map(|(i, y)| weight(*y) * f64::from(own[i * d + j])).sum::<f64>() as f32));
    }
    delta
}

fn run(series: &Series) -> Result<Measured> {
    let elsewhere: BTreeSet<&str> = series.items.iter().filter(|item| !item.is_plain()).map(|item| item.concept.as_str()).collect();
    let crossed =
        series.families.iter().filter(|family| family.label_family == LabelFamily::Crossed && elsewhere.contains(family.concept.as_str()));
    let asked: Vec<Asked> = crossed.filter_map(|family| Asked::of(series, family)).collect();
    let tasks: Vec<(&Asked, usize, usize)> = asked
        .iter()
        .flat_map(|asked| {
            (0..series.readouts.len()).filter(move |readout| asked.covered(series, *readout)).map(move |readout| (asked, readout))
        })
        .flat_map(|(asked, readout)| (0..series.layers.len()).map(move |layer| (asked, readout, layer)))
        .collect();
    let parts = tasks.par_iter().map(|(asked, readout, layer)| part(series, asked, *readout, *layer)).collect::<Result<Vec<_>>>()?;
    let (rows, traces) = joined(parts);
    let findings = rows.iter().filter_map(finding).collect();
    Ok(Measured { traces, findings, ..Measured::of_rows(TABLE, &rows)? })
}

/// `None` for what no hypothesis is held against.
fn finding((key, row): &(Key, Persistence)) -> Option<Finding> {
    Some(Finding {
        checkpoint: key.checkpoint.clone(),
        concept: row.concept.clone(),
        null_bank: row.null_bank,
        part: PARTS.into_iter().find(|part| *part == row.quantity)?,
        layer: Some(row.layer),
        readout: Some(row.readout.clone()),
        status: row.status,
        estimate: row.value.estimate(),
        null: row.null_lower.zip(row.null_upper).map(<[f64; 2]>::from),
        contexts: row.n_contexts as usize,
        ..Finding::default()
    })
}

fn part(series: &Series, asked: &Asked, readout: usize, layer: usize) -> Result<Part<Persistence>> {
    let family = asked.family;
    let draw = |groups: usize| {
        let key = format!("{}/personas", family.concept);
        Draws::with_counts(groups, series.flips, series.bootstraps, series.seed, &key)
    };
    let labels = asked.labels(&asked.persona_groups);
    let place: Vec<Option<usize>> = asked.persona_groups.iter().copied().map(Some).collect();
    let (mut rows, mut under_personas, mut choice) = (Vec::new(), Vec::new(), 0.0);
    let mut levels = Levels::new(series.points.len());
    for t in 0..series.points.len() {
        let mut push = |row: Persistence| rows.push((series.key(t), row));
        let empty = |quantity: &str, n_groups: usize, n_contexts: usize| Persistence {
            concept: family.concept.clone(),
            null_bank: family.null_bank,
            layer: series.layers[layer] as i32,
            readout: series.readouts[readout].clone(),
            quantity: quantity.to_owned(),
            status: Status::GateFail,
            n_groups: n_groups as i32,
            n_contexts: n_contexts as i32,
            ..Persistence::default()
        };
        let (plain, d) = series.rows(t, readout, layer, &asked.items)?;
        let white = White::new(&plain, d, &asked.sides);
        let plain = white.apply(plain);
        let all: Vec<usize> = (0..asked.ids.len()).collect();
        let fit = contrasts(&in_order(&plain, d, asked, &all), d, &asked.labels(&all));
        choice = third(&fit, d)?;
        let gram = Gram::new(&fit, d)?;
        let gated = gram.u() > GATE * gram.flip_sd();
        if asked.has_personas() {
            let draws = draw(asked.persona_groups.len())?;
            let mut contexts = in_order(&plain, d, asked, &asked.persona_groups);
            let default = contrasts(&contexts, d, &labels);
            let mut own = Vec::with_capacity(asked.personas.len());
            for (.., items) in &asked.personas {
                let persona = white.apply(series.rows(t, readout, layer, items)?.0);
                own.push(contrasts(&persona, d, &labels));
                contexts.extend(persona);
            }
            let found = Panel { d, fit: &fit, place: &place, labels: &labels, rows: &contexts }.measure(&draws)?;
            let gated = gated && found.default.is_some_and(|default| default.lower > 0.0);
            let empty = |quantity: &str| empty(quantity, labels.len(), asked.personas.len());
            let Found { default: d_prime, personas, each, persistence, icc } = found;
            push(ungated(empty("d_prime_default"), d_prime));
            push(ungated(empty("d_prime_personas"), personas.estimate()));
            let strength = if gated { Some(within(&default, &own, d, &draws)?) } else { None };
            let strength = Quantity { sampled: strength, null: None };
            let quantities = [("persistence", &persistence), ("icc_item", &icc), ("within_persona", &strength)];
            for ((name, quantity), level) in quantities.into_iter().zip(LEVELS) {
                levels.push(t, level, there(gated, quantity));
                push(filled(empty(name), gated, quantity));
            }
            for ((id, kind, _), estimate) in asked.personas.iter().zip(each) {
                let row = Persistence { persona: Some(id.clone()), persona_kind: Some(kind.clone()), ..empty("persona") };
                push(with_estimate(row, gated, estimate, None));
            }
            under_personas.push(personas);
        }
        if asked.has_formats() {
            let labels = asked.labels(&asked.format_groups);
            let mut deltas = vec![contrasts(&in_order(&plain, d, asked, &asked.format_groups), d, &labels)];
            for items in &asked.formats {
                deltas.push(contrasts(&white.apply(series.rows(t, readout, layer, items)?.0), d, &labels));
            }
            let (found, n_there) = consistency(&deltas, d, &draw(labels.len())?)?;
            // Most formats have to show the concept before their agreement means anything.
            let gated = gated && 2 * n_there > deltas.len();
            let row = Persistence { n_there: Some(n_there as i32), ..empty("consistency", labels.len(), deltas.len()) };
            levels.push(t, CONSISTENCY, there(gated, &found));
            push(filled(row, gated, &found));
        }
    }
    let finite = |sampled: &Sampled| sampled.value.is_finite() && sampled.replicates.iter().all(|x| x.is_finite());
    let mut traces = Vec::new();
    if !under_personas.is_empty() && under_personas.iter().all(finite) {
        let points = (0..under_personas.len()).collect();
        let trace = Trace::new(NAME, family, points, Curve::of_sampled(&under_personas)?).at(series, readout, layer);
        traces.push(Trace { choice, ..trace });
    }
    traces.extend(levels.traces(family).into_iter().map(|level| Trace { choice, ..level.at(series, readout, layer) }));
    Ok((rows, traces))
}

/// Rows of some groups, group by group.
fn in_order(plain: &[f32], d: usize, asked: &Asked, groups: &[usize]) -> Vec<f32> {
    let members = groups.iter().flat_map(|&group| members(&asked.sides[group]));
    members.flat_map(|at| &plain[at * d..(at + 1) * d]).copied().collect()
}

/// The coordinates of the plain items' contrasts: centred, and every dimension over its spread.
struct White {
    centre: Vec<f64>,
    spread: Vec<f64>,
}

impl White {
    fn new(rows: &[f32], d: usize, sides: &[Sides]) -> Self {
        let n = (rows.len() / d).max(1) as f64;
        let mut centre = vec![0.0; d];
        rows.chunks_exact(d).for_each(|row| centre.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x) / n));
        Self { centre, spread: divisors(&Contrasts::new(rows, d, sides).variance) }
    }

    fn apply(&self, mut rows: Vec<f32>) -> Vec<f32> {
        for row in rows.chunks_exact_mut(self.centre.len()) {
            let scale = self.centre.iter().zip(&self.spread);
            row.iter_mut().zip(scale).for_each(|(x, (centre, spread))| *x = ((f64::from(*x) - centre) / spread) as f32);
        }
        rows
    }
}

/// The number behind a row, or the row's status.
fn there(gated: bool, quantity: &Quantity) -> Result<&Sampled, Status> {
    quantity.sampled.as_ref().filter(|_| gated).ok_or(Status::GateFail)
}

fn filled(row: Persistence, gated: bool, quantity: &Quantity) -> Persistence {
    with_estimate(row, gated, quantity.sampled.as_ref().and_then(Sampled::estimate), quantity.null)
}

fn with_estimate(row: Persistence, gated: bool, estimate: Option<Estimate>, null: Option<[f64; 2]>) -> Persistence {
    let value = Reported::from(estimate.filter(|_| gated));
    let status = if value.value.is_some() { Status::Ok } else { Status::GateFail };
    Persistence { status, value, null_lower: null.map(|n| n[0]), null_upper: null.map(|n| n[1]), ..row }
}

fn ungated(row: Persistence, estimate: Option<Estimate>) -> Persistence {
    with_estimate(row, true, estimate, None)
}
