//! `POST /infill`: fills the gap between `input_prefix` and `input_suffix`, for editors. `prompt` is what of the gap is written
//! already, `input_extra` what other files hold.

use super::required;
use super::sampling::Sampling;
use crate::dialect::json::{self, object};
use crate::dialect::{Call, Capability};
use crate::error::Error;
use crate::generation::{Input, Snippet};

object! {
    struct Body {
        "input_prefix" => input_prefix: String,
        "input_suffix" => input_suffix: String,
        "input_extra" => input_extra: Vec<Extra>,
        "prompt" => prompt: String,
        ..sampling: Sampling,
    }
}

object! {
    struct Extra {
        "filename" => filename: String,
        "text" => text: String,
    }
}

/// The name of a file that has none, as in llama-server.
const NAMELESS: &str = "tmp";

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let prefix = body.input_prefix.ok_or_else(|| required("input_prefix"))?;
    let suffix = body.input_suffix.ok_or_else(|| required("input_suffix"))?;
    let extra = body.input_extra.unwrap_or_default().into_iter().map(snippet).collect::<Result<_, _>>()?;
    let input = Input::Infill { prefix: prefix + body.prompt.as_deref().unwrap_or_default(), suffix, extra };
    let needs = vec![(Capability::Insert, Error::invalid("infill is not supported by this model"))];
    body.sampling.call(input, None, needs)
}

fn snippet(Extra { filename, text }: Extra) -> Result<Snippet, Error> {
    let missing = || Error::invalid_param("input_extra", "each entry of input_extra must have a text");
    Ok(Snippet { file: filename.unwrap_or_else(|| NAMELESS.to_owned()), text: text.ok_or_else(missing)? })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::dialect::Endpoint;
    use crate::dialect::testing::{call, generation, refused};

    #[test]
    fn what_is_written_of_the_gap_follows_the_prefix() {
        let extra = json!([{ "filename": "a.rs", "text": "x" }, { "text": "y" }]);
        let body = json!({ "input_prefix": "a(", "input_suffix": ")", "prompt": "b", "input_extra": extra });
        let snippet = |file: &str, text: &str| Snippet { file: file.into(), text: text.into() };
        let expected = Input::Infill {
            prefix: "a(b".into(),
            suffix: ")".into(),
            extra: vec![snippet("a.rs", "x"), snippet("tmp", "y")],
        };
        assert_eq!(generation(&call(Endpoint::Infill, body)).input, expected);
    }

    #[test]
    fn both_sides_of_the_gap_are_required() {
        let refusal = |body: Value| refused(Endpoint::Infill, body).to_string();
        assert_eq!(
            refusal(json!({ "input_suffix": "" })),
            "input_suffix is required".replace("suffix", "prefix")
        );
        assert_eq!(refusal(json!({ "input_prefix": "" })), "input_suffix is required");
        let body = json!({ "input_prefix": "", "input_suffix": "", "input_extra": [{ "filename": "a" }] });
        assert_eq!(refusal(body), "each entry of input_extra must have a text");
    }
}
