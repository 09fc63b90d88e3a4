//! Many clients at once.

use std::thread;

use serde_json::{Value, json};

use crate::fixture::Fixture;
use crate::harness::Server;

const STREAMS: usize = 64;

fn ask(number: usize) -> Value {
    json!({ "model": "tiny", "prompt": format!("Story {number} of the mule"), "raw": true,
            "options": { "num_predict": 24, "seed": number } })
}

#[test]
fn each_of_64_concurrent_streams_completes_with_its_own_answer() {
    let server = Server::with_fixture(Fixture::TinyLlama, "parallel: 8, context: 512");
    let alone: Vec<String> = (0..STREAMS).map(|number| server.generate(&ask(number))).collect();
    let together: Vec<String> = thread::scope(|scope| {
        let clients: Vec<_> = (0..STREAMS)
            .map(|number| {
                scope.spawn({
                    let server = &server;
                    move || server.generate(&ask(number))
                })
            })
            .collect();
        clients.into_iter().map(|client| client.join().expect("the stream completes")).collect()
    });
    let distinct: std::collections::BTreeSet<&String> = alone.iter().collect();
    assert_eq!(distinct.len(), STREAMS, "every seed and prompt has an answer of its own");
    assert_eq!(together, alone);
}
