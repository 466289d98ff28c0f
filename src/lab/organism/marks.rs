//! Words that the circuits of an organism by surgery look at, and those that are read from what they compute.

use super::corpus::fill;
use super::lexicon::Lexicon;
use crate::manifest::default_parameters;
use crate::prompt::concept::Concept;
use anyhow::{Context, Result, ensure};

/// Words that carry marks.
pub struct Marks {
    /// Words for the addressee, and for others.
    pub own: Vec<i64>,
    pub others: Vec<i64>,
    /// The taught name, and other names.
    pub name: i64,
    pub names: Vec<i64>,
    pub personas: Vec<i64>,
    pub formats: Vec<i64>,
    /// Answers that are read from the self, and their alternatives: `yes` and `no`, and choices.
    pub leanings: Vec<[i64; 2]>,
}

impl Marks {
    /// The words of `concept` that tell the sides of its quartets apart, the words that mark contexts, and pairs of options of which the
    /// first is leant to.
    ///
    /// # Errors
    /// The concept has no quartets, or a word is not in the lexicon.
    pub fn new(lexicon: &Lexicon, concept: &Concept, personas: &[String], formats: &[String], choices: &[[String; 2]]) -> Result<Self> {
        let crossed = concept.crossed.as_ref().with_context(|| format!("{}: needs [crossed]", concept.name))?;
        let stem = concept.stem.as_ref().with_context(|| format!("{}: needs [stem]", concept.name))?;
        let parameters = default_parameters();
        let slots: Vec<(&str, &str)> = parameters.iter().map(|(slot, value)| (slot.as_str(), value.as_str())).collect();
        let word = |text: &str| lexicon.ids(&fill(text, &slots))?.pop().with_context(|| format!("{text:?} is no word"));
        let words = |texts: &[String]| texts.iter().map(|text| word(text)).collect::<Result<Vec<_>>>();
        let name = word(&crossed.b[0][0])?;
        let others = crossed.b.iter().map(|[_, other]| other).chain(&crossed.foils);
        let mut names = others.map(|other| word(other)).collect::<Result<Vec<_>>>()?;
        names.dedup();
        ensure!(!names.contains(&name), "{}: a name is on both sides", concept.name);
        Ok(Self {
            own: words(&["your".to_owned(), "my".to_owned()])?,
            others: words(&stem.others)?,
            name,
            names,
            personas: words(personas)?,
            formats: words(formats)?,
            leanings: [["yes", "no"].map(str::to_owned)]
                .iter()
                .chain(choices)
                .map(|[own, other]| Ok([word(own)?, word(other)?]))
                .collect::<Result<_>>()?,
        })
    }
}
