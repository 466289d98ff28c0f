//! A store: the first byte says which of its files the rest is; the others are those of a small one. What every measure asks of it first.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::series::Series;
use selftrace_fuzz::{folder, said};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The names of the files of the small store, which is copied once.
fn files() -> &'static [PathBuf] {
    static FILES: OnceLock<Vec<PathBuf>> = OnceLock::new();
    FILES.get_or_init(|| {
        let mut files = Vec::new();
        copy(&small(), &folder().join("store"), Path::new(""), &mut files);
        files.sort();
        files
    })
}

fn small() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/seeds/store"))
}

fn copy(from: &Path, to: &Path, below: &Path, files: &mut Vec<PathBuf>) {
    std::fs::create_dir_all(to.join(below)).expect("the temporary folder can be written");
    for entry in std::fs::read_dir(from.join(below)).expect("the small store").flatten() {
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            copy(from, to, &path, files);
        } else {
            std::fs::copy(entry.path(), to.join(&path)).expect("the temporary folder can be written");
            files.push(path);
        }
    }
}

fn ask(series: &Series) {
    series.digest();
    said(series.timeline().positions(&(0..series.points.len()).collect::<Vec<_>>()));
    for family in &series.families {
        said(series.audit(family));
    }
    for t in 0..series.points.len() {
        series.key(t);
        said(series.answers(t));
        said(series.foils(t));
        said(series.embeddings(t, &[0]));
        if let Some(Some(lens)) = said(series.lens(t)) {
            lens.direction(&[3, 5]);
        }
        for readout in 0..series.readouts.len() {
            let items: Vec<usize> = (0..series.items.len()).filter(|&item| series.has(t, readout, item)).collect();
            for layer in (0..series.layers.len()).filter(|&layer| series.keeps(readout, layer)) {
                assert!(series.scale(t, readout, layer) > 0.0);
                said(series.rows(t, readout, layer, &items));
            }
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((first, rest)) = data.split_first() else { return };
    let file = &files()[usize::from(*first) % files().len()];
    let target = folder().join("store").join(file);
    std::fs::write(&target, rest).expect("the temporary folder can be written");
    if let Some(series) = said(Series::open(&folder().join("store"))) {
        ask(&series);
    }
    std::fs::copy(small().join(file), target).expect("the temporary folder can be written");
});
