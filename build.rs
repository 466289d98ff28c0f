//! Gives every binary of this crate an rpath to libtorch, so that it runs without `LD_LIBRARY_PATH`.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") else {
        return;
    };
    // A link such as `.libtorch` is resolved, so that the binary may be started from anywhere.
    let lib = std::fs::canonicalize(&lib).map_or(lib, |path| path.display().to_string());
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
