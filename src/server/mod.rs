//! The process: listeners, services, signals, and the order in which they start and stop.
//!
//! Pingora's own `Server` is not used: it panics in a task when a port is taken (and lives on without a listener), cannot
//! report which port it got, and sleeps a fixed time when told to stop. Its proxy service runs here on sockets bound
//! before anything else starts, so a taken port is an error message and an exit code.

mod heart;
mod nodes;
mod reload;
mod runtime_dir;

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use pingora::services::listening::Service;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{self, AdminState};
use crate::config::{Config, Sources};
use crate::library::Library;
use crate::proxy::{Front, Port};

use heart::Heart;
use reload::Reloader;
use runtime_dir::RuntimeDir;

/// Serves until SIGTERM or SIGINT, then finishes what runs; SIGHUP has it read `sources` again. The exit code is 0 after an orderly stop, 1 if it could not
/// start.
pub fn serve(config: Config, sources: Sources) -> ExitCode {
    match start(config, sources) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config, sources: Sources) -> Result<(), String> {
    raise_file_limit();
    let data = bind("listen", config.listen)?;
    let admin = config.admin.map(|address| bind("admin", address)).transpose()?;
    let runtime_dir = RuntimeDir::create(config.workers.runtime_dir.as_deref())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads(config.threads))
        .thread_name("arriero")
        .enable_all()
        .build()
        .map_err(|error| format!("cannot start the runtime: {error}"))?;
    runtime.block_on(run(config, sources, data, admin, runtime_dir.path()))
}

async fn run(
    config: Config,
    sources: Sources,
    data: TcpListener,
    admin: Option<TcpListener>,
    dir: &Path,
) -> Result<(), String> {
    // First of all, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut hang_up = signal(SignalKind::hangup()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let address = data.local_addr().map_err(|error| error.to_string())?;
    let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
    let heart = Arc::new(Heart::new(&config, dir)?);
    let stop_timeout = config.workers.stop_timeout;
    let (front, fronts) = watch::channel(Arc::new(heart.front(&config, address)));
    let reloader = Arc::new(Reloader::start(sources, config, Arc::clone(&heart), address, front)?);
    let mut supervising = tokio::spawn({
        let supervisor = Arc::clone(&heart.supervisor);
        async move { supervisor.run().await }
    });
    let scouting = tokio::spawn({
        let scout = Arc::clone(&heart.scout);
        async move { scout.run().await }
    });
    let tending = tokio::spawn({
        let (responses, vectors) =
            (Arc::clone(heart.dispatch.responses()), Arc::clone(heart.dispatch.vectors()));
        async move { responses.tend(&vectors).await }
    });
    let (stop, stopping) = watch::channel(false);
    let mut serving = tokio::spawn(listen(fronts, data, address, stopping));
    // Answers to the very end, so that the drain can be watched.
    let stop_admin = CancellationToken::new();
    let mut administering = tokio::spawn(administer(
        admin,
        heart.admin(admin_address.unwrap_or(address), &reloader),
        stop_admin.clone(),
    ));
    // Reads the headers of the model files before anybody asks for them, off the threads that serve.
    let library = Arc::clone(&heart.library);
    let warming = tokio::task::spawn_blocking(move || library.warm());
    announce(address, admin_address, &heart.library);

    let mut reloading = JoinSet::new();
    let died = loop {
        tokio::select! {
            _ = hang_up.recv() => {
                // It reads files, from a disk that may not answer.
                let reloader = Arc::clone(&reloader);
                reloading.spawn_blocking(move || reloader.reload_for_nobody());
            }
            Some(_) = reloading.join_next() => {}
            _ = terminate.recv() => { tracing::info!("SIGTERM: finishing what runs"); break None }
            _ = interrupt.recv() => { tracing::info!("SIGINT: finishing what runs"); break None }
            _ = &mut supervising => break Some("the supervisor"),
            _ = &mut serving => break Some("the data port"),
            _ = &mut administering => break Some("the admin port"),
        }
    };
    heart.draining.store(true, Ordering::Release);
    // The listener closes and running requests go on; the admin port answers until they are done.
    stop.send_replace(true);
    heart.active.close();
    let drain = reloader.drain();
    tokio::select! {
        () = heart.active.wait() => {}
        () = tokio::time::sleep(drain) => tracing::warn!(after = ?drain, "requests were still running"),
        _ = terminate.recv() => tracing::warn!("second SIGTERM: not waiting any longer"),
        _ = interrupt.recv() => tracing::warn!("second SIGINT: not waiting any longer"),
    }
    heart.supervisor.stop(stop_timeout).await;
    // Whoever lost a worker is told so before the process ends.
    let last_words = async {
        heart.active.wait().await;
        heart.dispatch.drain().await;
    };
    if tokio::time::timeout(LAST_WORDS, last_words).await.is_err() {
        tracing::warn!("clients were still being written to");
    }
    tending.abort();
    scouting.abort();
    stop_admin.cancel();
    warming.abort();
    tracing::info!("stopped");
    died.map_or(Ok(()), |service| Err(format!("{service} ended by itself")))
}

/// How long requests that outlived their workers have to tell their clients.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// 0 is one per core, at most 4: the cores belong to the models.
fn threads(configured: usize) -> usize {
    if configured > 0 {
        configured
    } else {
        std::thread::available_parallelism().map_or(1, usize::from).min(4)
    }
}

/// Per connection. Pingora's default reads through 64 KiB, which it zeroes and an idle stream keeps. Its parser reads 4 KiB and
/// more at a time, and reads larger than the buffer go past it.
const BUFFERS: L4BufferSettings = L4BufferSettings { read: Some(64), write: None };

/// Serves the admin port; never ends without one.
async fn administer(listener: Option<TcpListener>, state: AdminState, stop: CancellationToken) {
    let Some(listener) = listener else { return stop.cancelled().await };
    if let Err(error) = admin::serve(listener, state, stop.cancelled()).await {
        tracing::error!(%error, "the admin port");
    }
}

/// Runs the data port on a socket that is bound already.
async fn listen(
    fronts: watch::Receiver<Arc<Front>>,
    listener: TcpListener,
    address: SocketAddr,
    stopping: watch::Receiver<bool>,
) {
    let mut service = Service::new("arriero data port".to_owned(), Port::new(fronts));
    let name = address.to_string();
    service.add_listener(ListenerConfig::tcp(&name).l4_buffer(BUFFERS));
    let mut sockets = Fds::new();
    // Pingora owns the socket from here on.
    sockets.add(name, listener.into_raw_fd());
    let sockets: ListenFds = Arc::new(sockets.into());
    service.start_service(Some(sockets), stopping, 1).await;
}

fn bind(key: &str, address: SocketAddr) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            format!("{key}: {address} is in use; stop what listens there (Ollama?) or set another address with --{key}")
        }
        _ => format!("{key}: cannot listen on {address}: {error}"),
    })?;
    listener.set_nonblocking(true).map_err(|error| format!("{key}: {error}"))?;
    Ok(listener)
}

/// Tells a person at a terminal what to do next, and the log where this process listens.
fn announce(listen: SocketAddr, admin: Option<SocketAddr>, library: &Library) {
    let admin_text = admin.map_or("off".to_owned(), |address| address.to_string());
    tracing::info!(%listen, admin = admin_text, "listening");
    let admin = admin.map_or("off".to_owned(), |address| format!("http://{address} (/metrics, /readyz)"));
    let version = env!("CARGO_PKG_VERSION");
    let mut text = format!("\narriero {version} is listening on http://{listen}\nadmin port: {admin}\n\n");
    if let Some(model) = library.models().first() {
        let body = format!("{{\"model\":\"{}\",\"prompt\":\"What are you?\"}}", model.name);
        text += &format!("Try it:\n  curl -s http://{listen}/api/generate -d '{body}'\n\n");
    }
    // A closed stdout is no reason to stop serving.
    let _ = std::io::stdout().lock().write_all(text.as_bytes());
}

/// Many idle streams are many descriptors; the soft limit is often 1024.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it cannot be raised, the limit stays what it was.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
