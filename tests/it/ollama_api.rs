//! Ollama's API over the wire: what its clients rely on and what is most often missed.

use std::io::Write;

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::{Address, Request, Response};

/// The demo, the tiny llama (which never says its end token) and the embedder.
fn server() -> Server {
    Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\" }}, tiny: {}, embedder: {} }}",
        model(Fixture::TinyLlama, ""),
        model(Fixture::TinyBert, ""),
    ))
}

/// A short generation by the tiny llama.
fn tiny(extra: Value) -> Value {
    let mut body = json!({ "model": "tiny", "prompt": "Hello", "options": { "num_predict": 5, "seed": 7 } });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

fn error_of(response: Response) -> (u16, String) {
    let status = response.status;
    assert!(response.header("content-type").is_some_and(|kind| kind.starts_with("application/json")));
    let body = response.json().expect("JSON");
    (status, body["error"].as_str().expect("Ollama's shape of errors").to_owned())
}

#[test]
fn the_root_and_version_answer_as_ollama_does() {
    let server = server();
    let root = server.get("/");
    assert_eq!((root.status, root.header("content-type")), (200, Some("text/plain; charset=utf-8")));
    assert_eq!(root.text().expect("text"), "Ollama is running");
    let head = server.send(&Request::new("HEAD", "/"));
    assert_eq!(head.status, 200);
    assert_eq!(head.text().expect("text"), "");
    let version = server.get("/api/version").json().expect("JSON");
    let numbers: Vec<&str> = version["version"].as_str().expect("a version").split('.').collect();
    assert!(numbers.len() == 3 && numbers.iter().all(|number| number.parse::<u32>().is_ok()), "{version}");
    assert_eq!(server.get("/health").json().expect("JSON"), json!({ "status": "ok" }));
}

#[test]
fn a_stream_is_ndjson_and_ends_in_one_done_line_with_the_six_counters() {
    let server = server();
    let response = server.post("/api/generate", &tiny(json!({})));
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/x-ndjson"));
    assert_eq!(response.header("transfer-encoding"), Some("chunked"));
    let lines = response.ndjson().expect("NDJSON without blank lines");
    let (last, before) = lines.split_last().expect("lines");
    assert!(before.iter().all(|line| line["done"] == false && line["model"] == "tiny"));
    assert!(before.iter().all(|line| line.get("context").is_none() && line.get("eval_count").is_none()));
    assert_eq!((&last["done"], &last["done_reason"]), (&json!(true), &json!("length")));
    for counter in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
        assert!(last[counter].as_u64().is_some_and(|nanoseconds| nanoseconds > 0), "{counter} in {last}");
    }
    assert_eq!(last["eval_count"], 5);
    let context = last["context"].as_array().expect("a context").len() as u64;
    assert_eq!(context, last["prompt_eval_count"].as_u64().expect("a count") + 5);
}

#[test]
fn every_line_of_a_stream_comes_in_a_chunk_of_its_own() {
    let server = server();
    let mut response = server.post("/api/generate", &tiny(json!({})));
    while let Some(chunk) = response.chunk().expect("a chunk") {
        let ends = chunk.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!((ends, chunk.last()), (1, Some(&b'\n')), "{}", String::from_utf8_lossy(&chunk));
    }
}

#[test]
fn without_a_stream_the_answer_is_one_object_with_the_whole_text() {
    let server = server();
    let streamed = server.generate(&tiny(json!({})));
    let response = server.post("/api/generate", &tiny(json!({ "stream": false })));
    assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"));
    let whole = response.json().expect("JSON");
    assert_eq!((&whole["response"], &whole["done"]), (&json!(streamed), &json!(true)));
}

#[test]
fn the_content_type_of_a_request_does_not_matter() {
    let server = server();
    for kind in ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data", "nonsense"] {
        let request = Request::post("/api/generate", &tiny(json!({}))).header("Content-Type", kind);
        assert_eq!(server.send(&request).status, 200, "{kind}");
    }
}

#[test]
fn the_demo_answers_in_english() {
    let server = server();
    let answer = server
        .generate(&json!({ "model": "demo", "prompt": "What are you?", "options": { "temperature": 0 } }));
    let words = answer.split_whitespace().count();
    assert!(words >= 3 && answer.is_ascii() && answer.trim_end().ends_with(['.', '!']), "{answer:?}");
    let chat =
        json!({ "model": "demo", "stream": false, "messages": [{ "role": "user", "content": "Hello!" }] });
    let answer = server.post("/api/chat", &chat).json().expect("JSON");
    assert_eq!(answer["message"]["role"], "assistant");
    assert_eq!(answer["done_reason"], "stop", "it ends its turns: {answer}");
}

#[test]
fn names_are_echoed_as_sent_and_listed_with_their_tag() {
    let server = server();
    for name in ["tiny", "tiny:latest", "TINY"] {
        let lines = server.post("/api/generate", &tiny(json!({ "model": name }))).ndjson().expect("NDJSON");
        assert!(lines.iter().all(|line| line["model"] == name), "{name}: {lines:?}");
    }
    let tags = server.get("/api/tags").json().expect("JSON");
    let listed = tags["models"].as_array().expect("models");
    assert_eq!(listed.len(), 3);
    for model in listed {
        assert!(model["name"].as_str().is_some_and(|name| name.ends_with(":latest")), "{model}");
        assert_eq!(model["name"], model["model"]);
        let digest = model["digest"].as_str().expect("a digest");
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()), "{digest}");
        assert!(model["details"].get("families").is_some() && model["details"].get("parent_model").is_some());
    }
    let ps = server.get("/api/ps").json().expect("JSON");
    assert_eq!(ps["models"][0]["name"], "tiny:latest");
    assert!(ps["models"][0]["expires_at"].is_string() && ps["models"][0]["size_vram"].is_u64(), "{ps}");
}

#[test]
fn show_tells_what_a_model_can_do() {
    let server = server();
    let show = |name: &str| server.post("/api/show", &json!({ "model": name })).json().expect("JSON");
    let tiny = show("tiny");
    let capabilities: Vec<&str> =
        tiny["capabilities"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(capabilities.contains(&"completion") && capabilities.contains(&"insert"), "{capabilities:?}");
    assert_eq!(tiny["model_info"]["general.architecture"], "llama");
    assert_eq!(tiny["model_info"]["llama.block_count"], 2);
    assert_eq!(show("embedder")["capabilities"], json!(["embedding"]));
}

#[test]
fn null_is_absent_an_empty_format_is_none_and_whole_numbers_may_have_a_fraction() {
    let server = server();
    let plain = server.generate(&tiny(json!({})));
    let odd = tiny(json!({
        "format": "", "system": null, "template": null, "suffix": null, "context": null, "stream": null,
        "options": { "num_predict": 5.0, "seed": 7.0, "temperature": null, "mirostat": 2, "no_such_option": {} },
        "no_such_field": [1],
    }));
    assert_eq!(server.generate(&odd), plain);
    let spelled = json!({ "Model": "tiny", "PROMPT": "Hello", "Options": { "num_predict": 5, "seed": 7 } });
    assert_eq!(server.generate(&spelled), plain, "field names match without regard to case");
}

#[test]
fn errors_before_the_first_token_keep_their_status_and_text_though_a_stream_was_asked_for() {
    let server = server();
    let post = |path: &str, body: Value| error_of(server.post(path, &body));
    let not_found = || (404, "model 'nobody' not found".to_owned());
    assert_eq!(post("/api/generate", json!({ "model": "nobody", "prompt": "x" })), not_found());
    assert_eq!(post("/api/chat", json!({ "model": "nobody", "messages": [] })), not_found());
    assert_eq!(
        post("/api/embed", json!({ "model": "nobody", "input": "x" })),
        (404, "model \"nobody\" not found, try pulling it first".to_owned())
    );
    assert_eq!(post("/api/chat", json!({ "messages": [] })), (400, "model is required".to_owned()));
    assert_eq!(post("/api/generate", json!({ "model": "a b" })), (400, "invalid model name".to_owned()));
    assert_eq!(
        post("/api/generate", tiny(json!({ "raw": true, "system": "x" }))),
        (400, "raw mode does not support template, system, or context".to_owned())
    );
    assert_eq!(
        post("/api/generate", tiny(json!({ "top_logprobs": 21 }))),
        (400, "top_logprobs must be between 0 and 20".to_owned())
    );
    assert_eq!(
        post("/api/generate", json!({ "model": "embedder", "prompt": "x" })),
        (400, "\"embedder\" does not support generate".to_owned())
    );
    assert_eq!(
        post("/api/chat", json!({ "model": "embedder", "messages": [{ "role": "user", "content": "x" }] })),
        (400, "\"embedder\" does not support chat".to_owned())
    );
    for (path, wrong) in [
        ("/api/generate", tiny(json!({ "options": { "num_predict": "many" } }))),
        ("/api/generate", tiny(json!({ "options": { "stop": "a bare string" } }))),
        ("/api/generate", tiny(json!({ "format": "xml" }))),
        ("/api/generate", tiny(json!({ "keep_alive": "30" }))),
        ("/api/generate", tiny(json!({ "think": true }))),
        ("/api/generate", tiny(json!({ "images": ["aGVsbG8="] }))),
        ("/api/chat", json!({ "model": "tiny", "messages": [{ "role": "user", "content": ["a", "list"] }] })),
    ] {
        let (status, text) = post(path, wrong.clone());
        assert!((400..500).contains(&status) && !text.is_empty(), "{status} {text:?} for {wrong}");
    }
}

#[test]
fn bodies_that_are_no_json_object_are_400() {
    let server = server();
    let empty = error_of(server.send(&Request::new("POST", "/api/generate").header("Content-Length", "0")));
    assert_eq!(empty, (400, "missing request body".to_owned()));
    for body in ["{", "[]", "\"text\"", "nonsense", "{\"model\": \"tiny\", \"prompt\": 5}"] {
        let (status, text) = error_of(server.send(&Request::new("POST", "/api/generate").body(body)));
        assert!(status == 400 && !text.is_empty(), "{status} for {body:?}");
    }
    let trailing = tiny(json!({})).to_string() + " and more";
    assert_eq!(server.send(&Request::new("POST", "/api/generate").body(trailing)).status, 200);
}

#[test]
fn paths_and_methods_are_strict_and_what_is_not_built_says_so() {
    let server = server();
    assert_eq!(server.get("/api/nothing").status, 404);
    assert_eq!(server.get("/api/generate").status, 405);
    for path in ["/api/pull", "/api/push", "/api/create", "/api/copy"] {
        assert_eq!(error_of(server.post(path, &json!({ "model": "tiny" }))).0, 501, "{path}");
    }
    let delete = Request::new("DELETE", "/api/delete").body("{\"model\":\"tiny\"}");
    assert_eq!(error_of(server.send(&delete)).0, 501);
}

#[test]
fn load_and_unload_are_one_object_though_streams_are_the_default() {
    let server = server();
    let ask = |path: &str, body: Value| {
        let response = server.post(path, &body);
        assert_eq!(response.header("content-type"), Some("application/json; charset=utf-8"));
        response.json().expect("one JSON object")
    };
    let loaded = ask("/api/generate", json!({ "model": "tiny" }));
    assert_eq!(
        (&loaded["response"], &loaded["done"], &loaded["done_reason"]),
        (&json!(""), &json!(true), &json!("load"))
    );
    assert!(!server.workers().is_empty());
    let chat = ask("/api/chat", json!({ "model": "tiny", "messages": [] }));
    assert_eq!(
        (&chat["message"], &chat["done_reason"]),
        (&json!({ "role": "assistant", "content": "" }), &json!("load"))
    );
    let unloaded = ask("/api/generate", json!({ "model": "tiny", "keep_alive": 0 }));
    assert_eq!(unloaded["done_reason"], "unload");
    until_true("the worker is gone", || server.workers().is_empty());
    let again = ask("/api/generate", json!({ "model": "tiny", "keep_alive": "0" }));
    assert_eq!(again["done_reason"], "unload", "also if it was not loaded");
}

#[test]
fn stop_sequences_end_the_text_and_leave_no_part_of_themselves() {
    let server = server();
    let long = json!({ "num_predict": 60, "seed": 7 });
    let whole = server.generate(&tiny(json!({ "raw": true, "options": long })));
    let characters: Vec<char> = whole.chars().collect();
    let stop: String = characters[20..24].iter().collect();
    let expected = &whole[..whole.find(&stop).expect("it is in there")];
    let stopping = json!({ "num_predict": 60, "seed": 7, "stop": [stop, "never said, ever"] });
    let response = server.post("/api/generate", &tiny(json!({ "raw": true, "options": stopping })));
    let lines = response.ndjson().expect("NDJSON");
    let text: String = lines.iter().filter_map(|line| line["response"].as_str()).collect();
    let last = lines.last().expect("a line");
    assert_eq!((text.as_str(), &last["done_reason"]), (expected, &json!("stop")));
    assert!(last.get("context").is_none(), "there is no context for raw");
}

#[test]
fn the_prompt_count_includes_what_came_from_the_cache() {
    let server = server();
    let ask = tiny(json!({ "prompt": "The arriero and the llama went over the mountain", "stream": false }));
    let count = || server.post("/api/generate", &ask).json().expect("JSON")["prompt_eval_count"].as_u64();
    let first = count();
    assert!(first.is_some_and(|count| count > 10));
    assert_eq!(count(), first);
}

#[test]
fn logprobs_come_one_per_token() {
    let server = server();
    let ask = tiny(json!({ "logprobs": true, "top_logprobs": 3, "stream": false }));
    let answer = server.post("/api/generate", &ask).json().expect("JSON");
    let entries = answer["logprobs"].as_array().expect("logprobs");
    assert_eq!(entries.len(), 5);
    for entry in entries {
        assert!(entry["logprob"].as_f64().is_some_and(|logprob| logprob <= 0.0), "{entry}");
        let top: Vec<f64> = entry["top_logprobs"]
            .as_array()
            .expect("alternatives")
            .iter()
            .filter_map(|alternative| alternative["logprob"].as_f64())
            .collect();
        assert!(top.len() == 3 && top.is_sorted_by(|a, b| a >= b), "{entry}");
    }
}

#[test]
fn format_constrains_the_output() {
    let server = server();
    let schema = json!({ "type": "object", "required": ["name", "age"], "additionalProperties": false,
        "properties": { "name": { "type": "string", "maxLength": 8 }, "age": { "type": "integer", "minimum": 0, "maximum": 99 } } });
    let options = json!({ "num_predict": 400, "seed": 3 });
    let answer = server.generate(&tiny(json!({ "format": schema, "options": options })));
    let person: Value = serde_json::from_str(&answer).expect(&answer);
    assert!(person["name"].is_string() && person["age"].as_u64().is_some_and(|age| age <= 99), "{person}");
    let chat = json!({ "model": "demo", "stream": false, "format": "json",
                       "messages": [{ "role": "user", "content": "Hello!" }], "options": { "num_predict": 200, "seed": 1 } });
    let answer = server.post("/api/chat", &chat).json().expect("JSON");
    if answer["done_reason"] == "stop" {
        let content = answer["message"]["content"].as_str().expect("text");
        assert!(serde_json::from_str::<Value>(content).is_ok_and(|value| value.is_object()), "{content}");
    }
}

#[test]
fn infill_works_where_the_model_has_the_tokens() {
    let server = server();
    assert!(!server.generate(&tiny(json!({ "prompt": "def add(a, b):", "suffix": "return c" }))).is_empty());
}

#[test]
fn inputs_of_different_lengths_embed_together_as_each_does_alone() {
    let server = Server::with_fixture(Fixture::TinyEmbedder, "");
    let embed = |input: Value| -> Vec<Vec<f64>> {
        let answer = server.post("/api/embed", &json!({ "model": "tiny", "input": input })).json();
        serde_json::from_value(answer.expect("JSON")["embeddings"].take()).expect("vectors")
    };
    let texts =
        ["a llama", "a mule, a donkey and a llama walk over the mountain", "a", "and back down again"];
    for (text, together) in texts.iter().zip(embed(json!(texts))) {
        let alone = embed(json!(text)).remove(0);
        let likeness: f64 = together.iter().zip(&alone).map(|(one, other)| one * other).sum();
        assert!(likeness > 0.9999, "{text:?}: {likeness}");
    }
}

#[test]
fn embeddings_are_normalised_in_order_and_cut_on_request() {
    let server = server();
    let embed = |body: Value| server.post("/api/embed", &body).json().expect("JSON");
    let norm = |vector: &Value| {
        let squares = vector
            .as_array()
            .expect("a vector")
            .iter()
            .filter_map(Value::as_f64)
            .map(|number| number * number);
        squares.sum::<f64>().sqrt()
    };
    let both = embed(json!({ "model": "embedder", "input": ["the llama", "a mule"] }));
    let vectors = both["embeddings"].as_array().expect("vectors");
    assert_eq!((vectors.len(), vectors[0].as_array().map(Vec::len)), (2, Some(64)));
    assert!(vectors.iter().all(|vector| (norm(vector) - 1.0).abs() < 1e-4));
    assert!(both["prompt_eval_count"].as_u64().is_some_and(|count| count >= 4), "{both}");
    let alone = embed(json!({ "model": "embedder", "input": "a mule" }));
    let pairs = alone["embeddings"][0]
        .as_array()
        .expect("a vector")
        .iter()
        .zip(vectors[1].as_array().expect("a vector"));
    for (one, other) in pairs {
        assert!((one.as_f64().expect("a number") - other.as_f64().expect("a number")).abs() < 1e-4);
    }
    let cut = embed(json!({ "model": "embedder", "input": "a mule", "dimensions": 16 }));
    assert_eq!(cut["embeddings"][0].as_array().map(Vec::len), Some(16));
    assert!((norm(&cut["embeddings"][0]) - 1.0).abs() < 1e-4);
    assert_eq!(embed(json!({ "model": "embedder", "input": [] }))["embeddings"], json!([]));
    assert_eq!(
        embed(json!({ "model": "embedder", "input": [""] }))["embeddings"].as_array().map(Vec::len),
        Some(1)
    );
    let older = server
        .post("/api/embeddings", &json!({ "model": "embedder", "prompt": "a mule" }))
        .json()
        .expect("JSON");
    assert_eq!(older["embedding"].as_array().map(Vec::len), Some(64));
    let long = "llama ".repeat(600);
    assert_eq!(server.post("/api/embed", &json!({ "model": "embedder", "input": long })).status, 200);
    let refused =
        server.post("/api/embed", &json!({ "model": "embedder", "input": long, "truncate": false }));
    assert_eq!(error_of(refused), (400, "the input length exceeds the context length".to_owned()));
}

#[test]
fn a_chat_of_more_than_64_kib_is_answered_and_keeps_its_last_message() {
    let server = server();
    let mut messages: Vec<Value> = (0..200)
        .map(|turn| json!({ "role": if turn % 2 == 0 { "user" } else { "assistant" }, "content": "mountain ".repeat(50) }))
        .collect();
    messages.push(json!({ "role": "user", "content": "Hello" }));
    let body = json!({ "model": "tiny", "messages": messages, "options": { "num_predict": 3 } });
    assert!(body.to_string().len() > 64 * 1024);
    let lines = server.post("/api/chat", &body).ndjson().expect("NDJSON");
    assert_eq!(lines.last().expect("a line")["done"], true);
}

#[test]
fn a_body_of_5_mb_is_taken_also_in_chunks_and_after_100_continue() {
    let server = server();
    let body = tiny(json!({ "prompt": "the llama ".repeat(500_000), "no_such_field": "x" })).to_string();
    assert!(body.len() > 5_000_000);
    assert_eq!(server.send(&Request::new("POST", "/api/generate").body(body.clone())).status, 200);
    let expecting = Request::new("POST", "/api/generate").header("Expect", "100-continue").body(body.clone());
    assert_eq!(server.send(&expecting).status, 200);

    let chunked = Request::new("POST", "/api/generate").header("Transfer-Encoding", "chunked");
    let mut wire = server.data.connect().expect("a connection");
    wire.write_all(&chunked.head()).expect("the head is taken");
    for piece in body.as_bytes().chunks(100_000) {
        wire.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).expect("the size is taken");
        wire.write_all(piece).expect("the piece is taken");
        wire.write_all(b"\r\n").expect("the end is taken");
    }
    wire.write_all(b"0\r\n\r\n").expect("the last chunk is taken");
    assert_eq!(Response::read(wire, false).expect("an answer").status, 200);
}

#[test]
fn a_connection_serves_several_requests() {
    let server = server();
    let (_, wire) = server.post("/api/generate", &tiny(json!({}))).finish().expect("a body");
    let second =
        Request::post("/api/generate", &tiny(json!({ "stream": false }))).send_on(wire).expect("an answer");
    let (_, wire) = second.finish().expect("a body");
    let third =
        Request::post("/api/generate", &json!({ "model": "nobody" })).send_on(wire).expect("an answer");
    let (_, wire) = third.finish().expect("a body");
    assert_eq!(Request::get("/api/version").send_on(wire).expect("an answer").status, 200);
}

#[test]
fn origins_are_allowed_as_ollama_allows_them() {
    let server = server();
    let get = |origin: &str| server.send(&Request::get("/api/version").header("Origin", origin));
    for origin in ["http://localhost:3000", "https://127.0.0.1", "app://obsidian.md", "vscode-webview://abc"]
    {
        let response = get(origin);
        assert_eq!((response.status, response.header("access-control-allow-origin")), (200, Some(origin)));
    }
    let foreign = get("https://example.com");
    assert_eq!((foreign.status, foreign.header("access-control-allow-origin")), (403, None));
    let preflight = Request::new("OPTIONS", "/api/chat")
        .header("Origin", "http://localhost:3000")
        .header("Access-Control-Request-Method", "POST");
    let response = server.send(&preflight);
    assert_eq!(response.status, 204);
    assert!(response.header("access-control-allow-methods").is_some_and(|methods| methods.contains("POST")));
    let headers = response.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
    assert!(headers.contains("authorization") && headers.contains("x-stainless-arch"), "{headers}");
}

#[test]
fn a_foreign_host_header_is_refused_on_loopback() {
    let server = server();
    let get = |host: &str| server.send(&Request::get("/api/version").header("Host", host)).status;
    for host in [
        "localhost:11434",
        "127.0.0.1",
        "[::1]:11434",
        "192.168.1.5",
        "box.local",
        "a.localhost",
        "x.internal",
    ] {
        assert_eq!(get(host), 200, "{host}");
    }
    for host in ["example.com", "localhost.example.com", "8.8.8.8"] {
        assert_eq!(get(host), 403, "{host}");
    }
}

#[test]
fn a_request_id_is_given_or_kept() {
    let server = server();
    assert!(server.get("/api/version").header("x-request-id").is_some_and(|id| !id.is_empty()));
    let named = server.send(&Request::get("/api/version").header("X-Request-Id", "abc-123"));
    assert_eq!(named.header("x-request-id"), Some("abc-123"));
    let generated = server.post("/api/generate", &tiny(json!({})));
    assert!(generated.header("x-arriero-node").is_some_and(|node| node.starts_with("tiny-")));
}

#[test]
fn rubbish_on_the_wire_harms_nobody() {
    let server = server();
    let Address::Tcp(_) = &server.data else { unreachable!("the data port is TCP") };
    for rubbish in [
        &b"\x16\x03\x01\x00\xa5"[..],
        b"GET\r\n\r\n",
        b"POST /api/generate HTTP/1.1\r\nContent-Length: x\r\n\r\n",
    ] {
        let mut wire = server.data.connect().expect("a connection");
        wire.write_all(rubbish).expect("it is taken");
    }
    assert_eq!(server.get("/api/version").status, 200);
}
