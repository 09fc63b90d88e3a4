//! [`Process`]: one `arriero worker`, from spawn to reaped.
//!
//! The leash is its stdin: the worker exits when it reads the end of it, so it never outlives this process, however that
//! ends. Its process group is its own, so a Ctrl-C at the terminal reaches only the proxy, which then stops its workers
//! in order.

use std::collections::VecDeque;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinSet;

use super::action::{Ending, Exit};
use super::visible;
use crate::generation::seam::{Spec, WARNING};

/// Lines of stderr kept to explain an unexpected end.
const LAST_LINES: usize = 4;
/// A longer line is logged in parts.
const MAX_LINE: u64 = 8 << 10;
/// How long llama.cpp's threads (OpenMP) spin before they sleep, in rounds of about a nanosecond. libgomp's own choice is made
/// for one program on an idle machine. Measured with a model of 0.5 billion parameters on two cores, against that choice: one
/// model decodes as fast (1.0 times, at 1 and 4 streams), two at once 1.2 times as fast, and beside another busy program 2 to 8
/// times. Longer spins (10,000; 100,000) gain nothing alone and at times lose nine tenths where two models decode. Read by
/// libgomp before `main`, so it has to be here.
const SPIN: &str = "1000";
/// What the worker wrote last may still be in the pipe when it is gone.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// A running worker. Dropping it kills it.
pub(super) struct Process {
    child: Child,
    /// Never written to: closing it is the message.
    _leash: Option<ChildStdin>,
    output: JoinSet<()>,
    last_lines: Arc<Mutex<VecDeque<String>>>,
}

/// Whoever sets OpenMP's variables knows better.
fn tuned_by_the_user() -> bool {
    std::env::vars_os().any(|(name, _)| {
        let name = name.to_string_lossy();
        name.starts_with("GOMP_") || name.starts_with("OMP_")
    })
}

impl Process {
    /// Starts `program worker --spec JSON`.
    pub(super) fn spawn(program: &Path, spec: &Spec) -> std::io::Result<Self> {
        let json = serde_json::to_string(spec)?;
        let mut command = Command::new(program);
        if !tuned_by_the_user() {
            command.env("GOMP_SPINCOUNT", SPIN);
        }
        if let Some(gpus) = &spec.binding.gpus {
            command.envs(visible::variables(gpus, |name| std::env::var(name).ok()));
        }
        let mut child = command
            .args(["worker", "--spec", &json])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        let last_lines = Arc::default();
        let mut output = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            output.spawn(log_lines(stdout, spec.name.clone(), None));
        }
        if let Some(stderr) = child.stderr.take() {
            output.spawn(log_lines(stderr, spec.name.clone(), Some(Arc::clone(&last_lines))));
        }
        // Taken out of the child, because waiting for a child closes the stdin it still has.
        let leash = child.stdin.take();
        Ok(Self { child, _leash: leash, output, last_lines })
    }

    /// Signals its process group, unless it is gone and reaped (its id may be another's by then).
    pub(super) fn signal(&self, signal: Signal) {
        let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return };
        // It can only fail for a group that has ended, which `wait` is about to tell.
        let _ = killpg(Pid::from_raw(id), signal);
    }

    /// Closes its stdin, as the kernel does when this process ends.
    #[cfg(test)]
    pub(super) fn slip_leash(&mut self) {
        self._leash = None;
    }

    /// Waits until it is gone. May be dropped and called again.
    pub(super) async fn wait(&mut self) -> std::io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// How it ended, with what it wrote last.
    pub(super) async fn explain(mut self, status: std::io::Result<ExitStatus>) -> Exit {
        let drained = async { while self.output.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LAST_WORDS, drained).await;
        let lines = self.last_lines.lock().unwrap_or_else(PoisonError::into_inner);
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let (ending, mut reason) = in_words(status);
        if !lines.is_empty() {
            reason = format!("{reason}: {}", lines.join("; "));
        }
        Exit { ending, reason }
    }
}

fn in_words(status: std::io::Result<ExitStatus>) -> (Ending, String) {
    match status {
        Ok(status) => match (status.signal(), status.code()) {
            (Some(9), _) => (Ending::Killed, "the worker was killed by signal 9 (out of memory?)".to_owned()),
            (Some(signal), _) => (Ending::Killed, format!("the worker was killed by signal {signal}")),
            (None, code) => {
                (Ending::Exited, format!("the worker exited with status {}", code.unwrap_or_default()))
            }
        },
        Err(error) => (Ending::Exited, format!("the worker cannot be waited for: {error}")),
    }
}

/// Passes on what a worker writes, line by line, until it closes its end.
async fn log_lines(
    source: impl AsyncRead + Unpin,
    worker: String,
    keep: Option<Arc<Mutex<VecDeque<String>>>>,
) {
    let mut source = BufReader::new(source);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut source).take(MAX_LINE).read_until(b'\n', &mut line).await {
        let text = String::from_utf8_lossy(line.trim_ascii_end()).into_owned();
        if !text.is_empty() {
            match text.strip_prefix(WARNING) {
                Some(text) => tracing::warn!(target: "arriero::worker", worker, "{text}"),
                None => tracing::info!(target: "arriero::worker", worker, "{text}"),
            }
            if let Some(lines) = &keep {
                let mut lines = lines.lock().unwrap_or_else(PoisonError::into_inner);
                lines.push_back(text);
                if lines.len() > LAST_LINES {
                    lines.pop_front();
                }
            }
        }
        line.clear();
    }
}
