//! Causation: what happens to self-descriptions and to choices when a direction is added to the residual, or taken out of it.
//!
//! Method section 5: margins under `h + alpha s w` (w a unit direction, s the mean length of the residual, one layer, all positions)
//! and under `h - (h.w) w`, along the concept's direction, random ones of the neutral pool's covariance and the assistant axis. One clean
//! stream leaves the residual of every layer of interventions; all conditions go on from there ([`crate::model::intervene`]). Random
//! directions and the axis are asked everything, a concept's direction its own items and the facts: a sweep costs its nodes above the
//! layer times its conditions, which [`Request::cost`] says beforehand.

pub mod board;
pub mod direction;
pub mod sheet;

use crate::model::Checkpoint;
use crate::model::intervene::{Condition, Intervention, Sweep};
use crate::model::stream::{Compute, stream};
use crate::prompt::choices::Asked;
use crate::prompt::item::ItemSet;
use crate::prompt::label_family::LabelFamily;
use crate::walk::answers::{Answers, ask};
use crate::walk::sheets::{self, Cost, Written, floats, integers};
use crate::walk::store::Readouts;
use anyhow::{Context, Result, ensure};
use board::Board;
use direction::{Directions, Source};
use safetensors::Dtype;
use sheet::{Along, Header};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use tch::Tensor;

/// Folder of the sheets in that of a run.
pub const FOLDER: &str = "causal";

/// What is done to every checkpoint of a run.
pub struct Request<'a> {
    pub set: &'a ItemSet,
    pub asked: &'a Asked,
    /// Layers in the store, ascending.
    pub kept: &'a [usize],
    /// Layers of the interventions, which are among those.
    pub layers: &'a [usize],
    /// With both signs, ascending.
    pub strengths: &'a [f64],
    /// Random directions.
    pub directions: usize,
    /// Where concepts are read.
    pub readout: &'a str,
    pub seed: u64,
    pub compute: Compute,
    /// Bytes of residuals of conditions that may be in memory at a time.
    pub budget: usize,
}

/// What a sweep took.
#[derive(Debug, Clone, Copy)]
pub struct Spent {
    /// Readings of the blocks above the lowest layer of the pass.
    pub passes: usize,
    /// For the unembedding of answers, which `node_blocks` leaves out.
    pub scoring: Duration,
}

impl Request<'_> {
    /// Digest of everything but the weights that determines a sheet.
    pub fn hash(&self) -> String {
        let text = format!(
            "causal-1 {} {:?} {:?} {:?} {:?} {:?} {} {} {} {}",
            self.set.hash(),
            self.asked.concepts,
            self.items(),
            self.kept,
            self.layers,
            self.strengths,
            self.directions,
            self.readout,
            self.seed,
            self.compute.describe()
        );
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Items of everything, then of each concept.
    fn items(&self) -> Vec<Vec<usize>> {
        let facts: Vec<usize> = (0..self.set.items.len()).filter(|&item| self.set.items[item].label_family == LabelFamily::Fact).collect();
        let own: Vec<Vec<usize>> = self.asked.concepts.iter().map(|concept| self.asked.outcomes(self.set, concept)).collect();
        let all = own.iter().flatten().chain(&facts).copied().collect();
        let concepts = own.iter().map(|own| own.iter().chain(&facts).copied().collect());
        std::iter::once(all).chain(concepts).collect()
    }

    /// The board of everything, then one per concept.
    fn boards(&self) -> Vec<Board> {
        self.items().into_iter().map(|items| Board::new(self.set, items)).collect()
    }

    /// What a sweep over a model of `n_layers` blocks takes beside its clean stream. `axis`: whether there is one.
    pub fn cost(&self, n_layers: usize, axis: bool) -> Cost {
        let boards = self.boards();
        let settings = self.strengths.len() + 1;
        let everything = (self.directions + usize::from(axis)) * boards[0].forest.len();
        let own: usize = boards[1..].iter().map(|board| board.forest.len()).sum();
        let each = settings * (self.directions + usize::from(axis) + boards.len() - 1);
        let blocks: usize = self.layers.iter().map(|layer| n_layers - layer).sum();
        Cost {
            conditions: self.layers.len() * each,
            nodes: boards[0].forest.len(),
            node_blocks: blocks * settings * (everything + own),
            ticks: n_layers + 1 + (blocks + self.layers.len()) * each,
            ..Cost::default()
        }
    }

    /// Sweeps one checkpoint, whose `readouts` are there and whose fingerprint is known, and writes its sheet. `tick` is called
    /// after every block and may stop it.
    ///
    /// # Errors
    /// Whatever is wrong with the checkpoint or its readouts, by name; the file cannot be written; or the error of `tick`.
    pub fn run(
        &self,
        checkpoint: &Checkpoint,
        fingerprint: &str,
        readouts: &Readouts,
        path: &Path,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Spent> {
        let _no_grad = tch::no_grad_guard();
        let max_token = self.set.max_token();
        ensure!(
            max_token < checkpoint.config.d_vocab,
            "the vocabulary has {} tokens, the prompts use token id {max_token}",
            checkpoint.config.d_vocab
        );
        let source = Source { readouts, items: &self.set.items, readout: self.readout };
        let mut directions = Vec::new();
        for layer in self.layers {
            let index = self.kept.binary_search(layer).ok().with_context(|| format!("layer {layer} is not in the store"))?;
            let at = source.directions(index, &self.asked.concepts, self.directions, self.seed);
            directions.push(at.with_context(|| format!("directions at layer {layer}"))?);
        }
        let axis = directions.iter().all(|at| at.axis.is_some());
        let boards = self.boards();
        let (clean, last) = self.clean(checkpoint, &boards[0], tick)?;
        let nodes = boards.iter().map(|board| board.nodes_in(&boards[0])).collect::<Result<Vec<_>>>()?;
        let rows: Vec<Tensor> = boards
            .iter()
            .zip(&nodes)
            .map(|(board, nodes)| board.answers.rows(&Board::pick(&last, nodes, self.compute.device)?))
            .collect::<Result<_>>()?;
        drop(last);
        let (places, conditions) = self.conditions(&directions, axis)?;
        let n_layers = checkpoint.config.n_layers;
        let forests: Vec<_> = boards.iter().map(|board| &board.forest).collect();
        let sweep = Sweep { checkpoint, forests: &forests, compute: self.compute, last: n_layers, budget: self.budget };
        let copy = |layer: usize, board: usize| match clean.get(&layer) {
            Some(resid) => Board::pick(resid, &nodes[board], self.compute.device),
            None => anyhow::bail!("the residual of layer {layer} was not kept"),
        };
        let mut results: Vec<Option<(Vec<f32>, f32)>> = places.iter().map(|_| None).collect();
        let asked: Vec<&Answers> = boards.iter().map(|board| &board.answers).collect();
        let (passes, scoring) = ask(&sweep, &copy, &conditions, (&asked, &rows), tick, &mut |number, (answers, kl)| {
            results[number] = Some((margins(&answers), kl as f32));
        })?;
        let results = results.into_iter().collect::<Option<Vec<_>>>().context("every condition ends at the last layer")?;
        let unchanged = boards[0].answers.said(checkpoint, self.compute, &rows[0], &rows[..1])?;
        let d_model = checkpoint.config.d_model as usize;
        self.write(path, (fingerprint, d_model), &boards, &directions, axis, (&places, &results), &margins(&unchanged[0].0))?;
        Ok(Spent { passes, scoring })
    }

    /// Residuals without intervention: of the layers of interventions, and of the last one.
    fn clean(
        &self,
        checkpoint: &Checkpoint,
        board: &Board,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<(BTreeMap<usize, Tensor>, Tensor)> {
        let (mut clean, mut last) = (BTreeMap::new(), None);
        let n_layers = checkpoint.config.n_layers;
        stream(checkpoint, &board.forest, self.compute, n_layers, &mut |layer, resid| {
            if self.layers.contains(&layer) {
                clean.insert(layer, resid.f_detach_copy()?);
            }
            if layer == n_layers {
                last = Some(resid.f_detach_copy()?);
            }
            tick()
        })?;
        Ok((clean, last.context("the stream ends at the last layer")?))
    }

    fn conditions(&self, directions: &[Directions], axis: bool) -> Result<(Vec<Along>, Vec<Condition>)> {
        let (mut places, mut conditions) = (Vec::new(), Vec::new());
        for (layer, at) in self.layers.iter().zip(directions) {
            let random = at.random.iter().enumerate().map(|(k, w)| (Along::Random(k), w, 0));
            let axis = at.axis.iter().filter(|_| axis).map(|w| (Along::Axis, w, 0));
            let concepts = at.concepts.iter().enumerate().map(|(k, w)| (Along::Concept(k), w, k + 1));
            for (along, w, forest) in random.chain(axis).chain(concepts) {
                for setting in 0..=self.strengths.len() {
                    let intervention = match self.strengths.get(setting) {
                        Some(strength) => Intervention::steer(w, strength * at.scale)?,
                        None => Intervention::ablate(w)?,
                    };
                    places.push(along);
                    conditions.push(Condition { forest, layer: *layer, intervention });
                }
            }
        }
        Ok((places, conditions))
    }

    #[expect(clippy::too_many_arguments, reason = "everything that a sheet holds")]
    fn write(
        &self,
        path: &Path,
        (fingerprint, d_model): (&str, usize),
        boards: &[Board],
        directions: &[Directions],
        axis: bool,
        (places, results): (&[Along], &[(Vec<f32>, f32)]),
        clean: &[f32],
    ) -> Result<()> {
        let header = Header {
            concepts: self.asked.concepts.clone(),
            layers: self.layers.to_vec(),
            strengths: self.strengths.to_vec(),
            directions: self.directions,
            axis,
            readout: self.readout.to_owned(),
        };
        let (layers, settings) = (self.layers.len(), header.settings());
        let items = &boards[0].items;
        let mut tensors: Vec<Written> = sheets::of_items(items, &self.set.items).into();
        tensors.push(("clean.margin".into(), Dtype::F32, vec![items.len()], floats(clean.iter().copied())));
        tensors.push(("scale".into(), Dtype::F32, vec![layers], floats(directions.iter().map(|at| at.scale as f32))));
        let position: BTreeMap<usize, usize> = items.iter().enumerate().map(|(position, &item)| (item, position)).collect();
        let mut parts: Vec<(String, usize)> = vec![("random".into(), 0)];
        parts.extend(axis.then(|| ("axis".to_owned(), 0)));
        parts.extend(self.asked.concepts.iter().enumerate().map(|(k, name)| (format!("concept.{name}"), k + 1)));
        for (number, (name, board)) in parts.iter().enumerate() {
            let concept = number.checked_sub(1 + usize::from(axis));
            let here = |along: Along| match along {
                Along::Random(_) => number == 0,
                Along::Axis => axis && number == 1,
                Along::Concept(k) => concept == Some(k),
            };
            // Conditions are made layer by layer, direction by direction, setting by setting, as the tensors want them.
            let own: Vec<usize> = (0..places.len()).filter(|&k| here(places[k])).collect();
            let mut shape = if number == 0 { vec![layers, self.directions, settings] } else { vec![layers, settings] };
            tensors.push((format!("{name}.kl"), Dtype::F32, shape.clone(), floats(own.iter().map(|&k| results[k].1))));
            shape.push(boards[*board].items.len());
            let margins = own.iter().flat_map(|&k| results[k].0.iter().copied());
            tensors.push((format!("{name}.margin"), Dtype::F32, shape, floats(margins)));
            if *board > 0 {
                let own: Vec<usize> = boards[*board].items.iter().map(|item| position[item]).collect();
                tensors.push((format!("{name}.items"), Dtype::I64, vec![own.len()], integers(&own)));
            }
            if number > 0 {
                let of = |at: &Directions| concept.map_or_else(|| at.axis.clone().unwrap_or_default(), |k| at.concepts[k].clone());
                let rows = directions.iter().flat_map(of);
                tensors.push((format!("{name}.direction"), Dtype::F32, vec![layers, d_model], floats(rows)));
            }
        }
        let facts = [("request", self.hash()), ("causal", serde_json::to_string(&header)?)];
        sheets::write(path, self.layers, fingerprint, &facts, &tensors)
    }
}

/// First answers minus second ones, in nats.
fn margins(answers: &[f64]) -> Vec<f32> {
    answers.chunks_exact(2).map(|pair| (pair[0] - pair[1]) as f32).collect()
}
