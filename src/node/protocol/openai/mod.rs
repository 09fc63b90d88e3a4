//! OpenAI's API as llama-server, vLLM, SGLang and most others serve it: `/v1/chat/completions`, `/v1/completions`,
//! `/v1/embeddings`, `/v1/rerank`, `/v1/models`; answers come as server-sent events.

mod answer;
mod calls;
mod chunk;
mod content;
mod load;
mod request;
mod vectors;

use bytes::Bytes;
use serde::Deserialize;

use super::{Continuation, Decode, Garbled, Offer, Protocol, Request, refusal, unsupported};
use crate::generation::{Embedding, Embeddings, Failure, Generation, Input, Ranking, Scores};
use crate::node::{Signal, Via};

#[derive(Debug)]
pub(super) struct Openai;

impl Protocol for Openai {
    fn objection(&self, generation: &Generation) -> Option<Failure> {
        let what = match &generation.input {
            Input::Prompt { template: Some(_), .. } => "a template of the request's own",
            Input::Prompt { context, .. } if !context.is_empty() => "context",
            Input::Raw { images, .. } if !images.is_empty() => "images in a raw prompt",
            Input::Infill { extra, .. } if !extra.is_empty() => "input_extra",
            _ => return super::adapter_objection(generation),
        };
        Some(unsupported(what))
    }

    fn generate(&self, generation: &Generation, model: &str, begun: Option<&str>) -> Request {
        request::generate(generation, model, begun)
    }

    fn decoder(&self, _generation: &Generation) -> Box<dyn Decode> {
        Box::new(answer::Answer::default())
    }

    fn continuation(&self) -> Continuation {
        Continuation::Text
    }

    fn embed(&self, embedding: &Embedding, model: &str) -> Request {
        vectors::embed(embedding, model)
    }

    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Garbled> {
        vectors::embeddings(body)
    }

    fn rank(&self, ranking: &Ranking, model: &str) -> Option<Request> {
        Some(vectors::rank(ranking, model))
    }

    fn scores(&self, body: &[u8], documents: usize) -> Result<Scores, Garbled> {
        vectors::scores(body, documents)
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Failure {
        refusal::failure(status, body)
    }

    fn ask_offers(&self) -> Option<Request> {
        Some(Request::get("/v1/models"))
    }

    fn offers(&self, body: &[u8]) -> Result<Vec<Offer>, Garbled> {
        #[derive(Deserialize)]
        struct List {
            data: Vec<Entry>,
        }
        #[derive(Deserialize)]
        struct Entry {
            id: String,
            /// An Arriero's own.
            #[serde(default)]
            via: Vec<String>,
        }
        let list: List = serde_json::from_slice(body)?;
        let offer =
            |entry: Entry| Offer { name: entry.id, via: Via::of_names(&entry.via), ..Offer::default() };
        Ok(list.data.into_iter().map(offer).collect())
    }

    fn ask_signal(&self) -> Vec<Request> {
        load::ask()
    }

    fn signal(&self, answers: &[Option<Bytes>]) -> Signal {
        load::signal(answers)
    }
}
