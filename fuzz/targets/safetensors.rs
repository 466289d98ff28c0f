//! `model.safetensors`: header and data.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::checkpoint::tensors::Tensors;
use selftrace_fuzz::{folder, said, write};

fuzz_target!(|data: &[u8]| {
    write("model.safetensors", data);
    if let Some(tensors) = said(Tensors::open(folder())) {
        for name in tensors.names() {
            let shape = tensors.shape(name).expect("it is there");
            assert!(tensors.file(name).is_some());
            assert_eq!(tensors.is_number(name), said(tensors.expect(name, shape)).is_some());
        }
        said(tensors.differ_at_a_glance(&tensors));
        let _ = (tensors.n_params(), tensors.dtype());
        tensors.fingerprint();
    }
});
