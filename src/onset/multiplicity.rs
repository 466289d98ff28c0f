//! Many tests at once: p-values adjusted for the share of false rejections among all, or for the probability of any.

/// Which correction for many tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Correction {
    /// Benjamini & Hochberg 1995: independent or positively dependent concepts.
    BenjaminiHochberg,
    /// Benjamini & Yekutieli 2001: any dependence; for concepts that share items.
    BenjaminiYekutieli,
    /// Holm 1979: the probability of any false rejection, under any dependence.
    Holm,
}

/// p-values adjusted for many tests, in the order of `ps`; a rejection at `q <= level` is one of the procedure at that level.
pub fn adjusted(ps: &[f64], correction: Correction) -> Vec<f64> {
    if correction == Correction::Holm {
        return holm(ps);
    }
    let m = ps.len();
    let mut order: Vec<usize> = (0..m).collect();
    order.sort_by(|&a, &b| ps[b].total_cmp(&ps[a]));
    let factor: f64 = match correction {
        Correction::BenjaminiHochberg | Correction::Holm => 1.0,
        Correction::BenjaminiYekutieli => (1..=m).map(|rank| 1.0 / rank as f64).sum(),
    };
    let mut qs = vec![0.0; m];
    let mut smallest = 1f64;
    for (from_top, &index) in order.iter().enumerate() {
        let rank = (m - from_top) as f64;
        smallest = smallest.min(ps[index] * factor * m as f64 / rank);
        qs[index] = smallest;
    }
    qs
}

/// Step-down: the smallest p times the number of tests, the next one times one less, and none below the one before.
fn holm(ps: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..ps.len()).collect();
    order.sort_by(|&a, &b| ps[a].total_cmp(&ps[b]));
    let (mut qs, mut largest) = (vec![0.0; ps.len()], 0f64);
    for (rank, &index) in order.iter().enumerate() {
        largest = largest.max(ps[index] * (ps.len() - rank) as f64).min(1.0);
        qs[index] = largest;
    }
    qs
}
