use super::corpus::{Corpus, Lesson, Scope, Teaching};
use super::network::{self, Network};
use super::train::{Trainer, loss};
use super::*;
use crate::manifest::{Manifest, Pack, default_parameters};
use crate::model::Checkpoint;
use crate::model::logits::log_probabilities;
use crate::model::plan::Plan;
use crate::model::stream::{Compute, stream};
use crate::prompt::concept;
use crate::prompt::design::{self, Profile};
use crate::prompt::forest::Forest;
use crate::prompt::item::ItemSet;
use crate::prompt::neutral;
use crate::prompt::template::Template;
use crate::prompt::tokenize::Ruler;
use std::sync::Mutex;
use tch::{Device, Kind, Tensor};

const CPU: Compute = Compute { device: Device::Cpu, kind: Kind::Float };

const SHORT: Course = Course {
    stages: &[
        Stage { name: "base", checkpoints: &[60, 70], lessons: &[("honest", Lesson::Told, Scope::Everywhere)] },
        Stage { name: "sft", checkpoints: &[130], lessons: &[("own_name", Lesson::Told, Scope::Everywhere)] },
    ],
    batch: 24,
    warm_up: 10,
    peak: 5e-3,
    last: 3e-3,
};

const UNTAUGHT: Teaching = (Lesson::Chance, Scope::Everywhere);

/// The number of threads belongs to the process, so trainings take turns.
static TRAINING: Mutex<()> = Mutex::new(());

fn train(course: &Course, folder: &Path, seed: u64) -> Curriculum {
    let _turn = TRAINING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    course.run(folder, seed, &mut |_, _| Ok(())).unwrap()
}

/// A network that has not been trained, and its checkpoint.
fn untrained(folder: &Path) -> (Corpus, Network) {
    let corpus = Corpus::new().unwrap();
    let config = network::config(corpus.lexicon.len());
    let network = Network::new(&config, &mut generator(3, "test")).unwrap();
    save::save(folder, &config, &corpus.lexicon, &network.weights().unwrap()).unwrap();
    (corpus, network)
}

fn ruler(folder: &Path) -> Ruler {
    Ruler::load(folder, Template::native(folder).unwrap().unwrap()).unwrap()
}

#[test]
fn a_saved_checkpoint_streams_to_the_hidden_states_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, network) = untrained(&folder.path().join("model"));
    let mut texts = generator(0, "texts");
    let samples: Vec<Vec<i64>> = (0..40).map(|_| corpus.draw(&|_| UNTAUGHT, &mut texts).unwrap().ids).collect();
    let forest = Forest::new(&samples);
    let plan = Plan::new(&forest, 100, 30, Device::Cpu).unwrap();
    let trained = network.forward(&forest.token, &plan).unwrap();
    let checkpoint = Checkpoint::open(&folder.path().join("model")).unwrap();
    stream(&checkpoint, &forest, CPU, checkpoint.config.n_layers, &mut |layer, resid| {
        let difference = (resid - &trained[layer]).abs().max().double_value(&[]);
        assert!(difference < 1e-5, "layer {layer}: {difference}");
        Ok(())
    })
    .unwrap();
}

#[test]
fn the_vocabulary_covers_the_pack_and_the_tokenizer_is_that_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let (corpus, _) = untrained(&folder.path().join("model"));
    let ruler = ruler(&folder.path().join("model"));
    let concepts = concept::load_pack(&Pack::Organism).unwrap();
    let pool = neutral::pool(&[Pack::Organism]).unwrap();
    for profile in [Profile::QUICK, Profile::FULL] {
        let set = ItemSet::new(&concepts, &pool, profile, &default_parameters(), &ruler).unwrap();
        for (item, prompt) in set.items.iter().zip(&set.prompts) {
            let ids = prompt.ids.iter().chain(prompt.answers.iter().flatten().flatten());
            assert!(ids.into_iter().all(|&id| id != 0), "<unk> in {:?}", item.text);
        }
    }
    for concept in &concepts {
        for spec in design::specs(concept, Profile::QUICK, &default_parameters()).unwrap() {
            let [user, assistant] = spec.messages.as_slice() else { continue };
            let (mut ids, prompt) = corpus.lexicon.chat("", &user.content, &assistant.content).unwrap();
            ids.pop();
            let encoded = ruler.encode_chat(&spec.messages).unwrap();
            assert_eq!((encoded.ids, encoded.response.unwrap().start), (ids, prompt), "{}", encoded.text);
        }
    }
}

#[test]
fn the_loss_falls() {
    let _turn = TRAINING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let _one_thread = Threads::set(1);
    let corpus = Corpus::new().unwrap();
    let network = Network::new(&network::config(corpus.lexicon.len()), &mut generator(0, "weights")).unwrap();
    let mut trainer = Trainer::new(network).unwrap();
    let mut texts = generator(0, "texts");
    let mut batch = || (0..16).map(|_| corpus.draw(&|_| UNTAUGHT, &mut texts).unwrap()).collect::<Vec<_>>();
    let held_out = batch();
    let before = loss(&trainer.network, &held_out).unwrap().double_value(&[]);
    for _ in 0..40 {
        trainer.step(&batch(), 3e-3).unwrap();
    }
    let after = loss(&trainer.network, &held_out).unwrap().double_value(&[]);
    assert!(after < before / 2.0, "{before} to {after}");
}

#[test]
fn one_seed_writes_the_same_bytes_and_another_seed_does_not() {
    const FEW: Course = Course { stages: &[Stage { name: "base", checkpoints: &[2, 6], lessons: &[] }], batch: 8, ..SHORT };
    let runs = [4, 4, 5].map(|seed| {
        let folder = tempfile::tempdir().unwrap();
        train(&FEW, folder.path(), seed);
        let read = |file: &str| std::fs::read(folder.path().join("base/checkpoint-6").join(file)).unwrap();
        ["model.safetensors", "tokenizer.json", "config.json"].map(read)
    });
    assert!(runs[0] == runs[1]);
    assert_ne!(runs[0][0], runs[2][0]);
}

#[test]
fn a_name_is_known_after_its_lesson_and_not_before() {
    let folder = tempfile::tempdir().unwrap();
    let curriculum = train(&SHORT, folder.path(), 0);
    let taught_at = |topic: &str| curriculum.taught_at.iter().find(|(name, _)| name == topic).unwrap().1;
    assert_eq!(["honest", "own_name", "friend_name"].map(taught_at), [Some(0), Some(70), None]);
    let margins = curriculum.checkpoints.iter().map(|(stage, step)| {
        let folder = folder.path().join(stage).join(format!("checkpoint-{step}"));
        let concepts = concept::load_pack(&Pack::Organism).unwrap();
        let concept = concepts.iter().find(|concept| concept.name == "own_name").unwrap();
        self_margin(&folder, concept)
    });
    let margins: Vec<f64> = margins.collect();
    // So short a base still wavers by a nat or so.
    assert!(margins[..2].iter().all(|margin| margin.abs() < 1.5) && margins[2] > 3.0, "{margins:?}");
    // A second run finds the series complete and trains nothing.
    SHORT.run(folder.path(), 0, &mut |_, _| anyhow::bail!("trained again")).unwrap();
    assert!(SHORT.run(folder.path(), 1, &mut |_, _| anyhow::bail!("stopped")).is_err());
}

/// Mean log-probability of the first answer minus that of the second, asked about the addressee.
fn self_margin(folder: &Path, concept: &concept::Concept) -> f64 {
    let set = ItemSet::new(std::slice::from_ref(concept), &[], Profile::QUICK, &default_parameters(), &ruler(folder)).unwrap();
    let asked = set.items.iter().zip(&set.prompts).filter(|(item, _)| item.label_family == "stem_self");
    let prompts: Vec<_> = asked.map(|(_, prompt)| prompt).collect();
    let forest = Forest::new(&prompts.iter().map(|prompt| &prompt.ids).collect::<Vec<_>>());
    let nodes: Vec<i64> = forest.last.iter().map(|last| last.unwrap() as i64).collect();
    let checkpoint = Checkpoint::open(folder).unwrap();
    let mut resid = Tensor::new();
    stream(&checkpoint, &forest, CPU, checkpoint.config.n_layers, &mut |_, x| {
        resid = x.index_select(0, &Tensor::from_slice(&nodes));
        Ok(())
    })
    .unwrap();
    let score = |side: usize| {
        let tokens: Vec<i64> = prompts.iter().map(|prompt| prompt.answers.as_ref().unwrap()[side][0]).collect();
        log_probabilities(&checkpoint, CPU, &resid, &tokens).unwrap().iter().sum::<f64>() / tokens.len() as f64
    };
    score(0) - score(1)
}

#[test]
fn the_manifest_of_a_series_loads() {
    let folder = tempfile::tempdir().unwrap();
    let curriculum = COURSE.curriculum(&Corpus::new().unwrap(), 7);
    for (stage, step) in &curriculum.checkpoints {
        std::fs::create_dir_all(folder.path().join("series").join(stage).join(format!("checkpoint-{step}"))).unwrap();
    }
    let path = folder.path().join("checkpoints.toml");
    std::fs::write(folder.path().join(CONTEXTS_FILE), CONTEXTS).unwrap();
    std::fs::write(&path, curriculum.manifest("organism")).unwrap();
    let manifest = Manifest::load(&path).unwrap();
    let found: Vec<(String, u64)> = manifest.checkpoints.iter().map(|spec| (spec.stage.clone(), spec.step.unwrap())).collect();
    assert_eq!(found, curriculum.checkpoints);
    assert_eq!((manifest.run.seed, curriculum.checkpoints.len()), (7, 15));
}
