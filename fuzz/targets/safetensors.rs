//! `model.safetensors`: header and data.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::checkpoint::tensors::Tensors;
use selftrace_fuzz::{folder, said, write};

fuzz_target!(|data: &[u8]| {
    write("model.safetensors", data);
    if let Some(tensors) = said(Tensors::open(folder())) {
        for name in tensors.names() {
            assert!(tensors.shape(name).is_some() && tensors.file(name).is_some());
        }
        tensors.n_params();
        tensors.fingerprint();
    }
});
