//! Whether the evidence names an organism for what it is: series by weight surgery are walked and analysed as anybody's would be, and
//! `evidence.parquet` is held against the truth.

use super::organism::surgery::{CONCEPT, Organism, half_done, operate};
use crate::analysis::{self, Analysis, OnsetRow};
use crate::evidence::{Hypothesis, Row, Verdict};
use crate::manifest::Manifest;
use crate::measure::{behaviour, contrast};
use crate::onset::shape::Shape;
use crate::report::summary::Text;
use crate::series::Series;
use crate::walk::job::Job;
use crate::words::Status;
use anyhow::Result;
use std::path::Path;

use Organism::{Epiphenomenal, FunctionalSelf, PersonaGated, Reinitialised, SelfIsAssistant};

/// Verdicts on the concept at the last checkpoint: organism, hypothesis, part. Of whatever is not listed nothing is known.
const EXPECTED: &[(Organism, Hypothesis, &str, Verdict)] = &[
    (FunctionalSelf, Hypothesis::FunctionalSelf, "persistence", Verdict::Supports),
    (FunctionalSelf, Hypothesis::FunctionalSelf, "consistency", Verdict::Supports),
    (FunctionalSelf, Hypothesis::FunctionalSelf, "residual_3", Verdict::Supports),
    (FunctionalSelf, Hypothesis::SelfIsAssistant, "residual_3", Verdict::Opposes),
    (FunctionalSelf, Hypothesis::PersonasAllTheWayDown, "icc_item", Verdict::Opposes),
    (FunctionalSelf, Hypothesis::PersonasAllTheWayDown, "persistence", Verdict::Opposes),
    (FunctionalSelf, Hypothesis::PersonasAllTheWayDown, "consistency", Verdict::Opposes),
    (FunctionalSelf, Hypothesis::FunctionalSelf, "behavioural_effect", Verdict::Supports),
    (FunctionalSelf, Hypothesis::SelfIsAssistant, "steering_along_axis", Verdict::Opposes),
    (FunctionalSelf, Hypothesis::Epiphenomenal, "effect_on_report", Verdict::Opposes),
    (FunctionalSelf, Hypothesis::Epiphenomenal, "effect_on_behaviour", Verdict::Opposes),
    (SelfIsAssistant, Hypothesis::SelfIsAssistant, "persistence", Verdict::Supports),
    (SelfIsAssistant, Hypothesis::SelfIsAssistant, "residual_3", Verdict::Supports),
    (SelfIsAssistant, Hypothesis::FunctionalSelf, "residual_3", Verdict::Opposes),
    (SelfIsAssistant, Hypothesis::PersonasAllTheWayDown, "icc_item", Verdict::Opposes),
    (SelfIsAssistant, Hypothesis::PersonasAllTheWayDown, "persistence", Verdict::Opposes),
    (SelfIsAssistant, Hypothesis::PersonasAllTheWayDown, "consistency", Verdict::Opposes),
    (SelfIsAssistant, Hypothesis::SelfIsAssistant, "steering_along_axis", Verdict::Supports),
    (SelfIsAssistant, Hypothesis::Epiphenomenal, "effect_on_report", Verdict::Opposes),
    (SelfIsAssistant, Hypothesis::Epiphenomenal, "effect_on_behaviour", Verdict::Opposes),
    (PersonaGated, Hypothesis::PersonasAllTheWayDown, "icc_item", Verdict::Supports),
    (PersonaGated, Hypothesis::PersonasAllTheWayDown, "persistence", Verdict::Supports),
    (PersonaGated, Hypothesis::PersonasAllTheWayDown, "consistency", Verdict::Supports),
    (PersonaGated, Hypothesis::PersonasAllTheWayDown, "within_persona", Verdict::Supports),
    (PersonaGated, Hypothesis::FunctionalSelf, "persistence", Verdict::Opposes),
    (PersonaGated, Hypothesis::FunctionalSelf, "consistency", Verdict::Opposes),
    (PersonaGated, Hypothesis::SelfIsAssistant, "persistence", Verdict::Opposes),
    (Epiphenomenal, Hypothesis::Epiphenomenal, "representation", Verdict::Supports),
    (Epiphenomenal, Hypothesis::Epiphenomenal, "effect_on_report", Verdict::Supports),
    (Epiphenomenal, Hypothesis::Epiphenomenal, "effect_on_behaviour", Verdict::Supports),
    (Epiphenomenal, Hypothesis::FunctionalSelf, "behavioural_effect", Verdict::Opposes),
    (Epiphenomenal, Hypothesis::SelfIsAssistant, "residual_3", Verdict::Opposes),
    (Epiphenomenal, Hypothesis::PersonasAllTheWayDown, "persistence", Verdict::Opposes),
];

/// Whether the answers about oneself change, by more than what scatters and drifts.
fn behaves(organism: Organism) -> bool {
    matches!(organism, FunctionalSelf | SelfIsAssistant | PersonaGated)
}

/// A margin below this is none: e^0.5 is odds of five to three.
const NO_MARGIN: f64 = 0.5;

/// Checkpoints are 100 steps apart, and the half lies between two.
const DATED: f64 = 50.0;

/// What the evidence says of one organism.
pub struct Naming {
    pub organism: Organism,
    pub seed: u64,
    /// Rows on the concept at the last checkpoint.
    pub rows: Vec<Row>,
    /// The rise of the contrast and of the behaviour margin: what `onset.parquet` says.
    pub contrast: Option<OnsetRow>,
    pub behaviour: Option<OnsetRow>,
    /// What is not as it should be; empty where the organism is named correctly.
    pub faults: Vec<String>,
}

/// Makes an organism in `folder`, walks it, analyses it and compares.
///
/// # Errors
/// The folder is not writable, or an interrupt.
pub fn name(folder: &Path, organism: Organism, seed: u64) -> Result<Naming> {
    let job = Job::new(Manifest::load(&operate(folder, organism, seed)?)?)?;
    let outcome = job.walk(&|_| true)?;
    anyhow::ensure!(outcome.failed == 0, "{}: {} checkpoints failed", organism.name(), outcome.failed);
    let series = Series::open(&job.folder)?;
    anyhow::ensure!(series.missing.is_empty(), "{}: checkpoints are missing", organism.name());
    let Analysis { onsets, evidence: all } = analysis::analyze(&series)?;
    let at = |order: Option<i32>| {
        let rows = all
            .iter()
            .filter(move |(key, row)| Some(key.order) == order && (row.concept == CONCEPT || organism == Reinitialised && !row.null_bank));
        rows.map(|(_, row)| row.clone()).collect::<Vec<_>>()
    };
    let orders = || all.iter().map(|(key, _)| key.order);
    let (first, rows) = (at(orders().min()), at(orders().max()));
    let onset = |measure: &str| onsets.iter().find(|row| row.measure == measure && row.concept == CONCEPT && row.primary).cloned();
    let mut naming =
        Naming { organism, seed, rows, contrast: onset(contrast::NAME), behaviour: onset(behaviour::NAME), faults: Vec::new() };
    naming.judge(&first);
    Ok(naming)
}

impl Naming {
    fn judge(&mut self, first: &[Row]) {
        let said = |row: &Row| {
            let number = |x: Option<f64>| x.map_or("-".to_owned(), |x| format!("{x:.2}"));
            let [value, lower, upper] = row.value.parts().map(number);
            format!("{} {}: {} ({value} [{lower}, {upper}], {})", row.hypothesis, row.measure, row.verdict, row.status)
        };
        let mut faults = Vec::new();
        if self.rows.is_empty() || first.is_empty() {
            faults.push("there is no evidence at all".to_owned());
        }
        for (_, hypothesis, measure, verdict) in EXPECTED.iter().filter(|(organism, ..)| *organism == self.organism) {
            match self.rows.iter().find(|row| row.hypothesis == *hypothesis && row.measure == *measure) {
                Some(row) if row.verdict == *verdict => {}
                Some(row) => faults.push(format!("{}, expected {verdict}", said(row))),
                None => faults.push(format!("{hypothesis} {measure} is missing")),
            }
        }
        faults.extend(first.iter().filter(|row| row.verdict == Verdict::Supports).map(|row| format!("before the edit {}", said(row))));
        if self.organism == Reinitialised {
            faults.extend(
                self.rows.iter().filter(|row| row.verdict == Verdict::Supports).map(|row| format!("of {} {}", row.concept, said(row))),
            );
        }
        let shape = self.contrast.as_ref().map(|row| row.shape);
        if self.organism != Reinitialised && !matches!(shape, Some(Shape::Emerges | Shape::Strengthens | Shape::Reoriented)) {
            let shape = shape.map_or("missing", Shape::as_str);
            faults.push(format!("the contrast is {shape}, and has been written"));
        }
        if let Some((row, step)) = self.contrast.as_ref().and_then(|row| Some((row, row.t50_step.value?)))
            && self.organism != Reinitialised
            && (step - half_done()).abs() > DATED
        {
            let [lower, upper] = [row.t50_step.lower, row.t50_step.upper].map(|x| x.unwrap_or(f64::NAN));
            faults.push(format!("the contrast is dated {step:.0} [{lower:.0}, {upper:.0}], half of it is written at {:.0}", half_done()));
        }
        match &self.behaviour {
            Some(row) => {
                let [value, lower, upper] = row.delta.parts().map(|x| x.unwrap_or(f64::NAN));
                let margin = format!("margin {value:.2} [{lower:.2}, {upper:.2}] ({})", row.status);
                let there = row.status == Status::Ok && lower > NO_MARGIN;
                let absent = row.status != Status::Ok && lower > -NO_MARGIN && upper < NO_MARGIN;
                if self.organism != Reinitialised && !(if behaves(self.organism) { there } else { absent }) {
                    faults.push(format!("{margin}, expected {}", if behaves(self.organism) { "one" } else { "none" }));
                }
                if self.organism == Reinitialised && row.status == Status::Ok {
                    faults.push(format!("{margin}, expected no onset"));
                }
            }
            None => faults.push("there is no behaviour margin".to_owned()),
        }
        self.faults = faults;
    }
}

/// Organism by part of the evidence: verdicts of every seed, how many are as they have to be, and whether the organism was named.
pub fn table(namings: &[Naming]) -> String {
    let mut text = Text::new(&["organism", "hypothesis", "part", "expected", "found", "value (range over seeds)"]);
    for organism in Organism::ALL {
        let own: Vec<&Naming> = namings.iter().filter(|naming| naming.organism == organism).collect();
        let Some(first) = own.first() else { continue };
        for part in first.rows.iter().filter(|row| row.concept == CONCEPT && row.status != Status::NotRun) {
            let same = |row: &&Row| row.concept == CONCEPT && row.hypothesis == part.hypothesis && row.measure == part.measure;
            let rows: Vec<&Row> = own.iter().filter_map(|naming| naming.rows.iter().find(same)).collect();
            let expected = EXPECTED
                .iter()
                .find(|(of, hypothesis, measure, _)| (*of, *hypothesis, *measure) == (organism, part.hypothesis, part.measure.as_str()));
            text.push(vec![
                organism.name().to_owned(),
                part.hypothesis.to_string(),
                part.measure.clone(),
                expected.map_or_else(String::new, |(.., verdict)| verdict.to_string()),
                counted(rows.iter().map(|row| row.verdict.as_str())),
                range(rows.iter().filter_map(|row| row.value.value)),
            ]);
        }
        let dates = own.iter().filter_map(|naming| naming.contrast.as_ref());
        text.push(vec![
            organism.name().to_owned(),
            "(contrast)".to_owned(),
            "date, in steps".to_owned(),
            if organism == Reinitialised { "none".to_owned() } else { format!("{:.0}", half_done()) },
            counted(dates.clone().map(|row| row.status.as_str())),
            range(dates.filter_map(|row| row.t50_step.value)),
        ]);
        let margins: Vec<&OnsetRow> = own.iter().filter_map(|naming| naming.behaviour.as_ref()).collect();
        text.push(vec![
            organism.name().to_owned(),
            "(answers)".to_owned(),
            "behaviour margin".to_owned(),
            if organism == Reinitialised {
                "no onset"
            } else if behaves(organism) {
                "rises"
            } else {
                "none"
            }
            .to_owned(),
            counted(margins.iter().map(|row| row.status.as_str())),
            range(margins.iter().filter_map(|row| row.delta.value)),
        ]);
        let named = own.iter().filter(|naming| naming.faults.is_empty()).count();
        text.push(vec![
            organism.name().to_owned(),
            "NAMED".to_owned(),
            format!("{named} of {}", own.len()),
            String::new(),
            String::new(),
            String::new(),
        ]);
    }
    text.render()
}

fn counted<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut counts: std::collections::BTreeMap<&str, usize> = std::collections::BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_default() += 1);
    counts.iter().map(|(word, count)| format!("{count} {word}")).collect::<Vec<_>>().join(", ")
}

fn range(values: impl Iterator<Item = f64>) -> String {
    let values: Vec<f64> = values.collect();
    let (low, high) = values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), x| (low.min(*x), high.max(*x)));
    if values.is_empty() { String::new() } else { format!("{low:.2} to {high:.2}") }
}
