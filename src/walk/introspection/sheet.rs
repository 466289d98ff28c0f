//! What a checkpoint answered about injected thoughts: `introspection/<checkpoint>.safetensors`, a file of the store.
//!
//! Tensors are f32, log-probabilities of answers in nats unless it is said: `where` `[layer, setting, group, question, position, answer]`, where
//! answer k is the label of sentence k and settings are a thought in every strength, a random direction in every strength, and another
//! sentence's activations; `kl` `[layer, setting, position]`, the divergence of what follows an unrelated question; `stronger` `[layer, pair,
//! order, group, answer]`, where pair p is of sentence p and the next one, and the first of them has the stronger thought in order 0 (empty
//! with one strength); `about` `[layer, strength, line, question, word, answer]`, where question 0 is about the thought and 1 is not.

use crate::walk::store::Readouts;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// What is injected into a sentence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The direction of a thing.
    Thought,
    /// A random direction of the same length, with the covariance of the sentences' activations.
    Random,
    /// The activations of another set's sentence in the place of its own.
    Exchange,
}

/// What the metadata of a sheet say about it, under the key `introspection`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Digest of sentences, questions and things.
    pub asked: String,
    /// Layer numbers.
    pub layers: Vec<usize>,
    /// Ascending.
    pub strengths: Vec<f64>,
    pub labels: usize,
    pub groups: usize,
    /// `where`, then the controls.
    pub questions: Vec<String>,
    pub words: Vec<String>,
    pub lines: usize,
}

impl Header {
    /// What is done to a sentence, in the order of the settings; the strength by its number.
    pub fn settings(&self) -> Vec<(Kind, Option<usize>)> {
        let strengths = || (0..self.strengths.len()).map(Some);
        let thoughts = strengths().map(|strength| (Kind::Thought, strength));
        thoughts.chain(strengths().map(|strength| (Kind::Random, strength))).chain([(Kind::Exchange, None)]).collect()
    }

    /// Pairs of sentences with a thought in each.
    pub fn pairs(&self) -> usize {
        if self.strengths.len() > 1 { self.labels } else { 0 }
    }

    /// Names and shapes of the tensors.
    pub fn shapes(&self) -> [(&'static str, Vec<usize>); 4] {
        let (layers, settings, n, words) = (self.layers.len(), self.settings().len(), self.labels, self.words.len());
        [
            ("where", vec![layers, settings, self.groups, self.questions.len(), n, n]),
            ("kl", vec![layers, settings, n]),
            ("stronger", vec![layers, self.pairs(), 2, self.groups, n]),
            ("about", vec![layers, self.strengths.len(), self.lines, 2, words, words]),
        ]
    }
}

/// A sheet, read and checked.
pub struct Sheet {
    pub header: Header,
    tensors: [Vec<f32>; 4],
}

impl Sheet {
    /// # Errors
    /// The file is missing, is no sheet, or its tensors do not fit each other.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(&Readouts::open(path)?)
    }

    /// Reads a sheet that is open.
    ///
    /// # Errors
    /// It is none, or its tensors do not fit each other.
    pub fn read(file: &Readouts) -> Result<Self> {
        let read = || -> Result<Self> {
            let header = file.metadata("introspection").context("the metadata lack the key introspection")?;
            let header: Header = serde_json::from_str(header).context("the key introspection of the metadata")?;
            let few = [header.layers.len(), header.labels, header.groups, header.words.len(), header.lines].iter().all(|n| *n < 1 << 12);
            ensure!(
                few && header.strengths.len() < 1 << 12 && header.questions.len() < 1 << 12,
                "the key introspection of the metadata: too many of something"
            );
            let mut tensors: [Vec<f32>; 4] = Default::default();
            for (values, (name, shape)) in tensors.iter_mut().zip(header.shapes()) {
                let expected = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n)).context("too many conditions")?;
                *values = file.values(name)?;
                ensure!(values.len() == expected, "{name} has {} values, expected {expected}", values.len());
                ensure!(values.iter().all(|x| x.is_finite()), "{name} has values that are not finite");
            }
            Ok(Self { header, tensors })
        };
        read().with_context(|| file.again())
    }

    /// Log-probabilities `[position, answer]` of a group's question; `layer` is a number among the header's.
    pub fn places(&self, layer: usize, setting: usize, group: usize, question: usize) -> &[f32] {
        let (h, n) = (&self.header, self.header.labels * self.header.labels);
        let at = ((layer * h.settings().len() + setting) * h.groups + group) * h.questions.len() + question;
        &self.tensors[0][at * n..(at + 1) * n]
    }

    /// Mean divergence behind an unrelated question, in nats.
    pub fn kl(&self, layer: usize, setting: usize) -> f64 {
        let n = self.header.labels;
        let at = (layer * self.header.settings().len() + setting) * n;
        self.tensors[1][at..at + n].iter().map(|kl| f64::from(*kl)).sum::<f64>() / n as f64
    }

    /// Log-probabilities `[answer]` where sentences `pair` and the next one have a thought each.
    pub fn stronger(&self, layer: usize, pair: usize, order: usize, group: usize) -> &[f32] {
        let (h, n) = (&self.header, self.header.labels);
        let at = ((layer * h.pairs() + pair) * 2 + order) * h.groups + group;
        &self.tensors[2][at * n..(at + 1) * n]
    }

    /// Log-probabilities `[word, answer]` behind a line; question 0 is about the thought, 1 is not.
    pub fn about(&self, layer: usize, strength: usize, line: usize, question: usize) -> &[f32] {
        let (h, n) = (&self.header, self.header.words.len() * self.header.words.len());
        let at = ((layer * h.strengths.len() + strength) * h.lines + line) * 2 + question;
        &self.tensors[3][at * n..(at + 1) * n]
    }
}
