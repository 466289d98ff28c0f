//! Lines of a file of prompts, with a tokenizer and a template beside them.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::prompt::tokenize::Ruler;
use selftrace::walk::extract::{Words, read_prompts_by};
use selftrace_fuzz::{folder, said, write};
use std::path::Path;
use std::sync::Mutex;

/// Loaded once: the tokenizer is not what is spoiled here.
static RULER: Mutex<Option<(Ruler, bool)>> = Mutex::new(None);

fuzz_target!(|data: &[u8]| {
    write("prompts.jsonl", data);
    let words = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/tokenizer"));
    let mut ruler = RULER.lock().expect("one thread");
    said(read_prompts_by(&folder().join("prompts.jsonl"), &Words { folders: vec![words] }, &mut ruler, false));
});
