//! Prefixes that are read once, and answers that go on where a lost worker left them.

use std::thread;

use arriero::generation::{Event, Resume};
use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::Server;
use crate::http::{Address, Request};

/// The events of a canonical request, asked of the worker itself.
pub fn events(worker: &Address, request: &Value) -> Vec<Event> {
    let response = Request::post("/generate", request).send(worker).expect("an answer");
    assert_eq!(response.status, 200, "{request}");
    let lines = response.ndjson().expect("NDJSON");
    lines.into_iter().map(|line| serde_json::from_value(line).expect("an event")).collect()
}

/// Text, tokens, log probabilities and why it ended.
pub fn said(events: &[Event]) -> (String, Vec<u32>, usize, String) {
    let mut all = (String::new(), Vec::new(), 0, String::new());
    for event in events {
        match event {
            Event::Delta(delta) => {
                all.0 += &delta.text;
                all.1.extend(&delta.tokens);
                all.2 += delta.logprobs.len();
            }
            Event::Done(done) => all.3 = format!("{:?} after {}", done.reason, done.completion_tokens),
            other => panic!("unexpected: {other:?}"),
        }
    }
    all
}

#[test]
fn an_answer_cut_anywhere_goes_on_exactly_as_if_it_had_not_been() {
    let server = Server::with_fixture(Fixture::TinyLlama, "parallel: 4, context: 256, preload: true");
    let worker = Address::Unix(server.ready_worker("tiny").spec.socket);
    let request = |options: Value, format: Value| {
        json!({"model": "tiny", "input": {"kind": "raw", "prompt": "The mule and the llama"},
               "options": options, "format": format, "logprobs": 1})
    };
    let text = json!({"kind": "text"});
    let sampled = json!({"num_predict": 40, "temperature": 1.0, "seed": 7});
    let whole = said(&events(&worker, &request(sampled.clone(), text.clone()))).0;
    // A stop sequence that comes late and goes over several tokens.
    let late: String = whole.chars().skip(60).take(6).collect();
    let cases = [
        request(json!({"num_predict": 40, "temperature": 0}), text.clone()),
        request(sampled, text.clone()),
        request(json!({"num_predict": 40, "seed": 7, "temperature": 1.0, "stop": [late]}), text.clone()),
        request(
            json!({"num_predict": 40, "seed": 3, "repeat_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.5}),
            text,
        ),
        request(
            json!({"num_predict": 60, "seed": 5, "temperature": 1.0}),
            json!({"kind": "schema", "schema": {"type": "object", "properties": {"n": {"type": "integer", "maximum": 99999},
                   "s": {"type": "string", "maxLength": 12}}, "required": ["n", "s"]}}),
        ),
    ];
    for case in cases {
        let uncut = events(&worker, &case);
        let mut resume = Resume::default();
        for cut in 0..uncut.len() {
            let mut rest = case.clone();
            rest["resume"] = serde_json::to_value(&resume).expect("JSON");
            let mut joined = uncut[..cut].to_vec();
            joined.extend(events(&worker, &rest));
            assert_eq!(said(&joined), said(&uncut), "cut at {cut} of {case}");
            resume.count(&uncut[cut]);
        }
    }
}

#[test]
fn callers_that_share_a_system_prompt_have_it_read_once_and_get_the_answers_they_would_get_alone() {
    const CALLERS: usize = 8;
    let system = "You carry salt over the pass. ".repeat(20);
    let ask = |caller: usize| {
        json!({"model": "tiny", "system": system, "prompt": format!("Load {caller}?"),
               "options": {"num_predict": 12, "temperature": 0}, "stream": false})
    };
    let answer = |server: &Server, caller: usize| {
        let answer = server.post("/api/generate", &ask(caller)).json().expect("JSON");
        (
            answer["response"].as_str().expect("text").to_owned(),
            answer["prompt_eval_count"].as_f64().expect("a number"),
        )
    };
    let alone = Server::with_fixture(Fixture::TinyLlama, "parallel: 1, context: 1024");
    let apart: Vec<_> = (0..CALLERS).map(|caller| answer(&alone, caller)).collect();

    let server = Server::with_fixture(Fixture::TinyLlama, "parallel: 8, context: 1024, preload: true");
    server.ready_worker("tiny");
    let together: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn({
                    let server = &server;
                    move || answer(server, caller)
                })
            })
            .collect();
        callers.into_iter().map(|caller| caller.join().expect("an answer")).collect()
    });
    assert_eq!(together, apart);
    let (read, one) = (server.metric("arriero_tokens_total", "type=\"prompt\""), apart[0].1);
    assert!(one > 100.0, "the prompt is long: {one}");
    assert!(read <= 1.5 * one, "{read} tokens of prompts read; one has {one}");
}
