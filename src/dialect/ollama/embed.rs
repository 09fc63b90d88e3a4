//! `POST /api/embed` and the older `POST /api/embeddings`: parsing and rendering.

use bytes::{BufMut, BytesMut};
use serde_json::{Map, Value};

use super::{options, request};
use crate::dialect::json::{self, Integer, object};
use crate::dialect::{Call, Render, Spent, Work, check_finite};
use crate::error::Error;
use crate::generation::{Embedding, Embeddings};

object! {
    struct Body {
        "model" => model: String,
        "input" => input: Value,
        "prompt" => prompt: String,
        "truncate" => truncate: bool,
        "dimensions" => dimensions: Integer,
        "options" => options: Map<String, Value>,
        "keep_alive" => keep_alive: Value,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let mut body: Body = json::read(body)?;
    let model = body.model.take().unwrap_or_default();
    if model.is_empty() {
        return Err(Error::ModelNotFound { name: model });
    }
    let inputs = inputs(body.input.take())?;
    let render = Box::new(Vectors { model: model.clone() });
    body.call(model, inputs, render)
}

pub(in crate::dialect) fn parse_legacy(body: &[u8]) -> Result<Call, Error> {
    let mut body: Body = json::read(body)?;
    let model = body.model.take().unwrap_or_default();
    if model.is_empty() {
        return Err(Error::invalid_param("model", "model is required"));
    }
    let inputs = body.prompt.take().filter(|prompt| !prompt.is_empty()).into_iter().collect();
    body.truncate = None;
    body.dimensions = None;
    body.call(model, inputs, Box::new(LegacyVector))
}

impl Body {
    /// Without inputs the model is only loaded.
    fn call(self, model: String, inputs: Vec<String>, render: Box<dyn Render>) -> Result<Call, Error> {
        let (options, _) = options::parse(self.options)?;
        let keep_alive = request::keep_alive(self.keep_alive)?;
        let dimensions = self.dimensions.and_then(|Integer(n)| usize::try_from(n).ok()).filter(|n| *n > 0);
        let work = if inputs.is_empty() {
            Work::Load
        } else {
            Work::Embed(Embedding {
                model: model.clone(),
                inputs,
                truncate: self.truncate.unwrap_or(true),
                dimensions,
                num_ctx: options.num_ctx,
            })
        };
        Ok(Call { model, keep_alive, work, needs: Vec::new(), objection: None, stream: false, render })
    }
}

/// One text or a list of texts. A lone empty text is no input, an empty text in a list is one.
fn inputs(value: Option<Value>) -> Result<Vec<String>, Error> {
    let wrong = || Error::invalid_param("input", "invalid input type");
    match value {
        None => Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(items)) => {
            let text = |item| if let Value::String(text) = item { Ok(text) } else { Err(wrong()) };
            items.into_iter().map(text).collect()
        }
        Some(_) => Err(wrong()),
    }
}

/// Renders `{"model","embeddings":[[…]…],…}`.
struct Vectors {
    model: String,
}

impl Vectors {
    fn head(&self) -> BytesMut {
        let mut out = BytesMut::new();
        out.put_slice(b"{\"model\":");
        json::string(&mut out, &self.model);
        out.put_slice(b",\"embeddings\":");
        out
    }
}

impl Render for Vectors {
    fn embeddings(&mut self, embeddings: &Embeddings, spent: &Spent) -> Result<Vec<u8>, Error> {
        check_finite(embeddings)?;
        let mut out = self.head();
        json::value(&mut out, &embeddings.vectors);
        for (name, count) in [
            (&b",\"total_duration\":"[..], spent.total),
            (b",\"load_duration\":", spent.load.max(1)),
            (b",\"prompt_eval_count\":", embeddings.prompt_tokens),
        ] {
            out.put_slice(name);
            json::number(&mut out, count);
        }
        out.put_u8(b'}');
        Ok(out.into())
    }

    fn loaded(&mut self, _loaded: bool, _spent: &Spent) -> Vec<u8> {
        let mut out = self.head();
        out.put_slice(b"[]}");
        out.into()
    }
}

/// Renders `{"embedding":[…]}`.
struct LegacyVector;

impl Render for LegacyVector {
    fn embeddings(&mut self, embeddings: &Embeddings, _spent: &Spent) -> Result<Vec<u8>, Error> {
        check_finite(embeddings)?;
        let mut out = BytesMut::from(&b"{\"embedding\":"[..]);
        let vector: &[f32] = embeddings.vectors.first().map_or(&[], Vec::as_slice);
        json::value(&mut out, vector);
        out.put_u8(b'}');
        Ok(out.into())
    }

    fn loaded(&mut self, _loaded: bool, _spent: &Spent) -> Vec<u8> {
        b"{\"embedding\":[]}".to_vec()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::Endpoint;
    use crate::dialect::testing::{call, refused, spent};

    fn inputs_of(body: Value) -> Option<Vec<String>> {
        match call(Endpoint::Embed, body).work {
            Work::Embed(embedding) => Some(embedding.inputs),
            _ => None,
        }
    }

    #[test]
    fn inputs_are_a_text_or_a_list_and_none_is_a_load() {
        assert_eq!(inputs_of(json!({"model": "m", "input": "a"})), Some(vec!["a".into()]));
        assert_eq!(
            inputs_of(json!({"model": "m", "input": ["b", ""]})),
            Some(vec!["b".into(), String::new()])
        );
        assert_eq!(inputs_of(json!({"model": "m", "input": [""]})), Some(vec![String::new()]));
        for body in
            [json!({"model": "m"}), json!({"model": "m", "input": ""}), json!({"model": "m", "input": []})]
        {
            let mut call = call(Endpoint::Embed, body);
            assert!(matches!(call.work, Work::Load));
            assert_eq!(call.render.loaded(true, &spent()), br#"{"model":"m","embeddings":[]}"#);
        }
        for input in [json!(1), json!([1]), json!({"a": 1}), json!([null])] {
            let error = refused(Endpoint::Embed, json!({"model": "m", "input": input}));
            assert_eq!((error.to_string().as_str(), error.status().as_u16()), ("invalid input type", 400));
        }
    }

    #[test]
    fn settings_are_passed_on() {
        let body = json!({
            "model": "m", "input": "a", "truncate": false, "dimensions": 8, "options": {"num_ctx": 64}, "keep_alive": -1
        });
        let call = call(Endpoint::Embed, body);
        let Work::Embed(embedding) = call.work else { panic!() };
        assert_eq!((embedding.truncate, embedding.dimensions, embedding.num_ctx), (false, Some(8), Some(64)));
        assert_eq!(call.keep_alive, Some(crate::units::KeepAlive::Forever));
        assert!(call.needs.is_empty() && !call.stream);
    }

    #[test]
    fn vectors_come_in_the_order_of_the_inputs_with_counters() {
        let mut call = call(Endpoint::Embed, json!({"model": "m", "input": ["a", "b"]}));
        let vectors = Embeddings { vectors: vec![vec![0.5, 1.0], vec![0.0]], prompt_tokens: 4 };
        assert_eq!(
            String::from_utf8(call.render.embeddings(&vectors, &spent()).unwrap()).unwrap(),
            r#"{"model":"m","embeddings":[[0.5,1.0],[0.0]],"total_duration":100,"load_duration":1,"prompt_eval_count":4}"#
        );
    }

    #[test]
    fn a_missing_model_is_not_found_here_and_required_in_the_older_form() {
        let embed = refused(Endpoint::Embed, json!({"input": "a"}));
        assert_eq!((embed.to_string().as_str(), embed.status().as_u16()), ("model '' not found", 404));
        let legacy = refused(Endpoint::LegacyEmbeddings, json!({"prompt": "a"}));
        assert_eq!((legacy.to_string().as_str(), legacy.status().as_u16()), ("model is required", 400));
    }

    #[test]
    fn the_older_form_has_one_vector_and_an_empty_prompt_none() {
        let mut one = call(Endpoint::LegacyEmbeddings, json!({"model": "m", "prompt": "a"}));
        let vectors = Embeddings { vectors: vec![vec![0.5]], prompt_tokens: 1 };
        assert_eq!(one.render.embeddings(&vectors, &spent()).unwrap(), br#"{"embedding":[0.5]}"#);
        let mut none = call(Endpoint::LegacyEmbeddings, json!({"model": "m", "prompt": ""}));
        assert!(matches!(none.work, Work::Load));
        assert_eq!(none.render.loaded(true, &spent()), br#"{"embedding":[]}"#);
    }
}
