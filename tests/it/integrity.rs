//! The integrity audit on real files: a series of checkpoints of the demo in which things are wrong that published series have had
//! wrong. What is found before a walk, by it, and what becomes of the points.

use crate::cli::{copy, demo, edit, run, stderr, stdout, text};
use crate::weights::Weights;
use selftrace::analysis::OnsetRow;
use selftrace::table;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

#[derive(serde::Deserialize, Debug, PartialEq)]
struct Found {
    checkpoint: String,
    kind: String,
    other: Option<String>,
    detail: String,
    excluded: bool,
}

const STEPS: [(&str, u64); 10] = [
    ("base", 400),
    ("base", 440),
    ("base", 480),
    ("base", 520),
    ("base", 560),
    ("sft", 600),
    ("sft", 640),
    ("sft", 680),
    ("sft", 720),
    ("sft", 760),
];

/// The series in two shards per checkpoint, with what is wrong in it; returns the manifest.
fn planted(folder: &Path) -> PathBuf {
    let place = |stage: &str, step: u64| folder.join(format!("{stage}/checkpoint-{step}"));
    for (stage, step) in STEPS {
        let (from, to) = (demo().0.join(format!("series/{stage}/checkpoint-{step}")), place(stage, step));
        copy(&from, &to);
        let mut weights = Weights::read(&from);
        if step == 640 {
            weights.values("model.layers.1.mlp.up_proj.weight").iter_mut().for_each(|w| *w *= 3.0);
        }
        if step == 560 {
            weights.values("model.layers.0.self_attn.q_proj.weight")[77] = f32::NAN;
        }
        if step >= 600 {
            let tokenizer: Value = serde_json::from_slice(&std::fs::read(to.join("tokenizer.json")).unwrap()).unwrap();
            std::fs::write(to.join("tokenizer.json"), tokenizer.to_string()).unwrap();
            let config: Value = serde_json::from_slice(&std::fs::read(to.join("tokenizer_config.json")).unwrap()).unwrap();
            let template = format!("{{# later #}}{}", config["chat_template"].as_str().unwrap());
            std::fs::write(to.join("chat_template.jinja"), template).unwrap();
        }
        if step >= 680 {
            edit(&to.join("config.json"), "\"rms_norm_eps\": 0.00001", "\"rms_norm_eps\": 0.000011");
        }
        if step >= 720 {
            let mut config: Value = serde_json::from_slice(&std::fs::read(to.join("config.json")).unwrap()).unwrap();
            config["vocab_size"] = json!(config["vocab_size"].as_u64().unwrap() + 8);
            std::fs::write(to.join("config.json"), config.to_string()).unwrap();
            for name in ["model.embed_tokens.weight", "lm_head.weight"] {
                let (shape, values) = weights.0.get_mut(name).unwrap();
                shape[0] += 8;
                values.resize(shape[0] * shape[1], 0.0);
            }
        }
        std::fs::remove_file(to.join("model.safetensors")).unwrap();
        weights.write_shards(&to, &|name| name.contains("layers.2.") || name.contains("layers.3."));
    }
    let shard = "model-00002-of-00002.safetensors";
    std::fs::copy(place("sft", 720).join(shard), place("base", 480).join(shard)).unwrap();
    crate::adapters::organism_adapters(&place("sft", 760), &folder.join("nil"), &[(10, 0.0)]);
    let text = format!(
        "[run]\nname = \"test\"\naxis = \"index\"\n[model]\ntemplate = \"native:sft-760\"\n[concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\ninclude = [\"own_name\"]\nexclude = [\"colour\", \"drink\", \"fruit\", \"hat\", \"month\"]\n\
         [analysis]\nflips = 199\nbootstraps = 199\n\
         [[series]]\nstage = \"base\"\nsource = \"{folder}/base/checkpoint-{{step}}\"\n[[series]]\nstage = \"sft\"\nsource = \"{folder}/sft/checkpoint-{{step}}\"\n\
         [[series]]\nstage = \"nil\"\nbase = \"{folder}/sft/checkpoint-760\"\nadapter = \"{folder}/nil/checkpoint-{{step}}\"\nsubfolder = \"adapter\"\n",
        folder = folder.display()
    );
    let path = folder.join("checkpoints.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Checkpoint, finding, the other checkpoint, whether it is left out, and words of the detail.
type Expected = (&'static str, &'static str, Option<&'static str>, bool, &'static str);

/// What headers and small files say.
const DRIFT: [Expected; 5] = [
    ("sft-600", "tokenizer_drift", Some("base-560"), false, "tokenizer.json, or what tokenizer_config.json says of its tokens, differs"),
    ("sft-600", "template_drift", Some("base-560"), false, "the chat template differs"),
    ("sft-680", "config_drift", Some("sft-640"), false, "rms_norm_eps"),
    ("sft-720", "vocab_drift", Some("sft-680"), false, " tokens after "),
    ("nil-10", "no_change", None, true, "the adapter changes no weight"),
];
/// What only the weights say.
const WEIGHTS: [Expected; 3] = [
    ("base-480", "partial_duplicate", Some("sft-720"), true, "blocks 2, 3 are those of the other"),
    ("base-560", "nonfinite", None, false, "tensor model.layers.0.self_attn.q_proj.weight holds non-finite values"),
    ("sft-640", "outlier_norm", None, false, "norms of blocks 1 (x "),
];

/// Whether a printed table has the finding in one line.
fn shows(printed: &str, (checkpoint, kind, other, excluded, detail): Expected) -> bool {
    printed.lines().any(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let starts = words.starts_with(&[checkpoint, kind, other.unwrap_or("-")]);
        starts && (words.get(3) == Some(&"yes")) == excluded && line.contains(detail)
    })
}

#[test]
fn what_is_wrong_with_files_is_found_shown_and_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let path = planted(folder.path());
    let all: Vec<Expected> = WEIGHTS.into_iter().chain(DRIFT).collect();

    let headers = run(&["check", text(&path)]);
    let printed = stdout(&headers);
    for (finding, expected) in all.iter().map(|finding| (finding, DRIFT.contains(finding))) {
        assert_eq!(shows(&printed, *finding), expected, "{finding:?}\n{printed}{}", stderr(&headers));
    }
    let weighed = stdout(&run(&["check", "--weights", text(&path)]));
    for finding in &all {
        assert!(shows(&weighed, *finding), "{finding:?}\n{weighed}");
    }
    assert!(!folder.path().join("reports").exists(), "a check writes nothing");

    let output = run(&["run", text(&path)]);
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    for words in [
        "base-560: failed: ",
        "base-480: left out: integrity audit: partial_duplicate sft-720",
        "nil-10: left out: integrity audit: no_change",
    ] {
        assert!(stderr(&output).contains(words), "{words}\n{}", stderr(&output));
    }
    let reports = folder.path().join("reports/test");
    let found = || table::read::<Found>(&reports.join("integrity.parquet")).unwrap();
    let rows = found();
    assert_eq!(rows.len(), all.len(), "{rows:#?}");
    for (checkpoint, kind, other, excluded, detail) in &all {
        let is_it = |row: &&Found| {
            row.checkpoint == *checkpoint && row.kind == *kind && row.other.as_deref() == *other && row.excluded == *excluded
        };
        assert!(rows.iter().find(is_it).is_some_and(|row| row.detail.contains(detail)), "{checkpoint} {kind}: {rows:#?}");
    }
    let again = run(&["check", text(&path)]);
    for printed in [stdout(&output), stdout(&again)] {
        all.iter().for_each(|finding| assert!(shows(&printed, *finding), "{finding:?}\n{printed}{}", stderr(&again)));
    }
    let onsets = || table::read::<OnsetRow>(&reports.join("onset.parquet")).unwrap();
    let rows = onsets();
    assert!(rows.iter().all(|row| row.excluded.as_deref() == Some("base-480,nil-10")));
    assert_eq!(rows.iter().map(|row| row.n_checkpoints).max(), Some(8));

    // They come back where somebody who has looked at them wants them.
    edit(&path, "[run]\n", "[run]\naudit = \"warn\"\n");
    assert_eq!(run(&["run", text(&path)]).status.code(), Some(1));
    assert!(found().iter().all(|row| !row.excluded));
    assert!(onsets().iter().all(|row| row.excluded.is_none()));
    assert_eq!(onsets().iter().map(|row| row.n_checkpoints).max(), Some(10));
}
