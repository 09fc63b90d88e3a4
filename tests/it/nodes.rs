//! Remote nodes: a second Arriero behind the first one, spoken to in each protocol.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until, until_true};
use crate::http::Request;

/// The protocols that a whole Arriero can be spoken to in.
const PROTOCOLS: [&str; 3] = ["ollama", "openai", "arriero"];

/// Shows tools as Qwen's template does.
const TEMPLATE: &str = "{% if tools %}{{ tools|tojson }}<tool_call></tool_call>{% endif %}{% for message in messages %}<|im_start|>\
                        {{ message.role }}: {{ message.content }}<|im_end|>{% endfor %}<|im_start|>assistant ";

/// A server with every kind of model, for others to use.
fn far() -> Server {
    Server::start(&format!(
        "models: {{ tiny: {}, bert: {}, ranker: {} }}",
        model(Fixture::TinyLlama, &format!("parallel: 4, context: 512, template: \"{TEMPLATE}\"")),
        model(Fixture::TinyBert, ""),
        model(Fixture::TinyRanker, ""),
    ))
}

/// A server that has no model of its own, but what `node` (further keys) has at `far`.
fn near(far: &Server, node: &str) -> Server {
    Server::start(&format!("nodes: [{{ name: box, url: \"http://{}\", {node} }}]", far.data.host()))
}

/// The same request to both, until the near one knows the model.
fn both(near: &Server, far: &Server, path: &str, body: &Value) -> (Value, Value) {
    until_true("the models are found", || near.model_names() == far.model_names());
    let answer = |server: &Server| {
        let response = server.post(path, body);
        let status = response.status;
        let answer = response.json().expect("JSON");
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    };
    (answer(near), answer(far))
}

/// The tokens of log probabilities, with their alternatives: their texts and bytes.
fn tokens(logprobs: &Value) -> Vec<(Value, Value, usize)> {
    let entries = logprobs.as_array().expect("log probabilities").iter();
    let found: Vec<_> = entries
        .map(|entry| {
            assert!(entry["logprob"].as_f64().is_some_and(|logprob| logprob < 0.0), "{entry}");
            (
                entry["token"].clone(),
                entry["bytes"].clone(),
                entry["top_logprobs"].as_array().map_or(0, Vec::len),
            )
        })
        .collect();
    assert!(!found.is_empty());
    found
}

fn chat(more: Value) -> Value {
    let mut body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "Tell me."}], "stream": false,
        // All that the two APIs have different defaults for.
        "options": {"num_predict": 12, "seed": 7, "temperature": 0.8, "top_k": 20, "top_p": 0.9}
    });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

#[test]
fn a_chat_says_through_a_node_what_it_says_there() {
    let far = far();
    for protocol in PROTOCOLS {
        let near = near(&far, &format!("protocol: {protocol}"));
        let (told, expected) =
            both(&near, &far, "/api/chat", &chat(json!({"logprobs": true, "top_logprobs": 2})));
        for key in ["message", "done", "done_reason", "eval_count", "prompt_eval_count"] {
            assert_eq!(told[key], expected[key], "{protocol}: {key}");
        }
        // Their last digits depend on what of the prompt was in memory.
        assert_eq!(tokens(&told["logprobs"]), tokens(&expected["logprobs"]), "{protocol}");
        assert!(told["eval_duration"].as_u64().is_some_and(|nanos| nanos > 0), "{protocol}");

        let streamed = near.post("/api/chat", &chat(json!({"stream": true})));
        assert_eq!(streamed.header("x-arriero-node"), Some("box"), "{protocol}");
        let lines = streamed.ndjson().expect("NDJSON");
        let text: String = lines.iter().filter_map(|line| line["message"]["content"].as_str()).collect();
        assert_eq!(
            (text.as_str(), lines.len() > 2),
            (expected["message"]["content"].as_str().expect("text"), true)
        );
    }
}

#[test]
fn a_raw_prompt_goes_through_where_the_protocol_can_say_it() {
    let far = far();
    for protocol in ["ollama", "arriero"] {
        let near = near(&far, &format!("protocol: {protocol}, models: [tiny]"));
        let body = json!({
            "model": "tiny", "prompt": "Once", "raw": true, "stream": false, "options": {"num_predict": 8, "seed": 3}
        });
        let told = near.post("/api/generate", &body).json().expect("JSON");
        let expected = far.post("/api/generate", &body).json().expect("JSON");
        assert_eq!(told["response"], expected["response"], "{protocol}");
    }
}

#[test]
fn openai_clients_are_served_by_every_protocol() {
    let far = far();
    let body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "Tell me."}], "max_tokens": 9, "seed": 5,
        "response_format": {"type": "json_object"}, "logprobs": true
    });
    for protocol in PROTOCOLS {
        let near = near(&far, &format!("protocol: {protocol}"));
        let (told, expected) = both(&near, &far, "/v1/chat/completions", &body);
        let (told_choice, expected_choice) = (&told["choices"][0], &expected["choices"][0]);
        assert_eq!(told_choice["message"], expected_choice["message"], "{protocol}");
        assert_eq!(told_choice["finish_reason"], expected_choice["finish_reason"], "{protocol}");
        let logprobs = |choice: &Value| tokens(&choice["logprobs"]["content"]);
        assert_eq!(logprobs(told_choice), logprobs(expected_choice), "{protocol}");
        assert_eq!(told["usage"]["completion_tokens"], expected["usage"]["completion_tokens"], "{protocol}");
    }
}

#[test]
fn tools_are_called_through_a_node() {
    let far = far();
    let tools = json!([{"type": "function", "function": {"name": "weather", "parameters":
        {"type": "object", "properties": {"city": {"type": "string", "maxLength": 4}}, "required": ["city"],
            "additionalProperties": false}}}]);
    let body = json!({
        "model": "tiny", "messages": [{"role": "user", "content": "Weather?"}], "tools": tools, "tool_choice": "required",
        "max_tokens": 200, "seed": 5, "parallel_tool_calls": false
    });
    for protocol in ["openai", "arriero"] {
        let near = near(&far, &format!("protocol: {protocol}"));
        let (told, expected) = both(&near, &far, "/v1/chat/completions", &body);
        let call = |answer: &Value| answer["choices"][0]["message"]["tool_calls"][0]["function"].clone();
        assert_eq!(call(&told)["name"], "weather", "{protocol}: {told}");
        assert_eq!(call(&told), call(&expected), "{protocol}");
        assert_eq!(told["choices"][0]["finish_reason"], "tool_calls");
    }
    let ollama = near(&far, "protocol: ollama, models: [tiny]");
    let refused = ollama.post("/v1/chat/completions", &body);
    assert_eq!(refused.status, 400);
    let error = refused.json().expect("JSON")["error"]["message"].clone();
    assert_eq!(error, "no node of this model supports tool_choice");
}

#[test]
fn vectors_and_scores_come_through() {
    let far = far();
    for protocol in PROTOCOLS {
        let near = near(&far, &format!("protocol: {protocol}"));
        let embed = json!({"model": "bert", "input": ["a cat", "a dog"]});
        let (told, expected) = both(&near, &far, "/api/embed", &embed);
        assert_eq!(told["embeddings"], expected["embeddings"], "{protocol}");
        assert_eq!(told["prompt_eval_count"], expected["prompt_eval_count"], "{protocol}");
        let rank = json!({"model": "ranker", "query": "cat", "documents": ["a cat", "a dog"]});
        if protocol == "ollama" {
            assert_eq!(near.post("/v1/rerank", &rank).status, 400);
        } else {
            let (told, expected) = both(&near, &far, "/v1/rerank", &rank);
            assert_eq!(told["results"], expected["results"], "{protocol}");
        }
    }
}

#[test]
fn what_a_node_refuses_is_told_in_its_words() {
    let far = far();
    for protocol in PROTOCOLS {
        let near = near(&far, &format!("protocol: {protocol}, models: [tiny, nonsense]"));
        let long = "word ".repeat(2000);
        let body = chat(json!({"messages": [{"role": "user", "content": long}], "truncate": false}));
        let expected = far.post("/api/chat", &body);
        let told = near.post("/api/chat", &body);
        // OpenAI's API cannot say that nothing shall be cut.
        if protocol != "openai" {
            assert_eq!((expected.status, told.status), (400, 400), "{protocol}");
            assert_eq!(told.json().expect("JSON"), expected.json().expect("JSON"), "{protocol}");
        }
        let missing = near.post("/api/chat", &chat(json!({"model": "nonsense"})));
        assert_eq!(missing.status, 503, "{protocol}");
        let error = missing.json().expect("JSON")["error"].to_string();
        assert!(error.contains("nonsense"), "{protocol}: {error}");
    }
}

#[test]
fn lists_show_what_both_have_and_names_can_be_changed() {
    let far = far();
    let near = Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\" }} }}\nnodes:\n  - {{ name: box, url: \"http://{0}\", protocol: ollama }}\n  \
         - {{ name: other, url: \"http://{0}\", protocol: openai, models: {{ mine: tiny }} }}",
        far.data.host()
    ));
    let union = ["bert:latest", "demo:latest", "mine:latest", "ranker:latest", "tiny:latest"];
    until_true("the union", || near.model_names() == union);
    let list = near.get("/v1/models").json().expect("JSON");
    assert_eq!(list["data"].as_array().map(Vec::len), Some(union.len()));
    let tags = near.get("/api/tags").json().expect("JSON");
    let size = |name: &str| {
        tags["models"].as_array().expect("a list").iter().find(|model| model["name"] == name).expect("it")["size"].clone()
    };
    assert!(size("tiny:latest").as_u64().is_some_and(|size| size > 0), "as the node tells it");

    let answer = near.post("/api/chat", &chat(json!({"model": "mine"})));
    assert_eq!(answer.header("x-arriero-node"), Some("other"));
    assert_eq!(answer.json().expect("JSON")["model"], "mine");
    let running = until("what is in memory there", || {
        let list = near.get("/api/ps").json().expect("JSON");
        let running = list["models"].as_array().expect("a list").iter();
        running
            .filter_map(|model| model["name"].as_str())
            .find(|name| *name == "tiny:latest")
            .map(str::to_owned)
    });
    assert_eq!(running, "tiny:latest");
}

#[test]
fn what_only_a_lost_node_had_is_known_and_not_served() {
    let mut far = far();
    let near = near(&far, "protocol: ollama, refresh: 100ms");
    until_true("the models are found", || near.model_names().len() == 3);
    far.signal(nix::sys::signal::Signal::SIGKILL);
    far.exit();
    until_true("they are gone", || near.model_names().is_empty());
    let refused = near.post("/api/chat", &chat(json!({})));
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("5")));
    let error = refused.json().expect("JSON")["error"].clone();
    assert_eq!(error, "no node serves model 'tiny' at the moment");
    let unknown = near.post("/api/chat", &chat(json!({"model": "never"})));
    assert_eq!(unknown.status, 404);
}

#[test]
fn who_leaves_frees_the_sequence_on_the_node() {
    let far = far();
    let near = near(&far, "protocol: openai, models: [tiny]");
    let body = chat(json!({"stream": true, "options": {"num_predict": 100_000}}));
    let mut stream = Request::post("/api/chat", &body).send(&near.data).expect("an answer");
    assert!(stream.line().expect("a line").is_some());
    let busy = || far.ready_worker("tiny").health().map(|(_, health)| health.busy);
    assert_eq!(busy(), Some(1));
    drop(stream);
    until_true("it is free", || busy() == Some(0));
}

/// Asks two nodes for an answer without an end and kills the one that gives it.
fn lose_the_node(path: &str, body: &Value) -> (Server, Server, crate::http::Response) {
    let nodes = [far(), far()];
    let entry = |(index, node): (usize, &Server)| {
        format!(
            "{{ name: box-{index}, url: \"http://{}\", protocol: arriero, models: [tiny] }}",
            node.data.host()
        )
    };
    let entries: Vec<_> = nodes.iter().enumerate().map(entry).collect();
    let near = Server::start(&format!("nodes: [{}]", entries.join(", ")));
    let mut stream = near.post(path, body);
    assert_eq!(stream.status, 200);
    assert!(stream.line().expect("a stream").is_some());
    let [first, second] = nodes;
    let (mut lost, left) =
        if stream.header("x-arriero-node") == Some("box-0") { (first, second) } else { (second, first) };
    lost.signal(nix::sys::signal::Signal::SIGKILL);
    lost.exit();
    (near, left, stream)
}

#[test]
fn a_raw_answer_goes_on_at_another_node_from_its_text() {
    let endless = json!({"model": "tiny", "prompt": "Once", "raw": true, "options": {"num_predict": 100_000, "seed": 1}});
    let (near, _left, mut stream) = lose_the_node("/api/generate", &endless);
    let mut resumed = false;
    for _ in 0..1_000_000 {
        let line = stream.line().expect("a stream").expect("no end");
        assert!(!line.contains("\"error\""), "{line}");
        // Once it goes on, some lines more.
        if std::mem::replace(&mut resumed, near.metric("arriero_resumed_total", "") == 1.0) {
            return;
        }
    }
    panic!("it never went on elsewhere");
}

#[test]
fn a_conversation_that_no_node_can_go_on_with_ends_with_an_error() {
    let endless = chat(json!({"stream": true, "options": {"num_predict": 100_000, "seed": 1}}));
    let (near, _left, stream) = lose_the_node("/api/chat", &endless);
    let lines = stream.ndjson().expect("NDJSON");
    let last = lines.last().expect("a line");
    assert!(last["error"].is_string(), "{last}");
    assert!(lines.iter().all(|line| line["done"] != true));
    assert_eq!(near.metric("arriero_resumed_total", ""), 0.0);
    let again = near.post("/api/chat", &chat(json!({})));
    assert_eq!(again.status, 200, "the other node serves those who come");
}

#[test]
fn a_model_of_two_nodes_is_served_while_one_is_left() {
    let nodes = [far(), far()];
    let near = Server::start(&format!(
        "nodes:\n  - {{ name: a, url: \"http://{}\", protocol: ollama, models: [tiny] }}\n  - {{ name: b, url: \"http://{}\", protocol: openai, models: [tiny] }}",
        nodes[0].data.host(),
        nodes[1].data.host()
    ));
    let [mut lost, _left] = nodes;
    lost.signal(nix::sys::signal::Signal::SIGKILL);
    lost.exit();
    for _ in 0..10 {
        assert_eq!(near.post("/api/chat", &chat(json!({}))).status, 200);
    }
    assert!(near.metric("arriero_retries_total", "reason=\"connect\"") >= 1.0);
}

/// A llama-server; killed when dropped.
struct LlamaServer(std::process::Child);

impl Drop for LlamaServer {
    fn drop(&mut self) {
        // Fails only if it ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Needs a llama-server: `LLAMA_SERVER` is its path.
#[test]
fn a_llama_server_is_a_node() {
    let Some(program) = std::env::var_os("LLAMA_SERVER") else { return };
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|socket| socket.local_addr())
        .expect("a port")
        .port();
    let file = Fixture::TinyLlama
        .file_in(std::path::Path::new(env!("CARGO_TARGET_TMPDIR")))
        .expect("the fixture can be written");
    let mut command = std::process::Command::new(program);
    command.args(["--host", "127.0.0.1", "--port", &port.to_string(), "-c", "1024", "-np", "2", "--metrics"]);
    command.args(["--jinja", "--chat-template", "chatml", "-m"]).arg(file);
    command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
    let _server = LlamaServer(command.spawn().expect("llama-server starts"));
    let node = format!("url: \"http://127.0.0.1:{port}\", protocol: openai, prefill: true, refresh: 100ms");
    let near = Server::start(&format!("nodes: [{{ name: llama, {node}, models: {{ tiny: any }} }}]"));

    let answer = until("it is up", || {
        let response = near.post("/api/chat", &chat(json!({"logprobs": true, "top_logprobs": 2})));
        if response.status == 200 { response.json().ok() } else { None }
    });
    assert_eq!((answer["done"].clone(), answer["eval_count"].clone()), (json!(true), json!(12)), "{answer}");
    assert_eq!(answer["logprobs"].as_array().map(Vec::len), Some(12));
    assert!(answer["prompt_eval_count"].as_u64().is_some_and(|count| count > 0));

    let format = chat(
        json!({"format": {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]},
        "options": {"num_predict": 60, "seed": 1}}),
    );
    let constrained = near.post("/api/chat", &format).json().expect("JSON");
    let text = constrained["message"]["content"].as_str().expect("text");
    let value: Value = serde_json::from_str(text).expect("it obeys the schema");
    assert!(value["a"].is_boolean(), "{text}");

    let raw = json!({"model": "tiny", "prompt": "Once", "raw": true, "stream": false, "options": {"num_predict": 5}});
    let raw = near.post("/api/generate", &raw).json().expect("JSON");
    assert_eq!((&raw["done"], &raw["eval_count"]), (&json!(true), &json!(5)), "{raw}");

    let long = chat(json!({"messages": [{"role": "user", "content": "word ".repeat(4000)}]}));
    let refused = near.post("/v1/chat/completions", &json!({"model": "tiny", "messages": long["messages"]}));
    assert_eq!(refused.status, 400);
    assert_eq!(refused.json().expect("JSON")["error"]["code"], "context_length_exceeded");
}
