//! Stitching: every checkpoint computes its lower blocks, and the first checkpoint finishes what they began.
//!
//! What has been learnt below a layer is in the residual there, at whatever token and in whatever direction; the first checkpoint's upper blocks
//! read it as they read everything, and answer. So a middle layer is asked for what it knows by the ruler that was there before any lesson
//! (model stitching, Lenc & Vedaldi 2015, arXiv 1411.5908; across fine-tuning as in Prakash et al. 2024, arXiv 2402.14811).

pub mod sheet;

use crate::model::Checkpoint;
use crate::model::stream::{Compute, stream, stream_from};
use crate::prompt::forest::Forest;
use crate::prompt::item::{ItemSet, Prompt};
use crate::prompt::label_family::LabelFamily;
use crate::walk::answers::Answers;
use crate::walk::sheets::{self, Cost, Written, floats};
use anyhow::{Context, Result, ensure};
use safetensors::Dtype;
use std::path::Path;
use tch::Tensor;

/// Folder of the sheets in that of a run.
pub const FOLDER: &str = "stitched";

/// What is done at every checkpoint of a run.
pub struct Request<'a> {
    pub set: &'a ItemSet,
    /// Ascending.
    pub layers: &'a [usize],
    /// Name of the first checkpoint's weights.
    pub first: &'a str,
    pub compute: Compute,
}

/// Stems with their answers as a forest, and where they are scored.
struct Stems {
    items: Vec<usize>,
    /// Answers and foils of each.
    choices: Vec<usize>,
    forest: Forest,
    answers: Answers,
}

impl Request<'_> {
    /// Beginnings of answers that have foils, asked plainly.
    fn items(&self) -> Vec<usize> {
        let is_stem = |item: &usize| {
            let own = &self.set.items[*item];
            own.is_plain() && matches!(own.label_family, LabelFamily::StemSelf | LabelFamily::StemOther)
        };
        let has_foils = |item: &usize| self.set.prompts[*item].answers.is_some() && !self.set.prompts[*item].foils.is_empty();
        (0..self.set.items.len()).filter(is_stem).filter(has_foils).collect()
    }

    fn stems(&self) -> Stems {
        let items = self.items();
        let prompts: Vec<&Prompt> = items.iter().map(|&item| &self.set.prompts[item]).collect();
        let asked = || prompts.iter().flat_map(|prompt| prompt.choices().map(move |choice| (*prompt, choice)));
        let forest = Forest::new(&asked().map(|(prompt, choice)| prompt.continued(choice)).collect::<Vec<_>>());
        let mut answers = Answers::default();
        asked().enumerate().for_each(|(text, (prompt, choice))| answers.score(&forest, text, prompt.ids.len(), choice));
        let choices = prompts.iter().map(|prompt| prompt.choices().count()).collect();
        Stems { items, choices, forest, answers }
    }

    /// Digest of everything but the weights that determines a sheet.
    pub fn hash(&self) -> String {
        let items = self.items();
        let hashes: Vec<&str> = items.iter().map(|&item| self.set.items[item].hash.as_str()).collect();
        let text = format!("stitching-1 {hashes:?} {:?} {} {}", self.layers, self.first, self.compute.describe());
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// What a checkpoint of `n_layers` blocks takes; the first one takes less.
    pub fn cost(&self, n_layers: usize) -> Cost {
        let stems = self.stems();
        let highest = self.layers.last().copied().unwrap_or(0);
        let blocks = highest + self.layers.iter().map(|layer| n_layers - layer).sum::<usize>();
        let choices = stems.choices.iter().max().copied().unwrap_or(0);
        Cost {
            nodes: stems.forest.len(),
            node_blocks: blocks * stems.forest.len(),
            ticks: blocks + 1 + self.layers.len(),
            store_bytes: 4 * self.layers.len() * stems.items.len() * choices,
            ..Cost::default()
        }
    }

    /// Reads one checkpoint through `first` and writes its sheet; `None` stands for the first checkpoint itself, which is the same at all layers.
    /// `fingerprint` is the checkpoint's and `stat_key` says what the first one's files are. `tick` is called after every block and may stop it.
    ///
    /// # Errors
    /// Whatever is wrong with a checkpoint, by name; two that do not fit each other; the file cannot be written; or the error of `tick`.
    pub fn run(
        &self,
        checkpoint: &Checkpoint,
        first: Option<&Checkpoint>,
        [fingerprint, stat_key]: [&str; 2],
        path: &Path,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let stems = self.stems();
        let n_layers = checkpoint.config.n_layers;
        if let Some(first) = first {
            let shape = |checkpoint: &Checkpoint| (checkpoint.config.d_model, checkpoint.config.n_layers);
            let ((d, n), (d_first, n_first)) = (shape(checkpoint), shape(first));
            ensure!(
                (d, n) == (d_first, n_first),
                "a width of {d} in {n} blocks cannot be finished by the first checkpoint's {d_first} in {n_first}"
            );
        }
        let mut last: Vec<Tensor> = Vec::new();
        match first {
            None => stream(checkpoint, &stems.forest, self.compute, n_layers, &mut |layer, resid| {
                if layer == n_layers {
                    last.push(stems.answers.rows(resid)?);
                }
                tick()
            })?,
            Some(first) => {
                let mut middle = Vec::new();
                let highest = self.layers.last().copied().unwrap_or(0);
                stream(checkpoint, &stems.forest, self.compute, highest, &mut |layer, resid| {
                    if self.layers.contains(&layer) {
                        middle.push((layer, resid.f_detach_copy()?));
                    }
                    tick()
                })?;
                for (start, resid) in middle {
                    stream_from(first, &stems.forest, self.compute, Some((start, &resid)), n_layers, &mut |layer, resid| {
                        if layer == n_layers {
                            last.push(stems.answers.rows(resid)?);
                        }
                        tick()
                    })?;
                }
            }
        }
        let upper = first.unwrap_or(checkpoint);
        let mut scored = last.iter().map(|rows| stems.answers.plainly(upper, self.compute, rows)).collect::<Result<Vec<_>>>()?;
        if first.is_none() {
            let own = scored.pop().context("the stream ends at the last layer")?;
            scored = vec![own; self.layers.len()];
        }
        let width = stems.choices.iter().max().copied().unwrap_or(0);
        let mut scores: Vec<f32> = Vec::with_capacity(scored.len() * stems.items.len() * width);
        for mut rest in scored.iter().map(Vec::as_slice) {
            for n in &stems.choices {
                let (own, later) = rest.split_at(*n);
                rest = later;
                ensure!(own.iter().all(|x| x.is_finite()), "an answer has no finite log-probability behind the first checkpoint's blocks");
                // Items have different numbers of foils; what is not there is not a number.
                scores.extend(own.iter().map(|x| *x as f32).chain(std::iter::repeat(f32::NAN)).take(width));
            }
        }
        let mut tensors: Vec<Written> = sheets::of_items(&stems.items, &self.set.items).into();
        tensors.push(("scores".to_owned(), Dtype::F32, vec![self.layers.len(), stems.items.len(), width], floats(scores)));
        let facts = [("request", self.hash()), ("first", stat_key.to_owned())];
        sheets::write(path, self.layers, fingerprint, &facts, &tensors)
    }
}
