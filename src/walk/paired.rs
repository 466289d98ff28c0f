//! Tokens at all checkpoints at once, made as a dictionary needs them: N models are streamed over the same texts, layer by layer, and
//! nothing is kept. Memory is that of one buffer, however many tokens are read.

use super::texts::{Text, Texts};
use crate::dictionary::Crosscoder;
use crate::dictionary::fit::Paired;
use crate::dictionary::scale::Scale;
use crate::dictionary::strength::Strength;
use crate::manifest::DtypeChoice;
use crate::model::Checkpoint;
use crate::model::device;
use crate::model::stream::stream;
use crate::prompt::forest::Forest;
use crate::stats::draws::{generator, shuffle};
use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

/// Tokens of a buffer that count.
pub const BUFFER: usize = 8192;

/// Activations of some checkpoints at a layer.
pub struct Streamed<'a> {
    /// With their ids.
    pub checkpoints: Vec<(String, Checkpoint)>,
    pub texts: &'a Texts,
    pub layer: usize,
    pub dtype: DtypeChoice,
    pub device: Device,
    pub seed: u64,
    scale: Option<Scale>,
}

impl<'a> Streamed<'a> {
    /// # Errors
    /// One sentence: checkpoints of different widths, or one whose vocabulary lacks a token of the texts.
    pub fn new(
        checkpoints: Vec<(String, Checkpoint)>,
        texts: &'a Texts,
        layer: usize,
        dtype: DtypeChoice,
        device: Device,
        seed: u64,
    ) -> Result<Self> {
        let largest = texts.max_token();
        for (id, checkpoint) in &checkpoints {
            let (first, own) = (checkpoints[0].1.config.d_model, checkpoint.config.d_model);
            ensure!(own == first, "{id}: its width is {own}, that of {} is {first}; a dictionary needs one width", checkpoints[0].0);
            let vocabulary = checkpoint.config.d_vocab;
            ensure!(largest < vocabulary, "{id}: its vocabulary has {vocabulary} tokens, but the texts use token ids up to {largest}");
            let blocks = checkpoint.config.n_layers;
            ensure!(layer <= blocks, "{id}: it has {blocks} blocks, and layer {layer} was asked for");
        }
        ensure!(checkpoints.len() > 1, "a crosscoder needs two checkpoints or more, found {}", checkpoints.len());
        Ok(Self { checkpoints, texts, layer, dtype, device, seed, scale: None })
    }

    fn d_model(&self) -> usize {
        self.checkpoints[0].1.config.d_model as usize
    }

    /// Activations of the tokens of some texts that count, `[token, checkpoint * d_model]`.
    fn activations(&self, texts: &[&Text]) -> Result<Tensor> {
        let _no_grad = tch::no_grad_guard();
        let ids: Vec<&[i64]> = texts.iter().map(|text| text.ids.as_slice()).collect();
        let forest = Forest::new(&ids);
        let nodes: Vec<i64> = texts
            .iter()
            .enumerate()
            .flat_map(|(number, text)| {
                let path = forest.span(number, 0..text.ids.len());
                text.kept.iter().map(|&at| path[at] as i64).collect::<Vec<_>>()
            })
            .collect();
        let mut parts = Vec::with_capacity(self.checkpoints.len());
        for (id, checkpoint) in &self.checkpoints {
            let compute = device::compute(self.device, self.dtype, checkpoint.weights.kind());
            let nodes = Tensor::f_from_slice(&nodes)?.f_to_device(self.device)?;
            let mut rows = None;
            let mut visit = |layer: usize, resid: &Tensor| -> Result<()> {
                if layer == self.layer {
                    rows = Some(resid.f_index_select(0, &nodes)?.f_to_kind(Kind::Float)?);
                }
                Ok(())
            };
            let walk = || stream(checkpoint, &forest, compute, self.layer, &mut visit);
            device::with_threads(checkpoint.config.d_model, walk).with_context(|| id.clone())?;
            parts.push(rows.with_context(|| format!("{id}: layer {} was not reached", self.layer))?);
        }
        Ok(Tensor::f_cat(&parts, 1)?)
    }

    /// Centre and size of every checkpoint's activations, from the first buffer.
    fn scale(&mut self) -> Result<&Scale> {
        if self.scale.is_none() {
            let x = self.raw(0)?;
            self.scale = Some(Scale::of(&x, self.checkpoints.len())?);
        }
        self.scale.as_ref().context("a scale")
    }

    /// Buffer number `index` as the models have it: texts in a random order, which is another one each time through.
    fn raw(&self, index: usize) -> Result<Tensor> {
        let n = self.texts.fitted.len();
        let per_round = self.texts.tokens().div_ceil(BUFFER).max(1);
        let (round, place) = (index / per_round, index % per_round);
        let mut order: Vec<usize> = (0..n).collect();
        shuffle(&mut order, &mut generator(self.seed, &format!("dictionary/texts/{round}")));
        let (mut tokens, mut chosen) = (0, Vec::new());
        for text in order.into_iter().map(|at| &self.texts.fitted[at]) {
            // A text belongs to the buffer in which it begins.
            if tokens / BUFFER == place {
                chosen.push(text);
            }
            tokens += text.kept.len();
        }
        self.activations(&chosen)
    }

    /// Adds the held-out texts to the strengths of some dictionaries.
    ///
    /// # Errors
    /// As those of the stream.
    pub fn measure(&mut self, dictionaries: &[&Crosscoder]) -> Result<(Vec<Strength>, Scale)> {
        let groups = self.texts.groups();
        let mut strengths: Vec<Strength> = dictionaries.iter().map(|c| Strength::new(c.shape, groups)).collect();
        self.scale()?;
        let mut at = 0;
        while at < self.texts.held_out.len() {
            let (mut tokens, start) = (0, at);
            while at < self.texts.held_out.len() && (tokens == 0 || tokens + self.texts.held_out[at].0.kept.len() <= BUFFER) {
                tokens += self.texts.held_out[at].0.kept.len();
                at += 1;
            }
            let part = &self.texts.held_out[start..at];
            let group: Vec<u32> = part.iter().flat_map(|(text, group)| std::iter::repeat_n(*group, text.kept.len())).collect();
            let x = self.activations(&part.iter().map(|(text, _)| text).collect::<Vec<_>>())?;
            let x = self.scale()?.apply(&x)?;
            for (strength, dictionary) in strengths.iter_mut().zip(dictionaries) {
                strength.add(dictionary, &x, &group)?;
            }
        }
        let scale = self.scale.take().context("a scale")?;
        Ok((strengths, scale))
    }

    /// The width of a token at one checkpoint, and the number of checkpoints.
    pub fn sizes(&self) -> (usize, usize) {
        (self.d_model(), self.checkpoints.len())
    }
}

impl Paired for Streamed<'_> {
    fn buffer(&mut self, index: usize) -> Result<Tensor> {
        let x = self.raw(index)?;
        // The first buffer is streamed once, and not for its scale again.
        if index == 0 && self.scale.is_none() {
            self.scale = Some(Scale::of(&x, self.checkpoints.len())?);
        }
        self.scale()?.apply(&x)
    }
}
