//! The frozen ruler: one tokenizer and one template make the token ids of every item once, for all checkpoints.

use super::conversation::Conversation;
use super::template::{Message, Template, private_use};
use super::vocabulary::{self, Vocabulary};
use crate::guard::{brief, guarded};
use aho_corasick::{AhoCorasick, MatchKind};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;
use tokenizers::{Encoding, Offsets, Tokenizer};

/// Marks the readout span inside the texts of items while they are rendered. Messages that people bring may have these characters as text.
pub const SPAN_OPEN: char = '\u{E010}';
pub const SPAN_CLOSE: char = '\u{E011}';
/// Longest text that is tokenised, in bytes.
const LONGEST: usize = 4 << 20;
/// Most tokens of a prompt: what attends to what is tabulated, with the square of them.
const MOST_TOKENS: usize = 1 << 17;

/// A tokenizer and a chat template.
pub struct Ruler {
    tokenizer: Tokenizer,
    /// The same tokenizer, reading special tokens as ordinary text.
    literal: Tokenizer,
    /// Finds strings that would become control tokens, the longest at every place.
    special: AhoCorasick,
    special_ids: HashSet<i64>,
    /// What the tokenizer puts before a text by itself (a beginning-of-sequence token, or nothing).
    opening: Vec<i64>,
    /// What a line end is made of, where a text in the middle of another must be tokenised behind one, so that it gets no space in front.
    behind_line_end: Option<Vec<i64>>,
    pub template: Template,
}

/// A tokenised prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    pub text: String,
    pub ids: Vec<i64>,
    /// Tokens of the marked span; `None` where nothing was marked.
    pub span: Option<Range<usize>>,
    /// Tokens of the assistant's open turn; `None` where the generation prompt ends the text.
    pub response: Option<Range<usize>>,
    /// The text with stand-ins for special tokens that messages spell out, from which continuations are tokenised.
    masked: String,
    stand_ins: StandIns,
}

/// Characters that stand for special tokens which a message spells out, while it is rendered. They occur nowhere else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct StandIns(Vec<(char, String)>);

impl StandIns {
    /// The stand-in of a token, a new one where it has none. `is_taken` says which characters occur.
    fn of(&mut self, token: &str, is_taken: &dyn Fn(char) -> bool) -> Result<char> {
        if let Some((c, _)) = self.0.iter().find(|(_, known)| known == token) {
            return Ok(*c);
        }
        let last = self.0.last().map_or('\0', |(c, _)| *c);
        let free = private_use().find(|c| *c > last && !is_taken(*c)).context("every private-use character occurs in the text")?;
        self.0.push((free, token.to_owned()));
        Ok(free)
    }

    fn token(&self, c: char) -> Option<&str> {
        self.0.iter().find(|(stand_in, _)| *stand_in == c).map(|(_, token)| token.as_str())
    }
}

impl Ruler {
    /// Loads the tokenizer of a model folder.
    ///
    /// # Errors
    /// As [`vocabulary::load`].
    pub fn load(folder: &Path, template: Template) -> Result<Self> {
        let Vocabulary { tokenizer, .. } = vocabulary::load(folder)?;
        let special = tokenizer.get_added_tokens_decoder().into_iter().filter(|(_, token)| token.special && !token.content.is_empty());
        let (special_ids, special): (HashSet<i64>, Vec<String>) = special.map(|(id, token)| (i64::from(id), token.content)).unzip();
        let special = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&special).context("special tokens")?;
        let mut literal = tokenizer.clone();
        literal.set_encode_special_tokens(true);
        let place = || folder.join("tokenizer.json").display().to_string();
        let probe = |text: &str, add: bool| encode(&tokenizer, text, add).with_context(place);
        let alone = probe("a", true)?;
        let added = alone.get_special_tokens_mask().iter().take_while(|&&special| special == 1).count();
        let opening = ids(&alone)[..added].to_vec();
        let (line_end, behind) = (ids(&probe("\n", false)?), ids(&probe("\na", false)?));
        let differs = behind.strip_prefix(line_end.as_slice()).is_some_and(|rest| rest != &ids(&alone)[added..]);
        Ok(Self { tokenizer, literal, special, special_ids, opening, behind_line_end: differs.then_some(line_end), template })
    }

    /// Content hash of tokenizer and template.
    ///
    /// # Errors
    /// The tokenizer cannot be serialised.
    pub fn hash(&self) -> Result<String> {
        let mut hasher = blake3::Hasher::new();
        let json = self.tokenizer.to_string(false).map_err(|error| anyhow!("the tokenizer cannot be serialised: {error}"))?;
        hasher.update(json.as_bytes()).update(self.template.source.as_bytes());
        Ok(hasher.finalize().to_hex().to_string())
    }

    /// Token ids of plain text, with the special tokens that the tokenizer adds by itself; control tokens that the text
    /// spells out are read as such.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn encode_text(&self, text: &str) -> Result<Vec<i64>> {
        Ok(ids(&encode(&self.tokenizer, text, true)?))
    }

    /// Counts the tokens of a text, without those that the tokenizer adds by itself.
    ///
    /// # Errors
    /// The tokenizer fails, at once or when it counts.
    pub fn counter(&self) -> Result<impl Fn(&str) -> Result<usize>> {
        let opening = self.encode_text("")?.len();
        Ok(move |text: &str| Ok(self.encode_text(text)?.len().saturating_sub(opening)))
    }

    /// The token as it is written in the vocabulary, for people to look at.
    pub fn token(&self, id: i64) -> String {
        let decoded = u32::try_from(id).ok().and_then(|id| self.tokenizer.decode(&[id], false).ok());
        decoded.unwrap_or_else(|| format!("<{id}>"))
    }

    /// The id of a token as it is written in the vocabulary.
    pub fn id(&self, token: &str) -> Option<i64> {
        self.tokenizer.token_to_id(token).map(i64::from)
    }

    /// The text of tokens, without special ones; ids that the tokenizer does not have stand for nothing.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn decode(&self, ids: &[i64]) -> Result<String> {
        let ids: Vec<u32> = ids.iter().filter_map(|id| u32::try_from(*id).ok()).collect();
        let decoded = guarded("the tokenizers library", || self.tokenizer.decode(&ids, true).map_err(|error| brief(&error.to_string())));
        decoded?.map_err(|error| anyhow!("the tokenizer cannot decode: {error}"))
    }

    /// Whether a token is one byte of a character, as tokenizers with byte fallback have them: `<0xE2>`.
    pub fn is_byte(&self, id: i64) -> bool {
        let token = u32::try_from(id).ok().and_then(|id| self.tokenizer.id_to_token(id));
        token.is_some_and(|token| token.len() == 6 && token.starts_with("<0x") && token.ends_with('>'))
    }

    /// A text that the tokenizer does not give back as it was, with what it becomes; `None` where it gives all of some tricky ones back.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn changes(&self) -> Result<Option<(String, String)>> {
        for text in ["A b", "two  spaces, and \n\n\tlines ", " don't .", "Grüße, e\u{301}, 日本 and 👋"] {
            let back = self.decode(&ids(&encode(&self.tokenizer, text, false)?))?;
            if back != text {
                return Ok(Some((text.to_owned(), back)));
            }
        }
        Ok(None)
    }

    /// Whether a token is one of the tokenizer's special ones.
    pub fn is_special(&self, id: i64) -> bool {
        self.special_ids.contains(&id)
    }

    /// Renders and tokenises an item: with a last message by the assistant the turn is left open after it, otherwise the
    /// generation prompt follows. A special token that a message spells out stays text.
    ///
    /// # Errors
    /// The template or the tokenizer fails, or no token covers the marked span.
    pub fn encode_chat(&self, messages: &[Message]) -> Result<Encoded> {
        let conversation = Conversation::from(messages);
        let (rendered, stand_ins, content) = self.render(&conversation)?;
        let (rendered, span) = take_span(&rendered)?;
        let content: Option<String> = content.map(|content| content.trim().chars().filter(|c| !is_marker(*c)).collect());
        let response = match content.as_deref().filter(|content| !content.is_empty()) {
            None => None,
            Some(content) => {
                let start = rendered.trim_end().strip_suffix(content).map(str::len);
                let start = start.with_context(|| format!("the chat template changes the last message: {:?}", brief(content)))?;
                Some(start..rendered.len())
            }
        };
        self.encode_masked(rendered, stand_ins, span, response, self.template_opening())
    }

    /// As [`Ruler::encode_chat`], for messages that people bring: nothing in them marks a span, and where the answer begins is not asked.
    ///
    /// # Errors
    /// The template or the tokenizer fails.
    pub fn encode_conversation(&self, conversation: &Conversation) -> Result<Encoded> {
        let (rendered, stand_ins, _) = self.render(conversation)?;
        self.encode_masked(rendered, stand_ins, None, None, self.template_opening())
    }

    /// The rendered text with stand-ins, what they stand for, and the text of an open turn.
    fn render(&self, conversation: &Conversation) -> Result<(String, StandIns, Option<String>)> {
        let mut masked = conversation.clone();
        let mut stand_ins = StandIns::default();
        let is_taken = |c: char| is_marker(c) || conversation.contains(c) || self.template.source.contains(c);
        let mut failed = None;
        masked.change_texts(&mut |text| {
            self.mask(text, &mut stand_ins, &is_taken).unwrap_or_else(|error| {
                failed = Some(error);
                String::new()
            })
        });
        failed.map_or(Ok(()), Err)?;
        if !masked.is_open() {
            let rendered = self.template.render_conversation(&masked, true)?;
            return Ok((unescaped(rendered, &stand_ins), stand_ins, None));
        }
        // The last of the stand-ins shows where the open turn ends; no token is called that.
        let mark = stand_ins.of("\0end of the open turn", &is_taken)?;
        let rendered = self.template.render_until(&masked, mark)?;
        let content = masked.last_text().map(str::to_owned);
        Ok((unescaped(rendered, &stand_ins), stand_ins, content))
    }

    /// Tokenises a text that is no chat, with the special tokens that the tokenizer puts before a text by itself.
    ///
    /// # Errors
    /// The tokenizer fails, or no token covers the marked span.
    pub fn encode_raw(&self, text: &str) -> Result<Encoded> {
        let mut stand_ins = StandIns::default();
        let (text, span) = take_span(&self.mask(text, &mut stand_ins, &|c| is_marker(c) || text.contains(c))?)?;
        self.encode_masked(text, stand_ins, span, None, &self.opening)
    }

    /// Puts stand-ins where `text` spells out a special token.
    fn mask(&self, text: &str, stand_ins: &mut StandIns, is_taken: &dyn Fn(char) -> bool) -> Result<String> {
        let mut masked = String::with_capacity(text.len());
        let mut at = 0;
        for found in self.special.find_iter(text) {
            masked.push_str(&text[at..found.start()]);
            masked.push(stand_ins.of(&text[found.range()], is_taken)?);
            at = found.end();
        }
        masked.push_str(&text[at..]);
        Ok(masked)
    }

    /// Tokens to begin a chat with that the template does not write.
    fn template_opening(&self) -> &[i64] {
        if self.template.writes_special_tokens { &[] } else { &self.opening }
    }

    /// Tokenises piece by piece where a stand-in occurs, at once where none does. `span` and `response` are byte ranges.
    fn encode_masked(
        &self,
        rendered: String,
        stand_ins: StandIns,
        span: Option<Range<usize>>,
        response: Option<Range<usize>>,
        opening: &[i64],
    ) -> Result<Encoded> {
        let mut text = String::new();
        let mut tokens = opening.to_vec();
        // Byte range in `rendered` per token; empty for tokens that stand for no text.
        let mut bytes = vec![0..0; tokens.len()];
        let mut at = 0;
        while let Some(c) = rendered[at..].chars().next() {
            let rest = &rendered[at..];
            if let Some(token) = stand_ins.token(c) {
                let (ids, _) = self.encode_piece(&self.literal, token, at > 0)?;
                bytes.resize(bytes.len() + ids.len(), at..at + c.len_utf8());
                tokens.extend(ids);
                text.push_str(token);
                at += c.len_utf8();
            } else {
                let piece = &rest[..rest.find(|c| stand_ins.token(c).is_some()).unwrap_or(rest.len())];
                let (ids, offsets) = self.encode_piece(&self.tokenizer, piece, at > 0)?;
                bytes.extend(offsets.into_iter().map(|(start, end)| at + start..at + end));
                tokens.extend(ids);
                text.push_str(piece);
                at += piece.len();
            }
        }
        let cover = |range: Range<usize>| -> Result<Range<usize>> {
            let covers = |token: &Range<usize>| token.start < token.end && token.start < range.end && token.end > range.start;
            match (bytes.iter().position(covers), bytes.iter().rposition(covers)) {
                (Some(first), Some(last)) => Ok(first..last + 1),
                _ => bail!("no token covers the readout span of {:?}", brief(&text)),
            }
        };
        let (span, response) = (span.map(cover).transpose()?, response.map(cover).transpose()?);
        Ok(Encoded { text, ids: tokens, span, response, masked: rendered, stand_ins })
    }

    /// Ids and byte ranges of a piece, which gets no space in front if it goes on after another.
    fn encode_piece(&self, tokenizer: &Tokenizer, piece: &str, goes_on: bool) -> Result<(Vec<i64>, Vec<Offsets>)> {
        if let Some(line_end) = self.behind_line_end.as_ref().filter(|_| goes_on) {
            let encoding = encode(tokenizer, &format!("\n{piece}"), false)?;
            if let Some(ids) = ids(&encoding).strip_prefix(line_end.as_slice()) {
                let offsets = encoding.get_offsets()[line_end.len()..].iter();
                return Ok((ids.to_vec(), offsets.map(|(start, end)| (start.saturating_sub(1), end.saturating_sub(1))).collect()));
            }
        }
        let encoding = encode(tokenizer, piece, false)?;
        Ok((ids(&encoding), encoding.get_offsets().to_vec()))
    }

    /// Ids of `answer` as a continuation of an encoded prompt, after one space.
    ///
    /// # Errors
    /// The answer is empty, or joining it changes the tokens of the prompt, so that it cannot be scored at the stem.
    pub fn continuation(&self, prompt: &Encoded, answer: &str) -> Result<Vec<i64>> {
        let mut stand_ins = prompt.stand_ins.clone();
        let is_clear = !answer.chars().any(|c| stand_ins.token(c).is_some());
        let masked = self.mask(answer, &mut stand_ins, &|c| answer.contains(c) || prompt.masked.contains(c))?;
        let whole = self.encode_masked(format!("{} {masked}", prompt.masked), stand_ins, None, None, self.template_opening())?.ids;
        ensure!(
            is_clear && whole.starts_with(&prompt.ids) && whole.len() > prompt.ids.len() && !answer.trim().is_empty(),
            "the answer {answer:?} does not continue the tokens of {:?}",
            prompt.text
        );
        Ok(whole[prompt.ids.len()..].to_vec())
    }
}

/// Checks that a prompt is not so long that its plan alone would fill memory.
///
/// # Errors
/// It is.
pub fn check_length(tokens: usize) -> Result<()> {
    ensure!(tokens <= MOST_TOKENS, "the prompt has {tokens} tokens, expected at most {MOST_TOKENS}; cut it");
    Ok(())
}

fn encode(tokenizer: &Tokenizer, text: &str, add_special: bool) -> Result<Encoding> {
    ensure!(text.len() <= LONGEST, "a text has {} bytes, expected at most {LONGEST}", text.len());
    let encoded = guarded("the tokenizers library", || tokenizer.encode(text, add_special).map_err(|error| brief(&error.to_string())));
    let encoded = encoded.and_then(|encoded| encoded.map_err(|error| anyhow!("{error}")));
    let encoded = encoded.with_context(|| format!("the tokenizer failed on {:?}", brief(text)))?;
    check_length(encoded.len())?;
    Ok(encoded)
}

fn ids(encoding: &Encoding) -> Vec<i64> {
    encoding.get_ids().iter().map(|&id| i64::from(id)).collect()
}

fn is_marker(c: char) -> bool {
    c == SPAN_OPEN || c == SPAN_CLOSE
}

/// Stand-ins that a template wrote as escapes of JSON, as characters again.
fn unescaped(mut rendered: String, stand_ins: &StandIns) -> String {
    for (c, _) in &stand_ins.0 {
        let escape: String = c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect();
        if rendered.contains(&escape) {
            rendered = rendered.replace(&escape, &c.to_string());
        }
    }
    rendered
}

/// Removes the span markers and returns the byte range between them.
fn take_span(rendered: &str) -> Result<(String, Option<Range<usize>>)> {
    let (Some(open), Some(close)) = (rendered.find(SPAN_OPEN), rendered.find(SPAN_CLOSE)) else {
        return Ok((rendered.to_owned(), None));
    };
    let text: String = rendered.chars().filter(|&c| !is_marker(c)).collect();
    ensure!(open < close && rendered.matches(SPAN_OPEN).count() == 1, "expected one readout span [[...]] in {text:?}");
    Ok((text, Some(open..close - SPAN_OPEN.len_utf8())))
}
