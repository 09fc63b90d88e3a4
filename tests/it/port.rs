//! What comes on the connections of the data port: requests one after the other, half of one, none, and those for another server.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::Server;
use crate::http::{Request, Response};

/// Everything that is answered to `bytes`, written in pieces of `size` bytes, until the connection closes.
fn answers(server: &Server, bytes: &[u8], size: usize) -> String {
    let mut wire = server.data.connect().expect("a connection");
    for piece in bytes.chunks(size) {
        wire.write_all(piece).expect("it listens");
    }
    let mut answers = String::new();
    wire.read_to_string(&mut answers).expect("an answer");
    answers
}

/// A server that answers one request per connection with `elsewhere` and the request line.
fn elsewhere() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                match connection.read(&mut buffer) {
                    Ok(count) if count > 0 => request.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
            let line = String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned();
            let body = format!("elsewhere: {line}");
            let length = body.len();
            // Whoever closed the connection early wanted no answer.
            let _ = write!(
                connection,
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
            );
        }
    });
    address
}

#[test]
fn requests_that_come_at_once_are_answered_in_their_order() {
    let server = Server::demo();
    let post = Request::post("/api/generate", &json!({"model": "demo", "prompt": "hello", "stream": false}));
    let mut bytes = post.head();
    bytes.extend(json!({"model": "demo", "prompt": "hello", "stream": false}).to_string().into_bytes());
    bytes.extend(Request::get("/api/version").head());
    bytes.extend(Request::get("/").header("Connection", "close").head());
    for size in [1, 100, bytes.len()] {
        let answers = answers(&server, &bytes, size);
        assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 3, "{answers}");
        let places = ["\"response\":", "\"version\":", "Ollama is running"].map(|text| answers.find(text));
        assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{answers}");
    }
}

#[test]
fn what_is_no_request_is_told_so() {
    let server = Server::demo();
    for bytes in ["hello\r\n\r\n", "\u{16}\u{3}\u{1}\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n"] {
        let answers = answers(&server, bytes.as_bytes(), 100);
        assert!(answers.starts_with("HTTP/1.1 400 Bad Request"), "{bytes:?}: {answers}");
        assert!(answers.ends_with(r#"{"error":"not an HTTP/1.1 request"}"#), "{bytes:?}: {answers}");
    }
    let lengths =
        "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n";
    let answers = answers(&server, lengths.as_bytes(), 100);
    assert!(answers.starts_with("HTTP/1.1 400 Bad Request"), "{answers}");
    assert!(answers.contains(r#""message":"the request body cannot be read""#), "{answers}");
}

#[test]
fn one_connection_serves_what_is_passed_on_and_what_is_not() {
    let server = Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\" }} }}\npassthrough: {{ url: \"http://{}\" }}",
        elsewhere()
    ));
    let mut wire = server.data.connect().expect("a connection");
    for _ in 0..2 {
        for (path, expected) in [
            ("/api/version", "\"version\""),
            ("/elsewhere?x=1", "elsewhere: GET /elsewhere?x=1 HTTP/1.1"),
            ("/elsewhere/again", "elsewhere: GET /elsewhere/again HTTP/1.1"),
            ("/", "Ollama is running"),
        ] {
            let response: Response = Request::get(path).send_on(wire).expect("an answer");
            assert!(response.header("x-request-id").is_some(), "{path}");
            let (body, connection) = response.finish().expect("a body");
            let body = String::from_utf8(body).expect("text");
            assert!(body.contains(expected), "{path}: {body}");
            wire = connection;
        }
    }
    let forbidden = Request::get("/elsewhere").header("Origin", "http://evil.example");
    assert_eq!(server.send(&forbidden).status, 403, "access is checked before anything is passed on");
}

#[test]
fn a_request_line_may_come_byte_by_byte_where_others_are_passed_on() {
    let server = Server::start(&format!(
        "models: {{ demo: {{ path: \"builtin:demo\" }} }}\npassthrough: {{ url: \"http://{}\" }}",
        elsewhere()
    ));
    let get = |path| Request::get(path).header("Connection", "close").head();
    assert!(answers(&server, &get("/api/version"), 1).contains("\"version\""));
    assert!(answers(&server, &get("/elsewhere"), 1).ends_with("elsewhere: GET /elsewhere HTTP/1.1"));
    // At once: it is refused, and the connection closed, before all of it was read.
    assert!(answers(&server, b"hello\r\n\r\n", 9).starts_with("HTTP/1.1 400 Bad Request"));
}

#[test]
fn an_open_connection_without_a_request_does_not_hold_up_a_stop() {
    let mut server = Server::demo();
    let mut idle = server.data.connect().expect("a connection");
    let used = Request::get("/").send(&server.data).expect("an answer").finish().expect("a body").1;
    server.signal(Signal::SIGTERM);
    assert!(server.exit().success());
    let mut rest = Vec::new();
    // Closed, in whichever way.
    let _ = idle.read_to_end(&mut rest);
    assert!(rest.is_empty());
    drop(used);
}
