//! Texts that are computed under every injection, and where in them answers are scored.

use crate::prompt::forest::Forest;
use crate::prompt::injected::{Branch, Texts};
use crate::walk::answers::Answers;
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
    /// Of all branches, and texts behind which distributions are compared.
    pub answers: Answers,
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
        let mut answers = Answers::default();
        for branch in branches {
            let texts = branch.answers.iter().enumerate();
            texts.for_each(|(k, answer)| answers.score(&forest, branch.text + k, branch.stem, answer));
        }
        answers.compare(compared.iter().filter_map(|text| forest.last[*text]));
        let places = texts.places.iter().map(of_place).collect();
        Ok(Self { whole: Tensor::f_from_slice(&nodes)?, places, answers, forest })
    }

    /// This forest's rows of the residual of all texts.
    pub fn pick(&self, whole: &Tensor, device: Device) -> Result<Tensor> {
        Ok(whole.f_index_select(0, &self.whole.f_to_device(device)?)?)
    }
}
