//! Where weights come from: a folder, or a snapshot on the Hugging Face hub written as
//! `hub:OWNER/NAME[@REVISION][#SUBFOLDER]`. Parsing never touches the disk or the network.

use std::ffi::OsStr;
use std::fmt;
use std::path::{Component, Path, PathBuf};

use anyhow::{Result, bail};
use serde::{Serialize, Serializer};

use super::pattern::PLACEHOLDERS;

pub(super) const EXPECTED: &str = "a folder or hub:OWNER/NAME[@REVISION][#SUBFOLDER]";

/// A place that holds a model, an adapter or a tokenizer. Displayed and serialised as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    Folder(PathBuf),
    Hub { repo: String, revision: Option<String>, subfolder: Option<String>, pin: Option<Pin> },
}

/// What a hub source was resolved to. Not part of how the source is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// All 40 digits of the commit.
    pub commit: String,
    /// Where its files are once they have been downloaded.
    pub folder: PathBuf,
    /// Whether the manifest names the commit, rather than a branch that is at it.
    pub named: bool,
}

impl Source {
    /// Reads a source. `~`, `$NAME` and `${NAME}` are expanded; a relative folder is relative to `base`.
    pub fn parse(text: &str, base: &Path) -> Result<Source> {
        let text = &with_variables(base, text)?;
        let Some(hub) = text.strip_prefix("hub:") else {
            if text.contains("://") {
                bail!("found {text:?}, expected {EXPECTED}; URLs are not read");
            }
            return Ok(Source::Folder(absolute(base, text)));
        };
        let (hub, subfolder) = split(hub, '#');
        let (repo, revision) = split(hub, '@');
        if !is_repo(repo) {
            bail!("found {text:?}, expected {EXPECTED}, as in hub:allenai/OLMo-2-0425-1B");
        }
        let mut source = Source::Hub { repo: repo.into(), revision: None, subfolder: None, pin: None };
        if let Some(revision) = revision {
            source = source.at_revision(revision)?;
        }
        if let Some(subfolder) = subfolder {
            source = source.in_subfolder(subfolder)?;
        }
        Ok(source)
    }

    /// The same repository at a branch, tag or commit.
    pub(super) fn at_revision(self, name: &str) -> Result<Source> {
        let (repo, subfolder) = match self {
            Source::Folder(_) => bail!("found {name:?}, but only hub sources have revisions; give the folder of that checkpoint"),
            Source::Hub { revision: Some(first), .. } => {
                bail!("found {name:?}, but the source names the revision {first:?} already")
            }
            Source::Hub { repo, revision: None, subfolder, .. } => (repo, subfolder),
        };
        let safe = |c: char| c.is_ascii_alphanumeric() || "._-/{}".contains(c);
        if !name.chars().all(safe) || !is_inside(name) || name.starts_with('-') {
            bail!("found {name:?}, expected a branch, tag or commit as the hub spells it");
        }
        Ok(Source::Hub { repo, revision: Some(name.into()), subfolder, pin: None })
    }

    /// A folder inside this source.
    pub(super) fn in_subfolder(self, name: &str) -> Result<Source> {
        let name = name.trim_end_matches('/');
        if !is_inside(name) {
            bail!("found {name:?}, expected a relative folder without '..', as in checkpoints/last");
        }
        match self {
            Source::Folder(folder) => Ok(Source::Folder(folder.join(name))),
            Source::Hub { repo, revision, subfolder: None, pin } => Ok(Source::Hub { repo, revision, subfolder: Some(name.into()), pin }),
            Source::Hub { subfolder: Some(first), .. } => {
                bail!("found {name:?}, but the source names the subfolder {first:?} already")
            }
        }
    }

    /// The path components, or the revision as a whole, in which placeholders stand: from the first to the last of them.
    pub(super) fn varying(&self) -> Option<String> {
        let is_varying = |part: &&str| PLACEHOLDERS.iter().any(|mark| part.contains(mark));
        let parts: Vec<&str> = match self {
            Source::Folder(path) => path.iter().map(|part| part.to_str().unwrap_or_default()).collect(),
            Source::Hub { revision: Some(revision), .. } if is_varying(&revision.as_str()) => return Some(revision.clone()),
            Source::Hub { subfolder, .. } => subfolder.as_ref()?.split('/').collect(),
        };
        let (first, last) = (parts.iter().position(is_varying)?, parts.iter().rposition(is_varying)?);
        Some(parts[first..=last].join("/"))
    }

    /// The same source with the path components (or the revision) `pattern` replaced by `name`.
    pub(super) fn with_name(&self, pattern: &str, name: &str) -> Source {
        let swap = |part: &Option<String>| part.as_ref().map(|part| part.replace(pattern, name));
        match self {
            Source::Folder(path) => {
                let parts: Vec<&OsStr> = pattern.split('/').map(OsStr::new).collect();
                let names: Vec<&OsStr> = path.iter().collect();
                match names.windows(parts.len()).position(|window| window == parts) {
                    Some(at) => {
                        let after = names[at + parts.len()..].iter().copied();
                        Source::Folder(names[..at].iter().copied().chain([OsStr::new(name)]).chain(after).collect())
                    }
                    None => self.clone(),
                }
            }
            Source::Hub { repo, revision, subfolder, pin } => {
                Source::Hub { repo: repo.clone(), revision: swap(revision), subfolder: swap(subfolder), pin: pin.clone() }
            }
        }
    }

    /// The same repository at a commit.
    pub(super) fn with_revision(&self, commit: &str) -> Source {
        match self {
            Source::Folder(_) => self.clone(),
            Source::Hub { repo, subfolder, .. } => {
                Source::Hub { repo: repo.clone(), revision: Some(commit.to_owned()), subfolder: subfolder.clone(), pin: None }
            }
        }
    }

    /// The folder to read. That of a hub source is known once it is pinned, and may not be downloaded yet.
    pub fn folder(&self) -> Result<&Path> {
        match self {
            Source::Folder(folder) => Ok(folder),
            Source::Hub { pin: Some(pin), .. } => Ok(&pin.folder),
            Source::Hub { pin: None, .. } => bail!("{self} has not been looked up on the hub"),
        }
    }

    /// The commit that a hub source was resolved to.
    pub fn commit(&self) -> Option<&str> {
        match self {
            Source::Hub { pin: Some(pin), .. } => Some(&pin.commit),
            _ => None,
        }
    }

    /// Whether it is on the hub.
    pub fn is_hub(&self) -> bool {
        matches!(self, Source::Hub { .. })
    }

    /// Whether it is a folder that is not there. A hub source is not looked up.
    pub fn is_missing(&self) -> bool {
        matches!(self, Source::Folder(folder) if !folder.is_dir())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::Folder(folder) => write!(f, "{}", folder.display()),
            Source::Hub { repo, revision, subfolder, .. } => {
                write!(f, "hub:{repo}")?;
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                if let Some(subfolder) = subfolder {
                    write!(f, "#{subfolder}")?;
                }
                Ok(())
            }
        }
    }
}

impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A path as written in the manifest: `~` is the home folder, `$NAME` and `${NAME}` are the environment's, anything relative starts at
/// `base`.
///
/// # Errors
/// A variable is not set.
pub(super) fn resolve(base: &Path, text: &str) -> Result<PathBuf> {
    Ok(absolute(base, &with_variables(base, text)?))
}

/// `text` with the environment's variables; `$$` is a dollar sign, and so is one in a path that is there as it is written.
fn with_variables(base: &Path, text: &str) -> Result<String> {
    if !text.contains('$') || base.join(text).exists() {
        return Ok(text.to_owned());
    }
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let (name, behind) = match after.strip_prefix('{').and_then(|braced| braced.split_once('}')) {
            Some(pair) => pair,
            None => after.split_at(after.find(|c| !is_word(c)).unwrap_or(after.len())),
        };
        if name.is_empty() || !name.chars().all(is_word) {
            bail!("found {text:?}, expected the name of a variable behind $, as in $SCRATCH/run or ${{SCRATCH}}/run; $$ is a dollar sign");
        }
        match std::env::var(name) {
            Ok(value) if !value.is_empty() => out.push_str(&value),
            _ => bail!("found {text:?}, but the variable ${name} is not set in the environment"),
        }
        rest = behind;
    }
    Ok(out + rest)
}

fn absolute(base: &Path, text: &str) -> PathBuf {
    let home = match text.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => std::env::home_dir(),
        _ => None,
    };
    let path = match home {
        Some(home) => home.join(text[1..].trim_start_matches('/')),
        None => base.join(text),
    };
    let path = without_parents(&path);
    match path.strip_prefix(".") {
        Ok(rest) if rest.as_os_str().is_empty() => PathBuf::from("."),
        Ok(rest) => rest.to_path_buf(),
        Err(_) => path,
    }
}

/// `reports/demo/..` is shown as `reports`.
fn without_parents(path: &Path) -> PathBuf {
    let mut short = PathBuf::new();
    for part in path.components() {
        let named = matches!(short.components().next_back(), Some(Component::Normal(_)));
        if part == Component::ParentDir && named {
            short.pop();
        } else {
            short.push(part);
        }
    }
    short
}

fn split(text: &str, mark: char) -> (&str, Option<&str>) {
    text.split_once(mark).map_or((text, None), |(head, tail)| (head, Some(tail)))
}

/// `OWNER/NAME`, each as the hub allows it.
fn is_repo(text: &str) -> bool {
    let safe = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let is_name = |name: &str| {
        let inner = !name.starts_with(['.', '-']) && !name.ends_with(['.', '-']);
        !name.is_empty() && name.len() <= 96 && name.chars().all(safe) && inner && !name.contains("..")
    };
    text.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
}

/// Whether a slash-separated path stays inside the folder that it starts from.
fn is_inside(path: &str) -> bool {
    let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
    path.split('/').all(is_part) && !path.contains(['\\', '\0'])
}
