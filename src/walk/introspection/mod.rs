//! Introspection by injection: something is added to the residual stream while one of several sentences is read, and the model is asked in
//! which (Lindsey 2025, arXiv 2601.01828), without a judge and without generation, by the log-probabilities of the labels.
//!
//! A thought is the direction from texts about all things to texts about one, at the layer it is injected at. Beside it stand random
//! directions of the sentences' covariance and other sentences' activations. All are computed by one clean stream of the checkpoint itself;
//! conditions go on from there ([`crate::model::intervene`]).

mod board;
pub mod sheet;

use crate::model::Checkpoint;
use crate::model::intervene::{Condition, Intervention, Sweep};
use crate::model::stream::{Compute, stream};
use crate::prompt::forest::Forest;
use crate::prompt::injected::Injected;
use crate::stats::draws::{generator, normal};
use crate::walk::answers::{Answers, ask};
use crate::walk::sheets::{self, Cost, Written, floats};
use anyhow::{Context, Result, ensure};
use board::Board;
use safetensors::Dtype;
use sheet::{Header, Kind};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Kind as Dtypes, Tensor};

/// Folder of the sheets in that of a run.
pub const FOLDER: &str = "introspection";

/// What is done to every checkpoint of a run.
pub struct Request<'a> {
    pub injected: &'a Injected,
    /// Layers of the injections, ascending.
    pub layers: &'a [usize],
    /// Ascending, in mean lengths of the residual at the sentences.
    pub strengths: &'a [f64],
    pub seed: u64,
    pub compute: Compute,
    /// Bytes of residuals of conditions that may be in memory at a time.
    pub budget: usize,
}

/// Boards, by number.
const SETS: usize = 0;
const PAIRS: usize = 1;
const LINES: usize = 2;

/// Where in the sheet a condition's answers go: the tensor, and for each group of answers the first value's place.
struct Told {
    tensor: usize,
    places: Vec<usize>,
    kl: Option<usize>,
}

/// Directions at one layer.
struct Directions {
    /// `[word, d_model]`, of unit length.
    thoughts: Tensor,
    /// `[group, d_model]`, of unit length.
    random: Tensor,
    /// Mean length of the residual at the sentences.
    scale: f64,
}

impl Request<'_> {
    fn header(&self) -> Header {
        Header {
            asked: self.injected.hash(),
            layers: self.layers.to_vec(),
            strengths: self.strengths.to_vec(),
            labels: self.injected.labels,
            groups: self.injected.asked.len(),
            questions: self.injected.questions.clone(),
            words: self.injected.words.clone(),
            lines: self.injected.about.len(),
        }
    }

    /// Digest of everything but the weights that determines a sheet.
    pub fn hash(&self) -> String {
        let asked = (self.injected.hash(), self.layers, self.strengths, self.seed, self.compute.describe());
        blake3::hash(format!("introspection-1 {asked:?}").as_bytes()).to_hex().to_string()
    }

    /// All texts as one forest, and the boards.
    fn boards(&self) -> Result<(Forest, Vec<Board>)> {
        let injected = self.injected;
        let parts = [&injected.sets, &injected.pairs, &injected.lines, &injected.carriers];
        let texts: Vec<&[i64]> = parts.iter().flat_map(|texts| texts.ids.iter().map(Vec::as_slice)).collect();
        let whole = Forest::new(&texts);
        let first = |part: usize| parts[..part].iter().map(|texts| texts.ids.len()).sum::<usize>();
        let boards = vec![
            Board::new(&injected.sets, (&whole, first(0)), injected.asked.iter().flatten(), &injected.unrelated)?,
            Board::new(&injected.pairs, (&whole, first(1)), injected.stronger.iter(), &[])?,
            Board::new(&injected.lines, (&whole, first(2)), injected.about.iter().flatten(), &[])?,
            Board::new(&injected.carriers, (&whole, first(3)), std::iter::empty(), &[])?,
        ];
        Ok((whole, boards))
    }

    /// What a sweep over a model of `n_layers` blocks takes.
    ///
    /// # Errors
    /// Never in practice.
    pub fn cost(&self, n_layers: usize) -> Result<Cost> {
        let (whole, boards) = self.boards()?;
        let header = self.header();
        let counts = [header.settings().len() * header.labels, 2 * header.pairs(), self.strengths.len() * header.words.len()];
        let blocks: usize = self.layers.iter().map(|layer| n_layers - layer).sum();
        let each: usize = counts.iter().sum();
        let nodes: usize = counts.iter().zip(&boards).map(|(count, board)| count * board.forest.len()).sum();
        let values: usize = header.shapes().iter().map(|(_, shape)| shape.iter().product::<usize>()).sum();
        Ok(Cost {
            conditions: self.layers.len() * each,
            nodes: whole.len(),
            node_blocks: blocks * nodes + n_layers * whole.len(),
            ticks: n_layers + 1 + (blocks + self.layers.len()) * each,
            store_bytes: 4 * values,
            ..Cost::default()
        })
    }

    /// Sweeps one checkpoint, whose fingerprint is known, and writes its sheet. `tick` is called after every block and may stop it.
    ///
    /// # Errors
    /// Whatever is wrong with the checkpoint, by name; the file cannot be written; or the error of `tick`.
    pub fn run(&self, checkpoint: &Checkpoint, fingerprint: &str, path: &Path, tick: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let _no_grad = tch::no_grad_guard();
        let (max_token, d_vocab) = (self.injected.max_token(), checkpoint.config.d_vocab);
        ensure!(max_token < d_vocab, "the vocabulary has {d_vocab} tokens, the prompts use token id {max_token}");
        let (whole, boards) = self.boards()?;
        let (n_layers, device) = (checkpoint.config.n_layers, self.compute.device);
        let (mut clean, mut last) = (BTreeMap::new(), None);
        stream(checkpoint, &whole, self.compute, n_layers, &mut |layer, resid| {
            if self.layers.contains(&layer) {
                clean.insert(layer, resid.f_detach_copy()?);
            }
            if layer == n_layers {
                last =
                    Some(boards[..=LINES].iter().map(|board| board.answers.rows(&board.pick(resid, device)?)).collect::<Result<Vec<_>>>()?);
            }
            tick()
        })?;
        let unchanged = last.context("the stream ends at the last layer")?;
        let at = |layer: &usize| clean.get(layer).with_context(|| format!("the residual of layer {layer} was not kept"));
        let directions = self.layers.iter().map(|layer| self.directions(at(layer)?, &boards, *layer)).collect::<Result<Vec<_>>>()?;
        let header = self.header();
        let (told, conditions) = self.conditions(&header, &boards, &directions)?;
        let shapes = header.shapes();
        let mut sheet: Vec<Vec<f32>> = shapes.iter().map(|(_, shape)| vec![f32::NAN; shape.iter().product()]).collect();
        let forests: Vec<&Forest> = boards.iter().map(|board| &board.forest).collect();
        let sweep = Sweep { checkpoint, forests: &forests, compute: self.compute, last: n_layers, budget: self.budget };
        let clean = |layer: usize, board: usize| boards[board].pick(at(&layer)?, device);
        let asked: Vec<&Answers> = boards[..=LINES].iter().map(|board| &board.answers).collect();
        ask(&sweep, &clean, &conditions, (&asked, &unchanged), tick, &mut |number, (answers, kl)| {
            let Told { tensor, places, kl: place } = &told[number];
            let each = answers.len() / places.len().max(1);
            for (at, own) in places.iter().zip(answers.chunks_exact(each.max(1))) {
                sheet[*tensor][*at..at + each].iter_mut().zip(own).for_each(|(out, x)| *out = *x as f32);
            }
            place.iter().for_each(|at| sheet[1][*at] = kl as f32);
        })?;
        ensure!(
            sheet.iter().flatten().all(|x| x.is_finite()),
            "answers behind an injection have no finite log-probability; lower [introspection] strengths"
        );
        let facts = [("request", self.hash()), ("introspection", serde_json::to_string(&header)?)];
        let written = |((name, shape), values): ((&str, Vec<usize>), Vec<f32>)| (name.to_owned(), Dtype::F32, shape, floats(values));
        let tensors: Vec<Written> = shapes.into_iter().zip(sheet).map(written).collect();
        sheets::write(path, self.layers, fingerprint, &facts, &tensors)
    }

    /// From the residual of all texts at a layer.
    fn directions(&self, resid: &Tensor, boards: &[Board], layer: usize) -> Result<Directions> {
        let at = |board: &Board, nodes: &[i64]| -> Result<Tensor> {
            let rows = board
                .pick(resid, self.compute.device)?
                .f_index_select(0, &Tensor::f_from_slice(nodes)?.f_to_device(self.compute.device)?)?;
            Ok(rows.f_to_kind(Dtypes::Float)?)
        };
        let carriers = &boards[LINES + 1];
        // The last token of the word in each text.
        let ends = |word: usize| -> Vec<i64> {
            let spans = &self.injected.carriers.places[word];
            spans.iter().filter_map(|(text, span)| carriers.forest.span(*text, span.clone()).last().map(|node| *node as i64)).collect()
        };
        let of_word = |word: usize| -> Result<Tensor> { Ok(at(carriers, &ends(word))?.f_mean_dim([0].as_slice(), false, Dtypes::Float)?) };
        let words = (0..self.injected.words.len()).map(of_word).collect::<Result<Vec<_>>>()?;
        let words = Tensor::f_stack(&words, 0)?;
        let sentences: Vec<i64> = boards[SETS].places.iter().flatten().copied().collect();
        let rows = at(&boards[SETS], &sentences)?;
        let scale = rows.f_norm_scalaropt_dim(2.0, [1].as_slice(), false)?.f_mean(Dtypes::Double)?.f_double_value(&[])?;
        let deviations = rows.f_sub(&rows.f_mean_dim([0].as_slice(), true, Dtypes::Float)?)?;
        let draw = |group: usize| -> Result<Tensor> {
            let mut generator = generator(self.seed, &format!("introspection/{layer}/{group}"));
            let g: Vec<f32> = sentences.iter().map(|_| normal(&mut generator) as f32).collect();
            Ok(Tensor::f_from_slice(&g)?.f_to_device(self.compute.device)?.f_unsqueeze(0)?.f_matmul(&deviations)?.f_squeeze_dim(0)?)
        };
        let random = (0..self.injected.asked.len()).map(draw).collect::<Result<Vec<_>>>()?;
        let unit = |rows: Tensor| -> Result<Tensor> {
            Ok(rows.f_div(&rows.f_norm_scalaropt_dim(2.0, [1].as_slice(), true)?.f_clamp_min(1e-20)?)?)
        };
        Ok(Directions {
            thoughts: unit(words.f_sub(&words.f_mean_dim([0].as_slice(), true, Dtypes::Float)?)?)?,
            random: unit(Tensor::f_stack(&random, 0)?)?,
            scale,
        })
    }

    fn conditions(&self, header: &Header, boards: &[Board], directions: &[Directions]) -> Result<(Vec<Told>, Vec<Condition>)> {
        let (n, groups, questions, words) = (header.labels, header.groups, header.questions.len(), header.words.len());
        let settings = header.settings();
        // Every node of the sentences at one position, with the number of its set.
        let sentences = |board: usize, position: usize| -> Vec<(i64, i64)> {
            let of = |group: usize| boards[board].places[group * n + position].iter().map(move |node| (*node, group as i64));
            (0..groups).flat_map(of).collect()
        };
        // Lines that begin alike share nodes.
        let lines: BTreeSet<i64> = boards[LINES].places.iter().flatten().copied().collect();
        // The first sentence of a pair has the stronger thought, then the second one.
        let orders = match *self.strengths {
            [weak, strong, ..] => vec![[strong, weak], [weak, strong]],
            _ => Vec::new(),
        };
        let (mut told, mut conditions) = (Vec::new(), Vec::new());
        for (number, (layer, at)) in self.layers.iter().zip(directions).enumerate() {
            // A set has one thing as its thought.
            let thing: Vec<i64> = (0..groups).map(|group| (group % words) as i64).collect();
            let thoughts = at.thoughts.f_index_select(0, &Tensor::f_from_slice(&thing)?.f_to_device(at.thoughts.device())?)?;
            let times = |directions: &Tensor, strength: f64| -> Result<Tensor> { Ok(directions.f_mul_scalar(strength * at.scale)?) };
            for (setting, (kind, strength)) in settings.iter().enumerate() {
                let amount = strength.map_or(0.0, |strength| self.strengths[strength]);
                let added = times(if *kind == Kind::Thought { &thoughts } else { &at.random }, amount)?;
                for position in 0..n {
                    let intervention = match kind {
                        Kind::Thought | Kind::Random => Intervention::inject(&sentences(SETS, position), &added)?,
                        Kind::Exchange => Intervention::exchange(&exchanged(&boards[SETS], n, groups, position))?,
                    };
                    let place = |group: usize, question: usize| {
                        ((((number * settings.len() + setting) * groups + group) * questions + question) * n + position) * n
                    };
                    let places = (0..groups).flat_map(|group| (0..questions).map(move |question| place(group, question))).collect();
                    told.push(Told { tensor: 0, places, kl: Some((number * settings.len() + setting) * n + position) });
                    conditions.push(Condition { forest: SETS, layer: *layer, intervention });
                }
            }
            for (order, [first, second]) in orders.iter().enumerate() {
                let both = Tensor::f_cat(&[times(&thoughts, *first)?, times(&thoughts, *second)?], 0)?;
                for pair in 0..header.pairs() {
                    let second = sentences(PAIRS, (pair + 1) % n).into_iter().map(|(node, group)| (node, group + groups as i64));
                    let places: Vec<(i64, i64)> = sentences(PAIRS, pair).into_iter().chain(second).collect();
                    let place = |group: usize| (((number * header.pairs() + pair) * 2 + order) * groups + group) * n;
                    told.push(Told { tensor: 2, places: (0..groups).map(place).collect(), kl: None });
                    conditions.push(Condition { forest: PAIRS, layer: *layer, intervention: Intervention::inject(&places, &both)? });
                }
            }
            for (setting, strength) in self.strengths.iter().enumerate() {
                let added = times(&at.thoughts, *strength)?;
                for word in 0..words {
                    let places: Vec<(i64, i64)> = lines.iter().map(|node| (*node, word as i64)).collect();
                    let place = |line: usize, question: usize| {
                        ((((number * self.strengths.len() + setting) * header.lines + line) * 2 + question) * words + word) * words
                    };
                    let places_told = (0..header.lines).flat_map(|line| (0..2).map(move |question| place(line, question))).collect();
                    told.push(Told { tensor: 3, places: places_told, kl: None });
                    let intervention = Intervention::inject(&places, &added)?;
                    conditions.push(Condition { forest: LINES, layer: *layer, intervention });
                }
            }
        }
        Ok((told, conditions))
    }
}

/// The nodes of sentences at one position, each with one of the next set's sentence there, token by token and round again where that is shorter.
fn exchanged(board: &Board, n: usize, groups: usize, position: usize) -> Vec<(i64, i64)> {
    let of = |group: usize| {
        let (own, other) = (&board.places[group * n + position], &board.places[(group + 1) % groups * n + position]);
        own.iter().zip(other.iter().cycle()).map(|(own, other)| (*own, *other)).collect::<Vec<_>>()
    };
    (0..groups).flat_map(of).collect()
}
