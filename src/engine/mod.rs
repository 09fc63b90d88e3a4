//! The engine: what runs inside `arriero worker`. One model, one llama.cpp context with many sequences, an HTTP server on a unix
//! socket ([`crate::generation::seam`]). It knows the canonical types and llama.cpp, nothing of the proxy.
//!
//! ```text
//! serve ── prepares (prompt, speech, job, embed, grammar, vision) on blocking threads ── command ──► scheduler | embed, on one thread:
//!                                                                  slot ► sequence ► sampling ► answer ► parse ► events
//! ```

mod adapters;
mod affinity;
mod answer;
pub mod backend;
mod budget;
mod cells;
mod check;
mod command;
mod draw;
mod embed;
mod grammar;
mod health;
mod infill;
mod job;
mod log;
mod model;
mod pace;
mod parse;
mod paused;
mod prefixes;
mod prompt;
mod purpose;
mod queue;
mod rank;
mod room;
mod sampling;
mod sandbox;
mod scheduler;
mod sequence;
mod serve;
mod settings;
mod sharing;
mod slot;
mod snapshot;
mod speculate;
mod speech;
mod stop;
pub mod template;
mod threads;
mod utf8;
mod vision;

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

pub use backend::describe;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use command::Command;
use embed::Embedder;
use health::Status;
use model::Model;
use scheduler::Scheduler;
use serve::{Engine, Worker};
use snapshot::{Keying, Snapshots};
use vision::Eye;

use crate::generation::seam::{Sandbox, Spec};

/// The exit code of a worker whose model cannot be loaded, or whose context broke.
const FAILED: u8 = 3;

/// How long a worker that failed stays up, so that its supervisor can read why from `/health`, and how long any worker waits
/// for its last answers to be read.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// How long the computing thread gets to end: a decode of a large batch takes this long at worst.
const LAST_STEP: Duration = Duration::from_secs(5);

/// Runs a worker until it is told to stop, its parent is gone, or it fails.
pub fn run(mut spec: Spec) -> ExitCode {
    log::capture();
    snapshot::prepare(&mut spec);
    let ended = prepare(&spec).and_then(|(listener, sandbox)| start(spec, listener, sandbox));
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            writeln!(std::io::stderr(), "arriero worker: {reason}").ok();
            ExitCode::from(FAILED)
        }
    }
}

/// Takes what is needed from outside and then gives up the right to take more. While there is only this thread: those that are
/// started later have its restrictions, those that were there would not.
fn prepare(spec: &Spec) -> Result<(UnixListener, Sandbox), String> {
    spec.binding.cpus.as_ref().map_or(Ok(()), affinity::bind)?;
    let socket = &spec.socket;
    let listener =
        serve::bind(socket).map_err(|error| format!("cannot listen on {}: {error}", socket.display()))?;
    Ok((listener, sandbox::enter(spec)))
}

fn start(spec: Spec, listener: UnixListener, sandbox: Sandbox) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_stack_size(template::STACK)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| format!("cannot start the worker's threads: {error}"))?;
    let ended = runtime.block_on(live(spec, listener, sandbox));
    // Nothing that still runs there is worth waiting for.
    runtime.shutdown_background();
    ended
}

/// The server first, so that `/health` answers while the model loads in a thread of its own; then whatever ends the worker.
async fn live(spec: Spec, listener: UnixListener, sandbox: Sandbox) -> Result<(), String> {
    let mut terminated = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let socket = spec.socket.clone();
    let worker = Arc::new(Worker {
        status: Arc::new(Status::new(spec.binding.clone(), sandbox)),
        engine: OnceLock::new(),
        requests: TaskTracker::new(),
    });
    let (end, ending) = oneshot::channel::<()>();
    let server = tokio::spawn(serve::run(listener, worker.clone(), async { ending.await.unwrap_or(()) }));
    let mut leash = watch_leash()?;
    let mut engine = EngineThread::start(spec, worker.clone())?;
    let ended = tokio::select! {
        ended = &mut engine.ended => ended.unwrap_or_else(|_| Err("the engine panicked".to_owned())),
        _ = &mut leash => Ok(()),
        _ = terminated.recv() => {
            worker.status.stopping();
            worker.requests.close();
            tokio::select! {
                () = worker.requests.wait() => {}
                _ = &mut leash => {}
                _ = &mut engine.ended => {}
            }
            Ok(())
        }
    };
    if let Err(reason) = &ended {
        worker.status.failed(reason);
        tokio::time::sleep(LAST_WORDS).await;
    }
    let still_computes = !engine.stop().await;
    end.send(()).ok();
    tokio::time::timeout(LAST_WORDS, server).await.ok();
    std::fs::remove_file(&socket).ok();
    if still_computes {
        leave_at_once();
    }
    ended
}

/// Ends the process with success, past the exit handlers of llama.cpp and its backends: they would take down what a thread still
/// computes with, and may wait for it for ever.
#[expect(unsafe_code, reason = "the standard library has no way out that skips exit handlers")]
fn leave_at_once() -> ! {
    // SAFETY: `_exit` asks nothing of its caller. It skips handlers and buffers of this process, none of which holds anything
    // that is still to be written: the socket is removed and what was to be answered is.
    unsafe { libc::_exit(0) }
}

/// Resolves when standard input reaches its end: the parent holds the other end, so it is gone. A thread of its own, because
/// a blocked read would keep the runtime from shutting down.
fn watch_leash() -> Result<oneshot::Receiver<()>, String> {
    let (gone, leash) = oneshot::channel();
    let watch = move || {
        let mut buffer = [0; 64];
        while std::io::stdin().read(&mut buffer).is_ok_and(|count| count > 0) {}
        gone.send(()).ok();
    };
    spawn("leash", watch)?;
    Ok(leash)
}

/// The thread that loads the model and computes.
struct EngineThread {
    commands: Sender<Command>,
    /// Set to abort a load.
    stops: Arc<AtomicBool>,
    ended: oneshot::Receiver<Result<(), String>>,
    /// What it gets to end.
    patience: Duration,
}

impl EngineThread {
    fn start(spec: Spec, worker: Arc<Worker>) -> Result<Self, String> {
        let (commands, received) = channel();
        let (end, ended) = oneshot::channel();
        let stops = Arc::new(AtomicBool::new(false));
        let saving = spec.snapshots.as_ref().map_or(Duration::ZERO, |settings| settings.patience);
        let patience = LAST_STEP + saving;
        let thread = Self { commands: commands.clone(), stops: stops.clone(), ended, patience };
        spawn("engine", move || {
            end.send(compute(spec, &worker, commands, &received, stops)).ok();
        })?;
        Ok(thread)
    }

    /// Ends the thread; false if it goes on computing. The process must not exit in order while it is inside llama.cpp: the
    /// library's own destructors would run below its feet.
    async fn stop(mut self) -> bool {
        self.stops.store(true, Ordering::Relaxed);
        self.commands.send(Command::Stop).ok();
        self.ended.is_terminated() || tokio::time::timeout(self.patience, &mut self.ended).await.is_ok()
    }
}

fn spawn(name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), String> {
    let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(template::STACK).spawn(run);
    thread.map(drop).map_err(|error| format!("cannot start the {name} thread: {error}"))
}

/// Loads the model and serves it until told to stop.
fn compute(
    spec: Spec,
    worker: &Worker,
    commands: Sender<Command>,
    received: &Receiver<Command>,
    stops: Arc<AtomicBool>,
) -> Result<(), String> {
    let status = &worker.status;
    let backend = backend::initialise()?;
    status.computes_with(describe());
    let gpus = backend::gpus();
    spec.binding.gpus.as_ref().map_or(Ok(()), |bound| affinity::check_gpus(bound, gpus.len()))?;
    let device_bytes_before = backend::used(&gpus);
    let progress = {
        let (status, stops) = (status.clone(), stops.clone());
        move |part| {
            status.loading(part);
            !stops.load(Ordering::Relaxed)
        }
    };
    let key = Keying::start(&spec);
    let loaded = Model::load(backend, spec, progress);
    if stops.load(Ordering::Relaxed) {
        return Ok(());
    }
    let model = Arc::new(loaded?);
    let ready = |commands| {
        let devices = backend::gpus();
        let device_bytes = backend::used(&devices).saturating_sub(device_bytes_before);
        worker.engine.set(Engine { model: model.clone(), commands }).ok();
        status.ready(model.facts.clone(), device_bytes, devices);
    };
    if model.pools() {
        let mut embedder = Embedder::new(&model, status)?;
        ready(commands);
        embedder.run(received)
    } else {
        let snapshots = key.and_then(|key| Snapshots::open(&model, key, status, commands.clone()));
        let eye = Eye::open(&model, commands.clone())?;
        let mut scheduler = Scheduler::new(&model, status, snapshots, eye)?;
        ready(commands);
        scheduler.run(received)
    }
}
