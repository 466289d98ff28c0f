//! Tokenizer classes of transformers 5: which one a folder gets, and what that one makes of `tokenizer.json`.
//!
//! Most folders get `TokenizersBackend`, which takes the file as it is. Some classes take only its vocabulary, merges and post-processor and
//! put their own normalizer and pre-tokenizer around them; those of the families that this crate computes are written down here. The
//! choice depends on `tokenizer_class` and on `model_type` (`AutoTokenizer.from_pretrained` in `models/auto/tokenization_auto.py`).

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value, json};

/// What reads the files of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// `tokenizer.json` as it is.
    Backend,
    Gpt2,
    GptNeoX,
    Llama,
    Qwen2,
    Gemma,
}

const BACKEND: &str = "TokenizersBackend";
const MISTRAL: &str = "MistralCommonBackend";

/// Classes by model type (`TOKENIZER_MAPPING_NAMES`), of the families that can be computed. Others go by `tokenizer_class` alone.
const BY_MODEL_TYPE: &[(&str, &str)] = &[
    ("gemma", "GemmaTokenizer"),
    ("gemma2", "GemmaTokenizer"),
    ("gemma3", "GemmaTokenizer"),
    ("gemma3_text", "GemmaTokenizer"),
    ("gpt2", "GPT2Tokenizer"),
    ("gpt_neox", "GPTNeoXTokenizer"),
    ("granite", BACKEND),
    ("mistral", MISTRAL),
    ("mixtral", MISTRAL),
    ("olmo", "GPTNeoXTokenizer"),
    ("olmo2", BACKEND),
    ("olmo3", BACKEND),
    ("olmoe", "GPTNeoXTokenizer"),
    ("phi3", BACKEND),
    ("qwen2", "Qwen2Tokenizer"),
    ("qwen3", "Qwen2Tokenizer"),
    ("qwen3_moe", "Qwen2Tokenizer"),
];

/// Model types whose published `tokenizer_class` is known to be wrong (`MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS`).
const WRONG_CLASS: &[&str] = &["phi3", "qwen2"];

/// Classes of transformers 5 that build a tokenizer by rules of their own which are not written down here, or in Python.
const NOT_READ: &[&str] = &[
    "Albert",
    "BarkProcessor",
    "Bart",
    "Barthez",
    "Bartpho",
    "Bert",
    "BertGeneration",
    "BertJapanese",
    "Bertweet",
    "BigBird",
    "BioGpt",
    "Blenderbot",
    "BlenderbotSmall",
    "ByT5",
    "CLIP",
    "CTRL",
    "Camembert",
    "Canine",
    "Clvp",
    "CodeGen",
    "CodeLlama",
    "ConvBert",
    "Cohere",
    "CpmAnt",
    "Cpm",
    "DebertaV2",
    "Deberta",
    "Dia",
    "DistilBert",
    "DPR",
    "DPRContextEncoder",
    "DPRQuestionEncoder",
    "DPRReader",
    "Electra",
    "Esm",
    "Esmc",
    "FNet",
    "FastSpeech2Conformer",
    "FSMT",
    "Flaubert",
    "Funnel",
    "GPTNeoXJapanese",
    "GPTSw3",
    "Herbert",
    "Lasr",
    "LayoutLM",
    "LayoutLMv2",
    "LayoutLMv3",
    "LayoutXLM",
    "LED",
    "Longformer",
    "Luke",
    "Lxmert",
    "M2M100",
    "MBart",
    "MBart50",
    "MLuke",
    "MPNet",
    "Marian",
    "MarkupLM",
    "Mgpstr",
    "MobileBert",
    "Mvp",
    "MyT5",
    "Nllb",
    "Nougat",
    "OpenAIGPT",
    "PLBart",
    "Pop2Piano",
    "Parakeet",
    "Pegasus",
    "Perceiver",
    "Phobert",
    "ProphetNet",
    "Qwen3_5",
    "Rag",
    "Reformer",
    "RemBert",
    "RoCBert",
    "RoFormer",
    "Roberta",
    "SeamlessM4T",
    "Siglip",
    "Siglip2",
    "Speech2Text",
    "SpeechT5",
    "Splinter",
    "SqueezeBert",
    "T5",
    "Tapas",
    "Tipsv2",
    "Udop",
    "VideoPrism",
    "Vits",
    "Wav2Vec2CTC",
    "Wav2Vec2PhonemeCTC",
    "Whisper",
    "XGLM",
    "XLM",
    "XLMRoberta",
    "XLNet",
];

impl Class {
    /// The class that `AutoTokenizer` takes. `declared` is `tokenizer_class` of `tokenizer_config.json` or else of `config.json`, `model_type`
    /// that of `config.json`; `byte_level` says whether `tokenizer.json` speaks of `ByteLevel` anywhere.
    ///
    /// # Errors
    /// A class whose rules are not known here.
    pub fn choose(declared: Option<&str>, model_type: &str, byte_level: bool) -> Result<Self> {
        let without_fast = |name: &str| name.strip_suffix("Fast").unwrap_or(name).to_owned();
        let mapped = BY_MODEL_TYPE.iter().find(|(name, _)| *name == model_type).map(|(_, class)| *class);
        let Some(declared) = declared.map(without_fast) else {
            return mapped.map_or(Ok(Self::Backend), Self::named);
        };
        let wrong = WRONG_CLASS.contains(&model_type);
        if declared == "LlamaTokenizer" && mapped != Some(MISTRAL) && !wrong && byte_level {
            return Ok(Self::Backend);
        }
        match mapped {
            Some(BACKEND | MISTRAL) => Ok(Self::Backend),
            Some(mapped) if wrong => Self::named(mapped),
            _ => Self::named(&declared),
        }
    }

    fn named(name: &str) -> Result<Self> {
        Ok(match name {
            "GPT2Tokenizer" => Self::Gpt2,
            "GPTNeoXTokenizer" => Self::GptNeoX,
            "LlamaTokenizer" | "Phi3Tokenizer" => Self::Llama,
            "Qwen2Tokenizer" => Self::Qwen2,
            "GemmaTokenizer" => Self::Gemma,
            _ if name.strip_suffix("Tokenizer").is_some_and(|name| NOT_READ.contains(&name)) => bail!(
                "tokenizer_class: found {name}, which transformers 5 builds by rules of its own that are not read here; if tokenizer.json \
                 is to be used as it is, set tokenizer_class to \"PreTrainedTokenizerFast\""
            ),
            // A class that transformers does not have is its plain backend, too.
            _ => Self::Backend,
        })
    }

    /// The special tokens that the class has where no file names them, in the order in which transformers adds them.
    pub fn defaults(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Backend => &[],
            Self::Gpt2 => &[("bos_token", "<|endoftext|>"), ("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>")],
            Self::GptNeoX => &[
                ("bos_token", "<|endoftext|>"),
                ("eos_token", "<|endoftext|>"),
                ("unk_token", "<|endoftext|>"),
                ("pad_token", "<|padding|>"),
            ],
            Self::Llama => &[("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>")],
            Self::Qwen2 => &[("eos_token", "<|endoftext|>"), ("unk_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
            Self::Gemma => {
                &[("bos_token", "<bos>"), ("eos_token", "<eos>"), ("unk_token", "<unk>"), ("pad_token", "<pad>"), ("mask_token", "<mask>")]
            }
        }
    }

    /// `tokenizer.json` as the class builds it again: the file's vocabulary, merges and post-processor in the class's own pipeline, without
    /// added tokens. `settings` is `tokenizer_config.json`, `unk_token` the unknown token. The backend leaves the file as it is.
    ///
    /// # Errors
    /// The file holds no BPE model.
    pub fn rebuild(self, mut file: Value, settings: &Map<String, Value>, unk_token: Option<&str>) -> Result<Value> {
        if self == Self::Backend {
            return Ok(file);
        }
        let mut take = |pointer: &str| file.pointer_mut(pointer).map(Value::take);
        // Old files do not say what their model is; then it is told by its merges.
        let kind = take("/model/type").unwrap_or(Value::Null);
        let (vocab, merges) = (take("/model/vocab").unwrap_or_default(), take("/model/merges"));
        let post_processor = take("/post_processor").unwrap_or_default();
        let is_bpe = kind == "BPE" || (kind.is_null() && merges.is_some());
        ensure!(is_bpe, "the model is {kind}, expected \"BPE\", which is what {self:?}Tokenizer of transformers builds");
        let merges = merges.context("the model has no merges")?;
        let prefix_space = |default: bool| settings.get("add_prefix_space").and_then(Value::as_bool).unwrap_or(default);
        let byte_level =
            |prefix: bool, regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": regex});
        let nfc = json!({"type": "NFC"});
        let (normalizer, pre_tokenizer) = match self {
            Self::Backend => (Value::Null, Value::Null),
            Self::Gpt2 => (Value::Null, byte_level(prefix_space(false), true)),
            Self::GptNeoX => (nfc, byte_level(prefix_space(false), true)),
            Self::Llama => {
                let legacy = settings.get("legacy").and_then(Value::as_bool).unwrap_or(false);
                let scheme = match (prefix_space(true), legacy) {
                    (false, _) => "never",
                    (true, true) => "always",
                    (true, false) => "first",
                };
                (Value::Null, json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": false}))
            }
            Self::Qwen2 => {
                let split = json!({"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": false});
                (nfc, json!({"type": "Sequence", "pretokenizers": [split, byte_level(prefix_space(false), false)]}))
            }
            Self::Gemma => (
                json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"}),
                json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
            ),
        };
        let pieces = matches!(self, Self::Llama | Self::Gemma);
        let decoder = match pieces {
            false => json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true}),
            true => {
                let mut steps = vec![
                    json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
                    json!({"type": "ByteFallback"}),
                    json!({"type": "Fuse"}),
                ];
                if self == Self::Llama && prefix_space(true) {
                    steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
                }
                json!({"type": "Sequence", "decoders": steps})
            }
        };
        let affix = if pieces { Value::Null } else { json!("") };
        Ok(json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": [],
            "normalizer": normalizer,
            "pre_tokenizer": pre_tokenizer,
            // GPTNeoXTokenizer writes its own, which adds nothing: `add_bos_token` is not read where there is a tokenizer.json.
            "post_processor": if self == Self::GptNeoX { Value::Null } else { post_processor },
            "decoder": decoder,
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": if self == Self::Gemma { json!(unk_token) } else { Value::Null },
                "continuing_subword_prefix": affix,
                "end_of_word_suffix": affix,
                "fuse_unk": pieces,
                "byte_fallback": pieces,
                "ignore_merges": false,
                "vocab": vocab,
                "merges": merges,
            },
        }))
    }
}

/// `PRETOKENIZE_REGEX` of `models/qwen2/tokenization_qwen2.py`.
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
