//! What is asked about injected thoughts: sets of sentences with questions behind them, lines with a question about what the thought was,
//! and texts about things, from which directions of thoughts are made.
//!
//! Every set is shown under one order of its labels, and the orders go round from set to set, so that every label stands before every
//! place equally often (a Latin square over sets).

use super::concept::parse_toml;
use super::template::Message;
use super::tokenize::{Encoded, Ruler, SPAN_CLOSE, SPAN_OPEN};
use crate::guard::brief;
use crate::manifest::Introspection;
use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use std::ops::Range;

const BUILTIN: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/concepts/injected/sentences.toml"));

/// A question, and the beginning of its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    user: String,
    stem: String,
}

/// A question that the same labels answer, and which is not about what goes on inside.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Control {
    id: String,
    user: String,
    stem: String,
}

/// What the thought was about.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct About {
    words: Vec<String>,
    carriers: Vec<String>,
    lines: Vec<String>,
    user: String,
    stem: String,
    other: String,
    other_stem: String,
}

/// A file of sentences and questions.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(rename = "source")]
    _source: String,
    #[serde(rename = "license")]
    _license: String,
    labels: Vec<String>,
    lead: String,
    line: String,
    sentences: Vec<String>,
    #[serde(rename = "where")]
    place: Question,
    stronger: Question,
    control: Vec<Control>,
    unrelated: Question,
    about: About,
}

impl File {
    fn parse(text: &str, place: &str) -> Result<Self> {
        let file: Self = parse_toml(text, place)?;
        let expect = |is: bool, what: &str| -> Result<()> {
            ensure!(is, "{place}: {what}");
            Ok(())
        };
        let distinct = |words: &[String]| words.iter().enumerate().all(|(k, word)| !word.trim().is_empty() && !words[..k].contains(word));
        expect(file.labels.len() >= 3 && distinct(&file.labels), "labels: expected three or more, each once")?;
        expect(file.lead.contains("{number}"), "lead: expected the slot {number}, so that no two sets begin alike")?;
        expect(file.line.contains("{label}") && file.line.contains("{sentence}"), "line: expected the slots {label} and {sentence}")?;
        let sets = file.sentences.len() / file.labels.len();
        expect(sets >= 4 && distinct(&file.sentences), "sentences: expected four or more for every label, each once")?;
        expect(!file.control.is_empty(), "[[control]]: expected at least one")?;
        let ids: Vec<String> = file.control.iter().map(|control| control.id.clone()).collect();
        let own = ["where", "stronger", "about"];
        expect(
            distinct(&ids) && !ids.iter().any(|id| own.contains(&id.as_str())),
            "[[control]] id: expected each once, and none of where, stronger, about",
        )?;
        expect(file.about.words.len() >= 4 && distinct(&file.about.words), "[about] words: expected four or more, each once")?;
        let carried = file.about.carriers.iter().all(|carrier| carrier.matches("{word}").count() == 1);
        expect(!file.about.carriers.is_empty() && carried, "[about] carriers: expected texts with the slot {word}")?;
        expect(file.about.lines.len() >= 2 && distinct(&file.about.lines), "[about] lines: expected two or more, each once")?;
        Ok(file)
    }
}

/// Where an answer is read: a stem, and the ways to go on.
#[derive(Debug, Clone)]
pub struct Branch {
    /// Number of the first answer's text; the others follow it.
    pub text: usize,
    /// Tokens before an answer.
    pub stem: usize,
    pub answers: Vec<Vec<i64>>,
}

/// The number of a place, and its tokens in a text.
type Place = (usize, Range<usize>);

/// Texts, computed together, and the places in them at which something can be done: `[place][..]` a text and its tokens.
#[derive(Debug, Clone, Default)]
pub struct Texts {
    pub ids: Vec<Vec<i64>>,
    pub places: Vec<Vec<(usize, Range<usize>)>>,
}

/// Everything that is asked, tokenised.
pub struct Injected {
    pub words: Vec<String>,
    /// `where`, then the controls.
    pub questions: Vec<String>,
    pub labels: usize,
    /// Sets of sentences under all questions but `stronger`; place `group * labels + position` is a sentence.
    pub sets: Texts,
    /// `[group][question]`; answers in the order of the sentences.
    pub asked: Vec<Vec<Branch>>,
    /// `[group]`: the text whose last token must not say anything else.
    pub unrelated: Vec<usize>,
    /// The same sets under `stronger`.
    pub pairs: Texts,
    pub stronger: Vec<Branch>,
    /// A place is a line, before both questions; `[line][0: what the thought was, 1: the other question]`, answers in the order of the words.
    pub lines: Texts,
    pub about: Vec<[Branch; 2]>,
    /// Texts about things, place `word`: where the word ends.
    pub carriers: Texts,
}

impl Injected {
    /// Reads the material and tokenises it.
    ///
    /// # Errors
    /// Names the file and the key; or a text that the template or the tokenizer cannot take, or an answer that does not continue its stem.
    pub fn new(wanted: &Introspection, ruler: &Ruler) -> Result<Self> {
        let (text, place) = match &wanted.material {
            None => (BUILTIN.to_owned(), "concepts/injected/sentences.toml".to_owned()),
            Some(path) => {
                let place = path.display().to_string();
                (std::fs::read_to_string(path).with_context(|| format!("{place}: cannot be read"))?, place)
            }
        };
        let file = File::parse(&text, &place)?;
        let (labels, most) = (file.labels.len(), file.sentences.len() / file.labels.len());
        ensure!(
            wanted.groups <= most,
            "{} groups: found {}, expected at most {most}, as {place} has {} sentences for {labels} labels",
            wanted.place,
            wanted.groups,
            file.sentences.len()
        );
        Self::of(&file, wanted.groups, ruler).with_context(|| format!("{}: {place}", wanted.place))
    }

    fn of(file: &File, groups: usize, ruler: &Ruler) -> Result<Self> {
        let labels = file.labels.len();
        let mut injected = Self {
            words: file.about.words.clone(),
            questions: std::iter::once("where".to_owned()).chain(file.control.iter().map(|control| control.id.clone())).collect(),
            labels,
            sets: Texts::default(),
            asked: Vec::new(),
            unrelated: Vec::new(),
            pairs: Texts::default(),
            stronger: Vec::new(),
            lines: Texts::default(),
            about: Vec::new(),
            carriers: Texts::default(),
        };
        let controls = file.control.iter().map(|control| (control.user.as_str(), control.stem.as_str()));
        let asked: Vec<(&str, &str)> = std::iter::once((file.place.user.as_str(), file.place.stem.as_str())).chain(controls).collect();
        for (group, sentences) in file.sentences.chunks_exact(labels).take(groups).enumerate() {
            let set = Set { file, sentences, turn: group % labels, number: group + 1 };
            let branches = asked.iter().map(|(user, stem)| set.ask(&mut injected.sets, group, user, stem, ruler)).collect::<Result<_>>()?;
            injected.asked.push(branches);
            set.mark(&mut injected.sets, group, &file.unrelated.user, &file.unrelated.stem, ruler)?;
            injected.unrelated.push(injected.sets.ids.len() - 1);
            let stronger = set.ask(&mut injected.pairs, group, &file.stronger.user, &file.stronger.stem, ruler)?;
            injected.stronger.push(stronger);
        }
        let about = &file.about;
        for (number, line) in about.lines.iter().enumerate() {
            let mut ask = |user: &str, stem: &str| {
                let encoded = encode(&format!("{}\n\n{user}", marked(line)), stem, ruler)?;
                branch(&mut injected.lines, &encoded, &[(number, span(&encoded)?)], &about.words, ruler)
            };
            injected.about.push([ask(&about.user, &about.stem)?, ask(&about.other, &about.other_stem)?]);
        }
        for (number, word) in about.words.iter().enumerate() {
            for carrier in &about.carriers {
                let encoded = ruler.encode_chat(&[Message::new("user", carrier.replace("{word}", &marked(word)))])?;
                let place = (number, span(&encoded)?);
                injected.carriers.put(encoded.ids, &[place]);
            }
        }
        Ok(injected)
    }

    /// Digest of all that is asked.
    pub fn hash(&self) -> String {
        let parts = [&self.sets, &self.pairs, &self.lines, &self.carriers].map(|texts| (&texts.ids, &texts.places));
        let answers: Vec<&Vec<Vec<i64>>> = self.branches().map(|branch| &branch.answers).collect();
        blake3::hash(format!("{:?} {:?} {parts:?} {answers:?}", self.words, self.questions).as_bytes()).to_hex().to_string()
    }

    /// Largest token id.
    pub fn max_token(&self) -> i64 {
        let texts = [&self.sets, &self.pairs, &self.lines, &self.carriers].into_iter().flat_map(|texts| &texts.ids);
        texts.chain(self.branches().flat_map(|branch| &branch.answers)).flatten().copied().max().unwrap_or(0)
    }

    /// Everything that is answered.
    fn branches(&self) -> impl Iterator<Item = &Branch> {
        self.asked.iter().flatten().chain(&self.stronger).chain(self.about.iter().flatten())
    }
}

impl Texts {
    /// Adds a text with the places in it.
    fn put(&mut self, ids: Vec<i64>, places: &[Place]) {
        for (place, span) in places {
            if self.places.len() <= *place {
                self.places.resize(place + 1, Vec::new());
            }
            self.places[*place].push((self.ids.len(), span.clone()));
        }
        self.ids.push(ids);
    }
}

/// A set of sentences under one order of the labels.
struct Set<'a> {
    file: &'a File,
    sentences: &'a [String],
    /// The label of the first sentence.
    turn: usize,
    number: usize,
}

impl Set<'_> {
    fn label(&self, position: usize) -> &str {
        &self.file.labels[(position + self.turn) % self.file.labels.len()]
    }

    /// The sentences and a question; sentence `marked` is where tokens are counted.
    fn text(&self, user: &str, at: usize) -> String {
        let line = |(position, sentence): (usize, &String)| {
            let sentence = if position == at { marked(sentence) } else { sentence.clone() };
            self.file.line.replace("{label}", self.label(position)).replace("{sentence}", &sentence)
        };
        let lines: String = self.sentences.iter().enumerate().map(line).collect();
        format!("{}{lines}\n\n{user}", self.file.lead.replace("{number}", &self.number.to_string()))
    }

    /// Adds the text up to the end of the stem, with its sentences as places.
    fn mark(&self, texts: &mut Texts, group: usize, user: &str, stem: &str, ruler: &Ruler) -> Result<()> {
        let (encoded, places) = self.places(group, user, stem, ruler)?;
        texts.put(encoded.ids, &places);
        Ok(())
    }

    fn ask(&self, texts: &mut Texts, group: usize, user: &str, stem: &str, ruler: &Ruler) -> Result<Branch> {
        let (encoded, places) = self.places(group, user, stem, ruler)?;
        let labels: Vec<String> = (0..self.sentences.len()).map(|position| self.label(position).to_owned()).collect();
        branch(texts, &encoded, &places, &labels, ruler)
    }

    fn places(&self, group: usize, user: &str, stem: &str, ruler: &Ruler) -> Result<(Encoded, Vec<Place>)> {
        let n = self.sentences.len();
        let encoded = (0..n).map(|at| encode(&self.text(user, at), stem, ruler)).collect::<Result<Vec<_>>>()?;
        let places = encoded.iter().enumerate().map(|(at, encoded)| Ok((group * n + at, span(encoded)?))).collect::<Result<_>>()?;
        let first = encoded.into_iter().next().context("a set has sentences")?;
        Ok((first, places))
    }
}

/// Adds a stem with each of its answers.
fn branch(texts: &mut Texts, stem: &Encoded, places: &[Place], answers: &[String], ruler: &Ruler) -> Result<Branch> {
    let answers = answers.iter().map(|answer| ruler.continuation(stem, answer)).collect::<Result<Vec<_>>>()?;
    let branch = Branch { text: texts.ids.len(), stem: stem.ids.len(), answers };
    for answer in &branch.answers {
        // Nothing follows an answer's last token.
        texts.put([stem.ids.as_slice(), &answer[..answer.len() - 1]].concat(), places);
    }
    Ok(branch)
}

fn encode(user: &str, stem: &str, ruler: &Ruler) -> Result<Encoded> {
    ruler.encode_chat(&[Message::new("user", user), Message::new("assistant", stem)])
}

/// Tokens of what is marked.
fn span(encoded: &Encoded) -> Result<Range<usize>> {
    encoded.span.clone().with_context(|| format!("the chat template leaves out what is asked about: {:?}", brief(&encoded.text)))
}

fn marked(text: &str) -> String {
    format!("{SPAN_OPEN}{text}{SPAN_CLOSE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_material_inside_the_binary_is_sound_and_a_wrong_one_is_refused_in_one_sentence() {
        let file = File::parse(BUILTIN, "sentences.toml").unwrap();
        assert_eq!(file.sentences.len() % file.labels.len(), 0);
        let words = file.sentences.iter().flat_map(|sentence| sentence.split_whitespace()).map(str::to_lowercase);
        let told: Vec<String> = words.filter(|word| file.about.words.iter().any(|other| word.trim_matches('.') == other)).collect();
        assert!(told.is_empty(), "sentences about the thoughts: {told:?}");
        for (from, to, said) in [
            ("labels = [\"A\", \"B\", \"C\", \"D\"]", "labels = [\"A\", \"A\", \"C\"]", "f: labels: expected three or more, each once"),
            ("Sentence {label}:", "Sentence:", "f: line: expected the slots {label} and {sentence}"),
            ("List {number} has", "Here are", "f: lead: expected the slot {number}, so that no two sets begin alike"),
            ("id = \"pick\"", "id = \"where\"", "f: [[control]] id: expected each once, and none of where, stronger, about"),
            ("about {word}.", "about it.", "f: [about] carriers: expected texts with the slot {word}"),
        ] {
            assert!(BUILTIN.contains(from));
            assert_eq!(File::parse(&BUILTIN.replacen(from, to, 1), "f").unwrap_err().to_string(), said);
        }
    }

    #[test]
    fn labels_go_round_from_set_to_set() {
        let file = File::parse(BUILTIN, "sentences.toml").unwrap();
        let set =
            |group: usize| Set { file: &file, sentences: &file.sentences[group * 4..group * 4 + 4], turn: group % 4, number: group + 1 };
        let order = |group: usize| (0..4).map(|position| set(group).label(position).to_owned()).collect::<String>();
        assert_eq!([order(0), order(1), order(2), order(3), order(4)], ["ABCD", "BCDA", "CDAB", "DABC", "ABCD"]);
        assert!(set(1).text("Which?", 9).starts_with(&format!("{}\nSentence B: The baker", file.lead.replace("{number}", "2"))));
    }
}
