//! Balance of the design.

use super::*;

#[test]
fn rows_are_used_equally_and_no_combination_twice() {
    for (n, rows) in [(96, [8, 12, 12]), (24, [8, 13, 17]), (48, [9, 12, 14])] {
        let triples = balanced(n, rows);
        assert_eq!(triples.iter().collect::<BTreeSet<_>>().len(), n);
        for (factor, rows) in rows.into_iter().enumerate() {
            let count = |row| triples.iter().filter(|triple| triple[factor] == row).count();
            let counts: Vec<usize> = (0..rows).map(count).collect();
            let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
            assert!(spread <= 1, "factor {factor}: {counts:?}");
        }
    }
}

#[test]
fn words_of_a_quartet_are_balanced_over_y() {
    use crate::manifest::Pack;
    for concept in [Pack::Builtin, Pack::Organism].iter().flat_map(|pack| super::super::concept::load_pack(pack).unwrap()) {
        let parameters = crate::manifest::default_parameters();
        let mut groups: BTreeMap<(String, i8), Vec<String>> = BTreeMap::new();
        for spec in specs(&concept, Profile::QUICK, &parameters).unwrap() {
            if let (LabelFamily::Crossed | LabelFamily::Control | LabelFamily::Binding, Some(y)) = (&spec.label_family, spec.y) {
                let words = spec
                    .messages
                    .iter()
                    .flat_map(|m| m.content.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect::<Vec<_>>());
                groups.entry((spec.group_id, y)).or_default().extend(words);
            }
        }
        for ((group, y), mut words) in groups.clone() {
            let mut others = groups[&(group.clone(), 1 - y)].clone();
            words.sort();
            others.sort();
            assert_eq!(words, others, "{} {group}", concept.name);
        }
    }
}
