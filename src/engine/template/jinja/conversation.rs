//! The variables a chat template sees, from the canonical messages.

use minijinja::Value;
use serde_json::Value as Json;

use crate::generation::{Message, Think};

/// What differs from one template to the next in the messages it expects. By default as Hugging Face documents them.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Shape {
    /// Content is a list of parts (`{"type": "text", "text": …}`) rather than a string.
    pub content_parts: bool,
    /// The arguments of tool calls are JSON text rather than an object.
    pub text_arguments: bool,
}

/// The variables of one rendering. What a model may not know (`name`, `tool_calls`, …) is absent rather than empty, because
/// templates ask `is defined`.
pub(super) fn context(
    messages: &[Message],
    tools: &[Json],
    think: Option<&Think>,
    add_generation_prompt: bool,
    shape: Shape,
) -> Value {
    let tools = if tools.is_empty() { Value::from(()) } else { tools.iter().map(value).collect() };
    let mut variables = vec![
        ("messages", messages.iter().map(|m| message(m, shape)).collect()),
        ("tools", tools),
        ("documents", Value::from(())),
        ("add_generation_prompt", Value::from(add_generation_prompt)),
    ];
    if let Some(think) = think {
        let enabled = !matches!(think, Think::Switch(false));
        variables.extend([("enable_thinking", Value::from(enabled)), ("thinking", Value::from(enabled))]);
    }
    if let Some(Think::Level(level)) = think {
        variables.push(("reasoning_effort", Value::from(level.as_str())));
    }
    Value::from_pairs(variables)
}

/// About the bytes of a conversation.
pub(super) fn size(messages: &[Message], tools: &[Json]) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let messages = messages.iter().map(|message| {
        let texts = message.content.len() + text(&message.thinking) + text(&message.tool_name);
        texts + message.tool_calls.iter().map(json_size).sum::<usize>()
    });
    messages.sum::<usize>() + tools.iter().map(json_size).sum::<usize>()
}

fn json_size(value: &Json) -> usize {
    match value {
        Json::String(text) => text.len(),
        Json::Array(items) => items.iter().map(json_size).sum(),
        Json::Object(fields) => fields.iter().map(|(key, field)| key.len() + json_size(field)).sum(),
        _ => size_of::<Json>(),
    }
}

fn message(message: &Message, shape: Shape) -> Value {
    let mut content = Value::from(message.content.as_str());
    if shape.content_parts {
        let part = Value::from_pairs([("type", Value::from("text")), ("text", content)]);
        content = Value::from_iter([part]);
    }
    let mut fields = vec![("role", Value::from(message.role.as_str())), ("content", content)];
    if let Some(thinking) = &message.thinking {
        let thinking = Value::from(thinking.as_str());
        fields.extend([("reasoning_content", thinking.clone()), ("thinking", thinking)]);
    }
    if !message.tool_calls.is_empty() {
        fields.push(("tool_calls", message.tool_calls.iter().map(|call| tool_call(call, shape)).collect()));
    }
    if let Some(name) = &message.tool_name {
        fields.push(("name", Value::from(name.as_str())));
    }
    if let Some(id) = &message.tool_call_id {
        fields.push(("tool_call_id", Value::from(id.as_str())));
    }
    Value::from_pairs(fields)
}

/// A call in OpenAI's shape, which templates expect: with a `type`.
fn tool_call(call: &Json, shape: Shape) -> Value {
    let mut call = call.clone();
    if let Some(fields) = call.as_object_mut() {
        fields.entry("type").or_insert_with(|| "function".into());
    }
    if let (true, Some(given)) = (shape.text_arguments, call.pointer_mut("/function/arguments"))
        && !given.is_string()
    {
        *given = given.to_string().into();
    }
    value(&call)
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::from(()),
        Json::Bool(b) => Value::from(*b),
        Json::Number(n) => match (n.as_i64(), n.as_u64()) {
            (Some(n), _) => Value::from(n),
            (None, Some(n)) => Value::from(n),
            (None, None) => Value::from(n.as_f64()),
        },
        Json::String(s) => Value::from(s.as_str()),
        Json::Array(items) => items.iter().map(value).collect(),
        Json::Object(fields) => {
            Value::from_pairs(fields.iter().map(|(key, field)| (key.as_str(), value(field))))
        }
    }
}
