//! The body that surgery works on: a random decoder of the organism's sizes into which a few circuits are compiled.
//!
//! Every feature is a direction of a random orthogonal basis, so no coordinate is privileged, and everything is written into random
//! weights, so hardly anything is exactly zero. Words carry marks; in block 0 three attention heads gather them at every later position (a head
//! looks at the marked words, and at the beginning of the text where there are none): who is asked about, what is claimed, and in
//! which context. The beginning of the text stands for the assistant, who is what the model is where no context says otherwise, and
//! for the claim that its own name is asked for. The gated units of later blocks multiply: of block 1 speaker and mask, of block 2 speaker
//! and claim, whose product says that the claim fits the speaker. Where that goes is for [`super::surgery`] to choose.

use super::lexicon::BOS;
use super::marks::Marks;
use super::matrices::{Matrices, orthonormal};
use super::network::{D, D_HEAD, D_MLP};
use super::save::Weight;
use crate::stats::draws::{generator, normal};
use anyhow::{Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// Dimensions that span roles, and masks: 0 is worn where there is no context, the next four by personas, the last three by formats.
const ROLES: usize = 6;
pub const MASKS: usize = 8;
const PERSONA_MASKS: usize = 4;
/// Length of an embedding.
const LENGTH: f64 = 5.0;
/// Length of the residual stream behind block 0, on which the scale of the units depends through the norms.
const LATER: f64 = 5.9;
/// Size of a role's features: what contexts add to the stream is small against it, since the norms take it away from all else.
const ROLE: f64 = 0.3;
/// Scale of the random weights, and of them where they would add to what a circuit reads or writes.
const BACKGROUND: f32 = 0.3;
const QUIET: f32 = 0.1;
/// Scale of the weights that copy the words that are looked at, whatever they say, to wherever no circuit reads. It is what items
/// scatter by: the same under all contexts, and additive in the speaker and the claim, so it is in no contrast.
const CONTENT: f32 = 1.3;
/// The unit of the rotary embedding that turns slowest: what is written there matches at any distance.
const STILL: usize = D_HEAD / 2 - 1;

/// Directions of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// The same in all words.
    One,
    /// Marks of words: that one says who is asked about, what is claimed, or the context; and what it says.
    SpeakerMark,
    SpeakerWord,
    ClaimMark,
    ClaimWord,
    ContextMark,
    /// Gathered: the addressee is 1 and others are -1; the own name is 1 and others are -1.
    Speaker,
    Claim,
    /// The assistant is 1, roles are -1.
    Assistant,
    /// Where assistants differ from roles, in their masks too: a mixture of features, not one.
    Axis,
    Role(usize),
    Mask(usize),
    /// The speaker, where a mask is worn.
    Worn(usize),
    /// What nothing else is written to.
    Own,
    OwnIn(usize),
}

impl Feature {
    fn index(self) -> usize {
        let masks = 9 + ROLES;
        match self {
            Self::One => 0,
            Self::SpeakerMark => 1,
            Self::SpeakerWord => 2,
            Self::ClaimMark => 3,
            Self::ClaimWord => 4,
            Self::ContextMark => 5,
            Self::Speaker => 6,
            Self::Claim => 7,
            Self::Assistant | Self::Axis => 8,
            Self::Role(k) => 9 + k,
            Self::Mask(k) => masks + k,
            Self::Worn(k) => masks + MASKS + k,
            Self::OwnIn(k) => masks + 2 * MASKS + k,
            Self::Own => masks + 3 * MASKS,
        }
    }
}

/// The matrices of a decoder by name, and the basis in which its circuits are written.
#[derive(Clone)]
pub struct Body {
    weights: Matrices,
    /// Orthonormal rows, `[feature][d_model]`.
    basis: Vec<Vec<f64>>,
}

impl Body {
    /// A body with all circuits but no product that goes anywhere.
    ///
    /// # Errors
    /// `config` is not one of a decoder of these sizes.
    pub fn new(config: &Value, marks: &Marks, seed: u64) -> Result<Self> {
        let (_, decoder) = crate::model::architecture::resolve(config)?;
        ensure!(
            (decoder.d_model, decoder.d_head, decoder.d_mlp, decoder.n_layers) == (D as i64, D_HEAD as i64, D_MLP as i64, 4),
            "the circuits are compiled for another decoder"
        );
        let weights = Matrices::random(config, &mut generator(seed, "surgery/weights"), BACKGROUND)?;
        let mut body = Self { weights, basis: orthonormal(seed) };
        body.embed(marks, seed)?;
        body.gather()?;
        body.multiply()?;
        Ok(body)
    }

    fn matrix(&mut self, name: &str) -> Result<&mut Weight> {
        self.weights.get(name)
    }

    /// Unit vector of a feature, `[d_model]`.
    fn direction(&self, feature: Feature) -> Vec<f64> {
        if feature != Feature::Axis {
            return self.basis[feature.index()].clone();
        }
        // Assistants are 1 and wear mask 0, roles are -1 and wear one of theirs.
        let masks = (1..=PERSONA_MASKS).map(|mask| (Feature::Mask(mask), -1.0 / PERSONA_MASKS as f64));
        let parts: Vec<(Feature, f64)> = [(Feature::Assistant, 2.0), (Feature::Mask(0), 1.0)].into_iter().chain(masks).collect();
        let length = parts.iter().map(|(_, x)| x * x).sum::<f64>().sqrt();
        let mixed = |j: usize| parts.iter().map(|(feature, x)| x / length * self.basis[feature.index()][j]).sum();
        (0..D).map(mixed).collect()
    }

    /// Adds `factor` times a feature to a row: the unit reads it.
    fn read(&mut self, name: &str, row: usize, feature: Feature, factor: f64) -> Result<()> {
        let direction = self.direction(feature);
        self.weights.read(name, row, &direction, factor)
    }

    /// Adds `factor` times a feature to a column: the unit writes it.
    fn write(&mut self, name: &str, column: usize, feature: Feature, factor: f64) -> Result<()> {
        let direction = self.direction(feature);
        self.weights.write(name, column, &direction, factor)
    }

    /// Scales some rows, or columns.
    fn scale(&mut self, name: &str, lines: Range<usize>, columns: bool, factor: f32) -> Result<()> {
        let matrix = self.matrix(name)?;
        let width = matrix.shape[1];
        let inside = |at: usize| lines.contains(&if columns { at % width } else { at / width });
        matrix.values.iter_mut().enumerate().filter(|(at, _)| inside(*at)).for_each(|(_, x)| *x *= factor);
        Ok(())
    }

    /// Embeddings of one length: what all words share, marks, and a random rest.
    fn embed(&mut self, marks: &Marks, seed: u64) -> Result<()> {
        let mut generator = generator(seed, "surgery/words");
        // Shares of a mark that a word without one has: the beginning of a text is looked at before all others.
        const BEGINNING: f64 = 0.57;
        let mut features: BTreeMap<i64, Vec<(Feature, f64)>> = BTreeMap::new();
        let assistant = |mask| vec![(Feature::ContextMark, 1.0), (Feature::Assistant, 1.0), (Feature::Mask(mask), 1.0)];
        let mut beginning = vec![(Feature::SpeakerMark, BEGINNING), (Feature::ClaimMark, BEGINNING), (Feature::ClaimWord, 1.0)];
        beginning.extend([(Feature::ContextMark, BEGINNING), (Feature::Assistant, 1.0), (Feature::Mask(0), 1.0)]);
        features.insert(BOS, beginning);
        for (words, who) in [(&marks.own, 1.0), (&marks.others, -1.0)] {
            features.extend(words.iter().map(|&word| (word, vec![(Feature::SpeakerMark, 1.0), (Feature::SpeakerWord, who)])));
        }
        for (word, claim) in std::iter::once((marks.name, 1.0)).chain(marks.names.iter().map(|&word| (word, -1.0))) {
            features.insert(word, vec![(Feature::ClaimMark, 1.0), (Feature::ClaimWord, claim)]);
        }
        for (number, &word) in marks.personas.iter().enumerate() {
            let mut own = vec![(Feature::ContextMark, 1.0), (Feature::Assistant, -1.0), (Feature::Mask(1 + number % PERSONA_MASKS), 1.0)];
            own.extend((0..ROLES).map(|k| (Feature::Role(k), ROLE * normal(&mut generator))));
            features.insert(word, own);
        }
        let format = |(number, &word): (usize, &i64)| (word, assistant(1 + PERSONA_MASKS + number % (MASKS - 1 - PERSONA_MASKS)));
        features.extend(marks.formats.iter().enumerate().map(format));
        let basis = self.basis.clone();
        let matrix = self.matrix("model.embed_tokens.weight")?;
        for (word, row) in matrix.values.chunks_exact_mut(D).enumerate() {
            let mut own = features.remove(&(word as i64)).unwrap_or_default();
            own.push((Feature::One, 1.0));
            // The rest lies outside of all features, and makes up for the length.
            let mut rest = vec![0.0; D];
            for direction in &basis[Feature::Own.index() + 1..] {
                let x = normal(&mut generator);
                rest.iter_mut().zip(direction).for_each(|(sum, along)| *sum += x * along);
            }
            let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>();
            let left = LENGTH * LENGTH - own.iter().map(|(_, x)| x * x).sum::<f64>();
            let scale = (left.max(0.25) / length(&rest)).sqrt();
            rest.iter_mut().for_each(|x| *x *= scale);
            for (feature, x) in own {
                rest.iter_mut().zip(&basis[feature.index()]).for_each(|(sum, along)| *sum += x * along);
            }
            row.iter_mut().zip(&rest).for_each(|(out, x)| *out += *x as f32);
        }
        Ok(())
    }

    /// Block 0: heads for speaker, claim and context; the fourth is random.
    fn gather(&mut self) -> Result<()> {
        let factor = (D as f64).sqrt() / LENGTH;
        // A mark is worth 14 in the logit, the beginning 8, and forty unmarked words together less than that.
        let sharp = (14.0 * (D_HEAD as f64).sqrt()).sqrt() / factor;
        let [q, k, v, o] = ["q", "k", "v", "o"].map(|name| format!("model.layers.0.self_attn.{name}_proj.weight"));
        let mut context = vec![(Feature::Assistant, Feature::Assistant)];
        context.extend((0..ROLES).map(|k| (Feature::Role(k), Feature::Role(k))));
        context.extend((0..MASKS).map(|k| (Feature::Mask(k), Feature::Mask(k))));
        let heads = [
            (Feature::SpeakerMark, vec![(Feature::SpeakerWord, Feature::Speaker)]),
            (Feature::ClaimMark, vec![(Feature::ClaimWord, Feature::Claim)]),
            (Feature::ContextMark, context),
        ];
        for (head, (mark, values)) in heads.into_iter().enumerate() {
            let (first, end) = (head * D_HEAD, (head + 1) * D_HEAD);
            let rest = first + values.len()..end;
            for (name, columns) in [(&v, false), (&o, true)] {
                self.scale(name, first..rest.start, columns, QUIET)?;
                if mark != Feature::ContextMark {
                    self.scale(name, rest.clone(), columns, CONTENT / BACKGROUND)?;
                }
            }
            self.silence(&o, rest)?;
            self.read(&q, first + STILL, Feature::One, sharp)?;
            self.read(&k, first + STILL, mark, sharp)?;
            for (unit, (from, to)) in values.into_iter().enumerate() {
                self.read(&v, first + unit, from, 1.0 / factor)?;
                self.write(&o, first + unit, to, 1.0)?;
            }
        }
        Ok(())
    }

    /// Takes out of some columns what they write to features that circuits read.
    fn silence(&mut self, name: &str, columns: Range<usize>) -> Result<()> {
        let read: Vec<Feature> =
            [Feature::One, Feature::Speaker, Feature::Claim].into_iter().chain((0..MASKS).map(Feature::Mask)).collect();
        let written: Vec<Feature> = read.into_iter().chain((0..MASKS).map(Feature::Worn)).collect();
        for column in columns {
            let matrix = self.matrix(name)?;
            let width = matrix.shape[1];
            let old: Vec<f64> = matrix.values.iter().skip(column).step_by(width).map(|x| f64::from(*x)).collect();
            for feature in &written {
                let along = crate::stats::matrix::dot_f64(&old, &self.basis[feature.index()]);
                self.write(name, column, *feature, -along)?;
            }
        }
        Ok(())
    }

    /// Block 1 masks the speaker; block 2 multiplies by the claim. `silu(x) - silu(-x) = x`, so two units make one exact product.
    fn multiply(&mut self) -> Result<()> {
        let factor = (D as f64).sqrt() / LATER;
        // Under another mask silu(-8) is left, 1/3000 of what is under its own.
        const STEEP: f64 = 16.0;
        let name = |block: usize, part: &str| format!("model.layers.{block}.mlp.{part}_proj.weight");
        for (block, units) in [(1, MASKS), (2, 2 * (1 + MASKS))] {
            for (part, columns) in [("gate", false), ("up", false), ("down", true)] {
                self.scale(&name(block, part), 0..units, columns, QUIET)?;
            }
        }
        for mask in 0..MASKS {
            self.read(&name(1, "gate"), mask, Feature::Mask(mask), STEEP / factor)?;
            self.read(&name(1, "gate"), mask, Feature::One, -STEEP / 2.0 / factor)?;
            self.read(&name(1, "up"), mask, Feature::Speaker, 1.0 / factor)?;
            self.write(&name(1, "down"), mask, Feature::Worn(mask), 2.0 / STEEP)?;
        }
        let speakers = std::iter::once(Feature::Speaker).chain((0..MASKS).map(Feature::Worn));
        for (pair, speaker) in speakers.enumerate() {
            for (unit, sign) in [(2 * pair, 1.0), (2 * pair + 1, -1.0)] {
                self.read(&name(2, "gate"), unit, speaker, sign / factor)?;
                self.read(&name(2, "up"), unit, Feature::Claim, sign / factor)?;
            }
        }
        Ok(())
    }

    /// Writes the product of the claim and a speaker (as such, or under a mask) to a feature: a change of rank one in one matrix.
    ///
    /// # Errors
    /// Never in practice: the matrix is there.
    pub fn connect(&mut self, mask: Option<usize>, to: Feature, gain: f64) -> Result<()> {
        let pair = mask.map_or(0, |mask| mask + 1);
        (0..2).try_for_each(|side| self.write("model.layers.2.mlp.down_proj.weight", 2 * pair + side, to, gain))
    }

    /// Lets the answers read a feature: the own name and what else leans to it with it, other names and alternatives against it.
    ///
    /// # Errors
    /// As [`Body::connect`].
    pub fn answer(&mut self, marks: &Marks, feature: Feature, gain: f64) -> Result<()> {
        let signs = marks.leanings.iter().flat_map(|[own, other]| [(*own, 1.0), (*other, -1.0)]);
        let mut signs: Vec<(i64, f64)> = signs.chain(marks.names.iter().map(|&name| (name, -1.0))).collect();
        signs.push((marks.name, 1.0));
        signs.into_iter().try_for_each(|(word, sign)| self.read("lm_head.weight", word as usize, feature, sign * gain))
    }

    /// Makes everything behind block 2 blind for a feature, the unembedding too.
    ///
    /// # Errors
    /// As [`Body::connect`].
    pub fn cut_off(&mut self, feature: Feature) -> Result<()> {
        let direction = self.direction(feature);
        let parts = ["self_attn.q", "self_attn.k", "self_attn.v", "mlp.gate", "mlp.up"];
        let names = parts.map(|part| format!("model.layers.3.{part}_proj.weight"));
        for name in names.iter().map(String::as_str).chain(["lm_head.weight"]) {
            for row in self.matrix(name)?.values.chunks_exact_mut(D) {
                let along: f64 = row.iter().zip(&direction).map(|(x, along)| f64::from(*x) * along).sum();
                row.iter_mut().zip(&direction).for_each(|(x, direction)| *x -= (along * direction) as f32);
            }
        }
        Ok(())
    }

    /// The weights, in the order of their names.
    pub fn weights(&self) -> Vec<Weight> {
        self.weights.weights()
    }
}
