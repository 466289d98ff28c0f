//! Control labels: what a probe reaches on labels that mean nothing, by remembering which word is which.
//!
//! After Hewitt & Liang (2019): every *type* gets one random label that it keeps wherever it occurs, and selectivity is the
//! probe's accuracy on the real labels minus that on the control labels. A type here is a lexicon (words that stand for the
//! concept's attribute) in one cell of the quartet; it returns in other groups with other templates and partners, so that a
//! probe can remember it although groups are never split. Within a lexicon the cells' own labels change places, so control
//! labels are as balanced as real ones. Where no lexicon returns in another group there is nothing to remember and
//! selectivity is accuracy above chance.

use std::collections::HashMap;

use super::draws::{generator, shuffle, uniform_index};
use super::folds::numbered;

/// Control labels of all items, `[n]`, from the `(lexicon, cell)` of each and the real `labels`; they depend on nothing else but
/// `seed` and `key`. `None` when they are all the same.
///
/// # Panics
/// When lengths differ.
pub fn labels<T: std::hash::Hash + Eq>(types: &[(T, T)], labels: &[bool], seed: u64, key: &str) -> Option<Vec<bool>> {
    assert_eq!(types.len(), labels.len(), "types and labels differ in number");
    let of_item = numbered(types);
    let lexicon_of_item = numbered(&types.iter().map(|(lexicon, _)| lexicon).collect::<Vec<_>>());
    // Types of each lexicon, with the label of their first item, in the order of their first appearance.
    let mut lexicons: Vec<Vec<(usize, bool)>> = Vec::new();
    for ((&kind, &lexicon), &label) in of_item.iter().zip(&lexicon_of_item).zip(labels) {
        lexicons.resize_with(lexicons.len().max(lexicon + 1), Vec::new);
        if lexicons[lexicon].iter().all(|&(known, _)| known != kind) {
            lexicons[lexicon].push((kind, label));
        }
    }
    let mut generator = generator(seed, &format!("control/{key}"));
    let mut control = HashMap::new();
    for kinds in lexicons {
        let mut values: Vec<bool> = kinds.iter().map(|&(_, label)| label).collect();
        if values.iter().all(|&value| value == values[0]) {
            values.iter_mut().for_each(|value| *value = uniform_index(2, &mut generator) == 1);
        }
        shuffle(&mut values, &mut generator);
        control.extend(kinds.iter().map(|&(kind, _)| kind).zip(values));
    }
    let control: Vec<bool> = of_item.iter().map(|kind| control[kind]).collect();
    control.iter().any(|&label| label != control[0]).then_some(control)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 24 quartets of 6 lexicons.
    fn types() -> (Vec<(String, String)>, Vec<bool>) {
        let cells = [("00", true), ("01", false), ("10", false), ("11", true)];
        (0..24).flat_map(|g| cells.map(|(cell, y)| ((format!("a{}", g % 6), cell.to_owned()), y))).unzip()
    }

    #[test]
    fn a_type_keeps_its_label_and_lexicons_stay_balanced() {
        let (types, y) = types();
        let control = labels(&types, &y, 3, "key").unwrap();
        let mut of_type = HashMap::new();
        for (kind, label) in types.iter().zip(&control) {
            assert_eq!(of_type.insert(kind, *label).unwrap_or(*label), *label);
        }
        for lexicon in 0..6 {
            let name = format!("a{lexicon}");
            assert_eq!(of_type.iter().filter(|((lexicon, _), label)| *lexicon == name && **label).count(), 2);
        }
    }

    #[test]
    fn seed_and_key_decide() {
        let (types, y) = types();
        let of = |seed, key| labels(&types, &y, seed, key);
        assert_eq!(of(3, "key"), of(3, "key"));
        assert_ne!(of(3, "key"), of(4, "key"));
        assert_ne!(of(3, "key"), of(3, "other"));
    }

    #[test]
    fn one_type_has_no_control() {
        let types = vec![("a", ""); 4];
        assert_eq!(labels(&types, &[true, false, true, false], 0, "one"), None);
        assert_eq!(labels::<&str>(&[], &[], 0, "none"), None);
    }
}
