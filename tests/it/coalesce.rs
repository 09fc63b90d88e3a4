//! Equal requests share one computation, and nobody notices but the node.

use std::thread;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, model, until_true};
use crate::http::{Request, Response};

/// A server whose answers take a while: tens of milliseconds a token.
fn slow(parallel: usize) -> Server {
    Server::with_fixture(Fixture::BenchLlama, &format!("context: 512, parallel: {parallel}"))
}

/// The same question in either API: the fields of both.
fn question(tokens: usize, more: Value) -> Value {
    let options = json!({ "num_predict": tokens, "temperature": 0 });
    let mut body = json!({ "model": "tiny", "messages": [{ "role": "user", "content": "Hello" }],
        "options": options, "max_tokens": tokens, "temperature": 0 });
    body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    body
}

/// A way to ask it.
#[derive(Clone, Copy, Debug)]
enum Way {
    OllamaStream,
    Ollama,
    OpenAiStream,
    OpenAi,
}

impl Way {
    fn ask(self, tokens: usize) -> Request {
        let (path, stream) = match self {
            Self::OllamaStream => ("/api/chat", true),
            Self::Ollama => ("/api/chat", false),
            Self::OpenAiStream => ("/v1/chat/completions", true),
            Self::OpenAi => ("/v1/chat/completions", false),
        };
        Request::post(path, &question(tokens, json!({ "stream": stream })))
    }

    /// The text of a complete answer.
    fn text(self, answer: Response) -> String {
        assert_eq!(answer.status, 200, "{self:?}");
        match self {
            Self::OllamaStream => {
                let lines = answer.ndjson().expect("NDJSON");
                assert_eq!(lines.last().expect("a line")["done"], true, "{self:?}");
                lines.iter().map(|line| line["message"]["content"].as_str().expect("text")).collect()
            }
            Self::Ollama => text_at(&answer.json().expect("JSON"), "/message/content"),
            Self::OpenAiStream => {
                let events = answer.events().expect("events");
                assert_eq!(events.last().expect("an event"), "[DONE]", "{self:?}");
                events.iter().map(|event| delta(event)).collect()
            }
            Self::OpenAi => text_at(&answer.json().expect("JSON"), "/choices/0/message/content"),
        }
    }
}

fn text_at(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).expect("text").to_owned()
}

/// The text of one chunk of a chat, if it has any.
fn delta(event: &str) -> String {
    let chunk: Value = serde_json::from_str(event).unwrap_or_default();
    chunk.pointer("/choices/0/delta/content").and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn coalesced(server: &Server) -> usize {
    server.metric("arriero_coalesced_requests_total", "model=\"tiny\"") as usize
}

fn source(answer: &Response) -> &str {
    answer.header("x-arriero-cache").expect("the header")
}

/// Begins to answer a request that a worker could go on with for minutes.
fn occupy(server: &Server) -> Response {
    let body =
        json!({ "model": "tiny", "prompt": "Once", "raw": true, "options": { "num_predict": 100_000 } });
    let mut answer = server.post("/api/generate", &body);
    assert!(answer.line().expect("a stream").is_some());
    answer
}

#[test]
fn three_hundred_equal_requests_are_one_generation_whatever_api_they_come_by() {
    const REQUESTS: usize = 300;
    const WAYS: [Way; 6] = [
        Way::OllamaStream,
        Way::OpenAiStream,
        Way::OllamaStream,
        Way::OpenAi,
        Way::Ollama,
        Way::OpenAiStream,
    ];
    let server = slow(1);
    // All of them come while the only place is taken, so that none comes too late.
    let other = occupy(&server);
    let answers: Vec<(String, String)> = thread::scope(|scope| {
        let ask = |number: usize| {
            let (way, address) = (WAYS[number % WAYS.len()], server.data.clone());
            scope.spawn(move || {
                let answer = way.ask(12).send(&address).expect("an answer");
                (source(&answer).to_owned(), way.text(answer))
            })
        };
        let clients: Vec<_> = (0..REQUESTS).map(ask).collect();
        until_true("all but one have joined", || coalesced(&server) == REQUESTS - 1);
        assert_eq!(server.metric("arriero_queue_depth", "model=\"tiny\""), 1.0, "followers wait in no line");
        drop(other);
        clients.into_iter().map(|client| client.join().expect("an answer")).collect()
    });
    assert!(!answers[0].1.is_empty());
    for (number, (_, text)) in answers.iter().enumerate() {
        assert_eq!(*text, answers[0].1, "request {number}");
    }
    assert_eq!(answers.iter().filter(|(source, _)| source == "miss").count(), 1);
    assert_eq!(answers.iter().filter(|(source, _)| source == "coalesced").count(), REQUESTS - 1);
    // Tokens are counted once they are computed.
    let computed = || server.metric("arriero_tokens_total", "type=\"completion\"");
    until_true("the generation is counted", || computed() > 0.0);
    assert_eq!(computed(), 12.0, "one generation");
}

#[test]
fn a_late_request_gets_all_of_an_answer_and_the_first_one_may_leave() {
    let server = slow(1);
    let mut leader = Way::OllamaStream.ask(60).send(&server.data).expect("an answer");
    for _ in 0..5 {
        assert!(leader.line().expect("a stream").is_some());
    }
    let follower = Way::OpenAiStream.ask(60).send(&server.data).expect("an answer");
    assert_eq!((source(&leader), source(&follower)), ("miss", "coalesced"));
    drop(leader);
    let text = Way::OpenAiStream.text(follower);
    let again = Way::OpenAi.ask(60).send(&server.data).expect("an answer");
    assert_eq!(source(&again), "miss", "the flight has ended");
    assert_eq!(Way::OpenAi.text(again), text);
}

#[test]
fn the_last_one_to_leave_cancels_the_computation() {
    let server = slow(1);
    server.generate(&json!({ "model": "tiny", "prompt": "Hello", "options": { "num_predict": 1 } }));
    let worker = server.ready_worker("tiny");
    let busy = || worker.health().expect("the worker answers").1.busy;
    let mut leader = Way::OllamaStream.ask(5000).send(&server.data).expect("an answer");
    let follower = Way::OllamaStream.ask(5000).send(&server.data).expect("an answer");
    assert_eq!(source(&follower), "coalesced");
    drop(follower);
    for _ in 0..5 {
        assert!(leader.line().expect("a stream").is_some());
    }
    assert_eq!(busy(), 1);
    drop(leader);
    until_true("the worker is free", || busy() == 0);
}

#[test]
fn who_followed_one_that_waited_too_long_is_not_turned_away_with_it() {
    let tiny = model(Fixture::BenchLlama, "context: 512, parallel: 1");
    let server = Server::start(&format!("models: {{ tiny: {tiny} }}\nqueue: {{ wait: 5s }}"));
    let other = occupy(&server);
    thread::scope(|scope| {
        let ask = || {
            let address = server.data.clone();
            scope.spawn(move || Way::OpenAi.ask(4).send(&address).expect("an answer"))
        };
        let leader = ask();
        until_true("the leader waits", || server.metric("arriero_queue_depth", "model=\"tiny\"") == 1.0);
        let follower = ask();
        until_true("it is followed", || coalesced(&server) == 1);
        assert_eq!(leader.join().expect("an answer").status, 503);
        drop(other);
        let answer = follower.join().expect("an answer");
        assert_eq!((answer.status, source(&answer)), (200, "miss"));
    });
}

#[test]
fn only_equal_requests_of_one_tenant_share_and_sampled_ones_only_if_they_say_so() {
    let server = slow(4);
    let sampled = |number: usize| {
        let options = json!({ "num_predict": number, "temperature": 0.8 });
        Request::post("/api/chat", &question(1, json!({ "options": options })))
    };
    let greedy = || Way::OllamaStream.ask(200);
    let key = |key: &str| greedy().header("Authorization", key);
    let always = |request: Request| request.header("X-Arriero-Coalesce", "always");
    // Each beside the one before it, which runs on.
    let pairs = [
        (greedy(), greedy(), "coalesced"),
        (key("Bearer a"), key("Bearer a"), "coalesced"),
        (key("Bearer a"), key("Bearer b"), "miss"),
        (key("Bearer a"), greedy(), "miss"),
        (greedy(), greedy().header("X-Arriero-Coalesce", "off"), "miss"),
        (greedy(), greedy().header("Cache-Control", "max-age=0, No-Cache"), "bypass"),
        (greedy(), Way::OllamaStream.ask(201), "miss"),
        (sampled(200), sampled(200), "miss"),
        (always(sampled(200)), always(sampled(200)), "coalesced"),
    ];
    for (number, (one, other, expected)) in pairs.into_iter().enumerate() {
        let (one, other) = (one.send(&server.data).expect("one"), other.send(&server.data).expect("other"));
        assert_eq!((source(&one), source(&other)), ("miss", expected), "pair {number}");
        drop((one, other));
        // The next pair must not meet it.
        let worker = server.ready_worker("tiny");
        until_true("the worker is free", || worker.health().is_some_and(|(_, health)| health.busy == 0));
    }
    let refused = server.send(&greedy().header("X-Arriero-Coalesce", "sometimes"));
    assert_eq!(refused.status, 400);
}

#[test]
fn the_choices_of_one_sampled_request_stay_different() {
    let server = Server::with_fixture(Fixture::TinyLlama, "parallel: 4");
    let body = question(16, json!({ "n": 3, "temperature": 1.0 }));
    let answer =
        server.send(&Request::post("/v1/chat/completions", &body).header("X-Arriero-Coalesce", "always"));
    let answer = answer.json().expect("JSON");
    let text = |choice: usize| text_at(&answer, &format!("/choices/{choice}/message/content"));
    assert!(text(0) != text(1) && text(1) != text(2) && text(0) != text(2));
}

/// Reads a stream of events until there are `count` ids: the text so far and the last id.
fn read_ids(answer: &mut Response, count: usize) -> (String, String) {
    let (mut text, mut ids) = (String::new(), Vec::new());
    while let Some(line) = answer.line().expect("a stream") {
        if let Some(id) = line.strip_prefix("id: ") {
            ids.push(id.to_owned());
        } else if let Some(data) = line.strip_prefix("data: ") {
            text += &delta(data);
            if ids.len() >= count {
                break;
            }
        }
    }
    (text, ids.pop().unwrap_or_default())
}

#[test]
fn a_client_that_lost_its_connection_goes_on_with_its_stream() {
    let server = slow(1);
    let expected = Way::OpenAi.text(Way::OpenAi.ask(40).send(&server.data).expect("an answer"));
    let ask = |name: &str, value: &str| Way::OpenAiStream.ask(40).header(name, value).send(&server.data);
    let mut lost = ask("X-Arriero-Event-Ids", "true").expect("an answer");
    let (mut text, id) = read_ids(&mut lost, 5);
    drop(lost);
    // A second time, from the name that the second connection got.
    let mut lost = ask("Last-Event-ID", &id).expect("an answer");
    assert_eq!((lost.status, source(&lost)), (200, "coalesced"));
    let (more, id) = read_ids(&mut lost, 5);
    text += &more;
    drop(lost);
    let mut rest = ask("Last-Event-ID", &id).expect("an answer");
    text += &read_ids(&mut rest, usize::MAX).0;
    assert_eq!(text, expected);
    let computed = || server.metric("arriero_tokens_total", "type=\"completion\"");
    until_true("both generations are counted", || computed() == 80.0);

    let other = Way::OpenAiStream.ask(41).header("Last-Event-ID", &id);
    assert_eq!(server.send(&other).status, 409, "another request");
    for unknown in ["5", "00000000000000000000000000000001.3"] {
        assert_eq!(ask("Last-Event-ID", unknown).expect("an answer").status, 409, "{unknown}");
    }
    let events = ask("Last-Event-ID", "").expect("an answer").text().expect("text");
    assert!(!events.contains("id: "), "nobody asked");
}

#[test]
fn of_embeddings_only_what_nobody_computes_is_asked_for() {
    let server = Server::with_fixture(Fixture::TinyBert, "");
    let inputs = |range: std::ops::Range<usize>| {
        range.map(|number| format!("the llama carries {number} kilos")).collect::<Vec<_>>()
    };
    let embed = |range| Request::post("/api/embed", &json!({ "model": "tiny", "input": inputs(range) }));
    let counted = || server.metric("arriero_tokens_total", "type=\"prompt\"");
    let vectors = |answer: Response| answer.json().expect("JSON")["embeddings"].clone();
    let expected = vectors(server.send(&embed(0..16)));
    let all = counted();
    assert!(all > 0.0);

    // A stopped worker takes requests and answers none, until it goes on.
    let worker = server.ready_worker("tiny");
    worker.freeze();
    let running = || server.metric("arriero_inflight", "node=\"tiny-0\"") as usize;
    thread::scope(|scope| {
        let ask = |request: Request| {
            let address = server.data.clone();
            scope.spawn(move || request.send(&address).expect("an answer"))
        };
        let first = ask(embed(0..10));
        until_true("the first is at the worker", || running() == 1);
        let second = ask(embed(6..16));
        until_true("the second is there too", || running() == 2);
        worker.signal(Signal::SIGCONT);
        let [first, second] = [first, second].map(|client| client.join().expect("an answer"));
        let part = |range: std::ops::Range<usize>| {
            Value::from(expected.as_array().expect("vectors")[range].to_vec())
        };
        assert_eq!(vectors(first), part(0..10));
        assert_eq!(vectors(second), part(6..16));
    });
    assert_eq!(counted(), 2.0 * all, "each input was read once more");
}
