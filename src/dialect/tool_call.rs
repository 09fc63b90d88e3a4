//! Tool calls between their canonical form, `{"id"?,"function":{"name","arguments":{…}}}`, and the dialects.

use bytes::{BufMut, BytesMut};
use serde_json::{Map, Value, json};

use super::json as writer;

/// The canonical form of a call.
pub(super) fn canonical(id: Option<String>, name: String, arguments: Map<String, Value>) -> Value {
    let function = json!({ "name": name, "arguments": arguments });
    match id.filter(|id| !id.is_empty()) {
        Some(id) => json!({ "id": id, "function": function }),
        None => json!({ "function": function }),
    }
}

/// A canonical call, looked at.
pub(super) struct ToolCall<'a> {
    id: Option<&'a str>,
    name: &'a str,
    arguments: Option<&'a Value>,
}

impl<'a> ToolCall<'a> {
    pub(super) fn of(call: &'a Value) -> Self {
        let function = call.get("function");
        Self {
            id: call.get("id").and_then(Value::as_str),
            name: function.and_then(|f| f.get("name")).and_then(Value::as_str).unwrap_or_default(),
            arguments: function.and_then(|f| f.get("arguments")),
        }
    }

    /// Appends `{"id","function":{"index","name","arguments":{…}}}`.
    pub(super) fn ollama(&self, index: usize, out: &mut BytesMut) {
        out.put_u8(b'{');
        if let Some(id) = self.id {
            out.put_slice(b"\"id\":");
            writer::string(out, id);
            out.put_u8(b',');
        }
        out.put_slice(b"\"function\":{\"index\":");
        writer::number(out, index);
        out.put_slice(b",\"name\":");
        writer::string(out, self.name);
        out.put_slice(b",\"arguments\":");
        match self.arguments {
            Some(arguments) => writer::value(out, arguments),
            None => out.put_slice(b"{}"),
        }
        out.put_slice(b"}}");
    }

    /// Appends `{"id","index","type":"function","function":{"name","arguments":"…"}}`, the arguments as JSON text.
    pub(super) fn openai(&self, index: usize, out: &mut BytesMut) {
        out.put_slice(b"{\"id\":");
        match self.id {
            Some(id) => writer::string(out, id),
            // Clients send it back to say which call a result belongs to, so there must be one.
            None => writer::string(out, &format!("call_{index}")),
        }
        out.put_slice(b",\"index\":");
        writer::number(out, index);
        out.put_slice(b",\"type\":\"function\",\"function\":{\"name\":");
        writer::string(out, self.name);
        out.put_slice(b",\"arguments\":");
        let arguments = self.arguments.map_or_else(|| "{}".to_owned(), Value::to_string);
        writer::string(out, &arguments);
        out.put_slice(b"}}");
    }
}
