//! Steering and ablation inside the stream: against transformers under forward hooks, alone and together, and what they do exactly.

use crate::parity::{prompts, relative};
use selftrace::model::Checkpoint;
use selftrace::model::intervene::{Condition, Intervention, Sweep, SweepCost};
use selftrace::model::logits::{divergences, log_probabilities};
use selftrace::model::stream::{Compute, stream};
use selftrace::prompt::forest::Forest;
use selftrace::walk::store::Readouts;
use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

const MODELS: [&str; 2] = ["llama_gqa_untied_biases", "gpt_neox_parallel_pct25_v5"];
const COMPUTE: Compute = Compute { device: Device::Cpu, kind: Kind::Float };

#[derive(Deserialize)]
struct Reference {
    layer: usize,
    kind: String,
    amount: f64,
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

struct Case {
    checkpoint: Checkpoint,
    prompts: Vec<Vec<i64>>,
    forest: Forest,
    /// Clean residuals by layer.
    clean: Vec<Tensor>,
    reference: Readouts,
    references: Vec<Reference>,
    /// Tokens of all prompts in order, as nodes.
    order: Tensor,
    next: Vec<i64>,
}

fn case(name: &str) -> Case {
    let checkpoint = Checkpoint::open(&fixtures().join("parity").join(name)).unwrap();
    let reference = Readouts::open(&fixtures().join("interventions").join(format!("{name}.safetensors"))).unwrap();
    let references = serde_json::from_str(reference.metadata("conditions").unwrap()).unwrap();
    let prompts = prompts(&reference);
    let forest = Forest::new(&prompts);
    let nodes = prompts.iter().enumerate().flat_map(|(index, prompt)| forest.span(index, 0..prompt.len()));
    let order = Tensor::from_slice(&nodes.map(|node| node as i64).collect::<Vec<_>>());
    let next = prompts.iter().flat_map(|prompt| prompt[1..].iter().chain(&prompt[..1])).copied().collect();
    let mut clean = Vec::new();
    stream(&checkpoint, &forest, COMPUTE, checkpoint.config.n_layers, &mut |_, resid| {
        clean.push(resid.detach().copy());
        Ok(())
    })
    .unwrap();
    Case { checkpoint, prompts, forest, clean, reference, references, order, next }
}

impl Case {
    /// Nodes of every prompt.
    fn paths(&self) -> impl Iterator<Item = Vec<usize>> {
        self.prompts.iter().enumerate().map(|(index, prompt)| self.forest.span(index, 0..prompt.len()))
    }

    fn condition(&self, number: usize) -> Condition {
        let Reference { layer, kind, amount } = &self.references[number];
        let direction = self.reference.values(&format!("direction.{number}")).unwrap();
        let intervention = match kind.as_str() {
            "steer" => Intervention::steer(&direction, *amount).unwrap(),
            "inject" => {
                let nodes: BTreeSet<usize> = self.paths().flat_map(|path| path.into_iter().skip(2)).collect();
                let places: Vec<(i64, i64)> = nodes.into_iter().map(|node| (node as i64, 0)).collect();
                Intervention::inject(&places, &(Tensor::from_slice(&direction) * *amount).unsqueeze(0)).unwrap()
            }
            "exchange" => {
                let places: BTreeSet<(i64, i64)> =
                    self.paths().filter(|path| path.len() > 2).map(|path| (path[2] as i64, path[1] as i64)).collect();
                Intervention::exchange(&places.into_iter().collect::<Vec<_>>()).unwrap()
            }
            _ => Intervention::ablate(&direction).unwrap(),
        };
        Condition { forest: 0, layer: *layer, intervention }
    }

    /// Residuals `[condition][layer from its own]`.
    fn sweep(&self, conditions: &[Condition], budget: usize) -> (Vec<Vec<Tensor>>, SweepCost) {
        let mut seen: Vec<Vec<Tensor>> = conditions.iter().map(|_| Vec::new()).collect();
        let forests = [&self.forest];
        let last = self.checkpoint.config.n_layers;
        let sweep = Sweep { checkpoint: &self.checkpoint, forests: &forests, compute: COMPUTE, last, budget };
        let cost = sweep
            .run(&|layer, _| Ok(self.clean[layer].shallow_clone()), conditions, &mut |number, layer, resid| {
                assert_eq!(layer, conditions[number].layer + seen[number].len());
                seen[number].push(resid.detach().copy());
                Ok(())
            })
            .unwrap();
        (seen, cost)
    }
}

fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.flatten(0, -1).to_kind(Kind::Double)).unwrap()
}

#[test]
fn several_conditions_at_once_are_those_of_transformers_under_hooks() {
    for name in MODELS {
        let case = case(name);
        let conditions: Vec<Condition> = (0..case.references.len()).map(|number| case.condition(number)).collect();
        let (seen, cost) = case.sweep(&conditions, usize::MAX);
        assert_eq!(cost.passes, 1);
        let n_layers = case.checkpoint.config.n_layers;
        let blocks: usize = conditions.iter().map(|condition| n_layers - condition.layer).sum();
        assert_eq!(cost.node_blocks, blocks * case.forest.len(), "what a sweep costs is its nodes above the layers");
        for (number, layers) in seen.iter().enumerate() {
            for (index, resid) in layers.iter().enumerate() {
                let theirs = case.reference.layer(&format!("hidden.{number}"), index).unwrap();
                let difference = relative(&numbers(&resid.index_select(0, &case.order)), theirs.iter().map(|x| f64::from(*x)));
                assert!(difference < 1e-5, "{name}: condition {number}, {index} layers above: {difference:.1e}");
            }
            let rows = layers[layers.len() - 1].index_select(0, &case.order);
            let ours = log_probabilities(&case.checkpoint, COMPUTE, &rows, &case.next).unwrap();
            let theirs = Tensor::from_slice(&case.reference.values(&format!("logits.{number}")).unwrap());
            let theirs = theirs.view([ours.len() as i64, -1]).to_kind(Kind::Double).log_softmax(-1, Kind::Double);
            let chosen = numbers(&theirs.gather(1, &Tensor::from_slice(&case.next).unsqueeze(1), false));
            assert!(ours.iter().zip(&chosen).all(|(ours, theirs)| (ours - theirs).abs() < 1e-4), "{name}: condition {number}");
            // The divergence from the clean run (condition 3 changes nothing), against the definition.
            let clean = case.clean[n_layers].index_select(0, &case.order);
            let found = divergences(&case.checkpoint, COMPUTE, &clean, &rows).unwrap();
            let p = Tensor::from_slice(&case.reference.values("logits.3").unwrap()).view([ours.len() as i64, -1]);
            let p = p.to_kind(Kind::Double).log_softmax(-1, Kind::Double);
            let expected = numbers(&(p.exp() * (&p - &theirs)).sum_dim_intlist([1i64].as_slice(), false, Kind::Double));
            let worst = found.iter().zip(&expected).fold(0f64, |worst, (a, b)| worst.max((a - b).abs() / (1.0 + b.abs())));
            assert!(worst < 1e-4, "{name}: condition {number}: divergence differs by {worst:.1e}");
        }
    }
}

#[test]
fn a_condition_does_not_depend_on_the_others_nor_on_the_budget() {
    let case = case(MODELS[0]);
    let all: Vec<usize> = (0..case.references.len()).collect();
    let conditions = |numbers: &[usize]| numbers.iter().map(|&number| case.condition(number)).collect::<Vec<_>>();
    let (together, one) = case.sweep(&conditions(&all), usize::MAX);
    let (in_turn, several) = case.sweep(&conditions(&all), 1);
    assert_eq!((one.passes, several.passes, one.node_blocks), (1, all.len(), several.node_blocks));
    for number in all {
        let (alone, _) = case.sweep(&conditions(&[number]), usize::MAX);
        for (layer, resid) in together[number].iter().enumerate() {
            assert!(resid == &alone[0][layer] && resid == &in_turn[number][layer], "condition {number}");
        }
    }
}

#[test]
fn no_strength_is_the_clean_run_and_an_ablated_direction_has_no_projection() {
    for name in MODELS {
        let case = case(name);
        let direction = case.reference.values("direction.0").unwrap();
        for layer in 0..=case.checkpoint.config.n_layers {
            let condition = |intervention| Condition { forest: 0, layer, intervention };
            let conditions =
                [condition(Intervention::steer(&direction, 0.0).unwrap()), condition(Intervention::ablate(&direction).unwrap())];
            let (seen, _) = case.sweep(&conditions, usize::MAX);
            seen[0].iter().zip(&case.clean[layer..]).for_each(|(found, clean)| assert!(found == clean, "{name}: layer {layer}"));
            let along = numbers(&seen[1][0].matmul(&Tensor::from_slice(&direction)));
            let before = numbers(&case.clean[layer].matmul(&Tensor::from_slice(&direction)));
            let largest = |values: &[f64]| values.iter().fold(0f64, |most, x| most.max(x.abs()));
            assert!(largest(&along) < 1e-5 * largest(&before).max(1.0) && largest(&before) > 0.0, "{name}: layer {layer}");
            let zero = divergences(&case.checkpoint, COMPUTE, &case.clean[layer], &seen[0][0]).unwrap();
            assert!(zero.iter().all(|kl| *kl == 0.0), "equal rows diverge: {zero:?}");
        }
    }
}
