//! Nodes: whatever can run a generation. Today co-located workers and other processes that speak the worker protocol over
//! a unix socket; remote protocols come with `nodes:` of other kinds.

mod config;
mod pool;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

pub use config::NodeConfig;
pub use pool::Pool;

/// One place where generations of one or more models can run. A restarted worker is a new node with a new incarnation.
#[derive(Debug)]
pub struct Node {
    /// Such as `demo-0`; the label in metrics and in `X-Arriero-Node`.
    pub name: Arc<str>,
    /// Where it listens.
    pub socket: PathBuf,
    /// Differs between a worker and its replacement, so that pooled connections are never inherited.
    pub incarnation: u64,
    /// Sequences it can run at once.
    pub parallel: usize,
    in_flight: AtomicUsize,
}

impl Node {
    /// A node with nothing in flight.
    pub fn new(name: impl Into<Arc<str>>, socket: PathBuf, incarnation: u64, parallel: usize) -> Self {
        Self { name: name.into(), socket, incarnation, parallel, in_flight: AtomicUsize::new(0) }
    }

    /// Exchanges running.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts one exchange until the guard is dropped.
    pub fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight { node: Arc::clone(self) }
    }
}

/// One exchange on a node; dropping it takes it off the count.
#[derive(Debug)]
pub struct InFlight {
    node: Arc<Node>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.node.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
