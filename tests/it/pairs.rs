//! Tables of probes and of pairs of checkpoints: agreement with scikit-learn and NumPy (`fixtures/probes/make_series.py`), and
//! stores in which something is wrong.

use crate::store::{Item, item};
use arrow::array::{Array, Float64Array, RecordBatch};
use arrow::datatypes::DataType;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use safetensors::{Dtype, tensor::TensorView};
use selftrace::analysis::analyze;
use selftrace::series::Series;
use selftrace::stats::draws::{generator, normal};
use selftrace::stats::evaluate::{Scale, accuracy};
use selftrace::stats::kernel::Design;
use selftrace::stats::{logistic, online};
use selftrace::table;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

#[derive(Deserialize)]
struct Golden {
    groups: usize,
    features: usize,
    native: Vec<Native>,
    transfer: Vec<Vec<[f64; 2]>>,
    cka: f64,
    angles: [f64; 3],
    cos_cv: f64,
    control: Control,
    online: Online,
    x: Vec<Vec<f32>>,
}

#[derive(Deserialize)]
struct Native {
    auc: f64,
    accuracy: f64,
    brier: f64,
}

#[derive(Deserialize)]
struct Control {
    labels: Vec<u8>,
    accuracy: f64,
}

#[derive(Deserialize)]
struct Online {
    order: Vec<usize>,
    bits: f64,
}

#[derive(Serialize, Deserialize)]
struct ProbeRow {
    order: i32,
    concept: String,
    probe: String,
    split: String,
    ruler: String,
    status: String,
    auroc: Option<f64>,
    accuracy: Option<f64>,
    brier: Option<f64>,
    selectivity: Option<f64>,
    mdl_bits: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct TransferRow {
    order: i32,
    to_order: i32,
    concept: String,
    status: String,
    auroc: Option<f64>,
    auroc_rescaled: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct SimilarityRow {
    order: i32,
    to_order: i32,
    concept: String,
    status: String,
    cos_cv: Option<f64>,
    cos_raw: Option<f64>,
    cka: Option<f64>,
    angle_1: Option<f64>,
    angle_2: Option<f64>,
    angle_3: Option<f64>,
}

fn golden() -> Golden {
    serde_json::from_str(include_str!("../fixtures/probes/series.json")).unwrap()
}

/// A quartet's cells with their labels.
const CELLS: [(&str, i8); 4] = [("00", 1), ("01", 0), ("10", 0), ("11", 1)];

fn quartets(concept: &str, groups: usize) -> Vec<Item> {
    let of_group = |g: usize| CELLS.map(|(cell, y)| (g, cell, y));
    (0..groups)
        .flat_map(of_group)
        .map(|(g, cell, y)| {
            let mut item = item(concept, "crossed", g, cell, Some(y));
            (item.template_id, item.lexicon_id) = (format!("t{}", g % 4), format!("a{}", g % 6));
            item
        })
        .collect()
}

/// Writes a store with one layer; `x` holds the activations `[item, d]` of each checkpoint.
fn write(folder: &Path, items: &[Item], x: &[Vec<f32>]) {
    std::fs::create_dir_all(folder.join("readouts")).unwrap();
    table::write(&folder.join("items.parquet"), items, "").unwrap();
    let mut checkpoints = Vec::new();
    for (t, x) in x.iter().enumerate() {
        let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, vec![1, items.len(), x.len() / items.len()], &bytes).unwrap();
        let path = folder.join(format!("readouts/c{t}.safetensors"));
        safetensors::serialize_to_file(HashMap::from([("last_prompt".to_owned(), view)]), None, &path).unwrap();
        checkpoints.push(serde_json::json!({"id": format!("c{t}"), "step": t, "order": t, "reference": t == 0}));
    }
    let run = serde_json::json!({"run": "pairs", "seed": 3, "axis": "index", "layers": [7], "readouts": ["last_prompt"],
        "flips": 499, "bootstraps": 99, "checkpoints": checkpoints});
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
}

fn noise(items: usize, d: usize, key: &str) -> Vec<f32> {
    let mut generator = generator(8, key);
    (0..items * d).map(|_| normal(&mut generator) as f32).collect()
}

fn close(name: &str, found: Option<f64>, expected: f64, tolerance: f64) {
    let found = found.unwrap_or_else(|| panic!("{name} is null"));
    assert!((found - expected).abs() <= tolerance, "{name}: found {found}, expected {expected}");
}

#[test]
fn the_tables_agree_with_scikit_learn_and_numpy() {
    let golden = golden();
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), &quartets("known", golden.groups), &golden.x);
    analyze(&Series::open(folder.path()).unwrap()).unwrap();
    let probes: Vec<ProbeRow> = table::read(&folder.path().join("probes.parquet")).unwrap();
    for (t, native) in golden.native.iter().enumerate() {
        let of = |ruler: &str| {
            let wanted = |row: &&ProbeRow| {
                (row.order, row.probe.as_str(), row.split.as_str(), row.ruler.as_str()) == (t as i32, "logistic", "group", ruler)
            };
            probes.iter().find(wanted).unwrap()
        };
        close("auroc", of("native").auroc, native.auc, 1e-3);
        close("accuracy", of("native").accuracy, native.accuracy, 1e-9);
        close("brier", of("native").brier, native.brier, 1e-4);
        close("frozen", of("frozen").auroc, golden.transfer[1][t][0], 1e-3);
        assert!(of("native").selectivity.is_some() && of("native").mdl_bits.is_some());
    }
    let transfer: Vec<TransferRow> = table::read(&folder.path().join("transfer.parquet")).unwrap();
    assert_eq!(transfer.len(), 4);
    for row in &transfer {
        let [auroc, rescaled] = golden.transfer[row.order as usize][row.to_order as usize];
        close("transfer", row.auroc, auroc, 1e-3);
        close("rescaled", row.auroc_rescaled, rescaled, 1e-3);
    }
    let similarity: Vec<SimilarityRow> = table::read(&folder.path().join("similarity.parquet")).unwrap();
    for row in similarity.iter().filter(|row| row.order != row.to_order) {
        close("cka", row.cka, golden.cka, 1e-4);
        for (found, expected) in [row.angle_1, row.angle_2, row.angle_3].into_iter().zip(golden.angles) {
            close("angle", found, expected, 0.01);
        }
        assert!(row.cos_raw.is_some());
        if let Some(cosine) = row.cos_cv {
            close("cos_cv", Some(cosine), golden.cos_cv, 1e-3);
        }
    }
}

#[test]
fn control_accuracy_and_codelength_agree_with_scikit_learn() {
    let golden = golden();
    let n = 4 * golden.groups;
    let groups: Vec<usize> = (0..n).map(|i| i / 4).collect();
    let design = Design::new(&golden.x[1], golden.features).unwrap();
    let whole = design.whole();
    let splits = whole.folds(&groups.iter().map(|g| g % 5).collect::<Vec<_>>()).unwrap();
    let control: Vec<bool> = golden.control.labels.iter().map(|&y| y == 1).collect();
    let scores = logistic::held_out_at(&splits, &control, &[10.0; 5]).unwrap().unwrap();
    close("control", accuracy(&scores, &control, &vec![1.0; n], Scale::LogOdds), golden.control.accuracy, 1e-9);
    let labels: Vec<bool> = (0..n).map(|i| CELLS[i % 4].1 == 1).collect();
    close("bits", online::codelength(&whole, &labels, &groups, &golden.online.order).ok(), golden.online.bits, 0.02);
}

/// Every number is finite or null, a null has a status that says why, and a status of `ok` has its number.
fn check(folder: &Path, value: &str, table: &str) -> Vec<RecordBatch> {
    let file = std::fs::File::open(folder.join(table)).unwrap();
    let batches: Vec<RecordBatch> = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().map(Result::unwrap).collect();
    for batch in &batches {
        let status = arrow::array::AsArray::as_string::<i32>(batch.column_by_name("status").unwrap()).clone();
        for column in batch.columns().iter().filter(|column| *column.data_type() == DataType::Float64) {
            let column = column.as_any().downcast_ref::<Float64Array>().unwrap();
            assert!(column.iter().flatten().all(f64::is_finite), "{table}");
        }
        let value = batch.column_by_name(value).unwrap();
        (0..batch.num_rows()).for_each(|row| assert_eq!(value.is_null(row), status.value(row) != "ok", "{table}: {}", status.value(row)));
    }
    batches
}

/// A folder with a store, its tables checked.
fn analysed(items: &[Item], x: &[Vec<f32>]) -> (tempfile::TempDir, Vec<ProbeRow>) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), items, x);
    analyze(&Series::open(folder.path()).unwrap()).unwrap();
    for (table, value) in [("probes", "auroc"), ("transfer", "auroc"), ("similarity", "cos_cv"), ("trajectory", "e")] {
        let batches = check(folder.path(), value, &format!("{table}.parquet"));
        assert!(batches.iter().map(RecordBatch::num_rows).sum::<usize>() > 0, "{table} has no rows");
    }
    let rows = table::read(&folder.path().join("probes.parquet")).unwrap();
    (folder, rows)
}

#[test]
fn bad_labels_and_activations_have_a_status() {
    let d = 12;
    // A single group; labels that do not vary; a group of one label among others; no templates, lexicons or cells.
    let mut constant = quartets("constant_y", 8);
    constant.iter_mut().for_each(|item| item.y = Some(1));
    let mut partly = quartets("partly", 8);
    partly.iter_mut().take(4).for_each(|item| item.y = Some(0));
    partly[5].y = None;
    let mut bare = quartets("bare", 8);
    for item in &mut bare {
        (item.template_id, item.lexicon_id, item.cell) = (String::new(), String::new(), String::new());
    }
    let items = [quartets("one_group", 1), constant, partly, bare].concat();
    let (_folder, rows) = analysed(&items, &[noise(items.len(), d, "0"), noise(items.len(), d, "1")]);
    let statuses = |concept: &str, split: &str| {
        let mut statuses: Vec<&str> = rows.iter().filter(|r| r.concept == concept && r.split == split).map(|r| r.status.as_str()).collect();
        statuses.dedup();
        statuses
    };
    assert_eq!(statuses("one_group", "group"), ["too_few_groups"]);
    assert_eq!(statuses("constant_y", "group"), ["degenerate_label"]);
    assert_eq!(statuses("partly", "group"), ["ok"]);
    assert_eq!(statuses("bare", "template"), ["too_few_groups"]);
    assert_eq!(statuses("bare", "lexicon"), ["too_few_groups"]);
    assert_eq!(statuses("bare", "group"), ["ok"]);

    // Activations that do not vary at one checkpoint.
    let items = quartets("flat", 10);
    let (_folder, rows) = analysed(&items, &[vec![0.7; items.len() * d], noise(items.len(), d, "2"), vec![0.0; items.len() * d]]);
    assert!(rows.iter().filter(|row| row.order == 0).all(|row| row.status == "ok" && row.auroc == Some(0.5)));
}

#[test]
fn a_checkpoint_that_is_not_finite_is_reported_and_the_rest_is_analysed() {
    let items = quartets("some", 8);
    let mut x: Vec<Vec<f32>> = (0..3).map(|t| noise(items.len(), 12, &t.to_string())).collect();
    x[1][40] = f32::NAN;
    let (folder, rows) = analysed(&items, &x);
    let series = Series::open(folder.path()).unwrap();
    assert_eq!(series.missing.len(), 1);
    assert!(series.missing[0].1.contains("not finite"), "{}", series.missing[0].1);
    assert!(rows.iter().all(|row| row.order != 1));
}

#[test]
fn tables_do_not_depend_on_the_number_of_threads() {
    let items = [quartets("a", 12), quartets("b", 10)].concat();
    let x: Vec<Vec<f32>> = (0..4).map(|t| noise(items.len(), 60, &format!("threads {t}"))).collect();
    let tables = |threads: usize| {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &items, &x);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| analyze(&Series::open(folder.path()).unwrap())).unwrap();
        let files = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.path().is_file());
        let mut files: Vec<_> = files.map(|entry| (entry.file_name(), std::fs::read(entry.path()).unwrap())).collect();
        files.sort();
        files
    };
    let one = tables(1);
    assert!(one.len() > 10);
    for threads in [2, 4] {
        for (first, other) in one.iter().zip(tables(threads)) {
            assert!(*first == other, "{:?} differs with {threads} threads", first.0);
        }
    }
}

/// What must not matter: the order of items within groups, a rotation of all activations together, and which label is called 1.
#[test]
fn item_order_rotation_and_label_names_do_not_matter() {
    let (d, groups) = (30, 14);
    let items = quartets("same", groups);
    let direction = noise(1, d, "direction");
    let signal = |t: usize| -> Vec<f32> {
        let mut x = noise(items.len(), d, &format!("signal {t}"));
        for (row, item) in x.chunks_exact_mut(d).zip(&items) {
            let side = if item.y == Some(1) { 0.5 } else { -0.5 };
            row.iter_mut().zip(&direction).for_each(|(x, w)| *x += side * w);
        }
        x
    };
    let x: Vec<Vec<f32>> = (0..2).map(signal).collect();
    let read = |items: &[Item], x: &[Vec<f32>]| -> (Vec<TransferRow>, Vec<SimilarityRow>) {
        let (folder, _) = analysed(items, x);
        let read = |name: &str| folder.path().join(name);
        (table::read(&read("transfer.parquet")).unwrap(), table::read(&read("similarity.parquet")).unwrap())
    };
    let (transfer, similarity) = read(&items, &x);
    let mut flipped = items.clone();
    flipped.iter_mut().for_each(|item| item.y = item.y.map(|y| 1 - y));
    let (of_flipped, alike) = read(&flipped, &x);
    let order: Vec<usize> = (0..items.len()).map(|i| i / 4 * 4 + (i * 3 + 1) % 4).collect();
    let moved: Vec<Vec<f32>> = x.iter().map(|x| order.iter().flat_map(|&i| &x[i * d..(i + 1) * d]).copied().collect()).collect();
    let (of_moved, _) = read(&order.iter().map(|&i| items[i].clone()).collect::<Vec<_>>(), &moved);
    // A rotation that keeps the axes, so that whitening by axis is the same: a permutation of them with signs.
    let turn = |x: &Vec<f32>| -> Vec<f32> {
        x.chunks_exact(d)
            .flat_map(|row| (0..d).map(move |j| if j % 3 == 0 { -row[(j * 7 + 2) % d] } else { row[(j * 7 + 2) % d] }))
            .collect()
    };
    let (of_turned, turned) = read(&items, &x.iter().map(turn).collect::<Vec<_>>());
    for (((row, flipped), moved), turned) in transfer.iter().zip(of_flipped).zip(of_moved).zip(of_turned) {
        for (name, other) in [("flipped", flipped), ("moved", moved), ("turned", turned)] {
            close(name, other.auroc, row.auroc.unwrap(), 2e-3);
            close(name, other.auroc_rescaled, row.auroc_rescaled.unwrap(), 2e-3);
        }
    }
    for ((row, flipped), turned) in similarity.iter().zip(alike).zip(turned) {
        close("cka", flipped.cka, row.cka.unwrap(), 1e-6);
        close("cka", turned.cka, row.cka.unwrap(), 1e-4);
        close("angle", turned.angle_3, row.angle_3.unwrap(), 0.02);
        close("cosine", turned.cos_raw, row.cos_raw.unwrap(), 1e-4);
    }
}
