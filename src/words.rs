//! Words that stand in tables: an enum in the code, text where a row is written or read.

/// An enum of words, each with its text. Words are ordered and shown as their texts, so that a table has the order that it would have if
/// they were text, and may be compared with what a table holds.
macro_rules! words {
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$note:meta])* $word:ident = $text:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$note])* #[serde(rename = $text)] $word,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$word),+];

            /// As it is written.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$word => $text,)+
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                std::fmt::Debug::fmt(self.as_str(), f)
            }
        }

        impl Ord for $name {
            fn cmp(&self, other: &Self) -> std::cmp::Ordering {
                self.as_str().cmp(other.as_str())
            }
        }

        impl PartialOrd for $name {
            fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
                Some(self.cmp(other))
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, text: &&str) -> bool {
                self.as_str() == *text
            }
        }
    };
    // With what each means, in the words in which people read it.
    ($(#[$about:meta])* pub enum $name:ident { $($(#[$note:meta])* $word:ident = $text:literal => $meaning:literal,)+ }) => {
        words! { $(#[$about])* pub enum $name { $($(#[$note])* #[doc = $meaning] $word = $text,)+ } }

        impl $name {
            /// What it means.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$word => $meaning,)+
                }
            }

            /// The one that is written so.
            pub fn of(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|word| *word == text)
            }
        }
    };
}
pub(crate) use words;

words! {
    /// Why a row of a table has its numbers, or why it has none.
    #[derive(Default)]
    pub enum Status {
        Ok = "ok" => "computed, and where it is a date, shown",
        #[default]
        NotRun = "not_run" => "what it takes was not asked for",
        Failed = "failed" => "could not be computed",

        // What is not there to be measured.
        DegenerateLabel = "degenerate_label" => "one of the two labels is missing",
        NoAxis = "no_axis" => "there is no direction to measure along",
        NoAnswers = "no_answers" => "the concept has no answers to choose from",
        MixedAnswers = "mixed_answers" => "groups have different answers",
        TooLarge = "too_large" => "the model does not fit into memory as a whole, so it wrote nothing",
        NotScored = "not_scored" => "the answers were not scored",
        NoOrder = "no_order" => "the order of the answers is not balanced",
        NoUnembedding = "no_unembedding" => "the first checkpoint's unembedding was not kept",
        FoilsNotToldApart = "foils_not_told_apart" => "the measure cannot tell the foils apart",
        NoDirection = "no_direction" => "there is no direction to push along",
        SideEffects = "side_effects" => "every strength disturbs neutral text or facts, so none counts",
        TooFewGroups = "too_few_groups" => "too few groups of items",
        TooFewConcepts = "too_few_concepts" => "too few concepts",
        TooFewDifferences = "too_few_differences" => "too few items differ",
        TooFewPersonas = "too_few_personas" => "too few personas",
        TooFewCheckpoints = "too_few_checkpoints" => "fewer than six checkpoints have no shape or date",

        // What it cannot be held against.
        NoBank = "no_bank" => "no null topics to hold it against",
        NoNull = "no_null" => "no random direction to hold it against",
        NoFoils = "no_foils" => "not dated: nothing of its kind to hold it against",
        TooFewFoils = "too_few_foils" => "too few of its kind to hold it against",
        NoReference = "no_reference" => "no checkpoint marks the start",

        // What was found instead.
        LexicalLeak = "lexical_leak" => "words alone give the label away",
        GateFail = "gate_fail" => "not shown: no rise beyond its error, what nobody teaches, and its baseline",
        AlreadyPreferred = "already_preferred" => "stood out before, so a rise shows nothing",
        BeforeOnset = "before_onset" => "earlier than the rise of the concept, so it supports nothing",
        NoRise = "no_rise" => "has not risen, so there is no share of a rise",
        NoEffect = "no_effect" => "there is no effect of which this could be a share",
        NoDate = "no_date" => "there is no date to compare",
        NoExplicitDate = "no_explicit_date" => "no concept with an explicit specification has a date",
        NoInterval = "no_interval" => "too few resamples have a date for an interval",
        NotLate = "not_late" => "not a late checkpoint",
        Chance = "chance" => "no more than chance",
        SpecExplicit = "spec_explicit" => "the specification speaks about it, so it says nothing about the void",
        Unclassified = "unclassified" => "nothing says whether a specification speaks about it",
        NeedsSeeds = "needs_seeds" => "takes several runs: selftrace compare --a A1 A2 --b B1 B2",
        EqualRuns = "equal_runs" => "the runs are the same to the last digit",
    }
}
