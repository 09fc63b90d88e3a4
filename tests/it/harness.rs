//! Runs the shipped executable: `arriero serve` with a temporary configuration on ports of the system's choosing.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use arriero::generation::seam::{Spec, Vitals};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::executable::arriero;
use crate::fixture::Fixture;
use crate::http::{Address, Request, Response};

/// How long a server may take to listen, and anything polled for to come true. Generous: the machine may be slow and busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running `arriero serve`. Killed when dropped; its log is printed if the test fails.
pub struct Server {
    process: Child,
    log: Arc<Mutex<Vec<String>>>,
    /// Of the data port.
    pub data: Address,
    /// Of the admin port.
    pub admin: Address,
    directory: Option<TempDir>,
}

/// A worker process of a [`Server`].
#[derive(Clone, Debug)]
pub struct Worker {
    pub pid: Pid,
    pub spec: Spec,
}

impl Server {
    /// Starts with `config` (YAML without `listen` and `admin`) and waits until it listens.
    pub fn start(config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = write_config(&directory, config);
        let mut command = arriero();
        command.arg("serve").arg("--config").arg(path);
        Self::run(command, Some(directory))
    }

    /// Starts like [`Server::start`], from a shell that has run `prelude`.
    pub fn start_after(prelude: &str, config: &str) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = write_config(&directory, config);
        let server = arriero();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{prelude}; exec \"$0\" serve --config \"$1\""));
        command.arg(server.get_program()).arg(path).stdin(Stdio::null());
        for (name, value) in server.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Self::run(command, Some(directory))
    }

    /// Starts with a file of `conf/` and these environment variables.
    pub fn shipped(file: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = arriero();
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--config"]);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(file));
        command.envs(environment.iter().copied());
        Self::run(command, None)
    }

    /// Starts and waits until it listens; `directory` is removed after it.
    fn run(mut command: Command, directory: Option<TempDir>) -> Self {
        let mut process =
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("arriero starts");
        let log = Arc::new(Mutex::new(Vec::new()));
        let (listening, heard) = mpsc::channel();
        follow(process.stdout.take().expect("piped"), Arc::clone(&log), listening.clone());
        follow(process.stderr.take().expect("piped"), Arc::clone(&log), listening);
        let nowhere = Address::Unix(PathBuf::new());
        let mut server = Self { process, log, data: nowhere.clone(), admin: nowhere, directory };
        let (data, admin) = heard.recv_timeout(PATIENCE).expect("arriero says where it listens");
        server.data = Address::Tcp(data);
        server.admin = Address::Tcp(admin);
        server
    }

    /// Writes another configuration where the server of [`Server::start`] reads it.
    pub fn rewrite(&self, config: &str) {
        write_config(self.directory.as_ref().expect("a configuration of its own"), config);
    }

    /// Starts with the built-in model only.
    pub fn demo() -> Self {
        Self::start("models: { demo: { path: \"builtin:demo\" } }")
    }

    /// Starts with the fixture as model `tiny`; `settings` are further keys of the model, such as `parallel: 8`.
    pub fn with_fixture(fixture: Fixture, settings: &str) -> Self {
        Self::start(&format!("models: {{ tiny: {} }}", model(fixture, settings)))
    }

    /// Sends a request to the data port; the connection must work.
    pub fn send(&self, request: &Request) -> Response {
        request.send(&self.data).expect("an answer")
    }

    /// The names that `/api/tags` lists, sorted.
    pub fn model_names(&self) -> Vec<String> {
        let list = self.get("/api/tags").json().expect("JSON");
        let names = list["models"].as_array().expect("a list").iter();
        let mut names: Vec<_> =
            names.map(|model| model["name"].as_str().expect("a name").to_owned()).collect();
        names.sort();
        names
    }

    pub fn get(&self, path: &str) -> Response {
        self.send(&Request::get(path))
    }

    pub fn post(&self, path: &str, body: &Value) -> Response {
        self.send(&Request::post(path, body))
    }

    /// The text of the answer to `/api/generate`, which must succeed.
    pub fn generate(&self, body: &Value) -> String {
        let response = self.post("/api/generate", body);
        assert_eq!(response.status, 200);
        let lines = response.ndjson().expect("NDJSON");
        assert_eq!(lines.last().expect("a line")["done"], true, "{lines:?}");
        lines.iter().map(|line| line["response"].as_str().expect("text")).collect()
    }

    /// The last line of an answer of `tiny` whose worker is killed under it; the text must be what it is undisturbed.
    pub fn generate_despite_a_kill(&self, body: &Value) -> Value {
        let expected = self.generate(body);
        let mut stream = self.post("/api/generate", body);
        let mut lines: Vec<Value> = Vec::new();
        while let Some(line) = stream.line().expect("the answer goes on") {
            lines.push(serde_json::from_str(&line).expect("JSON"));
            if lines.len() == 5 {
                self.ready_worker("tiny").signal(Signal::SIGKILL);
            }
        }
        assert_eq!(self.metric("arriero_resumed_total", ""), 1.0);
        let text: String = lines.iter().filter_map(|line| line["response"].as_str()).collect();
        assert_eq!(text, expected);
        lines.pop().expect("a line")
    }

    /// The sum over all series of a metric family whose labels contain `label` (such as `model="tiny"`, or "").
    pub fn metric(&self, family: &str, label: &str) -> f64 {
        let exposition = self.exposition();
        let series = exposition.lines().filter(|line| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            name == family && line.contains(label)
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// The text of `/metrics`.
    pub fn exposition(&self) -> String {
        let response = Request::get("/metrics").send(&self.admin).expect("an answer");
        assert_eq!(response.status, 200);
        response.text().expect("text")
    }

    /// The worker processes that run now.
    pub fn workers(&self) -> Vec<Worker> {
        let parent = self.process.id();
        let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
        let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        pids.filter(|pid| parent_of(*pid) == Some(parent)).filter_map(Worker::of).collect()
    }

    /// Waits for a ready worker of `model` and returns it.
    pub fn ready_worker(&self, model: &str) -> Worker {
        until("a worker is ready", || {
            let mut workers = self.workers().into_iter();
            workers.find(|worker| {
                worker.is_of(model) && worker.health().is_some_and(|(status, _)| status == 200)
            })
        })
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the server runs");
    }

    /// Waits for the process to end.
    pub fn exit(&mut self) -> ExitStatus {
        until("the server exits", || self.process.try_wait().expect("the server can be waited for"))
    }

    /// The log lines that parse as JSON.
    pub fn log(&self) -> Vec<Value> {
        let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        log.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Drop for Server {
    #[expect(clippy::print_stderr, reason = "the test runner shows it with the failure")]
    fn drop(&mut self) {
        // Fails only if it ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
        if thread::panicking() {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            eprintln!("--- log of arriero serve\n{}\n---", log.join("\n"));
        }
    }
}

impl Worker {
    /// The worker with this process id, if it is one.
    fn of(pid: u32) -> Option<Self> {
        let command = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut arguments = command.split(|byte| *byte == 0).skip_while(|argument| *argument != b"--spec");
        let spec = serde_json::from_slice(arguments.nth(1)?).ok()?;
        Some(Self { pid: Pid::from_raw(pid as i32), spec })
    }

    /// Whether it is a replica of `model`: workers are called `model-0`, `model-1`...
    pub fn is_of(&self, model: &str) -> bool {
        self.spec.name.rsplit_once('-').is_some_and(|(name, _)| name == model)
    }

    /// What its `/health` says, with the status; `None` while it does not answer.
    pub fn health(&self) -> Option<(u16, Vitals)> {
        let response = Request::get("/health").send(&Address::Unix(self.spec.socket.clone())).ok()?;
        let status = response.status;
        Some((status, serde_json::from_value(response.json().ok()?).expect("the seam's health")))
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("the worker runs");
    }

    /// Stops all its threads, and waits until they have: one that runs on another core may well answer a request before.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        until_true("its threads stand still", || {
            let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("it runs").flatten();
            let mut ids = threads.filter_map(|thread| thread.file_name().to_str()?.parse().ok());
            ids.all(|id| stat(id).is_none_or(|fields| fields.first().is_some_and(|state| state == "T")))
        });
    }

    /// Stops the one thread that computes, until the worker is gone; the others go on answering.
    pub fn wedge(&self) -> thread::JoinHandle<()> {
        let threads = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("it runs").flatten();
        let is_engine = |entry: &std::fs::DirEntry| {
            std::fs::read_to_string(entry.path().join("comm")).is_ok_and(|name| name.trim() == "engine")
        };
        let engine = threads.into_iter().find(is_engine).expect("a thread that computes");
        let id = Pid::from_raw(engine.file_name().to_str().and_then(|id| id.parse().ok()).expect("a number"));
        let (stopped, stops) = mpsc::channel();
        // A thread is stopped for as long as the thread lives that has stopped it.
        let holder = thread::spawn(move || {
            ptrace::seize(id, ptrace::Options::empty()).expect("it can be traced");
            ptrace::interrupt(id).expect("it can be stopped");
            waitpid(id, Some(WaitPidFlag::__WALL)).expect("it stops");
            stopped.send(()).expect("somebody waits");
            // Its end is this thread's to take note of; until then the process is not gone.
            while matches!(
                waitpid(id, Some(WaitPidFlag::__WALL)),
                Ok(WaitStatus::PtraceEvent(..) | WaitStatus::Stopped(..))
            ) {}
        });
        stops.recv().expect("the thread stands still");
        holder
    }

    /// Whether the process is there; one that died but was not waited for counts as gone.
    pub fn runs(&self) -> bool {
        let state = stat(self.pid.as_raw() as u32).and_then(|fields| fields.first().cloned());
        state.is_some_and(|state| state != "Z" && state != "X")
    }
}

fn write_config(directory: &TempDir, config: &str) -> PathBuf {
    let path = directory.path().join("arriero.yaml");
    // What a test asks twice is computed twice, unless it is about that.
    let cache = if config.contains("cache:") {
        ""
    } else {
        "cache: { responses: { enabled: false }, embeddings: { memory: 0 } }\n"
    };
    let config = format!("listen: 127.0.0.1:0\nadmin: 127.0.0.1:0\n{cache}{config}\n");
    std::fs::write(&path, config).expect("the configuration can be written");
    path
}

/// A fixture as an entry of `models`, in YAML's flow form.
pub fn model(fixture: Fixture, settings: &str) -> String {
    let path = fixture.file_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).expect("the fixture can be written");
    format!("{{ path: \"{}\", {settings} }}", path.display())
}

/// Polls until `check` gives something; panics with `what` after a minute.
pub fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(result) = check() {
            return result;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Polls until `check` is true; panics with `what` after a minute.
pub fn until_true(what: &str, mut check: impl FnMut() -> bool) {
    until(what, || check().then_some(()));
}

/// Collects the lines of `output` until it ends, and tells `listening` the addresses once a line names them.
fn follow(
    output: impl Read + Send + 'static,
    log: Arc<Mutex<Vec<String>>>,
    listening: mpsc::Sender<(SocketAddr, SocketAddr)>,
) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some(addresses) = addresses(&line) {
                // Nobody listens any more once the server is up.
                let _ = listening.send(addresses);
            }
            log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
        }
    });
}

/// The data and the admin address, if this is the log line that tells them.
fn addresses(line: &str) -> Option<(SocketAddr, SocketAddr)> {
    let line: Value = serde_json::from_str(line).ok()?;
    let address = |key: &str| line[key].as_str()?.parse().ok();
    if line["message"] == "listening" { Some((address("listen")?, address("admin")?)) } else { None }
}

fn parent_of(pid: u32) -> Option<u32> {
    stat(pid)?.get(1)?.parse().ok()
}

/// The fields of /proc/PID/stat from the third (state) on; the second, the program's name, may hold spaces.
fn stat(pid: u32) -> Option<Vec<String>> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect())
}
