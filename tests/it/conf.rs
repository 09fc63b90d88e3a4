//! Every file of `conf/` runs: those for Arriero in Arriero, those for balancers in the balancer, in front of Arriero.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread;

use arriero::generation::{Delta, Done, Event};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tempfile::TempDir;

use crate::executable::arriero;
use crate::fixture::Fixture;
use crate::harness::{Server, model, until, until_true};
use crate::http::{Address, Request};

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn fixture() -> String {
    let path = Fixture::TinyLlama.file_in(Path::new(env!("CARGO_TARGET_TMPDIR")));
    path.expect("the fixture can be written").display().to_string()
}

#[test]
fn every_file_has_its_test_here() {
    let known =
        ["arriero.yaml", "beside-ollama.yaml", "behind-haproxy.cfg", "behind-nginx.conf", "two-models.yaml"];
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/conf")).expect("conf/");
    for file in files.map(|file| file.expect("an entry").file_name()) {
        assert!(known.iter().any(|known| *known == file), "{} is not run by a test", file.display());
    }
}

#[test]
fn check_accepts_each() {
    for file in ["arriero.yaml", "beside-ollama.yaml", "two-models.yaml"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(file);
        let mut command = arriero();
        command.envs([("SMALL", fixture()), ("LARGE", fixture())]);
        let output = command.arg("check").arg("--config").arg(path).output().expect("arriero runs");
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

#[test]
fn arriero_yaml_serves_the_demo_model() {
    let server = Server::shipped("arriero.yaml", &[]);
    assert!(!server.generate(&json!({"model": "demo", "prompt": "hello"})).is_empty());
}

#[test]
fn two_models_both_answer() {
    // The second has a quantized KV cache, which the fixture's heads are too small for.
    let demo = concat!(env!("CARGO_MANIFEST_DIR"), "/src/library/demo/demo.gguf");
    let server = Server::shipped("two-models.yaml", &[("SMALL", &fixture()), ("LARGE", demo)]);
    for model in ["small", "large", "gpt-4o-mini"] {
        let answer = json!({"model": model, "prompt": "hello", "options": {"num_predict": 4}});
        assert!(!server.generate(&answer).is_empty(), "{model}");
    }
    let small = server.workers().into_iter().filter(|worker| worker.is_of("small")).count();
    assert_eq!(small, 2, "replicas");
}

#[test]
fn beside_ollama_hands_on_what_arriero_does_not_answer() {
    let ollama = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", ollama.local_addr().expect("its address"));
    let tiny = fixture();
    let server =
        Server::shipped("beside-ollama.yaml", &[("SMALL", &tiny), ("ARRIERO__PASSTHROUGH__URL", &url)]);
    let asked = thread::spawn(move || {
        let (mut wire, _) = ollama.accept().expect("a request");
        let mut head = vec![0; 4096];
        let length = wire.read(&mut head).expect("its head");
        wire.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"status\":\"success\"}")
            .expect("sent");
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let answer = server.post("/api/pull", &json!({"model": "llama3.2"}));
    assert_eq!(answer.json().expect("JSON")["status"], "success");
    assert!(asked.join().expect("asked").starts_with("POST /api/pull "));
    let own = json!({"model": "small", "prompt": "hello", "options": {"num_predict": 4}});
    assert!(!server.generate(&own).is_empty());
}

/// A balancer in front of a server, ended with the value.
struct Balancer {
    process: Child,
    address: Address,
    _directory: TempDir,
}

impl Balancer {
    /// Runs `program` on a file of `conf/`, its ports replaced: 8080 by a free one, Arriero's by those of `server`.
    fn start(program: &str, file: &str, server: &Server, arguments: fn(&mut Command, PathBuf)) -> Self {
        let (data, admin) = (tcp(&server.data), tcp(&server.admin));
        // Free now; the system gives it to nobody else so soon.
        let free = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        let config = read(file)
            .replace("listen 8080", &format!("listen {free}"))
            .replace("bind :8080", &format!("bind {free}"))
            .replace("127.0.0.1:11434", &data.to_string())
            .replace("port 11435", &format!("port {}", admin.port()));
        let directory = tempfile::tempdir().expect("a temporary directory");
        std::fs::write(directory.path().join(file), config).expect("it can be written");
        let mut command = Command::new(found(program));
        arguments(&mut command, directory.path().join(file));
        let process = command.stdin(Stdio::null()).spawn().expect("it starts");
        let balancer = Self { process, address: Address::Tcp(free), _directory: directory };
        until_true("the balancer takes Arriero for alive", || {
            Request::get("/api/version").send(&balancer.address).is_ok_and(|answer| answer.status == 200)
        });
        balancer
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        // nginx ends its workers on SIGTERM; on SIGKILL they would stay. Both fail only if it has ended.
        let _ = kill(Pid::from_raw(self.process.id() as i32), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn tcp(address: &Address) -> SocketAddr {
    match address {
        Address::Tcp(address) => *address,
        Address::Unix(path) => panic!("not a TCP address: {}", path.display()),
    }
}

/// Debian keeps both in a folder that is not on everybody's path.
fn found(program: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/usr/local/sbin";
    let found = path.split(':').map(|folder| Path::new(folder).join(program)).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("{program} is missing; `.ci/prepare test` installs it"))
}

/// A node whose answer goes on only when it is told to: what comes through before that was not held back.
struct Slow {
    socket: PathBuf,
    go_on: mpsc::Sender<()>,
    _directory: TempDir,
}

impl Slow {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let socket = directory.path().join("slow.sock");
        let listener = UnixListener::bind(&socket).expect("a socket");
        let (go_on, told) = mpsc::channel();
        thread::spawn(move || {
            // It is asked for its health too, and has none to tell.
            let mut wire = loop {
                let (mut wire, _) = listener.accept().expect("a request");
                let mut request = [0; 8192];
                let length = wire.read(&mut request).expect("the request");
                if request[..length].starts_with(b"POST /generate") {
                    break wire;
                }
            };
            let line = |event| serde_json::to_string(&event).expect("JSON") + "\n";
            let one = line(Event::Delta(Delta { text: "early".into(), ..Delta::default() }));
            let end = line(Event::Done(Done::default()));
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            write!(wire, "{head}{:x}\r\n{one}\r\n", one.len()).expect("sent");
            told.recv().expect("told to go on");
            write!(wire, "{:x}\r\n{end}\r\n0\r\n\r\n", end.len()).expect("sent");
        });
        Self { socket, go_on, _directory: directory }
    }

    /// The configuration of a server with it as model `slow`, and the fixture as model `tiny`.
    fn config(&self) -> String {
        format!(
            "models: {{ tiny: {} }}\nnodes: [{{ name: slow, url: \"unix:{}\", protocol: worker, models: [slow] }}]",
            model(Fixture::TinyLlama, "context: 512"),
            self.socket.display()
        )
    }
}

/// What both are there for: answers come through as they are made, large requests get in, and a drained server gets none.
fn balances(mut server: Server, slow: &Slow, balancer: &Balancer) {
    let asked = json!({"model": "slow", "prompt": "hello"});
    let mut stream = Request::post("/api/generate", &asked).send(&balancer.address).expect("an answer");
    let early = stream.line().expect("a line").expect("before the answer goes on");
    assert!(early.contains("early"), "{early}");
    slow.go_on.send(()).expect("it waits");
    assert!(stream.text().expect("the rest").contains("\"done\":true"));

    let long = json!({"model": "tiny", "prompt": "hello ".repeat(30_000), "options": {"num_predict": 2}});
    let answer = Request::post("/api/generate", &long).send(&balancer.address).expect("an answer");
    assert!(answer.ndjson().expect("NDJSON").last().expect("a line")["done"].as_bool().expect("a boolean"));

    let endless = json!({"model": "tiny", "prompt": "hello", "options": {"num_predict": -1}});
    let mut stream = Request::post("/api/generate", &endless).send(&balancer.address).expect("an answer");
    stream.line().expect("a line").expect("more");
    // The client's leave reaches the worker through the balancer.
    drop(stream);
    let worker = server.ready_worker("tiny");
    until_true("its sequence is free", || worker.health().is_some_and(|(_, health)| health.busy == 0));

    server.signal(Signal::SIGTERM);
    assert!(server.exit().success());
    until("the balancer notices", || {
        let answer = Request::get("/api/version").send(&balancer.address).ok()?;
        matches!(answer.status, 502 | 503).then_some(())
    });
}

#[test]
fn behind_nginx() {
    let slow = Slow::start();
    let server = Server::start(&slow.config());
    let balancer = Balancer::start("nginx", "behind-nginx.conf", &server, |command, config| {
        let folder = config.parent().expect("a folder");
        let main = folder.join("nginx.conf");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {}/{kind};", folder.display()))
            .concat();
        let text = format!(
            "daemon off; pid {0}/nginx.pid; error_log {0}/error.log; events {{ }}\nhttp {{ access_log off; {temporary} include {1}; }}\n",
            folder.display(),
            config.display()
        );
        std::fs::write(&main, text).expect("it can be written");
        command.arg("-p").arg(folder).arg("-e").arg(folder.join("error.log")).arg("-c").arg(main);
    });
    let sent = Request::get("/api/version").header("X-Request-Id", "mine").send(&balancer.address);
    let id = sent.expect("an answer").header("x-request-id").map(str::to_owned);
    assert_eq!(id.map(|id| id.len()), Some(32), "nginx's own id is the one in both logs");
    balances(server, &slow, &balancer);
}

#[test]
fn behind_haproxy() {
    let slow = Slow::start();
    let server = Server::start(&slow.config());
    let balancer = Balancer::start("haproxy", "behind-haproxy.cfg", &server, |command, config| {
        command.arg("-q").arg("-db").arg("-f").arg(config);
    });
    balances(server, &slow, &balancer);
}
