//! A small blocking HTTP/1.1 client. The tests have their own because they look at the wire: which chunk a line came in,
//! whether a byte has come at all, what a half-sent request does; and because it talks to unix sockets as well.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

/// Longer than any answer takes, so that a test that would hang fails instead.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a server listens.
#[derive(Clone, Debug)]
pub enum Address {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

/// A connection.
pub trait Wire: Read + Write + Send {}
impl Wire for TcpStream {}
impl Wire for UnixStream {}

impl Address {
    /// `address:port`, as URLs have it.
    pub fn host(&self) -> String {
        match self {
            Self::Tcp(address) => address.to_string(),
            Self::Unix(path) => panic!("{} is no host", path.display()),
        }
    }

    /// Connects; small writes are sent at once.
    pub fn connect(&self) -> io::Result<Box<dyn Wire>> {
        match self {
            Self::Tcp(address) => {
                let stream = TcpStream::connect(address)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                Ok(Box::new(stream))
            }
        }
    }
}

/// A request. `Host` and `Content-Length` are added unless they are given.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn new(method: &str, path: &str) -> Self {
        Self { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn get(path: &str) -> Self {
        Self::new("GET", path)
    }

    /// A POST of JSON, with no `Content-Type`: what servers must not ask for.
    pub fn post(path: &str, body: &Value) -> Self {
        Self::new("POST", path).body(body.to_string())
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends on a new connection and reads the answer's head.
    pub fn send(&self, address: &Address) -> io::Result<Response> {
        self.send_on(address.connect()?)
    }

    /// Sends on an open connection and reads the answer's head.
    pub fn send_on(&self, mut wire: Box<dyn Wire>) -> io::Result<Response> {
        wire.write_all(&self.head())?;
        wire.write_all(&self.body)?;
        Response::read(wire, self.method == "HEAD")
    }

    /// The request line and headers, blank line included.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\n", self.method, self.path);
        let has = |name: &str| self.headers.iter().any(|(given, _)| given.eq_ignore_ascii_case(name));
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !has("host") {
            head.push_str("Host: localhost\r\n");
        }
        if !self.body.is_empty() && !has("content-length") && !has("transfer-encoding") {
            head.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// An answer whose head has been read.
pub struct Response {
    pub status: u16,
    headers: Vec<(String, String)>,
    wire: BufReader<Box<dyn Wire>>,
    framing: Framing,
    /// Bytes of the body that came but were not asked for yet.
    pending: Vec<u8>,
}

/// How the body's end is found.
enum Framing {
    Chunked,
    Length(usize),
    UntilClosed,
}

impl Response {
    /// Reads a final answer's head, skipping informational ones.
    pub fn read(wire: Box<dyn Wire>, is_head: bool) -> io::Result<Self> {
        let mut wire = BufReader::new(wire);
        let (status, headers) = loop {
            let (status, headers) = read_head(&mut wire)?;
            if status >= 200 {
                break (status, headers);
            }
        };
        let mut response = Self { status, headers, wire, framing: Framing::UntilClosed, pending: Vec::new() };
        response.framing = if is_head || status == 204 || status == 304 {
            Framing::Length(0)
        } else if response.header("transfer-encoding") == Some("chunked") {
            Framing::Chunked
        } else {
            let length = response.header("content-length").map(|text| text.parse().map_err(io::Error::other));
            length.transpose()?.map_or(Framing::UntilClosed, Framing::Length)
        };
        Ok(response)
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(given, _)| given.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The next piece of the body as it was framed; `None` at its end. A body that is cut off is an error.
    pub fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Chunked => {
                let size = read_line(&mut self.wire)?;
                let size = usize::from_str_radix(&size, 16).map_err(io::Error::other)?;
                let mut chunk = vec![0; size];
                self.wire.read_exact(&mut chunk)?;
                read_line(&mut self.wire)?;
                if size == 0 {
                    self.framing = Framing::Length(0);
                }
                Ok((size > 0).then_some(chunk))
            }
            Framing::Length(0) => Ok(None),
            Framing::Length(length) => {
                let mut body = vec![0; length];
                self.wire.read_exact(&mut body)?;
                self.framing = Framing::Length(0);
                Ok(Some(body))
            }
            Framing::UntilClosed => {
                let mut body = Vec::new();
                self.wire.read_to_end(&mut body)?;
                self.framing = Framing::Length(0);
                Ok((!body.is_empty()).then_some(body))
            }
        }
    }

    /// The next line of the body without its end; `None` after the last. A last line without an end is an error.
    pub fn line(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.pending.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.pending.drain(..=end).take(end).collect();
                return String::from_utf8(line).map(Some).map_err(io::Error::other);
            }
            match self.chunk()? {
                Some(chunk) => self.pending.extend(chunk),
                None if self.pending.is_empty() => return Ok(None),
                None => return Err(io::Error::other("the body ends within a line")),
            }
        }
    }

    /// The rest of the body, and the connection for another request.
    pub fn finish(mut self) -> io::Result<(Vec<u8>, Box<dyn Wire>)> {
        while let Some(chunk) = self.chunk()? {
            self.pending.extend(chunk);
        }
        Ok((self.pending, self.wire.into_inner()))
    }

    /// The rest of the body as text.
    pub fn text(self) -> io::Result<String> {
        String::from_utf8(self.finish()?.0).map_err(io::Error::other)
    }

    /// The rest of the body as JSON.
    pub fn json(self) -> io::Result<Value> {
        Ok(serde_json::from_slice(&self.finish()?.0)?)
    }

    /// The rest of the body as one JSON value per line: NDJSON, where a blank line is an error.
    pub fn ndjson(mut self) -> io::Result<Vec<Value>> {
        let mut values = Vec::new();
        while let Some(line) = self.line()? {
            values.push(serde_json::from_str(&line)?);
        }
        Ok(values)
    }

    /// The rest of the body as the data of server-sent events, each one `data:` line and a blank line.
    pub fn events(mut self) -> io::Result<Vec<String>> {
        let mut events = Vec::new();
        while let Some(line) = self.line()? {
            let data =
                line.strip_prefix("data: ").ok_or_else(|| io::Error::other(format!("not data: {line:?}")))?;
            events.push(data.to_owned());
            match self.line()? {
                Some(blank) if blank.is_empty() => {}
                other => return Err(io::Error::other(format!("not the end of an event: {other:?}"))),
            }
        }
        Ok(events)
    }
}

fn read_head(wire: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let status_line = read_line(wire)?;
    let status = status_line.split(' ').nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("not a status line: {status_line:?}")))?;
    let mut headers = Vec::new();
    loop {
        let line = read_line(wire)?;
        let Some((name, value)) = line.split_once(':') else { return Ok((status, headers)) };
        headers.push((name.to_owned(), value.trim().to_owned()));
    }
}

/// One line of a head, without its end.
fn read_line(wire: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    wire.read_line(&mut line)?;
    match line.strip_suffix("\r\n") {
        Some(line) => Ok(line.to_owned()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection closed")),
    }
}

/// The answer to a request when the other side says exactly `bytes` and closes.
fn answer(bytes: &str) -> io::Result<Response> {
    let (near, mut far) = UnixStream::pair()?;
    far.write_all(bytes.as_bytes())?;
    drop(far);
    Response::read(Box::new(near), false)
}

#[test]
fn the_client_reads_each_framing_to_its_end_and_no_further() {
    let chunked = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n2\r\nc\n\r\n0\r\n\r\nrest";
    let mut response = answer(chunked).expect("a head");
    assert_eq!(response.line().expect("a line").as_deref(), Some("a"));
    assert_eq!(response.line().expect("a line").as_deref(), Some("bc"));
    assert_eq!(response.line().expect("the end"), None);
    let length = answer("HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nhi!").expect("a head");
    assert_eq!((length.status, length.text().expect("a body").as_str()), (404, "hi"));
    let closed = answer("HTTP/1.1 200 OK\r\n\r\nall of it").expect("a head");
    assert_eq!(closed.text().expect("a body"), "all of it");
    let events = answer("HTTP/1.1 200 OK\r\n\r\ndata: {}\n\ndata: [DONE]\n\n").expect("a head");
    assert_eq!(events.events().expect("events"), ["{}", "[DONE]"]);
}

#[test]
fn the_client_takes_no_cut_off_answer_for_a_whole_one() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in ["", "3\r\na\n", "2\r\na\n\r\n", "1\r\na\r\n0\r\n\r\n"] {
        assert!(answer(&format!("{head}{body}")).expect("a head").ndjson().is_err(), "{body:?}");
    }
    assert!(answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n{}").expect("a head").text().is_err());
    assert!(answer("HTTP/1.1 200 OK\r\nContent-Le").is_err());
    let blank = answer("HTTP/1.1 200 OK\r\n\r\n{}\n\n{}\n").expect("a head");
    assert!(blank.ndjson().is_err(), "a blank line is no NDJSON");
}
