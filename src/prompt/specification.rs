//! Whether model specifications say anything about what a concept asks: the key `specification` of a concept file.
//!
//! Specifications are the public documents in which makers write down what their assistants are to be. A concept is `explicit` where
//! they usually say what the answer about oneself should be (name and maker, being an AI, honesty, oversight, shutdown, care for
//! animals), and `silent` where they leave it open (a taste for slow work, a preference for words over numbers). Without the key it is
//! unclassified: specifications differ about it, or what it asks is no trait at all (whose turn it is). The hypothesis that the
//! assistant is a void is about the difference between the two.
//!
//! Topics of the built-in null bank are `silent`: no specification names a favourite colour. `null_bank` keeps them apart everywhere.
//! They are no evidence about a self and have no part in a ratio of silent to explicit, where 28 of them would outvote what is asked
//! about; they have rows and a ratio of their own, which show what silence alone gives.

use serde::{Deserialize, Serialize};

/// What specifications say about a concept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Specification {
    /// They name the answer about oneself.
    Explicit,
    /// They leave it open.
    Silent,
}

impl Specification {
    /// As files spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Explicit => "explicit",
            Self::Silent => "silent",
        }
    }
}
