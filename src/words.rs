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
}
pub(crate) use words;

words! {
    /// Why a row of a table has its numbers, or why it has none.
    #[derive(Default)]
    pub enum Status {
        /// All is there.
        Ok = "ok",
        /// Nothing of the kind was asked or computed.
        #[default]
        NotRun = "not_run",
        /// It could not be computed.
        Failed = "failed",

        // What is not there to be measured.
        /// Groups, or a fold, have one label only.
        DegenerateLabel = "degenerate_label",
        /// No axis that tells the poles, facts, or roles apart.
        NoAxis = "no_axis",
        NoAnswers = "no_answers",
        /// Not all wordings have the same answers.
        MixedAnswers = "mixed_answers",
        /// A checkpoint lacks the log-probabilities.
        NotScored = "not_scored",
        /// Cells do not say in which order options stand.
        NoOrder = "no_order",
        /// A checkpoint lacks the rows of the unembedding.
        NoUnembedding = "no_unembedding",
        /// Too few foils differ from the answer in the tokens that are read.
        FoilsNotToldApart = "foils_not_told_apart",
        NoDirection = "no_direction",
        /// Interventions go beyond the guards.
        SideEffects = "side_effects",
        TooFewGroups = "too_few_groups",
        TooFewConcepts = "too_few_concepts",
        TooFewDifferences = "too_few_differences",
        TooFewPersonas = "too_few_personas",
        TooFewCheckpoints = "too_few_checkpoints",

        // What it cannot be held against.
        NoBank = "no_bank",
        /// Random directions do not move anything, or are too few.
        NoNull = "no_null",
        /// Nothing of its kind to be held against.
        NoFoils = "no_foils",
        TooFewFoils = "too_few_foils",
        NoReference = "no_reference",

        // What was found instead.
        /// Words give the label away.
        LexicalLeak = "lexical_leak",
        GateFail = "gate_fail",
        /// The reference prefers the answer to its foils already.
        AlreadyPreferred = "already_preferred",
        BeforeOnset = "before_onset",
        /// There is nothing to carry over.
        NoRise = "no_rise",
        /// There is nothing to share.
        NoEffect = "no_effect",
        NoDate = "no_date",
        NoExplicitDate = "no_explicit_date",
        /// Most resamples lack the number.
        NoInterval = "no_interval",
        NotLate = "not_late",
        /// Wordings agree as much about anybody.
        Chance = "chance",
        SpecExplicit = "spec_explicit",
        Unclassified = "unclassified",
        NeedsSeeds = "needs_seeds",
        /// Runs are the same to the last digit.
        EqualRuns = "equal_runs",
    }
}
