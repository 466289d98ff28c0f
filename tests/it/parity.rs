//! Activations and log-probabilities of every family and configuration feature against transformers, at every layer and
//! token, computed as a forest.

use selftrace::model::Checkpoint;
use selftrace::model::architecture::ARCHITECTURES;
use selftrace::model::layers::Loader;
use selftrace::model::logits::log_probabilities;
use selftrace::model::plan::Plan;
use selftrace::model::stream::{Compute, stream};
use selftrace::prompt::forest::Forest;
use selftrace::walk::store::Readouts;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

pub(crate) fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity");
    let mut folders: Vec<PathBuf> =
        std::fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

fn integers(reference: &Readouts, name: &str) -> Vec<i64> {
    reference.bytes(name).unwrap().as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect()
}

pub(crate) fn prompts(reference: &Readouts) -> Vec<Vec<i64>> {
    let tokens = integers(reference, "token_ids");
    let mut rest = tokens.as_slice();
    let mut prompts = Vec::new();
    for length in integers(reference, "lengths") {
        let (prompt, tail) = rest.split_at(length as usize);
        prompts.push(prompt.to_vec());
        rest = tail;
    }
    prompts
}

/// Activations `[layer][token of all prompts, in order][d_model]`, and log-probabilities of each prompt's next tokens.
pub(crate) fn run(checkpoint: &Checkpoint, prompts: &[Vec<i64>], kind: Kind) -> (Vec<Vec<f64>>, Vec<f64>) {
    let compute = Compute { device: Device::Cpu, kind };
    let forest = Forest::new(prompts);
    let nodes: Vec<i64> =
        prompts.iter().enumerate().flat_map(|(index, prompt)| forest.span(index, 0..prompt.len())).map(|node| node as i64).collect();
    let order = Tensor::from_slice(&nodes);
    let mut layers = Vec::new();
    let mut scores = Vec::new();
    let last = checkpoint.config.n_layers;
    stream(checkpoint, &forest, compute, last, &mut |layer, resid| {
        let rows = resid.index_select(0, &order);
        layers.push(Vec::<f64>::try_from(rows.flatten(0, -1).to_kind(Kind::Double)).unwrap());
        if layer == last && kind != Kind::Double {
            let next: Vec<i64> = prompts.iter().flat_map(|prompt| prompt[1..].iter().chain(&prompt[..1])).copied().collect();
            scores = log_probabilities(checkpoint, compute, &rows, &next)?;
        }
        Ok(())
    })
    .unwrap();
    (layers, scores)
}

/// Largest difference over the largest value.
pub(crate) fn relative(ours: &[f64], theirs: impl ExactSizeIterator<Item = f64> + Clone) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let largest = theirs.clone().fold(0.0, |m: f64, x| m.max(x.abs()));
    ours.iter().zip(theirs).fold(0.0, |m: f64, (a, b)| m.max((a - b).abs())) / largest
}

/// Holds a checkpoint against the reference in its folder, at every layer and for every next token; returns the worst relative
/// difference of an activation and the worst difference of a log-probability.
pub(crate) fn assert_agrees(name: &str, checkpoint: &Checkpoint, reference: &Readouts) -> (f64, f64) {
    let prompts = prompts(reference);
    let (layers, scores) = run(checkpoint, &prompts, Kind::Float);
    assert_eq!(layers.len(), reference.shape("hidden").unwrap()[0], "{name}");
    let (mut worst, mut worst_score) = (0f64, 0f64);
    for (layer, ours) in layers.iter().enumerate() {
        let difference = relative(ours, reference.layer("hidden", layer).unwrap().iter().map(|x| f64::from(*x)));
        assert!(difference < 1e-5, "{name}: layer {layer} differs by {difference:.1e}");
        worst = worst.max(difference);
    }
    let logits = Tensor::from_slice(&reference.values("logits").unwrap()).view([scores.len() as i64, -1]).to_kind(Kind::Double);
    let next: Vec<i64> = prompts.iter().flat_map(|prompt| prompt[1..].iter().chain(&prompt[..1])).copied().collect();
    let theirs = logits.log_softmax(-1, Kind::Double).gather(1, &Tensor::from_slice(&next).unsqueeze(1), false);
    for (ours, theirs) in scores.iter().zip(Vec::<f64>::try_from(theirs.squeeze_dim(1)).unwrap()) {
        assert!((ours - theirs).abs() < 1e-4, "{name}: log-probability {ours} against {theirs}");
        worst_score = worst_score.max((ours - theirs).abs());
    }
    println!("{name}: worst relative difference {worst:.1e}");
    (worst, worst_score)
}

#[test]
fn activations_agree_with_transformers_at_every_layer() {
    for folder in fixtures() {
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        let checkpoint = Checkpoint::open(&folder).unwrap_or_else(|error| panic!("{error:#}"));
        let reference = Readouts::open(&folder.join("reference.safetensors")).unwrap();
        assert_agrees(&name, &checkpoint, &reference);
        if reference.contains("embedding_bf16") {
            let (layers, _) = run(&checkpoint, &prompts(&reference), Kind::BFloat16);
            let theirs = reference.values("embedding_bf16").unwrap();
            assert!(layers[0].iter().zip(theirs).all(|(ours, theirs)| *ours == f64::from(theirs)), "{name}: embedding in bf16");
        }
    }
}

#[test]
fn every_architecture_has_a_fixture() {
    let tested: Vec<String> = fixtures().iter().map(|folder| std::fs::read_to_string(folder.join("config.json")).unwrap()).collect();
    for name in ARCHITECTURES.iter().flat_map(|architecture| architecture.names) {
        assert!(tested.iter().any(|config| config.contains(name)), "no parity fixture for {name}");
    }
}

/// In f64, where products of other shapes do not blur the comparison: chunks of five nodes in tiles of two carry keys across many borders, also those that a window hides.
#[test]
fn chunks_and_tiles_change_nothing() {
    for folder in fixtures() {
        let checkpoint = Checkpoint::open(&folder).unwrap_or_else(|error| panic!("{error:#}"));
        let config = &checkpoint.config;
        let forest = Forest::new(&prompts(&Readouts::open(&folder.join("reference.safetensors")).unwrap()));
        let loader = Loader::new(&checkpoint.weights, config, Kind::Double, Device::Cpu);
        let embedded = (checkpoint.architecture.embed)(&loader, &forest.token, &forest.depth).unwrap();
        let outputs = [(100, 100), (5, 2)].map(|(chunk, tile)| {
            let plan = Plan::new(&forest, chunk, tile, Device::Cpu).unwrap();
            let mut resid = embedded.shallow_clone();
            for index in 0..config.n_layers {
                let block = (checkpoint.architecture.block)(&loader, index).unwrap();
                let mut past = None;
                let mut rows = Vec::new();
                for chunk in &plan.chunks {
                    let rotations = chunk.rotations(&config.ropes, Kind::Double).unwrap();
                    let (out, next) = block.forward(&resid.narrow(0, chunk.start, chunk.len), past, chunk, &rotations).unwrap();
                    rows.push(out);
                    past = next;
                }
                resid = Tensor::cat(&rows, 0);
            }
            Vec::<f64>::try_from(resid.flatten(0, -1)).unwrap()
        });
        let difference = relative(&outputs[1], outputs[0].iter().copied());
        assert!(difference < 1e-12, "{}: {difference:.1e}", folder.display());
    }
}

/// In f64, as above.
#[test]
fn a_forest_gives_what_each_prompt_gives_alone() {
    for folder in fixtures() {
        let checkpoint = Checkpoint::open(&folder).unwrap_or_else(|error| panic!("{error:#}"));
        let prompts = prompts(&Readouts::open(&folder.join("reference.safetensors")).unwrap());
        let (together, _) = run(&checkpoint, &prompts, Kind::Double);
        let mut start = 0;
        for prompt in &prompts {
            let (alone, _) = run(&checkpoint, std::slice::from_ref(prompt), Kind::Double);
            for (together, alone) in together.iter().zip(&alone) {
                let width = checkpoint.config.d_model as usize;
                let difference = relative(&together[start * width..(start + prompt.len()) * width], alone.iter().copied());
                assert!(difference < 1e-12, "{}: {difference:.1e}", folder.display());
            }
            start += prompt.len();
        }
    }
}

/// Largest relative differences of activations, and of log-probabilities in nats, from f32. One rounding is 2^-9 in bf16 and 2^-12 in
/// f16; a handful of sublayers adds up a few of them. Mixtures are left out: where two experts are nearly level, rounding picks the
/// other one, which is no error of arithmetic.
const HALF: [(Kind, f64, f64); 2] = [(Kind::BFloat16, 0.05, 0.12), (Kind::Half, 0.007, 0.015)];

#[test]
fn half_precision_stays_close_through_a_whole_stream() {
    let names = [
        "llama_gqa_untied_biases",
        "llama_bf16_sharded",
        "qwen3_v5",
        "olmo2_v5",
        "gemma3_v5",
        "gpt_neox_pythia_v4",
        "gpt2",
        "phi3_partial_v5",
        "apertus_v5",
    ];
    let mut worst = HALF.map(|_| (0f64, 0f64));
    for folder in fixtures().into_iter().filter(|folder| names.iter().any(|name| folder.ends_with(name))) {
        let checkpoint = Checkpoint::open(&folder).unwrap_or_else(|error| panic!("{error:#}"));
        let prompts = prompts(&Readouts::open(&folder.join("reference.safetensors")).unwrap());
        let (exact, exact_scores) = run(&checkpoint, &prompts, Kind::Float);
        for ((kind, layers_within, scores_within), worst) in HALF.into_iter().zip(&mut worst) {
            let (layers, scores) = run(&checkpoint, &prompts, kind);
            let name = format!("{} in {kind:?}", folder.file_name().unwrap().display());
            for (layer, (ours, exact)) in layers.iter().zip(&exact).enumerate() {
                let difference = relative(ours, exact.iter().copied());
                assert!(
                    difference < layers_within && (difference > 0.0 || layer == 0),
                    "{name}: layer {layer} differs by {difference:.1e}"
                );
                worst.0 = worst.0.max(difference);
            }
            let score = scores.iter().zip(&exact_scores).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
            assert!(score < scores_within, "{name}: log-probabilities differ by {score:.1e}");
            worst.1 = worst.1.max(score);
        }
    }
    println!("worst in bf16 and f16, relative and in nats: {worst:?}");
}
