//! Gives every binary of this crate an rpath to libtorch, so that it runs without `LD_LIBRARY_PATH`, and the crate a digest of what it is
//! made of, by which an analysis knows tables of other code from its own.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=SELFTRACE_CODE={:016x}", digest(&["src", "Cargo.lock"]));
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    // A link such as `.libtorch` is resolved, so that the binary may be started from anywhere.
    let lib = std::fs::canonicalize(&lib).map_or(lib, |path| path.display().to_string());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
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
