//! Several processes on one run, tasks of arrays, signals, and how a run says how far it is. Real processes, small series.

use crate::cli::{copy, demo, manifest, program, run, stderr, stdout, tables, text};
use selftrace::table;
use selftrace::walk::job::Record;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn start(arguments: &[&str]) -> Child {
    program(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn end(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

fn readouts(folder: &Path) -> PathBuf {
    folder.join("reports/test/readouts")
}

fn until(what: &dyn Fn() -> bool) {
    for _ in 0..6_000 {
        if what() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("nothing happened for a minute");
}

fn send(signal: &str, child: &Child) {
    assert!(Command::new("kill").args([signal, &child.id().to_string()]).status().unwrap().success());
}

/// What `status --json` says, and its exit code.
fn status(path: &Path) -> (Value, Option<i32>) {
    let output = run(&["status", text(path), "--json"]);
    (serde_json::from_slice(&output.stdout).unwrap(), output.status.code())
}

fn states(status: &Value) -> Vec<&str> {
    status["checkpoints"].as_array().unwrap().iter().map(|line| line["state"].as_str().unwrap()).collect()
}

fn leftovers(folder: &Path) -> Vec<String> {
    let names = [folder.join("reports/test"), readouts(folder)].into_iter().flat_map(|folder| std::fs::read_dir(folder).unwrap());
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with(".partial") || name.ends_with(".lease")).collect()
}

#[test]
fn status_counts_what_is_done_failed_and_waiting() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad");
    copy(&demo().0.join("series/rl/checkpoint-960"), &bad);
    std::fs::write(bad.join("model.safetensors"), b"nothing").unwrap();
    let path =
        manifest(folder.path(), &format!("[[checkpoint]]\nid = \"broken\"\nstage = \"rl\"\nstep = 2000\nsource = \"{}\"\n", bad.display()));
    let (before, code) = status(&path);
    assert_eq!(code, Some(3), "unfinished");
    assert!(states(&before).iter().all(|state| *state == "waiting"), "{before}");
    assert_eq!(before["tables"], "missing");
    assert!(!folder.path().join("reports").exists(), "it only looks");
    run(&["walk", text(&path), "--checkpoint", "base-400", "--checkpoint", "broken"]);
    let (some, code) = status(&path);
    assert_eq!((code, some["done"].as_i64(), some["failed"].as_i64()), (Some(3), Some(1), Some(1)), "{some}");
    let shown = run(&["status", text(&path)]);
    assert!(stdout(&shown).lines().any(|line| line.starts_with("broken") && line.contains("failed  ")), "{}", stdout(&shown));
    run(&["run", text(&path)]);
    let (all, code) = status(&path);
    assert_eq!((code, all["tables"].as_str()), (Some(1), Some("written")), "{all}");
    assert_eq!((all["waiting"].as_i64(), all["failed"].as_i64()), (Some(0), Some(1)), "{all}");
    let good = manifest(folder.path(), "");
    assert_eq!(status(&good).1, Some(0), "all that is asked for is done");
}

/// A walker that is stopped keeps its checkpoint; another one says who has it and walks the rest; both together walk everything.
#[test]
fn a_second_worker_says_who_has_a_checkpoint_and_goes_on_to_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    let first = start(&["walk", text(&path), "--checkpoint", "base-480"]);
    let lease = readouts(folder.path()).join("base-480.lease");
    until(&|| lease.exists());
    send("-STOP", &first);
    let (now, code) = status(&path);
    let line = now["checkpoints"].as_array().unwrap().iter().find(|line| line["id"] == "base-480").unwrap().clone();
    assert_eq!((code, line["state"].as_str(), line["worker"]["pid"].as_u64()), (Some(3), Some("running"), Some(u64::from(first.id()))));
    let second = run(&["walk", text(&path)]);
    assert!(second.status.success(), "{}", stderr(&second));
    let said = stderr(&second);
    assert!(said.contains(&format!("base-480: is being walked by process {}", first.id())), "{said}");
    assert!(said.contains("base-520: ") && !readouts(folder.path()).join("base-480.safetensors").exists(), "{said}");
    send("-CONT", &first);
    let first = end(first);
    assert!(first.status.success(), "{}", stderr(&first));
    assert_eq!(leftovers(folder.path()), [""; 0]);
    let records: Vec<Record> = table::read(&folder.path().join("reports/test/checkpoints.parquet")).unwrap();
    assert!(records.iter().all(|record| record.status == "ok"), "{records:?}");
}

#[test]
fn a_killed_walker_is_taken_over_from_and_its_partial_file_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    let mut first = start(&["walk", text(&path), "--checkpoint", "base-480"]);
    until(&|| readouts(folder.path()).join("base-480.lease").exists());
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(leftovers(folder.path()).iter().filter(|name| name.ends_with(".lease")).count(), 1);
    let second = run(&["walk", text(&path), "--checkpoint", "base-480"]);
    assert!(stderr(&second).contains("taking over from process"), "{}", stderr(&second));
    assert!(second.status.success());
    assert_eq!(leftovers(folder.path()), [""; 0]);
}

/// Everything at once on one folder, and the tables are those of a run that was alone.
#[test]
fn run_walk_analyze_and_watch_at_once_end_with_the_same_tables() {
    let crowd = tempfile::tempdir().unwrap();
    let path = manifest(crowd.path(), "");
    let output = run(&["run", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let alone = tables(crowd.path());
    std::fs::remove_dir_all(crowd.path().join("reports")).unwrap();
    let finished = crowd.path().join("finished");
    let mut children = vec![
        start(&["run", text(&path)]),
        start(&["walk", text(&path)]),
        start(&["walk", text(&path), "--shard", "2/2"]),
        start(&["watch", text(&path), "--every", "1", "--until", text(&finished)]),
    ];
    until(&|| readouts(crowd.path()).join("base-480.safetensors").exists());
    // One is left out where a walk has not come to it: 1, and never 2.
    children.extend([start(&["analyze", text(&path)]), start(&["run", text(&path)])]);
    std::fs::write(&finished, "").unwrap();
    for child in children {
        let output = end(child);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{}", stderr(&output));
    }
    let last = run(&["run", text(&path)]);
    assert!(last.status.success() && !stderr(&last).contains("nodes for"), "{}", stderr(&last));
    assert_eq!(leftovers(crowd.path()), [""; 0]);
    let crowd = tables(crowd.path());
    assert_eq!(alone.iter().map(|(name, _)| name).collect::<Vec<_>>(), crowd.iter().map(|(name, _)| name).collect::<Vec<_>>());
    for ((name, alone), (_, crowd)) in alone.iter().zip(&crowd) {
        assert!(alone == crowd, "{name} differs");
    }
}

#[test]
fn signals_of_schedulers_end_a_walk_with_their_codes_and_give_the_lease_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    for (signal, code) in [("-USR1", 138), ("-TERM", 143)] {
        let child = start(&["walk", text(&path)]);
        let mine = |name: &str| std::fs::read_to_string(readouts(folder.path()).join(name)).unwrap_or_default();
        until(&|| ["reinitialised", "base-400", "base-440", "base-480"].iter().any(|id| mine(&format!("{id}.lease")).contains("host")));
        send(signal, &child);
        // A scheduler sends more than one.
        send("-TERM", &child);
        let output = end(child);
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        assert!(stderr(&output).contains("run the same command again"), "{}", stderr(&output));
        assert_eq!(leftovers(folder.path()), [""; 0]);
    }
    assert!(run(&["walk", text(&path)]).status.success());
}

#[test]
fn tasks_of_an_array_walk_their_parts_and_say_the_rule() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    let task = |variables: &[(&str, &str)]| {
        let output = program(&["walk", text(&path)]).envs(variables.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    let slurm = |id| [("SLURM_ARRAY_TASK_ID", id), ("SLURM_ARRAY_TASK_MIN", "1"), ("SLURM_ARRAY_TASK_COUNT", "3")];
    let said = task(&slurm("2"));
    assert!(said.contains("SLURM_ARRAY_TASK_ID = 2, task 2 of 3"), "{said}");
    let (now, _) = status(&path);
    let done = |now: &Value| states(now).iter().map(|state| *state == "done").collect::<Vec<_>>();
    assert_eq!(done(&now), (0..11).map(|number| number % 3 == 1).collect::<Vec<_>>());
    // A number alone: the first thing that is walked, and then whatever nobody has.
    let said = task(&[("JOB_COMPLETION_INDEX", "6")]);
    let first = said.lines().find(|line| line.contains("nodes for")).unwrap();
    assert!(said.contains("of an unknown number of tasks") && first.contains("rl-800"), "{said}");
    assert_eq!(status(&path).1, Some(0));
}

#[test]
fn watch_walks_a_checkpoint_when_it_is_whole_and_ends_at_a_marker() {
    let folder = tempfile::tempdir().unwrap();
    let series = folder.path().join("series");
    std::fs::create_dir(&series).unwrap();
    let path = manifest(folder.path(), "");
    let write = |step: usize| copy(&demo().0.join(format!("series/base/checkpoint-{step}")), &series.join(format!("checkpoint-{step}")));
    let text_of = std::fs::read_to_string(&path).unwrap();
    let (head, _) = text_of.split_once("[[series]]").unwrap();
    std::fs::write(
        &path,
        head.replace("native:rl-960", "plain") + "[[series]]\nid = \"c\"\nstage = \"base\"\nsource = \"series/checkpoint-{step}\"\n",
    )
    .unwrap();
    let watch = start(&["watch", text(&path), "--every", "1"]);
    std::thread::sleep(Duration::from_secs(1));
    write(400);
    until(&|| readouts(folder.path()).join("c-400.safetensors").exists());
    // Half of the next one: its file is shorter than its header says.
    write(440);
    let weights = series.join("checkpoint-440/model.safetensors");
    let whole = std::fs::read(&weights).unwrap();
    std::fs::write(&weights, &whole[..whole.len() / 2]).unwrap();
    write(480);
    until(&|| readouts(folder.path()).join("c-480.safetensors").exists());
    assert!(!readouts(folder.path()).join("c-440.json").exists(), "it is not whole");
    // The trainer keeps the last few: what was walked stays.
    std::fs::remove_dir_all(series.join("checkpoint-400")).unwrap();
    std::fs::write(&weights, &whole).unwrap();
    until(&|| readouts(folder.path()).join("c-440.safetensors").exists());
    write(520);
    std::fs::write(folder.path().join("reports/test/finished"), "").unwrap();
    let output = end(watch);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let (now, code) = status(&path);
    assert_eq!((code, now["done"].as_i64(), now["tables"].as_str()), (Some(0), Some(5), Some("written")), "{now}\n{}", stderr(&output));
}

#[test]
fn watch_ends_at_a_signal_and_refuses_what_is_wrong_from_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    let watch = start(&["watch", text(&path), "--every", "1"]);
    until(&|| folder.path().join("reports/test/onset.parquet").exists());
    send("-TERM", &watch);
    let output = end(watch);
    assert_eq!(output.status.code(), Some(143), "{}", stderr(&output));
    assert_eq!(leftovers(folder.path()), [""; 0]);
    std::fs::write(&path, "[run]\nnam = \"x\"\n").unwrap();
    let wrong = run(&["watch", text(&path)]);
    assert_eq!(wrong.status.code(), Some(2), "{}", stderr(&wrong));
}

/// Scripts in place of Slurm's commands: they keep what they were called with, and a queue that the test writes.
fn slurm(folder: &Path) -> PathBuf {
    let bin = folder.join("bin");
    std::fs::create_dir(&bin).unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(bin.join(name), format!("#!/bin/sh\ncd {:?}\n{text}", folder)).unwrap();
        std::fs::set_permissions(bin.join(name), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    write("sbatch", "echo \"$@\" >> called; wc -l < called\n");
    write("squeue", "cat queue 2>/dev/null; true\n");
    write("scontrol", "echo 'MaxArraySize            = 8'\n");
    bin
}

#[test]
fn submit_hands_in_what_is_missing_and_not_queued() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    let bin = slurm(folder.path());
    let submit = |extra: &[&str]| {
        let paths = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
        let output = program(&[&["submit", text(&path), "--slurm"], extra].concat()).env("PATH", paths).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        output
    };
    let called = || std::fs::read_to_string(folder.path().join("called")).unwrap_or_default();
    let script = |name: &str| std::fs::read_to_string(folder.path().join("reports/test").join(name)).unwrap();
    run(&["walk", text(&path), "--checkpoint", "base-440"]);
    let shown = submit(&["--dry-run", "--max-parallel", "3"]);
    assert!(stdout(&shown).contains("#SBATCH --array=0,2-7%3\n"), "{}", stdout(&shown));
    assert!(stdout(&shown).contains("--dependency=afterany:JOB1:JOB2"), "{}", stdout(&shown));
    assert_eq!(called(), "", "nothing is handed in");
    submit(&[]);
    // Eleven with the network with random weights, in arrays of eight.
    assert!(script("walk-2.sbatch").contains("#SBATCH --array=0-2\n"), "{}", script("walk-2.sbatch"));
    let first = called();
    assert!(first.lines().count() == 3 && first.contains("--dependency=afterany:1:2 "), "{first}");
    std::fs::write(folder.path().join("queue"), "1 0\n1 3\n2 1\n9 4\n3 N/A\n").unwrap();
    submit(&[]);
    assert!(script("walk.sbatch").contains("#SBATCH --array=2,4-7\n"), "{}", script("walk.sbatch"));
    assert!(script("walk-2.sbatch").contains("#SBATCH --array=0,2\n"), "{}", script("walk-2.sbatch"));
    assert!(called().lines().last().unwrap().contains("--dependency=afterany:1:2:4:5 "), "{}", called());
    assert!(run(&["run", text(&path)]).status.success());
    std::fs::write(folder.path().join("queue"), "").unwrap();
    let before = called();
    let nothing = submit(&[]);
    assert!(stderr(&nothing).contains("nothing to submit"), "{}", stderr(&nothing));
    assert_eq!(called(), before);
    let other = run(&["submit", text(&path)]);
    assert!(other.status.code() == Some(2) && stderr(&other).contains("start an array of"), "{}", stderr(&other));
}

/// A line that cannot be written, to a reader that has gone away or to a full device, ends no job.
#[test]
fn a_closed_stdout_and_a_full_stderr_end_no_job() {
    let folder = tempfile::tempdir().unwrap();
    let path = manifest(folder.path(), "");
    let full = || std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let code = program(&["walk", text(&path), "--checkpoint", "base-400"]).stdout(full()).stderr(full()).status().unwrap().code();
    assert_eq!(code, Some(0));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = program(&["run", text(&path)]).stdout(writer.try_clone().unwrap()).stderr(writer).status().unwrap().code();
    assert_eq!(ended, Some(0));
    let said = program(&["concepts"]).stdout(full()).output().unwrap();
    assert!(stderr(&said).contains("stdout cannot be written") && !stderr(&said).contains("panicked"), "{}", stderr(&said));
}

/// A trainer that writes over a checkpoint while it is read.
#[test]
fn a_checkpoint_that_changes_while_it_is_read_is_a_failed_one() {
    let folder = tempfile::tempdir().unwrap();
    let changing = folder.path().join("changing");
    copy(&demo().0.join("series/rl/checkpoint-960"), &changing);
    let entry = format!("[[checkpoint]]\nid = \"changing\"\nstage = \"rl\"\nstep = 2000\nsource = \"{}\"\n", changing.display());
    let path = manifest(folder.path(), &entry);
    let store = readouts(folder.path());
    let begun = || {
        std::fs::read_dir(&store)
            .into_iter()
            .flatten()
            .any(|file| file.unwrap().file_name().to_string_lossy().starts_with(".partial-changing.safetensors"))
    };
    // It may be over before it is stopped: then once more.
    for _ in 0..50 {
        let _ = std::fs::remove_dir_all(&store);
        let mut walk = start(&["walk", text(&path), "--checkpoint", "changing"]);
        while !begun() && walk.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(1));
        }
        send_if_there("-STOP", &walk);
        let is_over = !begun();
        std::fs::copy(demo().0.join("series/rl/checkpoint-920/model.safetensors"), changing.join("model.safetensors")).unwrap();
        send_if_there("-CONT", &walk);
        let output = end(walk);
        if is_over {
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
        assert!(stderr(&output).contains("changed while they were read"), "{}", stderr(&output));
        assert!(!store.join("changing.safetensors").exists(), "what was read of two checkpoints is kept for none");
        return;
    }
    panic!("every walk was over before it could be stopped");
}

fn send_if_there(signal: &str, child: &Child) {
    let _ = Command::new("kill").args([signal, &child.id().to_string()]).stderr(Stdio::null()).status();
}
