//! transformers' Jinja environment (`_cached_compile_jinja_template` in `utils/chat_template_utils.py`) for a template that may be hostile.
//!
//! Blocks are trimmed; there are loop controls, `raise_exception`, `strftime_now`, a `tojson` that does not escape HTML, Python's string
//! methods and `generation` blocks. Fuel bounds steps and output; what is left to recursion is bounded before the parser sees it.

use super::json;
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, StringInput, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State};
use regex::Regex;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

/// Steps that one rendering may take, each of which may also write 64 bytes; real templates take a few thousand.
pub const FUEL: u64 = 1_000_000;
/// Longest template in bytes; the longest published ones have 30,000.
const LONGEST: usize = 1 << 19;
/// Most words and signs in one tag: the parser's recursion grows with them.
const MOST_IN_TAG: usize = 8192;
/// How deeply lists may be nested that a namespace keeps.
const DEEPEST: usize = 32;
/// The widest field of `format` and the like.
const WIDEST: usize = 10_000;

/// The name under which the template stands in its environment.
pub const CHAT: &str = "chat";

/// Compiles a template.
///
/// # Errors
/// The source is not valid Jinja, or too long.
pub fn environment(source: &str) -> Result<Environment<'static>, Error> {
    let source = prepare(source)?;
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(method);
    environment.add_function("raise_exception", |message: String| -> Result<Value, Error> { Err(invalid(message)) });
    environment.add_function("strftime_now", strftime_frozen);
    environment.add_filter("tojson", to_json);
    environment.add_filter("wordcount", |text: String| text.split_whitespace().count());
    environment.add_filter(KEPT, kept);
    environment.add_test("defined", |value: &Value| !is_missing(value));
    environment.add_test("undefined", is_missing);
    for name in ["default", "d"] {
        environment.add_filter(name, |state: &State, value: &Value, args: Rest<Value>| {
            let value = if is_missing(value) { &Value::UNDEFINED } else { value };
            minijinja::filters::default(state, value, args)
        });
    }
    environment.add_template_owned(CHAT, source)?;
    Ok(environment)
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}

/// A special token that the tokenizer does not have. transformers renders it as nothing, which makes ids that no model was trained on, so
/// printing it is noted; asking whether it is there is fine.
#[derive(Debug)]
pub struct Unbound {
    pub name: String,
    /// Names of those that were printed.
    pub printed: Arc<Mutex<BTreeSet<String>>>,
}

impl Object for Unbound {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }
    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::NonEnumerable
    }
    fn is_true(self: &Arc<Self>) -> bool {
        false
    }
    fn render(self: &Arc<Self>, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.printed.lock().unwrap_or_else(PoisonError::into_inner).insert(self.name.clone());
        Ok(())
    }
}

fn is_missing(value: &Value) -> bool {
    value.is_undefined() || value.downcast_object_ref::<Unbound>().is_some()
}

/// The filter through which goes whatever a namespace keeps.
const KEPT: &str = "kept_by_a_namespace";

/// A namespace is the only thing that can change, so the only one that could come to contain itself, or grow deeper with every turn of a
/// loop; printing or comparing either would never end.
fn kept(state: &State, value: Value) -> Result<Value, Error> {
    fn walk(state: &State, value: &Value, depth: usize) -> Result<(), Error> {
        let Some(object) = value.as_object() else { return Ok(()) };
        if object.type_name().contains("Namespace") {
            return Err(invalid("a namespace cannot keep a namespace"));
        }
        if depth == DEEPEST {
            return Err(invalid(format!("a namespace keeps lists that are nested more than {DEEPEST} deep")));
        }
        match value.kind() {
            ValueKind::Seq | ValueKind::Iterable => {
                for item in value.try_iter()? {
                    state.consume_fuel(1)?;
                    walk(state, &item, depth + 1)?;
                }
            }
            ValueKind::Map => {
                for key in value.try_iter()? {
                    state.consume_fuel(1)?;
                    walk(state, &value.get_item(&key)?, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
    walk(state, &value, 0)?;
    Ok(value)
}

/// Line ends as Jinja's lexer has them, `generation` blocks as blocks that are always there, and assignments to namespaces through [`kept`].
fn prepare(source: &str) -> Result<String, Error> {
    static ASSIGNMENT: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"^\s*set\s+([\w\s,.()]*\.[\w\s,.()]*?)=([^=][\s\S]*)$").expect("the pattern is a constant"));
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
                    match ASSIGNMENT.captures(bare) {
                        Some(parts) => out.push_str(&format!("{{%{left} set {}=({}) | {KEPT} {right}%}}", &parts[1], &parts[2])),
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
                let is_word = c.is_alphanumeric() || c == '_';
                words += usize::from(!(c.is_whitespace() || is_word && in_word));
                in_word = is_word;
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

/// Templates that print today's date would make token ids depend on the day of the run; they all get this one.
fn strftime_frozen(format: &str) -> Result<String, Error> {
    use std::fmt::Write;
    let day = chrono::NaiveDate::from_ymd_opt(2025, 3, 7).and_then(|date| date.and_hms_opt(16, 5, 9));
    let mut text = String::new();
    match day.map(|day| write!(text, "{}", day.format(format))) {
        Some(Ok(())) => Ok(text),
        _ => Err(invalid(format!("strftime_now: unknown format {format:?}"))),
    }
}

/// `tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False)` of transformers, which is `json.dumps`.
fn to_json(state: &State, value: &Value, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let failed = |error: serde_json::Error| Error::new(ErrorKind::BadSerialization, error.to_string());
    if positional.len() > 4 {
        return Err(Error::from(ErrorKind::TooManyArguments));
    }
    let option = |place: usize, name: &str| -> Result<Option<Value>, Error> {
        let value: Option<Value> = if named.has(name) { named.get(name)? } else { positional.get(place).cloned() };
        Ok(value.filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let is_true = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let ensure_ascii = is_true(option(0, "ensure_ascii")?);
    let indent = match option(1, "indent")? {
        None => None,
        Some(text) if text.as_str().is_some() => text.as_str().map(str::to_owned),
        Some(number) => {
            Some(" ".repeat(usize::try_from(number).map_err(|_| invalid("tojson: expected indent as a small number"))?.min(WIDEST)))
        }
    };
    if indent.as_ref().is_some_and(|indent| indent.len() > 100) {
        return Err(invalid("tojson: expected an indent of at most 100"));
    }
    let separators = match option(2, "separators")? {
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
        Some(pair) => {
            let pair: Vec<Value> = pair.try_iter()?.collect();
            match pair.as_slice() {
                [item, key] => (item.to_string(), key.to_string()),
                _ => return Err(invalid("tojson: expected separators as two texts")),
            }
        }
    };
    let sort_keys = is_true(option(3, "sort_keys")?);
    named.assert_all_used()?;
    let value = serde_json::to_value(value).map_err(failed)?;
    let text = json::Style { ensure_ascii, indent, separators, sort_keys }.dumps(&value);
    state.consume_fuel(text.len() as u64 / 64)?;
    Ok(text)
}

/// Python's methods: those of the library, and some that it lacks.
fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let Some(text) = value.as_str().map(str::to_owned) else {
        return minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args);
    };
    let strings = |pair: [&str; 3]| Value::from(minijinja::value::Tuple::from(pair.map(Value::from).to_vec()));
    match name {
        "format" => {
            if args.len() > 1000 || widest(&text) > WIDEST {
                return Err(invalid(format!("format: expected fields of at most {WIDEST} characters")));
            }
            minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args)
        }
        "removeprefix" => {
            let (prefix,): (StringInput,) = from_args(args)?;
            Ok(Value::from(text.strip_prefix(prefix.as_str()).unwrap_or(&text)))
        }
        "removesuffix" => {
            let (suffix,): (StringInput,) = from_args(args)?;
            Ok(Value::from(text.strip_suffix(suffix.as_str()).unwrap_or(&text)))
        }
        "partition" | "rpartition" => {
            let (by,): (StringInput,) = from_args(args)?;
            let by = by.as_str();
            if by.is_empty() {
                return Err(invalid("empty separator"));
            }
            let (parts, missing) = match name {
                "partition" => (text.split_once(by), [text.as_str(), "", ""]),
                _ => (text.rsplit_once(by), ["", "", text.as_str()]),
            };
            Ok(strings(parts.map_or(missing, |(before, after)| [before, by, after])))
        }
        "rsplit" => {
            let (by, most): (Option<StringInput>, Option<i64>) = from_args(args)?;
            let most = most.and_then(|most| usize::try_from(most).ok());
            let mut parts: Vec<String> = match (by, most) {
                (Some(by), _) if by.as_str().is_empty() => return Err(invalid("empty separator")),
                (Some(by), None) => text.rsplit(by.as_str()).map(str::to_owned).collect(),
                (Some(by), Some(most)) => text.rsplitn(most + 1, by.as_str()).map(str::to_owned).collect(),
                (None, most) => rsplit_whitespace(&text, most.unwrap_or(usize::MAX)),
            };
            parts.reverse();
            state.consume_fuel(parts.len() as u64)?;
            Ok(Value::from(parts))
        }
        "zfill" => {
            let (width,): (usize,) = from_args(args)?;
            if width > WIDEST {
                return Err(invalid(format!("zfill: expected a width of at most {WIDEST}")));
            }
            let sign = text.len() - text.trim_start_matches(['+', '-']).len();
            let (sign, digits) = text.split_at(sign.min(1));
            Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(width.saturating_sub(text.chars().count())))))
        }
        _ => minijinja_contrib::pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// Words from the right, the last one first; what is left after `most` cuts is one piece.
fn rsplit_whitespace(text: &str, most: usize) -> Vec<String> {
    let mut parts = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        match rest.rfind(char::is_whitespace).filter(|_| parts.len() < most) {
            Some(at) => {
                let space = rest[at..].chars().next().map_or(1, char::len_utf8);
                parts.push(rest[at + space..].to_owned());
                rest = rest[..at].trim_end();
            }
            None => {
                parts.push(rest.to_owned());
                rest = "";
            }
        }
    }
    parts
}

/// The largest number in a format's fields.
fn widest(format: &str) -> usize {
    let numbers = format.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.map(|digits| digits.parse().unwrap_or(usize::MAX)).max().unwrap_or(0)
}
