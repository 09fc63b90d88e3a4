//! [`Scout`]: keeps what is known of remote nodes up to date: which models each has, and how loaded it is.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::future::{AbortHandle, abortable, join_all};
use futures::stream::FuturesUnordered;
use pingora::lb::Backends;

use super::canary;
use super::dns::{Dns, Instance};
use super::protocol::Offer;
use super::{Endpoint, HealthConfig, Host, Node, NodeConfig, NodeFault, Pool, Served, Signal};
use crate::telemetry::Metrics;
use crate::upstream::{Fault, Upstream};

/// Most models of a node: each has a line in lists and metrics of its own.
const MOST_MODELS: usize = 1000;

/// How Arriero spells a model's name; `None`: clients cannot ask for it.
pub type Canonical = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Asks remote nodes what they have and how they are, and puts them into the pool for what they serve.
pub struct Scout {
    pool: Arc<Pool>,
    upstream: Arc<Upstream>,
    watched: Vec<Watched>,
    names: Vec<Name>,
    health: HealthConfig,
    metrics: Arc<Metrics>,
    changed: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

/// One node. Dropping it takes the node out of the pool.
struct Watched {
    node: Arc<Node>,
    pool: Arc<Pool>,
    /// What the config says it serves; empty: it is asked.
    served: Served,
    canonical: Canonical,
    refresh: Duration,
}

/// A name behind which DNS has nodes.
struct Name {
    config: NodeConfig,
    canonical: Canonical,
    backends: Backends,
}

impl Scout {
    /// Keeps nothing yet.
    pub fn new(
        pool: Arc<Pool>,
        upstream: Arc<Upstream>,
        health: HealthConfig,
        metrics: Arc<Metrics>,
    ) -> Self {
        let (watched, names) = (Vec::new(), Vec::new());
        Self { pool, upstream, watched, names, health, metrics, changed: OnceLock::new() }
    }

    /// Adds the node of an entry of `nodes`, which takes requests for the models of the config at once; or the name whose nodes will
    /// be looked up.
    pub fn add(&mut self, config: &NodeConfig, canonical: Canonical) -> Result<(), NodeFault> {
        let node = Node::remote(config)?;
        match &node.endpoint {
            Endpoint::Tcp(host @ Host { each: Some(each), .. }) => {
                let dns = Dns::new(host, *each).map_err(|error| NodeFault::Dns(error.to_string()))?;
                let backends = Backends::new(Box::new(dns));
                self.names.push(Name { config: config.clone(), canonical, backends });
            }
            _ => self.watched.push(Watched::new(node, config, canonical, &self.pool)),
        }
        Ok(())
    }

    /// Calls `changed` whenever a node serves other models than before.
    pub fn on_change(&self, changed: impl Fn() + Send + Sync + 'static) {
        // A second call is a bug of no consequence: the first one stands.
        let _ = self.changed.set(Box::new(changed));
    }

    fn tell_change(&self) {
        self.changed.get().iter().for_each(|changed| changed());
    }

    /// Asks all nodes over and over; never ends. Dropping it stops asking.
    pub async fn run(&self) {
        let nodes = join_all(self.watched.iter().map(|watched| self.follow(watched)));
        let names = join_all(self.names.iter().map(|name| self.follow_name(name)));
        tokio::join!(nodes, names, self.compare());
    }

    /// Compares nodes with each other; never ends.
    async fn compare(&self) {
        loop {
            tokio::time::sleep(self.health.interval).await;
            self.pool.compare(Instant::now());
        }
    }

    /// Looks a name up over and over, and follows the nodes that it has at the time.
    async fn follow_name(&self, name: &Name) {
        let mut followed: HashMap<Instance, AbortHandle> = HashMap::new();
        let mut following = FuturesUnordered::new();
        loop {
            if let Err(error) = name.backends.update(|_| {}).await {
                tracing::warn!(node = name.config.name, %error, "a name cannot be looked up; its nodes stay what they were");
            }
            let backends = name.backends.get_backend();
            let found: HashSet<_> = backends.iter().filter_map(Instance::of).collect();
            followed.retain(|instance, handle| {
                let is_there = found.contains(instance);
                if !is_there {
                    handle.abort();
                }
                is_there
            });
            for instance in found {
                let Entry::Vacant(entry) = followed.entry(instance) else { continue };
                // The entry was sound when it was added; its files may be gone since.
                let Ok(node) = Node::remote(&name.config) else { continue };
                let watched =
                    Watched::new(node.at(entry.key()), &name.config, Arc::clone(&name.canonical), &self.pool);
                let (task, handle) = abortable(async move { self.follow(&watched).await });
                following.push(task);
                entry.insert(handle);
            }
            self.tell_change();
            let next = tokio::time::sleep(jittered(name.config.refresh));
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
        let canaries = canary::keep(&watched.node, &self.upstream, &self.health, &self.metrics);
        tokio::join!(self.follow_models(watched), self.follow_load(watched), canaries);
    }

    async fn follow_models(&self, watched: &Watched) {
        let mut was_told = true;
        loop {
            let found = self.offers(&watched.node).await;
            if let Err(fault) = &found {
                // Once, not for every look.
                if std::mem::take(&mut was_told) {
                    tracing::warn!(node = %watched.node.name, %fault, "a node does not tell its models");
                }
            } else if !std::mem::replace(&mut was_told, true) {
                tracing::info!(node = %watched.node.name, "a node tells its models again");
            }
            if watched.learn(found.unwrap_or_default()) {
                self.tell_change();
            }
            tokio::time::sleep(jittered(watched.refresh)).await;
        }
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
        let up = self.metrics.node_up.with_label_values(&[&node.name]);
        let mut tells = true;
        loop {
            let found =
                if tells { self.signal(node, &mut tells).await } else { self.offers(node).await.map(drop) };
            // Who refuses is there.
            let found =
                found.or_else(|fault| if fault.is_answer() { Ok(()) } else { Err(fault.to_string()) });
            // After a failure it may be another server.
            tells |= found.is_err();
            let (before, after, reason) = node.health(|health| {
                let before = health.condition();
                health.probed(found, &self.health);
                (before, health.condition(), health.reason())
            });
            if before != after {
                tracing::warn!(node = %node.name, from = before.as_str(), to = after.as_str(), reason, "health");
            }
            up.set(after.is_fit().into());
            tokio::time::sleep(jittered(self.health.interval)).await;
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
        let waited = tokio::time::timeout(self.health.timeout, answer).await;
        waited.unwrap_or_else(|_| Err(Fault::Timeout("no answer in time".to_owned())))
    }
}

impl Watched {
    /// Puts `node` into the pool for what the config says that it serves.
    fn new(node: Node, config: &NodeConfig, canonical: Canonical, pool: &Arc<Pool>) -> Self {
        let (node, pool) = (Arc::new(node), Arc::clone(pool));
        let watched = Self { node, pool, served: config.models.clone(), canonical, refresh: config.refresh };
        watched.learn(Vec::new());
        watched
    }

    /// Takes what the node says it has. Whether it serves something else now. What the config names it serves in any case.
    fn learn(&self, found: Vec<Offer>) -> bool {
        if self.served.0.is_empty() {
            let offers = found.into_iter().take(MOST_MODELS);
            let offers: Vec<_> = offers.map(|offer| (offer.name.clone(), offer)).collect();
            return self.serve(offers.iter().map(|(name, offer)| (name.as_str(), offer.clone())));
        }
        let offer = |theirs: &str| found.iter().find(|offer| offer.name == theirs).cloned();
        let offers =
            self.served.0.iter().map(|model| {
                (model.name.as_str(), offer(&model.theirs).unwrap_or_else(|| bare(&model.theirs)))
            });
        self.serve(offers)
    }

    /// Takes requests for exactly these models. Whether that is something else than before.
    fn serve<'a>(&self, offers: impl Iterator<Item = (&'a str, Offer)>) -> bool {
        let models: HashMap<_, _> =
            offers.filter_map(|(name, offer)| Some(((self.canonical)(name)?, offer))).collect();
        let names: Vec<_> = models.keys().cloned().collect();
        let is_other = self.node.set_models(models);
        if is_other {
            self.pool.serve(&self.node, &names);
        }
        is_other
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.pool.serve(&self.node, &[]);
    }
}

/// A model of which nothing but the name is known.
fn bare(name: &str) -> Offer {
    Offer { name: name.to_owned(), ..Offer::default() }
}

/// A tenth more or less, so that nodes are not all asked at once.
pub(super) fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(rand::random_range(0.9..1.1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;

    use async_trait::async_trait;
    use pingora::lb::Backend;
    use pingora::lb::discovery::ServiceDiscovery;
    use serde_json::json;

    use super::*;

    /// What is behind a name: ports of this machine, or nothing that can be looked up.
    #[derive(Clone, Default)]
    struct Phonebook(Arc<Mutex<Option<Vec<u16>>>>);

    impl Phonebook {
        fn has(&self, ports: Option<&[u16]>) {
            *self.0.lock().unwrap() = ports.map(<[u16]>::to_vec);
        }
    }

    #[async_trait]
    impl ServiceDiscovery for Phonebook {
        async fn discover(&self) -> pingora::Result<(BTreeSet<Backend>, HashMap<u64, bool>)> {
            let ports = self.0.lock().unwrap().clone();
            let ports = ports.ok_or_else(|| pingora::Error::new(pingora::ErrorType::Custom("DNS")))?;
            let instance =
                |port| Instance { address: ([127, 0, 0, 1], port).into(), weight: None, priority: 0 };
            Ok((ports.into_iter().map(|port| instance(port).backend()).collect(), HashMap::new()))
        }
    }

    /// Polls until `pool` has the nodes `names` for the model `m`.
    async fn until(pool: &Pool, names: &[&str]) {
        let has = || {
            let mut found: Vec<_> = pool.of("m").iter().map(|node| node.name.to_string()).collect();
            found.sort();
            found
        };
        let soon = async {
            while has() != names {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), soon).await.unwrap_or_else(|_| panic!("{:?}", has()));
    }

    #[tokio::test]
    async fn the_nodes_behind_a_name_come_and_go_with_its_addresses() {
        let (pool, book, changes) =
            (Arc::new(Pool::default()), Phonebook::default(), Arc::new(Mutex::new(0)));
        let mut scout = Scout::new(
            Arc::clone(&pool),
            Arc::default(),
            HealthConfig::default(),
            Arc::new(Metrics::new().unwrap()),
        );
        let config = json!({"name": "box", "url": "dns+http://box.test:1", "protocol": "openai", "models": ["m"],
            "refresh": "10ms"});
        scout.names.push(Name {
            config: serde_json::from_value(config).unwrap(),
            canonical: Arc::new(|name| Some(name.to_owned())),
            backends: Backends::new(Box::new(book.clone())),
        });
        let counted = Arc::clone(&changes);
        scout.on_change(move || *counted.lock().unwrap() += 1);
        let running = tokio::spawn(async move { scout.run().await });
        book.has(Some(&[1, 2]));
        until(&pool, &["box/127.0.0.1:1", "box/127.0.0.1:2"]).await;
        let stays = Arc::clone(pool.of("m").iter().find(|node| node.name.ends_with(":2")).unwrap());
        book.has(Some(&[2, 3]));
        until(&pool, &["box/127.0.0.1:2", "box/127.0.0.1:3"]).await;
        assert!(pool.of("m").iter().any(|node| Arc::ptr_eq(node, &stays)), "who stays is the same node");
        book.has(None);
        let before = *changes.lock().unwrap();
        while *changes.lock().unwrap() < before + 3 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        until(&pool, &["box/127.0.0.1:2", "box/127.0.0.1:3"]).await;
        running.abort();
        until(&pool, &[]).await;
    }

    #[test]
    fn a_node_that_does_not_answer_keeps_what_the_config_names_and_nothing_else() {
        let pool = Arc::new(Pool::default());
        let watched = |models: serde_json::Value| {
            let config = json!({"name": "box", "url": "http://box", "protocol": "ollama", "models": models});
            let config: NodeConfig = serde_json::from_value(config).unwrap();
            let canonical: Canonical = Arc::new(crate::dialect::name::key);
            Watched::new(Node::remote(&config).unwrap(), &config, canonical, &pool)
        };
        let offer = |name: &str| Offer { name: name.into(), size: 7, ..Offer::default() };
        let (asked, named) = (watched(json!([])), watched(json!({"ours": "theirs:latest"})));
        assert_eq!(pool.models(), ["ours"]);
        assert!(asked.learn(vec![offer("Llama3:latest"), offer("/no name")]));
        assert!(!asked.learn(vec![offer("Llama3:latest"), offer("/no name")]), "nothing new");
        assert_eq!(pool.of("llama3")[0].name_of("llama3"), "Llama3:latest");
        named.learn(vec![offer("theirs:latest"), offer("more")]);
        assert_eq!(
            (named.node.name_of("ours").as_str(), named.node.offer("ours").unwrap().size),
            ("theirs:latest", 7)
        );
        assert!(asked.learn(Vec::new()));
        named.learn(Vec::new());
        assert_eq!(
            (pool.models(), named.node.name_of("ours").as_str()),
            (vec!["ours".to_owned()], "theirs:latest")
        );
        drop(named);
        assert!(pool.models().is_empty());
    }
}
