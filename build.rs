//! Gives every binary of this crate an rpath to libtorch, so that it runs without `LD_LIBRARY_PATH`; collects what the fields of row
//! structs are said to be, so that tables can say it of their columns; and makes a digest of what the crate is made of, by which an
//! analysis knows tables of other code from its own.

use std::fmt::Write;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=SELFTRACE_CODE={:016x}", digest(&["src", "Cargo.lock"]));
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo says where build scripts write"));
    std::fs::write(out.join("columns.rs"), columns()).expect("the folder for generated files is writable");
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    // A link such as `.libtorch` is resolved, so that the binary may be started from anywhere.
    let lib = std::fs::canonicalize(&lib).map_or(lib, |path| path.display().to_string());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}

/// A list of `(path of a struct, [(field, its comment)])` for every struct that can be read back.
fn columns() -> String {
    let mut files = Vec::new();
    sources(Path::new("src"), &mut files);
    files.sort();
    let mut out = String::from("&[\n");
    for file in &files {
        let text = std::fs::read_to_string(file).expect("a source file can be read");
        for (name, fields) in structs(&text) {
            writeln!(out, "    ({:?}, &{fields:?}),", format!("selftrace::{}{name}", module(file))).expect("text can be written to");
        }
    }
    out + "]\n"
}

fn sources(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the sources can be listed") {
        let path = entry.expect("the sources can be listed").path();
        if path.is_dir() {
            sources(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// `measure::lens::` of `src/measure/lens.rs`.
fn module(file: &Path) -> String {
    let path = file.strip_prefix("src").unwrap_or(file).with_extension("");
    let parts = path.iter().map(|part| part.to_string_lossy().into_owned()).filter(|part| part != "mod" && part != "lib");
    parts.map(|part| part + "::").collect()
}

/// Structs at the outermost level that derive `Deserialize`, with their fields that have a comment.
fn structs(text: &str) -> Vec<(String, Vec<(String, String)>)> {
    let (mut found, mut derives) = (Vec::new(), false);
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("#[derive(") {
            derives = line.contains("Deserialize");
        }
        let name = line.strip_prefix("pub ").unwrap_or(line).strip_prefix("struct ").and_then(|rest| rest.strip_suffix(" {"));
        let Some(name) = name.filter(|_| std::mem::take(&mut derives)) else { continue };
        let (mut fields, mut comment) = (Vec::new(), Vec::new());
        for line in lines.by_ref().take_while(|line| *line != "}").map(str::trim) {
            if let Some(words) = line.strip_prefix("///") {
                comment.push(words.trim());
            } else if let Some((field, _)) = line.split_once(": ").filter(|_| !line.starts_with(['#', '/'])) {
                if !comment.is_empty() {
                    fields.push((field.trim_start_matches("pub ").to_owned(), comment.join(" ")));
                }
                comment.clear();
            }
        }
        if !fields.is_empty() {
            found.push((name.to_owned(), fields));
        }
    }
    found
}

/// Of names and contents of all files under some paths.
fn digest(paths: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    for path in paths {
        println!("cargo:rerun-if-changed={path}");
        for file in files(Path::new(path)) {
            (&file, std::fs::read(&file).unwrap_or_default()).hash(&mut hasher);
        }
    }
    hasher.finish()
}

fn files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return vec![path.to_owned()] };
    let mut entries: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    entries.sort();
    entries.iter().flat_map(|entry| files(entry)).collect()
}
