//! A series of adapters against the same series as full checkpoints whose weights were merged here, in f64: the tables are equal.

use crate::baseline::maps;
use crate::cli::{copy, demo, run, stderr, text};
use crate::weights::Weights;
use selftrace::stats::draws::{generator, normal};
use selftrace::walk::store::Readouts;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Blocks from here on are adapted; the organism has four.
const FIRST: usize = 2;
const RANK: usize = 2;
const ALPHA: f64 = 3.0;
const STEPS: [u64; 7] = [1, 2, 3, 4, 5, 6, 7];
/// Two ways to round a merged weight to f32 differ by half a unit in its last place, 6e-8 of it. Four blocks, differences between
/// activations and the statistics of these make more of that; allowed is this much of the largest value of a column.
const RELATIVE: f64 = 1e-4;
/// Ranks, shares and quantiles of 199 resamples, and what is made of these, move by a few counts where two numbers are that close; one of a null
/// topic's 64 items is .016.
const COUNTED: f64 = 0.05;

fn base() -> PathBuf {
    demo().0.join("series/rl/checkpoint-960")
}

/// Writes the adapter of a step, and the base with it merged.
pub fn write_step(folder: &Path, step: u64) {
    let adapter = folder.join(format!("lora/checkpoint-{step}"));
    let full = folder.join(format!("full/checkpoint-{step}"));
    std::fs::create_dir_all(&adapter).unwrap();
    copy(&base(), &full);
    let mut merged = Weights::read(&base());
    let mut factors = Weights(Default::default());
    let mut draw = generator(step, "adapter");
    for block in FIRST..4 {
        for module in ["self_attn.q_proj", "mlp.down_proj"] {
            let name = format!("model.layers.{block}.{module}");
            let (shape, weight) = merged.0.get_mut(&format!("{name}.weight")).unwrap();
            let [d_out, d_in] = shape[..] else { panic!("{name}") };
            let mut values = |n: usize, scale: f64| (0..n).map(|_| (scale * normal(&mut draw)) as f32).collect::<Vec<f32>>();
            let (a, b) = (values(RANK * d_in, 0.3), values(d_out * RANK, 0.02 * step as f64));
            for (index, w) in weight.iter_mut().enumerate() {
                let (i, j) = (index / d_in, index % d_in);
                let change: f64 = (0..RANK).map(|r| f64::from(b[i * RANK + r]) * f64::from(a[r * d_in + j])).sum();
                *w = (f64::from(*w) + ALPHA / RANK as f64 * change) as f32;
            }
            factors.0.insert(format!("base_model.model.{name}.lora_A.weight"), (vec![RANK, d_in], a));
            factors.0.insert(format!("base_model.model.{name}.lora_B.weight"), (vec![d_out, RANK], b));
        }
    }
    merged.write(&full);
    factors.write(&adapter);
    std::fs::rename(adapter.join("model.safetensors"), adapter.join("adapter_model.safetensors")).unwrap();
    let config = json!({"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "target_modules": ["q_proj", "down_proj"],
        "layers_to_transform": (FIRST..4).collect::<Vec<_>>(), "layers_pattern": "layers"});
    std::fs::write(adapter.join("adapter_config.json"), config.to_string()).unwrap();
}

/// Walks and analyses a series of that name; returns the run's folder.
fn tables_of(folder: &Path, name: &str, series: &str) -> PathBuf {
    let place = folder.join(name);
    std::fs::create_dir_all(&place).unwrap();
    let manifest = format!(
        "[run]\nname = \"test\"\naxis = \"index\"\n[model]\ntemplate = \"native:base\"\n[concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\ninclude = [\"own_name\"]\nexclude = [\"colour\", \"drink\", \"fruit\", \"hat\", \"month\"]\n\
         [analysis]\nflips = 199\nbootstraps = 199\n\
         [[checkpoint]]\nid = \"base\"\nstage = \"base\"\nstep = 0\nsource = \"{}\"\nreference = true\n[[series]]\nstage = \"em\"\n{series}",
        base().display()
    );
    let path = place.join("checkpoints.toml");
    std::fs::write(&path, manifest).unwrap();
    let output = run(&["run", text(&path)]);
    assert!(output.status.success(), "{}", stderr(&output));
    place.join("reports/test")
}

/// Holds the numbers of two tables against each other, relative to the largest of their column; everything else has to be equal.
fn assert_close(name: &str, a: &[Map<String, Value>], b: &[Map<String, Value>]) {
    assert_eq!(a.len(), b.len(), "{name}: rows");
    let Some(first) = a.first() else { return };
    for column in first.keys() {
        let mut pairs = Vec::new();
        for (row, (a, b)) in a.iter().zip(b).enumerate() {
            flatten(&format!("{name}: {column}, row {row}"), &a[column], &b[column], &mut pairs);
        }
        let largest = pairs.iter().fold(0f64, |m, (a, _)| m.max(a.abs()));
        let off = pairs.iter().fold(0f64, |m, (a, b)| m.max((a - b).abs()));
        let counted = ["p", "q", "p_max_t", "foil_p"].contains(&column.as_str());
        let counted = counted
            || ["_lower", "_upper", "auroc", "brier", "auc", "accuracy", "selectivity", "percentile"]
                .iter()
                .any(|part| column.contains(part));
        let allowed = if counted || name == "onset.parquet" { COUNTED } else { RELATIVE };
        assert!(off <= allowed * largest, "{name}: {column} differs by {off:.1e} of {largest:.1e}");
    }
}

fn flatten(place: &str, a: &Value, b: &Value, pairs: &mut Vec<(f64, f64)>) {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => pairs.push((a.as_f64().unwrap(), b.as_f64().unwrap())),
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            a.iter().zip(b).for_each(|(a, b)| flatten(place, a, b, pairs));
        }
        _ => assert_eq!(a, b, "{place}"),
    }
}

#[test]
fn adapters_and_the_merged_weights_give_equal_tables() {
    let folder = tempfile::tempdir().unwrap();
    STEPS.iter().for_each(|step| write_step(folder.path(), *step));
    let place = folder.path().display();
    let lora = tables_of(folder.path(), "a", &format!("base = \"{}\"\nadapter = \"{place}/lora/checkpoint-{{step}}\"\n", base().display()));
    let full = tables_of(folder.path(), "b", &format!("source = \"{place}/full/checkpoint-{{step}}\"\n"));

    let open = |run: &Path, id: &str| Readouts::open(&run.join(format!("readouts/{id}.safetensors"))).unwrap();
    let before = open(&full, "base");
    for step in STEPS {
        let id = format!("em-{step}");
        let (a, b) = (open(&lora, &id), open(&full, &id));
        for layer in 0..=4 {
            let [a, b, base] = [&a, &b, &before].map(|file| file.layer("last_prompt", layer).unwrap());
            assert_eq!(b == base, layer <= FIRST, "{id}: layer {layer}");
            assert!(a == b || layer > FIRST, "{id}: layer {layer} lies below the adapter and differs");
        }
    }
    let mut names: Vec<String> = std::fs::read_dir(&lora)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".parquet") && name != "checkpoints.parquet")
        .collect();
    names.sort();
    assert!(names.len() > 8, "{names:?}");
    for name in names {
        let [a, b] = [&lora, &full].map(|run| maps(&run.join(&name)));
        assert_close(&name, &a, &b);
    }
}
