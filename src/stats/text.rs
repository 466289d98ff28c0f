//! What can be counted of texts: whether they repeat, how many different words they have, how far they can be compressed.

use flate2::Compression;
use flate2::write::DeflateEncoder;
use regex::Regex;
use std::collections::HashSet;
use std::io::Write as _;
use std::sync::LazyLock;
use unicode_segmentation::UnicodeSegmentation;

/// Words in which types are counted.
pub const WINDOW: usize = 20;
/// Share of the words that may differ in a near-verbatim repetition.
const DIFFERENT: f64 = 0.2;
/// Turns that a repetition may lie back: one is an echo, two is the speaker's own last turn where two speak.
const BACK: usize = 2;

static EMOJI: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"\p{Extended_Pictographic}").expect("a valid pattern"));

/// Words in lower case (Unicode Standard Annex 29).
pub fn words(text: &str) -> Vec<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// Whether two texts are equal but for white space.
pub fn is_same(a: &str, b: &str) -> bool {
    a.split_whitespace().eq(b.split_whitespace())
}

/// Whether at most a fifth of the words of the longer one have to be changed, added or left out to make one text of the other (Levenshtein
/// 1966, on words).
pub fn is_nearly_same(a: &str, b: &str) -> bool {
    let (a, b) = (words(a), words(b));
    let longer = a.len().max(b.len());
    // Texts without words repeat each other only as they are.
    longer > 0 && strsim::generic_levenshtein(&a, &b) as f64 <= DIFFERENT * longer as f64
}

/// Whether the last of some turns repeats one of the two before it, by `is_like`: a cycle of one or of two turns.
pub fn repeats(turns: &[&str], is_like: impl Fn(&str, &str) -> bool) -> bool {
    turns.split_last().is_some_and(|(last, before)| before.iter().rev().take(BACK).any(|turn| is_like(last, turn)))
}

/// Different words over all words, in the mean over windows of [`WINDOW`] words (the moving average of Covington & McFall 2010, which does
/// not depend on length); `None` of a text that is shorter.
pub fn type_token_ratio(text: &str) -> Option<f64> {
    let words = words(text);
    let windows = words.windows(WINDOW);
    let n = windows.len();
    let ratio = |window: &[String]| window.iter().collect::<HashSet<_>>().len() as f64 / WINDOW as f64;
    (n > 0).then(|| windows.map(ratio).sum::<f64>() / n as f64)
}

/// Bytes of texts after DEFLATE (RFC 1951, level 9) over bytes before; `None` of no text.
pub fn compression_ratio(texts: &[&str]) -> Option<f64> {
    let whole = texts.join("\n");
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(whole.as_bytes()).ok()?;
    let packed = encoder.finish().ok()?;
    (!whole.is_empty()).then(|| packed.len() as f64 / whole.len() as f64)
}

/// Share of the characters, white space aside, that are emoji (`Extended_Pictographic`); `None` of no text.
pub fn emoji_share(text: &str) -> Option<f64> {
    let all = text.chars().filter(|c| !c.is_whitespace()).count();
    (all > 0).then(|| EMOJI.find_iter(text).count() as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetitions_are_of_one_or_two_turns() {
        let near = |turns: &[&str]| repeats(turns, is_nearly_same);
        assert!(repeats(&["a b", "c", "a  b\n"], is_same) && repeats(&["c", "c"], is_same));
        assert!(!repeats(&["a", "b", "c", "a"], is_same) && !repeats(&["a"], is_same) && !repeats(&[], is_same));
        // One word of six is changed, and then two.
        assert!(near(&["I am glad to be here", "x", "I am happy to be here"]));
        assert!(!near(&["I am glad to be here", "x", "I was happy to be here"]));
        assert!(!near(&["!!", "x", "!!"]) && repeats(&["!!", "x", "!!"], is_same));
    }

    #[test]
    fn what_repeats_within_has_few_types_and_packs_well() {
        let plain: String = (0..30).map(|k| format!("word{k} ")).collect();
        assert_eq!(type_token_ratio(&plain), Some(1.0));
        let (repeated, packed) = ("peace and light ".repeat(12), compression_ratio(&["peace and light ".repeat(12).as_str()]).unwrap());
        assert!((type_token_ratio(&repeated).unwrap() - 3.0 / 20.0).abs() < 1e-12);
        assert_eq!(type_token_ratio("too short"), None);
        assert!(packed < 0.2 && compression_ratio(&[&plain]).unwrap() > 0.3);
        // Twice the same turn costs next to nothing.
        assert!(compression_ratio(&[&plain, &plain]).unwrap() < 0.6 * compression_ratio(&[&plain]).unwrap());
        assert_eq!(compression_ratio(&[]), None);
    }

    #[test]
    fn emoji_are_pictures_and_no_digits() {
        assert_eq!(emoji_share("🙏🙏 ab"), Some(0.5));
        assert_eq!(emoji_share("1# ok"), Some(0.0));
        assert_eq!(emoji_share(" \n"), None);
    }

    #[test]
    fn words_of_any_script_are_words() {
        assert_eq!(words("Don't stop, Élan!"), ["don't", "stop", "élan"]);
        assert_eq!(words("我是").len(), 2);
    }
}
