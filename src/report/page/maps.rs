//! Maps: layers by checkpoints, and checkpoints by checkpoints.

use super::cells::{Shades, borders, paths};
use super::html::{Drawings, Figure, absent, at_layer, class, escape, section};
use super::measures::{MEASURES, Measure};
use super::rows::{Curves, Pairs, Rows};
use super::time::Time;
use crate::report::words::{meaning, number, several};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// Rows and columns of a map that are drawn at most.
const MOST: usize = 48;
/// Measures that have maps.
const MAPPED: [&str; 6] = ["recognition", "stitched", "lens", "contrast", "probe", "change"];

const LAYERS_READ: &str = "Each map is a concept: checkpoints from left to right, layers from the first at the bottom to the last at the \
     top, white lines between stages, a frame around the layer that was chosen. Blue is above where there is nothing, orange below. The \
     last map of each row is the median of all null topics.";
const LAYERS_CANNOT: &str = "Cells have no intervals here, and one layer among thirty is bound to stand out: a date is taken at the framed \
     layer only, which was chosen on other groups.";
const PAIRS_READ: &str = "Rows are the checkpoint at which it was fitted, columns the one at which it was tested, in order from the top \
     left. A block of blue is a stretch of training over which it is the same thing; blue only beside the diagonal is something that turns.";
const PAIRS_CANNOT: &str = "What transfers may be more than the concept: words and position are the same at all checkpoints.";

/// Some of `0..n`, evenly spaced, the last one included.
fn kept(n: usize) -> Vec<usize> {
    let every = n.div_ceil(MOST).max(1);
    let mut kept: Vec<usize> = (0..n).rev().step_by(every).collect();
    kept.reverse();
    kept
}

/// Columns before which a stage begins.
fn starts(time: &Time, columns: &[usize]) -> Vec<usize> {
    time.stages().iter().skip(1).map(|stage| columns.partition_point(|&t| t < stage.first)).collect()
}

/// Layers by checkpoints.
pub fn layers(rows: &Rows, drawings: &mut Drawings) -> String {
    let mut body = String::new();
    let mut tables = Vec::new();
    for measure in MEASURES.iter().filter(|measure| MAPPED.contains(&measure.name)) {
        let maps = of_measure(rows, measure, drawings);
        if !maps.is_empty() {
            tables.push(measure.table);
            body += &maps;
        }
    }
    if tables.is_empty() {
        let why = "One layer was read, or none: <code>layers</code> in the manifest chooses more of them.";
        return section("layers", "Where in the network?", &absent(why));
    }
    let figure = Figure { body, read: LAYERS_READ, cannot: LAYERS_CANNOT, tables: &tables };
    section("layers", "Where in the network?", &figure.html())
}

fn of_measure(rows: &Rows, measure: &'static Measure, drawings: &mut Drawings) -> String {
    let several_layers = |curves: &&Curves| curves.layers.keys().flatten().count() > 1;
    let all = || rows.curves.iter().filter(|curves| curves.measure == measure).filter(several_layers);
    let own: Vec<&Curves> = rows.concepts().into_iter().filter_map(|concept| all().find(|curves| curves.concept == concept)).collect();
    let numbers = own.iter().flat_map(|curves| curves.layers.values().flatten()).filter_map(|point| point.number.value);
    let shades = Shades::new(measure.zero.unwrap_or(0.0), measure.zero.is_none(), numbers);
    if own.is_empty() {
        return String::new();
    }
    let layers: BTreeSet<i32> = own.iter().flat_map(|curves| curves.layers.keys().flatten().copied()).collect();
    let layers: Vec<i32> = layers.into_iter().collect();
    let (rows_of, columns) = (kept(layers.len()), kept(rows.time.len()));
    let mut out = format!(
        "<h3><i class=\"{0}\"></i>{1} {2}</h3><p class=\"note\">{3}</p><div class=\"maps\" style=\"--h:{4}px\">",
        class(measure.name),
        measure.title,
        shades.legend(),
        measure.unit,
        (6 * rows_of.len()).clamp(32, 170)
    );
    let mut draw = |name: &str, primary: Option<i32>, value: &dyn Fn(i32, usize) -> Option<f64>, why: Option<&str>| {
        let cells: Vec<Vec<Option<f64>>> = rows_of.iter().rev().map(|&l| columns.iter().map(|&t| value(layers[l], t)).collect()).collect();
        let size = (columns.len(), rows_of.len());
        let mut body = paths(&cells, &shades) + &borders(&starts(&rows.time, &columns), size, false);
        if let Some(at) = primary.and_then(|layer| rows_of.iter().rev().position(|&l| layers[l] == layer)) {
            let _ = write!(body, "<path class=\"chosen\" d=\"M0 {at}h{0}v1h-{0}z\"/>", size.0);
        }
        let title = format!("{name} by {}: layers by checkpoints", measure.title.to_lowercase());
        let strongest = cells.iter().flatten().flatten().copied().reduce(f64::max);
        let description = format!(
            "{}, {}. Largest {}.",
            several(layers.len(), "layer"),
            several(columns.len(), "checkpoint"),
            strongest.map_or_else(|| "none".to_owned(), number)
        );
        let drawing = drawings.map((size.0 as f64, size.1 as f64), &title, &description, &body);
        let note = why.map_or_else(String::new, |why| format!("<p class=\"absent\">{}</p>", escape(why)));
        let chosen = at_layer(primary);
        let _ = write!(
            out,
            "<div class=\"cellmap\"><p><b>{}</b>{chosen}</p><div class=\"sides\"><span>{}</span><span>{}</span></div>{drawing}{}{note}</div>",
            escape(name),
            layers[layers.len() - 1],
            layers[0],
            ends(&rows.time)
        );
    };
    for curves in &own {
        let cells: BTreeMap<(i32, usize), f64> = curves
            .layers
            .iter()
            .filter_map(|(layer, points)| Some(((*layer)?, points)))
            .flat_map(|(layer, points)| points.iter().filter_map(move |point| Some(((layer, point.t), point.number.value?))))
            .collect();
        let why = curves.layers.values().flatten().find_map(|point| point.why.as_deref().filter(|_| cells.is_empty())).map(meaning);
        draw(&curves.concept, curves.primary.flatten(), &|layer, t| cells.get(&(layer, t)).copied(), why.as_deref());
    }
    let mut null: BTreeMap<(i32, usize), Vec<f64>> = BTreeMap::new();
    for curves in all().filter(|curves| curves.null_bank) {
        for (layer, points) in curves.layers.iter().filter_map(|(layer, points)| Some(((*layer)?, points))) {
            for (t, value) in points.iter().filter_map(|point| Some((point.t, point.number.value?))) {
                null.entry((layer, t)).or_default().push(value);
            }
        }
    }
    if !null.is_empty() {
        let median = |layer: i32, t: usize| {
            let mut values = null.get(&(layer, t))?.clone();
            values.sort_by(f64::total_cmp);
            Some(0.5 * (values[(values.len() - 1) / 2] + values[values.len() / 2]))
        };
        draw("null topics", None, &median, None);
    }
    out + "</div>"
}

/// First and last checkpoint beneath a map.
fn ends(time: &Time) -> String {
    let n = time.len();
    let label = |t: usize| if n == 0 { String::new() } else { time.label(t) };
    format!("<div class=\"ends\"><span>{}</span><span>{} {}</span></div>", label(0), time.unit(), label(n.saturating_sub(1)))
}

/// Checkpoints by checkpoints: transfer of probes and cosines of directions.
pub fn pairs(rows: &Rows, drawings: &mut Drawings) -> String {
    let transfer = of_pairs(rows, &rows.transfer, "Transfer of the probe (AUROC)", 0.5, drawings);
    let cosines = of_pairs(rows, &rows.cosines, "Cosine of the contrast's direction, corrected for noise", 0.0, drawings);
    let tables: Vec<&str> =
        [("transfer", &transfer), ("similarity", &cosines)].iter().filter(|(_, text)| !text.is_empty()).map(|(table, _)| *table).collect();
    let title = "Is it the same thing throughout?";
    if tables.is_empty() {
        let why =
            "No probe and no contrast was fitted: without crossed items there is no direction to carry from one checkpoint to another.";
        return section("pairs", title, &absent(why));
    }
    let figure = Figure { body: transfer + &cosines, read: PAIRS_READ, cannot: PAIRS_CANNOT, tables: &tables };
    section("pairs", title, &figure.html())
}

fn of_pairs(rows: &Rows, pairs: &Pairs, title: &str, zero: f64, drawings: &mut Drawings) -> String {
    let kept = kept(rows.time.len());
    let shades = Shades { zero, most: 1.0 - zero, one_sided: false };
    let mut out = String::new();
    for concept in rows.concepts() {
        let Some((_, layer, pairs)) = pairs.of.iter().find(|(name, ..)| name == concept) else { continue };
        let known: BTreeMap<(usize, usize), f64> = pairs.iter().filter_map(|pair| Some(((pair.from, pair.to), pair.value?))).collect();
        let cells: Vec<Vec<Option<f64>>> =
            kept.iter().map(|&from| kept.iter().map(|&to| known.get(&(from, to)).copied()).collect()).collect();
        let size = (kept.len(), kept.len());
        let body = paths(&cells, &shades) + &borders(&starts(&rows.time, &kept), size, true);
        let description = format!("{} squared at layer {layer}; {} have a number.", several(kept.len(), "checkpoint"), known.len());
        let drawing = drawings.map((size.0 as f64, size.1 as f64), &format!("{title}: {concept}"), &description, &body);
        let _ = write!(
            out,
            "<div class=\"cellmap square\"><p><b>{}</b>{}</p>{drawing}{}</div>",
            escape(concept),
            at_layer(Some(*layer)),
            ends(&rows.time)
        );
    }
    if out.is_empty() { out } else { format!("<h3>{title} {}</h3><div class=\"maps\">{out}</div>", shades.legend()) }
}
