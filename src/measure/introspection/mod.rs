//! Introspection: whether a model says where a thought was put (method section 5).
//!
//! Of N sentences one has a thought injected, and "in which?" is answered by a label: an N x N matrix of log-probabilities, injected by answered.
//! Its rows and columns are centred, so that a shift of all answers and a favourite label cancel, and the score is the right answer minus the
//! others, in nats. That alone may be attention to what sticks out. So the same is asked by questions that are not about what goes on inside,
//! of random directions and of other sentences' activations: untaught, the question about thoughts is one more of these. Beside it stand
//! which of two thoughts was stronger, and what the thought was about, minus the same answers to another question.

mod matrix;

use super::foils::Among;
use super::{Finding, Measure, Measured, Part, joined};
use crate::console::check_interrupt;
use crate::onset::curve::Curve;
use crate::onset::trace::{Null, Role, Trace};
use crate::prompt::label_family::LabelFamily;
use crate::series::{Family, Series};
use crate::stats::draws::Draws;
use crate::stats::estimate::{Reported, Sampled};
use crate::table::{Key, Table};
use crate::walk::introspection;
use crate::walk::introspection::sheet::{Header, Kind, Sheet};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "introspection";
pub const TABLE: Table = Table::keyed::<Row>("introspection");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// Number of the question that is about thoughts.
const WHERE: usize = 0;

/// One row of `introspection.parquet` behind the keys. Scores are in nats: the log-probability of the right answer minus the mean of the others',
/// rows and columns centred.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Row {
    /// Of the injection.
    pub layer: i32,
    /// Length of what is added over the mean length of the residual; of `stronger`, the weaker of the two; null for `exchange`.
    pub strength: Option<f64>,
    /// `thought`, `random` (a direction of the sentences' covariance) or `exchange` (another sentence's activations).
    pub injected: String,
    /// `where`, a control question, `stronger` (which of two thoughts) or `about` (what the thought was of).
    pub question: String,
    /// `ok`; `side_effects` where the strength disturbs what follows an unrelated question, so that it does not count; `not_run`.
    pub status: Status,
    /// Mean over the sets of sentences; of `about`, over the things.
    pub score: Reported,
    /// What `where` scores for thoughts of this strength beyond this row; in its own row, beyond the highest control question. For `exchange`,
    /// of the mean of the strengths that count.
    pub excess: Reported,
    /// Share of injections after which the right label has gained most.
    pub hits: Option<f64>,
    /// Divergence of the next token behind an unrelated question, in nats.
    pub kl: Option<f64>,
    /// Sets of sentences; words for `about`.
    pub n_groups: i32,
}

/// What a run was asked, and how strongly things were injected; `None` where they were not. Two runs are comparable where this is the same.
pub fn asked(series: &Series) -> Option<(String, Vec<f64>)> {
    let last = (0..series.points.len()).rev().find_map(|t| Sheet::open(&series.sheet(introspection::FOLDER, t)).ok())?;
    Some((last.header.asked, last.header.strengths))
}

/// Without sheets the table is empty. A checkpoint without one, or with one of other questions than the last has rows without numbers.
fn run(series: &Series) -> Result<Measured> {
    let mut sheets = series.opened(introspection::FOLDER, Sheet::read)?;
    let Some(header) = sheets.iter().rev().flatten().map(|sheet| sheet.header.clone()).next() else {
        return Measured::of_rows::<Row>(TABLE, &[]);
    };
    sheets.iter_mut().for_each(|sheet| *sheet = sheet.take().filter(|sheet| sheet.header == header));
    let draws = |what: &str, n: usize| Draws::with_counts(n, 99, series.bootstraps, series.seed, &format!("{NAME}/{what}"));
    let (groups, words) = (draws("sets", header.groups)?, draws("words", header.words.len())?);
    let at_layer = |layer: usize| {
        check_interrupt()?;
        Layer { series, sheets: &sheets, header: &header, layer, groups: &groups, words: &words }.part()
    };
    let parts = (0..header.layers.len()).into_par_iter().map(at_layer).collect::<Result<Vec<_>>>()?;
    let (parts, findings): (Vec<Part<Row>>, Vec<Vec<Finding>>) = parts.into_iter().unzip();
    let (mut rows, traces) = joined(parts);
    rows.sort_by_key(|(key, _)| key.order);
    Ok(Measured { traces, findings: findings.concat(), ..Measured::of_rows(TABLE, &rows)? })
}

/// What is done and asked: one row per checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Place { setting: usize, question: usize },
    Stronger,
    About { strength: usize },
}

/// All injections at one layer, along the series.
struct Layer<'a> {
    series: &'a Series,
    sheets: &'a [Option<Sheet>],
    header: &'a Header,
    /// By position in the sheets.
    layer: usize,
    groups: &'a Draws,
    words: &'a Draws,
}

impl Layer<'_> {
    fn part(&self) -> Result<(Part<Row>, Vec<Finding>)> {
        let counting: Vec<usize> = (0..self.header.strengths.len()).filter(|&strength| self.counts(strength)).collect();
        let (mut rows, mut findings) = (Vec::new(), Vec::new());
        for (t, sheet) in self.sheets.iter().enumerate() {
            rows.extend(self.rows(sheet.as_ref(), &counting).into_iter().map(|row| (self.series.key(t), row)));
            findings.push(self.finding(&self.series.key(t), sheet.as_ref(), &counting));
        }
        Ok(((rows, self.trace(&counting)?.into_iter().collect()), findings))
    }

    /// Whether a strength leaves what follows an unrelated question as it was, at all checkpoints.
    fn counts(&self, strength: usize) -> bool {
        let limit = self.series.evidence.guard_kl;
        self.sheets.iter().flatten().all(|sheet| sheet.kl(self.layer, strength) <= limit)
    }

    fn all(&self) -> Vec<Asked> {
        let settings = self.header.settings().len();
        let questions = self.header.questions.len();
        let places = (0..settings).flat_map(|setting| (0..questions).map(move |question| Asked::Place { setting, question }));
        let stronger = (self.header.pairs() > 0).then_some(Asked::Stronger);
        places.chain(stronger).chain((0..self.header.strengths.len()).map(|strength| Asked::About { strength })).collect()
    }

    /// The score of every group.
    fn scores(&self, sheet: &Sheet, asked: Asked) -> Vec<f64> {
        let n = self.header.labels;
        match asked {
            Asked::Place { setting, question } => {
                (0..self.header.groups).map(|group| matrix::located(sheet.places(self.layer, setting, group, question), n).0).collect()
            }
            Asked::Stronger => {
                let first = |pair: usize, order: usize, group: usize| {
                    let told = sheet.stronger(self.layer, pair, order, group);
                    f64::from(told[pair]) - f64::from(told[(pair + 1) % n])
                };
                let of = |group: usize| (0..n).map(|pair| (first(pair, 0, group) - first(pair, 1, group)) / 2.0).sum::<f64>() / n as f64;
                (0..self.header.groups).map(of).collect()
            }
            Asked::About { strength } => {
                let (words, lines) = (self.header.words.len(), self.header.lines);
                let told = |line: usize, question: usize| sheet.about(self.layer, strength, line, question);
                let cell = |at: usize| {
                    let beyond = |line: usize| f64::from(told(line, 0)[at]) - f64::from(told(line, 1)[at]);
                    (0..lines).map(beyond).sum::<f64>() / lines as f64
                };
                let mean: Vec<f64> = (0..words * words).map(cell).collect();
                matrix::diagonal(&matrix::centred(&mean, words), words).collect()
            }
        }
    }

    fn sampled(&self, scores: &[f64], draws: &Draws) -> Sampled {
        Sampled { value: scores.iter().sum::<f64>() / scores.len() as f64, replicates: draws.means(scores) }
    }

    /// Scores of thoughts under a question, in the mean of some strengths.
    fn thoughts(&self, sheet: &Sheet, question: usize, strengths: &[usize]) -> Vec<f64> {
        // Settings begin with the thoughts.
        let each: Vec<Vec<f64>> = strengths.iter().map(|&setting| self.scores(sheet, Asked::Place { setting, question })).collect();
        mean(&each, self.header.groups)
    }

    /// The scores of `where` for thoughts, then of every control question under each kind of injection: a dozen of one kind but for what is asked.
    fn among(&self, sheet: &Sheet, counting: &[usize]) -> Vec<Vec<f64>> {
        let settings = self.header.settings();
        let mut choices = vec![self.thoughts(sheet, WHERE, counting)];
        for question in 1..self.header.questions.len() {
            for kind in [Kind::Thought, Kind::Random, Kind::Exchange] {
                let is_own = |(_, (other, strength)): &(usize, &(Kind, Option<usize>))| {
                    *other == kind && strength.is_none_or(|strength| counting.contains(&strength))
                };
                let own = settings.iter().enumerate().filter(is_own).map(|(setting, _)| setting);
                let each: Vec<Vec<f64>> = own.map(|setting| self.scores(sheet, Asked::Place { setting, question })).collect();
                choices.push(mean(&each, self.header.groups));
            }
        }
        choices
    }

    /// What `where` has for thoughts beyond the highest control question.
    fn beyond_controls(&self, own: &Sampled, sheet: &Sheet, strengths: &[usize]) -> Reported {
        let controls: Vec<Sampled> = (1..self.header.questions.len())
            .map(|question| self.sampled(&self.thoughts(sheet, question, strengths), self.groups))
            .collect();
        Sampled::highest(controls.iter().map(Some)).and_then(|highest| own.minus(highest)).into()
    }

    fn rows(&self, sheet: Option<&Sheet>, counting: &[usize]) -> Vec<Row> {
        self.all().into_iter().map(|asked| self.row(sheet, asked, counting)).collect()
    }

    fn row(&self, sheet: Option<&Sheet>, asked: Asked, counting: &[usize]) -> Row {
        let settings = self.header.settings();
        let (kind, strength, question) = match asked {
            Asked::Place { setting, question } => (settings[setting].0, settings[setting].1, self.header.questions[question].as_str()),
            Asked::Stronger => (Kind::Thought, Some(0), "stronger"),
            Asked::About { strength } => (Kind::Thought, Some(strength), "about"),
        };
        let draws = if matches!(asked, Asked::About { .. }) { self.words } else { self.groups };
        let row = Row {
            layer: self.header.layers[self.layer] as i32,
            strength: strength.map(|strength| self.header.strengths[strength]),
            injected: match kind {
                Kind::Thought => "thought",
                Kind::Random => "random",
                Kind::Exchange => "exchange",
            }
            .to_owned(),
            question: question.to_owned(),
            n_groups: draws.groups() as i32,
            ..Row::default()
        };
        let Some(sheet) = sheet else { return row };
        // Of two thoughts the stronger one has to be within the guard, too.
        let strongest = if asked == Asked::Stronger { Some(1) } else { strength };
        let within = strongest.is_none_or(|strength| counting.contains(&strength));
        let score = self.sampled(&self.scores(sheet, asked), draws);
        let mut row = Row { status: if within { Status::Ok } else { Status::SideEffects }, score: score.estimate().into(), ..row };
        if let Asked::Place { setting, question } = asked {
            let strengths = strength.map_or_else(|| counting.to_vec(), |strength| vec![strength]);
            if !strengths.is_empty() {
                let own = self.sampled(&self.thoughts(sheet, WHERE, &strengths), self.groups);
                let is_own = question == WHERE && kind == Kind::Thought;
                row.excess = if is_own { self.beyond_controls(&own, sheet, &strengths) } else { own.minus(&score).into() };
            }
            let hits = |group: usize| matrix::located(sheet.places(self.layer, setting, group, question), self.header.labels).1;
            row.hits = Some((0..self.header.groups).map(hits).sum::<f64>() / self.header.groups as f64);
            row.kl = Some(sheet.kl(self.layer, setting));
        }
        row
    }

    /// The curve of `where`, held against the control questions.
    fn trace(&self, counting: &[usize]) -> Result<Option<Trace>> {
        let there: Vec<(usize, &Sheet)> = self.sheets.iter().enumerate().filter_map(|(t, sheet)| Some((t, sheet.as_ref()?))).collect();
        let points: Vec<usize> = there.iter().map(|(t, _)| *t).collect();
        let family = Family::named(NAME, LabelFamily::Stem);
        let layer = Some(self.header.layers[self.layer]);
        if counting.is_empty() {
            let curve = Curve { value: vec![f64::NAN; points.len()], replicates: Vec::new() };
            let trace = Trace::new(NAME, &family, points, curve).named(None, layer);
            return Ok(Some(Trace { role: Role::Level, status: Some(Status::SideEffects), ..trace }));
        }
        let by_group = |sheet: &Sheet| {
            let choices = self.among(sheet, counting);
            (0..self.header.groups).map(|group| choices.iter().map(|choice| choice[group]).collect()).collect()
        };
        let scores: Vec<Vec<Vec<f64>>> = there.iter().map(|(_, sheet)| by_group(sheet)).collect();
        let among = Among::new(&scores, self.groups)?;
        let trace = Trace::new(NAME, &family, points, among.own).named(None, layer);
        Ok(Some(Trace { null: Null::Foils(among.foils), ..trace }))
    }

    fn finding(&self, key: &Key, sheet: Option<&Sheet>, counting: &[usize]) -> Finding {
        let beyond = |sheet: &Sheet| {
            let own = self.sampled(&self.thoughts(sheet, WHERE, counting), self.groups);
            self.beyond_controls(&own, sheet, counting).estimate()
        };
        let status = match sheet {
            None => Status::NotRun,
            Some(_) if counting.is_empty() => Status::SideEffects,
            Some(_) => Status::Ok,
        };
        Finding {
            checkpoint: key.checkpoint.clone(),
            concept: NAME.to_owned(),
            part: NAME,
            layer: Some(self.header.layers[self.layer] as i32),
            status,
            estimate: sheet.filter(|_| status == Status::Ok).and_then(beyond),
            contexts: usize::MAX,
            ..Finding::default()
        }
    }
}

/// Mean over the first index, per group.
fn mean(each: &[Vec<f64>], groups: usize) -> Vec<f64> {
    (0..groups).map(|group| each.iter().map(|own| own[group]).sum::<f64>() / each.len() as f64).collect()
}
