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
use crate::generation::Loading;

/// Appends `{"error":{"message","type","param","code"}}`. How far its model is on its way stands in it where that is told: what is beside
/// it OpenAI's clients do not hand on.
pub(super) fn error(error: &Error, loading: Option<&Loading>, out: &mut BytesMut) {
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
    out.put_u8(b'"');
    json::optional(out, "loading", loading);
    out.put_slice(b"}}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::{Dialect, error_body, refusal_body};

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

    #[test]
    fn how_far_a_model_is_on_its_way_stands_in_the_error() {
        let loading = Loading { state: crate::generation::LoadingState::Waiting, progress: 0.0, eta: None };
        for dialect in [Dialect::OpenAi, Dialect::LlamaServer] {
            let plain: Value = serde_json::from_slice(&error_body(dialect, &Error::ShuttingDown)).unwrap();
            let body = refusal_body(dialect, &Error::ShuttingDown, Some(&loading));
            let mut body: Value = serde_json::from_slice(&body).unwrap();
            let member = body["error"].as_object_mut().unwrap().remove("loading").unwrap();
            assert_eq!(member, json!({"state": "waiting", "progress": 0.0, "eta_seconds": null}));
            assert_eq!(body, plain);
        }
    }
}
