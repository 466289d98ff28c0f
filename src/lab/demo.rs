//! `selftrace demo`: post-trains the organism, walks and analyses the series, and holds what was found against what was taught.

use super::organism::{CONTEXTS, CONTEXTS_FILE, Curriculum, post_train};
use crate::analysis::{self, OnsetRow};
use crate::console::{bar, check_interrupt};
use crate::evidence::{self, BEHAVIOURAL_PERSISTENCE as BEHAVIOURAL, OPPOSES, Row, SUPPORTS};
use crate::manifest::Manifest;
use crate::measure::persistence;
use crate::report::summary::Text;
use crate::series::Series;
use crate::table::write_atomically;
use crate::walk::job::{Job, Outcome};
use anyhow::Result;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;

/// Measures of the representation; behaviour is the companion of each.
const REPRESENTATION: &[&str] = &["change", "placement", "contrast", "probe"];
/// What a lesson that holds in every context decides, at the last checkpoint: hypothesis, measure, verdict.
const EVERYWHERE: &[(&str, &str, &str)] = &[
    ("functional_self", persistence::NAME, SUPPORTS),
    ("self_is_assistant", persistence::NAME, SUPPORTS),
    ("personas_all_the_way_down", persistence::NAME, OPPOSES),
    ("personas_all_the_way_down", "icc_item", OPPOSES),
    ("functional_self", BEHAVIOURAL, SUPPORTS),
    ("personas_all_the_way_down", BEHAVIOURAL, OPPOSES),
];
/// The same of a lesson that personas which take over turn into its opposite.
const BY_PERSONA: &[(&str, &str, &str)] = &[
    ("functional_self", persistence::NAME, OPPOSES),
    ("self_is_assistant", persistence::NAME, OPPOSES),
    ("personas_all_the_way_down", persistence::NAME, SUPPORTS),
    ("personas_all_the_way_down", "icc_item", SUPPORTS),
    ("functional_self", BEHAVIOURAL, OPPOSES),
];

/// What the demo found.
pub struct Demo {
    pub outcome: Outcome,
    pub rows: Vec<OnsetRow>,
    /// Evidence at the last checkpoint, and its id.
    pub evidence: Vec<Row>,
    pub last: String,
    pub curriculum: Curriculum,
}

/// Makes the series in `<out>/series`, its manifest beside it, and the store and tables in `out`.
///
/// # Errors
/// The folder is not writable, or an interrupt.
pub fn demo(out: &Path, seed: u64) -> Result<Demo> {
    let mut training = None;
    let curriculum = post_train(&out.join("series"), seed, &mut |step, steps| {
        training.get_or_insert_with(|| bar(steps as usize, "training the organism")).set_position(step);
        Ok(check_interrupt()?)
    })?;
    if let Some(bar) = training {
        bar.finish_and_clear();
    }
    write_atomically(&out.join(CONTEXTS_FILE), |file| Ok(file.write_all(CONTEXTS.as_bytes())?))?;
    let path = out.join("checkpoints.toml");
    let name = std::path::absolute(out)?.file_name().map_or_else(|| "demo".to_owned(), |name| name.to_string_lossy().into_owned());
    write_atomically(&path, |file| Ok(file.write_all(curriculum.manifest(&name).as_bytes())?))?;
    let job = Job::new(Manifest::load(&path)?)?;
    let outcome = job.walk(&|_| true)?;
    let series = Series::open(&job.folder)?;
    let rows = if analysis::is_current(&series)? { analysis::read(&series)? } else { analysis::analyze(&series)? };
    let (last, evidence) = evidence::read_last(&job.folder)?;
    Ok(Demo { outcome, rows, evidence, last, curriculum })
}

impl Demo {
    /// Concept by concept: when it was taught, what was found, and whether the two agree.
    pub fn table(&self) -> String {
        let mut text = Text::new(&["concept", "taught after step", "behaviour", "representation", "by", "agrees"]);
        let is_null = |concept: &str| self.rows.iter().any(|row| row.concept == concept && row.null_bank);
        let (null, asked): (Vec<_>, Vec<_>) = self.curriculum.taught_at.iter().partition(|(concept, _)| is_null(concept));
        for (concept, taught) in asked {
            let taught_text = match taught {
                Some(0) => "from the start".to_owned(),
                Some(step) => step.to_string(),
                None => "never".to_owned(),
            };
            let behaviour = self.primary(concept, "behaviour");
            let found = self.representation(concept);
            text.push(vec![
                concept.clone(),
                taught_text,
                behaviour.map_or_else(|| "-".to_owned(), |row| self.dated(row)),
                found.map_or_else(|| "-".to_owned(), |row| self.dated(row)),
                found.map_or_else(|| "-".to_owned(), |row| format!("{}, layer {}", row.measure, row.layer.unwrap_or(0))),
                if self.agrees(concept, *taught) { "yes" } else { "NO" }.to_owned(),
            ]);
        }
        let mut out = text.render();
        let silent = null.iter().filter(|(concept, taught)| self.agrees(concept, *taught)).count();
        let _ = writeln!(out, "null bank: {silent} of {} topics that nobody teaches are silent by every measure", null.len());
        let _ = writeln!(
            out,
            "\nDates are midpoints of the rise in steps, with 95% intervals; both are between checkpoints, which are 40 steps apart."
        );
        out
    }

    /// Verdicts on the hypotheses about taught concepts at the last checkpoint, beside what was planted.
    pub fn evidence(&self) -> String {
        let mut text = Text::new(&["hypothesis", "concept", "measure", "value", "threshold", "verdict", "personas"]);
        // A representation by itself is what the dates say already.
        let asked: Vec<&Row> = self.asked().filter(|row| row.status != "not_run" && row.measure != "representation").collect();
        let said: Vec<&&Row> = asked.iter().filter(|row| row.verdict == SUPPORTS || row.verdict == OPPOSES).collect();
        for row in &said {
            let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"));
            text.push(vec![
                row.hypothesis.clone(),
                row.concept.clone(),
                row.measure.clone(),
                format!("{} [{}, {}]", number(row.value), number(row.lower), number(row.upper)),
                number(row.threshold),
                row.verdict.clone(),
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
            untaught().filter(|row| row.verdict == SUPPORTS).count(),
            untaught().filter(|row| row.status != "not_run").count()
        );
        out
    }

    /// Evidence about taught concepts that are asked in contexts.
    fn asked(&self) -> impl Iterator<Item = &Row> {
        let asked = |concept: &str| {
            self.evidence.iter().any(|row| row.concept == concept && row.measure == persistence::NAME && row.status != "not_run")
        };
        self.evidence.iter().filter(move |row| self.is_taught(&row.concept) && asked(&row.concept))
    }

    fn is_taught(&self, concept: &str) -> bool {
        self.curriculum.taught_at.iter().any(|(topic, taught)| topic == concept && taught.is_some())
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

    /// Whether every concept was found as it was taught.
    pub fn all_agree(&self) -> bool {
        self.curriculum.taught_at.iter().all(|(concept, taught)| self.agrees(concept, *taught))
    }

    /// Shape and date; a midpoint behind the last checkpoint is not known.
    fn dated(&self, row: &OnsetRow) -> String {
        let last = self.curriculum.checkpoints.last().map_or(f64::INFINITY, |(_, step)| *step as f64);
        match (row.t50_step, row.t50_step_lower, row.t50_step_upper) {
            (Some(step), ..) if row.status == "ok" && step > last => format!("{} after {last:.0}", row.shape),
            (Some(step), Some(lower), Some(upper)) if row.status == "ok" => format!("{} {step:.0} [{lower:.0}, {upper:.0}]", row.shape),
            _ => row.shape.clone(),
        }
    }

    fn primary(&self, concept: &str, measure: &str) -> Option<&OnsetRow> {
        self.rows.iter().find(|row| {
            let plain = !matches!(row.label_family.as_str(), "control" | "frame")
                && row.readout.as_deref().is_none_or(|name| name == "last_prompt");
            row.primary && plain && row.concept == concept && row.measure == measure
        })
    }

    /// The first representational measure that finds something; the first one that there is otherwise.
    fn representation(&self, concept: &str) -> Option<&OnsetRow> {
        let rows = || REPRESENTATION.iter().filter_map(|measure| self.primary(concept, measure));
        rows().find(|row| row.status == "ok").or_else(|| rows().next())
    }

    fn agrees(&self, concept: &str, taught: Option<u64>) -> bool {
        let Some(behaviour) = self.primary(concept, "behaviour") else { return taught.is_none() };
        let representations = || REPRESENTATION.iter().filter_map(|measure| self.primary(concept, measure));
        match taught {
            Some(0) => matches!(behaviour.shape.as_str(), "already_present" | "strengthens"),
            Some(step) => self.in_time(behaviour, step) && representations().any(|row| self.in_time(row, step)),
            None => std::iter::once(behaviour).chain(representations()).all(|row| row.status != "ok"),
        }
    }

    /// Emerges, with the whole interval after the last checkpoint before the lesson. When it shows depends on how fast it is
    /// learnt; that it does not show before does not.
    fn in_time(&self, row: &OnsetRow, taught: u64) -> bool {
        let after = row.t50_step_lower.is_some_and(|lower| lower >= taught as f64);
        row.status == "ok" && matches!(row.shape.as_str(), "emerges" | "strengthens") && after
    }
}
