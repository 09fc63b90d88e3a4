//! Who goes first, what happens when memory for tokens runs short, and what can be changed meanwhile.

use std::thread;

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, until_true};
use crate::http::{Request, Response};

/// Asks in a thread of its own; how many answers were complete before this one, as `answered` counts them.
fn ask<'scope>(
    scope: &'scope thread::Scope<'scope, '_>,
    server: &'scope Server,
    priority: &'static str,
    body: Value,
    answered: &'scope std::sync::Mutex<Vec<&'static str>>,
) {
    scope.spawn(move || {
        let request = Request::post("/api/generate", &body).header("X-Priority", priority);
        let response = server.send(&request);
        assert_eq!(response.status, 200);
        assert_eq!(response.ndjson().expect("an answer").last().expect("a line")["done"], true);
        answered.lock().expect("no panic").push(priority);
    });
}

#[test]
fn an_urgent_request_is_answered_before_most_of_those_that_wait_and_these_are_answered_too() {
    const WAITING: usize = 20;
    let server = Server::with_fixture(Fixture::TinyLlama, "parallel: 1, context: 512");
    let body = |number: usize, tokens: usize| {
        json!({ "model": "tiny", "prompt": format!("Story {number}"), "raw": true,
                "options": { "num_predict": tokens, "seed": number } })
    };
    let answered = std::sync::Mutex::new(Vec::new());
    server.generate(&body(0, 1));
    let worker = server.ready_worker("tiny");
    // What a stopped worker is asked stays where it is, so that all wait when the urgent one comes.
    worker.freeze();
    thread::scope(|scope| {
        let waiting = || server.metric("arriero_queue_depth", "model=\"tiny\"") as usize;
        for number in 0..=WAITING {
            ask(scope, &server, "low", body(number, 8), &answered);
        }
        until_true("one runs and the others wait", || waiting() == WAITING);
        ask(scope, &server, "high", body(100, 8), &answered);
        until_true("the urgent one waits too", || waiting() == WAITING + 1);
        worker.signal(nix::sys::signal::Signal::SIGCONT);
    });
    let answered = answered.into_inner().expect("no panic");
    let place = answered.iter().position(|priority| *priority == "high").expect("it was answered");
    assert_eq!(answered.len(), WAITING + 2);
    // One ran already, and two answers may be read in another order than they were given.
    assert!(place <= 3, "{answered:?}");
}

#[test]
fn nonsense_as_priority_is_refused_in_the_callers_words() {
    let server = Server::demo();
    let words = "X-Priority must be high, normal, low or a whole number from -100 (first) to 100 (last)";
    let refused = |path: &str, body: &Value| {
        let response = server.send(&Request::post(path, body).header("X-Priority", "urgent"));
        assert_eq!(response.status, 400);
        response.json().expect("JSON")
    };
    let body = refused("/api/generate", &json!({ "model": "demo", "prompt": "Hello" }));
    assert_eq!(body["error"], words);
    let chat = json!({ "model": "demo", "messages": [{ "role": "user", "content": "Hello" }] });
    let error = &refused("/v1/chat/completions", &chat)["error"];
    assert_eq!((&error["message"], &error["param"]), (&json!(words), &json!("X-Priority")));
}

/// Conversations with the built-in model, some of which begin alike.
fn conversation(number: usize) -> Value {
    const QUESTIONS: [&str; 6] = [
        "What are you?",
        "Count from 1 to 20.",
        "What is Arriero?",
        "What is 7 + 5?",
        "Count to 30.",
        "Tell me about Arriero.",
    ];
    let say = |role, text: &str| json!({ "role": role, "content": text });
    let (first, second) = (QUESTIONS[number % 6], QUESTIONS[(number / 6 + number) % 6]);
    json!({ "model": "demo", "stream": false, "options": { "num_predict": 100, "temperature": 0, "seed": number },
            "messages": [say("user", first), say("assistant", "I am demo."), say("user", second)] })
}

#[test]
fn sequences_that_were_paused_for_want_of_cells_say_what_they_would_have_said_alone() {
    const CALLERS: usize = 36;
    // Where cells are shared they lie in another order each time, so that sums differ in their last bits: greedy answers of a
    // model that knows what it says do not.
    let server =
        Server::start("models: { demo: { path: \"builtin:demo\", parallel: 8, context: 256, cells: 256 } }");
    let answer = |number: usize| {
        let response = server.post("/api/chat", &conversation(number));
        assert_eq!(response.status, 200);
        response.json().expect("JSON")["message"]["content"].as_str().expect("text").to_owned()
    };
    let alone: Vec<String> = (0..CALLERS).map(answer).collect();
    let health = || server.ready_worker("demo").health().expect("health").1;
    assert_eq!((health().kv_total, health().pauses), (256, 0));
    let together: Vec<String> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|number| {
                scope.spawn({
                    let answer = &answer;
                    move || answer(number)
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("an answer")).collect()
    });
    assert_eq!(together, alone);
    let health = health();
    assert!(health.pauses > 0, "{health:?}");
    assert!(health.kv_used <= health.kv_total, "{health:?}");
    until_true("the pauses are counted", || server.metric("arriero_pauses_total", "node=\"demo-0\"") > 0.0);
}

#[test]
fn what_can_never_fit_the_cells_is_refused_in_words() {
    let server = Server::with_fixture(Fixture::TinyLlama, "parallel: 4, context: 0, cells: 256");
    let body = json!({ "model": "tiny", "prompt": "salt ".repeat(500), "raw": true, "truncate": false });
    let response = server.post("/api/generate", &body);
    assert_eq!(response.status, 400);
    let error = response.json().expect("JSON")["error"].to_string();
    assert!(error.contains("256"), "{error}");
}

/// Stories that the tiny model tells by chance.
fn story(number: usize) -> Value {
    json!({ "model": "tiny", "prompt": format!("Story {number} of the mule"), "raw": true,
            "options": { "num_predict": 60 + number % 5 * 20, "seed": number, "temperature": 1.0 } })
}

fn change(server: &Server, model: &str, change: &Value) -> Response {
    let path = format!("/admin/v1/models/{model}/settings");
    Request::post(&path, change)
        .header("Content-Type", "application/json")
        .send(&server.admin)
        .expect("an answer")
}

#[test]
fn settings_change_while_answers_are_written_and_the_answers_do_not() {
    let server = Server::with_fixture(Fixture::TinyLlama, "parallel: 4, context: 512, batch: 128");
    assert_eq!(change(&server, "tiny", &json!({})).status, 409, "it is not loaded yet");
    let alone: Vec<String> = (0..8).map(|number| server.generate(&story(number))).collect();
    let in_force = |answer: Response| {
        assert_eq!(answer.status, 200);
        answer.json().expect("JSON")["workers"]["tiny-0"].clone()
    };
    let before = in_force(change(&server, "tiny", &json!({})));
    assert_eq!((&before["batch"], &before["parallel"]), (&json!(128), &json!(4)));
    thread::scope(|scope| {
        let callers: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn({
                    let server = &server;
                    move || server.generate(&story(number))
                })
            })
            .collect();
        for round in 0..6 {
            let wanted = json!({ "threads": 1 + round % 2, "prefill_threads": 2 - round % 2, "batch": 16 + round,
                                 "parallel": 1 + round % 4, "pace": { "target": "100ms" } });
            let now = in_force(change(&server, "tiny", &wanted));
            for (key, value) in wanted.as_object().expect("an object") {
                if key != "pace" {
                    assert_eq!(&now[key], value, "{key}");
                }
            }
            assert_eq!(now["pace"]["target"], "100ms");
        }
        let together: Vec<_> = callers.into_iter().map(|caller| caller.join().expect("an answer")).collect();
        assert_eq!(together, alone);
    });
    let refused = change(&server, "tiny", &json!({ "threads": 2, "parallel": 5 }));
    assert_eq!(refused.status, 400);
    let words = refused.json().expect("JSON")["error"].to_string();
    assert!(words.contains("parallel cannot be more than 4 while the model is loaded"), "{words}");
    let health = server.ready_worker("tiny").health().expect("health").1;
    let settings = health.settings.expect("a model that generates has settings");
    assert_eq!(
        (settings.threads, settings.parallel, settings.batch),
        (2, 2, 21),
        "nothing of what was refused"
    );
    assert_eq!(change(&server, "nobody", &json!({})).status, 404);
}
