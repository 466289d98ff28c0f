//! The page about a run, on tables that are made up: every number is the table's, nothing in a name is markup, and odd runs have a page too.

use arrow::array::{Array, Float64Array, Int32Array, Int64Array};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use regex::Regex;
use selftrace::analysis::OnsetRow;
use selftrace::evidence;
use selftrace::manifest::Manifest;
use selftrace::onset::leadlag;
use selftrace::report::forest;
use selftrace::report::page::{self, rows::Rows};
use selftrace::stats::estimate::Reported;
use selftrace::stats::lexical::LexicalAudit;
use selftrace::table::{self, Key};
use selftrace::walk::audit::Finding;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;

/// How large a made-up run is.
#[derive(Clone, Copy)]
pub struct Size {
    pub concepts: usize,
    pub null: usize,
    pub checkpoints: usize,
    pub layers: i32,
}

pub const SMALL: Size = Size { concepts: 3, null: 2, checkpoints: 8, layers: 3 };
/// A name with everything that a page could take for its own.
pub const NAME: &str = "<b onclick=\"alert(1)\">it's & </b></script>";
const TABLES: [&str; 9] = ["behaviour", "recognition", "lens", "trajectory", "probes", "change", "placement", "persistence", "residual"];
const MEASURES: [&str; 9] = ["behaviour", "recognition", "lens", "contrast", "probe", "change", "placement", "persistence", "residual"];
const STATUSES: [&str; 5] = ["gate_fail", "already_preferred", "no_foils", "lexical_leak", "too_few_groups"];

/// A row of any table with curves: every column that one of them has.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Row {
    concept: String,
    label_family: String,
    layer: Option<i32>,
    readout: Option<String>,
    status: String,
    persona: String,
    probe: String,
    split: String,
    ruler: String,
    referent: String,
    quantity: String,
    k: i32,
    foil_percentile: Option<f64>,
    value: Option<f64>,
    lower: Option<f64>,
    upper: Option<f64>,
    foil_margin: Option<f64>,
    foil_margin_lower: Option<f64>,
    foil_margin_upper: Option<f64>,
    recognition: Option<f64>,
    lens: Option<f64>,
    e: Option<f64>,
    e_lower: Option<f64>,
    e_upper: Option<f64>,
    auroc: Option<f64>,
    excess: Option<f64>,
    placement: Option<f64>,
    residual: Option<f64>,
    // Of behaviour in contexts.
    null_bank: bool,
    persona_kind: String,
    carried: Option<f64>,
    carried_lower: Option<f64>,
    carried_upper: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct Pair {
    to_checkpoint: String,
    concept: String,
    label_family: String,
    layer: i32,
    readout: String,
    auroc: Option<f64>,
    cos_cv: Option<f64>,
}

#[derive(Serialize, Deserialize)]
struct Walked {
    source: String,
    device: String,
    architecture: Option<String>,
    n_params: Option<i64>,
    n_layers: Option<i32>,
    d_model: Option<i32>,
    status: String,
    error: Option<String>,
}

/// A number between 0 and 1 that looks like nothing else.
/// A word of a table as the enum that the row has.
fn word<T: serde::de::DeserializeOwned>(text: &str) -> T {
    serde_json::from_value(text.into()).unwrap()
}

fn draw(seed: usize) -> f64 {
    ((seed as f64 * 12.9898).sin() * 43_758.547).fract().abs()
}

fn concepts(size: Size) -> Vec<(String, bool)> {
    let name = |at: usize| if at == 0 { NAME.to_owned() } else { format!("concept_{at}") };
    let own = (0..size.concepts).map(|at| (name(at), false));
    own.chain((0..size.null).map(|at| (format!("null_{at}"), true))).collect()
}

/// Writes the tables of a run; concept n rises at checkpoint n + 2, null topics nowhere.
pub fn write(folder: &Path, name: &str, size: Size) {
    let id = |t: usize| format!("c{t}");
    let key = |t: usize| Key {
        run: name.to_owned(),
        checkpoint: id(t),
        stage: ["base", "sft"][usize::from(2 * t >= size.checkpoints)].to_owned(),
        step: Some(10 * t as i64),
        order: t as i32,
    };
    let checkpoints: Vec<_> =
        (0..size.checkpoints).map(|t| serde_json::json!({"id": id(t), "stage": key(t).stage, "step": 10 * t, "order": t})).collect();
    let layers: Vec<i32> = (0..size.layers).collect();
    let run = serde_json::json!({"run": name, "axis": "index", "layers": layers, "readouts": ["last_prompt"], "checkpoints": checkpoints,
        "run_hash": "abc", "items": "def", "ruler": "ghi", "version": "0.0.1", "manifest": {"path": "my runs/it's.toml", "evil": NAME}});
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(folder.join("run.json"), run.to_string()).unwrap();
    let write = |table: &str, rows: &[(Key, Row)]| table::write_keyed(&folder.join(format!("{table}.parquet")), rows, "").unwrap();

    let mut onsets = Vec::new();
    let mut curves: BTreeMap<&str, Vec<(Key, Row)>> = BTreeMap::new();
    for (at, (concept, null)) in concepts(size).iter().enumerate() {
        for (m, measure) in MEASURES.iter().enumerate() {
            let family = if m < 3 { "stem" } else { "crossed" };
            let at_layers: Vec<Option<i32>> = if m == 0 { vec![None] } else { layers.iter().map(|layer| Some(*layer)).collect() };
            for layer in at_layers {
                let primary = layer.is_none_or(|layer| layer == (at as i32 % size.layers));
                let seed = 7919 * at + 101 * m + layer.unwrap_or(0) as usize;
                let dated = !null && m < 4 && at % 2 == 0 && size.checkpoints >= 6;
                onsets.push(onset(name, concept, *null, measure, family, layer, primary, dated, seed, at, size));
                for t in 0..size.checkpoints {
                    let rise = if *null || t < at + 2 { 0.0 } else { 2.0 };
                    let number = |shift: f64| (t % 5 != 4 || m % 2 == 0).then(|| rise + shift + draw(seed + 31 * t));
                    let row = Row {
                        concept: concept.clone(),
                        label_family: family.to_owned(),
                        layer,
                        readout: (m > 0).then(|| "last_prompt".to_owned()),
                        status: if number(0.0).is_some() { "ok" } else { "too_few_groups" }.to_owned(),
                        persona: "default".to_owned(),
                        probe: "logistic".to_owned(),
                        split: "group".to_owned(),
                        ruler: "native".to_owned(),
                        referent: "self_minus_other".to_owned(),
                        quantity: "d_prime_personas".to_owned(),
                        k: 3,
                        foil_percentile: Some(draw(seed + t)),
                        value: number(0.0),
                        lower: number(-0.3),
                        upper: number(0.3),
                        foil_margin: number(0.0),
                        foil_margin_lower: number(-0.3),
                        foil_margin_upper: number(0.3),
                        recognition: number(0.0),
                        lens: number(0.0),
                        e: number(0.0),
                        e_lower: number(-0.3),
                        e_upper: number(0.3),
                        auroc: number(0.0),
                        excess: number(0.0),
                        placement: number(0.0),
                        residual: number(0.0),
                        null_bank: *null,
                        ..Row::default()
                    };
                    curves.entry(TABLES[m]).or_default().push((key(t), row));
                }
            }
        }
        if !null && size.checkpoints > 0 {
            let carried = Row {
                concept: concept.clone(),
                persona: NAME.to_owned(),
                persona_kind: "role".to_owned(),
                status: "ok".to_owned(),
                carried: Some(draw(at)),
                carried_lower: Some(-draw(at + 1)),
                carried_upper: Some(1.0 + draw(at)),
                ..Row::default()
            };
            curves.entry("behaviour").or_default().push((key(size.checkpoints - 1), carried));
        }
    }
    table::write(&folder.join("onset.parquet"), &onsets, "").unwrap();
    TABLES.iter().for_each(|table| write(table, &curves.remove(table).unwrap_or_default()));
    let mut pairs = Vec::new();
    for (at, (concept, null)) in concepts(size).iter().enumerate().filter(|(_, (_, null))| !null) {
        assert!(!null);
        for (from, to) in (0..size.checkpoints).flat_map(|from| (0..size.checkpoints).map(move |to| (from, to))) {
            let value = Some(2.0 * draw(at + 17 * from + 311 * to) - 1.0);
            pairs.push((
                key(from),
                Pair {
                    to_checkpoint: id(to),
                    concept: concept.clone(),
                    label_family: "crossed".to_owned(),
                    layer: at as i32 % size.layers,
                    readout: "last_prompt".to_owned(),
                    auroc: value,
                    cos_cv: value,
                },
            ));
        }
    }
    table::write_keyed(&folder.join("transfer.parquet"), &pairs, "").unwrap();
    table::write_keyed(&folder.join("similarity.parquet"), &pairs, "").unwrap();
    let lag = |first: &str, status: &str, lag: Option<f64>| leadlag::Row {
        run: name.to_owned(),
        concept: NAME.to_owned(),
        null_bank: false,
        first: first.to_owned(),
        first_layer: None,
        second: "behaviour".to_owned(),
        second_layer: None,
        status: word(status),
        lag: reported(lag, lag.map(|lag| lag - 0.4), lag.map(|lag| lag + 0.3)),
        p_first: lag.map(|_| 0.03),
    };
    table::write(&folder.join("leadlag.parquet"), &[lag("lens", "ok", Some(0.711)), lag("contrast", "gate_fail", None)], "").unwrap();
    let part = |hypothesis: &str, verdict: &str, status: &str| {
        (
            key(size.checkpoints.saturating_sub(1)),
            evidence::Row {
                hypothesis: word(hypothesis),
                concept: NAME.to_owned(),
                measure: "persistence".to_owned(),
                verdict: word(verdict),
                status: word(status),
                gate: word("ok"),
                value: reported(Some(0.8123), Some(0.71), Some(0.9)),
                threshold: Some(0.7),
                ..evidence::Row::default()
            },
        )
    };
    let parts =
        [part("functional_self", "supports", "ok"), part("self_is_assistant", "opposes", "ok"), part("void", "inconclusive", "not_run")];
    table::write_keyed(&folder.join("evidence.parquet"), &parts, "").unwrap();
    let audit = LexicalAudit {
        concept: NAME.to_owned(),
        label_family: "crossed".to_owned(),
        baseline: "ngram".to_owned(),
        auroc: reported(Some(0.913), Some(0.85), Some(0.96)),
        passed: Some(false),
        n: 96,
        n_groups: 24,
        status: word("lexical_leak"),
    };
    table::write(&folder.join("lexical_audit.parquet"), &[audit], "").unwrap();
    let walked = |t: usize| {
        (
            key(t),
            Walked {
                source: NAME.to_owned(),
                device: "cpu".to_owned(),
                architecture: Some("Llama".to_owned()),
                n_params: Some(134_515_008),
                n_layers: Some(30),
                d_model: Some(576),
                status: "ok".to_owned(),
                error: None,
            },
        )
    };
    table::write_keyed(&folder.join("checkpoints.parquet"), &(0..size.checkpoints).map(walked).collect::<Vec<_>>(), "").unwrap();
}

fn reported(value: Option<f64>, lower: Option<f64>, upper: Option<f64>) -> Reported {
    Reported { value, lower, upper }
}

#[allow(clippy::too_many_arguments)]
fn onset(
    run: &str,
    concept: &str,
    null_bank: bool,
    measure: &str,
    family: &str,
    layer: Option<i32>,
    primary: bool,
    dated: bool,
    seed: usize,
    at: usize,
    size: Size,
) -> OnsetRow {
    let date = 1.5 + at as f64 + draw(seed);
    let some = |value: f64| dated.then_some(value);
    // An end that is open, a bound, and a closed interval all occur.
    let (value, upper) = if at == 2 { (None, None) } else { (some(date), some(date + 0.41).filter(|_| measure != "lens")) };
    let status = match (size.checkpoints < 6, dated) {
        (true, _) => "too_few_checkpoints",
        (false, true) => "ok",
        (false, false) => STATUSES[(at + seed) % STATUSES.len()],
    };
    OnsetRow {
        run: run.to_owned(),
        concept: concept.to_owned(),
        label_family: word(family),
        null_bank,
        measure: measure.to_owned(),
        layer,
        readout: layer.map(|_| "last_prompt".to_owned()),
        primary,
        status: word(status),
        delta: reported(Some(draw(seed)), None, None),
        z: None,
        p: None,
        q: Some(draw(seed) * if dated { 1e-5 } else { 1.0 }),
        max_t_p: None,
        null_percentile: Some(draw(seed + 5)),
        null_p: None,
        baseline: None,
        excess: Reported::default(),
        level_percentile: None,
        mde: Some(draw(seed + 9)),
        shape: word(if dated { "emerges" } else { "undetermined" }),
        t50: reported(value, some(date - 0.37), upper),
        t50_step: reported(value.map(|x| 10.0 * x), some(10.0 * (date - 0.37)), upper.map(|x| 10.0 * x)),
        t10: None,
        t90: None,
        width: None,
        at_edge: None,
        between: None,
        last_off: None,
        confirmed_by: None,
        change_point: None,
        agrees: None,
        axis: "index".to_owned(),
        n_checkpoints: size.checkpoints as i32,
        excluded: None,
        n_null: 13,
    }
}

/// The page of a run in a folder.
pub fn read_page(folder: &Path) -> String {
    std::fs::read_to_string(page::write(folder, None, "selftrace report it").unwrap()).unwrap()
}

fn made(size: Size) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "made up", size);
    let page = read_page(folder.path());
    (folder, page)
}

/// A column of numbers.
fn column(path: &Path, name: &str) -> Vec<Option<f64>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap().build().unwrap();
    let mut out = Vec::new();
    for batch in reader {
        let batch = batch.unwrap();
        let array = batch.column_by_name(name).unwrap_or_else(|| panic!("{}: no column {name}", path.display()));
        let any = array.as_any();
        for row in 0..array.len() {
            let value = if let Some(numbers) = any.downcast_ref::<Float64Array>() {
                numbers.value(row)
            } else if let Some(numbers) = any.downcast_ref::<Int32Array>() {
                f64::from(numbers.value(row))
            } else {
                any.downcast_ref::<Int64Array>().unwrap_or_else(|| panic!("{name} is no number")).value(row) as f64
            };
            out.push((!array.is_null(row)).then_some(value));
        }
    }
    out
}

/// Every number of a page that says where it is from is the one that is there, to the digits that are shown. Returns how many there are.
pub fn numbers_are_the_tables(folder: &Path, page: &str) -> usize {
    let mut columns: BTreeMap<(String, String), Vec<Option<f64>>> = BTreeMap::new();
    let mut n = 0;
    for found in Regex::new(r#"data-at="(\w+)/(\d+)/(\w+)">([^<]*)<"#).unwrap().captures_iter(page) {
        let (table, row, name, shown) = (&found[1], found[2].parse::<usize>().unwrap(), &found[3], &found[4]);
        let key = (table.to_owned(), name.to_owned());
        let path = folder.join(format!("{table}.parquet"));
        let value = columns.entry(key).or_insert_with(|| column(&path, name))[row].unwrap_or_else(|| panic!("{}: null", &found[0]));
        n += 1;
        if shown == "&lt; 0.0001" {
            assert!(value < 0.0001, "{}: {value}", &found[0]);
            continue;
        }
        let (number, unit) = shown.strip_suffix('%').map_or((shown, 1.0), |number| (number, 100.0));
        let number = number.replace('\u{2212}', "-").replace('\u{202f}', "");
        let digits = number.split_once('.').map_or(0, |(_, digits)| digits.len());
        let read: f64 = number.parse().unwrap_or_else(|_| panic!("{} is no number", &found[0]));
        let allowed = 0.500_001 * 10f64.powi(-(digits.max(if unit > 1.0 { 1 } else { 0 }) as i32));
        // Zeros at the end are not shown, so a short number may stand for a longer one: four digits of it count.
        let four = 0.500_001 * 10f64.powf((unit * value).abs().max(1e-300).log10().floor() - 3.0);
        assert!((read - unit * value).abs() <= allowed.min(four.max(if unit > 1.0 { 0.050_001 } else { 0.0 })), "{}: {value}", &found[0]);
    }
    n
}

#[test]
fn every_number_is_the_tables() {
    let (folder, page) = made(SMALL);
    let n = numbers_are_the_tables(folder.path(), &page);
    assert!(n > 100, "{n} numbers");
    // Each kind of figure has some.
    for table in ["onset", "behaviour", "lens", "leadlag", "evidence", "lexical_audit", "checkpoints"] {
        assert!(page.contains(&format!("data-at=\"{table}/")), "no number of {table}");
    }
}

#[test]
fn names_are_text_wherever_they_stand() {
    let (_folder, page) = made(SMALL);
    let escaped = "&lt;b onclick=&quot;alert(1)&quot;&gt;it&#39;s &amp; &lt;/b&gt;&lt;/script&gt;";
    assert!(!page.contains("<b onclick") && page.matches("</script>").count() == 1);
    assert!(page.matches(escaped).count() > 20, "{}", page.matches(escaped).count());
}

#[test]
fn a_page_stands_alone_and_can_be_read_by_all() {
    let (_folder, page) = made(SMALL);
    // Nothing is fetched, and no script stands where a reader without scripts would miss it.
    assert!(!page.contains("http") && !page.contains(" src=") && !page.contains("@import") && !page.contains("url("));
    assert_eq!(page.matches("<link").count(), 1);
    for drawing in page.split("<svg ").skip(1) {
        let tag = drawing.split('>').next().unwrap();
        let titled = drawing.contains("<title id=") && drawing.contains("<desc id=") && tag.contains("aria-labelledby");
        assert!(tag.contains("aria-hidden=\"true\"") || (titled && tag.contains("role=\"img\"")), "{tag}");
    }
    let ids: Vec<&str> = Regex::new(r#" id="([^"]+)""#).unwrap().captures_iter(&page).map(|found| found.get(1).unwrap().as_str()).collect();
    let unique: std::collections::BTreeSet<&&str> = ids.iter().collect();
    assert_eq!(unique.len(), ids.len(), "ids twice");
    for link in Regex::new(r##"href="#([^"]+)""##).unwrap().captures_iter(&page) {
        assert!(unique.contains(&&link[1]), "#{} leads nowhere", &link[1]);
    }
    assert_eq!(page.matches("<table").count(), page.matches("<caption").count(), "each table says what it is");
    let figures = page.matches("<figure>").count();
    assert!(figures >= 8, "{figures} figures");
    assert_eq!(page.matches("How to read it.").count(), figures);
    assert_eq!(page.matches("What it cannot say.").count(), figures);
    for figure in page.split("<figure>").skip(1) {
        assert!(figure.split("</figure>").next().unwrap().contains(".parquet\">"), "a figure without its table");
    }
}

#[test]
fn statuses_are_words() {
    let (_folder, page) = made(SMALL);
    for status in STATUSES {
        let body = page.split("<main>").nth(1).unwrap().split("<script>").next().unwrap();
        assert!(!body.contains(status), "{status} stands as it is");
    }
    assert!(page.contains("not shown; could hide a rise of") && page.contains("words alone give the label away"));
}

#[test]
fn seventeen_concepts_at_twenty_checkpoints_are_less_than_a_megabyte() {
    let (folder, page) = made(Size { concepts: 17, null: 28, checkpoints: 20, layers: 31 });
    println!("{} bytes", page.len());
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(numbers_are_the_tables(folder.path(), &page) > 500);
}

#[test]
fn odd_runs_have_a_page() {
    let (_one, page) = made(Size { checkpoints: 1, ..SMALL });
    assert!(page.contains("1 checkpoint is too few"), "one checkpoint");
    let (_few, page) = made(Size { checkpoints: 3, ..SMALL });
    assert!(page.contains("fewer than six checkpoints have no shape or date"));
    let (folder, page) = made(Size { concepts: 3, null: 1, checkpoints: 200, layers: 2 });
    assert!(page.contains("Of 200 checkpoints one in 4 is drawn") && page.len() < 1_000_000, "{} bytes", page.len());
    numbers_are_the_tables(folder.path(), &page);
    let (_many, page) = made(Size { concepts: 60, null: 3, checkpoints: 8, layers: 2 });
    assert!(page.contains("concept_59") && page.len() < 3_000_000, "{} bytes", page.len());

    // A checkpoint that failed is on no curve, and its reason is at the top and with the audits.
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "failed", SMALL);
    let key = |t: usize| Key { run: String::new(), checkpoint: format!("c{t}"), stage: String::new(), step: None, order: t as i32 };
    let walked = |t: usize| {
        (
            key(t),
            Walked {
                source: String::new(),
                device: String::new(),
                architecture: None,
                n_params: None,
                n_layers: None,
                d_model: None,
                status: if t == 3 { "failed" } else { "ok" }.to_owned(),
                error: (t == 3).then(|| "shard 2 is <cut> off".to_owned()),
            },
        )
    };
    table::write_keyed(&folder.path().join("checkpoints.parquet"), &(0..8).map(walked).collect::<Vec<_>>(), "").unwrap();
    let finding =
        Finding { kind: "duplicate_of".to_owned(), other: Some("c1".to_owned()), detail: "all tensors".to_owned(), excluded: false };
    table::write_keyed(&folder.path().join("integrity.parquet"), &[(key(2), finding)], "").unwrap();
    let page = read_page(folder.path());
    assert_eq!(page.matches("shard 2 is &lt;cut&gt; off").count(), 3, "at the top, with the audits and in the list");
    assert!(page.contains("7 checkpoints in 2 stages") && page.contains("has the weights of another checkpoint"));
}

#[test]
fn a_terminal_shows_the_dates_in_a_line_per_concept() {
    let (folder, _page) = made(SMALL);
    let rows = Rows::read(folder.path()).unwrap();
    let plain = forest::text(&rows, false);
    let lines: Vec<&str> = plain.lines().collect();
    // An empty line, stages, three concepts, the null bank, the axis, its steps and the key.
    assert_eq!(lines.len(), 9, "{plain}");
    assert!(lines[1].contains("\u{2502}base") && lines[1].contains("\u{2502}sft") && lines[7].ends_with("step"), "{plain}");
    // The first concept is dated by four measures: each letter stands in the column of its date.
    let column = |line: &str, letter: char| line.chars().position(|c| c == letter);
    let first = lines[2..5].iter().find(|line| line.starts_with("<b onclick")).unwrap();
    let tick = lines[6].chars().enumerate().filter(|(_, c)| *c == '\u{253c}').map(|(at, _)| at).collect::<Vec<_>>();
    let date = rows.onset(NAME, "behaviour").unwrap().1.t50.value.unwrap();
    let (before, after) = (tick[date as usize], tick[date as usize + 1]);
    assert!(column(&first[20..], 'B').is_some_and(|at| (before..=after).contains(&(at + 20))), "{date}: {plain}");
    assert!(lines[5].starts_with("2 null topics") && lines[5].ends_with("none dated"), "{plain}");
    assert!(!plain.contains('\u{1b}'), "no colour unless asked for");
    let coloured = forest::text(&rows, true);
    assert!(coloured.contains("\u{1b}[38;5;166m"));
    let codes = Regex::new("\u{1b}\\[[0-9;]*m").unwrap();
    assert_eq!(codes.replace_all(&coloured, ""), plain, "colours change nothing else");
}

#[test]
fn a_manifest_may_want_no_page() {
    let folder = tempfile::tempdir().unwrap();
    let load = |key: &str| {
        let path = folder.path().join("checkpoints.toml");
        std::fs::write(&path, format!("[run]\n{key}[[checkpoint]]\nid = \"a\"\nsource = \".\"\nstage = \"s\"\nstep = 0\n")).unwrap();
        Manifest::load(&path).unwrap()
    };
    // As many lines in both: entries know theirs.
    let (with, without) = (load("report = true\n"), load("report = false\n"));
    assert!(with.run.report && !without.run.report);
    // What tables are made from is the same, so a run does not walk again because of it.
    assert_eq!(serde_json::to_string(&with).unwrap(), serde_json::to_string(&without).unwrap());
}

#[test]
fn what_is_no_run_gets_a_sentence() {
    let folder = tempfile::tempdir().unwrap();
    let refused = || format!("{:#}", page::write(folder.path(), None, "").unwrap_err());
    assert!(refused().contains("run.json: no such file"), "{}", refused());
    write(folder.path(), "old", SMALL);
    std::fs::remove_file(folder.path().join("lens.parquet")).unwrap();
    let page = read_page(folder.path());
    let missing = page.split("Not in the run's folder: ").nth(1).unwrap().split("</p>").next().unwrap();
    assert!(missing.contains("causal.parquet, context.parquet, ") && missing.contains(" lens.parquet, "), "{missing}");
    assert!(!missing.contains("onset.parquet"), "{missing}");
    // A table of an older version lacks columns that a page needs.
    #[derive(Serialize, Deserialize)]
    struct Old {
        concept: String,
    }
    table::write(&folder.path().join("onset.parquet"), &[Old { concept: String::new() }], "").unwrap();
    assert!(refused().contains("onset.parquet"), "{}", refused());
    std::fs::remove_file(folder.path().join("onset.parquet")).unwrap();
    assert!(refused().contains("run `selftrace analyze"), "{}", refused());
}
