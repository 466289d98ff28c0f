//! Checkpoints on the Hugging Face hub: `hub:OWNER/NAME[@REVISION][#SUBFOLDER]` to a folder in the cache.
//!
//! First everything is pinned: a branch or tag becomes the commit that it has now, and a series the branches, tags or folders that its
//! pattern matches. Then the small files of every checkpoint are fetched, so that whatever is gated, missing or renamed is known
//! before any work begins. Weights follow one checkpoint at a time, the next while the present one is computed.
//!
//! ```text
//! environment  HF_HOME, HF_TOKEN and the like
//! client       requests, redirects, waiting
//! refusal      what went wrong, in one sentence
//! listing      branches, tags, files; which files are needed
//! cache        blobs, refs and snapshots, shared with Python
//! download     one file
//! pins         manifests: patterns to checkpoints, revisions to commits, and what an earlier run was pinned to
//! ahead        the next while this one is computed
//! release      weights that may be deleted
//! ```

mod environment;
mod client;
mod refusal;
mod listing;
mod cache;
mod download;
mod pins;
mod ahead;
mod release;

pub use ahead::ahead;
pub use listing::Part;
pub use pins::{check_unmoved, is_same};

use crate::console::bytes_bar;
use crate::guard::free_space;
use crate::manifest::{Pin, Source, nearest_of};
use anyhow::{Context, Result, anyhow, bail};
use cache::Store;
use client::Client;
use download::Download;
use environment::Environment;
use indicatif::DecimalBytes;
use listing::{File, INDEX, Remote, Tree, is_required};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// Small requests that are under way at once.
const AT_ONCE: usize = 4;

/// The hub and its cache. Nothing is read, asked or checked before a hub source is met.
pub struct Hub {
    environment: Environment,
    client: OnceLock<Client>,
    remotes: Mutex<BTreeMap<String, Arc<Remote>>>,
    trees: Mutex<BTreeMap<(String, String), Arc<Tree>>>,
    /// Held while links are made or counted.
    links: Mutex<()>,
    /// Blobs that may be deleted after the walk, and the file that remembers them over restarts.
    own: Mutex<Option<(PathBuf, BTreeSet<PathBuf>)>>,
}

/// A pinned hub source, taken apart.
struct Place<'a> {
    source: &'a Source,
    repo: &'a str,
    revision: &'a str,
    commit: &'a str,
    /// Empty for the root.
    subfolder: &'a str,
    folder: &'a Path,
}

impl<'a> Place<'a> {
    /// # Errors
    /// The source has not been pinned.
    fn of(source: &'a Source) -> Result<Option<Self>> {
        let Source::Hub { repo, revision, subfolder, pin } = source else { return Ok(None) };
        let Pin { commit, folder, .. } = pin.as_ref().with_context(|| format!("{source} has not been looked up on the hub"))?;
        let revision = revision.as_deref().unwrap_or("main");
        Ok(Some(Self { source, repo, revision, commit, subfolder: subfolder.as_deref().unwrap_or_default(), folder }))
    }
}

impl Hub {
    /// The hub as the environment describes it.
    pub fn from_env() -> Self {
        Self {
            environment: Environment::read(),
            client: OnceLock::new(),
            remotes: Mutex::default(),
            trees: Mutex::default(),
            links: Mutex::default(),
            own: Mutex::default(),
        }
    }

    fn client(&self) -> Result<&Client> {
        if self.client.get().is_none() {
            let _ = self.client.set(Client::new(&self.environment)?);
        }
        self.client.get().context("the client was set above")
    }

    fn store(&self, repo: &str) -> Store {
        Store::new(&self.environment.cache, repo)
    }

    fn remote(&self, repo: &str) -> Result<Arc<Remote>> {
        if let Some(known) = lock(&self.remotes).get(repo) {
            return Ok(Arc::clone(known));
        }
        let remote = Arc::new(Remote::ask(self.client()?, repo)?);
        lock(&self.remotes).insert(repo.to_owned(), Arc::clone(&remote));
        Ok(remote)
    }

    fn tree(&self, repo: &str, commit: &str) -> Result<Arc<Tree>> {
        let key = (repo.to_owned(), commit.to_owned());
        if let Some(known) = lock(&self.trees).get(&key) {
            return Ok(Arc::clone(known));
        }
        let store = self.store(repo);
        let tree = match store.tree(commit) {
            Some(tree) => tree,
            None if self.environment.offline => store.tree_of_snapshot(commit),
            None => Tree::ask(self.client()?, &*self.remote(repo)?, commit)?,
        };
        let tree = Arc::new(tree);
        lock(&self.trees).insert(key, Arc::clone(&tree));
        Ok(tree)
    }

    /// Pins a hub source to `commit`, or to the commit that its revision has now. Folders stay as they are.
    ///
    /// # Errors
    /// The repository is gated, missing or private; it has no such revision or commit; offline, it is not in the cache.
    pub fn pin(&self, source: &mut Source, commit: Option<&str>) -> Result<()> {
        let Source::Hub { repo, revision, subfolder, .. } = &*source else { return Ok(()) };
        let named = commit.is_some();
        let found = match commit {
            Some(commit) => self.find_commit(source, repo, revision.as_deref(), commit)?,
            None => self.find_revision(source, repo, revision.as_deref().unwrap_or("main"))?,
        };
        let folder = self.store(repo).snapshot(&found).join(subfolder.as_deref().unwrap_or_default());
        if let Source::Hub { pin, .. } = source {
            *pin = Some(Pin { commit: found, folder, named });
        }
        Ok(())
    }

    fn find_revision(&self, source: &Source, repo: &str, revision: &str) -> Result<String> {
        let store = self.store(repo);
        if self.environment.offline {
            let is_there = |commit: &String| store.snapshot(commit).is_dir();
            let found = if is_commit(revision) { Some(revision.to_lowercase()) } else { store.commit(revision) };
            return found.filter(is_there).with_context(|| self.not_cached(source, "HF_HUB_OFFLINE is set"));
        }
        let remote = self.remote(repo)?;
        if let Some(commit) = remote.revisions.get(revision) {
            return Ok(commit.clone());
        }
        remote.commit(self.client()?, revision)?.with_context(|| {
            let names: Vec<String> = remote.revisions.keys().cloned().collect();
            format!("{source}: hub:{repo} has no branch, tag or commit {revision:?}; it has {}", nearest_of(revision, &names))
        })
    }

    /// A commit that the manifest names, perhaps by its first digits only.
    fn find_commit(&self, source: &Source, repo: &str, revision: Option<&str>, commit: &str) -> Result<String> {
        let commit = commit.to_lowercase();
        let store = self.store(repo);
        let abroad = if self.environment.offline { None } else { Some(self.remote(repo)?) };
        let known: BTreeSet<String> = match &abroad {
            Some(remote) => remote.revisions.values().cloned().collect(),
            None => store.commits().into_iter().collect(),
        };
        let mut matching = known.into_iter().filter(|known| known.starts_with(&commit));
        let found = match (matching.next(), matching.next(), &abroad) {
            (Some(found), None, _) => Some(found),
            (Some(_), Some(_), _) => bail!("{source}: commit {commit} is the beginning of several; write all 40 digits"),
            (None, _, Some(remote)) => remote.commit(self.client()?, &commit)?.filter(|found| found.starts_with(&commit)),
            (None, _, None) => bail!("{} at commit {commit}", self.not_cached(source, "HF_HUB_OFFLINE is set")),
        };
        let found = found.with_context(|| {
            let digits = if commit.len() < 40 { "; write all 40 digits" } else { "" };
            format!("{source}: hub:{repo} has no commit {commit}{digits}")
        })?;
        let head = abroad.as_ref().and_then(|remote| remote.revisions.get(revision.unwrap_or("main")));
        if let Some(head) = head.filter(|head| **head != found) {
            tracing::warn!("{source} is at commit {head} now; read is {found}, which the manifest names");
        }
        Ok(found)
    }

    fn not_cached(&self, source: &Source, why: &str) -> String {
        format!(
            "{source} is not in the cache {} and {why}; run once without it, where the hub can be reached",
            self.environment.cache.display()
        )
    }

    /// Fetches configurations, tokenizers and indices of pinned sources, a few at a time, so that what is wrong with one of them is
    /// said before work begins.
    ///
    /// # Errors
    /// As [`Hub::pin`]; also a subfolder that is not there.
    pub fn prepare(&self, sources: &[&Source]) -> Result<()> {
        let places = sources.iter().map(|source| Place::of(source)).collect::<Result<Vec<_>>>()?;
        let mut places: Vec<Place> = places.into_iter().flatten().collect();
        places.sort_by_key(|place| (place.repo, place.commit, place.subfolder));
        places.dedup_by_key(|place| (place.repo, place.commit, place.subfolder));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(AT_ONCE).build()?;
        let mut commits: Vec<(&str, &str)> = places.iter().map(|place| (place.repo, place.commit)).collect();
        commits.dedup();
        let unknown = commits.iter().filter(|(repo, commit)| !lock(&self.trees).contains_key(&((*repo).to_owned(), (*commit).to_owned())));
        let unknown = unknown.count();
        if unknown > AT_ONCE && !self.environment.offline {
            tracing::info!("hub: looking up the files of {unknown} commits");
        }
        pool.install(|| {
            let listed: Vec<Result<_>> = commits.par_iter().map(|(repo, commit)| self.tree(repo, commit)).collect();
            listed.into_iter().collect::<Result<Vec<_>>>()?;
            let prepared: Vec<Result<()>> = places.par_iter().map(|place| self.prepare_one(place)).collect();
            prepared.into_iter().collect()
        })
    }

    fn prepare_one(&self, place: &Place) -> Result<()> {
        let tree = self.tree(place.repo, place.commit)?;
        let words = tree.words(place.subfolder);
        let prefix = format!("{}/", place.subfolder);
        if !place.subfolder.is_empty() && !tree.files.keys().any(|path| path.starts_with(&prefix)) {
            let parent = place.subfolder.rsplit_once('/').map_or("", |(parent, _)| parent);
            bail!(
                "{}: there is no folder {}, there is {}",
                place.source,
                place.subfolder,
                nearest_of(place.subfolder, &tree.folders(parent))
            );
        }
        self.bring(place, &words, &indicatif::ProgressBar::hidden(), false)?;
        if self.environment.offline || is_commit(place.revision) {
            return Ok(());
        }
        let remote = self.remote(place.repo)?;
        // A commit that the manifest names is not what the branch is at.
        if remote.revisions.get(place.revision).is_some_and(|head| head == place.commit) {
            self.store(place.repo).set_commit(place.revision, place.commit)?;
        }
        Ok(())
    }

    /// Weights of a prepared source, as far as the listing and the index say.
    fn weights<'t>(&self, place: &Place, part: Part, tree: &'t Tree) -> Result<Vec<(String, &'t File)>> {
        let index = std::fs::read(place.folder.join(INDEX)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let where_to = if self.environment.offline { " in the cache, and HF_HUB_OFFLINE is set" } else { "" };
        tree.weights(place.subfolder, part, index.as_ref()).map_err(|error| anyhow!("{} {error}{where_to}", place.source))
    }

    /// Bytes of the weights of a prepared source, and how many of them are not in the cache. None for a folder.
    ///
    /// # Errors
    /// As [`Hub::fetch`].
    pub fn missing(&self, source: &Source, part: Part) -> Result<u64> {
        let Some(place) = Place::of(source)? else { return Ok(0) };
        let (store, tree) = (self.store(place.repo), self.tree(place.repo, place.commit)?);
        let weights = self.weights(&place, part, &tree)?;
        let absent = weights.iter().filter(|(path, file)| !store.has(place.commit, path, file));
        Ok(absent.map(|(_, file)| file.size).sum())
    }

    /// The folder of a pinned source, with everything in it that `part` needs. A folder is answered as it is.
    ///
    /// # Errors
    /// What [`Hub::prepare`] says; no weights in safetensors; a download that fails for good; offline, a file that is missing or
    /// cut off.
    pub fn fetch<'s>(&self, source: &'s Source, part: Part) -> Result<&'s Path> {
        let Some(place) = Place::of(source)? else { return source.folder() };
        self.prepare(&[source])?;
        let (store, tree) = (self.store(place.repo), self.tree(place.repo, place.commit)?);
        let weights = self.weights(&place, part, &tree)?;
        let size = weights.iter().filter(|(path, file)| !store.has(place.commit, path, file)).map(|(_, file)| file.size).sum();
        if size == 0 || self.environment.offline {
            self.bring(&place, &weights, &indicatif::ProgressBar::hidden(), true)?;
            return Ok(place.folder);
        }
        tracing::info!("{source}: downloading {}", DecimalBytes(size));
        let start = Instant::now();
        let bar = bytes_bar(size, &source.to_string());
        let brought = self.bring(&place, &weights, &bar, true);
        bar.finish_and_clear();
        let bytes =
            brought.map_err(|error| if error.is::<crate::console::Interrupted>() { error } else { error.context(source.to_string()) })?;
        let seconds = start.elapsed().as_secs_f64();
        tracing::info!(
            "{source}: downloaded {} in {seconds:.1} s ({}/s)",
            DecimalBytes(bytes),
            DecimalBytes((bytes as f64 / seconds) as u64)
        );
        Ok(place.folder)
    }

    /// Brings files into the snapshot that are not in it as wholes; returns the bytes that were downloaded.
    fn bring(&self, place: &Place, files: &[(String, &File)], bar: &indicatif::ProgressBar, are_weights: bool) -> Result<u64> {
        let store = self.store(place.repo);
        if !self.environment.offline {
            self.require_room(place, files)?;
        }
        let mut bytes = 0;
        for (path, file) in files {
            if store.has(place.commit, path, file) {
                continue;
            }
            if self.environment.offline {
                let there = std::fs::metadata(store.snapshot(place.commit).join(path));
                if there.is_err() && !are_weights && !is_required(path) {
                    continue;
                }
                let there = there.map_or("is missing".to_owned(), |found| format!("is cut off at {} bytes", found.len()));
                bail!(
                    "{}: {path} {there} in the cache {} and HF_HUB_OFFLINE is set; run once without it",
                    place.source,
                    store.folder.display()
                );
            }
            let (client, remote) = (self.client()?, self.remote(place.repo)?);
            let blob = store.blob(&file.etag);
            let _lock = store.lock(&file.etag, client)?;
            if are_weights && !blob.exists() {
                self.own(&blob)?;
            }
            let download = Download { client, store: &store, remote: &remote, commit: place.commit, path, file };
            loop {
                bytes += download.blob(bar)?;
                // A checkpoint that shares the blob may have been released just now.
                let _links = lock(&self.links);
                if blob.exists() {
                    store.link(place.commit, path, &file.etag)?;
                    break;
                }
            }
        }
        Ok(bytes)
    }

    /// Refuses what the cache's disk has no room for, before its first byte.
    fn require_room(&self, place: &Place, files: &[(String, &File)]) -> Result<()> {
        let store = self.store(place.repo);
        let absent = files.iter().filter(|(path, file)| !store.has(place.commit, path, file) && !store.blob(&file.etag).exists());
        let left = |file: &File| {
            let partial = std::fs::metadata(store.blob(&format!("{}.incomplete", file.etag))).map_or(0, |found| found.len());
            file.size.saturating_sub(partial)
        };
        let needed = absent.map(|(_, file)| left(file)).fold(0, u64::saturating_add);
        if let Some(free) = free_space(&self.environment.cache).filter(|free| *free < needed) {
            bail!(
                "{}: {} are to be downloaded and the disk of {} has {} left; free some, or set HF_HUB_CACHE to a folder on another disk",
                place.source,
                DecimalBytes(needed),
                self.environment.cache.display(),
                DecimalBytes(free)
            );
        }
        Ok(())
    }

    /// Ends downloads that are under way.
    fn stop(&self) {
        if let Some(client) = self.client.get() {
            client.stop.store(true, Ordering::Relaxed);
        }
    }
}

/// Whether a text is a whole commit.
fn is_commit(text: &str) -> bool {
    text.len() == 40 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// What a lock guards stays whole whatever happens to a thread that holds it.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
