//! Readouts of a store.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::walk::store::Readouts;
use selftrace_fuzz::{folder, said, write};

fuzz_target!(|data: &[u8]| {
    write("a.safetensors", data);
    said(Readouts::open(&folder().join("a.safetensors")));
});
