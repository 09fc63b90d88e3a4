//! [`Entry`] and [`Watched`]: an entry of `nodes`, and a node of one, for as long as they are kept.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::AbortHandle;

use super::protocol::Offer;
use super::{Node, NodeConfig, Pool};
use crate::telemetry::Metrics;

/// Most models of a node: each has a line in lists and metrics of its own.
const MOST_MODELS: usize = 1000;

/// How Arriero spells a model's name; `None`: clients cannot ask for it.
pub type Canonical = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// An entry of `nodes`.
pub(super) struct Entry {
    pub config: NodeConfig,
    /// The entry whose place it takes, until it is known what this one has: there is to be no instant without either.
    before: Mutex<Option<Kept>>,
    /// That one led to the same server.
    is_same_server: bool,
}

/// An entry that is followed by a task.
pub(super) struct Kept {
    pub entry: Arc<Entry>,
    pub task: AbortHandle,
}

impl Entry {
    pub(super) fn new(config: NodeConfig, before: Option<Kept>) -> Self {
        let is_same = |kept: &Kept| {
            kept.entry.config.url == config.url && kept.entry.config.protocol == config.protocol
        };
        Self { is_same_server: before.as_ref().is_some_and(is_same), config, before: Mutex::new(before) }
    }

    /// The entry whose place it takes, once.
    pub(super) fn take_before(&self) -> Option<Kept> {
        self.before.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether another entry still serves for it.
    pub(super) fn has_before(&self) -> bool {
        self.before.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
}

/// One node. Dropping it takes the node out of the pool and out of the metrics.
pub(super) struct Watched {
    pub node: Arc<Node>,
    pub entry: Arc<Entry>,
    pool: Arc<Pool>,
    metrics: Arc<Metrics>,
    canonical: Canonical,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    /// What the node says it has, by its own names.
    offers: Vec<Offer>,
    /// It has been let go: nothing it says counts.
    is_gone: bool,
}

impl Watched {
    /// Puts `node` into the pool for what its entry says that it serves; for what it had said of itself before its entry changed, if the entry
    /// leads to the same server. A node that a person has drained stays so.
    pub(super) fn new(
        node: Node,
        entry: Arc<Entry>,
        canonical: Canonical,
        pool: &Arc<Pool>,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let (node, pool, metrics) = (Arc::new(node), Arc::clone(pool), Arc::clone(metrics));
        let before = pool.named(&node.name);
        let drained = before.as_ref().and_then(|before| {
            before.health(|health| health.condition().is_drained().then(|| health.reason()))
        });
        if let Some(reason) = drained {
            node.health(|health| health.drain(&reason));
        }
        let offers = before.filter(|_| entry.is_same_server).map(|before| before.offers());
        let watched = Self { node, entry, pool, metrics, canonical, known: Mutex::default() };
        watched.learn(offers.unwrap_or_default());
        watched
    }

    /// Takes what the node says it has. Whether it serves something else now. What the config names it serves in any case.
    pub(super) fn learn(&self, found: Vec<Offer>) -> bool {
        let mut known = self.known();
        known.offers = found;
        self.serve(&known)
    }

    /// Whether it takes requests.
    pub(super) fn is_serving(&self) -> bool {
        !self.node.offers().is_empty()
    }

    /// Looks again at what the node's names mean.
    pub(super) fn rename(&self) {
        self.serve(&self.known());
    }

    /// Takes no more requests.
    pub(super) fn leave(&self) {
        let mut known = self.known();
        known.is_gone = true;
        self.pool.serve(&self.node, &[]);
        // One that has taken its place goes by its name.
        if self.pool.named(&self.node.name).is_none() {
            self.metrics.forget_node(&self.node.name);
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes requests for exactly what it has. Whether that is something else than before.
    fn serve(&self, known: &Known) -> bool {
        if known.is_gone {
            return false;
        }
        let served = &self.entry.config.models.0;
        let offer = |theirs: &str| known.offers.iter().find(|offer| offer.name == theirs).cloned();
        let named = served
            .iter()
            .map(|model| (model.name.as_str(), offer(&model.theirs).unwrap_or_else(|| bare(&model.theirs))));
        // An entry that names no models takes what there is.
        let all = known.offers.iter().filter(|_| served.is_empty()).take(MOST_MODELS);
        let offers = named.chain(all.map(|offer| (offer.name.as_str(), offer.clone())));
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
        self.leave();
    }
}

/// A model of which nothing but the name is known.
fn bare(name: &str) -> Offer {
    Offer { name: name.to_owned(), ..Offer::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn watched(config: serde_json::Value, before: Option<&Watched>, pool: &Arc<Pool>) -> Watched {
        let config: NodeConfig = serde_json::from_value(config).unwrap();
        let (task, _) = AbortHandle::new_pair();
        let before = before.map(|before| Kept { entry: Arc::clone(&before.entry), task });
        let node = Node::remote(&config).unwrap();
        let (entry, canonical) = (Arc::new(Entry::new(config, before)), Arc::new(crate::dialect::name::key));
        Watched::new(node, entry, canonical, pool, &Arc::new(Metrics::new().unwrap()))
    }

    fn serving(models: serde_json::Value, pool: &Arc<Pool>) -> Watched {
        let config = json!({"name": "box", "url": "http://box", "protocol": "ollama", "models": models});
        watched(config, None, pool)
    }

    fn offer(name: &str) -> Offer {
        Offer { name: name.into(), size: 7, ..Offer::default() }
    }

    #[test]
    fn a_node_that_does_not_answer_keeps_what_the_config_names_and_nothing_else() {
        let pool = Arc::new(Pool::default());
        let (asked, named) = (serving(json!([]), &pool), serving(json!({"ours": "theirs:latest"}), &pool));
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

    #[test]
    fn who_was_let_go_does_not_come_back_by_what_it_says() {
        let pool = Arc::new(Pool::default());
        let watched = serving(json!([]), &pool);
        watched.learn(vec![offer("a")]);
        watched.leave();
        assert!(!watched.learn(vec![offer("a"), offer("b")]));
        watched.rename();
        assert!(pool.models().is_empty());
    }

    #[test]
    fn a_changed_entry_for_the_same_server_begins_with_what_that_has_and_stays_drained() {
        let pool = Arc::new(Pool::default());
        let entry = |url: &str, weight: u32| json!({"name": "box", "url": url, "protocol": "ollama", "weight": weight});
        let first = watched(entry("http://box", 1), None, &pool);
        first.learn(vec![offer("a")]);
        first.node.health(|health| health.drain("new memory"));
        let same = watched(entry("http://box", 2), Some(&first), &pool);
        assert_eq!((pool.of("a").len(), same.node.offer("a").unwrap().size), (2, 7));
        assert!(same.node.condition().is_drained());
        drop(first);
        let elsewhere = watched(entry("http://other", 2), Some(&same), &pool);
        assert!(elsewhere.node.condition().is_drained());
        assert_eq!(pool.of("a").len(), 1, "what it has is not known yet");
    }
}
