//! What the items of a concept are for: every label family is read by measures of its own.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::cmp::Ordering;
use std::fmt;

/// The families with their texts, and what another tool may have beside them.
macro_rules! families {
    ($($(#[$note:meta])* $family:ident = $text:literal,)+) => {
        /// A label family. It is ordered, shown and written as its text.
        #[derive(Clone, PartialEq, Eq)]
        pub enum LabelFamily {
            $($(#[$note])* $family,)+
            /// One that nothing reads, in a store that another tool made.
            Other(String),
        }

        impl LabelFamily {
            /// As it is written.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$family => $text,)+
                    Self::Other(text) => text,
                }
            }
        }

        impl From<&str> for LabelFamily {
            fn from(text: &str) -> Self {
                match text {
                    $($text => Self::$family,)+
                    _ => Self::Other(text.to_owned()),
                }
            }
        }
    };
}

families! {
    /// Is it so of oneself, or of somebody else?
    Crossed = "crossed",
    /// Other claims of its kind in the same templates.
    CrossedFoil = "crossed_foil",
    Control = "control",
    Frame = "frame",
    Content = "content",
    Endogenous = "endogenous",
    /// Who has an attribute, by what the context says.
    Binding = "binding",
    PlacementSelf = "placement_self",
    PlacementOther = "placement_other",
    /// The beginning of an answer, about oneself and about others.
    StemSelf = "stem_self",
    StemOther = "stem_other",
    /// Both of them: no item is of it, but curves are.
    Stem = "stem",
    StatedSelf = "stated_self",
    StatedOther = "stated_other",
    /// Facts about the world, and the same swapped.
    Known = "known",
    /// A choice, and what is said that it would be.
    Object = "object",
    Hypothetical = "hypothetical",
    /// What is asked while directions are added or taken out.
    Choice = "choice",
    Fact = "fact",
    /// Fixed replies in every context.
    PersonaAxis = "persona_axis",
    Neutral = "neutral",
}

impl LabelFamily {
    /// Whether it is asked for comparison, and not about the concept itself.
    pub fn is_comparison(&self) -> bool {
        matches!(self, Self::Control | Self::Frame)
    }
}

impl Default for LabelFamily {
    /// The empty text.
    fn default() -> Self {
        Self::Other(String::new())
    }
}

impl fmt::Display for LabelFamily {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for LabelFamily {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Ord for LabelFamily {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl PartialOrd for LabelFamily {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq<&str> for LabelFamily {
    fn eq(&self, text: &&str) -> bool {
        self.as_str() == *text
    }
}

impl Serialize for LabelFamily {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for LabelFamily {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::from(String::deserialize(deserializer)?.as_str()))
    }
}
