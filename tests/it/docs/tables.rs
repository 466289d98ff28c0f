//! docs/tables.md is made from the row structs: a struct whose comment begins "One row of `x.parquet`" is the table x, its fields are the
//! columns, their comments are the meanings. `UPDATE_DOCS=1 cargo test --release --test it docs::` writes the page anew.
//!
//! A field without a comment of its own has the meaning that the comment on `src/table.rs` gives to columns of its name, or is one of
//! the ends of an interval. What stands above [`MARK`] is written by hand, and lists the tables in the order of the page.

use super::{files, pattern, root, text};
use crate::cli::{run, stderr};
use crate::store::{D, Item, item, write_points};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use selftrace::compare::CompareRow;
use selftrace::table;
use selftrace::walk::audit::Finding;
use selftrace::walk::job::Record;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

const PAGE: &str = "docs/tables.md";
const MARK: &str = "<!-- Made from the sources by tests/it/docs/tables.rs: edit the comments there, not the lines below. -->\n";
/// Characters of a line.
const WIDTH: usize = 108;
/// Columns that tables behind the keys begin with.
const KEYS: [&str; 5] = ["run", "checkpoint", "stage", "step", "order"];
/// What the columns that belong to another one are called.
const ENDINGS: [&str; 3] = ["_lower", "_upper", "_se"];

struct Column {
    name: String,
    of: String,
    meaning: String,
}

impl Column {
    /// Three of an estimate, as `src/table/flat.rs` has it; itself of anything else.
    fn flat(self) -> Vec<Self> {
        if self.of != "Reported" {
            return vec![self];
        }
        let end = |end: &str| if self.name == "value" { end.to_owned() } else { format!("{}_{end}", self.name) };
        let column = |name: String, meaning: &str| Self { name, of: "Option<f64>".to_owned(), meaning: meaning.to_owned() };
        vec![column(self.name.clone(), &self.meaning), column(end("lower"), ""), column(end("upper"), "")]
    }
}

struct Table {
    /// What the struct's comment says behind the table's name.
    about: String,
    keyed: bool,
    columns: Vec<Column>,
}

/// Fields of the struct that begins at `lines`, with their comments.
fn columns<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<Column> {
    let field = pattern(r"^(?:pub(?:\(\w+\))? )?(\w+): (.+),$");
    let (mut columns, mut meaning, mut skipped) = (Vec::new(), Vec::new(), false);
    for line in lines.map(str::trim).take_while(|line| *line != "}") {
        if let Some(comment) = line.strip_prefix("///") {
            meaning.push(comment.trim());
        } else if line.starts_with("#[") {
            assert!(!line.contains("flatten") && !line.contains("rename"), "columns that this page cannot read: {line}");
            skipped |= line.contains("serde(skip)");
        } else if let Some(found) = field.captures(line) {
            let column = Column { name: found[1].to_owned(), of: found[2].to_owned(), meaning: plain(&meaning.join(" ")) };
            columns.extend((!skipped).then(|| column.flat()).into_iter().flatten());
            (meaning, skipped) = (Vec::new(), false);
        }
    }
    columns
}

/// A comment without what only rustdoc reads.
fn plain(comment: &str) -> String {
    pattern(r"\[(`[^`]+`)\]").replace_all(comment, "$1").into_owned()
}

/// Every table by name.
fn tables() -> BTreeMap<String, Table> {
    let (head, start) =
        (pattern(r"^One row of `(\w+)\.parquet`( behind the keys)?[:;.,]? ?(.*)$"), pattern(r"^(?:pub(?:\(\w+\))? )?struct \w+ \{$"));
    let mut tables = BTreeMap::new();
    for file in files(&["src"], "rs", true) {
        let code = std::fs::read_to_string(&file).unwrap();
        let mut comment = Vec::new();
        for (at, line) in code.lines().enumerate() {
            if let Some(text) = line.strip_prefix("///") {
                comment.push(text.trim());
                continue;
            }
            let about = plain(&comment.join(" "));
            if let Some(found) = head.captures(&about).filter(|_| start.is_match(line)) {
                let columns = columns(code.lines().skip(at + 1));
                assert!(!columns.is_empty(), "{}: the table {} has no columns", file.display(), &found[1]);
                let table = Table { about: found[3].to_owned(), keyed: found.get(2).is_some(), columns };
                assert!(tables.insert(found[1].to_owned(), table).is_none(), "two structs say that they are rows of {}", &found[1]);
            }
            if !line.starts_with("#[") {
                comment.clear();
            }
        }
    }
    tables
}

/// Meanings of columns that mean the same in all tables: the list in the comment on `src/table.rs`.
fn common() -> BTreeMap<String, String> {
    let source = text("src/table.rs");
    let comment: Vec<&str> =
        source.lines().map_while(|line| line.strip_prefix("//!")).map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
    let list = comment.join("\n").replace("\n  ", " ");
    let item = pattern(r"(?m)^- ((?:`\w+`(?:, )?)+): (.+)$");
    let name = pattern(r"`(\w+)`");
    let mut meanings = BTreeMap::new();
    for found in item.captures_iter(&list) {
        for name in name.captures_iter(&found[1]) {
            meanings.insert(name[1].to_owned(), found[2].to_owned());
        }
    }
    meanings
}

/// What a type of the sources is in a table.
fn kind(of: &str) -> String {
    if of == "Option<bool>" {
        return "true, false or null".to_owned();
    }
    if let Some(inner) = of.strip_prefix("Option<").and_then(|of| of.strip_suffix('>')) {
        return format!("{} or null", kind(inner));
    }
    if let Some(inner) = of.strip_prefix("Vec<").and_then(|of| of.strip_suffix('>')) {
        return format!("list of {}", many(inner));
    }
    match of {
        "f64" | "f32" => "number",
        "i8" | "i32" | "i64" => "integer",
        "bool" => "true or false",
        // An enum is written as its name.
        _ => "text",
    }
    .to_owned()
}

fn many(of: &str) -> String {
    let inner = of.strip_prefix("Vec<").and_then(|of| of.strip_suffix('>'));
    inner.map_or_else(|| format!("{}s", kind(of)), |inner| format!("lists of {}", many(inner)))
}

/// Lines of at most [`WIDTH`] characters, all but the first indented.
fn wrapped(text: &str, indent: &str) -> String {
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH && !line.trim().is_empty() {
            lines.push(std::mem::replace(&mut line, indent.to_owned()));
        } else if !line.trim().is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.push(line);
    lines.join("\n") + "\n"
}

/// With a capital letter first, unless it is a symbol such as t50.
fn capital(text: &str) -> String {
    let mut text = text.to_owned();
    let is_symbol = text.chars().nth(1).is_some_and(|second| second.is_ascii_digit());
    if let Some(first) = text.get_mut(..1).filter(|_| !is_symbol) {
        first.make_ascii_uppercase();
    }
    text
}

/// Whether a column belongs to one that the table has: the end of an interval, or a standard error.
fn owner<'a>(name: &'a str, columns: &[Column]) -> Option<&'a str> {
    if matches!(name, "lower" | "upper") {
        return columns.iter().any(|column| column.name == "value").then_some("value");
    }
    let base = ENDINGS.iter().find_map(|ending| name.strip_suffix(ending))?;
    columns.iter().any(|column| column.name == base).then_some(base)
}

/// The page below [`MARK`], and what the sources do not say.
fn rendered(order: &[String], tables: &BTreeMap<String, Table>) -> (String, Vec<String>) {
    let (common, mut page, mut missing) = (common(), String::new(), Vec::new());
    for name in order {
        let Table { about, keyed, columns } = &tables[name];
        let keys = if *keyed { "The [key columns](#key-columns) come first." } else { "" };
        write!(page, "\n## `{name}.parquet`\n\n{}\n", wrapped(&format!("{} {keys}", capital(about)), "")).unwrap();
        for column in columns {
            if column.meaning.is_empty() && owner(&column.name, columns).is_some() {
                continue;
            }
            let meaning = if column.meaning.is_empty() { common.get(&column.name) } else { Some(&column.meaning) };
            let Some(meaning) = meaning.map(|meaning| capital(meaning)) else {
                missing.push(format!("{name}: {}", column.name));
                continue;
            };
            let belongs = |other: &&Column| other.meaning.is_empty() && owner(&other.name, columns) == Some(&column.name);
            let names: Vec<String> =
                std::iter::once(column).chain(columns.iter().filter(belongs)).map(|column| format!("`{}`", column.name)).collect();
            page += &wrapped(&format!("- {} ({}): {meaning}", names.join(", "), kind(&column.of)), "  ");
        }
    }
    (page, missing)
}

/// The tables in the order in which the part that is written by hand lists them.
fn listed(head: &str) -> Vec<String> {
    let link = pattern(r"(?m)^\| \[`(\w+)`\]\(#");
    link.captures_iter(head).map(|found| found[1].to_owned()).collect()
}

#[test]
fn the_page_of_tables_is_made_from_the_row_structs() {
    let page = text(PAGE);
    let (head, body) = page.split_once(MARK).unwrap_or_else(|| panic!("{PAGE} lacks the line {MARK}"));
    let (order, tables) = (listed(head), tables());
    let mut sorted = order.clone();
    sorted.sort();
    assert_eq!(sorted, tables.keys().cloned().collect::<Vec<_>>(), "tables that {PAGE} lists, and those that the sources have");
    let (rendered, missing) = rendered(&order, &tables);
    assert!(missing.is_empty(), "columns without a comment, here and in the list of src/table.rs:\n{}", missing.join("\n"));
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(root().join(PAGE), format!("{head}{MARK}{rendered}")).unwrap();
    } else {
        assert!(body == rendered, "{PAGE} is not what the sources say: UPDATE_DOCS=1 cargo test --release --test it docs::");
    }
}

/// Names of the columns of a file.
fn found(path: &Path) -> Vec<String> {
    let file = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    file.schema().fields().iter().map(|field| field.name().clone()).collect()
}

#[test]
fn tables_have_the_columns_that_the_page_says() {
    let tables = tables();
    let said = |name: &str, keyed: bool| -> Vec<String> {
        let table = tables.get(name).unwrap_or_else(|| panic!("no struct says that it is a row of {name}.parquet"));
        let keys = KEYS.iter().filter(|_| keyed && table.keyed).map(|key| (*key).to_owned());
        keys.chain(table.columns.iter().map(|column| column.name.clone())).collect()
    };
    // What an analysis writes.
    let folder = tempfile::tempdir().unwrap();
    let mut items: Vec<Item> = (0..10).map(|n| item("neutral", "neutral", n, "q", None)).collect();
    for (group, (cell, y)) in (0..8).flat_map(|group| [("00", 1), ("01", 0), ("10", 0), ("11", 1)].map(|cell| (group, cell))) {
        items.push(item("taught", "crossed", group, cell, Some(y)));
    }
    let activation = |t: usize, index: usize| (0..D).map(|j| ((7 * t + 5 * index + 3 * j * j) as f32).sin()).collect();
    write_points(folder.path(), &items, 3, &mut |t, index| activation(t, index), None);
    let given = std::fs::read(folder.path().join("items.parquet")).unwrap();
    let output = run(&["analyze", "--store", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(std::fs::read(folder.path().join("items.parquet")).unwrap() == given, "an analysis leaves its input alone");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "parquet") && name != "items" {
            assert_eq!(found(&path), said(&name, true), "{name}");
            seen += 1;
        }
    }
    assert!(seen >= 20, "{seen} tables of an analysis");
    // What a walk and a comparison write, without the keys.
    let empty = folder.path().join("empty.parquet");
    let write: [(&str, &dyn Fn()); 4] = [
        ("checkpoints", &|| table::write::<Record>(&empty, &[], "").unwrap()),
        ("integrity", &|| table::write::<Finding>(&empty, &[], "").unwrap()),
        ("items", &|| table::write::<selftrace::prompt::item::Item>(&empty, &[], "").unwrap()),
        ("compare", &|| table::write::<CompareRow>(&empty, &[], "").unwrap()),
    ];
    for (name, write) in write {
        write();
        assert_eq!(found(&empty), said(name, false), "{name}");
    }
}
