//! stub
use crate::prompt::item::Item;
use crate::series::Family;
use anyhow::Result;
use serde::{Deserialize, Serialize};
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LexicalAudit {
    pub concept: String,
    pub label_family: String,
    pub status: String,
    pub baseline: String,
    pub auroc: Option<f64>,
    pub auroc_lower: Option<f64>,
    pub auroc_upper: Option<f64>,
}
pub fn audit(_f: &Family, _i: &[Item], _b: usize, _s: u64) -> Result<Vec<LexicalAudit>> {
    Ok(Vec::new())
}
