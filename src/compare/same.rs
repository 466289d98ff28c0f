//! Whether two runs can be compared: walked to the end, the same items in the same order, the same tokens, the same axis, and perhaps the
//! same base. Only one of them may have contexts, or interventions: then everything else is compared, and these are `not_run` in the other.

use crate::measure::{introspection, talks};
use crate::prompt::item::Item;
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::series::axis::Axis;
use crate::walk::talks::{CONTEXT, REPLAY};
use crate::walk::{conversation, introspection as injections, stitching};
use anyhow::{Result, bail};
use std::collections::BTreeMap;

/// Differing items, or open checkpoints, that an error names.
const NAMED: usize = 3;

/// Refuses a run whose walk is not finished: dates of a part of a series are dates of another series. Checkpoints that failed, or that
/// the integrity audit left out, do not count as open.
///
/// # Errors
/// Names the run and the open checkpoints, and says what to do.
pub fn require_finished(run: &Series) -> Result<()> {
    let (open, all) = (&run.unfinished, run.points.len() + run.missing.len());
    if !open.is_empty() {
        bail!(
            "{}: the walk is unfinished, {} of {all} checkpoints have no readouts of its items yet ({}{}); finish it with `selftrace run`, then \
             compare",
            run.folder.display(),
            open.len(),
            open[..open.len().min(NAMED)].join(", "),
            if open.len() > NAMED { ", ..." } else { "" },
        );
    }
    Ok(())
}

/// Refuses two runs whose figures would not be about the same thing.
///
/// # Errors
/// Says what differs, with counts and the first items.
pub fn require_comparable(a: &Series, b: &Series) -> Result<()> {
    let names = format!("{} and {}", a.folder.display(), b.folder.display());
    if let Some(difference) = different_items(&a.items, &b.items) {
        bail!("{names} do not have the same items: {difference}; walk both with the same concepts, template and tokenizer");
    }
    if a.axis != b.axis {
        bail!("{names} have dates on different axes, {:?} and {:?}; set [run] axis to the same in both manifests", a.axis, b.axis);
    }
    if let (Some(a), Some(b)) = (introspection::asked(a), introspection::asked(b))
        && a != b
    {
        bail!("{names} had other sentences, questions or strengths of injections; walk both with the same [introspection]");
    }
    for folder in [CONTEXT, REPLAY] {
        if let (Some(a), Some(b)) = (talks::read(a, folder), talks::read(b, folder))
            && a != b
        {
            bail!("{names} had other conversations, or other questions behind them; walk both with the same [{folder}]");
        }
    }
    if let (Some(a), Some(b)) = (talks::conversation::asked(a)?, talks::conversation::asked(b)?)
        && a != b
    {
        bail!("{names} were let talk in other ways, or asked other questions behind that; walk both with the same [conversation]");
    }
    Ok(())
}

/// Items that are asked only where the manifest has the table; a run has all of them or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Plain,
    Personas,
    Causal,
}

impl Block {
    fn of(item: &Item) -> Self {
        match item.label_family {
            LabelFamily::Choice | LabelFamily::Fact => Self::Causal,
            LabelFamily::PersonaAxis => Self::Personas,
            _ if !item.is_plain() => Self::Personas,
            _ => Self::Plain,
        }
    }
}

/// Folders of sheets, with the table of a manifest that asks for them.
const SHEETS: [(&str, &str); 5] = [
    (injections::FOLDER, "[introspection]"),
    (stitching::FOLDER, "[stitching]"),
    (CONTEXT, "[context]"),
    (REPLAY, "[replay]"),
    (conversation::FOLDER, "[conversation]"),
];

/// Tables of a manifest that some checkpoints have a sheet of, with those that have none: the curves of these tables are of fewer checkpoints.
pub fn partial(run: &Series) -> Vec<(&'static str, Vec<&str>)> {
    let without = |folder: &str| -> Vec<&str> {
        let open = run.points.iter().enumerate().filter(|(t, _)| !run.sheet(folder, *t).is_file());
        open.map(|(_, point)| point.id.as_str()).collect()
    };
    let tables = SHEETS.map(|(folder, table)| (table, without(folder)));
    tables.into_iter().filter(|(_, without)| (1..run.points.len()).contains(&without.len())).collect()
}

/// The optional blocks that one run has and the other has not, named as in a manifest.
pub fn one_sided(a: &Series, b: &Series) -> Vec<&'static str> {
    let has = |series: &Series, block: Block| series.items.iter().any(|item| Block::of(item) == block);
    let blocks = [(Block::Personas, "[personas]"), (Block::Causal, "[causal]")];
    let has_sheets = |series: &Series, folder: &str| !series.sheets(folder).is_empty();
    let sheets = SHEETS.into_iter().filter(|(folder, _)| has_sheets(a, folder) != has_sheets(b, folder)).map(|(_, name)| name);
    let blocks = blocks.into_iter().filter(|(block, _)| has(a, *block) != has(b, *block)).map(|(_, name)| name);
    blocks.chain(sheets).collect()
}

/// What differs between two lists of items, in one clause; `None` where nothing does, but for blocks that only one of them has.
fn different_items(a: &[Item], b: &[Item]) -> Option<String> {
    let blocks =
        |items: &[Item]| [Block::Plain, Block::Personas, Block::Causal].map(|block| items.iter().any(|item| Block::of(item) == block));
    let (blocks_a, blocks_b) = (blocks(a), blocks(b));
    let shared = |item: &&Item| {
        let block = Block::of(item);
        block == Block::Plain || (blocks_a[block as usize] && blocks_b[block as usize])
    };
    let of = |items: &[Item]| items.iter().filter(shared).cloned().collect::<Vec<Item>>();
    let (a, b) = (of(a), of(b));
    different(&a, &b)
}

fn different(a: &[Item], b: &[Item]) -> Option<String> {
    let by_id = |items: &'_ [Item]| -> BTreeMap<String, Item> { items.iter().map(|item| (item.item_id.clone(), item.clone())).collect() };
    let (in_a, in_b) = (by_id(a), by_id(b));
    let missing = |from: &BTreeMap<String, Item>, items: &[Item]| -> Vec<String> {
        items.iter().filter(|item| !from.contains_key(&item.item_id)).map(|item| item.item_id.clone()).collect()
    };
    let (only_a, only_b) = (missing(&in_b, a), missing(&in_a, b));
    let both = || a.iter().filter_map(|item| Some((item, in_b.get(&item.item_id)?)));
    let ids = |differ: &dyn Fn(&Item, &Item) -> bool| -> Vec<String> {
        both().filter(|(a, b)| differ(a, b)).map(|(item, _)| item.item_id.clone()).collect()
    };
    let tokens = ids(&|a, b| (&a.hash, &a.token_ids, &a.text) != (&b.hash, &b.token_ids, &b.text));
    let labels = ids(&|a, b| role(a) != role(b));
    let parts: Vec<String> = [
        ("only in the first run", only_a),
        ("only in the second run", only_b),
        ("with other tokens or text", tokens),
        ("with another concept, group or label", labels),
    ]
    .into_iter()
    .filter(|(_, ids)| !ids.is_empty())
    .map(|(what, ids)| {
        format!("{} {what} ({}{})", ids.len(), ids[..ids.len().min(NAMED)].join(", "), if ids.len() > NAMED { ", ..." } else { "" })
    })
    .collect();
    if !parts.is_empty() {
        return Some(format!("of {} and {} items, {}", a.len(), b.len(), parts.join("; ")));
    }
    // Groups are resampled by position, so equal items in another order would pair one group with another.
    let moved = a.iter().zip(b).position(|(a, b)| a.item_id != b.item_id)?;
    Some(format!("the order differs from row {moved} on ({} against {})", a[moved].item_id, b[moved].item_id))
}

/// What an item is for.
fn role(item: &Item) -> (&str, &LabelFamily, bool, bool, &str, &str, Option<i8>) {
    (&item.concept, &item.label_family, item.null_bank, item.neutral, &item.group_id, &item.cell, item.y)
}

/// Whether dates are numbers of checkpoints or shares of stages, and these stand for other steps in `b` than in `a`.
pub fn counts_differently(a: &Series, b: &Series) -> bool {
    let marks = |series: &Series| series.points.iter().map(|point| (point.stage.clone(), point.step, point.tokens)).collect::<Vec<_>>();
    matches!(a.axis, Axis::Index | Axis::StageProgress) && marks(a) != marks(b)
}

/// Whether both series start from the same weights, so that directions of one mean something in the other: by fingerprint where
/// both stores have one, else by equal activations at the first checkpoint.
///
/// # Errors
/// The store cannot be read.
pub fn share_base(a: &Series, b: &Series) -> Result<bool> {
    if let (Some(a), Some(b)) = (a.fingerprint(0), b.fingerprint(0)) {
        return Ok(a == b);
    }
    // By name: a run with contexts has more items, and they may stand elsewhere.
    let by_id: BTreeMap<&str, usize> = b.items.iter().enumerate().map(|(index, item)| (item.item_id.as_str(), index)).collect();
    let place = |index: usize, item: &Item| {
        let is_there = b.items.get(index).is_some_and(|other| other.item_id == item.item_id);
        if is_there { Some(index) } else { by_id.get(item.item_id.as_str()).copied() }
    };
    for (readout, name) in a.readouts.iter().enumerate() {
        let Some(other) = b.readout(name) else { continue };
        let pairs = a.items.iter().enumerate().filter_map(|(item, own)| Some((item, place(item, own)?)));
        let (items, others): (Vec<usize>, Vec<usize>) =
            pairs.filter(|(item, in_b)| a.has(0, readout, *item) && b.has(0, other, *in_b)).unzip();
        for (layer, number) in a.layers.iter().enumerate() {
            let Some(other_layer) = b.layers.iter().position(|layer| layer == number) else { continue };
            if a.rows(0, readout, layer, &items)? != b.rows(0, other, other_layer, &others)? {
                return Ok(false);
            }
        }
    }
    Ok(true)
}
