//! Lines of a file of prompts, with a tokenizer and a template beside them.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::walk::extract::{Words, read_prompts};
use selftrace_fuzz::{folder, said, write};
use std::path::Path;

fuzz_target!(|data: &[u8]| {
    write("prompts.jsonl", data);
    let words = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tokenizer"));
    said(read_prompts(&folder().join("prompts.jsonl"), &Words { folders: vec![words] }, false));
});
