//! [`Sampling`]: the request fields that `/completion` and `/infill` have in common, and what they mean.

use serde_json::{Map, Value};

use super::completion_answer::CompletionAnswer;
use crate::dialect::json::{Integer, object};
use crate::dialect::lora::{self, Lora};
use crate::dialect::openai::extras::{self, Extras};
use crate::dialect::openai::sampling::{float, stop, top_logprobs};
use crate::dialect::{Call, Capability, Work};
use crate::error::Error;
use crate::generation::{Format, Generation, Input, Options, Priority, Think, ToolChoice};

object! {
    /// The fields, as they come. What is not here (`id_slot`, `cache_prompt`, `samplers`…) has no effect.
    pub(super) struct Sampling {
        "model" => model: String,
        "stream" => stream: bool,
        "n_predict" => n_predict: Integer,
        "n_keep" => n_keep: Integer,
        "n_probs" => n_probs: Integer,
        "temperature" => temperature: f64,
        "top_p" => top_p: f64,
        "frequency_penalty" => frequency_penalty: f64,
        "presence_penalty" => presence_penalty: f64,
        "seed" => seed: Integer,
        "stop" => stop: Value,
        "logit_bias" => logit_bias: Value,
        "grammar" => grammar: String,
        "json_schema" => json_schema: Value,
        "lora" => lora: Vec<Lora>,
        ..extras: Extras,
    }
}

impl Sampling {
    /// The call that goes on with `input`. `prompt`: what the answer repeats of it. As on llama-server's command line, the operator's
    /// options hold where the request says nothing.
    pub(super) fn call(
        self,
        input: Input,
        prompt: Option<String>,
        needs: Vec<(Capability, Error)>,
    ) -> Result<Call, Error> {
        let model = self.model.unwrap_or_default();
        let number = |name, value: Option<f64>| value.map(|value| float(name, value)).transpose();
        let options = Options {
            num_predict: self.n_predict.map(|Integer(limit)| limit),
            num_keep: self.n_keep.map(|Integer(keep)| keep),
            temperature: number("temperature", self.temperature)?,
            top_p: number("top_p", self.top_p)?,
            frequency_penalty: number("frequency_penalty", self.frequency_penalty)?,
            presence_penalty: number("presence_penalty", self.presence_penalty)?,
            // Negative is the same as none: one is drawn.
            seed: self.seed.map(|Integer(seed)| seed).filter(|seed| *seed >= 0),
            stop: self.stop.map(stop).transpose()?,
            logit_bias: self.logit_bias.map(logit_bias).transpose()?.filter(|biases| !biases.is_empty()),
            ..self.extras.options()?
        };
        let logprobs = self.n_probs.map(|count| top_logprobs("n_probs", count)).transpose()?;
        let logprobs = logprobs.filter(|count| *count > 0);
        let render = CompletionAnswer::new(&model, prompt, options.num_predict, logprobs.is_some());
        let generation = Generation {
            model: model.clone(),
            input,
            options,
            adaptation: lora::adaptation(self.lora)?,
            format: format(self.grammar, self.json_schema)?,
            logprobs,
            // The text as the model writes it.
            think: Some(Think::Switch(false)),
            tool_choice: ToolChoice::Auto,
            parallel_tool_calls: true,
            truncate: true,
            shift: true,
            resume: None,
            unknown: None,
            priority: Priority::NORMAL,
        };
        Ok(Call {
            model,
            keep_alive: None,
            work: Work::Generate(vec![generation]),
            needs,
            objection: None,
            stream: self.stream.unwrap_or(false),
            render: Box::new(render),
        })
    }
}

fn format(grammar: Option<String>, schema: Option<Value>) -> Result<Format, Error> {
    match (grammar.filter(|grammar| !grammar.is_empty()), schema) {
        (None, None) => Ok(Format::Text),
        (Some(grammar), None) => Ok(Format::Grammar(grammar)),
        (None, Some(schema @ Value::Object(_))) => Ok(Format::Schema(schema)),
        (None, Some(_)) => Err(Error::invalid_param("json_schema", "json_schema must be an object")),
        (Some(_), Some(_)) => {
            Err(Error::invalid_param("grammar", "grammar and json_schema cannot be used together"))
        }
    }
}

/// `[[token, bias]…]`, where `false` forbids the token, or OpenAI's object.
fn logit_bias(value: Value) -> Result<Vec<(u32, f32)>, Error> {
    let wrong = || Error::invalid_param("logit_bias", "logit_bias must be a list of [token id, bias]");
    let biases: Map<String, Value> = match value {
        Value::Object(biases) => biases,
        Value::Array(pairs) => {
            let pair = |pair: Value| match pair.as_array().map(Vec::as_slice) {
                Some([token, bias]) if token.is_u64() => {
                    // As OpenAI has it: a bias of -100 bans.
                    let bias = if *bias == Value::Bool(false) { Value::from(-100) } else { bias.clone() };
                    Ok((token.to_string(), bias))
                }
                _ => Err(wrong()),
            };
            pairs.into_iter().map(pair).collect::<Result<_, _>>()?
        }
        _ => return Err(wrong()),
    };
    extras::logit_bias(biases)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::dialect::Endpoint;
    use crate::dialect::testing::{call, generation, refused};
    use crate::generation::{Adaptation, Format, Generation};

    fn parsed(more: serde_json::Value) -> Generation {
        let mut body = json!({ "prompt": "p" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        generation(&call(Endpoint::Completion, body)).clone()
    }

    #[test]
    fn llama_servers_fields_become_options_and_nothing_said_is_nothing_asked() {
        let options = parsed(json!({
            "n_predict": 5, "n_keep": 2, "temperature": 0, "top_k": 7, "seed": -1, "stop": ["x"], "repeat_penalty": 1.5,
            "logit_bias": [[3, 1.5], [4, false]], "cache_prompt": true, "id_slot": 0,
            "lora": [{ "id": "a", "scale": 0.5 }],
        }));
        let expected = json!({
            "num_predict": 5, "temperature": 0.0, "top_k": 7, "repeat_penalty": 1.5, "stop": ["x"], "num_keep": 2,
            "logit_bias": [[3, 1.5], [4, -100.0]],
        });
        assert_eq!(serde_json::to_value(&options.options).unwrap(), expected);
        assert_eq!(options.adaptation, Adaptation::Adapter { name: "a".into(), scale: Some(0.5) });
        assert_eq!(serde_json::to_value(parsed(json!({})).options).unwrap(), json!({}));
    }

    #[test]
    fn grammar_and_schema_confine_it_one_at_a_time() {
        assert_eq!(
            parsed(json!({ "grammar": "root ::= \"a\"" })).format,
            Format::Grammar("root ::= \"a\"".into())
        );
        let schema = json!({ "type": "object" });
        assert_eq!(
            parsed(json!({ "json_schema": schema, "grammar": "" })).format,
            Format::Schema(schema.clone())
        );
        let refusal = |more: serde_json::Value| {
            let mut body = json!({ "prompt": "p" });
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            refused(Endpoint::Completion, body).to_string()
        };
        assert!(refusal(json!({ "json_schema": schema, "grammar": "x" })).contains("together"));
        assert!(refusal(json!({ "logit_bias": [["a", 1]] })).contains("[token id, bias]"));
        assert!(refusal(json!({ "n_probs": 21 })).contains("between 0 and 20"));
    }
}
