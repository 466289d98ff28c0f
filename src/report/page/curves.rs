//! Curves along training: small multiples, concepts by measures, with the range of null topics behind.

use super::html::{Drawings, Figure, Source, absent, class, escape, section, short};
use super::measures::MEASURES;
use super::onsets::{date, places};
use super::rows::{Curves, Point, Rows};
use super::time::Time;
use crate::report::words::{meaning, number, undated};
use std::collections::BTreeMap;
use std::fmt::Write;

/// Size of a panel, and the part of it in which curves are.
pub const SIZE: (f64, f64) = (216.0, 138.0);
const LEFT: f64 = 30.0;
const RIGHT: f64 = 212.0;
const TOP: f64 = 8.0;
const BOTTOM: f64 = 108.0;
/// Points of a curve that are drawn at most.
const MOST: usize = 60;

const READ: &str = "The line is the measure at the layer that was chosen on other groups, the band its 95% interval, grey the range of \
     the null topics at the same layer. The dot with its bar is the date; a dotted line is where a lesson is known to begin; shades are \
     stages. Squares beneath are checkpoints at which the answer is above at least 95% of its foils. All panels of a measure have one \
     scale.";
const CANNOT: &str = "Measures are in units of their own and cannot be compared in height. A curve of a measure without foils may rise \
     because everything does.";

/// The whole section.
pub fn html(rows: &Rows, drawings: &mut Drawings) -> String {
    let scales: BTreeMap<&str, Scale> =
        MEASURES.iter().filter_map(|measure| Some((measure.name, Scale::new(rows, measure.name)?))).collect();
    let mut body = frame(&rows.time);
    for concept in rows.concepts() {
        let own: Vec<&Curves> = MEASURES.iter().filter_map(|measure| rows.find(concept, measure.name)).collect();
        let panels: String =
            own.iter().filter_map(|curves| Some(panel(rows, curves, scales.get(curves.measure.name)?, drawings))).collect();
        if !panels.is_empty() {
            let _ = writeln!(body, "<h3>{}</h3><div class=\"panels\">{panels}</div>", escape(concept));
        }
    }
    if scales.is_empty() {
        return section("curves", "How did it rise?", &absent("No measure has a curve: nothing was computed at any layer."));
    }
    let every = rows.time.len().div_ceil(MOST);
    if every > 1 {
        let _ = write!(body, "<p class=\"note\">Of {} checkpoints one in {every} is drawn.</p>", rows.time.len());
    }
    let of_curves = MEASURES.iter().filter(|measure| scales.contains_key(measure.name)).map(|measure| measure.table);
    let tables: Vec<&str> = std::iter::once("onset").chain(of_curves).collect();
    section("curves", "How did it rise?", &Figure { body, read: READ, cannot: CANNOT, tables: &tables }.html())
}

/// What all panels share: stages, ticks and steps.
fn frame(time: &Time) -> String {
    let mut out = String::from("<svg class=\"defs\" aria-hidden=\"true\"><defs><g id=\"frame\">");
    let x = |place: f64| short(across(place));
    for (number, stage) in time.stages().iter().enumerate() {
        if number % 2 == 1 {
            let wide = short(across(stage.right) - across(stage.left));
            let _ = write!(out, "<path class=\"f-stage\" d=\"M{} {TOP}h{wide}V{BOTTOM}h-{wide}z\"/>", x(stage.left));
        }
    }
    let ticks: String = (0..time.len()).map(|t| format!("M{} {BOTTOM}v4", x(time.at(t)))).collect();
    let _ = write!(out, "<path class=\"f-tick\" d=\"{ticks}\"/>");
    for (place, label) in time.ticks(0.033) {
        let _ = write!(out, "<text class=\"f-text\" x=\"{}\" y=\"134\" text-anchor=\"middle\">{label}</text>", x(place));
    }
    out + "</g></defs></svg>"
}

/// Place on the drawing of a place on the axis.
pub fn across(place: f64) -> f64 {
    LEFT + (RIGHT - LEFT) * place
}

/// The scale that all panels of a measure have.
pub struct Scale {
    low: f64,
    high: f64,
    /// Where there is nothing, if the measure says so.
    zero: Option<f64>,
}

impl Scale {
    /// From the lowest to the highest number of one curve.
    pub fn of(points: &[Point]) -> Self {
        let values = || points.iter().filter_map(|point| point.number.value);
        Self { low: values().fold(f64::INFINITY, f64::min), high: values().fold(f64::NEG_INFINITY, f64::max), zero: None }
    }

    fn new(rows: &Rows, measure: &str) -> Option<Self> {
        let own = || rows.curves.iter().filter(|curves| curves.measure.name == measure);
        let zero = own().next()?.measure.zero;
        let points = || own().filter_map(Curves::chosen).flatten();
        let values = || points().filter_map(|point| point.number.value).chain(zero.or(Some(0.0)));
        points().find(|point| point.number.value.is_some())?;
        let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max));
        // Ends of a few wide intervals may be cut off; the curves may not.
        let room = 0.15 * (high - low);
        let lower = points().filter_map(|point| point.number.lower).fold(low, f64::min);
        let upper = points().filter_map(|point| point.number.upper).fold(high, f64::max);
        Some(Self { low: lower.max(low - room), high: upper.min(high + room), zero })
    }

    /// Height of a value on the drawing.
    pub fn y(&self, value: f64) -> f64 {
        let span = if self.high > self.low { self.high - self.low } else { 1.0 };
        BOTTOM - (BOTTOM - TOP) * ((value - self.low) / span).clamp(0.0, 1.0)
    }

    /// Round numbers within, two to five of them.
    fn ticks(&self) -> Vec<f64> {
        let span = self.high - self.low;
        if span <= 0.0 {
            return vec![self.low];
        }
        let power = 10f64.powf((span / 3.0).log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|factor| factor * power).find(|step| span / step < 5.0).unwrap_or(10.0 * power);
        let first = (self.low / step).ceil() as i64;
        let last = (self.high / step).floor() as i64;
        (first..=last).map(|n| n as f64 * step).collect()
    }
}

/// A curve as a path, broken where there is no number.
pub fn path(time: &Time, scale: &Scale, points: &[&Point]) -> String {
    let mut out = String::new();
    let mut pen = 'M';
    for point in points {
        match point.number.value {
            Some(value) => {
                let _ = write!(out, "{pen}{} {}", short(across(time.at(point.t))), short(scale.y(value)));
                pen = 'L';
            }
            None => pen = 'M',
        }
    }
    out
}

/// The area between two ends, from left to right and back.
fn band(time: &Time, scale: &Scale, ends: &[(usize, f64, f64)]) -> String {
    let corner = |t: usize, value: f64| format!("{} {}", short(across(time.at(t))), short(scale.y(value)));
    let there = ends.iter().map(|&(t, _, upper)| corner(t, upper));
    let back = ends.iter().rev().map(|&(t, lower, _)| corner(t, lower));
    let corners: Vec<String> = there.chain(back).collect();
    if ends.len() > 1 { format!("M{}z", corners.join("L")) } else { String::new() }
}

/// Lowest and highest null topic at each checkpoint, at a layer or, for topics without it, at their own.
fn null_range(rows: &Rows, measure: &str, layer: Option<i32>) -> Vec<(usize, f64, f64)> {
    let mut ends: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for curves in rows.curves.iter().filter(|curves| curves.null_bank && curves.measure.name == measure) {
        for point in curves.layers.get(&layer).map(Vec::as_slice).or_else(|| curves.chosen()).unwrap_or_default() {
            if let Some(value) = point.number.value {
                let (low, high) = ends.entry(point.t).or_insert((value, value));
                (*low, *high) = (low.min(value), high.max(value));
            }
        }
    }
    ends.into_iter().map(|(t, (low, high))| (t, low, high)).collect()
}

/// Every so many points, the last one always.
pub fn thin(points: &[Point]) -> Vec<&Point> {
    let every = points.len().div_ceil(MOST).max(1);
    points.iter().enumerate().filter(|(at, _)| at % every == 0 || at + 1 == points.len()).map(|(_, point)| point).collect()
}

fn panel(rows: &Rows, curves: &Curves, scale: &Scale, drawings: &mut Drawings) -> String {
    let (measure, time) = (curves.measure, &rows.time);
    let Some(points) = curves.chosen() else { return String::new() };
    let class = class(measure.name);
    let layer = curves.primary.flatten().map_or_else(String::new, |layer| format!(", layer {layer}"));
    let onset = rows.onset(&curves.concept, measure.name);
    let heading = format!("<p class=\"panel-title\"><i class=\"{class}\"></i><b>{}</b>{layer}</p>", measure.title);
    let words = match onset {
        Some((at, row)) => undated(row).map_or_else(|| date(*at, row), |why| escape(&why)),
        None => String::new(),
    };
    let Some(last) = points.iter().rev().find(|point| point.number.value.is_some()) else {
        let why = points.iter().find_map(|point| point.why.as_deref()).map_or_else(|| "no number".to_owned(), meaning);
        return format!("<div class=\"panel\">{heading}<p class=\"absent\">{}</p></div>", escape(&why));
    };
    let drawn = thin(points);
    let mut body = String::from("<use href=\"#frame\"/>");
    for tick in scale.ticks() {
        let y = short(scale.y(tick));
        let _ = write!(
            body,
            "<path class=\"grid\" d=\"M{LEFT} {y}H{RIGHT}\"/><text x=\"26\" y=\"{y}\" dy=\"3\" text-anchor=\"end\">{}</text>",
            number(tick)
        );
    }
    if let Some(zero) = scale.zero {
        let _ = write!(body, "<path class=\"zero\" d=\"M{LEFT} {}H{RIGHT}\"/>", short(scale.y(zero)));
    }
    let every = time.len().div_ceil(MOST).max(1);
    let null: Vec<_> = null_range(rows, measure.name, curves.primary.flatten());
    let null: Vec<_> = null.iter().enumerate().filter(|(at, _)| at % every == 0 || at + 1 == null.len()).map(|(_, ends)| *ends).collect();
    let _ = write!(body, "<path class=\"null\" d=\"{}\"/>", band(time, scale, &null));
    if let Some(place) = rows.lessons.get(&curves.concept).and_then(|&step| time.place_of_step(step)) {
        let _ = write!(body, "<path class=\"lesson\" d=\"M{} {TOP}V{BOTTOM}\"/>", short(across(place)));
    }
    let ends: Vec<(usize, f64, f64)> = drawn.iter().filter_map(|point| Some((point.t, point.number.lower?, point.number.upper?))).collect();
    let line = path(time, scale, &drawn);
    let _ =
        write!(body, "<g class=\"{class}\"><path class=\"band\" d=\"{}\"/><path class=\"line\" d=\"{line}\"/>", band(time, scale, &ends));
    if drawn.len() == 1 {
        let _ = write!(
            body,
            "<circle cx=\"{}\" cy=\"{}\" r=\"4\"/>",
            short(across(time.at(last.t))),
            short(scale.y(last.number.value.unwrap_or(0.0)))
        );
    }
    if let Some((_, row)) = onset {
        body += &dot(time, scale, points, places(time, row));
    }
    body += "</g>";
    let above: String = drawn
        .iter()
        .filter(|point| point.foils.is_some_and(|share| share >= 0.95))
        .map(|point| format!("M{} 115h4v4h-4z", short(across(time.at(point.t)) - 2.0)))
        .collect();
    if !above.is_empty() {
        let _ = write!(body, "<path class=\"foils\" d=\"{above}\"/>");
    }
    let source = Source { table: measure.table, row: last.row };
    let column = curves.column;
    let at_end = source.triple(column, last.number);
    let title = format!("{} by {}{layer}", curves.concept, measure.title.to_lowercase());
    let plain = onset.map_or_else(String::new, |(at, row)| undated(row).unwrap_or_else(|| strip(&date(*at, row))));
    let description = format!("{}. {plain}. At the end {}.", measure.unit, last.number.value.map_or_else(String::new, number));
    format!(
        "<div class=\"panel\">{heading}<p class=\"words\">{words}</p>{}<p class=\"end\">end: {at_end}</p></div>",
        drawings.svg("curve", SIZE, &title, &description, &body)
    )
}

/// The date at the height that the curve has there.
fn dot(time: &Time, scale: &Scale, points: &[Point], [value, lower, upper]: [Option<f64>; 3]) -> String {
    let Some(anchor) = value.or(lower).or(upper) else { return String::new() };
    let known: Vec<(f64, f64)> = points.iter().filter_map(|point| Some((time.at(point.t), scale.y(point.number.value?)))).collect();
    let after = known.partition_point(|(place, _)| *place < anchor).clamp(1, known.len().max(2) - 1);
    let (Some(&(left, from)), Some(&(right, to))) = (known.get(after - 1), known.get(after)) else { return String::new() };
    let y = short(from + (to - from) * ((anchor - left) / (right - left)).clamp(0.0, 1.0));
    let (start, end) = (across(lower.unwrap_or(0.0)), across(upper.unwrap_or(1.0)));
    let mut out = format!("<path class=\"ci\" d=\"M{} {y}H{}\"/>", short(start), short(end));
    if let Some(value) = value {
        let _ = write!(out, "<circle class=\"dot\" cx=\"{}\" cy=\"{y}\" r=\"4.5\"/>", short(across(value)));
    }
    out
}

/// Text without its markup.
pub fn strip(html: &str) -> String {
    let mut out = String::new();
    let mut inside = false;
    for character in html.chars() {
        match character {
            '<' => inside = true,
            '>' => inside = false,
            character if !inside => out.push(character),
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series::Point as Entry;
    use crate::series::axis::Axis;
    use crate::stats::estimate::Reported;

    #[test]
    fn a_path_has_the_numbers_of_the_table() {
        let entry = |order: usize| Entry { id: order.to_string(), stage: String::new(), step: None, tokens: None, order, reference: false };
        let time = Time::new(Axis::Index, (0..4).map(entry).collect()).unwrap();
        let scale = Scale { low: -1.0, high: 3.0, zero: Some(0.0) };
        let values = [Some(-1.0), Some(0.25), None, Some(3.0)];
        let points: Vec<Point> = (0..4)
            .map(|t| Point { t, row: t, number: Reported { value: values[t], ..Reported::default() }, foils: None, why: None })
            .collect();
        let path = path(&time, &scale, &thin(&points));
        assert_eq!(path.matches('M').count(), 2, "{path}");
        let numbers: Vec<f64> = path.split(['M', 'L', ' ']).filter_map(|part| part.parse().ok()).collect();
        let back: Vec<f64> = numbers.chunks(2).map(|pair| -1.0 + 4.0 * (BOTTOM - pair[1]) / (BOTTOM - TOP)).collect();
        for (read, table) in back.iter().zip(values.iter().flatten()) {
            assert!((read - table).abs() < 0.003, "{read} for {table}");
        }
        assert_eq!(scale.ticks(), [-1.0, 0.0, 1.0, 2.0, 3.0]);
        assert_eq!(Scale { low: 0.0, high: 0.9, zero: None }.ticks().len(), 5);
    }
}
