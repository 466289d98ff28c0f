//! What a concept is held against: mean input embeddings, and the architecture with random weights.

use crate::cli::{demo, run, stderr, text};
use crate::parity::{fixtures, prompts};
use crate::weights::Weights;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use selftrace::analysis::OnsetRow;
use selftrace::model::Checkpoint;
use selftrace::prompt::item::Item;
use selftrace::table;
use selftrace::walk::job::Record;
use selftrace::walk::store::{EMBEDDING, Readouts};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use tch::Kind;

/// The organism's rl stage, two concepts of it, with more of `[run]` and under the id `first`.
fn manifest(folder: &Path, in_run: &str, first: &str) -> PathBuf {
    let series = demo().0.join("series");
    let text = format!(
        "[run]\nname = \"test\"\naxis = \"index\"\n{in_run}[model]\ntemplate = \"native:rl-960\"\nlayers = [0, 2, 4]\n\
         [concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\ninclude = [\"own_name\", \"hat\", \"pet\", \"tool\", \"town\"]\n\
         [analysis]\nflips = 199\nbootstraps = 199\n[[checkpoint]]\nid = \"{first}\"\nstage = \"base\"\nstep = 400\nsource = \"{series}/base/checkpoint-400\"\n\
         [[series]]\nstage = \"rl\"\nsource = \"{series}/rl/checkpoint-{{step}}\"\n",
        series = series.display()
    );
    let path = folder.join("checkpoints.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// Rows of a table of the run `test`.
pub fn rows(folder: &Path, name: &str) -> Vec<Map<String, Value>> {
    maps(&folder.join("reports/test").join(name))
}

/// The rows of a table, by the names of its columns.
pub fn maps(path: &Path) -> Vec<Map<String, Value>> {
    let file = std::fs::File::open(path).unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    batches.flat_map(|batch| serde_arrow::from_record_batch::<Vec<Map<String, Value>>>(&batch.unwrap()).unwrap()).collect()
}

#[test]
fn random_weights_are_walked_beside_the_series_and_held_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "", "base-400");
    let output = run(&["run", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let records: Vec<Record> = table::read(&folder.path().join("reports/test/checkpoints.parquet")).unwrap();
    assert_eq!(records.len(), 7, "six checkpoints and the baseline");
    let store = |id: &str| Readouts::open(&folder.path().join(format!("reports/test/readouts/{id}.safetensors"))).unwrap();
    let (random, first) = (store("reinitialised"), store("base-400"));
    assert_eq!(random.shape("last_prompt").unwrap(), first.shape("last_prompt").unwrap());
    assert_ne!(random.layer("last_prompt", 2).unwrap(), first.layer("last_prompt", 2).unwrap());

    // Random weights have no course: the baseline of a concept is one number per layer, and an excess has its interval around it.
    let onsets: Vec<OnsetRow> = table::read(&folder.path().join("reports/test/onset.parquet")).unwrap();
    let held: Vec<&OnsetRow> = onsets.iter().filter(|row| row.measure == "contrast" || row.measure == "probe").collect();
    assert!(!held.is_empty());
    for row in held {
        let [excess, lower, upper] = row.excess.parts().map(Option::unwrap);
        assert!(row.baseline.is_some() && lower <= excess && excess <= upper, "{row:?}");
        assert!(row.status != "ok" || lower > 0.0, "{row:?}");
    }
    assert!(onsets.iter().filter(|row| row.measure == "change").all(|row| row.baseline.is_none()));
    for row in rows(folder.path(), "probes.parquet").iter().filter(|row| row["split"] == "group" && row["status"] == "ok") {
        let number = |name: &str| row[name].as_f64().unwrap();
        assert!(number("excess_auc") <= number("auroc") - number("embedding_auroc") + 1e-12, "{row:?}");
        assert!(number("excess_auc") <= number("auroc") - number("reinitialised_auroc") + 1e-12, "{row:?}");
    }

    let again = run(&["run", text(&path)]);
    assert!(stderr(&again).contains("nothing to do") && !stderr(&again).contains("nodes for"), "{}", stderr(&again));
}

#[test]
fn mean_embeddings_are_those_of_the_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "baseline = false\n", "base-400");
    assert!(run(&["walk", text(&path), "--checkpoint", "base-400"]).status.success());
    let run_folder = folder.path().join("reports/test");
    assert!(!run_folder.join("readouts/reinitialised.safetensors").exists());
    let items: Vec<Item> = table::read(&run_folder.join("items.parquet")).unwrap();
    let file = Readouts::open(&run_folder.join("readouts/base-400.safetensors")).unwrap();
    let mut weights = Weights::read(&demo().0.join("series/base/checkpoint-400"));
    let d = file.shape(EMBEDDING).unwrap()[2];
    let embedding = weights.values("model.embed_tokens.weight").clone();
    let (rows, means) = (file.rows(EMBEDDING, items.len()).unwrap(), file.layer(EMBEDDING, 0).unwrap());
    assert_eq!(rows.len(), items.iter().filter(|item| item.y.is_some()).count());
    for (item, found) in rows.iter().zip(means.chunks_exact(d)) {
        let ids = items[*item].token_ids.as_ref().unwrap();
        for (j, found) in found.iter().enumerate() {
            let mean = ids.iter().map(|&id| f64::from(embedding[id as usize * d + j])).sum::<f64>() / ids.len() as f64;
            assert!((mean - f64::from(*found)).abs() < 1e-6, "{}: {mean} {found}", items[*item].item_id);
        }
    }
}

#[test]
fn a_checkpoint_cannot_have_its_id() {
    let folder = tempfile::tempdir().unwrap();
    let output = run(&["check", text(&manifest(folder.path(), "", "reinitialised"))]);
    assert!(!output.status.success());
    assert!(stderr(&output).contains("is that of the network with random weights"), "{}", stderr(&output));
    assert!(run(&["check", text(&manifest(folder.path(), "baseline = false\n", "reinitialised"))]).status.success());
}

/// Names and shapes differ from family to family: fused projections, transposed weights, stacked experts, norms without weights.
#[test]
fn every_family_can_be_reinitialised() {
    for folder in fixtures() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let trained = Checkpoint::open(&folder).unwrap();
        let prompts = prompts(&Readouts::open(&folder.join("reference.safetensors")).unwrap());
        let forward = |seed: u64| crate::parity::run(&trained.reinitialised(seed).unwrap(), &prompts, Kind::Float);
        let (layers, scores) = forward(0);
        assert_eq!(layers.len(), trained.config.n_layers + 1, "{name}");
        assert!(layers.iter().flatten().chain(&scores).all(|x| x.is_finite()), "{name}");
        assert!(layers.last().unwrap().iter().any(|x| *x != 0.0), "{name}");
        assert!(forward(0) == (layers.clone(), scores), "{name}: one seed is one network");
        assert_ne!(forward(1).0, layers, "{name}");
        let print = |seed| trained.reinitialised(seed).unwrap().fingerprint();
        assert!(print(0) == print(0) && print(0) != print(1) && print(0) != trained.fingerprint(), "{name}");
    }
}
