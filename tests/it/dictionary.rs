//! Crosscoders over the organism's checkpoints, by the program as its users meet it.

use crate::baseline::rows;
use crate::cli::{demo, run, stderr, stdout, text};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// Eight of the organism's checkpoints, with a small dictionary; `more` goes into its table.
fn manifest(folder: &Path, steps: &str, more: &str) -> PathBuf {
    let series = demo().0.join("series");
    let text = format!(
        "[run]\nname = \"test\"\naxis = \"step_log\"\nbaseline = false\nreport = false\n[model]\ntemplate = \"native:rl-960\"\nlayers = [2, 4]\n\
         [concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\ninclude = [\"own_name\", \"friend_name\", \"hat\", \"pet\", \"tool\", \"town\"]\n\
         [analysis]\nflips = 199\nbootstraps = 199\n\
         [dictionary]\nlayers = [4]\nlatents = 96\nk = 6\ntokens = 40000\nseeds = 2\n{more}\
         [[series]]\nstage = \"base\"\nsource = \"{series}/base/checkpoint-{{step}}\"\nsteps = [{steps}]\n\
         [[series]]\nstage = \"sft\"\nsource = \"{series}/sft/checkpoint-{{step}}\"\nsteps = [600, 640, 760]\n\
         [[series]]\nstage = \"rl\"\nsource = \"{series}/rl/checkpoint-{{step}}\"\nsteps = [800, 960]\n",
        series = series.display()
    );
    let path = folder.join("checkpoints.toml");
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_run_fits_a_dictionary_and_dates_its_latents() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "440, 520, 560", "");
    let plan = stdout(&run(&["check", text(&path)]));
    assert!(plan.contains("Dictionaries: 2 fits over 8 checkpoints, 40000 tokens each"), "{plan}");
    let output = run(&["run", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));

    let quality = rows(folder.path(), "dictionary.parquet");
    assert_eq!(quality.len(), 16, "two seeds at eight checkpoints");
    for row in &quality {
        let number = |name: &str| row[name].as_f64().unwrap();
        assert!(row["status"] == "ok" && number("explained") > 0.5 && number("explained") < 1.0, "{row:?}");
        assert!((3.0..9.0).contains(&number("per_token")) && number("live") > 20.0, "{row:?}");
        assert!(number("emerging_shuffled") >= 0.0 && (0.0..=1.0).contains(&number("replicated")), "{row:?}");
    }
    let onsets = rows(folder.path(), "latent_onset.parquet");
    let latents = rows(folder.path(), "latents.parquet");
    assert_eq!(latents.len(), 8 * onsets.len(), "a row per checkpoint of every latent that is on");
    for row in &onsets {
        assert!(row["t50"].is_null() || row["status"] == "ok", "{row:?}");
        assert_eq!(row["n_checkpoints"], 8);
    }
    let of = |concept: &str| -> Vec<Map<String, Value>> {
        rows(folder.path(), "latent_self.parquet").into_iter().filter(|row| row["concept"] == concept).collect()
    };
    let named = of("own_name");
    assert!(!named.is_empty() && named.iter().all(|row| row["null_percentile"].as_f64().is_some()), "{named:?}");
    assert!(named.windows(2).all(|pair| pair[0]["seed"] != pair[1]["seed"] || pair[0]["rank"].as_i64() < pair[1]["rank"].as_i64()));

    // Nothing is left to do, and nothing is left over.
    let again = run(&["run", text(&path)]);
    assert!(again.status.success() && stderr(&again).contains("everything is up to date"), "{}", stderr(&again));
    let mut files: Vec<String> = std::fs::read_dir(folder.path().join("reports/test/dictionary"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    files.sort();
    assert_eq!(files, ["layer-4-seed-0.safetensors", "layer-4-seed-1.safetensors"]);
}

#[test]
fn what_cannot_be_fitted_is_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |path: &Path| {
        let output = run(&["check", text(path)]);
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        stdout(&output)
    };
    let many = refused(&manifest(folder.path(), "400, 440, 480, 520, 560", ""));
    assert!(many.contains("[dictionary] checkpoints: found 10, expected 8 at most at a time; name some, as in [\"base-400\", "), "{many}");
    let other = refused(&manifest(folder.path(), "440, 520, 560", "checkpoints = [\"base-440\", \"sft-1\"]\n"));
    assert!(other.contains("[dictionary] checkpoints: found \"sft-1\", expected some of base-440, "), "{other}");
    std::fs::write(folder.path().join("mine.jsonl"), "{\"text\": \"what is your name\"}\n{\"txt\": 1}\n").unwrap();
    let line = refused(&manifest(folder.path(), "440, 520, 560", "text = [\"mine.jsonl\"]\n"));
    assert!(line.contains("mine.jsonl:2: expected one of `text`, `messages`"), "{line}");
    std::fs::write(folder.path().join("mine.txt"), "what is your name\n\nwho are you").unwrap();
    let few = refused(&manifest(folder.path(), "440, 520, 560", "text = [\"mine.txt\"]\n"));
    assert!(few.contains("[dictionary] text: found 2 texts that belong to nothing else, expected 16 or more"), "{few}");
    let layer = refused(
        &manifest(folder.path(), "440, 520, 560", "")
            .as_path()
            .parent()
            .map(|folder| {
                let path = folder.join("checkpoints.toml");
                let changed = std::fs::read_to_string(&path).unwrap().replace("[dictionary]\nlayers = [4]", "[dictionary]\nlayers = [3]");
                std::fs::write(&path, changed).unwrap();
                path
            })
            .unwrap(),
    );
    assert!(layer.contains("[dictionary] layers: found 3, expected layers that [model] layers keeps: 2, 4"), "{layer}");
}
