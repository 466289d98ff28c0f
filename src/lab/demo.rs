//! `selftrace demo`: post-trains the organism, walks and analyses the series, and holds what was found against what was taught.

use super::organism::{CONTEXTS, CONTEXTS_FILE, Curriculum, Order, post_train};
use super::tally::Tally;
use crate::analysis::{self, Analysis, OnsetRow};
use crate::console::{bar, check_interrupt};
use crate::evidence::{self, BEHAVIOURAL_PERSISTENCE as BEHAVIOURAL, Hypothesis, Row, Verdict};
use crate::manifest::{Manifest, Readout};
use crate::measure::{behaviour, contrast, lens, persistence};
use crate::onset::shape::Shape;
use crate::report::page::AtHand;
use crate::report::summary::Text;
use crate::report::words;
use crate::series::Series;
use crate::stats::estimate::Reported;
use crate::table::write_atomically;
use crate::walk::job::{Job, Outcome};
use crate::words::Status;
use anyhow::Result;
use std::fmt::Write as _;
use std::path::Path;

/// The measures that date a concept here, named beforehand: what it says, and what the residual stream says by itself. Every other
/// measure has to be silent where nothing was taught.
const NAMED: [&str; 2] = [behaviour::NAME, lens::NAME];
/// Measures whose power is counted over many demos.
const COUNTED: [&str; 3] = [behaviour::NAME, lens::NAME, contrast::NAME];
/// What a lesson that holds in every context decides, at the last checkpoint: hypothesis, measure, verdict.
const EVERYWHERE: &[(Hypothesis, &str, Verdict)] = &[
    (Hypothesis::FunctionalSelf, persistence::NAME, Verdict::Supports),
    (Hypothesis::SelfIsAssistant, persistence::NAME, Verdict::Supports),
    (Hypothesis::PersonasAllTheWayDown, persistence::NAME, Verdict::Opposes),
    (Hypothesis::PersonasAllTheWayDown, "icc_item", Verdict::Opposes),
    (Hypothesis::FunctionalSelf, BEHAVIOURAL, Verdict::Supports),
    (Hypothesis::PersonasAllTheWayDown, BEHAVIOURAL, Verdict::Opposes),
];
/// The same of a lesson that personas which take over turn into its opposite.
const BY_PERSONA: &[(Hypothesis, &str, Verdict)] = &[
    (Hypothesis::FunctionalSelf, persistence::NAME, Verdict::Opposes),
    (Hypothesis::SelfIsAssistant, persistence::NAME, Verdict::Opposes),
    (Hypothesis::PersonasAllTheWayDown, persistence::NAME, Verdict::Supports),
    (Hypothesis::PersonasAllTheWayDown, "icc_item", Verdict::Supports),
    (Hypothesis::FunctionalSelf, BEHAVIOURAL, Verdict::Opposes),
];

/// What the demo found.
pub struct Demo {
    pub outcome: Outcome,
    pub rows: Vec<OnsetRow>,
    /// Evidence at the last checkpoint, and its id.
    pub evidence: Vec<Row>,
    pub last: String,
    pub curriculum: Curriculum,
    /// What was written, as far as a page shows it; nothing where the tables were up to date.
    pub tables: AtHand,
}

/// Makes the series in `<out>/series`, its manifest beside it, and the store and tables in `out`.
///
/// # Errors
/// The folder is not writable, or an interrupt.
pub fn demo(out: &Path, seed: u64, order: Order) -> Result<Demo> {
    let mut training = None;
    let curriculum = post_train(&out.join("series"), seed, order, &mut |step, steps| {
        training.get_or_insert_with(|| bar(steps as usize, "training the organism")).set_position(step);
        Ok(check_interrupt()?)
    })?;
    if let Some(bar) = training {
        bar.finish_and_clear();
    }
    write_atomically(&out.join(CONTEXTS_FILE), CONTEXTS.as_bytes())?;
    let path = out.join("checkpoints.toml");
    let name = std::path::absolute(out)?.file_name().map_or_else(|| "demo".to_owned(), |name| name.to_string_lossy().into_owned());
    write_atomically(&path, curriculum.manifest(&name).as_bytes())?;
    let job = Job::new(Manifest::load(&path)?)?;
    let outcome = job.walk(&|_| true)?;
    let series = Series::open(&job.folder)?;
    let mut tables = AtHand::default();
    let found = match analysis::is_current(&series)? {
        true => analysis::read(&job.folder)?,
        false => analysis::analyze_for(&series, &mut |table| tables.take(table))?,
    };
    Ok(Demo { outcome, tables, ..Demo::new(found, curriculum) })
}

impl Demo {
    /// A demo that is complete, from its tables.
    ///
    /// # Errors
    /// A table or the curriculum is missing.
    pub fn read(out: &Path) -> Result<Self> {
        Ok(Self::new(analysis::read(out)?, Curriculum::read(&out.join("series"))?))
    }

    fn new(found: Analysis, curriculum: Curriculum) -> Self {
        let (last, evidence) = evidence::last(&found.evidence);
        Self { outcome: Outcome::default(), rows: found.onsets, evidence, last, curriculum, tables: AtHand::default() }
    }

    /// Concept by concept: when it was taught, what the named measures found, and whether all measures agree with the curriculum.
    pub fn table(&self) -> String {
        let [behaviour, representation] = NAMED;
        let mut text = Text::new(&["concept", "taught after step", behaviour, representation, "layer", "agrees"]);
        let is_null = |concept: &str| self.rows.iter().any(|row| row.concept == concept && row.null_bank);
        let (null, asked): (Vec<_>, Vec<_>) = self.curriculum.taught_at.iter().partition(|(concept, _)| is_null(concept));
        for (concept, taught) in &asked {
            let taught_text = match taught {
                Some(0) => "from the start".to_owned(),
                Some(step) => step.to_string(),
                None => "never".to_owned(),
            };
            let [said, read] = NAMED.map(|measure| self.primary(concept, measure));
            let layer = read.and_then(|row| row.layer);
            text.push(vec![
                concept.clone(),
                taught_text,
                said.map_or_else(|| "-".to_owned(), dated),
                read.map_or_else(|| "-".to_owned(), dated),
                layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string()),
                if self.errors(concept, *taught).is_empty() { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        let mut out = text.render();
        let errors: Vec<String> = asked.iter().chain(&null).flat_map(|(concept, taught)| self.errors(concept, *taught)).collect();
        let silent = null.iter().filter(|(concept, taught)| self.errors(concept, *taught).is_empty()).count();
        let _ = writeln!(out, "null bank: {silent} of {} topics that nobody teaches are silent by every measure", null.len());
        if !errors.is_empty() {
            let _ = writeln!(out, "\nThis seed is one of the few on which a measure errs:");
            errors.iter().for_each(|error| out += &format!("  {error}\n"));
        }
        let _ = writeln!(
            out,
            "\nDates are midpoints of the rise in steps, with 95% intervals; that of a sudden step is at least the gap between checkpoints, 40 steps."
        );
        out
    }

    /// Verdicts on the hypotheses about taught concepts at the last checkpoint, beside what was planted.
    pub fn evidence(&self) -> String {
        let mut text = Text::new(&["hypothesis", "concept", "measure", "value", "threshold", "verdict", "personas"]);
        // A representation by itself is what the dates say already.
        let asked: Vec<&Row> = self.asked().filter(|row| row.status != Status::NotRun && row.measure != "representation").collect();
        let said: Vec<&&Row> = asked.iter().filter(|row| row.verdict == Verdict::Supports || row.verdict == Verdict::Opposes).collect();
        for row in &said {
            let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            text.push(vec![
                row.hypothesis.to_string(),
                row.concept.clone(),
                row.measure.clone(),
                format!("{} [{}, {}]", number(row.value.value), number(row.value.lower), number(row.value.upper)),
                number(row.threshold),
                row.verdict.to_string(),
                if self.curriculum.is_by_persona(&row.concept) { "opposed" } else { "alike" }.to_owned(),
            ]);
        }
        let mut out = format!("Evidence at {}, as far as it says something\n{}", self.last, text.render());
        let untaught = || self.evidence.iter().filter(|row| !self.is_taught(&row.concept));
        let (right, planted) = self.as_planted();
        let _ = writeln!(
            out,
            "{} verdicts are inconclusive; {right} of {planted} that the curriculum decides are as planted\n\
             about concepts that nobody teaches, {} of {} verdicts support a hypothesis\n\
             personas that take over are taught alike, or the opposite of what the organism is taught as itself",
            asked.len() - said.len(),
            untaught().filter(|row| row.verdict == Verdict::Supports).count(),
            untaught().filter(|row| row.status != Status::NotRun).count()
        );
        out
    }

    /// Evidence about taught concepts that are asked in contexts.
    fn asked(&self) -> impl Iterator<Item = &Row> {
        let asked = |concept: &str| {
            self.evidence.iter().any(|row| row.concept == concept && row.measure == persistence::NAME && row.status != Status::NotRun)
        };
        self.evidence.iter().filter(move |row| self.is_taught(&row.concept) && asked(&row.concept))
    }

    fn is_taught(&self, concept: &str) -> bool {
        self.curriculum.taught_at.iter().any(|(topic, taught)| topic == concept && taught.is_some())
    }

    /// What it found, for a table of many.
    pub fn tally(&self, arithmetic: &str) -> Tally {
        let lessons =
            || self.curriculum.taught_at.iter().filter_map(|(concept, taught)| Some((concept, (*taught)?))).filter(|(_, step)| *step > 0);
        let dated = |measure: &str| {
            lessons().filter(|(concept, step)| self.primary(concept, measure).is_some_and(|row| as_taught(row, *step))).count()
        };
        let untaught = self.curriculum.taught_at.iter().filter(|(_, taught)| taught.is_none());
        let rows = untaught.flat_map(|(concept, _)| self.primaries(concept)).filter(|row| row.status == Status::Ok);
        let verdicts = self.evidence.iter().filter(|row| !self.is_taught(&row.concept) && row.status != Status::NotRun);
        let (as_planted, planted) = self.as_planted();
        Tally {
            arithmetic: arithmetic.to_owned(),
            seed: self.curriculum.seed,
            untaught_dated: rows.map(|row| (row.concept.clone(), row.measure.clone())).collect(),
            taught: lessons().count(),
            dated: COUNTED.iter().map(|measure| ((*measure).to_owned(), dated(measure))).collect(),
            planted,
            as_planted,
            untaught_supports: verdicts.clone().filter(|row| row.verdict == Verdict::Supports).count(),
            untaught_verdicts: verdicts.count(),
        }
    }

    /// How many verdicts are as the curriculum has it, and how many it decides. What is there from the start has no onset, so it
    /// supports nothing.
    fn as_planted(&self) -> (usize, usize) {
        let taught = self.curriculum.taught_at.iter().filter(|(_, taught)| taught.is_some_and(|step| step > 0));
        let planted = |concept: &str| if self.curriculum.is_by_persona(concept) { BY_PERSONA } else { EVERYWHERE };
        let asked = |concept: &String| self.asked().any(|row| row.concept == *concept);
        let taught = taught.filter(|(concept, _)| asked(concept));
        let all: Vec<_> = taught.flat_map(|(concept, _)| planted(concept).iter().map(move |part| (concept, part))).collect();
        let right = all.iter().filter(|(concept, (hypothesis, measure, verdict))| {
            let same = |row: &&Row| row.concept == **concept && row.hypothesis == *hypothesis && row.measure == *measure;
            self.evidence.iter().find(same).is_some_and(|row| row.verdict == *verdict)
        });
        (right.count(), all.len())
    }

    fn primary(&self, concept: &str, measure: &str) -> Option<&OnsetRow> {
        let plain = |row: &&OnsetRow| row.readout.as_deref().is_none_or(|name| name == Readout::LastPrompt.name());
        self.primaries(concept).filter(plain).find(|row| row.measure == measure)
    }

    /// Every primary row about a concept itself.
    fn primaries(&self, concept: &str) -> impl Iterator<Item = &OnsetRow> {
        let own = |row: &&OnsetRow| row.primary && !row.label_family.is_comparison();
        self.rows.iter().filter(own).filter(move |row| row.concept == concept)
    }

    /// Sentences about what was not found as it was taught.
    fn errors(&self, concept: &str, taught: Option<u64>) -> Vec<String> {
        let found = |row: &OnsetRow| format!("{concept} {} by {}", dated(row), row.measure);
        match taught {
            None => self
                .primaries(concept)
                .filter(|row| row.status == Status::Ok || matches!(row.shape, Shape::Transient | Shape::Vanishes | Shape::Reoriented))
                .map(|row| format!("{}, and nobody taught it", found(row)))
                .collect(),
            Some(step) => {
                let wrong = |row: &&OnsetRow| !as_taught(row, step);
                let rows = NAMED.iter().filter_map(|measure| self.primary(concept, measure)).filter(wrong);
                let when = if step == 0 { "from the start".to_owned() } else { format!("after step {step}") };
                rows.map(|row| format!("{} ({}), and it was taught {when}", found(row), row.status)).collect()
            }
        }
    }
}

/// Shape and date; of a midpoint that is not bracketed, its bound.
fn dated(row: &OnsetRow) -> String {
    if row.status != Status::Ok {
        return row.shape.to_string();
    }
    let end = |end: Option<f64>| end.map_or_else(|| "open".to_owned(), |end| format!("{end:.0}"));
    let at = |_: &str, date: Reported| format!("{} [{}, {}]", end(date.value), end(date.lower), end(date.upper));
    format!("{} {}", row.shape, words::date(row, &at, &|_, bound| end(Some(bound)))).trim_end().to_owned()
}

/// Emerges, with the whole interval after the last checkpoint before the lesson. When it shows depends on how fast it is
/// learnt; that it does not show before does not. What was taught before the first checkpoint is there.
fn as_taught(row: &OnsetRow, taught: u64) -> bool {
    if taught == 0 {
        return matches!(row.shape, Shape::AlreadyPresent | Shape::Strengthens);
    }
    // Steps that went through the logarithm of the axis come back with a rounding.
    let after = row.t50_step.lower.is_some_and(|lower| lower.round() >= taught as f64);
    row.status == Status::Ok && matches!(row.shape, Shape::Emerges | Shape::Strengthens) && after
}
