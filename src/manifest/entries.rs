//! The entries: `[[checkpoint]]` and `[[series]]`, in the order in which they are written.

use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Result, anyhow};

use super::checkpoint::CheckpointSpec;
use super::pattern::{EPOCH, PLACEHOLDERS, Pattern, STEP, TOKENS};
use super::series::{Listing, Series, folders_in};
use super::source::{self, Source};
use super::spanned::{Field, Section};
use super::{CHECKPOINT, NothingYet, SERIES, lineage};

/// All entries, resolved as far as the disk can tell.
#[derive(Debug, Default)]
pub(super) struct Entries {
    pub checkpoints: Vec<CheckpointSpec>,
    pub pending: Vec<Series>,
    /// Names beside those that fit a series, a line per series.
    pub passed_over: Vec<String>,
}

impl Entries {
    /// With `growing`, a series in a folder may be empty.
    pub fn read(top: &Section, folder: &Path, growing: bool) -> Result<Entries> {
        let mut sections = Vec::new();
        for (key, label) in [("checkpoint", CHECKPOINT), ("series", SERIES)] {
            let Some(field) = top.get(key) else { continue };
            if !field.is_list() {
                return Err(field.wrong(format!("{label} in double brackets, as there can be many")));
            }
            for element in field.list(&format!("at least one {label} table"))? {
                sections.push((label, element.section(label)?.known()?));
            }
        }
        sections.sort_by_key(|(_, section)| section.start);

        let mut entries = Entries::default();
        let mut parents = Vec::new();
        for (label, section) in &sections {
            if *label == SERIES {
                let series = read_series(section, folder, entries.checkpoints.len())?;
                match series.listing() {
                    Listing::Folder(listed) => match entries.expand(section, &series, &listed) {
                        Err(error) if growing && error.is::<NothingYet>() => {}
                        expanded => expanded?,
                    },
                    _ => entries.pending.push(series),
                }
            } else {
                let spec = read_checkpoint(section, folder)?;
                parents.extend(section.get("parent").map(|field| (entries.checkpoints.len(), field)));
                entries.push(section, spec)?;
            }
        }
        lineage::check(&entries.checkpoints, &|id| entries.knows(id), &parents)?;
        entries.refuse_nothing(top, &sections)?;
        Ok(entries)
    }

    /// The ids that are known.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.checkpoints.iter().map(|spec| spec.id.as_str())
    }

    /// Whether an id is there, or may be once the hub has been asked.
    pub fn knows(&self, id: &str) -> bool {
        self.ids().any(|known| known == id) || self.pending.iter().any(|series| series.may_contain(id))
    }

    fn expand(&mut self, section: &Section, series: &Series, listed: &Path) -> Result<()> {
        let names = series.names(&mut |below| {
            // An empty name would add a slash.
            let listed = if below.is_empty() { listed.to_owned() } else { listed.join(below) };
            folders_in(&listed)
                .or_else(|error| match error.kind() {
                    // A link that led to a folder.
                    ErrorKind::NotFound if !below.is_empty() => Ok(Vec::new()),
                    _ => Err(error),
                })
                .map_err(|error| {
                    let place = &series.pattern_place;
                    match error.kind() {
                        ErrorKind::NotFound => {
                            let listed = listed.display();
                            NothingYet(format!("{place}: found no folder {listed}, expected the folder that holds the checkpoints")).into()
                        }
                        _ => anyhow!("{place}: cannot list the folder {}: {error}", listed.display()),
                    }
                })
        })?;
        let (specs, passed_over) = series.expand(&names)?;
        self.passed_over.extend(series.passed_over(&passed_over));
        specs.into_iter().try_for_each(|spec| self.push(section, spec))
    }

    fn push(&mut self, section: &Section, spec: CheckpointSpec) -> Result<()> {
        if let Some(first) = self.checkpoints.iter().find(|other| other.id == spec.id) {
            let problem = format!("found {:?} again, first in line {}, expected every id once", spec.id, first.line);
            return Err(match section.get("id") {
                Some(field) => field.error(problem),
                None => section.error(format!("{problem}; give the series an id to begin its ids with")),
            });
        }
        self.checkpoints.push(CheckpointSpec { order: self.checkpoints.len(), ..spec });
        Ok(())
    }

    /// One checkpoint that is not there becomes a failed row; when none is there, nothing can start.
    fn refuse_nothing(&self, top: &Section, sections: &[(&str, Section)]) -> Result<()> {
        let Some((_, first)) = sections.first() else {
            return Err(top.error("found no entries, expected a [[checkpoint]] or [[series]] table"));
        };
        if self.pending.is_empty() && self.checkpoints.is_empty() {
            return Err(NothingYet(top.error("found no checkpoint in any series yet").to_string()).into());
        }
        let is_missing = |spec: &CheckpointSpec| spec.source.is_missing() || spec.adapters().any(Source::is_missing);
        if !self.pending.is_empty() || !self.checkpoints.iter().all(is_missing) {
            return Ok(());
        }
        let spec = &self.checkpoints[0];
        let (key, missing) = match &spec.adapter {
            None => ("source", &spec.source),
            Some(_) if spec.source.is_missing() => ("base", &spec.source),
            Some(adapter) => ("adapter", spec.adapters().find(|adapter| adapter.is_missing()).unwrap_or(adapter)),
        };
        let rest = if self.checkpoints.len() > 1 { ", nor that of any other entry" } else { "" };
        let problem = format!("found no folder {missing}{rest}, expected {}", source::EXPECTED);
        Err(NothingYet(first.need(key, source::EXPECTED)?.error(problem).to_string()).into())
    }
}

const ADAPTERS: &str = "an adapter, or a list of them in the order in which they were trained";

/// The model, the adapters over it, and the field that names whichever of the two changes.
struct Origin<'a> {
    source: Source,
    adapter: Option<Source>,
    beneath: Vec<Source>,
    /// The fields in which `{step}` may stand.
    fields: Vec<Field<'a>>,
}

impl<'a> Origin<'a> {
    /// `source`, or `base` with `adapter`; `revision` and `subfolder` say where in the source or,
    /// if there is one, in the adapter; of several adapters, in the last one.
    fn read(section: &Section<'a>, folder: &Path) -> Result<Origin<'a>> {
        let parse = |field: &Field| Source::parse(field.text(source::EXPECTED)?, folder).map_err(|error| field.error(error));
        let mut beneath = Vec::new();
        let (base, changing) = match section.get("adapter") {
            Some(adapter) => {
                if let Some(field) = section.get("source") {
                    return Err(field.error("found beside adapter, expected base for the model under it"));
                }
                let base = section.need("base", "the model under the adapter")?;
                if has_placeholder(base.text(source::EXPECTED)?) {
                    return Err(base.wrong("one model; the step belongs to the adapter"));
                }
                let mut adapters = if adapter.is_list() { adapter.list(ADAPTERS)? } else { vec![adapter.clone()] };
                let last = adapters.pop().unwrap_or(adapter);
                for field in &adapters {
                    if field.text(ADAPTERS)?.contains('{') {
                        return Err(field.wrong("one adapter; the step belongs to the last one"));
                    }
                    beneath.push(parse(field)?);
                }
                (Some(parse(&base)?), last)
            }
            None => {
                if let Some(field) = section.get("base") {
                    return Err(field.error("found without adapter, expected source for a whole model"));
                }
                (None, section.need("source", source::EXPECTED)?)
            }
        };
        let mut fields = vec![changing.clone()];
        let mut changed = parse(&changing)?;
        if let Some(field) = section.get("revision") {
            let name = field.text("a branch, tag or commit")?;
            changed = changed.at_revision(name).map_err(|error| field.error(error))?;
            fields.push(field);
        }
        if let Some(field) = section.get("subfolder") {
            let name = field.text("a relative folder")?;
            changed = changed.in_subfolder(name).map_err(|error| field.error(error))?;
            fields.push(field);
        }
        Ok(match base {
            Some(base) => Origin { source: base, adapter: Some(changed), beneath, fields },
            None => Origin { source: changed, adapter: None, beneath, fields },
        })
    }
}

fn read_checkpoint(section: &Section, folder: &Path) -> Result<CheckpointSpec> {
    let id = section.need("id", "a unique name, as in id = \"base\"")?.file_name()?.to_string();
    let origin = Origin::read(section, folder)?;
    for field in &origin.fields {
        if has_placeholder(field.text(source::EXPECTED)?) {
            return Err(field.wrong("one checkpoint; {step} stands for many and belongs in [[series]]"));
        }
    }
    let commit = section.get("commit").map(|field| read_commit(&field)).transpose()?;
    let integer = |key| section.get(key).map(|field| field.integer(0..=u64::MAX)).transpose();
    Ok(CheckpointSpec {
        id,
        source: origin.source,
        adapter: origin.adapter,
        beneath: origin.beneath,
        stage: read_stage(section)?,
        step: integer("step")?,
        tokens: integer("tokens")?,
        commit,
        parents: section.get("parent").map_or(Ok(Vec::new()), |field| lineage::read(&field))?,
        reference: section.get("reference").map_or(Ok(false), |field| field.boolean())?,
        reinitialised: false,
        order: 0,
        line: section.line(),
    })
}

fn read_series(section: &Section, folder: &Path, before: usize) -> Result<Series> {
    let origin = Origin::read(section, folder)?;
    let (field, pattern) = match section.get("commits") {
        Some(field) => (field.clone(), read_titles(&field, &origin)?),
        None => read_pattern(&origin)?,
    };
    let stage = read_stage(section)?;
    let steps = section.get("steps");
    if let Some(field) = steps.as_ref().filter(|_| !pattern.has(STEP)) {
        return Err(field.error(format!("found beside a pattern without {STEP}, which steps are picked by")));
    }
    let wanted = steps.as_ref().map(|field| {
        let each = |step: &Field| step.integer(0..=u64::MAX);
        field.distinct("a list of steps, as in [100, 200]", each)
    });
    Ok(Series {
        id: section.get("id").map_or(Ok(stage.clone()), |field| field.file_name().map(Into::into))?,
        stage,
        commits: section.get("commits").is_some(),
        source: origin.source,
        adapter: origin.adapter,
        beneath: origin.beneath,
        tokens_per_step: section.get("tokens_per_step").map(|field| read_tokens_per_step(&field, &pattern)).transpose()?,
        steps: wanted.transpose()?,
        pattern,
        before,
        line: section.line(),
        pattern_place: field.place(),
        steps_place: steps.map(|field| field.place()).unwrap_or_default(),
    })
}

/// The pattern in one of the fields that say where a series is.
fn read_pattern<'a>(origin: &Origin<'a>) -> Result<(Field<'a>, Pattern)> {
    let mut with = Vec::new();
    let mut counts = [0; PLACEHOLDERS.len()];
    for field in &origin.fields {
        let text = field.text(source::EXPECTED)?;
        PLACEHOLDERS.iter().zip(&mut counts).for_each(|(mark, count)| *count += text.matches(mark).count());
        with.extend(has_placeholder(text).then_some(field));
    }
    let several = PLACEHOLDERS.iter().zip(counts).find(|(_, count)| *count > 1);
    let (&[field], None) = (&with[..], several) else {
        let (mark, count) = match several {
            Some((mark, count)) => (*mark, count),
            None => (STEP, with.len()),
        };
        return Err(origin.fields[0].error(format!(
            "found {mark} {count} times, expected once, in {}, as in runs/sft/checkpoint-{STEP}",
            if origin.adapter.is_some() { "adapter, revision or subfolder" } else { "source, revision or subfolder" },
        )));
    };
    let varying = origin.adapter.as_ref().unwrap_or(&origin.source).varying();
    let pattern = varying.as_deref().and_then(Pattern::parse);
    let expected = format!("{STEP}, {TOKENS} or {EPOCH} as the only braces in the name");
    Ok((field.clone(), pattern.ok_or_else(|| field.wrong(expected))?))
}

/// The pattern of commits' titles, over one branch of a hub repository.
fn read_titles(field: &Field, origin: &Origin) -> Result<Pattern> {
    const EXPECTED: &str = "the title of a commit with {step} in it, as in \"Training in progress, step {step}\"";
    for other in &origin.fields {
        if has_placeholder(other.text(source::EXPECTED)?) {
            return Err(other.wrong("no placeholder beside commits, whose titles have it"));
        }
    }
    let varying = origin.adapter.as_ref().unwrap_or(&origin.source);
    if !varying.is_hub() {
        return Err(field.error(format!("found beside {varying}, expected a hub repository, whose commits are listed")));
    }
    Pattern::parse(field.text(EXPECTED)?).ok_or_else(|| field.wrong(EXPECTED))
}

fn read_tokens_per_step(field: &Field, pattern: &Pattern) -> Result<u64> {
    if pattern.has(TOKENS) || !pattern.has(STEP) {
        return Err(field.error(format!("found beside a pattern that has {TOKENS} or no {STEP}, expected one of the two")));
    }
    field.integer(1..=u64::MAX)
}

fn has_placeholder(text: &str) -> bool {
    PLACEHOLDERS.iter().any(|mark| text.contains(mark))
}

fn read_stage(section: &Section) -> Result<String> {
    Ok(section.need("stage", "the training stage, as in stage = \"sft\"")?.file_name()?.into())
}

fn read_commit(field: &Field) -> Result<String> {
    const EXPECTED: &str = "a commit, 7 to 64 hexadecimal digits";
    let commit = field.text(EXPECTED)?;
    let is_hash = (7..=64).contains(&commit.len()) && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hash { Ok(commit.into()) } else { Err(field.wrong(EXPECTED)) }
}
