//! `adapter_config.json`, and what it says of two modules.
#![no_main]
use libfuzzer_sys::fuzz_target;
use selftrace::checkpoint::adapter_config::LoraConfig;
use selftrace_fuzz::{folder, said, write};

fuzz_target!(|data: &[u8]| {
    write("adapter_config.json", data);
    if let Some(config) = said(LoraConfig::read(folder())) {
        for module in ["model.layers.1.self_attn.q_proj", "lm_head"] {
            let _ = (config.targets(module), config.rank(module), config.scale(module), config.rows(module));
        }
    }
});
