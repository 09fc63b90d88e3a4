//! `/v1/embeddings`, and `/v1/rerank` in the shape that llama-server and vLLM share.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, json};

use crate::generation::{Embedding, Embeddings, Ranking, Scores};
use crate::node::protocol::{Garbled, Request, same_number};

#[derive(Default, Deserialize)]
#[serde(default)]
struct Usage {
    prompt_tokens: u64,
    total_tokens: u64,
}

pub(super) fn embed(embedding: &Embedding, model: &str) -> Request {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("input".into(), embedding.inputs.clone().into());
    body.insert("encoding_format".into(), "float".into());
    if let Some(dimensions) = embedding.dimensions {
        body.insert("dimensions".into(), dimensions.into());
    }
    Request::post("/v1/embeddings", &body)
}

/// Numbers, or their bytes from a server that knows no other way.
#[derive(Deserialize)]
#[serde(untagged)]
enum Vector {
    Floats(Vec<f32>),
    Base64(String),
}

impl Vector {
    fn numbers(self) -> Result<Vec<f32>, Garbled> {
        match self {
            Self::Floats(numbers) => Ok(numbers),
            Self::Base64(text) => {
                let bytes = STANDARD.decode(text).map_err(|error| Garbled(error.to_string()))?;
                let numbers = bytes.chunks_exact(4).map(|four| match four {
                    [a, b, c, d] => f32::from_le_bytes([*a, *b, *c, *d]),
                    _ => f32::NAN,
                });
                Ok(numbers.collect())
            }
        }
    }
}

pub(super) fn embeddings(body: &[u8]) -> Result<Embeddings, Garbled> {
    #[derive(Deserialize)]
    struct Body {
        data: Vec<Entry>,
        #[serde(default)]
        usage: Usage,
    }
    #[derive(Deserialize)]
    struct Entry {
        #[serde(default)]
        index: usize,
        embedding: Vector,
    }
    let mut body: Body = serde_json::from_slice(body)?;
    // Stable, so that who does not number them keeps their order.
    body.data.sort_by_key(|entry| entry.index);
    let vectors = body.data.into_iter().map(|entry| entry.embedding.numbers());
    Ok(Embeddings { vectors: vectors.collect::<Result<_, _>>()?, prompt_tokens: body.usage.prompt_tokens })
}

pub(super) fn rank(ranking: &Ranking, model: &str) -> Request {
    let body = json!({"model": model, "query": ranking.query, "documents": ranking.documents});
    Request::post("/v1/rerank", &body)
}

pub(super) fn scores(body: &[u8], documents: usize) -> Result<Scores, Garbled> {
    #[derive(Deserialize)]
    struct Body {
        results: Vec<Entry>,
        #[serde(default)]
        usage: Usage,
    }
    #[derive(Deserialize)]
    struct Entry {
        index: usize,
        relevance_score: f32,
    }
    let mut body: Body = serde_json::from_slice(body)?;
    body.results.sort_by_key(|entry| entry.index);
    body.results.dedup_by_key(|entry| entry.index);
    same_number(body.results.len(), documents, "scores")?;
    let scores = body.results.into_iter().map(|entry| entry.relevance_score).collect();
    // vLLM tells only the total.
    Ok(Scores { scores, prompt_tokens: body.usage.prompt_tokens.max(body.usage.total_tokens) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::protocol::testing::body;

    #[test]
    fn vectors_are_in_the_order_of_the_inputs_as_numbers_or_bytes() {
        let bytes = STANDARD.encode([1.0f32, -2.0].iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>());
        let answer = json!({"object": "list", "data": [
            {"object": "embedding", "index": 1, "embedding": bytes},
            {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
        ], "usage": {"prompt_tokens": 3, "total_tokens": 3}});
        let read = embeddings(answer.to_string().as_bytes()).unwrap();
        assert_eq!(read, Embeddings { vectors: vec![vec![0.5, 0.25], vec![1.0, -2.0]], prompt_tokens: 3 });
        let embedding = Embedding {
            model: "m".into(),
            inputs: vec!["a".into()],
            truncate: true,
            dimensions: Some(2),
            num_ctx: None,
        };
        assert_eq!(
            body(&embed(&embedding, "t")).1,
            json!({"model": "t", "input": ["a"], "encoding_format": "float", "dimensions": 2})
        );
    }

    #[test]
    fn scores_are_in_the_order_of_the_documents_and_none_may_be_missing() {
        let answer = json!({"results": [
            {"index": 1, "relevance_score": 0.5}, {"index": 0, "relevance_score": -1.0, "document": {"text": "d"}}
        ], "usage": {"total_tokens": 7}});
        let read = |documents| scores(answer.to_string().as_bytes(), documents);
        assert_eq!(read(2), Ok(Scores { scores: vec![-1.0, 0.5], prompt_tokens: 7 }));
        assert!(read(3).is_err());
    }
}
