//! OpenAI's API (<https://platform.openai.com/docs/api-reference>), as far as Ollama mirrors it: a file per endpoint, with
//! `envelope` for what wraps every chat and completion answer. Uses the canonical types of `generation` and `json`.

pub(super) mod chat;
mod chat_answer;
mod completion_answer;
pub(super) mod completions;
pub(super) mod embeddings;
mod envelope;
pub(super) mod extras;
pub(super) mod messages;
mod models;
pub(super) mod rerank;
pub(super) mod sampling;
mod tool_choice;

use bytes::{BufMut, BytesMut};

pub use models::{model, models};

use super::json;
use crate::error::{Error, Kind};

/// Appends `{"error":{"message","type","param","code"}}`.
pub(super) fn error(error: &Error, out: &mut BytesMut) {
    out.put_slice(b"{\"error\":{\"message\":");
    json::string(out, &error.to_string());
    out.put_slice(b",\"type\":\"");
    out.put_slice(match error.kind() {
        Kind::InvalidRequest => b"invalid_request_error",
        Kind::NotFound => b"not_found_error",
        Kind::Permission => b"permission_error",
        Kind::Api => b"api_error",
    });
    out.put_slice(b"\",\"param\":");
    json::value(out, &error.param());
    out.put_slice(b",\"code\":\"");
    out.put_slice(error.code().as_bytes());
    out.put_slice(b"\"}}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::{Dialect, error_body};

    #[test]
    fn errors_have_a_type_for_their_status_and_a_code() {
        let body =
            |error: Error| -> Value { serde_json::from_slice(&error_body(Dialect::OpenAi, &error)).unwrap() };
        assert_eq!(
            body(Error::invalid_param("n", "n is wrong")),
            json!({"error": {"message": "n is wrong", "type": "invalid_request_error", "param": "n",
                "code": "invalid_request"}})
        );
        assert_eq!(
            body(Error::ModelNotFound { name: "x".into() }),
            json!({"error": {"message": "model 'x' not found", "type": "not_found_error", "param": null,
                "code": "model_not_found"}})
        );
        assert_eq!(body(Error::ForbiddenOrigin)["error"]["type"], "permission_error");
        assert_eq!(body(Error::ShuttingDown)["error"]["type"], "api_error");
    }
}
