//! Series whose checkpoints are branches, tags and folders of repositories: pinned, downloaded ahead, resumed, deleted.

use super::{Home, MANIFEST, Said, run_file, trained, weights, write};
use crate::hub_server::{Repo, Server, What};
use std::time::SystemTime;

/// Branches and a tag of base checkpoints; folders of later ones.
fn series() -> Server {
    let mut base = Repo::default();
    for step in [400, 480] {
        base.commit(&format!("step_{step:04}"), trained(&format!("base/checkpoint-{step}")));
    }
    let tagged = base.commit("moving", trained("base/checkpoint-560"));
    base.branches.remove("moving");
    base.tags.insert("step_560".to_owned(), tagged);
    base.commit("main", trained("base/checkpoint-560"));
    let mut rl = Repo::default();
    let folders = ["800", "960"].into_iter().flat_map(|step| {
        let inside = move |(name, bytes)| (format!("checkpoints/checkpoint-{step}/{name}"), bytes);
        trained(&format!("rl/checkpoint-{step}")).into_iter().map(inside)
    });
    rl.commit("main", folders.collect());
    Server::start(&[("acme/base", base), ("acme/rl", rl)])
}

#[test]
fn series_on_the_hub_are_walked_pinned_and_resumed() {
    let server = series();
    // Slow enough that a download takes a while, and short beside the walk.
    server.state.lock().unwrap().rate = Some(8e6);
    let home = Home::new(&server);
    write(&home, MANIFEST);
    let plan = home.run(&["check"]).ok();
    assert_eq!(plan.text.matches("to download (").count(), 5, "{}", plan.text);
    assert!(weights(&server.take_log()).is_empty());

    home.run(&["run"]).ok();
    let log = server.take_log();
    assert!(!log.iter().any(|request| request.path.contains(".bin") || request.path.contains("README")), "{log:?}");
    assert_eq!(weights(&log).len(), 5);
    let run = run_file(&home);
    let checkpoints = run["checkpoints"].as_array().unwrap();
    let ids: Vec<&str> = checkpoints.iter().map(|entry| entry["id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["base-400", "base-480", "base-560", "rl-800", "rl-960"]);
    assert_eq!(checkpoints[1]["source"], "hub:acme/base@step_0480");
    let commit = server.state.lock().unwrap().repos["acme/base"].branches["step_0480"].clone();
    assert_eq!(checkpoints[1]["commit"], commit.as_str());
    // The next one was asked for before this one was done.
    let written = |id: &str| std::fs::metadata(home.path(&format!("reports/test/readouts/{id}.json"))).unwrap().modified().unwrap();
    let asked: Vec<SystemTime> = weights(&log).iter().map(|request| request.at).collect();
    for (next, id) in [(1, "base-400"), (2, "base-480"), (3, "base-560"), (4, "rl-800")] {
        assert!(asked[next] < written(id), "{id} was written before the download of the next began");
    }

    home.run(&["run"]).says(0, &["nothing to do"]);
    let log = server.take_log();
    // The listing is that of the checkpoint whose template is used.
    assert!(log.iter().all(|request| !request.cdn && request.path.starts_with("/api/")) && log.len() < 9, "{log:?}");
    let offline = home.program(&["run"]).env("HF_HUB_OFFLINE", "1").env("HF_ENDPOINT", "http://127.0.0.1:9").output().unwrap();
    Said::from(offline).says(0, &["nothing to do"]);

    let moved = server.state.lock().unwrap().repos.get_mut("acme/base").unwrap().commit("step_0480", trained("base/checkpoint-520"));
    let sentence =
        format!("checkpoints.toml:12: base-480: hub:acme/base@step_0480 has moved since this run began, from commit {commit} to {moved};");
    home.run(&["run"]).says(2, &[&sentence, "delete reports/test/run.json"]);
    home.run(&["check"]).says(2, &[&sentence]);
    std::fs::remove_file(home.path("reports/test/run.json")).unwrap();
    server.take_log();
    home.run(&["walk"]).ok();
    assert_eq!(weights(&server.take_log()).len(), 1, "only what moved is walked again");
    assert_eq!(run_file(&home)["checkpoints"][1]["commit"], moved.as_str());
}

#[test]
fn weights_are_deleted_after_their_walk_and_one_failure_is_one_row() {
    let server = series();
    let home = Home::new(&server);
    let manifest = MANIFEST.replace("[run]\n", "[hub]\nkeep = false\n[run]\n");
    write(&home, &manifest.replace("[model]\n", "[model]\ntokenizer = \"hub:acme/base@step_0400\"\n"));
    server.repo("acme/base", |repo| {
        let commit = repo.branches["step_0480"].clone();
        let files = repo.commits.get_mut(&commit).unwrap();
        files.remove("model.safetensors");
    });
    home.run(&["check"]).says(1, &["hub:acme/base@step_0480 has no model.safetensors, only pytorch_model.bin", "at most two checkpoints"]);
    // One whose file is listed and not there, which shows only when it is downloaded.
    let tagged = server.state.lock().unwrap().repos["acme/base"].tags["step_560"].clone();
    server.fault(
        Box::leak(format!("/resolve/{tagged}/model.safetensors").into_boxed_str()),
        1,
        What::Status(404, "X-Error-Code: EntryNotFound"),
    );
    home.run(&["walk"])
        .says(1, &["base-480: failed: hub:acme/base@step_0480 has no model.safetensors", "base-560: failed: hub:acme/base@step_560: "]);
    let left = |repo: &str| {
        let blobs = std::fs::read_dir(home.store(repo).join("blobs")).unwrap();
        blobs.filter(|blob| blob.as_ref().unwrap().metadata().unwrap().len() > 300_000).count()
    };
    assert_eq!((left("acme/base"), left("acme/rl")), (0, 0));
    let run = run_file(&home);
    assert_eq!(run["tokenizer_commit"], run["checkpoints"][0]["commit"]);
    server.take_log();
    home.run(&["walk"]).says(1, &["base-480: failed", "base-560: "]);
    assert_eq!(weights(&server.take_log()).len(), 1, "what was walked is not downloaded again");
}

#[test]
fn a_commit_in_the_manifest_is_what_is_read() {
    let (first, second) = (trained("base/checkpoint-400"), trained("base/checkpoint-560"));
    let mut repo = Repo::default();
    let old = repo.commit("main", first);
    let new = repo.commit("main", second);
    let server = Server::start(&[("acme/base", repo)]);
    let home = Home::new(&server);
    let entry = |commit: &str| {
        let head = MANIFEST.split("[[series]]").next().unwrap().replace("native:rl-960", "native:x");
        format!("{head}[[checkpoint]]\nid = \"x\"\nstage = \"base\"\nstep = 0\nsource = \"hub:acme/base\"\ncommit = \"{commit}\"\n")
    };
    write(&home, &entry(&old));
    home.run(&["walk"]).says(0, &[&format!("hub:acme/base is at commit {new} now; read is {old}, which the manifest names")]);
    assert_eq!(run_file(&home)["checkpoints"][0]["commit"], old.as_str());
    assert!(!home.store("acme/base").join("refs/main").exists(), "main is not at this commit");
    write(&home, &entry(&new[..8]));
    home.run(&["walk"])
        .says(2, &[&format!("checkpoints.toml:12: x: commit is {new}, but this run began with {old}; write the first one again")]);
    write(&home, &entry("abcdef123"));
    home.run(&["walk"]).says(2, &["hub:acme/base has no commit abcdef123; write all 40 digits"]);
}

/// What a trainer pushes to one branch: a commit per saved step, others between, and a step that was saved twice.
#[test]
fn commits_of_a_branch_are_checkpoints_by_their_titles() {
    let mut repo = Repo::default();
    let pushed = [
        ("Training in progress, step 400", "base/checkpoint-400"),
        ("Update README.md", "base/checkpoint-400"),
        ("Training in progress, step 480", "base/checkpoint-480"),
        ("Training in progress, step 560", "base/checkpoint-560"),
        ("End of training", "base/checkpoint-560"),
    ];
    for (number, (title, checkpoint)) in pushed.iter().enumerate() {
        let mut files = trained(checkpoint);
        files.insert("log.txt".to_owned(), vec![number as u8]);
        let commit = repo.commit("main", files);
        repo.history.insert(0, (commit, (*title).to_owned()));
    }
    let commit_of = |title: &str| repo.history.iter().find(|(_, other)| other.ends_with(title)).unwrap().0.clone();
    let commits = ["step 400", "step 480", "step 560"].map(commit_of);
    let server = Server::start(&[("acme/run", repo)]);
    let home = Home::new(&server);
    let head = MANIFEST.split("[[series]]").next().unwrap().replace("native:rl-960", "native:base-400");
    let series = |title: &str| format!("{head}[[series]]\nstage = \"base\"\nsource = \"hub:acme/run\"\ncommits = \"{title}\"\n");
    write(&home, &series("Training in progress, step {step}"));
    let plan = home.run(&["check"]).ok();
    // The two titles that do not fit are listed.
    assert!(plan.text.contains("Update README.md") && plan.text.contains("End of training"), "{}", plan.text);
    home.run(&["walk"]).ok();
    let run = run_file(&home);
    let found: Vec<(&str, &str)> = run["checkpoints"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| (entry["id"].as_str().unwrap(), entry["commit"].as_str().unwrap()))
        .collect();
    let expected: Vec<(&str, &str)> = ["base-400", "base-480", "base-560"].into_iter().zip(commits.iter().map(String::as_str)).collect();
    assert_eq!(found, expected);
    home.run(&["walk"]).ok();
    assert!(weights(&server.take_log()).len() == 3, "what never changes is not fetched again");
    write(&home, &series("Saved at {step}"));
    home.run(&["check"]).says(2, &["checkpoints.toml:15", "Saved at {step}"]);
}
