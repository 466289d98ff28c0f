//! What is gated, missing, renamed, limited or hostile is said in one sentence before any work; the token goes to the hub only.

use super::{Home, Said, TOKEN, fixture, write};
use crate::hub_server::{Endless, Repo, Request, Server, What};

#[test]
fn every_refusal_has_its_sentence_before_any_work() {
    let mut repo = Repo::default();
    for step in ["step_100", "step_200", "stage1-step7", "v1", "v2", "v3"] {
        repo.commit(step, fixture("llama_mha_tied_f32"));
    }
    repo.commit("main", fixture("llama_mha_tied_f32").into_iter().map(|(name, bytes)| (format!("runs/last/{name}"), bytes)).collect());
    let gated = Repo { gated: true, ..repo.clone() };
    let renamed = Repo { renamed: Some("acme/tiny".to_owned()), ..Repo::default() };
    let server = Server::start(&[("acme/tiny", repo), ("acme/gated", gated), ("acme/old", renamed)]);
    let home = Home::new(&server);
    let refused = |source: &str, variables: &[(&str, &str)], words: &[&str]| {
        let text = format!("[[checkpoint]]\nid = \"x\"\nstage = \"base\"\nstep = 0\nsource = \"{source}\"\n");
        write(&home, &text);
        // They resolve alike.
        let command = if variables.is_empty() { "run" } else { "check" };
        let output = home.program(&[command]).envs(variables.iter().copied()).output().unwrap();
        Said::from(output).says(2, words);
        assert!(!home.path("reports").exists());
    };
    let token = ("HF_TOKEN", TOKEN);
    let page = format!("{}/acme/gated", server.url);
    refused("hub:acme/gated@v1", &[], &["hub:acme/gated is gated and no token was found; accept its conditions at ", &page, "HF_TOKEN"]);
    refused("hub:acme/gated@v1", &[("HF_TOKEN", "hf_other")], &["gated and the account of this token has no access", &page]);
    refused(
        "hub:acme/none",
        &[],
        &["checkpoints.toml:1: x: hub:acme/none does not exist, or it is private; check the name, or set HF_TOKEN"],
    );
    refused("hub:acme/none", &[token], &["hub:acme/none does not exist, or the account of this token may not see it"]);
    refused("hub:acme/tiny@step_10", &[], &["has no branch, tag or commit \"step_10\"; it has step_100, "]);
    refused("hub:acme/tiny#runs/first", &[], &["hub:acme/tiny#runs/first: there is no folder runs/first, there is last"]);
    refused("hub:acme/old@nothing", &[], &["hub:acme/old is now called hub:acme/tiny", "has no branch"]);
    refused("hub:acme/tiny", &[("HF_HUB_OFFLINE", "1")], &["hub:acme/tiny is not in the cache", "HF_HUB_OFFLINE is set"]);
    server.fault("acme/tiny/refs", 99, What::Status(429, "Retry-After: 0"));
    refused("hub:acme/tiny", &[], &["the hub limits the rate of requests (429) and asks to wait 0 s; run again later, or set HF_TOKEN"]);
    server.state.lock().unwrap().faults.clear();
    write(&home, "[[series]]\nstage = \"s\"\nsource = \"hub:acme/tiny\"\nrevision = \"steps_{step}\"\n");
    home.run(&["check"]).says(
        2,
        &["checkpoints.toml:4: [[series]] revision: found no \"steps_{step}\" in the revisions of hub:acme/tiny, which has step_100"],
    );
    server.state.lock().unwrap().hostile =
        Some(format!("{{\"type\":\"file\",\"oid\":\"{}\",\"size\":1,\"path\":\"../../x\"}}", "0".repeat(40)));
    refused("hub:acme/tiny@v1", &[], &["lists \"../../x\", which leads out of its folder"]);
    server.state.lock().unwrap().hostile = Some("{\"type\":\"file\",\"oid\":\"../../x\",\"size\":1,\"path\":\"x\"}".to_owned());
    refused("hub:acme/tiny@v1", &[], &["lists \"x\" as \"../../x\", expected a SHA-1 or SHA-256"]);
    server.state.lock().unwrap().hostile =
        Some(format!("{{\"type\":\"file\",\"oid\":\"{}\",\"size\":{},\"path\":\"config.json\"}}", "0".repeat(40), u64::MAX));
    refused("hub:acme/tiny@v1", &[], &["18.45 EB are to be downloaded and the disk of", "left; free some, or set HF_HUB_CACHE"]);
    server.state.lock().unwrap().hostile = None;
    for endless in [Endless::Circle, Endless::Onwards] {
        server.state.lock().unwrap().endless = Some(endless);
        refused("hub:acme/tiny@v1", &[], &["/tree/", ": the list has no end"]);
    }
    server.state.lock().unwrap().endless = Some(Endless::Abroad);
    server.take_log();
    refused("hub:acme/tiny@v1", &[token], &["no tokenizer.json"]);
    let log = server.take_log();
    let (abroad, home): (Vec<&Request>, Vec<&Request>) = log.iter().partition(|request| request.cdn);
    assert!(!abroad.is_empty() && abroad.iter().all(|request| request.token.is_none()), "{abroad:?}");
    assert!(home.iter().all(|request| request.token.is_some()), "{home:?}");
}

#[test]
fn a_renamed_repository_is_followed_with_its_token() {
    let mut repo = Repo { gated: true, ..Repo::default() };
    repo.commit("main", fixture("llama_bf16_sharded"));
    let renamed = Repo { renamed: Some("acme/new".to_owned()), ..Repo::default() };
    let server = Server::start(&[("acme/new", repo), ("acme/old", renamed)]);
    let home = Home::new(&server);
    home.extract("hub:acme/old", &[("HF_TOKEN", TOKEN)]).says(0, &["hub:acme/old is now called hub:acme/new"]);
    let log = server.take_log();
    let (cdn, hub): (Vec<&Request>, Vec<&Request>) = log.iter().partition(|request| request.cdn);
    assert!(cdn.len() == 3 && cdn.iter().all(|request| request.token.is_none()), "the host of files saw the token: {cdn:?}");
    assert!(hub.iter().all(|request| request.token.as_deref() == Some(&format!("Bearer {TOKEN}"))), "{hub:?}");
    let mut open = vec![home.folder.path().to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if let Ok(text) = std::fs::read_to_string(&entry) {
                assert!(!text.contains(TOKEN), "{} holds the token", entry.display());
            }
        }
    }
}
