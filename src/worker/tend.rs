//! [`tend`]: looks after one worker: starts it, watches it come up, keeps an eye on it, ends it, and tells how it ended.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::Instant;

use super::action::{Ending, Exit, Instruction, Report, Start};
use super::probe::probe;
use super::process::Process;
use super::{SnapshotsConfig, WorkersConfig};
use crate::generation::seam::{Spec, SpeculateSettings, State};
use crate::library::Model;

/// Between two looks at a worker that loads: the first token of a small model shall not wait for a look.
const LOADING_INTERVAL: Duration = Duration::from_millis(20);
/// How long a worker may take to answer a look.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same when an exchange with it has just failed and requests wait for the verdict.
const SUSPECT_PATIENCE: Duration = Duration::from_secs(1);

/// A process that dies closes its socket a moment before it can be waited for; that is no refusal to answer. One that has not
/// answered yet has no socket to close.
const DYING: Duration = Duration::from_millis(100);

/// How workers are run, whatever their model.
#[derive(Clone)]
pub(super) struct Manner {
    /// Started as `program worker --spec JSON`.
    pub(super) program: PathBuf,
    /// Between two looks at one that is ready.
    pub(super) interval: Duration,
    /// Whether it is to restrict itself.
    pub(super) sandbox: bool,
    /// Where the models' snapshots are, if anywhere, and the rest of that section.
    snapshots: Option<(PathBuf, SnapshotsConfig)>,
    stop_timeout: Duration,
}

impl Manner {
    pub(super) fn new(config: &WorkersConfig, program: PathBuf) -> Self {
        let root = config.snapshots.root(|name| std::env::var_os(name));
        if root.is_none() && config.snapshots.budget > 0 {
            tracing::warn!("no snapshots: neither workers.snapshots.dir nor XDG_CACHE_HOME nor HOME is set");
        }
        Self {
            program,
            interval: config.probe_interval,
            sandbox: config.sandbox,
            snapshots: root.map(|root| (root, config.snapshots.clone())),
            stop_timeout: config.stop_timeout,
        }
    }
}

/// Tends the worker `start` until it is gone. `report` gets what each look finds.
pub(super) async fn tend(
    start: Start,
    manner: Manner,
    mut instructions: UnboundedReceiver<Instruction>,
    report: impl Fn(Report),
) -> Exit {
    let launched = tokio::select! {
        launched = launch(&start, &manner) => launched,
        // The file may lie on a disk that does not answer.
        () = told_to_end(&mut instructions) => Err("it was told to end before it began".to_owned()),
    };
    let process = match launched {
        Ok(process) => process,
        Err(reason) => return Exit { ending: Ending::Exited, reason },
    };
    let exit = watch(process, &start.socket, manner.interval, instructions, report).await;
    // A worker that was killed leaves its socket behind; one that ended in order has removed it.
    let _ = tokio::fs::remove_file(&start.socket).await;
    exit
}

/// Resolves at the first instruction that ends a worker, or when there is nobody left to give any.
async fn told_to_end(instructions: &mut UnboundedReceiver<Instruction>) {
    while let Some(Instruction::Probe) = instructions.recv().await {}
}

/// Spawns the process once the file has been found sound. Errors in words.
async fn launch(start: &Start, manner: &Manner) -> Result<Process, String> {
    let model = Arc::clone(&start.model);
    let files = tokio::task::spawn_blocking(move || Ok((model.card()?, model.file()?, model.speculate()?)));
    let files: Result<_, String> =
        files.await.map_err(|error| format!("the model file cannot be read: {error}"))?;
    let (card, path, speculate) = files?;
    let spec = Spec { speculate, ..spec(&start.model, start, path, &card.digest, manner) };
    let program = &manner.program;
    Process::spawn(program, &spec).map_err(|error| format!("cannot run {}: {error}", program.display()))
}

fn spec(model: &Model, start: &Start, path: PathBuf, digest: &str, manner: &Manner) -> Spec {
    let config = &model.config.cut(&start.node.cut);
    let snapshots = manner.snapshots.as_ref();
    let snapshots = snapshots.map(|(root, config)| config.settings(root, digest, manner.stop_timeout));
    Spec {
        name: start.node.name.to_string(),
        path,
        socket: start.socket.clone(),
        context: config.context,
        parallel: config.parallel.max(1),
        cells: config.cells,
        threads: config.threads,
        binding: start.node.binding.clone(),
        batch: config.batch,
        pace: config.pace.clone(),
        speculate: SpeculateSettings::default(),
        kv_type: config.kv_type,
        pooling: config.pooling,
        adapters: config.adapters.iter().map(|(name, adapter)| adapter.spec(name)).collect(),
        projector: config.projector.clone(),
        gpu_layers: config.gpu_layers,
        mmap: config.mmap,
        sandbox: manner.sandbox,
        snapshots,
        template: config.template.clone(),
        system: config.system.clone(),
        options: config.options.clone(),
    }
}

async fn watch(
    mut process: Process,
    socket: &Path,
    interval: Duration,
    mut instructions: UnboundedReceiver<Instruction>,
    report: impl Fn(Report),
) -> Exit {
    let mut failure = None;
    let mut has_answered = false;
    let mut kill_at: Option<Instant> = None;
    let mut pause = LOADING_INTERVAL;
    let look = probe(socket, Duration::ZERO, PATIENCE);
    tokio::pin!(look);
    let status = loop {
        tokio::select! {
            status = process.wait() => break status,
            Some(instruction) = instructions.recv() => match instruction {
                Instruction::Stop(grace) => {
                    process.signal(Signal::SIGTERM);
                    let deadline = Instant::now() + grace;
                    kill_at = Some(kill_at.map_or(deadline, |earlier| earlier.min(deadline)));
                }
                Instruction::Kill => process.signal(Signal::SIGKILL),
                Instruction::Probe => look.set(probe(socket, Duration::ZERO, SUSPECT_PATIENCE)),
            },
            () = sleep_until(kill_at) => {
                kill_at = None;
                process.signal(Signal::SIGKILL);
            }
            found = &mut look => {
                match &found {
                    Report::Missed => {
                        if has_answered
                            && let Ok(status) = tokio::time::timeout(DYING, process.wait()).await
                        {
                            break status;
                        }
                    }
                    Report::Vitals(vitals) if vitals.state == State::Ready => pause = interval,
                    Report::Vitals(vitals) if vitals.state == State::Failed => {
                        failure = Some(vitals.error.clone().unwrap_or_else(|| "no reason given".to_owned()));
                        // It has nothing left to finish.
                        process.signal(Signal::SIGKILL);
                    }
                    Report::Vitals(_) => {}
                }
                has_answered |= matches!(found, Report::Vitals(_));
                report(found);
                look.set(probe(socket, pause, PATIENCE));
            }
        }
    };
    let exit = process.explain(status).await;
    match failure {
        // It ended by its own decision; the signal only made it sooner.
        Some(reason) => Exit { ending: Ending::Exited, reason },
        None => exit,
    }
}

/// Never, without a time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
