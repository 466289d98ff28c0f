//! Columns of structs in row structs: a field `x` with the parts `value`, `lower` and `upper` is the columns `x`, `x_lower` and `x_upper`, in
//! place. Those of a field that is called `value` are `value`, `lower` and `upper`.

use anyhow::Result;
use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, StructArray, new_null_array};
use arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema};
use std::sync::Arc;

/// What the part that is the field itself is called.
const OWN: &str = "value";

/// The parts of a struct, each with the name of its column; nothing for what is a column by itself.
fn parts(field: &Field) -> Option<impl Iterator<Item = (&FieldRef, String)>> {
    let DataType::Struct(parts) = field.data_type() else { return None };
    Some(parts.iter().map(|part| match (field.name().as_str(), part.name().as_str()) {
        (name, OWN) => (part, name.to_owned()),
        (OWN, part_name) => (part, part_name.to_owned()),
        (name, part_name) => (part, format!("{name}_{part_name}")),
    }))
}

/// The columns of these fields.
pub fn fields(fields: &[FieldRef]) -> Vec<FieldRef> {
    let mut flat = Vec::new();
    for field in fields {
        match parts(field) {
            Some(parts) => flat.extend(parts.map(|(part, name)| Arc::new(Field::clone(part).with_name(name)))),
            None => flat.push(field.clone()),
        }
    }
    flat
}

/// The columns of a batch that has structs.
pub fn columns(batch: &RecordBatch) -> Vec<ArrayRef> {
    let parts = |column: &ArrayRef| column.as_struct_opt().map_or_else(|| vec![column.clone()], |parts| parts.columns().to_vec());
    batch.columns().iter().flat_map(parts).collect()
}

/// The columns of `batch` that these fields have, as their structs again. What the batch lacks is left out; of a struct, it is null.
///
/// # Errors
/// A part that the batch lacks cannot be null.
pub fn nested(batch: &RecordBatch, fields: &[FieldRef]) -> Result<RecordBatch> {
    let found = |name: &str| Some((batch.schema_ref().field_with_name(name).ok()?.clone(), batch.column_by_name(name)?.clone()));
    let mut columns: Vec<(FieldRef, ArrayRef)> = Vec::new();
    for field in fields {
        let Some(parts) = parts(field) else {
            columns.extend(found(field.name()).map(|(field, column)| (Arc::new(field), column)));
            continue;
        };
        let own = |(part, name): (&FieldRef, String)| match found(&name) {
            Some((field, column)) => (Arc::new(field.with_name(part.name())), column),
            None => (part.clone(), new_null_array(part.data_type(), batch.num_rows())),
        };
        let (parts, arrays): (Vec<FieldRef>, Vec<ArrayRef>) = parts.map(own).unzip();
        let column = StructArray::try_new(Fields::from(parts), arrays, None)?;
        columns.push((Arc::new(Field::new(field.name(), column.data_type().clone(), false)), Arc::new(column)));
    }
    let (fields, columns): (Vec<FieldRef>, Vec<ArrayRef>) = columns.into_iter().unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

#[cfg(test)]
mod tests {
    use crate::stats::estimate::Reported;
    use crate::table::{read, scan, write};
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Row {
        name: String,
        value: Reported,
        n: i32,
        shift: Reported,
    }

    /// The same columns by hand.
    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Flat {
        name: String,
        value: Option<f64>,
        lower: Option<f64>,
        upper: Option<f64>,
        n: i32,
        shift: Option<f64>,
        shift_lower: Option<f64>,
        shift_upper: Option<f64>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Part {
        #[serde(rename = "shift")]
        moved: Reported,
        absent: Reported,
    }

    #[test]
    fn an_estimate_is_three_columns_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let [nested, flat] = ["nested", "flat"].map(|name| folder.path().join(name));
        let value = Reported { value: Some(0.5), lower: Some(0.25), upper: None };
        let rows = [
            Row { name: "a".to_owned(), value, n: 1, shift: Reported::default() },
            Row { name: "b".to_owned(), value, n: 2, shift: value },
        ];
        let by_hand = rows.iter().map(|row| {
            let ([value, lower, upper], [shift, shift_lower, shift_upper]) = (row.value.parts(), row.shift.parts());
            Flat { name: row.name.clone(), value, lower, upper, n: row.n, shift, shift_lower, shift_upper }
        });
        write(&nested, &rows, "").unwrap();
        write(&flat, &by_hand.collect::<Vec<_>>(), "").unwrap();
        assert!(std::fs::read(&nested).unwrap() == std::fs::read(&flat).unwrap(), "the same file, byte for byte");
        assert_eq!(read::<Row>(&flat).unwrap(), rows);
        let mut found = Vec::new();
        scan(&flat, |_, row: Part| found.push(row)).unwrap();
        let part = |moved| Part { moved, absent: Reported::default() };
        assert_eq!(found, [part(Reported::default()), part(value)]);
    }
}
