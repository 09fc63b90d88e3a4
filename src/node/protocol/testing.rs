//! What tests of the protocols share.

use serde_json::{Value, json};

use super::{Garbled, Lines, Protocol, Request};
use crate::generation::{Alternative, Delta, Event, Generation, TokenLogprob};

/// A generation with these fields beside a prompt.
pub(super) fn generation(more: Value) -> Generation {
    let mut body = json!({"model": "ours", "input": {"kind": "raw", "prompt": "p"}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(body).unwrap()
}

/// The path and the JSON of a request.
pub(super) fn body(request: &Request) -> (String, Value) {
    let body = request.body.as_deref().unwrap_or(b"null");
    (request.path.to_string(), serde_json::from_slice(body).unwrap())
}

/// What the chats say that every protocol's tests read: a thought, and a text with log probabilities.
pub(super) fn said() -> [Event; 2] {
    let logprob = TokenLogprob {
        token: "h".into(),
        logprob: -0.5,
        bytes: b"h".to_vec(),
        top: vec![Alternative { token: "x".into(), logprob: -1.5, bytes: b"x".to_vec() }],
    };
    [
        Event::Delta(Delta { thinking: "hm".into(), ..Delta::default() }),
        Event::Delta(Delta { text: "hé🦙".into(), logprobs: vec![logprob], ..Delta::default() }),
    ]
}

/// Checks that an answer goes on behind a raw prompt and as the assistant's turn in a chat; the body of the chat.
pub(super) fn goes_on(protocol: &dyn Protocol) -> Value {
    let raw = generation(json!({"input": {"kind": "raw", "prompt": "a "}}));
    assert_eq!(body(&protocol.generate(&raw, "m", Some("b"))).1["prompt"], "a b");
    let chat = generation(json!({"input": {"kind": "chat", "messages": [{"role": "user", "content": "q"}]}}));
    let (_, chat) = body(&protocol.generate(&chat, "m", Some("so far")));
    assert_eq!(chat["messages"][1], json!({"role": "assistant", "content": "so far"}));
    chat
}

/// What is read of an answer that comes in `pieces` and then ends, as far as the first `Done` or `Error`.
pub(super) fn decoded<'a>(
    protocol: &dyn Protocol,
    generation: &Generation,
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Result<Vec<Event>, Garbled> {
    let (mut decoder, mut lines, mut events) = (protocol.decoder(generation), Lines::default(), Vec::new());
    for piece in pieces {
        lines.buffer.extend_from_slice(piece);
        while let Some(event) = decoder.next(&mut lines)? {
            let is_last = matches!(event, Event::Done(_) | Event::Error(_));
            events.push(event);
            if is_last {
                return Ok(events);
            }
        }
    }
    events.extend(decoder.end(&mut lines)?);
    Ok(events)
}

/// Checks that `wire` is read as `events`: whole, cut in two at every byte, and byte by byte.
pub(super) fn every_cut(protocol: &dyn Protocol, generation: &Generation, wire: &[u8], events: &[Event]) {
    for at in 0..=wire.len() {
        let (head, tail) = wire.split_at(at);
        let read = decoded(protocol, generation, [head, tail]);
        assert_eq!(read.as_deref(), Ok(events), "cut at {at}");
    }
    assert_eq!(decoded(protocol, generation, wire.chunks(1)).as_deref(), Ok(events), "byte by byte");
}
