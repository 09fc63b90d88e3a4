//! `POST /completion`: goes on with a prompt as it is, without a template.

use serde_json::Value;

use super::required;
use super::sampling::Sampling;
use crate::dialect::json::{self, object};
use crate::dialect::{Call, Capability};
use crate::error::Error;
use crate::generation::Input;

object! {
    struct Body {
        "prompt" => prompt: Value,
        ..sampling: Sampling,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let prompt = match body.prompt.ok_or_else(|| required("prompt"))? {
        Value::String(prompt) => prompt,
        _ => {
            return Err(Error::invalid_param(
                "prompt",
                "prompt must be a string; send one request per prompt, and texts instead of tokens",
            ));
        }
    };
    let needs = vec![(Capability::Completion, Error::invalid("this model does not support completion"))];
    body.sampling.call(Input::Raw { prompt: prompt.clone(), images: Vec::new() }, Some(prompt), needs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::dialect::Endpoint;
    use crate::dialect::testing::{call, generation, refused};
    use crate::generation::Think;

    #[test]
    fn the_prompt_is_taken_as_it_is() {
        let call = call(Endpoint::Completion, json!({ "prompt": "p", "stream": true }));
        assert_eq!(generation(&call).input, Input::Raw { prompt: "p".into(), images: Vec::new() });
        assert_eq!(generation(&call).think, Some(Think::Switch(false)));
        assert!(call.stream && call.model.is_empty());
        assert_eq!(refused(Endpoint::Completion, json!({})).to_string(), "prompt is required");
        for prompt in [json!([1, 2]), json!(["a", "b"]), json!(1)] {
            assert_eq!(refused(Endpoint::Completion, json!({ "prompt": prompt })).param(), Some("prompt"));
        }
    }
}
