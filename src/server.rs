//! The process: listeners, services, signals, and the order in which they start and stop.
//!
//! Pingora's own `Server` is not used: it panics in a task when a port is taken (and lives on without a listener), cannot
//! report which port it got, and sleeps a fixed time when told to stop. Its proxy service runs here on sockets bound
//! before anything else starts, so a taken port is an error message and an exit code.

use std::io::Write as _;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use pingora::server::configuration::ServerConf;
use pingora::server::{Fds, ListenFds};
use pingora::services::Service as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use crate::admin::{self, AdminState};
use crate::config::Config;
use crate::dispatch::{Dispatch, Parts};
use crate::library::Library;
use crate::node::{Node, NodeConfig, Pool};
use crate::proxy::{Access, Proxy, Readiness};
use crate::routing;
use crate::telemetry::Metrics;
use crate::worker::Supervisor;

/// Serves until SIGTERM or SIGINT, then finishes what runs. The exit code is 0 after an orderly stop, 1 if it could not
/// start.
pub fn serve(config: Config) -> ExitCode {
    match start(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            tracing::error!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn start(config: Config) -> Result<(), String> {
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
    runtime.block_on(run(config, data, admin, runtime_dir.path()))
}

async fn run(
    config: Config,
    data: TcpListener,
    admin: Option<TcpListener>,
    dir: &Path,
) -> Result<(), String> {
    // First of all, so that a signal during the start is not lost.
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let address = data.local_addr().map_err(|error| error.to_string())?;
    let admin_address = admin.as_ref().and_then(|listener| listener.local_addr().ok());
    let (drain, stop_timeout) = (config.limits.drain, config.workers.stop_timeout);
    let heart = Heart::new(config, dir)?;
    let supervising = tokio::spawn({
        let supervisor = Arc::clone(&heart.supervisor);
        async move { supervisor.run().await }
    });
    let (stop, stopping) = watch::channel(false);
    let serving = tokio::spawn(listen(heart.proxy(address), data, address, stopping));
    // Answers to the very end, so that the drain can be watched.
    let administering =
        admin.map(|listener| tokio::spawn(admin::serve(listener, heart.admin(), std::future::pending())));
    announce(address, admin_address, &heart.library);

    tokio::select! {
        _ = terminate.recv() => tracing::info!("SIGTERM: finishing what runs"),
        _ = interrupt.recv() => tracing::info!("SIGINT: finishing what runs"),
    }
    heart.draining.store(true, Ordering::Release);
    // The listener closes, running requests go on; the admin port answers until they are done.
    stop.send_replace(true);
    heart.active.close();
    tokio::select! {
        () = heart.active.wait() => {}
        () = tokio::time::sleep(drain) => tracing::warn!(after = ?drain, "requests were still running"),
        _ = terminate.recv() => tracing::warn!("second SIGTERM: not waiting any longer"),
        _ = interrupt.recv() => tracing::warn!("second SIGINT: not waiting any longer"),
    }
    heart.supervisor.stop(stop_timeout).await;
    for task in [supervising, serving] {
        if tokio::time::timeout(stop_timeout, task).await.is_err() {
            tracing::warn!("a service did not stop in time");
        }
    }
    if let Some(task) = administering {
        task.abort();
    }
    tracing::info!("stopped");
    Ok(())
}

/// 0 is one per core, at most 4: the cores belong to the models.
fn threads(configured: usize) -> usize {
    if configured > 0 {
        configured
    } else {
        std::thread::available_parallelism().map_or(1, usize::from).min(4)
    }
}

/// Everything that outlives a request.
struct Heart {
    config: Config,
    library: Arc<Library>,
    pool: Arc<Pool>,
    supervisor: Arc<Supervisor>,
    dispatch: Arc<Dispatch>,
    metrics: Arc<Metrics>,
    active: TaskTracker,
    draining: Arc<AtomicBool>,
}

impl Heart {
    fn new(config: Config, dir: &Path) -> Result<Self, String> {
        let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
        let library = Arc::new(Library::open(config.models.clone(), dir));
        let pool = Arc::new(Pool::default());
        add_nodes(&pool, &config.nodes);
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let supervisor = Arc::new(Supervisor::new(
            config.workers.clone(),
            Arc::clone(&library),
            Arc::clone(&pool),
            Arc::clone(&metrics),
            program,
            dir.to_owned(),
        ));
        let dispatch = Arc::new(Dispatch::new(Parts {
            library: Arc::clone(&library),
            supervisor: Arc::clone(&supervisor),
            pool: Arc::clone(&pool),
            strategy: routing::build(&config.routing),
            queue: config.queue.clone(),
            retry: config.retry.clone(),
            nodes: config.nodes.clone(),
            metrics: Arc::clone(&metrics),
        }));
        let (active, draining) = (TaskTracker::new(), Arc::new(AtomicBool::new(false)));
        Ok(Self { config, library, pool, supervisor, dispatch, metrics, active, draining })
    }

    fn proxy(&self, address: SocketAddr) -> Proxy {
        let draining = Arc::clone(&self.draining);
        Proxy {
            dispatch: Arc::clone(&self.dispatch),
            access: Access::new(self.config.origins.clone(), address.ip()),
            limits: self.config.limits.clone(),
            passthrough: self.config.passthrough.clone(),
            headers: self.config.headers,
            readiness: Arc::new(move || not_draining(&draining)),
            metrics: Arc::clone(&self.metrics),
            active: self.active.clone(),
        }
    }

    fn admin(&self) -> AdminState {
        let (library, pool) = (Arc::clone(&self.library), Arc::clone(&self.pool));
        let (supervisor, started) = (Arc::clone(&self.supervisor), Instant::now());
        AdminState {
            metrics: Arc::clone(&self.metrics),
            readiness: self.readiness(),
            status: Arc::new(move || admin::status(&library, &pool, &supervisor, started)),
        }
    }

    /// Ready while not stopping and, where models are preloaded, once one of them can serve.
    fn readiness(&self) -> Readiness {
        let (draining, pool) = (Arc::clone(&self.draining), Arc::clone(&self.pool));
        let models = self.library.models();
        let preloaded: Vec<String> =
            models.iter().filter(|model| model.config.preload).map(|model| model.name.clone()).collect();
        Arc::new(move || {
            not_draining(&draining)?;
            if preloaded.is_empty() || preloaded.iter().any(|model| !pool.of(model).is_empty()) {
                return Ok(());
            }
            Err(format!("loading {}", preloaded.join(", ")))
        })
    }
}

fn not_draining(draining: &AtomicBool) -> Result<(), String> {
    if draining.load(Ordering::Acquire) { Err("shutting down".into()) } else { Ok(()) }
}

fn add_nodes(pool: &Pool, nodes: &[NodeConfig]) {
    for config in nodes {
        let Some(socket) = config.socket() else { continue };
        let node = Arc::new(Node::new(config.name.as_str(), socket, 0, config.max_in_flight));
        for model in &config.models {
            pool.add(model, Arc::clone(&node));
        }
    }
}

/// Runs Pingora's proxy service on a socket that is bound already.
async fn listen(proxy: Proxy, listener: TcpListener, address: SocketAddr, stopping: watch::Receiver<bool>) {
    let mut service = pingora_proxy::http_proxy_service_with_name(
        &Arc::new(ServerConf::default()),
        proxy,
        "arriero data port",
    );
    let name = address.to_string();
    service.add_tcp(&name);
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
    let models = library.models();
    let Some(model) = models.first() else { return };
    let admin_line =
        admin.map_or("off".to_owned(), |address| format!("http://{address} (/metrics, /readyz)"));
    let text = format!(
        "\narriero {} is listening on http://{listen}\nadmin port: {admin_line}\n\nTry it:\n  curl -s http://{listen}/api/generate -d '{{\"model\":\"{}\",\"prompt\":\"What are you?\"}}'\n\n",
        env!("CARGO_PKG_VERSION"),
        model.name,
    );
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

/// A private directory for sockets and the embedded model; gone with the process that made it.
struct RuntimeDir(PathBuf);

impl RuntimeDir {
    /// Below `base`, else `$XDG_RUNTIME_DIR`, else the temporary directory. Short, for a socket's path must fit 107 bytes.
    fn create(base: Option<&Path>) -> Result<Self, String> {
        let base = match base {
            Some(base) => base.to_owned(),
            None => std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from),
        };
        let path = base.join(format!("arriero-{}", std::process::id()));
        let failed = |error: std::io::Error| format!("cannot create {}: {error}", path.display());
        std::fs::create_dir_all(&base).map_err(failed)?;
        // Left by a process that was killed and had the same pid.
        let _ = std::fs::remove_dir_all(&path);
        let mut builder = std::fs::DirBuilder::new();
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&path).map_err(failed)?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for RuntimeDir {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::debug!(%error, "the runtime directory stays");
        }
    }
}
