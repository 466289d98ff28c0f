//! The contrast of a claim among all claims of its kind: `{self, other} x {answer, foils}` in the same templates.
//!
//! A quartet contrasts the answer with one other; here every choice is contrasted with the mean of all others, so that the answer's
//! contrast is one of its kind if nobody teaches it. `D_c = h(self, c) - h(other, c)`, contrast `(D_c - mean of the others' D) / 2`.

use super::delta::Contrasts;
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};

/// The cells of every group, as positions into a list of items.
pub struct Kind {
    /// `[group][choice]`, self and other; the answer is choice 0.
    cells: Vec<Vec<[usize; 2]>>,
}

impl Kind {
    /// The cells of the groups `ids` of a family whose items are listed in `items`; foils are added to the list. `None` where a group has
    /// none, or not as many as the others.
    pub fn new(series: &Series, family: &Family, ids: &[String], items: &mut Vec<usize>) -> Option<Self> {
        let foils = series.family(&family.concept, &LabelFamily::CrossedFoil).filter(|_| family.label_family == LabelFamily::Crossed)?;
        let mut list = items.clone();
        let mut cells = Vec::with_capacity(ids.len());
        for id in ids {
            let quartet = list.iter().position(|&item| series.items[item].group_id == *id)?;
            let at =
                |cell: &str| (quartet..quartet + 4).find(|&place| list.get(place).is_some_and(|&item| series.items[item].cell == cell));
            let mut group = vec![[at("00")?, at("10")?], [at("01")?, at("11")?]];
            let (_, members) = foils.groups.iter().find(|(other, _)| other == id)?;
            for pair in members.chunks(2) {
                let [own, other] = *pair else { return None };
                let named = |item: usize| series.items[item].cell.split_once(':');
                let (Some(("0", one)), Some(("1", two))) = (named(own), named(other)) else { return None };
                if one != two {
                    return None;
                }
                group.push([list.len(), list.len() + 1]);
                list.extend([own, other]);
            }
            cells.push(group);
        }
        let choices = cells.first()?.len();
        if choices < 3 || cells.iter().any(|group| group.len() != choices) {
            return None;
        }
        *items = list;
        Some(Self { cells })
    }

    /// Contrasts of every choice from activations `[item, d]`, the answer first. All have one spread, that of the cells once what their
    /// group and what their place in it have in common is removed.
    pub fn contrasts(&self, rows: &[f32], d: usize) -> Vec<Contrasts> {
        let (groups, choices) = (self.cells.len(), self.cells[0].len());
        let row = |place: usize| &rows[place * d..(place + 1) * d];
        let mut deltas = vec![vec![0f32; groups * d]; choices];
        for (g, cells) in self.cells.iter().enumerate() {
            let differences: Vec<Vec<f64>> = cells
                .iter()
                .map(|[own, other]| row(*own).iter().zip(row(*other)).map(|(x, y)| f64::from(*x) - f64::from(*y)).collect())
                .collect();
            for j in 0..d {
                let sum: f64 = differences.iter().map(|difference| difference[j]).sum();
                for (difference, delta) in differences.iter().zip(&mut deltas) {
                    let others = (sum - difference[j]) / (choices - 1) as f64;
                    delta[g * d + j] = ((difference[j] - others) / 2.0) as f32;
                }
            }
        }
        let variance = self.variance(rows, d);
        deltas.into_iter().map(|delta| Contrasts { delta, variance: variance.clone() }).collect()
    }

    /// `[d]`, residual variance of a table of groups and places.
    fn variance(&self, rows: &[f32], d: usize) -> Vec<f64> {
        let table: Vec<Vec<usize>> = self.cells.iter().map(|cells| cells.iter().flatten().copied().collect()).collect();
        let (groups, places) = (table.len(), table[0].len());
        let freedom = ((groups - 1).max(1) * (places - 1)) as f64;
        let mut place_means = vec![0f64; places];
        (0..d)
            .map(|j| {
                let at = |g: usize, p: usize| f64::from(rows[table[g][p] * d + j]);
                for (p, mean) in place_means.iter_mut().enumerate() {
                    *mean = (0..groups).map(|g| at(g, p)).sum::<f64>() / groups as f64;
                }
                let whole = place_means.iter().sum::<f64>() / places as f64;
                let of_group = |g: usize| {
                    let mean = (0..places).map(|p| at(g, p)).sum::<f64>() / places as f64;
                    (0..places).map(|p| (at(g, p) - mean - place_means[p] + whole).powi(2)).sum::<f64>()
                };
                (0..groups).map(of_group).sum::<f64>() / freedom
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two groups, three choices, two dimensions, worked by hand.
    #[test]
    fn every_choice_is_held_against_the_mean_of_the_others() {
        let kind = Kind { cells: vec![vec![[0, 1], [2, 3], [4, 5]], vec![[6, 7], [8, 9], [10, 11]]] };
        // Differences of group 0: 3, 1, -1 in dimension 0, none in dimension 1; of group 1: the same, shifted by what all have.
        let rows: Vec<f32> = [[3.0, 1.0], [0.0, 1.0], [1.0, 2.0], [0.0, 2.0], [-1.0, 0.0], [0.0, 0.0]]
            .iter()
            .chain(&[[8.0, 1.0], [4.0, 1.0], [6.0, 2.0], [4.0, 2.0], [4.0, 0.0], [4.0, 0.0]])
            .flatten()
            .copied()
            .collect();
        let contrasts = kind.contrasts(&rows, 2);
        let of = |choice: usize| contrasts[choice].delta.clone();
        assert_eq!(of(0), [1.5, 0.0, 1.5, 0.0]);
        assert_eq!(of(1), [0.0; 4]);
        assert_eq!(of(2), [-1.5, 0.0, -1.5, 0.0]);
        // What groups and places have in common is no spread: group 1's self cells are higher by 5 - 4 = 1 than its others'.
        let freedom = 5.0;
        let residual = [0.5f64; 12].iter().map(|x| (x / 2.0).powi(2)).sum::<f64>();
        assert!((contrasts[0].variance[0] - residual / freedom).abs() < 1e-9, "{:?}", contrasts[0].variance);
        assert_eq!(contrasts[0].variance[1], 0.0);
    }
}
