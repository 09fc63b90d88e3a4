//! Writing an answer, with or without a fault.

use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use super::{Asked, Fault, Shared};

/// Between two tokens.
const TOKEN: Duration = Duration::from_millis(1);
/// Between two bytes of a node that drips.
const DRIP: Duration = Duration::from_millis(50);

/// The side of a connection that answers are written to.
pub(super) struct Answering<'a> {
    pub stream: TcpStream,
    pub stops: &'a AtomicBool,
}

/// The tokens that every sound node answers with: they depend on nothing but their number.
pub fn tokens(count: usize) -> Vec<String> {
    (0..count).map(|index| format!("w{index} ")).collect()
}

impl Answering<'_> {
    fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    fn whole(&mut self, status: &str, headers: &str, body: &str) -> bool {
        let length = body.len();
        self.write(format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n{headers}\r\n{body}"))
    }

    fn chunk(&mut self, body: &str) -> bool {
        self.write(format!("{:x}\r\n{body}\r\n", body.len()))
    }

    /// Ends the connection with a reset instead of an end.
    fn reset(&mut self) -> bool {
        let linger = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        setsockopt(&self.stream, sockopt::Linger, &linger).ok();
        // Whoever is told that the connection cannot be used again closes it, which resets it now.
        false
    }

    /// Keeps the connection without a word until the other side leaves it.
    fn wait(&mut self) -> bool {
        let mut byte = [0];
        while !self.stops.load(Ordering::SeqCst) {
            match self.stream.peek(&mut byte) {
                Ok(0) => return false,
                Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return false,
                _ => thread::sleep(Duration::from_millis(5)),
            }
        }
        false
    }
}

/// Answers one request; whether the connection can be used again.
pub(super) fn answer(shared: &Shared, asked: &Asked, to: &mut Answering) -> bool {
    let api = shared.api;
    if asked.path == "/api/embed" {
        return match shared.fault() {
            Fault::Stalls => to.wait(),
            _ => {
                to.whole("200 OK", "Content-Type: application/json\r\n", &embeddings(&asked.body).to_string())
            }
        };
    }
    if !api.generates(&asked.path) {
        return match api.about(&asked.path) {
            Some(body) => to.whole("200 OK", "Content-Type: application/json\r\n", &body.to_string()),
            None => to.whole("404 Not Found", "", "not here"),
        };
    }
    shared.asked.fetch_add(1, Ordering::SeqCst);
    shared.last.lock().expect("no panic").clone_from(&asked.body);
    let pieces = api.pieces(&asked.path, &tokens(wanted(&asked.body)));
    let head = |framing: &str| {
        format!("HTTP/1.1 200 OK\r\nContent-Type: {}\r\n{framing}\r\n\r\n", api.content_type())
    };
    let chunked = head("Transfer-Encoding: chunked");
    match shared.fault() {
        Fault::None | Fault::Refuses => stream(to, &chunked, &pieces) && to.chunk(""),
        Fault::Resets => to.reset(),
        Fault::Stalls => to.wait(),
        Fault::Drips => {
            let whole: String = pieces.concat();
            to.write(head("Content-Length: 1000000"))
                && whole
                    .bytes()
                    .take_while(|_| !to.stops.load(Ordering::SeqCst))
                    .collect::<Vec<_>>()
                    .into_iter()
                    .all(|byte| {
                        thread::sleep(DRIP);
                        to.write([byte])
                    })
        }
        Fault::DiesAfter(count) => stream(to, &chunked, &pieces[..count.min(pieces.len() - 1)]) && to.reset(),
        Fault::EndsAfter(count) => {
            stream(to, &chunked, &pieces[..count.min(pieces.len() - 1)]) && to.chunk("")
        }
        Fault::Answers500 => {
            to.whole("500 Internal Server Error", "Content-Type: text/html\r\n", "<h1>oops</h1>")
        }
        Fault::Busy(seconds) => to.whole(
            "429 Too Many Requests",
            &format!("Retry-After: {seconds}\r\n"),
            "{\"error\":\"slow down\"}",
        ),
        Fault::Garbage => {
            to.write(chunked) && to.chunk("\u{1}\u{2}{]not a thing\n\ndata: neither\n\n") && to.chunk("")
        }
        Fault::Lies => to.whole("404 Not Found", "Content-Type: application/json\r\n", &api.not_found()),
        Fault::TooLong => {
            let half = pieces[..pieces.len() / 2].concat();
            to.write(head(&format!("Content-Length: {}", half.len() + 100))) && to.write(half) && {
                to.stream.shutdown(Shutdown::Both).ok();
                false
            }
        }
        Fault::NeverCloses => stream(to, &chunked, &pieces) && to.wait(),
    }
}

/// Numbers in a vector.
const DIMENSIONS: usize = 256;

/// What Ollama says to `/api/embed`: texts lie as close to each other as they have words in common.
fn embeddings(body: &[u8]) -> Value {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let vector = |text: &Value| {
        let mut vector = vec![0; DIMENSIONS];
        for word in text.as_str().unwrap_or_default().split(|c: char| !c.is_alphanumeric()) {
            let hash = word.bytes().fold(7_usize, |hash, byte| hash * 31 % 65_521 + usize::from(byte));
            vector[hash % DIMENSIONS] += usize::from(!word.is_empty());
        }
        vector
    };
    let vectors: Vec<_> = body["input"].as_array().into_iter().flatten().map(vector).collect();
    json!({ "model": "m", "embeddings": vectors, "prompt_eval_count": 1 })
}

fn stream(to: &mut Answering, head: &str, pieces: &[String]) -> bool {
    to.write(head)
        && pieces.iter().all(|piece| {
            thread::sleep(TOKEN);
            to.chunk(piece)
        })
}

/// How many tokens a request wants.
fn wanted(body: &[u8]) -> usize {
    let body: Value = serde_json::from_slice(body).unwrap_or_default();
    let limit = [&body["options"]["num_predict"], &body["max_tokens"], &body["max_completion_tokens"]];
    limit.into_iter().find_map(Value::as_u64).map_or(10, |count| count as usize)
}
