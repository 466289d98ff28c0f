//! Rotary position embeddings and the two dialects in which `config.json` describes them.
//!
//! transformers 4 writes `rope_theta` beside `rope_scaling`; transformers 5 writes `rope_parameters`, in some families once
//! per layer type. Scalings follow `modeling_rope_utils.py`, whose defaults these are.

use super::keys::Keys;
use anyhow::{Result, bail, ensure};
use std::f64::consts::PI;

/// Rotary position embedding (Su et al. 2021), rotating the first `2 * inv_freq.len()` dimensions of every head.
#[derive(Debug, Clone, PartialEq)]
pub struct Rope {
    /// Angle per position, one per rotated pair. In f32, as transformers computes it.
    pub inv_freq: Vec<f32>,
    /// Scale of cosines and sines; 1 except under YaRN and LongRoPE.
    pub scale: f32,
    /// Longest prompt that these angles are for. LongRoPE turns to other angles, for all positions, beyond it.
    pub longest: Option<i64>,
}

/// How a family spells its rotary keys, and what transformers defaults them to.
pub struct Dialect {
    /// The base of the angles in transformers 4.
    pub base_key: &'static str,
    pub base: f64,
    /// The rotated fraction of each head in transformers 4.
    pub fraction_key: &'static str,
    pub fraction: f64,
    /// The family rotates a part of each head. Where it does not, the reference passes over the fraction or fails.
    pub partial: bool,
}

/// Llama and most others.
pub const LLAMA: Dialect =
    Dialect { base_key: "rope_theta", base: 10_000.0, fraction_key: "partial_rotary_factor", fraction: 1.0, partial: false };

/// Angles of the layers that see everything, and of those with a sliding window.
#[derive(PartialEq)]
pub struct PerType {
    pub full: Rope,
    pub sliding: Rope,
}

/// Far beyond any head that is in use.
const WIDEST_HEAD: i64 = 1 << 16;

/// The factor by which positions are stretched.
fn factor(table: &Keys) -> Result<f64> {
    let factor = table.number("factor")?;
    ensure!(factor > 0.0, "factor of the rope scaling: found {factor}, expected a positive number");
    Ok(factor)
}

/// What cosines and sines are multiplied with; transformers takes what is not positive for a mistake, and warns.
fn attention_factor(table: &Keys, default: f64) -> Result<f32> {
    let factor = table.number_or("attention_factor", default)?;
    ensure!(factor > 0.0, "attention_factor of the rope scaling: found {factor}, expected a positive number");
    Ok(factor as f32)
}

impl Rope {
    /// `theta ^ (-2 i / dim)` for i in 0..dim/2.
    pub fn new(theta: f64, dim: i64) -> Self {
        // An odd number of dimensions is rounded up, as `arange(0, dim, 2)` does.
        let inv_freq = (0..(dim + 1) / 2).map(|i| (1.0 / theta.powf(2.0 * i as f64 / dim as f64)) as f32).collect();
        Self { inv_freq, scale: 1.0, longest: None }
    }

    /// Reads base, fraction and scaling for all layers.
    ///
    /// # Errors
    /// A key is missing, has a wrong type or says something else than another one, or the scaling is not implemented.
    pub fn parse(keys: &Keys, d_head: i64, dialect: &Dialect) -> Result<Self> {
        let one = |table: Option<Keys>| -> Result<Self> {
            if table.as_ref().is_some_and(is_per_type) {
                bail!("rope_parameters: found a table per layer type, expected one table: the reference reads one for this architecture");
            }
            Self::build(keys, table, dialect, d_head)
        };
        agreeing(keys, one)
    }

    /// One set of angles from a table of scaling, with the keys beside it as defaults.
    fn build(keys: &Keys, table: Option<Keys>, dialect: &Dialect, d_head: i64) -> Result<Self> {
        let beside = keys.switch(dialect.base_key, None)?;
        let (base, fraction) = (beside.unwrap_or(dialect.base), keys.number_or(dialect.fraction_key, dialect.fraction)?);
        let Some(table) = table else { return Self::whole_or_part(base, fraction, d_head, dialect) };
        let theta = table.number_or("rope_theta", base)?;
        ensure!(
            beside.is_none_or(|beside| beside == theta),
            "{}: found {base} beside a rope_theta of {theta} in the table of scaling; remove the one that is wrong",
            dialect.base_key
        );
        let fraction = table.number_or("partial_rotary_factor", fraction)?;
        let mut rope = Self::whole_or_part(theta, fraction, d_head, dialect)?;
        let dim = (d_head as f64 * fraction) as i64;
        let kind = table.text_or("rope_type", table.text_or("type", "default")?)?;
        // The context of pre-training may stand outside the table (Phi-3), inside, or nowhere.
        let context = || -> Result<f64> {
            let length = match (keys.get("original_max_position_embeddings"), table.get("original_max_position_embeddings")) {
                (Some(_), _) => keys.number("original_max_position_embeddings")?,
                (None, Some(_)) => table.number("original_max_position_embeddings")?,
                (None, None) => keys.number("max_position_embeddings")?,
            };
            ensure!(length >= 1.0, "the trained length of the rope scaling: found {length}, expected at least 1");
            Ok(length)
        };
        match kind {
            "default" => {}
            "linear" => {
                let factor = factor(&table)? as f32;
                rope.inv_freq.iter_mut().for_each(|freq| *freq /= factor);
            }
            "llama3" => rope.scale_llama3(&table, context()?)?,
            "yarn" => rope.scale_yarn(&table, context()?, theta, dim as f64)?,
            "longrope" | "su" => rope.scale_longrope(keys, &table, context()?)?,
            // Plain angles up to the trained length; beyond it they would depend on how long a prompt is.
            "dynamic" => {
                factor(&table)?;
                rope.longest = Some(keys.size("max_position_embeddings")?);
            }
            other => bail!("rope type: found {other:?}, expected one of default, linear, dynamic, llama3, yarn, longrope"),
        }
        // Written for every type by some versions, read by the types above only; and a note of how YaRN was trained.
        table.unused(&["original_max_position_embeddings", "finetuned"]);
        table.finish()?;
        Ok(rope)
    }

    fn whole_or_part(theta: f64, fraction: f64, d_head: i64, dialect: &Dialect) -> Result<Self> {
        let key = dialect.fraction_key;
        ensure!(theta > 1.0, "{}: found {theta}, expected more than 1", dialect.base_key);
        ensure!(fraction > 0.0 && fraction <= 1.0, "{key}: found {fraction}, expected a number in (0, 1]");
        ensure!(dialect.partial || fraction == 1.0, "{key}: found {fraction}, expected 1: this architecture rotates whole heads");
        // Checked before a table of this length is made; shapes of tensors are compared with it later.
        ensure!(d_head <= WIDEST_HEAD, "head_dim: found {d_head}, expected at most {WIDEST_HEAD}");
        let dim = (d_head as f64 * fraction) as i64;
        ensure!(dim > 0, "{key}: found {fraction}, which leaves none of {d_head} dimensions");
        Ok(Self::new(theta, dim))
    }

    /// Llama 3.1: long wavelengths are slowed by `factor`, short ones kept, with a smooth ramp between
    /// (`_compute_llama3_parameters`).
    fn scale_llama3(&mut self, table: &Keys, context: f64) -> Result<()> {
        let factor = factor(table)?;
        let (low, high) = (table.number("low_freq_factor")?, table.number("high_freq_factor")?);
        ensure!(high > low, "high_freq_factor: found {high}, expected more than low_freq_factor ({low})");
        for freq in &mut self.inv_freq {
            let wavelength = 2.0 * PI / f64::from(*freq);
            let smooth = ((context / wavelength - low) / (high - low)).clamp(0.0, 1.0);
            *freq = ((1.0 - smooth) * f64::from(*freq) / factor + smooth * f64::from(*freq)) as f32;
        }
        Ok(())
    }

    /// YaRN (Peng et al. 2023): dimensions that turn often over the original context are kept, those that turn less than
    /// once are interpolated, with a ramp between (`_compute_yarn_parameters`).
    fn scale_yarn(&mut self, table: &Keys, context: f64, theta: f64, dim: f64) -> Result<()> {
        let factor = factor(table)?;
        let dimension_of = |turns: f64| dim * (context / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
        let (mut low, mut high) = (dimension_of(table.number_or("beta_fast", 32.0)?), dimension_of(table.number_or("beta_slow", 1.0)?));
        if table.flag_or("truncate", true)? {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(dim - 1.0));
        let width = if high == low { 0.001 } else { high - low };
        for (i, freq) in self.inv_freq.iter_mut().enumerate() {
            let interpolated = ((i as f64 - low) / width).clamp(0.0, 1.0);
            let kept = f64::from(*freq);
            *freq = (kept / factor * interpolated + kept * (1.0 - interpolated)) as f32;
        }
        let mscale = |weight: f64| if factor <= 1.0 { 1.0 } else { 0.1 * weight * factor.ln() + 1.0 };
        let (all, one) = (table.number_or("mscale_all_dim", 0.0)?, table.number_or("mscale", 0.0)?);
        let default = if all != 0.0 && one != 0.0 { mscale(one) / mscale(all) } else { mscale(1.0) };
        self.scale = attention_factor(table, default)?;
        Ok(())
    }

    /// LongRoPE (Ding et al. 2024) within the original context: one factor per rotated pair (`_compute_longrope_parameters`).
    fn scale_longrope(&mut self, keys: &Keys, table: &Keys, context: f64) -> Result<()> {
        let factors = |key: &str| {
            let list = table.list(key, "a list of numbers", |value| value.as_f64().filter(|x| x.is_finite() && *x > 0.0))?;
            let list = list.ok_or_else(|| anyhow::anyhow!("key `{key}` of the rotary table is missing"))?;
            let expected = self.inv_freq.len();
            ensure!(list.len() == expected, "{key}: found {} numbers, expected {expected}, one per rotated pair", list.len());
            Ok(list)
        };
        let short = factors("short_factor")?;
        factors("long_factor")?;
        for (freq, factor) in self.inv_freq.iter_mut().zip(short) {
            *freq = (f64::from(*freq) / factor) as f32;
        }
        let factor = match table.switch("factor", None)? {
            Some(factor) => factor,
            None => keys.number("max_position_embeddings")? / context,
        };
        let default = if factor <= 1.0 { 1.0 } else { (1.0 + factor.ln() / context.ln()).sqrt() };
        self.scale = attention_factor(table, default)?;
        self.longest = Some(context as i64);
        Ok(())
    }
}

impl PerType {
    /// Reads angles per layer type: `rope_parameters` with a table for each, or, in transformers 4, `full` with `rope_scaling`
    /// and `sliding` without.
    ///
    /// # Errors
    /// As [`Rope::parse`].
    pub fn parse(keys: &Keys, d_head: i64, full: &Dialect, sliding: &Dialect) -> Result<Self> {
        let both = |table: Option<Keys>| -> Result<Self> {
            let (first, second) = match table {
                Some(table) if is_per_type(&table) => {
                    let parts = (table.table("full_attention")?, table.table("sliding_attention")?);
                    table.finish()?;
                    parts
                }
                Some(table) if table.is_at("rope_parameters.") => {
                    bail!("rope_parameters: found one table, expected a table for each of full_attention and sliding_attention")
                }
                table => (table, None),
            };
            Ok(Self { full: Rope::build(keys, first, full, d_head)?, sliding: Rope::build(keys, second, sliding, d_head)? })
        };
        agreeing(keys, both)
    }
}

fn is_per_type(table: &Keys) -> bool {
    table.stated("full_attention") || table.stated("sliding_attention")
}

/// Reads the table of scaling, in either dialect. Where there is one in each, both have to say the same.
fn agreeing<'a, T: PartialEq>(keys: &Keys<'a>, read: impl Fn(Option<Keys<'a>>) -> Result<T>) -> Result<T> {
    match (keys.table("rope_parameters")?, keys.table("rope_scaling")?) {
        (Some(new), Some(old)) => {
            let (first, second) = (read(Some(new))?, read(Some(old))?);
            ensure!(first == second, "rope_parameters and rope_scaling say different things; remove the one that is wrong");
            Ok(first)
        }
        (new, old) => read(new.or(old)),
    }
}
