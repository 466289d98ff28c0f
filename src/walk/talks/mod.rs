//! Conversations, teacher-forced at a checkpoint: what it says of itself behind them, what its residual stream holds there, and how likely the
//! turns are that it is given.
//!
//! The text is the same at every checkpoint, so what differs between two of them is the model. Branches behind a conversation share its
//! tokens and know nothing of one another, so the conversation is computed once and what is asked changes nothing in it.

pub mod sheet;

use crate::model::Checkpoint;
use crate::model::stream::{Compute, stream};
use crate::prompt::forest::Forest;
use crate::prompt::talks::Talks;
use crate::walk::answers::Answers;
use crate::walk::readout::{Gather, bytes, check_finite};
use crate::walk::sheets::{self, Cost, Written, floats};
use anyhow::{Context, Result, ensure};
use safetensors::Dtype;
use sheet::Header;
use std::path::Path;
use tch::{Kind, Tensor};

/// Folders of the sheets in that of a run: of `[context]`, and of `[replay]`.
pub const CONTEXT: &str = "context";
pub const REPLAY: &str = "replay";

/// What is read at every checkpoint of a run.
pub struct Request<'a> {
    pub talks: &'a Talks,
    /// Of the lens and of the replies, ascending.
    pub layers: &'a [usize],
    pub compute: Compute,
    /// The checkpoint that is read, and the first one: whose own conversations are.
    pub readers: [&'a str; 2],
}

/// What was read of a checkpoint: a sheet that is not written yet.
pub struct Read {
    pub tensors: Vec<Written>,
    /// Name and text of the metadata that say what the dimensions are.
    pub header: (&'static str, String),
    /// Moments that are longer than the model's positions.
    pub too_long: usize,
}

/// What is computed, and where it is read.
struct Plan {
    /// Moments that fit into the model's positions.
    moments: Vec<usize>,
    forest: Forest,
    answers: Answers,
    /// Last tokens of stems, about oneself and about another in turn.
    stems: Vec<i64>,
    /// Tokens of the replies.
    replies: Vec<Vec<usize>>,
}

impl Request<'_> {
    fn header(&self) -> Header {
        let Talks { moments, asked, groups, replies, .. } = self.talks;
        let first = self.first().map(str::to_owned);
        Header { moments: moments.clone(), asked: asked.clone(), groups: *groups, replies: *replies, layers: self.layers.to_vec(), first }
    }

    /// The first checkpoint, where it matters: where checkpoints wrote conversations.
    fn first(&self) -> Option<&str> {
        self.talks.moments.iter().any(|moment| moment.writer.is_some()).then_some(self.readers[1])
    }

    /// Digest of everything but the weights that determines a sheet.
    pub fn hash(&self) -> String {
        let text = format!("talks-1 {} {:?} {} {:?}", self.talks.hash(), self.layers, self.compute.describe(), self.first());
        blake3::hash(text.as_bytes()).to_hex().to_string()
    }

    /// Whether a moment is read here: of conversations that checkpoints wrote, one's own and the first one's.
    fn is_own(&self, moment: usize) -> bool {
        self.talks.moments[moment].writer.as_ref().is_none_or(|writer| self.readers.contains(&writer.as_str()))
    }

    /// Of a model with so many positions.
    fn plan(&self, positions: Option<usize>) -> Plan {
        let talks = self.talks;
        let fits = |moment: &usize| positions.is_none_or(|positions| talks.longest(*moment) <= positions);
        let moments: Vec<usize> = (0..talks.moments.len()).filter(|moment| self.is_own(*moment)).filter(fits).collect();
        let mut texts: Vec<&[i64]> = vec![&[]; talks.texts.len()];
        let branches = || moments.iter().flat_map(|moment| talks.branches_of(*moment).iter().flatten());
        let places =
            || moments.iter().flat_map(|moment| talks.replies_of(*moment)).chain(moments.iter().filter_map(|m| talks.said[*m].as_ref()));
        let used = branches().flat_map(|branch| branch.text..branch.text + branch.answers.len()).chain(places().map(|(text, _)| *text));
        used.for_each(|text| texts[text] = &talks.texts[text]);
        let forest = Forest::new(&texts);
        let mut answers = Answers::default();
        for branch in branches() {
            branch.answers.iter().enumerate().for_each(|(k, answer)| answers.score(&forest, branch.text + k, branch.stem, answer));
        }
        for (text, span) in moments.iter().filter_map(|moment| talks.said[*moment].as_ref()) {
            answers.score(&forest, *text, span.start, &talks.texts[*text][span.clone()]);
        }
        let last = |text: usize, stem: usize| forest.span(text, stem - 1..stem)[0] as i64;
        let stems = branches().map(|branch| last(branch.text, branch.stem)).collect();
        let replies =
            moments.iter().flat_map(|moment| talks.replies_of(*moment)).map(|(text, span)| forest.span(*text, span.clone())).collect();
        Plan { moments, answers, stems, replies, forest }
    }

    /// What a checkpoint of `n_layers` blocks and width `d_model` takes.
    pub fn cost(&self, n_layers: usize, d_model: usize) -> Cost {
        let nodes = self.plan(None).forest.len();
        let store_bytes = 4 * self.values(d_model);
        Cost { nodes, node_blocks: n_layers * nodes, ticks: n_layers + 1, store_bytes, ..Cost::default() }
    }

    /// Numbers of a sheet.
    pub fn values(&self, d_model: usize) -> usize {
        self.header().shapes(self.width(), d_model).iter().map(|(_, shape)| shape.iter().product::<usize>()).sum()
    }

    /// The most answers and foils that a stem has.
    fn width(&self) -> usize {
        self.talks.branches.iter().flatten().map(|branch| branch.answers.len()).max().unwrap_or(0)
    }

    /// Reads one checkpoint, whose fingerprint is known, and writes its sheet. Returns how many moments are longer than the model's positions.
    /// `tick` is called after every block and may stop it.
    ///
    /// # Errors
    /// As [`Request::read`], or the file cannot be written.
    pub fn run(&self, checkpoint: &Checkpoint, fingerprint: &str, path: &Path, tick: &mut dyn FnMut() -> Result<()>) -> Result<usize> {
        let Read { tensors, header, too_long } = self.read(checkpoint, tick)?;
        sheets::write(path, self.layers, fingerprint, &[("request", self.hash()), header], &tensors)?;
        Ok(too_long)
    }

    /// Reads one checkpoint.
    ///
    /// # Errors
    /// Whatever is wrong with the checkpoint, by name; or the error of `tick`.
    pub fn read(&self, checkpoint: &Checkpoint, tick: &mut dyn FnMut() -> Result<()>) -> Result<Read> {
        let _no_grad = tch::no_grad_guard();
        let config = &checkpoint.config;
        let (max_token, d_vocab) = (self.talks.max_token(), config.d_vocab);
        ensure!(max_token < d_vocab, "the vocabulary has {d_vocab} tokens, the conversations use token id {max_token}");
        let plan = self.plan(config.positions());
        let (n_layers, d_model) = (config.n_layers, config.d_model as usize);
        let shapes = self.header().shapes(self.width(), d_model);
        let mut sheet: Vec<Vec<f32>> = shapes.iter().map(|(_, shape)| vec![f32::NAN; shape.iter().product()]).collect();
        let each = |tensor: usize| shapes[tensor].1[1..].iter().product::<usize>();
        if !plan.moments.is_empty() {
            let replies = (!plan.replies.is_empty()).then(|| Gather::new(&plan.replies, self.compute.device)).transpose()?;
            let stems = Tensor::f_from_slice(&plan.stems)?.f_to_device(self.compute.device)?;
            let mut last = None;
            stream(checkpoint, &plan.forest, self.compute, n_layers, &mut |layer, resid| {
                check_finite(layer, resid, self.compute.kind)?;
                if let Ok(number) = self.layers.binary_search(&layer) {
                    let contrasts = contrasts(&resid.f_index_select(0, &stems)?, config.norm.is_layer())?;
                    let mut put = |tensor: usize, rows: &[f32]| {
                        let one = each(tensor) / self.talks.moments.len();
                        for (moment, row) in plan.moments.iter().zip(rows.chunks_exact(one.max(1))) {
                            sheet[tensor][number * each(tensor) + moment * one..][..one].copy_from_slice(row);
                        }
                    };
                    put(sheet::LENS, &contrasts);
                    if let Some(replies) = &replies {
                        put(sheet::REPLIES, &crate::walk::store::floats(&bytes(&replies.apply(resid)?)?));
                    }
                }
                if layer == n_layers {
                    last = Some(plan.answers.rows(resid)?);
                }
                tick()
            })?;
            let rows = last.context("the stream ends at the last layer")?;
            let scored = plan.answers.plainly(checkpoint, self.compute, &rows)?;
            ensure!(scored.iter().all(|x| x.is_finite()), "an answer behind a conversation has no finite log-probability");
            self.put_scores(&plan, &scored, &mut sheet);
        }
        let written = |((name, shape), values): ((&str, Vec<usize>), Vec<f32>)| (name.to_owned(), Dtype::F32, shape, floats(values));
        let own = (0..self.talks.moments.len()).filter(|moment| self.is_own(*moment)).count();
        Ok(Read {
            tensors: shapes.into_iter().zip(sheet).map(written).collect(),
            header: ("talks", serde_json::to_string(&self.header())?),
            too_long: own - plan.moments.len(),
        })
    }

    /// Answers come first in `scored`, then the turns.
    fn put_scores(&self, plan: &Plan, scored: &[f64], sheet: &mut [Vec<f32>]) {
        let width = self.width();
        let (mut rest, per_moment) = (scored, self.talks.asked.len() * self.talks.groups * 2);
        for moment in &plan.moments {
            for (number, branch) in self.talks.branches_of(*moment).iter().flatten().enumerate() {
                let (own, later) = rest.split_at(branch.answers.len());
                rest = later;
                let row = &mut sheet[sheet::SCORES][(moment * per_moment + number) * width..][..own.len()];
                row.iter_mut().zip(own).for_each(|(out, x)| *out = *x as f32);
            }
        }
        let said = plan.moments.iter().filter_map(|moment| Some((*moment, self.talks.said[*moment].as_ref()?.1.len())));
        for ((moment, tokens), sum) in said.zip(rest) {
            sheet[sheet::NLL][moment] = (-sum / tokens as f64) as f32;
        }
    }
}

/// Of rows `[2 stem, d_model]`, about oneself and about another in turn: what is about oneself minus the other, each over the scale that a
/// final norm divides by (and without its mean, where that norm is a layer norm), as the lens reads it: `[stem, d_model]`, row-major.
fn contrasts(rows: &Tensor, centres: bool) -> Result<Vec<f32>> {
    let rows = rows.f_to_kind(Kind::Float)?;
    let rows = if centres { rows.f_sub(&rows.f_mean_dim([-1].as_slice(), true, Kind::Float)?)? } else { rows };
    let scale = rows.f_square()?.f_mean_dim([-1].as_slice(), true, Kind::Float)?.f_sqrt()?.f_clamp_min(1e-20)?;
    let pairs = rows.f_div(&scale)?.f_reshape([-1, 2, rows.size()[1]])?;
    let contrast = pairs.f_select(1, 0)?.f_sub(&pairs.f_select(1, 1)?)?;
    Ok(Vec::try_from(contrast.f_flatten(0, -1)?.f_to_device(tch::Device::Cpu)?)?)
}

#[cfg(test)]
mod tests {
    use super::sheet::Sheet;
    use super::*;
    use crate::prompt::injected::Branch;
    use crate::prompt::talks::{Asked, Moment};
    use tch::Device;

    /// One concept with an answer, another and a foil, behind conversations of these lengths.
    fn talks(lengths: &[usize]) -> Talks {
        let mut talks = Talks { groups: 1, replies: 1, ..Talks::default() };
        talks.asked.push(Asked {
            concept: "a".to_owned(),
            null_bank: false,
            specification: None,
            answer: "x".to_owned(),
            answer_ids: vec![vec![5, 6], vec![7], vec![8]],
            foils: 1,
        });
        for length in lengths {
            let before: Vec<i64> = (0..*length as i64).map(|at| at % 40).collect();
            let mut branch = |own: i64| {
                let stem = [before.as_slice(), &[own, 2, 3]].concat();
                let branch = Branch { text: talks.texts.len(), stem: stem.len(), answers: vec![vec![5, 6], vec![7], vec![8]] };
                talks.texts.extend(branch.answers.iter().map(|answer| [stem.as_slice(), &answer[..answer.len() - 1]].concat()));
                branch
            };
            let pair = [branch(50), branch(51)];
            talks.branches.push(pair);
            talks.texts.push([before.as_slice(), &[9, 10, 11]].concat());
            talks.replied.push((talks.texts.len() - 1, *length..*length + 3));
            talks.texts.push(before.clone());
            talks.said.push(Some((talks.texts.len() - 1, 2..*length)));
            let moment = Moment { arm: "b".to_owned(), script: length.to_string(), turns: 1, tokens: *length, neutral: None, writer: None };
            talks.moments.push(moment);
        }
        talks
    }

    #[test]
    fn a_conversation_that_is_longer_than_the_positions_has_no_numbers_and_the_others_have_theirs() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity/gpt2");
        let checkpoint = Checkpoint::open(&folder).unwrap();
        let compute = Compute { device: Device::Cpu, kind: Kind::Float };
        let out = tempfile::tempdir().unwrap();
        let read = |lengths: &[usize]| {
            let talks = talks(lengths);
            let request = Request { talks: &talks, layers: &[1, 3], compute, readers: ["a", "b"] };
            let path = out.path().join(format!("{lengths:?}.safetensors"));
            let too_long = request.run(&checkpoint, &"0".repeat(64), &path, &mut || Ok(())).unwrap();
            (too_long, Sheet::open(&path).unwrap())
        };
        // With three tokens of a stem and one of an answer, 12 is the most that 16 positions take.
        let (too_long, both) = read(&[13, 12, 5]);
        assert_eq!(too_long, 1);
        assert!(both.choices(0, 0, 0, 0).is_none() && both.nll(0).is_none() && both.lens(1, 0, 0, 0)[0].is_nan());
        let (none, alone) = read(&[12]);
        assert_eq!(none, 0);
        for side in [0, 1] {
            let (found, expected) = (both.choices(1, 0, 0, side).unwrap(), alone.choices(0, 0, 0, side).unwrap());
            assert!(found.len() == 3 && found.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}, {expected:?}");
        }
        let close = |a: &[f32], b: &[f32]| a.len() == 16 && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-4);
        for layer in [0, 1] {
            assert!(
                close(both.lens(layer, 1, 0, 0), alone.lens(layer, 0, 0, 0)) && close(both.reply(layer, 1, 0), alone.reply(layer, 0, 0))
            );
        }
        assert!((both.nll(1).unwrap() - alone.nll(0).unwrap()).abs() < 1e-5 && both.nll(2).is_some());
        // All of them too long is a sheet without numbers.
        assert_eq!(read(&[14, 15]).0, 2);
    }
}
