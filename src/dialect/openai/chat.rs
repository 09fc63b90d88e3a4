//! `POST /v1/chat/completions`: parsing.

use serde_json::{Map, Value};

use super::chat_answer::ChatAnswer;
use super::messages::{self, MessageBody};
use super::sampling::{Sampling, Task, top_logprobs};
use crate::dialect::json::{self, Integer, object};
use crate::dialect::{Call, Capability};
use crate::error::Error;
use crate::generation::{Format, Input, Think};

object! {
    struct Body {
        "messages" => messages: Vec<MessageBody>,
        "tools" => tools: Vec<Map<String, Value>>,
        "max_completion_tokens" => max_completion_tokens: Integer,
        "response_format" => response_format: ResponseFormat,
        "logprobs" => logprobs: bool,
        "top_logprobs" => top_logprobs: Integer,
        "reasoning_effort" => reasoning_effort: String,
        "reasoning" => reasoning: Reasoning,
        ..sampling: Sampling,
    }
}

object! {
    struct ResponseFormat {
        "type" => kind: String,
        "json_schema" => json_schema: JsonSchema,
    }
}

object! {
    struct JsonSchema {
        "schema" => schema: Map<String, Value>,
    }
}

object! {
    struct Reasoning {
        "effort" => effort: String,
    }
}

pub(in crate::dialect) fn parse(body: &[u8]) -> Result<Call, Error> {
    let body: Body = json::read(body)?;
    let bodies = body.messages.unwrap_or_default();
    if bodies.is_empty() {
        return Err(Error::invalid_param("messages", "[] is too short - 'messages'"));
    }
    let mut settings = body.sampling.check()?;
    if let Some(Integer(limit)) = body.max_completion_tokens {
        settings.options.num_predict = Some(limit);
    }
    let (messages, images) = messages::canonical(bodies)?;
    let top = body.top_logprobs.map(|top| top_logprobs("top_logprobs", top)).transpose()?;
    let effort = body.reasoning.and_then(|reasoning| reasoning.effort).or(body.reasoning_effort);
    let tools: Vec<_> = body.tools.unwrap_or_default().into_iter().map(Value::Object).collect();
    if settings.model.is_empty() {
        return Err(Error::invalid_param("model", "model is required"));
    }

    let mut needs = vec![settings.need(Capability::Completion, "chat")];
    if !tools.is_empty() {
        needs.push(settings.need(Capability::Tools, "tools"));
    }
    if images {
        needs.push(settings.need(Capability::Vision, "vision"));
    }
    let task = Task {
        input: Input::Chat { messages, tools },
        format: body.response_format.map(format).transpose()?.unwrap_or_default(),
        logprobs: (body.logprobs == Some(true)).then_some(top.unwrap_or(0)),
        // Clients send an effort by default, and a model that cannot think must not fail for it. What the model can do is
        // not known here, so an effort leaves the model's own default, and only "none", which is always fine, is passed on.
        think: effort.filter(|effort| effort == "none").map(|_| Think::Switch(false)),
    };
    let render = Box::new(ChatAnswer::new(&settings.model, settings.include_usage));
    Ok(settings.call(task, needs, render))
}

fn format(format: ResponseFormat) -> Result<Format, Error> {
    let wrong = |message| Error::invalid_param("response_format", message);
    match format.kind.as_deref().unwrap_or_default() {
        "text" => Ok(Format::Text),
        "json_object" => Ok(Format::Json),
        "json_schema" => format
            .json_schema
            .and_then(|wrapper| wrapper.schema)
            .map(|schema| Format::Schema(Value::Object(schema)))
            .ok_or_else(|| wrong("response_format.json_schema.schema is required".to_owned())),
        other => Err(wrong(format!(
            "invalid response_format type {other:?}: must be text, json_object or json_schema"
        ))),
    }
}
