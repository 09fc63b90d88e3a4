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
use crate::generation::Loading;

/// The version of Ollama's API that is mirrored. Clients switch features on by it and parse it as three numbers.
pub const OLLAMA_VERSION: &str = "0.12.3";

/// `GET /api/version`
pub fn version() -> Vec<u8> {
    format!("{{\"version\":\"{OLLAMA_VERSION}\"}}").into_bytes()
}

/// Appends `{"error":"…"}`, with how far its model is on its way beside the text, where that is told.
pub(super) fn error(error: &Error, loading: Option<&Loading>, out: &mut BytesMut) {
    out.put_slice(b"{\"error\":");
    json::string(out, &error.to_string());
    json::optional(out, "loading", loading);
    out.put_u8(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::{Dialect, error_body, refusal_body};

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

    #[test]
    fn how_far_a_model_is_on_its_way_is_one_more_member() {
        let error =
            Error::NoRoom { model: "m".into(), reason: "x".into(), eta: std::time::Duration::from_secs(2) };
        let body: serde_json::Value =
            serde_json::from_slice(&refusal_body(Dialect::Ollama, &error, error.loading().as_ref())).unwrap();
        assert_eq!(
            body["loading"],
            serde_json::json!({"state": "no_room", "progress": 0.0, "eta_seconds": 2.0})
        );
        assert_eq!(body["error"], error.to_string());
        assert_eq!(body.as_object().unwrap().len(), 2);
    }
}
