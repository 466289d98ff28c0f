//! `compare` on what concepts do in contexts: planted stores in which a self persists in one run and not in the other.

use super::personas::{FORMATS, Item, direction, items, write_planted};
use safetensors::{Dtype, tensor::TensorView};
use selftrace::compare::{CompareRow, compare};
use selftrace::stats::draws::{generator, normal};
use selftrace::table;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const LEVELS: [&str; 6] = ["persistence_ratio", "icc_item", "within_persona", "consistency", "residual_3", "cluster"];

fn pair(a: &Path, b: &Path, out: &Path) -> Vec<CompareRow> {
    compare(&[a.to_owned()], &[b.to_owned()], Some(out)).unwrap().rows
}

fn row<'a>(rows: &'a [CompareRow], concept: &str, measure: &str) -> &'a CompareRow {
    let own = |row: &&CompareRow| row.concept == concept && row.measure == measure && row.readout.as_deref() == Some("last_prompt");
    rows.iter().find(own).unwrap_or_else(|| panic!("{concept} by {measure}"))
}

/// The difference has this sign, its whole interval with it.
fn told_apart(row: &CompareRow, sign: f64) {
    let (lower, upper) = (row.level_difference.lower.unwrap(), row.level_difference.upper.unwrap());
    assert!(row.status == "ok" || row.status == "too_few_checkpoints", "{row:?}");
    assert!(sign * lower > 0.0 && sign * upper > 0.0, "{row:?}");
}

#[test]
fn a_self_that_persists_in_one_run_only_is_told_apart_and_equal_runs_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let all = items(3, &FORMATS);
    let write = |name: &str, noise: u64, items: &[Item], planted: &dyn Fn(&Item) -> Option<usize>| -> PathBuf {
        let run = folder.path().join(name);
        write_planted(&run, 1, noise, items, planted);
        run
    };
    let persists = write("persists", 1, &all, &direction);
    let again = write("again", 2, &all, &direction);
    // The same concept, gone under personas and elsewhere in other formats; the assistant's, out of its space; and all on one direction.
    let altered = |item: &Item| match item.concept.as_str() {
        "functional" => {
            let mut item = item.clone();
            item.concept = "gated".to_owned();
            direction(&item)
        }
        "assistant" | "masks" => Some(41),
        _ => direction(item),
    };
    let altered = write("altered", 3, &all, &altered);
    let rows = pair(&persists, &altered, folder.path());
    for measure in ["persistence", "persistence_ratio", "icc_item", "within_persona", "consistency"] {
        told_apart(row(&rows, "functional", measure), -1.0);
    }
    let ratio = row(&rows, "functional", "persistence_ratio");
    assert!(
        ratio.level_a.unwrap() > 0.7 && ratio.level_b.unwrap() < 0.3 && ratio.shape_a.is_empty() && ratio.t50_a.value.is_none(),
        "{ratio:?}"
    );
    told_apart(row(&rows, "assistant", "residual_3"), 1.0);
    told_apart(row(&rows, "all", "cluster"), 1.0);

    let rows = pair(&persists, &again, folder.path());
    for measure in LEVELS.into_iter().chain(["persistence", "residual"]) {
        let row = row(&rows, if measure == "cluster" { "all" } else { "functional" }, measure);
        assert!(row.level_difference.lower.unwrap() <= 0.0 && row.level_difference.upper.unwrap() >= 0.0, "{row:?}");
    }
    // What is in neither run is no number.
    for measure in ["persistence_ratio", "residual_3"] {
        let row = row(&rows, "random", measure);
        assert_eq!((row.status.as_str(), row.level_a, row.level_difference.value), ("gate_fail", None, None));
    }

    let plain: Vec<Item> = all
        .iter()
        .filter(|item| item.label_family != "persona_axis" && item.persona_id == "default" && item.format_id == "chat")
        .cloned()
        .collect();
    assert!(plain.len() < all.len());
    let plain = write("plain", 5, &plain, &direction);
    for (rows, first) in [(pair(&persists, &plain, folder.path()), true), (pair(&plain, &persists, folder.path()), false)] {
        for measure in LEVELS.into_iter().filter(|measure| *measure != "cluster").chain(["persistence", "residual"]) {
            let row = row(&rows, "functional", measure);
            let (missing, level) = if first { (row.status_b, row.level_a) } else { (row.status_a, row.level_b) };
            assert!(missing == "not_run" && level.is_some() && row.level_difference.value.is_none(), "{row:?}");
        }
        let contrast = row(&rows, "functional", "contrast");
        assert!(contrast.level_difference.value.is_some() && contrast.status_a == contrast.status_b, "{contrast:?}");
    }
}

#[derive(Serialize, Deserialize)]
struct Stem {
    item_id: String,
    concept: String,
    label_family: String,
    null_bank: bool,
    neutral: bool,
    group_id: String,
    cell: String,
    y: Option<i8>,
    persona_id: String,
    persona_kind: String,
    answer_0: Option<String>,
    answer_1: Option<String>,
}

/// A run whose name has a margin of 1 nat where it is asked plainly, and another one under two personas.
fn write_answers(folder: &Path, name: &str, in_contexts: f64, seed: u64) -> PathBuf {
    let folder = folder.join(name);
    std::fs::create_dir_all(folder.join("readouts")).unwrap();
    let stem = |family: &str, group: usize, persona: &str| Stem {
        item_id: format!("{family}/{group}@{persona}"),
        concept: if family == "neutral" { "neutral" } else { "name" }.to_owned(),
        label_family: family.to_owned(),
        null_bank: false,
        neutral: family == "neutral",
        group_id: group.to_string(),
        cell: family.to_owned(),
        y: None,
        persona_id: persona.to_owned(),
        persona_kind: if persona == "default" { "" } else { "conflict" }.to_owned(),
        answer_0: (family != "neutral").then(|| "Nova".to_owned()),
        answer_1: (family != "neutral").then(|| "Juno".to_owned()),
    };
    let mut items: Vec<Stem> = (0..10).map(|n| stem("neutral", n, "default")).collect();
    for persona in ["default", "clerk", "oracle"] {
        items.extend((0..10).flat_map(|group| ["stem_self", "stem_other"].map(|family| stem(family, group, persona))));
    }
    table::write(&folder.join("items.parquet"), &items, "").unwrap();
    let mut noise = generator(seed, "answers");
    for t in 0..2 {
        let activations: Vec<u8> = (0..items.len() * 4).flat_map(|_| (normal(&mut noise) as f32).to_le_bytes()).collect();
        let mut margin = |item: &Stem| {
            let signal = match (item.label_family.as_str(), item.persona_id.as_str()) {
                ("stem_self", "default") => 1.0,
                ("stem_self", _) => in_contexts,
                _ => 0.0,
            };
            [signal + 0.2 * normal(&mut noise) - 5.0, -5.0]
        };
        let answers: Vec<u8> = items[10..].iter().flat_map(&mut margin).flat_map(|x| (x as f32).to_le_bytes()).collect();
        let rows: Vec<u8> = (10..items.len() as i64).flat_map(i64::to_le_bytes).collect();
        let tensors = HashMap::from([
            ("last_prompt", TensorView::new(Dtype::F32, vec![1, items.len(), 4], &activations).unwrap()),
            ("answers.log_probability", TensorView::new(Dtype::F32, vec![items.len() - 10, 2], &answers).unwrap()),
            ("answers.rows", TensorView::new(Dtype::I64, vec![items.len() - 10], &rows).unwrap()),
        ]);
        safetensors::serialize_to_file(tensors, None, &folder.join(format!("readouts/c{t}.safetensors"))).unwrap();
    }
    let checkpoints = [0, 1].map(|t| serde_json::json!({"id": format!("c{t}"), "stage": "sft", "step": t, "order": t}));
    let run = serde_json::json!({
        "run": name, "axis": "index", "layers": [8], "readouts": ["last_prompt"], "flips": 99, "bootstraps": 199,
        "checkpoints": checkpoints,
    });
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
    folder
}

#[test]
fn what_is_answered_under_personas_is_compared_beside_what_is_answered_plainly() {
    let folder = tempfile::tempdir().unwrap();
    let [weak, strong, again] = [("weak", 2.0, 1), ("strong", 5.0, 2), ("again", 2.0, 3)]
        .map(|(name, margin, seed)| write_answers(folder.path(), name, margin, seed));
    let find = |rows: Vec<CompareRow>, measure: &str| rows.into_iter().find(|row| row.measure == measure).unwrap();
    let contexts = find(pair(&weak, &strong, folder.path()), "behaviour_in_contexts");
    told_apart(&contexts, 1.0);
    assert!((contexts.level_difference.value.unwrap() - 3.0).abs() < 0.3 && (contexts.level_a.unwrap() - 2.0).abs() < 0.3, "{contexts:?}");
    for (rows, measure) in
        [(pair(&weak, &strong, folder.path()), "behaviour"), (pair(&weak, &again, folder.path()), "behaviour_in_contexts")]
    {
        let row = find(rows, measure);
        assert!(row.level_difference.lower.unwrap() < 0.0 && row.level_difference.upper.unwrap() > 0.0, "{row:?}");
    }
}
