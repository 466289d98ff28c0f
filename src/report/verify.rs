//! `selftrace verify`: one's own model through this program and through transformers, every layer compared.
//!
//! Families are held against transformers by tests, on small models. Whether a particular checkpoint is read right, with what its
//! trainer, its hub and its adapter made of it, is best seen on itself. What has been verified is remembered by kind: the
//! configuration as it was understood, the names and shapes of its tensors and those of its adapters. The steps of a series
//! are of one kind.

use super::summary::Text;
use crate::console::check_interrupt;
use crate::manifest::{DeviceChoice, DtypeChoice};
use crate::model::logits::log_probabilities;
use crate::model::stream::stream;
use crate::model::{Checkpoint, device};
use crate::prompt::forest::Forest;
use crate::prompt::template::Template;
use crate::prompt::tokenize::Ruler;
use crate::table::write_atomically;
use crate::walk::readout::{self, Gather};
use crate::walk::store::{Readouts, floats};
use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What transformers is asked, in its own language.
const SCRIPT: &str = include_str!("verify.py");
/// Relative difference from which on layers are not the same. Rounding in f32 stays far below, a wrong key far above.
const TOLERANCE: f64 = 1e-3;
/// The same for log-probabilities, in nats.
const TOLERANCE_NATS: f64 = 1e-2;
/// Texts for models that have a tokenizer.
const TEXTS: &[&str] = &["Who are you, and who made you?", "The capital of France is Paris, and 12 * 12 = 144.\n"];
/// Lengths of prompts of arbitrary tokens, which every model has.
const LENGTHS: &[usize] = &[1, 7, 24];

/// How a checkpoint compares with what transformers computes.
pub struct Verified {
    /// `layer, worst relative difference`.
    pub layers: Vec<f64>,
    /// Worst difference of a log-probability, in nats; `None` without a head.
    pub answers: Option<f64>,
    /// Tokens that were compared.
    pub tokens: usize,
    /// Versions of the Python packages.
    pub against: String,
}

impl Verified {
    /// Whether everything is the same.
    pub fn agrees(&self) -> bool {
        self.layers.iter().all(|worst| *worst < TOLERANCE) && self.answers.is_none_or(|worst| worst < TOLERANCE_NATS)
    }

    /// A line per layer, and one for the answers.
    pub fn table(&self) -> String {
        let mut text = Text::new(&["layer", "worst relative difference", "verdict"]);
        let verdict = |same: bool| if same { "same" } else { "DIFFERS" }.to_owned();
        for (layer, worst) in self.layers.iter().enumerate() {
            text.push(vec![layer.to_string(), format!("{worst:.1e}"), verdict(*worst < TOLERANCE)]);
        }
        match self.answers {
            Some(worst) => text.push(vec!["answers".to_owned(), format!("{worst:.1e} nats"), verdict(worst < TOLERANCE_NATS)]),
            None => text.push(vec!["answers".to_owned(), "no head".to_owned(), "not_run".to_owned()]),
        }
        format!("{}\n{} tokens against {}\n", text.render(), self.tokens, self.against)
    }
}

/// Compares a checkpoint with transformers in `python`, on the CPU in f32, and remembers it if they agree.
///
/// # Errors
/// One sentence: no such Python, packages that it lacks, or why either side cannot compute the model.
pub fn verify(checkpoint: &Checkpoint, python: &Path) -> Result<Verified> {
    let prompts = prompts(checkpoint);
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let (asked, out) = (folder.path().join("asked.json"), folder.path().join("out.safetensors"));
    let adapters: Vec<PathBuf> = checkpoint.weights.adapters().iter().map(|adapter| absolute(adapter.folder())).collect::<Result<_>>()?;
    let question = json!({
        "model": absolute(&checkpoint.folder)?, "adapters": adapters, "prompts": prompts, "out": out,
        "head": checkpoint.unembedding.is_some(), "d_vocab": checkpoint.config.d_vocab, "n_layers": checkpoint.config.n_layers,
    });
    std::fs::write(&asked, question.to_string()).context("a temporary file")?;
    let ran = Command::new(python).arg("-c").arg(SCRIPT).arg(&asked).env("HF_HUB_OFFLINE", "1").output();
    let ran = ran.with_context(|| format!("{}: cannot be run; name a Python with --python PATH", python.display()))?;
    let said = String::from_utf8_lossy(&ran.stdout).trim().to_owned();
    if ran.status.code() == Some(3) {
        bail!(
            "{} lacks a package ({said}): pip install torch transformers peft safetensors, or name another Python with --python PATH",
            python.display()
        );
    }
    let complaint = String::from_utf8_lossy(&ran.stderr);
    let last = complaint.trim().lines().last().unwrap_or("no reason given");
    ensure!(ran.status.success(), "transformers cannot compute the model: {last}");
    let theirs = Readouts::open(&out).context("what transformers wrote")?;
    let verified = Verified { against: said.lines().last().unwrap_or_default().to_owned(), ..compare(checkpoint, &prompts, &theirs)? };
    if verified.agrees() {
        remember(checkpoint, &verified)?;
    }
    Ok(verified)
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    folder.canonicalize().with_context(|| format!("{}: no such folder", folder.display()))
}

/// Token ids: of texts, where there is a tokenizer, and arbitrary ones.
fn prompts(checkpoint: &Checkpoint) -> Vec<Vec<i64>> {
    let d_vocab = checkpoint.config.d_vocab;
    let fits = |ids: &Vec<i64>| !ids.is_empty() && ids.iter().all(|id| *id < d_vocab);
    let mut prompts: Vec<Vec<i64>> = Vec::new();
    if let Ok(ruler) = Template::plain().and_then(|template| Ruler::load(&checkpoint.folder, template)) {
        prompts.extend(TEXTS.iter().filter_map(|text| ruler.encode_text(text).ok()).filter(fits));
    }
    let longest = checkpoint.config.longest.unwrap_or(i64::MAX) as usize;
    // Multiples of a prime reach all over the vocabulary.
    let arbitrary =
        |&length: &usize| (0..length.min(longest)).map(|at| (7919 * (at as i64 + 1) + length as i64) % d_vocab).collect::<Vec<i64>>();
    prompts.extend(LENGTHS.iter().map(arbitrary));
    prompts
}

fn compare(checkpoint: &Checkpoint, prompts: &[Vec<i64>], theirs: &Readouts) -> Result<Verified> {
    let compute = device::compute(device::resolve(DeviceChoice::Cpu)?, DtypeChoice::F32, checkpoint.weights.kind());
    let n_layers = checkpoint.config.n_layers;
    let d_model = checkpoint.config.d_model as usize;
    let forest = Forest::new(prompts);
    let nodes = prompts.iter().enumerate().flat_map(|(index, prompt)| forest.span(index, 0..prompt.len())).map(|node| vec![node]);
    let gather = Gather::new(&nodes.collect::<Vec<_>>(), compute.device)?;
    let mut layers = Vec::new();
    let mut scores = Vec::new();
    stream(checkpoint, &forest, compute, n_layers, &mut |layer, resid| {
        let ours = gather.apply(resid)?;
        let mut rows = floats(&readout::bytes(&ours)?);
        let mut worst = 0f64;
        for (index, prompt) in prompts.iter().enumerate() {
            let right = theirs.layer(&format!("hidden.{index}"), layer)?;
            ensure!(right.len() == prompt.len() * d_model, "transformers has another width or length than {d_model}");
            let rest = rows.split_off(right.len());
            for (a, b) in rows.chunks(d_model).zip(right.chunks(d_model)) {
                let off = length(a.iter().zip(b).map(|(a, b)| f64::from(*a) - f64::from(*b)));
                let whole = length(b.iter().map(|b| f64::from(*b))).max(f64::MIN_POSITIVE);
                // NaN is a difference, too.
                let off = off / whole;
                worst = if off.is_nan() { f64::INFINITY } else { worst.max(off) };
            }
            rows = rest;
        }
        layers.push(worst);
        if layer == n_layers && checkpoint.unembedding.is_some() {
            // The last token has no next one; what stands there is not compared.
            let next: Vec<i64> = prompts.iter().flat_map(|prompt| prompt[1..].iter().chain(&prompt[..1])).copied().collect();
            scores = log_probabilities(checkpoint, compute, &ours, &next)?;
        }
        Ok(check_interrupt()?)
    })?;
    let mut answers = (!scores.is_empty()).then_some(0f64);
    let mut first = 0;
    for (index, prompt) in prompts.iter().enumerate().filter(|_| !scores.is_empty()) {
        let right = if prompt.len() > 1 { theirs.values(&format!("log_probability.{index}"))? } else { Vec::new() };
        for (a, b) in scores[first..].iter().zip(&right) {
            let off = (a - f64::from(*b)).abs();
            answers = answers.map(|worst| if off.is_nan() { f64::INFINITY } else { worst.max(off) });
        }
        first += prompt.len();
    }
    Ok(Verified { layers, answers, tokens: prompts.iter().map(Vec::len).sum(), against: String::new() })
}

/// Euclidean length.
fn length(values: impl Iterator<Item = f64>) -> f64 {
    values.map(|x| x * x).sum::<f64>().sqrt()
}

/// Where it is remembered that a kind of checkpoint was verified.
fn note(checkpoint: &Checkpoint) -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(cache.join("selftrace/verified").join(format!("{}.json", checkpoint.kind())))
}

fn remember(checkpoint: &Checkpoint, verified: &Verified) -> Result<()> {
    let Some(path) = note(checkpoint) else { return Ok(()) };
    let folder = path.parent().context("a file has a folder")?;
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be written", folder.display()))?;
    let text = json!({"source": checkpoint.folder, "against": verified.against, "layers": verified.layers, "answers": verified.answers});
    write_atomically(&path, text.to_string().as_bytes())
}

/// Whether a checkpoint of this kind has been verified with this version.
pub fn is_verified(checkpoint: &Checkpoint) -> bool {
    note(checkpoint).is_some_and(|path| path.is_file())
}
