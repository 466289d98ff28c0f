//! Files: connections that are cut, partial files, interrupts, and the cache that is shared with Python.

use super::{Home, fixture, single, weights};
use crate::hub_server::{What, etag};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn a_cut_connection_goes_on_where_it_ended() {
    let (server, _) = single("llama_mha_tied_f32");
    let size = fixture("llama_mha_tied_f32")["model.safetensors"].len();
    let home = Home::new(&server);
    server.fault("model.safetensors", 1, What::Status(503, "Retry-After: 0"));
    server.fault("cdn", 1, What::Cut(40_000));
    server.fault("cdn", 1, What::Cut(20_000));
    server.fault("cdn", 1, What::Status(429, "Retry-After: 0"));
    home.extract("hub:acme/tiny", &[]).ok();
    let log = server.take_log();
    let sent: usize = weights(&log).iter().map(|request| request.sent).sum();
    assert_eq!(sent, size, "every byte came once: {log:?}");
    let ranges: Vec<Option<&str>> =
        weights(&log).iter().filter(|request| request.sent > 0).map(|request| request.range.as_deref()).collect();
    assert_eq!(ranges, [None, Some("bytes=40000-"), Some("bytes=60000-")]);
}

#[test]
fn a_partial_file_is_completed_by_the_next_run() {
    let (server, _) = single("llama_mha_tied_f32");
    let content = &fixture("llama_mha_tied_f32")["model.safetensors"];
    let home = Home::new(&server);
    let blobs = home.store("acme/tiny").join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", etag("model.safetensors", content))), &content[..50_000]).unwrap();
    home.extract("hub:acme/tiny", &[]).ok();
    let log = server.take_log();
    assert_eq!(
        weights(&log).iter().map(|request| (request.range.as_deref(), request.sent)).collect::<Vec<_>>(),
        [(Some("bytes=50000-"), content.len() - 50_000)]
    );
    assert_eq!(std::fs::read(blobs.join(etag("model.safetensors", content))).unwrap(), *content);
}

/// The cache is shared with the Python client, and a blob that is in it is not asked for again.
#[test]
fn other_bytes_of_the_same_size_do_not_get_into_the_cache() {
    let (server, _) = single("llama_mha_tied_f32");
    let files = fixture("llama_mha_tied_f32");
    let home = Home::new(&server);
    let blobs = home.store("acme/tiny").join("blobs");
    for (path, place) in [("config.json", "config.json"), ("model.safetensors", "cdn")] {
        let name = etag(path, &files[path]);
        server.fault(place, 1, What::Other);
        home.extract("hub:acme/tiny", &[])
            .says(2, &[path, "the hub lists a file of hash", &name, "nothing was kept of it, run again later"]);
        assert!(!blobs.join(&name).exists() && !blobs.join(format!("{name}.incomplete")).exists(), "{path}");
    }
    home.extract("hub:acme/tiny", &[]).ok();
    assert_eq!(std::fs::read(blobs.join(etag("model.safetensors", &files["model.safetensors"]))).unwrap(), files["model.safetensors"]);
}

#[test]
fn a_partial_file_of_something_else_is_thrown_away() {
    let (server, _) = single("llama_mha_tied_f32");
    let content = &fixture("llama_mha_tied_f32")["model.safetensors"];
    let home = Home::new(&server);
    let blobs = home.store("acme/tiny").join("blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join(format!("{}.incomplete", etag("model.safetensors", content))), vec![7; 50_000]).unwrap();
    home.extract("hub:acme/tiny", &[]).ok();
    let log = server.take_log();
    assert_eq!(weights(&log).iter().map(|request| request.range.as_deref()).collect::<Vec<_>>(), [Some("bytes=50000-"), None]);
    assert_eq!(std::fs::read(blobs.join(etag("model.safetensors", content))).unwrap(), *content);
}

#[test]
fn an_interrupted_download_stops_and_goes_on() {
    let (server, _) = single("llama_mha_tied_f32");
    let home = Home::new(&server);
    server.state.lock().unwrap().rate = Some(50e3);
    std::fs::write(home.path("prompts.jsonl"), "{\"token_ids\": [1, 2, 3]}\n").unwrap();
    let mut program = home.program(&["extract", "--model", "hub:acme/tiny", "--prompts", "prompts.jsonl", "--out", "out.safetensors"]);
    let mut child = program.stderr(Stdio::null()).spawn().unwrap();
    let blobs = home.store("acme/tiny").join("blobs");
    let partial = blobs.join(format!("{}.incomplete", etag("model.safetensors", &fixture("llama_mha_tied_f32")["model.safetensors"])));
    while std::fs::metadata(&partial).map_or(0, |partial| partial.len()) == 0 {
        assert!(child.try_wait().unwrap().is_none());
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let have = std::fs::metadata(&partial).unwrap().len();
    server.state.lock().unwrap().rate = None;
    server.take_log();
    home.extract("hub:acme/tiny", &[]).ok();
    let ranges: Vec<Option<String>> = weights(&server.take_log()).iter().map(|request| request.range.clone()).collect();
    assert_eq!(ranges, [Some(format!("bytes={have}-"))]);
}

/// Two processes want one blob: one brings it, the other waits for it.
#[test]
fn a_blob_is_downloaded_once_however_many_want_it() {
    let (server, _) = single("llama_mha_tied_f32");
    let size = fixture("llama_mha_tied_f32")["model.safetensors"].len();
    let home = Home::new(&server);
    server.state.lock().unwrap().rate = Some(200e3);
    std::fs::write(home.path("prompts.jsonl"), "{\"token_ids\": [1, 2, 3]}\n").unwrap();
    let begin = |out: &str| {
        let mut program = home.program(&["extract", "--model", "hub:acme/tiny", "--prompts", "prompts.jsonl", "--out", out]);
        program.stderr(Stdio::piped()).spawn().unwrap()
    };
    for child in [begin("a.safetensors"), begin("b.safetensors")] {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let log = server.take_log();
    assert_eq!(weights(&log).iter().map(|request| request.sent).sum::<usize>(), size, "{log:?}");
    assert!(std::fs::read(home.path("a.safetensors")).unwrap() == std::fs::read(home.path("b.safetensors")).unwrap());
}

#[test]
fn the_cache_is_laid_out_as_python_does_and_works_alone() {
    let (server, commit) = single("llama_bf16_sharded");
    let home = Home::new(&server);
    home.extract("hub:acme/tiny", &[]).ok();
    let online = std::fs::read(home.path("out.safetensors")).unwrap();
    let store = home.store("acme/tiny");
    assert_eq!(std::fs::read_to_string(store.join("refs/main")).unwrap(), commit);
    let snapshot = store.join("snapshots").join(&commit);
    let mut names: Vec<String> =
        std::fs::read_dir(&snapshot).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let shards = (1..=3).map(|shard| format!("model-0000{shard}-of-00003.safetensors"));
    assert_eq!(names, [vec!["config.json".to_owned()], shards.collect(), vec!["model.safetensors.index.json".to_owned()]].concat());
    for (name, content) in fixture("llama_bf16_sharded").iter().filter(|(name, _)| names.contains(name)) {
        assert_eq!(std::fs::read_link(snapshot.join(name)).unwrap(), Path::new("../../blobs").join(etag(name, content)));
        assert_eq!(std::fs::read(snapshot.join(name)).unwrap(), *content);
    }
    assert_eq!(std::fs::read_dir(store.join("blobs")).unwrap().count(), names.len());

    // The same files as somebody else may have put them, without listing, moved, and as copies instead of links.
    let other = Home::new(&server);
    let copy = other.path("cache/models--acme--tiny");
    std::fs::create_dir_all(copy.join("refs")).unwrap();
    std::fs::create_dir_all(copy.join("snapshots").join(&commit)).unwrap();
    std::fs::write(copy.join("refs/main"), &commit).unwrap();
    for name in &names {
        std::fs::copy(snapshot.join(name), copy.join("snapshots").join(&commit).join(name)).unwrap();
    }
    let cache = other.path("cache");
    let cache = ("HF_HUB_CACHE", cache.to_str().unwrap());
    server.take_log();
    other.extract("hub:acme/tiny", &[cache]).ok();
    assert!(weights(&server.take_log()).is_empty(), "what is there is not downloaded");
    for source in ["hub:acme/tiny", "hub:acme/tiny@main", &format!("hub:acme/tiny@{commit}")] {
        other.extract(source, &[cache, ("HF_HUB_OFFLINE", "1")]).ok();
        assert_eq!(std::fs::read(other.path("out.safetensors")).unwrap(), online);
    }
    assert!(server.take_log().is_empty(), "nothing is asked");
    std::fs::remove_file(copy.join("snapshots").join(&commit).join(&names[1])).unwrap();
    other.extract("hub:acme/tiny", &[cache, ("HF_HUB_OFFLINE", "1")]).says(2, &["hub:acme/tiny", &names[1], "HF_HUB_OFFLINE is set"]);
}

#[test]
fn a_truncated_blob_is_noticed() {
    let (server, commit) = single("llama_mha_tied_f32");
    let home = Home::new(&server);
    home.extract("hub:acme/tiny", &[]).ok();
    let pointer = home.store("acme/tiny").join("snapshots").join(&commit).join("model.safetensors");
    let content = std::fs::read(&pointer).unwrap();
    let blob = std::fs::canonicalize(&pointer).unwrap();
    std::fs::write(&blob, &content[..70_000]).unwrap();
    let offline = home.extract("hub:acme/tiny", &[("HF_HUB_OFFLINE", "1")]);
    offline.says(2, &["hub:acme/tiny: model.safetensors is cut off at 70000 bytes in the cache", "HF_HUB_OFFLINE is set"]);
    home.extract("hub:acme/tiny", &[]).ok();
    assert_eq!(std::fs::read(&blob).unwrap(), content);
}
