//! Which latents tell questions to the model about itself from the same questions about others.
//!
//! At the last token of an answer's stem ("My name is", "The gardener's name is"), activation when it is about oneself minus the mean when
//! it is about others, a difference per wording. A latent that merely fires when the model is asked about itself does so for whatever is
//! asked, so every difference stands among those of topics that nobody teaches.

use super::Placed;
use crate::measure::change::{Pairs, stems};
use crate::series::Series;
use crate::stats::draws::Draws;
use crate::stats::estimate::{Estimate, Reported};
use crate::stats::sign_flip::p_value;
use crate::table::Table;
use anyhow::Result;
use serde::{Deserialize, Serialize};

pub const TABLE: Table = Table::new::<LatentSelf>("latent_self");
/// Latents per concept, those with the largest differences.
const MOST: usize = 20;

/// One row of `latent_self.parquet`: a latent and a concept, as far as it is among the twenty with the largest differences.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct LatentSelf {
    run: String,
    layer: i32,
    /// Number of the fit.
    seed: i32,
    concept: String,
    null_bank: bool,
    /// Number of the latent, from 0.
    latent: i32,
    /// From 1, by size of the difference.
    rank: i32,
    /// Mean activation where it is about oneself.
    own: f64,
    /// Mean activation where it is about others.
    other: f64,
    /// `own` minus `other`.
    difference: Reported,
    /// Sign-flip p over wordings, two-sided and family-wise over all latents.
    p_max_t: f64,
    /// Share of the other null topics whose difference in this latent is smaller in size; null without a null bank.
    null_percentile: Option<f64>,
    n_groups: i32,
}

/// Differences of one concept.
struct Told<'a> {
    pairs: &'a Pairs<'a>,
    /// Means over wordings of what is on, and about whom: `[latent]`.
    own: Vec<f64>,
    other: Vec<f64>,
    /// `[latent][group]`.
    differences: Vec<Vec<f64>>,
}

impl Told<'_> {
    fn size(&self, latent: usize) -> f64 {
        (self.own[latent] - self.other[latent]).abs()
    }
}

/// Rows of one dictionary; none where the store lacks its layer or the readout.
pub fn rows(series: &Series, placed: &Placed) -> Result<Vec<LatentSelf>> {
    let layer = series.layers.iter().position(|&layer| layer == placed.sheet.layer);
    let (Some(layer), Some(readout)) = (layer, series.last_prompt(super::NAME)) else { return Ok(Vec::new()) };
    if !series.keeps(readout, layer) {
        return Ok(Vec::new());
    }
    let stems = stems(series);
    let mut told = Vec::new();
    for pairs in &stems {
        told.extend(differences(series, placed, pairs, readout, layer)?);
    }
    let mut rows = Vec::new();
    for (number, one) in told.iter().enumerate() {
        let nulls: Vec<&Told> =
            told.iter().enumerate().filter(|(other, told)| *other != number && told.pairs.family.null_bank).map(|(_, told)| told).collect();
        rows.extend(of_concept(series, placed, one, &nulls)?);
    }
    Ok(rows)
}

fn differences<'a>(series: &Series, placed: &Placed, pairs: &'a Pairs<'a>, readout: usize, layer: usize) -> Result<Option<Told<'a>>> {
    let items: Vec<usize> = pairs.groups.iter().flat_map(|(own, others)| std::iter::once(*own).chain(others.iter().copied())).collect();
    if !placed.points.iter().all(|&t| items.iter().all(|&item| series.has(t, readout, item))) {
        return Ok(None);
    }
    let rows = placed.points.iter().map(|&t| Ok(series.rows(t, readout, layer, &items)?.0)).collect::<Result<Vec<_>>>()?;
    let latents = placed.sheet.crosscoder.shape.latents;
    let on = placed.sheet.encode(&rows)?.dense(latents);
    let groups = pairs.groups.len() as f64;
    let mut told = Told { pairs, own: vec![0.0; latents], other: vec![0.0; latents], differences: vec![Vec::new(); latents] };
    let mut at = 0;
    for (_, others) in &pairs.groups {
        for latent in 0..latents {
            let value = |item: usize| f64::from(on[item * latents + latent]);
            let own = value(at);
            let other = (1..=others.len()).map(|other| value(at + other)).sum::<f64>() / others.len() as f64;
            told.own[latent] += own / groups;
            told.other[latent] += other / groups;
            told.differences[latent].push(own - other);
        }
        at += 1 + others.len();
    }
    Ok(Some(told))
}

fn of_concept(series: &Series, placed: &Placed, told: &Told, nulls: &[&Told]) -> Result<Vec<LatentSelf>> {
    let family = told.pairs.family;
    let n_groups = told.pairs.groups.len();
    let draws = Draws::with_counts(n_groups, series.flips, series.bootstraps, series.seed, &format!("dictionary/{}", family.concept))?;
    let mut used: Vec<usize> = (0..told.differences.len()).filter(|&latent| told.differences[latent].iter().any(|d| *d != 0.0)).collect();
    used.sort_by(|&a, &b| told.size(b).total_cmp(&told.size(a)).then(a.cmp(&b)));
    let p = family_wise(&used.iter().map(|&latent| told.differences[latent].as_slice()).collect::<Vec<_>>(), &draws);
    let row = |(rank, &latent): (usize, &usize)| {
        let difference = told.own[latent] - told.other[latent];
        let smaller = nulls.iter().filter(|null| null.size(latent) < told.size(latent)).count();
        LatentSelf {
            run: series.run.clone(),
            layer: placed.sheet.layer as i32,
            seed: placed.sheet.seed as i32,
            concept: family.concept.clone(),
            null_bank: family.null_bank,
            latent: latent as i32,
            rank: rank as i32 + 1,
            own: told.own[latent],
            other: told.other[latent],
            difference: Estimate::percentile(difference, &draws.means(&told.differences[latent])).into(),
            p_max_t: p[rank],
            null_percentile: (!nulls.is_empty()).then(|| smaller as f64 / nulls.len() as f64),
            n_groups: n_groups as i32,
        }
    };
    Ok(used.iter().enumerate().take(MOST).map(row).collect())
}

/// Two-sided sign-flip p of the mean of each of `values[member][group]`, family-wise over all (max-T, Westfall & Young 1993). The sum is taken
/// over the root of the sum of squares, which no flip changes.
fn family_wise(values: &[&[f64]], draws: &Draws) -> Vec<f64> {
    let scaled: Vec<Vec<f64>> = values
        .iter()
        .map(|values| {
            let length = values.iter().map(|x| x * x).sum::<f64>().sqrt();
            values.iter().map(|x| x / length).collect()
        })
        .collect();
    let size = |values: &[f64], signs: &[f32]| values.iter().zip(signs).map(|(x, sign)| x * f64::from(*sign)).sum::<f64>().abs();
    let largest =
        draws.signs().chunks_exact(draws.groups()).map(|signs| scaled.iter().map(|values| size(values, signs)).fold(0.0, f64::max));
    let mut largest: Vec<f64> = largest.collect();
    largest.sort_unstable_by(f64::total_cmp);
    let p = |values: &Vec<f64>| {
        // A rounding is no difference.
        let observed = values.iter().sum::<f64>().abs() - 1e-9;
        let reached = largest.len() - largest.partition_point(|largest| *largest < observed);
        p_value(reached, largest.len(), draws.exact())
    };
    scaled.iter().map(p).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::draws::{generator, normal};

    #[test]
    fn a_difference_has_to_stand_out_among_all_latents() {
        let draws = Draws::with_counts(12, 999, 99, 0, "own tests").unwrap();
        let mut rng = generator(0, "own tests");
        let mut values: Vec<Vec<f64>> = (0..100).map(|_| (0..12).map(|_| normal(&mut rng)).collect()).collect();
        values.push((0..12).map(|_| 2.0 + 0.3 * normal(&mut rng)).collect());
        let p = family_wise(&values.iter().map(Vec::as_slice).collect::<Vec<_>>(), &draws);
        assert!(p[100] < 0.05 && p[..100].iter().filter(|p| **p < 0.05).count() <= 5, "{p:?}");
        // Alone, two of three differences of one size and sign are as likely as not.
        let few = Draws::with_counts(3, 9, 9, 0, "own tests").unwrap();
        assert_eq!(family_wise(&[&[1.0, 1.0, 1.0]], &few), [0.25]);
        assert_eq!(family_wise(&[&[1.0, 1.0, -1.0]], &few), [1.0]);
    }
}
