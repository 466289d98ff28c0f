//! Log-probabilities of given tokens, through the final norm and the unembedding, at a few nodes only.

use super::Checkpoint;
use super::architecture::Ends;
use super::config::DecoderConfig;
use super::layers::Loader;
use super::stream::Compute;
use crate::checkpoint::tensors::Rows;
use anyhow::{Context, Result};
use tch::{Kind, Tensor};

/// Rows of the unembedding that are in memory at once.
const VOCABULARY_ROWS: i64 = 16_384;
/// Nodes that are scored at once: with the slice of the vocabulary, 64 MB of logits in f32.
const NODES: i64 = 1_024;

/// `log p(token | prefix)` in nats for `resid: [row, d_model]` (output of the last block) and one token per row: `[row]`, f64.
///
/// The unembedding is read in slices of rows and reduced by a running log-sum-exp, so memory grows with neither the
/// vocabulary nor the number of rows.
///
/// # Errors
/// A tensor is missing or misshapen, or the device is out of memory.
pub fn log_probabilities(checkpoint: &Checkpoint, compute: Compute, resid: &Tensor, tokens: &[i64]) -> Result<Vec<f64>> {
    let _no_grad = tch::no_grad_guard();
    let config = &checkpoint.config;
    let (ends, head) = (ends(checkpoint, compute)?, head(checkpoint)?);
    let x = ends.ln_final.forward(resid)?;
    let n = tokens.len() as i64;
    let target = Tensor::f_from_slice(tokens)?.f_to_device(compute.device)?;
    let total = Tensor::f_full([n], f64::NEG_INFINITY, (Kind::Float, compute.device))?;
    let chosen = Tensor::f_zeros([n], (Kind::Float, compute.device))?;
    let shape = [config.d_vocab, config.d_model];
    for start in (0..config.d_vocab).step_by(VOCABULARY_ROWS as usize) {
        let len = VOCABULARY_ROWS.min(config.d_vocab - start);
        let rows = checkpoint.weights.unembedding(head, &shape, Rows::Range(start, len), compute.kind)?.f_to_device(compute.device)?;
        for first in (0..n).step_by(NODES as usize) {
            let part = |tensor: &Tensor| tensor.f_narrow(0, first, NODES.min(n - first));
            let logits = bounded(part(&x)?.f_linear(&rows, None::<&Tensor>)?.f_to_kind(Kind::Float)?, config)?;
            let (mut total, mut chosen, target) = (part(&total)?, part(&chosen)?, part(&target)?);
            total.f_copy_(&total.f_logaddexp(&logits.f_logsumexp([1], false)?)?)?;
            let inside = target.f_ge(start)?.f_logical_and(&target.f_lt(start + len)?)?;
            let index = target.f_sub_scalar(start)?.f_clamp(0, len - 1)?.f_unsqueeze(1)?;
            let here = logits.f_gather(1, &index, false)?.f_squeeze_dim(1)?;
            chosen.f_copy_(&here.f_where_self(&inside, &chosen)?)?;
        }
    }
    Ok(Vec::<f64>::try_from(chosen.f_sub(&total)?.f_to_kind(Kind::Double)?.f_to_device(tch::Device::Cpu)?)?)
}

/// What single tokens read from the residual stream, as the logit lens needs it (nostalgebraist 2020): rows of the unembedding, `[token, d_model]`
/// row-major f32, with the weight of the final norm and the scale of the logits folded in.
///
/// `logit(token) = normed(h) . row`, where `normed` divides by the root mean square (of what is left after centring, for a layer norm;
/// the rows are centred already), up to the bias of a norm, which is the same at every h, and a bound on logits.
///
/// # Errors
/// A tensor is missing or misshapen, or a token is outside the vocabulary.
pub fn unembedding(checkpoint: &Checkpoint, compute: Compute, tokens: &[i64]) -> Result<Vec<f32>> {
    let _no_grad = tch::no_grad_guard();
    let config = &checkpoint.config;
    let (ends, head) = (ends(checkpoint, Compute { kind: Kind::Float, ..compute })?, head(checkpoint)?);
    let shape = [config.d_vocab, config.d_model];
    let rows = checkpoint.weights.unembedding(head, &shape, Rows::Listed(tokens), Kind::Float)?.f_to_device(compute.device)?;
    let folded = rows.f_mul_scalar(config.logit_scale)?.f_mul(&ends.ln_final.weight)?;
    let centred = if config.norm.is_layer() { folded.f_sub(&folded.f_mean_dim(-1, true, Kind::Float)?)? } else { folded };
    Ok(Vec::try_from(centred.f_flatten(0, -1)?.f_to_device(tch::Device::Cpu)?)?)
}

/// Kullback-Leibler divergence of the next-token distribution at each row of `changed` from that at the same row of `clean`, in nats:
/// `[row]`, f64. Both are `[row, d_model]`, outputs of the last block. Exactly 0 where the rows are equal.
///
/// # Errors
/// As [`log_probabilities`].
pub fn divergences(checkpoint: &Checkpoint, compute: Compute, clean: &Tensor, changed: &Tensor) -> Result<Vec<f64>> {
    let _no_grad = tch::no_grad_guard();
    let config = &checkpoint.config;
    let (ends, head) = (ends(checkpoint, compute)?, head(checkpoint)?);
    let (clean, changed) = (ends.ln_final.forward(clean)?, ends.ln_final.forward(changed)?);
    let n = clean.size()[0];
    let full = |value: f64| Tensor::f_full([n], value, (Kind::Double, compute.device));
    // Of the clean logits a and the changed ones b: log sum e^a, log sum e^b, the largest a so far, and sum e^(a - largest) (a - b).
    let (clean_total, changed_total) = (full(f64::NEG_INFINITY)?, full(f64::NEG_INFINITY)?);
    let (largest, weighted) = (full(f64::NEG_INFINITY)?, full(0.0)?);
    let shape = [config.d_vocab, config.d_model];
    for start in (0..config.d_vocab).step_by(VOCABULARY_ROWS as usize) {
        let len = VOCABULARY_ROWS.min(config.d_vocab - start);
        let rows = checkpoint.weights.unembedding(head, &shape, Rows::Range(start, len), compute.kind)?.f_to_device(compute.device)?;
        for first in (0..n).step_by(NODES as usize) {
            let part = |tensor: &Tensor| tensor.f_narrow(0, first, NODES.min(n - first));
            let logits = |x: &Tensor| bounded(part(x)?.f_linear(&rows, None::<&Tensor>)?.f_to_kind(Kind::Double)?, config);
            let (a, b) = (logits(&clean)?, logits(&changed)?);
            for (total, logits) in [(&clean_total, &a), (&changed_total, &b)] {
                let mut total = part(total)?;
                total.f_copy_(&total.f_logaddexp(&logits.f_logsumexp([1], false)?)?)?;
            }
            let (mut largest, mut weighted) = (part(&largest)?, part(&weighted)?);
            let now = largest.f_maximum(&a.f_amax([1], false)?)?;
            let here =
                a.f_sub(&now.f_unsqueeze(1)?)?.f_exp()?.f_mul(&a.f_sub(&b)?)?.f_sum_dim_intlist([1].as_slice(), false, Kind::Double)?;
            weighted.f_copy_(&weighted.f_mul(&largest.f_sub(&now)?.f_exp()?)?.f_add(&here)?)?;
            largest.f_copy_(&now)?;
        }
    }
    // sum p (a - b) = e^(largest - log sum e^a) weighted.
    let mean = largest.f_sub(&clean_total)?.f_exp()?.f_mul(&weighted)?;
    let divergence = mean.f_sub(&clean_total.f_sub(&changed_total)?)?;
    Ok(Vec::<f64>::try_from(divergence.f_clamp_min(0.0)?.f_to_device(tch::Device::Cpu)?)?)
}

/// The name of the unembedding.
pub(super) fn head(checkpoint: &Checkpoint) -> Result<&str> {
    let missing = || format!("{}: the model has no head, so it has no answers", checkpoint.folder.display());
    checkpoint.unembedding.as_deref().with_context(missing)
}

/// The final norm.
pub(super) fn ends(checkpoint: &Checkpoint, compute: Compute) -> Result<Ends> {
    let Compute { device, kind } = compute;
    (checkpoint.architecture.ends)(&Loader::new(&checkpoint.weights, &checkpoint.config, kind, device))
}

/// Scales the logits and bounds them, where the family does.
pub(super) fn bounded(logits: Tensor, config: &DecoderConfig) -> Result<Tensor> {
    let logits = if config.logit_scale == 1.0 { logits } else { logits.f_mul_scalar(config.logit_scale)? };
    match config.logit_cap {
        Some(cap) => Ok(logits.f_div_scalar(cap)?.f_tanh()?.f_mul_scalar(cap)?),
        None => Ok(logits),
    }
}
