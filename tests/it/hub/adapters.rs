//! Adapters on the hub over a base on the hub: steps in folders of one repository and on branches of another.

use super::{Home, TOKEN, run_file, trained, weights, write};
use crate::adapters::organism_adapters;
use crate::cli::demo;
use crate::hub_server::{Files, Repo, Request, Server, files};
use std::path::Path;

/// Adapters of the organism by step, as the files of their folders.
fn adapters(steps: &[(u64, f64)]) -> Vec<(u64, Files)> {
    let folder = tempfile::tempdir().unwrap();
    organism_adapters(&demo().0.join("series/rl/checkpoint-960"), folder.path(), steps);
    let read = |step: u64| {
        let mut files = files(&folder.path().join(format!("checkpoint-{step}/adapter")));
        // What must never be asked for.
        files.insert("adapter_model.bin".to_owned(), vec![0; 1000]);
        files.insert("optimizer.pt".to_owned(), vec![0; 1000]);
        (step, files)
    };
    steps.iter().map(|(step, _)| read(*step)).collect()
}

fn inside<'a>(folder: &'a str, files: &'a Files) -> impl Iterator<Item = (String, Vec<u8>)> + 'a {
    files.iter().map(move |(name, bytes)| (format!("{folder}/{name}"), bytes.clone()))
}

/// `acme/base` on the branch `v1`, `acme/lora` with a folder per step, `acme/runs` with a branch per step.
fn server() -> Server {
    let (mut base, mut lora, mut runs) = (Repo::default(), Repo::default(), Repo::default());
    base.commit("main", trained("base/checkpoint-400"));
    base.commit("v1", trained("rl/checkpoint-960"));
    let folders = adapters(&[(5, 0.01), (10, 0.02), (100, 0.03)]);
    lora.commit(
        "main",
        folders.iter().flat_map(|(step, files)| inside(&format!("checkpoints/checkpoint-{step}"), files).collect::<Vec<_>>()).collect(),
    );
    for (step, files) in adapters(&[(7, 0.05), (70, 0.06)]) {
        runs.commit(&format!("step-{step}"), inside("adapter", &files).collect());
    }
    runs.commit("main", Files::from([("README.md".to_owned(), b"words".to_vec())]));
    Server::start(&[("acme/base", base), ("acme/lora", lora), ("acme/runs", runs)])
}

const HEAD: &str = "[run]\nname = \"test\"\naxis = \"index\"\n[model]\ntemplate = \"native:base\"\n\
    [concepts]\npacks = [\"pack\"]\nprofile = \"quick\"\n[analysis]\nflips = 99\nbootstraps = 99\n\
    [[checkpoint]]\nid = \"base\"\nstage = \"base\"\nstep = 0\nsource = \"hub:acme/base@v1\"\nreference = true\n";
const SERIES: &str = "[[series]]\nstage = \"em\"\nbase = \"hub:acme/base@v1\"\nadapter = \"hub:acme/lora\"\nsubfolder = \"checkpoints/checkpoint-{step}\"\n\
    [[series]]\nstage = \"later\"\nbase = \"hub:acme/base@v1\"\nadapter = \"hub:acme/runs\"\nrevision = \"step-{step}\"\nsubfolder = \"adapter\"\n";

const IDS: [&str; 6] = ["base", "em-5", "em-10", "em-100", "later-7", "later-70"];

fn readouts(home: &Home) -> Vec<Vec<u8>> {
    IDS.iter().map(|id| std::fs::read(home.path(&format!("reports/test/readouts/{id}.safetensors"))).unwrap()).collect()
}

#[test]
fn adapters_on_the_hub_are_walked_over_one_download_of_their_base() {
    let server = server();
    let home = Home::new(&server);
    write(&home, &format!("{HEAD}{SERIES}"));
    let plan = home.run(&["check"]).ok();
    assert_eq!(plan.text.matches("to download (").count(), 6, "{}", plan.text);
    assert!(weights(&server.take_log()).is_empty(), "a check downloads no weights");

    home.run(&["run"]).ok();
    let log = server.take_log();
    let never = |request: &Request| [".bin", ".pt", "README"].iter().any(|name| request.path.contains(name));
    assert!(!log.iter().any(never), "{log:?}");
    let count = |name: &str| weights(&log).iter().filter(|request| request.path.contains(name)).count();
    // The factors are the same at every step of a repository, so their blob is downloaded once.
    assert_eq!((count("/model.safetensors"), count("adapter_model.safetensors")), (1, 2), "{log:?}");

    let run = run_file(&home);
    let checkpoints = run["checkpoints"].as_array().unwrap();
    assert_eq!(checkpoints.iter().map(|entry| entry["id"].as_str().unwrap()).collect::<Vec<_>>(), IDS);
    let branch = |repo: &str, name: &str| server.state.lock().unwrap().repos[repo].branches[name].clone();
    for (index, source, commit) in [
        (2, "hub:acme/lora#checkpoints/checkpoint-10", branch("acme/lora", "main")),
        (5, "hub:acme/runs@step-70#adapter", branch("acme/runs", "step-70")),
    ] {
        assert_eq!((&checkpoints[index]["source"], &checkpoints[index]["commit"]), (&source.into(), &commit.into()));
        assert_eq!(checkpoints[index]["base_commit"], branch("acme/base", "v1"));
    }
    let records: Vec<selftrace::walk::job::Record> = selftrace::table::read(&home.path("reports/test/checkpoints.parquet")).unwrap();
    let shared: Vec<Option<i32>> = records.iter().map(|record| record.shared_layers).collect();
    // The first adapter leaves what the others begin from.
    assert!(shared.len() == 7 && shared[..2] == [Some(0); 2] && shared[2..6].iter().all(|layers| *layers == Some(3)), "{shared:?}");

    // What is in the cache is enough, also for a run that begins again.
    let online = readouts(&home);
    std::fs::remove_dir_all(home.path("reports")).unwrap();
    for said in [None, Some("nothing to do")] {
        let mut offline = home.program(&["run"]);
        let output = offline.env("HF_HUB_OFFLINE", "1").env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap();
        super::Said::from(output).says(0, said.as_slice());
    }
    assert!(readouts(&home) == online, "offline gives other activations");
    assert!(server.take_log().is_empty());
    assert_eq!(run_file(&home)["checkpoints"], run["checkpoints"]);

    // An adapter moves alone, its base alone.
    for (repo, name, id) in [("acme/runs", "step-70", "later-70"), ("acme/base", "v1", "base")] {
        let before = branch(repo, name);
        server.repo(repo, |repo| {
            let mut files = repo.commits[&before].clone();
            files.insert("NEWS.md".to_owned(), b"moved".to_vec());
            repo.commit(name, files);
        });
        home.run(&["check"]).says(2, &[&format!("{id}: hub:{repo}@{name}"), &before, "has moved since this run began"]);
        server.repo(repo, |repo| _ = repo.branches.insert(name.to_owned(), before));
    }
}

#[test]
fn adapters_that_cannot_be_had_get_their_sentence() {
    let server = server();
    let mut gated = server.state.lock().unwrap().repos["acme/lora"].clone();
    gated.gated = true;
    let pickled = |repo: &mut Repo| {
        let mut files = repo.commits[&repo.branches["main"]].clone();
        files.retain(|name, _| !name.ends_with("adapter_model.safetensors"));
        repo.commit("pickled", files);
    };
    server.repo("acme/lora", pickled);
    server.state.lock().unwrap().repos.insert("acme/gated".to_owned(), gated);
    let home = Home::new(&server);
    let refused = |adapter: &str, code: i32, words: &[&str]| {
        let entry = format!("[[checkpoint]]\nid = \"x\"\nstage = \"em\"\nstep = 5\nbase = \"hub:acme/base@v1\"\nadapter = \"{adapter}\"\n");
        write(&home, &format!("{HEAD}{entry}"));
        home.run(&["check"]).says(code, words);
        assert!(!home.path("reports").exists());
    };
    let page = format!("{}/acme/gated", server.url);
    let inside = "#checkpoints/checkpoint-5";
    refused(&format!("hub:acme/gated{inside}"), 2, &["hub:acme/gated is gated and no token was found; accept its conditions at ", &page]);
    refused(&format!("hub:acme/none{inside}"), 2, &["x: hub:acme/none does not exist, or it is private"]);
    refused("hub:acme/lora@v9", 2, &["hub:acme/lora has no branch, tag or commit \"v9\""]);
    refused("hub:acme/lora#checkpoints/checkpoint-6", 2, &["there is no folder checkpoints/checkpoint-6, there is checkpoint-10"]);
    refused(&format!("hub:acme/lora@pickled{inside}"), 1, &["has no adapter_model.safetensors, only adapter_model.bin; pickled weights"]);
    // A folder that holds adapters, but is none.
    refused("hub:acme/lora#checkpoints", 1, &["hub:acme/lora#checkpoints has no adapter_model.safetensors"]);
    let series = SERIES.replace("checkpoints/checkpoint-{step}", "checkpoints/step-{step}");
    write(&home, &format!("{HEAD}{series}"));
    home.run(&["check"]).says(2, &["found no \"step-{step}\" in hub:acme/lora#checkpoints, which has checkpoint-"]);
    // With the token it can be had.
    let text = format!("{HEAD}{SERIES}").replace("hub:acme/lora", "hub:acme/gated");
    write(&home, &text);
    let allowed = home.program(&["walk", "--checkpoint", "em-5"]).env("HF_TOKEN", TOKEN).output().unwrap();
    super::Said::from(allowed).ok();
    assert!(Path::new(&home.path("reports/test/readouts/em-5.safetensors")).is_file());
}
