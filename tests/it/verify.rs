//! `selftrace verify`: what it says where Python lacks something, and that it tells what agrees from what does not. The Python is a
//! stand-in, which answers with what it is given; that families agree with transformers is shown elsewhere.

use crate::parity::run;
use safetensors::tensor::{Dtype, TensorView};
use selftrace::model::Checkpoint;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tch::Kind;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/parity/llama_gqa_untied_biases");

/// A program in the place of Python: `$3` is the file with what is asked.
fn python(folder: &Path, body: &str) -> PathBuf {
    let path = folder.join("python");
    std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn verify(folder: &Path, body: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_selftrace"));
    command.args(["verify", MODEL, "--python"]).arg(python(folder, body));
    command.env("OMP_NUM_THREADS", "1").env("XDG_CACHE_HOME", folder.join("cache")).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_python_without_transformers_is_said_in_one_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let output = verify(folder.path(), "echo \"No module named 'transformers'\"; exit 3");
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("pip install torch transformers") && said.contains("--python PATH"), "{said}");
    let output = verify(folder.path(), "echo Traceback >&2; echo 'ValueError: no such model' >&2; exit 1");
    assert!(text(&output.stderr).contains("transformers cannot compute the model: ValueError: no such model"));
}

#[test]
fn every_layer_is_compared_and_what_agrees_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let asked = folder.path().join("asked.json");
    verify(folder.path(), &format!("cp \"$3\" {}; exit 1", asked.display()));
    let asked: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(asked).unwrap()).unwrap();
    let prompts: Vec<Vec<i64>> = serde_json::from_value(asked["prompts"].clone()).unwrap();
    assert!(prompts.len() > 1);
    let checkpoint = Checkpoint::open(Path::new(MODEL)).unwrap();
    let (layers, scores) = run(&checkpoint, &prompts, Kind::Float);
    let width = checkpoint.config.d_model as usize;
    // What a perfect transformers would write, but for one layer.
    let prepared = folder.path().join("prepared.safetensors");
    let write = |spoilt: usize| {
        let mut tensors = Vec::new();
        let mut first = 0;
        for (index, prompt) in prompts.iter().enumerate() {
            let factor = |layer: usize| if layer == spoilt { 1.01 } else { 1.0 };
            let rows = |layer: usize| &layers[layer][first * width..(first + prompt.len()) * width];
            let hidden = (0..layers.len()).flat_map(|layer| rows(layer).iter().map(move |x| (x * factor(layer)) as f32));
            let bytes: Vec<u8> = hidden.flat_map(f32::to_le_bytes).collect();
            tensors.push((format!("hidden.{index}"), vec![layers.len(), prompt.len(), width], bytes));
            if prompt.len() > 1 {
                let next = &scores[first..first + prompt.len() - 1];
                let bytes = next.iter().flat_map(|x| (*x as f32).to_le_bytes()).collect();
                tensors.push((format!("log_probability.{index}"), vec![prompt.len() - 1], bytes));
            }
            first += prompt.len();
        }
        let views = tensors.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        std::fs::write(&prepared, safetensors::serialize(views, None).unwrap()).unwrap();
    };
    let answer = format!("cp {} \"$(sed 's/.*\"out\":\"\\([^\"]*\\)\".*/\\1/' \"$3\")\"; echo transformers 5", prepared.display());
    let kept = || std::fs::read_dir(folder.path().join("cache/selftrace/verified")).map_or(0, Iterator::count);

    write(2);
    let output = verify(folder.path(), &answer);
    let (said, why) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}{why}");
    let differing: Vec<&str> = said.lines().filter(|line| line.contains("DIFFERS")).collect();
    assert!(differing.len() == 1 && differing[0].starts_with('2'), "{said}");
    assert_eq!(kept(), 0);

    write(usize::MAX);
    let output = verify(folder.path(), &answer);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("answers") && said.contains("transformers 5") && !said.contains("DIFFERS"), "{said}");
    assert_eq!(kept(), 1);
}
