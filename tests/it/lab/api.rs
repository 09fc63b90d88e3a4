//! What a sound node says, in the API it speaks.

use serde_json::{Value, json};

/// The API that a node speaks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Api {
    Ollama,
    OpenAi,
}

impl Api {
    pub const ALL: [Self; 2] = [Self::Ollama, Self::OpenAi];

    /// `protocol` of its entry in `nodes`.
    pub fn protocol(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
        }
    }

    /// Whether requests to `path` ask for a generation.
    pub fn generates(self, path: &str) -> bool {
        let paths = match self {
            Self::Ollama => ["/api/chat", "/api/generate"],
            Self::OpenAi => ["/v1/chat/completions", "/v1/completions"],
        };
        paths.contains(&path)
    }

    /// What it answers to a question about itself; `None`: it has no such path.
    pub fn about(self, path: &str) -> Option<Value> {
        match (self, path) {
            (Self::Ollama, "/api/tags") => {
                Some(json!({"models": [{"name": "m:latest", "model": "m:latest"}]}))
            }
            (Self::Ollama, "/api/ps") => Some(json!({"models": [{"name": "m:latest", "model": "m:latest"}]})),
            (Self::Ollama, "/api/version") => Some(json!({"version": "0.30.0"})),
            (Self::OpenAi, "/v1/models") => {
                Some(json!({"object": "list", "data": [{"id": "m", "object": "model"}]}))
            }
            _ => None,
        }
    }

    /// The pieces of an answer: one per token, then the end.
    pub fn pieces(self, path: &str, tokens: &[String]) -> Vec<String> {
        let end = |count: usize| match self {
            Self::Ollama => format!(
                "{}\n",
                json!({"model": "m", "response": "", "message": {"role": "assistant", "content": ""}, "done": true,
                    "done_reason": "stop", "prompt_eval_count": 3, "eval_count": count})
            ),
            Self::OpenAi => {
                let choice = match path {
                    "/v1/chat/completions" => json!({"index": 0, "delta": {}, "finish_reason": "stop"}),
                    _ => json!({"index": 0, "text": "", "finish_reason": "stop"}),
                };
                let last = json!({"id": "x", "model": "m", "choices": [choice]});
                let usage = json!({"id": "x", "model": "m", "choices": [],
                    "usage": {"prompt_tokens": 3, "completion_tokens": count, "total_tokens": 3 + count}});
                format!("data: {last}\n\ndata: {usage}\n\ndata: [DONE]\n\n")
            }
        };
        let piece = |token: &String| match (self, path) {
            (Self::Ollama, "/api/chat") => {
                format!(
                    "{}\n",
                    json!({"model": "m", "message": {"role": "assistant", "content": token}, "done": false})
                )
            }
            (Self::Ollama, _) => format!("{}\n", json!({"model": "m", "response": token, "done": false})),
            (Self::OpenAi, "/v1/chat/completions") => {
                let choice = json!({"index": 0, "delta": {"content": token}, "finish_reason": null});
                format!("data: {}\n\n", json!({"id": "x", "model": "m", "choices": [choice]}))
            }
            (Self::OpenAi, _) => {
                let choice = json!({"index": 0, "text": token, "finish_reason": null});
                format!("data: {}\n\n", json!({"id": "x", "model": "m", "choices": [choice]}))
            }
        };
        tokens.iter().map(piece).chain([end(tokens.len())]).collect()
    }

    /// `Content-Type` of an answer.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Ollama => "application/x-ndjson",
            Self::OpenAi => "text/event-stream",
        }
    }

    /// What it says of a model that it does not have.
    pub fn not_found(self) -> String {
        match self {
            Self::Ollama => json!({"error": "model 'm' not found"}).to_string(),
            Self::OpenAi => {
                json!({"error": {"message": "The model `m` does not exist.", "type": "NotFoundError", "code": 404}})
                    .to_string()
            }
        }
    }
}
