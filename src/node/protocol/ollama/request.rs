//! Canonical requests as Ollama takes them.

use serde_json::{Map, Value, json};

use crate::generation::{Embedding, Format, Generation, Image, Input, Message, Options, put_under};
use crate::node::protocol::Request;

/// `/api/chat` for a conversation, `/api/generate` for the rest; always a stream.
pub(super) fn generate(generation: &Generation, model: &str, begun: Option<&str>) -> Request {
    let mut body = shared(generation, model);
    let path = match &generation.input {
        Input::Chat { messages, tools } => {
            let mut messages: Vec<_> = messages.iter().map(message).collect();
            // Ollama goes on with the turn of an assistant that has the last word.
            messages.extend(begun.map(|text| json!({"role": "assistant", "content": text})));
            body.insert("messages".into(), messages.into());
            if !tools.is_empty() {
                body.insert("tools".into(), tools.clone().into());
            }
            "/api/chat"
        }
        Input::Prompt { prompt, system, template, context, images } => {
            show(images, &mut body);
            body.insert("prompt".into(), prompt.as_str().into());
            for (name, text) in [("system", system), ("template", template)] {
                if let Some(text) = text {
                    body.insert(name.into(), text.as_str().into());
                }
            }
            if !context.is_empty() {
                body.insert("context".into(), context.clone().into());
            }
            "/api/generate"
        }
        Input::Raw { prompt, images } => {
            show(images, &mut body);
            body.insert("prompt".into(), (prompt.clone() + begun.unwrap_or_default()).into());
            body.insert("raw".into(), true.into());
            "/api/generate"
        }
        Input::Infill { prefix, suffix, .. } => {
            body.insert("prompt".into(), prefix.as_str().into());
            body.insert("suffix".into(), suffix.as_str().into());
            "/api/generate"
        }
    };
    Request::post(path, &body)
}

fn shared(generation: &Generation, model: &str) -> Map<String, Value> {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("stream".into(), true.into());
    match &generation.format {
        Format::Json => {
            body.insert("format".into(), "json".into());
        }
        Format::Schema(schema) => {
            body.insert("format".into(), schema.clone());
        }
        Format::Text | Format::Grammar(_) => {}
    }
    if let Some(think) = &generation.think {
        body.insert("think".into(), json!(think));
    }
    if let Some(top) = generation.logprobs {
        body.insert("logprobs".into(), true.into());
        body.insert("top_logprobs".into(), top.into());
    }
    // True is Ollama's own default, and its older releases do not know the names.
    for (name, value) in [("truncate", generation.truncate), ("shift", generation.shift)] {
        if !value {
            body.insert(name.into(), false.into());
        }
    }
    let mut options = options(&generation.options);
    if let Some(unknown) = &generation.unknown {
        put_under(&mut options, &unknown.ollama_options);
        put_under(&mut body, &unknown.ollama);
    }
    if !options.is_empty() {
        body.insert("options".into(), options.into());
    }
    body
}

/// Canonical options have Ollama's names.
fn options(options: &Options) -> Map<String, Value> {
    match json!(Options { logit_bias: None, ..options.clone() }) {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Ollama puts pictures before the text that they come with.
fn show(images: &[Image], body: &mut Map<String, Value>) {
    if !images.is_empty() {
        let files: Vec<_> = images.iter().map(|image| &*image.data).collect();
        body.insert("images".into(), files.into());
    }
}

fn message(message: &Message) -> Value {
    let mut body = Map::new();
    show(&message.images, &mut body);
    body.insert("role".into(), message.role.as_str().into());
    body.insert("content".into(), message.content.as_str().into());
    let texts = [
        ("thinking", &message.thinking),
        ("tool_name", &message.tool_name),
        ("tool_call_id", &message.tool_call_id),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            body.insert(name.into(), text.as_str().into());
        }
    }
    if !message.tool_calls.is_empty() {
        body.insert("tool_calls".into(), message.tool_calls.clone().into());
    }
    body.into()
}

/// `/api/embed`.
pub(super) fn embed(embedding: &Embedding, model: &str) -> Request {
    let mut body = Map::new();
    body.insert("model".into(), model.into());
    body.insert("input".into(), embedding.inputs.clone().into());
    if !embedding.truncate {
        body.insert("truncate".into(), false.into());
    }
    if let Some(dimensions) = embedding.dimensions {
        body.insert("dimensions".into(), dimensions.into());
    }
    if let Some(num_ctx) = embedding.num_ctx {
        body.insert("options".into(), json!({"num_ctx": num_ctx}));
    }
    Request::post("/api/embed", &body)
}

#[cfg(test)]
mod tests {
    use super::super::Ollama;
    use super::*;
    use crate::node::protocol::testing::{body, generation, goes_on};

    fn encoded(more: Value) -> (String, Value) {
        body(&generate(&generation(more), "theirs", None))
    }

    #[test]
    fn a_conversation_keeps_its_tools_calls_and_thinking() {
        let call = json!({"id": "c", "function": {"name": "f", "arguments": {"x": 1}}});
        let messages = json!([
            {"role": "system", "content": "s"},
            {"role": "assistant", "content": "", "thinking": "hm", "tool_calls": [call]},
            {"role": "tool", "content": "r", "tool_name": "f", "tool_call_id": "c"}
        ]);
        let tools = json!([{"type": "function", "function": {"name": "f"}}]);
        let (path, body) = encoded(json!({
            "input": {"kind": "chat", "messages": messages, "tools": tools}, "think": "high", "logprobs": 2,
            "options": {"num_ctx": 9, "temperature": 0.5, "stop": ["x"], "seed": 3}, "shift": false
        }));
        assert_eq!(path, "/api/chat");
        assert_eq!(
            body,
            json!({
                "model": "theirs", "stream": true, "think": "high", "logprobs": true, "top_logprobs": 2, "shift": false,
                "options": {"temperature": 0.5, "seed": 3, "stop": ["x"], "num_ctx": 9}, "messages": messages, "tools": tools
            })
        );
    }

    #[test]
    fn what_only_this_api_may_know_travels_along_under_what_is_known() {
        let unknown = json!({"openai": {"min_tokens": 3}, "ollama": {"new": 1, "raw": 2}, "ollama_options": {"mirostat": 2, "seed": 9}});
        let (_, body) = encoded(json!({"unknown": unknown, "options": {"seed": 3}}));
        let expected = json!({"model": "theirs", "stream": true, "new": 1, "raw": true, "options": {"seed": 3, "mirostat": 2}, "prompt": "p"});
        assert_eq!(body, expected);
    }

    #[test]
    fn every_other_input_goes_to_generate() {
        let prompt = json!({"kind": "prompt", "prompt": "p", "system": "s", "template": "t", "context": [1]});
        let cases = [
            (prompt, json!({"prompt": "p", "system": "s", "template": "t", "context": [1]})),
            (json!({"kind": "raw", "prompt": "p"}), json!({"prompt": "p", "raw": true})),
            (json!({"kind": "infill", "prefix": "p", "suffix": "s"}), json!({"prompt": "p", "suffix": "s"})),
        ];
        for (input, expected) in cases {
            let (path, mut body) = encoded(json!({"input": input}));
            body.as_object_mut().unwrap().retain(|name, _| name != "model" && name != "stream");
            assert_eq!((path.as_str(), body), ("/api/generate", expected));
        }
    }

    #[test]
    fn formats_are_the_word_or_the_schema() {
        let format = |value: Value| encoded(json!({"format": value})).1["format"].clone();
        assert_eq!(format(json!({"kind": "json"})), "json");
        assert_eq!(
            format(json!({"kind": "schema", "schema": {"type": "object"}})),
            json!({"type": "object"})
        );
        assert_eq!(format(json!({"kind": "text"})), Value::Null);
    }

    #[test]
    fn an_answer_goes_on_as_the_assistants_turn_or_behind_the_raw_prompt() {
        goes_on(&Ollama);
    }

    #[test]
    fn embeddings_say_only_what_was_said() {
        let embedding = |more: bool| Embedding {
            model: "m".into(),
            inputs: vec!["a".into()],
            truncate: !more,
            dimensions: more.then_some(2),
            num_ctx: more.then_some(8),
        };
        assert_eq!(body(&embed(&embedding(false), "t")).1, json!({"model": "t", "input": ["a"]}));
        assert_eq!(
            body(&embed(&embedding(true), "t")).1,
            json!({"model": "t", "input": ["a"], "truncate": false, "dimensions": 2, "options": {"num_ctx": 8}})
        );
    }
}
