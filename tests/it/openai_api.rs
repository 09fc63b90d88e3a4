//! OpenAI's API over the wire.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model};
use crate::http::Response;

fn server() -> Server {
    Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\" }}, tiny: {}, embedder: {} }}",
        model(Fixture::TinyLlama, "aliases: [gpt-4o-mini]"),
        model(Fixture::TinyBert, ""),
    ))
}

fn chat(extra: Value) -> Value {
    let mut body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Hello" }], "max_tokens": 5, "seed": 7 });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

/// The JSON of a stream's events, its end mark checked and taken off.
fn events(response: Response) -> Vec<Value> {
    assert_eq!(response.status, 200);
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")));
    let mut events = response.events().expect("server-sent events");
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect()
}

#[test]
fn models_are_listed_and_retrieved() {
    let server = server();
    let list = server.get("/v1/models").json().expect("JSON");
    assert_eq!(list["object"], "list");
    let ids: Vec<&str> =
        list["data"].as_array().expect("models").iter().filter_map(|model| model["id"].as_str()).collect();
    assert!(ids.contains(&"demo:latest") && ids.contains(&"tiny:latest"), "{ids:?}");
    let one = server.get("/v1/models/tiny").json().expect("JSON");
    assert_eq!(
        (&one["id"], &one["object"], &one["owned_by"]),
        (&json!("tiny"), &json!("model"), &json!("library"))
    );
    assert!(one["created"].is_u64());
    assert_eq!(server.get("/v1/models/nobody").status, 404);
}

#[test]
fn a_chat_completion_has_openais_shape() {
    let server = server();
    let answer = server.post("/v1/chat/completions", &chat(json!({}))).json().expect("JSON");
    assert_eq!((&answer["object"], &answer["model"]), (&json!("chat.completion"), &json!("tiny")));
    assert!(answer["id"].as_str().is_some_and(|id| id.starts_with("chatcmpl-")));
    let choice = &answer["choices"][0];
    assert_eq!(
        (&choice["index"], &choice["message"]["role"], &choice["finish_reason"]),
        (&json!(0), &json!("assistant"), &json!("length"))
    );
    let usage = &answer["usage"];
    let count = |key: &str| usage[key].as_u64().expect("a count");
    assert_eq!(count("completion_tokens"), 5);
    assert_eq!(count("total_tokens"), count("prompt_tokens") + 5);
}

#[test]
fn a_stream_tells_the_role_once_the_finish_before_the_usage_and_its_end() {
    let server = server();
    let ask = chat(json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let events = events(server.post("/v1/chat/completions", &ask));
    assert!(
        events.iter().all(|event| event["id"] == events[0]["id"] && event["created"] == events[0]["created"])
    );
    assert!(events.iter().all(|event| event["object"] == "chat.completion.chunk"));
    let roles = events.iter().filter(|event| event["choices"][0]["delta"].get("role").is_some()).count();
    assert_eq!((roles, &events[0]["choices"][0]["delta"]["role"]), (1, &json!("assistant")));
    let [.., finish, usage] = &events[..] else { panic!("too few events: {events:?}") };
    assert_eq!(
        (&finish["choices"][0]["delta"], &finish["choices"][0]["finish_reason"]),
        (&json!({}), &json!("length"))
    );
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(5)));

    let streamed: String =
        events.iter().filter_map(|event| event["choices"][0]["delta"]["content"].as_str()).collect();
    let whole = server.post("/v1/chat/completions", &chat(json!({}))).json().expect("JSON");
    assert_eq!(whole["choices"][0]["message"]["content"], streamed);
}

#[test]
fn n_choices_differ_and_carry_their_index() {
    let server = server();
    let answer = server.post("/v1/chat/completions", &chat(json!({ "n": 3 }))).json().expect("JSON");
    let choices = answer["choices"].as_array().expect("choices");
    assert_eq!(
        choices.iter().map(|choice| choice["index"].as_u64()).collect::<Vec<_>>(),
        [Some(0), Some(1), Some(2)]
    );
    assert_ne!(choices[0]["message"]["content"], choices[1]["message"]["content"]);
    let events = events(server.post("/v1/chat/completions", &chat(json!({ "n": 2, "stream": true }))));
    for index in 0..2 {
        let ends = events.iter().filter(|event| {
            event["choices"][0]["index"] == index && event["choices"][0]["finish_reason"].is_string()
        });
        assert_eq!(ends.count(), 1, "choice {index} ends once");
    }
}

#[test]
fn one_request_in_either_dialect_gives_one_text() {
    let server = server();
    let options = json!({ "num_predict": 5, "seed": 7, "temperature": 1.0, "top_p": 1.0 });
    let native = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Hello" }], "stream": false, "options": options });
    let native = server.post("/api/chat", &native).json().expect("JSON");
    let openai =
        server.post("/v1/chat/completions", &chat(json!({ "model": "gpt-4o-mini" }))).json().expect("JSON");
    assert_eq!(native["message"]["content"], openai["choices"][0]["message"]["content"]);
    assert_eq!(openai["model"], "gpt-4o-mini", "the alias is echoed");
}

#[test]
fn completions_run_with_the_models_template_and_stream() {
    let server = server();
    let ask = json!({ "model": "tiny", "prompt": "Hello", "max_tokens": 5, "seed": 7 });
    let whole = server.post("/v1/completions", &ask).json().expect("JSON");
    assert_eq!(whole["object"], "text_completion");
    assert!(whole["id"].as_str().is_some_and(|id| id.starts_with("cmpl-")));
    let stream = json!({ "model": "tiny", "prompt": "Hello", "max_tokens": 5, "seed": 7, "stream": true });
    let events = events(server.post("/v1/completions", &stream));
    let text: String = events.iter().filter_map(|event| event["choices"][0]["text"].as_str()).collect();
    assert_eq!(whole["choices"][0]["text"], text);
}

#[test]
fn embeddings_come_as_numbers_or_as_base64_of_the_same_numbers() {
    use base64::Engine;
    let server = server();
    let embed = |format: &str| {
        let ask = json!({ "model": "embedder", "input": ["the llama"], "encoding_format": format });
        server.post("/v1/embeddings", &ask).json().expect("JSON")
    };
    let floats = embed("float");
    assert_eq!((&floats["object"], &floats["data"][0]["object"]), (&json!("list"), &json!("embedding")));
    let packed = embed("base64")["data"][0]["embedding"].as_str().expect("text").to_owned();
    let bytes = base64::engine::general_purpose::STANDARD.decode(packed).expect("base64");
    let numbers = bytes.as_chunks::<4>().0.iter().map(|bytes| f64::from(f32::from_le_bytes(*bytes)));
    let floats = floats["data"][0]["embedding"].as_array().expect("a vector");
    assert_eq!(bytes.len(), 64 * 4);
    for (number, float) in numbers.zip(floats) {
        assert!((number - float.as_f64().expect("a number")).abs() < 1e-6);
    }
    for wrong in [
        json!({ "model": "embedder", "input": "x", "encoding_format": "hex" }),
        json!({ "model": "embedder", "input": [] }),
    ] {
        assert_eq!(server.post("/v1/embeddings", &wrong).status, 400, "{wrong}");
    }
}

#[test]
fn response_format_and_logprobs_work() {
    let server = server();
    let schema = json!({ "type": "object", "properties": { "sum": { "type": "integer", "minimum": 0, "maximum": 99 } }, "required": ["sum"], "additionalProperties": false });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "sum", "schema": schema } });
    let answer =
        server.post("/v1/chat/completions", &chat(json!({ "response_format": format, "max_tokens": 200 })));
    let answer = answer.json().expect("JSON");
    let content = answer["choices"][0]["message"]["content"].as_str().expect("text");
    assert!(serde_json::from_str::<Value>(content).expect(content)["sum"].is_u64());
    let answer = server
        .post("/v1/chat/completions", &chat(json!({ "logprobs": true, "top_logprobs": 2 })))
        .json()
        .expect("JSON");
    let entries = answer["choices"][0]["logprobs"]["content"].as_array().expect("logprobs");
    assert_eq!((entries.len(), entries[0]["top_logprobs"].as_array().map(Vec::len)), (5, Some(2)));
}

#[test]
fn errors_have_openais_shape() {
    let server = server();
    let error = |path: &str, body: Value| {
        let response = server.post(path, &body);
        (response.status, response.json().expect("JSON")["error"].clone())
    };
    let (status, unknown) = error("/v1/chat/completions", chat(json!({ "model": "nobody" })));
    assert_eq!((status, &unknown["type"]), (404, &json!("not_found_error")));
    assert_eq!(unknown["message"], "model 'nobody' not found");
    let (status, empty) = error("/v1/chat/completions", chat(json!({ "messages": [] })));
    assert_eq!((status, &empty["message"]), (400, &json!("[] is too short - 'messages'")));
    assert_eq!(empty["type"], "invalid_request_error");
    let picture = json!([{ "type": "image_url", "image_url": { "url": "https://example.com/a.png" } }]);
    let (status, _) =
        error("/v1/chat/completions", chat(json!({ "messages": [{ "role": "user", "content": picture }] })));
    assert_eq!(status, 400);
    assert_eq!(server.get("/v1/nothing").status, 404);
}
