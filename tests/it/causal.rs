//! Causation end to end on models in which the truth was planted: a direction that writes to the answer, and one that does not.

use safetensors::{Dtype, tensor::TensorView};
use selftrace::analysis::analyze;
use selftrace::compare::{CompareRow, compare};
use selftrace::evidence::{Row, last, read};
use selftrace::manifest::Manifest;
use selftrace::measure::causal::{CURVES, Causal};
use selftrace::series::Series;
use selftrace::stats::draws::{generator, normal};
use selftrace::table;
use selftrace::walk::interventions::sheet::{Along, Sheet};
use selftrace::walk::job::{Job, Outcome};
use selftrace::walk::store::Readouts;
use serde_json::json;
use std::collections::HashMap;
use std::path::Path;

const D: usize = 64;
const MLP: usize = 64;
const PAIRS: usize = 8;

/// Words of the model; `up` and `down` differ along the planted direction only.
fn words() -> Vec<String> {
    let fixed =
        "<unk> <bos> yes no right wrong not but the says and what is it so gate lake tree wolf door lamp rain moon road song bell nest";
    let mut words: Vec<String> = fixed.split(' ').map(str::to_owned).collect();
    for k in 0..PAIRS {
        words.extend([format!("up{k}"), format!("down{k}")]);
    }
    words
}

/// A random Llama of two blocks, into whose residual `up` and `down` write along coordinate 0, which the unembedding of the answers reads
/// with weight `reads`.
fn write_model(folder: &Path, seed: u64, reads: f32) {
    std::fs::create_dir_all(folder).unwrap();
    let words = words();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": words.len(), "hidden_size": D, "intermediate_size": MLP,
        "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 4, "max_position_embeddings": 64, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "attention_bias": false, "mlp_bias": false, "tie_word_embeddings": false,
        "bos_token_id": 1, "eos_token_id": 1, "torch_dtype": "float32",
    });
    let vocab: serde_json::Map<_, _> = words.iter().enumerate().map(|(id, word)| (word.clone(), json!(id))).collect();
    let special = |id: usize, content: &str| json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [special(0, "<unk>"), special(1, "<bos>")],
        "normalizer": {"type": "Lowercase"}, "pre_tokenizer": {"type": "WhitespaceSplit"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocab, "unk_token": "<unk>"},
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(folder.join("tokenizer_config.json"), json!({"unk_token": "<unk>", "bos_token": "<bos>"}).to_string()).unwrap();
    let mut random = generator(seed, "planted model");
    let mut matrix = |rows: usize, columns: usize, gain: f64| -> Vec<f32> {
        (0..rows * columns).map(|_| (gain * normal(&mut random) / (columns as f64).sqrt()) as f32).collect()
    };
    let mut embed = matrix(words.len(), D, (D as f64).sqrt());
    let at = |word: &str| words.iter().position(|other| other == word).unwrap();
    for k in 0..PAIRS {
        let base = embed[at(&format!("up{k}")) * D..][..D].to_vec();
        for (word, sign) in [("up", 1.0), ("down", -1.0)] {
            let row = &mut embed[at(&format!("{word}{k}")) * D..][..D];
            row.copy_from_slice(&base);
            row[0] += 2.0 * sign;
        }
    }
    let mut unembed = matrix(words.len(), D, 1.0);
    for (word, sign) in [("yes", 1.0), ("no", -1.0)] {
        unembed[at(word) * D] = reads * sign;
    }
    let mut tensors = vec![
        ("model.embed_tokens.weight".to_owned(), vec![words.len(), D], embed),
        ("lm_head.weight".to_owned(), vec![words.len(), D], unembed),
        ("model.norm.weight".to_owned(), vec![D], vec![1.0; D]),
    ];
    for layer in 0..3 {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for part in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            tensors.push((name(&format!("self_attn.{part}")), vec![D, D], matrix(D, D, 0.3)));
        }
        for part in ["gate_proj", "up_proj"] {
            tensors.push((name(&format!("mlp.{part}")), vec![MLP, D], matrix(MLP, D, 0.3)));
        }
        tensors.push((name("mlp.down_proj"), vec![D, MLP], matrix(D, MLP, 0.3)));
        for part in ["input_layernorm", "post_attention_layernorm"] {
            tensors.push((name(part), vec![D], vec![1.0; D]));
        }
    }
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|(.., values)| values.iter().flat_map(|x| x.to_le_bytes()).collect()).collect();
    let views =
        tensors.iter().zip(&bytes).map(|((name, shape, _), bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize_to_file(views, Some(metadata), &folder.join("model.safetensors")).unwrap();
}

/// A concept pack, choices, two models and a manifest.
fn write_run(folder: &Path, extra: &str) {
    write_run_that_reads(folder, extra, 1.0);
}

/// The same, where the second model reads with another weight.
fn write_run_that_reads(folder: &Path, extra: &str, reads: f32) {
    write_model(&folder.join("cut"), 1, 0.0);
    write_model(&folder.join("writes"), 1, reads);
    let rows = |words: &dyn Fn(usize) -> [String; 2]| (0..PAIRS).map(|k| format!("{:?}", words(k))).collect::<Vec<_>>().join(", ");
    let nouns = ["gate", "lake", "tree", "wolf", "door", "lamp", "rain", "moon"];
    let a = rows(&|k| [nouns[k].to_owned(), nouns[(k + 3) % PAIRS].to_owned()]);
    let b = rows(&|k| [format!("down{k}"), format!("up{k}")]);
    let concept = format!(
        "name = \"planted\"\ntitle = \"t\"\ndescription = \"d\"\nsource = \"s\"\nlicense = \"l\"\n\
         [crossed]\nlabel = \"b\"\ntemplates = [\n  {{ user = \"the {{a}} says not {{b_}} but [[{{b}}]]\" }},\n  {{ user = \"{{a}} and {{b_}} and [[{{b}}]]\" }},\n]\n\
         a = [{a}]\nb = [{b}]\n\
         [stem]\nquestions = [{questions}]\nstems = [[\"it is\", \"{{o}} is\"], [\"so it is\", \"so {{o}} is\"], [\"it says\", \"{{o}} says\"]]\n\
         others = [\"the road\", \"the song\", \"the bell\"]\nanswers = [\"yes\", \"no\"]\n",
        questions = nouns.map(|noun| format!("[\"what is the {noun}\", \"what is the {noun} and {{o}}\"]")).join(", "),
    );
    let pack = folder.join("pack");
    std::fs::create_dir_all(&pack).unwrap();
    std::fs::write(pack.join("planted.toml"), concept).unwrap();
    let question = |noun: &&str| format!("[[question]]\nuser = \"what is the {noun} and the song\"\nstem = \"the {noun} is the nest\"\n");
    std::fs::write(pack.join("neutral.toml"), nouns.iter().map(question).collect::<String>()).unwrap();
    let fact =
        |noun: &&str| format!("[[fact]]\nuser = \"is the {noun} the road\"\nstem = \"so it is\"\nanswers = [\"right\", \"wrong\"]\n");
    let frames = ["bell", "nest", "moon"]
        .map(|noun| format!("[[frame]]\nuser = \"the {noun} says {{x}} and {{y}}\"\nstem = \"so the {noun} says\"\n"));
    let choices = format!(
        "source = \"s\"\nlicense = \"l\"\n{}[choices]\nplanted = [[\"yes\", \"no\"], [\"yes\", \"no\"], [\"yes\", \"no\"]]\n{}",
        frames.concat(),
        nouns[..4].iter().map(fact).collect::<String>()
    );
    std::fs::write(folder.join("choices.toml"), choices).unwrap();
    let template = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% if not loop.last %} {% endif %}{% endfor %}";
    std::fs::write(folder.join("plain.jinja"), template.replace("{{ bos_token }}", "")).unwrap();
    let manifest = format!(
        "[run]\nname = \"test\"\naxis = \"index\"\n[model]\ndevice = \"cpu\"\ntemplate = \"plain.jinja\"\n[concepts]\npacks = [\"pack\"]\nprofile = \"quick\"\n\
         [analysis]\nflips = 199\nbootstraps = 199\n{extra}\
         [[checkpoint]]\nid = \"cut\"\nsource = \"cut\"\nstage = \"base\"\n[[checkpoint]]\nid = \"writes\"\nsource = \"writes\"\nstage = \"base\"\n"
    );
    std::fs::write(folder.join("checkpoints.toml"), manifest).unwrap();
}

fn job(folder: &Path) -> Job {
    Job::new(Manifest::load(&folder.join("checkpoints.toml")).unwrap()).unwrap()
}

const CAUSAL: &str = "[causal]\nsets = [\"choices.toml\"]\n";

#[test]
fn a_direction_that_writes_to_the_answer_is_found_and_one_that_does_not_has_no_effect() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path(), CAUSAL);
    let walked = job(folder.path()).walk(&|_| true).unwrap();
    assert_eq!(walked, Outcome { walked: 2, ..Outcome::default() });
    let out = folder.path().join("reports/test");
    let series = Series::open(&out).unwrap();
    let sheet = Sheet::read(&Readouts::open(&out.join("causal/writes.safetensors")).unwrap(), &series.items).unwrap().unwrap();
    assert_eq!((sheet.header.layers.as_slice(), sheet.header.directions, sheet.header.settings()), ([1, 2].as_slice(), 32, 7));
    let w = sheet.direction(Along::Concept(0), 0);
    assert!(w[0] > 0.9, "the planted coordinate is the direction: {}", w[0]);
    analyze(&series).unwrap();
    let rows: Vec<(table::Key, Causal)> = table::read_keyed(&out.join("causal.parquet")).unwrap();
    assert_eq!(rows.len(), 2 * 2 * 2 * 2, "two checkpoints, layers, outcomes and kinds of direction");
    for (key, row) in &rows {
        if row.direction == "assistant_axis" {
            assert!(row.status == "no_axis" && row.z.value.is_none());
            continue;
        }
        let width = row.z.upper.unwrap() - row.z.lower.unwrap();
        println!("{} {} {}: z {:?} [{:?}, {:?}]", key.checkpoint, row.layer, row.outcome, row.z, row.z.lower, row.z.upper);
        assert!(row.status == "ok" && width.is_finite() && row.n_random >= 8 && row.n_flagged <= 2, "{row:?}");
        if key.checkpoint == "writes" {
            assert!(row.z.lower.unwrap() > 3.0 && row.slope.lower.unwrap() > 0.0, "{row:?}");
        } else {
            assert!(row.z.upper.unwrap() < 2.0 && row.ablation_z.unwrap().abs() < 3.0, "{row:?}");
        }
    }
    // The rows of the evidence: the last checkpoint's effect opposes an epiphenomenon, whatever the gate says of so short a series.
    let (_, evidence) = last(&read(&out).unwrap());
    let row = |measure: &str| -> &Row { evidence.iter().find(|row| row.measure == measure && row.concept == "planted").unwrap() };
    for measure in ["behavioural_effect", "effect_on_report", "effect_on_behaviour"] {
        assert!(row(measure).value.value.unwrap() > 3.0 && row(measure).layer.is_some(), "{:?}", row(measure));
    }
    assert_eq!(row("steering_along_axis").status, "no_axis");
}

#[test]
fn two_runs_are_told_apart_by_their_effects_and_the_sign_counts() {
    let folder = tempfile::tempdir().unwrap();
    let walk = |name: &str, causal: &str, reads: f32| {
        let own = folder.path().join(name);
        write_run_that_reads(&own, causal, reads);
        assert_eq!(job(&own).walk(&|_| true).unwrap().failed, 0);
        own.join("reports/test")
    };
    let causal = format!("{CAUSAL}directions = 12\n");
    let [reads, against, cut] = [("reads", 1.0), ("against", -1.0), ("cut", 0.0)].map(|(name, weight)| walk(name, &causal, weight));
    let without = walk("without", "", 1.0);
    let effects = |a: &Path, b: &Path| -> Vec<CompareRow> {
        let rows = compare(&[a.to_owned()], &[b.to_owned()], Some(folder.path())).unwrap().rows;
        assert!(rows.iter().any(|row| row.measure == "contrast" && row.level_difference.value.is_some()));
        let effects: Vec<CompareRow> = rows.into_iter().filter(|row| CURVES.contains(&row.measure.as_str())).collect();
        assert_eq!(effects.len(), 2 * 2, "two outcomes at two layers");
        effects
    };
    for row in effects(&reads, &against) {
        assert!(row.level_a.unwrap() > 3.0 && row.level_b.unwrap() < -3.0 && row.level_difference.upper.unwrap() < -6.0, "{row:?}");
    }
    for row in effects(&reads, &cut) {
        assert!(row.level_difference.upper.unwrap() < 0.0 && row.level_b.unwrap().abs() < 2.0, "{row:?}");
    }
    for row in effects(&reads, &reads) {
        assert_eq!((row.level_difference.lower, row.level_difference.upper), (Some(0.0), Some(0.0)), "{row:?}");
    }
    for row in effects(&reads, &without) {
        assert!(row.status_b == "not_run" && row.level_a.is_some() && row.level_difference.value.is_none(), "{row:?}");
    }
}

#[test]
fn a_sheet_is_resumed_by_content_and_depends_on_no_budget() {
    let folder = tempfile::tempdir().unwrap();
    let few = format!("{CAUSAL}directions = 8\n");
    write_run(folder.path(), &few);
    let one = job(folder.path());
    one.walk(&|_| true).unwrap();
    let bytes = |id: &str| std::fs::read(one.sheet_path("causal", id)).unwrap();
    let first = bytes("writes");
    assert_eq!(job(folder.path()).walk(&|_| true).unwrap().skipped, 2);
    // Without its sheet a checkpoint is not complete; its readouts are taken over, and a small budget changes nothing that is read.
    std::fs::remove_file(one.sheet_path("causal", "writes")).unwrap();
    write_run(folder.path(), &format!("{few}memory_mb = 1\n"));
    let again = job(folder.path());
    assert_eq!(again.walk(&|_| true).unwrap(), Outcome { walked: 1, skipped: 1, ..Outcome::default() });
    assert_eq!(again.record("writes").unwrap().nodes, 0);
    let (old, new) = (folder.path().join("old.safetensors"), again.sheet_path("causal", "writes"));
    std::fs::write(&old, first).unwrap();
    let items = &again.set.items;
    let [old, new] = [old, new].map(|path| Sheet::read(&Readouts::open(&path).unwrap(), items).unwrap().unwrap());
    for setting in 0..old.header.settings() {
        for along in [Along::Random(3), Along::Concept(0)] {
            let (old, new) = (old.margins(along, 1, setting), new.margins(along, 1, setting));
            assert!(old.iter().zip(new).all(|(old, new)| (old - new).abs() < 1e-4));
        }
    }
    // Without the table nothing of it is read: the sheets were made for other items.
    write_run(folder.path(), "");
    let without = job(folder.path());
    without.walk(&|_| true).unwrap();
    let series = Series::open(&folder.path().join("reports/test")).unwrap();
    analyze(&series).unwrap();
    let rows: Vec<Causal> = table::read(&series.folder.join("causal.parquet")).unwrap();
    assert!(rows.is_empty(), "{rows:?}");
}

#[test]
fn a_sweep_takes_what_its_nodes_above_the_layers_take() {
    let folder = tempfile::tempdir().unwrap();
    write_run(folder.path(), CAUSAL);
    let job = job(folder.path());
    let cost = job.sheet_costs(3, 8).unwrap()[0].1;
    // Layers 1 and 2 of 3, seven settings, 32 random directions and the concept's, which is all that is asked.
    assert_eq!(cost.conditions, 2 * 7 * 33);
    assert!(cost.nodes > 0 && cost.node_blocks == cost.nodes * 7 * 33 * (2 + 1), "{cost:?}");
}

#[test]
fn what_cannot_be_asked_is_said_before_anything_is_walked() {
    let folder = tempfile::tempdir().unwrap();
    for (causal, said) in [
        ("[causal]\nsets = [\"choices.toml\"]\nconcepts = [\"nobody\"]\n", "found \"nobody\", expected a pattern for any of planted"),
        ("[causal]\nsets = [\"pack/planted.toml\"]\n", "planted.toml:6: unknown field `crossed`"),
    ] {
        write_run(folder.path(), causal);
        let error = Job::new(Manifest::load(&folder.path().join("checkpoints.toml")).unwrap()).err().unwrap();
        assert!(format!("{error:#}").contains(said), "{error:#}");
    }
    write_run(folder.path(), &format!("{CAUSAL}layers = [7]\n"));
    let walked = job(folder.path()).walk(&|_| true).unwrap();
    assert_eq!(walked.failed, 2);
    let record = job(folder.path()).record("cut").unwrap();
    assert!(record.error.as_ref().is_some_and(|error| error.contains("layers")), "{:?}", record.error);
}
