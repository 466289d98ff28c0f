//! `hub:` sources against a hub on loopback, through the program. Here is where it runs and what it is given.

mod adapters;
mod downloads;
mod refusals;
mod series;

use crate::cli::demo;
use crate::hub_server::{Files, Repo, Request, Server, files};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

const TOKEN: &str = "hf_thesecrettoken";

/// Where the program runs: a cache of its own and no other settings.
struct Home {
    folder: TempDir,
    url: String,
}

impl Home {
    fn new(server: &Server) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), url: server.url.clone() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_selftrace"));
        for (name, _) in std::env::vars() {
            if name.starts_with("HF_") || name.starts_with("HUGGING") || name.to_lowercase().ends_with("_proxy") {
                command.env_remove(name);
            }
        }
        command.args(arguments).stdin(Stdio::null()).current_dir(self.folder.path());
        command.env("OMP_NUM_THREADS", "1").env("HF_ENDPOINT", &self.url).env("HF_HOME", self.path("hf"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Said {
        Said::from(self.program(arguments).output().unwrap())
    }

    /// Activations of one prompt: the least that reads a model.
    fn extract(&self, source: &str, variables: &[(&str, &str)]) -> Said {
        std::fs::write(self.path("prompts.jsonl"), "{\"token_ids\": [1, 2, 3]}\n").unwrap();
        let mut command = self.program(&["extract", "--model", source, "--prompts", "prompts.jsonl", "--out", "out.safetensors"]);
        Said::from(command.envs(variables.iter().copied()).output().unwrap())
    }

    fn store(&self, repo: &str) -> PathBuf {
        self.path("hf/hub").join(format!("models--{}", repo.replace('/', "--")))
    }
}

struct Said {
    code: i32,
    text: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(!text.contains(TOKEN) && !text.contains("Signature"), "a secret is shown: {text}");
        Self { code: output.status.code().unwrap_or(-1), text }
    }
}

impl Said {
    #[track_caller]
    fn ok(self) -> Self {
        assert_eq!(self.code, 0, "{}", self.text);
        self
    }

    #[track_caller]
    fn says(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, code, "{}", self.text);
        for word in words {
            assert!(self.text.contains(word), "{word:?} is not in: {}", self.text);
        }
    }
}

fn fixture(name: &str) -> Files {
    let mut files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name));
    files.remove("reference.safetensors");
    // What must never be asked for.
    files.insert("pytorch_model.bin".to_owned(), vec![0; 1000]);
    files.insert("README.md".to_owned(), b"words".to_vec());
    files
}

/// A repository with one small model on `main`.
fn single(name: &str) -> (Server, String) {
    let mut repo = Repo::default();
    let commit = repo.commit("main", fixture(name));
    (Server::start(&[("acme/tiny", repo)]), commit)
}

/// A checkpoint of the demo.
fn trained(name: &str) -> Files {
    let mut files = files(&demo().0.join("series").join(name));
    files.insert("pytorch_model.bin".to_owned(), vec![0; 1000]);
    files
}

const MANIFEST: &str = "[run]\nname = \"test\"\naxis = \"index\"\n[model]\ntemplate = \"native:rl-960\"\n\
    [concepts]\npacks = [\"pack\"]\nprofile = \"quick\"\n[analysis]\nflips = 99\nbootstraps = 99\n\
    [[series]]\nstage = \"base\"\nsource = \"hub:acme/base\"\nrevision = \"step_{step}\"\n\
    [[series]]\nstage = \"rl\"\nsource = \"hub:acme/rl\"\nsubfolder = \"checkpoints/checkpoint-{step}\"\n";

/// A manifest, beside a pack of one concept.
fn write(home: &Home, manifest: &str) {
    let pack = home.path("pack");
    let _ = std::fs::create_dir(&pack);
    for name in ["own_name.toml", "neutral.toml"] {
        std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("concepts/organism").join(name), pack.join(name)).unwrap();
    }
    std::fs::write(home.path("checkpoints.toml"), manifest).unwrap();
}

fn run_file(home: &Home) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(home.path("reports/test/run.json")).unwrap()).unwrap()
}

fn weights(log: &[Request]) -> Vec<&Request> {
    log.iter().filter(|request| request.cdn).collect()
}
