//! Nodes with every fault there is, beside a sound one, under load: no client notices a fault before its first byte, no answer is
//! cut short in silence, whatever broke where.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Server, until_true};
use crate::http::{Request, Response};
use crate::lab::{Api, Fault, Lab, tokens};

/// Tokens that each request asks for.
const TOKENS: usize = 12;
/// Clients at once, and requests of each.
const CLIENTS: usize = 8;
const REQUESTS: usize = 8;

/// What became of a request.
#[derive(Debug, PartialEq)]
enum End {
    /// The whole answer.
    Whole,
    /// Told so in the middle of an answer.
    ToldLate(String),
    /// An answer that looks whole and is not.
    CutShort(String),
    /// Told so instead of an answer.
    Refused(u16, String),
}

/// Two nodes behind Arriero, of which the first is as told.
struct Lane {
    faulty: Lab,
    sound: Lab,
    server: Server,
}

impl Lane {
    fn new(api: Api, fault: Fault) -> Self {
        Self::open_for("1s", api, fault)
    }

    /// With breakers that stay open for so long.
    fn open_for(open: &str, api: Api, fault: Fault) -> Self {
        let (faulty, sound) = (Lab::start(api, fault), Lab::start(api, Fault::None));
        let server = Server::start(&format!(
            "models: {{}}\nrouting: {{ strategy: round_robin }}\nbreaker: {{ open: {open}, slow_start: 1s }}\n\
             nodes:\n  - {}\n  - {}\n",
            faulty.entry("faulty"),
            sound.entry("sound"),
        ));
        Self { faulty, sound, server }
    }

    /// One request, as an Ollama client or as one of OpenAI's.
    fn ask(&self, number: usize) -> End {
        match number % 2 {
            0 => {
                let body = json!({"model": "m", "prompt": "tell", "options": {"num_predict": TOKENS, "seed": number}});
                end(self.server.post("/api/generate", &body), |line| {
                    line["response"].as_str().unwrap_or_default().to_owned()
                })
            }
            _ => {
                let messages = json!([{"role": "user", "content": "tell"}]);
                let body = json!({"model": "m", "messages": messages, "options": {"num_predict": TOKENS}});
                let content =
                    |line: &Value| line["message"]["content"].as_str().unwrap_or_default().to_owned();
                end(self.server.post("/api/chat", &body), content)
            }
        }
    }

    /// Many at once; what became of each.
    fn load(&self) -> Vec<End> {
        thread::scope(|scope| {
            let clients: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    scope.spawn(move || {
                        (0..REQUESTS).map(|request| self.ask(client + request)).collect::<Vec<_>>()
                    })
                })
                .collect();
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect()
        })
    }
}

fn end(response: Response, text: impl Fn(&Value) -> String) -> End {
    let status = response.status;
    if status != 200 {
        return End::Refused(status, response.text().expect("words"));
    }
    let lines = response.ndjson().expect("NDJSON");
    let last = lines.last().cloned().unwrap_or_default();
    if let Some(error) = last["error"].as_str() {
        return End::ToldLate(error.to_owned());
    }
    let said: String = lines.iter().map(text).collect();
    if last["done"] == true && said == tokens(TOKENS).concat() { End::Whole } else { End::CutShort(said) }
}

/// All requests must be answered whole, though half of them meet the fault first.
fn nobody_notices(fault: Fault) {
    for api in Api::ALL {
        let lane = Lane::new(api, fault);
        let ends = lane.load();
        let noticed: Vec<_> = ends.iter().filter(|end| **end != End::Whole).collect();
        assert!(noticed.is_empty(), "{api:?} {fault:?}: {} of {}: {noticed:?}", noticed.len(), ends.len());
        assert!(lane.sound.asked() > 0 && lane.faulty.asked() <= lane.sound.asked() + CLIENTS, "{api:?}");
    }
}

/// Requests may be told in the middle that it broke off, but none may be cut short in silence, and none refused.
fn nobody_is_fooled(fault: Fault) {
    for api in Api::ALL {
        let ends = Lane::new(api, fault).load();
        let wrong = |end: &&End| !matches!(end, End::Whole | End::ToldLate(_));
        let wrong: Vec<_> = ends.iter().filter(wrong).collect();
        assert!(wrong.is_empty(), "{api:?} {fault:?}: {wrong:?}");
    }
}

#[test]
fn nobody_notices_a_node_that_refuses_connections() {
    nobody_notices(Fault::Refuses);
}

#[test]
fn nobody_notices_a_node_that_resets_connections() {
    nobody_notices(Fault::Resets);
}

#[test]
fn nobody_notices_a_node_that_stalls_before_its_answer() {
    nobody_notices(Fault::Stalls);
}

#[test]
fn nobody_notices_a_node_that_drips() {
    nobody_notices(Fault::Drips);
}

#[test]
fn nobody_notices_a_node_that_answers_500() {
    nobody_notices(Fault::Answers500);
}

#[test]
fn nobody_notices_a_node_that_answers_garbage() {
    nobody_notices(Fault::Garbage);
}

#[test]
fn nobody_notices_a_node_that_lies_about_its_models() {
    nobody_notices(Fault::Lies);
}

#[test]
fn nobody_notices_a_node_that_dies_before_its_first_token() {
    nobody_notices(Fault::DiesAfter(0));
    nobody_notices(Fault::EndsAfter(0));
}

#[test]
fn nobody_notices_a_node_whose_answer_never_closes() {
    nobody_notices(Fault::NeverCloses);
}

#[test]
fn nobody_notices_a_node_that_is_busy_and_it_is_left_alone_as_long_as_it_asks() {
    for api in Api::ALL {
        let lane = Lane::new(api, Fault::Busy(60));
        assert!(lane.load().iter().all(|end| *end == End::Whole), "{api:?}");
        let asked = lane.faulty.asked();
        assert!(asked <= CLIENTS, "{asked} requests to a node that has asked for a minute");
        assert_eq!(lane.server.metric("arriero_breaker_transitions_total", "faulty"), 0.0);
    }
}

#[test]
fn no_answer_is_cut_short_in_silence_wherever_the_node_dies() {
    for count in [1, 5, TOKENS] {
        nobody_is_fooled(Fault::DiesAfter(count));
        nobody_is_fooled(Fault::EndsAfter(count));
    }
    nobody_is_fooled(Fault::TooLong);
}

#[test]
fn a_node_that_answers_500_is_left_alone_then_tried_and_comes_back() {
    let lane = Lane::new(Api::OpenAi, Fault::Answers500);
    assert!(lane.load().iter().all(|end| *end == End::Whole));
    let asked = lane.faulty.asked();
    assert!(asked < CLIENTS * REQUESTS / 2, "{asked}");
    let moved = |to: &str| lane.server.metric("arriero_breaker_transitions_total", &format!("to=\"{to}\""));
    assert!(moved("open") >= 1.0);
    assert_eq!(lane.server.metric("arriero_breaker_state", "faulty"), 1.0);
    lane.faulty.set(Fault::None);
    until_true("it is back", || {
        assert_eq!(lane.ask(0), End::Whole);
        thread::sleep(Duration::from_millis(20));
        lane.server.metric("arriero_breaker_state", "node=\"faulty\"") == 0.0
    });
    assert!(moved("half_open") >= 1.0 && moved("closed") >= 1.0);
    assert!(lane.faulty.asked() > asked);
}

#[test]
fn a_node_that_is_back_gets_its_part_slowly_and_all_of_it_can_be_seen() {
    let (faulty, sound) = (Lab::start(Api::Ollama, Fault::Answers500), Lab::start(Api::Ollama, Fault::None));
    let server = Server::start(&format!(
        "routing: {{ strategy: round_robin }}\nbreaker: {{ consecutive_failures: 3, open: 500ms, slow_start: 10m }}\n\
         nodes:\n  - {}\n  - {}\n",
        faulty.entry("faulty"),
        sound.entry("sound"),
    ));
    let lane = Lane { faulty, sound, server };
    let share = |node: &str| lane.server.metric("arriero_node_share_ratio", &format!("node=\"{node}\""));
    let listed = || {
        let nodes = Request::get("/admin/v1/nodes").send(&lane.server.admin).expect("an answer");
        let nodes = nodes.json().expect("JSON")["nodes"].clone();
        nodes
            .as_array()
            .expect("a list")
            .iter()
            .find(|node| node["name"] == "faulty")
            .expect("listed")
            .clone()
    };
    assert_eq!((share("faulty"), share("sound")), (1.0, 1.0));
    (0..6).for_each(|_| assert_eq!(lane.ask(0), End::Whole));
    assert_eq!(lane.faulty.asked(), 3, "as many failures as are configured");
    let out = &listed()["models"][0]["breaker"];
    assert_eq!((&out["state"], &out["consecutive_failures"]), (&json!("open"), &json!(3)), "{out}");
    assert_eq!((share("faulty"), share("sound")), (0.0, 1.0));
    lane.faulty.set(Fault::None);
    until_true("it is back", || {
        assert_eq!(lane.ask(0), End::Whole);
        thread::sleep(Duration::from_millis(20));
        listed()["models"][0]["breaker"]["state"] == "closed"
    });
    for (from, to) in [("closed", "open"), ("open", "half_open"), ("half_open", "closed")] {
        let labels = format!("from=\"{from}\",node=\"faulty\",to=\"{to}\"");
        assert_eq!(lane.server.metric("arriero_breaker_transitions_total", &labels), 1.0, "{labels}");
    }
    assert!((0.1..0.2).contains(&share("faulty")), "{}", share("faulty"));
    let back = &listed()["models"][0]["breaker"]["share"];
    assert!(back.as_f64().is_some_and(|share| (0.1..0.2).contains(&share)), "{back}");
}

#[test]
fn when_all_nodes_fail_clients_are_told_at_once_and_when_to_come_again() {
    let lane = Lane::open_for("30s", Api::Ollama, Fault::Answers500);
    lane.sound.set(Fault::Answers500);
    let refused = lane.load();
    assert!(refused.iter().all(|end| matches!(end, End::Refused(500..=503, _))), "{refused:?}");
    let body = json!({"model": "m", "prompt": "x"});
    let response = lane.server.post("/api/generate", &body);
    assert_eq!(response.status, 503);
    let seconds: u32 = response.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=30).contains(&seconds), "{seconds}");
}
