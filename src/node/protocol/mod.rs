//! How the proxy talks to nodes, a file or folder per protocol: a canonical request becomes the node's own, and what the node
//! answers becomes canonical events. Pure: bytes in, bytes out; [`crate::upstream`] moves them.

mod arriero;
mod lines;
mod logprob;
mod ollama;
mod openai;
mod prometheus;
mod refusal;
#[cfg(test)]
mod testing;
mod worker;

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use lines::Lines;

use super::{Signal, Via};
use crate::generation::{
    Adaptation, Embedding, Embeddings, Event, Failure, FailureCode, Generation, Ranking, Scores,
};

/// The protocols there are; the only place that knows them all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProtocolName {
    /// Canonical JSON over HTTP/1.1: [`crate::generation::seam`].
    #[default]
    Worker,
    /// Ollama's own API.
    Ollama,
    /// The API of OpenAI: llama-server, vLLM, SGLang and most others.
    Openai,
    /// Another Arriero.
    Arriero,
}

impl ProtocolName {
    /// How it is spoken.
    pub fn protocol(self) -> &'static dyn Protocol {
        match self {
            Self::Worker => &worker::Worker,
            Self::Ollama => &ollama::Ollama,
            Self::Openai => &openai::Openai,
            Self::Arriero => &arriero::Arriero,
        }
    }
}

/// How to talk to a node.
///
/// What is encoded bears `model`, the node's own name for the model. What a node cannot be asked is told by [`Protocol::objection`]
/// and its kin, before anything is encoded; what is left out of an encoded request changes no answer that the caller could rely on.
pub trait Protocol: Send + Sync + std::fmt::Debug {
    /// Whether a node can be asked the rest of what [`crate::generation::seam`] has.
    fn is_seam(&self) -> bool {
        false
    }

    /// Why `generation` cannot be asked of a node of this protocol; another may take it.
    fn objection(&self, generation: &Generation) -> Option<Failure>;

    /// The request for a generation. `begun` is what the answer begins with already, which the node is to go on behind: only
    /// where [`Protocol::continuation`] says that it can. The worker protocol takes it from the generation itself.
    fn generate(&self, generation: &Generation, model: &str, begun: Option<&str>) -> Request;

    /// Reads the answer to [`Protocol::generate`].
    fn decoder(&self, generation: &Generation) -> Box<dyn Decode>;

    /// How an answer that another node began goes on here.
    fn continuation(&self) -> Continuation;

    /// The request for vectors.
    fn embed(&self, embedding: &Embedding, model: &str) -> Request;

    /// The answer to [`Protocol::embed`], with one vector per input.
    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Garbled>;

    /// The request for scores; `None`: the protocol has none.
    fn rank(&self, ranking: &Ranking, model: &str) -> Option<Request>;

    /// The answer to [`Protocol::rank`], with one score for each of `documents` documents.
    fn scores(&self, body: &[u8], documents: usize) -> Result<Scores, Garbled>;

    /// Why a node answered with `status`.
    fn refusal(&self, status: u16, body: &[u8]) -> Failure;

    /// The request for the models that a node has; `None`: they have to be configured.
    fn ask_offers(&self) -> Option<Request>;

    /// The answer to [`Protocol::ask_offers`].
    fn offers(&self, body: &[u8]) -> Result<Vec<Offer>, Garbled>;

    /// The requests that together tell how loaded a node is; what a server does not have it may refuse.
    fn ask_signal(&self) -> Vec<Request>;

    /// What the answers to [`Protocol::ask_signal`] say, in the same order; `None` for one that did not come.
    fn signal(&self, answers: &[Option<Bytes>]) -> Signal;
}

/// Reads an answer, as far as it has come.
pub trait Decode: Send {
    /// The next event that is complete in `lines`; `None`: more has to come.
    fn next(&mut self, lines: &mut Lines) -> Result<Option<Event>, Garbled>;

    /// The body is complete, and there was neither [`Event::Done`] nor [`Event::Error`]: the last event, if the answer is complete all the
    /// same. `None`: it was cut off.
    fn end(&mut self, _lines: &mut Lines) -> Result<Option<Event>, Garbled> {
        Ok(None)
    }
}

/// How an answer goes on at another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Continuation {
    /// As if nothing had happened, from the ids of the tokens.
    Exact,
    /// From its text: behind a raw prompt always, in a conversation where the server continues the assistant's turn.
    Text,
}

/// A request to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Sent without a body if there is none: `GET`, else `POST`.
    pub path: Cow<'static, str>,
    /// JSON.
    pub body: Option<Bytes>,
    /// The Arrieros that it has come through.
    pub via: Via,
}

impl Request {
    /// Asks for something.
    pub fn get(path: &'static str) -> Self {
        Self { path: path.into(), body: None, via: Via::default() }
    }

    /// Posts JSON. What is serialised here are maps with text keys and plain numbers, which cannot fail; if it did, the node would
    /// refuse the empty body.
    pub fn post(path: &'static str, body: &impl Serialize) -> Self {
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { path: path.into(), body: Some(body.into()), via: Via::default() }
    }
}

/// A model that a node has.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Offer {
    /// The node's name for it.
    pub name: String,
    /// Bytes on its disk; 0: not told.
    pub size: u64,
    /// What identifies its content; empty: not told.
    pub digest: String,
    /// Such as `llama`.
    pub family: String,
    /// Such as `8.0B`.
    pub parameter_size: String,
    /// Such as `Q4_0`.
    pub quantization: String,
    /// The Arrieros between the node and whoever runs the model.
    pub via: Via,
}

/// A node's answer is not what its protocol says. In words, for the log.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Garbled(pub String);

impl From<serde_json::Error> for Garbled {
    fn from(error: serde_json::Error) -> Self {
        Self(error.to_string())
    }
}

/// A node that cannot be asked for `what`.
pub fn unsupported(what: &str) -> Failure {
    Failure { code: FailureCode::Unsupported, message: format!("no node of this model supports {what}") }
}

/// Adapters are an Arriero's own; where none is wanted there is nothing to say.
fn adapter_objection(generation: &Generation) -> Option<Failure> {
    matches!(generation.adaptation, Adaptation::Adapter { .. }).then(|| unsupported("this adapter"))
}

/// Whether there is one answer for each of what was asked; servers do not say which is missing.
pub fn same_number(found: usize, wanted: usize, what: &str) -> Result<(), Garbled> {
    if found == wanted {
        Ok(())
    } else {
        Err(Garbled(format!("{found} {what} where {wanted} were asked for")))
    }
}
