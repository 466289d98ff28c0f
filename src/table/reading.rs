//! Rows out of Parquet files. They may come from anywhere, and the library panics on some that are damaged: that is an error like others.

use super::{Key, SCHEMA_VERSION, fields_of, flat};
use crate::guard::guarded;
use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde::de::DeserializeOwned;
use std::fs::File;
use std::path::Path;

const LIBRARY: &str = "the Parquet library";

/// Reads a Parquet file into rows; columns that `R` does not have are ignored.
///
/// # Errors
/// The file is missing or not Parquet, or a column that `R` needs is missing or of another type.
pub fn read<R: DeserializeOwned>(path: &Path) -> Result<Vec<R>> {
    let place = || path.display().to_string();
    let mut rows = Vec::new();
    let fields = fields_of::<R>()?;
    each_batch(path, open(path)?, |batch| {
        rows.extend(rows_of::<R>(&batch, &fields).with_context(place)?);
        Ok(())
    })?;
    Ok(rows)
}

/// Hands over the rows of a Parquet file one by one, each with its number in the file, decoding only the columns that `R` has. One that
/// the file lacks is what `R` takes for it, or an error.
///
/// # Errors
/// As [`read`], and when the file says that it is of another version.
pub fn scan<R: DeserializeOwned>(path: &Path, mut each: impl FnMut(usize, R)) -> Result<()> {
    let builder = open(path)?;
    let metadata = builder.metadata().file_metadata().key_value_metadata();
    let version = metadata.and_then(|pairs| pairs.iter().find(|pair| pair.key == "selftrace.schema_version")?.value.as_deref());
    ensure!(
        version.is_none_or(|version| version == SCHEMA_VERSION),
        "{}: the table is of version {}, and this selftrace reads {SCHEMA_VERSION}; analyse the run again",
        path.display(),
        version.unwrap_or_default()
    );
    let fields = fields_of::<R>()?;
    let columns = flat::fields(&fields);
    let mask = ProjectionMask::columns(builder.parquet_schema(), columns.iter().map(|field| field.name().as_str()));
    let mut number = 0;
    each_batch(path, builder.with_projection(mask), |batch| {
        for row in rows_of::<R>(&batch, &fields).with_context(|| path.display().to_string())? {
            each(number, row);
            number += 1;
        }
        Ok(())
    })
}

/// Reads a table with its keys.
///
/// # Errors
/// As [`read`].
pub fn read_keyed<R: DeserializeOwned>(path: &Path) -> Result<Vec<(Key, R)>> {
    Ok(read::<Key>(path)?.into_iter().zip(read::<R>(path)?).collect())
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let place = || path.display().to_string();
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    guarded(LIBRARY, || ParquetRecordBatchReaderBuilder::try_new(file)).with_context(place)?.with_context(place)
}

/// Hands over the batches of a file in order.
fn each_batch(path: &Path, builder: ParquetRecordBatchReaderBuilder<File>, mut each: impl FnMut(RecordBatch) -> Result<()>) -> Result<()> {
    let place = || path.display().to_string();
    let mut reader: ParquetRecordBatchReader = guarded(LIBRARY, || builder.build()).with_context(place)?.with_context(place)?;
    while let Some(batch) = guarded(LIBRARY, || reader.next()).with_context(place)? {
        each(batch.with_context(place)?)?;
    }
    Ok(())
}

/// Rows from their columns; those that `R` does not have are ignored.
pub(super) fn rows_of<R: DeserializeOwned>(batch: &RecordBatch, fields: &[FieldRef]) -> Result<Vec<R>> {
    guarded(LIBRARY, || Ok(serde_arrow::from_record_batch(&flat::nested(batch, fields)?)?))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        name: Option<String>,
        ids: Option<Vec<i32>>,
        n: i64,
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        let row = |n: i64| Row { name: (n % 3 > 0).then(|| format!("row {n}")), ids: Some(vec![n as i32; 2]), n };
        super::super::write(&path, &(0..20).map(row).collect::<Vec<_>>(), "hash").unwrap();
        let whole = std::fs::read(&path).unwrap();
        let mut refused = 0;
        for at in 0..whole.len() {
            for value in [0, 0xff, whole[at] ^ 0x10] {
                let mut damaged = whole.clone();
                damaged[at] = value;
                std::fs::write(&path, damaged).unwrap();
                refused += usize::from(read::<Row>(&path).is_err_and(|error| format!("{error:#}").contains("t.parquet")));
            }
        }
        assert!(refused > 100, "{refused}");
    }
}
