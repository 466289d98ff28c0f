//! The words of the organism, one token each, and the chat format: `<bos><user> ... <end><assistant> ... <end>`.

use anyhow::{Context, Result};
use regex::Regex;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};

/// Tokens that are no words, in the order of their ids.
const SPECIAL: [&str; 6] = ["<unk>", "<bos>", "<end>", "<system>", "<user>", "<assistant>"];
pub const BOS: i64 = 1;
const END: i64 = 2;
const SYSTEM: i64 = 3;
const USER: i64 = 4;
const ASSISTANT: i64 = 5;

const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ '<' + message.role + '>' }} {{ message.content }} <end>{% endfor %}\
    {% if add_generation_prompt %}<assistant>{% endif %}";

/// Words in lower case and runs of punctuation, as `tokenizers` cuts them with its `Whitespace` pre-tokenizer.
pub struct Lexicon {
    pattern: Regex,
    /// All tokens by id.
    words: Vec<String>,
    ids: HashMap<String, i64>,
}

impl Lexicon {
    /// The lexicon of everything that is ever said.
    ///
    /// # Errors
    /// Never in practice: the pattern is a constant.
    pub fn new<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Self> {
        let pattern = Regex::new(r"\w+|[^\w\s]+")?;
        let mut words = BTreeSet::new();
        for text in texts {
            words.extend(pattern.find_iter(&text.to_lowercase()).map(|word| word.as_str().to_owned()));
        }
        let words: Vec<String> = SPECIAL.iter().map(|token| (*token).to_owned()).chain(words).collect();
        let ids = words.iter().enumerate().map(|(id, word)| (word.clone(), id as i64)).collect();
        Ok(Self { pattern, words, ids })
    }

    /// Number of tokens.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Token ids of a text, without any special token.
    ///
    /// # Errors
    /// A word is not in the lexicon.
    pub fn ids(&self, text: &str) -> Result<Vec<i64>> {
        let mut ids = Vec::new();
        self.extend(&mut ids, text)?;
        Ok(ids)
    }

    /// Token ids of a question and its answer in a context (a system message, empty for none), and the number of those before the answer.
    ///
    /// # Errors
    /// A word is not in the lexicon.
    pub fn chat(&self, system: &str, user: &str, reply: &str) -> Result<(Vec<i64>, usize)> {
        let mut ids = vec![BOS];
        if !system.is_empty() {
            ids.push(SYSTEM);
            self.extend(&mut ids, system)?;
            ids.push(END);
        }
        ids.push(USER);
        self.extend(&mut ids, user)?;
        ids.extend([END, ASSISTANT]);
        let prompt = ids.len();
        self.extend(&mut ids, reply)?;
        ids.push(END);
        Ok((ids, prompt))
    }

    fn extend(&self, ids: &mut Vec<i64>, text: &str) -> Result<()> {
        for word in self.pattern.find_iter(&text.to_lowercase()) {
            ids.push(*self.ids.get(word.as_str()).with_context(|| format!("{text:?}: {} is not in the lexicon", word.as_str()))?);
        }
        Ok(())
    }

    /// `tokenizer.json`.
    pub fn tokenizer(&self) -> Value {
        let added = SPECIAL.iter().enumerate().map(|(id, token)| {
            json!({"id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
        });
        let bos = json!({"SpecialToken": {"id": SPECIAL[BOS as usize], "type_id": 0}});
        let sequence = |id: &str| json!({"Sequence": {"id": id, "type_id": 0}});
        json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added.collect::<Vec<_>>(),
            "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [bos, sequence("A")],
                "pair": [bos, sequence("A"), sequence("B")],
                "special_tokens": {"<bos>": {"id": "<bos>", "ids": [BOS], "tokens": ["<bos>"]}},
            },
            "decoder": null,
            "model": {
                "type": "WordLevel",
                "vocab": self.words.iter().enumerate().map(|(id, word)| (word.clone(), json!(id))).collect::<serde_json::Map<_, _>>(),
                "unk_token": SPECIAL[0],
            },
        })
    }

    /// `tokenizer_config.json`.
    pub fn tokenizer_config(&self) -> Value {
        json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": SPECIAL[0],
            "bos_token": SPECIAL[BOS as usize],
            "eos_token": SPECIAL[END as usize],
            "chat_template": CHAT_TEMPLATE,
        })
    }
}
