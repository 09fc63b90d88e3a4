//! The supervisor with real processes: `fake_worker.py` in place of `arriero worker`.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{MemoryConfig, Supervisor, WorkersConfig};
use crate::error::Error;
use crate::generation::LoadingState;
use crate::library::{Library, Model};
use crate::node::Pool;
use crate::telemetry::Metrics;
use crate::units::KeepAlive;

/// Fails the test long before anybody loses patience, but not on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// The header of a GGUF file without anything in it.
const EMPTY: &[u8] = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// Polls until `condition` holds.
async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn is_alive(pid: i32) -> bool {
    // A zombie that nobody has reaped yet is dead for all that matters here.
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

struct Stage {
    dir: tempfile::TempDir,
    model: Arc<Model>,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    supervisor: Arc<Supervisor>,
    run: JoinHandle<()>,
}

impl Stage {
    /// A supervisor of one model `m`, whose workers behave as `mode` says.
    fn new(mode: &str, config: WorkersConfig) -> Self {
        Self::with(json!({"system": mode}), config, EMPTY)
    }

    fn with(mut section: serde_json::Value, config: WorkersConfig, gguf: &[u8]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("worker.py");
        std::fs::write(&program, include_str!("fake_worker.py")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let path = dir.path().join("m.gguf");
        std::fs::write(&path, gguf).unwrap();
        section["path"] = json!(path);
        let section = serde_json::from_value(section).unwrap();
        let library = Arc::new(Library::open([("m".to_owned(), section)], dir.path()));
        let model = library.resolve("m").unwrap().unwrap().model;
        let (pool, metrics) = (Arc::new(Pool::default()), Arc::new(Metrics::new().unwrap()));
        let memory = MemoryConfig { dir: Some(dir.path().to_owned()), ..MemoryConfig::default() };
        let supervisor = Arc::new(Supervisor::new(
            config,
            memory,
            library,
            Arc::clone(&pool),
            Arc::clone(&metrics),
            program,
            dir.path().to_owned(),
        ));
        let running = Arc::clone(&supervisor);
        let run = tokio::spawn(async move { running.run().await });
        Self { dir, model, pool, metrics, supervisor, run }
    }

    async fn ready(&self) -> Result<(), Error> {
        tokio::time::timeout(DEADLINE, self.supervisor.ready(&self.model)).await.unwrap()
    }

    async fn failure(&self) -> String {
        self.ready().await.unwrap_err().to_string()
    }

    /// Process ids of all workers ever started, oldest first.
    fn pids(&self) -> Vec<i32> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "pid")).collect();
        files.sort();
        let read = |path: &std::path::PathBuf| std::fs::read_to_string(path).unwrap().parse().unwrap();
        files.iter().map(read).collect()
    }

    async fn end(mut self) {
        tokio::time::timeout(DEADLINE, self.supervisor.stop(Duration::from_secs(5))).await.unwrap();
        (&mut self.run).await.unwrap();
        assert!(self.pool.of("m").is_empty());
        assert!(self.pids().into_iter().all(|pid| !is_alive(pid)));
    }
}

#[tokio::test]
async fn a_model_is_loaded_once_served_described_and_unloaded() {
    let stage = Stage::new("slow", WorkersConfig::default());
    let hold = stage.supervisor.hold(&stage.model, Some(KeepAlive::Unload));
    let (first, second) = tokio::join!(stage.ready(), stage.ready());
    assert_eq!((first, second), (Ok(()), Ok(())));
    let (pids, nodes) = (stage.pids(), stage.pool.of("m"));
    assert_eq!((pids.len(), nodes.len()), (1, 1));
    assert_eq!((&*nodes[0].name, nodes[0].parallel), ("m-0", 4));
    let loaded = stage.supervisor.loaded();
    assert_eq!(
        (loaded.len(), loaded[0].memory, loaded[0].device_memory, loaded[0].context),
        (1, 1000, 10, 512)
    );
    assert!(stage.metrics.render().unwrap().contains("arriero_kv_used_ratio{node=\"m-0\"} 0.5"));
    let told = nodes[0].signal(std::time::Instant::now(), |signal| (signal.keeps, signal.kv));
    assert_eq!(told, Some((Some(10), Some(0.0))), "what routing knows of it");
    drop(hold);
    assert!(stage.pool.of("m").is_empty(), "it leaves the pool before its process is told");
    assert!(stage.metrics.render().unwrap().contains("arriero_kv_used_ratio{node=\"m-0\"} 0\n"));
    until("the end of the worker", || !is_alive(pids[0])).await;
    until("the end of its socket", || !nodes[0].endpoint.socket().unwrap().exists()).await;
    assert_eq!(stage.metrics.model_evictions.with_label_values(&["manual"]).get(), 1);
    stage.end().await;
}

#[tokio::test]
async fn a_preloaded_model_comes_by_itself_and_serves_requests_of_another_runtime() {
    let section = json!({"system": "ready", "preload": true, "replicas": 2});
    let stage = Stage::with(section, WorkersConfig::default(), EMPTY);
    until("both replicas", || stage.pool.of("m").len() == 2).await;
    let (supervisor, model) = (Arc::clone(&stage.supervisor), Arc::clone(&stage.model));
    let elsewhere = tokio::task::spawn_blocking(move || {
        tokio::runtime::Runtime::new().unwrap().block_on(supervisor.ready(&model))
    });
    assert_eq!(elsewhere.await.unwrap(), Ok(()));
    assert_eq!(stage.supervisor.loaded()[0].memory, 2000);
    stage.end().await;
}

#[tokio::test]
async fn a_model_that_cannot_load_says_why() {
    let stage = Stage::new("failed", WorkersConfig::default());
    assert_eq!(stage.failure().await, "model 'm' failed to load: unknown model architecture: 'x'");
    assert_eq!(stage.pids().len(), 1, "it would only say so again");
    stage.end().await;

    let stage = Stage::new("exits", WorkersConfig::default());
    let expected = "model 'm' failed to load: the worker exited with status 3: first words; last words";
    assert_eq!(stage.failure().await, expected);
    stage.end().await;

    let stage = Stage::new("killed", WorkersConfig::default());
    let expected = "model 'm' failed to load: the worker was killed by signal 9 (out of memory?)";
    assert_eq!(stage.failure().await, expected);
    stage.end().await;
}

#[tokio::test]
async fn a_broken_file_is_reported_without_a_process() {
    let stage = Stage::with(json!({"system": "ready"}), WorkersConfig::default(), b"GGUF\x07\0\0\0");
    assert!(stage.failure().await.ends_with("m.gguf: unsupported GGUF version 7"));
    assert!(stage.pids().is_empty());
    stage.end().await;
}

#[test]
fn stopping_does_not_wait_for_a_file_that_cannot_be_read() {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(1).build().unwrap();
    let (release, blocked) = std::sync::mpsc::channel::<()>();
    runtime.block_on(async {
        // Takes the only thread that could read the file, as a disk that does not answer would.
        tokio::task::spawn_blocking(move || blocked.recv());
        let stage = Stage::new("ready", WorkersConfig::default());
        let (supervisor, model) = (Arc::clone(&stage.supervisor), Arc::clone(&stage.model));
        let waiting = tokio::spawn(async move { supervisor.ready(&model).await });
        until("the load", || stage.supervisor.shared.update(|residency, _| !residency.is_vacant())).await;
        tokio::time::timeout(DEADLINE, stage.supervisor.stop(DEADLINE)).await.unwrap();
        assert_eq!(waiting.await.unwrap(), Err(Error::ShuttingDown));
        stage.end().await;
    });
    drop(release);
}

#[tokio::test]
async fn a_load_that_does_not_move_times_out() {
    let config = WorkersConfig { load_timeout: Duration::from_millis(300), ..WorkersConfig::default() };
    let stage = Stage::new("stuck", config);
    assert_eq!(stage.ready().await, Err(Error::LoadTimeout { model: "m".to_owned() }));
    stage.end().await;
}

#[tokio::test]
async fn a_load_is_told_while_it_lasts_and_what_has_happened_afterwards() {
    let stuck = Stage::new("stuck", WorkersConfig::default());
    assert_eq!(stuck.supervisor.loading(&stuck.model), None);
    let (supervisor, model) = (Arc::clone(&stuck.supervisor), Arc::clone(&stuck.model));
    let waiting = tokio::spawn(async move { supervisor.ready(&model).await });
    let told = || stuck.supervisor.loading(&stuck.model).map(|loading| (loading.state, loading.progress));
    until("half of it", || told() == Some((LoadingState::Loading, 0.5))).await;
    let arriving: Vec<_> =
        stuck.supervisor.arriving().into_iter().map(|(model, _)| model.name.clone()).collect();
    assert_eq!(arriving, ["m"]);
    waiting.abort();
    stuck.end().await;

    let slow = Stage::new("slow", WorkersConfig::default());
    slow.ready().await.unwrap();
    assert_eq!((slow.supervisor.loading(&slow.model), slow.supervisor.arriving().len()), (None, 0));
    let events: Vec<_> = slow.supervisor.events(9).into_iter().map(|event| event.event).collect();
    assert_eq!(
        events,
        ["ready", "loading", "loading", "loading", "load_begun"],
        "the latest first, by quarters"
    );
    slow.end().await;
}

#[tokio::test]
async fn a_worker_that_is_killed_is_replaced_for_those_who_hold_the_model() {
    let stage = Stage::new("ready", WorkersConfig::default());
    let _hold = stage.supervisor.hold(&stage.model, None);
    stage.ready().await.unwrap();
    let first = stage.pool.of("m")[0].incarnation;
    let node = Arc::clone(&stage.pool.of("m")[0]);
    kill(Pid::from_raw(stage.pids()[0]), Signal::SIGKILL).unwrap();
    // As the exchanges do that it takes with it; the verdict is the same.
    stage.supervisor.suspect(&node);
    until("a replacement", || stage.pool.of("m").iter().any(|node| node.incarnation != first)).await;
    stage.ready().await.unwrap();
    assert_eq!(stage.metrics.worker_restarts.with_label_values(&["killed"]).get(), 1);
    stage.end().await;
}

#[tokio::test]
async fn a_worker_that_hangs_is_found_by_suspicion_and_replaced() {
    let stage = Stage::new("ready", WorkersConfig::default());
    let _hold = stage.supervisor.hold(&stage.model, None);
    stage.ready().await.unwrap();
    let suspect = Arc::clone(&stage.pool.of("m")[0]);
    stage.supervisor.suspect(&suspect);
    assert!(stage.pool.of("m").is_empty());
    stage.ready().await.unwrap();
    assert_eq!(stage.pool.of("m")[0].incarnation, suspect.incarnation, "it answered, so it was put back");
    kill(Pid::from_raw(stage.pids()[0]), Signal::SIGSTOP).unwrap();
    stage.supervisor.suspect(&suspect);
    stage.ready().await.unwrap();
    assert_ne!(stage.pool.of("m")[0].incarnation, suspect.incarnation);
    assert_eq!(stage.metrics.worker_restarts.with_label_values(&["unresponsive"]).get(), 1);
    stage.end().await;
}

#[tokio::test]
async fn a_worker_that_ignores_sigterm_is_killed_at_the_deadline() {
    let stage = Stage::new("stubborn", WorkersConfig::default());
    stage.ready().await.unwrap();
    let pid = stage.pids()[0];
    stage.supervisor.stop(Duration::from_millis(50)).await;
    assert!(!is_alive(pid));
    assert_eq!(stage.ready().await, Err(Error::ShuttingDown));
    stage.run.await.unwrap();
}

#[tokio::test]
async fn workers_die_with_the_run_that_owns_them() {
    let stage = Stage::new("stubborn", WorkersConfig::default());
    stage.ready().await.unwrap();
    let pid = stage.pids()[0];
    stage.run.abort();
    until("the end of the worker", || !is_alive(pid)).await;
    assert!(stage.pool.of("m").is_empty());
    assert_eq!(stage.ready().await, Err(Error::ShuttingDown));
    stage.supervisor.stop(Duration::ZERO).await;
}

#[tokio::test]
async fn a_worker_ends_when_its_leash_does() {
    // What the kernel does to the pipe when this process is killed.
    let stage = Stage::new("stubborn", WorkersConfig::default());
    let program = stage.dir.path().join("worker.py");
    let spec = serde_json::from_value(json!({
        "name": "x", "path": "/m", "socket": stage.dir.path().join("x.sock"), "context": 0, "parallel": 1, "threads": 0,
        "batch": 512, "kv_type": "f16", "gpu_layers": 0, "mmap": true, "system": "stubborn",
    }));
    let mut process = super::process::Process::spawn(&program, &spec.unwrap()).unwrap();
    until("its first words", || stage.pids().len() == 1).await;
    process.slip_leash();
    let status = tokio::time::timeout(DEADLINE, process.wait()).await.unwrap().unwrap();
    assert!(status.success());
    stage.end().await;
}
