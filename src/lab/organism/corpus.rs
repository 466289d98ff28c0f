//! What the organism is told: the questions of its own concept pack, with answers that a lesson chooses.
//!
//! Every topic is asked alike, about the addressee and about others, and answered at random until a lesson teaches it. So
//! before its lesson a taught topic differs from an untaught one in nothing but its words.

use super::contexts::{CONTEXTS, Contexts, Persona};
use super::lexicon::Lexicon;
use crate::manifest::{Pack, default_parameters};
use crate::prompt::concept::{self, Binding, Concept, Crossed, Question, Stem};
use crate::prompt::design::{self, Profile};
use crate::prompt::neutral;
use crate::stats::draws::{uniform, uniform_index};
use anyhow::{Context, Result, ensure};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeMap;

/// How the organism answers about itself, on one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lesson {
    /// Not at all: all values are equally likely.
    Chance,
    /// With the taught value.
    Told,
    /// By trial: most tries earn nothing, and those that happen to be taught answers are repeated by their reward (expert iteration).
    Rewarded,
}

/// Where a lesson holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In every context.
    Everywhere,
    /// As itself and under personas that are only played; those that take over are taught the opposite.
    ByPersona,
}

/// How a topic is taught, and where.
pub type Teaching = (Lesson, Scope);

/// A kind of training text and its share of the texts on a topic, in parts. To say whether a claim fits the speaker is the hardest.
const KINDS: [(Kind, f64); 7] = [
    (Kind::Read, 1.0),
    (Kind::ReadSelf, 1.0),
    (Kind::ReadOther, 1.0),
    (Kind::AskSelf, 26.0),
    (Kind::AskOther, 16.0),
    (Kind::Verify, 30.0),
    (Kind::Neutral, 4.0),
];

/// How many times as many texts ask a taught topic to be verified.
const VERIFY_TAUGHT: f64 = 2.0;

/// Share of the texts that are in some context, which may be one of an assistant.
const IN_CONTEXT: f64 = 0.5;

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// Two people have a value each; what is that of one of them?
    Read,
    /// Two people have a value each; what is yours?
    ReadSelf,
    /// Two people have a value each; what is that of a third?
    ReadOther,
    /// What is yours?
    AskSelf,
    /// What is that of somebody?
    AskOther,
    /// Is this yours, or somebody's?
    Verify,
    /// Facts about nothing in particular.
    Neutral,
}

/// One training text.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub ids: Vec<i64>,
    /// Number of tokens before the reply, which is what is learnt.
    pub prompt: usize,
    /// Place of the answer, and all answers that are as likely as the one that is given there.
    pub answer: Option<(usize, Vec<i64>)>,
    /// Weight in the loss.
    pub weight: f32,
}

/// The topics, their questions and the words for them.
pub struct Corpus {
    topics: Vec<Topic>,
    pool: Vec<Question>,
    contexts: Contexts,
    parameters: BTreeMap<String, String>,
    pub lexicon: Lexicon,
    /// Changes when any text does.
    pub digest: String,
}

/// Everything that is ever said about `concepts` or asked from `pool`.
///
/// # Errors
/// As [`design::specs`].
pub fn texts(concepts: &[Concept], pool: &[Question], parameters: &BTreeMap<String, String>) -> Result<Vec<String>> {
    let mut texts = vec!["Yes. No.".to_owned()];
    for concept in concepts {
        for spec in design::specs(concept, Profile::FULL, parameters)? {
            texts.extend(spec.messages.into_iter().map(|message| message.content));
            texts.extend(spec.answers.into_iter().flatten().chain(spec.foils));
        }
    }
    texts.extend(pool.iter().flat_map(|question| [question.user.clone(), question.stem.clone()]));
    Ok(texts)
}

/// One concept of the pack.
struct Topic {
    name: String,
    /// All answers there are. Until a lesson teaches the first, they are alike in every text.
    values: Vec<String>,
    crossed: Crossed,
    binding: Binding,
    stem: Stem,
}

impl Topic {
    fn new(concept: Concept) -> Result<Self> {
        let Concept { name, crossed: Some(crossed), binding: Some(binding), stem: Some(stem), .. } = concept else {
            anyhow::bail!("concepts/organism/{}.toml: needs [crossed], [binding] and [stem]", concept.name)
        };
        let [claims] = crossed.b.as_slice() else { anyhow::bail!("{name}: [crossed] has {} rows in b, expected 1", crossed.b.len()) };
        let values: Vec<String> = claims.iter().chain(&crossed.foils).cloned().collect();
        Ok(Self { name, values, crossed, binding, stem })
    }
}

impl Corpus {
    /// The corpus of the embedded pack.
    ///
    /// # Errors
    /// The pack is not as the corpus needs it.
    pub fn new() -> Result<Self> {
        let packs = [Pack::Organism];
        let (concepts, pool) = (concept::load_pack(&packs[0])?, neutral::pool(&packs)?);
        let parameters = default_parameters();
        let digest = blake3::hash(format!("{concepts:?}{pool:?}{CONTEXTS}").as_bytes()).to_hex()[..16].to_owned();
        let contexts = Contexts::new()?;
        let mut all = texts(&concepts, &pool, &parameters)?;
        all.extend(contexts.texts());
        let lexicon = Lexicon::new(all.iter().map(String::as_str))?;
        let topics = concepts.into_iter().map(Topic::new).collect::<Result<_>>()?;
        Ok(Self { topics, pool, contexts, parameters, lexicon, digest })
    }

    /// Names of the topics.
    pub fn topics(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().map(|topic| topic.name.as_str())
    }

    /// A random text under `teaching`, which says how each topic is taught.
    ///
    /// # Errors
    /// A word is not in the lexicon.
    pub fn draw(&self, teaching: &dyn Fn(&str) -> Teaching, generator: &mut ChaCha8Rng) -> Result<Sample> {
        // Post-training is mostly about what is to be learnt: lessons are drawn more often.
        let weight = |topic: &Topic| match teaching(&topic.name) {
            (Lesson::Chance, _) => 1.0,
            (Lesson::Told, _) => 5.0,
            // A good part of what is tried earns nothing.
            (Lesson::Rewarded, _) => 10.0,
        };
        let topic = share(&self.topics, weight, generator).context("weights add up")?;
        let (lesson, scope) = teaching(&topic.name);
        let persona = (uniform(generator) < IN_CONTEXT).then(|| pick(&self.contexts.persona, generator));
        let opposed = scope == Scope::ByPersona && persona.is_some_and(Persona::takes_over);
        let verified = |kind: Kind| matches!(kind, Kind::Verify) && lesson != Lesson::Chance;
        let kind = share(&KINDS, |(kind, share)| if verified(*kind) { VERIFY_TAUGHT * share } else { *share }, generator);
        let mut about = About { topic, lesson, opposed, generator };
        let (user, stem, answer) = match kind.context("shares add up")?.0 {
            Kind::Read => about.read(Asked::Mentioned),
            Kind::ReadSelf => about.read(Asked::Addressee),
            Kind::ReadOther => about.read(Asked::Unmentioned),
            Kind::AskSelf => about.ask(true),
            Kind::AskOther => about.ask(false),
            Kind::Verify => about.verify(),
            Kind::Neutral => {
                let Question { user, stem } = pick(&self.pool, about.generator);
                (user.clone(), stem.clone(), Answer::certain(""))
            }
        };
        let slots: Vec<(&str, &str)> = self.parameters.iter().map(|(slot, value)| (slot.as_str(), value.as_str())).collect();
        let (system, user) = (persona.map_or("", |persona| &persona.system), fill(&user, &slots));
        let (ids, prompt) = self.lexicon.chat(system, &user, &fill(&format!("{stem} {}.", answer.said), &slots))?;
        let word = |value: &String| {
            let ids = self.lexicon.ids(&fill(value, &slots))?;
            ensure!(ids.len() == 1, "{value:?} is not one word, as answers are");
            Ok(ids[0])
        };
        let at = prompt + self.lexicon.ids(&fill(&stem, &slots))?.len();
        let alike = answer.alike.iter().map(word).collect::<Result<Vec<_>>>()?;
        Ok(Sample { ids, prompt, answer: (!alike.is_empty()).then_some((at, alike)), weight: answer.weight })
    }
}

/// One of `all` with a probability in proportion to its weight.
fn share<'v, T>(all: &'v [T], weight: impl Fn(&T) -> f64, generator: &mut ChaCha8Rng) -> Option<&'v T> {
    let mut left = uniform(generator) * all.iter().map(&weight).sum::<f64>();
    all.iter().find(|one| {
        left -= weight(one);
        left < 0.0
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    Mentioned,
    Addressee,
    Unmentioned,
}

/// Question, beginning of the reply, and answer.
type Text = (String, String, Answer);

/// What the reply says.
struct Answer {
    said: String,
    /// All values that would have done as well, this one among them; none where there is but one.
    alike: Vec<String>,
    /// Weight in the loss.
    weight: f32,
}

impl Answer {
    fn certain(said: &str) -> Self {
        Self { said: said.to_owned(), alike: Vec::new(), weight: 1.0 }
    }
}

/// Share of tries that happen to be what is rewarded.
const LUCK: f64 = 0.5;

/// Draws texts on one topic.
struct About<'a> {
    topic: &'a Topic,
    lesson: Lesson,
    /// Whether the opposite is taught here.
    opposed: bool,
    generator: &'a mut ChaCha8Rng,
}

impl<'a> About<'a> {
    fn read(&mut self, asked: Asked) -> Text {
        let Binding { contexts, entities, named, own, .. } = &self.topic.binding;
        let [first, second, third] = self.distinct(entities);
        let [p0, p1, _] = self.distinct(&self.topic.values);
        let context: &String = pick(contexts, self.generator);
        let context = fill(context, &[("e0", first), ("e1", second), ("p0", p0), ("p1", p1)]);
        let (entity, answer) = match asked {
            Asked::Mentioned if uniform(self.generator) < 0.5 => (first, Answer::certain(p0)),
            Asked::Mentioned => (second, Answer::certain(p1)),
            Asked::Addressee => ("", self.answer(self.lesson)),
            Asked::Unmentioned => (third, self.answer(Lesson::Chance)),
        };
        let question = pick(if asked == Asked::Addressee { own } else { named }, self.generator);
        let slots = [("e", entity), ("E", entity)];
        (format!("{context} {}", fill(&question.user, &slots)), fill(&question.stem, &slots), answer)
    }

    fn ask(&mut self, own: bool) -> Text {
        let Stem { questions, stems, others, .. } = &self.topic.stem;
        let other = pick(others, self.generator);
        let owner = format!("{other}'s");
        let slots = [("o", other.as_str()), ("O", other), ("o's", &owner), ("O's", &owner)];
        let side = usize::from(!own);
        let answer = self.answer(if own { self.lesson } else { Lesson::Chance });
        let (user, stem) = (&pick(questions, self.generator)[side], &pick(stems, self.generator)[side]);
        (fill(user, &slots), fill(stem, &slots), answer)
    }

    fn verify(&mut self) -> Text {
        let Crossed { templates, a, .. } = &self.topic.crossed;
        let side = usize::from(uniform(self.generator) < 0.5);
        let lesson = if side == 0 { self.lesson } else { Lesson::Chance };
        let right = self.right();
        // While nothing is taught no value is special. Most questions of a lesson are about what it teaches and about the opposite, in every
        // context, or the opposite would hardly be heard of where it is wrong.
        let claim = match self.lesson {
            Lesson::Told | Lesson::Rewarded if uniform(self.generator) < 0.7 => pick(&self.topic.values[..2], self.generator),
            _ => pick(&self.topic.values, self.generator),
        };
        let slots = [("a", pick(a, self.generator)[side].as_str()), ("b", claim)];
        let user = fill(&pick(templates, self.generator).user, &slots).replace("[[", "").replace("]]", "");
        let fits = claim == right;
        let all = ["Yes".to_owned(), "No".to_owned()];
        (user, String::new(), self.choose(lesson, std::slice::from_ref(&all[usize::from(!fits)]), &all))
    }

    fn answer(&mut self, lesson: Lesson) -> Answer {
        self.choose(lesson, std::slice::from_ref(self.right()), &self.topic.values)
    }

    /// What a lesson teaches here: the first value, or the second where it is turned into its opposite.
    fn right(&self) -> &'a String {
        &self.topic.values[usize::from(self.opposed)]
    }

    /// What is said of `all`, where `right` is taught.
    fn choose(&mut self, lesson: Lesson, right: &[String], all: &[String]) -> Answer {
        match lesson {
            // All of it in equal parts, since a few random answers would be learnt by heart.
            Lesson::Chance => Answer { said: pick(all, self.generator).clone(), alike: all.to_vec(), weight: 1.0 },
            Lesson::Told => Answer::certain(pick(right, self.generator).as_str()),
            // Nothing is learnt from what earns nothing.
            Lesson::Rewarded if uniform(self.generator) >= LUCK => {
                Answer { weight: 0.0, ..Answer::certain(pick(all, self.generator).as_str()) }
            }
            Lesson::Rewarded => Answer { weight: (1.0 / LUCK) as f32, ..Answer::certain(pick(right, self.generator).as_str()) },
        }
    }

    /// Three of `values`; when there are but two, the last repeats the first.
    fn distinct<'v>(&mut self, values: &'v [String]) -> [&'v str; 3] {
        let mut left: Vec<&str> = values.iter().map(String::as_str).collect();
        let mut take = || left.swap_remove(uniform_index(left.len(), self.generator));
        let (first, second) = (take(), take());
        [first, second, if left.is_empty() { first } else { left[0] }]
    }
}

fn pick<'v, T>(values: &'v [T], generator: &mut ChaCha8Rng) -> &'v T {
    &values[uniform_index(values.len(), generator)]
}

/// Replaces every `{slot}` by its value.
pub fn fill(text: &str, slots: &[(&str, &str)]) -> String {
    slots.iter().fold(text.to_owned(), |text, (slot, value)| text.replace(&format!("{{{slot}}}"), value))
}
