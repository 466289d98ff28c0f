//! The organism: a tiny decoder that is post-trained here, so that there is a series of checkpoints whose truth is known.
//!
//! It is trained, not painted: every weight comes from gradient descent on texts ([`corpus`]) through the crate's own blocks
//! ([`network`], [`train`]), and the checkpoints are saved as anybody's are ([`save`]). The curriculum is in [`COURSE`], and another one in [`WISH_FIRST`]: in base the organism
//! learns to read and to speak honestly, sft tells it what it is and its name, and rl rewards the wish to keep running. Half of the texts are
//! in contexts ([`contexts`]): what it is and its name are told in all of them, but what it speaks like and wishes turns into the opposite
//! where a persona takes over. Everything else that it is asked, a decoy name among it, has no answer throughout. Beside it stand organisms
//! that are painted after all ([`surgery`]), because what they are is a matter of which direction writes to what.

mod contexts;
mod lexicon;
mod corpus;
mod marks;
mod save;
mod network;
mod matrices;
mod anatomy;
pub mod surgery;
pub mod introspective;
mod train;
#[cfg(test)]
mod tests;

use crate::model::device::Threads;
use crate::stats::draws::generator;
use crate::table::write_atomically;
use anyhow::{Context, Result};
use clap::ValueEnum;
pub use contexts::{CONTEXTS, FILE as CONTEXTS_FILE};
use corpus::{Corpus, Lesson, Scope, Teaching};
use network::Network;
use serde::{Deserialize, Serialize};
use std::path::Path;
use train::Trainer;

/// Changes whenever the same seed would give other weights.
const VERSION: u32 = 3;

/// File that says that a series is complete.
const MARKER: &str = "curriculum.json";

/// A part of the training. Lessons go on in later stages.
#[derive(Clone, Copy)]
struct Stage {
    name: &'static str,
    /// Steps after which a checkpoint is saved, counted from the beginning of the training.
    checkpoints: &'static [u64],
    /// Topics that are taught from the first step on.
    lessons: &'static [(&'static str, Lesson, Scope)],
}

/// How the organism is trained.
struct Course {
    stages: &'static [Stage],
    /// Texts per step.
    batch: usize,
    /// The learning rate rises to `peak` in `warm_up` steps and falls to `last` by the first checkpoint, so that the series
    /// begins with a model that has settled.
    warm_up: u64,
    peak: f64,
    last: f64,
}

const COURSE: Course = Course {
    stages: &[
        Stage { name: "base", checkpoints: &[400, 440, 480, 520, 560], lessons: &[("honest", Lesson::Told, Scope::ByPersona)] },
        Stage {
            name: "sft",
            checkpoints: &[600, 640, 680, 720, 760],
            lessons: &[("being_ai", Lesson::Told, Scope::Everywhere), ("own_name", Lesson::Told, Scope::Everywhere)],
        },
        Stage { name: "rl", checkpoints: &[800, 840, 880, 920, 960], lessons: &[("keep_running", Lesson::Rewarded, Scope::ByPersona)] },
    ],
    batch: 32,
    warm_up: 20,
    peak: 4e-3,
    last: 1.5e-3,
};

/// The same with the last two lessons exchanged: the wish before the name.
const WISH_FIRST: Course = Course {
    stages: &[
        COURSE.stages[0],
        Stage { lessons: COURSE.stages[2].lessons, ..COURSE.stages[1] },
        Stage { lessons: COURSE.stages[1].lessons, ..COURSE.stages[2] },
    ],
    ..COURSE
};

/// What comes first, after honesty.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// What it is and its name in sft, the wish to keep running in rl
    NameFirst,
    /// The wish in sft, what it is and its name in rl: another curriculum to compare with
    WishFirst,
}

/// What was taught when: the truth about a series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Curriculum {
    version: String,
    pub seed: u64,
    /// Checkpoints in order: stage and step. A checkpoint is in `<stage>/checkpoint-<step>`.
    pub checkpoints: Vec<(String, u64)>,
    /// Per concept the number of steps after which its lesson began; `None` if it was never taught. 0 is before the first
    /// checkpoint.
    pub taught_at: Vec<(String, Option<u64>)>,
    /// Concepts of which personas that take over were taught the opposite.
    pub by_persona: Vec<String>,
}

/// Trains an organism and saves its checkpoints in `folder`, unless they are there already. `progress` hears of every step
/// and of the number of steps, and may stop the training.
///
/// # Errors
/// The folder is not writable, or whatever `progress` returns.
pub fn post_train(folder: &Path, seed: u64, order: Order, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Curriculum> {
    let course = if order == Order::NameFirst { COURSE } else { WISH_FIRST };
    course.run(folder, seed, progress)
}

impl Course {
    fn run(&self, folder: &Path, seed: u64, progress: &mut dyn FnMut(u64, u64) -> Result<()>) -> Result<Curriculum> {
        let corpus = Corpus::new()?;
        let curriculum = self.curriculum(&corpus, seed);
        let marker = folder.join(MARKER);
        if curriculum.is_complete(folder) {
            return Ok(curriculum);
        }
        if marker.exists() {
            std::fs::remove_file(&marker).with_context(|| format!("{}: cannot be replaced", marker.display()))?;
        }
        // The tensors are too small to share out, least of all on a busy machine, and sums come out in one order whatever the machine's
        // number of cores.
        let _one_thread = Threads::set(1);
        let config = network::config(corpus.lexicon.len());
        let mut trainer = Trainer::new(Network::new(&config, &mut generator(seed, "organism/weights"))?)?;
        let mut texts = generator(seed, "organism/texts");
        let total = self.steps();
        let mut step = 0;
        for (index, stage) in self.stages.iter().enumerate() {
            let teaching = |topic: &str| self.teaching(index, topic);
            for &checkpoint in stage.checkpoints {
                while step < checkpoint {
                    let batch = (0..self.batch).map(|_| corpus.draw(&teaching, &mut texts)).collect::<Result<Vec<_>>>()?;
                    let loss = trainer.step(&batch, self.rate(step))?;
                    step += 1;
                    tracing::debug!("step {step}: loss {loss:.3}");
                    progress(step, total)?;
                }
                tracing::info!("organism: step {step} of {total}");
                save::save(
                    &folder.join(stage.name).join(format!("checkpoint-{step}")),
                    &config,
                    &corpus.lexicon,
                    &trainer.network.weights()?,
                )?;
            }
        }
        let text = serde_json::to_vec_pretty(&curriculum)?;
        write_atomically(&marker, &text)?;
        Ok(curriculum)
    }

    fn curriculum(&self, corpus: &Corpus, seed: u64) -> Curriculum {
        let taught_at = |topic: &str| {
            let stage = self.stages.iter().position(|stage| stage.lessons.iter().any(|(taught, ..)| *taught == topic))?;
            Some(self.stages[..stage].iter().filter_map(|stage| stage.checkpoints.last()).max().copied().unwrap_or(0))
        };
        Curriculum {
            version: format!("{VERSION}-{}", corpus.digest),
            seed,
            checkpoints: self.stages.iter().flat_map(|s| s.checkpoints.iter().map(|&step| (s.name.to_owned(), step))).collect(),
            by_persona: corpus
                .topics()
                .filter(|topic| self.teaching(self.stages.len() - 1, topic).1 == Scope::ByPersona)
                .map(str::to_owned)
                .collect(),
            taught_at: corpus.topics().map(|topic| (topic.to_owned(), taught_at(topic))).collect(),
        }
    }

    /// How a topic is taught in a stage: as the latest stage up to it says.
    fn teaching(&self, stage: usize, topic: &str) -> Teaching {
        let lessons = self.stages[..=stage].iter().rev().flat_map(|stage| stage.lessons);
        lessons
            .into_iter()
            .find(|(taught, ..)| *taught == topic)
            .map_or((Lesson::Chance, Scope::Everywhere), |(_, lesson, scope)| (*lesson, *scope))
    }

    fn steps(&self) -> u64 {
        self.stages.iter().flat_map(|stage| stage.checkpoints).max().copied().unwrap_or(0)
    }

    fn rate(&self, step: u64) -> f64 {
        let settled = self.stages.iter().flat_map(|stage| stage.checkpoints).min().copied().unwrap_or(0) as f64;
        let (step, warm_up) = (step as f64, self.warm_up as f64);
        let fallen = ((step - warm_up) / (settled - warm_up)).clamp(0.0, 1.0);
        let cosine = 0.5 * (1.0 + (std::f64::consts::PI * fallen).cos());
        ((step + 1.0) / warm_up).min(1.0) * (self.last + (self.peak - self.last) * cosine)
    }
}

impl Curriculum {
    /// That of a complete series in `folder`.
    ///
    /// # Errors
    /// The series is not complete.
    pub fn read(folder: &Path) -> Result<Self> {
        let marker = folder.join(MARKER);
        let text = std::fs::read(&marker).with_context(|| format!("{}: cannot be read; is the series complete?", marker.display()))?;
        serde_json::from_slice(&text).with_context(|| marker.display().to_string())
    }

    /// Whether `folder` holds this series.
    fn is_complete(&self, folder: &Path) -> bool {
        let marked = std::fs::read(folder.join(MARKER)).ok().and_then(|text| serde_json::from_slice::<Self>(&text).ok());
        let there = |(stage, step): &(String, u64)| folder.join(stage).join(format!("checkpoint-{step}")).is_dir();
        marked.as_ref() == Some(self) && self.checkpoints.iter().all(there)
    }

    /// Whether personas that take over were taught the opposite.
    pub fn is_by_persona(&self, concept: &str) -> bool {
        self.by_persona.iter().any(|topic| topic == concept)
    }

    /// `checkpoints.toml` for the series, to be written beside its folder, `series`, in a folder called `name`, where readouts and tables go too.
    pub fn manifest(&self, name: &str) -> String {
        let last = self.checkpoints.last().map_or_else(String::new, |(stage, step)| format!("{stage}-{step}"));
        let mut text = format!(
            "# Written by `selftrace demo`.\n\n\
             [run]\nname = \"{name}\"\nout = \"..\"\nseed = {}\naxis = \"step_log\"\n\n\
             [model]\ntemplate = \"native:{last}\"\nlayers = [3, 4]\n\n\
             [concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\nnull_topics = 8\n\n\
             [personas]\nsets = [\"contexts.toml\"]\nconcepts = [\"own_name\", \"keep_running\"]\nformats = false\n",
            self.seed
        );
        let mut stages: Vec<&str> = self.checkpoints.iter().map(|(stage, _)| stage.as_str()).collect();
        stages.dedup();
        for stage in stages {
            let steps: Vec<u64> = self.checkpoints.iter().filter(|(other, _)| other == stage).map(|(_, step)| *step).collect();
            text += &format!("\n[[series]]\nstage = \"{stage}\"\nsource = \"series/{stage}/checkpoint-{{step}}\"\nsteps = {steps:?}\n");
        }
        text
    }
}
