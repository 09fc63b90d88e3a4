//! [`Scout`]: keeps what is known of remote nodes up to date: which models each has, and how loaded it is.

use std::collections::hash_map;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::{AbortHandle, AbortRegistration, Abortable, abortable, join_all};
use futures::stream::FuturesUnordered;
use pingora::lb::Backends;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::canary;
use super::dns::Instance;
use super::protocol::Offer;
use super::watched::{Canonical, Entry, Kept, Watched};
use super::{Condition, HealthConfig, Node, Pool, Signal};
use crate::telemetry::Metrics;
use crate::upstream::{Fault, Upstream};

/// Asks remote nodes what they have and how they are, and puts them into the pool for what they serve. Which nodes those are is said by
/// [`Scout::keep`].
pub struct Scout {
    pub(super) pool: Arc<Pool>,
    upstream: Arc<Upstream>,
    canonical: Canonical,
    pub(super) health: RwLock<HealthConfig>,
    pub(super) metrics: Arc<Metrics>,
    changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
    /// The entries, by name.
    pub(super) kept: Mutex<BTreeMap<String, Kept>>,
    /// Every node of them.
    watched: Mutex<Vec<Weak<Watched>>>,
    arrivals: UnboundedSender<Arrival>,
    /// Taken by [`Scout::run`].
    arriving: Mutex<Option<UnboundedReceiver<Arrival>>>,
}

/// An entry that is to be followed, until its task is aborted.
pub(super) struct Arrival {
    pub entry: Arc<Entry>,
    pub followed: Followed,
    pub registration: AbortRegistration,
}

/// What an entry leads to.
pub(super) enum Followed {
    /// One node.
    Node(Arc<Watched>),
    /// A name behind which DNS has nodes.
    Name(Box<Backends>),
}

impl Scout {
    /// Keeps nothing yet. `canonical` is asked whenever a node tells its models.
    pub fn new(
        pool: Arc<Pool>,
        upstream: Arc<Upstream>,
        canonical: Canonical,
        health: HealthConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (arrivals, arriving) = mpsc::unbounded_channel();
        Self {
            pool,
            upstream,
            canonical,
            health: RwLock::new(health),
            metrics,
            changed: OnceLock::new(),
            kept: Mutex::default(),
            watched: Mutex::default(),
            arrivals,
            arriving: Mutex::new(Some(arriving)),
        }
    }

    /// Calls `changed` whenever a node serves other models than before.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        // A second call is a bug of no consequence: the first one stands.
        let _ = self.changed.set(Box::new(changed));
    }

    pub(super) fn tell_change(&self) {
        self.changed.get().iter().for_each(|changed| changed());
    }

    /// How nodes are probed now.
    fn health(&self) -> HealthConfig {
        self.health.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks all nodes over and over; never ends. Dropping it stops asking.
    pub async fn run(&self) {
        let Some(mut arriving) = self.arriving.lock().unwrap_or_else(PoisonError::into_inner).take() else {
            tracing::error!("the scout runs already");
            return;
        };
        let following = async {
            let mut following = FuturesUnordered::new();
            loop {
                tokio::select! {
                    Some(Arrival { entry, followed, registration }) = arriving.recv() => {
                        following.push(Abortable::new(self.follow_entry(entry, followed), registration));
                    }
                    // One that was let go has left the pool.
                    Some(_) = following.next() => self.tell_change(),
                }
            }
        };
        tokio::join!(following, self.compare());
    }

    /// Has the entry followed.
    pub(super) fn send(&self, arrival: Arrival) {
        // Without a receiver the run has ended.
        let _ = self.arrivals.send(arrival);
    }

    /// A node of the entry, in the pool for what it serves.
    pub(super) fn watch(&self, node: Node, entry: &Arc<Entry>) -> Arc<Watched> {
        let (entry, canonical) = (Arc::clone(entry), Arc::clone(&self.canonical));
        let watched = Arc::new(Watched::new(node, entry, canonical, &self.pool, &self.metrics));
        let mut all = self.watched.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|watched| watched.strong_count() > 0);
        all.push(Arc::downgrade(&watched));
        watched
    }

    /// Every node that is watched.
    pub(super) fn all(&self) -> Vec<Arc<Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect()
    }

    async fn follow_entry(&self, entry: Arc<Entry>, followed: Followed) {
        match followed {
            Followed::Node(watched) => self.follow(&watched).await,
            Followed::Name(backends) => self.follow_name(&entry, &backends).await,
        }
    }

    /// Compares nodes with each other; never ends.
    async fn compare(&self) {
        loop {
            tokio::time::sleep(self.health().interval).await;
            self.pool.compare(Instant::now());
        }
    }

    /// Looks a name up over and over, and follows the nodes that it has at the time.
    async fn follow_name(&self, entry: &Arc<Entry>, backends: &Backends) {
        let mut followed: HashMap<Instance, AbortHandle> = HashMap::new();
        let mut following = FuturesUnordered::new();
        loop {
            let looked_up = backends.update(|_| {}).await;
            if let Err(error) = &looked_up {
                tracing::warn!(node = entry.config.name, %error, "a name cannot be looked up; its nodes stay what they were");
            }
            let found: HashSet<_> = backends.get_backend().iter().filter_map(Instance::of).collect();
            followed.retain(|instance, handle| {
                let is_there = found.contains(instance);
                if !is_there {
                    handle.abort();
                }
                is_there
            });
            let mut arrived = Vec::new();
            for instance in found {
                let hash_map::Entry::Vacant(vacant) = followed.entry(instance) else { continue };
                // The entry was sound when it was added; its files may be gone since.
                let Ok(node) = Node::remote(&entry.config) else { continue };
                let watched = self.watch(node.at(vacant.key()), entry);
                arrived.push(Arc::clone(&watched));
                let (task, handle) = abortable(async move { self.follow(&watched).await });
                following.push(task);
                vacant.insert(handle);
            }
            if entry.has_before() && looked_up.is_ok() {
                join_all(arrived.iter().filter(|watched| !watched.is_serving()).map(|it| self.look(it)))
                    .await;
                self.succeed(entry);
            }
            drop(arrived);
            self.tell_change();
            let next = tokio::time::sleep(jittered(entry.config.refresh));
            tokio::pin!(next);
            loop {
                tokio::select! {
                    () = &mut next => break,
                    // One that was let go has left the pool.
                    Some(_) = following.next() => self.tell_change(),
                }
            }
        }
    }

    async fn follow(&self, watched: &Watched) {
        let canaries = canary::keep(&watched.node, &self.upstream, || self.health(), &self.metrics);
        tokio::join!(self.follow_models(watched), self.follow_load(watched), canaries);
    }

    /// Asks over and over what the node has. One that does not tell keeps what it told last, in lists too, until its probes find it
    /// unhealthy.
    async fn follow_models(&self, watched: &Watched) {
        let mut was_told = true;
        loop {
            match self.look(watched).await {
                // Once, not for every look.
                Err(fault) => {
                    if std::mem::take(&mut was_told) {
                        tracing::warn!(node = %watched.node.name, %fault, "a node does not tell its models");
                    }
                }
                Ok(()) if !std::mem::replace(&mut was_told, true) => {
                    tracing::info!(node = %watched.node.name, "a node tells its models again");
                }
                Ok(()) => {}
            }
            self.succeed(&watched.entry);
            tokio::time::sleep(jittered(watched.entry.config.refresh)).await;
        }
    }

    /// Asks the node once what it has.
    async fn look(&self, watched: &Watched) -> Result<(), Fault> {
        let (found, result) = match self.offers(&watched.node).await {
            Ok(found) => (found, Ok(())),
            // What it told last holds until its probes say that it is gone.
            Err(fault) if watched.node.condition() != Condition::Unhealthy => return Err(fault),
            Err(fault) => (Vec::new(), Err(fault)),
        };
        if watched.learn(found) {
            self.tell_change();
        }
        result
    }

    /// What the node has; none for a protocol that does not tell.
    async fn offers(&self, node: &Node) -> Result<Vec<Offer>, Fault> {
        let Some(request) = node.protocol.ask_offers() else { return Ok(Vec::new()) };
        let body = self.within(self.upstream.ask(node, request)).await?;
        let mut offers = node.protocol.offers(&body).map_err(|error| Fault::Broken(error.to_string()))?;
        // What a node has from here would stay for ever, each having it from the other.
        offers.retain(|offer| !offer.via.has(self.upstream.hop()));
        Ok(offers)
    }

    /// Probes the node over and over, by asking how loaded it is; one that has nothing to say about that, by asking what it has.
    async fn follow_load(&self, watched: &Watched) {
        let node = &watched.node;
        let mut tells = true;
        loop {
            let found =
                if tells { self.signal(node, &mut tells).await } else { self.offers(node).await.map(drop) };
            // Who refuses is there.
            let found =
                found.or_else(|fault| if fault.is_answer() { Ok(()) } else { Err(fault.to_string()) });
            // After a failure it may be another server.
            tells |= found.is_err();
            let rules = self.health();
            let (before, after, reason) = node.health(|health| {
                let before = health.condition();
                health.probed(found, &rules);
                (before, health.condition(), health.reason())
            });
            if before != after {
                tracing::warn!(node = %node.name, from = before.as_str(), to = after.as_str(), reason, "health");
            }
            self.metrics.node_up.with_label_values(&[&*node.name]).set(after.is_fit().into());
            tokio::time::sleep(jittered(rules.interval)).await;
        }
    }

    /// Asks how loaded the node is. A node that says nothing keeps its last signal, which grows old.
    async fn signal(&self, node: &Node, tells: &mut bool) -> Result<(), Fault> {
        let (mut answers, mut fault) = (Vec::new(), None);
        for request in node.protocol.ask_signal() {
            let answer = self.within(self.upstream.ask(node, request)).await;
            answers.push(answer.map_err(|error| fault = Some(error)).ok());
        }
        *tells = answers.iter().any(Option::is_some);
        if *tells {
            node.set_signal(Signal { at: Some(Instant::now()), ..node.protocol.signal(&answers) });
            return Ok(());
        }
        fault.map_or(Ok(()), Err)
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        let waited = tokio::time::timeout(self.health().timeout, answer).await;
        waited.unwrap_or_else(|_| Err(Fault::Timeout("no answer in time".to_owned())))
    }
}

/// A tenth more or less, so that nodes are not all asked at once.
pub(super) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.9..1.1))
}

#[cfg(test)]
mod tests;
