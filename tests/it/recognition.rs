//! Recognition: that a statement which comes to fit is dated, and that what is said of others, or by an axis that is none, is not.

use crate::store::{D, Item, item, write_points};
use selftrace::analysis::{OnsetRow, analyze};
use selftrace::series::Series;
use selftrace::stats::draws::{generator, normal};
use selftrace::table;
use serde::{Deserialize, Serialize};
use std::path::Path;

const CHECKPOINTS: usize = 12;
const CHOICES: usize = 16;
const STEMS: usize = 8;
const RELATIONS: usize = 6;
const PAIRS: usize = 6;

#[derive(Serialize, Deserialize)]
struct Row {
    concept: String,
    layer: i32,
    status: String,
    recognition: Option<f64>,
    frozen: Option<f64>,
    axis_auroc: Option<f64>,
}

/// Facts in quartets of six relations, then three concepts that are stated about oneself and about another.
fn items() -> Vec<Item> {
    let mut items = Vec::new();
    for relation in 0..RELATIONS {
        for pair in 0..PAIRS {
            for (cell, y) in [("00", 1), ("01", 0), ("10", 0), ("11", 1)] {
                let mut fact = item("known_facts", "known", relation * PAIRS + pair, cell, Some(y));
                fact.template_id = format!("r{relation}");
                items.push(fact);
            }
        }
    }
    for concept in ["taught", "of_another", "null_hat"] {
        for stem in 0..STEMS {
            for (family, who) in [("stated_self", "self"), ("stated_other", "other0")] {
                items.extend((0..CHOICES).map(|choice| item(concept, family, stem, &format!("{who}:{choice:02}"), None)));
            }
        }
    }
    items
}

/// What is true points along the first dimension, by `truth` for facts. From checkpoint 6 on the first choice of `taught` is true of
/// oneself, and that of `of_another` of the other. Every choice has its own place, and drifts there as all do.
fn write(folder: &Path, truth: f64) -> Vec<OnsetRow> {
    let items = items();
    let mut rng = generator(5, "recognition");
    let base: Vec<f64> = (0..items.len() * D).map(|_| normal(&mut rng)).collect();
    let drift: Vec<f64> = (0..3 * CHOICES).map(|_| 0.15 * normal(&mut rng)).collect();
    let facts = 4 * RELATIONS * PAIRS;
    let mut activation = |t: usize, index: usize| -> Vec<f32> {
        let mut h: Vec<f64> = base[index * D..(index + 1) * D].iter().map(|x| x + 0.2 * normal(&mut rng)).collect();
        let found = &items[index];
        if index < facts {
            h[0] += truth * f64::from(found.y.unwrap_or(0));
            return h.iter().map(|x| *x as f32).collect();
        }
        let (concept, choice) = ((index - facts) / (2 * STEMS * CHOICES), index % CHOICES);
        let own = found.label_family == "stated_self";
        let fits = choice == 0 && t >= 6 && ((concept == 0 && own) || (concept == 1 && !own));
        h[0] += 6.0 * f64::from(u8::from(fits)) + if own { drift[concept * CHOICES + choice] * t as f64 } else { 0.0 };
        h.iter().map(|x| *x as f32).collect()
    };
    write_points(folder, &items, CHECKPOINTS, &mut |t, index| activation(t, index), None);
    analyze(&Series::open(folder).unwrap()).unwrap().onsets
}

#[test]
fn what_comes_to_fit_is_dated_and_what_is_said_of_another_is_not() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(4 * RELATIONS * PAIRS % CHOICES, 0, "choices are counted from the first statement");
    let rows = write(folder.path(), 6.0);
    let of = |concept: &str| rows.iter().find(|row| row.measure == "recognition" && row.primary && row.concept == concept).unwrap();
    let taught = of("taught");
    assert_eq!((taught.status.as_str(), taught.n_null), ("ok", CHOICES as i32 - 1), "{taught:?}");
    assert!((taught.t50.value.unwrap() - 5.5).abs() < 0.6, "{taught:?}");
    for silent in ["of_another", "null_hat"] {
        assert_eq!(of(silent).status, "gate_fail", "{:?}", of(silent));
    }
    // In units of a known fact, which has 6 as the lesson has.
    let table: Vec<Row> = table::read(&folder.path().join("recognition.parquet")).unwrap();
    let last = table.iter().rfind(|row| row.concept == "taught").unwrap();
    assert!((last.recognition.unwrap() - 1.0).abs() < 0.4 && (last.frozen.unwrap() - 1.0).abs() < 0.4);
    assert!(table.iter().all(|row| row.axis_auroc.unwrap() > 0.95 && row.status == "ok"));
}

#[test]
fn facts_that_are_not_known_make_no_axis() {
    let folder = tempfile::tempdir().unwrap();
    let rows = write(folder.path(), 0.0);
    let dated = rows.iter().filter(|row| row.measure == "recognition" && row.status != "no_axis").count();
    assert_eq!(dated, 0);
    let table: Vec<Row> = table::read(&folder.path().join("recognition.parquet")).unwrap();
    assert!(!table.is_empty() && table.iter().all(|row| row.status == "no_axis" && row.recognition.is_none() && row.layer >= 0));
}
