//! What is computed under every condition: a forest of the items' answers and of neutral text, and where in it what is scored.

use crate::prompt::forest::Forest;
use crate::prompt::item::ItemSet;
use crate::walk::answers::Answers;
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
    /// Both answers of every item, and neutral text, where distributions are compared.
    pub answers: Answers,
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
        let (mut scored, mut text) = (Answers::default(), 0);
        for prompt in items.iter().map(|&item| &set.prompts[item]) {
            for answer in prompt.answers.iter().flatten() {
                scored.score(&forest, text, prompt.ids.len(), answer);
                text += 1;
            }
        }
        for (number, span) in spans.into_iter().enumerate() {
            scored.compare(forest.span(first_neutral + number, span));
        }
        Self { forest, items, texts, answers: scored }
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

    /// The nodes of [`Board::nodes_in`] picked from a residual.
    pub fn pick(resid: &Tensor, nodes: &Tensor, device: Device) -> Result<Tensor> {
        Ok(resid.f_index_select(0, &nodes.f_to_device(device)?)?)
    }
}
