//! Which tokens end a text, as the files of a model say it.

use super::vocabulary::special_tokens;
use crate::checkpoint::read_json;
use crate::guard::brief;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::Path;

/// Keys of `generation_config.json` that change what transformers writes greedily, with the values that change nothing.
const CHANGING: &[(&str, f64)] = &[
    ("repetition_penalty", 1.0),
    ("encoder_repetition_penalty", 1.0),
    ("no_repeat_ngram_size", 0.0),
    ("encoder_no_repeat_ngram_size", 0.0),
    ("min_length", 0.0),
    ("min_new_tokens", 0.0),
    ("num_beams", 1.0),
    ("guidance_scale", 1.0),
];
/// Those with lists.
const LISTS: &[&str] =
    &["bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "forced_eos_token_id", "forced_bos_token_id"];

/// What a model's files say about the end of its texts.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Endings {
    /// Tokens that end a text, in ascending order.
    pub stop: Vec<i64>,
    /// Settings of `generation_config.json` that change what is written, `key value` each; they are not followed.
    pub passed_over: Vec<String>,
}

impl Endings {
    /// Reads the folder `model`: `eos_token_id` of `generation_config.json`, or of `config.json` where there is none, as transformers has it;
    /// and beside them the `eos_token` of the folder `tokenizer`, which chat models end their turns with whatever the other files say.
    /// `id` finds a token's id.
    ///
    /// # Errors
    /// A file cannot be read, or a value is no token id.
    pub fn read(model: &Path, tokenizer: Option<&Path>, id: &dyn Fn(&str) -> Option<i64>) -> Result<Self> {
        let optional = |name: &str| -> Result<Option<Value>> {
            let path = model.join(name);
            if path.is_file() { read_json(&path).map(Some) } else { Ok(None) }
        };
        let config = optional("config.json")?.unwrap_or_default();
        let generation = optional("generation_config.json")?;
        let mut stop = Vec::new();
        let of_generation = generation.as_ref().and_then(|table| table.get("eos_token_id")).filter(|value| !value.is_null());
        match of_generation {
            Some(value) => ids(value, &mut stop).with_context(|| model.join("generation_config.json").display().to_string())?,
            None => {
                let text = config.get("text_config").and_then(|table| table.get("eos_token_id"));
                let value = config.get("eos_token_id").filter(|value| !value.is_null()).or(text);
                ids(value.unwrap_or(&Value::Null), &mut stop).with_context(|| model.join("config.json").display().to_string())?;
            }
        }
        if let Some(folder) = tokenizer {
            stop.extend(special_tokens(folder)?.get("eos_token").and_then(|token| id(token)));
        }
        stop.sort_unstable();
        stop.dedup();
        Ok(Self { stop, passed_over: generation.as_ref().map_or_else(Vec::new, passed_over) })
    }
}

/// One token id, a list of them, or none.
fn ids(value: &Value, found: &mut Vec<i64>) -> Result<()> {
    match value {
        Value::Null => {}
        Value::Array(list) => list.iter().try_for_each(|value| ids(value, found))?,
        // Some configurations have -1 for none.
        value => match value.as_i64() {
            Some(id) => found.extend((id >= 0).then_some(id)),
            None => bail!("eos_token_id: found {}, expected a token id or a list of them", brief(&value.to_string())),
        },
    }
    Ok(())
}

fn passed_over(generation: &Value) -> Vec<String> {
    let number = |key: &str| generation.get(key).and_then(Value::as_f64);
    let changing = CHANGING.iter().filter(|(key, neutral)| number(key).is_some_and(|value| value != *neutral)).map(|(key, _)| *key);
    let lists = LISTS.iter().copied().filter(|key| generation.get(*key).is_some_and(|value| !value.is_null()));
    changing.chain(lists).map(|key| format!("{key} {}", brief(&generation[key].to_string()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(config: &str, generation: Option<&str>) -> Result<Endings> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("config.json"), config)?;
        if let Some(text) = generation {
            std::fs::write(folder.path().join("generation_config.json"), text)?;
        }
        Endings::read(folder.path(), None, &|_| None)
    }

    #[test]
    fn the_generation_config_comes_before_the_config() {
        let stop = |config: &str, generation: Option<&str>| read(config, generation).unwrap().stop;
        assert_eq!(stop(r#"{"eos_token_id": 2}"#, None), [2]);
        assert_eq!(stop(r#"{"eos_token_id": 2}"#, Some(r#"{"eos_token_id": [9, 7, 9]}"#)), [7, 9]);
        assert_eq!(stop(r#"{"eos_token_id": 2}"#, Some(r#"{"temperature": 0.6}"#)), [2]);
        assert_eq!(stop(r#"{"text_config": {"eos_token_id": [1, 106]}}"#, Some(r#"{"eos_token_id": null}"#)), [1, 106]);
        assert!(stop(r#"{"eos_token_id": -1}"#, None).is_empty() && stop("{}", None).is_empty());
        let error = format!("{:#}", read("{}", Some(r#"{"eos_token_id": "</s>"}"#)).unwrap_err());
        assert!(error.contains("generation_config.json") && error.contains("</s>"), "{error}");
    }

    #[test]
    fn settings_that_are_not_followed_are_named() {
        let generation = r#"{"repetition_penalty": 1.05, "do_sample": true, "top_k": 20, "num_beams": 1, "suppress_tokens": [4]}"#;
        let endings = read("{}", Some(generation)).unwrap();
        assert_eq!(endings.passed_over, ["repetition_penalty 1.05", "suppress_tokens [4]"]);
    }
}
