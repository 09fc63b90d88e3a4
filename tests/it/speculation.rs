//! Tokens guessed ahead: the answers are those of a worker that guesses nothing, and what was guessed is counted.

use arriero::generation::{Event, Resume};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::{Server, until_true};
use crate::http::{Address, Request};
use crate::resume::{events, said};

/// A server with the tiny fixture and its worker; `speculate` in YAML.
fn with(speculate: &str) -> (Server, Address) {
    let settings = format!("parallel: 4, context: 192, preload: true, speculate: {speculate}");
    let server = Server::with_fixture(Fixture::TinyLlama, &settings);
    let worker = Address::Unix(server.ready_worker("tiny").spec.socket);
    (server, worker)
}

fn raw(prompt: &str, options: Value, format: Value) -> Value {
    json!({"model": "tiny", "input": {"kind": "raw", "prompt": prompt}, "options": options, "format": format,
           "logprobs": 2, "shift": true})
}

/// Tokens guessed, and those that were right.
fn guessed(events: &[Event]) -> (u64, u64) {
    match events.last() {
        Some(Event::Done(done)) => (done.guessed_tokens, done.accepted_tokens),
        other => panic!("unexpected: {other:?}"),
    }
}

/// Requests of every kind that sampling distinguishes; the texts repeat themselves, so that there is much to guess. The last one
/// outgrows its context twice.
fn cases() -> Vec<Value> {
    let text = json!({"kind": "text"});
    let schema = json!({"kind": "schema", "schema": {"type": "array", "minItems": 8, "maxItems": 8,
                        "items": {"type": "object", "properties": {"mule": {"type": "boolean"}}, "required": ["mule"]}}});
    let prompt =
        |caller: usize| format!("{caller}: the mule and the llama, the mule and the llama, the mule");
    let mut cases = Vec::new();
    for caller in 0..6 {
        let prompt = prompt(caller);
        let sampled = json!({"num_predict": 48, "temperature": 0.7, "seed": caller});
        cases.push(raw(&prompt, json!({"num_predict": 64, "temperature": 0}), text.clone()));
        cases.push(raw(&prompt, sampled.clone(), text.clone()));
        cases.push(raw(&prompt, sampled, schema.clone()));
        let penalties = json!({"num_predict": 48, "temperature": 0.5, "seed": caller, "repeat_penalty": 1.1,
                               "frequency_penalty": 0.2});
        cases.push(raw(&prompt, penalties, text.clone()));
    }
    cases.push(raw(&prompt(9), json!({"num_predict": 300, "temperature": 0, "num_keep": 4}), text));
    cases
}

#[test]
fn answers_are_the_same_with_and_without_guesses() {
    let ((_plain, plain), (server, guessing)) = (with("{ mode: off }"), with("{ mode: always }"));
    let mut all = (0, 0);
    for case in cases() {
        let (expected, found) = (events(&plain, &case), events(&guessing, &case));
        assert_eq!(said(&found), said(&expected), "{case}");
        assert_eq!(guessed(&expected), (0, 0));
        let (count, accepted) = guessed(&found);
        all = (all.0 + count, all.1 + accepted);
        // A stop sequence in the middle of what was guessed: nothing behind it comes, and none of it.
        let text = said(&expected).0;
        let stop: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
        let mut stopped = case.clone();
        stopped["options"]["stop"] = json!([stop]);
        assert_eq!(said(&events(&guessing, &stopped)), said(&events(&plain, &stopped)), "{stopped}");
    }
    assert!(all.1 > 200 && all.1 < all.0, "{all:?}: some are right, some wrong");
    let health = server.ready_worker("tiny").health().expect("it answers").1;
    assert!(health.accepted > all.1 && health.accepted < health.guessed, "{health:?}");
}

#[test]
fn callers_at_once_and_those_that_leave_do_not_change_what_others_get() {
    let ((_plain, plain), (server, guessing)) = (with("{ mode: off }"), with("{ mode: always }"));
    let endless =
        raw("the mule, the mule, the mule", json!({"num_predict": 100_000}), json!({"kind": "text"}));
    let mut leaving = Request::post("/generate", &endless).send(&guessing).expect("an answer");
    leaving.line().expect("it streams");
    let all = cases();
    std::thread::scope(|scope| {
        for cases in all.chunks(9) {
            let (plain, guessing) = (&plain, &guessing);
            scope.spawn(move || {
                for case in cases {
                    assert_eq!(said(&events(guessing, case)), said(&events(plain, case)), "{case}");
                }
            });
        }
    });
    drop(leaving);
    let busy = || server.ready_worker("tiny").health().expect("it answers").1.busy;
    until_true("nothing runs", || busy() == 0);
}

#[test]
fn an_answer_cut_in_the_middle_of_what_was_guessed_goes_on_the_same() {
    let (_server, worker) = with("{ mode: always }");
    for case in cases().into_iter().take(4) {
        let uncut = events(&worker, &case);
        let mut resume = Resume::default();
        for (cut, event) in uncut.iter().enumerate() {
            if cut % 5 == 3 {
                let mut rest = case.clone();
                rest["resume"] = serde_json::to_value(&resume).expect("JSON");
                let joined = [&uncut[..cut], &events(&worker, &rest)].concat();
                assert_eq!(said(&joined), said(&uncut), "cut at {cut} of {case}");
            }
            resume.count(event);
        }
    }
}

#[test]
fn what_was_guessed_is_counted_in_metrics() {
    let (server, _) = with("{ mode: always }");
    let prompt = "the mule and the llama, the mule and the llama";
    let options = json!({"num_predict": 64, "temperature": 0});
    server.generate(&json!({"model": "tiny", "prompt": prompt, "raw": true, "options": options}));
    let count =
        |result: &str| server.metric("arriero_speculated_tokens_total", &format!("result=\"{result}\""));
    until_true("they are counted", || count("accepted") > 0.0);
    until_true("the worker says the same", || {
        let health = server.ready_worker("tiny").health().expect("it answers").1;
        let counted = (health.guessed as f64, health.accepted as f64);
        counted == (count("accepted") + count("rejected"), count("accepted"))
    });
}

#[test]
fn a_draft_model_that_is_the_model_itself_is_nearly_always_right() {
    let config = |speculate: &str| {
        format!("models: {{ demo: {{ path: \"builtin:demo\", preload: true, speculate: {speculate} }} }}")
    };
    let plain = Server::start(&config("{ mode: off }"));
    let server = Server::start(&config("{ mode: always, draft: { path: \"builtin:demo\" } }"));
    for prompt in ["What are you?", "Who carries the salt?", "Tell me of the mountain."] {
        let options = json!({"num_predict": 120, "temperature": 0});
        let ask = json!({"model": "demo", "prompt": prompt, "options": options});
        assert_eq!(server.generate(&ask), plain.generate(&ask));
    }
    let health = server.ready_worker("demo").health().expect("it answers").1;
    assert!(health.guessed > 30, "{health:?}");
    assert!(health.accepted * 100 >= health.guessed * 95, "{health:?}");
}

#[test]
fn a_draft_model_with_another_vocabulary_is_refused_in_words() {
    let server = Server::with_fixture(Fixture::TinyLlama, "speculate: { draft: { path: \"builtin:demo\" } }");
    let answer = server.post("/api/generate", &json!({"model": "tiny", "prompt": "Hello"}));
    assert_eq!(answer.status, 500);
    let error = answer.json().expect("JSON")["error"].to_string();
    assert!(error.contains("draft model: its vocabulary has 2048 tokens"), "{error}");
}
