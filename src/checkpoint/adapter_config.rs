//! `adapter_config.json` of PEFT, read with PEFT's own rules for which module gets which rank and scale.
//!
//! PEFT turns options on by adding keys. Every key that is not known here to leave the result alone has to be off (null, false,
//! empty), so an option of a later version is refused by name instead of being ignored. Defaults are those of PEFT's
//! `LoraConfig`, the rules those of `check_target_module_exists` and `get_pattern_key` (PEFT 0.21).

use super::provenance::is_provenance;
use super::read_json;
use anyhow::{Context, Result, anyhow, bail, ensure};
use onig::{MatchParam, Regex, RegexOptions, SearchOptions, Syntax};
use serde_json::Value;
use std::path::Path;

/// Name of the file.
pub const FILE: &str = "adapter_config.json";
/// What to do about an adapter that cannot be merged here.
pub const REMEDY: &str = "merge it into its base (merge_and_unload) and save the result";

/// Keys that are read here, or that do not change what a saved adapter computes: names, training and the start of training.
const KNOWN: &[&str] = &[
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "modules_to_save",
    "ensure_weight_tying",
    "target_parameters",
    "trainable_token_indices",
    "init_lora_weights",
    "bias",
    "lora_bias",
    "fan_in_fan_out",
    "auto_mapping",
    "revision",
    "task_type",
    "inference_mode",
    "lora_dropout",
    "megatron_core",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",
    "runtime_config",
    "velora_config",
    // Notes of training tools.
    "base_model_class",
    "base_model_prefix",
    "lora_dtype",
    "model_type",
    "parent_library",
    "use_gradient_checkpointing",
];
/// Values of `init_lora_weights` that leave the base as it is. The others (PiSSA, OLoRA, CorDA, LoftQ ...) subtract their start from it.
const PLAIN_STARTS: &[&str] = &["gaussian", "eva", "orthogonal", "mica"];

/// What an adapter says about itself.
pub struct LoraConfig {
    rank: i64,
    alpha: f64,
    rank_stabilised: bool,
    ranks: Vec<(Regex, f64)>,
    alphas: Vec<(Regex, f64)>,
    targets: Modules,
    excluded: Modules,
    layers: Option<Vec<u64>>,
    layers_patterns: Vec<Regex>,
    /// Modules that are saved whole.
    pub modules_to_save: Vec<String>,
    saved: Vec<Regex>,
    /// A tied unembedding follows the embedding.
    pub ensure_weight_tying: bool,
    /// Parameters with factors of their own, by name or the last segments of it.
    parameters: Vec<String>,
    /// Modules of which single rows are replaced, and which rows.
    pub token_rows: Vec<(String, Vec<i64>)>,
    /// What it was trained over, as its trainer called it.
    pub base: Option<String>,
}

/// A choice of modules.
enum Modules {
    /// None is named: `null`, or `all-linear`, which depends on classes that only Python knows.
    Unnamed,
    /// Names, or their last segments.
    Names(Vec<String>),
    /// The whole name fits.
    Pattern(Regex),
}

impl LoraConfig {
    /// Reads the file in an adapter's folder.
    ///
    /// # Errors
    /// One sentence that names the file and the key: missing, not JSON, not LoRA, or an option that is not supported.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(FILE);
        if !path.is_file() {
            bail!("{}: no {FILE}; expected a folder with a PEFT adapter", folder.display());
        }
        Self::parse(&read_json(&path)?).with_context(|| path.display().to_string())
    }

    fn parse(json: &Value) -> Result<Self> {
        let table = json.as_object().context("expected a table of options")?;
        match table.get("peft_type").and_then(Value::as_str) {
            Some("LORA") => {}
            Some(other) => bail!("peft_type {other} is not supported, only LORA is; {REMEDY}"),
            None => bail!("key `peft_type` is missing, expected \"LORA\""),
        }
        let unsupported = |key: &str, value: &Value| anyhow!("{key} = {value} is not supported; {REMEDY}");
        for (key, value) in table {
            if !is_provenance(key) && !KNOWN.contains(&key.as_str()) && !is_off(value) {
                return Err(unsupported(key, value));
            }
        }
        match table.get("init_lora_weights") {
            None | Some(Value::Null | Value::Bool(_)) => {}
            Some(Value::String(name)) if PLAIN_STARTS.contains(&name.as_str()) => {}
            Some(value) => bail!(
                "init_lora_weights = {value} changed the base at the start of training; \
                 convert the adapter (save_pretrained with path_initial_model_for_weight_conversion), or {REMEDY}"
            ),
        }
        let get = |key: &str| table.get(key).filter(|value| !value.is_null());
        let flag = |key: &str| match get(key) {
            None => Ok(false),
            Some(value) => value.as_bool().ok_or_else(|| anyhow!("{key}: found {value}, expected true or false")),
        };
        let number = |key: &str, default: f64| match get(key) {
            None => Ok(default),
            Some(value) => value.as_f64().filter(|x| x.is_finite()).ok_or_else(|| anyhow!("{key}: found {value}, expected a number")),
        };
        let patterns = |key: &str| -> Result<Vec<(Regex, f64)>> {
            let Some(value) = get(key) else { return Ok(Vec::new()) };
            let table = value.as_object().with_context(|| format!("{key}: found {value}, expected a table of names to numbers"))?;
            let pattern = |(name, value): (&String, &Value)| {
                let number = value.as_f64().with_context(|| format!("{key}: {name}: found {value}, expected a number"))?;
                Ok((regex(key, &format!("(.*\\.)?({name})"), true)?, number))
            };
            table.iter().map(pattern).collect()
        };
        let rank = number("r", 8.0)?;
        ensure!(rank >= 1.0 && rank.fract() == 0.0, "r: found {rank}, expected a positive integer");
        let modules_to_save = match get("modules_to_save") {
            None => Vec::new(),
            Some(value) => texts("modules_to_save", value)?,
        };
        let layers = get("layers_to_transform").map(|value| match value {
            Value::Array(list) => list.iter().map(layer).collect::<Result<Vec<_>>>(),
            one => Ok(vec![layer(one)?]),
        });
        let layers_patterns = match get("layers_pattern") {
            None => Vec::new(),
            Some(Value::String(name)) => vec![name.clone()],
            Some(value) => texts("layers_pattern", value)?,
        };
        let index = |name: &String| regex("layers_pattern", &format!("(?:^|.*?\\.){name}\\.(\\d+)\\."), false);
        let saved = |name: &String| regex("modules_to_save", &format!("(^|.*\\.){name}($|\\..*)"), false);
        Ok(Self {
            rank: rank as i64,
            alpha: number("lora_alpha", 8.0)?,
            rank_stabilised: flag("use_rslora")?,
            ranks: patterns("rank_pattern")?,
            alphas: patterns("alpha_pattern")?,
            targets: Modules::parse("target_modules", get("target_modules"))?,
            excluded: Modules::parse("exclude_modules", get("exclude_modules"))?,
            layers: layers.transpose()?.filter(|layers| !layers.is_empty()),
            layers_patterns: layers_patterns.iter().filter(|name| !name.is_empty()).map(index).collect::<Result<_>>()?,
            saved: modules_to_save.iter().map(saved).collect::<Result<_>>()?,
            modules_to_save,
            ensure_weight_tying: flag("ensure_weight_tying")?,
            parameters: get("target_parameters").map_or(Ok(Vec::new()), |value| texts("target_parameters", value))?,
            token_rows: get("trainable_token_indices").map_or(Ok(Vec::new()), token_rows)?,
            base: get("base_model_name_or_path").and_then(Value::as_str).filter(|name| !name.is_empty()).map(str::to_owned),
        })
    }

    /// Whether a parameter has factors of its own (`target_parameters`), by its name in the model.
    pub fn targets_parameter(&self, name: &str) -> bool {
        self.parameters.iter().any(|target| is_or_ends_with(name, target))
    }

    /// Rows of a module that are replaced, by its name in the model.
    pub fn rows(&self, module: &str) -> Option<&[i64]> {
        self.token_rows.iter().find(|(name, _)| is_or_ends_with(module, name)).map(|(_, rows)| rows.as_slice())
    }

    /// Rank of a module, by its name in the model.
    ///
    /// # Errors
    /// A pattern cannot be matched in reasonable time.
    pub fn rank(&self, module: &str) -> Result<i64> {
        Ok(first_match(&self.ranks, module)?.map_or(self.rank, |rank| rank as i64))
    }

    /// What the product of a module's factors is multiplied with: `alpha / r`, or `alpha / sqrt(r)` if rank-stabilised
    /// (Kalajdzievski 2023).
    ///
    /// # Errors
    /// As [`LoraConfig::rank`].
    pub fn scale(&self, module: &str) -> Result<f64> {
        let (rank, alpha) = (self.rank(module)? as f64, first_match(&self.alphas, module)?.unwrap_or(self.alpha));
        Ok(alpha / if self.rank_stabilised { rank.sqrt() } else { rank })
    }

    /// Whether a module has low-rank factors, by its name in the model; `None` where only Python can tell (`all-linear`).
    ///
    /// # Errors
    /// As [`LoraConfig::rank`].
    pub fn targets(&self, module: &str) -> Result<Option<bool>> {
        for saved in &self.saved {
            if matches(saved, module)?.is_some() {
                return Ok(Some(false));
            }
        }
        if self.excluded.contains(module)? == Some(true) {
            return Ok(Some(false));
        }
        let named = self.targets.contains(module)?;
        match (&self.targets, &self.layers, named) {
            // A name in full counts whatever its layer is.
            (Modules::Names(names), Some(layers), Some(true)) if !names.iter().any(|name| name == module) => {
                Ok(Some(self.layer_of(module)?.is_some_and(|layer| layers.contains(&layer))))
            }
            _ => Ok(named),
        }
    }

    /// The first number in a module's name, after a name of `layers_pattern` where there are any.
    fn layer_of(&self, module: &str) -> Result<Option<u64>> {
        if self.layers_patterns.is_empty() {
            // `.*?\.[^.]*\.(\d+)\.`: there are two segments before the number and one behind it.
            let segments: Vec<&str> = module.split('.').collect();
            let inner = segments.len().saturating_sub(1);
            return Ok(segments.get(2..inner).and_then(|inner| inner.iter().find_map(|segment| segment.parse().ok())));
        }
        for pattern in &self.layers_patterns {
            if let Some(index) = matches(pattern, module)? {
                return Ok(index.parse().ok());
            }
        }
        Ok(None)
    }
}

impl Modules {
    fn parse(key: &str, value: Option<&Value>) -> Result<Self> {
        Ok(match value {
            None => Self::Unnamed,
            Some(Value::String(name)) if name.eq_ignore_ascii_case("all-linear") => Self::Unnamed,
            Some(Value::String(pattern)) => Self::Pattern(regex(key, pattern, true)?),
            Some(value) => Self::Names(texts(key, value)?),
        })
    }

    fn contains(&self, module: &str) -> Result<Option<bool>> {
        Ok(match self {
            Self::Unnamed => None,
            Self::Names(names) => Some(names.iter().any(|name| is_or_ends_with(module, name))),
            Self::Pattern(pattern) => Some(matches(pattern, module)?.is_some()),
        })
    }
}

fn is_off(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(table) => table.is_empty(),
        _ => false,
    }
}

/// Whether a name is `end`, or its last segments are.
fn is_or_ends_with(name: &str, end: &str) -> bool {
    name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with('.'))
}

/// `[1, 2]`, which is about the embedding, or `{"embed_tokens": [1, 2]}`.
fn token_rows(value: &Value) -> Result<Vec<(String, Vec<i64>)>> {
    /// What families call their embedding; PEFT asks the model.
    const EMBEDDINGS: [&str; 3] = ["embed_tokens", "embed_in", "wte"];
    let wrong = || format!("trainable_token_indices: found {value}, expected token ids, or a table of modules to token ids");
    let rows = |value: &Value| value.as_array()?.iter().map(|row| row.as_i64().filter(|row| *row >= 0)).collect::<Option<Vec<i64>>>();
    if let Some(table) = value.as_object() {
        return table.iter().map(|(name, value)| Ok((name.clone(), rows(value).with_context(wrong)?))).collect();
    }
    let rows = rows(value).with_context(wrong)?;
    Ok(EMBEDDINGS.iter().map(|name| ((*name).to_owned(), rows.clone())).collect())
}

fn layer(value: &Value) -> Result<u64> {
    value.as_u64().with_context(|| format!("layers_to_transform: found {value}, expected layer numbers"))
}

fn texts(key: &str, value: &Value) -> Result<Vec<String>> {
    let list = value.as_array().map(|list| list.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>());
    list.flatten().with_context(|| format!("{key}: found {value}, expected a list of names"))
}

/// A pattern of Python's `re`, matched from the start of a name and, if `whole`, to its end.
fn regex(key: &str, pattern: &str, whole: bool) -> Result<Regex> {
    // Python spells the very end of a text `\Z`.
    let end = if whole { "\\Z" } else { "" };
    Regex::with_options(&format!("(?:{pattern}){end}"), RegexOptions::REGEX_OPTION_NONE, Syntax::python())
        .map_err(|error| anyhow!("{key}: {pattern:?} is no valid pattern ({})", error.description()))
}

/// The last group of a match at the start of `name`, or the match; `None` if there is none. The engine gives up on patterns
/// that would search for ever.
fn matches<'a>(regex: &Regex, name: &'a str) -> Result<Option<&'a str>> {
    let mut region = onig::Region::new();
    let found = regex
        .match_with_param(name, 0, SearchOptions::SEARCH_OPTION_NONE, Some(&mut region), MatchParam::default())
        .map_err(|error| anyhow!("a pattern of {FILE} cannot be matched with {name} ({})", error.description()))?;
    let span = (0..region.len()).rev().find_map(|group| region.pos(group));
    Ok(found.and(Some(span.and_then(|(from, to)| name.get(from..to)).unwrap_or_default())))
}

fn first_match(patterns: &[(Regex, f64)], module: &str) -> Result<Option<f64>> {
    for (pattern, value) in patterns {
        if matches(pattern, module)?.is_some() {
            return Ok(Some(*value));
        }
    }
    Ok(None)
}
