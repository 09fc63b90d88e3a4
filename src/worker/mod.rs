//! Workers: co-located llama.cpp processes, one model each. The [`Supervisor`] spawns, watches, replaces and stops them.
//!
//! What is decided lies in `residency` (which models), `resident` (one model) and `replica` (one worker), all pure: events
//! and the time go in, `action`s come out. `shared` carries them out. What runs is a `crew` of tasks, one per worker
//! (`tend`, with `process` and `probe`). `chronicle` keeps what has happened. Uses `library` for the files and `node` for the pool.

mod action;
mod chronicle;
mod config;
mod crew;
mod keeper;
mod memory;
mod probe;
mod process;
mod replica;
mod residency;
mod resident;
mod service;
mod shared;
mod snapshots;
mod stake;
mod tend;
#[cfg(test)]
mod tests;
mod visible;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

pub use chronicle::Event;
pub use config::WorkersConfig;
pub use memory::{MemoryConfig, Prediction};
pub use residency::Footprint;
pub use snapshots::SnapshotsConfig;
use tokio::sync::mpsc;

use self::crew::Crew;
use self::keeper::Keeper;
use self::memory::{Ledger, Memory};
use self::residency::Residency;
use self::resident::{Answer, Resident};
use self::shared::{Abandon, Order, Shared};
use self::tend::Manner;
use crate::error::Error;
use crate::generation::Loading;
use crate::generation::seam::Sandbox;
use crate::library::{Library, Model};
use crate::node::{Node, Pool};
use crate::telemetry::Metrics;
use crate::units::KeepAlive;

/// Owns every worker process.
pub struct Supervisor {
    library: Arc<Library>,
    manner: Manner,
    shared: Arc<Shared>,
    /// Where it is remembered what models take.
    ledger: Option<PathBuf>,
    warm_start: bool,
    /// Taken by [`Supervisor::run`].
    orders: Mutex<Option<mpsc::UnboundedReceiver<Order>>>,
}

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
    /// What keeps its first replica in.
    pub sandbox: Sandbox,
}

/// Keeps a model in memory while held; the idle time starts when the last hold of a model is dropped.
pub struct Hold {
    shared: Arc<Shared>,
    model: Arc<Model>,
    /// Somebody has asked for it.
    is_use: bool,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.shared.update(|residency, now| residency.release(&self.model, self.is_use, now));
    }
}

impl Supervisor {
    /// Nothing is spawned before [`Supervisor::run`]. `program` is what `program worker --spec JSON` starts a worker with;
    /// `runtime` is a private directory, with a short path, for the sockets.
    pub fn new(
        config: WorkersConfig,
        memory: MemoryConfig,
        library: Arc<Library>,
        pool: Arc<Pool>,
        metrics: Arc<Metrics>,
        program: PathBuf,
        runtime: PathBuf,
    ) -> Self {
        let (orders, receiver) = mpsc::unbounded_channel();
        let ledger = memory.ledger(|name| std::env::var_os(name));
        let remembered = ledger.as_deref().map(Ledger::load).unwrap_or_default();
        let (manner, warm_start) = (Manner::new(&config, program), config.warm_start);
        let residency = Residency::new(config, runtime).within(Memory::new(memory, remembered));
        Self {
            library,
            manner,
            shared: Arc::new(Shared::new(residency, pool, metrics, orders)),
            ledger,
            warm_start,
            orders: Mutex::new(Some(receiver)),
        }
    }

    /// Preloads, probes, restarts and unloads until [`Supervisor::stop`] has ended the last worker. Every process and task
    /// belongs to this call: dropping it kills them.
    pub async fn run(&self) {
        let Some(mut orders) = self.take_orders() else {
            tracing::error!("the supervisor runs already");
            return;
        };
        let _abandon = Abandon(&self.shared);
        let mut crew = Crew::new(Arc::clone(&self.shared), self.manner.clone());
        let mut keeper = Keeper::new(self.ledger.clone());
        self.shared.update(|residency, now| {
            let models = self.library.configured();
            models.iter().filter(|m| m.config.preload).for_each(|model| residency.preload(model, now));
            if self.warm_start {
                let was_hot = |name: &str| models.iter().find(|model| model.name == name);
                let hot: Vec<_> = residency.hot().iter().filter_map(|name| was_hot(name)).collect();
                hot.into_iter().for_each(|model| residency.warm(model, now));
            }
        });
        while !(self.shared.is_closed() && crew.is_empty()) {
            let wake = self.shared.schedule();
            tokio::select! {
                Some(order) = orders.recv() => match order {
                    Order::Remember(ledger) => keeper.keep(ledger),
                    Order::Expect(name) => self.expect(&name),
                    order => crew.carry_out(order),
                },
                Some((incarnation, exit)) = crew.next_gone() => {
                    self.shared.update(|residency, now| residency.gone(incarnation, exit, now));
                }
                () = tokio::time::sleep_until(wake) => self.shared.update(|_, _| ()),
                () = keeper.kept() => {}
                () = self.shared.rescheduled() => {}
            }
        }
        while let Ok(order) = orders.try_recv() {
            if let Order::Remember(ledger) = order {
                keeper.keep(ledger);
            }
        }
        keeper.finish().await;
    }

    /// Marks the model as in use. `keep_alive` replaces the value in force, `None` keeps it.
    pub fn hold(&self, model: &Arc<Model>, keep_alive: Option<KeepAlive>) -> Hold {
        self.shared.update(|residency, now| {
            residency.asked(model, now);
            residency.hold(model, keep_alive);
        });
        Hold { shared: Arc::clone(&self.shared), model: Arc::clone(model), is_use: true }
    }

    /// The same for work that nobody has asked for, which is no use of the model.
    pub fn hold_unasked(&self, model: &Arc<Model>) -> Hold {
        self.shared.update(|residency, _| residency.hold(model, None));
        Hold { shared: Arc::clone(&self.shared), model: Arc::clone(model), is_use: false }
    }

    /// Waits until the pool has at least one ready node for the model, loading it if need be. One load serves any number
    /// of callers; dropping the future does not abort it. A model that cannot load fails every waiting caller at once, and
    /// later callers too until the hold-off has passed.
    pub async fn ready(&self, model: &Arc<Model>) -> Result<(), Error> {
        let _hold = self.hold(model, None);
        let mut seen = None;
        loop {
            match self.shared.update(|residency, now| residency.ask(model, seen, now)) {
                Answer::Ready => return Ok(()),
                Answer::Failed(error) => return Err(error),
                Answer::Wait { failures, mut changed } => {
                    seen = Some(failures);
                    // The sender lives as long as the model is known; without it the next answer says what to do.
                    let _ = changed.changed().await;
                }
            }
        }
    }

    /// Goes on under other sections, with the models that the library has `renewed`. What takes effect with a new worker does so with the
    /// next one; a model that the library has no longer leaves memory when nothing holds it.
    pub fn renew(&self, config: WorkersConfig, memory: MemoryConfig, renewed: &[Arc<Model>]) {
        self.shared.update(|residency, now| {
            residency.renew(config, renewed);
            residency.renew_memory(memory);
            let preloaded = renewed.iter().filter(|model| model.config.preload);
            preloaded.for_each(|model| residency.preload(model, now));
        });
        self.shared.retell();
    }

    /// Wants the model of this name, which is likely to be asked for, if there is room.
    fn expect(&self, name: &str) {
        if let Some(model) = self.library.configured().iter().find(|model| model.name == name) {
            self.shared.update(|residency, now| residency.expect(model, now));
        }
    }

    /// Stops the model's workers once nothing holds it.
    pub fn unload(&self, model: &Arc<Model>) {
        self.shared.update(|residency, now| residency.unload(model, now));
    }

    /// An exchange with this node failed: take it out of the pool, find out why, replace it. Nodes that are not workers
    /// are none of its business.
    pub fn suspect(&self, node: &Arc<Node>) {
        self.shared.update(|residency, _| residency.suspect(node));
    }

    /// Whether the model's last load failed.
    pub fn has_failed(&self, model: &Arc<Model>) -> bool {
        self.shared.update(|residency, _| residency.has_failed(model))
    }

    /// The models in memory, longest remaining life first; without those that are only there for requests that began before the
    /// configuration changed.
    pub fn loaded(&self) -> Vec<Loaded> {
        let describe_all = |residency: &mut Residency, now| -> Vec<_> {
            let residents = residency.residents().filter(|resident| !resident.is_retired());
            residents.filter_map(|resident| describe(resident, now)).collect()
        };
        let mut loaded = self.shared.update(describe_all);
        loaded.sort_by_key(|(remaining, _)| std::cmp::Reverse(remaining.unwrap_or(Duration::MAX)));
        loaded.into_iter().map(|(_, loaded)| loaded).collect()
    }

    /// What is known of the models in memory and those that wait for room, who would leave first first.
    pub fn footprints(&self) -> Vec<Footprint> {
        self.shared.update(|residency, now| residency.footprints(now))
    }

    /// How far the model is on its way into memory; `None`: it takes requests, or nobody has asked for it.
    pub fn loading(&self, model: &Model) -> Option<Loading> {
        self.shared.update(|residency, now| residency.loading(model, now))
    }

    /// Every model on its way into memory.
    pub fn arriving(&self) -> Vec<(Arc<Model>, Loading)> {
        self.shared.update(|residency, now| residency.arriving(now))
    }

    /// The last things that have happened to models, the latest first.
    pub fn events(&self, count: usize) -> Vec<Event> {
        self.shared.events(count)
    }

    /// The name of the policy that chooses who leaves.
    pub fn policy(&self) -> &'static str {
        self.shared.update(|residency, _| residency.policy()).as_str()
    }

    /// What is likely to be asked for soon, the most likely first; nothing where that is not looked at.
    pub fn predictions(&self) -> Vec<Prediction> {
        self.shared.update(|residency, _| residency.predictions())
    }

    /// Stops every worker: SIGTERM, then SIGKILL after `deadline`. Returns when all are gone.
    pub async fn stop(&self, deadline: Duration) {
        let never_ran = self.take_orders().is_some();
        self.shared.update(|residency, now| match never_ran {
            true => residency.abandon(),
            false => {
                residency.remember_hot(now);
                residency.close(deadline);
            }
        });
        self.shared.vacated().await;
    }

    fn take_orders(&self) -> Option<mpsc::UnboundedReceiver<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// What `/api/ps` shows of a model in memory, with its remaining life.
fn describe(resident: &Resident, now: Instant) -> Option<(Option<Duration>, Loaded)> {
    let vitals = || resident.replicas.iter().filter_map(|replica| replica.vitals());
    let first = vitals().next()?;
    let context = first.model.as_ref().map_or(0, |model| model.context);
    let remaining = match resident.holds {
        0 => resident.expires().map(|expiry| expiry.saturating_duration_since(now)),
        // The time starts when it becomes idle, at the earliest now.
        _ if resident.is_pinned() => None,
        _ => match resident.keep_alive {
            KeepAlive::Unload => Some(Duration::ZERO),
            KeepAlive::For(idle) => Some(idle),
            KeepAlive::Forever => None,
        },
    };
    let loaded = Loaded {
        model: Arc::clone(&resident.model),
        memory: vitals().map(|vitals| vitals.resident_bytes).sum(),
        device_memory: vitals().map(|vitals| vitals.device_bytes).sum(),
        expires: remaining.and_then(|remaining| SystemTime::now().checked_add(remaining)),
        context,
        sandbox: first.sandbox.clone(),
    };
    Some((remaining, loaded))
}
