//! The behaviour margin: how much more likely the first of two answers is than the second, about oneself minus about unnamed
//! others. It is the companion of every representation: one without the other is a finding.
//!
//! Where a concept has foils, what is dated is the first answer against the mean of all of them, among theirs ([`super::foils`]).

pub mod carried;

use super::change::{Pairs, stems};
use super::foils::{Among, Scores};
use super::level::Levels;
use super::{Finding, Measure, Measured};
use crate::console::check_interrupt;
use crate::onset::curve::Curve;
use crate::onset::trace::{Null, Role, Trace};
use crate::prompt::item::{DEFAULT, Item};
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::Reported;
use crate::table::{Key, Table};
use crate::words::Status;
use anyhow::Result;
use carried::carried;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

pub const NAME: &str = "behaviour";
const TABLE: Table = Table::keyed::<Behaviour>("behaviour");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// What carries over in the mean of the contexts, as hypotheses are held against it.
pub const PERSISTENCE: &str = "behavioural_persistence";
/// The mean margin over contexts, a level that is compared between runs.
pub const IN_CONTEXTS: &str = "behaviour_in_contexts";

type Rows = Vec<(Key, Behaviour)>;
/// A self item and the others'.
pub(super) type Group = (usize, Vec<usize>);

/// One row of `behaviour.parquet` behind the keys: log-probability differences in nats, means over groups.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Behaviour {
    concept: String,
    null_bank: bool,
    /// `default`, the context in which it is asked, or `(contexts)` for their mean; only the first is dated.
    persona: String,
    persona_kind: String,
    /// The answer that is asked about.
    answer_0: Option<String>,
    /// The answer that it is compared with.
    answer_1: Option<String>,
    status: Status,
    /// Self minus others.
    margin: Reported,
    /// Log-probability of `answer_0` minus that of `answer_1`, asked about oneself.
    self_margin: Reported,
    /// The same about unnamed others.
    other_margin: Reported,
    /// The first answer against the mean of its foils, self minus others.
    foil_margin: Reported,
    /// Share of the foils whose rise since the first checkpoint is smaller.
    foil_percentile: Option<f64>,
    foil_p: Option<f64>,
    /// Of a context: its rise since the first checkpoint over that of the plain margin; null where that has not risen.
    carried: Reported,
    n_foils: i32,
    n_groups: i32,
    /// Contexts that the row is the mean of.
    n_contexts: i32,
}

/// Every concept as it is asked plainly, which is dated, and in contexts.
fn run(series: &Series) -> Result<Measured> {
    let (mut rows, mut traces) = (Vec::new(), Vec::new());
    let scores = Scores::read(series)?;
    let contexts = contexts(&series.items);
    for Pairs { family, groups } in stems(series) {
        check_interrupt()?;
        let (more, trace) = follow(series, &scores, family, DEFAULT, &groups)?;
        rows.extend(more);
        let (plain, mut asked, mut pairs) = (groups, Vec::new(), Vec::new());
        for ((_, persona), groups) in contexts.iter().filter(|((concept, _), _)| *concept == family.concept) {
            let (mut more, own) = follow(series, &scores, family, persona, groups)?;
            if let Some(pair) = paired(series, &scores, family, &plain, groups)? {
                more.iter_mut().enumerate().for_each(|(t, (_, row))| row.carry(&pair, t));
                pairs.push(pair);
            }
            // A concept without answers has no rows, and nothing to average.
            asked.extend((!more.is_empty()).then_some(own));
            rows.extend(more);
        }
        rows.extend(mean_carried(series, family, &pairs));
        traces.extend(trace);
        traces.extend(over_contexts(series, family, &asked));
    }
    let findings = rows.iter().filter(|(_, row)| row.persona == carried::CONTEXTS).map(finding).collect();
    Ok(Measured { traces, findings, ..Measured::of_rows(TABLE, &rows)? })
}

fn finding((key, row): &(Key, Behaviour)) -> Finding {
    Finding {
        checkpoint: key.checkpoint.clone(),
        concept: row.concept.clone(),
        null_bank: row.null_bank,
        part: PERSISTENCE,
        status: row.status,
        estimate: row.carried.estimate(),
        contexts: row.n_contexts as usize,
        ..Finding::default()
    }
}

/// Answer stems that are asked in contexts, by concept and context.
fn contexts(items: &[Item]) -> BTreeMap<(&str, &str), Vec<Group>> {
    let mut found: BTreeMap<(&str, &str), BTreeMap<&str, Group>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.is_plain()) {
        let is_self = item.label_family == LabelFamily::StemSelf;
        if is_self || item.label_family == LabelFamily::StemOther {
            let groups = found.entry((&item.concept, &item.persona_id)).or_default();
            let group = groups.entry(&item.group_id).or_insert((usize::MAX, Vec::new()));
            if is_self { group.0 = index } else { group.1.push(index) }
        }
    }
    let whole =
        |groups: BTreeMap<&str, Group>| groups.into_values().filter(|(own, others)| *own != usize::MAX && !others.is_empty()).collect();
    found.into_iter().map(|(place, groups)| (place, whole(groups))).collect()
}

impl Behaviour {
    fn empty(family: &Family, persona: &str) -> Self {
        Self {
            concept: family.concept.clone(),
            null_bank: family.null_bank,
            persona: persona.to_owned(),
            status: Status::NotRun,
            ..Self::default()
        }
    }

    /// Fills in what carries over to a context.
    fn carry(&mut self, pair: &Pair, t: usize) {
        self.carried = carried(&pair.plain, &pair.context, t).into();
    }
}

/// Margins in plain conversation and in a context, of the same groups.
struct Pair {
    plain: Curve,
    context: Curve,
}

/// The groups of a context beside the same ones as they are asked plainly; `None` where fewer than two are scored in both.
fn paired(series: &Series, scores: &Scores, family: &Family, plain: &[Group], asked: &[Group]) -> Result<Option<Pair>> {
    let id = |group: &Group| series.items[group.0].group_id.as_str();
    let scored = |group: &Group| (0..series.points.len()).all(|t| difference(scores, t, group).is_some());
    let both = asked.iter().filter_map(|own| Some((plain.iter().find(|group| id(group) == id(own))?, own)));
    let (plain, asked): (Vec<&Group>, Vec<&Group>) = both.filter(|(plain, own)| scored(plain) && scored(own)).unzip();
    if asked.len() < 2 {
        return Ok(None);
    }
    let draws = Draws::with_counts(asked.len(), series.flips, series.bootstraps, series.seed, &format!("{}/stem", family.concept))?;
    let curve = |groups: &[&Group]| {
        let at = |t: usize| groups.iter().map(|group| difference(scores, t, group).unwrap_or(f64::NAN)).collect();
        Curve::of_means(&(0..series.points.len()).map(at).collect::<Vec<_>>(), &draws)
    };
    Ok(Some(Pair { plain: curve(&plain)?, context: curve(&asked)? }))
}

/// Margin of a group, self minus others.
fn difference(scores: &Scores, t: usize, group: &Group) -> Option<f64> {
    Some(scores.margin(t, group.0)? - of_others(scores, t, group)?)
}

/// Mean margin of the others of a group.
fn of_others(scores: &Scores, t: usize, (_, others): &Group) -> Option<f64> {
    let others = others.iter().map(|&other| scores.margin(t, other)).collect::<Option<Vec<f64>>>()?;
    Some(others.iter().sum::<f64>() / others.len() as f64)
}

/// What carries over in the mean of the contexts, at every checkpoint.
fn mean_carried(series: &Series, family: &Family, pairs: &[Pair]) -> Rows {
    let of = |curve: fn(&Pair) -> &Curve| carried::mean(&pairs.iter().map(curve).collect::<Vec<_>>());
    let (Some(plain), Some(context)) = (of(|pair| &pair.plain), of(|pair| &pair.context)) else { return Vec::new() };
    let pair = Pair { plain, context };
    let row = |t: usize| {
        let mut row = Behaviour {
            n_contexts: pairs.len() as i32,
            persona_kind: carried::MEAN.to_owned(),
            ..Behaviour::empty(family, carried::CONTEXTS)
        };
        row.carry(&pair, t);
        row.status = if row.carried.value.is_some() { Status::Ok } else { Status::NoRise };
        (series.key(t), row)
    };
    (0..series.points.len()).map(row).collect()
}

/// The mean margin over contexts, a level; its status is `not_scored` where one of them has no margins.
fn over_contexts(series: &Series, family: &Family, asked: &[Option<Trace>]) -> Vec<Trace> {
    if asked.is_empty() {
        return Vec::new();
    }
    let curves: Option<Vec<&Curve>> = asked.iter().map(|trace| trace.as_ref().map(|trace| &trace.curve)).collect();
    let mean = curves.and_then(|curves| carried::mean(&curves));
    let mut levels = Levels::new(series.points.len());
    for t in 0..series.points.len() {
        let mean = mean.as_ref().map(|mean| mean.sampled(t));
        levels.push(t, IN_CONTEXTS, mean.as_ref().ok_or(Status::NotScored));
    }
    levels.traces(family).into_iter().map(Trace::of_stems).collect()
}

/// One concept along the series, asked in one context.
fn follow(series: &Series, scores: &Scores, family: &Family, persona: &str, groups: &[Group]) -> Result<(Rows, Option<Trace>)> {
    let n = series.points.len();
    let Some(first) = groups.first().map(|(own, _)| &series.items[*own]).filter(|first| first.answer_0.is_some()) else {
        return Ok((Vec::new(), None)); // a concept without answers
    };
    let scored = |group: &&Group| (0..n).all(|t| std::iter::once(&group.0).chain(&group.1).all(|&item| scores.margin(t, item).is_some()));
    let groups: Vec<&Group> = groups.iter().filter(scored).collect();
    let empty = Behaviour {
        persona_kind: first.persona_kind.clone(),
        answer_0: first.answer_0.clone(),
        answer_1: first.answer_1.clone(),
        n_groups: groups.len() as i32,
        n_contexts: 1,
        ..Behaviour::empty(family, persona)
    };
    if groups.len() < 2 {
        return Ok(((0..n).map(|t| (series.key(t), empty.clone())).collect(), None));
    }
    let draws = Draws::with_counts(groups.len(), series.flips, series.bootstraps, series.seed, &format!("{}/stem", family.concept))?;
    let curve_of = |value: &dyn Fn(usize, &Group) -> Option<f64>| {
        let at = |t: usize| groups.iter().map(|group| value(t, group).unwrap_or(f64::NAN)).collect();
        Curve::of_means(&(0..n).map(at).collect::<Vec<_>>(), &draws)
    };
    let difference = curve_of(&|t, group| difference(scores, t, group))?;
    let (selves, others) = (curve_of(&|t, group| scores.margin(t, group.0))?, curve_of(&|t, group| of_others(scores, t, group))?);
    let among = among(&groups, n, scores, &draws)?;
    let row = |t: usize| {
        let told = among.as_ref().map(|among| among.told(t)).unwrap_or_default();
        let mut row = Behaviour { status: Status::Ok, foil_percentile: told.percentile, foil_p: told.p, ..empty.clone() };
        row.margin = difference.at(t).into();
        row.self_margin = selves.at(t).into();
        row.other_margin = others.at(t).into();
        row.foil_margin = told.score.into();
        row.n_foils = told.n_foils;
        row
    };
    let rows = (0..n).map(|t| (series.key(t), row(t))).collect();
    let (curve, null) = among.map_or((difference, Null::Missing(Status::NoFoils)), |among| (among.own, Null::Foils(among.foils)));
    let trace = Trace { role: Role::Named, null, ..Trace::new(NAME, family, (0..n).collect(), curve).of_stems() };
    Ok((rows, Some(trace)))
}

/// The first answer among the second and the foils, self minus others; `None` where an item of a group has no foils.
pub(super) fn among(groups: &[&Group], n: usize, scores: &Scores, draws: &Draws) -> Result<Option<Among>> {
    let contrast = |t: usize, (own, others): &Group| -> Option<Vec<f64>> {
        let mut contrast = scores.among_foils(t, *own)?;
        // Some of the others have foils, see the design.
        let others: Vec<Vec<f64>> =
            others.iter().filter_map(|&other| scores.among_foils(t, other)).filter(|other| other.len() == contrast.len()).collect();
        for other in &others {
            contrast.iter_mut().zip(other).for_each(|(x, other)| *x -= other / others.len() as f64);
        }
        (!others.is_empty()).then_some(contrast)
    };
    let among: Option<Vec<Vec<Vec<f64>>>> = (0..n).map(|t| groups.iter().map(|group| contrast(t, group)).collect()).collect();
    among.map(|among| Among::new(&among, draws)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stems_in_contexts_are_grouped_and_incomplete_groups_are_left_out() {
        let item = |family: &str, group: &str, persona: &str| -> Item {
            serde_json::from_value(serde_json::json!({
                "item_id": "", "concept": "name", "label_family": family, "null_bank": false, "neutral": false, "group_id": group, "cell": "",
                "y": null, "persona_id": persona,
            }))
            .unwrap()
        };
        let items = [
            item("stem_self", "g0", "default"),
            item("stem_self", "g0", "clerk"),
            item("stem_other", "g0", "clerk"),
            item("crossed", "g0", "clerk"),
            item("stem_other", "g1", "clerk"),
            item("stem_self", "g0", "oracle"),
        ];
        let found = contexts(&items);
        assert_eq!(found[&("name", "clerk")], [(1, vec![2])]);
        assert!(found[&("name", "oracle")].is_empty() && found.len() == 2);
    }
}
