//! What servers that mirror Ollama most often get wrong, one test each.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::testing::*;
use super::*;
use crate::generation::{Delta, Format, Input};

/// A body that asks for a short text.
fn body(endpoint: &Endpoint) -> Value {
    match endpoint {
        Endpoint::Generate | Endpoint::Completions => json!({"model": "m", "prompt": "hi"}),
        Endpoint::Completion => json!({"prompt": "hi"}),
        Endpoint::Infill => json!({"input_prefix": "h", "input_suffix": "i"}),
        Endpoint::Embed | Endpoint::Embeddings => json!({"model": "m", "input": "hi"}),
        Endpoint::LegacyEmbeddings => json!({"model": "m", "prompt": "hi"}),
        _ => json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}),
    }
}

fn with(endpoint: &Endpoint, more: Value) -> Value {
    let mut body = body(endpoint);
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

const TEXT: [Endpoint; 4] =
    [Endpoint::Generate, Endpoint::Chat, Endpoint::ChatCompletions, Endpoint::Completions];
const NATIVE: [Endpoint; 2] = [Endpoint::Generate, Endpoint::Chat];
const OPENAI: [Endpoint; 2] = [Endpoint::ChatCompletions, Endpoint::Completions];
const LLAMA_SERVER: [Endpoint; 2] = [Endpoint::Completion, Endpoint::Infill];
const ALL: [Endpoint; 7] = [
    Endpoint::Generate,
    Endpoint::Chat,
    Endpoint::ChatCompletions,
    Endpoint::Completions,
    Endpoint::Embed,
    Endpoint::LegacyEmbeddings,
    Endpoint::Embeddings,
];

#[test]
fn bodies_of_many_megabytes_are_read() {
    let text = "x".repeat(8 << 20);
    let call = call(Endpoint::Generate, json!({"model": "m", "prompt": text}));
    assert!(matches!(&generation(&call).input, Input::Prompt { prompt, .. } if prompt.len() == 8 << 20));
}

#[test]
fn streaming_is_the_default_on_native_endpoints_only() {
    for endpoint in NATIVE {
        assert!(call(endpoint.clone(), body(&endpoint)).stream);
        assert!(!call(endpoint.clone(), with(&endpoint, json!({"stream": false}))).stream);
    }
    for endpoint in OPENAI {
        assert!(!call(endpoint.clone(), body(&endpoint)).stream);
        assert!(call(endpoint.clone(), with(&endpoint, json!({"stream": true}))).stream);
    }
}

#[test]
fn a_load_or_unload_is_one_object_even_where_a_stream_was_asked_for() {
    for (endpoint, name) in [(Endpoint::Generate, "response"), (Endpoint::Chat, "message")] {
        let mut load = call(endpoint.clone(), json!({"model": "m", "stream": true}));
        assert!(matches!(load.work, Work::Load));
        let answer: Value = serde_json::from_slice(&load.render.loaded(true, &spent())).unwrap();
        assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("load")));
        assert!(answer.get(name).is_some());
        assert!(answer.get("total_duration").is_none());

        let mut unload = call(endpoint, json!({"model": "m", "keep_alive": 0}));
        assert!(matches!(unload.work, Work::Unload));
        let answer: Value = serde_json::from_slice(&unload.render.loaded(false, &spent())).unwrap();
        assert_eq!(answer["done_reason"], "unload");
    }
}

#[test]
fn durations_are_nanoseconds_and_load_is_never_zero() {
    for endpoint in NATIVE {
        let mut call = call(endpoint.clone(), body(&endpoint));
        let mut out = BytesMut::new();
        let spent = Spent { total: 5, load: 0, now: spent().now };
        call.render.event(0, &Event::Done(done()), &spent, &mut out);
        let line: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!((&line["total_duration"], &line["load_duration"]), (&json!(5), &json!(1)));
        assert_eq!((&line["prompt_eval_duration"], &line["eval_duration"]), (&json!(20), &json!(30)));
    }
}

#[test]
fn the_model_is_echoed_as_it_was_written() {
    for endpoint in TEXT {
        let mut call = call(endpoint.clone(), with(&endpoint, json!({"model": "Demo<1>:LATEST"})));
        assert_eq!(call.model, "Demo<1>:LATEST");
        assert_eq!(whole(&mut *call.render, &[Whole::default()])["model"], "Demo<1>:LATEST");
    }
    for endpoint in [Endpoint::Embed, Endpoint::Embeddings] {
        let mut call = call(endpoint.clone(), with(&endpoint, json!({"model": "Demo:LATEST"})));
        let answer = call.render.embeddings(&Embeddings::default(), &spent()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&answer).unwrap()["model"], "Demo:LATEST");
    }
}

#[test]
fn null_is_the_same_as_absent_for_every_field() {
    for endpoint in NATIVE {
        let nulls = json!({
            "stream": null, "format": null, "options": null, "keep_alive": null, "think": null, "truncate": null,
            "shift": null, "logprobs": null, "top_logprobs": null, "suffix": null, "system": null, "template": null,
            "raw": null, "context": null, "images": null, "tools": null
        });
        let with_nulls = call(endpoint.clone(), with(&endpoint, nulls));
        let plain = call(endpoint.clone(), body(&endpoint));
        assert_eq!(generation(&with_nulls), generation(&plain));
        assert_eq!((with_nulls.stream, with_nulls.keep_alive), (plain.stream, plain.keep_alive));
    }
    for endpoint in OPENAI {
        let nulls = json!({
            "stream": null, "stream_options": null, "max_tokens": null, "max_completion_tokens": null, "seed": null,
            "stop": null, "temperature": null, "top_p": null, "frequency_penalty": null, "presence_penalty": null,
            "response_format": null, "tools": null, "logprobs": null, "top_logprobs": null, "n": null,
            "reasoning_effort": null, "suffix": null, "user": null
        });
        let with_nulls = call(endpoint.clone(), with(&endpoint, nulls));
        assert_eq!(generation(&with_nulls), generation(&call(endpoint.clone(), body(&endpoint))));
    }
}

#[test]
fn an_empty_format_is_none_and_whole_floats_are_integers() {
    for endpoint in NATIVE {
        let more =
            json!({"format": "", "options": {"num_predict": 10.0}, "top_logprobs": 2.0, "logprobs": true});
        let call = call(endpoint.clone(), with(&endpoint, more));
        let generation = generation(&call);
        assert_eq!(generation.format, Format::Text);
        assert_eq!(generation.options.num_predict, Some(10));
        assert_eq!(generation.logprobs, Some(2));
    }
}

#[test]
fn an_error_before_the_stream_is_a_body_and_one_within_it_is_its_last_line() {
    let error = Error::NodeLost { reason: "gone".into() };
    let failed = |endpoint: Endpoint| {
        let mut out = BytesMut::new();
        call(endpoint.clone(), body(&endpoint)).render.failure(&error, &mut out);
        String::from_utf8(out.to_vec()).unwrap()
    };
    for endpoint in NATIVE {
        assert_eq!(failed(endpoint), format!("{{\"error\":\"{error}\"}}\n"));
    }
    for endpoint in OPENAI {
        let text = failed(endpoint);
        let body = String::from_utf8(error_body(Dialect::OpenAi, &error)).unwrap();
        assert_eq!(text, format!("data: {body}\n\n"));
    }
}

#[test]
fn prompt_tokens_include_the_cached_ones() {
    let mut call = call(Endpoint::Generate, body(&Endpoint::Generate));
    let last = lines(&event(&mut *call.render, 0, &Event::Done(done()))).remove(0);
    assert_eq!(last["prompt_eval_count"], 7);
}

#[test]
fn every_native_stream_ends_with_exactly_one_done_line_and_has_no_blank_lines() {
    for endpoint in NATIVE {
        let mut call = call(endpoint.clone(), body(&endpoint));
        let stream = stream(&mut *call.render, &[text(""), text("a\n\n"), text(""), Event::Done(done())]);
        assert!(stream.split_terminator('\n').all(|line| !line.is_empty()));
        let lines = lines(&stream);
        assert_eq!(lines.iter().map(|line| line["done"] == json!(true)).collect::<Vec<_>>(), [false, true]);
    }
}

#[test]
fn line_separators_are_escaped_in_every_stream() {
    for endpoint in TEXT {
        let mut call = call(endpoint.clone(), with(&endpoint, json!({"model": "a\u{2028}"})));
        let stream = stream(&mut *call.render, &[text("\u{2028}\u{2029}"), Event::Done(done())]);
        assert!(!stream.contains(['\u{2028}', '\u{2029}']));
        assert!(stream.contains("\\u2028\\u2029"));
    }
}

#[test]
fn tool_call_arguments_are_an_object_natively_and_a_string_for_openai() {
    let made = Event::ToolCall {
        call: json!({"id": "call_1", "function": {"name": "f", "arguments": {"b": 1, "a": "<x>"}}}),
        tokens: Vec::new(),
    };
    let mut native = call(Endpoint::Chat, body(&Endpoint::Chat));
    let line = lines(&event(&mut *native.render, 0, &made)).remove(0);
    assert_eq!(line["message"]["content"], "");
    assert_eq!(
        line["message"]["tool_calls"],
        json!([{"id": "call_1", "function": {"index": 0, "name": "f", "arguments": {"b": 1, "a": "<x>"}}}])
    );
    let mut openai = call(Endpoint::ChatCompletions, body(&Endpoint::ChatCompletions));
    let events = [made.clone(), made, Event::Done(done())];
    let chunks = chunks(&stream(&mut *openai.render, &events));
    assert_eq!(
        chunks[1]["choices"][0]["delta"]["tool_calls"],
        json!([{"id": "call_1", "index": 1, "type": "function",
                "function": {"name": "f", "arguments": r#"{"b":1,"a":"<x>"}"#}}])
    );
    assert_eq!(chunks[2]["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn openai_endpoints_default_to_temperature_and_top_p_of_one() {
    for endpoint in OPENAI {
        let call = call(endpoint.clone(), body(&endpoint));
        let options = &generation(&call).options;
        assert_eq!((options.temperature, options.top_p), (Some(1.0), Some(1.0)));
    }
    for endpoint in NATIVE {
        let call = call(endpoint.clone(), body(&endpoint));
        assert_eq!(generation(&call).options, Default::default());
    }
}

#[test]
fn openai_embeddings_come_as_base64_when_asked() {
    let mut call =
        call(Endpoint::Embeddings, json!({"model": "m", "input": "a", "encoding_format": "BASE64"}));
    let vectors = Embeddings { vectors: vec![vec![1.0, -2.0]], prompt_tokens: 3 };
    let answer: Value = serde_json::from_slice(&call.render.embeddings(&vectors, &spent()).unwrap()).unwrap();
    assert_eq!(answer["data"][0]["embedding"], "AACAPwAAAMA=");
}

#[test]
fn the_usage_chunk_follows_the_finish_chunk_and_has_no_choices() {
    for endpoint in OPENAI {
        let more = json!({"stream": true, "stream_options": {"include_usage": true}});
        let mut call = call(endpoint.clone(), with(&endpoint, more));
        let chunks = chunks(&stream(&mut *call.render, &[text("a"), Event::Done(done())]));
        let [.., finish, usage] = chunks.as_slice() else { panic!() };
        assert_eq!(finish["choices"][0]["finish_reason"], "stop");
        assert!(finish.get("usage").is_none());
        assert_eq!(usage["choices"], json!([]));
        assert_eq!(
            usage["usage"],
            json!({"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9,
                   "prompt_tokens_details": {"cached_tokens": 3}})
        );
    }
}

#[test]
fn context_is_on_the_last_line_of_generate_only() {
    let end = Event::Done(Done { context: vec![1, 2], ..done() });
    let mut generate = call(Endpoint::Generate, body(&Endpoint::Generate));
    let lines = lines(&stream(&mut *generate.render, &[text("a"), end.clone(), Event::Done(done())]));
    assert!(lines[0].get("context").is_none());
    assert_eq!(lines[1]["context"], json!([1, 2]));
    assert!(lines[2].get("context").is_none());
    let mut chat = call(Endpoint::Chat, body(&Endpoint::Chat));
    assert!(!event(&mut *chat.render, 0, &end).contains("context"));
}

#[test]
fn unknown_options_never_fail_and_wrong_types_do() {
    for endpoint in NATIVE {
        let unknown = with(&endpoint, json!({"options": {"mirostat": "x"}, "anything": {}}));
        assert_eq!(generation(&call(endpoint.clone(), unknown)).options, Default::default());
        let wrong = refused(endpoint.clone(), with(&endpoint, json!({"options": {"num_ctx": "x"}})));
        assert_eq!(wrong.to_string(), r#"option "num_ctx" must be of type integer"#);
        assert_eq!(wrong.status(), 400);
    }
}

#[test]
fn a_missing_body_is_400_everywhere() {
    for endpoint in ALL {
        assert_eq!(parse(&endpoint, b"").err(), Some(Error::MissingBody));
    }
}

#[test]
fn an_embedding_that_is_not_a_number_is_an_error_and_never_a_broken_body() {
    for endpoint in [Endpoint::Embed, Endpoint::LegacyEmbeddings, Endpoint::Embeddings] {
        let mut call = call(endpoint.clone(), body(&endpoint));
        let vectors = Embeddings { vectors: vec![vec![0.0, f32::NAN]], prompt_tokens: 1 };
        assert!(call.render.embeddings(&vectors, &spent()).is_err());
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..96)) {
        for endpoint in ALL.into_iter().chain(LLAMA_SERVER) {
            let _ = parse(&endpoint, &bytes);
        }
    }

    #[test]
    fn no_values_of_known_fields_make_a_parser_panic(fields in proptest::collection::hash_map(field(), value(), 0..8)) {
        for endpoint in ALL.into_iter().chain(LLAMA_SERVER) {
            let fields = json!(fields);
            let _ = parse(&endpoint, with(&endpoint, fields).to_string().as_bytes());
        }
    }

    #[test]
    fn a_stream_says_what_the_whole_answer_says(pieces in proptest::collection::vec((".{0,6}", ".{0,3}"), 0..8)) {
        let delta = |(text, thinking)| Event::Delta(Delta { text, thinking, ..Delta::default() });
        let mut events: Vec<_> = pieces.into_iter().map(delta).collect();
        events.push(Event::Done(done()));
        for endpoint in TEXT {
            let streamed = call(endpoint.clone(), body(&endpoint)).render;
            let whole = call(endpoint.clone(), body(&endpoint)).render;
            let (streamed, whole) = both(&endpoint, streamed, whole, &events);
            prop_assert_eq!(streamed, whole, "{:?}", endpoint);
        }
    }
}

/// Text and thinking as a stream and as a whole answer give them.
fn both(
    endpoint: &Endpoint,
    mut streamed: Box<dyn Render>,
    mut complete: Box<dyn Render>,
    events: &[Event],
) -> ([String; 2], [String; 2]) {
    let (text, thinking, whole_text, whole_thinking) = match endpoint {
        Endpoint::Generate => ("/response", "/thinking", "/response", "/thinking"),
        Endpoint::Chat => ("/message/content", "/message/thinking", "/message/content", "/message/thinking"),
        Endpoint::Completions => ("/choices/0/text", "/none", "/choices/0/text", "/none"),
        _ => (
            "/choices/0/delta/content",
            "/choices/0/delta/reasoning",
            "/choices/0/message/content",
            "/choices/0/message/reasoning",
        ),
    };
    let stream = stream(&mut *streamed, events);
    let objects = if NATIVE.contains(endpoint) { lines(&stream) } else { chunks(&stream) };
    let all = |path| -> String {
        objects.iter().filter_map(|object| object.pointer(path)).filter_map(Value::as_str).collect()
    };
    let answer = whole(&mut *complete, &[joined(events)]);
    let one = |path| answer.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    ([all(text), all(thinking)], [one(whole_text), one(whole_thinking)])
}

fn field() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "model",
        "prompt",
        "messages",
        "input",
        "options",
        "keep_alive",
        "think",
        "format",
        "stop",
        "n",
        "tools",
        "content",
        "images",
        "logprobs",
        "response_format",
        "seed",
        "dimensions",
        "input_extra",
        "json_schema",
        "logit_bias",
        "lora",
        "n_probs",
        "encoding_format",
        "context",
    ])
    .prop_map(str::to_owned)
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(nested(), inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

fn nested() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        "role",
        "content",
        "type",
        "text",
        "image_url",
        "url",
        "tool_calls",
        "function",
        "arguments",
    ])
    .prop_map(str::to_owned)
}
