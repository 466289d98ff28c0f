//! The assistant axis along the series: how long it is, whether it is the same one, where every context lies on it, and what the roles
//! vary along.

use super::contrast::third;
use super::{Measure, Measured, Part};
use crate::manifest::Readout;
use crate::onset::curve::Curve;
use crate::onset::trace::{Null, Trace};
use crate::prompt::item::AXIS;
use crate::prompt::label_family::LabelFamily;
use crate::prompt::persona::Kind;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Reported, Sampled};
use crate::stats::role_space::RoleSpace;
use crate::table::{self, Key, Table};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const NAME: &str = "assistant_axis";
const TABLE: Table = Table::keyed::<Persona>("persona");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// Role components that are reported.
const COMPONENTS: usize = 10;

/// One row of `persona.parquet` behind the keys.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Persona {
    /// `axis`, `component_1` and so on, or a context.
    context: String,
    /// `axis`, `component`, or the context's kind.
    kind: String,
    layer: i32,
    readout: String,
    status: Status,
    /// Place of a context on the axis: 0 is the mean role, 1 the mean default context.
    projection: Reported,
    /// Length of the axis, in units of the neutral pool's root mean square.
    e: Reported,
    /// Sign-flip p that the axis is there.
    p: Option<f64>,
    /// Cross-validated cosine of the axis with that of the first checkpoint.
    cos_reference: Reported,
    /// The same with that of the last checkpoint.
    cos_final: Reported,
    /// Of a component: its share of the variance between roles.
    share: Option<f64>,
    /// Of a component: its absolute cosine with the axis.
    cos_axis: Option<f64>,
    /// The length, or the component's absolute cosine with the axis, in the network with random weights: it has both too.
    reinitialised: Option<f64>,
    /// `not_run` where that network was not walked.
    reinitialised_status: Status,
    /// Fixed replies that are read in each context.
    n_replies: i32,
    /// Contexts that are roles.
    n_roles: i32,
}

/// The items of the fixed replies.
pub struct Replies {
    /// Contexts by id and kind, in order of first appearance.
    contexts: Vec<(String, String)>,
    /// `[context, reply]`.
    items: Vec<usize>,
    replies: usize,
    default: Vec<usize>,
    roles: Vec<usize>,
    readout: usize,
}

impl Replies {
    /// The replies that every context has; `None` where the store has none.
    pub fn of(series: &Series) -> Option<Self> {
        let readout = series.readout(Readout::ResponseMean.name())?;
        let mut contexts: Vec<(String, String)> = Vec::new();
        let mut items: BTreeMap<(usize, &str), usize> = BTreeMap::new();
        let there = |item: usize| (0..series.points.len()).all(|t| series.has(t, readout, item));
        for (index, item) in
            series.items.iter().enumerate().filter(|(index, item)| item.label_family == LabelFamily::PersonaAxis && there(*index))
        {
            let context = contexts.iter().position(|(id, _)| *id == item.persona_id).unwrap_or_else(|| {
                contexts.push((item.persona_id.clone(), item.persona_kind.clone()));
                contexts.len() - 1
            });
            items.insert((context, &item.group_id), index);
        }
        let mut ids: Vec<&str> = items.keys().map(|(_, reply)| *reply).collect();
        ids.sort_unstable();
        ids.dedup();
        ids.retain(|reply| (0..contexts.len()).all(|context| items.contains_key(&(context, *reply))));
        let of_kind = |kind: Kind| (0..contexts.len()).filter(|&context| contexts[context].1 == kind.name()).collect::<Vec<_>>();
        let all = (0..contexts.len()).flat_map(|context| ids.iter().map(move |reply| (context, *reply)));
        let (default, roles) = (of_kind(Kind::Default), of_kind(Kind::Role));
        (!contexts.is_empty()).then(|| Self {
            items: all.map(|key| items[&key]).collect(),
            replies: ids.len(),
            default,
            roles,
            contexts,
            readout,
        })
    }

    /// Whether there is enough for an axis.
    pub fn suffice(&self) -> bool {
        !self.default.is_empty() && self.roles.len() >= 2 && self.replies >= 2
    }

    /// Activations `[context, reply, d]` at a checkpoint and layer, and d.
    fn rows(&self, series: &Series, t: usize, layer: usize) -> Result<(Vec<f32>, usize)> {
        series.rows(t, self.readout, layer, &self.items)
    }

    /// The axis and the space of roles at a checkpoint and layer.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn space(&self, series: &Series, t: usize, layer: usize) -> Result<RoleSpace> {
        let (rows, d) = self.rows(series, t, layer)?;
        RoleSpace::new(&rows, d, self.replies, &self.default, &self.roles)
    }
}

fn run(series: &Series) -> Result<Measured> {
    let replies = Replies::of(series);
    let layers: Vec<usize> = if replies.is_some() { (0..series.layers.len()).collect() } else { Vec::new() };
    let parts = layers.par_iter().flat_map(|&layer| replies.as_ref().map(|replies| at_layer(series, replies, layer)));
    Measured::of_parts(TABLE, parts.collect::<Result<Vec<_>>>()?)
}

/// What random weights reach.
struct RandomLevel {
    /// Length of the axis, in units of the neutral pool's root mean square.
    length: f64,
    /// Absolute cosines of the components with the axis.
    cosines: Vec<f64>,
}

/// Of the network with random weights at a layer; `None` where it was not walked.
fn random_level(series: &Series, replies: &Replies, layer: usize) -> Result<Option<RandomLevel>> {
    let Some(random) = series.baseline_of(replies.readout, &replies.items).filter(|_| replies.suffice()) else { return Ok(None) };
    let space = replies.space(random, 0, layer)?;
    let draws = Draws::with_counts(replies.replies, series.flips, series.bootstraps, series.seed, AXIS)?;
    let length = space.length(&draws)?.value / random.scale(0, replies.readout, layer);
    let cosines = (0..space.components.len()).map(|component| space.cosine_with_component(component)).collect();
    Ok(Some(RandomLevel { length, cosines }))
}

fn at_layer(series: &Series, replies: &Replies, layer: usize) -> Result<Part<Persona>> {
    let random = random_level(series, replies, layer)?;
    let row = |context: &str, kind: &str, status: Status| Persona {
        context: context.to_owned(),
        kind: kind.to_owned(),
        layer: series.layers[layer] as i32,
        readout: series.readouts[replies.readout].clone(),
        status,
        reinitialised_status: if random.is_some() { Status::Ok } else { Status::NotRun },
        n_replies: replies.replies as i32,
        n_roles: replies.roles.len() as i32,
        ..Persona::default()
    };
    let n = series.points.len();
    let mut rows: Vec<(Key, Persona)> = Vec::new();
    if !replies.suffice() {
        return Ok(((0..n).map(|t| (series.key(t), row("axis", "axis", Status::NoAxis))).collect(), Vec::new()));
    }
    let draws = Draws::with_counts(replies.replies, series.flips, series.bootstraps, series.seed, AXIS)?;
    let spaces = (0..n).map(|t| replies.space(series, t, layer)).collect::<Result<Vec<_>>>()?;
    let mut lengths = Vec::with_capacity(n);
    for (t, space) in spaces.iter().enumerate() {
        let scale = series.scale(t, replies.readout, layer);
        let length = space.length(&draws)?;
        let length = Sampled { value: length.value / scale, replicates: length.replicates.iter().map(|x| x / scale).collect() };
        let cosine =
            |other: &RoleSpace| -> Result<Reported> { Ok(space.cosine_with(other, &draws)?.and_then(|cosine| cosine.estimate()).into()) };
        let mut axis = Persona {
            p: Some(space.p_value(&draws)?),
            reinitialised: random.as_ref().map(|random| random.length),
            ..row("axis", "axis", Status::Ok)
        };
        axis.e = length.estimate().into();
        axis.cos_reference = cosine(&spaces[0])?;
        axis.cos_final = cosine(&spaces[n - 1])?;
        rows.push((series.key(t), axis));
        for component in 0..space.components.len().min(COMPONENTS) {
            let share = table::finite(space.shares[component]);
            let cos_axis = table::finite(space.cosine_with_component(component));
            let name = format!("component_{}", component + 1);
            let reinitialised = random.as_ref().and_then(|random| random.cosines.get(component).copied());
            rows.push((series.key(t), Persona { share, cos_axis, reinitialised, ..row(&name, "component", Status::Ok) }));
        }
        let (activations, d) = replies.rows(series, t, layer)?;
        for ((id, kind), own) in replies.contexts.iter().zip(activations.chunks_exact(replies.replies * d)) {
            let estimate = space.project(own, &draws)?.and_then(|projection| projection.estimate());
            let mut placed = row(id, kind, if estimate.is_some() { Status::Ok } else { Status::NoAxis });
            placed.projection = estimate.into();
            rows.push((series.key(t), placed));
        }
        lengths.push(length);
    }
    let family = Family::named(NAME, LabelFamily::PersonaAxis);
    let trace = Trace::new(NAME, &family, (0..n).collect(), Curve::of_sampled(&lengths)?).at(series, replies.readout, layer);
    let choice = third(spaces[n - 1].per_reply(), spaces[n - 1].d)? / series.scale(n - 1, replies.readout, layer);
    let trace = Trace { floor: Some(0.0), choice, null: Null::Bank, ..trace };
    Ok((rows, vec![trace]))
}
