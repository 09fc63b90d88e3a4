//! Images, over the wire: a model with a projector answers to what it sees, in both dialects, and whatever the engine does with cells
//! it never takes one image for another.

use std::path::{Path, PathBuf};
use std::thread;

use arriero::generation::Resume;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::executable::arriero;
use crate::fixture::Fixture;
use crate::harness::{Server, model};
use crate::http::Address;
use crate::png::png;
use crate::resume::{events, said};

/// Vectors that the projector of [`server`] makes of any image.
const VECTORS: u64 = 16;

fn projector(fixture: Fixture) -> PathBuf {
    fixture.file_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the fixture can be written")
}

/// `llama` with a projector as `tiny`.
fn with(llama: Fixture, sees: Fixture, settings: &str) -> Server {
    let projector = projector(sees);
    Server::with_fixture(llama, &format!("projector: \"{}\", {settings}", projector.display()))
}

fn server(settings: &str) -> Server {
    with(Fixture::TinyLlama, Fixture::TinyProjector, settings)
}

fn image(seed: u32) -> String {
    STANDARD.encode(png(40, 24, seed))
}

/// Text, tokens of the prompt, those of them that were cached, and the best log probabilities.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    text: String,
    prompt: u64,
    cached: u64,
    logprobs: Value,
}

/// What OpenAI's API answers to a message of `parts`: texts, and images by their seeds.
fn ask_openai(server: &Server, parts: &[Value]) -> Answer {
    let part = |part: &Value| match part.as_u64() {
        Some(seed) => {
            let url = format!("data:image/png;base64,{}", image(seed as u32));
            json!({ "type": "image_url", "image_url": { "url": url } })
        }
        None => json!({ "type": "text", "text": part }),
    };
    let content: Vec<Value> = parts.iter().map(part).collect();
    ask_messages(server, json!([{ "role": "user", "content": content }]))
}

fn ask_messages(server: &Server, messages: Value) -> Answer {
    let body = json!({
        "model": "tiny", "messages": messages, "max_tokens": 16, "temperature": 0, "logprobs": true, "top_logprobs": 3,
    });
    let answer = server.post("/v1/chat/completions", &body).json().expect("JSON");
    let usage = &answer["usage"];
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{answer}"));
    Answer {
        text: answer["choices"][0]["message"]["content"]
            .as_str()
            .unwrap_or_else(|| panic!("{answer}"))
            .to_owned(),
        prompt: number(&usage["prompt_tokens"]),
        cached: number(&usage["prompt_tokens_details"]["cached_tokens"]),
        logprobs: answer["choices"][0]["logprobs"].clone(),
    }
}

/// Image and question.
fn ask(server: &Server, seed: u32, text: &str) -> Answer {
    ask_openai(server, &[json!(seed), json!(text)])
}

fn ollama(server: &Server, path: &str, body: Value) -> Value {
    let mut all =
        json!({ "model": "tiny", "stream": false, "options": { "num_predict": 16, "temperature": 0 } });
    all.as_object_mut().expect("an object").extend(body.as_object().expect("an object").clone());
    server.post(path, &all).json().expect("JSON")
}

#[test]
fn an_image_is_seen_alike_in_every_dialect_and_another_one_is_not() {
    let server = server("");
    let plain = ask_openai(&server, &[json!("What is it?")]);
    let one = ask(&server, 1, "What is it?");
    let other = ask(&server, 2, "What is it?");
    assert_eq!(one.prompt, plain.prompt + VECTORS);
    assert!(one.logprobs != plain.logprobs && one.logprobs != other.logprobs, "{one:?} {other:?}");
    let again = ask(&server, 1, "What is it?");
    assert_eq!((&again.text, again.prompt), (&one.text, one.prompt));
    assert_eq!(again.cached, again.prompt - 1, "all but the last token");

    let message = json!({ "role": "user", "content": "What is it?", "images": [image(1)] });
    let chat = ollama(&server, "/api/chat", json!({ "messages": [message] }));
    assert_eq!(chat["message"]["content"], one.text);
    assert_eq!(chat["prompt_eval_count"], one.prompt);
    let generate = ollama(&server, "/api/generate", json!({ "prompt": "What is it?", "images": [image(1)] }));
    assert_eq!(generate["response"], one.text);
    assert_eq!(generate["context"], Value::Null, "nobody could send an image back as numbers");
}

#[test]
fn several_images_are_seen_in_their_order_and_where_they_stand() {
    let server = server("");
    let ask = |parts: Value| ask_openai(&server, parts.as_array().expect("parts"));
    let answers = [
        ask(json!([1, 2, "Which?"])),
        ask(json!([2, 1, "Which?"])),
        ask(json!([1, "Which?", 2])),
        ask(json!(["Which?", 1, 2])),
    ];
    for (place, answer) in answers.iter().enumerate() {
        assert_eq!(answer.prompt, answers[0].prompt);
        assert!(answers[..place].iter().all(|other| other.logprobs != answer.logprobs), "{place}");
    }
    let both = json!({ "role": "user", "content": "Which?", "images": [image(1), image(2)] });
    assert_eq!(
        ollama(&server, "/api/chat", json!({ "messages": [both] }))["message"]["content"],
        answers[0].text
    );
}

#[test]
fn a_later_turn_reads_neither_the_image_nor_what_was_said_again() {
    let server = server("parallel: 1");
    let look = |text: &str| {
        let url = format!("data:;base64,{}", image(3));
        json!({ "role": "user", "content": [{ "type": "image_url", "image_url": url }, { "type": "text", "text": text }] })
    };
    let first = ask_messages(&server, json!([look("What is it?")]));
    assert_eq!(first.cached, 0);
    let said = json!({ "role": "assistant", "content": first.text });
    let later = json!([look("What is it?"), said, { "role": "user", "content": "Are you sure?" }]);
    let second = ask_messages(&server, later.clone());
    assert!(second.cached >= first.prompt, "{} of {}", second.cached, first.prompt);
    assert_eq!(ask_messages(&self::server(""), later).text, second.text, "as one that reads all of it");
}

#[test]
fn whatever_else_runs_everybody_gets_what_they_get_alone() {
    let plane = (Fixture::TinyPlane, Fixture::TinyPlaneProjector);
    for ((llama, sees), settings) in [
        ((Fixture::TinyLlama, Fixture::TinyProjector), "speculate: { mode: always }"),
        ((Fixture::TinyLlama, Fixture::TinyProjector), "batch: 8"),
        // Too few for four, so that some are paused.
        ((Fixture::TinyLlama, Fixture::TinyProjector), "cells: 256"),
        ((Fixture::TinyLlama, Fixture::TinyWholeProjector), ""),
        ((Fixture::TinyLlama, Fixture::TinyWholeProjector), "cells: 256"),
        ((Fixture::TinySliding, Fixture::TinyProjector), ""),
        ((Fixture::TinyRecurrent, Fixture::TinyWholeProjector), ""),
        (plane, ""),
        (plane, "batch: 8, cells: 512"),
    ] {
        let case = format!("{llama:?}, {sees:?}, {settings}");
        let alone = with(llama, sees, "parallel: 1, context: 256");
        let asks = [Some(1), None, Some(2), Some(1), None, Some(3), Some(2), Some(1)];
        let answer = |server: &Server, seed: Option<u32>| {
            let (images, prompt) = match seed {
                Some(seed) => (vec![image(seed)], "What is it?"),
                None => (Vec::new(), "What does the mule carry? Salt, salt, salt, salt."),
            };
            let options = json!({ "num_predict": 80, "temperature": 0 });
            let ask = json!({ "raw": true, "prompt": prompt, "images": images, "options": options });
            let answer = ollama(server, "/api/generate", ask);
            answer["response"].as_str().unwrap_or_else(|| panic!("{case}: {answer}")).to_owned()
        };
        let expected = asks.map(|seed| answer(&alone, seed));
        assert!(expected[0] != expected[2] && expected[0] != expected[1], "{case}: {expected:?}");
        let server = with(llama, sees, &format!("parallel: 4, context: 256, {settings}"));
        for round in 0..2 {
            let answers: Vec<String> = thread::scope(|scope| {
                let callers = asks.map(|seed| {
                    scope.spawn({
                        let server = &server;
                        move || answer(server, seed)
                    })
                });
                callers.into_iter().map(|caller| caller.join().expect("an answer")).collect()
            });
            assert_eq!(answers, expected, "{case}, round {round}");
        }
    }
}

#[test]
fn an_answer_to_an_image_cut_anywhere_goes_on_as_if_it_had_not_been() {
    for (llama, sees) in
        [(Fixture::TinyLlama, Fixture::TinyProjector), (Fixture::TinyPlane, Fixture::TinyPlaneProjector)]
    {
        let server = with(llama, sees, "parallel: 2, context: 256, preload: true");
        let worker = Address::Unix(server.ready_worker("tiny").spec.socket);
        let request = json!({
            "model": "tiny", "input": { "kind": "raw", "prompt": "The mule and", "images": [{ "at": 4, "data": image(5) }] },
            "options": { "num_predict": 30, "temperature": 1.0, "seed": 7, "repeat_penalty": 1.2, "dry_multiplier": 0.8 },
        });
        let uncut = events(&worker, &request);
        let mut resume = Resume::default();
        for cut in 0..uncut.len() {
            let mut rest = request.clone();
            rest["resume"] = serde_json::to_value(&resume).expect("JSON");
            let joined = [&uncut[..cut], &events(&worker, &rest)].concat();
            assert_eq!(said(&joined), said(&uncut), "cut at {cut}");
            resume.count(&uncut[cut]);
        }
    }
}

#[test]
fn a_worker_killed_while_it_says_what_it_sees_costs_the_client_nothing_but_a_pause() {
    let server =
        with(Fixture::BenchLlama, Fixture::BenchProjector, "context: 1024, parallel: 2, preload: true");
    let body = json!({
        "model": "tiny", "prompt": "What is it?", "images": [image(6)], "options": { "num_predict": 80, "seed": 4 },
    });
    server.generate_despite_a_kill(&body);
}

#[test]
fn what_was_seen_is_saved_and_found_again_by_the_same_projector_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let start = |sees| {
        let tiny = model(Fixture::TinyLlama, &format!("projector: \"{}\"", projector(sees).display()));
        let dir = folder.path().display();
        Server::start(&format!(
            "models: {{ tiny: {tiny} }}\nworkers: {{ snapshots: {{ dir: \"{dir}\", min_tokens: 16 }} }}"
        ))
    };
    let mut first = start(Fixture::TinyProjector);
    let cold = ask(&first, 8, "What is it?");
    first.signal(Signal::SIGTERM);
    first.exit();
    let warm = start(Fixture::TinyProjector);
    let again = ask(&warm, 8, "What is it?");
    assert_eq!((&again.text, cold.cached), (&cold.text, 0));
    assert!(again.cached > VECTORS, "{again:?}");
    assert!(ask(&warm, 9, "What is it?").cached < VECTORS, "another image");
    assert_eq!(ask(&start(Fixture::TinyWholeProjector), 8, "What is it?").cached, 0, "another projector");
}

#[test]
fn what_is_no_image_is_refused_in_the_callers_dialect_and_the_worker_lives_on() {
    let server = server("context: 128, preload: true");
    let worker = server.ready_worker("tiny").pid;
    let sound = png(40, 24, 1);
    let mut vast = sound.clone();
    vast[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    let cut = &sound[..sound.len() / 3];
    let mut broken = sound.clone();
    broken[41..60].fill(0xff);
    for (file, words) in [
        (&b"hello"[..], "image 1: not an image"),
        (b"", "image 1: not an image"),
        (b"RIFF\x10\0\0\0WEBPVP8 ", "image 1: WebP images are not supported"),
        (&vast, "image 1: the image has 65536 x 65536 pixels"),
        (cut, "image 1: damaged"),
        (&broken, "image 1: damaged"),
        (&png(300, 1, 1), "image 1: the image of 300 x 1 pixels is more than 200 times"),
    ] {
        let data = STANDARD.encode(file);
        let body = json!({ "model": "tiny", "prompt": "What is it?", "images": [data] });
        let response = server.post("/api/generate", &body);
        assert_eq!(response.status, 400, "{words}");
        let error = response.json().expect("JSON")["error"].clone();
        assert!(error.as_str().is_some_and(|error| error.contains(words)), "{error} {words}");
        let url = json!({ "url": format!("data:image/png;base64,{data}") });
        let content =
            json!([{ "type": "image_url", "image_url": url }, { "type": "text", "text": "What is it?" }]);
        let body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": content }] });
        let response = server.post("/v1/chat/completions", &body);
        assert_eq!(response.status, 400, "{words}");
        let error = response.json().expect("JSON")["error"].clone();
        assert!(error["message"].as_str().is_some_and(|error| error.contains(words)), "{error}");
        assert_eq!(error["type"], "invalid_request_error");
    }
    let refusal = |body: Value| {
        let response = ollama(&server, "/api/generate", body);
        response["error"].as_str().unwrap_or_else(|| panic!("{response}")).to_owned()
    };
    let many: Vec<String> = (0..7).map(image).collect();
    let error = refusal(json!({ "prompt": "What is it?", "images": many }));
    assert!(error.contains("is too long: the context length is 128"), "{error}");
    let error = refusal(json!({ "prompt": "What?", "images": vec![image(1); 65] }));
    assert!(error.contains("65 images: more than 64"), "{error}");
    let error = refusal(json!({ "prompt": "What?", "images": [image(1)], "template": "{{ .System }}?" }));
    assert!(error.contains("template leaves out images"), "{error}");
    let error = refusal(json!({ "prompt": "What?", "images": ["%"] }));
    assert!(error.contains("illegal base64 data"), "{error}");
    assert!(!ask(&server, 1, "What is it?").text.is_empty());
    assert_eq!(server.ready_worker("tiny").pid, worker);
}

#[test]
fn a_client_that_leaves_before_its_image_is_seen_frees_its_sequence() {
    let server = server("parallel: 1, preload: true");
    let worker = server.ready_worker("tiny");
    let body = json!({ "model": "tiny", "prompt": "What?", "images": vec![image(1); 8], "options": { "num_predict": -1 } });
    drop(server.post("/api/generate", &body));
    crate::harness::until_true("its place is free", || {
        worker.health().is_some_and(|(_, health)| health.busy == 0)
    });
    assert!(!ask(&server, 2, "What is it?").text.is_empty());
}

#[test]
fn only_a_model_with_a_projector_says_that_it_sees() {
    let sees = projector(Fixture::TinyProjector);
    let (tiny, blind) = (
        model(Fixture::TinyLlama, &format!("projector: \"{}\"", sees.display())),
        model(Fixture::TinyLlama, ""),
    );
    let server = Server::start(&format!("models: {{ tiny: {tiny}, blind: {blind} }}"));
    let shown = |name: &str| server.post("/api/show", &json!({ "model": name })).json().expect("JSON");
    assert_eq!(shown("tiny")["capabilities"], json!(["completion", "insert", "vision"]));
    assert_eq!(shown("blind")["capabilities"], json!(["completion", "insert"]));
    let tags = server.get("/api/tags").json().expect("JSON")["models"].clone();
    let of = |name: &str| {
        tags.as_array().expect("models").iter().find(|model| model["name"] == name).expect(name).clone()
    };
    let (tiny, blind) = (of("tiny:latest"), of("blind:latest"));
    assert_ne!(tiny["digest"], blind["digest"]);
    let size = sees.metadata().expect("the projector").len();
    assert_eq!(tiny["size"].as_u64(), blind["size"].as_u64().map(|own| own + size));
    let body = json!({ "model": "blind", "prompt": "What?", "images": [image(1)] });
    let response = server.post("/api/generate", &body);
    assert_eq!(response.status, 400);
    assert!(response.text().expect("text").contains("does not support vision"));
}

#[test]
fn what_is_wrong_with_a_projector_is_told_and_the_others_are_served() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let sound = std::fs::read(projector(Fixture::TinyProjector)).expect("the fixture");
    let cut = folder.path().join("cut.gguf");
    std::fs::write(&cut, &sound[..sound.len() / 2]).expect("a file");
    // A tensor that nobody finds by its new name, and none that is missing is asked for before it is used.
    let nameless = folder.path().join("nameless.gguf");
    let mut file = sound.clone();
    let name = b"v.position_embd.weight";
    let at = file.windows(name.len()).position(|bytes| bytes == name).expect("it is there");
    file[at..at + 2].copy_from_slice(b"x.");
    std::fs::write(&nameless, file).expect("a file");
    let with = |name: &str, llama: Fixture, path: &Path| {
        format!("{name}: {}", model(llama, &format!("projector: \"{}\"", path.display())))
    };
    let text = projector(Fixture::TinyLlama);
    let server = Server::start(&format!(
        "models: {{ {}, {}, {}, {}, {}, demo: {{ path: \"builtin:demo\" }} }}",
        with("cut", Fixture::TinyLlama, &cut),
        with("text", Fixture::TinyLlama, &text),
        with("gone", Fixture::TinyLlama, &folder.path().join("gone.gguf")),
        with("nameless", Fixture::TinyLlama, &nameless),
        with("embedder", Fixture::TinyEmbedder, &projector(Fixture::TinyProjector)),
    ));
    for (name, words) in [
        ("cut", "cut.gguf: truncated: the data of tensor"),
        ("text", "not a projector, but a file of the architecture \"llama\""),
        ("gone", "gone.gguf: No such file"),
        ("nameless", "bad projector: "),
        ("embedder", "projectors are for models that generate"),
    ] {
        let path = if name == "embedder" { "/api/embed" } else { "/api/generate" };
        let response = server.post(path, &json!({ "model": name, "prompt": "Hello", "input": "Hello" }));
        assert_eq!(response.status, 500, "{name}");
        let error: Value = response.json().expect("JSON");
        assert!(error["error"].as_str().is_some_and(|error| error.contains(words)), "{name}: {error}");
        assert!(!error["error"].as_str().expect("a text").contains("signal"), "{name}: {error}");
    }
    let demo = json!({ "model": "demo", "prompt": "Hello", "options": { "num_predict": 4 } });
    assert!(!server.generate(&demo).is_empty(), "the others are served");
    let config = folder.path().join("a.yaml");
    let gone = folder.path().join("gone.gguf");
    let text = format!("models:\n  tiny: {{ path: 'builtin:demo', projector: {} }}\n", gone.display());
    std::fs::write(&config, text).expect("a file");
    let output = arriero().arg("check").arg("--config").arg(&config).output().expect("arriero runs");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && words.contains("models.tiny.projector: "), "{words}");
}
