//! Dialects: the APIs that clients speak. A dialect parses a request into canonical terms ([`Call`]) and renders events
//! back into its own wire form ([`Render`]). It is pure: no I/O, no clock, no configuration; whatever it needs to know
//! about the model or the time is handed in.

mod card;
#[cfg(test)]
mod common_mistakes;
mod endpoint;
mod image;
mod json;
pub mod llama_server;
mod logprob;
mod lora;
pub mod name;
pub mod ollama;
pub mod openai;
pub mod sse;
#[cfg(test)]
mod testing;
mod tool_call;

use bytes::BytesMut;

pub use card::{Adapted, ArrivingModel, Details, LoadedModel, ModelCard};
pub use endpoint::{Dialect, Endpoint};

use crate::error::Error;
use crate::generation::seam::{Text, Tokenize, Tokens};
use crate::generation::{Done, Embedding, Embeddings, Event, Generation, Loading, Ranking, Scores};
use crate::units::KeepAlive;

/// A request for work, in canonical terms.
pub struct Call {
    /// The model as the client wrote it; answers echo it. The `model` fields inside `work` hold the same text until
    /// dispatch resolves the name.
    pub model: String,
    /// Overrides the model's own; `None` keeps what is in force.
    pub keep_alive: Option<KeepAlive>,
    /// What to do.
    pub work: Work,
    /// What the model must be able to do: `(capability, error if it cannot)`.
    pub needs: Vec<(Capability, Error)>,
    /// A complaint that comes after "model not found" in the order of checks, as in Ollama.
    pub objection: Option<Error>,
    /// Answer piece by piece.
    pub stream: bool,
    /// Turns the results into bytes.
    pub render: Box<dyn Render>,
}

/// What a [`Call`] wants done.
pub enum Work {
    /// One generation per choice (`n`); at least one.
    Generate(Vec<Generation>),
    /// Vectors.
    Embed(Embedding),
    /// Scores.
    Rank(Ranking),
    /// Ask the model's vocabulary or template, which takes no sequence.
    Ask(Question),
    /// Load the model, answer when it is ready.
    Load,
    /// Unload it once idle, answer at once.
    Unload,
}

/// What can be asked of a model besides its work.
pub enum Question {
    /// The tokens of a text.
    Tokenize(Tokenize),
    /// The text of tokens.
    Detokenize(Tokens),
    /// The prompt that its template makes.
    Render(Box<Generation>),
}

/// The answer to a [`Question`].
pub enum Reply {
    /// To [`Question::Tokenize`].
    Tokens(Tokens),
    /// To the others.
    Text(Text),
}

/// What a model may be able to do. The words are those of Ollama's `capabilities`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Capability {
    /// Generate text.
    Completion,
    /// Embed.
    Embedding,
    /// Fill in the middle.
    Insert,
    /// Call tools.
    Tools,
    /// Think first.
    Thinking,
    /// See images.
    Vision,
    /// Say how well texts answer a query; a word of its own, for Ollama has none.
    Rerank,
}

impl Capability {
    /// The word in `/api/show`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Completion => "completion",
            Self::Embedding => "embedding",
            Self::Insert => "insert",
            Self::Tools => "tools",
            Self::Thinking => "thinking",
            Self::Vision => "vision",
            Self::Rerank => "rerank",
        }
    }

    /// What a client is told that asks `model` for it in vain. `words` is what it asked for.
    fn missing(self, model: &str, words: &'static str) -> Error {
        match self {
            Self::Completion | Self::Embedding | Self::Thinking | Self::Rerank => {
                Error::Unsupported { model: model.to_owned(), capability: words }
            }
            Self::Insert | Self::Tools | Self::Vision => {
                Error::Incapable { model: name::full(model), capability: words }
            }
        }
    }
}

/// Times of one request that only the proxy knows, for the answer's last line.
#[derive(Clone, Copy, Debug)]
pub struct Spent {
    /// Since the request arrived, in nanoseconds.
    pub total: u64,
    /// Of that, waiting for the model to be loaded, in nanoseconds; at least 1, as Ollama never reports 0.
    pub load: u64,
    /// Now.
    pub now: time::OffsetDateTime,
}

/// One complete answer: all of a flight's deltas joined.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Whole {
    /// The text.
    pub text: String,
    /// The thinking text.
    pub thinking: String,
    /// The calls.
    pub tool_calls: Vec<serde_json::Value>,
    /// One entry per token, if asked for.
    pub logprobs: Vec<crate::generation::TokenLogprob>,
    /// The end.
    pub done: Done,
}

/// Turns results into a dialect's bytes. One per request; it may hold state (an id, "first chunk sent").
///
/// What a request cannot ask for need not be written: a request for vectors never streams, one for text never embeds, and
/// nothing in OpenAI's API asks for a load.
pub trait Render: Send {
    /// `Content-Type` of a streamed answer.
    fn stream_type(&self) -> &'static str {
        "application/json; charset=utf-8"
    }

    /// Appends the wire form of one delta, tool call or done event of choice `choice` (0-based). `Error` events do not
    /// come here; see [`Render::failure`]. May append nothing. What it appends for one event is one write to the client.
    fn event(&mut self, _choice: usize, _event: &Event, _spent: &Spent, _out: &mut BytesMut) {}

    /// Appends what follows the last choice's done event (a usage chunk, an end mark).
    fn finish(&mut self, _spent: &Spent, _out: &mut BytesMut) {}

    /// Appends the in-band form of an error after the stream has begun; nothing follows it.
    fn failure(&mut self, _error: &Error, _out: &mut BytesMut) {}

    /// The whole answer as one JSON body; one entry per choice.
    fn whole(&mut self, _choices: &[Whole], _spent: &Spent) -> Vec<u8> {
        Vec::new()
    }

    /// The answer to [`Work::Embed`], as one JSON body. An error where a vector cannot be written as JSON (NaN).
    fn embeddings(&mut self, _embeddings: &Embeddings, _spent: &Spent) -> Result<Vec<u8>, Error> {
        Err(Error::internal("vectors for a request that asked for text"))
    }

    /// The answer to [`Work::Rank`], as one JSON body. An error where a score cannot be written as JSON (NaN).
    fn scores(&mut self, _scores: &Scores) -> Result<Vec<u8>, Error> {
        Err(Error::internal("scores for a request that asked for something else"))
    }

    /// The answer to [`Work::Ask`], as one JSON body.
    fn reply(&mut self, _reply: &Reply) -> Vec<u8> {
        Vec::new()
    }

    /// The answer to [`Work::Load`] (`loaded`) or [`Work::Unload`] (not `loaded`), as one JSON body.
    fn loaded(&mut self, _loaded: bool, _spent: &Spent) -> Vec<u8> {
        Vec::new()
    }
}

/// Parses the body of an inference endpoint.
pub fn parse(endpoint: &Endpoint, body: &[u8]) -> Result<Call, Error> {
    match endpoint {
        Endpoint::Generate => ollama::generate::parse(body),
        Endpoint::Chat => ollama::chat::parse(body),
        Endpoint::Embed => ollama::embed::parse(body),
        Endpoint::LegacyEmbeddings => ollama::embed::parse_legacy(body),
        Endpoint::ChatCompletions => openai::chat::parse(body),
        Endpoint::Completions => openai::completions::parse(body),
        Endpoint::Embeddings => openai::embeddings::parse(body),
        Endpoint::Rerank => openai::rerank::parse(body),
        Endpoint::Completion => llama_server::completion::parse(body),
        Endpoint::Infill => llama_server::infill::parse(body),
        Endpoint::Tokenize => llama_server::tokenize::parse(body),
        Endpoint::Detokenize => llama_server::detokenize::parse(body),
        Endpoint::ApplyTemplate => llama_server::apply_template::parse(body),
        other => Err(Error::NotImplemented { endpoint: other.as_str().to_owned() }),
    }
}

/// An error before the stream has begun, as a JSON body in the caller's dialect.
pub fn error_body(dialect: Dialect, error: &Error) -> Vec<u8> {
    refusal_body(dialect, error, None)
}

/// The same with how far the model is on its way, which unmodified clients do not look at.
pub fn refusal_body(dialect: Dialect, error: &Error, loading: Option<&Loading>) -> Vec<u8> {
    let mut out = BytesMut::new();
    match dialect {
        Dialect::Ollama => ollama::error(error, loading, &mut out),
        Dialect::OpenAi => openai::error(error, loading, &mut out),
        Dialect::LlamaServer => llama_server::error(error, loading, &mut out),
    }
    out.into()
}

/// JSON has no NaN and no infinity: a vector with one is an error, never an invalid body.
fn check_finite(embeddings: &Embeddings) -> Result<(), Error> {
    if embeddings.vectors.iter().flatten().all(|number| number.is_finite()) {
        Ok(())
    } else {
        Err(Error::internal("the model produced an embedding that is not a number"))
    }
}
