//! Series: names with several numbers, what is passed over, variables, commits.

use std::path::Path;

use super::tests::{ids, loaded, written};
use super::*;

#[test]
fn several_numbers_and_folders_make_a_series() {
    let (folder, path) = written("");
    let names =
        ["pre/stage1-step1000-tokens3B", "pre/stage1-step2000-tokens5B", "nest/epoch_0.5/step_100", "nest/epoch_1/step_200", "nest/logs"];
    names.iter().for_each(|name| std::fs::create_dir_all(folder.path().join(name)).unwrap());
    let text = "[[series]]\nstage = \"pre\"\nsource = \"pre/stage1-step{step}-tokens{tokens}B\"\n\
                [[series]]\nstage = \"sft\"\nsource = \"nest/epoch_{epoch}/step_{step}\"\n\
                [[series]]\nstage = \"epochs\"\nsource = \"nest/epoch_{epoch}\"\n";
    std::fs::write(&path, text).unwrap();
    let manifest = Manifest::load(&path).unwrap();
    assert_eq!(ids(&manifest), ["pre-1000", "pre-2000", "sft-100", "sft-200", "epochs-0.5", "epochs-1"]);
    let tokens: Vec<_> = manifest.checkpoints.iter().map(|spec| spec.tokens).collect();
    assert_eq!(tokens[..3], [Some(3_000_000_000), Some(5_000_000_000), None]);
    assert!(manifest.checkpoints[2].source.to_string().ends_with("nest/epoch_0.5/step_100"));
    assert_eq!(manifest.checkpoints[4].step, None);
    assert!(manifest.passed_over[0].contains("logs"), "{:?}", manifest.passed_over);
}

#[test]
fn names_that_do_not_fit_are_listed_and_dead_links_are_checkpoints() {
    let (folder, path) = written("[[series]]\nstage = \"sft\"\nsource = \"runs/sft/checkpoint-{step}\"\n");
    std::os::unix::fs::symlink("/nonexistent/purged", folder.path().join("runs/sft/checkpoint-300")).unwrap();
    let manifest = Manifest::load(&path).unwrap();
    assert_eq!(ids(&manifest), ["sft-9", "sft-25", "sft-100", "sft-300"]);
    assert!(manifest.passed_over[0].ends_with("checkpoint-9-tmp and final"), "{:?}", manifest.passed_over);
    // A folder in the middle of a pattern whose link is dead has no checkpoints, and the others are there.
    std::os::unix::fs::symlink("/nonexistent/purged", folder.path().join("runs/nested/300")).unwrap();
    std::fs::write(&path, "[[series]]\nstage = \"n\"\nsource = \"runs/nested/{step}/{epoch}\"\n").unwrap();
    let error = Manifest::load(&path).unwrap_err().to_string();
    assert!(error.contains("300") && !error.contains("found no folder"), "{error}");
    let all_fit = loaded("[[series]]\nstage = \"n\"\nsource = \"runs/nested/{step}/hf\"\n");
    assert!(all_fit.passed_over.is_empty());
}

#[test]
fn variables_in_paths_are_those_of_the_environment() {
    let folder = |text| Source::parse(text, Path::new("runs")).map(|source| source.to_string()).map_err(|error| error.to_string());
    let home = std::env::var("HOME").unwrap();
    assert_eq!(folder("$HOME/a"), Ok(format!("{home}/a")));
    assert_eq!(folder("${HOME}/a$$b"), Ok(format!("{home}/a$b")));
    let error = folder("$NO_SUCH_VARIABLE_HERE/a").unwrap_err();
    assert!(error.contains("$NO_SUCH_VARIABLE_HERE is not set"), "{error}");
    assert!(folder("a/$/b").unwrap_err().contains("name of a variable"));
}

#[test]
fn commits_are_checkpoints_by_their_titles() {
    let text = "[[series]]\nstage = \"sft\"\nsource = \"hub:a/b\"\ncommits = \"Training in progress, step {step}\"\n";
    let (_folder, path) = written(text);
    let mut manifest = Manifest::load(&path).unwrap();
    assert_eq!(manifest.pending[0].listing(), Listing::Commits { repo: "a/b".into(), revision: None });
    let commit = |digit: char, title: &str| format!("{} {title}", digit.to_string().repeat(40));
    let titles = ["End of training", "Training in progress, step 200", "Training in progress, step 100", "Training in progress, step 200"];
    let names: Vec<String> = titles.iter().zip('1'..).map(|(title, digit)| commit(digit, title)).collect();
    manifest.expand(&mut |_| Ok(names.clone())).unwrap();
    assert_eq!(ids(&manifest), ["sft-100", "sft-200"]);
    // The newer one of two counts, and the other is named.
    assert_eq!(manifest.checkpoints[1].source.to_string(), format!("hub:a/b@{}", "2".repeat(40)));
    assert!(manifest.passed_over[0].contains("step 200 (4444444)"), "{:?}", manifest.passed_over);
}
