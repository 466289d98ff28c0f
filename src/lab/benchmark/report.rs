//! The tables of the benchmark, and what is printed of them.

use super::cells::{Cell, Kind, Pair};
use crate::lab::features::{self, FeatureRow};
use crate::report::summary::Text;
use crate::table;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::path::Path;

/// What a method says of one series.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// It says that the concept appears (or that two runs differ).
    pub found: bool,
    /// Date (or difference) minus truth, in checkpoints, where there are both.
    pub error: Option<f64>,
    /// Whether its interval holds the truth, where there is one.
    pub covered: Option<bool>,
}

/// One row of `benchmark.parquet`: a method in a stratum. `_se` are standard errors over series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BenchmarkRow {
    pub method: String,
    pub course: String,
    /// Of a mass-mean probe, held out, where the concept is fully there.
    pub final_auroc: f64,
    pub leak: f64,
    pub norm_growth: f64,
    pub groups: i32,
    pub checkpoints: i32,
    pub uneven: bool,
    pub stage_jump: bool,
    /// Series of the stratum.
    pub n: i32,
    /// The concept truly appears in this stratum.
    pub appears: bool,
    /// Share of series in which the method says that it appears: true positives where it does, false ones
    /// elsewhere.
    pub found: f64,
    pub found_se: f64,
    /// Series with a date.
    pub dated: i32,
    /// Mean error of the date, in checkpoints.
    pub t50_bias: Option<f64>,
    pub t50_bias_se: Option<f64>,
    /// Mean absolute error of the date, in checkpoints.
    pub t50_mae: Option<f64>,
    pub t50_mae_se: Option<f64>,
    /// Share of dates whose 95% interval holds the truth.
    pub coverage: Option<f64>,
    pub coverage_se: Option<f64>,
    /// Share of series whose shape is named right.
    pub shape_right: Option<f64>,
    pub shape_right_se: Option<f64>,
}

/// One row of `benchmark_shapes.parquet`: how often a planted course was given a shape.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShapeRow {
    pub course: String,
    pub final_auroc: f64,
    pub leak: f64,
    pub norm_growth: f64,
    pub groups: i32,
    pub checkpoints: i32,
    pub uneven: bool,
    pub stage_jump: bool,
    /// Shape that was named.
    pub shape: String,
    /// Series that were given it.
    pub count: i32,
    /// Series of the stratum.
    pub n: i32,
}

/// One row of `benchmark_compare.parquet`: how pairs of runs with some final strengths are told apart.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CompareScore {
    pub method: String,
    /// Final AUROC of the concept in run A.
    pub auroc_a: f64,
    /// The same in run B.
    pub auroc_b: f64,
    /// Planted difference of the dates, in checkpoints.
    pub difference: f64,
    /// Share of the noise that both runs have in common.
    pub common: f64,
    /// Pairs of runs.
    pub n: i32,
    /// Share of pairs that are said to differ; a pair without two dates is not.
    pub rejected: f64,
    pub rejected_se: f64,
    /// Pairs with two dates.
    pub compared: i32,
    /// Mean error of the difference, in checkpoints.
    pub bias: Option<f64>,
    pub bias_se: Option<f64>,
    /// Share of differences whose 95% interval holds the truth.
    pub coverage: Option<f64>,
    pub coverage_se: Option<f64>,
}

/// Everything that a benchmark gives.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tables {
    pub benchmark: Vec<BenchmarkRow>,
    pub shapes: Vec<ShapeRow>,
    pub compare: Vec<CompareScore>,
    pub features: Vec<FeatureRow>,
}

/// Mean with its standard error; `None` for fewer than two values.
fn mean_se(values: impl Iterator<Item = f64> + Clone) -> (Option<f64>, Option<f64>) {
    let n = values.clone().count();
    if n < 2 {
        return (None, None);
    }
    let (mean, sd) = crate::stats::estimate::mean_sd(values);
    (Some(mean), Some(sd / (n as f64).sqrt()))
}

fn share(flags: impl Iterator<Item = bool> + Clone) -> (Option<f64>, Option<f64>) {
    mean_se(flags.map(f64::from))
}

impl BenchmarkRow {
    /// Scores a method in a stratum.
    pub fn new(cell: &Cell, method: &str, found: &[Found]) -> Self {
        let errors = || found.iter().filter_map(|found| found.error);
        let (rate, rate_se) = share(found.iter().map(|found| found.found));
        let (t50_bias, t50_bias_se) = mean_se(errors());
        let (t50_mae, t50_mae_se) = mean_se(errors().map(f64::abs));
        let (coverage, coverage_se) = share(found.iter().filter_map(|found| found.covered));
        Self {
            method: method.to_owned(),
            course: cell.kind.name(),
            final_auroc: cell.strength.auroc,
            leak: cell.leak,
            norm_growth: cell.norm_growth,
            groups: cell.groups as i32,
            checkpoints: cell.checkpoints as i32,
            uneven: cell.uneven,
            stage_jump: cell.jump,
            n: found.len() as i32,
            appears: cell.kind.appears(),
            found: rate.unwrap_or(0.0),
            found_se: rate_se.unwrap_or(0.0),
            dated: errors().count() as i32,
            t50_bias,
            t50_bias_se,
            t50_mae,
            t50_mae_se,
            coverage,
            coverage_se,
            shape_right: None,
            shape_right_se: None,
        }
    }

    /// Adds how often the shape was named right.
    pub fn with_shapes(&mut self, right: impl Iterator<Item = bool> + Clone) {
        (self.shape_right, self.shape_right_se) = share(right);
    }
}

impl ShapeRow {
    /// `count` of the `n` series of a stratum were named `shape`.
    pub fn new(cell: &Cell, shape: String, count: i32, n: usize) -> Self {
        Self {
            course: cell.kind.name(),
            final_auroc: cell.strength.auroc,
            leak: cell.leak,
            norm_growth: cell.norm_growth,
            groups: cell.groups as i32,
            checkpoints: cell.checkpoints as i32,
            uneven: cell.uneven,
            stage_jump: cell.jump,
            shape,
            count,
            n: n as i32,
        }
    }
}

impl CompareScore {
    /// Scores a method over pairs of runs.
    pub fn new(method: &str, pair: &Pair, found: &[Found]) -> Self {
        let (rejected, rejected_se) = share(found.iter().map(|found| found.found));
        let (bias, bias_se) = mean_se(found.iter().filter_map(|found| found.error));
        let (coverage, coverage_se) = share(found.iter().filter_map(|found| found.covered));
        Self {
            method: method.to_owned(),
            auroc_a: pair.strengths[0].auroc,
            auroc_b: pair.strengths[1].auroc,
            difference: pair.difference,
            common: pair.common,
            n: found.len() as i32,
            rejected: rejected.unwrap_or(0.0),
            rejected_se: rejected_se.unwrap_or(0.0),
            compared: found.iter().filter(|found| found.error.is_some()).count() as i32,
            bias,
            bias_se,
            coverage,
            coverage_se,
        }
    }
}

impl Tables {
    /// Writes the four tables into `folder`.
    ///
    /// # Errors
    /// The folder is not writable.
    pub fn write(&self, folder: &Path) -> Result<()> {
        table::write(&folder.join("benchmark.parquet"), &self.benchmark, "")?;
        table::write(&folder.join("benchmark_shapes.parquet"), &self.shapes, "")?;
        table::write(&folder.join("benchmark_compare.parquet"), &self.compare, "")?;
        table::write(&folder.join("benchmark_features.parquet"), &self.features, "")
    }

    /// All tables as text: our row of every stratum, the usual ways beside it, what the wrong names were, and comparisons.
    pub fn render(&self) -> String {
        let with_se = |value: Option<f64>, se: Option<f64>, digits: usize| match (value, se) {
            (Some(value), Some(se)) => format!("{value:.digits$} ({se:.digits$})"),
            _ => "-".to_owned(),
        };
        let mut text = Text::new(&[
            "course",
            "AUC",
            "leak",
            "growth",
            "G",
            "T",
            "method",
            "n",
            "says it appears",
            "bias",
            "MAE",
            "coverage",
            "shape right",
        ]);
        for row in &self.benchmark {
            let extra = match (row.uneven, row.stage_jump) {
                (true, _) => ", uneven",
                (_, true) => ", stage jump",
                _ => "",
            };
            text.push(vec![
                format!("{}{extra}", row.course),
                if row.course == Kind::Absent.name() { "-".to_owned() } else { format!("{:.2}", row.final_auroc) },
                row.leak.to_string(),
                row.norm_growth.to_string(),
                row.groups.to_string(),
                row.checkpoints.to_string(),
                row.method.clone(),
                row.n.to_string(),
                with_se(Some(row.found), Some(row.found_se), 2),
                with_se(row.t50_bias, row.t50_bias_se, 2),
                with_se(row.t50_mae, row.t50_mae_se, 2),
                with_se(row.coverage, row.coverage_se, 2),
                with_se(row.shape_right, row.shape_right_se, 2),
            ]);
        }
        let mut out = text.render();
        let mut text = Text::new(&[
            "runs that differ by",
            "final AUC",
            "common noise",
            "method",
            "n",
            "said to differ",
            "compared",
            "bias",
            "coverage",
        ]);
        for row in &self.compare {
            text.push(vec![
                format!("{} checkpoints", row.difference),
                format!("{}, {}", row.auroc_a, row.auroc_b),
                row.common.to_string(),
                row.method.clone(),
                row.n.to_string(),
                with_se(Some(row.rejected), Some(row.rejected_se), 2),
                row.compared.to_string(),
                with_se(row.bias, row.bias_se, 2),
                with_se(row.coverage, row.coverage_se, 2),
            ]);
        }
        let _ = write!(out, "\n{}\n{}", text.render(), features::render(&self.features));
        out.push_str("\nDates in checkpoints, standard errors in brackets.\n");
        out
    }
}
