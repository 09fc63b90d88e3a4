//! What tests of the protocols share.

use serde_json::{Value, json};

use super::{Garbled, Lines, Protocol, Request};
use crate::generation::{Event, Generation};

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
