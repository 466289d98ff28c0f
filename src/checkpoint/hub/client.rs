//! GET requests to the hub: redirects, who may see the token, waiting and trying again.
//!
//! The clients of `hf-hub` are not used, only its layout of the cache (see `cache`). 0.5 cannot list branches or folders, sends the token to the
//! host that a file is redirected to, and appends whatever comes to a partial file. 1.0 does not hash what it downloads, begins again where
//! it was cut off, takes an error's page for the file, follows a `Link` to another host with the token, waits for a stalled server without
//! end, does not heed `Retry-After`, and brings 185 crates.

use super::environment::Environment;
use crate::console::check_interrupt;
use anyhow::{Context, Result, bail, ensure};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use ureq::http::HeaderMap;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// Tries without progress before giving up: 0.5, 1, 2, 4 and 8 s apart unless the hub says otherwise.
const TRIES: u32 = 6;
/// The longest wait that the hub may ask for; its windows are five minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(330);

/// The hub over HTTP.
pub struct Client {
    agent: Agent,
    pub endpoint: String,
    authorization: Option<String>,
    /// Set when nobody waits for an answer any more.
    pub stop: AtomicBool,
}

/// What the hub, or the host that it redirects to, answered.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    /// `X-Error-Code`, `X-Repo-Commit` and the like are believed only when the hub itself says them.
    pub from_hub: HeaderMap,
    /// The last URL on the hub.
    pub url: String,
    /// Whether the answer is the hub's own.
    pub is_hub: bool,
    pub body: Body,
}

/// Counts tries that brought nothing.
#[derive(Default)]
pub struct Patience {
    tries: u32,
}

/// Why a try failed that may succeed later.
pub struct Trouble {
    reason: String,
    /// How long the hub wants to be left alone.
    wait: Option<Duration>,
    is_limit: bool,
    is_unreachable: bool,
}

impl Trouble {
    /// A connection that ended early.
    pub fn cut(reason: impl std::fmt::Display) -> Self {
        Self { reason: format!("the connection was cut ({reason})"), wait: None, is_limit: false, is_unreachable: false }
    }
}

impl Client {
    /// # Errors
    /// A token that cannot be sent, or certificates that cannot be read.
    pub fn new(environment: &Environment) -> Result<Self> {
        let mut tls = TlsConfig::builder();
        if let Some(path) = &environment.certificates {
            let pem = std::fs::read(path).with_context(|| format!("{}: certificates (SSL_CERT_FILE) cannot be read", path.display()))?;
            let certificates: Vec<Certificate> =
                parse_pem(&pem).filter_map(|item| if let Ok(PemItem::Certificate(found)) = item { Some(found) } else { None }).collect();
            ensure!(!certificates.is_empty(), "{}: expected certificates in PEM format (SSL_CERT_FILE)", path.display());
            tls = tls.root_certs(RootCerts::from(certificates));
        }
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("selftrace/", env!("CARGO_PKG_VERSION")))
            .timeout_resolve(Some(Duration::from_secs(20)))
            .timeout_connect(Some(Duration::from_secs(20)))
            .timeout_recv_response(Some(Duration::from_secs(60)))
            .timeout_per_read(Some(Duration::from_secs(30)));
        Ok(Self {
            agent: config.build().into(),
            endpoint: environment.endpoint.clone(),
            authorization: environment.authorization()?,
            stop: AtomicBool::new(false),
        })
    }

    /// An error once somebody wants to stop.
    pub fn check_stop(&self) -> Result<()> {
        check_interrupt()?;
        ensure!(!self.stop.load(Ordering::Relaxed), "stopped");
        Ok(())
    }

    /// One try, following redirects; `from` is the first byte that is wanted. The token goes to the endpoint and to no other host.
    ///
    /// # Errors
    /// Outside, what trying again does not change; inside, what it may.
    pub fn try_get(&self, url: &str, from: u64) -> Result<Result<Answer, Trouble>> {
        let mut url = url.to_owned();
        let mut from_hub = HeaderMap::new();
        let mut hub_url = url.clone();
        for _ in 0..10 {
            let is_hub = origin(&url) == origin(&self.endpoint);
            let mut request = self.agent.get(&url);
            if let Some(authorization) = self.authorization.as_ref().filter(|_| is_hub) {
                request = request.header("authorization", authorization);
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let (parts, body) = match request.call() {
                Ok(response) => response.into_parts(),
                Err(ureq::Error::BadUri(_) | ureq::Error::Http(_)) => bail!("{} is not a URL; check HF_ENDPOINT", shown(&url)),
                Err(error) => {
                    if let Some(problem) = distrust(&error) {
                        bail!(
                            "cannot reach {}: {problem}; where a proxy looks into connections, set SSL_CERT_FILE to a file with its certificate \
                             (on Debian /etc/ssl/certs/ca-certificates.crt)",
                            site(&url)
                        );
                    }
                    let reason = format!("cannot reach {}: {}", site(&url), explain(&error));
                    return Ok(Err(Trouble { reason, wait: None, is_limit: false, is_unreachable: true }));
                }
            };
            if is_hub {
                from_hub.extend(parts.headers.clone());
                hub_url.clone_from(&url);
            }
            let status = parts.status.as_u16();
            if let (301 | 302 | 303 | 307 | 308, Some(location)) = (status, text(&parts.headers, "location")) {
                url = join(&url, location)?;
                // What has been read to its end can be used for the next request; if it fails, so will that.
                let _ = body.into_with_config().limit(1 << 16).read_to_vec();
                continue;
            }
            let is_limit = status == 429;
            // A refusal by a file host means that its signed address has run out; the hub gives a new one.
            if is_limit || status == 408 || status >= 500 || (!is_hub && (400..500).contains(&status) && status != 416) {
                let reason = format!("{} answered {status}", site(&url));
                return Ok(Err(Trouble { reason, wait: wait(&parts.headers), is_limit, is_unreachable: false }));
            }
            return Ok(Ok(Answer { status, headers: parts.headers, from_hub, url: hub_url, is_hub, body }));
        }
        bail!("{}: more than 10 redirects", shown(&hub_url))
    }

    /// Tries until there is an answer.
    ///
    /// # Errors
    /// No answer after [`TRIES`] tries, or a stop.
    pub fn get(&self, url: &str) -> Result<Answer> {
        let mut patience = Patience::default();
        loop {
            match self.try_get(url, 0)? {
                Ok(answer) => return Ok(answer),
                Err(trouble) => self.pause(&mut patience, trouble)?,
            }
        }
    }

    /// A JSON answer of the API, whatever its status: `Err` inside holds a refusal.
    ///
    /// # Errors
    /// As [`Client::get`]; also a body that is not JSON.
    pub fn json(&self, url: &str) -> Result<Result<(serde_json::Value, Answer), Answer>> {
        let mut patience = Patience::default();
        loop {
            let mut answer = self.get(url)?;
            if answer.status != 200 {
                return Ok(Err(answer));
            }
            match answer.body.with_config().limit(1 << 28).read_to_vec() {
                Ok(bytes) => {
                    let json = serde_json::from_slice(&bytes).with_context(|| format!("{}: the answer is not JSON", shown(url)))?;
                    return Ok(Ok((json, answer)));
                }
                Err(error) => self.pause(&mut patience, Trouble::cut(explain(&error)))?,
            }
        }
    }

    /// Waits before the next try.
    ///
    /// # Errors
    /// Patience is at its end, or a stop.
    pub fn pause(&self, patience: &mut Patience, trouble: Trouble) -> Result<()> {
        patience.tries += 1;
        let Trouble { reason, wait, is_limit, is_unreachable } = trouble;
        let too_long = wait.is_some_and(|wait| wait > LONGEST_WAIT);
        if patience.tries >= TRIES || too_long {
            let asked = wait.map_or_else(String::new, |wait| format!(" and asks to wait {} s", wait.as_secs()));
            if is_limit {
                let more = if self.authorization.is_none() { ", or set HF_TOKEN, with which more requests are allowed" } else { "" };
                bail!("the hub limits the rate of requests (429){asked}; run again later{more}");
            }
            let offline =
                if is_unreachable { "check the network, or set HF_HUB_OFFLINE=1 to use the cache alone" } else { "run again later" };
            bail!("{reason}, {} times in a row; {offline}", patience.tries);
        }
        // Processes that were started together should not ask again together.
        let spread = 1.0 + f64::from(std::process::id() % 64) / 256.0;
        let wait = wait.unwrap_or_else(|| Duration::from_secs_f64(0.5 * spread * f64::from(1 << (patience.tries - 1))));
        tracing::warn!("{reason}; trying again in {:.1} s", wait.as_secs_f64());
        let end = Instant::now() + wait;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.check_stop()?;
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
        Ok(())
    }

    /// Whether requests to the endpoint carry a token.
    pub fn has_token(&self) -> bool {
        self.authorization.is_some()
    }
}

/// Why a certificate is not trusted, if that is what went wrong.
pub fn distrust(error: &ureq::Error) -> Option<String> {
    let text = match error {
        ureq::Error::Rustls(error) => error.to_string(),
        ureq::Error::Io(error) if error.kind() == std::io::ErrorKind::InvalidData => error.get_ref()?.to_string(),
        _ => return None,
    };
    text.contains("certificate").then_some(text)
}

/// The kind of a transport error in a few words; it never holds a header or a query.
pub fn explain(error: &ureq::Error) -> String {
    match error {
        ureq::Error::Io(error) => error.kind().to_string(),
        ureq::Error::Timeout(_) => "timed out".to_owned(),
        ureq::Error::HostNotFound => "host not found".to_owned(),
        ureq::Error::Rustls(error) => error.to_string(),
        ureq::Error::Protocol(_) => "not an HTTP answer".to_owned(),
        _ => "connection failed".to_owned(),
    }
}

/// A header as text.
pub fn text<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    headers.get(name)?.to_str().ok()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    // Whatever stands before an @ is not the host.
    let host = host.rsplit('@').next().unwrap_or_default();
    let port = match (host.rsplit(':').next().is_some_and(|port| port.parse::<u16>().is_ok()), scheme) {
        (true, _) => "",
        (false, "https") => ":443",
        (false, _) => ":80",
    };
    format!("{scheme}://{host}{port}").to_lowercase()
}

/// Where a `Location` leads. An encrypted connection is not left for an open one.
fn join(url: &str, location: &str) -> Result<String> {
    let target = if location.starts_with("http://") || location.starts_with("https://") {
        location.to_owned()
    } else {
        ensure!(location.starts_with('/'), "{}: redirected to {:?}, expected a URL", shown(url), shown(location));
        let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
        format!("{scheme}://{}{location}", rest.split('/').next().unwrap_or_default())
    };
    let downgrade = url.starts_with("https://") && !target.starts_with("https://");
    ensure!(!downgrade, "{}: redirected from https to {}, which is not encrypted", shown(url), site(&target));
    Ok(target)
}

/// A URL without its query, in which file hosts carry signatures, and without a password.
pub fn shown(url: &str) -> String {
    let plain = url.split(['?', '#']).next().unwrap_or_default();
    match plain.split_once("://") {
        Some((scheme, rest)) => format!("{scheme}://{}", rest.rsplit_once('@').map_or(rest, |(_, rest)| rest)),
        None => plain.to_owned(),
    }
}

/// A URL's origin as people write it.
fn site(url: &str) -> String {
    let origin = origin(url);
    let plain = origin.strip_prefix("https").and_then(|_| origin.strip_suffix(":443")).or_else(|| origin.strip_suffix(":80"));
    plain.unwrap_or(&origin).to_owned()
}

/// `Retry-After` in seconds or as a date, or `t=` of a `RateLimit` header.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let retry = text(headers, "retry-after").and_then(|value| {
        let date = || {
            let left = chrono::DateTime::parse_from_rfc2822(value).ok()?.timestamp() as u64;
            let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
            Some(left.saturating_sub(now))
        };
        value.trim().parse().ok().or_else(date)
    });
    let limit = || text(headers, "ratelimit")?.split(';').find_map(|part| part.trim().strip_prefix("t=")?.parse().ok());
    retry.or_else(limit).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_belongs_to_one_origin() {
        let same = |a, b| origin(a) == origin(b);
        assert!(same("https://huggingface.co/a?b", "https://HuggingFace.co:443"));
        assert!(!same("https://huggingface.co.evil/a", "https://huggingface.co"));
        assert!(!same("https://huggingface.co@evil/a", "https://huggingface.co"));
        assert!(!same("http://huggingface.co/a", "https://huggingface.co"));
        assert!(!same("http://localhost:1/a", "http://localhost:2"));
        assert_eq!((site("https://hub/a").as_str(), site("http://hub:8080/a").as_str()), ("https://hub", "http://hub:8080"));
        assert_eq!(join("https://hub/a/b", "/c?d").unwrap(), "https://hub/c?d");
        assert!(join("https://hub/a", "http://hub/a").is_err() && join("https://hub/a", "ftp://x").is_err());
        assert_eq!(shown("https://user:secret@host/path?Signature=1"), "https://host/path");
    }

    #[test]
    fn waits_are_read_in_all_their_spellings() {
        let headers = |name: &'static str, value: &str| HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]);
        let seconds = |headers| wait(&headers).map(|wait: Duration| wait.as_secs());
        assert_eq!(seconds(headers("retry-after", "7")), Some(7));
        assert_eq!(seconds(headers("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")), Some(0));
        assert_eq!(seconds(headers("ratelimit", "\"api\";r=0;t=55")), Some(55));
        assert_eq!(seconds(headers("retry-after", "soon")), None);
    }
}
