//! The rows of a page from the tables of a run, at hand or in its folder, decoded column by column and kept only as far as they are shown.

use super::measures::{self, MEASURES, Measure};
use super::rows::{Checkpoint, Curves, Numbered, Pair, Pairs, Point, Preference, Rows, RunFile, preferred};
use crate::analysis::OnsetRow;
use crate::stats::estimate::Reported;
use crate::table::{self, Filled, Key};
use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Column of a number that a table does not have.
const NONE: &str = "-";

/// Tables beside those of curves.
const SHOWN: [&str; 11] = [
    "lexical_audit",
    "onset",
    "leadlag",
    "evidence",
    "causal",
    "introspection",
    "context",
    "conversation",
    "transcripts",
    "transfer",
    "similarity",
];

/// A row of any table with curves, before it is known which of them are shown.
#[derive(Default)]
struct Read {
    checkpoint: String,
    concept: Option<String>,
    label_family: Option<String>,
    layer: Option<i32>,
    readout: Option<String>,
    status: String,
    foils: Option<f64>,
    /// A row of the curve, and not of another persona, probe or quantity.
    wanted: bool,
    /// Value with interval in the first of the measure's columns, and in the second.
    numbers: [Reported; 2],
}

/// A point with its numbers in the second column.
type Both = (Point, Reported);

/// A typed row of one table, and how it becomes a [`Read`]: the measure's two columns, further fields, and which rows are of the curve.
macro_rules! curve {
    ($name:ident, [$value:literal, $other:literal], { $($key:ident: $kind:ty),* }, |$row:ident| $wanted:expr) => {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct $name {
            checkpoint: String,
            concept: Option<String>,
            label_family: Option<String>,
            layer: Option<i32>,
            readout: Option<String>,
            status: String,
            foil_percentile: Option<f64>,
            #[serde(rename = $value)]
            value: Reported,
            #[serde(rename = $other)]
            other: Reported,
            $($key: $kind,)*
        }

        impl From<$name> for Read {
            fn from($row: $name) -> Read {
                let wanted = $wanted;
                let numbers = [$row.value, $row.other];
                Read {
                    checkpoint: $row.checkpoint,
                    concept: $row.concept,
                    label_family: $row.label_family,
                    layer: $row.layer,
                    readout: $row.readout,
                    status: $row.status,
                    foils: $row.foil_percentile,
                    wanted,
                    numbers,
                }
            }
        }
    };
}

curve!(Behaviour, ["foil_margin", "margin"], { persona: String }, |row| row.persona == "default");
curve!(Recognition, ["recognition", "-"], {}, |row| true);
curve!(Stitched, ["stitched", "-"], {}, |row| true);
curve!(Lens, ["lens", "-"], {}, |row| true);
curve!(Contrast, ["e", "-"], {}, |row| true);
curve!(Probe, ["auroc", "-"], { probe: String, split: String, ruler: String },
    |row| (row.probe.as_str(), row.split.as_str(), row.ruler.as_str()) == ("logistic", "group", "native"));
curve!(Change, ["excess", "e"], {}, |row| true);
curve!(Placement, ["placement", "-"], { referent: String }, |row| row.referent == "self_minus_other");
curve!(Persistence, ["value", "-"], { quantity: String }, |row| row.quantity == "d_prime_personas");
curve!(Residual, ["residual", "-"], { k: Option<i32> }, |row| row.k == Some(3));
curve!(Axis, ["e", "-"], { context: String }, |row| row.context == "axis");

#[derive(Default, Deserialize)]
#[serde(default)]
struct PairRow {
    checkpoint: String,
    to_checkpoint: String,
    concept: String,
    label_family: String,
    layer: i32,
    readout: String,
    auroc: Option<f64>,
    cos_cv: Option<f64>,
}

/// All rows of a table; none where there is no such table.
pub fn rows<R: DeserializeOwned + Send>(path: &Path) -> Result<Vec<Numbered<R>>> {
    let mut rows = Vec::new();
    if path.is_file() {
        table::scan(path, |number, row| rows.push((number, row)))?;
    }
    Ok(rows)
}

/// Tables of an analysis as this process filled them, those that a page shows: they are not read back.
#[derive(Default)]
pub struct AtHand(Vec<Filled>);

impl AtHand {
    /// Keeps the table if a page shows it.
    pub fn take(&mut self, table: Filled) {
        let name = table.table.name;
        if SHOWN.contains(&name) || MEASURES.iter().any(|measure| measure.table == name) {
            self.0.push(table);
        }
    }
}

/// Where tables are, and which of those that were looked for are not there.
struct Folder<'a> {
    path: &'a Path,
    at_hand: &'a AtHand,
    missing: BTreeSet<&'static str>,
}

impl Folder<'_> {
    fn at_hand(&self, table: &str) -> Option<&Filled> {
        self.at_hand.0.iter().find(|filled| filled.table.name == table)
    }

    /// All rows of a table; none where there is no such table.
    fn rows<R: DeserializeOwned + Send>(&mut self, table: &'static str) -> Result<Vec<Numbered<R>>> {
        let mut rows = Vec::new();
        self.scan(table, |number, row| rows.push((number, row)))?;
        Ok(rows)
    }

    fn scan<R: DeserializeOwned>(&mut self, table: &'static str, each: impl FnMut(usize, R) + Send) -> Result<()> {
        if let Some(filled) = self.at_hand(table) {
            return filled.scan(each);
        }
        let path = self.path.join(table).with_extension("parquet");
        if path.is_file() {
            return table::scan(&path, each);
        }
        self.missing.insert(table);
        Ok(())
    }

    /// Rows behind their keys.
    fn keyed<R: DeserializeOwned + Send>(&mut self, table: &'static str) -> Result<Vec<Numbered<(Key, R)>>> {
        let keys = self.rows::<Key>(table)?;
        Ok(keys.into_iter().zip(self.rows::<R>(table)?).map(|((at, key), (_, row))| (at, (key, row))).collect())
    }

    /// Rows at the last checkpoint that has any.
    fn last<R: DeserializeOwned + Send>(&mut self, table: &'static str) -> Result<Vec<Numbered<R>>> {
        let rows = self.keyed(table)?;
        let last = rows.iter().map(|(_, (key, _))| key.order).max();
        Ok(rows.into_iter().filter(|(_, (key, _))| Some(key.order) == last).map(|(at, (_, row))| (at, row)).collect())
    }
}

impl Rows {
    /// Everything that a page needs, from the tables in `folder`.
    ///
    /// # Errors
    /// There is no run or it was not analysed, or a table is of another version.
    pub fn read(folder: &Path) -> Result<Self> {
        Self::of(folder, &AtHand::default())
    }

    /// As [`Rows::read`], with the tables that are at hand instead of their files.
    ///
    /// # Errors
    /// As [`Rows::read`].
    pub fn of(folder: &Path, at_hand: &AtHand) -> Result<Self> {
        let run = RunFile::read(folder)?;
        let mut folder = Folder { path: folder, at_hand, missing: BTreeSet::new() };
        if folder.at_hand("onset").is_none() && !folder.path.join("onset.parquet").is_file() {
            bail!("{}: there is no onset.parquet; run `selftrace analyze --store {0}` first", folder.path.display());
        }
        let checkpoints = folder.rows::<Checkpoint>("checkpoints")?;
        let time = run.time(&checkpoints)?;
        let mut rows = Rows {
            time,
            checkpoints,
            integrity: folder.keyed("integrity")?,
            lexical: folder.rows("lexical_audit")?,
            onsets: folder.rows("onset")?,
            curves: Vec::new(),
            transfer: Pairs::default(),
            cosines: Pairs::default(),
            lags: folder.rows("leadlag")?,
            evidence: folder.last("evidence")?,
            contexts: folder.last("persona")?,
            carried: folder.last("behaviour")?,
            causes: folder.last("causal")?,
            thoughts: folder.last("introspection")?,
            talks: folder.last("context")?,
            spoken: folder.last("conversation")?,
            said: folder.last("transcripts")?,
            lessons: lessons(folder.path)?,
            missing: Vec::new(),
            run,
        };
        let best = rows.best();
        for measure in MEASURES {
            rows.curves.extend(curves(&mut folder, &rows, &best, measure)?);
        }
        rows.transfer = pairs(&mut folder, &rows, "transfer", "probe", |row| row.auroc)?;
        rows.cosines = pairs(&mut folder, &rows, "similarity", "contrast", |row| row.cos_cv)?;
        rows.missing = folder.missing.into_iter().collect();
        Ok(rows)
    }
}

/// When a concept is known to be taught: what `selftrace demo` keeps of its curriculum.
fn lessons(folder: &Path) -> Result<BTreeMap<String, f64>> {
    #[derive(Deserialize)]
    struct Curriculum {
        taught_at: Vec<(String, Option<f64>)>,
    }
    let path = folder.join("series/curriculum.json");
    if !path.is_file() {
        return Ok(BTreeMap::new());
    }
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let found: Curriculum = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(found.taught_at.into_iter().filter_map(|(concept, step)| Some((concept, step.filter(|step| *step > 0.0)?))).collect())
}

/// The curves of all concepts by a measure.
fn curves(
    folder: &mut Folder,
    rows: &Rows,
    best: &BTreeMap<(String, String), Preference>,
    measure: &'static Measure,
) -> Result<Vec<Curves>> {
    let primaries: BTreeMap<&str, Option<i32>> =
        rows.shown().filter(|(_, row)| row.measure == measure.name).map(|(_, row)| (row.concept.as_str(), row.layer)).collect();
    let null = rows.null_topics();
    let of_measure: BTreeMap<&str, &Preference> =
        best.iter().filter(|((_, name), _)| name == measure.name).map(|((concept, _), own)| (concept.as_str(), own)).collect();
    let mut found: BTreeMap<String, BTreeMap<Option<i32>, Vec<Both>>> = BTreeMap::new();
    let mut take = |row: usize, read: Read| {
        let concept = read.concept.as_deref().unwrap_or(measure.name);
        let (Some(own), Some(t), true) = (of_measure.get(concept), rows.time.find(&read.checkpoint), read.wanted) else { return };
        // Tables of one family do not name it.
        let family = read.label_family.as_deref().unwrap_or(&own.1);
        if **own != preferred(family, read.readout.as_deref()) {
            return;
        }
        let [number, other] = read.numbers;
        let why = (read.status != "ok").then(|| read.status.into_boxed_str());
        let point = Point { t, row, number, foils: read.foils, why };
        found.entry(concept.to_owned()).or_default().entry(read.layer).or_default().push((point, other));
    };
    let table = measure.table;
    match measure.name {
        "behaviour" => folder.scan(table, |at, row: Behaviour| take(at, row.into()))?,
        "recognition" => folder.scan(table, |at, row: Recognition| take(at, row.into()))?,
        "stitched" => folder.scan(table, |at, row: Stitched| take(at, row.into()))?,
        "lens" => folder.scan(table, |at, row: Lens| take(at, row.into()))?,
        "contrast" => folder.scan(table, |at, row: Contrast| take(at, row.into()))?,
        "probe" => folder.scan(table, |at, row: Probe| take(at, row.into()))?,
        "change" => folder.scan(table, |at, row: Change| take(at, row.into()))?,
        "placement" => folder.scan(table, |at, row: Placement| take(at, row.into()))?,
        "persistence" => folder.scan(table, |at, row: Persistence| take(at, row.into()))?,
        "residual" => folder.scan(table, |at, row: Residual| take(at, row.into()))?,
        _ => folder.scan(table, |at, row: Axis| take(at, row.into()))?,
    }
    let mut out = Vec::new();
    for (concept, layers) in found {
        // One column for the whole concept: numbers of two columns are not a curve.
        let first = layers.values().flatten().any(|(point, _)| point.number.value.is_some());
        let use_second = !first && measure.columns[1] != NONE;
        let settle = |(point, other): Both| if use_second { Point { number: other, ..point } } else { point };
        let mut settled = BTreeMap::new();
        for (layer, points) in layers {
            let mut points: Vec<Point> = points.into_iter().map(settle).collect();
            points.sort_by_key(|point| point.t);
            settled.insert(layer, points);
        }
        out.push(Curves {
            measure,
            null_bank: null.contains(concept.as_str()),
            primary: primaries.get(concept.as_str()).copied(),
            column: measure.columns[usize::from(use_second)],
            concept,
            layers: settled,
        });
    }
    Ok(out)
}

/// Pairs of checkpoints at the layer and readout that a measure chose.
fn pairs(
    folder: &mut Folder,
    rows: &Rows,
    table: &'static str,
    measure: &str,
    number: impl Fn(&PairRow) -> Option<f64> + Sync,
) -> Result<Pairs> {
    let measure = measures::find(measure).map_or(measure, |measure| measure.name);
    let mut of: BTreeMap<String, (i32, Vec<Pair>)> = BTreeMap::new();
    let chosen: BTreeMap<&str, &OnsetRow> =
        rows.shown().filter(|(_, row)| row.measure == measure && !row.null_bank).map(|(_, row)| (row.concept.as_str(), row)).collect();
    folder.scan(table, |at, row: PairRow| {
        let Some(own) = chosen.get(row.concept.as_str()) else { return };
        let same =
            own.layer == Some(row.layer) && own.label_family.as_str() == row.label_family && own.readout.as_ref() == Some(&row.readout);
        if let (true, Some(from), Some(to)) = (same, rows.time.find(&row.checkpoint), rows.time.find(&row.to_checkpoint)) {
            let pair = Pair { from, to, row: at, value: number(&row) };
            of.entry(row.concept).or_insert((row.layer, Vec::new())).1.push(pair);
        }
    })?;
    Ok(Pairs { of: of.into_iter().map(|(concept, (layer, pairs))| (concept, layer, pairs)).collect() })
}
