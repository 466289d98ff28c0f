//! What a repository holds: its branches and tags, the files of a commit, and which of them are needed.
//!
//! Everything here comes from a server and ends up in paths: names must stay inside their folder, etags and commits must be
//! hexadecimal, and nothing but a handful of known names and the shards of an index is ever asked for.

use super::client::{Client, shown, text};
use crate::checkpoint::shards;
use anyhow::{Context, Result, bail, ensure};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What stays as it is in a path of a URL.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/');
const NAME: &AsciiSet = &PATH.add(b'/');

/// Small files, needed before anything is computed.
const WORDS: [&str; 6] =
    ["config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja"];
pub const INDEX: &str = "model.safetensors.index.json";
const WEIGHTS: &str = "model.safetensors";
const ADAPTER_CONFIG: &str = "adapter_config.json";
const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";

/// Most pages of a list; the hub puts up to a thousand entries on one.
const PAGES: usize = 1000;

/// What a source is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Configuration, tokenizer and template.
    Words,
    /// These, and the weights of a model.
    Model,
    /// These, and the weights of a PEFT adapter.
    Adapter,
}

/// One file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// In bytes.
    pub size: u64,
    /// Name of its blob: hexadecimal; empty where the listing was made from a snapshot.
    pub etag: String,
}

/// The files of a commit by their path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tree {
    pub files: BTreeMap<String, File>,
}

/// A repository as the hub knows it.
#[derive(Debug, Clone)]
pub struct Remote {
    /// Its name today, which differs from the one that was asked for after it was renamed.
    pub name: String,
    /// Commits of branches and tags. A branch hides a tag of the same name, as it does on the hub.
    pub revisions: BTreeMap<String, String>,
}

impl Remote {
    /// Asks for a repository's branches and tags.
    ///
    /// # Errors
    /// It is gated, missing or private, or the hub cannot be reached.
    pub fn ask(client: &Client, repo: &str) -> Result<Self> {
        let url = format!("{}/api/models/{repo}/refs", client.endpoint);
        let (json, answer) = client.json(&url)?.map_err(|answer| client.refusal(repo, &answer))?;
        let name = answer.url.split_once("/api/models/").and_then(|(_, path)| path.split(['?', '#']).next()?.strip_suffix("/refs"));
        let name = name.filter(|name| name.split('/').count() == 2).unwrap_or(repo).to_owned();
        if name != repo {
            tracing::warn!("hub:{repo} is now called hub:{name}; write the new name into the manifest, the old one may be taken by others");
        }
        let mut revisions = BTreeMap::new();
        for kind in ["tags", "branches"] {
            for entry in json.get(kind).and_then(Value::as_array).into_iter().flatten() {
                let field = |key| entry.get(key).and_then(Value::as_str);
                let (Some(revision), Some(commit)) = (field("name"), field("targetCommit")) else {
                    bail!("{}: expected `name` and `targetCommit` in every entry of `{kind}`", shown(&url));
                };
                ensure!(
                    super::is_commit(commit),
                    "{}: {revision:?} has the commit {commit:?}, expected 40 hexadecimal digits",
                    shown(&url)
                );
                revisions.insert(revision.to_owned(), commit.to_owned());
            }
        }
        Ok(Self { name, revisions })
    }

    /// The commit of a revision that is neither a branch nor a tag: a commit, or a pull request.
    ///
    /// # Errors
    /// As [`Remote::ask`]; `None` if there is none.
    pub fn commit(&self, client: &Client, revision: &str) -> Result<Option<String>> {
        let url = format!("{}/api/models/{}/revision/{}", client.endpoint, self.name, utf8_percent_encode(revision, NAME));
        match client.json(&url)? {
            Ok((json, _)) => {
                let sha = json.get("sha").and_then(Value::as_str).filter(|sha| super::is_commit(sha));
                Ok(Some(sha.with_context(|| format!("{}: expected `sha`, 40 hexadecimal digits", shown(&url)))?.to_owned()))
            }
            Err(answer) if answer.status == 404 && text(&answer.from_hub, "x-error-code") != Some("RepoNotFound") => Ok(None),
            Err(answer) => Err(client.refusal(&self.name, &answer)),
        }
    }

    /// The commits that lead to `commit`, the newest first, each as `COMMIT TITLE`.
    ///
    /// # Errors
    /// As [`Remote::ask`].
    pub fn titles(&self, client: &Client, commit: &str) -> Result<Vec<String>> {
        let mut titles = Vec::new();
        self.pages(client, &format!("commits/{commit}?limit=500"), &mut |entry| {
            let field = |key| entry.get(key).and_then(Value::as_str);
            let (Some(id), Some(title)) = (field("id").filter(|id| super::is_commit(id)), field("title")) else {
                bail!("expected `id` and `title` of every commit");
            };
            titles.push(format!("{id} {}", title.trim()));
            Ok(())
        })?;
        Ok(titles)
    }

    /// Hands over every entry of a list, page by page; `list` is its address behind the repository's.
    fn pages(&self, client: &Client, list: &str, take: &mut dyn FnMut(&Value) -> Result<()>) -> Result<()> {
        let mut next = Some(format!("{}/api/models/{}/{list}", client.endpoint, self.name));
        let mut asked = BTreeSet::new();
        while let Some(url) = next {
            let (json, answer) = client.json(&url)?.map_err(|answer| client.refusal(&self.name, &answer))?;
            let entries = json.as_array().with_context(|| format!("{}: expected a list", shown(&url)))?;
            entries.iter().try_for_each(&mut *take).with_context(|| shown(&url))?;
            next = text(&answer.headers, "link").and_then(following).map(str::to_owned);
            let is_new = asked.insert(url.clone()) && next.as_ref().is_none_or(|next| !asked.contains(next));
            ensure!(is_new && asked.len() < PAGES, "{}: the list has no end", shown(&url));
        }
        Ok(())
    }

    /// The address of a file.
    pub fn url(&self, client: &Client, commit: &str, path: &str) -> String {
        format!("{}/{}/resolve/{commit}/{}", client.endpoint, self.name, utf8_percent_encode(path, PATH))
    }
}

impl Tree {
    /// Asks for all files of a commit, page by page.
    ///
    /// # Errors
    /// As [`Remote::ask`]; also a name that leads out of its folder.
    pub fn ask(client: &Client, remote: &Remote, commit: &str) -> Result<Self> {
        let mut tree = Self::default();
        remote.pages(client, &format!("tree/{commit}?recursive=true&expand=false"), &mut |entry| {
            if entry.get("type").and_then(Value::as_str) != Some("file") {
                return Ok(());
            }
            let large = entry.get("lfs").filter(|large| !large.is_null());
            let etag = large.map_or(entry.get("oid"), |large| large.get("oid")).and_then(Value::as_str);
            let size = large.map_or(entry.get("size"), |large| large.get("size")).and_then(Value::as_u64);
            tree.insert(entry.get("path").and_then(Value::as_str), size, etag)
        })?;
        Ok(tree)
    }

    /// The listing that the Python client keeps.
    pub fn from_python(json: &Value) -> Option<Self> {
        let mut tree = Self::default();
        if json.get("format_version")?.as_u64()? != 1 {
            return None;
        }
        for (path, file) in json.get("files")?.as_object()? {
            let is_large = file.get("lfs_sha256").is_some_and(Value::is_string);
            let etag = file.get(if is_large { "lfs_sha256" } else { "blob_id" })?.as_str();
            tree.insert(Some(path), file.get(if is_large { "lfs_size" } else { "size" })?.as_u64(), etag).ok()?;
        }
        Some(tree)
    }

    fn insert(&mut self, path: Option<&str>, size: Option<u64>, etag: Option<&str>) -> Result<()> {
        let (Some(path), Some(size), Some(etag)) = (path, size, etag) else { bail!("expected `path`, `size` and `oid` of every file") };
        let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
        let is_inside = path.split('/').all(is_part) && !path.contains(['\\', '\0']);
        ensure!(is_inside, "the repository lists {path:?}, which leads out of its folder");
        let is_etag = [40, 64].contains(&etag.len()) && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        ensure!(is_etag, "the repository lists {path:?} as {etag:?}, expected a SHA-1 or SHA-256 in hexadecimal");
        self.files.insert(path.to_owned(), File { size, etag: etag.to_lowercase() });
        Ok(())
    }

    /// Names of the folders directly in a folder.
    pub fn folders(&self, parent: &str) -> Vec<String> {
        let inside = self.files.keys().filter_map(|path| below(path, parent)?.split_once('/'));
        inside.map(|(folder, _)| folder.to_owned()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Small files of a folder: what is read before weights are.
    pub fn words(&self, folder: &str) -> Vec<(String, &File)> {
        let names = WORDS.into_iter().chain([INDEX, ADAPTER_CONFIG]);
        names.filter_map(|name| self.files.get_key_value(&path(folder, name))).map(|(path, file)| (path.clone(), file)).collect()
    }

    /// Weights of a folder: one file, or the shards that `index` names. Never pickled ones.
    ///
    /// # Errors
    /// There are none, or the index names a file that is not there.
    pub fn weights(&self, folder: &str, part: Part, index: Option<&Value>) -> Result<Vec<(String, &File)>> {
        let get = |name: &str| self.files.get_key_value(&path(folder, name)).map(|(path, file)| (path.clone(), file));
        let single = match part {
            Part::Words => return Ok(Vec::new()),
            Part::Model => WEIGHTS,
            Part::Adapter => ADAPTER_WEIGHTS,
        };
        let here = || self.files.keys().filter_map(|path| below(path, folder)).filter(|name| !name.contains('/'));
        if let Some(file) = get(single) {
            let indexed = index.and_then(|index| index.get("weight_map")?.as_object());
            let named = indexed.into_iter().flat_map(|map| map.values()).filter_map(Value::as_str);
            let beside = named.filter(|name| *name != single).find(|name| get(name).is_some());
            if let Some(shard) = beside.or_else(|| here().find(|name| part == Part::Model && shards::is_shard(name))) {
                bail!("{}", shards::two_answers(shard));
            }
            return Ok(vec![file]);
        }
        if let Some(names) = if index.is_none() && part == Part::Model { shards::complete(here())? } else { None } {
            return Ok(names.iter().filter_map(|name| get(name)).collect());
        }
        let Some(map) = index.and_then(|index| index.get("weight_map")?.as_object()).filter(|_| part == Part::Model) else {
            let pickled =
                self.files.keys().filter_map(|path| below(path, folder)).find(|name| name.ends_with(".bin") && !name.contains('/'));
            match pickled {
                Some(name) => {
                    bail!("has no {single}, only {name}; pickled weights are not read, save them again with safe_serialization=True")
                }
                None => bail!("has no {single}"),
            }
        };
        let shards: BTreeSet<&str> = map.values().filter_map(Value::as_str).collect();
        let shard = |name: &&str| {
            let is_plain = !name.contains('/') && name.ends_with(".safetensors");
            get(name).filter(|_| is_plain).with_context(|| format!("has an index that names {name:?}, which is not in the repository"))
        };
        shards.iter().map(shard).collect()
    }
}

/// Whether nothing can be done without a small file. Of the others, some repositories have one and some another.
pub fn is_required(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or_default();
    [WORDS[0], INDEX, ADAPTER_CONFIG].contains(&name)
}

/// The path of a name in a folder; the root has none.
fn path(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// A path as seen from a folder.
fn below<'p>(path: &'p str, folder: &str) -> Option<&'p str> {
    if folder.is_empty() { Some(path) } else { path.strip_prefix(folder)?.strip_prefix('/') }
}

/// The next page in a `Link` header.
fn following(link: &str) -> Option<&str> {
    let (_, rest) = link.split_once('<')?;
    let (url, parameters) = rest.split_once('>')?;
    if parameters.split(',').next()?.contains("rel=\"next\"") { Some(url) } else { following(parameters) }
}
