//! `--devices`: several processes of one command walk several checkpoints at once, and the tables are those of one.

use crate::cli::{copy, demo, manifest, program, run, stderr, stdout, tables, text};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// Lines of a log that say that a checkpoint was walked.
fn walked(log: &str) -> usize {
    log.lines().filter(|line| line.contains(" nodes for ")).count()
}

fn leftovers(folder: &Path) -> usize {
    let folders = [folder.join("reports/test"), folder.join("reports/test/readouts")];
    let names = folders.iter().filter_map(|folder| std::fs::read_dir(folder).ok()).flatten();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".partial") || name.ends_with(".lease")).count()
}

#[test]
fn two_workers_write_the_tables_of_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    let first = run(&["run", text(&path)]);
    assert!(first.status.success(), "{}", stderr(&first));
    let alone = tables(folder.path());
    // In the same place, which is part of the settings whose hash is in every table.
    std::fs::remove_dir_all(folder.path().join("reports")).unwrap();
    let plan = run(&["check", text(&path), "--devices", "cpu:2"]);
    assert!(stdout(&plan).contains(" of memory each, ") && stdout(&plan).contains(" for 2 at once, and "), "{}", stdout(&plan));
    // A rank in the environment is none of the workers' business: the command walks everything.
    let output = program(&["run", text(&path), "--devices", "cpu:2"]).env("SLURM_ARRAY_TASK_ID", "3").output().unwrap();
    let log = stderr(&output);
    assert!(output.status.success() && log.contains("2 workers: cpu, cpu"), "{log}");
    assert_eq!(walked(&log), walked(&stderr(&first)), "{log}");
    let together = tables(folder.path());
    assert_eq!(alone.len(), together.len());
    for ((name, alone), (other, together)) in alone.iter().zip(&together) {
        assert!(name == other && alone == together, "{name} differs");
    }
    assert_eq!(leftovers(folder.path()), 0);
    let again = run(&["run", text(&path), "--devices", "cpu:2"]);
    assert!(again.status.success() && stderr(&again).contains("nothing to do") && walked(&stderr(&again)) == 0, "{}", stderr(&again));
}

#[test]
fn a_broken_checkpoint_is_tried_by_one_worker_and_counted_once() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad");
    copy(&demo().0.join("series/rl/checkpoint-960"), &bad);
    std::fs::write(bad.join("model.safetensors"), b"nothing").unwrap();
    let entry = format!("[[checkpoint]]\nid = \"broken\"\nstage = \"rl\"\nstep = 2000\nsource = \"{}\"\n", bad.display());
    let path = manifest(folder.path(), &entry);
    let output = run(&["walk", text(&path), "--devices", "cpu:3"]);
    let log = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{log}");
    assert_eq!(log.matches("broken: failed: ").count(), 1, "{log}");
}

#[test]
fn a_signal_ends_all_workers_and_so_does_the_end_of_their_parent() {
    for signal in ["-TERM", "-KILL"] {
        let folder = tempfile::tempdir().unwrap();
        let path = manifest(folder.path(), "");
        let mut child = program(&["walk", text(&path), "--devices", "cpu:2"]).stderr(Stdio::null()).spawn().unwrap();
        let readouts = folder.path().join("reports/test/readouts");
        let leases = || {
            let names = std::fs::read_dir(&readouts).into_iter().flatten().flatten();
            names.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "lease")).count()
        };
        let wait = |what: &dyn Fn() -> bool, name: &str| {
            let looks = (0..6000).any(|_| {
                std::thread::sleep(Duration::from_millis(10));
                what()
            });
            assert!(looks, "{name}, {signal}");
        };
        wait(&|| leases() == 2, "two checkpoints at once");
        assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
        let status = child.wait().unwrap();
        if signal == "-TERM" {
            assert_eq!(status.code(), Some(143));
            assert_eq!(leftovers(folder.path()), 0);
        }
        wait(&|| leases() == 0, "workers give their leases back");
        assert!(run(&["walk", text(&path), "--devices", "cpu:2"]).status.success());
        assert_eq!(leftovers(folder.path()), 0);
    }
}

#[test]
fn devices_that_are_not_there_are_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    for (devices, said) in [("cuda:77", "cuda:77 was asked for"), ("cpu:0", "expected all, or a list"), ("cuda:0,cuda:0", "named twice")] {
        let output = run(&["run", text(&path), "--devices", devices]);
        assert!(output.status.code() == Some(2) && stderr(&output).contains(said), "{devices}: {}", stderr(&output));
    }
    assert!(!folder.path().join("reports").exists());
}
