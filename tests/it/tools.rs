//! Tool calls and thinking over the wire. The fixture's words are random, so calls are forced and thinking is opened by the prompt.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model};

/// ChatML that shows tools as Qwen's template does; what it appends to the prompt follows.
const TEMPLATE: &str = "{% if tools %}{{ tools|tojson }}<tool_call></tool_call>{% endif %}{% for message in messages %}<|im_start|>\
                        {{ message.role }}: {{ message.content }}<|im_end|>{% endfor %}<|im_start|>assistant ";

/// The end of a template that opens a block of thinking, and of one that closes it where there shall be none.
const THINKS: &str = "{% if enable_thinking %}<think>{% else %}<think></think>{% endif %}";

fn server() -> Server {
    let caller = model(Fixture::TinyLlama, &format!("template: \"{TEMPLATE}\""));
    let thinker = model(Fixture::TinyLlama, &format!("template: \"{TEMPLATE}{THINKS}\""));
    let plain = model(Fixture::TinyLlama, "");
    Server::start(&format!("models: {{ caller: {caller}, thinker: {thinker}, plain: {plain} }}"))
}

fn tool(name: &str) -> Value {
    let parameters = json!({
        "type": "object",
        "properties": { "town": { "enum": ["Gdynia", "Łódź"] }, "days": { "type": "integer", "minimum": 1, "maximum": 9 } },
        "required": ["town", "days"],
        "additionalProperties": false,
    });
    json!({ "type": "function", "function": { "name": name, "parameters": parameters } })
}

fn ask(extra: Value) -> Value {
    let tools = [tool("weather"), tool("tides")];
    let mut body = json!({ "model": "caller", "messages": [{ "role": "user", "content": "Weather?" }], "tools": tools, "seed": 7 });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

fn weather() -> Value {
    json!({ "type": "function", "function": { "name": "weather" } })
}

/// Checks a call in OpenAI's form; its name.
fn check(call: &Value) -> &str {
    assert_eq!((&call["type"], call["id"].as_str().map(str::len)), (&json!("function"), Some(9)), "{call}");
    let arguments = call["function"]["arguments"].as_str().expect("text");
    let arguments: Value = serde_json::from_str(arguments).expect("JSON");
    assert!(["Gdynia", "Łódź"].contains(&arguments["town"].as_str().expect("a town")), "{arguments}");
    assert!((1..=9).contains(&arguments["days"].as_u64().expect("a number")), "{arguments}");
    call["function"]["name"].as_str().expect("a name")
}

#[test]
fn a_forced_call_is_made_whole_and_streamed() {
    let server = server();
    let whole = server.post("/v1/chat/completions", &ask(json!({ "tool_choice": weather() })));
    let choice = whole.json().expect("JSON")["choices"][0].clone();
    assert_eq!((&choice["finish_reason"], &choice["message"]["content"]), (&json!("tool_calls"), &json!("")));
    let [call] = &choice["message"]["tool_calls"].as_array().expect("calls")[..] else { panic!("{choice}") };
    assert_eq!(check(call), "weather");

    let streamed =
        server.post("/v1/chat/completions", &ask(json!({ "tool_choice": weather(), "stream": true })));
    let mut events = streamed.events().expect("events");
    assert_eq!(events.pop().as_deref(), Some("[DONE]"));
    let events: Vec<Value> = events.iter().map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let calls: Vec<&Value> = events
        .iter()
        .filter_map(|event| event["choices"][0]["delta"]["tool_calls"].as_array())
        .flatten()
        .collect();
    assert_eq!(calls, [call], "the same seed makes the same call");
    let last = events.last().expect("an event");
    assert_eq!(last["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn required_calls_are_made_and_none_are_where_forbidden() {
    let server = server();
    for seed in 0..5 {
        let one = json!({ "tool_choice": "required", "parallel_tool_calls": false, "seed": seed });
        let answer = server.post("/v1/chat/completions", &ask(one)).json().expect("JSON");
        let calls = answer["choices"][0]["message"]["tool_calls"].as_array().expect("calls");
        assert_eq!(calls.len(), 1, "{answer}");
        assert!(["weather", "tides"].contains(&check(&calls[0])));
    }
    let none = server.post("/v1/chat/completions", &ask(json!({ "tool_choice": "none", "max_tokens": 5 })));
    let choice = none.json().expect("JSON")["choices"][0].clone();
    assert_eq!((&choice["finish_reason"], choice["message"].get("tool_calls")), (&json!("length"), None));
}

#[test]
fn a_schema_that_cannot_be_obeyed_is_refused_with_the_place_of_the_mistake() {
    let server = server();
    let mut body = ask(json!({ "tool_choice": "required" }));
    body["tools"][1]["function"]["parameters"]["properties"]["town"] = json!({ "type": "nonsense" });
    let refused = server.post("/v1/chat/completions", &body);
    assert_eq!(refused.status, 400);
    let message = refused.json().expect("JSON")["error"]["message"].to_string();
    assert!(message.contains("tools[1].function.parameters.properties.town"), "{message}");
}

#[test]
fn models_say_what_they_can_do_and_others_are_not_asked() {
    let server = server();
    let capabilities = |model: &str| {
        server.post("/api/show", &json!({ "model": model })).json().expect("JSON")["capabilities"].clone()
    };
    assert_eq!(capabilities("caller"), json!(["completion", "insert", "tools"]));
    assert_eq!(capabilities("thinker"), json!(["completion", "insert", "tools", "thinking"]));
    let mut body = ask(json!({ "model": "plain" }));
    let refused = server.post("/api/chat", &body);
    assert_eq!(refused.status, 400);
    body["model"] = json!("caller");
    body["options"] = json!({ "num_predict": 5 });
    let lines = server.post("/api/chat", &body).ndjson().expect("NDJSON");
    assert_eq!(lines.last().expect("a line")["done"], true);
}

#[test]
fn thinking_comes_apart_from_the_text_unless_it_is_switched_off() {
    let server = server();
    let options = json!({ "num_predict": 8, "seed": 7 });
    let mut body = json!({ "model": "thinker", "messages": [{ "role": "user", "content": "Hi" }], "stream": false, "options": options });
    let message = |body: &Value| server.post("/api/chat", body).json().expect("JSON")["message"].clone();
    let thought = message(&body);
    assert!(thought["thinking"].as_str().is_some_and(|text| !text.is_empty()), "{thought}");
    assert_eq!(thought["content"], "");
    body["think"] = json!(false);
    let said = message(&body);
    assert!(said.get("thinking").is_none() && said["content"].as_str().is_some_and(|text| !text.is_empty()));

    let body = json!({ "model": "thinker", "messages": [{ "role": "user", "content": "Hi" }], "max_tokens": 8, "seed": 7 });
    let answer = server.post("/v1/chat/completions", &body).json().expect("JSON");
    let message = &answer["choices"][0]["message"];
    assert!(message["reasoning"].as_str().is_some_and(|text| !text.is_empty()), "{answer}");
}
