//! Causation along the series: what adding a concept's direction does to self-descriptions (`report`) and to object-level choices
//! (`behaviour`), beside random directions and the assistant axis, and what taking it out does. The curve that is dated is z, in units
//! of the random directions.

mod effect;

use super::{Finding, Measure, Measured, Part, joined};
use crate::console::check_interrupt;
use crate::onset::curve::Curve;
use crate::onset::trace::{Role, Trace};
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::stats::draws::Draws;
use crate::stats::estimate::{Reported, Sampled};
use crate::stats::matrix;
use crate::table::{Key, Table};
use crate::walk::interventions;
use crate::walk::interventions::sheet::{Along, Sheet};
use crate::words::Status;
use anyhow::Result;
use effect::{Line, Null, Question, share, size};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub const NAME: &str = "causal";
/// Names of the curves.
pub const CURVES: [&str; 2] = ["effect_on_report", "effect_on_behaviour"];
/// Parts of signatures beside the curves: what is done to behaviour, and how much of an effect the component along the axis makes.
pub const BEHAVIOURAL: &str = "behavioural_effect";
pub const ALONG_AXIS: &str = "steering_along_axis";
const TABLE: Table = Table::keyed::<Causal>("causal");
pub const MEASURE: Measure = Measure { name: NAME, tables: &[TABLE], run };
/// Outcomes, with the label family of their items, in the order of [`CURVES`].
pub const OUTCOMES: [(&str, LabelFamily); 2] = [("report", LabelFamily::StemSelf), ("behaviour", LabelFamily::Choice)];
/// Values of `direction`.
pub const CONCEPT: &str = "concept";
pub const AXIS: &str = "assistant_axis";

/// One row of `causal.parquet` behind the keys. Margins are in nats, slopes in nats per unit of strength (the mean length of the residual).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Causal {
    pub concept: String,
    pub null_bank: bool,
    pub layer: i32,
    pub readout: String,
    /// `report` or `behaviour`.
    pub outcome: String,
    /// `concept` or `assistant_axis`.
    pub direction: String,
    pub status: Status,
    /// Margin without intervention.
    pub margin: Reported,
    /// How the margin changes with the strength.
    pub slope: Reported,
    /// Size of the slope over the root mean square of those of random directions; the interval is on the side of the slope's sign.
    pub z: Reported,
    /// Share of random directions, this one among them, whose slope is as large.
    pub p: Option<f64>,
    /// What taking the direction out does to the margin.
    pub ablation: Reported,
    /// Lower end of the middle 95% of what it does with random directions.
    pub ablation_null_lower: Option<f64>,
    /// Upper end of it.
    pub ablation_null_upper: Option<f64>,
    /// Where `ablation` lies among these, in their standard deviations.
    pub ablation_z: Option<f64>,
    /// Ablation goes beyond the guards.
    pub ablation_flagged: Option<bool>,
    /// Share of the slope that the direction's component along the assistant axis gives.
    pub axis_share: Reported,
    /// Cosine of the direction with the assistant axis.
    pub cos_axis: Option<f64>,
    /// Largest divergence on neutral text over the strengths, in nats.
    pub kl: Option<f64>,
    /// Largest loss of the margin of facts over the strengths, in nats.
    pub facts_lost: Option<f64>,
    /// Strengths that were used.
    pub n_strengths: i32,
    /// Those of them beyond the guards, which do not count.
    pub n_flagged: i32,
    /// Random directions that count.
    pub n_random: i32,
    pub n_groups: i32,
    /// Items that were asked.
    pub n_items: i32,
}

/// Without sheets the table is empty. A checkpoint without one, beside others that have one, has rows without numbers.
fn run(series: &Series) -> Result<Measured> {
    let sheets = series.opened(interventions::FOLDER, |file| Sheet::read(file, &series.items))?;
    let sheets: Vec<Option<Sheet>> = sheets.into_iter().map(Option::flatten).collect();
    let Some(header) = sheets.iter().rev().flatten().map(|sheet| sheet.header.clone()).next() else {
        return Measured::of_rows::<Causal>(TABLE, &[]);
    };
    let cells = header.concepts.len() * header.layers.len() * OUTCOMES.len();
    let parts = (0..cells).into_par_iter().map(|cell| {
        let (outcome, rest) = (cell % OUTCOMES.len(), cell / OUTCOMES.len());
        let (layer, concept) = (header.layers[rest % header.layers.len()], &header.concepts[rest / header.layers.len()]);
        check_interrupt()?;
        Cell { series, sheets: &sheets, concept, layer, outcome, readout: &header.readout }.part()
    });
    let (rows, traces) = joined(parts.collect::<Result<Vec<_>>>()?);
    let findings = rows.iter().filter(|(_, row)| row.direction == CONCEPT).flat_map(findings).collect();
    Ok(Measured { traces, findings, ..Measured::of_rows(TABLE, &rows)? })
}

fn findings((key, row): &(Key, Causal)) -> [Finding; 2] {
    let z = row.z.estimate();
    let share = row.axis_share.estimate();
    // Without an axis or an effect there is nothing to share.
    let shared = match (row.status, row.cos_axis) {
        (Status::Ok, None) => Status::NoAxis,
        (Status::Ok, Some(_)) if share.is_none() => Status::NoEffect,
        (status, _) => status,
    };
    let parts = match row.outcome.as_str() {
        "report" => [(CURVES[0], z, row.status), (ALONG_AXIS, share, shared)],
        _ => [(CURVES[1], z, row.status), (BEHAVIOURAL, z, row.status)],
    };
    parts.map(|(part, estimate, status)| Finding {
        checkpoint: key.checkpoint.clone(),
        concept: row.concept.clone(),
        null_bank: row.null_bank,
        part,
        layer: Some(row.layer),
        status,
        estimate,
        contexts: usize::MAX,
        ..Finding::default()
    })
}

/// One concept and outcome at one layer, along the series.
struct Cell<'a> {
    series: &'a Series,
    sheets: &'a [Option<Sheet>],
    concept: &'a str,
    layer: usize,
    outcome: usize,
    readout: &'a str,
}

/// What one sheet says about a cell.
struct Answer {
    row: Causal,
    status: Status,
    z: Option<Sampled>,
}

impl Cell<'_> {
    fn part(&self) -> Result<Part<Causal>> {
        let (mut rows, mut points, mut effects, mut status) = (Vec::new(), Vec::new(), Vec::new(), Status::NotRun);
        for (t, sheet) in self.sheets.iter().enumerate() {
            for answer in self.answers(sheet.as_ref())? {
                if let (Some(z), CONCEPT) = (answer.z, answer.row.direction.as_str()) {
                    points.push(t);
                    effects.push(z);
                }
                if answer.row.direction == CONCEPT {
                    status = answer.status;
                }
                rows.push((self.series.key(t), answer.row));
            }
        }
        let trace = self.trace(points, &effects)?.or_else(|| self.without(status));
        Ok((rows, trace.into_iter().collect()))
    }

    /// The curve of z, positive where the last checkpoint's is.
    fn trace(&self, points: Vec<usize>, effects: &[Sampled]) -> Result<Option<Trace>> {
        let family = self.series.family(self.concept, &LabelFamily::Crossed);
        let (Some(family), Some(last)) = (family, effects.last()) else { return Ok(None) };
        // A date is of a rise; two runs are compared with the sign that it has in each.
        let sign = if last.value < 0.0 { -1.0 } else { 1.0 };
        if !effects.iter().flat_map(|z| &z.replicates).all(|z| z.is_finite()) {
            return Ok(None); // nothing moves in some resample
        }
        let curve = Curve::of_sampled(&effects.iter().map(|z| z.times(sign)).collect::<Vec<_>>())?;
        Ok(Some(Trace { sign, ..self.placed(Trace::new(CURVES[self.outcome], family, points, curve)) }))
    }

    /// What stands for a curve that is not there: why, for comparisons of runs.
    fn without(&self, status: Status) -> Option<Trace> {
        let family = self.series.family(self.concept, &LabelFamily::Crossed)?;
        let curve = Curve { value: vec![f64::NAN], replicates: Vec::new() };
        let trace = self.placed(Trace::new(CURVES[self.outcome], family, vec![self.series.points.len() - 1], curve));
        Some(Trace { role: Role::Level, status: Some(if status == Status::Ok { Status::NoNull } else { status }), ..trace })
    }

    fn placed(&self, trace: Trace) -> Trace {
        trace.named(Some(self.readout.to_owned()), Some(self.layer))
    }

    fn empty(&self, direction: &str, status: Status) -> Causal {
        Causal {
            concept: self.concept.to_owned(),
            null_bank: self.series.family(self.concept, &LabelFamily::Crossed).is_some_and(|family| family.null_bank),
            layer: self.layer as i32,
            readout: self.readout.to_owned(),
            outcome: OUTCOMES[self.outcome].0.to_owned(),
            direction: direction.to_owned(),
            status,
            ..Causal::default()
        }
    }

    /// A row along the concept's direction and one along the axis.
    fn answers(&self, sheet: Option<&Sheet>) -> Result<Vec<Answer>> {
        let without = |direction: &str, status: Status| Answer { row: self.empty(direction, status), status, z: None };
        let none = || Ok(vec![without(CONCEPT, Status::NotRun), without(AXIS, Status::NotRun)]);
        let Some(sheet) = sheet else { return none() };
        let number = sheet.header.concepts.iter().position(|concept| concept == self.concept);
        let layer = sheet.header.layers.iter().position(|layer| *layer == self.layer);
        let (Some(number), Some(layer)) = (number, layer) else { return none() };
        let asked = sheet.asked(Along::Concept(number));
        let item = |position: usize| &self.series.items[sheet.items[position]];
        let facts: Vec<usize> = asked.iter().copied().filter(|&position| item(position).label_family == LabelFamily::Fact).collect();
        let (mut ids, mut groups): (Vec<&str>, Vec<Vec<usize>>) = Default::default();
        for &position in asked.iter().filter(|&&position| item(position).label_family == OUTCOMES[self.outcome].1) {
            let id = item(position).group_id.as_str();
            match ids.iter().position(|other| *other == id) {
                Some(group) => groups[group].push(position),
                None => {
                    ids.push(id);
                    groups.push(vec![position]);
                }
            }
        }
        if groups.len() < 2 {
            return none();
        }
        let (bootstraps, seed) = (self.series.bootstraps, self.series.seed);
        let draws = Draws::with_counts(groups.len(), 99, bootstraps, seed, &format!("{}/{}", self.concept, OUTCOMES[self.outcome].0))?;
        let question = Question { sheet, layer, groups: &groups, facts: &facts, limits: &self.series.evidence };
        let null = question.null();
        let axis_line = sheet.header.axis.then(|| question.line(Along::Axis));
        let axis_slope = axis_line.as_ref().and_then(|line| line.slopes.as_ref()).map(|slopes| effect::over_groups(slopes, &draws));
        let own_line = question.line(Along::Concept(number));
        let mut own = self.answer(CONCEPT, &question, &own_line, &null, &draws);
        let w = sheet.direction(Along::Concept(number), layer);
        if w.iter().all(|x| *x == 0.0) {
            own = without(CONCEPT, Status::NoDirection);
        }
        if let Some(line) = &axis_line {
            let cosine = f64::from(matrix::dot(w, sheet.direction(Along::Axis, layer)));
            own.row.cos_axis = Some(cosine);
            let slopes = own_line.slopes.as_ref().map(|slopes| effect::over_groups(slopes, &draws));
            let found = slopes.zip(axis_slope).and_then(|(slope, axis)| share(&slope, &axis, cosine)?.estimate());
            own.row.axis_share = found.into();
            let axis = self.answer(AXIS, &question, line, &null, &draws);
            return Ok(vec![own, axis]);
        }
        Ok(vec![own, without(AXIS, Status::NoAxis)])
    }

    fn answer(&self, direction: &str, question: &Question, line: &Line, null: &Null, draws: &Draws) -> Answer {
        let ablation = effect::over_groups(&line.ablation, draws);
        let beside = null.ablation(ablation.value);
        let compared = line.slopes.as_ref().map(|slopes| null.compare(slopes, draws));
        let z = compared.as_ref().and_then(|compared| compared.z.clone());
        let status = match &compared {
            None => Status::SideEffects,
            Some(compared) if compared.z.is_none() => Status::NoNull,
            Some(_) => Status::Ok,
        };
        let row = Causal {
            margin: question.clean(draws).estimate().into(),
            slope: compared.as_ref().and_then(|compared| compared.slope.estimate()).into(),
            z: z.as_ref().and_then(|z| size(z).estimate()).into(),
            ablation: ablation.estimate().into(),
            p: compared.as_ref().and_then(|compared| compared.p),
            ablation_null_lower: beside.map(|([lower, _], _)| lower),
            ablation_null_upper: beside.map(|([_, upper], _)| upper),
            ablation_z: beside.and_then(|(_, z)| z),
            ablation_flagged: Some(!line.ablation_within),
            kl: Some(line.kl),
            facts_lost: (!question.facts.is_empty()).then_some(line.facts_lost),
            n_strengths: question.sheet.header.strengths.len() as i32,
            n_flagged: line.flagged as i32,
            n_random: null.left() as i32,
            n_groups: question.groups.len() as i32,
            n_items: question.groups.iter().map(|items| items.len() as i32).sum(),
            ..self.empty(direction, status)
        };
        Answer { row, status, z }
    }
}
