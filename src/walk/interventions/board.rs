//! What is computed under every condition: a forest of the items' answers and of neutral text, and where in it what is scored.

use crate::model::Checkpoint;
use crate::model::logits::{divergences, log_probabilities};
use crate::model::stream::Compute;
use crate::prompt::forest::Forest;
use crate::prompt::item::ItemSet;
use anyhow::Result;
use std::ops::Range;
use tch::{Device, Tensor};

/// Beginnings of neutral answers on which divergence is measured, at every token of theirs.
const NEUTRAL: usize = 16;

/// Some items with two answers each, and neutral text.
pub struct Board {
    pub forest: Forest,
    /// Rows of `items.parquet`.
    pub items: Vec<usize>,
    /// Prompts of the forest.
    texts: Vec<Vec<i64>>,
    /// Nodes whose next token is scored, with the token, and the slices of each item's answers.
    scored: Vec<i64>,
    tokens: Vec<i64>,
    slices: Vec<[Range<usize>; 2]>,
    /// Nodes at which distributions are compared.
    neutral: Vec<i64>,
}

impl Board {
    /// Of items that have answers.
    pub fn new(set: &ItemSet, items: Vec<usize>) -> Self {
        let mut texts: Vec<Vec<i64>> = Vec::new();
        for &item in &items {
            let prompt = &set.prompts[item];
            texts.extend(prompt.answers.iter().flatten().map(|answer| prompt.continued(answer)));
        }
        let first_neutral = texts.len();
        let stems = (0..set.items.len()).filter(|&item| set.items[item].neutral && set.items[item].cell == "stem");
        let spans: Vec<Range<usize>> = stems
            .filter_map(|item| Some((item, set.prompts[item].span.clone()?)))
            .take(NEUTRAL)
            .map(|(item, span)| {
                texts.push(set.prompts[item].ids.clone());
                span
            })
            .collect();
        let forest = Forest::new(&texts);
        let mut board = Self { forest, items, texts, scored: Vec::new(), tokens: Vec::new(), slices: Vec::new(), neutral: Vec::new() };
        let mut text = 0;
        for &item in &board.items {
            let mut slices = [0..0, 0..0];
            for (slice, answer) in slices.iter_mut().zip(set.prompts[item].answers.iter().flatten()) {
                let from = set.prompts[item].ids.len() - 1;
                let start = board.scored.len();
                board.scored.extend(board.forest.span(text, from..from + answer.len()).into_iter().map(|node| node as i64));
                board.tokens.extend(answer);
                *slice = start..board.scored.len();
                text += 1;
            }
            board.slices.push(slices);
        }
        for (number, span) in spans.into_iter().enumerate() {
            board.neutral.extend(board.forest.span(first_neutral + number, span).into_iter().map(|node| node as i64));
        }
        board
    }

    /// For every node of this board the node of `other`, which has all of its texts, with the same prefix: `[node]`.
    pub fn nodes_in(&self, other: &Self) -> Result<Tensor> {
        let mut nodes = vec![0i64; self.forest.len()];
        for (text, ids) in self.texts.iter().enumerate() {
            let Some(there) = other.texts.iter().position(|other| other == ids) else { continue };
            let (own, its) = (self.forest.span(text, 0..ids.len()), other.forest.span(there, 0..ids.len()));
            own.into_iter().zip(its).for_each(|(own, its)| nodes[own] = its as i64);
        }
        Ok(Tensor::f_from_slice(&nodes)?)
    }

    /// Rows that [`Board::score`] needs of the last layer: `[node, d_model] -> [row, d_model]`.
    pub fn rows(&self, resid: &Tensor) -> Result<Tensor> {
        let nodes: Vec<i64> = self.scored.iter().chain(&self.neutral).copied().collect();
        Ok(resid.f_index_select(0, &Tensor::f_from_slice(&nodes)?.f_to_device(resid.device())?)?)
    }

    /// Number of rows of [`Board::rows`].
    pub fn n_rows(&self) -> usize {
        self.scored.len() + self.neutral.len()
    }

    /// Of each of several conditions' [`Board::rows`]: margins per item (first answer minus second, in nats) and the mean divergence from
    /// `clean`, the rows without intervention, on neutral text (0 where there is none).
    ///
    /// # Errors
    /// As [`log_probabilities`].
    pub fn score(&self, checkpoint: &Checkpoint, compute: Compute, clean: &Tensor, rows: &[Tensor]) -> Result<Vec<(Vec<f32>, f32)>> {
        let (scored, neutral) = (self.scored.len() as i64, self.neutral.len() as i64);
        let part = |from: i64, len: i64| rows.iter().map(|rows| Ok(rows.f_narrow(0, from, len)?)).collect::<Result<Vec<Tensor>>>();
        let tokens = self.tokens.repeat(rows.len());
        let all = log_probabilities(checkpoint, compute, &Tensor::f_cat(&part(0, scored)?, 0)?, &tokens)?;
        let kl = if neutral == 0 {
            Vec::new()
        } else {
            let clean = clean.f_narrow(0, scored, neutral)?.f_repeat([rows.len() as i64, 1])?;
            divergences(checkpoint, compute, &clean, &Tensor::f_cat(&part(scored, neutral)?, 0)?)?
        };
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        let margins = |own: &[f64]| {
            let sum = |range: &Range<usize>| own[range.clone()].iter().sum::<f64>();
            self.slices.iter().map(|[first, second]| (sum(first) - sum(second)) as f32).collect::<Vec<f32>>()
        };
        let n = self.scored.len();
        Ok((0..rows.len())
            .map(|k| {
                let kl = kl.get(k * neutral as usize..(k + 1) * neutral as usize).filter(|kl| !kl.is_empty());
                (margins(&all[k * n..(k + 1) * n]), kl.map_or(0.0, mean) as f32)
            })
            .collect())
    }

    /// Bytes of one condition's rows.
    pub fn row_bytes(&self, d_model: usize, compute: Compute) -> usize {
        self.n_rows() * d_model * compute.kind.elt_size_in_bytes()
    }

    /// The nodes of [`Board::nodes_in`] picked from a residual.
    pub fn pick(resid: &Tensor, nodes: &Tensor, device: Device) -> Result<Tensor> {
        Ok(resid.f_index_select(0, &nodes.f_to_device(device)?)?)
    }
}
