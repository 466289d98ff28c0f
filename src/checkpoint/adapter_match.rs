//! Which tensors of a base an adapter's tensors belong to, and what of them is missing.
//!
//! PEFT names modules as they are in memory; files name tensors as they were saved, so both go by the family's names. Its rules
//! of what is targeted are asked with its own names.

use super::adapter_config::{FILE, LoraConfig, REMEDY};
use super::adapter_experts::{EXPERTS, Mixture, OneExpert};
use super::adapter_keys::{Factor, Key, parse};
use super::names::{Layout, is_beside_text};
use super::site::{Product, Site};
use super::tensors::Tensors;
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};

/// Modules that store `[d_in, d_out]` (`Conv1D` of GPT-2). PEFT goes by the class and corrects `fan_in_fan_out` when it is wrong.
const CONV1D: &[&str] = &["c_attn", "c_proj", "c_fc", "q_attn"];
/// What an adapter changes, by the family's names.
#[derive(Default)]
pub struct Matched {
    pub sites: BTreeMap<String, Site>,
    /// Of the unembedding of a tied model, which has no tensor of its own.
    pub head: Option<Site>,
    /// The number of tokens, where the adapter has an embedding of its own.
    pub d_vocab: Option<i64>,
}

/// The factors of one module or parameter.
#[derive(Default)]
struct Factors {
    a: Option<String>,
    b: Option<String>,
    bias: Option<String>,
    embedding: bool,
}

/// A module's name in the model that was trained, and the family's.
struct Module {
    theirs: String,
    ours: String,
}

/// Matches the tensors of an adapter with those of its base.
///
/// # Errors
/// One sentence that names the tensor or key: see [`super::adapter::Adapter::open`].
pub fn find(config: &LoraConfig, tensors: &Tensors, base: &Tensors, tied: bool, d_vocab: i64) -> Result<Matched> {
    let (layout, place) = base.layout().context("the base's tensors have not been arranged")?;
    let layout = *layout;
    let mut matching = Matching {
        config,
        tensors,
        base,
        layout,
        place,
        tied,
        d_vocab,
        found: Matched::default(),
        covered: BTreeSet::new(),
        backbone: None,
    };
    matching.run()?;
    Ok(matching.found)
}

struct Matching<'m> {
    config: &'m LoraConfig,
    tensors: &'m Tensors,
    base: &'m Tensors,
    layout: Layout,
    /// Where the backbone stands in the base's files.
    place: &'m str,
    tied: bool,
    d_vocab: i64,
    found: Matched,
    /// Tensors of the base that have factors.
    covered: BTreeSet<String>,
    /// Where the backbone stood in the model that was trained.
    backbone: Option<String>,
}

impl Matching<'_> {
    fn run(&mut self) -> Result<()> {
        let mut modules: BTreeMap<(String, usize), Factors> = BTreeMap::new();
        let (mut whole, mut rows) = (Vec::new(), Vec::new());
        for key in self.tensors.names() {
            match parse(key) {
                Some(Key::Whole(name)) => whole.push((key.to_owned(), name)),
                Some(Key::Rows(module)) => rows.push((key.to_owned(), module)),
                Some(Key::Original) => {}
                Some(Key::Factor { module, factor, embedding, depth }) => {
                    let factors = modules.entry((module, depth)).or_default();
                    factors.embedding |= embedding;
                    let slot = match factor {
                        Factor::A => &mut factors.a,
                        Factor::B => &mut factors.b,
                        Factor::Bias => &mut factors.bias,
                    };
                    if let Some(first) = slot.replace(key.to_owned()) {
                        bail!("tensors {first} and {key} are the same factor of one module; expected one adapter in the file");
                    }
                }
                None => bail!("tensor {key} is of a kind that is not supported; {REMEDY}"),
            }
        }
        // Those of PEFT's wrapper come after the plain ones that it prefers.
        whole.sort_by_key(|(key, _)| key.contains(".modules_to_save."));
        for (key, name) in &whole {
            self.add_whole(key, name)?;
        }
        self.settle_vocabulary()?;
        for (key, module) in &rows {
            self.add_rows(key, module)?;
        }
        let asked = self.config.token_rows.is_empty() || !rows.is_empty();
        ensure!(asked, "{FILE} replaces tokens (trainable_token_indices), the file has no rows of them; was it saved completely?");
        self.settle_head();
        for ((module, depth), factors) in modules {
            self.add_factors(module, depth, factors)?;
        }
        // Of heads that nothing here reads PEFT names all that a classifier may have: `classifier` and `score`.
        for module in self.config.modules_to_save.iter().filter(|module| !is_beside_text(module)) {
            let saved = whole.iter().any(|(_, name)| name.split('.').any(|part| part == module) || name.contains(module.as_str()));
            ensure!(saved, "{FILE} names {module} in modules_to_save, the file has no tensor of it; was it saved completely?");
        }
        self.refuse_missing()
    }

    /// The module or tensor that is meant; `None` for parts of a multimodal model that texts do not pass.
    fn known(&mut self, key: &str, name: &str) -> Result<Option<Module>> {
        if let Some((place, ours)) = self.layout.anywhere(self.place, name) {
            if ours.starts_with(self.layout.backbone) {
                self.backbone.get_or_insert_with(|| place.to_owned());
            }
            return Ok(Some(Module { theirs: name.to_owned(), ours }));
        }
        if is_beside_text(name) {
            return Ok(None);
        }
        bail!("tensor {key} fits no tensor of the base {} (looked for {name}); is this its base?", self.base.folder().display())
    }

    fn is_head(&self, module: &str) -> bool {
        module == self.layout.head
    }

    /// Whether a tensor of the base has as many rows as there are tokens.
    fn is_vocabulary(&self, name: &str) -> bool {
        name == self.layout.embedding() || name == self.layout.unembedding()
    }

    fn add_whole(&mut self, key: &str, name: &str) -> Result<()> {
        let Some(Module { ours, .. }) = self.known(key, name)? else { return Ok(()) };
        let site = if self.tied && ours == self.layout.unembedding() {
            self.found.head.get_or_insert_default()
        } else {
            let (found, given) = (self.shape(key, &ours)?, self.tensors.shape(key).unwrap_or_default());
            // A vocabulary may be another one; that it is the same in both ends is checked afterwards.
            let is_resized = self.is_vocabulary(&ours) && found.len() == 2 && given.len() == 2 && found[1] == given[1];
            ensure!(is_resized || found == given, "{}", self.misfit(key, given, &ours, &found));
            self.found.sites.entry(ours).or_default()
        };
        if site.whole.is_none() {
            site.whole = Some(key.to_owned());
        } else {
            // The same module once more, as PEFT's wrapper has it.
            ensure!(key.contains(".modules_to_save."), "tensor {key} and another one both change {name}; {REMEDY}");
        }
        Ok(())
    }

    /// The shape of the base's tensor that is meant.
    fn shape(&self, key: &str, name: &str) -> Result<Vec<i64>> {
        let folder = self.base.folder().display();
        let missing = || format!("tensor {key} fits no tensor of the base {folder} (looked for {name}); is this its base?");
        self.base.shape(name).map(<[i64]>::to_vec).with_context(missing)
    }

    fn misfit(&self, key: &str, given: &[i64], name: &str, found: &[i64]) -> String {
        let folder = self.base.folder().display();
        format!("tensor {key} is for a tensor of shape {given:?}, {name} of the base {folder} has {found:?}; is this its base?")
    }

    /// An adapter over a vocabulary that was resized brings both ends of the model.
    fn settle_vocabulary(&mut self) -> Result<()> {
        let rows = |site: Option<&Site>| Some(self.tensors.shape(site?.whole.as_ref()?)?[0]);
        let embedding = rows(self.found.sites.get(&self.layout.embedding()));
        let own = if self.tied { self.found.head.as_ref() } else { self.found.sites.get(&self.layout.unembedding()) };
        let has_head = !self.tied && self.base.contains(&self.layout.unembedding());
        let head = rows(own).or(has_head.then_some(self.d_vocab));
        let d_vocab = embedding.unwrap_or(self.d_vocab);
        ensure!(
            head.is_none_or(|head| head == d_vocab),
            "the embedding would have {d_vocab} rows and the unembedding {}, expected the same of both; was the adapter saved completely?",
            head.unwrap_or_default()
        );
        self.found.d_vocab = embedding;
        Ok(())
    }

    fn add_rows(&mut self, key: &str, module: &str) -> Result<()> {
        let Some(Module { theirs, ours }) = self.known(key, module)? else { return Ok(()) };
        // That of a tied unembedding is the embedding's once more, which PEFT writes where a vocabulary was resized.
        if self.tied && self.is_head(&ours) && self.config.rows(&theirs).is_none() {
            return Ok(());
        }
        let Some(rows) = self.config.rows(&theirs) else {
            bail!("tensor {key} belongs to no module that trainable_token_indices of {FILE} names; PEFT would leave it out");
        };
        let name = format!("{ours}.weight");
        let expected = [rows.len() as i64, self.shape_with_tokens(key, &name)?[1]];
        let given = self.tensors.shape(key).unwrap_or_default();
        ensure!(given == expected, "tensor {key} has shape {given:?}, expected {expected:?} for the {} tokens of {FILE}", rows.len());
        let tokens = self.found.d_vocab.unwrap_or(self.d_vocab);
        let outside = rows.iter().find(|row| **row >= tokens);
        ensure!(outside.is_none(), "{FILE} replaces token {}, the model has {tokens}", outside.unwrap_or(&0));
        let site = if self.tied && self.is_head(&ours) {
            self.found.head.get_or_insert_default()
        } else {
            self.found.sites.entry(name).or_default()
        };
        site.rows = Some((key.to_owned(), rows.to_vec()));
        Ok(())
    }

    /// The shape that a tensor of the base has with this adapter's vocabulary.
    fn shape_with_tokens(&self, key: &str, name: &str) -> Result<Vec<i64>> {
        let is_tied_head = self.tied && name == self.layout.unembedding();
        let embedding = self.layout.embedding();
        let mut shape = self.shape(key, if is_tied_head { &embedding } else { name })?;
        if self.is_vocabulary(name) {
            shape[0] = self.found.d_vocab.unwrap_or(self.d_vocab);
        }
        Ok(shape)
    }

    /// In a tied model embedding and unembedding are two modules with one parameter. What PEFT stores of the parameter itself
    /// (a resized vocabulary, what low-rank factors are over) is both's; rows of tokens follow; what it keeps beside the parameter
    /// (`modules_to_save`) does not, unless it was asked to.
    fn settle_head(&mut self) {
        if !self.tied {
            return;
        }
        let name = self.layout.embedding();
        let module = name.trim_end_matches(".weight");
        let kept = self.config.modules_to_save.iter().any(|saved| module.ends_with(saved.as_str()));
        if let Some(site) = self.found.sites.get(&name) {
            let head = self.found.head.get_or_insert_default();
            if head.whole.is_none() && (!kept || self.config.ensure_weight_tying) {
                head.whole.clone_from(&site.whole);
            }
            if head.rows.is_none() {
                head.rows.clone_from(&site.rows);
            }
        }
        self.found.head = self.found.head.take().filter(|head| head.whole.is_some() || head.rows.is_some());
    }

    fn add_factors(&mut self, module: String, depth: usize, factors: Factors) -> Result<()> {
        let (Some(a), Some(b)) = (factors.a, factors.b) else {
            bail!("module {module} has only one of the factors A and B");
        };
        let Some(module) = self.known(&a, &module)? else { return Ok(()) };
        let ([rank_a, d_in], [d_out, rank_b]) = (self.matrix(&a)?, self.matrix(&b)?);
        ensure!(rank_a == rank_b, "tensors {a} and {b} have ranks {rank_a} and {rank_b}, expected the same");
        let weight = format!("{}.weight", module.ours);
        let tied_head = self.tied && self.is_head(&module.ours);
        if !tied_head && !self.base.contains(&weight) {
            return self.add_experts(&module, depth, a, b);
        }
        let embedding = self.layout.embedding();
        if tied_head && self.config.ensure_weight_tying && self.config.targets(embedding.trim_end_matches(".weight"))? == Some(true) {
            return Ok(()); // The embedding's own, which PEFT stores once more under the head's name.
        }
        ensure!(depth == 0, "tensor {a} is inside {depth} wrappers of one module, expected one; {REMEDY}");
        let parameter = format!("{}.weight", module.theirs);
        let asked = if self.config.targets_parameter(&parameter) { &parameter } else { &module.theirs };
        let is_target = *asked == parameter || self.config.targets(asked)? != Some(false);
        ensure!(is_target, "tensor {a} belongs to no module that {FILE} targets; PEFT would leave it out");
        let (rank, scale) = (self.config.rank(asked)?, self.config.scale(asked)?);
        ensure!(rank_a == rank, "tensor {a} has rank {rank_a}, {FILE} says {rank} (r, rank_pattern) for {asked}");
        let transposed = factors.embedding || CONV1D.contains(&last(&module.ours));
        let product = Product { a: a.clone(), b, rank, scale, transposed, expert: None, rows: None, into: None };
        let given = if transposed { [d_in, d_out] } else { [d_out, d_in] };
        let found = self.shape_with_tokens(&a, &weight)?;
        ensure!(found == given, "{}", self.misfit(&a, &given, &weight, &found));
        if tied_head {
            self.found.head.get_or_insert_default().products.push(product);
        } else {
            self.covered.insert(weight.clone());
            let site = self.found.sites.entry(weight.clone()).or_default();
            ensure!(site.products.is_empty(), "tensor {a} and another one both change {weight}; expected one adapter in the file");
            site.products.push(product.clone());
            if self.tied && self.config.ensure_weight_tying && weight == embedding {
                self.found.head.get_or_insert_default().products.push(product);
            }
        }
        if let Some(key) = factors.bias {
            let name = format!("{}.bias", module.ours);
            ensure!(self.base.contains(&name), "tensor {key} changes the bias of {}, which has none in the base; {REMEDY}", module.ours);
            let (found, given) = (self.shape(&key, &name)?, self.tensors.shape(&key).unwrap_or_default());
            ensure!(found == given, "{}", self.misfit(&key, given, &name, &found));
            self.found.sites.entry(name).or_default().bias = Some((key, scale));
        }
        Ok(())
    }

    fn matrix(&self, name: &str) -> Result<[i64; 2]> {
        let found = self.tensors.shape(name).unwrap_or_default();
        let why = || format!("tensor {name} has shape {found:?}, expected two dimensions; was it gathered before it was saved?");
        <[i64; 2]>::try_from(found).ok().with_context(why)
    }

    /// Factors of a mixture's experts: of the parameters that transformers 5 keeps them in, or of one expert's module.
    fn add_experts(&mut self, module: &Module, depth: usize, a: String, b: String) -> Result<()> {
        if let Some(one) = OneExpert::find(self.base, &module.ours) {
            return self.add_one_expert(module, &one, a, b);
        }
        let Some(mixture) = Mixture::find(self.base, &module.ours) else {
            self.shape(&a, &format!("{}.weight", module.ours))?;
            bail!("tensor {a} fits no matrix of the base; {REMEDY}");
        };
        // Wrappers are nested in the order of the parameters; the last one is outside.
        let targets = |name: &&str| self.config.targets_parameter(&format!("{}.{name}", module.theirs));
        let wrapped: Vec<&str> = EXPERTS.iter().map(|(name, _)| *name).filter(targets).collect();
        let Some(name) = wrapped.len().checked_sub(depth + 1).map(|place| wrapped[place]) else {
            bail!("tensor {a} belongs to no parameter that target_parameters of {FILE} names; PEFT would leave it out");
        };
        let asked = format!("{}.{name}", module.theirs);
        let (rank, scale) = (self.config.rank(&asked)?, self.config.scale(&asked)?);
        let ([height, width], n) = (mixture.shape(name)?, mixture.n);
        let (found, expected) = ((self.matrix(&a)?, self.matrix(&b)?), ([rank * n, width], [height, rank * n]));
        ensure!(
            found == expected,
            "tensors {a} and {b} have shapes {:?} and {:?}, expected {:?} and {:?} for {n} experts at rank {rank} ({FILE})",
            found.0,
            found.1,
            expected.0,
            expected.1
        );
        self.covered.insert(format!("{}.{name}", module.ours));
        let all = Product { a, b, rank, scale, transposed: false, expert: None, rows: None, into: None };
        for (tensor, product) in mixture.products(name, &all)? {
            self.found.sites.entry(tensor).or_default().products.push(product);
        }
        Ok(())
    }

    /// Factors of one expert's module, over a base that keeps the experts in stacks.
    fn add_one_expert(&mut self, module: &Module, one: &OneExpert, a: String, b: String) -> Result<()> {
        let asked = &module.theirs;
        ensure!(self.config.targets(asked)? != Some(false), "tensor {a} belongs to no module that {FILE} targets; PEFT would leave it out");
        let (rank, scale) = (self.config.rank(asked)?, self.config.scale(asked)?);
        let ([rank_a, d_in], [d_out, _]) = (self.matrix(&a)?, self.matrix(&b)?);
        ensure!(rank_a == rank, "tensor {a} has rank {rank_a}, {FILE} says {rank} (r, rank_pattern) for {asked}");
        ensure!([d_out, d_in] == one.shape, "{}", self.misfit(&a, &[d_out, d_in], &one.stack, &one.shape));
        let into = Some((one.expert, one.row));
        let product = Product { a, b, rank, scale, transposed: false, expert: None, rows: None, into };
        self.found.sites.entry(one.stack.clone()).or_default().products.push(product);
        Ok(())
    }

    /// Everything that is targeted and read has to have factors.
    fn refuse_missing(&self) -> Result<()> {
        let theirs = |name: &str| {
            let rest = name.strip_prefix(self.layout.backbone).unwrap_or(name);
            match self.backbone.as_deref() {
                Some("") => rest.trim_start_matches('.').to_owned(),
                Some(place) if rest.len() < name.len() => format!("{place}{rest}"),
                _ => name.to_owned(),
            }
        };
        let complain = |name: &str| format!("{FILE} targets {name}, the file has no factors of it; was it saved completely?");
        let mut mixtures = BTreeSet::new();
        for name in self.base.names().filter(|name| self.layout.block_of(name).is_some() || self.is_vocabulary(name)) {
            if let Some((before, _)) = name.split_once(".experts.") {
                mixtures.insert(format!("{before}.experts"));
                continue;
            }
            let Some(module) = name.strip_suffix(".weight") else { continue };
            let is_matrix = self.base.shape(name).is_some_and(|shape| shape.len() == 2);
            // Classes are Python's to know: a router is no linear layer in some versions, and a tied head has no tensor of its own.
            let can_tell = is_matrix && !self.is_head(module) && !module.ends_with(".mlp.gate");
            let targeted =
                self.config.targets_parameter(&theirs(name)) || (can_tell && self.config.targets(&theirs(module))? == Some(true));
            ensure!(!targeted || self.covered.contains(name), complain(name));
        }
        for mixture in mixtures {
            for (stack, _) in EXPERTS {
                let name = format!("{mixture}.{stack}");
                let missing = self.config.targets_parameter(&theirs(&name)) && !self.covered.contains(&name);
                ensure!(!missing, complain(&name));
            }
        }
        Ok(())
    }
}

fn last(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}
