//! Rules of the house that the compiler does not enforce: imports point one way, in the crate and inside of every folder, libtorch stays
//! where tensors are, and files keep to one subject.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Files and folders that may name `tch`.
const TENSORS: &[&str] = &[
    "checkpoint/",
    "model/",
    "dictionary/",
    "walk/readout/",
    "walk/answers.rs",
    "walk/introspection/",
    "walk/stitching/",
    "walk/talks/",
    "walk/interventions/mod.rs",
    "walk/interventions/board.rs",
    "walk/paired.rs",
    "walk/job/",
    "lab/organism/",
    "lab/features/",
];
/// Lines of a file, tests included.
const LONGEST: usize = 400;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// The text without what only tests see, and without comments.
fn shipped(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn is_test(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

/// Path of a module, as `["model", "stream"]`; empty for the crate.
type Module = Vec<String>;

/// The module that a file is.
fn module(root: &Path, file: &Path) -> Module {
    let path = file.strip_prefix(root).unwrap().with_extension("");
    let mut parts: Module = path.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod" || last == "lib") {
        parts.pop();
    }
    parts
}

/// What a folder's `mod.rs` (or `lib.rs`) says of its modules.
#[derive(Default)]
struct Folder {
    /// In the order in which they are declared.
    modules: Vec<String>,
    /// Module by the name of what is exported again from it.
    exports: BTreeMap<String, String>,
}

impl Folder {
    fn read(code: &str) -> Self {
        let mut folder = Self::default();
        for line in code.lines() {
            let public = line.strip_prefix("pub").map(|rest| rest.trim_start_matches(|c| c != ' ').trim_start());
            let statement = public.unwrap_or(line).trim_end_matches(';');
            if let Some(name) = statement.strip_prefix("mod ") {
                folder.modules.push(name.to_owned());
            } else if let (Some(path), true) = (statement.strip_prefix("use "), public.is_some()) {
                let (module, names) = path.split_once("::").unwrap();
                for name in names.trim_matches(['{', '}']).split(", ") {
                    let name = name.split(" as ").last().unwrap_or(name);
                    folder.exports.insert(name.to_owned(), module.to_owned());
                }
            }
        }
        folder
    }
}

/// Everything that `code` of a module names by a path from the crate or from a folder above it.
fn named(own: &Module, code: &str) -> Vec<Module> {
    let mut found = Vec::new();
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    for (at, _) in code.match_indices("crate::").chain(code.match_indices("super::")) {
        // `super::super::` is read once, from its beginning.
        if code[..at].ends_with(is_path) {
            continue;
        }
        let path: &str = code[at..].split(|c| !is_path(c)).next().unwrap();
        let group = code[at + path.len()..].strip_prefix('{').filter(|_| path.ends_with("::"));
        let mut start = if path.starts_with("crate") { Module::new() } else { own.clone() };
        for part in path.split("::").filter(|part| !part.is_empty()) {
            match part {
                "crate" => {}
                "super" => drop(start.pop()),
                part => start.push(part.to_owned()),
            }
        }
        match group {
            None => found.push(start),
            Some(group) => found.extend(group.split('}').next().unwrap().split(',').map(|name| {
                let name = name.trim().split([' ', ':']).next().unwrap();
                start.iter().cloned().chain((name != "self").then(|| name.to_owned())).collect()
            })),
        }
    }
    found
}

#[test]
fn imports_point_one_way() {
    let root = root();
    let files: Vec<PathBuf> = sources(&root).into_iter().filter(|file| !is_test(file)).collect();
    let is_folder = |file: &&PathBuf| file.ends_with("mod.rs") || file.ends_with("lib.rs");
    let folders: BTreeMap<Module, Folder> =
        files.iter().filter(is_folder).map(|file| (module(&root, file), Folder::read(&shipped(file)))).collect();
    assert!(folders[&Module::new()].modules.len() > 10);
    let mut upward = Vec::new();
    for file in &files {
        let own = module(&root, file);
        for mut used in named(&own, &shipped(file)) {
            let shared = own.iter().zip(&used).take_while(|(own, used)| own == used).count();
            // A folder and what is in it are one: they may name each other.
            let (Some(mine), Some(folder)) = (own.get(shared), folders.get(&own[..shared])) else { continue };
            let Some(name) = used.get_mut(shared) else { continue };
            if let Some(module) = folder.exports.get(name) {
                *name = module.clone();
            }
            let position = |name: &String| folder.modules.iter().position(|module| module == name);
            if position(name).zip(position(mine)).is_some_and(|(used, mine)| used > mine) {
                upward.push(format!("{}: `{mine}` names `{name}`, which stands below it", file.display()));
            }
        }
    }
    assert!(upward.is_empty(), "{}", upward.join("\n"));
}

#[test]
fn libtorch_stays_where_tensors_are() {
    let root = root();
    for file in sources(&root).iter().filter(|file| !is_test(file)) {
        let place = file.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        let code = shipped(file);
        let uses = code.contains(" tch::") || code.contains("(tch::");
        assert!(!uses || TENSORS.iter().any(|place_of| place.starts_with(place_of)), "{place} is no place for tensors");
    }
}

#[test]
fn no_file_is_long() {
    for file in sources(&root()) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LONGEST, "{}: {lines} lines, at most {LONGEST}", file.display());
    }
}

#[test]
fn every_module_opens_with_prose() {
    for file in sources(&root()).iter().filter(|file| !is_test(file)) {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.starts_with("//! "), "{}: expected a comment on the module first", file.display());
    }
}
