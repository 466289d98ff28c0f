//! Readouts of a store, and whatever is asked of them by the names that a store has.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::walk::store::Readouts;
use selftrace_fuzz::{folder, said, write};

/// Items of the store that the file would belong to.
const ITEMS: usize = 12;

fuzz_target!(|data: &[u8]| {
    write("a.safetensors", data);
    let Some(readouts) = said(Readouts::open(&folder().join("a.safetensors"))) else { return };
    let _ = (readouts.identity(), readouts.metadata("fingerprint"));
    for name in ["a", "last_prompt", "unembedding.rows"] {
        if !readouts.contains(name) {
            continue;
        }
        said(readouts.check_finite(name));
        said(readouts.values(name));
        said(readouts.layers(name));
        for layer in [0, 1, usize::MAX >> 8] {
            said(readouts.layer(name, layer));
            said(readouts.layer_bytes(name, layer));
            said(readouts.encoding(name, layer));
        }
        if said(readouts.rows(name, ITEMS)).is_some() {
            said(readouts.gather(name, 0, &[0, 1, ITEMS - 1]));
        }
    }
    said(readouts.integers("answers.rows"));
});
