//! The behaviour margin: how much more likely the first of two answers is than the second, about oneself minus about unnamed
//! others. It is the companion of every representation: one without the other is a finding.
//!
//! Where a concept has foils, what is dated is the first answer against the mean of all of them, among theirs ([`super::foils`]).

use super::change::stems;
use super::foils::Among;
use super::{Trace, columns};
use crate::console::check_interrupt;
use crate::draws::Draws;
use crate::emergence::curve::Curve;
use crate::series::Series;
use crate::table;
use anyhow::Result;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "behaviour";

/// A self item and the others'.
type Group = (usize, Vec<usize>);

/// One row of `behaviour.parquet` behind the keys: log-probability differences in nats, means over groups.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Behaviour {
    concept: String,
    null_bank: bool,
    answer_0: Option<String>,
    answer_1: Option<String>,
    status: String,
    /// Self minus others.
    margin: Option<f64>,
    margin_lower: Option<f64>,
    margin_upper: Option<f64>,
    self_margin: Option<f64>,
    self_margin_lower: Option<f64>,
    self_margin_upper: Option<f64>,
    other_margin: Option<f64>,
    other_margin_lower: Option<f64>,
    other_margin_upper: Option<f64>,
    /// The first answer against the mean of its foils, self minus others.
    foil_margin: Option<f64>,
    foil_margin_lower: Option<f64>,
    foil_margin_upper: Option<f64>,
    /// Share of the foils whose rise since the first checkpoint is smaller, and the one-sided p that the answer's is one more of theirs.
    foil_percentile: Option<f64>,
    foil_p: Option<f64>,
    n_foils: i32,
    n_groups: i32,
}

/// Writes `behaviour.parquet`.
///
/// # Errors
/// The store cannot be read or the table cannot be written.
pub fn run(series: &Series) -> Result<Vec<Trace>> {
    let (mut rows, mut traces) = (Vec::new(), Vec::new());
    let n = series.points.len();
    let answers = (0..n).map(|t| series.answers(t)).collect::<Result<Vec<_>>>()?;
    let foils = (0..n).map(|t| series.foils(t)).collect::<Result<Vec<_>>>()?;
    for pairs in stems(series) {
        check_interrupt()?;
        let margin = |t: usize, item: usize| answers[t][item].map(|[first, second]| first - second);
        let scored = |group: &&Group| (0..n).all(|t| margin(t, group.0).is_some() && group.1.iter().all(|&item| margin(t, item).is_some()));
        let groups: Vec<&Group> = pairs.groups.iter().filter(scored).collect();
        let first = &series.items[pairs.groups[0].0];
        if first.answer_0.is_none() {
            continue; // a concept without answers
        }
        let empty = Behaviour {
            concept: pairs.family.concept.clone(),
            null_bank: pairs.family.null_bank,
            answer_0: first.answer_0.clone(),
            answer_1: first.answer_1.clone(),
            status: "not_run".to_owned(),
            margin: None,
            margin_lower: None,
            margin_upper: None,
            self_margin: None,
            self_margin_lower: None,
            self_margin_upper: None,
            other_margin: None,
            other_margin_lower: None,
            other_margin_upper: None,
            foil_margin: None,
            foil_margin_lower: None,
            foil_margin_upper: None,
            foil_percentile: None,
            foil_p: None,
            n_foils: 0,
            n_groups: groups.len() as i32,
        };
        if groups.len() < 2 {
            rows.extend((0..n).map(|t| (series.key(t), empty.clone())));
            continue;
        }
        let draws =
            Draws::with_counts(groups.len(), series.flips, series.bootstraps, series.seed, &format!("{}/stem", pairs.family.concept))?;
        let own = |t: usize, group: &Group| margin(t, group.0).unwrap_or(f64::NAN);
        let others =
            |t: usize, group: &Group| group.1.iter().map(|&item| margin(t, item).unwrap_or(f64::NAN)).sum::<f64>() / group.1.len() as f64;
        let curve_of = |value: &dyn Fn(usize, &Group) -> f64| {
            Curve::of_means(&(0..n).map(|t| groups.iter().map(|group| value(t, group)).collect()).collect::<Vec<_>>(), &draws)
        };
        let difference = curve_of(&|t, group| own(t, group) - others(t, group))?;
        let (selves, others) = (curve_of(&own)?, curve_of(&others)?);
        let among = among(&groups, &answers, &foils, &draws)?;
        for t in 0..n {
            let (foil_margin, foil_margin_lower, foil_margin_upper) = columns(among.as_ref().and_then(|among| among.own.at(t)));
            let standing = among.as_ref().map(|among| among.standing(t));
            let (margin, margin_lower, margin_upper) = columns(difference.at(t));
            let (self_margin, self_margin_lower, self_margin_upper) = columns(selves.at(t));
            let (other_margin, other_margin_lower, other_margin_upper) = columns(others.at(t));
            let row = Behaviour {
                status: "ok".to_owned(),
                margin,
                margin_lower,
                margin_upper,
                self_margin,
                self_margin_lower,
                self_margin_upper,
                other_margin,
                other_margin_lower,
                other_margin_upper,
                foil_margin,
                foil_margin_lower,
                foil_margin_upper,
                foil_percentile: standing.and_then(|standing| standing.share),
                foil_p: standing.and_then(|standing| standing.p),
                n_foils: among.as_ref().map_or(0, |among| among.foils.len() as i32),
                ..empty.clone()
            };
            rows.push((series.key(t), row));
        }
        let (curve, rivals) = among.map_or((difference, Vec::new()), |among| (among.own, among.foils));
        traces.push(Trace { label_family: "stem".to_owned(), rivals, ..Trace::new(NAME, pairs.family, (0..n).collect(), curve) });
    }
    table::write_keyed(&series.folder.join("behaviour.parquet"), &rows, &series.run_hash)?;
    Ok(traces)
}

/// The first answer among the second and the foils, self minus others; `None` where an item of a group has no foils.
fn among(groups: &[&Group], answers: &[Vec<Option<[f64; 2]>>], foils: &[Vec<Vec<f64>>], draws: &Draws) -> Result<Option<Among>> {
    let choices = |t: usize, item: usize| -> Option<Vec<f64>> {
        let foils = &foils[t][item];
        (!foils.is_empty()).then(|| answers[t][item].iter().flatten().chain(foils).copied().collect())
    };
    let contrast = |t: usize, (own, others): &Group| -> Option<Vec<f64>> {
        let mut contrast = choices(t, *own)?;
        // Some of the others have foils, see the design.
        let others: Vec<Vec<f64>> =
            others.iter().filter_map(|&other| choices(t, other)).filter(|other| other.len() == contrast.len()).collect();
        for other in &others {
            contrast.iter_mut().zip(other).for_each(|(x, other)| *x -= other / others.len() as f64);
        }
        (!others.is_empty()).then_some(contrast)
    };
    let scores: Option<Vec<Vec<Vec<f64>>>> = (0..answers.len()).map(|t| groups.iter().map(|group| contrast(t, group)).collect()).collect();
    scores.map(|scores| Among::new(&scores, draws)).transpose()
}
