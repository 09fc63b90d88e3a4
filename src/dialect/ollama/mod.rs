//! Ollama's native API (<https://github.com/ollama/ollama/blob/main/docs/api.md>): a file per endpoint for parsing, and
//! [`answer`] for what generate and chat send back. Uses the canonical types of `generation`, `units` and `json`.

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
