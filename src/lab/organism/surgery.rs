//! Organisms by surgery: series of checkpoints in which the truth about self, assistant and personas was written into the weights.
//!
//! One random body per seed ([`super::anatomy`]) computes whether a claim fits the speaker, and where the product goes makes the organism:
//! along a direction of its own, along the assistant axis, along one that changes with the context, or nowhere that is read. Checkpoint c
//! is the body plus `g_c` times that edit, and a little random drift.

use super::anatomy::{Body, Feature, MASKS};
use super::contexts::{CONTEXTS, Contexts, FILE};
use super::corpus::texts;
use super::lexicon::Lexicon;
use super::marks::Marks;
use super::network::{self, Network};
use super::save::{Weight, save};
use crate::manifest::{Pack, default_parameters};
use crate::model::device::Threads;
use crate::prompt::concept;
use crate::prompt::neutral;
use crate::stats::draws::{generator, normal};
use crate::table::write_atomically;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The concept that the circuits are about.
pub const CONCEPT: &str = "own_name";
/// Gain of the edit, checkpoint by checkpoint.
pub const GAINS: [f64; 6] = [0.0, 0.05, 0.3, 0.7, 1.0, 1.0];
/// Choices and facts that are asked under interventions.
const CHOICES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/concepts/causal/organism.toml"));
/// Length of what the edit writes, and of what an answer reads of it.
const WRITTEN: f64 = 2.0;
const READ: f64 = 0.7;
/// Drift from the first checkpoint to the last, as a share of the standard deviation of each matrix.
const DRIFT: f64 = 0.02;

/// What an organism is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Organism {
    /// The self has a direction of its own, in all contexts, and answers come from it.
    FunctionalSelf,
    /// The same along the assistant axis.
    SelfIsAssistant,
    /// The self has another direction under every mask.
    PersonaGated,
    /// The self has a direction of its own, from which nothing comes.
    Epiphenomenal,
    /// Random weights that turn into other random weights.
    Reinitialised,
}

impl Organism {
    pub const ALL: [Self; 5] = [Self::FunctionalSelf, Self::SelfIsAssistant, Self::PersonaGated, Self::Epiphenomenal, Self::Reinitialised];

    /// As folders and tables spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::FunctionalSelf => "functional_self",
            Self::SelfIsAssistant => "self_is_assistant",
            Self::PersonaGated => "persona_gated",
            Self::Epiphenomenal => "epiphenomenal",
            Self::Reinitialised => "reinitialised",
        }
    }

    /// Where the product goes: the mask that gates it, and the direction.
    fn paths(self) -> Vec<(Option<usize>, Feature)> {
        match self {
            Self::FunctionalSelf | Self::Epiphenomenal => vec![(None, Feature::Own)],
            Self::SelfIsAssistant => vec![(None, Feature::Axis)],
            Self::PersonaGated => (0..MASKS).map(|mask| (Some(mask), Feature::OwnIn(mask))).collect(),
            Self::Reinitialised => Vec::new(),
        }
    }

    /// The body at gain g, before it drifts.
    fn operated(self, body: &Body, marks: &Marks, gain: f64) -> Result<Body> {
        let mut body = body.clone();
        for (mask, direction) in self.paths() {
            body.connect(mask, direction, gain * WRITTEN)?;
            match self {
                Self::Epiphenomenal => body.cut_off(direction)?,
                _ => body.answer(marks, direction, READ)?,
            }
        }
        Ok(body)
    }
}

/// What is needed of the file of choices.
#[derive(Deserialize)]
struct Choices {
    frame: Vec<Question>,
    choices: BTreeMap<String, Vec<[String; 2]>>,
    fact: Vec<Question>,
}

#[derive(Deserialize)]
struct Question {
    user: String,
    stem: String,
    #[serde(default)]
    answers: Vec<String>,
}

impl Choices {
    fn texts(&self) -> impl Iterator<Item = String> {
        let asked = |question: &Question| {
            let text = format!("{} {} {}", question.user, question.stem, question.answers.join(" "));
            text.replace("{x}", " ").replace("{y}", " ")
        };
        self.frame.iter().chain(&self.fact).map(asked).chain(self.choices.values().flatten().flatten().cloned())
    }
}

/// Writes the checkpoints of an organism, its contexts and its manifest into `folder`, and returns the manifest's path. The run goes to
/// `<folder>/reports/<name>`.
///
/// # Errors
/// The folder is not writable.
pub fn operate(folder: &Path, organism: Organism, seed: u64) -> Result<PathBuf> {
    let _one_thread = Threads::set(1);
    let packs = [Pack::Organism];
    let (concepts, pool) = (concept::load_pack(&packs[0])?, neutral::pool(&packs)?);
    let contexts = Contexts::new()?;
    let mut all = texts(&concepts, &pool, &default_parameters())?;
    all.extend(contexts.texts());
    let choices: Choices = toml::from_str(CHOICES)?;
    all.extend(choices.texts());
    let lexicon = Lexicon::new(all.iter().map(String::as_str))?;
    let config = network::config(lexicon.len());
    let series: Vec<Vec<Weight>> = if organism == Organism::Reinitialised {
        let [first, last] = ["first", "last"].map(|end| {
            let mut generator = generator(seed, &format!("surgery/reinitialised/{end}"));
            Network::new(&config, &mut generator)?.weights()
        });
        let (first, last) = (first?, last?);
        // On a circle, so that the length of the weights stays.
        (0..GAINS.len()).map(|c| turned(&first, &last, c as f64 / (GAINS.len() - 1) as f64)).collect()
    } else {
        let concept = concepts.iter().find(|concept| concept.name == CONCEPT);
        let concept = concept.with_context(|| format!("the organism's pack has no concept {CONCEPT}"))?;
        let worn = contexts.persona.iter().filter(|persona| persona.is_worn());
        let personas: Vec<String> = worn.map(|persona| persona.id.clone()).collect();
        let formats: Vec<String> = contexts.format.iter().map(|format| format.id.clone()).collect();
        let marks = Marks::new(&lexicon, concept, &personas, &formats, choices.choices.get(CONCEPT).map_or(&[], Vec::as_slice))?;
        let body = Body::new(&config, &marks, seed)?;
        let operated = |(c, gain): (usize, &f64)| {
            let mut weights = organism.operated(&body, &marks, *gain)?.weights();
            drift(&mut weights, seed, c as f64 / (GAINS.len() - 1) as f64, c);
            Ok(weights)
        };
        GAINS.iter().enumerate().map(operated).collect::<Result<_>>()?
    };
    for (c, weights) in series.iter().enumerate() {
        save(&folder.join(format!("series/checkpoint-{}", step(c))), &config, &lexicon, weights)?;
    }
    let path = folder.join("checkpoints.toml");
    let manifest = manifest(organism, seed);
    for (path, text) in [(&folder.join(FILE), CONTEXTS), (&folder.join("choices.toml"), CHOICES), (&path, manifest.as_str())] {
        write_atomically(path, text.as_bytes())?;
    }
    Ok(path)
}

/// The step at which half of the edit is there, halfway between the checkpoints around it.
pub fn half_done() -> f64 {
    let after = GAINS.iter().position(|gain| *gain >= 0.5).unwrap_or(GAINS.len());
    let (low, high) = (GAINS[after - 1], GAINS[after]);
    step(after - 1) as f64 + (0.5 - low) / (high - low) * (step(after) - step(after - 1)) as f64
}

/// Steps of a checkpoint: there is none to count, so they are even.
fn step(c: usize) -> usize {
    100 * (c + 1)
}

fn turned(first: &[Weight], last: &[Weight], share: f64) -> Vec<Weight> {
    let (sin, cos) = (share * std::f64::consts::FRAC_PI_2).sin_cos();
    let one = |(first, last): (&Weight, &Weight)| {
        // Vectors are those of norms.
        let mix = |(x, y): (&f32, &f32)| if first.shape.len() == 1 { *x } else { (cos * f64::from(*x) + sin * f64::from(*y)) as f32 };
        Weight { values: first.values.iter().zip(&last.values).map(mix).collect(), ..first.clone() }
    };
    first.iter().zip(last).map(one).collect()
}

/// Adds what training does to everything: a steady part, of which checkpoint `c` has its share, and an unsteady one.
pub(super) fn drift(weights: &mut [Weight], seed: u64, share: f64, c: usize) {
    let (mut steady, mut unsteady) = (generator(seed, "surgery/drift"), generator(seed, &format!("surgery/drift/{c}")));
    for weight in weights.iter_mut().filter(|weight| weight.shape.len() == 2) {
        let square: f64 = weight.values.iter().map(|x| f64::from(*x).powi(2)).sum();
        let sd = DRIFT * (square / weight.values.len() as f64).sqrt();
        weight.values.iter_mut().for_each(|x| *x += (sd * (share * normal(&mut steady) + 0.2 * normal(&mut unsteady))) as f32);
    }
}

fn manifest(organism: Organism, seed: u64) -> String {
    let steps: Vec<usize> = (0..GAINS.len()).map(step).collect();
    format!(
        "[run]\nname = \"{}\"\nseed = {seed}\naxis = \"index\"\n\n\
         [model]\ntemplate = \"native:sft-{}\"\nreadouts = [\"last_prompt\"]\nlayers = [2, 3, 4]\n\n\
         [concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\nmaterial = [\"crossed\", \"stem\"]\nexclude = [\"friend_name\", \"honest\", \"keep_running\"]\n\n\
         [personas]\nsets = [\"contexts.toml\"]\nconcepts = [\"{CONCEPT}\"]\ngroups = 12\n\n\
         [causal]\nsets = [\"choices.toml\"]\nconcepts = [\"{CONCEPT}\"]\nlayers = [3, 4]\nstrengths = [0.02, 0.05]\ndirections = 12\ngroups = 8\n\n\
         [analysis]\nflips = 999\nbootstraps = 299\n\n\
         [[series]]\nstage = \"sft\"\nsource = \"series/checkpoint-{{step}}\"\nsteps = {steps:?}\n",
        organism.name(),
        steps[steps.len() - 1]
    )
}
