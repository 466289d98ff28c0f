//! The tokenizer of a folder as transformers 5 loads it: `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json` and
//! `added_tokens.json` together, in the order in which they count there (`PreTrainedTokenizerBase._from_pretrained` and
//! `TokenizersBackend.__init__`). `add_bos_token` and `add_eos_token` mean nothing beside a `tokenizer.json`, as there.

use super::classes::Class;
use crate::checkpoint::read_json;
use crate::guard::{brief, guarded};
use anyhow::{Context, Result, anyhow, bail, ensure};
use onig::{MatchParam, SearchOptions};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tokenizers::{AddedToken, Tokenizer};

/// Special tokens that every tokenizer of transformers may have, in its order.
pub const NAMED: [&str; 7] = ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];
/// Kinds of models for which transformers replaces a pre-tokenizer if it is told to (`_patch_mistral_regex`).
const MISTRAL: [&str; 5] = ["mistral", "mistral3", "voxtral", "ministral", "pixtral"];
/// How much longer a normalizer may make a text.
const GROWTH: f64 = 64.0;
/// Tokens that a post-processor may put around a text.
const AROUND: f64 = 1024.0;

/// A tokenizer with what `tokenizer_config.json` says about it.
pub struct Vocabulary {
    pub tokenizer: Tokenizer,
    /// Special tokens by name, as templates see them.
    pub named: BTreeMap<String, String>,
}

/// `tokenizer.json` without its vocabulary.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Outline {
    normalizer: Value,
    pre_tokenizer: Value,
    post_processor: Value,
    added_tokens: Vec<Value>,
}

/// What the small files of a folder say.
struct Files {
    class: Class,
    /// `tokenizer_config.json`; empty where there is none.
    settings: Map<String, Value>,
    /// Named special tokens in the order in which transformers adds them. A token without text was set to null.
    named: Vec<(String, AddedToken)>,
    /// Special tokens without a name.
    extra: Vec<AddedToken>,
    /// Tokens that the files beside `tokenizer.json` add, by id.
    added: BTreeMap<u64, AddedToken>,
}

/// Special tokens by name, as transformers hands them to templates: those of the files, or the defaults of the tokenizer's class.
///
/// # Errors
/// A file is there but cannot be read or understood.
pub fn special_tokens(folder: &Path) -> Result<BTreeMap<String, String>> {
    let path = folder.join("tokenizer.json");
    let text = if path.is_file() { read(&path)? } else { String::new() };
    Ok(Files::read(folder, &text, &Outline::default())?.names())
}

/// Loads the tokenizer of a folder.
///
/// # Errors
/// There is no `tokenizer.json`, or one of the files cannot be read or understood.
pub fn load(folder: &Path) -> Result<Vocabulary> {
    let path = folder.join("tokenizer.json");
    ensure!(
        path.is_file(),
        "{}: missing; expected a fast tokenizer (save one with AutoTokenizer.from_pretrained(...).save_pretrained(...))",
        path.display()
    );
    let text = read(&path)?;
    let place = || path.display().to_string();
    let invalid = |error: serde_json::Error| anyhow!("{}: not a tokenizer ({})", path.display(), brief(&error.to_string()));
    let outline: Outline = serde_json::from_str(&text).map_err(invalid)?;
    outline.check_growth().with_context(place)?;
    let files = Files::read(folder, &text, &outline)?;
    let unk_token = files.named.iter().find(|(name, _)| name == "unk_token").map(|(_, token)| token.content.clone());
    let parsed = if files.class == Class::Backend {
        guarded("the tokenizers library", || text.parse::<Tokenizer>().map_err(|error| error.to_string()))
    } else {
        let file = serde_json::from_str(&text).map_err(invalid)?;
        let file = files.class.rebuild(file, &files.settings, unk_token.as_deref()).with_context(place)?;
        guarded("the tokenizers library", || serde_json::from_value::<Tokenizer>(file).map_err(|error| error.to_string()))
    };
    let mut tokenizer = parsed.with_context(place)?.map_err(|error| anyhow!("{}: not a tokenizer ({})", path.display(), brief(&error)))?;
    let failed = |error: tokenizers::Error| anyhow!("{}: {}", path.display(), brief(&error.to_string()));
    tokenizer.with_truncation(None).map_err(failed)?.with_padding(None);
    guarded("the tokenizers library", || files.add_tokens(&mut tokenizer)).with_context(place)?.map_err(failed)?;
    if files.settings.get("split_special_tokens").and_then(Value::as_bool) == Some(true) {
        tokenizer.set_encode_special_tokens(true);
    }
    Ok(Vocabulary { tokenizer, named: files.names() })
}

impl Files {
    fn read(folder: &Path, tokenizer: &str, outline: &Outline) -> Result<Self> {
        let object = |name: &str| -> Result<Option<Map<String, Value>>> {
            let path = folder.join(name);
            if !path.is_file() {
                return Ok(None);
            }
            match read_json(&path)? {
                Value::Object(object) => Ok(Some(object)),
                other => bail!("{}: found {}, expected an object", path.display(), brief(&other.to_string())),
            }
        };
        let settings = object("tokenizer_config.json")?.unwrap_or_default();
        let model = object("config.json")?.unwrap_or_default();
        let word = |table: &Map<String, Value>, key: &str| table.get(key).and_then(Value::as_str).map(str::to_owned);
        let declared = word(&settings, "tokenizer_class").or_else(|| word(&model, "tokenizer_class"));
        let model_type = word(&model, "model_type").unwrap_or_default();
        let class = Class::choose(declared.as_deref(), &model_type, tokenizer.contains("\"ByteLevel\""));
        let place = folder.join("tokenizer_config.json");
        let class = class.with_context(|| place.display().to_string())?;
        let fixes_regex = settings.get("fix_mistral_regex").and_then(Value::as_bool) == Some(true);
        ensure!(
            !fixes_regex || !MISTRAL.contains(&model_type.as_str()),
            "{}: fix_mistral_regex: found true, which transformers 5 reads as another pre-tokenizer that is not read here; save the tokenizer \
             that it made",
            place.display()
        );
        let mut files = Self { class, settings, named: Vec::new(), extra: Vec::new(), added: BTreeMap::new() };
        let mut keys = files.settings.clone();
        rename_extra(&mut keys);
        match files.settings.get("added_tokens_decoder").cloned() {
            Some(table) => {
                let table = table.as_object().with_context(|| format!("{}: added_tokens_decoder: expected an object", place.display()))?;
                for (id, token) in table {
                    let id = id.parse().with_context(|| format!("{}: added_tokens_decoder: {id:?} is no token id", place.display()))?;
                    files.added.insert(id, added_token(token, None).with_context(|| place.display().to_string())?);
                }
            }
            None => files.read_legacy(&mut keys, object("special_tokens_map.json")?, object("added_tokens.json")?, outline)?,
        }
        files.name_tokens(keys).with_context(|| place.display().to_string())?;
        Ok(files)
    }

    /// What counts only without `added_tokens_decoder`: the two files of before, and the tokens that `tokenizer.json` has itself.
    fn read_legacy(
        &mut self,
        keys: &mut Map<String, Value>,
        special_tokens_map: Option<Map<String, Value>>,
        added_tokens: Option<Map<String, Value>>,
        outline: &Outline,
    ) -> Result<()> {
        for (key, value) in special_tokens_map.into_iter().flatten() {
            let value = match value {
                Value::Object(mut token) if key != "extra_special_tokens" => {
                    token.insert("special".to_owned(), json!(true));
                    Value::Object(token)
                }
                value => value,
            };
            keys.insert(key, value);
        }
        rename_extra(keys);
        let list = keys.get("extra_special_tokens").and_then(Value::as_array);
        let special: BTreeSet<&str> =
            NAMED.iter().filter_map(|name| keys.get(*name)).chain(list.into_iter().flatten()).filter_map(content).collect();
        for (token, id) in added_tokens.into_iter().flatten() {
            let id = id.as_u64().with_context(|| format!("added_tokens.json: {token:?}: found {id}, expected a token id"))?;
            let is_special = special.contains(token.as_str());
            self.added.insert(id, AddedToken::from(token, is_special).normalized(!is_special));
        }
        for token in &outline.added_tokens {
            let id = token.get("id").and_then(Value::as_u64).context("tokenizer.json: an added token has no id")?;
            self.added.insert(id, added_token(token, None)?);
        }
        Ok(())
    }

    /// Finds the named special tokens and the unnamed ones.
    fn name_tokens(&mut self, keys: Map<String, Value>) -> Result<()> {
        let known: BTreeMap<String, AddedToken> = self.added.values().map(|token| (token.content.clone(), token.clone())).collect();
        let token = |value: &Value| -> Result<AddedToken> {
            let token = added_token(value, Some(true))?;
            Ok(known.get(&token.content).cloned().unwrap_or(token))
        };
        let defaults: BTreeMap<&str, &str> = self.class.defaults().iter().copied().collect();
        for name in NAMED {
            let default = || defaults.get(name).map(|token| json!(token));
            let Some(value) = keys.get(name).cloned().or_else(default).filter(|value| !value.is_null()) else { continue };
            self.named.push((name.to_owned(), token(&value).with_context(|| name.to_owned())?));
        }
        let of_ones_own =
            keys.iter().filter(|(key, value)| key.ends_with("_token") && !NAMED.contains(&key.as_str()) && content(value).is_some());
        let extra = keys.get("extra_special_tokens");
        let tables = [extra, keys.get("model_specific_special_tokens")];
        let by_name = tables.into_iter().filter_map(|table| table.and_then(Value::as_object)).flatten();
        for (name, value) in of_ones_own.chain(by_name) {
            self.named.push((name.clone(), added_token(value, Some(true)).with_context(|| name.clone())?));
        }
        for value in extra.and_then(Value::as_array).into_iter().flatten() {
            self.extra.push(added_token(value, Some(true)).context("extra_special_tokens")?);
        }
        Ok(())
    }

    fn names(&self) -> BTreeMap<String, String> {
        self.named.iter().map(|(name, token)| (name.clone(), token.content.clone())).collect()
    }

    /// Adds what `tokenizer.json` lacks, or has with other properties.
    fn add_tokens(&self, tokenizer: &mut Tokenizer) -> tokenizers::Result<()> {
        let there = tokenizer.get_added_tokens_decoder();
        let mut new: Vec<AddedToken> = self.added.values().filter(|token| !there.values().any(|known| known == *token)).cloned().collect();
        let mut known: BTreeSet<String> = there.into_values().chain(new.iter().cloned()).map(|token| token.content).collect();
        let special = || self.named.iter().map(|(_, token)| token).chain(&self.extra);
        for token in special() {
            if known.insert(token.content.clone()) {
                new.push(token.clone());
            }
        }
        for token in &mut new {
            token.special |= self.named.iter().any(|(_, named)| named.content == token.content);
        }
        tokenizer.add_tokens(new)?;
        if self.class == Class::Qwen2 {
            tokenizer.add_tokens(special().map(|token| AddedToken::from(token.content.clone(), true)).collect::<Vec<_>>())?;
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|error| anyhow!("{}: cannot be read ({error})", path.display()))
}

/// A list of the old name counts where there is none of the new one.
fn rename_extra(keys: &mut Map<String, Value>) {
    let is_there = keys.get("extra_special_tokens").is_some_and(is_filled);
    if let Some(list) = keys.remove("additional_special_tokens").filter(|_| !is_there) {
        keys.insert("extra_special_tokens".to_owned(), list);
    }
}

fn is_filled(value: &Value) -> bool {
    value.as_array().is_some_and(|list| !list.is_empty()) || value.as_object().is_some_and(|table| !table.is_empty())
}

/// The text of a token, which is written as text or as an object.
fn content(token: &Value) -> Option<&str> {
    token.get("content").unwrap_or(token).as_str()
}

/// A token as text, or as an object with its properties; `special` says what it is where the object does not.
fn added_token(value: &Value, special: Option<bool>) -> Result<AddedToken> {
    let Some(text) = content(value) else { bail!("found {}, expected a token as text or as an object", brief(&value.to_string())) };
    let flag = |key: &str| value.get(key).and_then(Value::as_bool);
    let special = flag("special").or(special).unwrap_or(false);
    let token = AddedToken::from(text, special).single_word(flag("single_word").unwrap_or(false));
    let token = token.lstrip(flag("lstrip").unwrap_or(false)).rstrip(flag("rstrip").unwrap_or(false));
    Ok(token.normalized(flag("normalized").unwrap_or(!special)))
}

impl Outline {
    /// Refuses a file that would make a short text enormous.
    fn check_growth(&self) -> Result<()> {
        let growth = growth(&self.normalizer) * growth(&self.pre_tokenizer);
        ensure!(growth <= GROWTH, "its normalizers make a text up to {growth:.0} times as long, expected at most {GROWTH} times");
        let (texts, tokens) = around(&self.post_processor);
        ensure!(
            texts <= 2.0 && tokens <= AROUND,
            "its post-processor repeats a text {texts} times among {tokens} tokens of its own, expected once and at most {AROUND}"
        );
        Ok(())
    }
}

/// How many times as long a text may become.
fn growth(step: &Value) -> f64 {
    let steps = ["normalizers", "pretokenizers"].into_iter().find_map(|key| step.get(key)?.as_array());
    if let Some(steps) = steps {
        return steps.iter().map(growth).product();
    }
    let length = |text: Option<&Value>| text.and_then(Value::as_str).map_or(0, str::len) as f64;
    match step.get("type").and_then(Value::as_str) {
        Some("Replace") => {
            let content = length(step.get("content"));
            match step.pointer("/pattern/String") {
                Some(pattern) => (content / length(Some(pattern)).max(1.0)).max(1.0),
                // Where a pattern matches nothing, it matches between all characters.
                None => content.max(1.0) + if matches_nothing(step.pointer("/pattern/Regex")) { content.min(1.0) } else { 0.0 },
            }
        }
        // Once per text, or per piece of it.
        Some("Prepend") => 1.0 + length(step.get("prepend")),
        _ => 1.0,
    }
}

/// Whether a pattern matches an empty text, or may: the engine gives up on patterns that would search for ever.
fn matches_nothing(pattern: Option<&Value>) -> bool {
    let regex = pattern.and_then(Value::as_str).and_then(|pattern| onig::Regex::new(pattern).ok());
    let matched = |regex: onig::Regex| regex.match_with_param("", 0, SearchOptions::SEARCH_OPTION_NONE, None, MatchParam::default());
    regex.is_none_or(|regex| matched(regex).map_or(true, |found| found.is_some()))
}

/// How often a post-processor repeats the text, and how many tokens it adds.
fn around(step: &Value) -> (f64, f64) {
    if let Some(steps) = step.get("processors").and_then(Value::as_array) {
        return steps.iter().map(around).fold((1.0, 0.0), |(texts, tokens), (t, n)| (texts * t, tokens * t + n));
    }
    let Some(single) = step.get("single").and_then(Value::as_array) else { return (1.0, 2.0) };
    let ids = |piece: &Value| {
        let id = piece.pointer("/SpecialToken/id")?.as_str()?;
        Some(step.get("special_tokens")?.get(id)?.get("ids")?.as_array()?.len() as f64)
    };
    let texts = single.iter().filter(|piece| piece.get("Sequence").is_some()).count() as f64;
    (texts.max(1.0), single.iter().filter_map(ids).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_that_the_engine_gives_up_on_counts_as_one_that_matches_nothing() {
        let endless = "(?:|a?)".repeat(27) + "(?=c)";
        let regex = onig::Regex::new(&endless).unwrap();
        assert!(regex.match_with_param("", 0, SearchOptions::SEARCH_OPTION_NONE, None, MatchParam::default()).is_err());
        assert!(matches_nothing(Some(&json!(endless))));
        assert!(matches_nothing(Some(&json!("a*"))) && !matches_nothing(Some(&json!("a+"))));
    }
}
