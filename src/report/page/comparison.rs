//! Two runs, or two sets of runs, beside each other: dates on one line, shifts, levels, contexts and effects.

use super::html::{Figure, Source, absent, at_layer, class, escape, guide, list, section};
use super::measures;
use super::onsets::{axis, mark, name, stages};
use super::rows::{Numbered, RunFile};
use super::time::Time;
use crate::compare::CompareRow;
use crate::compare::void::VoidRow;
use crate::report::words::{meaning, number, several};
use crate::stats::estimate::Reported;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

const DATES_READ: &str = "A full dot is the date in A, an open one that in B, each with its 95% interval, on one axis. The shift is B minus A: \
     above 0 A is earlier. It is drawn from shared resamples, so it can be surer than the two intervals let expect. Shades are the stages \
     of A, where B has the same.";
const DATES_CANNOT: &str = "With one run on each side nothing is said about other seeds of the same recipe: two runs of one recipe may differ \
     too. Give several seeds with <code>--a</code> and <code>--b</code> for that.";
const LEVELS_READ: &str = "The dot is how much more B has in the end than A, in units of the measure, the bar its 95% interval; each measure \
     has a scale of its own. The cosine says whether it is the same direction in both.";
const CONTEXTS_READ: &str = "The dot is how much more B has in the end than A of what is asked in contexts or comes of interventions, the bar its \
     95% interval; each quantity has a scale of its own.";
const LEVELS_CANNOT: &str = "A level that differs says that the runs differ on these prompts, and not why.";

/// What a page about two runs shows.
pub struct Compared {
    pub a: RunFile,
    pub b: RunFile,
    pub time_a: Time,
    pub time_b: Time,
    pub rows: Vec<Numbered<CompareRow>>,
    pub void: Vec<Numbered<VoidRow>>,
    /// Addresses of the pages of A and of B.
    pub pages: [String; 2],
}

impl Compared {
    /// Primary rows about concepts themselves, sorted as people want to read them.
    fn shown(&self) -> Vec<&Numbered<CompareRow>> {
        let own = |row: &CompareRow| row.primary && !row.null_bank && !row.label_family.is_comparison();
        let mut rows: Vec<_> = self.rows.iter().filter(|(_, row)| own(row)).collect();
        rows.sort_by_key(|(_, row)| (&row.concept, measures::order(&row.measure), &row.measure, &row.readout));
        rows
    }

    /// Names of both sides.
    fn names(&self) -> [&str; 2] {
        self.rows.first().map_or([&self.a.run, &self.b.run], |(_, row)| [&row.run_a, &row.run_b])
    }
}

/// The body of the page.
pub fn html(compared: &Compared, command: &str) -> String {
    let [a, b] = compared.names();
    let [page_a, page_b] = &compared.pages;
    let shown = compared.shown();
    let (dated, levels): (Vec<_>, Vec<_>) = shown.iter().copied().partition(|(_, row)| !row.shape_a.is_empty() || !row.shape_b.is_empty());
    let both: Vec<&Numbered<CompareRow>> = dated.iter().filter(|(_, row)| row.shift.value.is_some()).copied().collect();
    let apart = both.iter().filter(|(_, row)| row.shift.excludes_zero()).count();
    let unit = shown.first().map_or("group", |(_, row)| row.unit.as_str());
    let head = format!(
        "<header><p class=\"kicker\">selftrace compare</p><h1>{} against {}</h1><p class=\"facts\"><b>A</b> is <a href=\"{page_a}\">{0}</a>, \
         <b>B</b> is <a href=\"{page_b}\">{1}</a>; differences are B minus A, intervals over {unit}s.</p></header>\n\
         <section id=\"glance\"><h2>At a glance</h2><ul><li>{}, {apart} of them at different times.</li>{}</ul></section>\n\
         <nav aria-label=\"Questions\"><ol><li><a href=\"#dates\">Which has it earlier?</a></li><li><a href=\"#levels\">Which has more of it?</a></li>\
         <li><a href=\"#contexts\">Contexts and effects</a></li><li><a href=\"#void\">What specifications leave open</a></li>\
         <li><a href=\"#origin\">How was it made?</a></li></ol></nav>\n",
        escape(a),
        escape(b),
        dated_by_both(both.len()),
        null(&compared.rows)
    );
    let dates = section("dates", "Which has it earlier?", &dates(compared, &dated));
    let more = section("levels", "Which has more of it?", &level_table(&dated, "Which has more of it", LEVELS_READ, "Levels and cosine"));
    let contexts = if levels.is_empty() {
        absent("Neither run has contexts or effects: <code>[personas]</code> and <code>[causal]</code> in the manifest ask for them.")
    } else {
        level_table(&levels, "Contexts and effects", CONTEXTS_READ, "Levels")
    };
    let contexts = section("contexts", "Contexts and effects", &contexts);
    head + &dates + &more + &contexts + &void(&compared.void) + &origin(compared, command)
}

fn dated_by_both(n: usize) -> String {
    match n {
        0 => "No concept is dated in both runs by the same measure".to_owned(),
        n => format!("{} in both runs", several(n, "date")),
    }
}

/// How often null topics seem to differ.
fn null(rows: &[Numbered<CompareRow>]) -> String {
    let mut by: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for (_, row) in rows.iter().filter(|(_, row)| row.null_bank && row.primary) {
        let counts = by.entry(&row.measure).or_default();
        counts[0] += 1;
        counts[1] += usize::from(row.shift.excludes_zero());
        counts[2] += usize::from(row.level_difference.excludes_zero());
    }
    let line = |(measure, [n, shift, level]): (&&str, &[usize; 3])| {
        format!(
            "<li>{}: of {} that nobody teaches {shift} differ in date, {level} in final level.</li>",
            escape(&measures::title(measure)),
            several(*n, "null topic")
        )
    };
    by.iter().map(line).collect()
}

fn dates(compared: &Compared, rows: &[&Numbered<CompareRow>]) -> String {
    if rows.is_empty() {
        return absent("No concept was followed along both runs by the same measure.");
    }
    let (time_a, time_b) = (&compared.time_a, &compared.time_b);
    let same = time_a.stages().iter().map(|stage| stage.name).eq(time_b.stages().iter().map(|stage| stage.name));
    let mut body = format!(
        "<table class=\"forest\" style=\"--stages:{}\"><caption class=\"hidden\">Dates in both runs</caption><thead><tr><th scope=\"col\">Concept</th>\
         <th scope=\"col\">Measure</th><th scope=\"col\" class=\"plot\">{}</th><th scope=\"col\">Shift ({})</th><th scope=\"col\">How sure</th></tr></thead><tbody>",
        if same { stages(time_a) } else { "none".to_owned() },
        axis(time_a),
        time_a.unit()
    );
    let mut before = "";
    for (at, row) in rows {
        let source = Source { table: "compare", row: *at };
        let class = class(&row.measure);
        let there = [row.t50_a, row.t50_b].iter().any(|date| date.value.is_some());
        let own = |date: Reported, kind: &str| {
            let places = date.parts().map(|x| x.map(|x| time_a.place(x)));
            if date.value.is_some() { mark(&format!("{class} {kind}"), places) } else { String::new() }
        };
        let why = |status: &str, run: &str| match status {
            "ok" => String::new(),
            "gate_fail" => format!("{run}: not shown"),
            status => format!("{run}: {}", meaning(status)),
        };
        let reasons: Vec<String> =
            [why(row.status_a.as_str(), "A"), why(row.status_b.as_str(), "B")].into_iter().filter(|why| !why.is_empty()).collect();
        let plot = if there {
            let (a, b) = (own(row.t50_a, "a"), own(row.t50_b, "b"));
            format!("<svg class=\"mark\" aria-hidden=\"true\">{a}{b}</svg>")
        } else {
            format!("<span class=\"why\">{}</span>", escape(&same_reason(row)))
        };
        let shift = match row.shift_step.value {
            Some(_) => source.triple("shift_step", row.shift_step),
            None => source.triple("shift", row.shift),
        };
        let sure = match row.p_a_first {
            Some(_) => format!("{} \u{b7} P(A first) {}", when(compared, row), source.number("p_a_first", row.p_a_first)),
            None if there => escape(&reasons.join("; ")),
            None => String::new(),
        };
        let place = place_of(row);
        let _ = writeln!(
            body,
            "<tr{}>{}<td class=\"m\"><i class=\"{class}\"></i>{}{place}</td><td class=\"plot\">{plot}</td><td class=\"date\">{}</td><td class=\"sure\">{sure}</td></tr>",
            if before == row.concept { " class=\"again\"" } else { "" },
            name(&row.concept),
            escape(&measures::title(&row.measure)),
            if shift.is_empty() { "\u{2013}" } else { &shift }
        );
        before = &row.concept;
    }
    Figure { body: body + "</tbody></table>", read: DATES_READ, cannot: DATES_CANNOT, tables: &["compare"] }.html()
}

/// Layer of a row, and its readout where that is not the usual one.
fn place_of(row: &CompareRow) -> String {
    let readout = row.readout.as_deref().filter(|readout| *readout != "last_prompt");
    at_layer(row.layer) + &readout.map_or_else(String::new, |readout| format!(" <small>{}</small>", escape(&readout.replace('_', " "))))
}

/// Why neither has a date.
fn same_reason(row: &CompareRow) -> String {
    let of = |status: &str, shape: &str| match status {
        "ok" => crate::report::words::shape(shape),
        "gate_fail" => "not shown".to_owned(),
        // As in words::STATUSES, in the width of a plot.
        "no_foils" => "nothing to hold it against".to_owned(),
        status => meaning(status),
    };
    let (a, b) = (of(row.status_a.as_str(), row.shape_a.as_str()), of(row.status_b.as_str(), row.shape_b.as_str()));
    if a == b { format!("both: {a}") } else { format!("A: {a}; B: {b}") }
}

/// Both dates in steps, which are read off the axis: the table has its units.
fn when(compared: &Compared, row: &CompareRow) -> String {
    let step = |time: &Time, x: Option<f64>| x.map(|x| number(time.step_at(x).unwrap_or(x)));
    match (step(&compared.time_a, row.t50_a.value), step(&compared.time_b, row.t50_b.value)) {
        (Some(a), Some(b)) => format!("at {a} and {b}"),
        _ => String::new(),
    }
}

fn level_table(rows: &[&Numbered<CompareRow>], caption: &str, read: &str, last: &str) -> String {
    let known: Vec<_> = rows.iter().filter(|(_, row)| row.level_a.is_some() || row.level_b.is_some()).collect();
    let why: BTreeSet<String> =
        rows.iter().filter(|(_, row)| row.level_difference.value.is_none()).map(|(_, row)| meaning(row.status.as_str())).collect();
    let rest = if why.is_empty() { String::new() } else { format!("<p class=\"note\">Without a difference: {}.</p>", escape(&list(why))) };
    if known.is_empty() {
        return absent("Neither run has a number here.") + &rest;
    }
    let mut most: BTreeMap<&str, f64> = BTreeMap::new();
    for (_, row) in &known {
        let far = row.level_difference.parts().into_iter().flatten().fold(0.0, |far: f64, end| far.max(end.abs()));
        most.entry(&row.measure).and_modify(|most| *most = most.max(far)).or_insert(far);
    }
    let mut body = format!(
        "<table class=\"forest\"><caption class=\"hidden\">{caption}</caption><thead><tr><th scope=\"col\">Concept</th><th scope=\"col\">Measure</th>\
         <th scope=\"col\" class=\"plot\"><svg class=\"axis\" aria-hidden=\"true\"><text x=\"4%\" y=\"27\">more in A</text><text x=\"50%\" y=\"27\" text-anchor=\"middle\">0</text>\
         <text x=\"96%\" y=\"27\" text-anchor=\"end\">more in B</text></svg></th><th scope=\"col\">B minus A</th><th scope=\"col\">{last}</th></tr></thead><tbody>"
    );
    let mut before = "";
    for (at, row) in known {
        let source = Source { table: "compare", row: *at };
        let class = class(&row.measure);
        let far = most[row.measure.as_str()].max(1e-12);
        let places = row.level_difference.parts().map(|value| value.map(|value| 0.5 + 0.46 * value / far));
        let difference = source.triple("level_difference", row.level_difference);
        let plot = if row.level_difference.value.is_some() {
            format!("<svg class=\"mark\" aria-hidden=\"true\">{}{}</svg>", guide(0.5), mark(&class, places))
        } else {
            format!("<span class=\"why\">{}</span>", escape(&meaning(row.status.as_str())))
        };
        let level = |column: &str, value: Option<f64>| value.map_or_else(|| "none".to_owned(), |_| source.number(column, value));
        let mut sure = format!("{} and {}", level("level_a", row.level_a), level("level_b", row.level_b));
        if row.cosine.value.is_some() {
            let _ = write!(sure, "; cosine {}", source.triple("cosine", row.cosine));
        }
        let place = place_of(row);
        let _ = writeln!(
            body,
            "<tr{}>{}<td class=\"m\"><i class=\"{class}\"></i>{}{place}</td><td class=\"plot\">{plot}</td><td class=\"date\">{}</td><td class=\"sure\">{sure}</td></tr>",
            if before == row.concept { " class=\"again\"" } else { "" },
            name(&row.concept),
            escape(&measures::title(&row.measure)),
            if difference.is_empty() { "\u{2013}" } else { &difference },
        );
        before = &row.concept;
    }
    Figure { body: body + "</tbody></table>" + &rest, read, cannot: LEVELS_CANNOT, tables: &["compare"] }.html()
}

fn void(rows: &[Numbered<VoidRow>]) -> String {
    let title = "What specifications leave open";
    let own: Vec<_> = rows.iter().filter(|(_, row)| row.arm == "both" && !row.null_bank).collect();
    if own.is_empty() || own.iter().all(|(_, row)| row.status == "needs_seeds") {
        let why = "How far runs of one arm differ takes two or more seeds on each side: selftrace compare --a A1 A2 --b B1 B2.";
        return section("void", title, &absent(why));
    }
    let mut body = String::from(
        "<div class=\"wide\"><table class=\"grid\"><caption class=\"hidden\">Variance between runs</caption><thead><tr><th scope=\"col\">Concept</th>\
         <th scope=\"col\">Quantity</th><th scope=\"col\">Value</th><th scope=\"col\">Verdict</th></tr></thead><tbody>",
    );
    for (at, row) in own {
        let value = Source { table: "void", row: *at }.triple("value", row.value);
        let _ = writeln!(
            body,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(row.concept.as_deref().unwrap_or("all")),
            escape(&row.quantity.replace('_', " ")),
            if value.is_empty() { "\u{2013}" } else { &value },
            escape(&row.verdict.map(|verdict| verdict.to_string()).unwrap_or_else(|| if row.status == "ok" {
                String::new()
            } else {
                meaning(row.status.as_str())
            }))
        );
    }
    let read = "How much the late answers of runs of the same recipe differ, in squared nats, and the ratio of what specifications leave open \
         to what they name.";
    let figure = Figure { body: body + "</tbody></table></div>", read, cannot: "Few seeds make wide intervals.", tables: &["void"] };
    section("void", title, &figure.html())
}

fn origin(compared: &Compared, command: &str) -> String {
    let mut body = format!("<dl><dt>This page</dt><dd><code>{}</code></dd>", escape(command));
    for (side, run) in [("A", &compared.a), ("B", &compared.b)] {
        let hash = run.run_hash.clone().unwrap_or_else(|| "not known".to_owned());
        let items = run.items.clone().unwrap_or_else(|| "not known".to_owned());
        let _ = write!(
            body,
            "<dt>Hash of {side}</dt><dd><code>{}</code></dd><dt>Items of {side}</dt><dd><code>{}</code></dd>",
            escape(&hash),
            escape(&items)
        );
    }
    let _ = write!(body, "<dt>Version of selftrace</dt><dd>{}</dd></dl>", env!("CARGO_PKG_VERSION"));
    section("origin", "How was it made?", &body)
}
