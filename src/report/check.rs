//! What `check` prints: the plan of a run, what it will cost, what is wrong with its checkpoints, and the lexical audit.

use super::summary::{Text, number, span};
use super::verify;
use crate::checkpoint::hub::Part;
use crate::guard::sentence;
use crate::manifest::DeviceChoice;
use crate::model::config::DecoderConfig;
use crate::model::cost::Cost;
use crate::model::{Checkpoint, device};
use crate::prompt::forest::Forest;
use crate::prompt::item;
use crate::series::{audit, families};
use crate::table::Key;
use crate::walk::audit::Finding;
use crate::walk::job::{DictionaryCost, Job};
use crate::walk::sheets;
use anyhow::{Result, anyhow};
use indicatif::DecimalBytes;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// What `check` prints.
pub struct Plan {
    pub text: String,
    /// Checkpoints that cannot be walked as they are.
    pub problems: usize,
}

/// The plan of a run: checkpoints in order, what is asked of them and what that will cost, and what is wrong with them. `weights` reads and
/// hashes all of them for the integrity audit; `devices` are those that walk at once, none for the manifest's own.
///
/// # Errors
/// The lexical audit cannot be computed.
pub fn plan(job: &Job, weights: bool, devices: &[DeviceChoice]) -> Result<Plan> {
    let mut text = Text::new(&["checkpoint", "stage", "step", "architecture", "parameters", "layers", "store", "state"]);
    let mut problems = 0;
    let mut budget = Budget::default();
    let texts: Vec<Vec<i64>> = job.set.prompts.iter().flat_map(|prompt| prompt.texts()).collect();
    let forest = Forest::new(&texts);
    job.prepare(&job.entries().collect::<Vec<_>>())?;
    let (mut download, mut counted) = (0, BTreeSet::new());
    let mut costs = Costs::default();
    let (mut notes, mut unverified): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let (mut sweeps, mut depths) = (None, BTreeMap::new());
    let mut first: Option<DecoderConfig> = None;
    // The network with random weights comes last: it takes as long as the checkpoint that has been tried.
    for spec in job.manifest.checkpoints.iter().chain(&job.baseline) {
        let complete = job.is_complete(spec);
        let sources = std::iter::once((&spec.source, Part::Model)).chain(spec.adapters().map(|adapter| (adapter, Part::Adapter)));
        let missing = sources.into_iter().try_fold(0, |sum, (source, part)| -> Result<u64> {
            let missing = job.hub.missing(source, part)?;
            // A base under several adapters is downloaded once.
            if counted.insert(source.folder()?) && !complete {
                download += missing;
            }
            Ok(sum + missing)
        });
        let opened =
            missing.and_then(|missing| Ok((Checkpoint::config_ignoring(spec.source.folder()?, &job.manifest.model.ignore)?, missing)));
        let mut row = vec![spec.id.clone(), spec.stage.clone(), spec.step.map_or_else(|| "-".to_owned(), |step| step.to_string())];
        match opened {
            Ok(((architecture, config, _), missing)) => {
                first.get_or_insert_with(|| config.clone());
                let layers = job.manifest.model.layers.resolve(config.n_layers)?;
                if let Entry::Vacant(depth) = depths.entry(config.n_layers) {
                    let costs = job.sheet_costs(config.n_layers, config.d_model as usize)?;
                    let node_blocks: usize = costs.iter().map(|(_, cost)| cost.node_blocks).sum();
                    let walks = node_blocks as f64 / config.n_layers.max(1) as f64 / forest.len().max(1) as f64;
                    depth.insert((walks, costs.iter().map(|(_, cost)| cost.store_bytes).sum::<usize>()));
                    sweeps.get_or_insert((costs, config.n_layers));
                }
                // The network with random weights has no sheets.
                let (walks, sheets) = depths.get(&config.n_layers).copied().filter(|_| !spec.reinitialised).unwrap_or_default();
                let bytes = job.store_bytes(&config)? + sheets;
                let opened = if missing == 0 { job.open(spec).map(Some) } else { Ok(None) };
                // What is wrong with the block that is tried is wrong with this checkpoint alone.
                let (opened, cost) = match opened {
                    Ok(Some(checkpoint)) if !complete => match job.set.beyond(checkpoint.config.d_vocab) {
                        Some(beyond) => (Err(anyhow!("{beyond}")), None),
                        None => match costs.of(job, &checkpoint, &texts, forest.len()) {
                            Ok(cost) => (Ok(Some(checkpoint)), Some(cost)),
                            Err(error) => (Err(error), None),
                        },
                    },
                    Ok(None) if spec.adapter.is_none() => {
                        (job.set.beyond(config.d_vocab).map_or(Ok(None), |beyond| Err(anyhow!("{beyond}"))), None)
                    }
                    other => (other, None),
                };
                if !complete {
                    budget.add(bytes, cost, walks, spec.reinitialised);
                }
                let (parameters, state) = match opened {
                    Err(error) => {
                        problems += 1;
                        ("-".to_owned(), sentence(&error))
                    }
                    Ok(opened) => {
                        let is_new = |opened: &&Checkpoint| !spec.reinitialised && !verify::is_verified(opened);
                        unverified.extend(opened.as_ref().filter(is_new).map(|_| spec.id.clone()));
                        notes.extend(opened.iter().flat_map(|opened| &opened.notes).map(|note| format!("{}: {note}", spec.id)));
                        let parameters = opened.map_or_else(|| "-".to_owned(), |checkpoint| millions(checkpoint.weights.n_params()));
                        let state = if complete {
                            "complete".to_owned()
                        } else if missing > 0 && !spec.reinitialised {
                            format!("to download ({})", DecimalBytes(missing))
                        } else {
                            "to walk".to_owned()
                        };
                        (parameters, state)
                    }
                };
                row.extend([
                    architecture.model_type.to_owned(),
                    parameters,
                    format!("{} of {}", layers.len(), config.n_layers + 1),
                    DecimalBytes(bytes as u64).to_string(),
                    state,
                ]);
            }
            Err(error) => {
                problems += 1;
                row.push(sentence(&error));
            }
        }
        text.push(row);
    }
    let mut out = text.render();
    for line in &job.manifest.passed_over {
        let _ = writeln!(out, "\n{line}");
    }
    if download > 0 {
        let kept = if job.manifest.keep { "kept in the cache" } else { "at most two checkpoints at a time on disk" };
        let _ = writeln!(out, "\nto download: {}, {kept}", DecimalBytes(download));
    }
    let null = job.concepts.iter().filter(|concept| concept.null_bank).count();
    let _ = writeln!(
        out,
        "\n{} concepts and a null bank of {null}: {} items, {} tokens as {} nodes ({:.2} tokens per node) on {}\n",
        job.concepts.len() - null,
        job.set.items.len(),
        forest.prompt_tokens,
        forest.len(),
        forest.prompt_tokens as f64 / forest.len().max(1) as f64,
        device::name(job.device),
    );
    notes.iter().for_each(|note| _ = writeln!(out, "note: {note}"));
    if let Some(first) = unverified.first() {
        let others = match unverified.len() - 1 {
            0 => String::new(),
            n => format!(" and {n} others"),
        };
        let _ = writeln!(out, "Never held against transformers: {first}{others}; `selftrace verify SOURCE` does.\n");
    }
    out.push_str(if notes.is_empty() { "" } else { "\n" });
    out.push_str(&contexts(job, &forest));
    if let Some((costs, n_layers)) = &sweeps {
        costs.iter().for_each(|cost| out.push_str(&sweeping(cost, *n_layers, &budget, forest.len())));
    }
    out.push_str(&budget.render(devices));
    if let Some(config) = &first {
        match job.dictionary_cost(config.d_model as usize, config.n_layers) {
            Ok(cost) => out.push_str(&cost.map(|cost| dictionaries(&cost, &budget, forest.len())).unwrap_or_default()),
            Err(error) => {
                problems += 1;
                let _ = writeln!(out, "{error:#}\n");
            }
        }
    }
    if let Some(sentence) = job.lacks_room(budget.store_bytes as u64) {
        problems += 1;
        let _ = writeln!(out, "{sentence}\n");
    }
    if let Some(config) = &first
        && let Some(full) = job.in_full(config)?
    {
        let times = full.nodes as f64 / forest.len().max(1) as f64;
        let (items, nodes, bytes) = (full.items, full.nodes, DecimalBytes(full.store_bytes as u64));
        let _ =
            writeln!(out, "With profile = \"full\": {items} items, {nodes} nodes ({times:.1} times as many), {bytes} per checkpoint.\n");
    }
    out.push_str(&findings(&job.audit(weights)));
    let mut leaks = Text::new(&["lexical audit", "family", "baseline", "auroc", "95% interval", "status"]);
    for family in families(&job.set.items).iter().filter(|family| crate::measure::CONTRASTED.contains(&family.label_family)) {
        for row in audit(family, &job.set.items, job.manifest.analysis.bootstraps, job.manifest.run.seed)? {
            if !family.null_bank || row.status != "ok" {
                leaks.push(vec![
                    row.concept,
                    row.label_family,
                    row.baseline,
                    number(row.auroc.value, 3),
                    span(row.auroc),
                    row.status.to_string(),
                ]);
            }
        }
    }
    out.push_str(&leaks.render());
    Ok(Plan { text: out, problems })
}

/// What the integrity audit found, a line per finding; nothing where it found nothing.
pub fn findings(findings: &[(Key, Finding)]) -> String {
    if findings.is_empty() {
        return String::new();
    }
    let mut text = Text::new(&["integrity audit", "finding", "other", "excluded", "detail"]);
    for (key, finding) in findings {
        let other = finding.other.clone().unwrap_or_else(|| "-".to_owned());
        let excluded = if finding.excluded { "yes" } else { "" };
        text.push(vec![key.checkpoint.clone(), finding.kind.clone(), other, excluded.to_owned(), finding.detail.clone()]);
    }
    format!("{}\n", text.render())
}

/// What the contexts and formats cost beyond everything else; nothing where there are none.
fn contexts(job: &Job, forest: &Forest) -> String {
    let (asked, plain): (Vec<usize>, Vec<usize>) = (0..job.set.items.len()).partition(|&item| !job.set.items[item].is_plain());
    if asked.is_empty() {
        return String::new();
    }
    let rest = Forest::new(&plain.iter().flat_map(|&item| job.set.prompts[item].texts()).collect::<Vec<_>>());
    let contexts: BTreeSet<&str> = asked.iter().map(|&item| job.set.items[item].persona_id.as_str()).collect();
    let folded = asked.iter().any(|&item| job.set.items[item].system_in_user);
    let formats: BTreeSet<&str> = asked.iter().map(|&item| job.set.items[item].format_id.as_str()).collect();
    format!(
        "Contexts: {} of them and {} formats, {} of these items, {} of these tokens as {} of these nodes{}\n\n",
        contexts.iter().filter(|id| **id != item::DEFAULT).count(),
        formats.iter().filter(|id| **id != item::CHAT).count(),
        asked.len(),
        forest.prompt_tokens - rest.prompt_tokens,
        forest.len() - rest.len(),
        if folded { "; the template has no system role, so that they stand at the head of the user's turn" } else { "" },
    )
}

/// What dictionaries cost; their time is known once a model's has been tried on `nodes` nodes.
fn dictionaries(cost: &DictionaryCost, budget: &Budget, nodes: usize) -> String {
    let per_node = budget.seconds / (budget.tried * nodes).max(1) as f64;
    let streamed = per_node * (cost.layers * cost.checkpoints * cost.tokens) as f64;
    let time = if budget.tried == 0 { String::new() } else { format!(", {} to compute these tokens", duration(streamed)) };
    format!(
        "Dictionaries: {} fits over {} checkpoints, {} tokens each out of texts of {} tokens and {} held out: {:.1e} operations beside the \
         models'{time}; {} of memory beside a model's and {} in the run folder.\n\n",
        cost.fits,
        cost.checkpoints,
        cost.tokens - cost.held_out,
        cost.texts,
        cost.held_out,
        cost.operations,
        DecimalBytes(cost.memory_bytes),
        DecimalBytes(cost.disk_bytes),
    )
}

/// What a sweep costs beyond the walk, per checkpoint; its time is known once a model has been tried on `nodes` nodes.
fn sweeping((what, cost): &(&str, sheets::Cost), n_layers: usize, budget: &Budget, nodes: usize) -> String {
    let whole = cost.node_blocks as f64 / n_layers.max(1) as f64;
    let conditions = if cost.conditions > 0 { format!("{} conditions on ", cost.conditions) } else { String::new() };
    let generated = if cost.generated > 0 { format!("at most {} tokens written and ", cost.generated) } else { String::new() };
    let per_node = budget.seconds / (budget.tried * nodes).max(1) as f64;
    let time = if budget.tried == 0 { String::new() } else { format!(", {}", duration(whole * per_node)) };
    let bytes = if cost.store_bytes == 0 { String::new() } else { format!(" and {} in the store", DecimalBytes(cost.store_bytes as u64)) };
    format!(
        "{what}: {generated}{conditions}{} nodes, for each checkpoint as much as {whole:.0} nodes through all blocks{time}{bytes}\n\n",
        cost.nodes
    )
}

/// Estimates by kind of model: the steps of a series are one, and a block of it is tried once.
#[derive(Default)]
struct Costs(Vec<(DecoderConfig, u64, String, Cost)>);

impl Costs {
    fn of(&mut self, job: &Job, checkpoint: &Checkpoint, prompts: &[Vec<i64>], nodes: usize) -> Result<Cost> {
        let (n_params, dtype) = (checkpoint.weights.n_params(), checkpoint.weights.dtype());
        let same =
            |(config, n, kind, _): &&(DecoderConfig, u64, String, Cost)| *config == checkpoint.config && *n == n_params && *kind == dtype;
        if let Some((.., cost)) = self.0.iter().find(same) {
            return Ok(*cost);
        }
        let cost = job.cost(checkpoint, prompts, nodes)?;
        self.0.push((checkpoint.config.clone(), n_params, dtype, cost));
        Ok(cost)
    }
}

/// What is left to walk will cost about this.
#[derive(Default)]
struct Budget {
    checkpoints: usize,
    random_weights: bool,
    store_bytes: usize,
    memory_bytes: u64,
    /// Of the checkpoints whose weights are there to be tried.
    seconds: f64,
    tried: usize,
    /// Of interventions on these.
    intervening: f64,
}

impl Budget {
    /// Adds a checkpoint, on which interventions take as long as `walks` walks.
    fn add(&mut self, store_bytes: usize, cost: Option<Cost>, walks: f64, random_weights: bool) {
        self.checkpoints += usize::from(!random_weights);
        self.random_weights |= random_weights;
        self.store_bytes += store_bytes;
        if let Some(cost) = cost {
            self.tried += 1;
            self.memory_bytes = self.memory_bytes.max(cost.memory_bytes);
            self.seconds += cost.seconds;
            self.intervening += walks * cost.seconds;
        }
    }

    fn render(&self, devices: &[DeviceChoice]) -> String {
        let number = self.checkpoints + usize::from(self.random_weights);
        if number == 0 {
            return String::new();
        }
        let what = format!("To walk: {} checkpoints{}", self.checkpoints, if self.random_weights { " and random weights" } else { "" });
        let disk = DecimalBytes(self.store_bytes as u64);
        if self.tried == 0 {
            return format!("{what}, {disk} in the store; time and memory are known once weights are there.\n\n");
        }
        let all = number as f64 / self.tried as f64;
        let intervening =
            if self.intervening > 0.0 { format!(" and {} of interventions", duration(self.intervening * all)) } else { String::new() };
        // Workers on the CPU share its cores, a GPU is one more.
        let gpus = devices.iter().filter(|device| matches!(device, DeviceChoice::Cuda(_))).count().clamp(1, number);
        let place = if gpus > 1 { format!("{gpus} such devices") } else { "this device".to_owned() };
        let mut memory = format!("{} of memory", DecimalBytes(self.memory_bytes));
        let workers = devices.len().min(number);
        if workers > 1 {
            let _ = write!(memory, " each, {} for {workers} at once,", DecimalBytes(self.memory_bytes * workers as u64));
        }
        let free = free_memory().filter(|free| gpus == 1 && self.memory_bytes * workers.max(1) as u64 > *free);
        let warning =
            free.map_or_else(String::new, |free| format!("note: {} of memory are free now, which is less.\n\n", DecimalBytes(free)));
        format!(
            "{what}, about {} on {place} ({} each){intervening}, {memory} and {disk} in the store.\n\n{warning}",
            duration(self.seconds * all / gpus as f64),
            duration(self.seconds / self.tried as f64),
        )
    }
}

/// Memory that processes can have, in bytes (Linux).
fn free_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}

/// Seconds as people say them.
fn duration(seconds: f64) -> String {
    let whole = seconds.round() as u64;
    match whole {
        0..120 => format!("{seconds:.0} s"),
        120..7200 => format!("{} min", whole / 60),
        _ => format!("{:.1} h", seconds / 3600.0),
    }
}

fn millions(n: u64) -> String {
    format!("{:.1} M", n as f64 / 1e6)
}
