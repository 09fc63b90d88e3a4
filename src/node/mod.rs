//! Nodes: whatever can run a generation. Co-located workers, and remote nodes, which differ in their [`protocol`] and nowhere else.

mod access;
mod canary;
mod config;
mod dns;
mod endpoint;
mod health;
mod keep;
mod pool;
pub mod protocol;
mod roster;
mod scout;
mod signal;
mod traffic;
mod via;
mod watched;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use access::{Access, Timeouts, Tls, TlsFault};
pub use canary::CanaryConfig;
pub use config::{NodeConfig, NodeTls, Served};
pub use endpoint::{Each, Endpoint, Host, NoEndpoint};
pub use health::{Condition, Health, HealthConfig};
pub use keep::Prepared;
pub use pool::Pool;
pub use roster::Roster;
pub use scout::Scout;
pub use signal::{Resident, Signal};
pub use via::{Hop, MOST_HOPS, NoHop, Via};
pub use watched::Canonical;

use crate::generation::seam::{Binding, Cut};
use crate::routing::Site;
use protocol::{Offer, Protocol, ProtocolName};
use traffic::Traffic;

/// One place where generations of one or more models can run. A restarted worker is a new node with a new incarnation.
#[derive(Debug)]
pub struct Node {
    /// Such as `demo-0`; the label in metrics and in `X-Arriero-Node`.
    pub name: Arc<str>,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Differs between a worker and its replacement, and between remote nodes, so that pooled connections are never inherited.
    pub incarnation: u64,
    /// A worker's edition of its model ([`crate::library::Model::edition`]); 0 for remote nodes.
    pub edition: u64,
    /// What a worker is bound to.
    pub binding: Binding,
    /// What a worker does without, so that it fits into memory.
    pub cut: Cut,
    /// Sequences it can run at once, or may be given.
    pub parallel: usize,
    /// How it is spoken to.
    pub protocol: &'static dyn Protocol,
    /// What it takes to be let in.
    pub access: Access,
    /// What routing may go by.
    pub standing: Standing,
    /// What it serves and what it says of that, by our names; not of workers, whose models are the library's.
    models: RwLock<HashMap<String, Offer>>,
    signal: RwLock<Signal>,
    health: Mutex<Health>,
    /// How it has answered, by our names of models.
    traffic: Mutex<HashMap<String, Traffic>>,
    in_flight: AtomicUsize,
    tokens: AtomicU64,
    unread: AtomicU64,
    /// Of the [`Hop`] that it is; 0: none that is known.
    hop: AtomicU64,
}

/// What this proxy has running on a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Exchanges.
    pub exchanges: usize,
    /// Tokens of their prompts and of the answers expected.
    pub tokens: u64,
    /// Tokens of the prompts that are not known to have been read.
    pub unread: u64,
}

/// What the config says of a node that routing may go by, as a [`Candidate`](crate::routing::Candidate) has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    /// Its share, relative to those of others; at least 1.
    pub weight: f32,
    /// Where it is.
    pub site: Site,
    /// Lower ones come first.
    pub tier: u8,
    /// What it costs, relative to others.
    pub cost: Option<f32>,
}

impl Default for Standing {
    fn default() -> Self {
        Self { weight: 1.0, site: Site::default(), tier: 0, cost: None }
    }
}

/// Remote nodes count from here, far from the incarnations of workers.
const FIRST_REMOTE: u64 = 1 << 63;
static NEXT_REMOTE: AtomicU64 = AtomicU64::new(FIRST_REMOTE);

impl Node {
    /// A worker with nothing in flight.
    pub fn new(name: impl Into<Arc<str>>, socket: PathBuf, incarnation: u64, parallel: usize) -> Self {
        Self {
            name: name.into(),
            endpoint: Endpoint::Unix(socket),
            incarnation,
            edition: 0,
            binding: Binding::default(),
            cut: Cut::default(),
            parallel,
            protocol: ProtocolName::Worker.protocol(),
            access: Access::default(),
            standing: Standing::default(),
            models: RwLock::default(),
            signal: RwLock::default(),
            health: Mutex::default(),
            traffic: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            tokens: AtomicU64::new(0),
            unread: AtomicU64::new(0),
            hop: AtomicU64::new(0),
        }
    }

    /// The node of an entry of `nodes`.
    pub fn remote(config: &NodeConfig) -> Result<Self, NodeFault> {
        Ok(Self {
            endpoint: Endpoint::parse(&config.url)?,
            protocol: config.protocol.protocol(),
            access: config.access()?,
            standing: config.standing(),
            ..Self::new(
                config.name.as_str(),
                PathBuf::new(),
                NEXT_REMOTE.fetch_add(1, Ordering::Relaxed),
                config.max_in_flight,
            )
        })
    }

    /// The node at one of the addresses of an entry's name.
    fn at(self, instance: &dns::Instance) -> Self {
        let mut node = self;
        node.name = format!("{}/{}", node.name, instance.address).into();
        if let Endpoint::Tcp(host) = &mut node.endpoint {
            host.address = Some(instance.address);
        }
        node.standing.weight = instance.weight.map_or(node.standing.weight, |weight| weight as f32);
        let priority = u8::try_from(instance.priority).unwrap_or(u8::MAX);
        node.standing.tier = node.standing.tier.saturating_add(priority);
        node
    }

    /// Whether it is a process that this Arriero does not own.
    pub fn is_remote(&self) -> bool {
        self.incarnation >= FIRST_REMOTE
    }

    /// What the node calls `model`.
    pub fn name_of(&self, model: &str) -> String {
        self.named(model, str::to_owned)
    }

    /// Looks at what the node calls `model`.
    pub fn named<T>(&self, model: &str, look: impl FnOnce(&str) -> T) -> T {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        look(models.get(model).map_or(model, |offer| &offer.name))
    }

    /// What it says of `model`.
    pub fn offer(&self, model: &str) -> Option<Offer> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).get(model).cloned()
    }

    /// What it says of all that it serves.
    pub fn offers(&self) -> Vec<Offer> {
        self.models.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// Our name of what the node calls `theirs`.
    pub fn model_of(&self, theirs: &str) -> Option<String> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.iter().find(|(_, offer)| offer.name == theirs).map(|(name, _)| name.clone())
    }

    /// Our name of its only model, if it has one.
    fn only_model(&self) -> Option<String> {
        let models = self.models.read().unwrap_or_else(PoisonError::into_inner);
        models.keys().next().filter(|_| models.len() == 1).cloned()
    }

    /// Learns what it serves, by our names. Whether that is something else than before.
    pub fn set_models(&self, models: HashMap<String, Offer>) -> bool {
        let mut known = self.models.write().unwrap_or_else(PoisonError::into_inner);
        let is_other = *known != models;
        *known = models;
        is_other
    }

    /// The Arriero that it is, if it is one and has said so.
    pub fn hop(&self) -> Option<Hop> {
        Hop::from_number(self.hop.load(Ordering::Relaxed))
    }

    /// It has said which Arriero it is.
    pub fn met(&self, hop: Hop) {
        self.hop.store(hop.number(), Ordering::Relaxed);
    }

    /// The Arrieros between here and whoever runs `model` for it.
    pub fn way(&self, model: &str) -> Via {
        self.offer(model).map(|offer| offer.via).unwrap_or_default().and(self.hop())
    }

    /// Looks at what it last said of its load; `None` if that is unknown or too old to be believed.
    pub fn signal<T>(&self, now: Instant, look: impl FnOnce(&Signal) -> T) -> Option<T> {
        let signal = self.signal.read().unwrap_or_else(PoisonError::into_inner);
        signal.fresh(now).map(look)
    }

    /// Takes what it says of its load.
    pub fn set_signal(&self, signal: Signal) {
        *self.signal.write().unwrap_or_else(PoisonError::into_inner) = signal;
    }

    /// Exchanges running.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// What runs, in exchanges and in tokens as far as they were counted.
    pub fn load(&self) -> Load {
        Load {
            exchanges: self.in_flight(),
            tokens: self.tokens.load(Ordering::Relaxed),
            unread: self.unread.load(Ordering::Relaxed),
        }
    }

    /// Counts one exchange until the guard is dropped: with its `tokens`, of which so many are to be read first.
    pub fn enter(self: &Arc<Self>, tokens: u64, unread: u64) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.tokens.fetch_add(tokens, Ordering::Relaxed);
        self.unread.fetch_add(unread, Ordering::Relaxed);
        InFlight { node: Arc::clone(self), tokens, unread }
    }

    /// It has begun to answer a request for `model`, after `took`.
    pub fn answered(&self, model: &str, took: Duration, now: Instant) {
        let mut traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        match traffic.get_mut(model) {
            Some(known) => known.answered(took, now),
            None => {
                let mut first = Traffic::new(now);
                first.answered(took, now);
                traffic.insert(model.to_owned(), first);
            }
        }
    }

    /// When it began to answer last.
    fn answered_at(&self) -> Option<Instant> {
        let traffic = self.traffic.lock().unwrap_or_else(PoisonError::into_inner);
        traffic.values().map(Traffic::last).max()
    }

    /// The mean time to the first event of its answers for `model` of late, in seconds; `None`: too few.
    fn usual(&self, model: &str, now: Instant) -> Option<f64> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner).get(model)?.mean(now)
    }

    /// What it may be given, by probes and by people.
    pub fn condition(&self) -> Condition {
        self.health(|health| health.condition())
    }

    /// Looks at, or changes, what is known of its health.
    pub fn health<T>(&self, look: impl FnOnce(&mut Health) -> T) -> T {
        look(&mut self.health.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Why there is no node for an entry of the config.
#[derive(Debug, thiserror::Error)]
pub enum NodeFault {
    /// Its URL.
    #[error(transparent)]
    Endpoint(#[from] NoEndpoint),
    /// Its certificates or key.
    #[error(transparent)]
    Tls(#[from] TlsFault),
    /// This system does not say where its name servers are.
    #[error("names cannot be looked up: {0}")]
    Dns(String),
}

/// One exchange on a node; dropping it takes it off the count.
#[derive(Debug)]
pub struct InFlight {
    node: Arc<Node>,
    tokens: u64,
    unread: u64,
}

impl InFlight {
    /// The prompt has been read.
    pub fn read(&mut self) {
        self.node.unread.fetch_sub(std::mem::take(&mut self.unread), Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.read();
        self.node.tokens.fetch_sub(self.tokens, Ordering::Relaxed);
        self.node.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
