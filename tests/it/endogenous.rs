//! Probes of the checkpoint's own choices on a planted store: the residual carries the choice from the second checkpoint on.

use crate::store::{Item, item};
use safetensors::{Dtype, tensor::TensorView};
use selftrace::analysis::analyze;
use selftrace::measure::endogenous::Row;
use selftrace::series::Series;
use selftrace::stats::draws::{generator, normal, uniform_index};
use selftrace::table::{self, Key};
use std::collections::HashMap;
use std::path::Path;

const PAIRS: usize = 40;
const D: usize = 12;

/// Every pair is chosen from and asked about in both orders; answer 0 is the same word in both.
fn items(pairs: usize) -> Vec<Item> {
    let of_pair = |pair: usize| {
        [("object", "xy"), ("object", "yx"), ("hypothetical", "xy"), ("hypothetical", "yx")].map(|(family, order)| {
            let words = if order == "xy" { ["left", "right"] } else { ["right", "left"] };
            let text = words.map(|word| format!("{word}{pair}")).join(" or ");
            let mut item = item("foresight", family, pair, &format!("{family}-{order}"), None);
            item.text = Some(text);
            item
        })
    };
    (0..pairs).flat_map(of_pair).collect()
}

/// Two checkpoints with random choices of their own, said to be what would be chosen in every third pair only at the first.
fn write(folder: &Path, items: &[Item]) {
    std::fs::create_dir_all(folder.join("readouts")).unwrap();
    table::write(&folder.join("items.parquet"), items, "").unwrap();
    let mut checkpoints = Vec::new();
    for t in 0..2 {
        let mut rng = generator(t, "choices");
        let choices: Vec<bool> = (0..PAIRS).map(|_| uniform_index(2, &mut rng) == 0).collect();
        let (mut x, mut scores) = (Vec::new(), Vec::new());
        for item in items {
            let pair: usize = item.group_id.parse().unwrap();
            let (choice, hypothetical) = (choices[pair], item.label_family == "hypothetical");
            let said = if hypothetical && t == 0 && !pair.is_multiple_of(3) { !choice } else { choice };
            // A liking for the first place, which orders cancel.
            let first = item.cell.ends_with("xy");
            let margin = if said { 2.0 } else { -2.0 } + if first { 1.5 } else { -1.5 };
            scores.extend([margin as f32, 0.0]);
            let signal = if t == 1 && hypothetical && choice == first { 3.0 } else { 0.0 };
            x.extend((0..D).map(|k| (normal(&mut rng) + if k == 0 { signal } else { 0.0 }) as f32));
        }
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let rows: Vec<u8> = (0..items.len() as i64).flat_map(i64::to_le_bytes).collect();
        let (x, scores) = (bytes(&x), bytes(&scores));
        let tensors = HashMap::from([
            ("last_prompt", TensorView::new(Dtype::F32, vec![1, items.len(), D], &x).unwrap()),
            ("answers.log_probability", TensorView::new(Dtype::F32, vec![items.len(), 2], &scores).unwrap()),
            ("answers.rows", TensorView::new(Dtype::I64, vec![items.len()], &rows).unwrap()),
        ]);
        safetensors::serialize_to_file(tensors, None, &folder.join(format!("readouts/c{t}.safetensors"))).unwrap();
        checkpoints.push(serde_json::json!({"id": format!("c{t}"), "step": t, "order": t, "reference": t == 0}));
    }
    let run = serde_json::json!({"run": "planted", "seed": 3, "axis": "index", "layers": [7], "readouts": ["last_prompt"],
        "flips": 99, "bootstraps": 199, "checkpoints": checkpoints});
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
}

fn analysed(items: &[Item]) -> Vec<(Key, Row)> {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), items);
    analyze(&Series::open(folder.path()).unwrap()).unwrap();
    table::read_keyed(&folder.path().join("endogenous.parquet")).unwrap()
}

fn row<'a>(rows: &'a [(Key, Row)], order: i32, label: &str) -> &'a Row {
    &rows.iter().find(|(key, row)| key.order == order && row.label == label).unwrap().1
}

#[test]
fn the_choice_is_found_where_it_is_carried_and_words_do_not_tell_it() {
    let rows = analysed(&items(PAIRS));
    let (before, after) = (row(&rows, 0, "choice"), row(&rows, 1, "choice"));
    for row in [before, after] {
        assert_eq!((row.status.as_str(), row.n, row.n_groups, row.n_positive, row.layer), ("ok", 80, 40, 40, 7));
        assert_eq!(row.lexical_auroc, Some(0.5), "each word stands in both orders");
        assert_eq!((row.embedding_auroc, row.reinitialised_auroc), (None, None));
    }
    assert!(before.auroc.lower.unwrap() < 0.5 && before.excess_auc.lower.unwrap() < 0.0, "{before:?}");
    assert!(after.auroc.value.unwrap() > 0.9 && after.excess_auc.lower.unwrap() > 0.3, "{after:?}");
    // A third of the predictions is right at first, and all are in the end: no label.
    let (before, after) = (row(&rows, 0, "right"), row(&rows, 1, "right"));
    assert_eq!((before.status.as_str(), before.n_positive), ("ok", 28));
    assert_eq!((after.status.as_str(), after.auroc.value, after.n_positive), ("degenerate_label", None, 80));
}

#[test]
fn too_few_pairs_and_unscored_ones_have_a_status() {
    let rows = analysed(&items(5));
    assert!(rows.len() == 4 && rows.iter().all(|(_, row)| row.status == "too_few_groups" && row.auroc.value.is_none()));
    let mut other = items(PAIRS);
    other.iter_mut().for_each(|item| item.cell = item.label_family.clone());
    let rows = analysed(&other);
    assert_eq!(row(&rows, 0, "choice").status, "no_order");
    assert_eq!(row(&rows, 0, "right").status, "ok");
}
