//! Ollama's native API (<https://github.com/ollama/ollama/blob/main/docs/api.md>): a file per endpoint for parsing, and
//! `answer` for what generate and chat send back. Uses the canonical types of `generation`, `units` and `json`.

mod answer;
pub(super) mod chat;
pub(super) mod embed;
pub(super) mod generate;
mod options;
mod request;
mod show;
mod tags;

use bytes::{BufMut, BytesMut};

pub use show::{Show, parse_show, show};
pub use tags::{ps, tags};

use super::json;
use crate::error::Error;

/// The version of Ollama's API that is mirrored. Clients switch features on by it and parse it as three numbers.
pub const OLLAMA_VERSION: &str = "0.12.3";

/// `GET /api/version`
pub fn version() -> Vec<u8> {
    format!("{{\"version\":\"{OLLAMA_VERSION}\"}}").into_bytes()
}

/// Appends `{"error":"…"}`.
pub(super) fn error(error: &Error, out: &mut BytesMut) {
    out.put_slice(b"{\"error\":");
    json::string(out, &error.to_string());
    out.put_u8(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Dialect, error_body};

    #[test]
    fn the_version_is_three_numbers() {
        let numbers: Vec<_> = OLLAMA_VERSION.split('.').map(str::parse::<u32>).collect();
        assert!(numbers.len() == 3 && numbers.iter().all(Result::is_ok));
        assert_eq!(version(), format!("{{\"version\":\"{OLLAMA_VERSION}\"}}").into_bytes());
    }

    #[test]
    fn errors_are_one_string() {
        let body = error_body(Dialect::Ollama, &Error::ModelNotFound { name: "a<b".into() });
        assert_eq!(body, br#"{"error":"model 'a\u003cb' not found"}"#);
    }
}
