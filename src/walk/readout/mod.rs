//! Stream x forest -> activations at the tokens that are read: one checkpoint's file in the store.

mod encoding;
mod rows;

use crate::manifest::{Keep, Readout};
use crate::model::Checkpoint;
use crate::model::device;
use crate::model::logits::{log_probabilities, unembedding};
use crate::model::stream::{Compute, stream_from};
use crate::prompt::item::ItemSet;
use crate::prompt::statements::{is_statement, middle_layers};
use crate::walk::store::{self, Readouts, Writer};
use anyhow::{Context, Result, bail, ensure};
use half::f16;
use rows::{Part, Plan, is_labelled};
use std::ops::Range;
use std::path::{Path, PathBuf};
use tch::{Device, Kind, Tensor};

/// Means of the residual over runs of nodes, taken on the device in f32.
pub struct Gather {
    nodes: Tensor,
    /// Run lengths; `None` when every run is one node.
    lengths: Option<Tensor>,
}

impl Gather {
    /// One run of nodes per output row; no run may be empty.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn new(runs: &[Vec<usize>], device: Device) -> Result<Self> {
        let vector = |values: Vec<i64>| Tensor::f_from_slice(&values)?.f_to_device(device);
        let nodes = vector(runs.iter().flatten().map(|&node| node as i64).collect())?;
        let single = runs.iter().all(|run| run.len() == 1);
        let lengths = if single { None } else { Some(vector(runs.iter().map(|run| run.len() as i64).collect())?) };
        Ok(Self { nodes, lengths })
    }

    /// `resid: [node, d_model] -> [run, d_model]`, f32 on the CPU.
    ///
    /// # Errors
    /// The device is out of memory.
    pub fn apply(&self, resid: &Tensor) -> Result<Tensor> {
        let rows = resid.f_index_select(0, &self.nodes)?.f_to_kind(Kind::Float)?;
        let means = match &self.lengths {
            None => rows,
            // Segments in order: deterministic on a GPU too, where adding by index is not.
            Some(lengths) => Tensor::f_segment_reduce(&rows, "mean", Some(lengths), None::<&Tensor>, None::<&Tensor>, 0, false, 0.0)?,
        };
        Ok(means.f_to_device(Device::Cpu)?.f_contiguous()?)
    }
}

/// Row-major f32 bytes of a CPU tensor.
///
/// # Errors
/// The tensor is not f32 on the CPU.
pub fn bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let mut bytes = vec![0u8; tensor.numel() * 4];
    tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
    Ok(bytes)
}

/// Refuses a residual with a value that is not finite: it would be missing in every statistic that it is part of.
///
/// # Errors
/// Names the layer, and what to do where the type is the reason.
pub fn check_finite(layer: usize, resid: &Tensor, kind: Kind) -> Result<()> {
    // A sum is finite only if all its terms are; it needs no memory of the residual's size.
    let sum = resid.f_sum(Kind::Float)?.f_double_value(&[])?;
    if sum.is_finite() {
        return Ok(());
    }
    let finite = resid.f_isfinite()?.f_all_dim(-1, false)?.f_sum(Kind::Int64)?.f_int64_value(&[])?;
    let nodes = resid.size().first().copied().unwrap_or(0);
    if finite == nodes {
        return Ok(());
    }
    let advice = match kind {
        Kind::Half => "f16 ends at 65504, so compute in bf16 or f32 ([model] dtype)",
        Kind::BFloat16 => "try f32 ([model] dtype); if they stay, weights or configuration are wrong",
        _ => "weights or configuration are wrong",
    };
    bail!("layer {layer} holds non-finite activations at {} of {nodes} tokens; {advice}", nodes - finite)
}

/// The fresh rows of the embedding, whose runs are whole prompts, a few at a time: all of their nodes at once would be a multiple of the residual.
fn means(part: &Part, resid: &Tensor) -> Result<Vec<u8>> {
    const PROMPTS: usize = 128;
    let mut fresh = Vec::new();
    for runs in part.runs.chunks(PROMPTS) {
        fresh.extend(bytes(&Gather::new(runs, resid.device())?.apply(resid)?)?);
    }
    Ok(fresh)
}

/// What is read from every checkpoint of a run.
pub struct Request<'a> {
    pub set: &'a ItemSet,
    pub readouts: &'a [Readout],
    /// Layer numbers in ascending order.
    pub layers: &'a [usize],
    pub keep: Keep,
    pub compute: Compute,
}

/// What walks over one base have in common: the layers that none of its adapters reaches. The first walk leaves the residual of the
/// last of them here, the next ones start from it and copy the readouts below.
pub struct Common {
    /// Identity of the base.
    pub base: String,
    pub layer: usize,
    left: Option<Left>,
}

/// What a walk left.
struct Left {
    request: String,
    /// `[node, d_model]`, on the device.
    resid: Tensor,
    /// The walk's file.
    path: PathBuf,
}

impl Common {
    /// Nothing is there yet; a walk over `base` leaves the residual of `layer`.
    pub fn new(base: String, layer: usize) -> Self {
        Self { base, layer, left: None }
    }
}

/// What a walk of one checkpoint cost.
#[derive(Debug, Clone, Default)]
pub struct Cost {
    pub nodes: usize,
    pub prompt_tokens: usize,
    pub reused: usize,
    /// Layers that were taken over from an earlier walk over the same base.
    pub shared_layers: usize,
    pub fingerprint: String,
}

impl Request<'_> {
    /// Digest of everything but the weights that determines a file of the store.
    pub fn hash(&self) -> String {
        let kind = match self.keep {
            Keep::Activations => "store-3",
            Keep::Measures => "store-4",
        };
        let text = format!("{kind} {} {:?} {:?} {}", self.set.hash(), self.layers, self.readouts, self.compute.describe());
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Tokens of an item to average over; `None` where the item does not have this readout.
    fn tokens(&self, readout: Readout, item: usize) -> Option<Range<usize>> {
        let prompt = &self.set.prompts[item];
        let last = || prompt.ids.len().checked_sub(1).map(|last| last..last + 1);
        let is_said = self.readouts.contains(&Readout::Statement) && is_statement(&self.set.items[item].label_family);
        match readout {
            Readout::LastPrompt => last().filter(|_| !is_said),
            Readout::Statement => last().filter(|_| is_said),
            Readout::SpanLast => prompt.span.as_ref().map(|span| span.end - 1..span.end),
            Readout::ResponseMean => prompt.response.clone(),
        }
    }

    /// Items that have a readout.
    fn items_of(&self, readout: Readout) -> Vec<usize> {
        (0..self.set.items.len()).filter(|&item| self.tokens(readout, item).is_some()).collect()
    }

    /// Layers of a readout, as positions among all.
    fn layers_of(&self, readout: Readout) -> Vec<usize> {
        match readout {
            Readout::Statement => middle_layers(self.layers),
            _ => (0..self.layers.len()).collect(),
        }
    }

    /// Size of the activations in a file of the store, but for what is as large for one item as for thousands.
    pub fn bytes(&self, d_model: usize) -> usize {
        let embeddings = self.set.items.iter().filter(|item| is_labelled(item)).count() * size_of::<f32>();
        let read = |&readout: &Readout| {
            let items = self.items_of(readout);
            let size = if self.anchors(&items).is_some() { size_of::<f16>() } else { size_of::<f32>() };
            items.len() * self.layers_of(readout).len() * size
        };
        (self.readouts.iter().map(read).sum::<usize>() + embeddings) * d_model
    }

    /// Walks one checkpoint and writes its file. Rows of `old`, a file made from the same weights, are taken over where the
    /// item did not change. `common`, where the checkpoint's layers up to its are its base's, saves computing those again; the file is
    /// the same bit for bit. `tick(layer)` is called after every layer and may stop the walk by an error.
    ///
    /// # Errors
    /// Whatever is wrong with the checkpoint, by name; the store cannot be written; or the error of `tick`.
    pub fn walk(
        &self,
        checkpoint: &Checkpoint,
        path: &Path,
        old: Option<&Readouts>,
        common: Option<&mut Common>,
        tick: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Cost> {
        let config = &checkpoint.config;
        if let Some(beyond) = self.set.beyond(config.d_vocab) {
            bail!("{}: {beyond}", checkpoint.folder.display());
        }
        if let Some(&layer) = self.layers.last() {
            ensure!(
                layer <= config.n_layers,
                "{}: layer {layer} was asked for, the model has {}",
                checkpoint.folder.display(),
                config.n_layers
            );
        }
        let has_head = checkpoint.unembedding.is_some();
        let plan = Plan::new(self, old, config.d_model as usize, has_head)?;
        let mut cost = Cost { nodes: plan.forest.len(), prompt_tokens: plan.forest.prompt_tokens, reused: plan.reused, ..Cost::default() };
        let mut metadata = store::metadata(self.layers, &"0".repeat(64));
        metadata.insert("request".to_owned(), self.hash().into());
        metadata.insert("compute".to_owned(), device::dtype_name(self.compute.kind).into());
        metadata.insert("final_norm".to_owned(), if config.norm.is_layer() { "layer" } else { "rms" }.into());
        let writer = Writer::create(path, plan.tensors(self, config.d_model as usize), metadata)?;
        let gathers = plan.parts.iter().map(|part| Gather::new(&part.runs, self.compute.device)).collect::<Result<Vec<_>>>()?;
        let depth = if plan.scored.is_empty() { self.layers.last().copied().unwrap_or(0) } else { config.n_layers };
        let mut scores = Vec::new();
        // Where rows of an old file are taken over, the forest is another one.
        let mut common = common.filter(|common| plan.reused == 0 && common.layer <= depth);
        let left = common.as_mut().and_then(|common| common.left.take()).filter(|left| left.request == self.hash());
        let mut kept = None;
        if !plan.forest.is_empty() {
            let start = left.as_ref().zip(common.as_ref()).map(|(left, common)| (common.layer, &left.resid));
            if let (Some(left), Some((layer, _))) = (&left, start) {
                cost.shared_layers = layer;
                let below = Readouts::open(&left.path)?;
                for index in (0..self.layers.len()).filter(|&index| self.layers[index] < layer) {
                    plan.parts.iter().try_for_each(|part| part.copy(index, &below, &writer))?;
                }
                plan.embedding.copy(0, &below, &writer)?;
            }
            stream_from(checkpoint, &plan.forest, self.compute, start, depth, &mut |layer, resid| {
                check_finite(layer, resid, self.compute.kind)?;
                if left.is_none() && common.as_ref().is_some_and(|common| common.layer == layer) {
                    kept = Some(resid.f_detach_copy()?);
                }
                if layer == 0 {
                    plan.embedding.write(0, &means(&plan.embedding, resid)?, old, &writer)?;
                }
                if let Ok(index) = self.layers.binary_search(&layer) {
                    for (part, gather) in plan.parts.iter().zip(&gathers).filter(|(part, _)| part.layers.contains(&index)) {
                        let fresh = if part.runs.is_empty() { Vec::new() } else { bytes(&gather.apply(resid)?)? };
                        part.write(index, &fresh, old, &writer).with_context(|| format!("layer {layer}"))?;
                    }
                }
                if layer == config.n_layers && !plan.scored.is_empty() {
                    let rows = resid.f_index_select(0, &Tensor::f_from_slice(&plan.scored)?.f_to_device(resid.device())?)?;
                    scores = log_probabilities(checkpoint, self.compute, &rows, &plan.scored_tokens)?;
                }
                tick(layer)
            })?;
        } else {
            for part in &plan.parts {
                part.layers.iter().try_for_each(|&index| part.write(index, &[], old, &writer))?;
            }
            plan.embedding.write(0, &[], old, &writer)?;
        }
        let unembedding = if has_head { unembedding(checkpoint, self.compute, &plan.said)? } else { Vec::new() };
        plan.write_rest(self, &writer, &scores, &unembedding, old)?;
        cost.fingerprint = checkpoint.fingerprint();
        writer.finish(&[("fingerprint", cost.fingerprint.clone())])?;
        if let Some(common) = common {
            let new = kept.map(|resid| Left { request: self.hash(), resid, path: path.to_owned() });
            common.left = left.or(new);
        }
        Ok(cost)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_overflows_is_named_by_layer_with_what_to_do() {
        let resid = Tensor::from_slice(&[1f32, 2.0, 7e4, 3.0]).reshape([2, 2]).to_kind(Kind::Half);
        let error = check_finite(3, &resid, Kind::Half).unwrap_err().to_string();
        assert_eq!(
            error,
            "layer 3 holds non-finite activations at 1 of 2 tokens; f16 ends at 65504, so compute in bf16 or f32 ([model] dtype)"
        );
        assert!(check_finite(3, &resid.nan_to_num(0.0, 0.0, 0.0), Kind::Half).is_ok());
        // Finite values whose sum is not.
        assert!(check_finite(0, &Tensor::from_slice(&[3e38f32, 3e38]).reshape([2, 1]), Kind::Float).is_ok());
    }
}
