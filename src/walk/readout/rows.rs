//! Which rows of a store's file are computed and which are taken over from an old one.

use super::Request;
use crate::prompt::forest::Forest;
use crate::prompt::item::{Item, ItemSet};
use crate::prompt::label_family::LabelFamily;
use crate::walk::store::{EMBEDDING, Encoding, Readouts, Writer, floats};
use anyhow::{Context, Result};
use safetensors::Dtype;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::ops::Range;

/// Which rows come from where.
pub(super) struct Plan {
    pub(super) forest: Forest,
    pub(super) parts: Vec<Part>,
    /// Mean input embedding of labelled items: what words alone could be told by.
    pub(super) embedding: Part,
    /// Items that have answers, and for each the log-probability of a reused row, or the slices of `scored` of its answers and foils.
    answered: Vec<(usize, Score)>,
    /// Width of the table of foils: the most that an item has.
    foils: usize,
    /// Whether there are answers at all.
    has_head: bool,
    /// Tokens of all answers and foils, whose rows of the unembedding are stored.
    pub(super) said: Vec<i64>,
    /// Nodes whose next-token distribution is needed, and the token that is scored there.
    pub(super) scored: Vec<i64>,
    pub(super) scored_tokens: Vec<i64>,
    pub(super) reused: usize,
}

pub(super) enum Score {
    /// Row of the old file.
    Old(usize),
    New(Vec<Range<usize>>),
}

/// One readout.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// Item per row.
    items: Vec<usize>,
    /// Per row: a row of the old file, or the next of `runs`.
    old: Vec<Option<usize>>,
    pub(super) runs: Vec<Vec<usize>>,
    width: usize,
    /// Layers at which it is read, as positions among those of the request.
    pub(super) layers: Vec<usize>,
    /// Rows that centre the others, where it has 16 bits.
    anchors: Option<Vec<usize>>,
    /// Whether centre and scale are those of the old file.
    old_encoding: bool,
}

impl Part {
    fn new(name: &'static str, width: usize, layers: Vec<usize>) -> Self {
        Self { name, items: Vec::new(), old: Vec::new(), runs: Vec::new(), width, layers, anchors: None, old_encoding: false }
    }

    /// Adds the row of an item: that of the old file, or the mean over `run`.
    fn push(&mut self, item: usize, old: Option<usize>, run: impl FnOnce() -> Vec<usize>) {
        if old.is_none() {
            self.runs.push(run());
        }
        self.items.push(item);
        self.old.push(old);
    }

    fn dtype(&self) -> Dtype {
        if self.anchors.is_some() { Dtype::F16 } else { Dtype::F32 }
    }

    fn row_bytes(&self) -> usize {
        self.width * self.dtype().bitsize() / 8
    }

    /// Where a layer of the request stands among its own.
    fn at(&self, index: usize) -> Option<usize> {
        self.layers.iter().position(|own| *own == index)
    }

    /// Fresh rows, as they are stored, and old ones in item order.
    fn assemble(&self, fresh: &[u8], old: Option<&Readouts>, at: usize) -> Result<Vec<u8>> {
        let size = self.row_bytes();
        let before = match old {
            Some(old) if self.old.iter().any(Option::is_some) => old.layer_bytes(self.name, at)?,
            _ => &[],
        };
        let mut out = Vec::with_capacity(self.items.len() * size);
        let mut fresh = fresh.chunks_exact(size);
        for row in &self.old {
            let bytes = match row {
                Some(row) => before.get(row * size..(row + 1) * size).context("an old row")?,
                None => fresh.next().context("one fresh row per item that is not reused")?,
            };
            out.extend_from_slice(bytes);
        }
        Ok(out)
    }

    /// Writes one layer of the request, of `fresh` f32 rows and of the old file's.
    ///
    /// # Errors
    /// The disk is full, or an activation is beyond what is stored.
    pub(super) fn write(&self, index: usize, fresh: &[u8], old: Option<&Readouts>, writer: &Writer) -> Result<()> {
        let Some(at) = self.at(index) else { return Ok(()) };
        let Some(anchors) = &self.anchors else { return self.put(at, &self.assemble(fresh, old, at)?, None, writer) };
        let fresh = floats(fresh);
        let encoding = match old.filter(|_| self.old_encoding) {
            Some(old) => old.encoding(self.name, at)?,
            // Then every row is a fresh one.
            None => Encoding::of(&fresh, self.width, anchors),
        };
        self.put(at, &self.assemble(&encoding.encode(&fresh)?, old, at)?, Some(&encoding), writer)
    }

    /// Takes one layer of the request over from another file of the same request.
    ///
    /// # Errors
    /// The disk is full, or the file lacks it.
    pub(super) fn copy(&self, index: usize, from: &Readouts, writer: &Writer) -> Result<()> {
        let Some(at) = self.at(index) else { return Ok(()) };
        let encoding = self.anchors.as_ref().map(|_| from.encoding(self.name, at)).transpose()?;
        self.put(at, from.layer_bytes(self.name, at)?, encoding.as_ref(), writer)
    }

    fn put(&self, at: usize, rows: &[u8], encoding: Option<&Encoding>, writer: &Writer) -> Result<()> {
        writer.write_named(self.name, (at * rows.len()) as u64, rows)?;
        let Some(encoding) = encoding else { return Ok(()) };
        for (name, values) in Encoding::names(self.name).iter().zip([encoding.centre.as_slice(), &[encoding.scale]]) {
            let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            writer.write_named(name, (at * bytes.len()) as u64, &bytes)?;
        }
        Ok(())
    }
}

impl Plan {
    pub(super) fn new(request: &Request, old: Option<&Readouts>, d_model: usize, has_head: bool) -> Result<Self> {
        let ItemSet { items, prompts } = request.set;
        // What a model without a head wrote has no answers that could be taken over.
        let old = old.filter(|old| old.contains("answers.rows"));
        let known = old.map(|old| old_rows(old, request)).transpose()?.filter(|known| known.is_usable).unwrap_or_default();
        let reusable = |item: usize| known.complete.contains(&items[item].hash);
        // Prompts that are computed: those of new items, and the answers of those that have some, less their last token.
        let mut texts: Vec<Vec<i64>> = Vec::new();
        let mut prompt_of = vec![usize::MAX; items.len()];
        for (item, prompt) in prompts.iter().enumerate().filter(|(item, _)| !reusable(*item)) {
            prompt_of[item] = texts.len();
            texts.extend(prompt.texts());
        }
        let forest = Forest::new(&texts);
        let said: BTreeSet<i64> = prompts.iter().flat_map(|prompt| prompt.choices().flatten()).copied().collect();
        let mut plan = Self {
            forest,
            parts: Vec::new(),
            embedding: Part::new(EMBEDDING, d_model, vec![0]),
            answered: Vec::new(),
            foils: prompts.iter().map(|prompt| prompt.foils.len()).max().unwrap_or(0),
            has_head,
            said: said.into_iter().collect(),
            scored: Vec::new(),
            scored_tokens: Vec::new(),
            reused: 0,
        };
        for &readout in request.readouts {
            let mut part = Part::new(readout.name(), d_model, request.layers_of(readout));
            for item in 0..items.len() {
                let Some(span) = request.tokens(readout, item) else { continue };
                let row = if reusable(item) { known.row(readout.name(), &items[item].hash) } else { None };
                part.push(item, row, || plan.forest.span(prompt_of[item], span));
            }
            part.anchors = request.anchors(&part.items);
            part.old_encoding = known.is_usable && old.is_some_and(|old| old.is_encoded(part.name));
            plan.parts.push(part);
        }
        for (item, prompt) in prompts.iter().enumerate().filter(|(item, _)| is_labelled(&items[*item])) {
            let row = if reusable(item) { known.row(EMBEDDING, &items[item].hash) } else { None };
            plan.embedding.push(item, row, || plan.forest.span(prompt_of[item], 0..prompt.ids.len()));
        }
        for (item, prompt) in prompts.iter().enumerate() {
            if prompt.answers.is_none() || !has_head {
                continue;
            }
            if reusable(item) {
                plan.answered.push((item, Score::Old(known.scores[items[item].hash.as_str()])));
                continue;
            }
            let mut ranges = Vec::new();
            let mut continued = prompt_of[item];
            for choice in prompt.choices() {
                // In the order of `Prompt::texts`.
                let text = if choice.len() > 1 {
                    continued += 1;
                    continued
                } else {
                    prompt_of[item]
                };
                let nodes = plan.forest.last[text].map(|last| plan.forest.path(last)).unwrap_or_default();
                let start = plan.scored.len();
                plan.scored.extend(nodes[prompt.ids.len() - 1..].iter().map(|&node| node as i64));
                plan.scored_tokens.extend(choice);
                ranges.push(start..plan.scored.len());
            }
            plan.answered.push((item, Score::New(ranges)));
        }
        plan.reused = (0..items.len()).filter(|&item| reusable(item)).count();
        Ok(plan)
    }

    pub(super) fn tensors(&self, request: &Request, d_model: usize) -> Vec<(String, Dtype, Vec<usize>)> {
        let n_items = request.set.items.len();
        let activations = |part: &Part| (part.name.to_owned(), part.dtype(), vec![part.layers.len(), part.items.len(), d_model]);
        let mut tensors: Vec<_> = self.parts.iter().map(activations).collect();
        tensors.push((EMBEDDING.to_owned(), Dtype::F32, vec![1, self.embedding.items.len(), d_model]));
        let with_rows = self.parts.iter().chain([&self.embedding]);
        tensors.extend(with_rows.map(|part| (format!("rows.{}", part.name), Dtype::I64, vec![part.items.len()])));
        tensors.push(("item_hash".to_owned(), Dtype::U8, vec![n_items, HASH_BYTES]));
        for part in self.parts.iter().filter(|part| part.anchors.is_some()) {
            let [centre, scale] = Encoding::names(part.name);
            tensors.push((centre, Dtype::F32, vec![part.layers.len(), d_model]));
            tensors.push((scale, Dtype::F32, vec![part.layers.len()]));
        }
        for part in self.parts.iter().filter(|part| part.layers.len() < request.layers.len()) {
            tensors.push((format!("layers.{}", part.name), Dtype::I64, vec![part.layers.len()]));
        }
        if !self.has_head {
            return tensors;
        }
        tensors.push(("answers.rows".to_owned(), Dtype::I64, vec![self.answered.len()]));
        tensors.push(("answers.log_probability".to_owned(), Dtype::F32, vec![self.answered.len(), 2]));
        tensors.push(("foils.log_probability".to_owned(), Dtype::F32, vec![self.answered.len(), self.foils]));
        tensors.push(("unembedding.tokens".to_owned(), Dtype::I64, vec![self.said.len()]));
        tensors.push(("unembedding.rows".to_owned(), Dtype::F32, vec![self.said.len(), d_model]));
        tensors
    }

    /// Row numbers, hashes and scores, in the order of [`Plan::tensors`].
    pub(super) fn write_rest(
        &self,
        request: &Request,
        writer: &Writer,
        scores: &[f64],
        unembedding: &[f32],
        old: Option<&Readouts>,
    ) -> Result<()> {
        let numbers = |items: &mut dyn Iterator<Item = usize>| items.flat_map(|item| (item as i64).to_le_bytes()).collect::<Vec<u8>>();
        for part in self.parts.iter().chain([&self.embedding]) {
            writer.write_named(&format!("rows.{}", part.name), 0, &numbers(&mut part.items.iter().copied()))?;
        }
        for part in self.parts.iter().filter(|part| part.layers.len() < request.layers.len()) {
            writer.write_named(&format!("layers.{}", part.name), 0, &numbers(&mut part.layers.iter().map(|&at| request.layers[at])))?;
        }
        let hashes: Vec<u8> = request.set.items.iter().flat_map(|item| item.hash.bytes()).collect();
        writer.write_named("item_hash", 0, &hashes)?;
        if !self.has_head {
            return Ok(());
        }
        writer.write_named("answers.rows", 0, &numbers(&mut self.answered.iter().map(|(item, _)| *item)))?;
        let before = |name: &str| old.filter(|old| old.contains(name)).map(|old| old.values(name)).transpose();
        let (pairs, foils) = (before("answers.log_probability")?, before("foils.log_probability")?);
        // Old rows have as many foils as their file's widest item.
        let width = foils.as_ref().zip(pairs.as_ref()).map_or(0, |(foils, pairs)| foils.len() * 2 / pairs.len().max(1));
        let (mut answered, mut others) = (Vec::new(), Vec::new());
        for (item, score) in &self.answered {
            let mut choices: Vec<f32> = match score {
                Score::Old(row) => {
                    let row = *row;
                    let pairs = pairs.as_ref().context("the old file has the scores that are reused")?;
                    let foils = foils.as_ref().and_then(|foils| foils.get(row * width..(row + 1) * width)).unwrap_or_default();
                    pairs[2 * row..2 * row + 2].iter().chain(foils).copied().take(2 + request.set.prompts[*item].foils.len()).collect()
                }
                Score::New(ranges) => ranges.iter().map(|range| scores[range.clone()].iter().sum::<f64>() as f32).collect(),
            };
            // Items have different numbers of foils; what is not there is not a number.
            choices.resize(2 + self.foils, f32::NAN);
            answered.extend(choices[..2].iter().flat_map(|x| x.to_le_bytes()));
            others.extend(choices[2..].iter().flat_map(|x| x.to_le_bytes()));
        }
        writer.write_named("answers.log_probability", 0, &answered)?;
        writer.write_named("foils.log_probability", 0, &others)?;
        writer.write_named("unembedding.tokens", 0, &numbers(&mut self.said.iter().map(|&token| token as usize)))?;
        writer.write_named("unembedding.rows", 0, &unembedding.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())
    }
}

/// Bytes of an item's hash, which is stored as text.
const HASH_BYTES: usize = 32;

/// Whether an item is one of a labelled set, whose words might give its label away. Predictions get their labels from what the model says.
pub(super) fn is_labelled(item: &Item) -> bool {
    (item.y.is_some() || item.label_family == LabelFamily::Hypothetical) && item.is_plain() && !item.neutral
}

/// Items of an old file that have all that is asked for.
#[derive(Default)]
struct Known {
    rows: HashMap<(&'static str, String), usize>,
    scores: HashMap<String, usize>,
    complete: HashSet<String>,
    /// Whether rows of the file can stand beside fresh ones: both have 32 bits, or both 16 about the same centre.
    is_usable: bool,
}

impl Known {
    fn row(&self, readout: &'static str, hash: &str) -> Option<usize> {
        self.rows.get(&(readout, hash.to_owned())).copied()
    }
}

fn old_rows(old: &Readouts, request: &Request) -> Result<Known> {
    let mut known = Known::default();
    let hashes: Vec<String> = old.bytes("item_hash")?.chunks(HASH_BYTES).map(|hash| String::from_utf8_lossy(hash).into_owned()).collect();
    for name in request.readouts.iter().map(|readout| readout.name()).chain([EMBEDDING]).filter(|name| old.contains(name)) {
        for (row, item) in old.rows(name, hashes.len())?.into_iter().enumerate() {
            known.rows.insert((name, hashes[item].clone()), row);
        }
    }
    for (row, item) in old.integers("answers.rows")?.into_iter().map(|item| item as usize).enumerate() {
        known.scores.insert(hashes.get(item).context("answers.rows names an item")?.clone(), row);
    }
    for (number, (item, prompt)) in request.set.items.iter().zip(&request.set.prompts).enumerate() {
        let has = |name| known.row(name, &item.hash).is_some();
        let reads = request.readouts.iter().all(|readout| request.tokens(*readout, number).is_none() || has(readout.name()));
        if reads && (!is_labelled(item) || has(EMBEDDING)) && (prompt.answers.is_none() || known.scores.contains_key(&item.hash)) {
            known.complete.insert(item.hash.clone());
        }
    }
    known.is_usable = request.readouts.iter().all(|&readout| {
        let items = request.items_of(readout);
        let is_known = |&row: &usize| known.row(readout.name(), &request.set.items[items[row]].hash).is_some();
        let encoded = old.is_encoded(readout.name());
        // Of a readout that the file lacks, nothing is taken over.
        !old.contains(readout.name()) || request.anchors(&items).map_or(!encoded, |anchors| encoded && anchors.iter().all(is_known))
    });
    Ok(known)
}
