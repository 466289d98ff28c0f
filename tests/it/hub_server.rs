//! A small hub on loopback: branches, tags, listings in pages, files behind a redirect to a second host, and whatever can go wrong.

use sha1::Sha1;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

pub type Files = BTreeMap<String, Vec<u8>>;

/// One repository.
#[derive(Default, Clone)]
pub struct Repo {
    pub branches: BTreeMap<String, String>,
    pub tags: BTreeMap<String, String>,
    pub commits: BTreeMap<String, Files>,
    /// Commits that lead to `main` with their titles, the newest first.
    pub history: Vec<(String, String)>,
    /// Files need the token.
    pub gated: bool,
    /// Where the API redirects to.
    pub renamed: Option<String>,
}

impl Repo {
    /// Puts files on a branch; returns the commit.
    pub fn commit(&mut self, branch: &str, files: Files) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(branch.as_bytes());
        for (path, bytes) in &files {
            hasher.update(path.as_bytes()).update(bytes);
        }
        let commit = hasher.finalize().to_hex()[..40].to_owned();
        self.commits.insert(commit.clone(), files);
        self.branches.insert(branch.to_owned(), commit.clone());
        commit
    }
}

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    pub cdn: bool,
    pub path: String,
    pub range: Option<String>,
    pub token: Option<String>,
    /// Bytes of the file that were sent.
    pub sent: usize,
    pub at: std::time::SystemTime,
}

/// An answer that is given instead of the right one, a number of times.
pub struct Fault {
    /// Part of the path.
    pub path: &'static str,
    pub times: usize,
    pub what: What,
}

pub enum What {
    Status(u16, &'static str),
    /// The connection ends after so many bytes of the file.
    Cut(usize),
    /// The last byte of the file is another one.
    Other,
}

#[derive(Default)]
pub struct State {
    pub repos: BTreeMap<String, Repo>,
    pub faults: VecDeque<Fault>,
    pub log: Vec<Request>,
    /// Files are sent as slowly as this, in bytes per second.
    pub rate: Option<f64>,
    /// Entries of a listing that no honest hub would send.
    pub hostile: Option<String>,
    /// Where every listing says that it goes on.
    pub endless: Option<Endless>,
}

#[derive(Clone, Copy)]
pub enum Endless {
    /// At two pages in turn.
    Circle,
    /// At a page that nobody has seen yet.
    Onwards,
    /// At the second host.
    Abroad,
}

pub struct Server {
    pub url: String,
    pub state: Arc<Mutex<State>>,
}

const TOKEN: &str = "hf_thesecrettoken";

pub fn etag(path: &str, bytes: &[u8]) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    if is_large(path) {
        return hex(&Sha256::digest(bytes));
    }
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors") || path.ends_with(".bin")
}

/// The files of a folder.
pub fn files(folder: &Path) -> Files {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file());
    entries.map(|path| (path.file_name().unwrap().to_string_lossy().into_owned(), std::fs::read(&path).unwrap())).collect()
}

impl Server {
    pub fn start(repos: &[(&str, Repo)]) -> Self {
        let state = State { repos: repos.iter().map(|(name, repo)| ((*name).to_owned(), repo.clone())).collect(), ..State::default() };
        let state = Arc::new(Mutex::new(state));
        let (hub, cdn) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
        let (url, cdn_url) = (format!("http://{}", hub.local_addr().unwrap()), format!("http://{}", cdn.local_addr().unwrap()));
        for (listener, is_cdn) in [(hub, false), (cdn, true)] {
            let (state, urls) = (Arc::clone(&state), (url.clone(), cdn_url.clone()));
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let (state, urls) = (Arc::clone(&state), urls.clone());
                    std::thread::spawn(move || serve(stream, is_cdn, &state, &urls));
                }
            });
        }
        Self { url, state }
    }

    pub fn fault(&self, path: &'static str, times: usize, what: What) {
        self.state.lock().unwrap().faults.push_back(Fault { path, times, what });
    }

    /// Requests so far, which are forgotten.
    pub fn take_log(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().unwrap().log)
    }

    pub fn repo(&self, name: &str, change: impl FnOnce(&mut Repo)) {
        change(self.state.lock().unwrap().repos.get_mut(name).unwrap());
    }
}

struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

fn reply(status: u16, headers: &[(&str, &str)], body: impl Into<Vec<u8>>) -> Reply {
    let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Reply { status, headers, body: body.into() }
}

fn serve(mut stream: TcpStream, cdn: bool, state: &Mutex<State>, urls: &(String, String)) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok).take_while(|line| !line.is_empty());
    let Some(first) = lines.next() else { return };
    let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))).collect();
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let (range, token) = (header("range"), header("authorization"));
    let mut locked = state.lock().unwrap();
    let fault = locked.faults.iter_mut().find(|fault| path.contains(fault.path) && fault.times > 0);
    let what = fault.map(|fault| {
        fault.times -= 1;
        &fault.what
    });
    let (mut cut, mut answer, mut other) = (None, None, false);
    match what {
        Some(What::Status(status, header)) => {
            let header: Vec<(&str, &str)> = header.split_once(": ").into_iter().collect();
            answer = Some(reply(*status, &header, ""));
        }
        // Only where the bytes are.
        Some(What::Cut(after)) => cut = Some(*after),
        Some(What::Other) => other = true,
        None => {}
    }
    let answer = answer.unwrap_or_else(|| {
        if cdn && !path.starts_with("/cdn/") {
            reply(200, &[], "[]")
        } else if cdn {
            bytes(&locked, path.trim_start_matches("/cdn/"), range.as_deref())
        } else {
            hub(&locked, &path, range.as_deref(), token.as_deref(), urls)
        }
    });
    let Reply { status, mut headers, mut body } = answer;
    headers.push(("Content-Length".to_owned(), body.len().to_string()));
    let is_file = [200, 206].contains(&status) && (cdn || path.contains("/resolve/"));
    if let Some(after) = cut.filter(|_| is_file) {
        body.truncate(after);
    }
    if let Some(last) = body.last_mut().filter(|_| other && is_file) {
        *last ^= 1;
    }
    let rate = locked.rate.filter(|_| is_file);
    let sent = if is_file { body.len() } else { 0 };
    locked.log.push(Request { cdn, path, range, token, sent, at: std::time::SystemTime::now() });
    drop(locked);
    let mut head = format!("HTTP/1.1 {status} Status\r\nConnection: close\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let _ = stream.write_all(format!("{head}\r\n").as_bytes());
    let start = Instant::now();
    let mut done = 0;
    for piece in body.chunks(1 << 14) {
        if stream.write_all(piece).is_err() {
            return;
        }
        done += piece.len();
        if let Some(rate) = rate {
            let due = Duration::from_secs_f64(done as f64 / rate);
            std::thread::sleep(due.saturating_sub(start.elapsed()));
        }
    }
}

fn hub(state: &State, path: &str, range: Option<&str>, token: Option<&str>, urls: &(String, String)) -> Reply {
    let error = |status, code: &str| reply(status, &[("X-Error-Code", code), ("X-Error-Message", "see the page")], "{}");
    let has_token = token == Some(&format!("Bearer {TOKEN}"));
    let (route, query) = path.split_once('?').unwrap_or((path, ""));
    let parts: Vec<&str> = route.trim_start_matches('/').split('/').collect();
    let (name, rest) = match parts[..] {
        ["api", "models", owner, name, ref rest @ ..] => (format!("{owner}/{name}"), rest),
        [owner, name, ref rest @ ..] => (format!("{owner}/{name}"), rest),
        _ => return error(404, "RepoNotFound"),
    };
    let Some(repo) = state.repos.get(&name) else { return error(if has_token { 404 } else { 401 }, "RepoNotFound") };
    if let Some(new) = &repo.renamed {
        return reply(307, &[("Location", &path.replacen(&name, new, 1))], "");
    }
    match *rest {
        ["refs"] => {
            let list = |names: &BTreeMap<String, String>, kind: &str| {
                let entry = |(name, commit): (&String, &String)| {
                    format!("{{\"name\":\"{name}\",\"ref\":\"refs/{kind}/{name}\",\"targetCommit\":\"{commit}\"}}")
                };
                names.iter().map(entry).collect::<Vec<_>>().join(",")
            };
            let (tags, branches) = (list(&repo.tags, "tags"), list(&repo.branches, "heads"));
            reply(200, &[], format!("{{\"tags\":[{tags}],\"branches\":[{branches}],\"converts\":[]}}"))
        }
        ["revision", revision] => match repo.commits.get_key_value(revision) {
            Some((commit, _)) => reply(200, &[], format!("{{\"sha\":\"{commit}\"}}")),
            None => error(404, "RevisionNotFound"),
        },
        // Two on a page.
        ["commits", commit] => {
            let Some(from) = repo.history.iter().position(|(id, _)| id == commit) else { return error(404, "RevisionNotFound") };
            let page: usize = query.split('&').find_map(|pair| pair.strip_prefix("p=")?.parse().ok()).unwrap_or(0);
            let led: Vec<&(String, String)> = repo.history[from..].iter().skip(2 * page).take(2).collect();
            let entries: Vec<_> = led.iter().map(|(id, title)| serde_json::json!({"id": id, "title": title, "authors": []})).collect();
            let link = format!("<{}{route}?limit=2&p={}>; rel=\"next\"", urls.0, page + 1);
            let headers: &[_] = if repo.history[from..].len() > 2 * (page + 1) { &[("Link", link.as_str())] } else { &[] };
            reply(200, headers, serde_json::Value::from(entries).to_string())
        }
        ["tree", commit] => {
            let Some(files) = repo.commits.get(commit) else { return error(404, "RevisionNotFound") };
            // Three entries on a page.
            let page: usize = query.split('&').find_map(|pair| pair.strip_prefix("cursor=")?.parse().ok()).unwrap_or(0);
            let entry = |(path, bytes): (&String, &Vec<u8>)| {
                let (etag, size) = (etag(path, bytes), bytes.len());
                if is_large(path) {
                    let pointer = "0".repeat(40);
                    format!(
                        "{{\"type\":\"file\",\"oid\":\"{pointer}\",\"size\":{size},\"path\":\"{path}\",\
                         \"lfs\":{{\"oid\":\"{etag}\",\"size\":{size},\"pointerSize\":134}}}}"
                    )
                } else {
                    format!("{{\"type\":\"file\",\"oid\":\"{etag}\",\"size\":{size},\"path\":\"{path}\"}}")
                }
            };
            let mut entries: Vec<String> = files.iter().skip(3 * page).take(3).map(entry).collect();
            entries.extend(state.hostile.clone().filter(|_| page == 0));
            let link = format!("<{}{route}?recursive=true&cursor={}>; rel=\"next\"", urls.0, page + 1);
            let link = match state.endless {
                Some(Endless::Circle) => format!("<{}{route}?cursor={}>; rel=\"next\"", urls.0, 90 + (page + 1) % 2),
                Some(Endless::Onwards) => link,
                Some(Endless::Abroad) => format!("<{}{route}>; rel=\"next\"", urls.1),
                None => link,
            };
            let goes_on = files.len() > 3 * (page + 1) || state.endless.is_some();
            let headers: &[_] = if goes_on { &[("Link", link.as_str())] } else { &[] };
            reply(200, headers, format!("[{}]", entries.join(",")))
        }
        ["resolve", commit, ref file @ ..] => {
            let file = file.join("/");
            if repo.gated && !has_token {
                return error(if token.is_some() { 403 } else { 401 }, "GatedRepo");
            }
            let Some(content) = repo.commits.get(commit).and_then(|files| files.get(&file)) else { return error(404, "EntryNotFound") };
            let (etag, size) = (format!("\"{}\"", etag(&file, content)), content.len().to_string());
            if !is_large(&file) {
                let mut answer = bytes(state, &format!("{name}/{commit}/{file}"), range);
                answer.headers.extend([("X-Repo-Commit".to_owned(), commit.to_owned()), ("ETag".to_owned(), etag)]);
                return answer;
            }
            let location = format!("{}/cdn/{name}/{commit}/{file}?Signature=signed", urls.1);
            reply(
                302,
                &[
                    ("Location", &location),
                    ("X-Repo-Commit", commit),
                    ("X-Linked-ETag", &etag),
                    ("X-Linked-Size", &size),
                    ("ETag", "\"of the redirect\""),
                ],
                "",
            )
        }
        _ => error(404, "EntryNotFound"),
    }
}

/// `OWNER/NAME/COMMIT/PATH`, or a range of it.
fn bytes(state: &State, path: &str, range: Option<&str>) -> Reply {
    let path = path.split('?').next().unwrap();
    let parts: Vec<&str> = path.splitn(4, '/').collect();
    let content = &state.repos[&format!("{}/{}", parts[0], parts[1])].commits[parts[2]][parts[3]];
    let start: Option<usize> = range.and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match start {
        Some(start) if start >= content.len() => reply(416, &[], ""),
        Some(start) => {
            let header = format!("bytes {start}-{}/{}", content.len() - 1, content.len());
            reply(206, &[("Content-Range", &header)], &content[start..])
        }
        None => reply(200, &[], content.as_slice()),
    }
}
