//! Workers: co-located llama.cpp processes, one model each. The [`Supervisor`] spawns, watches, replaces and stops them.

mod config;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use config::WorkersConfig;

use crate::error::Error;
use crate::library::{Library, Model};
use crate::node::{Node, Pool};
use crate::telemetry::Metrics;
use crate::units::KeepAlive;

/// Owns every worker process.
pub struct Supervisor {}

/// A model in memory.
pub struct Loaded {
    /// Which.
    pub model: Arc<Model>,
    /// Resident bytes, all replicas.
    pub memory: u64,
    /// The part on GPUs.
    pub device_memory: u64,
    /// When it will be unloaded if nothing comes; `None`: never.
    pub expires: Option<SystemTime>,
    /// Context per sequence.
    pub context: u32,
}

/// Keeps a model in memory while held; the idle time starts when the last hold of a model is dropped.
pub struct Hold {}

impl Supervisor {
    /// Nothing is spawned before [`Supervisor::run`].
    pub fn new(
        _config: WorkersConfig,
        _library: Arc<Library>,
        _pool: Arc<Pool>,
        _metrics: Arc<Metrics>,
    ) -> Self {
        todo!()
    }

    /// Preloads, probes, restarts and unloads until [`Supervisor::stop`] has ended the last worker. Every process and task
    /// belongs to this call.
    pub async fn run(&self) {
        todo!()
    }

    /// Marks the model as in use. `keep_alive` replaces the value in force, `None` keeps it.
    pub fn hold(&self, _model: &Arc<Model>, _keep_alive: Option<KeepAlive>) -> Hold {
        todo!()
    }

    /// Waits until the pool has at least one ready node for the model, loading it if need be. One load serves any number
    /// of callers; dropping the future does not abort it. A model that cannot load fails every waiting caller at once, and
    /// later callers too until the hold-off has passed.
    pub async fn ready(&self, _model: &Arc<Model>) -> Result<(), Error> {
        todo!()
    }

    /// Stops the model's workers once nothing holds it.
    pub fn unload(&self, _model: &Arc<Model>) {
        todo!()
    }

    /// An exchange with this node failed: take it out of the pool, find out why, replace it.
    pub fn suspect(&self, _node: &Arc<Node>) {
        todo!()
    }

    /// The models in memory, longest remaining life first.
    pub fn loaded(&self) -> Vec<Loaded> {
        todo!()
    }

    /// Stops every worker: SIGTERM, then SIGKILL after `deadline`. Returns when all are gone.
    pub async fn stop(&self, _deadline: Duration) {
        todo!()
    }
}
