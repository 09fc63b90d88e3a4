//! Similar questions share answers: where that is asked for, where all else is the same, and never at anybody's cost.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Server, until_true};
use crate::http::{Request, Response};
use crate::lab::{Api, Fault, Lab};

/// Two ways to ask the same, most of whose words are the same, and so their vectors (see the lab).
const QUESTION: &str = "How do I reset my password for the web site?";
const SIMILAR: &str = "How can I reset my password for the web site?";

fn ask(text: &str) -> Request {
    conversation("Be brief.", text, 6)
}

fn conversation(system: &str, text: &str, tokens: usize) -> Request {
    let messages = json!([{ "role": "system", "content": system }, { "role": "user", "content": text }]);
    let options = json!({ "num_predict": tokens, "temperature": 0 });
    Request::post(
        "/api/chat",
        &json!({ "model": "m", "messages": messages, "stream": false, "options": options }),
    )
}

/// A server in front of `lab`, which generates, and `embedder`; `semantic` is its section.
fn front(lab: &Lab, embedder: &Lab, semantic: &str) -> Server {
    let embeds = embedder.entry("embeds").replace("models: [m]", "models: [e]");
    Server::start(&format!(
        "nodes: [{}, {embeds}]\ncache: {{ semantic: {{ model: e, threshold: 0.8, {semantic} }} }}",
        lab.entry("box")
    ))
}

fn source(response: &Response) -> String {
    assert_eq!(response.status, 200);
    response.header("x-arriero-cache").expect("the header").to_owned()
}

fn text(response: Response) -> Value {
    response.json().expect("JSON")["message"]["content"].clone()
}

/// Waits until so many questions are known.
fn until_known(server: &Server, questions: f64) {
    until_true("it is known", || server.metric("arriero_cache_entries", "tier=\"questions\"") == questions);
}

#[test]
fn a_similar_question_gets_the_answer_and_says_so() {
    let (lab, embedder) = (Lab::start(Api::Ollama, Fault::None), Lab::start(Api::Ollama, Fault::None));
    let server = front(&lab, &embedder, "mode: on, deadline: 10s");
    let first = server.send(&ask(QUESTION));
    assert_eq!(source(&first), "miss");
    until_known(&server, 1.0);
    let similar = server.send(&ask(SIMILAR));
    assert_eq!(source(&similar), "semantic");
    let similarity: f64 = similar.header("x-arriero-similarity").expect("it").parse().expect("a number");
    assert!((0.5..1.0).contains(&similarity), "{similarity}");
    assert!(similar.header("age").is_some());
    assert_eq!(text(similar), text(first));
    assert_eq!(lab.asked(), 1);
    assert!(source(&server.send(&ask(SIMILAR))).starts_with("semantic"), "it has no answer of its own");

    let mut next = 1;
    for other in [
        ask("How can't I reset my password for the web site?"),
        ask("How can I reset my 2 password for the web site?"),
        ask("What else is there?"),
        conversation("Be long.", SIMILAR, 6),
        conversation("Be brief.", SIMILAR, 7),
        ask(SIMILAR).header("Authorization", "Bearer x"),
    ] {
        assert_eq!(source(&server.send(&other)), "miss");
        next += 1;
        assert_eq!(lab.asked(), next);
    }
    let own = server
        .send(&ask("How may I reset my password for the web site?").header("Cache-Control", "no-cache"));
    assert_eq!(source(&own), "bypass");
    // Questions are learned behind their answers, so one may come just after a purge.
    until_true("nothing is known any more", || {
        let purged =
            Request::new("DELETE", "/admin/v1/cache?model=m").send(&server.admin).expect("an answer");
        assert_eq!(purged.status, 200);
        server.metric("arriero_cache_entries", "tier=\"questions\"") == 0.0
    });
    assert_eq!(source(&server.send(&ask(SIMILAR))), "miss");
}

#[test]
fn in_shadow_it_is_only_counted() {
    let (lab, embedder) = (Lab::start(Api::Ollama, Fault::None), Lab::start(Api::Ollama, Fault::None));
    let server = front(&lab, &embedder, "mode: shadow");
    let counted =
        |result: &str| server.metric("arriero_semantic_requests_total", &format!("result=\"{result}\""));
    assert_eq!(source(&server.send(&ask(QUESTION))), "miss");
    until_known(&server, 1.0);
    assert_eq!(source(&server.send(&ask(SIMILAR))), "miss");
    // The lab says the same to everybody.
    until_true("the second is looked at", || counted("same") == 1.0);
    assert_eq!((lab.asked(), counted("other"), counted("hit")), (2, 0.0, 0.0));
    assert_eq!(server.metric("arriero_semantic_similarity_ratio_count", "result=\"same\""), 1.0);
}

#[test]
fn an_embedding_model_that_hangs_holds_up_nobody_for_long() {
    let (lab, embedder) = (Lab::start(Api::Ollama, Fault::None), Lab::start(Api::Ollama, Fault::Stalls));
    let server = front(&lab, &embedder, "mode: on, deadline: 1s");
    let from = Instant::now();
    for number in 0..40 {
        let question = format!("What is the meaning of the word {number}?");
        assert_eq!(source(&server.send(&ask(&question))), "miss");
    }
    // Three of them have waited, then a trial every five seconds; all would have waited for 40 s.
    assert!(from.elapsed() < Duration::from_secs(20), "{:?}", from.elapsed());
    assert_eq!(server.metric("arriero_semantic_requests_total", "result=\"failed\""), 40.0);
}
