//! Whatever bytes a worker is sent: they are a request or an error, and what was read is what is written.

use std::fmt::Debug;

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::seam::{Spec, Tokenize, Tokens, Vitals};
use super::*;

/// Reads `bytes` as a `T`; one that can be read can be written, and is read from that as the same.
fn read<T: DeserializeOwned + Serialize + PartialEq + Debug>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        let written = serde_json::to_vec(&value).unwrap();
        // NaN is nothing that JSON can bring, so equality is what it says.
        assert_eq!(serde_json::from_slice::<T>(&written).unwrap(), value);
    }
}

fn read_as_anything(bytes: &[u8]) {
    read::<Generation>(bytes);
    read::<Embedding>(bytes);
    read::<Tokenize>(bytes);
    read::<Tokens>(bytes);
    read::<Event>(bytes);
    read::<Vitals>(bytes);
    read::<Spec>(bytes);
}

/// A request that uses every part of the form.
fn sample() -> Value {
    json!({
        "model": "m",
        "input": {
            "kind": "chat",
            "messages": [
                { "role": "user", "content": "é\u{0}🦙" },
                { "role": "assistant", "content": "", "thinking": "hm", "tool_calls": [{ "function": { "name": "f", "arguments": {} } }] },
                { "role": "tool", "content": "1", "tool_name": "f", "tool_call_id": "c" },
            ],
            "tools": [{ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } }],
        },
        "options": { "num_predict": 8, "temperature": 0.5, "seed": -1, "stop": ["a"], "num_ctx": 64 },
        "format": { "kind": "schema", "schema": { "type": "array" } },
        "adaptation": { "kind": "adapter", "name": "a", "scale": 0.5 },
        "logprobs": 3, "think": "high", "truncate": false, "shift": true, "priority": -10,
    })
}

/// JSON made of the words of the form, in any order and depth.
fn json_ish() -> impl Strategy<Value = Value> {
    let word = prop::sample::select(vec![
        "model",
        "input",
        "kind",
        "chat",
        "prompt",
        "raw",
        "infill",
        "messages",
        "role",
        "user",
        "content",
        "tools",
        "options",
        "temperature",
        "stop",
        "seed",
        "format",
        "schema",
        "json",
        "text",
        "think",
        "inputs",
        "truncate",
        "dimensions",
        "num_ctx",
        "tokens",
        "prefix",
        "suffix",
        "context",
        "system",
        "template",
        "logprobs",
    ]);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word.clone().prop_map(Value::from),
        ".{0,4}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        let fields = prop::collection::vec((word.clone().prop_map(str::to_owned), inner.clone()), 0..8);
        prop_oneof![
            prop::collection::vec(inner, 0..5).prop_map(Value::from),
            fields.prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

#[test]
fn a_request_nested_without_end_is_an_error() {
    let open = r#"{"model":"m","input":{"kind":"chat","messages":[],"tools":["#;
    let deep = format!("{open}{}", "[".repeat(1_000_000));
    assert!(serde_json::from_str::<Generation>(&deep).is_err());
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_a_request_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read_as_anything(&bytes);
    }

    #[test]
    fn json_of_the_forms_own_words_is_a_request_or_an_error(value in json_ish()) {
        read_as_anything(value.to_string().as_bytes());
    }

    #[test]
    fn a_damaged_request_is_a_request_or_an_error(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut bytes = serde_json::to_vec(&sample()).unwrap();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if is_cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        read_as_anything(&bytes);
    }

    /// A part of a request that is something else altogether.
    #[test]
    fn a_request_with_a_strange_part_is_a_request_or_an_error(part in json_ish(), place in 0..9_usize) {
        const PLACES: [&str; 9] = ["/model", "/input", "/input/messages", "/input/messages/1", "/input/tools", "/options",
            "/format", "/think", "/logprobs"];
        let mut request = sample();
        *request.pointer_mut(PLACES[place]).unwrap() = part;
        read_as_anything(request.to_string().as_bytes());
    }
}
