//! `POST /v1/rerank`, in the shape of Jina's and Cohere's APIs, which llama-server and vLLM share: parsing and rendering.

use bytes::{BufMut, BytesMut};
use serde_json::Value;

use crate::dialect::json::{self, Integer, object};
use crate::dialect::{Call, Capability, Render, Work};
use crate::error::Error;
use crate::generation::{Ranking, Scores};

object! {
    struct Body {
        "model" => model: String,
        "query" => query: String,
        "documents" => documents: Vec<Value>,
        "top_n" => top_n: Integer,
        "return_documents" => return_documents: bool,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let query = body.query.ok_or_else(|| Error::invalid_param("query", "query is required"))?;
    let documents =
        body.documents.unwrap_or_default().into_iter().map(text).collect::<Result<Vec<_>, _>>()?;
    if documents.is_empty() {
        return Err(Error::invalid_param("documents", "documents must be a list of at least one text"));
    }
    let top = match body.top_n {
        None => documents.len(),
        Some(Integer(top)) => usize::try_from(top)
            .ok()
            .filter(|top| *top > 0)
            .ok_or_else(|| Error::invalid_param("top_n", "top_n must be at least 1"))?,
    };
    let model = body.model.filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Error::ModelNotFound { name: String::new() })?;
    let returned = if body.return_documents == Some(true) { documents.clone() } else { Vec::new() };
    Ok(Call {
        work: Work::Rank(Ranking { model: model.clone(), query, documents }),
        keep_alive: None,
        needs: vec![(Capability::Rerank, Capability::Rerank.missing(&model, "rerank"))],
        objection: None,
        stream: false,
        render: Box::new(Results { model: model.clone(), top, documents: returned }),
        model,
    })
}

/// A text, or an object with one.
fn text(document: Value) -> Result<String, Error> {
    let text = match document {
        Value::Object(mut fields) => fields.remove("text"),
        other => Some(other),
    };
    match text {
        Some(Value::String(text)) => Ok(text),
        _ => Err(Error::invalid_param("documents", "each of documents must be a text")),
    }
}

/// Renders `{"model","object":"list","usage","results":[{"index","relevance_score"}…]}`, best first.
struct Results {
    model: String,
    top: usize,
    /// Empty unless they are to be sent back.
    documents: Vec<String>,
}

impl Render for Results {
    fn scores(&mut self, scores: &Scores) -> Result<Vec<u8>, Error> {
        if scores.scores.iter().any(|score| !score.is_finite()) {
            return Err(Error::internal("the model produced a score that is not a number"));
        }
        let mut best: Vec<(usize, f32)> = scores.scores.iter().copied().enumerate().collect();
        best.sort_by(|a, b| b.1.total_cmp(&a.1));
        best.truncate(self.top);
        let mut out = BytesMut::from(&b"{\"model\":"[..]);
        json::string(&mut out, &self.model);
        out.put_slice(b",\"object\":\"list\"");
        for name in [&b",\"usage\":{\"prompt_tokens\":"[..], b",\"total_tokens\":"] {
            out.put_slice(name);
            json::number(&mut out, scores.prompt_tokens);
        }
        out.put_slice(b"},\"results\":");
        json::list(&mut out, best, |out, (index, score)| {
            out.put_slice(b"{\"index\":");
            json::number(out, index);
            out.put_slice(b",\"relevance_score\":");
            json::finite(out, score);
            if let Some(document) = self.documents.get(index) {
                out.put_slice(b",\"document\":{\"text\":");
                json::string(out, document);
                out.put_u8(b'}');
            }
            out.put_u8(b'}');
        });
        out.put_u8(b'}');
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::Endpoint;
    use crate::dialect::testing::{call, needs, refused};

    fn ask(more: Value) -> Value {
        let mut body = json!({"model": "m", "query": "q", "documents": ["a", {"text": "b"}, "c"]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    }

    fn results(more: Value) -> Value {
        let scores = Scores { scores: vec![-1.5, 2.5, 0.5], prompt_tokens: 9 };
        let body = call(Endpoint::Rerank, ask(more)).render.scores(&scores).unwrap();
        serde_json::from_slice(&body).unwrap()
    }

    #[test]
    fn the_best_come_first() {
        assert_eq!(
            results(json!({})),
            json!({"model": "m", "object": "list", "usage": {"prompt_tokens": 9, "total_tokens": 9}, "results": [
                {"index": 1, "relevance_score": 2.5}, {"index": 2, "relevance_score": 0.5},
                {"index": 0, "relevance_score": -1.5}]})
        );
        let best = json!([{"index": 1, "relevance_score": 2.5, "document": {"text": "b"}}]);
        assert_eq!(results(json!({"top_n": 1, "return_documents": true}))["results"], best);
        assert_eq!(results(json!({"top_n": 9}))["results"].as_array().unwrap().len(), 3);
    }

    #[test]
    fn it_takes_a_query_documents_and_a_model_that_ranks() {
        let call = call(Endpoint::Rerank, ask(json!({})));
        assert!(matches!(&call.work, Work::Rank(ranking) if ranking.documents == ["a", "b", "c"]));
        assert_eq!(needs(&call), [(Capability::Rerank, "\"m\" does not support rerank".to_owned())]);
        for (more, text) in [
            (json!({"query": null}), "query is required"),
            (json!({"documents": []}), "documents must be a list of at least one text"),
            (json!({"documents": [1]}), "each of documents must be a text"),
            (json!({"top_n": 0}), "top_n must be at least 1"),
        ] {
            let error = refused(Endpoint::Rerank, ask(more));
            assert_eq!((error.to_string().as_str(), error.status().as_u16()), (text, 400));
        }
    }

    #[test]
    fn a_score_that_is_no_number_is_an_error() {
        let scores = Scores { scores: vec![f32::NAN], prompt_tokens: 1 };
        assert!(call(Endpoint::Rerank, ask(json!({}))).render.scores(&scores).is_err());
    }
}
