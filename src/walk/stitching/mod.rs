//! Stitching: every checkpoint computes its lower blocks, and the first checkpoint finishes what they began.
//!
//! What has been learnt below a layer is in the residual there, at whatever token and in whatever direction; the first checkpoint's upper blocks
//! read it as they read everything, and answer. So a middle layer is asked for what it knows by the ruler that was there before any lesson
//! (model stitching, Lenc & Vedaldi 2015, arXiv 1411.5908; across fine-tuning as in Prakash et al. 2024, arXiv 2402.14811).

pub mod sheet;

use crate::model::Checkpoint;
use crate::model::logits::log_probabilities;
use crate::model::stream::{Compute, stream, stream_from};
use crate::prompt::forest::Forest;
use crate::prompt::item::ItemSet;
use crate::prompt::label_family::LabelFamily;
use crate::walk::store::{self, Writer};
use anyhow::{Context, Result, ensure};
use safetensors::Dtype;
use std::ops::Range;
use std::path::Path;
use tch::Tensor;

/// What is done at every checkpoint of a run.
pub struct Request<'a> {
    pub set: &'a ItemSet,
    /// Ascending.
    pub layers: &'a [usize],
    /// Name of the first checkpoint's weights.
    pub first: &'a str,
    pub compute: Compute,
}

/// What it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    pub nodes: usize,
    /// Nodes times blocks.
    pub node_blocks: usize,
    /// Calls of `tick`.
    pub ticks: usize,
    pub store_bytes: usize,
}

/// Stems with their answers as a forest, and where they are scored.
struct Stems {
    items: Vec<usize>,
    forest: Forest,
    nodes: Vec<i64>,
    tokens: Vec<i64>,
    /// Of every item's answers and foils.
    slices: Vec<Vec<Range<usize>>>,
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
        let mut texts: Vec<Vec<i64>> = Vec::new();
        let mut lengths: Vec<Vec<(usize, &Vec<i64>)>> = Vec::new();
        for &item in &items {
            let prompt = &self.set.prompts[item];
            let choices = prompt.answers.iter().flatten().chain(&prompt.foils);
            lengths.push(choices.map(|choice| (prompt.ids.len(), choice)).collect());
            // The last token of an answer is predicted and predicts nothing.
            texts.extend(lengths[lengths.len() - 1].iter().map(|(_, choice)| [&prompt.ids, &choice[..choice.len() - 1]].concat()));
        }
        let forest = Forest::new(&texts);
        let (mut nodes, mut tokens, mut text) = (Vec::new(), Vec::new(), 0);
        let mut slice = |(stem, choice): &(usize, &Vec<i64>)| {
            let start = nodes.len();
            nodes.extend(forest.span(text, stem - 1..stem - 1 + choice.len()).into_iter().map(|node| node as i64));
            tokens.extend(*choice);
            text += 1;
            start..nodes.len()
        };
        let slices = lengths.iter().map(|choices| choices.iter().map(&mut slice).collect()).collect();
        Stems { items, forest, nodes, tokens, slices }
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
        let choices = stems.slices.iter().map(Vec::len).max().unwrap_or(0);
        Cost {
            nodes: stems.forest.len(),
            node_blocks: blocks * stems.forest.len(),
            ticks: blocks + 1 + self.layers.len(),
            store_bytes: 4 * self.layers.len() * stems.items.len() * choices,
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
        let rows = |resid: &Tensor| -> Result<Tensor> {
            Ok(resid.f_index_select(0, &Tensor::f_from_slice(&stems.nodes)?.f_to_device(self.compute.device)?)?)
        };
        let mut last: Vec<Tensor> = Vec::new();
        match first {
            None => stream(checkpoint, &stems.forest, self.compute, n_layers, &mut |layer, resid| {
                if layer == n_layers {
                    last.push(rows(resid)?);
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
                            last.push(rows(resid)?);
                        }
                        tick()
                    })?;
                }
            }
        }
        let scored = last.iter().map(|rows| log_probabilities(first.unwrap_or(checkpoint), self.compute, rows, &stems.tokens));
        let mut scored = scored.collect::<Result<Vec<Vec<f64>>>>()?;
        if first.is_none() {
            let own = scored.pop().context("the stream ends at the last layer")?;
            scored = vec![own; self.layers.len()];
        }
        let width = stems.slices.iter().map(Vec::len).max().unwrap_or(0);
        let mut scores: Vec<f32> = Vec::with_capacity(scored.len() * stems.items.len() * width);
        for all in &scored {
            for slices in &stems.slices {
                let own: Vec<f32> = slices.iter().map(|slice| all[slice.clone()].iter().sum::<f64>() as f32).collect();
                ensure!(own.iter().all(|x| x.is_finite()), "an answer has no finite log-probability behind the first checkpoint's blocks");
                // Items have different numbers of foils; what is not there is not a number.
                scores.extend(own.iter().copied().chain(std::iter::repeat(f32::NAN)).take(width));
            }
        }
        let hashes: Vec<u8> = stems.items.iter().flat_map(|&item| self.set.items[item].hash.bytes()).collect();
        let tensors: [(&str, Dtype, Vec<usize>, Vec<u8>); 3] = [
            ("items", Dtype::I64, vec![stems.items.len()], stems.items.iter().flat_map(|item| (*item as i64).to_le_bytes()).collect()),
            ("item_hash", Dtype::U8, vec![hashes.len()], hashes),
            (
                "scores",
                Dtype::F32,
                vec![self.layers.len(), stems.items.len(), width],
                scores.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
        ];
        let mut metadata = store::metadata(self.layers, fingerprint);
        metadata.insert("request".to_owned(), self.hash().into());
        metadata.insert("first".to_owned(), stat_key.into());
        let layout = tensors.iter().map(|(name, dtype, shape, _)| ((*name).to_owned(), *dtype, shape.clone())).collect();
        let writer = Writer::create(path, layout, metadata)?;
        for (number, (.., bytes)) in tensors.iter().enumerate() {
            writer.write(number, 0, bytes)?;
        }
        writer.finish(&[])
    }
}
