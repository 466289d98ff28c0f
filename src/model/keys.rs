//! Reading `config.json` without leaving anything out.
//!
//! Every key is in one of four states: a family reads it; it is known to be without effect on activations ([`INERT`]); its
//! value is neutral (null, false, empty); or it is an error that names it. So a configuration that asks for something that is
//! not implemented is refused, and no list of what each family knows has to be kept beside the code that reads it.

use crate::checkpoint::provenance::is_provenance;
use anyhow::{Result, anyhow, bail, ensure};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::BTreeSet;

/// Keys without effect on the activations of a prompt: training, generation, token ids, bookkeeping, other heads. Those of provenance
/// ([`is_provenance`]) belong here too.
const INERT: &[&str] = &[
    // Bookkeeping.
    "architectures",
    "attn_implementation",
    "auto_map",
    "dtype",
    "is_llama_config",
    "model_type",
    "task_specific_params",
    "tokenizer_class",
    "torch_dtype",
    "transformers.js_config",
    "use_bfloat16",
    "use_flash_attn",
    "use_flash_attention",
    "resume_training",
    // Training. Rates of dropout are told by their names.
    "gradient_checkpointing",
    "initializer_factor",
    "initializer_range",
    "loss_type",
    "use_gradient_checkpointing",
    "router_aux_loss_coef",
    "router_jitter_noise",
    "output_router_logits",
    "summary_activation",
    "summary_proj_to_labels",
    "summary_type",
    "summary_use_proj",
    "problem_type",
    // How, not what, is computed.
    "cache_implementation",
    "chunk_size_feed_forward",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pretraining_tp",
    "return_dict",
    "return_dict_in_generate",
    "tf_legacy_loss",
    "torchscript",
    "use_cache",
    "use_return_dict",
    // How long a prompt may be, as tokenizers and trainers are told.
    "max_position_embeddings",
    "max_seq_len",
    "max_seq_length",
    "max_sequence_length",
    "model_max_length",
    "n_ctx",
    "seq_len",
    "seq_length",
    "tokenizer_model_max_length",
    // For tokenizers.
    "bos_token",
    "eos_token",
    "pad_token",
    "padding_side",
    "truncation_side",
    "unk_token",
    // Labels of classifiers.
    "id2label",
    "label2id",
    "num_labels",
    // Generation.
    "begin_suppress_tokens",
    "bad_words_ids",
    "bos_token_id",
    "boi_token_index",
    "decoder_start_token_id",
    "diversity_penalty",
    "do_sample",
    "early_stopping",
    "encoder_no_repeat_ngram_size",
    "eoi_token_index",
    "eos_token_id",
    "exponential_decay_length_penalty",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "image_token_index",
    "length_penalty",
    "max_length",
    "max_new_tokens",
    "min_length",
    "no_repeat_ngram_size",
    "num_beam_groups",
    "num_beams",
    "num_return_sequences",
    "output_scores",
    "pad_token_id",
    "prefix",
    "remove_invalid_values",
    "repetition_penalty",
    "sep_token_id",
    "suppress_tokens",
    "temperature",
    "top_k",
    "top_p",
    "is_decoder",
    "keys_to_ignore_at_inference",
    "typical_p",
    "unk_token_id",
];
/// Keys that a family reads or, like transformers' class of it, passes over.
const OF_SOME: &[&str] = &["max_window_layers", "n_positions", "original_max_position_embeddings", "sliding_window"];

/// Whether a key is a note that no computation reads: where the model comes from, a rate of dropout, or the weight of a loss.
fn is_note(key: &str) -> bool {
    let ends = ["dropout", "dropout_prob", "_pdrop", "layerdrop", "_loss_coef"];
    is_provenance(key) || ends.iter().any(|end| key.ends_with(end))
}

/// A table of `config.json`, which remembers what was asked for.
pub struct Keys<'a> {
    table: &'a Map<String, Value>,
    /// What stands before a key in messages: nothing, or `rope_parameters.`.
    place: String,
    /// Keys, with their places, that may be unknown.
    ignored: &'a [String],
    read: RefCell<BTreeSet<String>>,
}

impl<'a> Keys<'a> {
    /// The keys of the whole file. Those in `ignored` may be unknown.
    ///
    /// # Errors
    /// It is not a table.
    pub fn new(json: &'a Value, ignored: &'a [String]) -> Result<Self> {
        Self::at(json, String::new(), ignored)
    }

    fn at(json: &'a Value, place: String, ignored: &'a [String]) -> Result<Self> {
        let table = json.as_object().ok_or_else(|| anyhow!("{}: found {json}, expected a table", place.trim_end_matches('.')))?;
        Ok(Self { table, place, ignored, read: RefCell::default() })
    }

    /// A value, or `None` where the key is absent or null.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.table.get(key).filter(|value| !value.is_null())
    }

    /// Whether this is the table at a place, as messages name it: `rope_parameters.`.
    pub fn is_at(&self, place: &str) -> bool {
        self.place.ends_with(place)
    }

    /// Whether the key stands in the file, be it as null.
    pub fn stated(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    /// Marks keys that the reference implementation of this family does not use.
    pub fn unused(&self, keys: &[&str]) {
        self.read.borrow_mut().extend(keys.iter().map(|key| (*key).to_owned()));
    }

    /// The message for a value of the wrong kind.
    pub fn wrong(&self, key: &str, value: &Value, expected: &str) -> anyhow::Error {
        anyhow!("{}{key}: found {value}, expected {expected}", self.place)
    }

    fn required(&self, key: &str) -> Result<&'a Value> {
        self.get(key).ok_or_else(|| anyhow!("key `{}{key}` is missing", self.place))
    }

    /// A table inside this one, or `None` where the key is absent, null or empty.
    ///
    /// # Errors
    /// The value is not a table.
    pub fn table(&self, key: &str) -> Result<Option<Keys<'a>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let keys = Self::at(value, format!("{}{key}.", self.place), self.ignored)?;
        Ok(if keys.table.is_empty() { None } else { Some(keys) })
    }

    /// A positive integer.
    ///
    /// # Errors
    /// The key is missing, not an integer, or not positive.
    pub fn size(&self, key: &str) -> Result<i64> {
        let value = self.required(key)?;
        match value.as_i64() {
            Some(n) if (1..=1 << 32).contains(&n) => Ok(n),
            _ => Err(self.wrong(key, value, "a positive integer")),
        }
    }

    /// A positive integer, or `default` where the key is absent or null.
    ///
    /// # Errors
    /// The value is not a positive integer.
    pub fn size_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.get(key).is_none() { Ok(default) } else { self.size(key) }
    }

    /// A finite number.
    ///
    /// # Errors
    /// The key is missing or not a number.
    pub fn number(&self, key: &str) -> Result<f64> {
        let value = self.required(key)?;
        value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| self.wrong(key, value, "a number"))
    }

    /// A finite number, or `default` where the key is absent or null.
    ///
    /// # Errors
    /// The value is not a number.
    pub fn number_or(&self, key: &str, default: f64) -> Result<f64> {
        if self.get(key).is_none() { Ok(default) } else { self.number(key) }
    }

    /// A positive number that null switches off; `default` where the key is absent.
    ///
    /// # Errors
    /// The value is not a positive number.
    pub fn switch(&self, key: &str, default: Option<f64>) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(if self.stated(key) { None } else { default }) };
        let number = self.number(key)?;
        if number > 0.0 { Ok(Some(number)) } else { Err(self.wrong(key, value, "a positive number or null")) }
    }

    /// A boolean, or `default` where the key is absent or null.
    ///
    /// # Errors
    /// The value is not a boolean.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// A string, or `default` where the key is absent or null.
    ///
    /// # Errors
    /// The value is not a string.
    pub fn text_or(&self, key: &str, default: &'a str) -> Result<&'a str> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::String(value)) => Ok(value),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    /// A list, each item through `parse`; `None` where the key is absent or null.
    ///
    /// # Errors
    /// The value is not a list, or `parse` declines an item.
    pub fn list<T>(&self, key: &str, expected: &str, parse: impl Fn(&'a Value) -> Option<T>) -> Result<Option<Vec<T>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let items = value.as_array().and_then(|items| items.iter().map(parse).collect::<Option<Vec<T>>>());
        items.map(Some).ok_or_else(|| self.wrong(key, value, expected))
    }

    /// Declines a feature that the reference implements and this crate does not: the key must be absent, null or false.
    ///
    /// # Errors
    /// Names the key and what it asks for.
    pub fn never(&self, key: &str, what: &str) -> Result<()> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) => bail!("{}{key}: found {value}, which asks for {what}; that is not implemented", self.place),
        }
    }

    /// Checks that nothing in the table was passed over.
    ///
    /// # Errors
    /// Names the first key that was not read, is not known to be without effect, and is not neutral.
    pub fn finish(&self) -> Result<()> {
        let read = self.read.borrow();
        // Families without windows, or whose window is off, see everything in every layer.
        let sees_all = !read.contains("sliding_window") || self.table.get("sliding_window") == Some(&Value::Null);
        // The one switch that is on where it is absent.
        ensure!(
            self.table.get("is_causal") != Some(&Value::Bool(false)),
            "{}is_causal: found false, which asks for attention to later tokens; that is not implemented",
            self.place
        );
        for (key, value) in self.table {
            let neutral = match value {
                Value::Null | Value::Bool(false) => true,
                Value::Array(items) => {
                    items.is_empty() || (key == "layer_types" && sees_all && items.iter().all(|item| item == "full_attention"))
                }
                Value::Object(table) => table.is_empty(),
                Value::Bool(true) => key == "is_causal",
                _ => false,
            };
            let top = self.place.is_empty() || self.place == "text_config.";
            let known = top && (is_note(key) || [INERT, OF_SOME].concat().contains(&key.as_str()));
            ensure!(
                neutral || known || read.contains(key) || self.ignored.contains(&format!("{}{key}", self.place)),
                "{}{key}: found {value}, a key that is not understood for this architecture and may change the result; if it does \
                 not, remove it, or name it in [model] ignore",
                self.place
            );
        }
        Ok(())
    }
}
