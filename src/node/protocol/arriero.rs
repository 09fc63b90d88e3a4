//! Another Arriero. It is spoken to in Ollama's dialect, which keeps most of a request; what only its OpenAI dialect can say goes
//! there.

use bytes::Bytes;

use super::ollama::Ollama;
use super::openai::Openai;
use super::{Continuation, Decode, Garbled, Offer, Protocol, Request};
use crate::generation::{Embedding, Embeddings, Failure, Generation, Input, Ranking, Scores};
use crate::node::Signal;

#[derive(Debug)]
pub(super) struct Arriero;

/// The dialect that can say all of `generation`. An Arriero's OpenAI dialect puts every prompt into the model's template, so raw ones
/// cannot go there.
fn dialect(generation: &Generation) -> &'static dyn Protocol {
    let gets_template = matches!(generation.input, Input::Chat { .. } | Input::Prompt { .. });
    let is_openais = generation.unknown.as_ref().is_some_and(|unknown| !unknown.openai.is_empty());
    let says_more = Ollama.objection(generation).is_some() || !generation.parallel_tool_calls || is_openais;
    if gets_template && says_more { &Openai } else { &Ollama }
}

impl Protocol for Arriero {
    fn objection(&self, generation: &Generation) -> Option<Failure> {
        dialect(generation).objection(generation)
    }

    fn generate(&self, generation: &Generation, model: &str, begun: Option<&str>) -> Request {
        dialect(generation).generate(generation, model, begun)
    }

    fn decoder(&self, generation: &Generation) -> Box<dyn Decode> {
        dialect(generation).decoder(generation)
    }

    fn continuation(&self) -> Continuation {
        Continuation::Text
    }

    fn embed(&self, embedding: &Embedding, model: &str) -> Request {
        Ollama.embed(embedding, model)
    }

    fn embeddings(&self, body: &[u8]) -> Result<Embeddings, Garbled> {
        Ollama.embeddings(body)
    }

    fn rank(&self, ranking: &Ranking, model: &str) -> Option<Request> {
        Openai.rank(ranking, model)
    }

    fn scores(&self, body: &[u8], documents: usize) -> Result<Scores, Garbled> {
        Openai.scores(body, documents)
    }

    fn refusal(&self, status: u16, body: &[u8]) -> Failure {
        Ollama.refusal(status, body)
    }

    fn ask_offers(&self) -> Option<Request> {
        Ollama.ask_offers()
    }

    fn offers(&self, body: &[u8]) -> Result<Vec<Offer>, Garbled> {
        Ollama.offers(body)
    }

    fn ask_signal(&self) -> Vec<Request> {
        Ollama.ask_signal()
    }

    fn signal(&self, answers: &[Option<Bytes>]) -> Signal {
        Ollama.signal(answers)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::node::protocol::testing::generation;

    #[test]
    fn a_request_goes_to_the_dialect_that_can_say_all_of_it() {
        let path = |more| Arriero.generate(&generation(more), "m", None).path;
        let chat = json!({"kind": "chat", "messages": [{"role": "user", "content": "q"}]});
        assert_eq!(path(json!({"input": chat, "options": {"num_ctx": 8, "dry_base": 2.0}})), "/api/chat");
        for more in [
            json!({"options": {"logit_bias": [[1, 2.0]]}}),
            json!({"tool_choice": {"kind": "required"}}),
            json!({"parallel_tool_calls": false}),
            json!({"unknown": {"openai": {"min_tokens": 3}}}),
            json!({"format": {"kind": "grammar", "schema": "root ::= \"a\""}}),
        ] {
            let mut body = more;
            body["input"] = chat.clone();
            assert_eq!(path(body.clone()), "/v1/chat/completions", "{body}");
        }
        assert_eq!(path(json!({})), "/api/generate");
        assert!(Arriero.objection(&generation(json!({"options": {"logit_bias": [[1, 2.0]]}}))).is_some());
    }
}
