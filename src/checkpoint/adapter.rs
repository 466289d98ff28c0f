//! A PEFT LoRA adapter: which tensors of its base it changes, and how.
//!
//! Nothing is merged when it is opened. Every tensor of the adapter is matched with one of the base by name
//! ([`super::adapter_match`]), and shapes, ranks and targets are checked against headers. A change is computed when the
//! tensor that it belongs to is read: `W + scale * B A` in f32, then cast. Factors in half precision are cast up first, and W
//! of a base in half precision too, so that there is one rounding, to what is computed in. PEFT does the same
//! (`autocast_adapter_dtype`, `merge`).

use super::adapter_config::LoraConfig;
use super::adapter_match::{self, Matched};
use super::names::Layout;
use super::site::{Cache, Site};
use super::tensors::{Rows, Tensors};
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use tch::Tensor;

const WEIGHTS: &str = "adapter_model.safetensors";
/// What comes after the last block.
const ENDS: &[&str] = &["norm", "ln_f", "final_layer_norm"];

/// An opened adapter over the tensors of one base.
pub struct Adapter {
    tensors: Tensors,
    matched: Matched,
    layout: Layout,
    tied: bool,
    cache: Cache,
    /// What it was trained over, as its trainer called it.
    trained_over: Option<String>,
}

impl Adapter {
    /// Opens an adapter over `base`. `tied` says that the model's unembedding is its embedding, `d_vocab` how many tokens it has.
    ///
    /// # Errors
    /// One sentence that names file and tensor or key: no adapter, an unsupported option (see [`LoraConfig::read`]), a tensor
    /// that fits none of the base, other shapes or ranks, a target without tensors or tensors without a target.
    pub fn open(folder: &Path, base: &Tensors, tied: bool, d_vocab: i64) -> Result<Self> {
        ensure!(folder.is_dir(), "{}: no such folder", folder.display());
        let config = LoraConfig::read(folder)?;
        if !folder.join(WEIGHTS).is_file() {
            let pickled = folder.join("adapter_model.bin").is_file();
            let found = if pickled {
                "found adapter_model.bin, a pickle, which is never loaded; save it with safe_serialization=True"
            } else {
                "PEFT's save_pretrained writes it, in one file"
            };
            bail!("{}: no {WEIGHTS}; {found}", folder.display());
        }
        let tensors = Tensors::open_files(folder, vec![WEIGHTS.to_owned()])?;
        let (layout, _) = base.layout().context("the base's tensors have not been arranged")?;
        let layout = *layout;
        let matched = adapter_match::find(&config, &tensors, base, tied, d_vocab);
        let matched = matched.with_context(|| folder.join(WEIGHTS).display().to_string())?;
        Ok(Self { tensors, matched, layout, tied, cache: Cache::default(), trained_over: config.base })
    }

    /// The adapter's folder.
    pub fn folder(&self) -> &Path {
        self.tensors.folder()
    }

    /// Its own tensors.
    pub fn tensors(&self) -> &Tensors {
        &self.tensors
    }

    /// What it was trained over, as its trainer called it.
    pub fn trained_over(&self) -> Option<&str> {
        self.trained_over.as_deref()
    }

    /// The number of tokens, where it has an embedding of its own.
    pub fn vocabulary(&self) -> Option<i64> {
        self.matched.d_vocab
    }

    /// Whether a tensor is changed.
    pub fn changes(&self, name: &str) -> bool {
        self.matched.sites.contains_key(name)
    }

    /// Whether a tensor is replaced, so that what it was does not matter.
    pub fn replaces(&self, name: &str) -> bool {
        self.matched.sites.get(name).is_some_and(|site| site.whole.is_some())
    }

    /// Reads a tensor that is replaced and not changed any more into `target`; says whether it is one.
    ///
    /// # Errors
    /// As [`Tensors::read`].
    pub fn read_replaced(&self, name: &str, shape: &[i64], target: &Tensor) -> Result<bool> {
        let Some(key) = self.matched.sites.get(name).and_then(Site::is_replacement) else { return Ok(false) };
        self.tensors.read(key, shape, target)?;
        Ok(true)
    }

    /// Changes a tensor, which `sum` holds in f32 or f64.
    ///
    /// # Errors
    /// As [`Site::apply`].
    pub fn apply(&self, name: &str, sum: &mut Tensor) -> Result<()> {
        self.matched.sites.get(name).map_or(Ok(()), |site| site.apply(&self.tensors, &self.cache, sum))
    }

    /// What happens to a matrix of which only rows are read: the embedding, or as `head` the unembedding. In a tied model these are
    /// one tensor but two modules, of which PEFT may change one alone.
    fn ends(&self, name: &str, head: bool) -> Option<&Site> {
        if head && self.tied { self.matched.head.as_ref() } else { self.matched.sites.get(name) }
    }

    /// Whether rows of a matrix are replaced, so that what they were does not matter.
    pub fn replaces_rows(&self, name: &str, head: bool) -> bool {
        self.ends(name, head).is_some_and(|site| site.whole.is_some())
    }

    /// Changes rows of the embedding or unembedding, which `sum` holds in f32 or f64.
    ///
    /// # Errors
    /// As [`Site::apply_to_rows`].
    pub fn apply_to_rows(&self, name: &str, head: bool, sum: &mut Tensor, shape: &[i64; 2], rows: Rows) -> Result<()> {
        self.ends(name, head).map_or(Ok(()), |site| site.apply_to_rows(&self.tensors, &self.cache, sum, shape, rows))
    }

    /// Index of the first block that is changed; `None` if what comes before the blocks is changed, `usize::MAX` if only what comes
    /// after them is.
    pub fn first_block(&self) -> Option<usize> {
        let block = |name: &String| {
            let module = name.rsplit_once('.').map_or(name.as_str(), |(module, _)| module);
            let last = module == self.layout.head || ENDS.contains(&module.rsplit('.').next().unwrap_or(module));
            self.layout.block_of(name).or(last.then_some(usize::MAX))
        };
        self.matched.sites.keys().map(block).try_fold(usize::MAX, |first, block| Some(first.min(block?)))
    }

    /// Whether merging changes nothing: factors of zeros, or a scale of zero, and no tensor that differs from the base's.
    ///
    /// # Errors
    /// A tensor cannot be read.
    pub fn is_identity(&self, base: &Tensors) -> Result<bool> {
        let embedding = self.layout.embedding();
        let head = self.matched.head.iter().map(|site| (embedding.as_str(), site));
        for (name, site) in self.matched.sites.iter().map(|(name, site)| (name.as_str(), site)).chain(head) {
            if !site.is_idle(&self.tensors, base, Some(name))? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Digest of what a tensor becomes, given that of what it was; `None` if it is not changed.
    pub fn digest(&self, name: &str, before: &blake3::Hash) -> Option<blake3::Hash> {
        let site = self.matched.sites.get(name)?;
        if let Some(key) = site.is_replacement() {
            return self.tensors.digest(key);
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(before.as_bytes());
        site.update(&mut hasher, &self.tensors);
        Some(hasher.finalize())
    }

    /// Content hash of everything that the adapter does.
    pub fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let head = self.matched.head.iter().map(|head| ("", head));
        for (name, site) in self.matched.sites.iter().map(|(name, site)| (name.as_str(), site)).chain(head) {
            hasher.update(&(name.len() as u64).to_le_bytes()).update(name.as_bytes());
            site.update(&mut hasher, &self.tensors);
        }
        hasher.finalize()
    }
}
