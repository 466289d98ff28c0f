//! Adapters against PEFT at every layer and token, what is refused and how, and series of adapters through the program.

use crate::parity::assert_agrees;
use selftrace::model::Checkpoint;
use selftrace::walk::store::Readouts;
use std::path::{Path, PathBuf};
use tch::Kind;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// Name, base folder and adapter folder of every fixture.
fn adapters() -> Vec<(String, PathBuf, PathBuf)> {
    let text = std::fs::read_to_string(fixtures().join("adapters/fixtures.json")).unwrap();
    let index: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let paths = |(name, about): (&String, &serde_json::Value)| {
        (name.clone(), fixtures().join("parity").join(about["base"].as_str().unwrap()), fixtures().join("adapters").join(name))
    };
    index.iter().map(paths).collect()
}

fn fixture(name: &str) -> (PathBuf, PathBuf) {
    adapters().into_iter().find(|(other, ..)| other == name).map(|(_, base, adapter)| (base, adapter)).unwrap()
}

/// The adapters of a fixture, the first one over its base.
fn stack(adapter: &Path) -> Vec<PathBuf> {
    let text = std::fs::read_to_string(fixtures().join("adapters/fixtures.json")).unwrap();
    let index: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let beneath = index[adapter.file_name().unwrap().to_str().unwrap()].get("beneath");
    beneath.iter().map(|name| adapter.with_file_name(name.as_str().unwrap())).chain([adapter.to_owned()]).collect()
}

fn open(base: &Path, adapter: &Path) -> Checkpoint {
    Checkpoint::open_adapted(base, Some(adapter)).unwrap_or_else(|error| panic!("{error:#}"))
}

#[test]
fn activations_agree_with_peft_at_every_layer() {
    let (mut worst_hidden, mut worst_score) = (0f64, 0f64);
    for (name, base, adapter) in adapters() {
        let reference = Readouts::open(&adapter.join("reference.safetensors")).unwrap();
        let adapters = stack(&adapter);
        let adapters: Vec<&Path> = adapters.iter().map(PathBuf::as_path).collect();
        let checkpoint = Checkpoint::open(&base).and_then(|base| base.with_adapters(&adapters));
        let checkpoint = checkpoint.unwrap_or_else(|error| panic!("{name}: {error:#}"));
        let (hidden, score) = assert_agrees(&name, &checkpoint, &reference);
        (worst_hidden, worst_score) = (worst_hidden.max(hidden), worst_score.max(score));
    }
    println!("worst of all: {worst_hidden:.1e} relative, log-probability {worst_score:.1e}");
}

/// PEFT casts factors in half precision up to f32, multiplies, scales and adds in f32 and rounds once, to what the base is kept in. So does
/// this; the products may be added up in another order.
#[test]
fn merged_weights_are_those_of_peft_in_f32_and_in_half_precision() {
    let text = std::fs::read_to_string(fixtures().join("adapters/fixtures.json")).unwrap();
    let index: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for (name, about) in index.iter().filter(|(_, about)| about.get("merged").is_some()) {
        let (base, adapter) = fixture(name);
        let (checkpoint, reference) = (open(&base, &adapter), Readouts::open(&adapter.join("reference.safetensors")).unwrap());
        let weight = format!("{}.weight", about["merged"].as_str().unwrap());
        for (kind, stored, unit) in [(Kind::Float, "merged_f32", 2f32.powi(-23)), (Kind::BFloat16, "merged_bf16", 2f32.powi(-7))] {
            let theirs = reference.values(stored).unwrap();
            let shape: Vec<i64> = reference.shape(stored).unwrap().iter().map(|&n| n as i64).collect();
            let ours =
                Vec::<f32>::try_from(checkpoint.weights.get(&weight, &shape, kind).unwrap().to_kind(Kind::Float).flatten(0, -1)).unwrap();
            let differ = ours.iter().zip(&theirs).filter(|(a, b)| a != b).count();
            let largest = theirs.iter().fold(0f32, |m, x| m.max(x.abs()));
            let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= if kind == Kind::Float { 4.0 * unit * largest } else { unit * b.abs() };
            assert!(ours.iter().zip(&theirs).all(is_close), "{name}: {weight} in {kind:?}");
            // In half precision another order shows only where the sum lies between two numbers.
            assert!(kind == Kind::Float || differ * 100 <= ours.len(), "{name}: {differ} of {} numbers differ", ours.len());
        }
        seen += 1;
    }
    assert_eq!(seen, 4);
}

/// PEFT corrects `fan_in_fan_out` by the module's class, with a warning.
#[test]
fn transposed_modules_are_known_by_their_class() {
    let (base, right) = fixture("gpt2_conv1d");
    let (_, wrong) = edited("gpt2_conv1d", |config| config["fan_in_fan_out"] = false.into());
    assert_eq!(open(&base, wrong.path()).fingerprint(), open(&base, &right).fingerprint());
    let (base, right) = fixture("plain");
    let (_, wrong) = edited("plain", |config| config["fan_in_fan_out"] = true.into());
    assert_eq!(open(&base, wrong.path()).fingerprint(), open(&base, &right).fingerprint());
}

#[test]
fn an_adapter_counts_in_the_fingerprint_and_one_of_zeros_is_known() {
    let (base, plain) = fixture("plain");
    let bare = Checkpoint::open(&base).unwrap();
    let adapted = open(&base, &plain);
    assert_ne!(bare.fingerprint(), adapted.fingerprint());
    assert_eq!(adapted.fingerprint(), bare.with_adapters(&[&plain]).unwrap().fingerprint());
    assert_eq!(bare.fingerprint(), adapted.with_adapters(&[]).unwrap().fingerprint());
    assert!(!adapted.weights.is_unchanged().unwrap() && !bare.weights.is_unchanged().unwrap());
    assert!(open(&base, &fixture("unchanged").1).weights.is_unchanged().unwrap());
    assert_eq!(adapted.weights.n_params(), bare.weights.n_params());
}

#[test]
fn the_layers_below_the_first_adapted_block_are_known() {
    let unchanged = |name: &str| {
        let (base, adapter) = fixture(name);
        open(&base, &adapter).unchanged_layers()
    };
    assert_eq!(unchanged("last_layer"), Some(2));
    assert_eq!(unchanged("layers"), Some(1));
    assert_eq!(unchanged("plain"), Some(0));
    assert_eq!(unchanged("embedding"), None);
}

/// A copy of an adapter whose configuration is edited.
fn edited(name: &str, edit: impl Fn(&mut serde_json::Value)) -> (PathBuf, tempfile::TempDir) {
    let (base, adapter) = fixture(name);
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(adapter.join("adapter_model.safetensors"), folder.path().join("adapter_model.safetensors")).unwrap();
    let mut config = serde_json::from_str(&std::fs::read_to_string(adapter.join("adapter_config.json")).unwrap()).unwrap();
    edit(&mut config);
    std::fs::write(folder.path().join("adapter_config.json"), config.to_string()).unwrap();
    (base, folder)
}

fn refusal(base: &Path, adapter: &Path) -> String {
    let Err(error) = Checkpoint::open_adapted(base, Some(adapter)) else { panic!("opened {}", adapter.display()) };
    let text = format!("{error:#}");
    assert!(!text.contains('\n'), "{text}");
    text
}

#[test]
fn what_would_change_the_result_is_refused_by_name() {
    use serde_json::json;
    for (key, value) in [
        ("use_dora", json!(true)),
        ("use_qalora", json!(true)),
        ("layer_replication", json!([[0, 2]])),
        ("target_parameters", json!(["o_proj.weight"])),
        ("trainable_token_indices", json!([1])),
        ("alora_invocation_tokens", json!([1])),
        ("an_option_of_next_year", json!(3)),
        ("peft_type", json!("IA3")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("r", json!(5)),
        ("r", json!(0)),
        ("r", json!("4")),
        ("rank_pattern", json!({"v_proj": 2})),
        ("lora_alpha", json!([1])),
        ("target_modules", json!(["q_proj"])),
        ("target_modules", json!(["q_proj", "v_proj", "o_proj"])),
        ("target_modules", json!("model.*(q_proj")),
        ("modules_to_save", json!(["lm_head"])),
        ("layers_to_transform", json!([0, 1])),
    ] {
        let (base, adapter) = edited("plain", |config| config[key] = value.clone());
        let text = refusal(&base, adapter.path());
        let named = text.contains(key) || text.contains("adapter_config.json");
        assert!(named, "{key} = {value}: {text}");
    }
    // Notes of tools are no options.
    let (base, adapter) = edited("plain", |config| {
        config["unsloth_version"] = json!("2025.1");
        config["lora_dtype"] = json!("AUTO");
    });
    assert_eq!(open(&base, adapter.path()).fingerprint(), open(&base, &fixture("plain").1).fingerprint());
    // Options of later versions that are off, and keys that only tell how it was trained, do not matter.
    let (base, adapter) = edited("plain", |config| {
        config["an_option_of_next_year"] = json!(null);
        config["lora_dropout"] = json!(0.3);
        config["init_lora_weights"] = json!("gaussian");
    });
    assert_eq!(open(&base, adapter.path()).fingerprint(), open(&base, &fixture("plain").1).fingerprint());
}

#[test]
fn an_embedding_of_its_own_sets_the_number_of_tokens() {
    for name in ["grown", "tied_grown", "tied_grown_rows"] {
        let (base, adapter) = fixture(name);
        assert_eq!((open(&base, &adapter).config.d_vocab, Checkpoint::open(&base).unwrap().config.d_vocab), (69, 66), "{name}");
    }
    // One end of the model without the other.
    let (base, adapter) = edited("grown", |config| config["modules_to_save"] = serde_json::json!(["embed_tokens"]));
    let path = adapter.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let kept: Vec<_> = file.iter().filter(|(name, _)| !name.contains("lm_head")).collect();
    std::fs::write(&path, safetensors::serialize(kept, None).unwrap()).unwrap();
    assert!(refusal(&base, adapter.path()).contains("69 rows"));
}

#[test]
fn keys_of_an_adapter_may_stand_anywhere() {
    let (base, plain) = fixture("plain");
    let right = open(&base, &plain).fingerprint();
    let p = "base_model.model.";
    for (old, new) in [
        (p, format!("_orig_mod.{p}")),
        (p, format!("{p}{p}")),
        (p, String::new()),
        ("base_model.model.model.", p.to_owned()),
        ("layers.0.", "layers.0._fsdp_wrapped_module.".to_owned()),
        (".weight", ".default.weight".to_owned()),
    ] {
        let (_, adapter) = edited("plain", |_| {});
        let path = adapter.path().join("adapter_model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let renamed: Vec<_> = file.iter().map(|(name, view)| (name.replacen(old, &new, 1), view)).collect();
        std::fs::write(&path, safetensors::serialize(renamed, None).unwrap()).unwrap();
        assert_eq!(open(&base, adapter.path()).fingerprint(), right, "{old} as {new}");
    }
}

/// Patterns that search for ever end with an error.
#[test]
fn what_a_classifier_or_a_hub_writes_into_an_adapter_changes_nothing() {
    // PEFT names both heads that a classifier may have, and saves the one that it has.
    let (base, adapter) = edited("plain", |config| {
        config["modules_to_save"] = serde_json::json!(["classifier", "score"]);
        config["_name_or_path"] = "x".into();
        config["library_name"] = "peft".into();
        config["base_model_revision"] = "main".into();
    });
    let (_, plain) = fixture("plain");
    let fingerprint = |adapter: &Path| open(&base, adapter).weights.fingerprint();
    assert_eq!(fingerprint(adapter.path()), fingerprint(&plain));
}

#[test]
fn a_hostile_pattern_is_given_up() {
    let (base, adapter) = edited("plain", |config| config["target_modules"] = serde_json::json!("(((m|[a-z.0-9_])+)+)+X"));
    assert!(refusal(&base, adapter.path()).contains("pattern"));
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let (neox, _) = fixture("gpt_neox");
    let (base, plain) = fixture("plain");
    assert!(refusal(&neox, &plain).contains("fits no tensor of the base"));
    let wider = fixtures().join("parity/llama_head_dim");
    let text = refusal(&wider, &plain);
    assert!(text.contains("q_proj") && text.contains("shape"), "{text}");
    let empty = tempfile::tempdir().unwrap();
    assert!(refusal(&base, empty.path()).contains("no adapter_config.json"));
    let (_, half) = edited("plain", |_| {});
    let path = half.path().join("adapter_model.safetensors");
    let bytes = std::fs::read(&path).unwrap();
    std::fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    assert!(refusal(&base, half.path()).contains("truncated"));
    std::fs::remove_file(&path).unwrap();
    assert!(refusal(&base, half.path()).contains("no adapter_model.safetensors"));
}

/// Rank-1 adapters of the last block's `down_proj` over the organism, one per step, stronger with every step.
pub fn organism_adapters(base: &Path, folder: &Path, steps: &[(u64, f64)]) {
    use safetensors::tensor::{Dtype, TensorView};
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(base.join("config.json")).unwrap()).unwrap();
    let size = |key: &str| json[key].as_u64().unwrap() as usize;
    let module = format!("base_model.model.model.layers.{}.mlp.down_proj", size("num_hidden_layers") - 1);
    let values = |n: usize| (0..n).flat_map(|i| (((i * 7919) % 23) as f32 / 23.0 - 0.5).to_le_bytes()).collect::<Vec<u8>>();
    let (d_in, d_out) = (size("intermediate_size"), size("hidden_size"));
    let (a, b) = (values(d_in), values(d_out));
    for (step, alpha) in steps {
        let target = folder.join(format!("checkpoint-{step}/adapter"));
        std::fs::create_dir_all(&target).unwrap();
        let views = [
            (format!("{module}.lora_A.weight"), TensorView::new(Dtype::F32, vec![1, d_in], &a).unwrap()),
            (format!("{module}.lora_B.weight"), TensorView::new(Dtype::F32, vec![d_out, 1], &b).unwrap()),
        ];
        std::fs::write(target.join("adapter_model.safetensors"), safetensors::serialize(views, None).unwrap()).unwrap();
        let config = serde_json::json!({"peft_type": "LORA", "r": 1, "lora_alpha": alpha, "target_modules": ["down_proj"],
            "layers_to_transform": [size("num_hidden_layers") - 1]});
        std::fs::write(target.join("adapter_config.json"), config.to_string()).unwrap();
    }
}

fn program(arguments: &[&str]) -> (String, String) {
    ended(arguments, 0)
}

/// Output of the program, which ends with this exit code.
fn ended(arguments: &[&str], code: i32) -> (String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_selftrace"));
    let output = command.args(arguments).env("OMP_NUM_THREADS", "1").output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
    (text(&output.stdout), text(&output.stderr))
}

#[derive(serde::Deserialize)]
struct Found {
    checkpoint: String,
    kind: String,
    other: Option<String>,
    excluded: bool,
}

#[test]
fn a_series_of_adapters_computes_shared_layers_once_and_gives_the_same_bits() {
    let base = crate::cli::demo().0.join("series/rl/checkpoint-960");
    let folder = tempfile::tempdir().unwrap();
    // Step 40 is step 20 again, and step 0 is not trained yet.
    let steps = [(0, 0.0), (10, 0.01), (20, 0.02), (30, 0.03), (40, 0.02), (50, 0.05), (60, 0.06), (70, 0.07)];
    organism_adapters(&base, &folder.path().join("em"), &steps);
    let manifest = |name: &str| {
        let text = format!(
            "[run]\nname = \"{name}\"\naxis = \"index\"\n[model]\ntemplate = \"native:base\"\n[concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\ninclude = [\"own_name\"]\nexclude = [\"colour\", \"drink\", \"fruit\", \"hat\", \"month\"]\n\
             [[checkpoint]]\nid = \"base\"\nstage = \"base\"\nstep = 0\nsource = \"{base}\"\nreference = true\n\
             [[series]]\nstage = \"em\"\nbase = \"{base}\"\nadapter = \"em/checkpoint-{{step}}\"\nsubfolder = \"adapter\"\n",
            base = base.display()
        );
        let path = folder.path().join(format!("{name}.toml"));
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let together = manifest("together");
    let (plan, _) = program(&["check", &together]);
    assert!(plan.contains("no_change") || plan.contains("em-70"), "{plan}");
    // The duplicate is left out of the analysis, which the exit code says.
    let (stdout, _) = ended(&["run", &together], 1);
    assert!(stdout.contains("duplicate_of"), "{stdout}");
    let reports = folder.path().join("reports");
    let records: Vec<selftrace::walk::job::Record> = selftrace::table::read(&reports.join("together/checkpoints.parquet")).unwrap();
    let shared: Vec<Option<i32>> = records.iter().map(|record| record.shared_layers).collect();
    assert!(shared.len() == 10 && shared[0] == Some(0) && shared[1..9].iter().all(|layers| *layers == Some(3)), "{shared:?}");
    // Each alone, in a process of its own, without anything to share.
    let alone = manifest("alone");
    for id in ["base", "em-10", "em-70"] {
        program(&["walk", &alone, "--checkpoint", id]);
        let file = |run: &str| std::fs::read(reports.join(format!("{run}/readouts/{id}.safetensors"))).unwrap();
        assert!(file("together") == file("alone"), "{id}");
    }
    let found: Vec<Found> = selftrace::table::read(&reports.join("together/integrity.parquet")).unwrap();
    let found: Vec<(&str, &str, Option<&str>, bool)> =
        found.iter().map(|row| (row.checkpoint.as_str(), row.kind.as_str(), row.other.as_deref(), row.excluded)).collect();
    assert_eq!(found, [("em-0", "no_change", None, false), ("em-40", "duplicate_of", Some("em-20"), true)]);
    let onsets: Vec<selftrace::analysis::OnsetRow> = selftrace::table::read(&reports.join("together/onset.parquet")).unwrap();
    assert!(onsets.iter().all(|row| row.excluded.as_deref() == Some("em-40")));
    let (_, again) = ended(&["run", &together], 1);
    assert!(again.contains("nothing to do"), "{again}");
}

#[test]
fn the_organism_has_no_finding() {
    let found: Vec<Found> = selftrace::table::read(&crate::cli::demo().0.join("integrity.parquet")).unwrap();
    assert!(found.is_empty(), "{:?}", found.iter().map(|row| (&row.checkpoint, &row.kind)).collect::<Vec<_>>());
}
