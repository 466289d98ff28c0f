//! Model and adapter folders that cannot be read, one by one: each is refused in one sentence that says what was found and what to do.

use crate::cli::{copy, demo, edit, run, stderr, text};
use crate::weights::Weights;
use std::path::Path;

type Case = (&'static str, fn(&Path), &'static [&'static str]);

/// Nothing but `files`, empty ones, in the place of the weights; those that end in `/` are folders.
fn only(folder: &Path, files: &[&str]) {
    std::fs::remove_file(folder.join("model.safetensors")).unwrap();
    for file in files {
        match file.strip_suffix('/') {
            Some(name) => std::fs::create_dir(folder.join(name)).unwrap(),
            None => std::fs::write(folder.join(file), "").unwrap(),
        }
    }
}

fn index(folder: &Path, file: &str) {
    only(folder, &[]);
    std::fs::write(folder.join("model.safetensors.index.json"), format!("{{\"weight_map\": {{\"a\": \"{file}\"}}}}")).unwrap();
}

/// The weights with one tensor in another type, as quantisers leave them.
fn quantise(folder: &Path) {
    use safetensors::tensor::{Dtype, TensorView};
    let weights = Weights::read(folder);
    let bytes = |name: &str, values: &[f32]| -> (Dtype, Vec<u8>) {
        let is_quantised = name == "model.layers.0.self_attn.q_proj.weight";
        if is_quantised { (Dtype::U8, vec![1; values.len()]) } else { (Dtype::F32, values.iter().flat_map(|x| x.to_le_bytes()).collect()) }
    };
    let tensors: Vec<_> = weights.0.iter().map(|(name, (shape, values))| (name, shape.clone(), bytes(name, values))).collect();
    let views = tensors.iter().map(|(name, shape, (dtype, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    std::fs::write(folder.join("model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
}

const MODELS: &[Case] = &[
    ("no configuration", |bad| std::fs::remove_file(bad.join("config.json")).unwrap(), &["config.json", "missing"]),
    ("cut configuration", |bad| std::fs::write(bad.join("config.json"), "{").unwrap(), &["config.json", "not valid JSON"]),
    (
        "another architecture",
        |bad| edit(&bad.join("config.json"), "LlamaForCausalLM", "MambaForCausalLM"),
        &["MambaForCausalLM", "LlamaForCausalLM, MistralForCausalLM"],
    ),
    ("a key is missing", |bad| edit(&bad.join("config.json"), "hidden_size", "hidden_sighs"), &["config.json", "`hidden_size` is missing"]),
    (
        "an activation as long as a file",
        |bad| edit(&bad.join("config.json"), "\"silu\"", &format!("\"{}\"", "x".repeat(400_000))),
        &["hidden_act", "… ", "expected one of silu"],
    ),
    ("an unknown activation", |bad| edit(&bad.join("config.json"), "\"silu\"", "\"mish\""), &["hidden_act", "mish"]),
    ("other sizes", |bad| edit(&bad.join("config.json"), "192", "190"), &["has shape", "expected [190"]),
    ("no weights", |bad| only(bad, &[]), &["no model.safetensors", "Hugging Face layout"]),
    (
        "pickled",
        |bad| only(bad, &["pytorch_model.bin", "optimizer.pt"]),
        &["pytorch_model.bin, a pickle", "save_pretrained(safe_serialization=True)"],
    ),
    ("pickled by its makers", |bad| only(bad, &["consolidated.00.pth"]), &["consolidated.00.pth, a pickle", "save_pretrained"]),
    (
        "what a trainer leaves beside no weights",
        |bad| only(bad, &["training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth"]),
        &["no model.safetensors and no model.safetensors.index.json"],
    ),
    ("FSDP shards", |bad| only(bad, &["__0_0.distcp", "training_args.bin"]), &["__0_0.distcp, a training shard", "save_pretrained"]),
    (
        "a folder of FSDP shards",
        |bad| only(bad, &["pytorch_model_fsdp_0/", "optimizer_0/", "training_args.bin"]),
        &["pytorch_model_fsdp_0, a training shard", "consolidate it"],
    ),
    (
        "DeepSpeed shards",
        |bad| only(bad, &["bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt"]),
        &["zero_pp_rank_0_mp_rank_00_optim_states.pt, a training shard", "consolidate it"],
    ),
    (
        "a folder of DeepSpeed shards",
        |bad| only(bad, &["global_step100/", "zero_to_fp32.py", "latest"]),
        &["global_step100, a training shard", "consolidate it"],
    ),
    ("GGUF", |bad| only(bad, &["model-Q4_K_M.gguf"]), &["model-Q4_K_M.gguf, quantised", "gguf_file"]),
    ("quantised weights", quantise, &["q_proj.weight has dtype U8", "dequantised and saved again"]),
    (
        "a quantised configuration",
        |bad| {
            quantise(bad);
            edit(
                &bad.join("config.json"),
                "\"model_type\"",
                "\"quantization_config\": {\"quant_method\": \"bitsandbytes\"}, \"model_type\"",
            )
        },
        &["q_proj.weight has dtype U8", "quantised (bitsandbytes)", "dequantise"],
    ),
    (
        "an adapter alone",
        |bad| only(bad, &["adapter_model.safetensors", "adapter_config.json"]),
        &["adapter_model.safetensors, an adapter", "`base`"],
    ),
    (
        "no safetensors",
        |bad| std::fs::write(bad.join("model.safetensors"), [255; 64]).unwrap(),
        &["not a valid safetensors file", "truncated"],
    ),
    ("a shard is missing", |bad| index(bad, "model-1.safetensors"), &["model-1.safetensors", "missing"]),
    ("a shard leads out", |bad| index(bad, "../secret.safetensors"), &["../secret.safetensors", "same folder"]),
    (
        "not finite",
        |bad| {
            let mut weights = Weights::read(bad);
            weights.values("model.layers.3.mlp.down_proj.weight")[9] = f32::INFINITY;
            weights.write(bad);
        },
        &["model.layers.3.mlp.down_proj.weight holds non-finite values"],
    ),
];

const ADAPTERS: &[Case] = &[
    ("no folder", |bad| std::fs::remove_dir_all(bad).unwrap(), &["adapter: no such folder"]),
    ("no configuration", |bad| std::fs::remove_file(bad.join("adapter_config.json")).unwrap(), &["no adapter_config.json", "PEFT"]),
    (
        "pickled",
        |bad| std::fs::rename(bad.join("adapter_model.safetensors"), bad.join("adapter_model.bin")).unwrap(),
        &["adapter_model.bin, a pickle", "safe_serialization=True"],
    ),
    ("another kind", |bad| edit(&bad.join("adapter_config.json"), "\"LORA\"", "\"IA3\""), &["peft_type IA3", "merge_and_unload"]),
    (
        "DoRA",
        |bad| edit(&bad.join("adapter_config.json"), "\"r\":1", "\"r\":1,\"use_dora\":true"),
        &["use_dora = true", "merge_and_unload"],
    ),
    ("another rank", |bad| edit(&bad.join("adapter_config.json"), "\"r\":1", "\"r\":2"), &["has rank 1, adapter_config.json says 2"]),
    ("other targets", |bad| edit(&bad.join("adapter_config.json"), "down_proj", "up_proj"), &["down_proj", "adapter_config.json targets"]),
    ("another base", |bad| shape(bad, "q_proj"), &["q_proj", "is this its base?"]),
    ("no module of the base", |bad| shape(bad, "router"), &["router", "fits no tensor of the base"]),
];

/// Renames the module that an adapter of `down_proj` changes.
fn shape(folder: &Path, module: &str) {
    let path = folder.join("adapter_model.safetensors");
    std::fs::rename(&path, folder.join("model.safetensors")).unwrap();
    let mut weights = Weights::read(folder);
    let parent = if module == "q_proj" { "self_attn" } else { "mlp" };
    weights.0 =
        weights.0.into_iter().map(|(name, tensor)| (name.replace("mlp.down_proj", &format!("{parent}.{module}")), tensor)).collect();
    weights.write(folder);
    std::fs::rename(folder.join("model.safetensors"), path).unwrap();
    edit(&folder.join("adapter_config.json"), "down_proj", module);
}

/// What the program says about a copy of a model, and an adapter over it if that is what is spoilt.
fn complaint(case: &Case, is_adapter: bool) {
    let (name, spoil, words) = case;
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    copy(&demo().0.join("series/rl/checkpoint-960"), &folder.path().join("model"));
    std::fs::write(place("prompts.jsonl"), "{\"token_ids\": [1, 4]}\n").unwrap();
    let (model, adapter, prompts, out) = (place("model"), place("checkpoint-1/adapter"), place("prompts.jsonl"), place("out.safetensors"));
    let mut arguments = vec!["extract", "--model", &model, "--prompts", &prompts, "--out", &out];
    if is_adapter {
        crate::adapters::organism_adapters(Path::new(&model), folder.path(), &[(1, 0.1)]);
        arguments.extend(["--adapter", &adapter]);
    }
    spoil(Path::new(if is_adapter { &adapter } else { &model }));
    let output = run(&arguments);
    let message = stderr(&output);
    assert_eq!(output.status.code(), Some(2), "{name}: {message}");
    assert!(!message.contains("panicked") && message.lines().count() == 1, "{name}: {message}");
    assert!(!Path::new(text(Path::new(&out))).exists(), "{name}");
    for word in *words {
        assert!(message.contains(word), "{name}: {word:?} is not in {message}");
    }
}

#[test]
fn every_spoilt_model_folder_gets_one_sentence() {
    MODELS.iter().for_each(|case| complaint(case, false));
}

#[test]
fn every_spoilt_adapter_gets_one_sentence() {
    ADAPTERS.iter().for_each(|case| complaint(case, true));
}
