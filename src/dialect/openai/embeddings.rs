//! `POST /v1/embeddings`: parsing and rendering.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, BytesMut};
use serde_json::Value;

use crate::dialect::json::{self, Integer, object};
use crate::dialect::{Call, Render, Spent, Work, check_finite};
use crate::error::Error;
use crate::generation::{Embedding, Embeddings};

object! {
    struct Body {
        "model" => model: String,
        "input" => input: Value,
        "encoding_format" => encoding_format: String,
        "dimensions" => dimensions: Integer,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let encoding = encoding(body.encoding_format.as_deref().unwrap_or_default())?;
    let inputs = inputs(body.input)?;
    let model = body.model.filter(|model| !model.is_empty());
    let model = model.ok_or_else(|| Error::ModelNotFound { name: String::new() })?;
    let dimensions = body.dimensions.and_then(|Integer(n)| usize::try_from(n).ok()).filter(|n| *n > 0);
    Ok(Call {
        work: Work::Embed(Embedding {
            model: model.clone(),
            inputs,
            truncate: true,
            dimensions,
            num_ctx: None,
        }),
        keep_alive: None,
        needs: Vec::new(),
        objection: None,
        stream: false,
        render: Box::new(EmbeddingList { model: model.clone(), encoding }),
        model,
    })
}

/// How vectors are written.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Encoding {
    /// A list of numbers.
    Float,
    /// Little-endian 32-bit floats; what the SDKs ask for unless told otherwise.
    Base64,
}

fn encoding(name: &str) -> Result<Encoding, Error> {
    match name.to_ascii_lowercase().as_str() {
        "" | "float" => Ok(Encoding::Float),
        "base64" => Ok(Encoding::Base64),
        _ => Err(Error::invalid_param(
            "encoding_format",
            format!("Invalid value for 'encoding_format' = {name}. Supported values: ['float', 'base64']."),
        )),
    }
}

/// One text or a list of texts, at least one; an empty text is embedded like any other.
fn inputs(value: Option<Value>) -> Result<Vec<String>, Error> {
    let invalid = |message: &str| Error::invalid_param("input", message);
    match value {
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(items)) if !items.is_empty() => items
            .into_iter()
            .map(|item| match item {
                Value::String(text) => Ok(text),
                Value::Number(_) | Value::Array(_) => {
                    Err(invalid("token ids are not supported as 'input'; send text"))
                }
                _ => Err(invalid("invalid input type")),
            })
            .collect(),
        None | Some(Value::Array(_)) => Err(invalid("invalid input")),
        Some(_) => Err(invalid("invalid input type")),
    }
}

/// Renders `{"object":"list","data":[…],"model","usage"}`.
struct EmbeddingList {
    model: String,
    encoding: Encoding,
}

impl EmbeddingList {
    fn vector(&self, vector: &[f32], out: &mut BytesMut) {
        match self.encoding {
            Encoding::Float => json::value(out, vector),
            Encoding::Base64 => {
                let bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
                json::string(out, &STANDARD.encode(bytes));
            }
        }
    }
}

impl Render for EmbeddingList {
    fn embeddings(&mut self, embeddings: &Embeddings, _spent: &Spent) -> Result<Vec<u8>, Error> {
        check_finite(embeddings)?;
        let mut out = BytesMut::from(&b"{\"object\":\"list\",\"data\":"[..]);
        json::list(&mut out, embeddings.vectors.iter().enumerate(), |out, (index, vector)| {
            out.put_slice(b"{\"object\":\"embedding\",\"embedding\":");
            self.vector(vector, out);
            out.put_slice(b",\"index\":");
            json::number(out, index);
            out.put_u8(b'}');
        });
        out.put_slice(b",\"model\":");
        json::string(&mut out, &self.model);
        for name in [&b",\"usage\":{\"prompt_tokens\":"[..], b",\"total_tokens\":"] {
            out.put_slice(name);
            json::number(&mut out, embeddings.prompt_tokens);
        }
        out.put_slice(b"}}");
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::Endpoint;
    use crate::dialect::testing::{call, refused, spent};

    fn refusal(body: Value) -> String {
        let error = refused(Endpoint::Embeddings, body);
        assert_eq!(error.status(), 400);
        error.to_string()
    }

    #[test]
    fn inputs_are_texts_and_an_empty_one_is_embedded() {
        for (input, expected) in
            [(json!(""), vec![""]), (json!("a"), vec!["a"]), (json!(["a", ""]), vec!["a", ""])]
        {
            let Work::Embed(embedding) =
                call(Endpoint::Embeddings, json!({"model": "m", "input": input})).work
            else {
                panic!()
            };
            assert_eq!(embedding.inputs, expected);
        }
        for body in
            [json!({"model": "m"}), json!({"model": "m", "input": null}), json!({"model": "m", "input": []})]
        {
            assert_eq!(refusal(body), "invalid input");
        }
        for input in [json!([1, 2]), json!([[1], [2]])] {
            let text = refusal(json!({"model": "m", "input": input}));
            assert_eq!(text, "token ids are not supported as 'input'; send text");
        }
        assert_eq!(refusal(json!({"model": "m", "input": 1})), "invalid input type");
    }

    #[test]
    fn unknown_encodings_are_refused() {
        assert_eq!(
            refusal(json!({"model": "m", "input": "a", "encoding_format": "hex"})),
            "Invalid value for 'encoding_format' = hex. Supported values: ['float', 'base64']."
        );
    }

    #[test]
    fn vectors_are_numbered_and_counted() {
        let mut call = call(Endpoint::Embeddings, json!({"model": "m", "input": ["a", "b"]}));
        let vectors = Embeddings { vectors: vec![vec![0.5], vec![1.0]], prompt_tokens: 4 };
        let answer: Value =
            serde_json::from_slice(&call.render.embeddings(&vectors, &spent()).unwrap()).unwrap();
        assert_eq!(
            answer,
            json!({"object": "list", "model": "m", "data": [
                {"object": "embedding", "embedding": [0.5], "index": 0},
                {"object": "embedding", "embedding": [1.0], "index": 1}
            ], "usage": {"prompt_tokens": 4, "total_tokens": 4}})
        );
    }
}
