//! Conversations that a checkpoint carries on by itself, turn by turn, many at a time.

use super::LINE;
use super::dialogue::{Dialogue, Speaker, Turn};
use crate::manifest::Conversation;
use crate::model::generate::{Event, Finish, Past, Request, Writing, go_on};
use crate::model::resident::Resident;
use crate::model::sample::Sampling;
use crate::prompt::endings::Endings;
use crate::prompt::openings::{Arm, Partner};
use crate::prompt::records::RESERVED;
use crate::prompt::template::Message;
use crate::prompt::tokenize::{Ruler, SPAN_CLOSE, SPAN_OPEN};
use anyhow::Result;

/// How a turn ends that cannot be asked for, since the template does not take what was said before.
const REFUSED: &str = "refused";

/// What a turn ends with, beside the tokens that end any text of the model: what the template writes between two turns.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Between {
    /// The special token behind an assistant's turn.
    pub token: Option<i64>,
    /// Where there is none, the text that leads over to the user's next turn.
    pub text: Option<String>,
}

impl Between {
    /// From how a template renders a conversation.
    ///
    /// # Errors
    /// The template refuses it.
    pub fn of(ruler: &Ruler) -> Result<Self> {
        let [ask, said, next] = ["xylophone", "kestrel", "harbour"];
        let marked = format!("{SPAN_OPEN}{said}{SPAN_CLOSE}");
        let messages = [Message::new("user", ask), Message::new("assistant", marked), Message::new("user", next)];
        let encoded = ruler.encode_chat(&messages)?;
        let behind = encoded.span.and_then(|span| encoded.ids.get(span.end).copied());
        if let Some(token) = behind.filter(|token| ruler.is_special(*token)) {
            return Ok(Self { token: Some(token), text: None });
        }
        let lead = encoded.text.split_once(said).and_then(|(_, rest)| rest.split_once(next)).map(|(lead, _)| lead.trim());
        // One sign, as a line end or a colon, stands in the midst of turns too.
        Ok(Self { token: None, text: lead.filter(|lead| lead.chars().count() > 1).map(str::to_owned) })
    }

    /// What of a text is the turn, and whether it ends there.
    fn cut<'a>(&self, text: &'a str) -> (&'a str, bool) {
        let at = self.text.as_deref().and_then(|lead| text.find(lead));
        at.map_or((text.trim(), false), |at| (text[..at].trim(), true))
    }
}

/// Who carries them on.
pub struct Talking<'a> {
    pub resident: &'a Resident<'a>,
    pub ruler: &'a Ruler,
    pub endings: Endings,
    pub wanted: &'a Conversation,
    pub arms: &'a [Arm],
    /// Of the run: every conversation draws from it and its own number, the same at every checkpoint.
    pub seed: u64,
}

impl Talking<'_> {
    /// All conversations at one temperature, arm by arm, in the order of their seeds; `refused` gets a sentence for each that ends as it cannot
    /// be rendered. `tick` is called for every turn of the model and what is said to it, of every conversation.
    ///
    /// # Errors
    /// As [`go_on`], the template refuses any conversation, or the error of `tick`.
    pub fn talk(&self, temperature: f64, refused: &mut Vec<String>, tick: &mut dyn FnMut() -> Result<()>) -> Result<Vec<Dialogue>> {
        let between = Between::of(self.ruler)?;
        let mut stop = self.endings.stop.clone();
        stop.extend(between.token);
        let positions = self.resident.config().positions();
        let sampling = Sampling { temperature, top_p: self.wanted.top_p };
        let way = Way { between, writing: Writing { sampling, stop, max_tokens: self.wanted.max_tokens, positions } };
        let all: Vec<(&Arm, usize)> = self.arms.iter().flat_map(|arm| (0..self.wanted.seeds).map(move |seed| (arm, seed))).collect();
        // What was read of a conversation is kept by both sides, beside the batch that is being written.
        let tokens = 2 * self.wanted.exchanges * (self.wanted.max_tokens + LINE);
        let together = (self.resident.most_rows(positions.map_or(tokens, |positions| tokens.min(positions))) / 3).max(1);
        Ok(all.chunks(together).map(|part| self.talk_together(part, &way, refused, tick)).collect::<Result<Vec<_>>>()?.concat())
    }

    fn talk_together(
        &self,
        all: &[(&Arm, usize)],
        way: &Way,
        refused: &mut Vec<String>,
        tick: &mut dyn FnMut() -> Result<()>,
    ) -> Result<Vec<Dialogue>> {
        let temperature = way.writing.sampling.temperature;
        let begin = |(arm, seed): &(&Arm, usize)| {
            let turns = vec![Turn::given(1, arm.opening(*seed))];
            Dialogue { arm: arm.name.clone(), seed: *seed as u32, temperature, turns }
        };
        let mut dialogues: Vec<Dialogue> = all.iter().map(begin).collect();
        let nothing = || all.iter().map(|_| None).collect::<Vec<Option<Past>>>();
        let (mut of_model, mut of_partner) = (nothing(), nothing());
        let mut tick_all = || all.iter().try_for_each(|_| tick());
        for exchange in 1..=self.wanted.exchanges {
            refused.extend(self.speak(&mut dialogues, (Speaker::Model, exchange), &|_| true, &mut of_model, way)?);
            tick_all()?;
            if exchange == self.wanted.exchanges {
                break;
            }
            let is_itself = |number: usize| all[number].0.partner == Partner::Itself;
            refused.extend(self.speak(&mut dialogues, (Speaker::Partner, exchange), &is_itself, &mut of_partner, way)?);
            for (dialogue, (arm, seed)) in dialogues.iter_mut().zip(all) {
                if arm.partner == Partner::Script && dialogue.goes_on() {
                    dialogue.turns.push(Turn::given(exchange as u32 + 1, arm.follow_up(*seed, exchange)));
                }
            }
            tick_all()?;
        }
        Ok(dialogues)
    }

    /// One turn of `speaker` in every conversation that goes on; `pasts` are what it has read of each. Returns a sentence for each that cannot be
    /// rendered.
    fn speak(
        &self,
        dialogues: &mut [Dialogue],
        (speaker, exchange): (Speaker, usize),
        takes_part: &dyn Fn(usize) -> bool,
        pasts: &mut [Option<Past>],
        way: &Way,
    ) -> Result<Vec<String>> {
        let (mut open, mut requests, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        for (number, dialogue) in dialogues.iter_mut().enumerate().filter(|(number, _)| takes_part(*number)) {
            if !dialogue.goes_on() {
                continue;
            }
            match self.ruler.encode_chat(&dialogue.heard_by(speaker)) {
                Ok(encoded) => {
                    open.push(number);
                    // Instances of one model draw different numbers, since they have heard different things.
                    requests.push(Request { ids: encoded.ids, seed: self.seed.wrapping_add(u64::from(dialogue.seed)) });
                }
                // What a model writes may be what its template does not take.
                Err(error) => {
                    refused.push(format!("{} {} at temperature {}: {error:#}", dialogue.arm, dialogue.seed, dialogue.temperature));
                    let turn = Turn { speaker, finish: Some(REFUSED.to_owned()), ..Turn::given(exchange as u32, "") };
                    dialogue.turns.push(turn);
                }
            }
        }
        let mut texts: Vec<(Vec<i64>, Finish)> = vec![(Vec::new(), Finish::Length); open.len()];
        let own = open.iter().map(|number| pasts[*number].take()).collect();
        let behind = go_on(self.resident, &requests, own, &way.writing, &mut |request, event| {
            match event {
                Event::Token { id, .. } => texts[request].0.push(id),
                Event::End(finish) => texts[request].1 = finish,
            }
            Ok(())
        })?;
        for ((number, (ids, finish)), past) in open.into_iter().zip(texts).zip(behind) {
            pasts[number] = past;
            let own = &ids[..ids.len() - usize::from(finish == Finish::Stop)];
            let whole = self.ruler.decode(own)?;
            let (text, ends) = way.between.cut(&whole);
            dialogues[number].turns.push(Turn {
                exchange: exchange as u32,
                speaker,
                // A mark would be taken for one of ours.
                text: text.replace(|c| RESERVED.contains(&c), "").trim().to_owned(),
                tokens: Some(ids.len() as u32),
                finish: Some(if ends { Finish::Stop } else { finish }.name().to_owned()),
            });
        }
        Ok(refused)
    }
}

/// How turns are written, and where they end.
struct Way {
    writing: Writing,
    between: Between,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::template::Template;
    use std::path::Path;

    #[test]
    fn a_turn_ends_where_the_template_leads_over_to_the_next_one() {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        let of = |template: Template| Between::of(&Ruler::load(&fixtures.join("tokenizer"), template).unwrap()).unwrap();
        let plain = of(Template::plain().unwrap());
        assert_eq!(plain, Between { token: None, text: Some("Human:".to_owned()) });
        assert_eq!(plain.cut(" Yes.\n\nHuman: No. Human: x"), ("Yes.", true));
        assert_eq!(plain.cut(" Yes. \n"), ("Yes.", false));
        // The tokenizer of the fixtures does not have their special tokens, so their names are text.
        for entry in std::fs::read_dir(fixtures.join("chat_templates/templates")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            if name.starts_with("x_") {
                continue;
            }
            let source = std::fs::read_to_string(&path).unwrap();
            let between = of(Template::new(&source, Some("<s>"), Some("</s>")).unwrap());
            let text = between.text.unwrap_or_default();
            assert!(between.token.is_some() || text.len() > 3, "{name}: {text:?}");
            assert!(!text.contains("kestrel") && !text.contains("harbour"), "{name}: {text:?}");
        }
        // A line end alone is no end of a turn.
        let lines = of(Template::new("{% for m in messages %}{{ m.content }}\n{% endfor %}", None, None).unwrap());
        assert_eq!(lines, Between::default());
    }
}
