//! What the dialects' tests share: asking, and reading what comes back.

use bytes::BytesMut;
use serde_json::Value;
use time::macros::datetime;

use super::{Call, Capability, Endpoint, Render, Spent, Whole, Work, parse};
use crate::error::Error;
use crate::generation::{Alternative, Delta, Done, Event, Generation, TokenLogprob};

/// The call that `body` makes.
pub(super) fn call(endpoint: Endpoint, body: Value) -> Call {
    parse(&endpoint, body.to_string().as_bytes()).unwrap_or_else(|error| panic!("{body}: {error}"))
}

/// The error that `body` gets.
pub(super) fn refused(endpoint: Endpoint, body: Value) -> Error {
    parse(&endpoint, body.to_string().as_bytes()).err().unwrap_or_else(|| panic!("accepted: {body}"))
}

/// The only generation of a call.
pub(super) fn generation(call: &Call) -> &Generation {
    match &call.work {
        Work::Generate(generations) if generations.len() == 1 => &generations[0],
        _ => panic!("not one generation"),
    }
}

/// The names of the capabilities a call needs, with the text of the error.
pub(super) fn needs(call: &Call) -> Vec<(Capability, String)> {
    call.needs.iter().map(|(capability, error)| (*capability, error.to_string())).collect()
}

pub(super) fn spent() -> Spent {
    Spent { total: 100, load: 1, now: datetime!(2025-01-02 03:04:05.6 UTC) }
}

pub(super) fn text(text: &str) -> Event {
    Event::Delta(Delta { text: text.into(), ..Delta::default() })
}

pub(super) fn logprob(token: &str) -> TokenLogprob {
    let top = vec![Alternative { token: token.into(), logprob: -0.5, bytes: token.into() }];
    TokenLogprob { token: token.into(), logprob: -0.5, bytes: token.into(), top }
}

pub(super) fn done() -> Done {
    Done {
        prompt_tokens: 7,
        cached_tokens: 3,
        completion_tokens: 2,
        prompt_duration: 20,
        completion_duration: 30,
        ..Done::default()
    }
}

/// The bytes of one event.
pub(super) fn event(render: &mut dyn Render, choice: usize, event: &Event) -> String {
    let mut out = BytesMut::new();
    render.event(choice, event, &spent(), &mut out);
    String::from_utf8(out.to_vec()).unwrap()
}

/// The bytes of a whole stream of one choice.
pub(super) fn stream(render: &mut dyn Render, events: &[Event]) -> String {
    let mut text: String = events.iter().map(|each| event(render, 0, each)).collect();
    let mut out = BytesMut::new();
    render.finish(&spent(), &mut out);
    text.push_str(std::str::from_utf8(&out).unwrap());
    text
}

/// The objects of an NDJSON stream; every line must be one.
pub(super) fn lines(stream: &str) -> Vec<Value> {
    assert!(stream.is_empty() || stream.ends_with('\n'));
    stream.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The objects of an event stream that ends with the end mark.
pub(super) fn chunks(stream: &str) -> Vec<Value> {
    let chunks = stream.strip_suffix("data: [DONE]\n\n").expect("no end mark");
    chunks
        .split_terminator("\n\n")
        .map(|chunk| serde_json::from_str(chunk.strip_prefix("data: ").unwrap()).unwrap())
        .collect()
}

/// The whole answer of one choice.
pub(super) fn whole(render: &mut dyn Render, choices: &[Whole]) -> Value {
    serde_json::from_slice(&render.whole(choices, &spent())).unwrap()
}

/// What a flight would join `events` into.
pub(super) fn joined(events: &[Event]) -> Whole {
    let mut whole = Whole::default();
    for event in events {
        match event {
            Event::Delta(delta) => {
                whole.text.push_str(&delta.text);
                whole.thinking.push_str(&delta.thinking);
                whole.logprobs.extend(delta.logprobs.iter().cloned());
            }
            Event::ToolCall { call, .. } => whole.tool_calls.push(call.clone()),
            Event::Done(done) => whole.done = done.clone(),
            Event::Error(_) => {}
        }
    }
    whole
}

/// A model to list and describe.
pub(super) fn card(name: &str) -> super::ModelCard {
    super::ModelCard {
        name: name.into(),
        modified: datetime!(2025-01-01 00:00:00 UTC),
        size: 10,
        digest: "ab".repeat(32),
        details: super::Details {
            family: "llama".into(),
            parameter_size: "8.0B".into(),
            quantization_level: "Q4_0".into(),
            context_length: 2048,
            embedding_length: 0,
        },
        capabilities: vec![Capability::Completion, Capability::Tools],
        template: "{{ a }}\n\"b\"".into(),
        system: "be brief".into(),
        parameters: vec![
            ("temperature".into(), serde_json::json!(0.5)),
            ("stop".into(), serde_json::json!(["<a>", "b"])),
        ],
        license: "MIT".into(),
        path: "/models/m.gguf".into(),
        adapted: None,
        via: Vec::new(),
        model_info: serde_json::Map::from_iter([("general.architecture".to_owned(), "llama".into())]),
        tensors: vec![("output.weight".into(), "Q4_0".into(), vec![8, 4])],
    }
}
