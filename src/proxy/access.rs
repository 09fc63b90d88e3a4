//! Who may call: CORS and the `Host` check, as Ollama has them
//! (<https://github.com/ollama/ollama/blob/main/server/routes.go>, `allowedHostsMiddleware`).

use std::collections::HashSet;
use std::net::IpAddr;

use http::HeaderMap;
use http::header::{HOST, ORIGIN};

use crate::error::Error;

/// Origins that are allowed whatever the config says: pages of this machine, and desktop and editor shells.
const SCHEMES: [&str; 5] = ["app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"];
const LOCAL_HOSTS: [&str; 3] = ["localhost", "127.0.0.1", "0.0.0.0"];
const LOCAL_DOMAINS: [&str; 3] = [".localhost", ".local", ".internal"];

/// What a preflight is told.
pub(super) const METHODS: &str = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS";
/// What a preflight is told.
pub(super) const HEADERS: &str = "Authorization,Content-Type,User-Agent,Accept,X-Requested-With,OpenAI-Beta,\
    x-stainless-arch,x-stainless-async,x-stainless-custom-poll-interval,x-stainless-helper-method,x-stainless-lang,\
    x-stainless-os,x-stainless-package-version,x-stainless-poll-helper,x-stainless-retry-count,x-stainless-runtime,\
    x-stainless-runtime-version,x-stainless-timeout,Last-Event-ID,X-Arriero-Event-Ids,X-Arriero-Coalesce";

/// The rules of one listener.
pub struct Access {
    origins: Vec<String>,
    /// Bound to loopback: the `Host` header must name this machine, which stops DNS rebinding.
    checks_host: bool,
    host_name: String,
    /// Of this machine's interfaces when the process started.
    addresses: HashSet<IpAddr>,
}

impl Access {
    /// `origins` are allowed besides the built-in ones; a `*` in one matches any run of characters.
    pub fn new(origins: Vec<String>, listen: IpAddr) -> Self {
        let host_name = nix::unistd::gethostname().map(|name| name.to_string_lossy().to_lowercase());
        Self {
            origins,
            checks_host: listen.is_loopback(),
            host_name: host_name.unwrap_or_default(),
            addresses: addresses(),
        }
    }

    /// Checks the headers; returns the origin to echo, if one was sent that is not the server's own.
    pub fn check(&self, headers: &HeaderMap) -> Result<Option<String>, Error> {
        let host = headers.get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
        if self.checks_host && !host.is_empty() && !self.is_local(host_of(host)) {
            return Err(Error::ForbiddenHost);
        }
        let Some(origin) = headers.get(ORIGIN) else { return Ok(None) };
        let origin = origin.to_str().map_err(|_| Error::ForbiddenOrigin)?;
        if origin.is_empty() || is_same_origin(origin, host) {
            return Ok(None);
        }
        if self.allows(origin) { Ok(Some(origin.to_owned())) } else { Err(Error::ForbiddenOrigin) }
    }

    fn is_local(&self, host: &str) -> bool {
        if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
            let is_private = match address {
                IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_unspecified(),
                IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unspecified(),
            };
            return is_private || self.addresses.contains(&address);
        }
        let ends_with = |domain: &&str| {
            let end = host.len().checked_sub(domain.len()).and_then(|at| host.get(at..));
            end.is_some_and(|end| end.eq_ignore_ascii_case(domain))
        };
        host.eq_ignore_ascii_case("localhost")
            || host.eq_ignore_ascii_case(&self.host_name)
            || LOCAL_DOMAINS.iter().any(ends_with)
    }

    fn allows(&self, origin: &str) -> bool {
        let rest = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        SCHEMES.iter().any(|scheme| origin.starts_with(scheme))
            || rest.is_some_and(|host| LOCAL_HOSTS.contains(&host_of(host)))
            || self.origins.iter().any(|pattern| matches(pattern, origin))
    }
}

/// The addresses of this machine's interfaces; none if they cannot be had.
fn addresses() -> HashSet<IpAddr> {
    let interfaces = nix::ifaddrs::getifaddrs().into_iter().flatten();
    interfaces.filter_map(|interface| address(&interface.address?)).collect()
}

fn address(socket: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    let v4 = || socket.as_sockaddr_in().map(|v4| v4.ip().into());
    v4().or_else(|| socket.as_sockaddr_in6().map(|v6| v6.ip().into()))
}

/// The host of `host:port`, `[v6]:port` or `host`.
fn host_of(host: &str) -> &str {
    if host.starts_with('[') {
        return host.find(']').map_or(host, |end| &host[..=end]);
    }
    host.rsplit_once(':').map_or(host, |(name, _port)| name)
}

fn is_same_origin(origin: &str, host: &str) -> bool {
    origin.split_once("://").is_some_and(|(_scheme, rest)| rest == host)
}

/// `*` in `pattern` stands for any run of characters.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(host: &str, origin: Option<&str>) -> Result<Option<String>, Error> {
        let access = Access::new(vec!["https://*.example.com".into()], IpAddr::from([127, 0, 0, 1]));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        if let Some(origin) = origin {
            headers.insert(ORIGIN, origin.parse().unwrap());
        }
        access.check(&headers)
    }

    #[test]
    fn hosts_of_this_machine_pass_and_others_do_not() {
        for host in
            ["localhost:11434", "127.0.0.1", "[::1]:11434", "10.0.0.7:80", "box.local", "a.localhost:1"]
        {
            assert_eq!(check(host, None), Ok(None), "{host}");
        }
        for host in ["example.com", "evil.localhost.com:11434", "8.8.8.8", "localhost.evil.org"] {
            assert_eq!(check(host, None), Err(Error::ForbiddenHost), "{host}");
        }
    }

    #[test]
    fn public_addresses_of_this_machine_pass() {
        let mut access = Access::new(vec![], IpAddr::from([127, 0, 0, 1]));
        assert!(access.addresses.contains(&IpAddr::from([127, 0, 0, 1])), "the loopback interface");
        access.addresses.insert(IpAddr::from([203, 0, 113, 7]));
        assert!(access.is_local("203.0.113.7") && !access.is_local("203.0.113.8"));
    }

    #[test]
    fn local_pages_shells_and_configured_origins_are_echoed() {
        for origin in
            ["http://localhost:3000", "https://127.0.0.1", "app://obsidian.md", "https://a.b.example.com"]
        {
            assert_eq!(check("localhost:11434", Some(origin)), Ok(Some(origin.into())));
        }
        assert_eq!(
            check("localhost:11434", Some("http://localhost:11434")),
            Ok(None),
            "the server's own page"
        );
    }

    #[test]
    fn foreign_origins_are_refused() {
        for origin in ["https://evil.org", "http://localhost.evil.org", "https://example.com", "null"] {
            assert_eq!(check("localhost", Some(origin)), Err(Error::ForbiddenOrigin), "{origin}");
        }
    }

    #[test]
    fn stars_match_any_run() {
        assert!(matches("*", "anything"));
        assert!(matches("http://*.lan:*", "http://box.lan:80"));
        assert!(!matches("http://*.lan", "http://box.lan:80"));
        assert!(matches("http://exact", "http://exact"));
        assert!(!matches("http://exact", "http://exactly"));
    }

    #[test]
    fn a_listener_that_faces_the_network_does_not_check_hosts() {
        let access = Access::new(vec![], IpAddr::from([0, 0, 0, 0]));
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "models.example.com".parse().unwrap());
        assert_eq!(access.check(&headers), Ok(None));
    }
}
