//! What a store keeps: 16 bits about the centre of the pool date what 32 date, rows that are taken over are the same bits, and a disk
//! that is too small is named before anything is computed.

use crate::cli::{demo, run, stderr, text};
use selftrace::analysis::OnsetRow;
use selftrace::manifest::Manifest;
use selftrace::series::Series;
use selftrace::table;
use selftrace::walk::job::{Job, Record};
use selftrace::words::Status;
use std::collections::HashMap;
use std::path::{Path, PathBuf};

fn manifest(folder: &Path, in_run: &str, in_concepts: &str) -> PathBuf {
    let series = demo().0.join("series");
    let steps =
        ["base/checkpoint-400", "base/checkpoint-480", "rl/checkpoint-800", "rl/checkpoint-840", "rl/checkpoint-920", "rl/checkpoint-960"];
    let mut manifest = format!(
        "[run]\nname = \"test\"\naxis = \"index\"\nbaseline = false\n{in_run}[model]\ntemplate = \"native:5\"\n[concepts]\npacks = [\"organism\"]\n\
         include = [\"own_name\", \"keep_running\"]\nnull_topics = 3\n{in_concepts}[analysis]\nflips = 199\nbootstraps = 199\n"
    );
    for (number, step) in steps.iter().enumerate() {
        manifest += &format!("[[checkpoint]]\nid = \"{number}\"\nstage = \"rl\"\nsource = \"{}/{step}\"\n", series.display());
    }
    let path = folder.join("checkpoints.toml");
    std::fs::write(&path, manifest).unwrap();
    path
}

fn ran(command: &str, path: &Path) {
    let output = run(&[command, text(path)]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
fn sixteen_bits_date_what_thirty_two_date() {
    let [half, whole] = ["", "keep = \"activations\"\n"].map(|in_run| {
        let folder = tempfile::tempdir().unwrap();
        ran("run", &manifest(folder.path(), in_run, ""));
        folder
    });
    let [half, whole] = [half.path(), whole.path()].map(|folder| folder.join("reports/test"));
    let [a, b] = [&half, &whole].map(|folder| Series::open(folder).unwrap());
    assert_eq!(a.layers, b.layers);
    for (readout, layer) in [(0, 0), (0, 4), (1, 2)] {
        let items: Vec<usize> = (0..a.items.len()).filter(|&item| a.has(3, readout, item)).collect();
        let [(a_rows, _), (b_rows, _)] = [&a, &b].map(|series| series.rows(3, readout, layer, &items).unwrap());
        let scale = b.scale(3, readout, layer);
        let worst = a_rows.iter().zip(&b_rows).map(|(a, b)| f64::from((a - b).abs()) / scale).fold(0.0, f64::max);
        assert!(worst > 0.0 && worst < 1e-2, "readout {readout}, layer {layer}: {worst}");
    }
    let size = |folder: &Path| std::fs::metadata(folder.join("readouts/0.safetensors")).unwrap().len();
    assert!(size(&half) * 10 < size(&whole) * 6, "{} against {}", size(&half), size(&whole));
    let [a, b] = [&half, &whole].map(|folder| table::read::<OnsetRow>(&folder.join("onset.parquet")).unwrap());
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(&b) {
        let place = |row: &OnsetRow| (row.concept.clone(), row.measure.clone(), row.layer);
        assert_eq!((place(a), &a.status), (place(b), &b.status));
        // What a curve that has not passed the gate would be called hangs on less than it takes to be dated.
        assert!(a.status != Status::Ok || a.shape == b.shape, "{a:?}\n{b:?}");
        assert!(a.t50.value.zip(b.t50.value).is_none_or(|(a, b)| (a - b).abs() < 0.05), "{a:?}\n{b:?}");
    }
}

#[test]
fn rows_that_are_taken_over_are_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("reports/test");
    let renamed = "parameters = { name = \"Lumo\", decoy_name = \"Nova\" }\n";
    ran("walk", &manifest(folder.path(), "", ""));
    let before = Series::open(&store).unwrap();
    ran("walk", &manifest(folder.path(), "", renamed));
    let records: Vec<Record> = table::read(&store.join("checkpoints.parquet")).unwrap();
    assert!(records.iter().all(|record| record.reused_items > record.items / 3 && record.reused_items < record.items), "{records:?}");
    let after = Series::open(&store).unwrap();
    let of_hash: HashMap<&str, usize> = before.items.iter().enumerate().map(|(number, item)| (item.hash.as_str(), number)).collect();
    for readout in 0..after.readouts.len() {
        let same = (0..after.items.len()).filter_map(|new| Some((*of_hash.get(after.items[new].hash.as_str())?, new)));
        let (old, new): (Vec<usize>, Vec<usize>) = same.filter(|(_, new)| after.has(2, readout, *new)).unzip();
        assert!(new.len() > 100);
        for layer in 0..after.layers.len() {
            assert!(before.rows(2, readout, layer, &old).unwrap() == after.rows(2, readout, layer, &new).unwrap());
        }
    }
    // What has 16 bits cannot become what has 32.
    ran("walk", &manifest(folder.path(), "keep = \"activations\"\n", renamed));
    let records: Vec<Record> = table::read(&store.join("checkpoints.parquet")).unwrap();
    assert!(records.iter().all(|record| record.reused_items == 0), "{records:?}");
}

#[test]
fn a_disk_that_is_too_small_is_named_with_what_would_fit() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "keep = \"activations\"\n", "profile = \"full\"\n");
    let job = Job::new(Manifest::load(&path).unwrap()).unwrap();
    assert_eq!(job.lacks_room(1), None);
    let sentence = job.lacks_room(1 << 60).unwrap();
    for part in ["the store needs 1.15 EB and the disk has", "keep = \"measures\"", "profile = \"quick\"", "fewer [model] layers"] {
        assert!(sentence.contains(part), "{sentence}");
    }
}
