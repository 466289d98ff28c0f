//! `compare` on planted stores: the same items in two runs, in which a concept appears at other checkpoints or grows to another level.

use safetensors::{Dtype, tensor::TensorView};
use selftrace::compare::{CompareRow, compare};
use selftrace::report::page;
use selftrace::stats::draws::{generator, normal};
use selftrace::table;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const CHECKPOINTS: usize = 10;
const D: usize = 16;
const GROUPS: usize = 12;
const NULLS: usize = 6;
const FOILS: usize = 12;

#[derive(Serialize, Deserialize, Clone)]
struct Item {
    item_id: String,
    concept: String,
    label_family: String,
    null_bank: bool,
    neutral: bool,
    group_id: String,
    cell: String,
    y: Option<i8>,
    text: Option<String>,
    hash: String,
}

fn items() -> Vec<Item> {
    let item = |concept: &str, group: usize, cell: &str, y: Option<i8>| Item {
        item_id: format!("{concept}/{group}/{cell}"),
        concept: concept.to_owned(),
        label_family: if y.is_some() {
            "crossed"
        } else if concept == "neutral" {
            "neutral"
        } else {
            "crossed_foil"
        }
        .to_owned(),
        null_bank: concept.starts_with("null"),
        neutral: concept == "neutral",
        group_id: group.to_string(),
        cell: cell.to_owned(),
        y,
        text: None,
        hash: format!("{concept}{group}{cell}"),
    };
    let mut items: Vec<Item> = (0..20).map(|n| item("neutral", n, "q", None)).collect();
    for concept in ["taught", "untaught"].into_iter().map(str::to_owned).chain((0..NULLS).map(|n| format!("null_{n}"))) {
        for group in 0..GROUPS {
            items.extend([("00", 1), ("01", 0), ("10", 0), ("11", 1)].map(|(cell, y)| item(&concept, group, cell, Some(y))));
            let foils = (0..FOILS).flat_map(|foil| [0, 1].map(|side| format!("{side}:{foil:02}")));
            items.extend(foils.map(|cell| item(&concept, group, &cell, None)));
        }
    }
    items
}

/// A run in which `taught` rises to `level` at checkpoint `at`; the first checkpoint is the same in all runs.
fn write_run(folder: &Path, name: &str, at: usize, level: f64, seed: u64, items: &[Item]) -> PathBuf {
    let folder = folder.join(name);
    std::fs::create_dir_all(folder.join("readouts")).unwrap();
    table::write(&folder.join("items.parquet"), items, "").unwrap();
    let mut base = generator(1, "base");
    let base: Vec<f64> = (0..items.len() * D).map(|_| normal(&mut base)).collect();
    let mut checkpoints = Vec::new();
    for t in 0..CHECKPOINTS {
        checkpoints.push(serde_json::json!({"id": format!("c{t}"), "stage": "sft", "step": 10 * t, "order": t}));
        let mut noise = generator(seed, &t.to_string());
        let mut bytes = Vec::new();
        for (index, item) in items.iter().enumerate() {
            for j in 0..D {
                let drift = if t == 0 { 0.0 } else { 0.4 * normal(&mut noise) };
                let signal = if item.concept == "taught" && item.cell == "00" && j == 0 && t >= at { level } else { 0.0 };
                bytes.extend(((base[index * D + j] + drift + signal) as f32).to_le_bytes());
            }
        }
        let view = TensorView::new(Dtype::F32, vec![1, items.len(), D], &bytes).unwrap();
        let path = folder.join(format!("readouts/c{t}.safetensors"));
        safetensors::serialize_to_file(HashMap::from([("last_prompt".to_owned(), view)]), None, &path).unwrap();
    }
    let run = serde_json::json!({
        "run": name, "seed": seed, "axis": "index", "layers": [8], "readouts": ["last_prompt"], "checkpoints": checkpoints,
        "flips": 499, "bootstraps": 199,
    });
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
    folder
}

fn contrast<'a>(rows: &'a [CompareRow], concept: &str) -> &'a CompareRow {
    rows.iter().find(|row| row.measure == "contrast" && row.concept == concept && row.primary).unwrap()
}

fn pair(a: &Path, b: &Path, out: &Path) -> Vec<CompareRow> {
    compare(&[a.to_owned()], &[b.to_owned()], Some(out)).unwrap().rows
}

#[test]
fn a_later_run_is_later_and_swapping_negates_everything() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let early = write_run(folder.path(), "early", 4, 4.0, 2, &items);
    let late = write_run(folder.path(), "late", 7, 6.0, 3, &items);
    let out = folder.path().join("out");
    let comparison = compare(std::slice::from_ref(&early), std::slice::from_ref(&late), Some(&out)).unwrap();
    let rows = &comparison.rows;
    let taught = contrast(rows, "taught");
    assert_eq!(taught.status, "ok", "{taught:?}");
    assert!((taught.shift.value.unwrap() - 3.0).abs() < 0.5, "{taught:?}");
    assert!((taught.shift_step.value.unwrap() - 30.0).abs() < 5.0, "{taught:?}");
    assert!(taught.shift.lower.unwrap() > 0.0 && taught.p_a_first.unwrap() > 0.97, "{taught:?}");
    assert!(taught.level_difference.lower.unwrap() > 0.0 && taught.cosine.value.unwrap() > 0.8, "{taught:?}");
    let untaught = contrast(rows, "untaught");
    assert_eq!((untaught.status.as_str(), untaught.shift.value, untaught.t50_a.value), ("gate_fail", None, None));
    assert!(untaught.level_difference.value.is_some());
    assert_eq!(table::read::<CompareRow>(&out.join("compare.parquet")).unwrap(), *rows);
    assert!(!early.join("trajectory.parquet").exists(), "runs are only read");
    let page = page::write_comparison(&comparison, [&early, &late], None, "selftrace compare early late").unwrap();
    let page = std::fs::read_to_string(page).unwrap();
    assert!(crate::pages::numbers_are_the_tables(&out, &page) > 10);
    // A dot for each run on one line, and a way to either's own page.
    assert!(page.contains("<g class=\"m-contrast a\">") && page.contains("<g class=\"m-contrast b\">"));
    assert!(page.contains("href=\"../early/report.html\"") && page.contains("not shown"));

    // The draws are those of the first run, so the seed is made the same for the way back.
    let text = std::fs::read_to_string(late.join("run.json")).unwrap();
    std::fs::write(late.join("run.json"), text.replace("\"seed\":3", "\"seed\":2")).unwrap();
    let (there, back) = (pair(&early, &late, &out), pair(&late, &early, &out));
    let negated = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a + b).abs() < 1e-9,
        (None, None) => true,
        _ => false,
    };
    for (a, b) in there.iter().zip(&back) {
        assert_eq!((&a.concept, &a.measure, a.layer, a.primary), (&b.concept, &b.measure, b.layer, b.primary));
        assert!(negated(a.shift.value, b.shift.value) && negated(a.shift.lower, b.shift.upper) && negated(a.shift.upper, b.shift.lower));
        assert!(negated(a.level_difference.value, b.level_difference.value) && negated(a.level_difference.lower, b.level_difference.upper));
        assert_eq!((a.t50_a, a.t50_b, a.status_a.as_str()), (b.t50_b, b.t50_a, b.status_b.as_str()));
        assert!(a.p_a_first.zip(b.p_a_first).is_none_or(|(a, b)| (a + b - 1.0).abs() < 1e-9));
    }
}

#[test]
fn identical_runs_differ_by_exactly_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let a = write_run(folder.path(), "a", 5, 3.0, 2, &items());
    let rows = pair(&a, &a, folder.path());
    let taught = contrast(&rows, "taught");
    assert_eq!(taught.shift.parts(), [Some(0.0); 3]);
    assert_eq!(taught.p_a_first, Some(0.5));
    for row in &rows {
        // Two concepts are too few to share a direction.
        let expected = if row.measure == "cluster" { None } else { Some(0.0) };
        assert_eq!((row.level_difference.value, row.level_difference.lower), (expected, expected), "{row:?}");
        assert_eq!(row.measure == "cluster", row.status == "too_few_concepts", "{row:?}");
    }
}

#[test]
fn with_several_seeds_the_run_is_the_unit() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let arm = |at: usize, seeds: [u64; 2]| seeds.map(|seed| write_run(folder.path(), &format!("at{at}seed{seed}"), at, 3.0, seed, &items));
    let (a, b) = (arm(3, [2, 3]), arm(7, [4, 5]));
    let found = compare(&a, &b, Some(folder.path())).unwrap();
    let taught = contrast(&found.rows, "taught");
    assert_eq!((taught.unit.as_str(), taught.n_a, taught.n_b, taught.status.as_str()), ("run", 2, 2, "ok"), "{taught:?}");
    assert!((taught.shift.value.unwrap() - 4.0).abs() < 0.5 && taught.p_a_first == Some(1.0), "{taught:?}");
    let error = compare(&a, &b[..1], Some(folder.path())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("the seed is the unit"), "{error}");
}

#[test]
fn other_items_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let a = write_run(folder.path(), "a", 5, 3.0, 2, &items);
    let mut other = items.clone();
    other[30].hash = "another tokenizer".to_owned();
    other.pop();
    let b = write_run(folder.path(), "b", 5, 3.0, 2, &other);
    let error = compare(std::slice::from_ref(&a), &[b], Some(folder.path())).map(|_| ()).unwrap_err().to_string();
    for part in [items[30].item_id.as_str(), &items[items.len() - 1].item_id, "1 only in the first run", "1 with other tokens"] {
        assert!(error.contains(part), "{error}");
    }
    let mut moved = items.clone();
    moved.swap(40, 41);
    let c = write_run(folder.path(), "c", 5, 3.0, 2, &moved);
    let error = compare(&[a], &[c], Some(folder.path())).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("the order differs from row 40"), "{error}");
}

/// A file of the store, with the hashes of the items that it is of.
fn write_file(path: &Path, hashes: &[String]) {
    let values = vec![0u8; hashes.len() * D * 4];
    let rows: Vec<u8> = (0..hashes.len() as i64).flat_map(i64::to_le_bytes).collect();
    let hash = hashes.concat();
    let tensors = HashMap::from([
        ("last_prompt", TensorView::new(Dtype::F32, vec![1, hashes.len(), D], &values).unwrap()),
        ("rows.last_prompt", TensorView::new(Dtype::I64, vec![hashes.len()], &rows).unwrap()),
        ("item_hash", TensorView::new(Dtype::U8, vec![hash.len()], hash.as_bytes()).unwrap()),
    ]);
    safetensors::serialize_to_file(tensors, None, path).unwrap();
}

#[test]
fn an_unfinished_walk_is_named_with_its_open_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let done = write_run(folder.path(), "done", 5, 3.0, 2, &items);
    let half = write_run(folder.path(), "half", 5, 3.0, 3, &items);
    let refusal = |runs: [&Path; 2]| {
        let [a, b] = runs.map(Path::to_owned);
        compare(&[a], &[b], Some(folder.path())).map(|_| ()).unwrap_err().to_string()
    };
    let open = half.join("readouts/c8.safetensors");
    std::fs::remove_file(&open).unwrap();
    for runs in [[&*done, &*half], [&*half, &*done]] {
        let error = refusal(runs);
        let names = error.starts_with(half.to_str().unwrap()) && error.contains("unfinished, 1 of 10") && error.contains("(c8)");
        assert!(names && error.contains("`selftrace run`"), "{error}");
    }
    // Items were added and the walk has not come to this checkpoint again: its file has fewer rows, and perhaps other items in them.
    let hashes: Vec<String> = items.iter().map(|item| item.hash.clone()).collect();
    write_file(&open, &hashes[..hashes.len() - 4]);
    assert!(refusal([&done, &half]).contains("(c8)"));
    let mut moved = hashes.clone();
    moved.swap(20, 21);
    write_file(&open, &moved);
    assert!(refusal([&done, &half]).contains("(c8)"));
    write_file(&open, &hashes);
    assert!(compare(std::slice::from_ref(&done), std::slice::from_ref(&half), Some(folder.path())).is_ok());
    // One that failed is not open: the rest of the run is complete.
    std::fs::remove_file(&open).unwrap();
    std::fs::write(half.join("readouts/c8.json"), "{\"status\": \"failed\", \"error\": \"truncated\"}").unwrap();
    assert!(compare(&[done], &[half], Some(folder.path())).is_ok());
}
