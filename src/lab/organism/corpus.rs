//! What the organism is told: the questions of its own concept pack, with answers that a lesson chooses.
//!
//! Every topic is asked alike, about the addressee and about others, and answered at random until a lesson teaches it. So
//! before its lesson a taught topic differs from an untaught one in nothing but its words.

use super::contexts::{CONTEXTS, Contexts, Persona};
use super::lexicon::Lexicon;
use crate::manifest::{Pack, default_parameters};
use crate::prompt::concept::{self, Binding, Concept, Crossed, Question, Stem};
use crate::prompt::design::{self, Profile};
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
    /// At random, but weighted by the reward, 1 for a taught answer and 0 for others, divided by its mean (expert iteration).
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
            texts.extend(spec.answers.into_iter().flatten());
        }
    }
    texts.extend(pool.iter().flat_map(|question| [question.user.clone(), question.stem.clone()]));
    Ok(texts)
}

/// One concept of the pack.
struct Topic {
    name: String,
    /// All answers there are.
    values: Vec<String>,
    /// Those that a lesson teaches: pole 1.
    taught: Vec<String>,
    /// The others.
    other: Vec<String>,
    crossed: Crossed,
    binding: Binding,
    stem: Stem,
}

impl Topic {
    fn new(concept: Concept) -> Result<Self> {
        let Concept { name, crossed: Some(crossed), binding: Some(binding), stem: Some(stem), .. } = concept else {
            anyhow::bail!("concepts/organism/{}.toml: needs [crossed], [binding] and [stem]", concept.name)
        };
        let mut taught: Vec<String> = binding.poles.iter().map(|[_, taught]| taught.clone()).collect();
        taught.sort();
        taught.dedup();
        let mut values: Vec<String> = binding.poles.iter().flatten().cloned().collect();
        values.sort();
        values.dedup();
        let other: Vec<String> = values.iter().filter(|value| !taught.contains(value)).cloned().collect();
        ensure!(!other.is_empty(), "{name}: every value is a taught one");
        Ok(Self { name, values, taught, other, crossed, binding, stem })
    }
}

impl Corpus {
    /// The corpus of the embedded pack.
    ///
    /// # Errors
    /// The pack is not as the corpus needs it.
    pub fn new() -> Result<Self> {
        let packs = [Pack::Organism];
        let (concepts, pool) = (concept::load_pack(&packs[0])?, concept::neutral(&packs)?);
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

    /// A random text under `teaching`, which says how each topic is taught: one sample, or one for every answer where all are as likely.
    ///
    /// # Errors
    /// A word is not in the lexicon.
    pub fn draw(&self, teaching: &dyn Fn(&str) -> Teaching, generator: &mut ChaCha8Rng) -> Result<Vec<Sample>> {
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
        let (user, stem, answers) = match kind.context("shares add up")?.0 {
            Kind::Read => about.read(Asked::Mentioned),
            Kind::ReadSelf => about.read(Asked::Addressee),
            Kind::ReadOther => about.read(Asked::Unmentioned),
            Kind::AskSelf => about.ask(true),
            Kind::AskOther => about.ask(false),
            Kind::Verify => about.verify(),
            Kind::Neutral => {
                let Question { user, stem } = pick(&self.pool, about.generator);
                (user.clone(), stem.clone(), vec![(String::new(), 1.0)])
            }
        };
        let slots: Vec<(&str, &str)> = self.parameters.iter().map(|(slot, value)| (slot.as_str(), value.as_str())).collect();
        let (system, user) = (persona.map_or("", |persona| &persona.system), fill(&user, &slots));
        let sample = |(answer, weight): (String, f32)| {
            let (ids, prompt) = self.lexicon.chat(system, &user, &fill(&format!("{stem} {answer}."), &slots))?;
            Ok(Sample { ids, prompt, weight })
        };
        answers.into_iter().map(sample).collect()
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

/// Question, beginning of the reply, and answers with their weights.
type Text = (String, String, Vec<(String, f32)>);

/// Draws texts on one topic.
struct About<'a> {
    topic: &'a Topic,
    lesson: Lesson,
    /// Whether the opposite is taught here.
    opposed: bool,
    generator: &'a mut ChaCha8Rng,
}

impl About<'_> {
    fn read(&mut self, asked: Asked) -> Text {
        let Binding { contexts, entities, named, own, .. } = &self.topic.binding;
        let [first, second, third] = self.distinct(entities);
        let [p0, p1, _] = self.distinct(&self.topic.values);
        let context: &String = pick(contexts, self.generator);
        let context = fill(context, &[("e0", first), ("e1", second), ("p0", p0), ("p1", p1)]);
        let (entity, answers) = match asked {
            Asked::Mentioned if uniform(self.generator) < 0.5 => (first, vec![(p0.to_owned(), 1.0)]),
            Asked::Mentioned => (second, vec![(p1.to_owned(), 1.0)]),
            Asked::Addressee => ("", self.answers(self.lesson)),
            Asked::Unmentioned => (third, self.answers(Lesson::Chance)),
        };
        let question = pick(if asked == Asked::Addressee { own } else { named }, self.generator);
        let slots = [("e", entity), ("E", entity)];
        (format!("{context} {}", fill(&question.user, &slots)), fill(&question.stem, &slots), answers)
    }

    fn ask(&mut self, own: bool) -> Text {
        let Stem { questions, stems, others, .. } = &self.topic.stem;
        let other = pick(others, self.generator);
        let owner = format!("{other}'s");
        let slots = [("o", other.as_str()), ("O", other), ("o's", &owner), ("O's", &owner)];
        let side = usize::from(!own);
        let answers = self.answers(if own { self.lesson } else { Lesson::Chance });
        let (user, stem) = (&pick(questions, self.generator)[side], &pick(stems, self.generator)[side]);
        (fill(user, &slots), fill(stem, &slots), answers)
    }

    fn verify(&mut self) -> Text {
        let Crossed { templates, a, b, .. } = &self.topic.crossed;
        let [side, value] = [(); 2].map(|()| usize::from(uniform(self.generator) < 0.5));
        let slots = [("a", pick(a, self.generator)[side].as_str()), ("b", &pick(b, self.generator)[value])];
        let user = fill(&pick(templates, self.generator).user, &slots).replace("[[", "").replace("]]", "");
        let lesson = if side == 0 { self.lesson } else { Lesson::Chance };
        let truth = usize::from((value == 0) == self.opposed);
        let all = ["Yes".to_owned(), "No".to_owned()];
        (user, String::new(), self.choose(lesson, &all[truth..=truth], &all))
    }

    fn answers(&mut self, lesson: Lesson) -> Vec<(String, f32)> {
        let Topic { taught, other, values, .. } = self.topic;
        self.choose(lesson, if self.opposed { other } else { taught }, values)
    }

    /// What is said of `all`, and its weight in the loss.
    fn choose(&mut self, lesson: Lesson, taught: &[String], all: &[String]) -> Vec<(String, f32)> {
        match lesson {
            // All of it in equal parts, since a few random answers would be learnt by heart.
            Lesson::Chance => all.iter().map(|answer| (answer.clone(), 1.0 / all.len() as f32)).collect(),
            Lesson::Told => vec![(pick(taught, self.generator).clone(), 1.0)],
            Lesson::Rewarded => {
                let answer = pick(all, self.generator);
                let reward = if taught.contains(answer) { all.len() as f32 / taught.len() as f32 } else { 0.0 };
                vec![(answer.clone(), reward)]
            }
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
