//! The source of a template before the parser sees it: as transformers' lexer has it, and with every value that gets a name led through a
//! filter that counts what is in it.

use minijinja::{Error, ErrorKind};
use regex::Regex;
use std::sync::LazyLock;

/// Longest template in bytes; the longest published ones have 30,000.
const LONGEST: usize = 1 << 19;
/// Most words and signs in one tag: the parser's recursion grows with them.
const MOST_IN_TAG: usize = 8192;
/// The filter through which goes whatever a namespace keeps.
pub const KEPT: &str = "kept_by_a_namespace";
/// The filter through which goes whatever else gets a name.
pub const BOUND: &str = "bound_to_a_name";

/// Line ends as Jinja's lexer has them, `generation` blocks as blocks that are always there, and values through [`KEPT`] or [`BOUND`] where
/// they get a name.
///
/// # Errors
/// The source or a tag is too long.
pub fn prepare(source: &str) -> Result<String, Error> {
    let syntax = |message: String| Error::new(ErrorKind::SyntaxError, message);
    if source.len() > LONGEST {
        return Err(syntax(format!("it has {} bytes, expected at most {LONGEST}", source.len())));
    }
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    let mut is_raw = false;
    while let Some(at) = rest.find('{') {
        let (text, tag) = rest.split_at(at);
        out.push_str(text);
        let Some(close) =
            [("{{", "}}"), ("{%", "%}"), ("{#", "#}")].into_iter().find(|(open, _)| tag.starts_with(open)).map(|(_, close)| close)
        else {
            out.push('{');
            rest = &tag[1..];
            continue;
        };
        let (end, words) = end_of_tag(tag, close);
        // An unfinished tag is the parser's to complain about.
        let whole = &tag[..end];
        let inner = whole.get(2..whole.len().saturating_sub(2)).unwrap_or_default();
        let bare = inner.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']);
        let left = &inner[..inner.len() - inner.trim_start_matches(['-', '+']).len()];
        let right = &inner[inner.trim_end_matches(['-', '+']).len().max(left.len())..];
        let keyword = bare.trim();
        if is_raw {
            is_raw = !(close == "%}" && keyword == "endraw");
            if is_raw {
                // Not a tag: text goes on behind its first sign.
                out.push('{');
                rest = &tag[1..];
                continue;
            }
            out.push_str(whole);
        } else if close == "#}" {
            out.push_str(whole);
        } else if words > MOST_IN_TAG {
            let line = 1 + out.matches('\n').count();
            return Err(syntax(format!("the tag in line {line} has {words} words and signs, expected at most {MOST_IN_TAG}")));
        } else if close == "%}" {
            match keyword {
                "generation" => out.push_str(&format!("{{%{left} if true {right}%}}")),
                "endgeneration" => out.push_str(&format!("{{%{left} endif {right}%}}")),
                _ => {
                    is_raw = keyword == "raw";
                    match counted(bare) {
                        Some((tag, names)) => {
                            // What trims on the right is to stand at the end.
                            out.push_str(&format!("{{%{left}{tag}"));
                            for name in names {
                                out.push_str(&format!("%}}{{% set {name} = {name} | {BOUND} "));
                            }
                            out.push_str(&format!("{right}%}}"));
                        }
                        None => out.push_str(whole),
                    }
                }
            }
        } else {
            out.push_str(whole);
        }
        rest = &tag[end..];
    }
    out.push_str(rest);
    Ok(out)
}

/// A tag that gives names to values, with what is assigned led through a filter, and the names that are to be led through one behind it.
fn counted(tag: &str) -> Option<(String, Vec<&str>)> {
    static ASSIGNMENT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*set\s+([\w\s,.()]+?)=([^=][\s\S]*)$"));
    static LOOP: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*for\s+([\w\s,()]+?)\s+in\s"));
    static WITH: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*with\s+([\s\S]*)$"));
    static PARAMETERS: LazyLock<Regex> = LazyLock::new(|| pattern(r"^\s*(?:macro\s+\w+|call)\s*\(([\s\S]*)$"));
    if let Some(parts) = ASSIGNMENT.captures(tag) {
        let filter = if parts[1].contains('.') { KEPT } else { BOUND };
        return Some((format!(" set {}=({}) | {filter} ", &parts[1], &parts[2]), Vec::new()));
    }
    let names = match LOOP.captures(tag) {
        Some(parts) => parts.get(1)?.as_str().split(|c: char| !is_word(c)).filter(|name| !name.is_empty()).collect(),
        None => leading_names(WITH.captures(tag).or_else(|| PARAMETERS.captures(tag))?.get(1)?.as_str()),
    };
    Some((tag.to_owned(), names))
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("the pattern is a constant")
}

/// The names in front of `a, b=1, c=[2, 3]`, up to a bracket that was not opened.
fn leading_names(list: &str) -> Vec<&str> {
    let (mut names, mut start, mut depth, mut quote) = (Vec::new(), 0, 0usize, None);
    let mut add = |from: usize, to: usize| {
        let part = list[from..to].trim_start();
        let name = &part[..part.find(|c| !is_word(c)).unwrap_or(part.len())];
        if !name.is_empty() {
            names.push(name);
        }
    };
    for (at, c) in list.char_indices() {
        match (quote, c) {
            (Some(open), _) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') if depth == 0 => {
                add(start, at);
                return names;
            }
            (None, ')' | ']' | '}') => depth -= 1,
            (None, ',') if depth == 0 => {
                add(start, at);
                start = at + 1;
            }
            _ => {}
        }
    }
    add(start, list.len());
    names
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Where a tag ends (behind `close`, or at the end of the text), and how many words and signs stand in it outside of strings.
fn end_of_tag(tag: &str, close: &str) -> (usize, usize) {
    let is_comment = close == "#}";
    let (mut quote, mut escaped, mut in_word, mut words, mut open_braces) = (None, false, false, 0, 0usize);
    for (at, c) in tag.char_indices().skip(2) {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if open_braces == 0 && tag[at..].starts_with(close) => return (at + close.len(), words),
            None if is_comment => {}
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                words += 1;
            }
            None => {
                words += usize::from(!(c.is_whitespace() || is_word(c) && in_word));
                in_word = is_word(c);
                match c {
                    '(' | '[' | '{' => open_braces += 1,
                    ')' | ']' | '}' => open_braces = open_braces.saturating_sub(1),
                    _ => {}
                }
            }
        }
    }
    (tag.len(), words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_gets_a_name_is_counted_and_trimming_stays_at_the_end() {
        for (source, expected) in [
            ("{%- set a = b + c -%}", "{%- set a =( b + c ) | bound_to_a_name -%}"),
            ("{% set ns.a = b %}", "{% set ns.a =( b ) | kept_by_a_namespace %}"),
            ("{% set a %}", "{% set a %}"),
            ("{% set a | trim %}", "{% set a | trim %}"),
            (
                "{% for k, v in a.items() if k == v -%}",
                "{% for k, v in a.items() if k == v %}{% set k = k | bound_to_a_name %}{% set v = v | bound_to_a_name -%}",
            ),
            (
                "{% macro f(a, b='x, y', c=[d, 1]) %}",
                "{% macro f(a, b='x, y', c=[d, 1]) %}{% set a = a | bound_to_a_name %}{% set b = b | bound_to_a_name %}{% set c = c | bound_to_a_name %}",
            ),
            ("{% macro f() -%}", "{% macro f() -%}"),
            ("{% with a = f(b, c) %}", "{% with a = f(b, c) %}{% set a = a | bound_to_a_name %}"),
            ("{% call(a) f(b) %}", "{% call(a) f(b) %}{% set a = a | bound_to_a_name %}"),
            ("{% raw %}{% set a = b %}{% endraw %}", "{% raw %}{% set a = b %}{% endraw %}"),
        ] {
            assert_eq!(prepare(source).unwrap(), expected, "{source}");
        }
    }
}
