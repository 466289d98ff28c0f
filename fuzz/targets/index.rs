//! `model.safetensors.index.json`, beside two shards.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::checkpoint::tensors::Tensors;
use selftrace_fuzz::{folder, said, write};
use std::sync::Once;

/// One tensor `a` (or `b`) of a number.
fn shard(name: &str) -> Vec<u8> {
    let header = format!("{{\"{name}\":{{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}}}");
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 4]].concat()
}

fuzz_target!(|data: &[u8]| {
    static SHARDS: Once = Once::new();
    SHARDS.call_once(|| {
        write("model-00001-of-00002.safetensors", &shard("a"));
        write("model-00002-of-00002.safetensors", &shard("b"));
    });
    write("model.safetensors.index.json", data);
    if let Some(tensors) = said(Tensors::open(folder())) {
        assert!(tensors.names().count() <= 2);
    }
});
