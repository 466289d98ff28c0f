//! Directions of interventions at one layer, from a checkpoint's own readouts: the concept's, random ones and the assistant axis.
//!
//! All have unit length, so that strengths compare. Random directions have the covariance of the neutral pool: `sum_i g_i (x_i - mean)`
//! with standard normal `g_i` is a draw from it, whatever the number of dimensions. The `g_i` depend on the seed and the layer's
//! place in the store alone, so random directions are paired along a series.

use crate::manifest::Readout;
use crate::prompt::item::Item;
use crate::prompt::label_family::LabelFamily;
use crate::prompt::persona::Kind;
use crate::stats::draws::{generator, normal};
use crate::walk::store::Readouts;
use anyhow::{Context, Result, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// The readout that replies are averaged over for the axis.
const REPLIES: &str = Readout::ResponseMean.name();

/// Directions of one layer, `[d_model]` each, of unit length; all zeros where there is none.
#[derive(Debug, Clone, PartialEq)]
pub struct Directions {
    /// In the order of the concepts that were asked for.
    pub concepts: Vec<Vec<f32>>,
    pub random: Vec<Vec<f32>>,
    /// `None` without contexts.
    pub axis: Option<Vec<f32>>,
    /// Mean length of the neutral pool's activations: the unit of strength.
    pub scale: f64,
}

/// A checkpoint's readouts and the items that their rows are.
pub struct Source<'a> {
    pub readouts: &'a Readouts,
    pub items: &'a [Item],
    /// Where concepts and the neutral pool are read.
    pub readout: &'a str,
}

impl Source<'_> {
    /// Directions at the layer that is number `index` among those in the store.
    ///
    /// # Errors
    /// The store lacks the readout, or a concept has fewer than two groups to make a direction of, or the neutral pool fewer than
    /// eight items.
    pub fn directions(&self, index: usize, concepts: &[String], random: usize, seed: u64) -> Result<Directions> {
        let rows = self.rows(self.readout)?;
        let neutral: Vec<(usize, &str)> = self.of(|item| item.neutral, &rows, |item| item.cell.as_str());
        ensure!(neutral.len() >= 8, "{} neutral items have the readout {}, at least 8 are needed", neutral.len(), self.readout);
        let (activations, d) = self.readouts.gather(self.readout, index, &neutral.iter().map(|(row, _)| *row).collect::<Vec<_>>())?;
        let length = |row: &[f32]| row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let scale = activations.chunks_exact(d).map(length).sum::<f64>() / neutral.len() as f64;
        let cells: Vec<&str> = neutral.iter().map(|(_, cell)| *cell).collect();
        let deviations = deviations(&activations, d, &cells);
        let draw = |number: usize| {
            let mut generator = generator(seed, &format!("causal/{index}/{number}"));
            let mut direction = vec![0f64; d];
            for row in deviations.chunks_exact(d) {
                let g = normal(&mut generator);
                direction.iter_mut().zip(row).for_each(|(sum, x)| *sum += g * x);
            }
            unit(&direction)
        };
        Ok(Directions {
            concepts: concepts.iter().map(|concept| self.contrast(index, concept, &rows)).collect::<Result<_>>()?,
            random: (0..random).map(draw).collect(),
            axis: self.axis(index)?,
            scale,
        })
    }

    /// Row per item that has a readout.
    fn rows(&self, readout: &str) -> Result<BTreeMap<usize, usize>> {
        let items = self.readouts.rows(readout, self.items.len())?;
        Ok(items.into_iter().enumerate().map(|(row, item)| (item, row)).collect())
    }

    /// Rows of the items that are wanted, with a key each.
    fn of<'i, K>(&'i self, wanted: impl Fn(&Item) -> bool, rows: &BTreeMap<usize, usize>, key: impl Fn(&'i Item) -> K) -> Vec<(usize, K)> {
        let items = self.items.iter().enumerate().filter(|(_, item)| wanted(item));
        items.filter_map(|(index, item)| Some((*rows.get(&index)?, key(item)))).collect()
    }

    /// Mean of y = 1 minus mean of y = 0 over every other crossed group, the first among them; the rest of the groups is left for outcomes.
    fn contrast(&self, index: usize, concept: &str, rows: &BTreeMap<usize, usize>) -> Result<Vec<f32>> {
        let crossed =
            |item: &Item| item.concept == concept && item.label_family == LabelFamily::Crossed && item.is_plain() && item.y.is_some();
        let found = self.of(crossed, rows, |item| (item.group_id.as_str(), item.y));
        let mut order: Vec<&str> = Vec::new();
        for &(_, (group, _)) in &found {
            if order.last() != Some(&group) {
                order.push(group);
            }
        }
        let half: BTreeSet<&str> = order.into_iter().step_by(2).collect();
        ensure!(half.len() >= 2, "{concept}: {} groups for a direction, at least 2 are needed", half.len());
        let mut groups: BTreeMap<&str, [Vec<usize>; 2]> = BTreeMap::new();
        for (row, (group, y)) in found.into_iter().filter(|(_, (group, _))| half.contains(group)) {
            groups.entry(group).or_default()[usize::from(y == Some(1))].push(row);
        }
        let mut sum: Vec<f64> = Vec::new();
        for sides in groups.values().filter(|sides| sides.iter().all(|side| !side.is_empty())) {
            for (side, sign) in sides.iter().zip([-1.0, 1.0]) {
                let (activations, d) = self.readouts.gather(self.readout, index, side)?;
                sum.resize(d, 0.0);
                let weight = sign / side.len() as f64;
                activations.chunks_exact(d).for_each(|row| sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += weight * f64::from(*x)));
            }
        }
        ensure!(!sum.is_empty(), "{concept}: no group for a direction has both labels");
        Ok(unit(&sum))
    }

    /// Mean of the default contexts minus mean of the roles, over the fixed replies, which every context has.
    fn axis(&self, index: usize) -> Result<Option<Vec<f32>>> {
        if !self.readouts.contains(REPLIES) {
            return Ok(None);
        }
        let rows = self.rows(REPLIES)?;
        let mean_of = |kind: Kind| -> Result<Option<Vec<f64>>> {
            let wanted = |item: &Item| item.label_family == LabelFamily::PersonaAxis && item.persona_kind == kind.name();
            let own: Vec<usize> = self.of(wanted, &rows, |_| ()).into_iter().map(|(row, ())| row).collect();
            if own.is_empty() {
                return Ok(None);
            }
            let (activations, d) = self.readouts.gather(REPLIES, index, &own).context("the assistant axis")?;
            let mut mean = vec![0f64; d];
            activations
                .chunks_exact(d)
                .for_each(|row| mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x) / own.len() as f64));
            Ok(Some(mean))
        };
        let (Some(default), Some(roles)) = (mean_of(Kind::Default)?, mean_of(Kind::Role)?) else { return Ok(None) };
        Ok(Some(unit(&default.iter().zip(&roles).map(|(x, role)| x - role).collect::<Vec<_>>())))
    }
}

/// Activations `[item, d]` minus the mean of their cell: questions and beginnings of answers are read at different tokens.
fn deviations(activations: &[f32], d: usize, cells: &[&str]) -> Vec<f64> {
    let mut means: BTreeMap<&str, (Vec<f64>, f64)> = BTreeMap::new();
    for (row, cell) in activations.chunks_exact(d).zip(cells) {
        let (mean, n) = means.entry(cell).or_insert_with(|| (vec![0.0; d], 0.0));
        mean.iter_mut().zip(row).for_each(|(mean, x)| *mean += f64::from(*x));
        *n += 1.0;
    }
    let centred = |(row, cell): (&[f32], &&str)| {
        let (mean, n) = &means[*cell];
        row.iter().zip(mean).map(|(x, mean)| f64::from(*x) - mean / n).collect::<Vec<f64>>()
    };
    activations.chunks_exact(d).zip(cells).flat_map(centred).collect()
}

/// Of unit length, or zeros.
fn unit(direction: &[f64]) -> Vec<f32> {
    let length = crate::stats::matrix::dot_f64(direction, direction).sqrt();
    let factor = if length > 0.0 { 1.0 / length } else { 0.0 };
    direction.iter().map(|x| (x * factor) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_directions_have_the_covariance_of_the_pool_and_no_mean_of_its_cells() {
        let (d, n) = (3, 400);
        let mut draws = generator(3, "pool");
        let cells: Vec<&str> = (0..n).map(|i| if i % 2 == 0 { "question" } else { "stem" }).collect();
        let mut rows = Vec::new();
        for cell in &cells {
            rows.extend([4.0 * normal(&mut draws), normal(&mut draws), if *cell == "stem" { 100.0 } else { 0.0 }].map(|x| x as f32));
        }
        let centred = deviations(&rows, d, &cells);
        assert!(centred.chunks_exact(d).all(|row| row[2].abs() < 1e-3));
        let (mut squares, draws_of) = ([0f64; 3], 300);
        for number in 0..draws_of {
            let mut g = generator(0, &number.to_string());
            let mut sum = vec![0f64; d];
            centred.chunks_exact(d).for_each(|row| {
                let g = normal(&mut g);
                sum.iter_mut().zip(row).for_each(|(sum, x)| *sum += g * x);
            });
            squares.iter_mut().zip(&sum).for_each(|(square, x)| *square += x * x / (n * draws_of) as f64);
        }
        assert!((squares[0] / 16.0 - 1.0).abs() < 0.3 && (squares[1] - 1.0).abs() < 0.3, "{squares:?}");
        let w = unit(&[3.0, 0.0, 4.0]);
        assert!((w[0] - 0.6).abs() < 1e-6 && (w[2] - 0.8).abs() < 1e-6 && unit(&[0.0, 0.0]) == [0.0, 0.0]);
    }
}
