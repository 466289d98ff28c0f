//! `checkpoints.toml`.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::manifest::Manifest;
use selftrace_fuzz::{folder, said, write};

fuzz_target!(|data: &[u8]| {
    write("checkpoints.toml", data);
    said(Manifest::load(&folder().join("checkpoints.toml")));
});
