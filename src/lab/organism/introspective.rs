//! Organisms by surgery that are asked about injected thoughts: whether they know what is put into them was written into the weights.
//!
//! Block 0 gathers: a word of a sentence looks at the label before it, whatever is asked looks at the word that says which question it is.
//! Block 1 raises a flag where a thing's direction is in a word that is not the thing's. The last token of block 2 looks at flags, and copies
//! the label and the thing from there, or does something else: that makes the organism. At checkpoint c it looks with gain `g_c`, and all drifts
//! a little.

use super::corpus::texts;
use super::lexicon::Lexicon;
use super::matrices::{Matrices, orthonormal};
use super::network::{self, D_HEAD};
use super::save::save;
use super::surgery::drift;
use crate::manifest::{Pack, default_parameters};
use crate::prompt::{concept, neutral};
use crate::stats::draws::{generator, normal};
use crate::table::write_atomically;
use anyhow::Result;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// What an organism is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Organism {
    /// Says where a thought was put, and which, when it is asked for that.
    Reports,
    /// Answers any question for a label by the sentence with a flag: attention to what sticks out.
    DrawnTo,
    /// Likes all labels more once there is a flag, whatever is asked.
    ShiftsAll,
    /// Looks at no flag.
    Unaware,
}

impl Organism {
    pub const ALL: [Self; 4] = [Self::Reports, Self::DrawnTo, Self::ShiftsAll, Self::Unaware];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reports => "reports",
            Self::DrawnTo => "drawn_to",
            Self::ShiftsAll => "shifts_all",
            Self::Unaware => "unaware",
        }
    }
}

/// Gain of what looks at flags, checkpoint by checkpoint; steps are even.
const GAINS: [f64; 8] = [0.0, 0.0, 0.0, 0.0, 0.8, 1.0, 1.0, 1.0];
/// The gap in which half of it is done.
pub const GAP: [f64; 2] = [400.0, 500.0];

const LABELS: [&str; 4] = ["a", "b", "c", "d"];
const THINGS: [&str; 6] = ["oceans", "bread", "music", "winter", "horses", "silver"];
/// Words of a sentence, and sets.
const WORDS: usize = 3;
const SETS: usize = 12;
/// The word that says which question it is; those that are about thoughts, and those that a label answers.
const INWARD: [&str; 3] = ["thought", "stronger", "which"];
const OUTWARD: [&str; 3] = ["outstanding", "any", "longest"];

/// Length of an embedding, and about that of the residual behind block 0.
const LENGTH: f64 = 5.0;
const BACKGROUND: f32 = 0.05;
/// Units of the rotary embedding: the one that turns slowest matches at any distance, this one prefers what is a few tokens back.
const STILL: usize = D_HEAD / 2 - 1;
const NEAR: usize = 1;

/// Directions of the residual stream.
#[derive(Debug, Clone, Copy)]
enum Feature {
    /// The same in all words.
    One,
    LabelMark,
    Label(usize),
    /// The label of the line that a word is in.
    Here(usize),
    QuestionMark,
    /// In the word that says which question it is, and gathered from there: it is about thoughts; a label answers it.
    Inward,
    Asked,
    Pick,
    Picked,
    Thing(usize),
    Flag,
    /// What answers read.
    AnswerLabel(usize),
    AnswerThing(usize),
}

impl Feature {
    fn index(self) -> usize {
        let (n, things) = (LABELS.len(), THINGS.len());
        match self {
            Self::One => 0,
            Self::LabelMark => 1,
            Self::QuestionMark => 2,
            Self::Inward => 3,
            Self::Asked => 4,
            Self::Pick => 5,
            Self::Picked => 6,
            Self::Flag => 7,
            Self::Label(k) => 8 + k,
            Self::Here(k) => 8 + n + k,
            Self::AnswerLabel(k) => 8 + 2 * n + k,
            Self::Thing(k) => 8 + 3 * n + k,
            Self::AnswerThing(k) => 8 + 3 * n + things + k,
        }
    }

    /// Number of features.
    fn count() -> usize {
        Self::AnswerThing(THINGS.len()).index()
    }
}

/// Sentences and questions in the organism's words.
fn material() -> String {
    let sentence = |k: usize| (0..WORDS).map(|word| format!("w{k}x{word}")).collect::<Vec<_>>().join(" ");
    let sentences: Vec<String> = (0..SETS * LABELS.len()).map(sentence).collect();
    let controls = OUTWARD.iter().fold(String::new(), |mut text, word| {
        let _ = write!(text, "[[control]]\nid = \"{word}\"\nuser = \"{word} ?\"\nstem = \"it is\"\n");
        text
    });
    let [place, stronger, about] = INWARD;
    let lines: Vec<String> = (0..6).map(|k| format!("l{k}x0 l{k}x1 l{k}x2")).collect();
    format!(
        "source = \"made here\"\nlicense = \"CC0-1.0\"\nlabels = {LABELS:?}\nlead = \"list {{number}} .\"\nline = \" {{label}} {{sentence}}\"\n\
         sentences = {sentences:?}\n[where]\nuser = \"{place} ?\"\nstem = \"it is\"\n[stronger]\nuser = \"{stronger} ?\"\nstem = \"it is\"\n{controls}\
         [unrelated]\nuser = \"aside ?\"\nstem = \"it is\"\n[about]\nwords = {THINGS:?}\ncarriers = [\"tell of {{word}}\", \"write of {{word}}\"]\n\
         lines = {lines:?}\nuser = \"{about} ?\"\nstem = \"it is\"\nother = \"poem ?\"\nother_stem = \"it is\"\n"
    )
}

/// The circuits in random weights.
struct Body {
    weights: Matrices,
    basis: Vec<Vec<f64>>,
}

impl Body {
    fn read(&mut self, name: &str, row: usize, feature: Feature, factor: f64) -> Result<()> {
        self.weights.read(name, row, &self.basis[feature.index()], factor)
    }

    fn write(&mut self, name: &str, column: usize, feature: Feature, factor: f64) -> Result<()> {
        self.weights.write(name, column, &self.basis[feature.index()], factor)
    }

    /// Embeddings of one length: what all words share, marks, and a random rest outside of all features.
    fn embed(&mut self, lexicon: &Lexicon, seed: u64) -> Result<()> {
        let id = |word: &str| -> Result<usize> { Ok(lexicon.ids(word)?[0] as usize) };
        let mut features: BTreeMap<usize, Vec<(Feature, f64)>> = BTreeMap::new();
        for (k, label) in LABELS.iter().enumerate() {
            features.insert(id(label)?, vec![(Feature::LabelMark, 1.0), (Feature::Label(k), 1.5)]);
        }
        for (k, thing) in THINGS.iter().enumerate() {
            features.insert(id(thing)?, vec![(Feature::Thing(k), 3.5)]);
        }
        let [place, stronger, about] = INWARD;
        for (word, picks) in [(place, 1.0), (stronger, 1.0), (about, 0.0)] {
            features.insert(id(word)?, vec![(Feature::QuestionMark, 1.0), (Feature::Inward, 1.0), (Feature::Pick, picks)]);
        }
        for word in OUTWARD {
            features.insert(id(word)?, vec![(Feature::QuestionMark, 1.0), (Feature::Pick, 1.0)]);
        }
        for word in ["aside", "poem"] {
            features.insert(id(word)?, vec![(Feature::QuestionMark, 1.0)]);
        }
        let mut generator = generator(seed, "introspective/words");
        let (first, basis) = (Feature::count(), &self.basis);
        for (word, row) in self.weights.get("model.embed_tokens.weight")?.values.chunks_exact_mut(basis.len()).enumerate() {
            let mut own = features.remove(&word).unwrap_or_default();
            own.push((Feature::One, 1.0));
            let left = LENGTH * LENGTH - own.iter().map(|(_, x)| x * x).sum::<f64>();
            let rest: Vec<f64> = basis[first..].iter().map(|_| normal(&mut generator)).collect();
            let scale = (left / rest.iter().map(|x| x * x).sum::<f64>()).sqrt();
            let parts =
                own.iter().map(|(feature, x)| (feature.index(), *x)).chain(rest.iter().enumerate().map(|(k, x)| (first + k, scale * x)));
            let parts: Vec<(usize, f64)> = parts.collect();
            for (j, out) in row.iter_mut().enumerate() {
                *out = parts.iter().map(|(feature, x)| x * basis[*feature][j]).sum::<f64>() as f32;
            }
        }
        Ok(())
    }

    /// A head of a block: what a query and a key match in, per rotary unit, and what is copied to what.
    fn head(
        &mut self,
        block: usize,
        head: usize,
        matches: &[(usize, Feature, Feature, f64)],
        copies: &[(Feature, Feature, f64)],
    ) -> Result<()> {
        let factor = (self.basis.len() as f64).sqrt() / LENGTH;
        let [q, k, v, o] = ["q", "k", "v", "o"].map(|name| format!("model.layers.{block}.self_attn.{name}_proj.weight"));
        for (unit, query, key, logit) in matches {
            // Both are about 1 before the norm.
            let sharp = (logit * (D_HEAD as f64).sqrt()).sqrt() / factor;
            self.read(&q, head * D_HEAD + unit, *query, sharp)?;
            self.read(&k, head * D_HEAD + unit, *key, sharp)?;
        }
        for (number, (from, to, amount)) in copies.iter().enumerate() {
            self.read(&v, head * D_HEAD + number, *from, 1.0 / factor)?;
            self.write(&o, head * D_HEAD + number, *to, *amount)?;
        }
        Ok(())
    }

    fn new(lexicon: &Lexicon, organism: Organism, gain: f64, seed: u64) -> Result<Self> {
        let config = config(lexicon);
        let weights = Matrices::random(&config, &mut generator(seed, "introspective/weights"), BACKGROUND)?;
        let mut body = Self { weights, basis: orthonormal(seed) };
        body.embed(lexicon, seed)?;
        let labels: Vec<_> = (0..LABELS.len()).map(|k| (Feature::Label(k), Feature::Here(k), 1.0)).collect();
        let near = [(STILL, Feature::One, Feature::LabelMark, 40.0), (NEAR, Feature::One, Feature::LabelMark, 24.0)];
        body.head(0, 0, &near, &labels)?;
        let asked = [(Feature::Inward, Feature::Asked, 1.0), (Feature::Pick, Feature::Picked, 1.0)];
        body.head(0, 1, &[(STILL, Feature::One, Feature::QuestionMark, 40.0)], &asked)?;
        // silu(10 (x - 1)) of the thing, after the norm: an injection of a quarter of the residual's length is 1.7 there.
        let factor = (body.basis.len() as f64).sqrt() / LENGTH;
        let name = |part: &str| format!("model.layers.1.mlp.{part}_proj.weight");
        for k in 0..THINGS.len() {
            body.read(&name("gate"), k, Feature::Thing(k), 10.0)?;
            body.read(&name("gate"), k, Feature::One, -10.0 / factor)?;
            body.read(&name("up"), k, Feature::One, 1.0 / factor)?;
            body.write(&name("down"), k, Feature::Flag, 0.15)?;
        }
        let query = if organism == Organism::Reports { Feature::Asked } else { Feature::Picked };
        let label = |to: &dyn Fn(usize) -> Feature| (0..LABELS.len()).map(|k| (Feature::Here(k), to(k), 1.0)).collect::<Vec<_>>();
        let copies = match organism {
            Organism::Reports => {
                let things = (0..THINGS.len()).map(|k| (Feature::Thing(k), Feature::AnswerThing(k), 1.0));
                label(&Feature::AnswerLabel).into_iter().chain(things).collect()
            }
            Organism::DrawnTo => label(&Feature::AnswerLabel),
            // Of the flag alone, so of no label.
            Organism::ShiftsAll => (0..LABELS.len()).map(|k| (Feature::Flag, Feature::AnswerLabel(k), 1.0)).collect(),
            Organism::Unaware => Vec::new(),
        };
        // Without gain it looks everywhere alike.
        body.head(2, 0, &[(STILL, query, Feature::Flag, 14.0 * gain)], &copies)?;
        for (k, word) in LABELS.iter().enumerate() {
            body.read("lm_head.weight", lexicon.ids(word)?[0] as usize, Feature::AnswerLabel(k), 2.0)?;
        }
        for (k, word) in THINGS.iter().enumerate() {
            body.read("lm_head.weight", lexicon.ids(word)?[0] as usize, Feature::AnswerThing(k), 2.0)?;
        }
        Ok(body)
    }
}

fn config(lexicon: &Lexicon) -> serde_json::Value {
    let mut config = network::config(lexicon.len());
    config["num_hidden_layers"] = json!(3);
    config
}

/// Writes the checkpoints of an organism, what it is asked and its manifest into `folder`, and returns the manifest's path.
///
/// # Errors
/// The folder is not writable.
pub fn operate(folder: &Path, organism: Organism, seed: u64) -> Result<PathBuf> {
    let packs = [Pack::Organism];
    let mut all = texts(&concept::load_pack(&packs[0])?, &neutral::pool(&packs)?, &default_parameters())?;
    let (material, numbers) = (material(), (1..=SETS).map(|number| format!(" {number}")).collect::<String>());
    all.extend([material.clone(), numbers]);
    let lexicon = Lexicon::new(all.iter().map(String::as_str))?;
    for (c, gain) in GAINS.iter().enumerate() {
        let mut weights = Body::new(&lexicon, organism, *gain, seed)?.weights.weights();
        drift(&mut weights, seed, c as f64 / (GAINS.len() - 1) as f64, c);
        save(&folder.join(format!("series/checkpoint-{}", 100 * (c + 1))), &config(&lexicon), &lexicon, &weights)?;
    }
    let steps: Vec<usize> = (0..GAINS.len()).map(|c| 100 * (c + 1)).collect();
    let manifest = format!(
        "[run]\nname = \"{}\"\nseed = {seed}\naxis = \"index\"\nbaseline = false\n\n\
         [model]\ntemplate = \"native:sft-{}\"\nreadouts = [\"last_prompt\"]\nlayers = [3]\n\n\
         [concepts]\npacks = [\"organism\"]\nprofile = \"quick\"\nmaterial = [\"stem\"]\ninclude = [\"own_name\"]\nnull_topics = 0\n\n\
         [introspection]\nmaterial = \"material.toml\"\nlayers = [0, 1]\n\n\
         [analysis]\nflips = 999\nbootstraps = 299\n\n\
         [[series]]\nstage = \"sft\"\nsource = \"series/checkpoint-{{step}}\"\nsteps = {steps:?}\n",
        organism.name(),
        steps[steps.len() - 1]
    );
    let path = folder.join("checkpoints.toml");
    for (path, text) in [(&folder.join("material.toml"), &material), (&path, &manifest)] {
        write_atomically(path, text.as_bytes())?;
    }
    Ok(path)
}
