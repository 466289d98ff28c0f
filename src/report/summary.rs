//! What people read on stdout: the concepts with their tokens, when things appeared, how two runs differ, what an audit found.

use crate::analysis::OnsetRow;
use crate::compare::CompareRow;
use crate::compare::void::{self, VoidRow};
use crate::manifest::{Concepts, Manifest, Pack, default_parameters};
use crate::onset::shape::Shape;
use crate::prompt::concept::{self, Concept};
use crate::prompt::item::Item;
use crate::prompt::specification::Specification;
use crate::series::families;
use crate::stats::estimate::Reported;
use crate::walk::job::Job;
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::fmt::Write;

/// A table of text, columns as wide as they need to be; the first column is flush left, the others flush right.
pub struct Text {
    rows: Vec<Vec<String>>,
}

impl Text {
    pub fn new(head: &[&str]) -> Self {
        Self { rows: vec![head.iter().map(|cell| (*cell).to_owned()).collect()] }
    }

    pub fn push(&mut self, row: Vec<String>) {
        self.rows.push(row);
    }

    /// The table, a line per row.
    pub fn render(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0);
        let width = |column: usize| self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut out = String::new();
        for row in &self.rows {
            let cells: Vec<String> = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") })
                .collect();
            out.push_str(cells.join("  ").trim_end());
            out.push('\n');
        }
        out
    }
}

/// Primary rows of `onset.parquet`, the null bank as one line per measure.
pub fn onsets(rows: &[OnsetRow]) -> String {
    let mut text = Text::new(&["concept", "measure", "layer", "shape", "t50 step", "95% interval", "between", "z", "null pct", "status"]);
    let primary = |row: &&OnsetRow| row.primary && !row.label_family.is_comparison();
    let mut shown: Vec<&OnsetRow> = rows.iter().filter(primary).filter(|row| !row.null_bank).collect();
    shown.sort_by(|a, b| (&a.concept, &a.measure, &a.readout).cmp(&(&b.concept, &b.measure, &b.readout)));
    for row in shown {
        let date = if row.t50_step.parts().iter().any(Option::is_some) { row.t50_step } else { row.t50 };
        text.push(vec![
            row.concept.clone(),
            with_readout(&row.measure, row.readout.as_deref()),
            row.layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string()),
            row.shape.to_string(),
            number(date.value, 1),
            interval(date, 1),
            row.between.clone().unwrap_or_else(|| "-".to_owned()),
            number(row.z, 1),
            number(row.null_percentile, 2),
            row.status.to_string(),
        ]);
    }
    let mut out = text.render();
    let measures: BTreeSet<(&str, &Option<String>)> = rows.iter().map(|row| (row.measure.as_str(), &row.readout)).collect();
    for (measure, readout) in measures {
        let null: Vec<&OnsetRow> =
            rows.iter().filter(primary).filter(|row| row.null_bank && row.measure == measure && row.readout == *readout).collect();
        if !null.is_empty() {
            let silent = null.iter().filter(|row| matches!(row.shape, Shape::Absent | Shape::Undetermined)).count();
            let readout = readout.as_ref().map_or_else(String::new, |readout| format!(" ({readout})"));
            let _ = writeln!(out, "null bank, {measure}{readout}: {silent} of {} silent", null.len());
        }
    }
    out
}

/// Primary rows of `compare.parquet`, the null bank as one line per measure.
pub fn comparison(rows: &[CompareRow]) -> String {
    let mut text = Text::new(&[
        "concept",
        "measure",
        "layer",
        "t50 A",
        "t50 B",
        "B - A",
        "95% interval",
        "P(A first)",
        "level B - A",
        "95% interval",
        "cosine",
        "status",
    ]);
    let primary = |row: &&CompareRow| row.primary && !row.label_family.is_comparison();
    let mut shown: Vec<&CompareRow> = rows.iter().filter(primary).filter(|row| !row.null_bank).collect();
    shown.sort_by(|a, b| (&a.concept, &a.measure, &a.readout).cmp(&(&b.concept, &b.measure, &b.readout)));
    for row in shown {
        text.push(vec![
            row.concept.clone(),
            with_readout(&row.measure, row.readout.as_deref()),
            row.layer.map_or_else(|| "-".to_owned(), |layer| layer.to_string()),
            number(row.t50_a.value, 2),
            number(row.t50_b.value, 2),
            number(row.shift.value, 2),
            span(row.shift),
            number(row.p_a_first, 3),
            number(row.level_difference.value, 2),
            span(row.level_difference),
            number(row.cosine.value, 2),
            if row.status_a == row.status_b { row.status.to_string() } else { format!("{} | {}", row.status_a, row.status_b) },
        ]);
    }
    let mut out = text.render();
    let measures: BTreeSet<(&str, Option<&str>)> = rows.iter().map(|row| (row.measure.as_str(), row.readout.as_deref())).collect();
    for (measure, readout) in measures {
        let null: Vec<&CompareRow> = rows
            .iter()
            .filter(primary)
            .filter(|row| row.null_bank && row.measure == measure && row.readout.as_deref() == readout)
            .collect();
        if !null.is_empty() {
            let shifted = null.iter().filter(|row| row.shift.excludes_zero()).count();
            let levels = null.iter().filter(|row| row.level_difference.excludes_zero()).count();
            let measure = with_readout(measure, readout);
            let _ = writeln!(out, "null bank, {measure}: of {} topics {shifted} differ in date, {levels} in final level", null.len());
        }
    }
    if let Some(row) = rows.first() {
        let (a, b) = (&row.run_a, &row.run_b);
        let _ = writeln!(out, "\nA is {a}, B is {b}; dates on the axis {}, intervals over {}s.", row.axis, row.unit);
    }
    out
}

/// How runs of an arm differ on concepts that specifications leave open and on those they name, both arms pooled; empty where no concept
/// is classified.
pub fn void(rows: &[VoidRow]) -> String {
    let classified = |row: &&VoidRow| row.arm == "both" && row.quantity == void::VARIANCE && row.specification.is_some() && !row.null_bank;
    let mut shown: Vec<&VoidRow> = rows.iter().filter(classified).collect();
    if shown.is_empty() {
        return String::new();
    }
    let ratios = rows.iter().filter(|row| row.arm == "both" && row.quantity == void::RATIO);
    let mut out = String::from("\nBetween runs of an arm, late answers about oneself\n");
    if shown.iter().all(|row| row.status == "needs_seeds") {
        return out + "needs seeds: give two or more runs on each side with --a A1 A2 --b B1 B2\n";
    }
    let mut text = Text::new(&["concept", "specification", "margin", "variance", "95% interval", "status"]);
    shown.sort_by(|a, b| (b.specification, &a.concept).cmp(&(a.specification, &b.concept)));
    for row in shown {
        text.push(vec![
            row.concept.clone().unwrap_or_default(),
            row.specification.map_or("-", Specification::name).to_owned(),
            number(row.margin, 2),
            number(row.value.value, 3),
            span(row.value),
            row.status.to_string(),
        ]);
    }
    out += &text.render();
    for row in ratios {
        let (of, number, span) = (if row.null_bank { "null bank" } else { "silent" }, number(row.value.value, 2), span(row.value));
        let verdict = row.verdict.as_ref().map_or_else(String::new, |verdict| format!(": {verdict} the void"));
        let verdict = verdict.replace("inconclusive the void", "inconclusive about the void");
        let _ = writeln!(out, "variance, {of} over explicit: {number} {span} ({}){verdict}", row.status);
    }
    out
}

/// `contrast (last_prompt)` for measures that exist at several readouts.
fn with_readout(measure: &str, readout: Option<&str>) -> String {
    match (readout, measure) {
        (Some(readout), "contrast" | "probe") => format!("{measure} ({readout})"),
        _ => measure.to_owned(),
    }
}

/// A number with so many digits, or a dash.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}

/// An interval with three digits, or a dash.
pub fn span(reported: Reported) -> String {
    interval(reported, 3)
}

fn interval(reported: Reported, digits: usize) -> String {
    reported.ends().map_or_else(|| "-".to_owned(), |[lower, upper]| format!("[{lower:.digits$}, {upper:.digits$}]"))
}

/// The list of concepts, or one with its items, tokens and readouts.
///
/// # Errors
/// An unknown name (the known ones are listed), or whatever is wrong with the packs.
pub fn concepts(manifest: Option<Manifest>, name: Option<&str>, groups: usize) -> Result<String> {
    let all = match &manifest {
        Some(manifest) => concept::load(&manifest.concepts)?,
        None => concept::load_pack(&Pack::Builtin)?,
    };
    let Some(name) = name else { return Ok(list(&all)) };
    let Some(found) = all.iter().find(|concept| concept.name == name) else {
        bail!(
            "no concept is called {name:?}; there are {}",
            all.iter().map(|concept| concept.name.as_str()).collect::<Vec<_>>().join(", ")
        );
    };
    let mut out = format!("{}: {}\n{}\n", found.name, found.title, found.description);
    match manifest {
        Some(mut manifest) => {
            manifest.concepts = Concepts { include: Vec::new(), exclude: Vec::new(), ..manifest.concepts };
            let job = Job::new(manifest)?;
            show(&mut out, name, groups, &job.set.items, &|ids| ids.iter().map(|&id| job.ruler.token(i64::from(id))).collect());
        }
        None => {
            let specs = crate::prompt::design::specs(found, crate::prompt::design::Profile::QUICK, &default_parameters())?;
            let mut seen = Vec::new();
            for spec in specs {
                let group = (spec.label_family.clone(), spec.group_id.clone());
                if !seen.contains(&group) {
                    if seen.iter().filter(|(family, _)| *family == spec.label_family).count() >= groups {
                        continue;
                    }
                    let _ = writeln!(out, "\n{} {}", spec.label_family, spec.group_id);
                    seen.push(group);
                }
                let y = spec.y.map_or_else(|| "-".to_owned(), |y| y.to_string());
                let turns: Vec<String> =
                    spec.messages.iter().map(|message| format!("{}: {}", message.role, visible(&message.content))).collect();
                let _ = writeln!(out, "  {:<7} y={y}  {}", spec.cell, turns.join("\n                 "));
                if let Some([first, second]) = &spec.answers {
                    show_answers(&mut out, first, second, &spec.foils);
                }
            }
            out.push_str("\nGive --manifest to see the text as it is rendered, its tokens and where it is read.\n");
        }
    }
    Ok(out)
}

fn visible(content: &str) -> String {
    content.replace(crate::prompt::tokenize::SPAN_OPEN, "[[").replace(crate::prompt::tokenize::SPAN_CLOSE, "]]")
}

fn list(concepts: &[Concept]) -> String {
    let mut text = Text::new(&["name", "null bank", "specification", "material", "title"]);
    for concept in concepts {
        let parts = [
            ("crossed", concept.crossed.is_some()),
            ("control", concept.control.is_some()),
            ("frame", concept.frame.is_some()),
            ("binding", concept.binding.is_some()),
            ("stem", concept.stem.is_some()),
            ("prediction", concept.prediction.is_some()),
            ("content", concept.import.is_some()),
        ];
        let parts: Vec<&str> = parts.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
        let null = if concept.null_bank { "yes" } else { "" };
        let specification = concept.specification.map_or("", Specification::name);
        text.push(vec![concept.name.clone(), null.to_owned(), specification.to_owned(), parts.join(" "), concept.title.clone()]);
    }
    text.render()
}

/// The two answers of an item, and the foils of the first.
fn show_answers(out: &mut String, first: &str, second: &str, foils: &[String]) {
    let _ = writeln!(out, "                 answers: {first:?} against {second:?}");
    if !foils.is_empty() {
        let _ = writeln!(out, "                 foils: {}", foils.join(", "));
    }
}

/// Items of the first groups of every family, with tokens between bars and the tokens that are read in brackets.
fn show(out: &mut String, name: &str, groups: usize, items: &[Item], tokens: &dyn Fn(&[i32]) -> Vec<String>) {
    for family in families(items).iter().filter(|family| family.concept == name) {
        for (id, members) in family.groups.iter().take(groups) {
            let _ = writeln!(out, "\n{} {id}", family.label_family);
            for item in members.iter().map(|&item| &items[item]) {
                let y = item.y.map_or_else(|| "-".to_owned(), |y| y.to_string());
                let Some(ids) = item.token_ids.as_deref() else {
                    let _ = writeln!(out, "  {:<7} y={y}  not shown, {}", item.cell, item.hash);
                    continue;
                };
                let span = item.span_start.unwrap_or(-1)..item.span_end.unwrap_or(-1);
                let mark = |(index, token): (usize, String)| {
                    let token = token.replace('\n', "\\n");
                    if index + 1 == ids.len() {
                        format!("<<{token}>>")
                    } else if span.contains(&(index as i32)) {
                        format!("[{token}]")
                    } else {
                        token
                    }
                };
                let shown: Vec<String> = tokens(ids).into_iter().enumerate().map(mark).collect();
                let _ = writeln!(out, "  {:<7} y={y}  {}", item.cell, shown.join("|"));
                if let (Some(first), Some(second)) = (&item.answer_0, &item.answer_1) {
                    show_answers(out, first, second, item.foils.as_deref().unwrap_or_default());
                }
            }
        }
    }
    out.push_str(
        "\nBars separate tokens; [token] is in the marked span, <<token>> is the last one, before generation or at the end of the stem.\n",
    );
}
