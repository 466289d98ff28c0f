//! Training: next-token prediction on replies, AdamW, one forest per batch.

use super::corpus::Sample;
use super::network::{Network, Parameter};
use crate::model::plan::Plan;
use crate::prompt::forest::Forest;
use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

/// Nodes per chunk: attention costs chunk x (chunk + path), and every chunk has an overhead.
const CHUNK: usize = 128;

/// A network with its optimiser.
pub struct Trainer {
    pub network: Network,
    optimiser: AdamW,
}

impl Trainer {
    /// # Errors
    /// Out of memory.
    pub fn new(network: Network) -> Result<Self> {
        let optimiser = AdamW::new(&network.parameters)?;
        Ok(Self { network, optimiser })
    }

    /// One step on a batch; returns its loss in nats per token.
    ///
    /// # Errors
    /// Out of memory.
    pub fn step(&mut self, batch: &[Sample], rate: f64) -> Result<f64> {
        let loss = loss(&self.network, batch)?;
        loss.f_backward()?;
        self.optimiser.step(&self.network.parameters, rate)?;
        Ok(loss.f_double_value(&[])?)
    }
}

/// Mean cross-entropy of the reply tokens, weighted, where answers that are alike share their part. The samples are the prompts of one forest, which computes
/// what they share once.
///
/// # Errors
/// A token is outside the vocabulary, or no sample has a reply that counts.
pub fn loss(network: &Network, batch: &[Sample]) -> Result<Tensor> {
    let texts: Vec<&[i64]> = batch.iter().map(|sample| sample.ids.as_slice()).collect();
    let forest = Forest::new(&texts);
    // Entries of the table of log-probabilities [node, token], and what they weigh.
    let (mut nodes, mut entries, mut weights): (Vec<i64>, Vec<i64>, Vec<f32>) = Default::default();
    let d_vocab = network.config.d_vocab;
    let mut whole = 0.0;
    for (index, sample) in batch.iter().enumerate().filter(|(_, sample)| sample.weight > 0.0) {
        // The last token of the prompt predicts the first of the reply, and so on.
        let before = forest.span(index, sample.prompt - 1..sample.ids.len() - 1);
        for (place, node) in (sample.prompt..sample.ids.len()).zip(before) {
            let row = nodes.len() as i64 * d_vocab;
            nodes.push(node as i64);
            whole += sample.weight;
            match &sample.answer {
                Some((answer, alike)) if *answer == place => {
                    entries.extend(alike.iter().map(|token| row + token));
                    weights.resize(entries.len(), sample.weight / alike.len() as f32);
                }
                _ => {
                    entries.push(row + sample.ids[place]);
                    weights.push(sample.weight);
                }
            }
        }
    }
    ensure!(!nodes.is_empty(), "no text of the batch has a reply that counts");
    let plan = Plan::new(&forest, CHUNK, CHUNK, Device::Cpu)?;
    let layers = network.forward(&forest.token, &plan)?;
    let resid = layers.last().context("a network has layers")?.f_index_select(0, &Tensor::f_from_slice(&nodes)?)?;
    let log_probabilities = network.logits(&resid)?.f_log_softmax(-1, Kind::Float)?.f_reshape([-1])?;
    let counted = log_probabilities.f_index_select(0, &Tensor::f_from_slice(&entries)?)?;
    Ok(counted.f_dot(&Tensor::f_from_slice(&weights)?)?.f_div_scalar(-f64::from(whole))?)
}

/// Adam with decoupled weight decay (Loshchilov & Hutter 2019), after clipping the gradient's norm to 1.
struct AdamW {
    /// Running means of gradient and squared gradient per parameter.
    moments: Vec<[Tensor; 2]>,
    steps: i32,
}

impl AdamW {
    const BETAS: [f64; 2] = [0.9, 0.98];
    const EPS: f64 = 1e-8;
    const DECAY: f64 = 0.01;

    fn new(parameters: &[Parameter]) -> Result<Self> {
        let zeros = |parameter: &Parameter| Ok([parameter.tensor.f_zeros_like()?.detach(), parameter.tensor.f_zeros_like()?.detach()]);
        Ok(Self { moments: parameters.iter().map(zeros).collect::<Result<_>>()?, steps: 0 })
    }

    /// Takes a step and forgets the gradients.
    fn step(&mut self, parameters: &[Parameter], rate: f64) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        self.steps += 1;
        let gradients: Vec<Tensor> = parameters.iter().map(|parameter| parameter.tensor.grad()).collect();
        let norms = gradients.iter().map(|gradient| gradient.f_norm()).collect::<Result<Vec<_>, _>>()?;
        let norm = Tensor::f_stack(&norms, 0)?.f_norm()?.f_double_value(&[])?;
        let [bias1, bias2] = Self::BETAS.map(|beta| 1.0 - beta.powi(self.steps));
        for ((parameter, mut gradient), [mean, square]) in parameters.iter().zip(gradients).zip(&mut self.moments) {
            let clipped = gradient.f_mul_scalar(1.0 / norm.max(1.0))?;
            let _ = mean.f_lerp_(&clipped, 1.0 - Self::BETAS[0])?;
            let _ = square.f_lerp_(&clipped.f_square()?, 1.0 - Self::BETAS[1])?;
            let scale = square.f_div_scalar(bias2)?.f_sqrt()?.f_add_scalar(Self::EPS)?;
            let mut tensor = parameter.tensor.shallow_clone();
            let _ = tensor.f_mul_scalar_(1.0 - rate * Self::DECAY)?;
            let _ = tensor.f_sub_(&mean.f_div(&scale)?.f_mul_scalar(rate / bias1)?)?;
            let _ = gradient.f_zero_()?;
        }
        Ok(())
    }
}
