//! Weights as other people's tools leave them: read as transformers reads them, or refused by the name of what is wrong.

use crate::parity::{assert_agrees, prompts, relative, run};
use safetensors::tensor::{Dtype, TensorView};
use selftrace::model::Checkpoint;
use selftrace::model::stream::{Compute, stream};
use selftrace::prompt::forest::Forest;
use selftrace::walk::store::Readouts;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const UNTIED: &str = "llama_gqa_untied_biases";
const TIED: &str = "llama_mha_tied_f32";

struct Stored {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Stored {
    /// A tensor of ones.
    fn ones(name: &str, shape: &[usize]) -> Self {
        let bytes = 1f32.to_le_bytes().repeat(shape.iter().product());
        Self { name: name.to_owned(), dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity").join(name)
}

/// A model of ../parity to be changed, with its reference.
fn copy(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["config.json", "model.safetensors", "reference.safetensors"] {
        std::fs::copy(fixture(name).join(file), folder.path().join(file)).unwrap();
    }
    folder
}

fn read(path: &Path) -> Vec<Stored> {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let stored = |(name, view): (&str, TensorView)| Stored {
        name: name.to_owned(),
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.iter().map(stored).collect()
}

fn write(path: &Path, tensors: &[Stored]) {
    let view = |tensor: &'_ Stored| TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes).map(drop);
    tensors.iter().for_each(|tensor| view(tensor).unwrap());
    let views = tensors.iter().map(|t| (t.name.as_str(), TensorView::new(t.dtype, t.shape.clone(), &t.bytes).unwrap()));
    std::fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// A model whose tensors are changed.
fn changed(name: &str, change: impl Fn(&mut Vec<Stored>)) -> tempfile::TempDir {
    let folder = copy(name);
    let path = folder.path().join("model.safetensors");
    let mut tensors = read(&path);
    change(&mut tensors);
    write(&path, &tensors);
    folder
}

fn configure(folder: &Path, keys: Value) {
    let path = folder.join("config.json");
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    config.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
    std::fs::write(path, config.to_string()).unwrap();
}

fn agrees(what: &str, folder: &Path) -> Checkpoint {
    let checkpoint = Checkpoint::open(folder).unwrap_or_else(|error| panic!("{what}: {error:#}"));
    assert_agrees(what, &checkpoint, &Readouts::open(&folder.join("reference.safetensors")).unwrap());
    checkpoint
}

fn refusal(what: &str, folder: &Path) -> String {
    let Err(error) = Checkpoint::open(folder) else { panic!("{what}: opened") };
    let text = format!("{error:#}");
    assert!(!text.contains('\n'), "{text}");
    text
}

type Rename = Box<dyn Fn(&str) -> String>;

#[test]
fn what_wrappers_put_into_names_is_taken_off() {
    let before = |prefix: &'static str| move |name: &str| format!("{prefix}{name}");
    let inside = |segment: &'static str| move |name: &str| name.replace("layers.1.", &format!("layers.1.{segment}."));
    let renames: Vec<(&str, Rename)> = vec![
        ("torch.compile", Box::new(before("_orig_mod."))),
        ("data parallel", Box::new(before("module._orig_mod."))),
        ("PEFT", Box::new(before("base_model.model."))),
        ("Lightning", Box::new(before("model."))),
        ("a policy", Box::new(before("policy."))),
        ("checkpointing", Box::new(inside("_checkpoint_wrapped_module"))),
        ("FSDP", Box::new(inside("_fsdp_wrapped_module"))),
        ("question answering", Box::new(|name: &str| name.replacen("model.", "transformer.", 1))),
    ];
    let plain = agrees("as it is", &fixture(UNTIED)).fingerprint();
    for (what, rename) in renames {
        let folder = changed(UNTIED, |tensors| tensors.iter_mut().for_each(|tensor| tensor.name = rename(&tensor.name)));
        assert_eq!(agrees(what, folder.path()).fingerprint(), plain, "{what}");
    }
    let twice = changed(UNTIED, |tensors| {
        let again = Stored { name: format!("module.{}", tensors[0].name), ..Stored::ones("", &tensors[0].shape) };
        tensors.push(again);
    });
    assert!(refusal("twice", twice.path()).contains("wrappers"));
}

/// Two files of all tensors; the second also has the first tensor of the first, with other numbers.
fn shards(folder: &Path, index: bool) -> [PathBuf; 2] {
    let single = folder.join("model.safetensors");
    let mut first = read(&single);
    std::fs::remove_file(single).unwrap();
    let mut second = first.split_off(first.len() / 2);
    let paths = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"].map(|name| folder.join(name));
    if index {
        let file = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        let of = |tensors: &[Stored], path: &PathBuf| tensors.iter().map(|t| (t.name.clone(), file(path).into())).collect::<Vec<_>>();
        let map: serde_json::Map<String, Value> = of(&first, &paths[0]).into_iter().chain(of(&second, &paths[1])).collect();
        std::fs::write(folder.join("model.safetensors.index.json"), json!({"metadata": {}, "weight_map": map}).to_string()).unwrap();
        second.push(Stored {
            bytes: vec![0; first[0].bytes.len()],
            shape: first[0].shape.clone(),
            name: first[0].name.clone(),
            ..first[0]
        });
    }
    write(&paths[0], &first);
    write(&paths[1], &second);
    paths
}

#[test]
fn shards_count_when_they_are_complete_and_an_index_decides_between_them() {
    let folder = copy(UNTIED);
    let [first, _] = shards(folder.path(), false);
    agrees("shards without an index", folder.path());
    std::fs::remove_file(first).unwrap();
    assert!(refusal("one of two", folder.path()).contains("model-00001-of-00002.safetensors"));
    let folder = copy(UNTIED);
    shards(folder.path(), true);
    agrees("a tensor in two shards", folder.path());
    // A save beside an older one: nobody can know which is meant.
    std::fs::copy(fixture(UNTIED).join("model.safetensors"), folder.path().join("model.safetensors")).unwrap();
    let said = refusal("two saves", folder.path());
    assert!(said.contains("model.safetensors") && said.contains("00001-of-00002"), "{said}");
    // Neither where the other save was interrupted, and its index never written.
    for file in ["model-00001-of-00002.safetensors", "model.safetensors.index.json"] {
        std::fs::remove_file(folder.path().join(file)).unwrap();
    }
    assert!(refusal("a save and a half", folder.path()).contains("00002-of-00002"));
}

#[test]
fn an_index_decides_between_any_number_of_shards_and_names_nothing_that_is_not_there() {
    let folder = copy(UNTIED);
    let [first, second] = shards(folder.path(), false);
    let third = folder.path().join("model-00003-of-00003.safetensors");
    let index = folder.path().join("model.safetensors.index.json");
    let (mut one, mut two) = (read(&first), read(&second));
    let spoilt =
        |tensor: &Stored| Stored { name: tensor.name.clone(), bytes: vec![0; tensor.bytes.len()], shape: tensor.shape.clone(), ..*tensor };
    // The one tensor is in three files, and the last of them is meant.
    let last = one.pop().unwrap();
    let map: serde_json::Map<String, Value> = [(&one, &first), (&two, &second)]
        .into_iter()
        .flat_map(|(tensors, path)| tensors.iter().map(move |t| (t.name.clone(), path.file_name().unwrap().to_str().unwrap().into())))
        .chain([(last.name.clone(), "model-00003-of-00003.safetensors".into())])
        .collect();
    one.push(spoilt(&last));
    two.push(spoilt(&last));
    write(&first, &one);
    write(&second, &two);
    write(&third, &[last]);
    std::fs::write(&index, json!({"weight_map": map}).to_string()).unwrap();
    agrees("a tensor in three shards", folder.path());
    // Without its head this model would be walked without answers, which is right only where nothing says that there is one.
    two.retain(|tensor| tensor.name != "lm_head.weight");
    one.retain(|tensor| tensor.name != "lm_head.weight");
    write(&first, &one);
    write(&second, &two);
    let said = refusal("a shard that was cut", folder.path());
    assert!(said.contains("lm_head.weight") && said.contains("index.json"), "{said}");
}

#[test]
fn parts_of_the_model_that_nothing_reads_are_refused_by_name() {
    let q = "model.layers.0.self_attn.q_proj";
    for (tensor, shape, said) in [
        (format!("{q}.lora_A.default.weight"), vec![4, 32], "never merged"),
        ("model.layers.2.mlp.up_proj.bias_extra".to_owned(), vec![36], "bias_extra"),
        ("model.layers.1.self_attn.k_norm.weight".to_owned(), vec![8], "another architecture"),
        (format!("{q}.weight_scale"), vec![1], "dequantise"),
        ("model.norm.bias".to_owned(), vec![32], "model.norm.bias"),
        ("lm_head.bias".to_owned(), vec![66], "lm_head.bias"),
        ("model.embed_positions.weight".to_owned(), vec![64, 32], "embed_positions"),
    ] {
        let folder = changed(UNTIED, |tensors| tensors.push(Stored::ones(&tensor, &shape)));
        let text = refusal(&tensor, folder.path());
        assert!(text.contains(&tensor) && text.contains(said), "{text}");
    }
    let over = changed(UNTIED, |tensors| {
        tensors.iter_mut().for_each(|tensor| tensor.name = tensor.name.replace(q, &format!("{q}.base_layer")));
    });
    assert!(refusal("base_layer", over.path()).contains("base_layer"));
    // Other heads, what old versions stored, and blocks past the last one.
    let folder = changed(UNTIED, |tensors| {
        for (name, shape) in [
            ("v_head.summary.weight", vec![1, 32]),
            ("score.weight", vec![2, 32]),
            ("model.layers.0.self_attn.rotary_emb.inv_freq", vec![4]),
            ("model.layers.3.mlp.up_proj.weight", vec![36, 32]),
        ] {
            tensors.push(Stored::ones(name, &shape));
        }
    });
    agrees("what is beside the model", folder.path());
}

#[test]
fn a_class_may_be_a_wrappers_or_that_of_another_head() {
    let folder = copy(UNTIED);
    for class in [
        "FSDPLlamaForCausalLM",
        "LlamaModel",
        "LlamaForSequenceClassification",
        "PeftModelForCausalLM",
        "LLaMAForCausalLM",
        "OptimizedModule",
    ] {
        configure(folder.path(), json!({"architectures": [class]}));
        agrees(class, folder.path());
    }
    for (keys, said) in [
        (json!({"architectures": ["MistralForCausalLM"]}), "model_type says llama"),
        (json!({"architectures": ["BertForMaskedLM"]}), "BertForMaskedLM"),
        (json!({"architectures": ["LlamaEncoderModel"], "auto_map": {"AutoModel": "modeling.LlamaEncoderModel"}}), "auto_map"),
        (json!({"architectures": ["LlamaForCausalLM"], "auto_map": {}, "is_causal": false}), "is_causal"),
    ] {
        configure(folder.path(), keys);
        let text = refusal(said, folder.path());
        assert!(text.contains(said), "{text}");
    }
}

/// transformers 5 unties a head that differs; what ties is the matrix, not the key.
#[test]
fn a_head_of_its_own_is_read_whatever_the_configuration_says() {
    let head = |scale: f32| {
        move |tensors: &mut Vec<Stored>| {
            let embedding = tensors.iter().find(|tensor| tensor.name == "model.embed_tokens.weight").unwrap();
            let (bytes, shape) = (embedding.bytes.clone(), embedding.shape.clone());
            let scaled = bytes.as_chunks::<4>().0.iter().flat_map(|x| (f32::from_le_bytes(*x) * scale).to_le_bytes()).collect();
            tensors.push(Stored { name: "lm_head.weight".to_owned(), dtype: Dtype::F32, shape, bytes: scaled });
        }
    };
    let same = changed(TIED, head(1.0));
    assert!(agrees("the same head", same.path()).notes.is_empty());
    let other = changed(TIED, head(-0.5));
    let untied = Checkpoint::open(other.path()).unwrap();
    assert!(untied.notes.iter().any(|note| note.contains("lm_head.weight")), "{:?}", untied.notes);
    let asked = prompts(&Readouts::open(&other.path().join("reference.safetensors")).unwrap());
    let (_, found) = run(&untied, &asked, Kind::Float);
    configure(other.path(), json!({"tie_word_embeddings": false}));
    let (_, right) = run(&Checkpoint::open(other.path()).unwrap(), &asked, Kind::Float);
    assert_eq!(found, right);
    let (_, tied) = run(&Checkpoint::open(&fixture(TIED)).unwrap(), &asked, Kind::Float);
    assert_ne!(found, tied);
    // The one matrix may have been saved as either end.
    let renamed = changed(TIED, |tensors| {
        tensors.iter_mut().filter(|tensor| tensor.name.contains("embed")).for_each(|tensor| tensor.name = "lm_head.weight".to_owned());
    });
    agrees("saved as the head", renamed.path());
}

#[test]
fn a_model_without_a_head_has_activations_and_no_answers() {
    for bare in [false, true] {
        let folder = changed(UNTIED, |tensors| {
            tensors.retain(|tensor| tensor.name != "lm_head.weight");
            if bare {
                tensors.iter_mut().for_each(|tensor| tensor.name = tensor.name.replacen("model.", "", 1));
            }
        });
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(checkpoint.unembedding.is_none() && checkpoint.notes.iter().any(|note| note.contains("tied")));
        let reference = Readouts::open(&folder.path().join("reference.safetensors")).unwrap();
        let asked = prompts(&reference);
        let forest = Forest::new(&asked);
        let nodes: Vec<i64> = (0..asked.len()).flat_map(|i| forest.span(i, 0..asked[i].len())).map(|node| node as i64).collect();
        let compute = Compute { device: Device::Cpu, kind: Kind::Float };
        stream(&checkpoint, &forest, compute, checkpoint.config.n_layers, &mut |layer, resid| {
            let ours = Vec::<f64>::try_from(resid.index_select(0, &Tensor::from_slice(&nodes)).flatten(0, -1).to_kind(Kind::Double))?;
            let theirs = reference.layer("hidden", layer)?;
            assert!(relative(&ours, theirs.iter().map(|x| f64::from(*x))) < 1e-5, "layer {layer}");
            Ok(())
        })
        .unwrap();
    }
}

#[test]
fn numbers_in_f64_are_numbers_and_a_left_over_key_quantises_nothing() {
    let wide = changed(TIED, |tensors| {
        for tensor in tensors {
            tensor.bytes = tensor.bytes.as_chunks::<4>().0.iter().flat_map(|x| f64::from(f32::from_le_bytes(*x)).to_le_bytes()).collect();
            tensor.dtype = Dtype::F64;
        }
    });
    configure(wide.path(), json!({"quantization_config": {"quant_method": "gptq"}}));
    let checkpoint = agrees("f64", wide.path());
    assert!(checkpoint.notes.iter().any(|note| note.contains("left over")));
    let packed = changed(TIED, |tensors| {
        let tensor = tensors.iter_mut().find(|tensor| tensor.name.ends_with("up_proj.weight")).unwrap();
        tensor.name = tensor.name.replace("weight", "qweight");
    });
    configure(packed.path(), json!({"quantization_config": {"quant_method": "gptq"}}));
    let text = refusal("packed", packed.path());
    assert!(text.contains("quantised (gptq)") && text.contains("up_proj.weight"), "{text}");
}

#[test]
fn a_key_that_is_not_understood_can_be_ignored_by_name() {
    let folder = copy(UNTIED);
    configure(folder.path(), json!({"sparsity": {"share": 0.1}}));
    let text = refusal("sparsity", folder.path());
    assert!(text.contains("sparsity") && text.contains("[model] ignore"), "{text}");
    let ignored = Checkpoint::open_ignoring(folder.path(), &["sparsity".to_owned()]).unwrap();
    assert!(ignored.notes[0].contains("sparsity"), "{:?}", ignored.notes);
    // A key that is read cannot.
    configure(folder.path(), json!({"sparsity": null, "hidden_act": "mish"}));
    let Err(error) = Checkpoint::open_ignoring(folder.path(), &["hidden_act".to_owned()]) else { panic!("opened") };
    assert!(format!("{error:#}").contains("mish"));
}

#[test]
fn a_manifest_puts_adapters_one_over_another_and_ignores_keys_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let adapters = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adapters");
    let text = format!(
        "[model]\nignore = [\"sparsity\"]\n[[checkpoint]]\nid = \"a\"\nstage = \"s\"\nbase = {:?}\nadapter = [{:?}, {:?}]\n",
        fixture(UNTIED),
        adapters.join("plain"),
        adapters.join("second"),
    );
    let path = folder.path().join("checkpoints.toml");
    std::fs::write(&path, &text).unwrap();
    let manifest = selftrace::manifest::Manifest::load(&path).unwrap();
    let names: Vec<String> = manifest.checkpoints[0].adapters().map(ToString::to_string).collect();
    assert!(names[0].ends_with("plain") && names[1].ends_with("second"), "{names:?}");
    assert_eq!(manifest.model.ignore, ["sparsity"]);
    // The step belongs to the last one.
    std::fs::write(&path, text.replace("adapters/plain", "adapters/checkpoint-{step}")).unwrap();
    let said = selftrace::manifest::Manifest::load(&path).unwrap_err().to_string();
    assert!(said.contains("adapter") && said.contains("the step belongs to the last one"), "{said}");
}
