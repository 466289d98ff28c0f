//! Many texts, written by a resident model: requests join the batch as others leave it.
//!
//! What is drawn for a request depends on its seed and its tokens alone: each has a stream of random numbers of its own, so neither its place
//! among the requests nor what is written beside it matters. What is left is the rounding of attention, whose blocks begin elsewhere beside
//! longer texts, and that of products where they are not packed (module `packed`); it decides only between tokens that are level to the last
//! digits.

use super::cache::Cache;
use super::resident::Resident;
use super::sample::Sampling;
use crate::console::check_interrupt;
use crate::stats::draws::{generator, uniform};
use anyhow::Result;
use rand_chacha::ChaCha8Rng;
use std::collections::VecDeque;
use tch::{Device, Tensor};

/// Bytes of keys and values that are in memory at once. Fixed, not what is free: texts may depend on it in their last digits.
const BUDGET: usize = 4 << 30;

/// A text to go on with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Tokens before it.
    pub ids: Vec<i64>,
    /// What its random numbers are drawn from, beside its tokens.
    pub seed: u64,
}

impl Request {
    fn stream(&self) -> ChaCha8Rng {
        generator(self.seed, &self.ids.iter().map(|id| format!("{id} ")).collect::<String>())
    }
}

/// How texts are written, and where they end.
#[derive(Debug, Clone)]
pub struct Writing {
    pub sampling: Sampling,
    /// Tokens that end a text.
    pub stop: Vec<i64>,
    /// Most tokens of a text, at least one.
    pub max_tokens: usize,
    /// Most tokens of a prompt and its text, where the model has no more positions.
    pub positions: Option<usize>,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finish {
    /// With a token that ends texts.
    Stop,
    /// At the most tokens, or at the model's last position.
    Length,
    /// Nothing was written: the prompt leaves no position.
    TooLong,
    /// The model's numbers were not finite, so there is no next token.
    NotFinite,
}

impl Finish {
    /// As it stands in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::TooLong => "too_long",
            Self::NotFinite => "not_finite",
        }
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// Its next token; the one that `ends` the text, too.
    Token { id: i64, ends: bool },
    /// Nothing more comes.
    End(Finish),
}

/// What a text left behind, so that another one can go on from it: its tokens, as far as the model has read them, with their keys and values.
pub struct Past {
    ids: Vec<i64>,
    cache: Cache,
}

/// A request that is being written.
struct Row {
    request: usize,
    written: Vec<i64>,
    /// How many tokens it may have.
    most: usize,
    stream: ChaCha8Rng,
    /// The newest token, which the model has not read yet.
    token: i64,
    /// Tokens of the request that come after it.
    ahead: VecDeque<i64>,
}

/// Writes all `requests`, none of them empty, and calls `visit(request, event)` as things happen: tokens of a request in order, its end last.
///
/// # Errors
/// As [`Resident::step`]; a signal has arrived; or whatever `visit` returns, which also stops the writing.
pub fn generate(
    resident: &Resident,
    requests: &[Request],
    writing: &Writing,
    visit: &mut dyn FnMut(usize, Event) -> Result<()>,
) -> Result<()> {
    write(resident, requests, requests.iter().map(|_| None).collect(), false, writing, visit).map(drop)
}

/// As [`generate`], where every request may go on from what an earlier text has left behind: what both begin with is not read again. Returns
/// what the texts leave behind in turn; nothing of one that was not written.
///
/// # Errors
/// As [`generate`].
pub fn go_on(
    resident: &Resident,
    requests: &[Request],
    pasts: Vec<Option<Past>>,
    writing: &Writing,
    visit: &mut dyn FnMut(usize, Event) -> Result<()>,
) -> Result<Vec<Option<Past>>> {
    write(resident, requests, pasts, true, writing, visit)
}

fn write(
    resident: &Resident,
    requests: &[Request],
    mut pasts: Vec<Option<Past>>,
    keeps: bool,
    writing: &Writing,
    visit: &mut dyn FnMut(usize, Event) -> Result<()>,
) -> Result<Vec<Option<Past>>> {
    let room = |request: &Request| {
        let left = writing.positions.map(|positions| positions.saturating_sub(request.ids.len()));
        left.map_or(writing.max_tokens, |left| left.min(writing.max_tokens))
    };
    let mut waiting = VecDeque::new();
    for (index, request) in requests.iter().enumerate() {
        if room(request) == 0 {
            visit(index, Event::End(Finish::TooLong))?;
        } else {
            waiting.push_back(index);
        }
    }
    let longest = waiting.iter().map(|&index| requests[index].ids.len() + room(&requests[index])).max().unwrap_or(0);
    let most = resident.most_rows(longest);
    let mut batch: Option<Cache> = None;
    let mut rows: Vec<Row> = Vec::new();
    let mut behind: Vec<Option<Past>> = requests.iter().map(|_| None).collect();
    while !waiting.is_empty() || !rows.is_empty() {
        check_interrupt()?;
        // Reading goes before writing, for several at once: they may share what they begin with.
        if !waiting.is_empty() && rows.len() <= most - most.div_ceil(4) {
            let new: Vec<usize> = waiting.drain(..waiting.len().min(most - rows.len())).collect();
            let row = |request: usize| {
                let (most, stream) = (room(&requests[request]), requests[request].stream());
                Row { request, written: Vec::new(), most, stream, token: 0, ahead: VecDeque::new() }
            };
            let (mut known, mut fresh, mut caches) = (Vec::new(), Vec::new(), Vec::new());
            for index in new {
                match pasts[index].take().and_then(|past| past.before(&requests[index].ids)) {
                    Some(cache) => {
                        let mut ahead: VecDeque<i64> = requests[index].ids[cache.lengths()[0] as usize..].iter().copied().collect();
                        let token = ahead.pop_front().unwrap_or_default();
                        known.push(Row { token, ahead, ..row(index) });
                        caches.push(cache);
                    }
                    None => fresh.push(row(index)),
                }
            }
            let mut caches: Vec<Cache> = if caches.is_empty() { Vec::new() } else { vec![Cache::of_rows(caches)?] };
            if !fresh.is_empty() {
                let prompts: Vec<&[i64]> = fresh.iter().map(|row| requests[row.request].ids.as_slice()).collect();
                let (cache, logits) = resident.read(&prompts)?;
                let ended = advance(&mut fresh, &logits, writing, visit)?;
                if keeps {
                    leave(&cache, &fresh, &ended, requests, &mut behind)?;
                }
                caches.extend(left(cache, &mut fresh, &ended)?);
            }
            for cache in caches {
                match &mut batch {
                    Some(batch) => batch.join(cache)?,
                    None => batch = Some(cache),
                }
            }
            rows.append(&mut known);
            rows.append(&mut fresh);
            continue;
        }
        let Some(mut cache) = batch.take() else { continue };
        let tokens: Vec<i64> = rows.iter().map(|row| row.token).collect();
        let logits = resident.step(&mut cache, &tokens)?;
        let ended = advance(&mut rows, &logits, writing, visit)?;
        if keeps {
            leave(&cache, &rows, &ended, requests, &mut behind)?;
        }
        batch = left(cache, &mut rows, &ended)?;
    }
    Ok(behind)
}

impl Past {
    /// Its cache, as far as it is of the tokens that `ids` begin with, of which at least one is left to read; `None` where none is.
    fn before(self, ids: &[i64]) -> Option<Cache> {
        let common = self.ids.iter().zip(ids).take_while(|(own, other)| own == other).count().min(ids.len() - 1);
        (common > 0).then(|| self.cache.first(common as i64))
    }
}

/// Every row's next token: what is left of its request, and after that one that is chosen from `logits: [row, d_vocab]`. Returns the rows that
/// have ended, in order.
fn advance(rows: &mut [Row], logits: &Tensor, writing: &Writing, visit: &mut dyn FnMut(usize, Event) -> Result<()>) -> Result<Vec<usize>> {
    let mut choosing = Vec::new();
    for (index, row) in rows.iter_mut().enumerate() {
        match row.ahead.pop_front() {
            Some(token) => row.token = token,
            None => choosing.push(index),
        }
    }
    if choosing.is_empty() {
        return Ok(Vec::new());
    }
    let places: Vec<i64> = choosing.iter().map(|index| *index as i64).collect();
    let logits = if places.len() == rows.len() {
        logits.shallow_clone()
    } else {
        logits.f_index_select(0, &Tensor::f_from_slice(&places)?.f_to_device(logits.device())?)?
    };
    let chosen = writing.sampling.choose(&logits, &mut |row| uniform(&mut rows[choosing[row]].stream))?;
    let mut ended = Vec::new();
    for (index, token) in choosing.into_iter().zip(chosen) {
        let row = &mut rows[index];
        let finish = match token {
            None => Some(Finish::NotFinite),
            Some(token) => {
                let ends = writing.stop.contains(&token);
                visit(row.request, Event::Token { id: token, ends })?;
                row.token = token;
                row.written.push(token);
                let is_full = (row.written.len() == row.most).then_some(Finish::Length);
                if ends { Some(Finish::Stop) } else { is_full }
            }
        };
        if let Some(finish) = finish {
            visit(row.request, Event::End(finish))?;
            ended.push(index);
        }
    }
    Ok(ended)
}

/// Keeps what the rows that have ended leave behind.
fn leave(cache: &Cache, rows: &[Row], ended: &[usize], requests: &[Request], behind: &mut [Option<Past>]) -> Result<()> {
    for &index in ended {
        let row = &rows[index];
        let mut ids = [requests[row.request].ids.as_slice(), &row.written].concat();
        let cache = cache.row(index)?;
        ids.truncate(cache.lengths()[0] as usize);
        behind[row.request] = Some(Past { ids, cache });
    }
    Ok(())
}

/// Takes the rows that have ended out of a batch; `None` where none is left.
fn left(mut cache: Cache, rows: &mut Vec<Row>, ended: &[usize]) -> Result<Option<Cache>> {
    if ended.len() == rows.len() {
        rows.clear();
        return Ok(None);
    }
    for &row in ended.iter().rev() {
        rows.swap_remove(row);
        cache.swap_remove(row)?;
    }
    Ok(Some(cache))
}

impl Resident<'_> {
    /// Rows that are written at once where a row may have `longest` tokens.
    pub fn most_rows(&self, longest: usize) -> usize {
        let most = if self.device() == Device::Cpu { 64 } else { 256 };
        (BUDGET / (self.bytes_per_token() * longest.max(1))).clamp(1, most)
    }
}
