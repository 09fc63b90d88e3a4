//! What clients of llama-server and vLLM use beyond Ollama's and OpenAI's APIs, over the wire.

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model};

fn server() -> Server {
    Server::with_fixture(Fixture::TinyLlama, "")
}

fn complete(extra: Value) -> Value {
    let mut body = json!({ "model": "tiny", "prompt": "Hello", "max_tokens": 24, "seed": 7 });
    body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
    body
}

/// The text of a completion, which must succeed.
fn text(server: &Server, extra: Value) -> String {
    let answer = server.post("/v1/completions", &complete(extra)).json().expect("JSON");
    answer["choices"][0]["text"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
}

/// Status and message of an error in OpenAI's or llama-server's shape.
fn refusal(server: &Server, path: &str, body: &Value) -> (u16, String) {
    let response = server.post(path, body);
    let status = response.status;
    let error = response.json().expect("JSON")["error"].clone();
    assert_eq!(error["type"], "invalid_request_error");
    (status, error["message"].as_str().expect("a message").to_owned())
}

fn token(server: &Server, text: &str) -> u64 {
    let answer = server.post("/tokenize", &json!({ "content": text })).json().expect("JSON");
    let tokens = answer["tokens"].as_array().expect("tokens");
    assert_eq!(tokens.len(), 1, "{text} is one token");
    tokens[0].as_u64().expect("an id")
}

#[test]
fn texts_become_tokens_and_tokens_texts_without_naming_the_only_model() {
    let server = server();
    let content = "the é";
    let plain = server.post("/tokenize", &json!({ "content": content })).json().expect("JSON");
    let back = server.post("/detokenize", &json!({ "tokens": plain["tokens"] })).json().expect("JSON");
    assert_eq!(back, json!({ "content": content }));
    let named = json!({ "model": "TINY:latest", "content": content, "with_pieces": true });
    let pieces = server.post("/tokenize", &named).json().expect("JSON")["tokens"].clone();
    let ids: Vec<_> = pieces.as_array().expect("tokens").iter().map(|token| token["id"].clone()).collect();
    assert_eq!(json!(ids), plain["tokens"]);
    assert_eq!(pieces[0]["piece"], "the");
    assert_eq!(pieces.as_array().and_then(|all| all.last()).expect("a token")["piece"], json!([0xa9]));
    let special = |parse: bool| {
        let ask = json!({ "content": "<|im_start|>", "parse_special": parse });
        server.post("/tokenize", &ask).json().expect("JSON")["tokens"].as_array().map(Vec::len)
    };
    assert_eq!(special(true), Some(1));
    assert!(special(false) > Some(1));
    let (status, message) = refusal(&server, "/detokenize", &json!({ "tokens": [999_999] }));
    assert_eq!((status, &*message), (400, "tokens holds 999999, which is no token of this model"));
    assert_eq!(server.post("/tokenize", &json!({ "model": "nobody", "content": "x" })).status, 404);
}

#[test]
fn a_question_without_a_model_is_refused_where_there_are_several() {
    let server = Server::start(&format!(
        "models: {{ tiny: {}, embedder: {} }}",
        model(Fixture::TinyLlama, ""),
        model(Fixture::TinyBert, ""),
    ));
    let (status, message) = refusal(&server, "/tokenize", &json!({ "content": "x" }));
    assert_eq!(status, 400);
    assert!(message.starts_with("model is required: there are several ("), "{message}");
    let ask = json!({ "model": "embedder", "content": "the llama", "add_special": true });
    let tokens = server.post("/tokenize", &ask).json().expect("JSON")["tokens"].clone();
    assert_eq!(tokens.as_array().map(Vec::len), Some(4), "an embedder has a vocabulary too: {tokens}");
}

#[test]
fn a_conversation_becomes_the_prompt_that_the_model_would_see() {
    let server = server();
    let messages =
        json!([{ "role": "system", "content": "Be brief." }, { "role": "user", "content": "Hello" }]);
    let answer = server.post("/apply-template", &json!({ "messages": messages })).json().expect("JSON");
    let prompt =
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(answer, json!({ "prompt": prompt }));
}

#[test]
fn a_prompt_is_completed_as_it_is_streamed_and_not() {
    let server = server();
    let ask = |extra: Value| {
        let mut body = json!({ "prompt": "Hello", "n_predict": 6, "temperature": 0 });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        server.post("/completion", &body)
    };
    let whole = ask(json!({})).json().expect("JSON");
    let text = whole["content"].as_str().expect("a text");
    let raw = json!({ "model": "tiny", "prompt": "Hello", "raw": true, "options": { "num_predict": 6, "temperature": 0 } });
    assert_eq!(server.generate(&raw), text, "no template is applied");
    let facts = ["stop_type", "tokens_predicted", "truncated", "prompt"].map(|name| whole[name].clone());
    assert_eq!(facts, [json!("limit"), json!(6), json!(false), json!("Hello")]);
    assert_eq!(whole["timings"]["predicted_n"], 6);
    let stream = ask(json!({ "stream": true })).text().expect("a stream");
    let objects: Vec<Value> = stream
        .split_terminator("\n\n")
        .map(|chunk| serde_json::from_str(chunk.strip_prefix("data: ").expect("an event")).expect("JSON"))
        .collect();
    let (last, pieces) = objects.split_last().expect("several");
    assert_eq!(pieces.iter().filter_map(|piece| piece["content"].as_str()).collect::<String>(), text);
    assert_eq!((&last["stop"], &last["tokens_predicted"]), (&json!(true), &json!(6)));
    assert_eq!(server.post("/completion", &json!({ "model": "nobody", "prompt": "x" })).status, 404);
    assert_eq!(refusal(&server, "/completion", &json!({ "prompt": [1, 2] })).0, 400);
}

#[test]
fn a_gap_is_filled_with_the_same_as_by_ollamas_suffix_and_other_files_matter() {
    let server = server();
    let fill = |extra: Value| {
        let mut body =
            json!({ "input_prefix": "fn a(", "input_suffix": ")", "n_predict": 8, "temperature": 0 });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        let answer = server.post("/infill", &body).json().expect("JSON");
        let text = answer["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned();
        (text, answer["tokens_evaluated"].as_u64().expect("a number"))
    };
    let (text, length) = fill(json!({}));
    let ollama = json!({
        "model": "tiny", "prompt": "fn a(", "suffix": ")", "options": { "num_predict": 8, "temperature": 0 }
    });
    assert_eq!(server.generate(&ollama), text);
    assert_eq!(length, 8, "its tokens, those of the gap and nothing else");
    assert_eq!(
        fill(json!({ "input_prefix": "fn", "prompt": " a(" })).0,
        text,
        "what is written belongs to the prefix"
    );
    let other = fill(json!({ "input_extra": [{ "filename": "b.rs", "text": "the and the" }] }));
    assert!(other.0 != text && other.1 > length);
    let long = fill(json!({ "input_extra": [{ "text": "the ".repeat(5000) }] }));
    assert!(long.1 < 2048, "as much of the others as fits: {}", long.1);
    let embedder = Server::with_fixture(Fixture::TinyEmbedder, "");
    let ask = json!({ "input_prefix": "a", "input_suffix": "b" });
    assert_eq!(
        refusal(&embedder, "/infill", &ask),
        (400, "infill is not supported by this model".to_owned())
    );
}

#[test]
fn a_logit_bias_forces_and_forbids_tokens_and_unknown_ones_are_named() {
    let server = server();
    let the = token(&server, " the");
    let forced = text(&server, json!({ "logit_bias": { the.to_string(): 100 }, "max_tokens": 5 }));
    assert_eq!(forced, " the the the the the");
    let greedy =
        |bias: Value| text(&server, json!({ "logit_bias": bias, "max_tokens": 1, "temperature": 0 }));
    let first = greedy(json!({}));
    let banned = greedy(json!({ token(&server, &first).to_string(): -100 }));
    assert_ne!(first, banned);
    let chat = json!({
        "model": "tiny", "messages": [{ "role": "user", "content": "Hello" }], "logit_bias": { "999999": 1 }
    });
    let message = "logit_bias holds 999999, which is no token of this model";
    assert_eq!(refusal(&server, "/v1/chat/completions", &chat), (400, message.to_owned()));
}

#[test]
fn dry_and_xtc_change_the_text_and_repeat_with_the_seed() {
    let server = server();
    let plain = text(&server, json!({}));
    assert_eq!(text(&server, json!({ "dry_multiplier": 0, "xtc_probability": 0 })), plain, "off is off");
    for extra in [
        json!({ "xtc_probability": 1.0, "xtc_threshold": 0.01 }),
        json!({ "dry_multiplier": 5, "dry_allowed_length": 0, "dry_sequence_breakers": [] }),
        json!({ "top_n_sigma": 0.5 }),
    ] {
        let changed = text(&server, extra.clone());
        assert_ne!(changed, plain, "{extra}");
        assert_eq!(changed, text(&server, extra));
    }
    let the = token(&server, " the").to_string();
    let looping =
        text(&server, json!({ "logit_bias": { the.clone(): 30 }, "max_tokens": 8, "temperature": 0 }));
    assert_eq!(looping, " the".repeat(8));
    let dry = json!({ "logit_bias": { the: 30 }, "max_tokens": 8, "temperature": 0, "dry_multiplier": 20 });
    assert_ne!(text(&server, dry), looping, "a loop is broken");
    let many: Vec<String> = (0..100).map(|text| text.to_string()).collect();
    let many = complete(json!({ "dry_multiplier": 1, "dry_sequence_breakers": many }));
    let message = "dry_sequence_breakers holds more than 64 texts";
    assert_eq!(refusal(&server, "/v1/completions", &many), (400, message.to_owned()));
}

#[test]
fn ollamas_options_take_the_samplers_too() {
    let server = server();
    let ask = |options: Value| {
        let mut all = json!({ "seed": 7, "num_predict": 24 });
        all.as_object_mut().expect("an object").extend(options.as_object().expect("an object").clone());
        server.generate(&json!({ "model": "tiny", "prompt": "Hello", "options": all }))
    };
    let xtc = json!({ "xtc_probability": 1.0, "xtc_threshold": 0.01 });
    assert_ne!(ask(xtc.clone()), ask(json!({})));
    assert_eq!(ask(xtc.clone()), ask(xtc));
}

#[test]
fn a_grammar_is_obeyed() {
    let server = server();
    for seed in 0..8 {
        let extra = json!({ "grammar": "root ::= (\"yes\" | \"no\") \", \" [0-9]{3}", "seed": seed });
        let text = text(&server, extra);
        let (word, number) = text.split_once(", ").unwrap_or_else(|| panic!("{text}"));
        assert!(
            ["yes", "no"].contains(&word) && number.len() == 3 && number.parse::<u16>().is_ok(),
            "{text}"
        );
    }
    let chat = json!({
        "model": "tiny", "messages": [{ "role": "user", "content": "Hello" }], "grammar": "root ::= item"
    });
    let message = "invalid grammar: there is no rule item";
    assert_eq!(refusal(&server, "/v1/chat/completions", &chat), (400, message.to_owned()));
}

#[test]
fn a_mistake_in_a_schema_is_answered_with_its_place() {
    let server = server();
    let schema =
        json!({ "type": "object", "properties": { "a": { "type": "array", "items": { "type": "text" } } } });
    let chat = json!({
        "model": "tiny", "messages": [{ "role": "user", "content": "Hello" }],
        "response_format": { "type": "json_schema", "json_schema": { "name": "n", "schema": schema } }
    });
    let (status, message) = refusal(&server, "/v1/chat/completions", &chat);
    assert_eq!(status, 400);
    assert!(message.contains(" at /properties/a/items/type: "), "{message}");
}

#[test]
fn the_best_of_several_completions_is_sent() {
    let server = server();
    let all =
        server.post("/v1/completions", &complete(json!({ "n": 4, "logprobs": 0 }))).json().expect("JSON");
    let mean = |choice: &Value| {
        let logprobs = choice["logprobs"]["token_logprobs"].as_array().expect("logprobs");
        logprobs.iter().filter_map(Value::as_f64).sum::<f64>() / logprobs.len() as f64
    };
    let choices = all["choices"].as_array().expect("choices");
    let best = choices.iter().max_by(|a, b| mean(a).total_cmp(&mean(b))).expect("a choice");
    let answer = server.post("/v1/completions", &complete(json!({ "best_of": 4 }))).json().expect("JSON");
    assert_eq!(answer["choices"].as_array().map(Vec::len), Some(1));
    assert_eq!(answer["choices"][0]["text"], best["text"]);
    assert_eq!(answer["usage"]["completion_tokens"], all["usage"]["completion_tokens"]);
}

#[test]
fn a_ranking_model_scores_documents_and_does_nothing_else() {
    let server = Server::with_fixture(Fixture::TinyRanker, "");
    let documents = json!(["the llama carries a pack", "a mountain", "mule, mule, mule"]);
    let rerank = |extra: Value| {
        let mut body = json!({ "model": "tiny", "query": "which llama?", "documents": documents });
        body.as_object_mut().expect("an object").extend(extra.as_object().expect("an object").clone());
        server.post("/v1/rerank", &body).json().expect("JSON")
    };
    let answer = rerank(json!({}));
    let results = answer["results"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let scores: Vec<f64> = results.iter().filter_map(|result| result["relevance_score"].as_f64()).collect();
    assert!(scores.len() == 3 && scores.is_sorted_by(|a, b| a > b), "{answer}");
    assert!(answer["usage"]["total_tokens"].as_u64() > Some(20), "{answer}");
    let best = rerank(json!({ "top_n": 1, "return_documents": true }))["results"].clone();
    let index = results[0]["index"].as_u64().expect("an index") as usize;
    assert_eq!(best[0]["document"]["text"], documents[index]);
    // Alone or among others a document has the same score.
    let alone = rerank(json!({ "documents": [documents[index]] }))["results"][0]["relevance_score"].clone();
    assert!((alone.as_f64().expect("a score") - scores[0]).abs() < 1e-4, "{alone} {scores:?}");

    let long = json!({ "model": "tiny", "query": "x", "documents": ["the ".repeat(2000)] });
    let (status, message) = refusal(&server, "/v1/rerank", &long);
    assert!(status == 400 && message.contains("the context length is 512 tokens"), "{message}");
    assert_eq!(server.post("/v1/embeddings", &json!({ "model": "tiny", "input": "x" })).status, 400);
    assert_eq!(server.post("/api/generate", &json!({ "model": "tiny", "prompt": "x" })).status, 400);
    let shown = server.post("/api/show", &json!({ "model": "tiny" })).json().expect("JSON");
    assert_eq!(shown["capabilities"], json!(["rerank"]));
}

#[test]
fn a_model_that_does_not_rank_says_so() {
    let server = Server::with_fixture(Fixture::TinyBert, "");
    let ask = json!({ "model": "tiny", "query": "x", "documents": ["y"] });
    assert_eq!(refusal(&server, "/v1/rerank", &ask), (400, "\"tiny\" does not support rerank".to_owned()));
}

#[test]
fn the_config_says_how_a_model_pools() {
    let server = Server::start(&format!(
        "models: {{ mean: {}, cls: {}, last: {}, talker: {} }}",
        model(Fixture::TinyBert, ""),
        model(Fixture::TinyBert, "pooling: cls"),
        model(Fixture::TinyLlama, "pooling: last"),
        model(Fixture::TinyEmbedder, "pooling: none"),
    ));
    let embed = |name: &str| {
        let ask = json!({ "model": name, "input": "the llama" });
        let answer = server.post("/v1/embeddings", &ask).json().expect("JSON");
        answer["data"][0]["embedding"].as_array().unwrap_or_else(|| panic!("{answer}")).clone()
    };
    assert_ne!(embed("mean"), embed("cls"));
    assert_eq!(embed("last").len(), 64);
    let talk = json!({ "model": "talker", "prompt": "Hello", "options": { "num_predict": 4 } });
    assert!(!server.generate(&talk).is_empty());
}
