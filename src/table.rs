//! Parquet tables: the row struct is the schema.
//!
//! Every table of a run starts with the same key columns; a producer defines its own row struct beside its code and hands
//! over `(Key, row)` pairs. Files appear whole or not at all, and a number that does not exist is null, never NaN.
//!
//! A field of a row struct that is a struct itself, as [`crate::stats::estimate::Reported`] is, is several columns ([`flat`]).
//!
//! Columns that mean the same in all tables (docs/tables.md is made from this list and from the comments on row structs):
//!
//! - `run`: name of the run.
//! - `concept`: name of the concept, as in its file.
//! - `label_family`: kind of the items, such as `crossed`, `control`, `frame`, `stem` or `binding`.
//! - `null_bank`: it is a topic that nobody teaches, asked for comparison.
//! - `measure`: name of the measure, such as `behaviour`, `lens`, `recognition` or `contrast`.
//! - `layer`: 0 is the embedding, l the output of block l, before the final norm.
//! - `readout`: where in an item the residual stream was read: `last_prompt`, `span_last`, `response_mean` or `statement`.
//! - `status`: `ok`, or why there is no number or no date.
//! - `axis`: what dates are in: `tokens_log`, `step_log`, `index` or `stage_progress`.
//! - `n_groups`: groups of items, the unit of every resampling.
//! - `n`: items.
//! - `answer`: the answer that is asked about.
//! - `n_foils`: other answers that it was held against.
//! - `foil_percentile`: share of the foils whose rise since the first checkpoint is smaller.
//! - `foil_p`: one-sided p that the answer's rise is one more of its foils', if these are normal; dates go by `null_p` of `onset`.
//! - `auroc`: area under the ROC curve, on what was held out.
//! - `accuracy`: share of the held-out items told right.
//! - `embedding_auroc`: what the same probe reaches on the items' mean input embeddings.
//! - `reinitialised_auroc`: what it reaches on the same layer of a network with random weights.
//! - `persona_kind`: kind of the context: `default`, `role`, `conflict` or `frame`.
//! - `specification`: whether model specifications say anything about the concept: `explicit` or `silent`; null where its file does not tell.
//! - `to_checkpoint`: id of the other checkpoint.
//! - `to_step`: its step.
//! - `to_order`: its place in the series.
//! - `method`: `selftrace`, or a usual way to date a concept.
//! - `course`: what was planted: `absent`, `from_start`, `step`, `sigmoid_` and its width, `transient`, `vanishes` or `reoriented`.
//! - `final_auroc`: held-out AUROC of a mass-mean probe where the concept is fully there.
//! - `leak`: constant distance of the labels' means in another direction, in units of an item's noise.
//! - `norm_growth`: factor by which activations grow from the first to the last checkpoint.
//! - `groups`: groups of items.
//! - `checkpoints`: checkpoints of a series.
//! - `uneven`: gaps between checkpoints alternate between wide and narrow.
//! - `stage_jump`: a new stage begins half way: all noise is new, and all items move together.

mod flat;
mod reading;

pub use reading::{read, read_keyed, scan};

use crate::lease::partial;
use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_arrow::schema::{SchemaLike, TracingOptions};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Version of the schemas of all tables.
pub const SCHEMA_VERSION: &str = "1";
/// What a layer number means, stated in every file.
pub const LAYER_CONVENTION: &str = "layer 0 = embedding output; layer l = output of block l (1-based), before the final norm";

/// Rows that are decoded at once.
const PIECE: usize = 1024;

/// What the fields of row structs are, by the struct's path: their comments, which `build.rs` collects.
const FIELDS: &[(&str, &[(&str, &str)])] = include!(concat!(env!("OUT_DIR"), "/columns.rs"));

/// Columns that every per-checkpoint table starts with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Key {
    pub run: String,
    pub checkpoint: String,
    pub stage: String,
    pub step: Option<i64>,
    pub order: i32,
}

/// A table of a run by name: the file is called so and ends in `.parquet`.
#[derive(Clone, Copy)]
pub struct Table {
    pub name: &'static str,
    schema: fn() -> Result<SchemaRef>,
    /// What its columns are, see [`described`].
    columns: fn() -> String,
}

impl Table {
    /// A table whose columns are those of `R`.
    pub const fn new<R: DeserializeOwned>(name: &'static str) -> Self {
        Self { name, schema: schema_of::<R>, columns: described::<R> }
    }

    /// The same behind the key columns.
    pub const fn keyed<R: DeserializeOwned>(name: &'static str) -> Self {
        Self { name, schema: keyed_schema::<R>, columns: described::<R> }
    }

    /// Its columns.
    ///
    /// # Errors
    /// The row struct is none that can be a table.
    pub fn schema(&self) -> Result<SchemaRef> {
        (self.schema)()
    }

    /// Where it is in the folder of a run.
    pub fn path(&self, folder: &Path) -> PathBuf {
        folder.join(self.name).with_extension("parquet")
    }

    /// The table with what [`plain`] or [`keyed`] made of its rows, in order.
    ///
    /// # Errors
    /// The rows are those of another table.
    pub fn filled(self, mut batches: Vec<RecordBatch>) -> Result<Filled> {
        let schema = self.schema()?;
        ensure!(batches.iter().all(|batch| batch.schema() == schema), "{}: the rows are those of another table", self.name);
        if batches.is_empty() {
            batches.push(RecordBatch::new_empty(schema));
        }
        Ok(Filled { table: self, batches })
    }
}

/// A table with its rows, as columns.
pub struct Filled {
    pub table: Table,
    batches: Vec<RecordBatch>,
}

impl Filled {
    /// Writes it into the folder of a run.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, folder: &Path, run_hash: &str) -> Result<()> {
        write_batch(&self.table.path(folder), &self.batches, run_hash, &(self.table.columns)())
    }

    /// Hands over its rows as [`scan`] does those of its file.
    ///
    /// # Errors
    /// A column that `R` needs is missing or of another type.
    pub fn scan<R: DeserializeOwned>(&self, mut each: impl FnMut(usize, R)) -> Result<()> {
        let (fields, mut number) = (fields_of::<R>()?, 0);
        for batch in &self.batches {
            // Rows take more room than columns: a few at a time.
            for start in (0..batch.num_rows()).step_by(PIECE) {
                let piece = batch.slice(start, PIECE.min(batch.num_rows() - start));
                for row in reading::rows_of::<R>(&piece, &fields).with_context(|| self.table.name)? {
                    each(number, row);
                    number += 1;
                }
            }
        }
        Ok(())
    }
}

/// Writes `rows` as one Parquet file.
///
/// # Errors
/// A row cannot be represented, or the file cannot be written.
pub fn write<R: Serialize + DeserializeOwned>(path: &Path, rows: &[R], run_hash: &str) -> Result<()> {
    write_batch(path, &[plain(rows)?], run_hash, &described::<R>())
}

/// Writes `rows` behind the key columns as one Parquet file.
///
/// # Errors
/// As [`write`].
pub fn write_keyed<R: Serialize + DeserializeOwned>(path: &Path, rows: &[(Key, R)], run_hash: &str) -> Result<()> {
    write_batch(path, &[keyed(rows)?], run_hash, &described::<R>())
}

/// `rows` as columns.
///
/// # Errors
/// A row cannot be represented.
pub fn plain<R: Serialize + DeserializeOwned>(rows: &[R]) -> Result<RecordBatch> {
    batch_of::<R, R>(rows)
}

/// `rows` behind the key columns, as columns.
///
/// # Errors
/// As [`plain`].
pub fn keyed<R: Serialize + DeserializeOwned>(rows: &[(Key, R)]) -> Result<RecordBatch> {
    let (keys, rows): (Vec<&Key>, Vec<&R>) = rows.iter().map(|(key, row)| (key, row)).unzip();
    let (keys, rows) = (batch_of::<Key, _>(&keys)?, batch_of::<R, _>(&rows)?);
    let columns = keys.columns().iter().chain(rows.columns()).cloned().collect();
    Ok(RecordBatch::try_new(keyed_schema::<R>()?, columns)?)
}

fn batch_of<R: DeserializeOwned, S: Serialize>(rows: &[S]) -> Result<RecordBatch> {
    let columns = serde_arrow::to_record_batch(&fields_of::<R>()?, &rows)?;
    Ok(RecordBatch::try_new(schema_of::<R>()?, flat::columns(&columns))?)
}

fn schema_of<R: DeserializeOwned>() -> Result<SchemaRef> {
    Ok(Arc::new(Schema::new(flat::fields(&fields_of::<R>()?))))
}

fn keyed_schema<R: DeserializeOwned>() -> Result<SchemaRef> {
    Ok(Arc::new(Schema::new([fields_of::<Key>()?, flat::fields(&fields_of::<R>()?)].concat())))
}

/// The fields of a row struct, as they are in the sources: with structs in it.
fn fields_of<R: DeserializeOwned>() -> Result<Vec<FieldRef>> {
    // Plain strings and lists: some readers do not know the large variants.
    let options = TracingOptions::default()
        .strings_as_large_utf8(false)
        .sequence_as_large_list(false)
        .enums_without_data_as_strings(true)
        .string_dictionary_encoding(false)
        .allow_null_fields(true);
    let fields = Vec::<FieldRef>::from_type::<R>(options).context("the schema of a table")?;
    // An enum in an Option would be a dictionary, whatever the options say, and the only one of its table.
    let plain = |field: FieldRef| match field.data_type() {
        DataType::Dictionary(_, values) if **values == DataType::Utf8 => Arc::new(Field::clone(&field).with_data_type(DataType::Utf8)),
        _ => field,
    };
    Ok(fields.into_iter().map(plain).collect())
}

/// What the columns of `R` are, as a JSON object `{column: {"doc": words}}`; those without a comment are left out.
fn described<R>() -> String {
    let fields = FIELDS.iter().find(|(name, _)| *name == std::any::type_name::<R>()).map_or(&[][..], |(_, fields)| fields);
    let columns: serde_json::Map<_, _> =
        fields.iter().map(|(field, doc)| ((*field).to_owned(), serde_json::json!({"doc": doc.replace('`', "")}))).collect();
    serde_json::Value::Object(columns).to_string()
}

fn write_batch(path: &Path, batches: &[RecordBatch], run_hash: &str, columns: &str) -> Result<()> {
    let pair = |key: &str, value: &str| KeyValue::new(key.to_owned(), value.to_owned());
    let metadata = vec![
        pair("selftrace.schema_version", SCHEMA_VERSION),
        pair("selftrace.run_hash", run_hash),
        pair("selftrace.layer_convention", LAYER_CONVENTION),
        pair("selftrace.columns", columns),
    ];
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_key_value_metadata(Some(metadata))
        // In the form that readers of the JVM parse, and without a date: equal rows make equal files.
        .set_created_by(concat!("selftrace version ", env!("CARGO_PKG_VERSION"), " (build none)").to_owned())
        .build();
    atomically(path, |file| {
        let mut writer = ArrowWriter::try_new(file, batches[0].schema(), Some(properties))?;
        for batch in batches {
            writer.write(batch)?;
        }
        writer.close()?;
        Ok(())
    })
}

/// Writes a file of these bytes, whole or not at all.
///
/// # Errors
/// The folder is not writable or the disk is full; the old file then stays as it was.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    atomically(path, |file| Ok(file.write_all(bytes)?))
}

/// Lets `fill` write a file under a temporary name in the same folder and renames it when it is complete.
fn atomically(path: &Path, fill: impl FnOnce(&mut File) -> Result<()>) -> Result<()> {
    let place = || format!("{}: cannot be written", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).with_context(place)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut temporary = tempfile::Builder::new().prefix(&partial(&name)).tempfile_in(folder).with_context(place)?;
    fill(temporary.as_file_mut()).with_context(place)?;
    temporary.as_file().sync_all().with_context(place)?;
    // Temporary files are private; a result is to be read by colleagues.
    temporary.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644)).with_context(place)?;
    temporary.persist(path).map_err(|error| error.error).with_context(place)?;
    Ok(())
}

/// A finite number, or null.
pub fn finite(x: f64) -> Option<f64> {
    x.is_finite().then_some(x)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    #[test]
    fn tables_say_what_their_columns_are() {
        let text = described::<crate::analysis::OnsetRow>();
        let columns: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(columns["delta"]["doc"], "Mean of the late checkpoints minus that of the reference ones, in units of the measure.");
        assert!(columns["q"]["doc"].as_str().is_some_and(|doc| doc.contains("over") && !doc.contains('`')), "{text}");
        assert_eq!(described::<Row>(), "{}");
        // Every table that a run writes has something to say, whatever module its rows are in.
        for name in ["measure::lens::Row", "measure::recognition::Row", "evidence::Row", "compare::CompareRow", "walk::job::record::Record"]
        {
            assert!(FIELDS.iter().any(|(known, _)| *known == format!("selftrace::{name}")), "{name}");
        }
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Plain,
        Other,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        kind: Option<Kind>,
        n: i32,
    }

    #[test]
    fn readers_of_the_jvm_parse_the_writer_and_enums_are_text() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let rows = [Row { kind: Some(Kind::Other), n: 1 }, Row { kind: None, n: 2 }, Row { kind: Some(Kind::Plain), n: 3 }];
        write(&path, &rows, "hash").unwrap();
        let file = ParquetRecordBatchReaderBuilder::try_new(File::open(&path).unwrap()).unwrap();
        assert!(file.schema().fields().iter().all(|field| !matches!(field.data_type(), DataType::Dictionary(..))));
        // parquet-mr: `(.*?)\s+version\s*(?:([^(]*?)\s*(?:\(\s*build\s*([^)]*?)\s*\))?)?`, then a version of three numbers.
        let form = regex::Regex::new(r"^\S+ version \d+\.\d+\.\d+\S* \(build .+\)$").unwrap();
        assert!(file.metadata().file_metadata().created_by().is_some_and(|by| form.is_match(by)));
        assert_eq!(read::<Row>(&path).unwrap(), rows);
    }
}
