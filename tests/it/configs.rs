//! `config.json` of every family, as the Hub has them and as transformers 4 and 5 write them: what is read agrees with what
//! transformers reads, and what is not understood is refused by name.

use selftrace::model::architecture::{ARCHITECTURES, resolve};
use selftrace::model::config::DecoderConfig;
use serde_json::{Value, json};
use std::path::Path;

/// Name, configuration, and what transformers made of it.
fn configurations() -> Vec<(String, Value, Value)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/configs/configs.jsonl");
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.map(|line| (line["name"].as_str().unwrap().to_owned(), line["config"].clone(), line["read"].clone())).collect()
}

fn configuration(name: &str) -> Value {
    configurations().into_iter().find(|(other, ..)| other == name).unwrap().1
}

fn assert_agrees(name: &str, ours: &DecoderConfig, theirs: &Value) {
    assert_eq!(ours.d_head, theirs["d_head"].as_i64().unwrap(), "{name}: d_head");
    assert_eq!(ours.n_kv_heads, theirs["n_kv_heads"].as_i64().unwrap(), "{name}: n_kv_heads");
    assert_eq!(ours.tied, theirs["tied"].as_bool().unwrap(), "{name}: tied");
    let layers = theirs["layers"].as_array().unwrap();
    assert_eq!(ours.views.len(), layers.len(), "{name}: layers");
    for (index, (view, layer)) in ours.views.iter().zip(layers).enumerate() {
        assert_eq!(view.window, layer[0].as_i64(), "{name}: window of layer {index}");
        let Some(kind) = layer[1].as_str() else {
            assert_eq!(view.rope, None, "{name}: layer {index} has no positions");
            continue;
        };
        let (rope, angles) = (&ours.ropes[view.rope.unwrap()], &theirs["ropes"][kind]);
        let len = rope.inv_freq.len();
        assert_eq!(len as u64, angles["len"].as_u64().unwrap(), "{name}: rotated pairs");
        let first = angles["first"].as_array().unwrap().iter().zip(&rope.inv_freq).map(|(theirs, ours)| (*ours, theirs));
        let others =
            [(rope.inv_freq[len / 2], &angles["middle"]), (rope.inv_freq[len - 1], &angles["last"]), (rope.scale, &angles["scale"])];
        for (ours, theirs) in first.chain(others) {
            let theirs = theirs.as_f64().unwrap();
            assert!((f64::from(ours) / theirs - 1.0).abs() < 1e-5, "{name}: layer {index}: {ours} against {theirs}");
        }
    }
}

#[test]
fn what_is_read_is_what_transformers_reads() {
    for (name, config, theirs) in configurations() {
        let (_, ours) = resolve(&config).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        assert_agrees(&name, &ours, &theirs);
    }
}

#[test]
fn every_family_is_among_the_configurations() {
    let names: Vec<String> =
        configurations().iter().map(|(_, config, _)| config["architectures"][0].as_str().unwrap().to_owned()).collect();
    for name in ARCHITECTURES.iter().flat_map(|architecture| architecture.names) {
        assert!(names.iter().any(|other| other == name), "no configuration of {name}");
    }
}

/// What a configuration with some keys changed is refused with.
fn refusal(name: &str, change: Value) -> String {
    let mut config = configuration(name);
    config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    match resolve(&config) {
        Ok(_) => panic!("{name} with {change} was accepted"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn what_would_change_the_result_is_refused_by_name() {
    let cases = [
        ("Llama-3.1-8B", json!({"attention_multiplier": 0.5}), "attention_multiplier: found 0.5"),
        (
            "Llama-3.1-8B",
            json!({"rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "mystery": 2}}),
            "rope_scaling.mystery: found 2",
        ),
        ("Llama-3.1-8B", json!({"rope_scaling": {"type": "dynamic", "factor": 2.0, "alpha": 3}}), "rope_scaling.alpha: found 3"),
        (
            "Llama-3.1-8B",
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "attention_factor": -1.0}}),
            "attention_factor of the rope scaling: found -1",
        ),
        (
            "Llama-3.1-8B",
            json!({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 0}}),
            "trained length of the rope scaling: found 0",
        ),
        ("Llama-3.1-8B", json!({"is_causal": false}), "is_causal: found false"),
        ("pythia-70m", json!({"rope_theta": 20000}), "rope_theta: found 20000"),
        ("pythia-70m", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor: found 0.5"),
        (
            "gemma-3-1b-it",
            json!({"_sliding_window_pattern": 3, "sliding_window_pattern": null, "layer_types": null}),
            "_sliding_window_pattern: found 3",
        ),
        ("Llama-3.1-8B", json!({"layer_types": ["sliding_attention"]}), "layer_types: found"),
        ("Llama-3.1-8B", json!({"partial_rotary_factor": 0.5}), "partial_rotary_factor: found 0.5"),
        ("Llama-3.1-8B", json!({"rope_parameters": {"rope_theta": 500000.0}}), "rope_parameters and rope_scaling"),
        ("SmolLM2-135M", json!({"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}}), "rope_theta: found 100000"),
        ("Llama-3.1-8B", json!({"vocab_size": null}), "key `vocab_size` is missing"),
        ("Llama-3.1-8B", json!({"hidden_act": "relu6"}), "relu6"),
        ("Llama-3.1-8B", json!({"num_key_value_heads": 5}), "num_key_value_heads (5)"),
        ("Mistral-7B-v0.1", json!({"layer_types": ["full_attention"]}), "layer_types: found"),
        ("Qwen2.5-7B-Instruct", json!({"layer_types": vec!["sliding_attention"; 28]}), "use_sliding_window"),
        ("Qwen2.5-7B-Instruct", json!({"layer_types": vec!["full_attention"; 3]}), "layer_types: found 3 types, expected 28"),
        ("Qwen2.5-7B-Instruct", json!({"layer_types": vec!["chunked_attention"; 28]}), "layer_types"),
        ("Olmo-3-1025-7B", json!({"rope_theta": 10000}), "rope_theta: found 10000"),
        (
            "Olmo-3-1025-7B",
            json!({"rope_scaling": null, "rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}),
            "a table for each",
        ),
        ("Apertus-8B-2509", json!({"rope_scaling": null}), "rope_parameters and rope_scaling are both absent"),
        ("Apertus-8B-2509", json!({"qk_norm": false}), "qk_norm"),
        ("gemma-2-2b", json!({"use_bidirectional_attention": true}), "use_bidirectional_attention"),
        ("gemma-3-1b-it", json!({"attn_logit_softcapping": 50.0}), "attn_logit_softcapping: found 50.0"),
        ("gpt2", json!({"add_cross_attention": true}), "cross-attention"),
        (
            "Phi-3.5-mini",
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}),
            "short_factor: found 1 numbers, expected 48",
        ),
        ("SmolLM3-3B", json!({"no_rope_layers": [1, 0]}), "no_rope_layers: found 2 layers, expected 36"),
        ("Mixtral-8x7B-v0.1", json!({"num_experts_per_tok": 9}), "num_experts_per_tok (9)"),
        ("granite-3.1-2b-instruct", json!({"position_embedding_type": "alibi"}), "position_embedding_type: found \"alibi\""),
    ];
    for (name, change, expected) in cases {
        let found = refusal(name, change);
        assert!(found.contains(expected), "{name}: {found}");
    }
    let mut config = configuration("gemma-3-4b-it");
    config["text_config"]["mystery"] = json!(1);
    assert!(resolve(&config).err().unwrap().to_string().contains("text_config.mystery: found 1"));
}

#[test]
fn what_changes_nothing_is_accepted() {
    for change in [
        json!({"attention_dropout": 0.5, "eos_token_id": [1, 2], "temperature": 0.6}),
        json!({"mystery": null, "riddle": false, "enigma": []}),
        json!({"layer_types": vec!["full_attention"; 32], "sliding_window": 4096, "max_window_layers": 28}),
        json!({"model_max_length": 4096, "hidden_dropout_prob": 0.1, "axolotl_version": "0.9", "is_decoder": true}),
        json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}}),
    ] {
        let mut config = configuration("Llama-3.1-8B");
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(resolve(&config).unwrap().1, resolve(&configuration("Llama-3.1-8B")).unwrap().1);
    }
    for (name, change) in [
        ("pythia-70m", json!({"rope_theta": 10000, "partial_rotary_factor": 0.25})),
        ("gpt2", json!({"n_special": 0, "predict_special_tokens": true})),
    ] {
        let mut config = configuration(name);
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        assert_eq!(resolve(&config).unwrap().1, resolve(&configuration(name)).unwrap().1, "{name}");
    }
}
