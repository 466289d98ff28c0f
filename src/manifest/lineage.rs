//! Parents: which checkpoints one was trained or merged from. They must exist, their weights must
//! add up to 1, and following them must end.

use anyhow::Result;

use super::PARENT;
use super::checkpoint::CheckpointSpec;
use super::spanned::{Field, nearest};

const EXPECTED: &str = "a checkpoint id, a list of ids, or a list of { id, weight }";

/// Reads `parent = "a"`, `["a", "b"]` (equal weights) or `[{ id = "a", weight = 0.9 }, ...]`.
pub(super) fn read(field: &Field) -> Result<Vec<(String, f64)>> {
    if field.is_text() {
        return Ok(vec![(field.file_name()?.into(), 1.0)]);
    }
    let elements = field.list(EXPECTED)?;
    let mut parents: Vec<(String, f64)> = Vec::new();
    let weighted = elements[0].is_table();
    for element in &elements {
        if element.is_table() != weighted {
            return Err(element.wrong("only ids or only { id, weight } in one list"));
        }
        let (id, weight) = if weighted {
            let parent = element.section(PARENT)?.known()?;
            let weight = parent.need("weight", "this parent's share, as in weight = 0.5")?;
            (parent.need("id", "a checkpoint id")?, weight.number(0.0..=1.0)?)
        } else {
            (element.clone(), 1.0 / elements.len() as f64)
        };
        let name = id.file_name()?;
        if parents.iter().any(|(other, _)| other == name) {
            return Err(id.wrong("each parent once"));
        }
        parents.push((name.into(), weight));
    }
    let sum: f64 = parents.iter().map(|(_, weight)| weight).sum();
    if (sum - 1.0).abs() > 1e-6 {
        let sum = (sum * 1e6).round() / 1e6;
        return Err(field.error(format!("found weights that add up to {sum}, expected 1")));
    }
    Ok(parents)
}

/// Refuses parents that do not exist and cycles. `fields` holds (index of checkpoint, its `parent`).
pub(super) fn check(checkpoints: &[CheckpointSpec], knows: &dyn Fn(&str) -> bool, fields: &[(usize, Field)]) -> Result<()> {
    for (child, field) in fields {
        for (parent, _) in &checkpoints[*child].parents {
            if !knows(parent) {
                let near = nearest(parent, checkpoints.iter().map(|spec| spec.id.as_str()));
                let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
                let problem = format!("found {parent:?}, expected the id of another entry{hint}");
                return Err(field.error(problem));
            }
        }
    }
    for (child, field) in fields {
        if let Some(cycle) = cycle_from(checkpoints, *child) {
            let cycle = cycle.join(" -> ");
            return Err(field.error(format!("found a cycle, {cycle}; a parent is trained earlier")));
        }
    }
    Ok(())
}

/// The way from a checkpoint over parents back to itself, if there is one.
fn cycle_from(checkpoints: &[CheckpointSpec], start: usize) -> Option<Vec<&str>> {
    fn walk<'e>(checkpoints: &'e [CheckpointSpec], goal: &str, way: &mut Vec<&'e str>, seen: &mut Vec<&'e str>) -> bool {
        let here = way[way.len() - 1];
        let spec = checkpoints.iter().find(|spec| spec.id == here);
        for (parent, _) in spec.iter().flat_map(|spec| &spec.parents) {
            way.push(parent);
            if parent == goal {
                return true;
            }
            if !seen.contains(&parent.as_str()) {
                seen.push(parent);
                if walk(checkpoints, goal, way, seen) {
                    return true;
                }
            }
            way.pop();
        }
        false
    }
    let goal = checkpoints[start].id.as_str();
    let mut way = vec![goal];
    walk(checkpoints, goal, &mut way, &mut Vec::new()).then_some(way)
}
