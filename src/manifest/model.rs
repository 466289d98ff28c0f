//! `[model]`: how every checkpoint is run and read.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;

use super::entries::Entries;
use super::source::{Source, resolve};
use super::spanned::{Choice, Field, Section, nearest};
use super::{Keep, LAYERS, MODEL};

/// `[model]`: where and how checkpoints run, what is read from them, and the text that they read.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Model {
    pub device: DeviceChoice,
    pub dtype: DtypeChoice,
    pub layers: Layers,
    pub tokenizer: Tokenizer,
    pub template: Template,
    pub readouts: Vec<Readout>,
    /// Keys of `config.json`, with their places, that need not be understood.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Where the tokenizer was written, to begin complaints with.
    #[serde(skip)]
    pub tokenizer_place: String,
}

/// Where the model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceChoice {
    /// The first CUDA device, or the CPU if there is none.
    Auto,
    Cpu,
    Cuda(usize),
}

/// What it computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DtypeChoice {
    /// f32 on the CPU, the checkpoint's own on CUDA.
    Auto,
    F32,
    F16,
    Bf16,
}

impl Choice for DtypeChoice {
    const ALL: &'static [(&'static str, Self)] =
        &[("auto", DtypeChoice::Auto), ("f32", DtypeChoice::F32), ("f16", DtypeChoice::F16), ("bf16", DtypeChoice::Bf16)];
}

/// Layers to keep; 0 is the embedding, l the output of block l.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layers {
    All,
    /// Eight, evenly spaced over the depth and the last one included; all of a model with no more blocks.
    Auto,
    Numbers(Vec<usize>),
    /// Fractions of the model's depth, 0 to 1.
    Depth(Vec<f64>),
}

/// How many layers are kept where the manifest does not say.
const AUTO: usize = 8;

impl Layers {
    /// The layers in ascending order for a model of `n_layers` blocks.
    pub fn resolve(&self, n_layers: usize) -> Result<Vec<usize>> {
        self.of(n_layers, MODEL)
    }

    fn of(&self, n_layers: usize, place: &str) -> Result<Vec<usize>> {
        let mut layers: Vec<usize> = match self {
            Layers::Auto if n_layers > AUTO => (1..=AUTO).map(|part| (part * n_layers + AUTO / 2) / AUTO).collect(),
            Layers::All | Layers::Auto => (0..=n_layers).collect(),
            Layers::Numbers(numbers) => numbers.clone(),
            Layers::Depth(depths) => depths.iter().map(|depth| (depth * n_layers as f64).round() as usize).collect(),
        };
        if let Some(layer) = layers.iter().find(|layer| **layer > n_layers) {
            bail!("{place} layers: found {layer}, expected 0 to {n_layers}, as the model has {n_layers} blocks");
        }
        layers.sort_unstable();
        layers.dedup();
        Ok(layers)
    }

    /// The layers in ascending order, whether they are kept or not. Fractions of the depth mean the nearest one, the embedding and the last
    /// block aside where there are others. `place` is where they were asked for.
    ///
    /// # Errors
    /// The model does not have a layer that was asked for by number.
    pub fn anywhere(&self, n_layers: usize, place: &str) -> Result<Vec<usize>> {
        match self {
            Self::Depth(_) => self.among(&(0..=n_layers).collect::<Vec<_>>(), n_layers, place),
            _ => self.of(n_layers, place),
        }
    }

    /// The layers in ascending order, out of those that are `kept` of a model of `n_layers` blocks. Fractions of the depth mean the nearest
    /// one, the embedding and the last block aside where there are others. `place` is where they were asked for.
    ///
    /// # Errors
    /// A layer that was asked for by number is not kept.
    pub fn among(&self, kept: &[usize], n_layers: usize, place: &str) -> Result<Vec<usize>> {
        let mut layers = match self {
            Self::All | Self::Auto => kept.to_vec(),
            Self::Numbers(numbers) => {
                if let Some(lost) = numbers.iter().find(|layer| !kept.contains(layer)) {
                    let list = kept.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
                    bail!("{place}: found {lost}, expected layers that [model] layers keeps: {list}");
                }
                numbers.clone()
            }
            Self::Depth(_) => {
                let inner: Vec<usize> = kept.iter().copied().filter(|&layer| 0 < layer && layer < n_layers).collect();
                let among = if inner.is_empty() { kept } else { &inner };
                let wanted = self.resolve(n_layers)?;
                wanted.iter().filter_map(|&layer| among.iter().copied().min_by_key(|other| other.abs_diff(layer))).collect()
            }
        };
        layers.sort_unstable();
        layers.dedup();
        Ok(layers)
    }
}

/// The frozen ruler: one tokenizer for all checkpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// That of the last checkpoint.
    Final,
    Checkpoint(String),
    Source(Source),
}

/// How the turns of an item become one text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Template {
    Plain,
    Chatml,
    /// A Jinja file.
    File(PathBuf),
    /// The chat template of the checkpoint with this id.
    Native(String),
}

/// Where in an item activations are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Readout {
    /// The last token of the prompt: before generation, or at the end of the answer's stem.
    LastPrompt,
    /// The last token of the marked span.
    SpanLast,
    /// The mean over the assistant's fixed response.
    ResponseMean,
    /// The last token of a completed answer or a fact, in the middle third of the depth, where recognition reads. Where it is asked for,
    /// statements have no other readout.
    Statement,
}

impl Readout {
    /// Name in manifests, tensors and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::LastPrompt => "last_prompt",
            Self::SpanLast => "span_last",
            Self::ResponseMean => "response_mean",
            Self::Statement => "statement",
        }
    }
}

impl Choice for Readout {
    const ALL: &'static [(&'static str, Self)] =
        &[("last_prompt", Readout::LastPrompt), ("span_last", Readout::SpanLast), ("response_mean", Readout::ResponseMean)];
}

impl Model {
    pub(super) fn read(top: &Section, folder: &Path, entries: &Entries, keep: Keep) -> Result<Model> {
        let section = top.table("model", MODEL)?;
        let get = |key| section.as_ref().and_then(|section| section.get(key));
        Ok(Model {
            device: get("device").map_or(Ok(DeviceChoice::Auto), |field| read_device(&field))?,
            dtype: get("dtype").map_or(Ok(DtypeChoice::Auto), |field| field.choice())?,
            layers: match (get("layers"), keep) {
                (Some(field), _) => read_layers(&field, LAYERS)?,
                (None, Keep::Measures) => Layers::Auto,
                (None, Keep::Activations) => Layers::All,
            },
            tokenizer: match get("tokenizer") {
                Some(field) => read_tokenizer(&field, folder, entries)?,
                None => Tokenizer::Final,
            },
            tokenizer_place: get("tokenizer").map(|field| field.place()).unwrap_or_default(),
            template: match get("template") {
                Some(field) => read_template(&field, folder, entries)?,
                None => Template::Plain,
            },
            ignore: match get("ignore") {
                Some(field) => field.distinct("a list of keys, as in [\"my_key\", \"text_config.my_key\"]", |key| {
                    Ok(key.text("a key of config.json")?.to_owned())
                })?,
                None => Vec::new(),
            },
            readouts: match get("readouts") {
                Some(field) => field.distinct("a list, as in [\"last_prompt\"]", |readout| readout.choice())?,
                None => vec![Readout::LastPrompt, Readout::SpanLast],
            },
        })
    }
}

fn read_device(field: &Field) -> Result<DeviceChoice> {
    const EXPECTED: &str = "auto, cpu or cuda:N, as in cuda:0";
    match field.text(EXPECTED)? {
        "auto" => Ok(DeviceChoice::Auto),
        "cpu" => Ok(DeviceChoice::Cpu),
        text => {
            let number = text.strip_prefix("cuda:").and_then(|number| number.parse::<u8>().ok());
            number.map(|n| DeviceChoice::Cuda(n.into())).ok_or_else(|| field.wrong(EXPECTED))
        }
    }
}

pub(super) fn read_layers(field: &Field, label: &'static str) -> Result<Layers> {
    const EXPECTED: &str = "\"all\", a list as in [0, 8, 16], or { depth = [0.25, 0.5] }";
    if field.is_table() {
        let depth = field.section(label)?.known()?.need("depth", "fractions, as in [0.25, 0.5]")?;
        let depths = depth.distinct("a list, as in [0.25, 0.5]", |depth| depth.number(0.0..=1.0))?;
        return Ok(Layers::Depth(depths));
    }
    if field.is_list() {
        let number = |layer: &Field| Ok(layer.integer(0..=9999)? as usize);
        return Ok(Layers::Numbers(field.distinct(EXPECTED, number)?));
    }
    if field.text(EXPECTED)? == "all" { Ok(Layers::All) } else { Err(field.wrong(EXPECTED)) }
}

fn read_tokenizer(field: &Field, folder: &Path, entries: &Entries) -> Result<Tokenizer> {
    const EXPECTED: &str = "final, a checkpoint id, a folder that exists or hub:OWNER/NAME";
    let text = field.text(EXPECTED)?;
    if text == "final" {
        return Ok(Tokenizer::Final);
    }
    if entries.knows(text) {
        return Ok(Tokenizer::Checkpoint(text.into()));
    }
    let source = Source::parse(text, folder).map_err(|error| field.error(error))?;
    if source.is_missing() {
        return Err(unknown(field, text, EXPECTED, entries));
    }
    Ok(Tokenizer::Source(source))
}

fn read_template(field: &Field, folder: &Path, entries: &Entries) -> Result<Template> {
    const EXPECTED: &str = "plain, chatml, a .jinja file or native:<checkpoint id>";
    match field.text(EXPECTED)? {
        "plain" => Ok(Template::Plain),
        "chatml" => Ok(Template::Chatml),
        text => match text.strip_prefix("native:") {
            Some(id) if entries.knows(id) => Ok(Template::Native(id.into())),
            Some(id) => Err(unknown(field, id, "native: and the id of a checkpoint", entries)),
            None if !text.ends_with(".jinja") => Err(field.wrong(EXPECTED)),
            None => {
                let file = resolve(folder, text).map_err(|error| field.error(error))?;
                let missing = || field.wrong(format!("{EXPECTED}; there is no file {}", file.display()));
                if file.is_file() { Ok(Template::File(file)) } else { Err(missing()) }
            }
        },
    }
}

/// A complaint about an id that no entry has, with the nearest that one has.
fn unknown(field: &Field, id: &str, expected: &str, entries: &Entries) -> anyhow::Error {
    let near = nearest(id, entries.ids());
    let hint = near.map_or(String::new(), |near| format!("; did you mean {near}?"));
    field.wrong(format!("{expected}{hint}"))
}
