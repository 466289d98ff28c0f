//! Rules of the house that the compiler does not enforce: modules import only from those above them in `lib.rs`, libtorch stays
//! where tensors are, and files keep to one subject.

use std::path::{Path, PathBuf};

/// Modules that may name `tch`.
const TENSORS: &[&str] = &["checkpoint", "model", "readout", "probe", "causal", "analysis", "organism", "run"];
/// Lines of a file, tests included.
const LONGEST: usize = 400;

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

/// Module of a file: the first part of its path below `src`.
fn module(root: &Path, file: &Path) -> String {
    let first = file.strip_prefix(root).unwrap().components().next().unwrap();
    first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
}

/// The text without what only tests see.
fn shipped(file: &Path) -> String {
    let text = std::fs::read_to_string(file).unwrap();
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

fn is_test(file: &Path) -> bool {
    file.file_stem().is_some_and(|stem| stem.to_string_lossy().ends_with("tests"))
}

#[test]
fn imports_point_one_way() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = std::fs::read_to_string(root.join("lib.rs")).unwrap();
    let order: Vec<&str> = map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(order.len() > 10);
    for file in sources(&root).iter().filter(|file| !is_test(file)) {
        let own = module(&root, file);
        let Some(position) = order.iter().position(|name| *name == own) else { continue };
        for (number, line) in shipped(file).lines().enumerate() {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                let Some(other) = order.iter().position(|name| *name == used) else { continue };
                assert!(other <= position, "{}:{}: `{own}` imports `{used}`, which stands below it in lib.rs", file.display(), number + 1);
            }
        }
    }
}

#[test]
fn libtorch_stays_where_tensors_are() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&root).iter().filter(|file| !is_test(file)) {
        let own = module(&root, file);
        let uses =
            shipped(file).lines().any(|line| !line.trim_start().starts_with("//") && (line.contains(" tch::") || line.contains("(tch::")));
        assert!(!uses || TENSORS.contains(&own.as_str()), "{}: `{own}` is not a module of tensors", file.display());
    }
}

#[test]
fn no_file_is_long() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&root) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= LONGEST, "{}: {lines} lines, at most {LONGEST}", file.display());
    }
}

#[test]
fn every_module_opens_with_prose() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in sources(&root).iter().filter(|file| !is_test(file)) {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(text.starts_with("//! "), "{}: expected a comment on the module first", file.display());
    }
}
