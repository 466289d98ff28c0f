//! Rows out of Parquet files. They may come from anywhere, and the library panics on some that are damaged, and recurses as deeply as a
//! schema is nested: it works on a stack of its own, and what it cannot read is an error like others.

use super::{Key, SCHEMA_VERSION, fields_of, flat};
use crate::guard::on_a_large_stack;
use anyhow::{Context, Result, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::FieldRef;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const LIBRARY: &str = "the reader of Parquet files";
/// The longest footer that is read, in bytes. Seven bytes can nest a schema one level deeper, which takes 4 KB of stack.
const LONGEST_FOOTER: u32 = 1 << 18;
/// What a file may be unpacked to: this, and so many times its size. Repeated values cost next to nothing in a file.
const ROOM: u64 = 256 << 20;
const ROOM_PER_BYTE: u64 = 1000;

/// Reads a Parquet file into rows; columns that `R` does not have are ignored.
///
/// # Errors
/// The file is missing or not Parquet, or a column that `R` needs is missing or of another type.
pub fn read<R: DeserializeOwned + Send>(path: &Path) -> Result<Vec<R>> {
    on_a_large_stack(LIBRARY, || {
        let mut rows = Vec::new();
        let fields = fields_of::<R>()?;
        each_batch(path, open(path)?, &mut |batch| {
            rows.extend(rows_of::<R>(batch, &fields).with_context(|| path.display().to_string())?);
            Ok(())
        })?;
        Ok(rows)
    })
    .with_context(|| path.display().to_string())?
}

/// Hands over the rows of a Parquet file one by one, each with its number in the file, decoding only the columns that `R` has. One that
/// the file lacks is what `R` takes for it, or an error.
///
/// # Errors
/// As [`read`], and when the file says that it is of another version.
pub fn scan<R: DeserializeOwned>(path: &Path, mut each: impl FnMut(usize, R) + Send) -> Result<()> {
    on_a_large_stack(LIBRARY, || scan_here(path, &mut each)).with_context(|| path.display().to_string())?
}

fn scan_here<R: DeserializeOwned>(path: &Path, each: &mut dyn FnMut(usize, R)) -> Result<()> {
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
    each_batch(path, builder.with_projection(mask), &mut |batch| {
        for row in rows_of::<R>(batch, &fields).with_context(|| path.display().to_string())? {
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
pub fn read_keyed<R: DeserializeOwned + Send>(path: &Path) -> Result<Vec<(Key, R)>> {
    Ok(read::<Key>(path)?.into_iter().zip(read::<R>(path)?).collect())
}

fn open(path: &Path) -> Result<ParquetRecordBatchReaderBuilder<File>> {
    let file = File::open(path).with_context(|| format!("{}: cannot be opened", path.display()))?;
    let mut end = [0; 8];
    if let Some(at) = file.metadata()?.len().checked_sub(8) {
        file.read_exact_at(&mut end, at).with_context(|| format!("{}: cannot be read", path.display()))?;
        let [a, b, c, d, mark @ ..] = end;
        let footer = u32::from_le_bytes([a, b, c, d]);
        ensure!(
            mark != *b"PAR1" || footer <= LONGEST_FOOTER,
            "{}: found a footer of {footer} bytes, expected at most {LONGEST_FOOTER}; write fewer row groups or columns",
            path.display()
        );
    }
    ParquetRecordBatchReaderBuilder::try_new(file).with_context(|| path.display().to_string())
}

/// Hands over the batches of a file in order.
fn each_batch(path: &Path, builder: ParquetRecordBatchReaderBuilder<File>, each: &mut dyn FnMut(&RecordBatch) -> Result<()>) -> Result<()> {
    let place = || path.display().to_string();
    let mut room = std::fs::metadata(path).with_context(place)?.len().saturating_mul(ROOM_PER_BYTE).saturating_add(ROOM);
    for batch in builder.build().with_context(place)? {
        let batch = batch.with_context(place)?;
        // A row takes room even where none of its columns is asked for: how many there are is only what the file says.
        let left = room.checked_sub((batch.get_array_memory_size() + batch.num_rows()) as u64);
        room = left.with_context(|| format!("{}: its rows are more than {ROOM_PER_BYTE} times as large as the file", path.display()))?;
        each(&batch)?;
    }
    Ok(())
}

/// Rows from their columns; those that `R` does not have are ignored.
pub(super) fn rows_of<R: DeserializeOwned>(batch: &RecordBatch, fields: &[FieldRef]) -> Result<Vec<R>> {
    Ok(serde_arrow::from_record_batch(&flat::nested(batch, fields)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use parquet::file::metadata::{ParquetMetaDataReader, ParquetMetaDataWriter};
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

    /// A file without rows whose schema is nested so deeply, in Thrift's compact protocol.
    fn nested(levels: u32) -> Vec<u8> {
        let varint = |n: u32| [n as u8 | 0x80, (n >> 7) as u8 | 0x80, (n >> 14) as u8];
        let group: &[u8] = &[0x35, 2, 0x18, 1, b'a', 0x15, 2, 0];
        let schema =
            [&[0x48, 1, b'a', 0x15, 2, 0], group.repeat(levels as usize).as_slice(), &[0x15, 2, 0x25, 2, 0x18, 1, b'a', 0]].concat();
        let footer = [&[0x15, 2, 0x19, 0xfc], &varint(levels + 2)[..], &schema, &[0x16, 0, 0x19, 0x0c, 0]].concat();
        [b"PAR1", footer.as_slice(), &(footer.len() as u32).to_le_bytes(), b"PAR1"].concat()
    }

    #[test]
    fn a_schema_that_is_nested_without_end_is_an_error_and_no_overflow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        std::fs::write(&path, nested(20_000)).unwrap();
        assert!(read::<Row>(&path).map_or(true, |rows| rows.is_empty()));
        std::fs::write(&path, nested(100_000)).unwrap();
        let error = format!("{:#}", read::<Row>(&path).unwrap_err());
        assert!(error.contains("t.parquet: found a footer of 800"), "{error}");
    }

    #[test]
    fn a_file_that_is_far_larger_unpacked_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        // Equal texts are kept once.
        let row = |n: i64| Row { name: Some("x".repeat(1 << 19)), ids: None, n };
        super::super::write(&path, &(0..600).map(row).collect::<Vec<_>>(), "").unwrap();
        assert!(std::fs::metadata(&path).unwrap().len() < 1 << 14);
        let error = format!("{:#}", read::<Row>(&path).unwrap_err());
        assert!(error.contains("t.parquet: its rows are more than 1000 times as large as the file"), "{error}");
    }

    #[test]
    fn rows_that_a_file_only_claims_to_have_are_not_counted_to_their_end() {
        #[derive(Deserialize, Serialize)]
        struct Other {
            #[serde(default)]
            other: Option<i64>,
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.parquet");
        super::super::write(&path, &[Row { name: None, ids: None, n: 1 }], "").unwrap();
        let file = std::fs::read(&path).unwrap();
        let metadata = ParquetMetaDataReader::new().parse_and_finish(&File::open(&path).unwrap()).unwrap();
        let groups =
            metadata.row_groups().iter().map(|group| group.clone().into_builder().set_num_rows(1 << 50).build().unwrap()).collect();
        let metadata = metadata.into_builder().set_row_groups(groups).build();
        let mut claims = file;
        ParquetMetaDataWriter::new(&mut claims, &metadata).finish().unwrap();
        std::fs::write(&path, claims).unwrap();
        let error = format!("{:#}", scan::<Other>(&path, |_, _| {}).unwrap_err());
        assert!(error.contains("t.parquet: its rows are more than"), "{error}");
    }
}
