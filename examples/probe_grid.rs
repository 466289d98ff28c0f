//! Cross-validates the logistic probe on a grid of cells (checkpoint x layer x concept), for `benches/probes.py`.
//!
//!     probe_grid CELLS.safetensors OUT.json
//!
//! CELLS holds `x` `[cells, n, d]` f32, `y` `[n]` u8 and `groups` `[n]` i64; OUT gets the scores and penalties of each cell
//! and the CPU seconds that all took once they were read. Cells are shared out over rayon's threads (`RAYON_NUM_THREADS`).

use anyhow::{Context, Result, ensure};
use rayon::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use safetensors::{Dtype, SafeTensors};
use selftrace::stats::kernel::Design;
use selftrace::stats::{folds, logistic};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, cells, out] = arguments.as_slice() else { anyhow::bail!("usage: probe_grid CELLS.safetensors OUT.json") };
    let bytes = std::fs::read(cells).with_context(|| cells.clone())?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let (x, y, groups) = (tensors.tensor("x")?, tensors.tensor("y")?, tensors.tensor("groups")?);
    let &[_, n, d] = x.shape() else { anyhow::bail!("x has shape {:?}, expected [cells, n, d]", x.shape()) };
    ensure!((x.dtype(), y.dtype(), groups.dtype()) == (Dtype::F32, Dtype::U8, Dtype::I64), "expected x f32, y u8, groups i64");
    ensure!(y.data().len() == n && groups.shape() == [n], "y and groups are not [{n}]");
    let values: Vec<f32> = x.data().as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    let labels: Vec<bool> = y.data().iter().map(|&y| y == 1).collect();
    let groups: Vec<i64> = groups.data().as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect();

    let begin = cpu_seconds();
    let groups = folds::numbered(&groups);
    let folds = folds::grouped(&groups, folds::OUTER)?;
    let cell = |x: &[f32]| -> Result<(Vec<f64>, Vec<f64>)> {
        let splits = Design::new(x, d)?.whole().folds(&folds)?;
        let held = logistic::held_out(&splits, &labels, &groups)?.context("a fold trains on one label only")?;
        Ok((held.scores, held.lambdas))
    };
    let (scores, lambdas): (Vec<_>, Vec<_>) = values.par_chunks_exact(n * d).map(cell).collect::<Result<Vec<_>>>()?.into_iter().unzip();
    let seconds = cpu_seconds() - begin;
    let report = serde_json::json!({"cpu_seconds": seconds, "scores": scores, "lambdas": lambdas});
    std::fs::write(out, report.to_string()).with_context(|| out.clone())
}

/// Of all threads of this process.
fn cpu_seconds() -> f64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}
