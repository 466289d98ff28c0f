//! What a checkpoint made of conversations: `context/<checkpoint>.safetensors` and `replay/<checkpoint>.safetensors`, files of the store.
//!
//! All are f32, and not a number where a moment is longer than the model's positions. `scores` `[moment, concept, wording, side, choice]` are
//! log-probabilities in nats, of both answers and then of the foils (not a number where a concept has fewer), about oneself and about another. `lens`
//! `[layer, moment, concept, wording, d_model]` is the residual at the last token of the stem, self minus other, each over its root mean square.
//! `replies` `[layer, moment, reply, d_model]` are means over the tokens of fixed replies. `nll` `[moment]` is the mean over the tokens of the
//! model's last turn, in nats. The metadata's `talks` says what the dimensions are.

use crate::prompt::talks::{Asked, Moment};
use crate::walk::store::Readouts;
use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Tensors, by number.
pub const SCORES: usize = 0;
pub const LENS: usize = 1;
pub const REPLIES: usize = 2;
pub const NLL: usize = 3;

/// What the dimensions of a sheet are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    pub moments: Vec<Moment>,
    pub asked: Vec<Asked>,
    /// Wordings of a concept at a moment.
    pub groups: usize,
    pub replies: usize,
    pub layers: Vec<usize>,
    /// The first checkpoint, where checkpoints wrote some of the conversations: its own are read everywhere.
    #[serde(default)]
    pub first: Option<String>,
}

impl Header {
    /// Names and shapes of the tensors, for the most answers and foils of a stem and d_model.
    pub fn shapes(&self, width: usize, d_model: usize) -> [(&'static str, Vec<usize>); 4] {
        let (layers, moments, asked) = (self.layers.len(), self.moments.len(), self.asked.len());
        [
            ("scores", vec![moments, asked, self.groups, 2, width]),
            ("lens", vec![layers, moments, asked, self.groups, d_model]),
            ("replies", vec![layers, moments, self.replies, d_model]),
            ("nll", vec![moments]),
        ]
    }
}

/// A sheet, read and checked.
pub struct Sheet {
    pub header: Header,
    width: usize,
    pub d_model: usize,
    tensors: [Vec<f32>; 4],
}

impl Sheet {
    /// Opens a sheet.
    ///
    /// # Errors
    /// The file is missing, is no sheet, or its tensors do not fit each other.
    pub fn open(path: &Path) -> Result<Self> {
        Self::read(&Readouts::open(path)?)
    }

    /// Reads a sheet that is open.
    ///
    /// # Errors
    /// It is none, or its tensors do not fit each other.
    pub fn read(file: &Readouts) -> Result<Self> {
        let read = || -> Result<Self> {
            let header: Header = serde_json::from_str(file.metadata("talks").context("the metadata lack the key talks")?)?;
            let width = file.shape("scores")?.last().copied().unwrap_or(0);
            let d_model = file.shape("lens")?.last().copied().unwrap_or(0);
            let read = |(name, shape): (&str, Vec<usize>)| {
                ensure!(file.shape(name)? == shape, "{name} has shape {:?}, expected {shape:?}", file.shape(name)?);
                file.values(name)
            };
            let [scores, lens, replies, nll] = header.shapes(width, d_model);
            let tensors = [read(scores)?, read(lens)?, read(replies)?, read(nll)?];
            Ok(Self { header, width, d_model, tensors })
        };
        read().with_context(|| file.again())
    }

    /// Log-probabilities of answers and foils, about oneself (0) or another (1); `None` where the moment was too long.
    pub fn choices(&self, moment: usize, concept: usize, wording: usize, side: usize) -> Option<Vec<f64>> {
        let at = ((moment * self.header.asked.len() + concept) * self.header.groups + wording) * 2 + side;
        let choices = self.tensors[SCORES][at * self.width..(at + 1) * self.width].iter().take_while(|x| x.is_finite());
        Some(choices.map(|x| f64::from(*x)).collect()).filter(|choices: &Vec<f64>| !choices.is_empty())
    }

    /// What the lens reads, `[d_model]`, by number of the layer.
    pub fn lens(&self, layer: usize, moment: usize, concept: usize, wording: usize) -> &[f32] {
        let Header { moments, asked, groups, .. } = &self.header;
        let at = ((layer * moments.len() + moment) * asked.len() + concept) * groups + wording;
        &self.tensors[LENS][at * self.d_model..(at + 1) * self.d_model]
    }

    /// The mean over a reply's tokens, `[d_model]`, by number of the layer.
    pub fn reply(&self, layer: usize, moment: usize, reply: usize) -> &[f32] {
        let at = (layer * self.header.moments.len() + moment) * self.header.replies + reply;
        &self.tensors[REPLIES][at * self.d_model..(at + 1) * self.d_model]
    }

    /// Of the model's last turn, per token, in nats.
    pub fn nll(&self, moment: usize) -> Option<f64> {
        Some(f64::from(self.tensors[NLL][moment])).filter(|nll| nll.is_finite())
    }
}
