//! Texts that are computed under every injection, and where in them answers are scored.

use crate::model::Checkpoint;
use crate::model::logits::{divergences, log_probabilities};
use crate::model::stream::Compute;
use crate::prompt::forest::Forest;
use crate::prompt::injected::{Branch, Texts};
use anyhow::Result;
use std::ops::Range;
use tch::{Device, Tensor};

/// Some texts as a forest.
pub(super) struct Board {
    pub forest: Forest,
    /// Nodes of every place.
    pub places: Vec<Vec<i64>>,
    /// For every node the one in the forest of all texts: `[node]`.
    whole: Tensor,
    /// Nodes whose next token is scored, with that token, and the slice of each answer of each branch.
    scored: Vec<i64>,
    tokens: Vec<i64>,
    slices: Vec<Range<usize>>,
    /// Nodes at which distributions are compared.
    compared: Vec<i64>,
}

impl Board {
    /// `first` is the number of its first text in `whole`; `compared` are texts whose last token is.
    pub fn new<'a>(
        texts: &Texts,
        (whole, first): (&Forest, usize),
        branches: impl Iterator<Item = &'a Branch>,
        compared: &[usize],
    ) -> Result<Self> {
        let forest = Forest::new(&texts.ids);
        let mut nodes = vec![0i64; forest.len()];
        for (text, ids) in texts.ids.iter().enumerate() {
            let (own, there) = (forest.span(text, 0..ids.len()), whole.span(first + text, 0..ids.len()));
            own.into_iter().zip(there).for_each(|(own, there)| nodes[own] = there as i64);
        }
        let of_place = |spans: &Vec<(usize, Range<usize>)>| {
            let mut nodes: Vec<i64> = Vec::new();
            for node in spans.iter().flat_map(|(text, span)| forest.span(*text, span.clone())).map(|node| node as i64) {
                if !nodes.contains(&node) {
                    nodes.push(node);
                }
            }
            nodes
        };
        let (mut scored, mut tokens, mut slices) = (Vec::new(), Vec::new(), Vec::new());
        for branch in branches {
            for (k, answer) in branch.answers.iter().enumerate() {
                let from = branch.stem - 1;
                let start = scored.len();
                scored.extend(forest.span(branch.text + k, from..from + answer.len()).into_iter().map(|node| node as i64));
                tokens.extend(answer);
                slices.push(start..scored.len());
            }
        }
        let compared = compared.iter().filter_map(|text| forest.last[*text]).map(|node| node as i64).collect();
        let places = texts.places.iter().map(of_place).collect();
        Ok(Self { whole: Tensor::f_from_slice(&nodes)?, places, scored, tokens, slices, compared, forest })
    }

    /// This forest's rows of the residual of all texts.
    pub fn pick(&self, whole: &Tensor, device: Device) -> Result<Tensor> {
        Ok(whole.f_index_select(0, &self.whole.f_to_device(device)?)?)
    }

    /// Rows that [`Board::score`] needs of the last layer: `[node, d_model] -> [row, d_model]`.
    pub fn rows(&self, resid: &Tensor) -> Result<Tensor> {
        let nodes: Vec<i64> = self.scored.iter().chain(&self.compared).copied().collect();
        Ok(resid.f_index_select(0, &Tensor::f_from_slice(&nodes)?.f_to_device(resid.device())?)?)
    }

    /// Number of rows of [`Board::rows`].
    pub fn n_rows(&self) -> usize {
        self.scored.len() + self.compared.len()
    }

    /// Of each of several conditions' [`Board::rows`]: log-probabilities of all answers in the order of the branches, and the mean divergence
    /// from `clean`, the rows without an injection (0 where nothing is compared).
    ///
    /// # Errors
    /// As [`log_probabilities`].
    pub fn score(&self, checkpoint: &Checkpoint, compute: Compute, clean: &Tensor, rows: &[Tensor]) -> Result<Vec<(Vec<f32>, f32)>> {
        let (scored, compared) = (self.scored.len() as i64, self.compared.len() as i64);
        let part = |from: i64, len: i64| rows.iter().map(|rows| Ok(rows.f_narrow(0, from, len)?)).collect::<Result<Vec<Tensor>>>();
        let all = log_probabilities(checkpoint, compute, &Tensor::f_cat(&part(0, scored)?, 0)?, &self.tokens.repeat(rows.len()))?;
        let kl = if compared == 0 {
            Vec::new()
        } else {
            let clean = clean.f_narrow(0, scored, compared)?.f_repeat([rows.len() as i64, 1])?;
            divergences(checkpoint, compute, &clean, &Tensor::f_cat(&part(scored, compared)?, 0)?)?
        };
        let n = self.scored.len();
        let answers = |own: &[f64]| self.slices.iter().map(|slice| own[slice.clone()].iter().sum::<f64>() as f32).collect();
        let mean = |k: usize| kl.chunks_exact(compared.max(1) as usize).nth(k).map_or(0.0, |own| own.iter().sum::<f64>() / compared as f64);
        Ok((0..rows.len()).map(|k| (answers(&all[k * n..(k + 1) * n]), mean(k) as f32)).collect())
    }
}
