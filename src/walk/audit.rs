//! The integrity audit: whether the checkpoints of a series are what their steps say.
//!
//! Published series have branches that serve the weights of another step, single shards of another step, and tokenizers or
//! configurations that change on the way (Pythia issues #205, #206, #83). A walk hashes every tensor anyway, so comparing costs nothing.
//! Findings are shown and stored in `integrity.parquet`; those that would put a wrong or a repeated point into a curve leave the
//! checkpoint out of the analysis (`excluded`), unless the manifest says `[run] audit = "warn"`.

use crate::checkpoint::read_json;
use crate::manifest::Audit;
use crate::model::Checkpoint;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Keys of `config.json` that do not change what a model computes.
const NEUTRAL: &[&str] = &[
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "vocab_size",
];
/// A norm is an outlier if it is off by more than this from both neighbours, in logarithms ...
const SMALLEST_JUMP: f64 = 0.05;
/// ... and by more than this many times the median change between neighbours.
const JUMPS: f64 = 8.0;
/// Checkpoints that a median change needs.
const FEWEST_NORMS: usize = 5;

/// What is known of one checkpoint's files.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Hashes of `tokenizer.json` with the settings that change ids, and of the chat template.
    pub tokenizer: Option<String>,
    pub template: Option<String>,
    pub d_vocab: Option<i64>,
    /// The configuration as it was understood, without the vocabulary.
    pub computed: Option<String>,
    /// Keys of `config.json` with their values.
    pub config: BTreeMap<String, String>,
    /// It has an adapter, and the adapter changes nothing.
    pub unchanged: bool,
    /// What the adapter says that it was trained over, where that is not its base.
    #[serde(default)]
    pub other_base: Option<String>,
    /// Type of the weights' numbers.
    #[serde(default)]
    pub dtype: Option<String>,
    /// Empty before the weights were read.
    pub tensors: Vec<TensorFacts>,
}

/// One tensor: equal digests are equal content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorFacts {
    pub name: String,
    pub digest: String,
    /// Frobenius norm, where the walk read the whole tensor.
    pub norm: Option<f64>,
    /// It is the base's, under an adapter.
    pub inherited: bool,
}

/// A checkpoint of the series.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    pub id: String,
    pub step: Option<u64>,
    pub facts: Facts,
    /// Why its walk failed.
    pub error: Option<String>,
}

/// One row of `integrity.parquet` behind the keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// `duplicate_of`, `equals_final`, `partial_duplicate`, `outlier_norm`, `no_change`, `nonfinite`, `vocab_drift`, `tokenizer_drift`,
    /// `template_drift`, `config_drift`, `dtype_drift` or `other_base`.
    pub kind: String,
    /// The checkpoint that it was compared with.
    pub other: Option<String>,
    /// What was found, in words.
    pub detail: String,
    /// The checkpoint is left out of the analysis.
    pub excluded: bool,
}

/// Keys of `tokenizer_config.json` that change which ids a text gets.
const ENCODES: &[&str] = &["tokenizer_class", "add_bos_token", "add_eos_token", "add_prefix_space", "bos_token", "added_tokens_decoder"];

impl Facts {
    /// Reads what small files and headers say and, with `weights`, what is known of every tensor. `folders` may hold a tokenizer; the
    /// first that does counts.
    ///
    /// # Errors
    /// A file is there but cannot be read.
    pub fn new(checkpoint: &Checkpoint, folders: &[&Path], weights: bool) -> Result<Self> {
        let hash = |bytes: &[u8]| blake3::hash(bytes).to_hex()[..32].to_owned();
        let first = |name: &str| folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
        let settings = first("tokenizer_config.json").map(|path| read_json(&path)).transpose()?;
        let encodes = settings.iter().flat_map(|settings| ENCODES.iter().filter_map(|key| Some(format!("{key} {}", settings.get(*key)?))));
        let encodes: Vec<String> = encodes.collect();
        let tokenizer = first("tokenizer.json").map(std::fs::read).transpose()?;
        let tokenizer = tokenizer.map(|text| hash(&[&text, encodes.join("\n").as_bytes()].concat()));
        let template = match (first("chat_template.jinja"), settings.as_ref().and_then(|settings| settings.get("chat_template"))) {
            (Some(path), _) => Some(hash(std::fs::read_to_string(path)?.trim().as_bytes())),
            (None, None | Some(serde_json::Value::Null)) => None,
            (None, Some(serde_json::Value::String(template))) => Some(hash(template.trim().as_bytes())),
            (None, Some(other)) => Some(hash(other.to_string().as_bytes())),
        };
        let json = read_json(&checkpoint.folder.join("config.json"))?;
        let config = json.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.to_string())).collect();
        let mut computed = checkpoint.config.clone();
        let d_vocab = std::mem::replace(&mut computed.d_vocab, 0);
        let adapted = !checkpoint.weights.adapters().is_empty();
        let facts = |trace: crate::checkpoint::weights::Trace| TensorFacts {
            inherited: adapted && !checkpoint.weights.is_changed(&trace.name),
            digest: trace.digest.to_hex()[..32].to_owned(),
            name: trace.name,
            norm: trace.norm,
        };
        Ok(Self {
            tokenizer,
            template,
            d_vocab: Some(d_vocab),
            computed: Some(format!("{} {computed:?}", checkpoint.architecture.model_type)),
            config,
            unchanged: checkpoint.weights.is_unchanged()?,
            other_base: checkpoint.other_base().map(str::to_owned),
            dtype: Some(checkpoint.weights.dtype()),
            tensors: if weights { checkpoint.weights.traces().into_iter().map(facts).collect() } else { Vec::new() },
        })
    }

    /// Digest of all weights; `None` before they were read.
    fn weights(&self) -> Option<blake3::Hash> {
        (!self.tensors.is_empty()).then(|| digest(self.tensors.iter()))
    }

    /// Tensors by block; `None` is what is outside the blocks.
    fn blocks(&self) -> BTreeMap<Option<usize>, Vec<&TensorFacts>> {
        let mut blocks: BTreeMap<_, Vec<&TensorFacts>> = BTreeMap::new();
        for tensor in &self.tensors {
            let block = tensor.name.split('.').find_map(|segment| segment.parse::<usize>().ok());
            blocks.entry(block).or_default().push(tensor);
        }
        blocks
    }
}

fn digest<'a>(tensors: impl Iterator<Item = &'a TensorFacts>) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for tensor in tensors {
        hasher.update(tensor.name.as_bytes()).update(b" ").update(tensor.digest.as_bytes()).update(b"\n");
    }
    hasher.finalize()
}

/// Findings of a series in order, with the index of the checkpoint that each is about.
pub fn audit(series: &[Subject], audit: Audit) -> Vec<(usize, Finding)> {
    let mut findings = Vec::new();
    duplicates(series, &mut findings);
    let repeated: BTreeSet<usize> = findings.iter().map(|(index, _)| *index).collect();
    let single: Vec<usize> =
        (0..series.len()).filter(|index| !repeated.contains(index) && !series[*index].facts.tensors.is_empty()).collect();
    partial_duplicates(series, &single, &mut findings);
    outlier_norms(series, &single, &mut findings);
    for (index, subject) in series.iter().enumerate() {
        if subject.facts.unchanged {
            // At its first step an adapter is not trained yet.
            push(&mut findings, index, "no_change", None, "the adapter changes no weight".to_owned(), subject.step != Some(0));
        }
        if let Some(named) = &subject.facts.other_base {
            let detail = format!("base_model_name_or_path says that the adapter was trained over {named}, which is not the base here");
            push(&mut findings, index, "other_base", None, detail, false);
        }
        if let Some(error) = subject.error.as_ref().filter(|error| error.contains("non-finite")) {
            push(&mut findings, index, "nonfinite", None, error.clone(), false);
        }
    }
    drift(series, &mut findings);
    findings.sort_by_key(|(index, _)| *index);
    if audit == Audit::Warn {
        findings.iter_mut().for_each(|(_, finding)| finding.excluded = false);
    }
    findings
}

fn push(findings: &mut Vec<(usize, Finding)>, index: usize, kind: &str, other: Option<&Subject>, detail: String, excluded: bool) {
    let other = other.map(|other| other.id.clone());
    findings.push((index, Finding { kind: kind.to_owned(), other, detail, excluded }));
}

/// Equal weights under several steps. What equals the final weights is not what its step says; of others the first one counts.
fn duplicates(series: &[Subject], findings: &mut Vec<(usize, Finding)>) {
    let mut first: BTreeMap<[u8; 32], usize> = BTreeMap::new();
    let last = series.iter().rposition(|subject| !subject.facts.tensors.is_empty());
    let final_weights = last.and_then(|last| series[last].facts.weights());
    for (index, subject) in series.iter().enumerate() {
        let Some(weights) = subject.facts.weights() else { continue };
        if Some(weights) == final_weights {
            if let Some(last) = last.filter(|last| *last != index) {
                push(findings, index, "equals_final", Some(&series[last]), "the weights are those of the last checkpoint".to_owned(), true);
            }
            continue;
        }
        match first.get(weights.as_bytes()) {
            Some(&other) => push(findings, index, "duplicate_of", Some(&series[other]), "the weights are the same".to_owned(), true),
            None => _ = first.insert(*weights.as_bytes(), index),
        }
    }
}

/// Blocks that two checkpoints share while one between them differs: a shard of another step. Blocks that stay the same from one
/// checkpoint to the next are frozen, and what an adapter leaves alone is its base's. Of the two, the one whose norms fit its
/// neighbours less is named, and the earlier one where they do not tell.
fn partial_duplicates(series: &[Subject], single: &[usize], findings: &mut Vec<(usize, Finding)>) {
    // By block and content: places among `single` that have it.
    let mut runs: BTreeMap<Option<usize>, Vec<(usize, [u8; 32])>> = BTreeMap::new();
    for (place, &index) in single.iter().enumerate() {
        for (block, tensors) in series[index].facts.blocks() {
            let own: Vec<&TensorFacts> = tensors.into_iter().filter(|tensor| !tensor.inherited).collect();
            if !own.is_empty() {
                runs.entry(block).or_default().push((place, *digest(own.into_iter()).as_bytes()));
            }
        }
    }
    let mut shared: BTreeMap<(usize, usize), Vec<Option<usize>>> = BTreeMap::new();
    for (block, contents) in &runs {
        for (at, (place, content)) in contents.iter().enumerate() {
            let before = contents[..at].iter().rposition(|(_, other)| other == content);
            if let Some(before) = before.filter(|before| before + 1 < at) {
                shared.entry((contents[before].0, *place)).or_default().push(*block);
            }
        }
    }
    for ((a, b), blocks) in shared {
        let misfit = |place: usize| -> f64 { blocks.iter().map(|block| misfit(series, single, place, *block)).sum() };
        let (wrong, right) = if misfit(b) > misfit(a) { (b, a) } else { (a, b) };
        let names: Vec<String> =
            blocks.iter().map(|block| block.map_or_else(|| "embedding and ends".to_owned(), |block| block.to_string())).collect();
        let detail = format!("blocks {} are those of the other, checkpoints between differ", names.join(", "));
        push(findings, single[wrong], "partial_duplicate", Some(&series[single[right]]), detail, true);
    }
}

/// Logarithm of a block's norm, with the number of tensors that it is over.
fn log_norm(facts: &Facts, block: Option<usize>) -> Option<(f64, usize)> {
    let norms: Vec<f64> = facts.blocks().get(&block)?.iter().filter_map(|tensor| tensor.norm).collect();
    let squares: f64 = norms.iter().map(|norm| norm * norm).sum();
    (squares > 0.0).then(|| (squares.ln() / 2.0, norms.len()))
}

/// How far a block's norm is from the mean of its neighbours', in logarithms; 0 where that is not known.
fn misfit(series: &[Subject], single: &[usize], place: usize, block: Option<usize>) -> f64 {
    let norm = |place: usize| log_norm(&series[*single.get(place)?].facts, block);
    let beside: Vec<f64> = [place.checked_sub(1), Some(place + 1)].into_iter().flatten().filter_map(norm).map(|(norm, _)| norm).collect();
    let mean = beside.iter().sum::<f64>() / beside.len().max(1) as f64;
    norm(place).filter(|_| !beside.is_empty()).map_or(0.0, |(norm, _)| (norm - mean).abs())
}

/// A block whose norm is off from both neighbours, in the same direction, by far more than neighbours differ otherwise. The
/// median of the differences is robust to the outliers themselves; the first and the last checkpoint are not judged.
fn outlier_norms(series: &[Subject], single: &[usize], findings: &mut Vec<(usize, Finding)>) {
    let blocks: BTreeSet<Option<usize>> = single.iter().flat_map(|&index| series[index].facts.blocks().into_keys()).collect();
    let mut off: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for block in blocks {
        let norms: Vec<(usize, f64, usize)> =
            single.iter().filter_map(|&index| log_norm(&series[index].facts, block).map(|(norm, n)| (index, norm, n))).collect();
        let mut jumps: Vec<f64> = norms.windows(2).map(|pair| (pair[1].1 - pair[0].1).abs()).collect();
        if norms.len() < FEWEST_NORMS {
            continue;
        }
        jumps.sort_by(f64::total_cmp);
        let threshold = (JUMPS * jumps[jumps.len() / 2]).max(SMALLEST_JUMP);
        for triple in norms.windows(3) {
            let [(_, before, n), (index, here, m), (_, after, k)] = [triple[0], triple[1], triple[2]];
            let (rise, fall) = (here - before, here - after);
            if n == m && m == k && rise * fall > 0.0 && rise.abs().min(fall.abs()) > threshold {
                let name = block.map_or_else(|| "embedding and ends".to_owned(), |block| block.to_string());
                off.entry(index).or_default().push(format!("{name} (x {:.3})", ((rise + fall) / 2.0).exp()));
            }
        }
    }
    for (index, blocks) in off {
        let detail = format!("norms of blocks {} are off from both neighbours", blocks.join(", "));
        push(findings, index, "outlier_norm", None, detail, false);
    }
}

/// What changes from one checkpoint to the next beside the weights. The frozen ruler keeps it out of the readouts, but it is to be known.
fn drift(series: &[Subject], findings: &mut Vec<(usize, Finding)>) {
    let mut changes = |kind: &str, of: &dyn Fn(&Facts) -> Option<String>, detail: &dyn Fn(&Facts, &Facts) -> String| {
        let mut last: Option<(usize, String)> = None;
        for (index, subject) in series.iter().enumerate() {
            let Some(value) = of(&subject.facts) else { continue };
            if let Some((before, _)) = last.as_ref().filter(|(_, before)| *before != value) {
                let detail = detail(&series[*before].facts, &subject.facts);
                push(findings, index, kind, Some(&series[*before]), detail, false);
            }
            last = Some((index, value));
        }
    };
    let vocabulary = |facts: &Facts| facts.d_vocab.map(|n| n.to_string());
    changes("vocab_drift", &vocabulary, &|a, b| {
        format!("{} tokens after {}", vocabulary(b).unwrap_or_default(), vocabulary(a).unwrap_or_default())
    });
    changes("tokenizer_drift", &|facts| facts.tokenizer.clone(), &|_, _| {
        "tokenizer.json, or what tokenizer_config.json says of its tokens, differs".to_owned()
    });
    changes("template_drift", &|facts| facts.template.clone(), &|_, _| "the chat template differs".to_owned());
    changes("dtype_drift", &|facts| facts.dtype.clone(), &|a, b| {
        let dtype = |facts: &Facts| facts.dtype.clone().unwrap_or_default();
        format!("weights in {} after {}: a part of what changes is rounding", dtype(b), dtype(a))
    });
    changes("config_drift", &|facts| facts.computed.clone(), &|a, b| {
        let keys: BTreeSet<&String> = a.config.keys().chain(b.config.keys()).collect();
        let differ = keys.into_iter().filter(|key| !NEUTRAL.contains(&key.as_str()) && a.config.get(*key) != b.config.get(*key));
        let show = |value: Option<&String>| value.map_or_else(|| "absent".to_owned(), Clone::clone);
        let shown: Vec<String> = differ.map(|key| format!("{key} {} after {}", show(b.config.get(key)), show(a.config.get(key)))).collect();
        shown.join("; ")
    });
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
