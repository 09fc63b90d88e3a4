//! What goes in and out of the pure part: reports about workers, and the actions that follow from them.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::memory::{Ledger, Prediction, Scale};
use crate::error::Error;
use crate::generation::seam::{SnapshotCounts, Vitals};
use crate::library::Model;
use crate::node::Node;

/// A worker to be started: its name, socket and incarnation are the node's.
#[derive(Clone)]
pub(super) struct Start {
    pub(super) model: Arc<Model>,
    pub(super) node: Arc<Node>,
    pub(super) socket: PathBuf,
}

/// What a running worker is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Instruction {
    /// SIGTERM, and SIGKILL if it is still there after this.
    Stop(Duration),
    /// SIGKILL.
    Kill,
    /// Look at once whether it answers.
    Probe,
}

/// What a look at a worker found.
#[derive(Clone, Debug)]
pub(super) enum Report {
    /// It answered.
    Vitals(Box<Vitals>),
    /// It did not answer in time, or not with its vitals.
    Missed,
}

/// The end of a worker. Also of one that could not even be spawned.
#[derive(Clone, Debug)]
pub(super) struct Exit {
    pub(super) ending: Ending,
    /// Why, for people.
    pub(super) reason: String,
}

impl Exit {
    /// Whether the worker said that memory ran out; a kill by the kernel for the same reason looks like any other.
    pub(super) fn is_out_of_memory(&self) -> bool {
        let reason = self.reason.to_lowercase();
        ["not enough memory", "out of memory"].iter().any(|words| reason.contains(words))
    }
}

/// How a worker that should have stayed ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// By itself.
    Exited,
    /// By a signal that the supervisor did not send, or with the task that tended it.
    Killed,
    /// It answered no probes, or decoded nothing, and was killed for that.
    Unresponsive,
}

impl Ending {
    /// The label in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Killed => "killed",
            Self::Unresponsive => "unresponsive",
        }
    }
}

/// Why a model left memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Eviction {
    /// Its `keep_alive` ran out.
    Idle,
    /// A request said so.
    Manual,
    /// To make room for another, as `workers.max_loaded` has it.
    Limit,
    /// The same, as memory has it.
    Memory,
    /// The configuration has it no longer, or otherwise.
    Changed,
}

impl Eviction {
    /// The label in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Manual => "manual",
            Self::Limit => "limit",
            Self::Memory => "memory",
            Self::Changed => "changed",
        }
    }
}

/// What became of a model that is loaded before anybody asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Preload {
    /// Its load begins.
    Begun,
    /// Somebody has asked for it.
    Used,
    /// Nobody has, and it leaves.
    Unused,
}

impl Preload {
    /// The label in metrics.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Begun => "begun",
            Self::Used => "used",
            Self::Unused => "unused",
        }
    }
}

/// What the pure part wants done, in this order.
pub(super) enum Action {
    /// Start a worker.
    Spawn(Start),
    /// Tell the worker of this incarnation.
    Instruct(u64, Instruction),
    /// Let the node take requests.
    Admit(Start),
    /// Give it no more requests.
    Withdraw(Start),
    /// For log and metrics: a worker became ready, that long after its spawn.
    Loaded(Start, Duration),
    /// For the log: so much of a model is loaded.
    Progressed(Arc<Model>, f32),
    /// For metrics: the load of a model begins that another one has left for.
    Swapped(Arc<Model>),
    /// For the log: a model cannot come into memory.
    Refused(Arc<Model>, Error),
    /// For the log: a worker did not become ready.
    LoadFailed(Start, Error),
    /// For log and metrics: a worker is gone that was ready, or that was killed on its way there and is tried once more.
    Lost(Start, Ending, String),
    /// For metrics: what became of a worker's snapshots since it was looked at last.
    Snapshots(Arc<Model>, SnapshotCounts),
    /// For log and metrics: a model is being unloaded.
    Evicted(Arc<Model>, Eviction),
    /// Want this model, which is likely to be asked for.
    Expect(Prediction),
    /// For log and metrics: what became of a model that nobody had asked for.
    Preloaded(Arc<Model>, Preload),
    /// Find out what a worker of this model will take.
    Weigh(Arc<Model>, Scale),
    /// What was measured has changed and is to be kept.
    Remember(Ledger),
}
