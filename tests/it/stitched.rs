//! Middle layers read by the first checkpoint's upper blocks: against a model that was put together on disk, and what has to be equal at the ends.

use crate::baseline::rows;
use crate::cli::{demo, run, stderr, stdout, text};
use safetensors::SafeTensors;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// The first checkpoint, some others, and what a table says of the stems of some concepts.
fn manifest(folder: &Path, checkpoints: &[(&str, PathBuf)], table: &str) -> PathBuf {
    let mut text = format!(
        "[run]\nname = \"test\"\naxis = \"index\"\nbaseline = false\nreport = false\naudit = \"warn\"\n[model]\ntemplate = \"native:first\"\nlayers = [4]\n\
         [concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\nmaterial = [\"stem\"]\ninclude = [\"own_name\", \"friend_name\", \"hat\", \"pet\"]\n\
         [analysis]\nflips = 199\nbootstraps = 199\n{table}"
    );
    for (id, source) in checkpoints {
        text += &format!("[[checkpoint]]\nid = \"{id}\"\nstage = \"sft\"\nsource = \"{}\"\n", source.display());
    }
    let path = folder.join("checkpoints.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// `lower`'s embedding and blocks below `block`, and all else of `upper`.
fn put_together(folder: &Path, lower: &Path, upper: &Path, block: usize) -> PathBuf {
    let made = folder.join(format!("put-together-{block}"));
    std::fs::create_dir(&made).unwrap();
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(upper.join(name), made.join(name)).unwrap();
    }
    let [own, others] = [lower, upper].map(|folder| std::fs::read(folder.join("model.safetensors")).unwrap());
    let [own, others] = [&own, &others].map(|bytes| SafeTensors::deserialize(bytes).unwrap());
    let is_lower = |name: &str| {
        let number = name.strip_prefix("model.layers.").and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
        name == "model.embed_tokens.weight" || number.is_some_and(|number| number < block)
    };
    let tensors: Vec<_> = others
        .names()
        .into_iter()
        .map(|name| (name.to_owned(), if is_lower(name) { own.tensor(name).unwrap() } else { others.tensor(name).unwrap() }))
        .collect();
    assert_eq!(tensors.iter().filter(|(name, _)| is_lower(name)).count(), 1 + 9 * block, "the blocks of a decoder");
    std::fs::write(made.join("model.safetensors"), safetensors::serialize(tensors, None).unwrap()).unwrap();
    made
}

fn number(row: &Map<String, Value>, column: &str) -> f64 {
    row[column].as_f64().unwrap_or_else(|| panic!("{column} of {row:?}"))
}

#[test]
fn a_stitched_answer_is_that_of_a_model_put_together_from_both() {
    let folder = tempfile::tempdir().unwrap();
    let series = demo().0.join("series");
    let (first, last) = (series.join("base/checkpoint-560"), series.join("rl/checkpoint-960"));
    let [half, most] = [2, 4].map(|block| put_together(folder.path(), &last, &first, block));
    let checkpoints = [("first", first), ("last", last), ("half", half), ("most", most)];
    let path = manifest(folder.path(), &checkpoints, "[stitching]\nlayers = [2, 4]\n");
    let plan = stdout(&run(&["check", text(&path)]));
    assert!(plan.contains("Stitching: "), "{plan}");
    let output = run(&["run", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));

    let (stitched, behaviour) = (rows(folder.path(), "stitched.parquet"), rows(folder.path(), "behaviour.parquet"));
    let said = |checkpoint: &str, concept: &Value| {
        let is = |row: &&Map<String, Value>| row["checkpoint"] == checkpoint && row["concept"] == *concept;
        number(behaviour.iter().find(is).unwrap(), "foil_margin")
    };
    assert!(stitched.len() >= 4 * 2 * 2 && stitched.len().is_multiple_of(4 * 2), "four checkpoints, two layers: {}", stitched.len());
    let mut differs = 0;
    for row in &stitched {
        let checkpoint = row["checkpoint"].as_str().unwrap();
        let expected = match (checkpoint, row["layer"].as_i64().unwrap()) {
            ("first", _) => said("first", &row["concept"]),
            // Behind the last block are the norm and the unembedding.
            ("most", 4) | ("last", 4) => said("most", &row["concept"]),
            _ => said("half", &row["concept"]),
        };
        assert!((number(row, "stitched") - expected).abs() < 1e-4, "{row:?}, expected {expected}");
        differs += usize::from((expected - said(checkpoint, &row["concept"])).abs() > 0.1);
    }
    assert!(differs > 0, "reading by other blocks makes a difference");

    // Nothing is left to do; other weights of the first checkpoint are other answers of all.
    let again = run(&["run", text(&path)]);
    assert!(stderr(&again).contains("everything is up to date"), "{}", stderr(&again));
    let mut other = checkpoints.clone();
    other[0].1 = series.join("base/checkpoint-520");
    manifest(folder.path(), &other, "[stitching]\nlayers = [2, 4]\n");
    assert!(run(&["run", text(&path)]).status.success());
    let changed = rows(folder.path(), "stitched.parquet");
    let of_last = |rows: &[Map<String, Value>]| {
        let own = rows.iter().filter(|row| row["checkpoint"] == "last" && row["layer"] == 2);
        own.map(|row| number(row, "stitched")).collect::<Vec<_>>()
    };
    assert_ne!(of_last(&changed), of_last(&stitched));
}

#[test]
fn what_cannot_be_stitched_is_said_before_anything_is_walked() {
    let folder = tempfile::tempdir().unwrap();
    let series = demo().0.join("series");
    let checkpoints = [("first", series.join("base/checkpoint-560")), ("last", series.join("rl/checkpoint-960"))];
    let path = manifest(folder.path(), &checkpoints, "[stitching]\nlayers = [5]\n");
    let output = run(&["check", text(&path)]);
    assert!(stderr(&output).contains("[stitching] layers: found 5, expected 0 to 4, as the model has 4 blocks"), "{}", stderr(&output));
}
