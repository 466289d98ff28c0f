//! `config.json`.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::model::architecture::resolve;
use selftrace_fuzz::said;

fuzz_target!(|data: &[u8]| {
    let Ok(json) = serde_json::from_slice(data) else { return };
    if let Some((_, config)) = said(resolve(&json)) {
        assert!(config.n_layers > 0 && config.d_model > 0 && config.ropes.iter().all(|rope| rope.inv_freq.iter().all(|f| f.is_finite())));
    }
});
