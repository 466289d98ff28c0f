//! A PEFT LoRA adapter: which tensors of its base it changes, and how.
//!
//! Nothing is merged when it is opened. Every tensor of the adapter is matched with one of the base by name, and shapes, ranks
//! and targets are checked against headers; whatever is left over is an error that names it. A change is computed when the
//! tensor that it belongs to is read: `W + scale * B A` in f32, then cast. Factors in half precision are cast up first, and W of a base in
//! half precision too, so that there is one rounding, to what is computed in. PEFT does the same (`autocast_adapter_dtype`, `merge`).

use super::adapter_config::{FILE, LoraConfig, REMEDY};
use super::adapter_keys::{Factor, Key, parse};
use super::tensors::{Rows, Tensors, norm};
use anyhow::{Context, Result, bail, ensure};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tch::{Device, Kind, Tensor};

const WEIGHTS: &str = "adapter_model.safetensors";
/// Modules that store `[d_in, d_out]` (`Conv1D` of GPT-2). PEFT goes by the class and corrects `fan_in_fan_out` when it is wrong.
const CONV1D: &[&str] = &["c_attn", "c_proj", "c_fc", "q_attn"];
/// What unembeddings are called.
const HEADS: &[&str] = &["lm_head", "embed_out"];
/// What else comes after the last block.
const ENDS: &[&str] = &["norm", "ln_f", "final_layer_norm"];

/// An opened adapter over the tensors of one base.
pub struct Adapter {
    tensors: Tensors,
    /// By the base's name on disk.
    changes: BTreeMap<String, Change>,
    /// Of the unembedding of a tied model, which has no tensor of its own.
    head: Option<Change>,
    tied: bool,
    /// With `tied`: the unembedding follows the embedding.
    follows: bool,
}

/// What happens to one tensor of the base. Names are the adapter's.
enum Change {
    /// `W + scale * B A`, or with `transposed` its transpose, for `a: [r, d_in]` and `b: [d_out, r]`. `over` is W where the adapter has its own.
    LowRank { a: String, b: String, rank: i64, scale: f64, transposed: bool, over: Option<String> },
    /// `bias + scale * b`.
    Bias { b: String, scale: f64 },
    /// A tensor that was saved whole.
    Whole(String),
}

/// The factors of one module.
#[derive(Default)]
struct Factors {
    a: Option<String>,
    b: Option<String>,
    bias: Option<String>,
    embedding: bool,
}

impl Adapter {
    /// Opens an adapter over `base`. `tied` says that the model's unembedding is its embedding.
    ///
    /// # Errors
    /// One sentence that names file and tensor or key: no adapter, an unsupported option (see [`LoraConfig::read`]), a tensor
    /// that fits none of the base, other shapes or ranks, a target without tensors or tensors without a target.
    pub fn open(folder: &Path, base: &Tensors, tied: bool) -> Result<Self> {
        ensure!(folder.is_dir(), "{}: no such folder", folder.display());
        let config = LoraConfig::read(folder)?;
        if !folder.join(WEIGHTS).is_file() {
            let pickled = folder.join("adapter_model.bin").is_file();
            let found =
                if pickled { "found adapter_model.bin, a pickle, which is never loaded; save it with safe_serialization=True" } else { "" };
            bail!("{}: no {WEIGHTS}; {found}", folder.display());
        }
        let tensors = Tensors::open_files(folder, vec![WEIGHTS.to_owned()])?;
        let mut adapter = Self { changes: BTreeMap::new(), head: None, tied, follows: tied && config.ensure_weight_tying, tensors };
        adapter.match_tensors(&config, base).with_context(|| folder.join(WEIGHTS).display().to_string())?;
        Ok(adapter)
    }

    fn match_tensors(&mut self, config: &LoraConfig, base: &Tensors) -> Result<()> {
        let mut modules: BTreeMap<String, Factors> = BTreeMap::new();
        let mut whole = Vec::new();
        for key in self.tensors.names() {
            match parse(key) {
                Some(Key::Whole(name)) => whole.push((key.to_owned(), name)),
                Some(Key::Factor { module, factor, embedding }) => {
                    let factors = modules.entry(module).or_default();
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
        let mut covered = BTreeSet::new();
        for (module, factors) in modules {
            covered.insert(self.add_factors(config, base, &module, factors)?);
        }
        for (key, name) in &whole {
            self.add_whole(base, key, name)?;
        }
        for module in &config.modules_to_save {
            let saved = whole.iter().any(|(_, name)| name.split('.').any(|part| part == module) || name.contains(module.as_str()));
            ensure!(saved, "{FILE} names {module} in modules_to_save, the file has no tensor of it; was it saved completely?");
        }
        let missing = |name: &str| -> Result<bool> {
            let Some(module) = name.strip_suffix(".weight") else { return Ok(false) };
            // Classes are Python's to know: experts are one parameter in some versions, and a tied head has no tensor of its own.
            let matrix = base.shape(name).is_some_and(|shape| shape.len() == 2) && !name.contains(".experts.") && !is_one_of(HEADS, module);
            Ok(matrix && !covered.contains(name) && config.targets(module)? == Some(true))
        };
        for name in base.names() {
            ensure!(!missing(name)?, "{FILE} targets {name}, the file has no factors of it; was it saved completely?");
        }
        Ok(())
    }

    /// Returns the name of the base's tensor.
    fn add_factors(&mut self, config: &LoraConfig, base: &Tensors, module: &str, factors: Factors) -> Result<String> {
        let (Some(a), Some(b)) = (factors.a, factors.b) else {
            bail!("module {module} has only one of the factors A and B");
        };
        ensure!(config.targets(module)? != Some(false), "tensor {a} belongs to no module that {FILE} targets; PEFT would leave it out");
        let (rank, scale) = (config.rank(module)?, config.scale(module)?);
        let transposed = factors.embedding || is_one_of(CONV1D, module);
        let matrix = |name: &str| match self.tensors.shape(name) {
            Some(&[rows, columns]) => Ok([rows, columns]),
            found => bail!(
                "tensor {name} has shape {:?}, expected two dimensions; was it gathered before it was saved?",
                found.unwrap_or_default()
            ),
        };
        let ([rank_a, d_in], [d_out, rank_b]) = (matrix(&a)?, matrix(&b)?);
        ensure!(rank_a == rank_b, "tensors {a} and {b} have ranks {rank_a} and {rank_b}, expected the same");
        ensure!(rank_a == rank, "tensor {a} has rank {rank_a}, {FILE} says {rank} (r, rank_pattern) for {module}");
        let shape = if transposed { [d_in, d_out] } else { [d_out, d_in] };
        let change = Change::LowRank { a: a.clone(), b, rank, scale, transposed, over: None };
        let name = format!("{module}.weight");
        if self.tied && is_one_of(HEADS, module) {
            self.head = Some(change);
            return Ok(name);
        }
        let place = self.place(base, &a, &name, &shape)?;
        if let Some(bias) = factors.bias {
            let size = self.tensors.shape(&bias).unwrap_or_default().to_vec();
            let name = format!("{module}.bias");
            ensure!(find(base, &name).is_some(), "tensor {bias} changes the bias of {module}, which has none in the base; {REMEDY}");
            let place = self.place(base, &bias, &name, &size)?;
            self.changes.insert(place, Change::Bias { b: bias, scale });
        }
        let first = self.changes.insert(place.clone(), change);
        ensure!(first.is_none(), "tensor {a} and another one both change {place}; expected one adapter in the file");
        Ok(place)
    }

    fn add_whole(&mut self, base: &Tensors, key: &str, name: &str) -> Result<()> {
        let module = name.rsplit_once('.').map_or(name, |(module, _)| module);
        let head = self.tied && is_one_of(HEADS, module);
        let place = if head { None } else { Some(self.place(base, key, name, self.tensors.shape(key).unwrap_or_default())?) };
        let change = match &place {
            Some(place) => self.changes.get_mut(place),
            None => self.head.as_mut(),
        };
        match (change, place) {
            // An embedding that has factors is stored beside them.
            (Some(Change::LowRank { over, .. }), _) if over.is_none() => *over = Some(key.to_owned()),
            (Some(Change::LowRank { .. } | Change::Bias { .. } | Change::Whole(_)), _) => {
                bail!("tensor {key} and another one both change {name}; {REMEDY}")
            }
            (None, Some(place)) => _ = self.changes.insert(place, Change::Whole(key.to_owned())),
            (None, None) => self.head = Some(Change::Whole(key.to_owned())),
        }
        Ok(())
    }

    /// The base's tensor `name`, which must have this shape.
    fn place(&self, base: &Tensors, key: &str, name: &str, shape: &[i64]) -> Result<String> {
        let Some(place) = find(base, name) else {
            bail!("tensor {key} fits no tensor of the base {} (looked for {name}); is this its base?", base.folder().display());
        };
        let found = base.shape(place).unwrap_or_default();
        ensure!(
            found == shape,
            "tensor {key} is for a tensor of shape {shape:?}, {place} of the base {} has {found:?}; is this its base?",
            base.folder().display()
        );
        Ok(place.to_owned())
    }

    /// The adapter's folder.
    pub fn folder(&self) -> &Path {
        self.tensors.folder()
    }

    /// Whether a tensor of the base, by its name on disk, is changed.
    pub fn changes(&self, name: &str) -> bool {
        self.changes.contains_key(name)
    }

    /// Reads a whole tensor of the base, by its name on disk, into `target` with what the adapter changes in it. As
    /// [`Tensors::read`]; where `target` is not f32, one f32 copy of the tensor is made.
    ///
    /// # Errors
    /// As [`Tensors::read`], of the base and of the adapter.
    pub fn read(&self, base: &Tensors, name: &str, shape: &[i64], target: &Tensor) -> Result<()> {
        let mut target = target.shallow_clone();
        if let Some(Change::Whole(key)) = self.changes.get(name) {
            return self.tensors.read(key, shape, &target);
        }
        let is_wide = matches!(target.kind(), Kind::Float | Kind::Double);
        let mut sum = if is_wide { target.shallow_clone() } else { Tensor::f_empty(shape, (Kind::Float, Device::Cpu))? };
        match self.changes.get(name) {
            Some(Change::LowRank { over: Some(key), .. }) => self.tensors.read(key, shape, &sum)?,
            _ => base.read(name, shape, &sum)?,
        }
        let (kind, device) = (sum.kind(), sum.device());
        match self.changes.get(name) {
            Some(change @ Change::LowRank { .. }) => {
                let &[height, width] = shape else { bail!("{name} has shape {shape:?}, expected two dimensions") };
                let [left, right] = self.factors(change, [height, width], kind)?;
                let _ = sum.f_addmm_(&left.f_to_device(device)?, &right.f_to_device(device)?)?;
            }
            Some(Change::Bias { b, scale }) => {
                let change = Tensor::f_empty(shape, (kind, Device::Cpu))?;
                self.tensors.read(b, shape, &change)?;
                let _ = sum.f_add_(&change.f_mul_scalar(*scale)?.f_to_device(device)?)?;
            }
            Some(Change::Whole(_)) | None => {}
        }
        if !is_wide {
            target.f_copy_(&sum)?;
        }
        Ok(())
    }

    /// Reads rows of the embedding with what the adapter changes in them.
    ///
    /// # Errors
    /// As [`Adapter::read`]; also a row outside the matrix.
    pub fn embedding(&self, base: &Tensors, name: &str, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        self.rows(base.resolve(name).and_then(|name| self.changes.get(name)), base, name, shape, rows, kind)
    }

    /// Reads rows of the unembedding. In a tied model the embedding's changes are not its own: PEFT wraps the embedding and leaves
    /// the shared weight alone.
    ///
    /// # Errors
    /// As [`Adapter::embedding`].
    pub fn unembedding(&self, base: &Tensors, name: &str, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        if self.tied && (self.head.is_some() || !self.follows) {
            return self.rows(self.head.as_ref(), base, name, shape, rows, kind);
        }
        self.embedding(base, name, shape, rows, kind)
    }

    fn rows(&self, change: Option<&Change>, base: &Tensors, name: &str, shape: &[i64; 2], rows: Rows, kind: Kind) -> Result<Tensor> {
        match change {
            Some(Change::Whole(key)) => self.tensors.rows(key, shape, rows, kind),
            Some(change @ Change::LowRank { over, .. }) => {
                let wide = if kind == Kind::Double { Kind::Double } else { Kind::Float };
                let [left, right] = self.factors(change, *shape, wide)?;
                let mut sum = match over {
                    Some(key) => self.tensors.rows(key, shape, rows, wide)?,
                    None => base.rows(name, shape, rows, wide)?,
                };
                Ok(sum.f_addmm_(&rows.of(&left)?, &right)?.f_to_kind(kind)?)
            }
            Some(Change::Bias { .. }) | None => base.rows(name, shape, rows, kind),
        }
    }

    /// Two matrices whose product is what a matrix of this shape changes by.
    fn factors(&self, change: &Change, [height, width]: [i64; 2], kind: Kind) -> Result<[Tensor; 2]> {
        let Change::LowRank { a, b, rank, scale, transposed, .. } = change else { bail!("a change without factors") };
        let (d_out, d_in) = if *transposed { (width, height) } else { (height, width) };
        let read = |key: &str, shape: [i64; 2]| -> Result<Tensor> {
            let factor = Tensor::f_empty(shape, (kind, Device::Cpu))?;
            self.tensors.read(key, &shape, &factor)?;
            Ok(factor)
        };
        let (a, b) = (read(a, [*rank, d_in])?, read(b, [d_out, *rank])?);
        let (left, right) = if *transposed { (a.f_tr()?, b.f_tr()?) } else { (b, a) };
        Ok([left.f_mul_scalar(*scale)?, right])
    }

    /// Index of the first block that is changed, as blocks are numbered on disk; `None` if what comes before the blocks is
    /// changed, `usize::MAX` if only what comes after them is.
    pub fn first_block(&self) -> Option<usize> {
        let block = |name: &String| {
            let number = name.split('.').find_map(|segment| segment.parse().ok());
            let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
            let last = is_one_of(HEADS, module) || is_one_of(ENDS, module);
            number.or(last.then_some(usize::MAX))
        };
        self.changes.keys().map(block).try_fold(usize::MAX, |first, block| Some(first.min(block?)))
    }

    /// Whether merging changes nothing: factors of zeros, or a scale of zero, and no tensor that differs from the base's.
    ///
    /// # Errors
    /// A factor cannot be read.
    pub fn is_identity(&self, base: &Tensors) -> Result<bool> {
        let zero = |key: &String| -> Result<bool> {
            let shape = self.tensors.shape(key).unwrap_or_default();
            let factor = Tensor::f_empty(shape, (Kind::Float, Device::Cpu))?;
            self.tensors.read(key, shape, &factor)?;
            Ok(norm(&factor)? == Some(0.0))
        };
        let idle = |place: Option<&String>, change: &Change| -> Result<bool> {
            match change {
                Change::Whole(key) => Ok(place.is_some_and(|place| base.digest(place) == self.tensors.digest(key))),
                Change::Bias { b, scale } => Ok(*scale == 0.0 || zero(b)?),
                Change::LowRank { a, b, scale, .. } => Ok(*scale == 0.0 || zero(b)? || zero(a)?),
            }
        };
        for (place, change) in
            self.changes.iter().map(|(place, change)| (Some(place), change)).chain(self.head.iter().map(|head| (None, head)))
        {
            if !idle(place, change)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Digest of what a tensor becomes, given that of the base's; `None` if it is not changed.
    pub fn digest(&self, name: &str, base: &blake3::Hash) -> Option<blake3::Hash> {
        self.changes.get(name).map(|change| match change {
            Change::Whole(key) => self.tensors.digest(key).unwrap_or(*base),
            change => {
                let mut hasher = blake3::Hasher::new();
                hasher.update(base.as_bytes());
                self.update(&mut hasher, change);
                hasher.finalize()
            }
        })
    }

    /// Content hash of everything that the adapter does.
    pub fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for (place, change) in
            self.changes.iter().map(|(place, change)| (place.as_str(), change)).chain(self.head.iter().map(|head| ("", head)))
        {
            hasher.update(&(place.len() as u64).to_le_bytes()).update(place.as_bytes());
            self.update(&mut hasher, change);
        }
        hasher.update(&[u8::from(self.follows)]);
        hasher.finalize()
    }

    fn update(&self, hasher: &mut blake3::Hasher, change: &Change) {
        let (keys, scale, transposed) = match change {
            Change::LowRank { a, b, scale, transposed, over, .. } => ([a, b].into_iter().chain(over).collect(), *scale, *transposed),
            Change::Bias { b, scale } => (vec![b], *scale, false),
            Change::Whole(key) => (vec![key], 0.0, false),
        };
        hasher.update(&[keys.len() as u8, u8::from(transposed)]).update(&scale.to_le_bytes());
        for digest in keys.into_iter().filter_map(|key| self.tensors.digest(key)) {
            hasher.update(digest.as_bytes());
        }
    }
}

/// The base's tensor of this name; either may lack the first segment that the other has.
fn find<'a>(base: &'a Tensors, name: &str) -> Option<&'a str> {
    let longer = || base.names().find(|other| other.split_once('.').is_some_and(|(_, rest)| rest == name));
    base.resolve(name).or_else(longer)
}

fn is_one_of(names: &[&str], module: &str) -> bool {
    names.contains(&module.rsplit('.').next().unwrap_or(module))
}
