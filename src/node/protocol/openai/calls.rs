//! [`Calls`]: tool calls that come in pieces.

use serde_json::{Value, json};

use super::chunk::CallPiece;
use crate::generation::{Delta, Event};

/// The call that is coming in; servers send one after the other.
#[derive(Default)]
pub(super) struct Calls {
    open: Option<Call>,
}

#[derive(Default)]
struct Call {
    index: Option<usize>,
    id: String,
    name: String,
    arguments: String,
}

impl Calls {
    /// Takes a piece; the call before it, if this one begins another.
    pub(super) fn add(&mut self, piece: CallPiece) -> Option<Event> {
        let function = piece.function.unwrap_or_default();
        let id = piece.id.filter(|id| !id.is_empty());
        let is_other = self.open.as_ref().is_some_and(|open| match (open.index, piece.index) {
            (Some(open), Some(index)) => open != index,
            // Who does not number them tells them apart by their ids.
            _ => id.as_ref().is_some_and(|id| *id != open.id),
        });
        let complete = if is_other { self.finish() } else { None };
        let open = self.open.get_or_insert_with(|| Call { index: piece.index, ..Call::default() });
        if let Some(id) = id {
            open.id = id;
        }
        open.name.push_str(&function.name.unwrap_or_default());
        open.arguments.push_str(&function.arguments.unwrap_or_default());
        complete
    }

    /// The open call, which is complete. What does not parse is text, so that nothing that the model said is lost.
    pub(super) fn finish(&mut self) -> Option<Event> {
        let call = self.open.take()?;
        let arguments = match call.arguments.trim() {
            "" => Some(json!({})),
            text => serde_json::from_str::<Value>(text).ok().filter(Value::is_object),
        };
        let Some(arguments) = arguments.filter(|_| !call.name.is_empty()) else {
            return Some(Event::Delta(Delta { text: call.name + &call.arguments, ..Delta::default() }));
        };
        let function = json!({"name": call.name, "arguments": arguments});
        let call = if call.id.is_empty() {
            json!({"function": function})
        } else {
            json!({"id": call.id, "function": function})
        };
        Some(Event::ToolCall { call, tokens: Vec::new() })
    }
}
