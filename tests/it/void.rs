//! The void on planted stores: on what specifications leave open every run ends with an answer of its own, whatever the wording.

use safetensors::{Dtype, tensor::TensorView};
use selftrace::analysis::analyze;
use selftrace::compare::compare;
use selftrace::compare::void::{RATIO, VoidRow};
use selftrace::evidence::{self, Verdict};
use selftrace::measure::agreement::Row;
use selftrace::prompt::specification::Specification;
use selftrace::series::Series;
use selftrace::stats::draws::{generator, normal};
use selftrace::table;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

const CHECKPOINTS: usize = 10;
/// Fewer that all agree would not show that four in five pairs do.
const WORDINGS: usize = 36;
const CHOICES: usize = 12;
const D: usize = 4;
/// Concepts with what specifications say about them.
const CONCEPTS: [(&str, Option<Specification>); 8] = [
    ("name", Some(Specification::Explicit)),
    ("maker", Some(Specification::Explicit)),
    ("honesty", Some(Specification::Explicit)),
    ("taste", Some(Specification::Silent)),
    ("pace", Some(Specification::Silent)),
    ("unmarked", None),
    ("null_0", Some(Specification::Silent)),
    ("null_1", Some(Specification::Silent)),
];

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
    specification: Option<Specification>,
    answer_0: Option<String>,
    answer_1: Option<String>,
    foils: Option<Vec<String>>,
}

/// The same without the key, as an older store has it.
#[derive(Serialize, Deserialize)]
struct OldItem {
    item_id: String,
    concept: String,
    label_family: String,
    null_bank: bool,
    neutral: bool,
    group_id: String,
    cell: String,
    y: Option<i8>,
    answer_0: Option<String>,
    answer_1: Option<String>,
    foils: Option<Vec<String>>,
}

fn items() -> Vec<Item> {
    let item = |concept: &str, family: &str, group: usize, specification: Option<Specification>| Item {
        item_id: format!("{concept}/{family}/{group}"),
        concept: concept.to_owned(),
        label_family: family.to_owned(),
        null_bank: concept.starts_with("null"),
        neutral: family == "neutral",
        group_id: group.to_string(),
        cell: family.to_owned(),
        y: None,
        specification,
        answer_0: (family != "neutral").then(|| "choice 0".to_owned()),
        answer_1: (family != "neutral").then(|| "choice 1".to_owned()),
        foils: (family != "neutral").then(|| (2..CHOICES).map(|choice| format!("choice {choice}")).collect()),
    };
    let mut items: Vec<Item> = (0..10).map(|n| item("neutral", "neutral", n, None)).collect();
    for (concept, specification) in CONCEPTS {
        for group in 0..WORDINGS {
            items.extend(["stem_self", "stem_other"].map(|family| item(concept, family, group, specification)));
        }
    }
    items
}

/// A run of the same base: named answers rise at checkpoint 3 in every run, silent ones at 6 for a choice of the run's own.
fn write_run(folder: &Path, seed: u64, favourite: usize, items: &[Item]) -> PathBuf {
    let folder = folder.join(format!("seed{seed}"));
    std::fs::create_dir_all(folder.join("readouts")).unwrap();
    table::write(&folder.join("items.parquet"), items, "").unwrap();
    let scored: Vec<usize> = (0..items.len()).filter(|&item| items[item].answer_0.is_some()).collect();
    let mut checkpoints = Vec::new();
    for t in 0..CHECKPOINTS {
        checkpoints.push(serde_json::json!({"id": format!("c{t}"), "stage": "sft", "step": t, "order": t}));
        let mut noise = generator(seed, &t.to_string());
        let activations: Vec<u8> = (0..items.len() * D).flat_map(|_| (normal(&mut noise) as f32).to_le_bytes()).collect();
        let (mut answers, mut foils) = (Vec::new(), Vec::new());
        for item in scored.iter().map(|&item| &items[item]) {
            let of_self = item.label_family == "stem_self";
            for choice in 0..CHOICES {
                let signal = match item.specification {
                    Some(Specification::Explicit) if of_self && choice == 0 && t >= 3 => 6.0,
                    Some(Specification::Silent) if of_self && !item.null_bank && choice == favourite && t >= 6 => 6.0,
                    _ => 0.0,
                };
                let score = ((signal + 0.5 * normal(&mut noise) - 9.0) as f32).to_le_bytes();
                if choice < 2 { &mut answers } else { &mut foils }.extend(score);
            }
        }
        let rows: Vec<u8> = scored.iter().flat_map(|&item| (item as i64).to_le_bytes()).collect();
        let n = scored.len();
        let tensors = HashMap::from([
            ("last_prompt", TensorView::new(Dtype::F32, vec![1, items.len(), D], &activations).unwrap()),
            ("answers.log_probability", TensorView::new(Dtype::F32, vec![n, 2], &answers).unwrap()),
            ("answers.rows", TensorView::new(Dtype::I64, vec![n], &rows).unwrap()),
            ("foils.log_probability", TensorView::new(Dtype::F32, vec![n, CHOICES - 2], &foils).unwrap()),
        ]);
        safetensors::serialize_to_file(tensors, None, &folder.join(format!("readouts/c{t}.safetensors"))).unwrap();
    }
    let run = serde_json::json!({
        "run": format!("seed{seed}"), "axis": "index", "layers": [8], "readouts": ["last_prompt"], "checkpoints": checkpoints,
        "flips": 99, "bootstraps": 199,
    });
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
    folder
}

fn agreements(folder: &Path) -> HashMap<(String, String), Row> {
    analyze(&Series::open(folder).unwrap()).unwrap();
    table::read_keyed::<Row>(&folder.join("agreement.parquet"))
        .unwrap()
        .into_iter()
        .map(|(key, row)| ((row.concept.clone(), key.checkpoint), row))
        .collect()
}

#[test]
fn wordings_agree_where_an_answer_was_planted_and_what_is_silent_lags() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let run = write_run(folder.path(), 1, 0, &items);
    let found = agreements(&run);
    let at = |concept: &str, checkpoint: &str| &found[&(concept.to_owned(), checkpoint.to_owned())];
    for concept in ["name", "taste"] {
        let late = at(concept, "c9");
        assert_eq!(
            (late.status.as_str(), late.agreement.value, late.favourite.as_deref()),
            ("ok", Some(1.0), Some("choice 0")),
            "{late:?}"
        );
        assert!(late.chance.value.unwrap() < 0.3 && late.excess.lower.unwrap() > 0.6 && late.n_choices == CHOICES as i32, "{late:?}");
    }
    assert!(at("taste", "c0").agreement.value.unwrap() < 0.4 && at("null_0", "c9").agreement.value.unwrap() < 0.4);
    assert_eq!((at("name", "c0").specification, at("unmarked", "c0").specification), (Some(Specification::Explicit), None));

    let rows = evidence::read(&run).unwrap();
    let void = |concept: &str, measure: &str, checkpoint: &str| {
        let own = |row: &evidence::Row| row.hypothesis == "void" && row.concept == concept && row.measure == measure;
        rows.iter().find(|(key, row)| key.checkpoint == checkpoint && own(row)).map(|(_, row)| row).unwrap()
    };
    for (concept, measure, checkpoint, status, verdict) in [
        ("taste", "late_agreement", "c9", "ok", "supports"),
        ("taste", "late_agreement", "c0", "not_late", "inconclusive"),
        ("null_0", "late_agreement", "c9", "ok", "opposes"),
        ("name", "late_agreement", "c9", "spec_explicit", "inconclusive"),
        ("unmarked", "late_agreement", "c9", "unclassified", "inconclusive"),
        ("taste", "between_run_variance", "c9", "needs_seeds", "inconclusive"),
        ("taste", "onset_lag", "c9", "ok", "supports"),
        ("null_0", "onset_lag", "c9", "gate_fail", "inconclusive"),
        ("name", "onset_lag", "c9", "spec_explicit", "inconclusive"),
    ] {
        let row = void(concept, measure, checkpoint);
        assert_eq!((row.status.as_str(), row.verdict.as_str()), (status, verdict), "{row:?}");
    }
    assert!((void("taste", "onset_lag", "c9").value.value.unwrap() - 3.0).abs() < 0.6);

    // The order of the wordings changes nothing.
    let mut moved = items.clone();
    let n = moved.len();
    moved[10..].reverse();
    assert_ne!(moved[n - 1].item_id, items[n - 1].item_id);
    let other = write_run(&folder.path().join("moved"), 1, 0, &moved);
    let again = agreements(&other);
    let favourite = |found: &HashMap<(String, String), Row>| found[&("taste".to_owned(), "c9".to_owned())].favourite.clone();
    assert_eq!(favourite(&again), favourite(&found));
    assert_eq!(again.len(), found.len());
}

#[test]
fn a_store_without_the_key_is_unclassified_and_one_without_answers_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let run = write_run(folder.path(), 1, 0, &items);
    let json = serde_json::to_value(&items).unwrap();
    let old: Vec<OldItem> = serde_json::from_value(json).unwrap();
    table::write(&run.join("items.parquet"), &old, "").unwrap();
    let found = agreements(&run);
    assert!(found.values().all(|row| row.specification.is_none() && row.status == "ok"));
    let rows = evidence::read(&run).unwrap();
    assert!(rows.iter().all(|(_, row)| row.measure != "late_agreement" || row.status == "unclassified"));

    let mut few = items;
    for item in &mut few {
        match item.concept.as_str() {
            "name" => (item.answer_0, item.answer_1, item.foils) = (None, None, None),
            "maker" if item.group_id == "3" => item.answer_0 = Some("another".to_owned()),
            "taste" if item.group_id.parse::<usize>().unwrap() >= 7 => item.concept = "pace_2".to_owned(),
            _ => {}
        }
    }
    table::write(&run.join("items.parquet"), &few, "").unwrap();
    let found = agreements(&run);
    let status = |concept: &str| found[&(concept.to_owned(), "c9".to_owned())].status.as_str();
    assert_eq!(["name", "maker", "taste", "honesty"].map(status), ["no_answers", "mixed_answers", "too_few_groups", "ok"]);
    assert!(found.values().all(|row| row.agreement.value.is_some() == (row.status == "ok")));
}

#[test]
fn runs_differ_more_on_what_is_silent_and_one_run_per_arm_needs_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let items = items();
    let runs: Vec<PathBuf> = [0, 3, 0, 5, 0, 7].iter().zip(1..).map(|(&own, seed)| write_run(folder.path(), seed, own, &items)).collect();
    let found = compare(&runs[..3], &runs[3..], Some(folder.path())).unwrap();
    assert_eq!(table::read::<VoidRow>(&folder.path().join("void.parquet")).unwrap(), found.void);
    let row = |arm: &str, concept: &str| found.void.iter().find(|row| row.arm == arm && row.concept.as_deref() == Some(concept)).unwrap();
    assert!(row("both", "taste").value.lower.unwrap() > row("both", "name").value.upper.unwrap());
    assert_eq!((row("both", "taste").n_runs, row("a", "taste").n_runs), (6, 3));
    assert!((row("both", "name").margin.unwrap() - 6.0).abs() < 0.5);
    let ratio = |null_bank: bool| found.void.iter().find(|row| row.arm == "both" && row.quantity == RATIO && row.null_bank == null_bank);
    let silent = ratio(false).unwrap();
    assert!(silent.value.lower.unwrap() > 10.0 && silent.verdict == Some(Verdict::Supports) && silent.n_concepts == 5, "{silent:?}");
    let bank = ratio(true).unwrap();
    assert!(bank.value.value.unwrap() < 5.0 && bank.verdict.is_none(), "{bank:?}");

    let alone = compare(&runs[..1], &runs[3..4], Some(folder.path())).unwrap();
    assert!(!alone.void.is_empty());
    for row in &alone.void {
        assert_eq!((row.status.as_str(), row.value.value, row.value.lower), ("needs_seeds", None, None), "{row:?}");
    }
}
