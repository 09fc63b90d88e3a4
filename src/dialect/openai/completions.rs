//! `POST /v1/completions`: parsing. As in Ollama the model's template is applied.

use serde_json::Value;

use super::completion_answer::CompletionAnswer;
use super::sampling::{Sampling, Task, top_logprobs};
use crate::dialect::json::{self, Integer, object};
use crate::dialect::{Call, Capability};
use crate::error::Error;
use crate::generation::{Format, Input};

object! {
    struct Body {
        "prompt" => prompt: Value,
        "suffix" => suffix: String,
        "logprobs" => logprobs: Integer,
        ..sampling: Sampling,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let settings = body.sampling.check()?;
    let prompt = prompt(body.prompt)?;
    let logprobs = body.logprobs.map(|top| top_logprobs("logprobs", top)).transpose()?;
    if settings.model.is_empty() {
        return Err(Error::ModelNotFound { name: String::new() });
    }

    let mut needs = vec![settings.need(Capability::Completion, "generate")];
    let input = match body.suffix.filter(|suffix| !suffix.is_empty()) {
        Some(suffix) => {
            needs.push(settings.need(Capability::Insert, "insert"));
            Input::Infill { prefix: prompt, suffix }
        }
        None => Input::Prompt { prompt, system: None, template: None, context: Vec::new() },
    };
    let render = Box::new(CompletionAnswer::new(&settings.model, settings.include_usage, logprobs.is_some()));
    Ok(settings.call(Task { input, format: Format::Text, logprobs, think: None }, needs, render))
}

/// One text, or a list of one.
fn prompt(value: Option<Value>) -> Result<String, Error> {
    match value {
        None => Ok(String::new()),
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(mut items)) if items.len() == 1 => match items.pop() {
            Some(Value::String(text)) => Ok(text),
            _ => Err(Error::invalid_param("prompt", "prompt must be a string")),
        },
        Some(_) => {
            Err(Error::invalid_param("prompt", "prompt must be a string; send one request per prompt"))
        }
    }
}
