//! Folds that never split a group.
//!
//! Items of a group share their words, so a fold that split it would test on what it trained on. Which ids are the groups
//! is up to the caller: quartets, or `template_id` and `lexicon_id` for leave-template-out and leave-lexicon-out.

use anyhow::{Result, ensure};
use std::collections::HashMap;
use std::hash::Hash;

/// Folds of the held-out figures.
pub const OUTER: usize = 5;
/// Folds in which a penalty is chosen, within the training groups.
pub const INNER: usize = 3;

/// The fold of every item, below `min(k, number of groups)`: groups are dealt out in the order of their first appearance,
/// so the folds depend on nothing else.
///
/// # Errors
/// With fewer than two folds or groups nothing can be held out.
pub fn grouped<T: Hash + Eq>(groups: &[T], k: usize) -> Result<Vec<usize>> {
    let numbers = numbered(groups);
    let found = numbers.iter().max().map_or(0, |last| last + 1);
    ensure!(k >= 2 && found >= 2, "{k} folds of {found} groups; at least 2 of each are needed");
    Ok(numbers.into_iter().map(|group| group % k).collect())
}

/// Ids as numbers 0, 1, 2 ... in the order of their first appearance, as the bootstrap over groups wants them.
pub fn numbered<T: Hash + Eq>(ids: &[T]) -> Vec<usize> {
    let mut known = HashMap::new();
    ids.iter()
        .map(|id| {
            let next = known.len();
            *known.entry(id).or_insert(next)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn groups_stay_whole_and_folds_are_even(groups in prop::collection::vec(0u8..30, 2..200), k in 2usize..7) {
            prop_assume!(groups.iter().any(|&group| group != groups[0]));
            let folds = grouped(&groups, k).unwrap();
            let fold_of: HashMap<u8, usize> = groups.iter().copied().zip(folds.iter().copied()).collect();
            for (group, fold) in groups.iter().zip(&folds) {
                prop_assert_eq!(fold_of[group], *fold);
            }
            let used = k.min(fold_of.len());
            let sizes: Vec<usize> = (0..used).map(|f| fold_of.values().filter(|&&fold| fold == f).count()).collect();
            prop_assert_eq!(sizes.iter().sum::<usize>(), fold_of.len());
            prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{:?}", sizes);
        }
    }

    #[test]
    fn ids_are_numbered_by_first_appearance() {
        assert_eq!(numbered(&["b", "a", "b", "c"]), [0, 1, 0, 2]);
        assert_eq!(grouped(&["b", "a", "b", "c"], 2).unwrap(), [0, 1, 0, 0]);
    }

    #[test]
    fn nothing_can_be_held_out_of_one_group() {
        assert!(grouped(&[7, 7], 5).is_err());
        assert!(grouped(&[7, 8], 1).is_err());
        assert!(grouped::<u8>(&[], 5).is_err());
    }
}
