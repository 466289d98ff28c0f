//! `analyze --store` on a store that another tool could have made: the least that the documented layout asks for, with planted
//! truth.

use safetensors::{Dtype, tensor::TensorView};
use selftrace::analysis::{OnsetRow, analyze, analyze_for};
use selftrace::report::page::{self, AtHand, rows::Rows};
use selftrace::series::Series;
use selftrace::stats::draws::{generator, normal};
use selftrace::table;
use selftrace::words::Status;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

const CHECKPOINTS: usize = 12;
pub const D: usize = 24;
const GROUPS: usize = 24;
const NULLS: usize = 8;
const FOILS: usize = 12;

/// The documented columns, and no others.
#[derive(Serialize, Deserialize, Clone)]
pub struct Item {
    item_id: String,
    pub concept: String,
    pub label_family: String,
    null_bank: bool,
    neutral: bool,
    pub group_id: String,
    pub cell: String,
    pub y: Option<i8>,
    pub template_id: String,
    pub lexicon_id: String,
    pub text: Option<String>,
    #[serde(default)]
    foils: Option<Vec<String>>,
    #[serde(default)]
    answer_ids: Option<Vec<Vec<i32>>>,
}

pub fn item(concept: &str, label_family: &str, group: usize, cell: &str, y: Option<i8>) -> Item {
    Item {
        item_id: format!("{concept}/{label_family}/{group}/{cell}"),
        concept: concept.to_owned(),
        label_family: label_family.to_owned(),
        null_bank: concept.starts_with("null"),
        neutral: concept == "neutral",
        group_id: group.to_string(),
        cell: cell.to_owned(),
        y,
        template_id: String::new(),
        lexicon_id: String::new(),
        text: None,
        foils: None,
        answer_ids: None,
    }
}

/// An item that is answered by the first of `ids`; the others are foils.
pub fn item_with_answers(concept: &str, label_family: &str, group: usize, cell: &str, ids: &[Vec<i32>]) -> Item {
    let foils = ids[1..].iter().map(|ids| format!("{ids:?}")).collect();
    Item { foils: Some(foils), answer_ids: Some(ids.to_vec()), ..item(concept, label_family, group, cell, None) }
}

fn items() -> Vec<Item> {
    let mut items: Vec<Item> = (0..30).map(|n| item("neutral", "neutral", n, "q", None)).collect();
    for concept in std::iter::once("taught".to_owned()).chain((0..NULLS).map(|n| format!("null_{n:02}"))) {
        for group in 0..GROUPS {
            for (cell, y) in [("00", 1), ("01", 0), ("10", 0), ("11", 1)] {
                items.push(item(&concept, "crossed", group, cell, Some(y)));
            }
            for foil in 0..FOILS {
                (0..2).for_each(|side| items.push(item(&concept, "crossed_foil", group, &format!("{side}:{foil:02}"), None)));
            }
            items.push(item(&concept, "stem_self", group, "self", None));
            (0..3).for_each(|other| items.push(item(&concept, "stem_other", group, &format!("other{other}"), None)));
        }
    }
    items
}

/// What is added to the first dimension of an item at a checkpoint: `taught` appears between checkpoints 5 and 6.
fn planted(item: &Item, checkpoint: usize) -> f64 {
    if item.concept != "taught" || checkpoint < 6 {
        return 0.0;
    }
    match (item.label_family.as_str(), item.cell.as_str()) {
        ("crossed", "00") | ("stem_self", _) => 4.0,
        _ => 0.0,
    }
}

/// Every item has an activation of its own, the same at all checkpoints, some drift, and what is planted; all grow fourfold.
fn write_store(folder: &Path, skip: Option<usize>) {
    let items = items();
    std::fs::create_dir_all(folder.join("readouts")).unwrap();
    table::write(&folder.join("items.parquet"), &items, "").unwrap();
    let mut own = generator(1, "items");
    let base: Vec<f64> = (0..items.len() * D).map(|_| normal(&mut own)).collect();
    let mut checkpoints = Vec::new();
    for t in 0..CHECKPOINTS {
        checkpoints.push(serde_json::json!({"id": format!("c{t}"), "stage": "sft", "step": t, "order": t, "reference": t < 2}));
        if skip == Some(t) {
            continue;
        }
        let mut noise = generator(2, &t.to_string());
        let growth = 1.0 + 3.0 * t as f64 / CHECKPOINTS as f64;
        let mut bytes = Vec::new();
        for layer in 0..2 {
            for (index, item) in items.iter().enumerate() {
                for j in 0..D {
                    let signal = if layer == 1 && j == 0 { planted(item, t) } else { 0.0 };
                    let x = growth * (base[index * D + j] + 0.3 * normal(&mut noise) + signal);
                    bytes.extend((x as f32).to_le_bytes());
                }
            }
        }
        let view = TensorView::new(Dtype::F32, vec![2, items.len(), D], &bytes).unwrap();
        let path = folder.join(format!("readouts/c{t}.safetensors"));
        safetensors::serialize_to_file(HashMap::from([("last_prompt".to_owned(), view)]), None, &path).unwrap();
    }
    let run = serde_json::json!({
        "run": "planted", "seed": 0, "axis": "index", "layers": [0, 8], "readouts": ["last_prompt"], "checkpoints": checkpoints,
    });
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
}

/// A store of one layer with an activation per item and checkpoint, and rows of an unembedding for tokens 0, 1, 2 ...
pub fn write_points(
    folder: &Path,
    items: &[Item],
    points: usize,
    activation: &mut dyn FnMut(usize, usize) -> Vec<f32>,
    unembedding: Option<&[f32]>,
) {
    std::fs::create_dir_all(folder.join("readouts")).unwrap();
    table::write(&folder.join("items.parquet"), items, "").unwrap();
    let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
    for t in 0..points {
        let values: Vec<f32> = (0..items.len()).flat_map(|index| activation(t, index)).collect();
        let (values, rows) = (bytes(&values), bytes(unembedding.unwrap_or_default()));
        let tokens: Vec<u8> = (0..(rows.len() / D / 4) as i64).flat_map(i64::to_le_bytes).collect();
        let mut views = HashMap::from([("last_prompt", TensorView::new(Dtype::F32, vec![1, items.len(), D], &values).unwrap())]);
        if unembedding.is_some() {
            views.insert("unembedding.rows", TensorView::new(Dtype::F32, vec![tokens.len() / 8, D], &rows).unwrap());
            views.insert("unembedding.tokens", TensorView::new(Dtype::I64, vec![tokens.len() / 8], &tokens).unwrap());
        }
        safetensors::serialize_to_file(views, None, &folder.join(format!("readouts/c{t}.safetensors"))).unwrap();
    }
    let checkpoints: Vec<_> = (0..points)
        .map(|t| serde_json::json!({"id": format!("c{t}"), "stage": "sft", "step": t, "order": t, "reference": t < 2}))
        .collect();
    let run = serde_json::json!({
        "run": "planted", "seed": 0, "axis": "index", "layers": [8], "readouts": ["last_prompt"], "checkpoints": checkpoints,
    });
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
}

fn primary<'a>(rows: &'a [OnsetRow], concept: &str, measure: &str) -> &'a OnsetRow {
    rows.iter().find(|row| row.primary && row.concept == concept && row.measure == measure).unwrap()
}

#[test]
fn a_planted_onset_is_dated_and_the_null_bank_is_silent() {
    let folder = tempfile::tempdir().unwrap();
    write_store(folder.path(), None);
    let rows = analyze(&Series::open(folder.path()).unwrap()).unwrap().onsets;
    let taught = primary(&rows, "taught", "contrast");
    assert_eq!((taught.shape.as_str(), taught.status.as_str(), taught.layer), ("emerges", "ok", Some(8)), "{taught:?}");
    assert_eq!((taught.last_off.as_deref(), taught.n_null), (Some("c5"), FOILS as i32 + 1), "{taught:?}");
    let (t50, lower, upper) = (taught.t50.value.unwrap(), taught.t50.lower.unwrap(), taught.t50.upper.unwrap());
    assert!((5.0..=6.0).contains(&t50) && lower <= 5.0 && upper >= 6.0, "a step is known to its gap: {t50} [{lower}, {upper}]");
    let loud: Vec<&OnsetRow> = rows.iter().filter(|row| row.primary && row.status == "ok" && row.concept != "taught").collect();
    assert!(loud.is_empty(), "{loud:?}");
    // Learned change rises for whatever is said of oneself, and has no null of its kind: it dates nothing.
    assert!(rows.iter().all(|row| row.measure != "change" || (row.status == "no_foils" && !row.primary && row.t50.value.is_none())));
}

#[test]
fn a_concept_without_foils_has_a_status_and_no_date() {
    let folder = tempfile::tempdir().unwrap();
    write_store(folder.path(), None);
    let keep = |few: usize| {
        let items = items();
        let kept = items.iter().map(|item| item.cell.split_once(':').is_none_or(|(_, foil)| foil.parse::<usize>().unwrap() < few));
        let items = items
            .iter()
            .zip(kept)
            .map(|(item, kept)| Item { label_family: if kept { item.label_family.clone() } else { "other".to_owned() }, ..item.clone() });
        table::write(&folder.path().join("items.parquet"), &items.collect::<Vec<_>>(), "").unwrap();
        let rows = analyze(&Series::open(folder.path()).unwrap()).unwrap().onsets;
        let row = primary(&rows, "taught", "contrast");
        (row.status, row.t50.value, row.q.is_some())
    };
    assert_eq!(keep(0), (Status::NoFoils, None, false));
    assert_eq!(keep(3), (Status::TooFewFoils, None, true));
}

#[test]
fn two_analyses_write_the_same_bytes() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&first, &second] {
        write_store(folder.path(), None);
        analyze(&Series::open(folder.path()).unwrap()).unwrap();
    }
    for entry in std::fs::read_dir(first.path()).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file()) {
        let other = std::fs::read(second.path().join(entry.file_name())).unwrap();
        assert!(std::fs::read(entry.path()).unwrap() == other, "{:?} differs", entry.file_name());
    }
}

#[test]
fn a_checkpoint_without_readouts_is_reported_and_the_rest_is_analysed() {
    let folder = tempfile::tempdir().unwrap();
    write_store(folder.path(), Some(4));
    let series = Series::open(folder.path()).unwrap();
    assert_eq!((series.points.len(), series.missing.len()), (CHECKPOINTS - 1, 1));
    assert!(series.missing[0].1.contains("c4.safetensors"), "{}", series.missing[0].1);
    let rows = analyze(&series).unwrap().onsets;
    assert_eq!(primary(&rows, "taught", "contrast").n_checkpoints, CHECKPOINTS as i32 - 1);
}

#[test]
fn every_number_of_a_table_is_finite_or_null() {
    let folder = tempfile::tempdir().unwrap();
    write_store(folder.path(), None);
    for row in analyze(&Series::open(folder.path()).unwrap()).unwrap().onsets {
        // NaN and infinities have no JSON, so serde_json makes them null: a value that is there must survive.
        let numbers =
            [row.delta.value, row.z, row.p, row.q, row.mde, row.t50.value, row.t50.lower, row.t50.upper, row.width, row.null_percentile];
        assert!(numbers.into_iter().flatten().all(f64::is_finite), "{row:?}");
    }
}

#[test]
fn items_that_pandas_wrote_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/store/items.parquet");
    let items: Vec<selftrace::prompt::item::Item> = table::read(&path).unwrap();
    assert_eq!(items.len(), 8);
    assert!(items.iter().all(|item| item.y == Some(i8::from(item.cell == "00" || item.cell == "11")) && item.text.is_none()));
}

#[test]
fn the_page_after_an_analysis_reads_no_table_back() {
    let folder = tempfile::tempdir().unwrap();
    write_store(folder.path(), None);
    let series = Series::open(folder.path()).unwrap();
    let (mut at_hand, mut written) = (AtHand::default(), Vec::new());
    analyze_for(&series, &mut |table| {
        written.push(table.table.path(folder.path()));
        at_hand.take(table);
    })
    .unwrap();
    let read = page::render(&Rows::read(folder.path()).unwrap(), "selftrace analyze");
    assert!(read.contains("taught") && read.matches("data-at=").count() > 20 && written.len() >= 20, "{read}");
    written.iter().for_each(|table| std::fs::remove_file(table).unwrap());
    assert!(page::render(&Rows::of(folder.path(), &at_hand).unwrap(), "selftrace analyze") == read, "the same page, from what is at hand");
}
