//! `selftrace extract`: activations of any prompts, for people's own analyses and for checking us against other tools.

use super::readout::{Gather, bytes};
use super::store::{self, Writer};
use crate::console::{bar, check_interrupt};
use crate::model::Checkpoint;
use crate::model::stream::{Compute, stream};
use crate::prompt::forest::Forest;
use crate::prompt::template::{Message, Template};
use crate::prompt::tokenize::Ruler;
use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use safetensors::Dtype;
use serde::Deserialize;
use std::path::Path;

/// What is kept of every prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// The last token.
    Last,
    /// The mean over all tokens.
    Mean,
    /// Every token.
    All,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    id: Option<serde_json::Value>,
    text: Option<String>,
    messages: Option<Vec<Message>>,
    token_ids: Option<Vec<i64>>,
}

/// One prompt: its id and its tokens.
#[derive(Debug, PartialEq)]
pub struct Prompt {
    pub id: String,
    pub ids: Vec<i64>,
}

/// Reads JSON lines with `text`, `messages` or `token_ids`. The tokenizer of `folder` is loaded when a line needs it.
///
/// # Errors
/// File and line: not JSON, none or several of the three keys, or a conversation that the model's template refuses.
pub fn read_prompts(path: &Path, folder: &Path) -> Result<Vec<Prompt>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    let mut ruler: Option<(Ruler, bool)> = None;
    let mut prompts = Vec::new();
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let place = || format!("{}:{}", path.display(), number + 1);
        let line: Line = serde_json::from_str(line).map_err(|error| anyhow::anyhow!("{}: {error}", place()))?;
        if line.token_ids.is_none() && ruler.is_none() {
            let native = Template::native(folder)?;
            let has_template = native.is_some();
            ruler = Some((Ruler::load(folder, native.map_or_else(Template::plain, Ok)?)?, has_template));
        }
        let ids = match (line.text, line.messages, line.token_ids, &ruler) {
            (None, None, Some(ids), _) => ids,
            (Some(text), None, None, Some((ruler, _))) => ruler.encode_text(&text).with_context(place)?,
            (None, Some(messages), None, Some((ruler, has_template))) => {
                ensure!(has_template, "{}: {} has no chat template; give `text` or `token_ids`", place(), folder.display());
                ruler.encode_chat(&messages).with_context(place)?.ids
            }
            _ => bail!("{}: expected one of `text`, `messages`, `token_ids`", place()),
        };
        ensure!(!ids.is_empty(), "{}: the prompt has no tokens", place());
        let id = match line.id {
            Some(serde_json::Value::String(id)) => id,
            Some(id) => id.to_string(),
            None => prompts.len().to_string(),
        };
        prompts.push(Prompt { id, ids });
    }
    ensure!(!prompts.is_empty(), "{}: no prompts", path.display());
    Ok(prompts)
}

/// Streams `prompts` through a checkpoint and writes `out`: `resid` `[layer, prompt, d_model]` for `last` and `mean`, one tensor
/// `resid.<i>` `[layer, token, d_model]` per prompt for `all`, and `token_ids.<i>` (i64). `layers` is in ascending order.
///
/// # Errors
/// A token outside the vocabulary, anything wrong with the checkpoint, or `out` cannot be written.
pub fn extract(
    checkpoint: &Checkpoint,
    prompts: &[Prompt],
    keep: Keep,
    layers: &[usize],
    dtype: Dtype,
    compute: Compute,
    out: &Path,
) -> Result<()> {
    let width = checkpoint.config.d_model as usize;
    for prompt in prompts {
        let vocabulary = 0..checkpoint.config.d_vocab;
        if let Some(id) = prompt.ids.iter().find(|id| !vocabulary.contains(*id)) {
            bail!("prompt {:?}: token id {id} is outside the vocabulary of {} tokens", prompt.id, checkpoint.config.d_vocab);
        }
    }
    let forest = Forest::new(&prompts.iter().map(|prompt| prompt.ids.as_slice()).collect::<Vec<_>>());
    // One output tensor per entry; within it, one run of nodes per row.
    let spans = prompts.iter().enumerate().map(|(index, prompt)| forest.span(index, 0..prompt.ids.len()));
    let outputs: Vec<(String, Vec<Vec<usize>>)> = match keep {
        Keep::Last => vec![("resid".to_owned(), forest.last.iter().flatten().map(|&node| vec![node]).collect())],
        Keep::Mean => vec![("resid".to_owned(), spans.collect())],
        Keep::All => {
            spans.enumerate().map(|(index, nodes)| (format!("resid.{index}"), nodes.into_iter().map(|node| vec![node]).collect())).collect()
        }
    };
    let mut tensors: Vec<_> = outputs.iter().map(|(name, runs)| (name.clone(), dtype, vec![layers.len(), runs.len(), width])).collect();
    tensors.extend(prompts.iter().enumerate().map(|(index, prompt)| (format!("token_ids.{index}"), Dtype::I64, vec![prompt.ids.len()])));
    let mut metadata = store::metadata(layers, &"0".repeat(64));
    let ids: Vec<&str> = prompts.iter().map(|prompt| prompt.id.as_str()).collect();
    metadata.insert("prompts".to_owned(), serde_json::to_string(&ids)?.into());
    let writer = Writer::create(out, tensors, metadata)?;
    for (index, prompt) in prompts.iter().enumerate() {
        let ids: Vec<u8> = prompt.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        writer.write(outputs.len() + index, 0, &ids)?;
    }
    let gathers = outputs.iter().map(|(_, runs)| Gather::new(runs, compute.device)).collect::<Result<Vec<_>>>()?;
    let depth = layers.last().copied().unwrap_or(0);
    let bar = bar(depth + 1, "layers");
    stream(checkpoint, &forest, compute, depth, &mut |layer, resid| {
        if let Ok(index) = layers.binary_search(&layer) {
            for (number, gather) in gathers.iter().enumerate() {
                let data = narrow(bytes(&gather.apply(resid)?)?, dtype);
                writer.write(number, (index * data.len()) as u64, &data)?;
            }
        }
        bar.inc(1);
        Ok(check_interrupt()?)
    })?;
    bar.finish_and_clear();
    writer.finish(&[("fingerprint", checkpoint.fingerprint())])?;
    tracing::info!(
        "{}: {} prompts, {} tokens as {} nodes, {} layers",
        out.display(),
        prompts.len(),
        forest.prompt_tokens,
        forest.len(),
        layers.len()
    );
    Ok(())
}

/// f32 bytes as `dtype`.
fn narrow(data: Vec<u8>, dtype: Dtype) -> Vec<u8> {
    let values = || data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    match dtype {
        Dtype::F16 => values().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
        Dtype::BF16 => values().flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        _ => data,
    }
}
