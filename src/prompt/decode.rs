//! Text out of tokens, as they come: pieces that are never taken back and add up to what the whole would be decoded to, byte for byte.
//!
//! A character may be split over tokens, so the end of a text may change with the next one: bytes that are no character yet are shown as
//! U+FFFD, and among byte-fallback tokens (`<0xE2>`) one wrong byte spoils the whole run of them. Such ends are held back.

use super::tokenize::Ruler;
use anyhow::Result;

/// The text of tokens that come one by one, without special tokens.
pub struct Spoken<'a> {
    ruler: &'a Ruler,
    ids: Vec<i64>,
    /// Where the tokens begin that are decoded again; some before `shown`, since what is in front decides on spaces.
    from: usize,
    /// The text of `from..shown`, which has been handed out.
    shown: usize,
    shown_text: String,
    /// All that has been handed out.
    text: String,
}

impl<'a> Spoken<'a> {
    /// An empty text.
    pub fn new(ruler: &'a Ruler) -> Self {
        Self { ruler, ids: Vec::new(), from: 0, shown: 0, shown_text: String::new(), text: String::new() }
    }

    /// One more token. Returns the text that is settled by it, often none.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn push(&mut self, id: i64) -> Result<String> {
        self.ids.push(id);
        if self.ruler.is_byte(id) || self.ruler.is_special(id) {
            return Ok(String::new());
        }
        let window = self.ruler.decode(&self.ids[self.from..])?;
        let Some(piece) = window.strip_prefix(self.shown_text.as_str()).filter(|piece| !piece.is_empty() && !piece.ends_with('\u{FFFD}'))
        else {
            return Ok(String::new());
        };
        let piece = piece.to_owned();
        self.text.push_str(&piece);
        (self.from, self.shown) = (self.shown, self.ids.len());
        self.shown_text = self.ruler.decode(&self.ids[self.from..self.shown])?;
        Ok(piece)
    }

    /// The whole text, and what of it has not been handed out yet; without the latter where the tokenizer's decoder takes back what it said of
    /// the tokens before.
    ///
    /// # Errors
    /// The tokenizer fails.
    pub fn finish(self) -> Result<(String, Option<String>)> {
        let whole = self.ruler.decode(&self.ids)?;
        let rest = whole.strip_prefix(self.text.as_str()).map(str::to_owned);
        Ok((whole, rest))
    }
}
