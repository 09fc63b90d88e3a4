//! [`Endpoint`]: the routes of every dialect.

use http::Method;

use crate::error::Error;

/// Which API a request speaks. Decides the shape of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// Ollama's native API, and everything that is no other dialect's.
    Ollama,
    /// OpenAI's API below `/v1`.
    OpenAi,
    /// llama-server's own endpoints.
    LlamaServer,
}

impl Dialect {
    /// The dialect of a path, known or not.
    pub fn of(path: &str) -> Self {
        match path {
            "/v1" => Self::OpenAi,
            "/completion" | "/completions" | "/infill" => Self::LlamaServer,
            "/tokenize" | "/detokenize" | "/apply-template" => Self::LlamaServer,
            _ if path.starts_with("/v1/") => Self::OpenAi,
            _ => Self::Ollama,
        }
    }

    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
            Self::LlamaServer => "llama_server",
        }
    }
}

/// A route that this process answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// `GET|HEAD /`
    Root,
    /// `GET|HEAD /api/version`
    Version,
    /// `GET|HEAD /health`, as llama-server has it.
    Health,
    /// `GET|HEAD /api/tags`
    Tags,
    /// `GET /api/ps`
    Ps,
    /// `POST /api/show`
    Show,
    /// `POST /api/generate`
    Generate,
    /// `POST /api/chat`
    Chat,
    /// `POST /api/embed`
    Embed,
    /// `POST /api/embeddings`, the older form.
    LegacyEmbeddings,
    /// `GET /v1/models`
    Models,
    /// `GET /v1/models/{id}`
    ModelById(String),
    /// `POST /v1/chat/completions`
    ChatCompletions,
    /// `POST /v1/completions`
    Completions,
    /// `POST /v1/embeddings`
    Embeddings,
    /// `POST /v1/rerank`
    Rerank,
    /// `POST /completion`, or `/completions`
    Completion,
    /// `POST /infill`
    Infill,
    /// `POST /tokenize`
    Tokenize,
    /// `POST /detokenize`
    Detokenize,
    /// `POST /apply-template`
    ApplyTemplate,
    /// A route of the mirrored API that is not built: pull, push, create, copy, delete, blobs…
    Unbuilt,
}

impl Endpoint {
    /// The endpoint of a request line (`path` without query); 404 and 405 as errors.
    pub fn of(method: &Method, path: &str) -> Result<Self, Error> {
        const GET: &[&str] = &["GET"];
        const READ: &[&str] = &["GET", "HEAD"];
        const POST: &[&str] = &["POST"];
        let (endpoint, methods) = match path {
            "/" => (Self::Root, READ),
            "/api/version" => (Self::Version, READ),
            "/health" => (Self::Health, READ),
            "/api/tags" => (Self::Tags, READ),
            "/api/ps" => (Self::Ps, GET),
            "/api/show" => (Self::Show, POST),
            "/api/generate" => (Self::Generate, POST),
            "/api/chat" => (Self::Chat, POST),
            "/api/embed" => (Self::Embed, POST),
            "/api/embeddings" => (Self::LegacyEmbeddings, POST),
            "/v1/models" => (Self::Models, GET),
            "/v1/chat/completions" => (Self::ChatCompletions, POST),
            "/v1/completions" => (Self::Completions, POST),
            "/v1/embeddings" => (Self::Embeddings, POST),
            "/v1/rerank" => (Self::Rerank, POST),
            "/completion" | "/completions" => (Self::Completion, POST),
            "/infill" => (Self::Infill, POST),
            "/tokenize" => (Self::Tokenize, POST),
            "/detokenize" => (Self::Detokenize, POST),
            "/apply-template" => (Self::ApplyTemplate, POST),
            "/api/pull" | "/api/push" | "/api/create" | "/api/copy" => (Self::Unbuilt, POST),
            "/api/delete" => (Self::Unbuilt, &["DELETE"][..]),
            "/v1/responses" | "/v1/messages" | "/v1/audio/transcriptions" => (Self::Unbuilt, POST),
            _ => match path.strip_prefix("/v1/models/") {
                Some(id) if !id.is_empty() => (Self::ModelById(percent_decode(id)), GET),
                _ if path.starts_with("/api/blobs/") => (Self::Unbuilt, &["HEAD", "POST"][..]),
                _ => return Err(Error::NoSuchPath),
            },
        };
        if methods.contains(&method.as_str()) { Ok(endpoint) } else { Err(Error::MethodNotAllowed) }
    }

    /// What is said of a model that does not exist; Ollama's embedding endpoints have words of their own.
    pub fn unknown_model(&self, name: String) -> Error {
        match self {
            Self::Embed | Self::LegacyEmbeddings | Self::Embeddings => Error::ModelNotPulled { name },
            _ => Error::ModelNotFound { name },
        }
    }

    /// Whether a body is read before it is answered.
    pub fn takes_body(&self) -> bool {
        match self {
            Self::Root | Self::Version | Self::Health | Self::Tags | Self::Ps | Self::Models => false,
            Self::ModelById(_) | Self::Unbuilt => false,
            Self::Show | Self::Generate | Self::Chat | Self::Embed | Self::LegacyEmbeddings => true,
            Self::ChatCompletions | Self::Completions | Self::Embeddings | Self::Rerank => true,
            Self::Completion | Self::Infill => true,
            Self::Tokenize | Self::Detokenize | Self::ApplyTemplate => true,
        }
    }

    /// The label in metrics and logs: the path without its variable part.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Root => "/",
            Self::Version => "/api/version",
            Self::Health => "/health",
            Self::Tags => "/api/tags",
            Self::Ps => "/api/ps",
            Self::Show => "/api/show",
            Self::Generate => "/api/generate",
            Self::Chat => "/api/chat",
            Self::Embed => "/api/embed",
            Self::LegacyEmbeddings => "/api/embeddings",
            Self::Models => "/v1/models",
            Self::ModelById(_) => "/v1/models/{id}",
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Embeddings => "/v1/embeddings",
            Self::Rerank => "/v1/rerank",
            Self::Completion => "/completion",
            Self::Infill => "/infill",
            Self::Tokenize => "/tokenize",
            Self::Detokenize => "/detokenize",
            Self::ApplyTemplate => "/apply-template",
            Self::Unbuilt => "unbuilt",
        }
    }
}

/// Undoes percent-encoding; the SDKs encode the colon of a tag. What is not valid encoding stays as it is.
fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        let escaped = (*first == b'%').then(|| after.get(..2)).flatten();
        match escaped.and_then(|digits| hex(digits[0])?.checked_mul(16)?.checked_add(hex(digits[1])?)) {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, path: &str) -> Result<Endpoint, Error> {
        Endpoint::of(&method, path)
    }

    #[test]
    fn unknown_paths_are_404_and_wrong_methods_405() {
        assert_eq!(of(Method::GET, "/api/nothing"), Err(Error::NoSuchPath));
        assert_eq!(of(Method::GET, "/v1/models/"), Err(Error::NoSuchPath));
        assert_eq!(of(Method::POST, "/api/chat/"), Err(Error::NoSuchPath));
        assert_eq!(of(Method::GET, "/api/chat"), Err(Error::MethodNotAllowed));
        assert_eq!(of(Method::POST, "/v1/models/demo"), Err(Error::MethodNotAllowed));
        assert_eq!(of(Method::GET, "/api/delete"), Err(Error::MethodNotAllowed));
    }

    #[test]
    fn the_path_decides_the_dialect_of_errors_known_or_not() {
        for (path, dialect) in [
            ("/v1", Dialect::OpenAi),
            ("/v1/nothing", Dialect::OpenAi),
            ("/v1x", Dialect::Ollama),
            ("/api/chat", Dialect::Ollama),
            ("/tokenize", Dialect::LlamaServer),
            ("/tokenize/x", Dialect::Ollama),
        ] {
            assert_eq!(Dialect::of(path), dialect, "{path}");
        }
    }

    #[test]
    fn head_works_where_ollama_has_it_and_nowhere_else() {
        for path in ["/", "/api/version", "/api/tags", "/api/blobs/sha256:00"] {
            assert!(of(Method::HEAD, path).is_ok(), "{path}");
        }
        for path in ["/api/ps", "/v1/models", "/api/chat"] {
            assert_eq!(of(Method::HEAD, path), Err(Error::MethodNotAllowed), "{path}");
        }
    }

    #[test]
    fn model_management_is_known_but_unbuilt() {
        assert_eq!(of(Method::POST, "/api/pull"), Ok(Endpoint::Unbuilt));
        assert_eq!(of(Method::DELETE, "/api/delete"), Ok(Endpoint::Unbuilt));
        assert_eq!(of(Method::POST, "/v1/responses"), Ok(Endpoint::Unbuilt));
    }

    #[test]
    fn model_ids_may_hold_slashes_and_percent_encoding() {
        let id = |path: &str| of(Method::GET, path).unwrap();
        assert_eq!(id("/v1/models/hf.co/x/y:q4"), Endpoint::ModelById("hf.co/x/y:q4".into()));
        assert_eq!(id("/v1/models/demo%3Alatest"), Endpoint::ModelById("demo:latest".into()));
        assert_eq!(id("/v1/models/100%"), Endpoint::ModelById("100%".into()));
        assert_eq!(id("/v1/models/%+1%zz"), Endpoint::ModelById("%+1%zz".into()));
    }
}
