//! Recognition: whether a statement about oneself is read as one that fits, by a linear probe that was fitted on facts about the world.
//!
//! At every checkpoint and layer the direction from swapped facts to true ones ("The capital of France is Rome", "... is Paris") is the mean
//! difference within quartets whose words are the same on both sides (a mass-mean probe, Marks & Tegmark 2023, arXiv 2310.06824). It is tested
//! on relations that it was not fitted on, and without an AUROC of .8 there is no axis. Then it reads "My name is Nova" at the last token, and
//! the same about somebody else. Score = self minus other, answer minus the mean of its foils, in units of what a known fact has: 1 is as
//! far above its foils as Paris is above Rome. Nothing about the self is in the fit, and the null is the foils' own ([`super::foils`]).
//!
//! A middle layer says it before the unembedding could read the answer, so the primary layer is one between a third and two thirds of the
//! depth; the lens has the later ones.

use super::foils::Among;
use super::{Measure, Measured, Part};
use crate::console::check_interrupt;
use crate::manifest::Readout;
use crate::onset::trace::{Null, Role, Trace};
use crate::prompt::label_family::LabelFamily;
use crate::prompt::statements::{FACTS, middle_layers};
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::Reported;
use crate::stats::evaluate::Ranking;
use crate::stats::gram::Gram;
use crate::table::{Table, finite};
use crate::words::Status;
use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const NAME: &str = "recognition";
const TABLE: Table = Table::keyed::<Row>("recognition");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// AUROC on held-out relations from which there is an axis.
const FITS: f64 = 0.8;

/// One row of `recognition.parquet` behind the keys; scores are in units of a known fact's.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Row {
    concept: String,
    null_bank: bool,
    layer: i32,
    readout: String,
    answer: Option<String>,
    status: Status,
    /// Answer against foils, self against another, by the probe that is fitted at this checkpoint.
    recognition: Reported,
    /// By the first checkpoint's probe.
    frozen: Option<f64>,
    /// Share of the foils whose rise since the first checkpoint is smaller.
    foil_percentile: Option<f64>,
    foil_p: Option<f64>,
    /// Of the probe, on facts of relations that it was not fitted on.
    axis_auroc: Option<f64>,
    /// Quartets of facts that the probe was fitted to.
    n_facts: i32,
    n_foils: i32,
    n_groups: i32,
}

/// Statements of one concept.
struct Statements<'a> {
    family: &'a Family,
    answer: Option<String>,
    /// `[group][choice]`, the item about oneself and the one about another; the answer is choice 0.
    groups: Vec<Vec<[usize; 2]>>,
}

/// Quartets of facts: the four items with their labels, and the relation of each.
struct Known {
    groups: Vec<Vec<(usize, bool)>>,
    relations: Vec<String>,
}

/// Concepts whose stems have foils, where the store has statements and facts.
fn run(series: &Series) -> Result<Measured> {
    let known = Known::of(series);
    let statements = series.families.iter().filter(|family| family.label_family == LabelFamily::StatedSelf);
    let statements: Vec<Statements> = statements.filter_map(|family| Statements::of(series, family)).collect();
    let readout = series.readout(Readout::Statement.name()).or_else(|| series.last_prompt(NAME));
    let (Some(known), Some(readout)) = (known, readout) else { return Measured::of_rows::<Row>(TABLE, &[]) };
    let middle = middle_layers(&series.layers);
    let layers: Vec<usize> = (0..series.layers.len()).filter(|&layer| series.keeps(readout, layer)).collect();
    let at_layer = |&layer: &usize| {
        check_interrupt()?;
        let axes = (0..series.points.len()).map(|t| Axis::fit(series, &known, [t, readout, layer])).collect::<Result<Vec<_>>>()?;
        let role = if middle.contains(&layer) { Role::Dated } else { Role::Companion };
        statements.iter().map(|statements| statements.follow(series, &axes, known.groups.len(), [readout, layer], role)).collect()
    };
    let parts = layers.par_iter().map(at_layer).collect::<Result<Vec<Vec<Part<Row>>>>>()?;
    Measured::of_parts(TABLE, parts.into_iter().flatten().collect())
}

impl Known {
    fn of(series: &Series) -> Option<Self> {
        let family = series.family(FACTS, &LabelFamily::Known)?;
        let (mut groups, mut relations) = (Vec::new(), Vec::new());
        for (_, members) in &family.groups {
            let labelled: Vec<(usize, bool)> = members.iter().filter_map(|&item| Some((item, series.items[item].y? == 1))).collect();
            if labelled.iter().any(|(_, y)| *y) && labelled.iter().any(|(_, y)| !y) {
                relations.push(series.items[members[0]].template_id.clone());
                groups.push(labelled);
            }
        }
        (groups.len() >= 2).then_some(Self { groups, relations })
    }
}

/// What facts have and swapped ones lack, at one checkpoint and layer.
struct Axis {
    direction: Vec<f64>,
    /// Squared length of the mean difference, without the noise in it: what a fact scores above a swapped one.
    unit: f64,
    auroc: Option<f64>,
}

impl Axis {
    /// Fits on all facts; the AUROC is of each relation's items by the direction of the others.
    fn fit(series: &Series, known: &Known, [t, readout, layer]: [usize; 3]) -> Result<Self> {
        let items: Vec<usize> = known.groups.iter().flatten().map(|(item, _)| *item).collect();
        let (rows, d) = series.rows(t, readout, layer, &items)?;
        let (mut differences, mut centred) = (Vec::with_capacity(known.groups.len() * d), Vec::with_capacity(rows.len()));
        let mut rest = rows.as_slice();
        for group in &known.groups {
            let (own, later) = rest.split_at(group.len() * d);
            rest = later;
            let mean = |wanted: &dyn Fn(bool) -> bool, j: usize| {
                let kept = || group.iter().enumerate().filter(|(_, (_, y))| wanted(*y));
                kept().map(|(at, _)| f64::from(own[at * d + j])).sum::<f64>() / kept().count() as f64
            };
            let middle: Vec<f64> = (0..d).map(|j| mean(&|_| true, j)).collect();
            differences.extend((0..d).map(|j| (mean(&|y| y, j) - mean(&|y| !y, j)) as f32));
            centred.extend(own.chunks_exact(d).map(|row| row.iter().zip(&middle).map(|(x, m)| f64::from(*x) - m).collect::<Vec<f64>>()));
        }
        let without = |relation: Option<&String>| -> Vec<f64> {
            let kept = || known.relations.iter().zip(differences.chunks_exact(d)).filter(|(own, _)| Some(*own) != relation);
            let n = kept().count().max(1) as f64;
            let mut mean = vec![0f64; d];
            kept().for_each(|(_, row)| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / n));
            mean
        };
        let mut directions: BTreeMap<&String, Vec<f64>> = BTreeMap::new();
        known.relations.iter().for_each(|relation| {
            directions.entry(relation).or_insert_with(|| without(Some(relation)));
        });
        let of_items =
            known.groups.iter().zip(&known.relations).flat_map(|(group, relation)| group.iter().map(move |(_, y)| (relation, *y)));
        let (scores, labels): (Vec<f64>, Vec<bool>) =
            of_items.zip(&centred).map(|((relation, y), row)| (dot(&directions[relation], row), y)).unzip();
        let auroc = Ranking::new(&scores, &labels)?.auroc(&vec![1.0; labels.len()]);
        Ok(Self { direction: without(None), unit: Gram::new(&differences, d)?.u(), auroc })
    }

    fn is_there(&self) -> bool {
        self.unit > 0.0 && self.auroc.is_some_and(|auroc| auroc >= FITS)
    }
}

impl<'a> Statements<'a> {
    /// `None` where fewer than two groups have every choice about oneself and about another.
    fn of(series: &Series, family: &'a Family) -> Option<Self> {
        let others = series.family(&family.concept, &LabelFamily::StatedOther)?;
        let choice = |item: usize| series.items[item].cell.split_once(':').and_then(|(_, choice)| choice.parse::<usize>().ok());
        let by_choice = |members: &[usize]| members.iter().filter_map(|&item| Some((choice(item)?, item))).collect::<BTreeMap<_, _>>();
        let mut groups: Vec<Vec<[usize; 2]>> = Vec::new();
        for (id, members) in &family.groups {
            let Some((_, other)) = others.groups.iter().find(|(other, _)| other == id) else { continue };
            let (own, other) = (by_choice(members), by_choice(other));
            if own.keys().eq(other.keys()) && own.keys().copied().eq(0..own.len()) {
                groups.push(own.into_values().zip(other.into_values()).map(|(own, other)| [own, other]).collect());
            }
        }
        let choices = groups.iter().map(Vec::len).max()?;
        groups.retain(|group| group.len() == choices);
        let stem = series.family(&family.concept, &LabelFamily::StemSelf).and_then(|family| family.groups.first());
        let answer = stem.and_then(|(_, items)| series.items[*items.first()?].answer_0.clone());
        (groups.len() >= 2 && choices > 2).then_some(Self { family, answer, groups })
    }

    /// `[group][choice]`, self minus other along an axis, from activations of the items in order.
    fn scores(&self, rows: &[f32], d: usize, axis: &Axis) -> Vec<Vec<f64>> {
        let along: Vec<f64> = rows
            .chunks_exact(d)
            .map(|row| row.iter().zip(&axis.direction).map(|(x, w)| f64::from(*x) * w).sum::<f64>() / axis.unit)
            .collect();
        let pairs: Vec<f64> = along.chunks_exact(2).map(|pair| pair[0] - pair[1]).collect();
        pairs.chunks_exact(self.groups[0].len()).map(<[f64]>::to_vec).collect()
    }

    fn follow(&self, series: &Series, axes: &[Axis], facts: usize, [readout, layer]: [usize; 2], role: Role) -> Result<Part<Row>> {
        let n = series.points.len();
        let is_there = axes.iter().all(Axis::is_there);
        let first = axes.first().context("a series has checkpoints")?;
        let key = format!("{}/stated", self.family.concept);
        let draws = Draws::with_counts(self.groups.len(), series.flips, series.bootstraps, series.seed, &key)?;
        let items: Vec<usize> = self.groups.iter().flatten().flatten().copied().collect();
        let (mut native, mut frozen) = (Vec::with_capacity(n), Vec::with_capacity(n));
        for (t, axis) in axes.iter().enumerate() {
            let (rows, d) = series.rows(t, readout, layer, &items)?;
            native.push(self.scores(&rows, d, axis));
            frozen.push(self.scores(&rows, d, first));
        }
        let has_unit = |axis: &Axis| axis.unit > 0.0;
        let native = if axes.iter().all(has_unit) { Some(Among::new(&native, &draws)?) } else { None };
        let frozen = if has_unit(first) { Some(Among::new(&frozen, &draws)?) } else { None };
        let row = |t: usize| {
            let there = native.as_ref().filter(|_| axes[t].is_there());
            let told = there.map(|among| among.told(t)).unwrap_or_default();
            let mut row = Row {
                concept: self.family.concept.clone(),
                null_bank: self.family.null_bank,
                layer: series.layers[layer] as i32,
                readout: series.readouts[readout].clone(),
                answer: self.answer.clone(),
                status: if there.is_some() { Status::Ok } else { Status::NoAxis },
                frozen: frozen.as_ref().filter(|_| first.is_there()).and_then(|among| finite(among.own.value[t])),
                foil_percentile: told.percentile,
                foil_p: told.p,
                axis_auroc: axes[t].auroc,
                n_facts: facts as i32,
                n_foils: self.groups[0].len() as i32 - 1,
                n_groups: self.groups.len() as i32,
                ..Row::default()
            };
            row.recognition = told.score.into();
            row
        };
        let rows = (0..n).map(|t| (series.key(t), row(t))).collect();
        let trace = native.map(|among| {
            let trace = Trace::new(NAME, self.family, (0..n).collect(), among.own).at(series, readout, layer);
            let status = (!is_there).then_some(Status::NoAxis);
            Trace { role, status, null: Null::Foils(among.foils), ..trace.of_stems() }
        });
        Ok((rows, trace.into_iter().collect()))
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}
