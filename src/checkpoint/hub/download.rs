//! One file into the cache: what is there is kept, what is missing of a partial file is asked for, and nothing takes its place in
//! the cache before its size and its hash are right: the cache is shared, and nobody asks again for what lies there.

use super::cache::Store;
use super::client::{Client, Patience, Trouble, explain, text};
use super::listing::{File, Remote};
use anyhow::{Context, Result, bail, ensure};
use indicatif::ProgressBar;
use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::Path;

/// A file of a commit, and where it comes from and goes to.
pub struct Download<'a> {
    pub client: &'a Client,
    pub store: &'a Store,
    pub remote: &'a Remote,
    pub commit: &'a str,
    pub path: &'a str,
    pub file: &'a File,
}

impl Download<'_> {
    /// Brings the blob into the cache unless it is there. Its caller holds the blob's lock. Returns the bytes that were downloaded.
    ///
    /// # Errors
    /// A refusal, a hub that contradicts its own listing, a cache that cannot be written, or patience at its end.
    pub fn blob(&self, bar: &ProgressBar) -> Result<u64> {
        let blob = self.store.blob(&self.file.etag);
        if std::fs::metadata(&blob).is_ok_and(|found| found.len() == self.file.size) {
            bar.inc(self.file.size);
            return Ok(0);
        }
        let partial = self.store.blob(&format!("{}.incomplete", self.file.etag));
        let mut have = std::fs::metadata(&partial).map_or(0, |found| found.len());
        if have > self.file.size {
            have = 0;
        }
        let before = have;
        bar.inc(have);
        let mut patience = Patience::default();
        while have < self.file.size || !partial.exists() {
            let start = have;
            match self.go_on(&partial, &mut have, bar)? {
                Ok(()) => {}
                Err(trouble) => {
                    if have > start {
                        patience = Patience::default();
                    }
                    self.client.pause(&mut patience, trouble)?;
                }
            }
        }
        if let Some(found) = self.other_hash(&partial)? {
            std::fs::remove_file(&partial).with_context(|| format!("{}: cannot be deleted", partial.display()))?;
            ensure!(
                before > 0,
                "{}: the hub lists a file of hash {} and sends one of {found}; nothing was kept of it, run again later",
                self.path,
                self.file.etag
            );
            // What was there of it may have been wrong.
            bar.set_position(bar.position().saturating_sub(self.file.size));
            return self.blob(bar);
        }
        // The blob may be a link into a store that others share, or cut off: it is replaced, not written to.
        std::fs::rename(&partial, &blob).with_context(|| format!("{}: cannot be written", blob.display()))?;
        Ok(have.saturating_sub(before))
    }

    /// Appends to the partial file, whose first `have` bytes are right.
    fn go_on(&self, partial: &Path, have: &mut u64, bar: &ProgressBar) -> Result<Result<(), Trouble>> {
        let url = self.remote.url(self.client, self.commit, self.path);
        let mut answer = match self.client.try_get(&url, *have)? {
            Ok(answer) => answer,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let unwritable = || format!("{}: cannot be written", partial.display());
        let mut output = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(partial).with_context(unwritable)?;
        match answer.status {
            206 if starts_at(text(&answer.headers, "content-range"), *have) => {}
            // The whole file, whatever was asked for.
            200 | 206 | 416 => {
                bar.set_position(bar.position().saturating_sub(*have));
                *have = 0;
                if answer.status != 200 {
                    output.set_len(0).with_context(unwritable)?;
                    return Ok(Err(Trouble::cut("the hub does not go on where it was asked to")));
                }
            }
            _ => return Err(self.client.refusal(&self.remote.name, &answer)),
        }
        self.check(&answer.from_hub, answer.is_hub)?;
        output.set_len(*have).with_context(unwritable)?;
        std::io::Seek::seek(&mut output, std::io::SeekFrom::Start(*have)).with_context(unwritable)?;
        let mut input = answer.body.as_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            self.client.check_stop()?;
            let n = match input.read(&mut buffer) {
                Ok(0) if *have < self.file.size => return Ok(Err(Trouble::cut("too few bytes"))),
                Ok(0) => return Ok(Ok(())),
                Ok(n) => n,
                Err(error) => return Ok(Err(Trouble::cut(explain(&ureq::Error::from(error))))),
            };
            if *have + n as u64 > self.file.size {
                output.set_len(0).with_context(unwritable)?;
                bail!("{}: the hub sends more than the {} bytes that it lists; run again later", self.path, self.file.size);
            }
            output.write_all(&buffer[..n]).with_context(unwritable)?;
            *have += n as u64;
            bar.inc(n as u64);
        }
    }

    /// The hash of a file, if it is another one than the blob's name: SHA-256 of large files, git's SHA-1 of others. Names that are neither, of
    /// hubs that are no hubs, say nothing that could be checked.
    fn other_hash(&self, path: &Path) -> Result<Option<String>> {
        let etag = &self.file.etag;
        let is_hash = |digits: usize| etag.len() == digits && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        let found = match () {
            () if is_hash(64) => self.hash(Sha256::new(), path)?,
            () if is_hash(40) => self.hash(Sha1::new_with_prefix(format!("blob {}\0", self.file.size)), path)?,
            () => return Ok(None),
        };
        Ok((!found.eq_ignore_ascii_case(etag)).then_some(found))
    }

    fn hash(&self, mut hasher: impl Digest, path: &Path) -> Result<String> {
        let mut file = std::fs::File::open(path).with_context(|| format!("{}: cannot be read", path.display()))?;
        let mut buffer = vec![0; 1 << 20];
        loop {
            self.client.check_stop()?;
            match file.read(&mut buffer).with_context(|| format!("{}: cannot be read", path.display()))? {
                0 => return Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()),
                n => hasher.update(&buffer[..n]),
            }
        }
    }

    /// Commit, etag and size as the hub announces them are those of the listing.
    fn check(&self, headers: &ureq::http::HeaderMap, is_hub: bool) -> Result<()> {
        let commit = text(headers, "x-repo-commit").unwrap_or(self.commit);
        ensure!(commit == self.commit, "{}: asked for commit {}, the hub sends {commit}; run again later", self.path, self.commit);
        let linked = text(headers, "x-linked-etag");
        // Behind a redirect a plain etag is that of the redirect.
        let etag = linked.or_else(|| text(headers, "etag").filter(|_| is_hub));
        let etag = etag.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_lowercase());
        let is_hash = |etag: &String| etag.len() == self.file.etag.len() && etag.bytes().all(|byte| byte.is_ascii_hexdigit());
        if let Some(etag) = etag.filter(is_hash) {
            ensure!(etag == self.file.etag, "{}: the hub lists {} and sends {etag}; run again later", self.path, self.file.etag);
        }
        if let Some(size) = text(headers, "x-linked-size").and_then(|size| size.parse::<u64>().ok()) {
            ensure!(size == self.file.size, "{}: the hub lists {} bytes and sends {size}; run again later", self.path, self.file.size);
        }
        Ok(())
    }
}

/// Whether `bytes START-END/SIZE` begins at a byte.
fn starts_at(range: Option<&str>, start: u64) -> bool {
    let first = range.and_then(|range| range.trim().strip_prefix("bytes ")?.split('-').next()?.parse().ok());
    first == Some(start)
}
