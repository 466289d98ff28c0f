//! Do two runs that start from the same weights end with the same direction?

use super::run::Known;
use super::same::share_base;
use crate::measure::{change, contrast};
use crate::onset::gate::LEVEL;
use crate::onset::trace::Place;
use crate::series::Series;
use crate::stats::estimate::Estimate;
use crate::stats::gram::Gram;
use crate::words::Status;
use anyhow::Result;

/// Two stores whose activations share a basis.
pub(super) struct Directions<'a> {
    a: &'a Series,
    b: &'a Series,
}

impl<'a> Directions<'a> {
    /// `None` where the runs start from different weights: their bases need not agree then, and a cosine would mean nothing.
    pub fn new(a: &'a Series, b: &'a Series) -> Result<Option<Self>> {
        Ok(share_base(a, b)?.then_some(Self { a, b }))
    }

    /// Cosine between the directions at the last checkpoints; `None` for measures without directions and where a run does not
    /// have one (its gate for changes, its sign flips for contrasts).
    pub fn cosine(&self, place: &Place, a: &Known, b: &Known) -> Result<Option<Estimate>> {
        let layer = |series: &Series| place.layer.and_then(|layer| series.layers.iter().position(|&number| number == layer));
        let readout = |series: &Series| place.readout.as_deref().and_then(|name| series.readout(name));
        let at = |series: &Series| readout(series).zip(layer(series));
        let (Some(at_a), Some(at_b)) = (at(self.a), at(self.b)) else { return Ok(None) };
        let there = |known: &Known| match place.measure {
            contrast::NAME => known.max_t_p.is_some_and(|p| p <= LEVEL),
            _ => known.status == Status::Ok,
        };
        if !there(a) || !there(b) {
            return Ok(None);
        }
        let found = match place.measure {
            contrast::NAME => [(self.a, at_a), (self.b, at_b)].map(|(series, at)| last_contrast(series, place, at)),
            change::NAME => [(self.a, at_a), (self.b, at_b)].map(|(series, at)| last_change(series, place, at)),
            _ => return Ok(None),
        };
        let [Some((a, d)), Some((b, other))] = ({
            let [a, b] = found;
            [a?, b?]
        }) else {
            return Ok(None);
        };
        if d != other || a.len() != b.len() {
            return Ok(None);
        }
        let draws = match place.measure {
            contrast::NAME => {
                let Some(family) = self.a.family(&place.concept, &place.label_family) else { return Ok(None) };
                contrast::draws(self.a, family, a.len() / d)?
            }
            _ => {
                let Some(pairs) = stem(self.a, place) else { return Ok(None) };
                change::draws(self.a, &pairs)?
            }
        };
        contrast::direction_cosine(&Gram::cross(&a, &b, d)?, &Gram::new(&a, d)?, &Gram::new(&b, d)?, &draws)
    }
}

/// Contrasts `[group, d]` at the last checkpoint, and d.
fn last_contrast(series: &Series, place: &Place, (readout, layer): (usize, usize)) -> Result<Option<(Vec<f32>, usize)>> {
    let Some(family) = series.family(&place.concept, &place.label_family) else { return Ok(None) };
    let (_, sides, items) = contrast::labelled(series, family);
    let (rows, d) = series.rows(series.points.len() - 1, readout, layer, &items)?;
    Ok(Some((contrast::Contrasts::new(&rows, d, &sides).whitened(), d)))
}

/// Learned change `[group, d]` at the last checkpoint, and d.
fn last_change(series: &Series, place: &Place, (readout, layer): (usize, usize)) -> Result<Option<(Vec<f32>, usize)>> {
    let Some(pairs) = stem(series, place) else { return Ok(None) };
    let (mut deltas, d) = change::deltas(series, &pairs, readout, layer)?;
    Ok(deltas.pop().map(|last| (last, d)))
}

fn stem<'a>(series: &'a Series, place: &Place) -> Option<change::Pairs<'a>> {
    change::stems(series).into_iter().find(|pairs| pairs.family.concept == place.concept)
}
