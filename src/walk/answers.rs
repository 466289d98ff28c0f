//! Answers behind stems of a forest, under many conditions: where they are scored, and what is said there.

use crate::model::Checkpoint;
use crate::model::intervene::{Condition, Sweep};
use crate::model::logits::{divergences, log_probabilities};
use crate::model::stream::Compute;
use crate::prompt::forest::Forest;
use anyhow::Result;
use std::ops::Range;
use std::time::{Duration, Instant};
use tch::Tensor;

/// Nodes whose next token is scored, with that token, and nodes at which distributions are compared.
#[derive(Debug, Default)]
pub struct Answers {
    scored: Vec<i64>,
    tokens: Vec<i64>,
    slices: Vec<Range<usize>>,
    compared: Vec<i64>,
}

/// What is said under a condition: log-probabilities of all answers, in nats, and the mean divergence where distributions are compared (0
/// where none is).
pub type Said = (Vec<f64>, f64);

impl Answers {
    /// Scores `answer` behind the first `stem` tokens of a text, which goes on with it, but for its last token at least.
    pub fn score(&mut self, forest: &Forest, text: usize, stem: usize, answer: &[i64]) {
        let start = self.scored.len();
        self.scored.extend(forest.span(text, stem - 1..stem - 1 + answer.len()).into_iter().map(|node| node as i64));
        self.tokens.extend(answer);
        self.slices.push(start..self.scored.len());
    }

    /// Compares distributions at some nodes.
    pub fn compare(&mut self, nodes: impl IntoIterator<Item = usize>) {
        self.compared.extend(nodes.into_iter().map(|node| node as i64));
    }

    /// Rows that [`Answers::said`] needs of the last layer: `[node, d_model] -> [row, d_model]`.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn rows(&self, resid: &Tensor) -> Result<Tensor> {
        let nodes: Vec<i64> = self.scored.iter().chain(&self.compared).copied().collect();
        Ok(resid.f_index_select(0, &Tensor::f_from_slice(&nodes)?.f_to_device(resid.device())?)?)
    }

    /// Of one's own [`Answers::rows`], where nothing is compared: log-probabilities of all answers, in nats.
    ///
    /// # Errors
    /// As [`log_probabilities`].
    pub fn plainly(&self, checkpoint: &Checkpoint, compute: Compute, rows: &Tensor) -> Result<Vec<f64>> {
        Ok(self.said(checkpoint, compute, rows, std::slice::from_ref(rows))?.swap_remove(0).0)
    }

    /// Of each of several conditions' [`Answers::rows`], beside `clean`, those without a condition.
    ///
    /// # Errors
    /// As [`log_probabilities`].
    pub fn said(&self, checkpoint: &Checkpoint, compute: Compute, clean: &Tensor, rows: &[Tensor]) -> Result<Vec<Said>> {
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
        let answers = |own: &[f64]| self.slices.iter().map(|slice| own[slice.clone()].iter().sum()).collect();
        let mean = |k: usize| kl.chunks_exact(compared.max(1) as usize).nth(k).map_or(0.0, |own| own.iter().sum::<f64>() / compared as f64);
        Ok((0..rows.len()).map(|k| (answers(&all[k * n..(k + 1) * n]), mean(k))).collect())
    }
}

/// Runs a sweep to its end and hands over what is said under every condition, by its number; `boards` and `unchanged` (their rows without a
/// condition) are by forest. Returns the readings of blocks and the time that the scoring took.
///
/// # Errors
/// As [`Sweep::run`] and [`Answers::said`]; or the error of `tick`, which is called after every block.
pub fn ask(
    sweep: &Sweep,
    clean: &dyn Fn(usize, usize) -> Result<Tensor>,
    conditions: &[Condition],
    (boards, unchanged): (&[&Answers], &[Tensor]),
    tick: &mut dyn FnMut() -> Result<()>,
    take: &mut dyn FnMut(usize, Said),
) -> Result<(usize, Duration)> {
    let (mut waiting, mut bytes, mut scoring): (Vec<Vec<(usize, Tensor)>>, usize, Duration) = Default::default();
    waiting.resize_with(boards.len(), Vec::new);
    let mut score = |waiting: &mut Vec<Vec<(usize, Tensor)>>| -> Result<()> {
        let start = Instant::now();
        for (board, waiting) in waiting.iter_mut().enumerate().filter(|(_, waiting)| !waiting.is_empty()) {
            let (numbers, rows): (Vec<usize>, Vec<Tensor>) = waiting.drain(..).unzip();
            let said = boards[board].said(sweep.checkpoint, sweep.compute, &unchanged[board], &rows)?;
            numbers.into_iter().zip(said).for_each(|(number, said)| take(number, said));
        }
        scoring += start.elapsed();
        Ok(())
    };
    let cost = sweep.run(clean, conditions, &mut |number, layer, resid| {
        tick()?;
        if layer == sweep.last {
            let board = conditions[number].forest;
            let rows = boards[board].rows(resid)?;
            bytes += rows.numel() * sweep.compute.kind.elt_size_in_bytes();
            waiting[board].push((number, rows));
            // Scoring reads the unembedding, so it is done for many conditions at a time.
            if bytes > sweep.budget / 4 {
                score(&mut waiting)?;
                bytes = 0;
            }
        }
        Ok(())
    })?;
    score(&mut waiting)?;
    Ok((cost.passes, scoring))
}
