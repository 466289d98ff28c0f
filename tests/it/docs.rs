//! What the documents say is what the sources say: tables, manifest keys, sections, commands, and links between files.

mod tables;

use regex::Regex;
use selftrace::manifest::{Evidence, Manifest};
use selftrace::words::Status;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::cli::{run, stdout};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Files with this extension in some folders of the repository, those of the folders in them too where `deep`.
fn files(folders: &[&str], extension: &str, deep: bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).filter(|folder| folder.is_dir()).collect();
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && deep {
                open.push(path);
            } else if path.extension().is_some_and(|other| other == extension) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn documents() -> Vec<PathBuf> {
    let mut found = files(&[""], "md", false);
    found.extend(files(&["docs", "benches", "notebooks", "python", "reports"], "md", true).into_iter().filter(|path| {
        // Folders of runs and of virtual environments are nobody's documents.
        !path.strip_prefix(root()).unwrap().iter().any(|part| part.to_string_lossy().starts_with('.'))
    }));
    found
}

fn pattern(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// A document without its blocks of code.
fn prose(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap();
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Names of the headings as a link says them: small letters, digits, `-` and `_`.
fn anchors(path: &Path) -> BTreeSet<String> {
    let heading = pattern(r"(?m)^#+ (.+)$");
    let anchor = |title: &str| {
        let title = title.trim().to_lowercase().replace(' ', "-");
        title.chars().filter(|c| c.is_alphanumeric() || "-_".contains(*c)).collect::<String>()
    };
    heading.captures_iter(&prose(path)).map(|found| anchor(&found[1])).collect()
}

#[test]
fn links_between_files_lead_somewhere() {
    let link = pattern(r"\]\(([^)\s]+)\)");
    let documents = documents();
    assert!(documents.len() >= 12 && documents.iter().any(|path| path.ends_with("docs/tables.md")), "{documents:?}");
    let mut dead = Vec::new();
    for document in documents {
        for found in link.captures_iter(&prose(&document)) {
            let target = &found[1];
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { document.clone() } else { document.parent().unwrap().join(file) };
            let lives = file.exists() && (anchor.is_empty() || anchors(&file).contains(anchor));
            if !lives {
                dead.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

/// Names of the commands that `--help` lists, with what each says of itself.
fn commands() -> BTreeMap<String, String> {
    let help = stdout(&run(&["--help"]));
    let list = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    let name = pattern(r"(?m)^  ([a-z]+)\b");
    let names = name.captures_iter(list).map(|found| found[1].to_owned()).filter(|name| name != "help");
    names.map(|name| (name.clone(), stdout(&run(&[&name, "--help"])))).collect()
}

#[test]
fn the_table_of_commands_is_that_of_the_program() {
    let known = commands();
    let row = pattern(r"(?m)^\| `selftrace ([a-z]+)([^`]*)` \|(.*)$");
    let option = pattern(r"--[a-z][a-z-]*");
    let page = text("docs/commands.md");
    let mut named = BTreeSet::new();
    for found in row.captures_iter(&page) {
        let command = found[1].to_owned();
        let help = known.get(&command).unwrap_or_else(|| panic!("docs/commands.md names `selftrace {command}`, which --help does not"));
        for option in option.find_iter(&found[0]) {
            assert!(help.contains(option.as_str()), "docs/commands.md: `selftrace {command} {}` is no option", option.as_str());
        }
        named.insert(command);
    }
    assert_eq!(named, known.keys().cloned().collect(), "commands in docs/commands.md, and those of --help");
}

/// Keys that a manifest may have, by table, as src/manifest/mod.rs lists them.
fn keys() -> BTreeMap<String, BTreeSet<String>> {
    let source = text("src/manifest/mod.rs");
    let label = pattern(r#"const ([A-Z_]+): &str = "([^"]+)";"#);
    let labels: BTreeMap<&str, &str> =
        label.captures_iter(&source).map(|found| found.extract()).map(|(_, [name, label])| (name, label)).collect();
    let list = source.split("const KEYS:").nth(1).unwrap().split("];\n").next().unwrap();
    let list = list.split_once('=').unwrap().1;
    let table = pattern(r#"\(\s*("[^"]*"|[A-Z_]+),\s*&\[([^\]]*)\]"#);
    let word = pattern(r#""([^"]+)""#);
    let names = |list: &str| word.captures_iter(list).map(|found| found[1].to_owned()).collect();
    table.captures_iter(list).map(|found| (labels.get(&found[1]).copied().unwrap_or("").to_owned(), names(&found[2]))).collect()
}

/// The same as docs/manifest.md has them: a heading per table, an item per key.
fn documented_keys(document: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let heading = pattern(r"^#{2,3} `([^`]+)`$");
    let item = pattern(r"^- `(\w+)` \((.+?)\)[:.]");
    let mut tables = BTreeMap::from([(String::new(), BTreeMap::new())]);
    let mut table = String::new();
    // An item goes on in lines that are indented.
    let joined = document.replace("\n  ", " ");
    for line in joined.lines() {
        if line.starts_with("##") {
            table = heading.captures(line).map_or(String::new(), |found| found[1].to_owned());
        } else if let Some(found) = item.captures(line) {
            tables.entry(table.clone()).or_insert_with(BTreeMap::new).insert(found[1].to_owned(), found[2].to_owned());
        }
    }
    tables
}

#[test]
fn the_manifest_page_has_every_key_and_no_other() {
    let known = keys();
    assert!(known.len() >= 14 && known["[run]"].contains("seed") && known[""].contains("run"), "{known:?}");
    let documented = documented_keys(&text("docs/manifest.md"));
    let names = documented.iter().map(|(table, keys)| (table.clone(), keys.keys().cloned().collect())).collect();
    assert_eq!(known, names, "keys of src/manifest/mod.rs, and those of docs/manifest.md");
    let defaults = serde_json::to_value(Evidence::default()).unwrap();
    for (key, default) in defaults.as_object().unwrap() {
        let said = &documented["[evidence]"][key];
        let default = default.as_f64().unwrap().to_string();
        assert!(said.ends_with(&format!("default {default}")), "docs/manifest.md, [evidence] {key}: {said:?}, the default is {default}");
    }
}

/// Blocks of TOML in a document that have entries: whole manifests.
fn manifests(document: &str) -> Vec<String> {
    let text = text(document);
    let blocks = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap().to_owned());
    blocks.filter(|block| block.contains("[[")).collect()
}

#[test]
fn the_manifests_that_are_shown_load() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["models/base", "runs/sft/checkpoint-1000", "runs/sft/checkpoint-2000", "runs/lora/checkpoint-100", "runs/first"] {
        std::fs::create_dir_all(folder.path().join(name)).unwrap();
    }
    let shown: Vec<String> = ["README.md", "docs/manifest.md"].into_iter().flat_map(manifests).collect();
    assert!(shown.len() >= 2, "{shown:?}");
    for manifest in shown {
        let path = folder.path().join("checkpoints.toml");
        std::fs::write(&path, &manifest).unwrap();
        let loaded = Manifest::load(&path).unwrap_or_else(|error| panic!("{error:#}\n{manifest}"));
        assert!(!loaded.checkpoints.is_empty(), "{manifest}");
    }
}

#[test]
fn sections_of_the_method_that_comments_name_are_there() {
    let named = pattern(r"(?i)method,?\s+sections? (\d[a-e]?)(?: and (\d[a-e]?))?");
    let method = text("docs/method.md");
    let mut missing = Vec::new();
    let mut found = 0;
    for file in files(&["src", "tests/it", "examples"], "rs", true) {
        // A comment may break the line between the words.
        let code = pattern(r"\n\s*//[/!]? ?").replace_all(&std::fs::read_to_string(&file).unwrap(), " ").into_owned();
        for section in named.captures_iter(&code).flat_map(|found| [found.get(1), found.get(2)]).flatten() {
            found += 1;
            let heading = pattern(&format!(r"(?m)^##+ {}\. ", section.as_str()));
            if !heading.is_match(&method) {
                missing.push(format!("{}: section {}", file.display(), section.as_str()));
            }
        }
    }
    assert!(found >= 10, "{found} references to the method");
    assert!(missing.is_empty(), "docs/method.md lacks\n{}", missing.join("\n"));
}

#[test]
fn the_page_of_tables_explains_every_status() {
    let page = text("docs/tables.md");
    let list = page.split("\n## Status\n").nth(1).unwrap().split("\n<!--").next().unwrap();
    let rows = list.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()).collect::<Vec<_>>().join(" ");
    let said: BTreeSet<&str> = rows.split([' ', ',', '`']).filter(|word| !word.is_empty()).collect();
    let known: BTreeSet<&str> = Status::ALL.iter().map(|status| status.as_str()).collect();
    assert_eq!(said, known, "statuses in {}, and those of src/words.rs", "docs/tables.md");
}
