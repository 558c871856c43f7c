//! Which hub is asked, with which token, and where its cache lies: by the environment variables that every tool of Hugging Face
//! honours. Nothing here asks the network. Any thread but the audio thread's.

use std::env;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use ureq::Proxy;

/// Where models come from unless `HF_ENDPOINT` says otherwise.
const ENDPOINT: &str = "https://huggingface.co";

/// A hub and the cache of what came from it.
#[derive(Clone)]
pub struct Hub {
    /// Its address, without a slash at the end.
    pub endpoint: String,
    /// What it knows the user by. It is sent to the endpoint alone.
    pub token: Option<String>,
    /// The folder with a folder for each repository.
    pub cache: PathBuf,
    /// The user wants no network (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// What tells the bytes that are free where a folder lies.
    pub free_space: fn(&Path) -> io::Result<u64>,
    pub(super) proxy: Option<Proxy>,
}

impl Hub {
    /// `HF_ENDPOINT`, `HF_TOKEN` (else the token of `hf auth login`), `HF_HUB_CACHE`, `HF_HOME`, `HF_HUB_OFFLINE`, and the proxy of
    /// `HTTPS_PROXY` (for a plain endpoint `HTTP_PROXY`) or `ALL_PROXY` unless `NO_PROXY` excludes the endpoint.
    pub fn from_env() -> Self {
        let home = text("HF_HOME").map_or_else(standard_home, PathBuf::from);
        let cache = text("HF_HUB_CACHE").or_else(|| text("HUGGINGFACE_HUB_CACHE"));
        let kept = home.join("hub");
        let endpoint = text("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let endpoint = endpoint.trim().trim_end_matches('/').to_owned();
        // Beside the standard cache, wherever the user's own is.
        let token = || hf_hub::Cache::new(kept.clone()).token();
        Self {
            token: text("HF_TOKEN").map(|token| token.trim().to_owned()).or_else(token),
            cache: cache.map_or_else(|| kept.clone(), PathBuf::from),
            offline: text("HF_HUB_OFFLINE").is_some_and(|on| is_true(&on)),
            proxy: proxy_for(&endpoint),
            free_space: |folder| fs4::available_space(folder),
            endpoint,
        }
    }

    /// One that is asked directly and without a token, whatever the environment says.
    pub fn at(endpoint: &str, cache: &Path) -> Self {
        Self {
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            token: None,
            cache: cache.to_owned(),
            offline: false,
            free_space: |folder| fs4::available_space(folder),
            proxy: None,
        }
    }

    /// The hub's host as error texts name it.
    pub fn host(&self) -> &str {
        let rest = self.endpoint.split_once("://").map_or(&*self.endpoint, |(_, rest)| rest);
        rest.split(['/', '?']).next().unwrap_or(rest)
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let token = self.token.as_ref().map(|_| "(kept to itself)");
        formatter
            .debug_struct("Hub")
            .field("endpoint", &self.endpoint)
            .field("cache", &self.cache)
            .field("token", &token)
            .finish()
    }
}

fn text(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.trim().is_empty())
}

fn is_true(value: &str) -> bool {
    matches!(value.trim().to_ascii_uppercase().as_str(), "1" | "ON" | "YES" | "TRUE")
}

fn standard_home() -> PathBuf {
    let caches = text("XDG_CACHE_HOME").map(PathBuf::from).or_else(|| env::home_dir().map(|home| home.join(".cache")));
    caches.unwrap_or_else(env::temp_dir).join("huggingface")
}

fn proxy_for(endpoint: &str) -> Option<Proxy> {
    let own: [&str; 2] = match endpoint.starts_with("https://") {
        true => ["HTTPS_PROXY", "https_proxy"],
        // A web server may be handed HTTP_PROXY by its clients; we are none, and curl's lower case comes first.
        false => ["http_proxy", "HTTP_PROXY"],
    };
    let value = own.into_iter().chain(["ALL_PROXY", "all_proxy"]).find_map(text)?;
    let proxy = Proxy::new(value.trim());
    if proxy.is_err() {
        log::warn!("the proxy of the environment is no address: it is left out");
    }
    let proxy = proxy.ok()?;
    let host = endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest);
    let host = host.split(['/', ':']).next().unwrap_or(host);
    let excluded = text("NO_PROXY").or_else(|| text("no_proxy")).unwrap_or_default();
    (!is_excluded(host, &excluded)).then_some(proxy)
}

/// By the rules of curl: names and the ends of names, with a star for all.
fn is_excluded(host: &str, list: &str) -> bool {
    let host = host.to_ascii_lowercase();
    list.split(',').map(|rule| rule.trim().to_ascii_lowercase()).filter(|rule| !rule.is_empty()).any(|rule| {
        let name = rule.trim_start_matches("*.").trim_start_matches('.');
        rule == "*" || host == name || host.ends_with(&format!(".{name}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_printed() {
        let hub = Hub { token: Some("hf_secret".to_owned()), ..Hub::at("http://127.0.0.1:1/", Path::new("/tmp")) };
        assert!(!format!("{hub:?}").contains("hf_secret"));
        assert_eq!((hub.endpoint.as_str(), hub.host()), ("http://127.0.0.1:1", "127.0.0.1:1"));
    }

    #[test]
    fn no_proxy_follows_names_and_their_ends() {
        for (host, list, expected) in [
            ("huggingface.co", "localhost,huggingface.co", true),
            ("cdn.huggingface.co", ".huggingface.co", true),
            ("cdn.huggingface.co", "*.huggingface.co", true),
            ("nothuggingface.co", "huggingface.co", false),
            ("huggingface.co", "*", true),
            ("huggingface.co", "", false),
        ] {
            assert_eq!(is_excluded(host, list), expected, "{host} {list}");
        }
    }
}
