//! `selftrace extract`: activations of any prompts, for people's own analyses and for checking us against other tools.

use super::lines;
use super::readout::{Gather, bytes, check_finite};
use super::store::{self, Writer};
use crate::console::{bar, check_interrupt};
use crate::model::Checkpoint;
use crate::model::stream::{Compute, stream};
use crate::prompt::conversation::Conversation;
use crate::prompt::forest::Forest;
use crate::prompt::template::Template;
use crate::prompt::tokenize::{Ruler, check_length};
use crate::prompt::vocabulary::special_tokens;
use anyhow::{Context, Result, bail, ensure};
use half::{bf16, f16};
use safetensors::Dtype;
use std::collections::HashSet;
use std::path::Path;

/// From this many tokens on it is said that a prompt is long.
const LONG: usize = 1 << 15;

/// What is kept of every prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Keep {
    /// The last token.
    Last,
    /// The mean over all tokens but the tokenizer's special ones, whose norms would dominate it.
    Mean,
    /// Every token.
    All,
}

/// One prompt: its id and its tokens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prompt {
    pub id: String,
    pub ids: Vec<i64>,
    /// Places of the tokenizer's special tokens.
    pub special: Vec<usize>,
}

/// Where tokenizer and template are looked for: the folder of the adapter, if there is one, and that of the model.
pub struct Words<'a> {
    pub folders: Vec<&'a Path>,
}

impl Words<'_> {
    /// The first folder that has a tokenizer.
    pub fn tokenizer(&self) -> Option<&Path> {
        self.folders.iter().copied().find(|folder| folder.join("tokenizer.json").is_file())
    }

    /// The tokenizer of the first folder that has one, with the template of the first that has one; says whether there is a template.
    ///
    /// # Errors
    /// No folder has a tokenizer, or tokenizer or template cannot be understood.
    pub fn ruler(&self) -> Result<(Ruler, bool)> {
        let last = self.folders.last().context("no folder to look for a tokenizer in")?;
        let folder = self.tokenizer().unwrap_or(last);
        let native = self.folders.iter().find_map(|folder| Template::native(folder).transpose()).transpose()?;
        let has_template = native.is_some();
        let template = match native {
            Some(template) => template.with_tokens(special_tokens(folder)?),
            None => Template::plain()?,
        };
        Ok((Ruler::load(folder, template)?, has_template))
    }
}

/// Reads JSON lines with `text`, `messages` or `token_ids`. The tokenizer is loaded when a line needs it, or with `special`, which asks for
/// the places of special tokens, where there is one.
///
/// # Errors
/// File and line: not JSON, none or several of the three keys, or a conversation that the model's template refuses.
pub fn read_prompts(path: &Path, words: &Words, special: bool) -> Result<Vec<Prompt>> {
    read_prompts_by(path, words, &mut None, special)
}

/// As [`read_prompts`], with a tokenizer that may have been loaded before; says whether it has a template.
///
/// # Errors
/// As [`read_prompts`].
pub fn read_prompts_by(path: &Path, words: &Words, ruler: &mut Option<(Ruler, bool)>, special: bool) -> Result<Vec<Prompt>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("{}: cannot be read", path.display()))?;
    if special && ruler.is_none() && words.tokenizer().is_some() {
        *ruler = Some(words.ruler()?);
    }
    let (mut prompts, mut taken) = (Vec::new(), HashSet::new());
    lines::each(path, &text, |line, place| {
        if line.token_ids.is_none() && ruler.is_none() {
            *ruler = Some(words.ruler()?);
        }
        let ids = match (line.text, line.messages, line.token_ids, ruler.as_ref()) {
            (None, None, Some(ids), _) => ids,
            (Some(text), None, None, Some((ruler, _))) => ruler.encode_text(&text).with_context(|| place.to_owned())?,
            (None, Some(messages), None, Some((ruler, has_template))) => {
                let folders: Vec<String> = words.folders.iter().map(|folder| folder.display().to_string()).collect();
                ensure!(has_template, "{place}: {} has no chat template; give `text` or `token_ids`", folders.join(", nor "));
                let conversation = Conversation::read(messages).with_context(|| place.to_owned())?;
                ruler.encode_conversation(&conversation).with_context(|| place.to_owned())?.ids
            }
            _ => bail!("{place}: expected one of `text`, `messages`, `token_ids`"),
        };
        ensure!(!ids.is_empty(), "{place}: the prompt has no tokens");
        check_length(ids.len()).with_context(|| place.to_owned())?;
        if ids.len() > LONG {
            tracing::warn!("{place}: the prompt has {} tokens; time and memory grow with the square of them", ids.len());
        }
        let special = ruler.as_ref().map_or_else(Vec::new, |(ruler, _)| (0..ids.len()).filter(|at| ruler.is_special(ids[*at])).collect());
        let id = match line.id {
            Some(serde_json::Value::String(id)) => id,
            Some(id) => id.to_string(),
            None => prompts.len().to_string(),
        };
        ensure!(taken.insert(id.clone()), "{place}: id {id:?} is also that of another prompt; expected every id once");
        prompts.push(Prompt { id, ids, special });
        Ok(())
    })?;
    ensure!(!prompts.is_empty(), "{}: no prompts", path.display());
    if special && ruler.is_none() {
        tracing::warn!("there is no tokenizer.json that says which tokens are special: the means are over all tokens");
    }
    Ok(prompts)
}

/// Refuses tokens that the model does not have.
///
/// # Errors
/// Names the prompt and the token.
pub fn check_vocabulary(prompts: &[Prompt], checkpoint: &Checkpoint) -> Result<()> {
    let vocabulary = 0..checkpoint.config.d_vocab;
    for prompt in prompts {
        if let Some(id) = prompt.ids.iter().find(|id| !vocabulary.contains(*id)) {
            bail!("prompt {:?}: token id {id} is outside the vocabulary of {} tokens", prompt.id, vocabulary.end);
        }
    }
    Ok(())
}

/// Refuses to write over what is read: weights, an adapter, the prompts; or over what is no file.
///
/// # Errors
/// `out` is one of them.
pub fn check_out(out: &Path, inputs: &[&Path]) -> Result<()> {
    let Ok(found) = out.canonicalize() else { return Ok(()) };
    ensure!(found.is_file(), "--out {}: is there and no regular file, expected the name of a file to write", out.display());
    for input in inputs.iter().filter_map(|input| input.canonicalize().ok()) {
        // Files of the hub's cache are links out of their folder.
        let links = std::fs::read_dir(&input).into_iter().flatten().flatten().filter_map(|entry| entry.path().canonicalize().ok());
        ensure!(
            !found.starts_with(&input) && !links.into_iter().any(|file| file == found),
            "--out {}: is part of the input {}, expected another file",
            out.display(),
            input.display()
        );
    }
    Ok(())
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
    check_vocabulary(prompts, checkpoint)?;
    let positions = checkpoint.config.positions().unwrap_or(usize::MAX);
    let mut too_long = prompts.iter().filter(|prompt| prompt.ids.len() > positions);
    if let Some(first) = too_long.next() {
        let (has, more) = (first.ids.len(), too_long.count());
        tracing::warn!(
            "prompt {:?} (and {more} more) has {has} tokens, more than the {positions} positions that the model was made for",
            first.id
        );
    }
    let forest = Forest::new(&prompts.iter().map(|prompt| prompt.ids.as_slice()).collect::<Vec<_>>());
    // One output tensor per entry; within it, one run of nodes per row.
    let spans = prompts.iter().enumerate().map(|(index, prompt)| forest.span(index, 0..prompt.ids.len()));
    let outputs: Vec<(String, Vec<Vec<usize>>)> = match keep {
        Keep::Last => vec![("resid".to_owned(), forest.last.iter().flatten().map(|&node| vec![node]).collect())],
        Keep::Mean => vec![("resid".to_owned(), means(prompts, spans)?)],
        Keep::All => {
            spans.enumerate().map(|(index, nodes)| (format!("resid.{index}"), nodes.into_iter().map(|node| vec![node]).collect())).collect()
        }
    };
    let mut tensors: Vec<_> = outputs.iter().map(|(name, runs)| (name.clone(), dtype, vec![layers.len(), runs.len(), width])).collect();
    tensors.extend(prompts.iter().enumerate().map(|(index, prompt)| (format!("token_ids.{index}"), Dtype::I64, vec![prompt.ids.len()])));
    let mut metadata = store::metadata(layers, &"0".repeat(64));
    let ids: Vec<&str> = prompts.iter().map(|prompt| prompt.id.as_str()).collect();
    metadata.insert("prompts".to_owned(), serde_json::to_string(&ids)?.into());
    if keep == Keep::Mean {
        metadata.insert("mean_over".to_owned(), "all tokens but the tokenizer's special ones".into());
    }
    let writer = Writer::create(out, tensors, metadata)?;
    for (index, prompt) in prompts.iter().enumerate() {
        let ids: Vec<u8> = prompt.ids.iter().flat_map(|id| id.to_le_bytes()).collect();
        writer.write(outputs.len() + index, 0, &ids)?;
    }
    let gathers = outputs.iter().map(|(_, runs)| Gather::new(runs, compute.device)).collect::<Result<Vec<_>>>()?;
    let depth = layers.last().copied().unwrap_or(0);
    let bar = bar(depth + 1, "layers");
    stream(checkpoint, &forest, compute, depth, &mut |layer, resid| {
        check_finite(layer, resid, compute.kind)?;
        if let Ok(index) = layers.binary_search(&layer) {
            for (number, gather) in gathers.iter().enumerate() {
                let data = narrow(bytes(&gather.apply(resid)?)?, dtype).with_context(|| format!("layer {layer}"))?;
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

/// Nodes to average over, per prompt: those of its tokens that are not special.
fn means(prompts: &[Prompt], spans: impl Iterator<Item = Vec<usize>>) -> Result<Vec<Vec<usize>>> {
    let nodes = |(prompt, nodes): (&Prompt, Vec<usize>)| {
        let kept: Vec<usize> = (0..nodes.len()).filter(|at| !prompt.special.contains(at)).map(|at| nodes[at]).collect();
        ensure!(!kept.is_empty(), "prompt {:?}: has only special tokens, expected others for a mean", prompt.id);
        Ok(kept)
    };
    prompts.iter().zip(spans).map(nodes).collect()
}

/// f32 bytes as `dtype`.
///
/// # Errors
/// A finite value that the type cannot hold.
fn narrow(data: Vec<u8>, dtype: Dtype) -> Result<Vec<u8>> {
    let values = || data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    Ok(match dtype {
        Dtype::F16 => {
            let largest = values().fold(0.0f32, |largest, x| largest.max(x.abs()));
            ensure!(
                f16::from_f32(largest).is_finite(),
                "an activation of {largest:.3e} does not fit into f16, which ends at 65504; write --dtype bf16 or f32"
            );
            values().flat_map(|x| f16::from_f32(x).to_le_bytes()).collect()
        }
        Dtype::BF16 => values().flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        _ => data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_into_the_output_is_refused() {
        let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>();
        let error = narrow(bytes(&[1.0, -70_000.0]), Dtype::F16).unwrap_err().to_string();
        assert!(error.contains("f16") && error.contains("--dtype bf16"), "{error}");
        assert_eq!(narrow(bytes(&[65504.0]), Dtype::F16).unwrap(), f16::MAX.to_le_bytes());
        assert!(narrow(bytes(&[-70_000.0]), Dtype::BF16).is_ok());
    }

    #[test]
    fn a_prompt_that_would_fill_memory_is_refused_by_its_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        let ids = |n: usize| serde_json::json!({"token_ids": vec![5; n]}).to_string();
        std::fs::write(&path, format!("{}\n{}\n", ids(3), ids(140_000))).unwrap();
        let error = format!("{:#}", read_prompts(&path, &Words { folders: vec![folder.path()] }, false).unwrap_err());
        assert!(error.contains("prompts.jsonl:2") && error.contains("140000 tokens"), "{error}");
        std::fs::write(&path, "{\"id\": \"a\", \"token_ids\": [1]}\n{\"id\": \"a\", \"token_ids\": [2]}\n").unwrap();
        let error = format!("{:#}", read_prompts(&path, &Words { folders: vec![folder.path()] }, false).unwrap_err());
        assert!(error.contains("prompts.jsonl:2") && error.contains("\"a\""), "{error}");
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_prompt() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prompts.jsonl");
        std::fs::write(&path, "\u{feff}{\"token_ids\": [1]}\r\n").unwrap();
        assert_eq!(read_prompts(&path, &Words { folders: vec![folder.path()] }, false).unwrap()[0].ids, [1]);
    }

    #[test]
    fn an_input_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let (model, prompts) = (folder.path().join("model"), folder.path().join("prompts.jsonl"));
        std::fs::create_dir(&model).unwrap();
        std::fs::write(model.join("model.safetensors"), "").unwrap();
        std::fs::write(&prompts, "").unwrap();
        let check = |out: &Path| check_out(out, &[&model, &prompts]);
        assert!(check(&model.join("model.safetensors")).is_err() && check(&prompts).is_err());
        assert!(check(Path::new("/dev/null")).unwrap_err().to_string().contains("no regular file"));
        assert!(check(&folder.path().join("out.safetensors")).is_ok());
    }
}
