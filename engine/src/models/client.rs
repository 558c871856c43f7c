//! The questions that a hub is asked, and what can go wrong with them in words. A work's thread.
//!
//! The requests are ours and not `hf-hub`'s: its downloads cannot be paused or told to end, wait without limit, follow redirects
//! with what headers their library likes, and compare no checksum. What is taken from it is the layout of the cache and the token
//! (see [`super::snapshot`] and [`super::hub`]); its library for HTTP, `ureq`, is the one used here, with rustls and the system's
//! own certificates. No thread of it stays.

use std::io;
use std::sync::Arc;

use serde::Deserialize;
use ureq::http::{Response, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector, RustlsConnector, SocksConnector};
use ureq::{Agent, Body, Error, Timeout};

use super::Hub;
use super::snapshot::is_file_name;
use super::wire::{ANSWER, NotFound, Patience, PatientConnector, PatientResolver};

/// Largest description of a repository that is read.
const MOST_DESCRIPTION: u64 = 4 << 20;
/// Redirects that are followed.
const MOST_REDIRECTS: usize = 8;

/// Why a hub did not give what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// The user said so.
    #[error("HF_HUB_OFFLINE is set, so nothing is asked of any server; unset it to download")]
    Offline,
    #[error("HF_ENDPOINT is {endpoint}, which is no address of a hub; it should begin with https:// or http://")]
    Address { endpoint: String },
    #[error(
        "no address of {host} was found ({reason}): this machine seems to be offline, or its name server does not answer; check \
         the connection (and HF_ENDPOINT, if it is set), then download again"
    )]
    Lookup { host: String, reason: String },
    #[error("{host} refuses the connection; check HF_ENDPOINT, the proxy and the firewall, then download again")]
    Refused { host: String },
    #[error(
        "{host} cannot be reached ({reason}): this machine seems to be offline; check the connection, then download again"
    )]
    Unreachable { host: String, reason: String },
    #[error(
        "{host} has not answered for {} seconds; check the connection, then download again: it goes on where it stopped",
        ANSWER.as_secs()
    )]
    Silent { host: String },
    #[error(
        "no safe connection to {host} ({reason}); check this machine's clock and its certificates (ca-certificates)"
    )]
    Unsafe { host: String, reason: String },
    #[error("the proxy does not let us through to {host} ({reason}); check HTTPS_PROXY and NO_PROXY")]
    Proxy { host: String, reason: String },
    #[error("{host} broke the connection off ({reason}); download again: it goes on where it stopped")]
    Broken { host: String, reason: String },
    #[error(
        "{host} wants to know who asks for {what} (answer {status}); make a token at {host}/settings/tokens, set HF_TOKEN to it, \
         then download again"
    )]
    NoToken { host: String, what: String, status: u16 },
    #[error(
        "{host} does not let this token have {what} (answer {status}); check HF_TOKEN, or ask for access on the model's page"
    )]
    WrongToken { host: String, what: String, status: u16 },
    #[error("{host} has no {what} (answer 404); check HF_ENDPOINT: a mirror may not have this model")]
    Missing { host: String, what: String },
    #[error("{host} has too many questions to answer (429); wait a few minutes, then download again")]
    Busy { host: String },
    #[error("{host} has a problem of its own (answer {status}); try again later: it goes on where it stopped")]
    Server { host: String, status: u16 },
    #[error("{host} answered {status} when asked for {what}; check HF_ENDPOINT and the proxy")]
    Status { host: String, what: String, status: u16 },
    #[error(
        "{host} answered, but not as a hub does ({reason}); the network's login page may be in the way, or HF_ENDPOINT leads elsewhere"
    )]
    NoHub { host: String, reason: String },
}

impl Failure {
    /// Whether the same question may be answered a moment later.
    pub fn may_pass(&self) -> bool {
        use Failure::{Broken, Lookup, Refused, Silent, Unreachable};
        matches!(self, Broken { .. } | Lookup { .. } | Refused { .. } | Silent { .. } | Unreachable { .. })
    }
}

/// A repository at one revision.
pub(super) struct Description {
    /// 40 hexadecimal digits.
    pub commit: String,
    /// Names of its files, those that are plain names.
    pub files: Vec<String>,
}

/// What bytes are to be like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Name of the file.
    pub file: String,
    /// Checksum, 40 (git) or 64 (SHA-256) hexadecimal digits; also the blob's name.
    pub etag: String,
    pub size: u64,
}

#[derive(Deserialize)]
struct Described {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
}

/// Asks one hub for one repository.
pub(super) struct Client<'a> {
    hub: &'a Hub,
    repository: &'a str,
    endpoint: Uri,
    agent: Agent,
    pub patience: Arc<Patience>,
}

impl<'a> Client<'a> {
    pub fn new(hub: &'a Hub, repository: &'a str, patience: Arc<Patience>) -> Result<Self, Failure> {
        if hub.offline {
            return Err(Failure::Offline);
        }
        let host = hub.host().to_owned();
        let no_address = || Failure::Address { endpoint: hub.endpoint.clone() };
        let endpoint: Uri = hub.endpoint.parse().map_err(|_| no_address())?;
        if !matches!(endpoint.scheme_str(), Some("http" | "https")) || endpoint.authority().is_none() {
            return Err(no_address());
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .proxy(hub.proxy.clone())
            .user_agent(concat!("tiller/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls(&host, endpoint.scheme_str() == Some("https"))?)
            .build();
        let connector =
            ().chain(SocksConnector::default())
                .chain(ConnectProxyConnector::default())
                .chain(PatientConnector::new(patience.clone()))
                .chain(RustlsConnector::default());
        let agent = Agent::with_parts(config, connector, PatientResolver(patience.clone()));
        Ok(Self { hub, repository, endpoint, agent, patience })
    }

    /// Which files the newest revision has.
    pub fn describe(&self) -> Result<Description, Failure> {
        let url = format!("{}/api/models/{}/revision/main", self.hub.endpoint, self.repository);
        self.patience.renew();
        let answer = self.follow("GET", url, None, self.repository)?.0;
        let bytes = answer.into_body().into_with_config().limit(MOST_DESCRIPTION).read_to_vec();
        let bytes = bytes.map_err(|error| self.failure(error))?;
        let no_hub = |reason: &str| Failure::NoHub { host: self.host(), reason: reason.to_owned() };
        let described: Described = serde_json::from_slice(&bytes).map_err(|_| no_hub("its description is none"))?;
        if !is_hex(&described.sha, &[40]) {
            return Err(no_hub("its revision has no name"));
        }
        let files = described.siblings.into_iter().map(|sibling| sibling.rfilename);
        Ok(Description {
            commit: described.sha.to_ascii_lowercase(),
            files: files.filter(|name| is_file_name(name)).collect(),
        })
    }

    /// Size and checksum of a file.
    pub fn look_at(&self, commit: &str, file: &str) -> Result<Wanted, Failure> {
        self.patience.renew();
        // A file in git's own store is redirected within the hub; one in the large store says all before it is.
        let (answer, _) = self.follow("HEAD", self.url(commit, file), None, file)?;
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::trim);
        let plain = |text: &str| text.trim_start_matches("W/").trim_matches('"').to_ascii_lowercase();
        let etag = text("x-linked-etag").or_else(|| text("etag")).map(plain);
        let size = text("x-linked-size").or_else(|| text("content-length")).and_then(|size| size.parse().ok());
        let no_hub = |what: &str| Failure::NoHub { host: self.host(), reason: format!("{file} comes without {what}") };
        let etag = etag.filter(|etag| is_hex(etag, &[40, 64])).ok_or_else(|| no_hub("a checksum"))?;
        if text("x-repo-commit").is_some_and(|own| !own.eq_ignore_ascii_case(commit)) {
            return Err(no_hub("the revision that was asked for"));
        }
        Ok(Wanted { file: file.to_owned(), etag, size: size.ok_or_else(|| no_hub("a size"))? })
    }

    /// The bytes of a file from `start` on; the body, and where in the file it begins.
    pub fn read(&self, commit: &str, wanted: &Wanted, start: u64) -> Result<(Body, u64), Failure> {
        let (answer, _) = self.follow("GET", self.url(commit, &wanted.file), Some(start), &wanted.file)?;
        let begins = match answer.status().as_u16() {
            206 => {
                let range = answer.headers().get(header::CONTENT_RANGE).and_then(|range| range.to_str().ok());
                range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok())
            }
            // It does not know how to begin in the middle.
            _ => Some(0),
        };
        let other = || Failure::NoHub {
            host: self.host(),
            reason: format!("other bytes of {} than were asked for", wanted.file),
        };
        let begins = begins.filter(|begins| *begins == start || *begins == 0).ok_or_else(other)?;
        Ok((answer.into_body(), begins))
    }

    /// What a broken connection means.
    pub fn failure(&self, error: Error) -> Failure {
        let host = self.host();
        match error {
            Error::Timeout(Timeout::Resolve) => Failure::Lookup { host, reason: "no name server answers".to_owned() },
            Error::Timeout(_) => Failure::Silent { host },
            Error::HostNotFound => Failure::Lookup { host, reason: "it has none".to_owned() },
            Error::Other(own) if own.is::<NotFound>() => {
                let reason = own.to_string();
                // "failed to lookup address information: Name or service not known"
                let reason = reason.rsplit(": ").next().unwrap_or(&reason).to_owned();
                Failure::Lookup { host, reason }
            }
            Error::Io(error) => match error.kind() {
                io::ErrorKind::ConnectionRefused => Failure::Refused { host },
                io::ErrorKind::TimedOut => Failure::Silent { host },
                io::ErrorKind::NetworkUnreachable | io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkDown => {
                    Failure::Unreachable { host, reason: error.to_string() }
                }
                _ => match error.downcast::<Error>() {
                    Ok(inner) => self.failure(inner),
                    Err(error) => Failure::Broken { host, reason: error.to_string() },
                },
            },
            Error::ConnectProxyFailed(reason) => Failure::Proxy { host, reason },
            Error::Tls(reason) => Failure::Unsafe { host, reason: reason.to_owned() },
            Error::Rustls(error) => Failure::Unsafe { host, reason: error.to_string() },
            Error::BodyExceedsLimit(_) | Error::LargeResponseHeader(..) => {
                Failure::NoHub { host, reason: "its answer is too long".to_owned() }
            }
            other => Failure::Broken { host, reason: other.to_string() },
        }
    }

    /// The hub as error texts name it.
    pub fn host(&self) -> String {
        match &self.hub.proxy {
            Some(proxy) => format!("{} (through the proxy {}:{})", self.hub.host(), proxy.host(), proxy.port()),
            None => self.hub.host().to_owned(),
        }
    }

    fn url(&self, commit: &str, file: &str) -> String {
        format!("{}/{}/resolve/{commit}/{file}", self.hub.endpoint, self.repository)
    }

    /// Asks, and follows redirects: with the token to the hub itself and to nobody else, and never from https to http. A HEAD ends
    /// at the first that leads elsewhere, since the hub has said by then what there is to say.
    fn follow(
        &self,
        method: &str,
        url: String,
        start: Option<u64>,
        what: &str,
    ) -> Result<(Response<Body>, Uri), Failure> {
        let no_hub = |reason: &str| Failure::NoHub { host: self.host(), reason: reason.to_owned() };
        let mut at: Uri = url.parse().map_err(|_| no_hub("its address is none"))?;
        for _ in 0..=MOST_REDIRECTS {
            let mut request = if method == "HEAD" { self.agent.head(&at) } else { self.agent.get(&at) };
            // Sizes and checksums are those of the file, not of what a server makes of it.
            request = request.header(header::ACCEPT_ENCODING, "identity");
            if let Some(token) = self.hub.token.as_ref().filter(|_| is_same_origin(&at, &self.endpoint)) {
                request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
            }
            if let Some(start) = start.filter(|start| *start > 0) {
                request = request.header(header::RANGE, format!("bytes={start}-"));
            }
            let answer = request.call().map_err(|error| self.failure(error))?;
            let status = answer.status();
            if !status.is_redirection() {
                return if status.is_success() { Ok((answer, at)) } else { Err(self.refusal(status.as_u16(), what)) };
            }
            let to = answer.headers().get(header::LOCATION).and_then(|to| to.to_str().ok());
            let to = to.and_then(|to| joined(&at, to)).ok_or_else(|| no_hub("it leads nowhere"))?;
            if at.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
                return Err(no_hub("it leads to a connection that is not safe"));
            }
            if method == "HEAD" && answer.headers().contains_key("x-linked-etag") {
                return Ok((answer, at));
            }
            at = to;
        }
        Err(no_hub("it leads in circles"))
    }

    fn refusal(&self, status: u16, what: &str) -> Failure {
        let (host, what) = (
            self.host(),
            if what == self.repository { what.to_owned() } else { format!("{what} of {}", self.repository) },
        );
        match status {
            401 | 403 if self.hub.token.is_none() => Failure::NoToken { host, what, status },
            401 | 403 => Failure::WrongToken { host, what, status },
            404 => Failure::Missing { host, what },
            429 => Failure::Busy { host },
            500.. => Failure::Server { host, status },
            _ => Failure::Status { host, what, status },
        }
    }
}

fn is_hex(text: &str, lengths: &[usize]) -> bool {
    lengths.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme() == b.scheme() && host(a) == host(b) && port(a) == port(b)
}

/// Where a redirect leads: another address, or another path of this one.
fn joined(at: &Uri, to: &str) -> Option<Uri> {
    let (scheme, authority) = (at.scheme_str()?, at.authority()?);
    let whole = match to {
        to if to.starts_with("http://") || to.starts_with("https://") => to.to_owned(),
        to if to.starts_with("//") => format!("{scheme}:{to}"),
        to if to.starts_with('/') => format!("{scheme}://{authority}{to}"),
        _ => return None,
    };
    whole.parse().ok().filter(|uri: &Uri| uri.authority().is_some())
}

/// The system's certificates, where any are needed.
fn tls(host: &str, needed: bool) -> Result<TlsConfig, Failure> {
    let found = rustls_native_certs::load_native_certs();
    let certificates: Vec<Certificate<'static>> =
        found.certs.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    if needed && certificates.is_empty() {
        let reason = "this machine has no certificates of anybody to trust".to_owned();
        return Err(Failure::Unsafe { host: host.to_owned(), reason });
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(certificates)))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_lead_where_they_say() {
        let at: Uri = "https://hub.example/a/b".parse().expect("an address");
        let to = |text: &str| joined(&at, text).map(|uri| uri.to_string());
        assert_eq!(to("/c?d=e").as_deref(), Some("https://hub.example/c?d=e"));
        assert_eq!(to("//cdn.example/c").as_deref(), Some("https://cdn.example/c"));
        assert_eq!(to("http://cdn.example/c").as_deref(), Some("http://cdn.example/c"));
        assert_eq!((to("c"), to("file:///etc/passwd"), to("")), (None, None, None));
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| is_same_origin(&a.parse().expect("one"), &b.parse().expect("other"));
        assert!(same("https://hub.example/a", "https://HUB.example:443/b"));
        assert!(!same("https://hub.example/a", "http://hub.example/a"));
        assert!(!same("http://127.0.0.1:1/a", "http://127.0.0.1:2/a"));
        assert!(!same("https://hub.example/a", "https://cdn.hub.example/a"));
    }
}
