//! The fault lab: remote nodes that answer as they are told, on real sockets, also with every fault a node can have.

mod answer;
mod api;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::Value;

pub use answer::tokens;
pub use api::Api;

/// How a node misbehaves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Not at all.
    None,
    /// Nobody listens.
    Refuses,
    /// Connections are reset once the request is there.
    Resets,
    /// No answer ever begins.
    Stalls,
    /// The answer comes, a byte at a time, and never gets anywhere.
    Drips,
    /// The connection is reset after so many tokens.
    DiesAfter(usize),
    /// The answer ends in good order after so many tokens, without saying that it has ended.
    EndsAfter(usize),
    /// 500, with a body that is no JSON.
    Answers500,
    /// 429 with `Retry-After`, in seconds.
    Busy(u32),
    /// 200, and bytes that mean nothing.
    Garbage,
    /// It offers models that it then says it does not have.
    Lies,
    /// A `Content-Length` that is larger than the body.
    TooLong,
    /// The answer is whole, and its body never ends.
    NeverCloses,
}

/// A node that does as it is told. It stops when dropped.
pub struct Lab {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    listening: Option<JoinHandle<()>>,
}

struct Shared {
    api: Api,
    fault: Mutex<Fault>,
    stops: AtomicBool,
    /// Generations that were asked for.
    asked: AtomicUsize,
    /// The body of the last one.
    last: Mutex<Vec<u8>>,
}

/// A request that was read.
struct Asked {
    path: String,
    body: Vec<u8>,
}

impl Lab {
    /// A node that serves the model `m`.
    pub fn start(api: Api, fault: Fault) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            api,
            fault: Mutex::new(fault),
            stops: AtomicBool::new(false),
            asked: AtomicUsize::new(0),
            last: Mutex::default(),
        });
        let listening = thread::spawn({
            let shared = Arc::clone(&shared);
            move || listen(&shared, listener, address)
        });
        Self { address, shared, listening: Some(listening) }
    }

    /// From now on it misbehaves like this.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().expect("no panic") = fault;
    }

    /// How many generations it was asked for.
    pub fn asked(&self) -> usize {
        self.shared.asked.load(Ordering::SeqCst)
    }

    /// The last request for a generation.
    pub fn last(&self) -> Value {
        serde_json::from_slice(&self.shared.last.lock().expect("no panic")).expect("JSON")
    }

    /// Its entry in `nodes`, with timeouts that fit a test.
    pub fn entry(&self, name: &str) -> String {
        let (address, protocol) = (self.address, self.shared.api.protocol());
        format!(
            "{{ name: {name}, url: \"http://{address}\", protocol: {protocol}, models: [m], max_in_flight: 64, \
             timeouts: {{ connect: 1s, first_byte: 500ms, idle: 500ms }} }}"
        )
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.shared.stops.store(true, Ordering::SeqCst);
        if let Some(listening) = self.listening.take() {
            listening.join().ok();
        }
    }
}

impl Shared {
    fn fault(&self) -> Fault {
        *self.fault.lock().expect("no panic")
    }

    fn stops(&self) -> bool {
        self.stops.load(Ordering::SeqCst)
    }
}

/// Accepts until told to stop; without a socket while it is to refuse.
fn listen(shared: &Arc<Shared>, listener: TcpListener, address: SocketAddr) {
    let mut listener = Some(listener);
    let mut serving = Vec::new();
    while !shared.stops() {
        match (&listener, shared.fault()) {
            (Some(_), Fault::Refuses) => listener = None,
            (None, Fault::Refuses) => {}
            (None, _) => listener = TcpListener::bind(address).ok(),
            (Some(open), _) => {
                open.set_nonblocking(true).expect("a socket");
                while let Ok((stream, _)) = open.accept() {
                    let shared = Arc::clone(shared);
                    serving.push(thread::spawn(move || serve(&shared, stream)));
                }
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    drop(listener);
    for thread in serving {
        thread.join().ok();
    }
}

/// Answers the requests of one connection, as long as both sides keep it.
fn serve(shared: &Shared, stream: TcpStream) {
    let set_up = stream.set_nonblocking(false).and_then(|()| stream.set_nodelay(true));
    if set_up.and_then(|()| stream.set_read_timeout(Some(Duration::from_millis(20)))).is_err() {
        return;
    }
    let Ok(writing) = stream.try_clone() else { return };
    let mut reading = BufReader::new(stream);
    let mut writer = answer::Answering { stream: writing, stops: &shared.stops };
    while let Some(asked) = read(shared, &mut reading) {
        if shared.fault() == Fault::Refuses || !answer::answer(shared, &asked, &mut writer) {
            return;
        }
    }
}

/// The next request; `None` if there is none.
fn read(shared: &Shared, reading: &mut BufReader<TcpStream>) -> Option<Asked> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if shared.stops() || (head.is_empty() && shared.fault() == Fault::Refuses) {
            return None;
        }
        match reading.read_until(b'\n', &mut head) {
            Ok(0) => return None,
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return None,
            _ => {}
        }
    }
    let head = String::from_utf8(head).ok()?;
    let path = head.split(' ').nth(1)?.to_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    let (mut body, length) = (Vec::new(), length.unwrap_or(0));
    while body.len() < length {
        let mut piece = vec![0; length - body.len()];
        match reading.read(&mut piece) {
            Ok(0) => return None,
            Ok(count) => body.extend_from_slice(&piece[..count]),
            Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => return None,
            Err(_) if shared.stops() => return None,
            Err(_) => {}
        }
    }
    Some(Asked { path, body })
}
