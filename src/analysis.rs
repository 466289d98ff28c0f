//! From a store to its tables: what measures find, what their curves say about emergence, and what that says about the hypotheses.
//! Everything is handed on as a value; this is the only place that writes it.

use crate::console::check_interrupt;
use crate::evidence;
use crate::measure::{CONTRASTED, MEASURES, Measured, behaviour, dictionary};
use crate::onset::leadlag::{self, silent_lags};
use crate::onset::row;
use crate::onset::trace::{Role, Trace};
use crate::onset::weigh::verdicts;
use crate::prompt::label_family::LabelFamily;
use crate::series::Series;
use crate::stats::lexical::LexicalAudit;
use crate::table::{self, Filled, Key, Table};
use crate::walk::{conversation, interventions, introspection, stitching, talks};
use crate::words::Status;
use anyhow::Result;
use rayon::prelude::*;
use std::path::Path;

pub use crate::onset::row::OnsetRow;

/// Says from what the tables were made.
const NOTE: &str = ".analysis";
const LEXICAL_AUDIT: Table = Table::new::<LexicalAudit>("lexical_audit");

/// What people are told of an analysis; the tables hold more.
#[derive(Debug, Clone, PartialEq)]
pub struct Analysis {
    /// Rows of `onset.parquet`.
    pub onsets: Vec<OnsetRow>,
    /// Rows of `evidence.parquet`.
    pub evidence: Vec<(Key, evidence::Row)>,
}

/// Every table that an analysis writes.
pub fn tables() -> impl Iterator<Item = Table> {
    let measured = MEASURES.iter().flat_map(|measure| measure.tables).copied();
    std::iter::once(LEXICAL_AUDIT).chain(measured).chain([row::TABLE, leadlag::TABLE, evidence::TABLE])
}

/// Runs every measure and writes every table.
///
/// # Errors
/// The store cannot be read or a table cannot be written.
pub fn analyze(series: &Series) -> Result<Analysis> {
    analyze_for(series, &mut |_| {})
}

/// As [`analyze`], and hands on every table that was written, for those who go on with it.
///
/// # Errors
/// As [`analyze`].
pub fn analyze_for(series: &Series, take: &mut dyn FnMut(Filled)) -> Result<Analysis> {
    let _ = std::fs::remove_file(series.folder.join(NOTE));
    let mut write = |table: Filled| -> Result<()> {
        table.write(&series.folder, &series.run_hash)?;
        take(table);
        Ok(())
    };
    let audit = audit(series)?;
    write(LEXICAL_AUDIT.filled(vec![table::plain(&audit)?])?)?;
    let (mut traces, mut findings) = (Vec::new(), Vec::new());
    measure(series, &mut |measured| {
        traces.extend(measured.traces.into_iter().filter(|trace| trace.role != Role::Level));
        findings.extend(measured.findings);
        // Before the next one: only one measure's tables are in memory, and what is taken.
        measured.tables.into_iter().try_for_each(&mut write)
    })?;
    let verdicts = verdicts(&series.timeline(), &traces, &|trace| leaks(&audit, trace))?;
    let onsets = row::rows(series, &verdicts)?;
    let lags = silent_lags(&verdicts, behaviour::NAME, &|concept| series.specification(concept));
    let evidence = evidence::rows(series, &onsets, &findings, &lags);
    write(row::TABLE.filled(vec![table::plain(&onsets)?])?)?;
    write(leadlag::TABLE.filled(vec![table::plain(&leadlag::rows(&series.run, &verdicts))?])?)?;
    write(evidence::TABLE.filled(vec![table::keyed(&evidence)?])?)?;
    // The note comes last: without it the tables are not complete.
    table::write_atomically(&series.folder.join(NOTE), key(series).as_bytes())?;
    Ok(Analysis { onsets, evidence })
}

/// Runs every measure, in order, and hands over what each found.
///
/// # Errors
/// The store cannot be read, or whatever `take` returns.
pub fn measure(series: &Series, take: &mut dyn FnMut(Measured) -> Result<()>) -> Result<()> {
    for measure in MEASURES {
        check_interrupt()?;
        let start = std::time::Instant::now();
        take((measure.run)(series)?)?;
        tracing::info!("{}: {:.1} s", measure.name, start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// Digest of everything that the tables are computed from: the store, and the code (see build.rs).
fn key(series: &Series) -> String {
    let sheets = [interventions::FOLDER, introspection::FOLDER, stitching::FOLDER, talks::CONTEXT, talks::REPLAY, conversation::FOLDER]
        .map(|folder| series.sheets(folder))
        .concat()
        + &dictionary::digest(series);
    let text = format!("{} {} {sheets}", env!("SELFTRACE_CODE"), series.digest());
    blake3::hash(text.as_bytes()).to_hex().to_string()
}

/// Whether the tables were made from this store as it is, by this code.
///
/// # Errors
/// The note of the last analysis cannot be read.
pub fn is_current(series: &Series) -> Result<bool> {
    let note = std::fs::read_to_string(series.folder.join(NOTE)).unwrap_or_default();
    Ok(note == key(series) && tables().all(|table| table.path(&series.folder).is_file()))
}

/// When the tables in a folder were written; nothing where they are not complete.
pub fn written(folder: &std::path::Path) -> Option<std::time::SystemTime> {
    std::fs::metadata(folder.join(NOTE)).ok()?.modified().ok()
}

/// What an earlier analysis of the same store found, from its tables.
///
/// # Errors
/// A table is missing or of another version.
pub fn read(folder: &Path) -> Result<Analysis> {
    Ok(Analysis { onsets: table::read(&row::TABLE.path(folder))?, evidence: evidence::read(folder)? })
}

/// The lexical audit of every family that has a y.
///
/// # Errors
/// Resamples cannot be drawn.
pub fn audit(series: &Series) -> Result<Vec<LexicalAudit>> {
    let labelled =
        series.families.iter().filter(|family| CONTRASTED.contains(&family.label_family) || family.label_family == LabelFamily::Binding);
    let audits = labelled.collect::<Vec<_>>().par_iter().map(|family| series.audit(family)).collect::<Result<Vec<_>>>()?;
    Ok(audits.into_iter().flatten().collect())
}

/// Whether the audit found that words give the labels of a trace away.
pub fn leaks(audit: &[LexicalAudit], trace: &Trace) -> bool {
    // Content labels are polarities of words whatever the audit finds: they are a reference, not evidence.
    let leaky = |row: &LexicalAudit| {
        row.concept == trace.place.concept && trace.place.label_family == row.label_family.as_str() && row.status == Status::LexicalLeak
    };
    trace.place.label_family == LabelFamily::Content || audit.iter().any(leaky)
}
