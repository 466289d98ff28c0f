//! Items by concept and label family, the unit that a measure works on, and their lexical audit.

use crate::prompt::item::Item;
use crate::prompt::label_family::LabelFamily;
use crate::prompt::specification::Specification;
use crate::stats::draws::Draws;
use crate::stats::folds::numbered;
use crate::stats::lexical::{self, Labelled, LexicalAudit};
use anyhow::Result;
use std::collections::BTreeMap;

/// Items of one concept and label family, by group; the unit that a measure works on.
#[derive(Debug, Clone)]
pub struct Family {
    pub concept: String,
    pub label_family: LabelFamily,
    pub null_bank: bool,
    /// What its first item says.
    pub specification: Option<Specification>,
    /// Group ids in order of first appearance, and the items of each.
    pub groups: Vec<(String, Vec<usize>)>,
}

impl Family {
    /// A family without items: for curves of what is no single concept's, and of what is planted.
    pub fn named(concept: &str, label_family: LabelFamily) -> Self {
        Self { concept: concept.to_owned(), label_family, null_bank: false, specification: None, groups: Vec::new() }
    }
}

/// The lexical audit of one family of items; nothing for families without two labelled groups.
///
/// # Errors
/// Resamples cannot be drawn.
pub fn audit(family: &Family, items: &[Item], bootstraps: usize, seed: u64) -> Result<Vec<LexicalAudit>> {
    let mut set = Labelled {
        concept: &family.concept,
        label_family: family.label_family.as_str(),
        texts: Vec::new(),
        labels: Vec::new(),
        groups: Vec::new(),
    };
    for (group, (_, members)) in family.groups.iter().enumerate() {
        for item in members.iter().map(|&item| &items[item]) {
            if let Some(y) = item.y {
                set.texts.push(item.text.as_deref());
                set.labels.push(y == 1);
                set.groups.push(group);
            }
        }
    }
    set.groups = numbered(&set.groups);
    let groups = set.groups.iter().max().map_or(0, |last| last + 1);
    if groups < 2 {
        return Ok(Vec::new());
    }
    let draws = Draws::with_counts(groups, 99, bootstraps, seed, &format!("{}/{}", family.concept, family.label_family))?;
    Ok(lexical::audit(&set, &draws)?.into())
}

/// Items by concept and label family, in order of first appearance; those that are asked in contexts or other formats are no part
/// of it.
pub fn families(items: &[Item]) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut place: BTreeMap<(&str, &LabelFamily), usize> = BTreeMap::new();
    for (index, item) in items.iter().enumerate().filter(|(_, item)| !item.neutral && item.is_plain()) {
        let at = *place.entry((&item.concept, &item.label_family)).or_insert_with(|| {
            families.push(Family {
                concept: item.concept.clone(),
                label_family: item.label_family.clone(),
                null_bank: item.null_bank,
                specification: item.specification,
                groups: Vec::new(),
            });
            families.len() - 1
        });
        let groups = &mut families[at].groups;
        match groups.iter_mut().rev().find(|(id, _)| *id == item.group_id) {
            Some((_, members)) => members.push(index),
            None => groups.push((item.group_id.clone(), vec![index])),
        }
    }
    families
}
