//! What is counted of the text of conversations that a checkpoint wrote itself.

use super::Quantity;
use crate::stats::text::{compression_ratio, emoji_share, is_nearly_same, is_same, repeats, type_token_ratio, words};
use crate::walk::conversation::dialogue::{Dialogue, Speaker};

/// What is counted, in the order of the table.
pub const COUNTED: [Quantity; 8] = [
    Quantity::Verbatim,
    Quantity::NearVerbatim,
    Quantity::Looping,
    Quantity::Ended,
    Quantity::TypeToken,
    Quantity::Compression,
    Quantity::Emoji,
    Quantity::Words,
];

/// Whether a quantity is 0 or 1 in a conversation, and a share over several.
pub fn is_share(quantity: Quantity) -> bool {
    matches!(quantity, Quantity::Verbatim | Quantity::NearVerbatim | Quantity::Looping | Quantity::Ended)
}

/// One conversation, as it is counted.
pub struct Spoken {
    /// `[exchange][quantity]`, in the order of [`COUNTED`].
    values: Vec<[Option<f64>; COUNTED.len()]>,
}

impl Spoken {
    /// Goes through a conversation once.
    pub fn new(dialogue: &Dialogue) -> Self {
        let (mut written, mut turns) = (Vec::new(), Vec::new());
        for turn in dialogue.written() {
            written.push(turn.text.as_str());
            if turn.speaker == Speaker::Model {
                let same = repeats(&written, is_same);
                turns.push((turn.text.as_str(), written.len(), same, same || repeats(&written, is_nearly_same)));
            }
        }
        let yes = |is: bool| Some(f64::from(u8::from(is)));
        let value = |(exchange, (text, so_far, same, nearly)): (usize, &(&str, usize, bool, bool))| {
            COUNTED.map(|quantity| match quantity {
                Quantity::Verbatim => yes(*same),
                Quantity::NearVerbatim => yes(*nearly),
                Quantity::Looping => yes(turns[exchange..].iter().all(|(.., nearly)| *nearly)),
                Quantity::Ended => yes(false),
                Quantity::TypeToken => type_token_ratio(text),
                Quantity::Compression => compression_ratio(&written[..*so_far]),
                Quantity::Emoji => emoji_share(text),
                Quantity::Words => Some(words(text).len() as f64),
                _ => None,
            })
        };
        Self { values: turns.iter().enumerate().map(value).collect() }
    }

    /// At the model's turn of an exchange, from 1; `None` where there is none, or it is too short.
    pub fn value(&self, quantity: Quantity, exchange: usize) -> Option<f64> {
        match self.values.get(exchange - 1) {
            Some(values) => values[COUNTED.iter().position(|counted| *counted == quantity)?],
            None => (quantity == Quantity::Ended).then_some(1.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walk::conversation::dialogue::Turn;

    fn dialogue(turns: &[(Speaker, &str)]) -> Dialogue {
        let turn = |(number, (speaker, text)): (usize, &(Speaker, &str))| Turn { speaker: *speaker, ..Turn::given(number as u32, text) };
        Dialogue { arm: "a".to_owned(), seed: 0, temperature: 1.0, turns: turns.iter().enumerate().map(turn).collect() }
    }

    #[test]
    fn a_loop_is_what_repeats_to_the_end() {
        let (given, model, partner) = (Speaker::Given, Speaker::Model, Speaker::Partner);
        // a b a b c b: the third turn of the model leaves the cycle.
        let left = dialogue(&[(given, "o"), (model, "a"), (partner, "b"), (model, "a"), (partner, "b"), (model, "c"), (partner, "b")]);
        let spoken = Spoken::new(&left);
        let of = |quantity| (1..=4).map(|exchange| spoken.value(quantity, exchange)).collect::<Vec<_>>();
        assert_eq!(of(Quantity::Verbatim), [Some(0.0), Some(1.0), Some(0.0), None]);
        assert_eq!(of(Quantity::Looping), [Some(0.0), Some(0.0), Some(0.0), None]);
        assert_eq!(of(Quantity::Ended), [Some(0.0), Some(0.0), Some(0.0), Some(1.0)]);
        // A user's lines do not count: the model says the same to all of them.
        let stays =
            dialogue(&[(given, "o"), (model, "x"), (given, "p"), (model, "a"), (given, "q"), (model, "a"), (given, "r"), (model, "")]);
        let spoken = Spoken::new(&stays);
        assert_eq!([1, 2, 3].map(|exchange| spoken.value(Quantity::Looping, exchange)), [Some(0.0), Some(0.0), Some(1.0)]);
        assert_eq!(spoken.value(Quantity::Ended, 4), Some(1.0));
    }
}
