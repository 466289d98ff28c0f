//! `selftrace generate`: texts that go on from any prompts, one JSON line each.

use super::extract::{Prompt, Words, check_vocabulary};
use crate::console::{Interrupted, bar};
use crate::model::Checkpoint;
use crate::model::device::with_threads;
use crate::model::generate::{self as writer, Event, Finish, Request, Writing};
use crate::model::resident::Resident;
use crate::model::sample::Sampling;
use crate::model::stream::Compute;
use crate::prompt::decode::Spoken;
use crate::prompt::endings::Endings;
use crate::prompt::tokenize::Ruler;
use anyhow::{Context, Result};
use serde::Serialize;
use std::io::{ErrorKind, Write};
use std::time::Instant;

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Most tokens of a text.
    pub max_tokens: usize,
    pub sampling: Sampling,
    /// Texts per prompt, with the seeds 0 .. seeds.
    pub seeds: u64,
    /// Pieces of text are written as they are settled.
    pub stream: bool,
}

/// A text that is finished.
#[derive(Serialize)]
struct Line<'a> {
    id: &'a str,
    seed: u64,
    /// Without special tokens; null where there is no tokenizer.
    text: Option<&'a str>,
    /// All that was written, with the token that ended it.
    token_ids: &'a [i64],
    finish: &'static str,
}

/// Some more of a text.
#[derive(Serialize)]
struct Piece<'a> {
    id: &'a str,
    seed: u64,
    piece: &'a str,
}

/// Nobody reads what is written any more.
#[derive(Debug, thiserror::Error)]
#[error("stdout is closed")]
struct Closed;

/// Writes a line per prompt and seed to `out`, in their order, each as soon as it and those before it are there. Returns how many prompts and
/// seeds have no text: too long, or not finite. Where nobody reads `out` any more, it ends early, and that is all right.
///
/// # Errors
/// A token is outside the vocabulary; the model does not fit into memory; files of the model cannot be understood; a signal has arrived; or
/// `out` cannot be written.
pub fn generate(
    checkpoint: &Checkpoint,
    words: &Words,
    prompts: &[Prompt],
    wanted: Wanted,
    compute: Compute,
    out: &mut dyn Write,
) -> Result<usize> {
    check_vocabulary(prompts, checkpoint)?;
    let ruler = words.tokenizer().map(|_| words.ruler()).transpose()?.map(|(ruler, _)| ruler);
    let id = |token: &str| ruler.as_ref().and_then(|ruler| ruler.id(token));
    let endings = Endings::read(&checkpoint.folder, words.tokenizer(), &id)?;
    let seeds = said(&wanted, &endings, ruler.as_ref())?;
    let positions = checkpoint.config.positions();
    let writing = Writing { sampling: wanted.sampling, stop: endings.stop, max_tokens: wanted.max_tokens, positions };
    let requests: Vec<Request> =
        prompts.iter().flat_map(|prompt| (0..seeds).map(|seed| Request { ids: prompt.ids.clone(), seed })).collect();
    for prompt in prompts.iter().filter(|prompt| positions.is_some_and(|positions| prompt.ids.len() >= positions)) {
        let (has, positions) = (prompt.ids.len(), positions.unwrap_or_default());
        tracing::warn!(
            "prompt {:?}: has {has} tokens, and the model has {positions} positions: nothing is written, finish is too_long",
            prompt.id
        );
    }
    let mut page = Page::new(prompts, seeds, ruler.as_ref(), wanted.stream, out);
    let written = with_threads(checkpoint.config.d_model, || -> Result<()> {
        let start = Instant::now();
        let resident = Resident::load(checkpoint, compute)?;
        tracing::info!("{} parameters in memory after {:.1} s", checkpoint.weights.n_params(), start.elapsed().as_secs_f64());
        let (start, bar) = (Instant::now(), bar(requests.len(), "texts"));
        writer::generate(&resident, &requests, &writing, &mut |request, event| {
            bar.inc(u64::from(matches!(event, Event::End(_))));
            page.take(request, event)
        })?;
        bar.finish_and_clear();
        let (seconds, tokens) = (start.elapsed().as_secs_f64(), page.tokens);
        tracing::info!("{} texts, {tokens} tokens in {seconds:.1} s, {:.1} per second", requests.len(), tokens as f64 / seconds);
        Ok(())
    });
    match written {
        Err(error) if error.is::<Closed>() => {
            tracing::info!("nobody reads the texts any more; {} of {} were written", page.next, requests.len());
        }
        Err(error) => {
            if error.is::<Interrupted>() {
                tracing::warn!("{} of {} texts were written; the same command begins with the first one again", page.next, requests.len());
            }
            return Err(error);
        }
        Ok(()) => {}
    }
    Ok(page.failed)
}

/// Says what is to be known before anything is written. Returns the number of seeds: at temperature 0 they are one.
fn said(wanted: &Wanted, endings: &Endings, ruler: Option<&Ruler>) -> Result<u64> {
    let name = |id: &i64| ruler.map_or_else(|| id.to_string(), |ruler| format!("{} ({id})", ruler.token(*id)));
    match endings.stop.as_slice() {
        [] => tracing::warn!("no file of the model says which token ends a text (eos_token_id): every text goes on for --max-tokens"),
        stop => tracing::info!("texts end at {}", stop.iter().map(name).collect::<Vec<_>>().join(", ")),
    }
    if !endings.passed_over.is_empty() {
        tracing::warn!(
            "generation_config.json asks for {}, which is not followed: texts are the model's own",
            endings.passed_over.join(", ")
        );
    }
    match ruler {
        None => tracing::warn!("there is no tokenizer.json: `text` is null, `token_ids` are what the model wrote"),
        Some(ruler) => {
            if let Some((text, back)) = ruler.changes()? {
                tracing::warn!(
                    "the tokenizer does not give back what it is given ({text:?} becomes {back:?}): `text` is what it decodes, `token_ids` are what the model wrote"
                );
            }
        }
    }
    if !wanted.sampling.is_greedy() {
        return Ok(wanted.seeds);
    }
    if wanted.seeds > 1 {
        tracing::warn!("at temperature 0 nothing is drawn, so the {} seeds are one: one text per prompt, seed 0", wanted.seeds);
    }
    if wanted.sampling.top_p < 1.0 {
        tracing::warn!("at temperature 0 nothing is drawn, so --top-p changes nothing");
    }
    Ok(1)
}

/// The texts as they come, and what of them has been written.
struct Page<'a> {
    prompts: &'a [Prompt],
    seeds: u64,
    ruler: Option<&'a Ruler>,
    out: &'a mut dyn Write,
    texts: Vec<Text<'a>>,
    /// The first text whose line is not written.
    next: usize,
    tokens: usize,
    failed: usize,
}

#[derive(Default)]
struct Text<'a> {
    ids: Vec<i64>,
    finish: Option<Finish>,
    /// Where pieces are asked for.
    spoken: Option<Spoken<'a>>,
}

impl<'a> Page<'a> {
    fn new(prompts: &'a [Prompt], seeds: u64, ruler: Option<&'a Ruler>, stream: bool, out: &'a mut dyn Write) -> Self {
        let text = || Text { spoken: ruler.filter(|_| stream).map(Spoken::new), ..Text::default() };
        let texts = (0..prompts.len() as u64 * seeds).map(|_| text()).collect();
        Self { prompts, seeds, ruler, out, texts, next: 0, tokens: 0, failed: 0 }
    }

    fn name(&self, request: usize) -> (&'a str, u64) {
        (&self.prompts[request / self.seeds as usize].id, request as u64 % self.seeds)
    }

    fn take(&mut self, request: usize, event: Event) -> Result<()> {
        let text = &mut self.texts[request];
        match event {
            Event::Token { id, ends } => {
                self.tokens += 1;
                text.ids.push(id);
                // The token that ends a text is no part of it.
                let Some(spoken) = text.spoken.as_mut().filter(|_| !ends) else { return Ok(()) };
                let piece = spoken.push(id)?;
                self.piece(request, &piece)
            }
            Event::End(finish) => {
                text.finish = Some(finish);
                if let Some(spoken) = text.spoken.take() {
                    match spoken.finish()? {
                        (_, Some(rest)) => self.piece(request, &rest)?,
                        (..) => tracing::warn!("the tokenizer's decoder changes what it said before: the pieces are not the whole text"),
                    }
                }
                self.failed += usize::from(matches!(finish, Finish::TooLong | Finish::NotFinite));
                self.lines()
            }
        }
    }

    fn piece(&mut self, request: usize, piece: &str) -> Result<()> {
        if piece.is_empty() {
            return Ok(());
        }
        let (id, seed) = self.name(request);
        self.write(&Piece { id, seed, piece })
    }

    /// Writes the lines whose turn it is.
    fn lines(&mut self) -> Result<()> {
        while let Some(Text { ids, finish: Some(finish), .. }) = self.texts.get_mut(self.next) {
            let (ids, finish) = (std::mem::take(ids), *finish);
            let ((id, seed), own) = (self.name(self.next), ids.len() - usize::from(finish == Finish::Stop));
            let text = self.ruler.map(|ruler| ruler.decode(&ids[..own])).transpose()?;
            self.write(&Line { id, seed, text: text.as_deref(), token_ids: &ids, finish: finish.name() })?;
            self.next += 1;
        }
        Ok(())
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let line = serde_json::to_string(line)? + "\n";
        match self.out.write_all(line.as_bytes()).and_then(|()| self.out.flush()) {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Err(Closed.into()),
            written => written.context("stdout cannot be written"),
        }
    }
}
