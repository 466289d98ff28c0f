//! Which rows meet in which template, so that none is favoured.

use std::collections::{BTreeMap, BTreeSet};

/// `n` distinct triples of row numbers in which every row, and every pair of rows, is used about equally often.
pub(super) fn balanced(n: usize, rows: [usize; 3]) -> Vec<[usize; 3]> {
    let [templates, a_rows, b_rows] = rows;
    let mut used: BTreeSet<[usize; 3]> = BTreeSet::new();
    let mut counts: BTreeMap<(usize, usize, usize), usize> = BTreeMap::new();
    let mut triples = Vec::with_capacity(n);
    for k in 0..n {
        let t = k % templates;
        let count = |key| counts.get(&key).copied().unwrap_or(0);
        // Keys: (kind, row, row); the least used row first, then the least used pair, then a rotation that breaks ties.
        let pick = (0..a_rows).flat_map(|a| (0..b_rows).map(move |b| (a, b))).filter(|&(a, b)| !used.contains(&[t, a, b])).min_by_key(
            |&(a, b)| {
                let single = count((0, a, 0)) + count((1, b, 0));
                let pairs = count((2, a, b)) + count((3, t, a)) + count((4, t, b));
                (single, pairs, (a + a_rows - k % a_rows) % a_rows, (b + b_rows - k % b_rows) % b_rows)
            },
        );
        let Some((a, b)) = pick else { continue };
        for key in [(0, a, 0), (1, b, 0), (2, a, b), (3, t, a), (4, t, b)] {
            *counts.entry(key).or_default() += 1;
        }
        used.insert([t, a, b]);
        triples.push([t, a, b]);
    }
    triples
}
