//! Which nodes a [`Scout`] keeps: from one configuration to the next, while requests run on them.

use std::sync::{Arc, PoisonError};

use futures::future::AbortHandle;
use pingora::lb::Backends;

use super::dns::Dns;
use super::scout::{Arrival, Followed, Scout};
use super::watched::{Entry, Kept};
use super::{Endpoint, HealthConfig, Host, Node, NodeConfig, NodeFault};

/// Entries of `nodes` that are sound, to be taken over by [`Scout::keep`].
pub struct Prepared(Vec<(NodeConfig, Option<Fresh>)>);

/// What an entry leads to that is not kept yet.
pub(super) enum Fresh {
    /// One node.
    Node(Box<Node>),
    /// A name behind which DNS has nodes.
    Name(Box<Backends>),
}

impl Fresh {
    fn new(config: &NodeConfig) -> Result<Self, NodeFault> {
        let node = Node::remote(config)?;
        Ok(match &node.endpoint {
            Endpoint::Tcp(host @ Host { each: Some(each), .. }) => {
                let dns = Dns::new(host, *each).map_err(|error| NodeFault::Dns(error.to_string()))?;
                Self::Name(Box::new(Backends::new(Box::new(dns))))
            }
            _ => Self::Node(Box::new(node)),
        })
    }
}

impl Scout {
    /// Reads what these entries need (certificates, say) that is not kept as it is. Touches nothing; with an error, the name of the entry.
    pub fn prepare(&self, nodes: &[NodeConfig]) -> Result<Prepared, (String, NodeFault)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let prepare = |config: &NodeConfig| {
            let is_kept = kept.get(&config.name).is_some_and(|kept| kept.entry.config == *config);
            let fresh = (!is_kept).then(|| Fresh::new(config)).transpose();
            Ok((config.clone(), fresh.map_err(|fault| (config.name.clone(), fault))?))
        };
        nodes.iter().map(prepare).collect::<Result<_, _>>().map(Prepared)
    }

    /// Keeps these nodes and no others, and probes by these rules. Those that are kept as they are stay the same nodes; those of changed
    /// entries are others, which are in the pool before the old ones leave it. Who leaves gets no more requests and finishes those it has.
    pub fn keep(&self, prepared: Prepared, health: HealthConfig) {
        *self.health.write().unwrap_or_else(PoisonError::into_inner) = health;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut before = std::mem::take(&mut *kept);
        for (config, fresh) in prepared.0 {
            let (name, same) = (config.name.clone(), before.remove(&config.name));
            let entry = match fresh {
                Some(fresh) => Some(self.follow_new(config, fresh, same)),
                None => same,
            };
            kept.extend(entry.map(|entry| (name, entry)));
        }
        drop(kept);
        before.into_values().for_each(|gone| self.let_go(gone));
        // What their models' names mean may have changed.
        self.all().iter().for_each(|watched| watched.rename());
        self.tell_change();
    }

    /// Has an entry followed, in place of another one.
    pub(super) fn follow_new(&self, config: NodeConfig, fresh: Fresh, before: Option<Kept>) -> Kept {
        let entry = Arc::new(Entry::new(config, before));
        let followed = match fresh {
            Fresh::Name(backends) => Followed::Name(backends),
            Fresh::Node(node) => {
                let watched = self.watch(*node, &entry);
                if watched.is_serving() {
                    self.succeed(&entry);
                }
                Followed::Node(watched)
            }
        };
        let (task, registration) = AbortHandle::new_pair();
        self.send(Arrival { entry: Arc::clone(&entry), followed, registration });
        Kept { entry, task }
    }

    /// The entry needs the one before it no longer.
    pub(super) fn succeed(&self, entry: &Entry) {
        if let Some(before) = entry.take_before() {
            self.let_go(before);
        }
    }

    fn let_go(&self, kept: Kept) {
        kept.task.abort();
        for watched in self.all().iter().filter(|watched| Arc::ptr_eq(&watched.entry, &kept.entry)) {
            watched.leave();
            let name = &watched.node.name;
            if self.pool.named(name).is_none() {
                // It is there only if the node was ever probed.
                self.metrics.node_up.remove_label_values(&[name]).ok();
            }
        }
        self.succeed(&kept.entry);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use serde_json::{Value, json};

    use super::*;
    use crate::node::{Canonical, Pool};
    use crate::telemetry::Metrics;

    fn scout_with(pool: &Arc<Pool>, canonical: Canonical) -> Scout {
        let metrics = Arc::new(Metrics::new().unwrap());
        Scout::new(Arc::clone(pool), Arc::default(), canonical, HealthConfig::default(), metrics)
    }

    fn scout(pool: &Arc<Pool>) -> Scout {
        scout_with(pool, Arc::new(crate::dialect::name::key))
    }

    fn entry(name: &str, more: Value) -> NodeConfig {
        let mut entry = json!({"name": name, "url": "unix:/nowhere", "protocol": "openai", "models": ["m"]});
        entry.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        serde_json::from_value(entry).unwrap()
    }

    fn keep(scout: &Scout, nodes: &[NodeConfig]) {
        scout.keep(scout.prepare(nodes).unwrap(), HealthConfig::default());
    }

    #[test]
    fn unchanged_nodes_stay_changed_ones_are_others_and_the_rest_leaves() {
        let pool = Arc::new(Pool::default());
        let scout = scout(&pool);
        let plain = |name| entry(name, json!({}));
        keep(&scout, &[plain("a"), plain("b"), plain("c")]);
        let node = |name: &str| pool.named(name);
        let (a, b, c) = (node("a").unwrap(), node("b").unwrap(), node("c").unwrap());
        keep(&scout, &[entry("b", json!({"weight": 5})), plain("a"), plain("d")]);
        assert!(Arc::ptr_eq(&a, &node("a").unwrap()));
        let changed = node("b").unwrap();
        assert_eq!(changed.standing.weight, 5.0);
        assert_ne!(changed.incarnation, b.incarnation);
        assert!(node("c").is_none() && node("d").is_some() && c.offer("m").is_some());
        assert_eq!(pool.of("m").len(), 3);
    }

    #[test]
    fn an_entry_that_is_not_sound_leaves_everything_as_it_was() {
        let pool = Arc::new(Pool::default());
        let scout = scout(&pool);
        keep(&scout, &[entry("a", json!({}))]);
        let missing = entry("b", json!({"url": "https://b", "tls": {"ca": "/nowhere"}}));
        let (name, fault) = scout.prepare(&[entry("c", json!({})), missing]).err().unwrap();
        assert_eq!(name, "b");
        assert!(fault.to_string().starts_with("tls.ca: "), "{fault}");
        assert!(pool.named("a").is_some() && pool.of("m").len() == 1);
    }

    #[tokio::test]
    async fn who_moves_stays_where_it_was_until_it_has_been_asked_there() {
        let pool = Arc::new(Pool::default());
        let scout = Arc::new(scout(&pool));
        let asked = |url: &str| entry("a", json!({"url": url, "models": [], "refresh": "1h"}));
        keep(&scout, &[asked("unix:/nowhere")]);
        let old = scout.all().remove(0);
        let offer = crate::node::protocol::Offer { name: "x".to_owned(), ..Default::default() };
        old.learn(vec![offer]);
        keep(&scout, &[asked("unix:/elsewhere")]);
        assert_eq!(pool.of("x").len(), 1, "there is no other yet");
        let running = tokio::spawn({
            let scout = Arc::clone(&scout);
            async move { scout.run().await }
        });
        let left = async {
            while !pool.of("x").is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), left).await.unwrap();
        running.abort();
    }

    #[test]
    fn names_are_looked_up_again_with_the_models_they_mean() {
        let pool = Arc::new(Pool::default());
        let ours = Arc::new(AtomicBool::new(false));
        let is_ours = Arc::clone(&ours);
        let canonical = move |name: &str| {
            Some(if is_ours.load(Ordering::SeqCst) { format!("our-{name}") } else { name.to_owned() })
        };
        let scout = scout_with(&pool, Arc::new(canonical));
        keep(&scout, &[entry("a", json!({}))]);
        assert_eq!(pool.models(), ["m"]);
        ours.store(true, Ordering::SeqCst);
        keep(&scout, &[entry("a", json!({}))]);
        assert_eq!(pool.models(), ["our-m"]);
    }
}
