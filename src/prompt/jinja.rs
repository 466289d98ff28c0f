//! transformers' Jinja environment (`_cached_compile_jinja_template` in `utils/chat_template_utils.py`) for a template that may be hostile.
//!
//! Blocks are trimmed; there are loop controls, `raise_exception`, `strftime_now`, a `tojson` that does not escape HTML, Python's string
//! methods and `generation` blocks. Fuel bounds steps and output; what is left to recursion is bounded before the parser sees it.

use super::json;
use super::rewrite::{BOUND, KEPT, prepare};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Rest, StringInput, Value, ValueKind, from_args};
use minijinja::{Environment, Error, ErrorKind, State, escape_formatter};
use std::collections::BTreeSet;
use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};

/// Steps that one rendering may take, each of which may also write 64 bytes; real templates take a few thousand.
pub const FUEL: u64 = 1_000_000;
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
    // It breaks lines where Python's does not; a template that asks for it is refused by that name.
    environment.remove_filter("pprint");
    environment.set_formatter(|out, state, value| match f64::try_from(value.clone()) {
        Ok(float) if value.is_number() && !value.is_integer() && float.is_finite() => Ok(out.write_str(&json::python_float(float))?),
        _ => escape_formatter(out, state, value),
    });
    environment.add_filter("wordcount", |text: String| text.split_whitespace().count());
    environment.add_filter(KEPT, kept);
    environment.add_filter(BOUND, bound);
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

/// A namespace is the only thing that can change, so the only one that could come to contain itself, or grow deeper with every turn of a
/// loop; printing or comparing either would never end.
fn kept(state: &State, value: Value) -> Result<Value, Error> {
    if is_namespace(&value) {
        return Err(invalid("a namespace cannot keep a namespace"));
    }
    count(state, &value, &mut |object, depth| {
        if is_namespace(object) {
            return Err(invalid("a namespace cannot keep a namespace"));
        }
        if depth > DEEPEST {
            return Err(invalid(format!("a namespace keeps lists that are nested more than {DEEPEST} deep")));
        }
        Ok(true)
    })?;
    Ok(value)
}

/// Whatever gets a name costs a step per item: sums and repetitions of lists are made when they are looked at, so a few lines could stand
/// for more items than there is memory.
fn bound(state: &State, value: Value) -> Result<Value, Error> {
    // What a namespace keeps was counted when it was put there, and it may be large.
    count(state, &value, &mut |object, depth| Ok(depth <= DEEPEST && !is_namespace(object)))?;
    Ok(value)
}

fn is_namespace(value: &Value) -> bool {
    value.as_object().is_some_and(|object| object.type_name().contains("Namespace"))
}

/// Takes a step for every item inside of a value. `enter` says of every list or table, with its depth, whether to look into it.
fn count(state: &State, value: &Value, enter: &mut dyn FnMut(&Value, usize) -> Result<bool, Error>) -> Result<(), Error> {
    fn walk(state: &State, value: &Value, depth: usize, enter: &mut dyn FnMut(&Value, usize) -> Result<bool, Error>) -> Result<(), Error> {
        if value.as_object().is_none() || !enter(value, depth)? {
            return Ok(());
        }
        let is_table = match value.kind() {
            ValueKind::Map => true,
            ValueKind::Seq | ValueKind::Iterable => false,
            _ => return Ok(()),
        };
        for item in value.try_iter()? {
            state.consume_fuel(1)?;
            let item = if is_table { value.get_item(&item)? } else { item };
            walk(state, &item, depth + 1, enter)?;
        }
        Ok(())
    }
    walk(state, value, 0, enter)
}

/// Templates that print today's date would make token ids depend on the day of the run; they all get this one.
fn strftime_frozen(format: &str) -> Result<String, Error> {
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
