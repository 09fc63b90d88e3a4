//! Ollama's own API (<https://github.com/ollama/ollama/blob/main/docs/api.md>): NDJSON, `/api/chat`, `/api/generate`, `/api/embed`.

mod answer;
mod models;
mod request;

use bytes::Bytes;
use serde::Deserialize;

use super::{Continuation, Decode, Garbled, Offer, Protocol, Request, refusal, unsupported};
use crate::generation::{
    Embedding, Embeddings, Failure, Format, Generation, Input, Ranking, Scores, ToolChoice,
};
use crate::node::Signal;

#[derive(Debug)]
pub(super) struct Ollama;

impl Protocol for Ollama {
    fn objection(&self, generation: &Generation) -> Option<Failure> {
        let what = match generation {
            Generation { format: Format::Grammar(_), .. } => "a grammar",
            Generation { tool_choice: ToolChoice::Required | ToolChoice::Function(_), .. } => "tool_choice",
            Generation { input: Input::Infill { extra, .. }, .. } if !extra.is_empty() => "input_extra",
            Generation { options, .. } if options.logit_bias.is_some() => "logit_bias",
            _ => return super::adapter_objection(generation),
        };
        Some(unsupported(what))
    }

    fn generate(&self, generation: &Generation, model: &str, begun: Option<&str>) -> Request {
        request::generate(generation, model, begun)
    }

    fn decoder(&self, generation: &Generation) -> Box<dyn Decode> {
        Box::new(answer::Answer::new(generation.parallel_tool_calls))
    }

    fn continuation(&self) -> Continuation {
        Continuation::Text
    }

    fn embed(&self, embedding: &Embedding, model: &str) -> Request {
        request::embed(embedding, model)
    }

    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Garbled> {
        #[derive(Deserialize)]
        struct Body {
            embeddings: Vec<Vec<f32>>,
            #[serde(default)]
            prompt_eval_count: u64,
        }
        let body: Body = serde_json::from_slice(body)?;
        Ok(Embeddings { vectors: body.embeddings, prompt_tokens: body.prompt_eval_count })
    }

    fn rank(&self, _ranking: &Ranking, _model: &str) -> Option<Request> {
        None
    }

    fn scores(&self, _body: &[u8], _documents: usize) -> Result<Scores, Garbled> {
        Err(Garbled("Ollama has no scores".to_owned()))
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Failure {
        refusal::failure(status, body)
    }

    fn ask_offers(&self) -> Option<Request> {
        Some(Request::get("/api/tags"))
    }

    fn offers(&self, body: &[u8]) -> Result<Vec<Offer>, Garbled> {
        models::offers(body)
    }

    fn ask_signal(&self) -> Vec<Request> {
        vec![Request::get("/api/ps")]
    }

    fn signal(&self, answers: &[Option<Bytes>]) -> Signal {
        models::signal(answers.iter().flatten().next())
    }
}
