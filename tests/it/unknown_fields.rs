//! What a client's API may have and Arriero does not know goes on to nodes of the same API.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model};
use crate::lab::{Api, Fault, Lab};

const OPENAI: (&str, &str) = ("/v1/chat/completions", "min_tokens");
const OLLAMA: (&str, &str) = ("/api/chat", "mirostat");

fn body(model: &str) -> Value {
    json!({
        "model": model, "messages": [{"role": "user", "content": "q"}], "stream": false, "user": "somebody",
        "min_tokens": 3, "chat_template_kwargs": {"deep": [1, {"x": null}]}, "options": {"mirostat": 2, "seed": 1}
    })
}

#[test]
fn unknown_fields_reach_nodes_of_the_clients_api_and_no_others() {
    for api in Api::ALL {
        let node = Lab::start(api, Fault::None);
        let server = Server::start(&format!("nodes: [{}]", node.entry("box")));
        for (path, field) in [OPENAI, OLLAMA] {
            assert_eq!(server.post(path, &body("m")).status, 200, "{path}");
            let sent = node.last();
            let (own, option) = (&sent["min_tokens"], &sent["options"]["mirostat"]);
            match (api, field) {
                (Api::OpenAi, "min_tokens") => {
                    assert_eq!((own, option), (&json!(3), &json!(2)), "here `options` is one of them");
                    assert_eq!(sent["chat_template_kwargs"], json!({"deep": [1, {"x": null}]}));
                    assert_eq!(sent["user"], Value::Null, "who asks is nobody's business");
                }
                (Api::Ollama, "mirostat") => {
                    assert_eq!((own, option), (&json!(3), &json!(2)));
                    assert_eq!(sent["options"]["seed"], 1);
                }
                _ => assert_eq!((own, option), (&Value::Null, &Value::Null), "{api:?} {path}: {sent}"),
            }
        }
    }
}

#[test]
fn workers_ignore_what_they_do_not_know() {
    let server = Server::start(&format!("models: {{ tiny: {} }}", model(Fixture::TinyLlama, "")));
    for (path, _) in [OPENAI, OLLAMA] {
        assert_eq!(server.post(path, &body("tiny")).status, 200, "{path}");
    }
}
