//! [`Endpoint`]: where a node listens, as `url` in the config says it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// Where a node listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `unix:/path/of/socket`.
    Unix(PathBuf),
    /// `http://host:port/prefix` or `https://host:port/prefix`.
    Tcp(Host),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => {
                write!(f, "{}://{host}{}", if host.tls { "https" } else { "http" }, self.prefix())
            }
        }
    }
}

/// A server on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// A name or an address, without the brackets of IPv6.
    pub name: String,
    /// By default 80, and 443 with TLS.
    pub port: u16,
    /// Whether it is `https`.
    pub tls: bool,
    /// Put before every path; empty or beginning with `/`, and not ending with one.
    pub prefix: String,
    /// Whether what DNS has for the name are nodes of their own: `dns+http`, `dns+https`.
    pub each: Option<Each>,
    /// The one address of the name that is meant, where each is a node.
    pub address: Option<SocketAddr>,
}

/// What DNS is asked for the nodes behind a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Each {
    /// Its addresses (A, AAAA); the URL has their port.
    Address,
    /// Its services (SRV), which have ports of their own; the URL has none.
    Service,
}

/// What a URL must look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected http://host:port, https://host:port, unix:/path/of/socket or dns+http://host:port")]
pub struct NoEndpoint;

impl Endpoint {
    /// Reads a URL.
    pub fn parse(url: &str) -> Result<Self, NoEndpoint> {
        if let Some(path) = url.strip_prefix("unix:") {
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(NoEndpoint) };
        }
        let (each, plain) = url.strip_prefix("dns+").map_or((false, url), |rest| (true, rest));
        let url: http::Uri = plain.parse().map_err(|_| NoEndpoint)?;
        let tls = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(NoEndpoint),
        };
        let authority = url.authority().ok_or(NoEndpoint)?;
        if url.query().is_some() || authority.as_str().contains('@') {
            return Err(NoEndpoint);
        }
        let name = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // `http` takes an empty port, and one that is no number, for none.
        let has_port = authority.as_str().len() > authority.host().len();
        let port = authority.port_u16().or((!has_port).then_some(if tls { 443 } else { 80 }));
        let port = port.filter(|port| *port > 0).ok_or(NoEndpoint)?;
        if name.is_empty() {
            return Err(NoEndpoint);
        }
        let prefix = url.path().trim_end_matches('/').to_owned();
        let each = each.then_some(if has_port { Each::Address } else { Each::Service });
        Ok(Self::Tcp(Host { name, port, tls, prefix, each, address: None }))
    }

    /// The path of a unix socket.
    pub fn socket(&self) -> Option<&Path> {
        match self {
            Self::Unix(path) => Some(path),
            Self::Tcp(_) => None,
        }
    }

    /// What is put before every path.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Unix(_) => "",
            Self::Tcp(host) => &host.prefix,
        }
    }
}

/// What belongs into the `Host` field.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.name.contains(':') {
            write!(f, "[{}]", self.name)?;
        } else {
            f.write_str(&self.name)?;
        }
        match (self.port, self.tls) {
            (80, false) | (443, true) => Ok(()),
            (port, _) => write!(f, ":{port}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(url: &str) -> Host {
        match Endpoint::parse(url) {
            Ok(Endpoint::Tcp(host)) => host,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn a_url_names_a_socket_or_a_server() {
        assert_eq!(Endpoint::parse("unix:/a/b"), Ok(Endpoint::Unix("/a/b".into())));
        let plain = host("http://box");
        assert_eq!(
            (plain.name.as_str(), plain.port, plain.tls, plain.prefix.as_str()),
            ("box", 80, false, "")
        );
        let full = host("https://[::1]:8443/llm/v2/");
        assert_eq!(
            (full.name.as_str(), full.port, full.tls, full.prefix.as_str()),
            ("::1", 8443, true, "/llm/v2")
        );
        assert_eq!((host("dns+http://box:1").each, host("http://box:1").each), (Some(Each::Address), None));
        assert_eq!(host("dns+https://box").each, Some(Each::Service));
        assert_eq!(host("https://box").port, 443);
    }

    #[test]
    fn the_host_field_has_the_port_unless_it_is_the_usual_one() {
        for (url, field) in [
            ("http://box:80", "box"),
            ("https://box:80", "box:80"),
            ("https://box", "box"),
            ("http://[::1]:8080/x", "[::1]:8080"),
        ] {
            assert_eq!(host(url).to_string(), field);
        }
    }

    #[test]
    fn what_is_no_url_of_a_node_is_refused() {
        for url in [
            "",
            "box:8080",
            "unix:relative",
            "ftp://box",
            "http://",
            "http://box:0",
            "http://box:99999",
            "http://box:x",
            "http://user:word@box",
            "http://box/?a=b",
            "http:///path",
            "dns+unix:/a",
            "http://a b",
        ] {
            assert_eq!(Endpoint::parse(url), Err(NoEndpoint), "{url}");
        }
    }
}
