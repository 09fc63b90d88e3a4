//! Why a remote server refused: its status, and the words of its error in any of the shapes that servers have.

use serde_json::Value;

use crate::generation::{Failure, FailureCode};

/// Longest text of an error that is passed on.
const LONGEST: usize = 2000;

/// The failure that an answer with `status` and `body` stands for.
pub(super) fn failure(status: u16, body: &[u8]) -> Failure {
    let value: Option<Value> = serde_json::from_slice(body).ok();
    let told = value.as_ref().and_then(message);
    let message = match &told {
        Some(message) if !message.trim().is_empty() => message.clone(),
        _ => format!("the node answered {status} without a reason"),
    };
    match status {
        401 | 403 => Failure {
            // Whoever asks has no part in it, and another node may have another key.
            code: FailureCode::Unavailable,
            message: format!("the node did not accept this proxy's key ({status})"),
        },
        _ => Failure { code: code(status, value.as_ref(), &message), message },
    }
}

/// The failure that an error in the middle of an answer stands for.
pub(super) fn in_band(error: &Value) -> Failure {
    let status = error.get("code").and_then(Value::as_u64).and_then(|code| u16::try_from(code).ok());
    let wrapped = Value::Object([("error".to_owned(), error.clone())].into_iter().collect());
    let message = message(&wrapped).unwrap_or_else(|| "the node failed without a reason".to_owned());
    Failure {
        code: code(status.filter(|code| *code >= 400).unwrap_or(500), Some(&wrapped), &message),
        message,
    }
}

/// The words: `{"error":{"message"}}`, `{"error":"…"}`, `{"message"}` or FastAPI's `{"detail"}`.
fn message(body: &Value) -> Option<String> {
    let error = body.get("error").unwrap_or(body);
    let found = [error.get("message"), Some(error), body.get("message"), body.get("detail")];
    let mut texts = found.into_iter().flatten().filter_map(|value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Array(items) if !items.is_empty() => Some(Value::Array(items.clone()).to_string()),
        _ => None,
    });
    texts.next().map(|text| text.chars().take(LONGEST).collect())
}

fn code(status: u16, body: Option<&Value>, message: &str) -> FailureCode {
    let word = |key| body.and_then(|body| body.get("error")?.get(key)?.as_str()).unwrap_or_default();
    let is_long = |text: &str| {
        let text = text.to_ascii_lowercase();
        text.contains("context_length")
            || text.contains("context length")
            || text.contains("context_size")
            || text.contains("context size")
            || text.contains("maximum context")
    };
    match status {
        _ if status < 500 && [word("code"), word("type"), message].into_iter().any(is_long) => {
            FailureCode::ContextLength
        }
        // The node lacks the model, is busy, or is behind something that is.
        404 | 408 | 425 | 429 | 502 | 503 | 504 => FailureCode::Unavailable,
        508 => FailureCode::Loop,
        405 | 501 => FailureCode::Unsupported,
        400..=499 => FailureCode::InvalidRequest,
        _ => FailureCode::Internal,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_shape_of_error_is_read() {
        for (body, message) in [
            (json!({"error": {"message": "m", "type": "t"}}), "m"),
            (json!({"error": "m"}), "m"),
            (json!({"object": "error", "message": "m", "code": 400}), "m"),
            (json!({"detail": "m"}), "m"),
            (json!({"detail": [{"msg": "x"}]}), "[{\"msg\":\"x\"}]"),
            (json!({}), "the node answered 400 without a reason"),
            (json!({"error": " "}), "the node answered 400 without a reason"),
        ] {
            let told = failure(400, body.to_string().as_bytes());
            assert_eq!((told.code, told.message.as_str()), (FailureCode::InvalidRequest, message));
        }
        assert!(failure(500, b"<html>").message.contains("500"));
    }

    #[test]
    fn the_status_decides_whether_another_node_may_do_better() {
        let code = |status, body: Value| failure(status, body.to_string().as_bytes()).code;
        assert_eq!(code(404, json!({"error": "model 'm' not found"})), FailureCode::Unavailable);
        assert_eq!(code(401, json!({"error": "secret words"})), FailureCode::Unavailable);
        assert_eq!(code(429, json!({})), FailureCode::Unavailable);
        assert_eq!(code(422, json!({})), FailureCode::InvalidRequest);
        assert_eq!(code(501, json!({})), FailureCode::Unsupported);
        assert_eq!(code(500, json!({})), FailureCode::Internal);
        assert_eq!(code(508, json!({})), FailureCode::Loop);
        let long = json!({"error": {"message": "too many tokens", "type": "exceed_context_size_error"}});
        assert_eq!(code(400, long), FailureCode::ContextLength);
        let long = json!({"message": "This model's maximum context length is 512 tokens."});
        assert_eq!(code(400, long), FailureCode::ContextLength);
    }

    #[test]
    fn an_error_in_the_middle_of_an_answer_is_the_nodes_fault_unless_it_says_otherwise() {
        assert_eq!(in_band(&json!("m")), Failure { code: FailureCode::Internal, message: "m".into() });
        let told = in_band(&json!({"message": "m", "code": 503, "type": "unavailable_error"}));
        assert_eq!(told.code, FailureCode::Unavailable);
    }
}
