use std::collections::BTreeSet;
use std::sync::Mutex;

use async_trait::async_trait;
use pingora::lb::Backend;
use pingora::lb::discovery::ServiceDiscovery;
use serde_json::json;

use super::*;
use crate::node::keep::Fresh;

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
        let instance = |port| Instance { address: ([127, 0, 0, 1], port).into(), weight: None, priority: 0 };
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
    let (pool, book, changes) = (Arc::new(Pool::default()), Phonebook::default(), Arc::new(Mutex::new(0)));
    let scout = scout(&pool);
    let metrics = Arc::clone(&scout.metrics);
    let config = json!({"name": "box", "url": "dns+http://box.test:1", "protocol": "openai", "models": ["m"],
        "refresh": "10ms"});
    let config = serde_json::from_value(config).unwrap();
    scout.follow_new(config, Fresh::Name(Box::new(Backends::new(Box::new(book.clone())))), None);
    let counted = Arc::clone(&changes);
    scout.on_change(move || *counted.lock().unwrap() += 1);
    let running = tokio::spawn(async move { scout.run().await });
    book.has(Some(&[1, 2]));
    until(&pool, &["box/127.0.0.1:1", "box/127.0.0.1:2"]).await;
    metrics.inflight.with_label_values(&["box/127.0.0.1:1"]).inc();
    let stays = Arc::clone(pool.of("m").iter().find(|node| node.name.ends_with(":2")).unwrap());
    book.has(Some(&[2, 3]));
    until(&pool, &["box/127.0.0.1:2", "box/127.0.0.1:3"]).await;
    assert!(pool.of("m").iter().any(|node| Arc::ptr_eq(node, &stays)), "who stays is the same node");
    assert!(!metrics.render().unwrap().contains("box/127.0.0.1:1\""), "who has left is not counted");
    book.has(None);
    let before = *changes.lock().unwrap();
    while *changes.lock().unwrap() < before + 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    until(&pool, &["box/127.0.0.1:2", "box/127.0.0.1:3"]).await;
    running.abort();
    until(&pool, &[]).await;
}

#[tokio::test]
async fn the_nodes_of_a_name_stay_until_those_of_the_name_in_its_place_are_known() {
    let pool = Arc::new(Pool::default());
    let (old, new) = (Phonebook::default(), Phonebook::default());
    let scout = Arc::new(scout(&pool));
    let follow = |book: &Phonebook, weight: u32, before: Option<Kept>| {
        let config = json!({"name": "box", "url": "dns+http://box.test:1", "protocol": "openai", "models": ["m"],
            "refresh": "10ms", "weight": weight});
        let backends = Box::new(Backends::new(Box::new(book.clone())));
        scout.follow_new(serde_json::from_value(config).unwrap(), Fresh::Name(backends), before)
    };
    old.has(Some(&[1]));
    let before = follow(&old, 1, None);
    let running = tokio::spawn({
        let scout = Arc::clone(&scout);
        async move { scout.run().await }
    });
    until(&pool, &["box/127.0.0.1:1"]).await;
    let first = pool.named("box/127.0.0.1:1").unwrap();
    let _after = follow(&new, 2, Some(before));
    old.has(Some(&[1, 2]));
    until(&pool, &["box/127.0.0.1:1", "box/127.0.0.1:2"]).await;
    assert!(pool.of("m").iter().any(|node| Arc::ptr_eq(node, &first)), "the new one cannot be looked up");
    new.has(Some(&[1]));
    let is_taken_over = || {
        let nodes = pool.of("m");
        nodes.len() == 1 && nodes[0].standing.weight == 2.0
    };
    let soon = async {
        while !is_taken_over() {
            assert!(!pool.of("m").is_empty(), "there is no instant without a node");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), soon).await.unwrap();
    running.abort();
}

fn scout(pool: &Arc<Pool>) -> Scout {
    let (canonical, metrics) = (Arc::new(crate::dialect::name::key), Arc::new(Metrics::new().unwrap()));
    Scout::new(Arc::clone(pool), Arc::default(), canonical, HealthConfig::default(), metrics)
}
