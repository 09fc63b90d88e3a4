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
}

impl Dialect {
    /// The dialect of a path, known or not.
    pub fn of(path: &str) -> Self {
        if path == "/v1" || path.starts_with("/v1/") { Self::OpenAi } else { Self::Ollama }
    }

    /// The label in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "ollama",
            Self::OpenAi => "openai",
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
    /// `GET /health`, as llama-server has it.
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
    /// A route of the mirrored API that is not built: pull, push, create, copy, delete, blobs…
    Unbuilt,
}

impl Endpoint {
    /// The endpoint of a request line; 404 and 405 as errors.
    pub fn of(_method: &Method, _path: &str) -> Result<Self, Error> {
        todo!()
    }

    /// Whether a body is read before it is answered.
    pub fn takes_body(&self) -> bool {
        match self {
            Self::Root | Self::Version | Self::Health | Self::Tags | Self::Ps | Self::Models => false,
            Self::ModelById(_) | Self::Unbuilt => false,
            Self::Show | Self::Generate | Self::Chat | Self::Embed | Self::LegacyEmbeddings => true,
            Self::ChatCompletions | Self::Completions | Self::Embeddings => true,
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
            Self::Unbuilt => "unbuilt",
        }
    }
}
