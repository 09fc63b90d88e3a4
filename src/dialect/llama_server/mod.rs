//! What llama-server has beside the APIs it mirrors (<https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md>): a
//! file per endpoint. Its server has one model; here a field `model` says which, and may be left out where there is but one.

pub(super) mod apply_template;
pub(super) mod completion;
mod completion_answer;
pub(super) mod detokenize;
pub(super) mod infill;
mod sampling;
pub(super) mod tokenize;

use bytes::{BufMut, BytesMut};

use super::{Call, Question, Render, Reply, Work, json};
use crate::error::{Error, Kind};
use crate::generation::Loading;

/// A call that asks `question` of a model.
fn ask(model: Option<String>, question: Question, render: impl Render + 'static) -> Call {
    Call {
        model: model.unwrap_or_default(),
        keep_alive: None,
        work: Work::Ask(question),
        needs: Vec::new(),
        objection: None,
        stream: false,
        render: Box::new(render),
    }
}

/// Renders a text as the only field of an object; this is its name.
struct TextField(&'static str);

impl Render for TextField {
    fn reply(&mut self, reply: &Reply) -> Vec<u8> {
        let Reply::Text(text) = reply else { return Vec::new() };
        let mut out = BytesMut::from(&b"{"[..]);
        json::string(&mut out, self.0);
        out.put_u8(b':');
        json::string(&mut out, &text.text);
        out.put_u8(b'}');
        out.into()
    }
}

fn required(field: &'static str) -> Error {
    Error::invalid_param(field, format!("{field} is required"))
}

/// Appends `{"error":{"code","message","type"}}`; the code is the status. How far its model is on its way stands in it where that is told.
pub(super) fn error(error: &Error, loading: Option<&Loading>, out: &mut BytesMut) {
    out.put_slice(b"{\"error\":{\"code\":");
    json::number(out, error.status().as_u16());
    out.put_slice(b",\"message\":");
    json::string(out, &error.to_string());
    out.put_slice(b",\"type\":\"");
    out.put_slice(match (error.kind(), error.status().as_u16()) {
        (Kind::InvalidRequest, _) => b"invalid_request_error",
        (Kind::NotFound, _) => b"not_found_error",
        (Kind::Permission, _) => b"permission_error",
        (Kind::Api, 503) => b"unavailable_error",
        (Kind::Api, _) => b"server_error",
    });
    out.put_u8(b'"');
    json::optional(out, "loading", loading);
    out.put_slice(b"}}");
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::{Dialect, error_body};

    #[test]
    fn errors_have_the_status_as_code() {
        let body = |error: Error| -> Value {
            serde_json::from_slice(&error_body(Dialect::LlamaServer, &error)).unwrap()
        };
        let expected = json!({"error": {"code": 400, "message": "content is required", "type": "invalid_request_error"}});
        assert_eq!(body(required("content")), expected);
        assert_eq!(body(Error::ShuttingDown)["error"]["type"], "unavailable_error");
    }
}
