//! The `passthrough` section.

use http::Uri;
use serde::{Deserialize, Serialize};

/// The server that gets every path that Arriero does not answer itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassthroughConfig {
    /// `http://host:port`.
    pub url: String,
}

impl PassthroughConfig {
    /// The host and port to connect to; `None` if the URL is not of the form `http://host:port`.
    pub fn authority(&self) -> Option<(String, u16)> {
        let uri: Uri = self.url.parse().ok()?;
        let is_bare = uri.scheme_str() == Some("http")
            && uri.path() == "/"
            && uri.query().is_none()
            && !uri.authority()?.as_str().contains('@');
        let host = uri.host()?.trim_start_matches('[').trim_end_matches(']');
        is_bare.then(|| (host.to_owned(), uri.port_u16().unwrap_or(80)))
    }

    /// What is wrong, with the key it is wrong with.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        match self.authority() {
            Some(_) => Vec::new(),
            None => vec![("url", "expected http://host:port".to_owned())],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_http_server_is_accepted() {
        let authority = |url: &str| PassthroughConfig { url: url.to_owned() }.authority();
        assert_eq!(authority("http://127.0.0.1:11436"), Some(("127.0.0.1".to_owned(), 11436)));
        assert_eq!(authority("http://[::1]:1/"), Some(("::1".to_owned(), 1)));
        assert_eq!(authority("http://ollama"), Some(("ollama".to_owned(), 80)));
        for url in ["", "ollama:80", "https://a", "http://a/b", "http://a?b", "http://u:p@a"] {
            assert_eq!(authority(url), None, "{url}");
        }
    }
}
