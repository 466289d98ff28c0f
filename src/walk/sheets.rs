//! Files of the store beside the readouts: what a checkpoint answered under conditions, or through another one's blocks.

use crate::prompt::item::Item;
use crate::walk::store::{self, Readouts, Writer};
use anyhow::Result;
use safetensors::Dtype;
use serde_json::Value;
use std::path::Path;

/// A tensor of a sheet: name, type, shape and bytes.
pub type Written = (String, Dtype, Vec<usize>, Vec<u8>);

/// What a sheet takes at a checkpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cost {
    /// Conditions that are swept; 0 where there are none.
    pub conditions: usize,
    /// Nodes of everything that is asked, as one forest.
    pub nodes: usize,
    /// Nodes times blocks.
    pub node_blocks: usize,
    /// Tokens that are written at most; 0 where none are.
    pub generated: usize,
    /// Calls of `tick`.
    pub ticks: usize,
    /// Bytes that are worth counting in a store; 0 where they are not.
    pub store_bytes: usize,
}

/// Which items a sheet is of: rows of `items.parquet` (`items`, i64) and their hashes as text (`item_hash`, u8).
pub fn of_items(items: &[usize], all: &[Item]) -> [Written; 2] {
    let hashes: Vec<u8> = items.iter().flat_map(|&item| all[item].hash.bytes()).collect();
    [("items".to_owned(), Dtype::I64, vec![items.len()], integers(items)), ("item_hash".to_owned(), Dtype::U8, vec![hashes.len()], hashes)]
}

/// Whether a sheet's items are, by number and hash, among these.
///
/// # Errors
/// There is no tensor `items`.
pub fn is_of(file: &Readouts, items: &[Item]) -> Result<bool> {
    let rows = file.integers("items")?;
    let hash = |row: &i64| usize::try_from(*row).ok().and_then(|row| items.get(row)).map(|item| item.hash.as_str());
    let text: Option<String> = rows.iter().map(hash).collect();
    Ok(text.is_some_and(|text| file.bytes("item_hash").is_ok_and(|bytes| bytes == text.as_bytes())))
}

/// Bytes of numbers.
pub fn integers(values: &[usize]) -> Vec<u8> {
    values.iter().flat_map(|x| (*x as i64).to_le_bytes()).collect()
}

/// Bytes of numbers.
pub fn floats(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

/// Writes a sheet of a checkpoint with this fingerprint, whole or not at all; `facts` are metadata beside those of every file of activations.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, layers: &[usize], fingerprint: &str, facts: &[(&str, String)], tensors: &[Written]) -> Result<()> {
    let mut metadata = store::metadata(layers, fingerprint);
    metadata.extend(facts.iter().map(|(key, value)| ((*key).to_owned(), Value::from(value.clone()))));
    let layout = tensors.iter().map(|(name, dtype, shape, _)| (name.clone(), *dtype, shape.clone())).collect();
    let writer = Writer::create(path, layout, metadata)?;
    for (number, (.., bytes)) in tensors.iter().enumerate() {
        writer.write(number, 0, bytes)?;
    }
    writer.finish(&[])
}
