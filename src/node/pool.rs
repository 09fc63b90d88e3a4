//! [`Pool`]: which nodes can run which model right now.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};

use super::Node;

/// Which nodes take requests for which model. Workers are added when ready and removed when they stop or die; whoever adds
/// a node removes it.
#[derive(Default)]
pub struct Pool {
    nodes: RwLock<HashMap<String, Vec<Arc<Node>>>>,
}

impl Pool {
    /// Lets `node` take requests for `model`.
    pub fn add(&self, model: &str, node: Arc<Node>) {
        self.write().entry(model.to_owned()).or_default().push(node);
    }

    /// Takes the node out, by identity (name and incarnation).
    pub fn remove(&self, model: &str, node: &Node) {
        if let Some(nodes) = self.write().get_mut(model) {
            nodes.retain(|n| n.name != node.name || n.incarnation != node.incarnation);
        }
    }

    /// The nodes that take requests for `model` now; a snapshot.
    pub fn of(&self, model: &str) -> Vec<Arc<Node>> {
        self.read().get(model).cloned().unwrap_or_default()
    }

    /// Lets `node` take requests for `models` and for no others.
    pub fn serve(&self, node: &Arc<Node>, models: &[String]) {
        let mut pool = self.write();
        for nodes in pool.values_mut() {
            nodes.retain(|known| !Arc::ptr_eq(known, node));
        }
        pool.retain(|_, nodes| !nodes.is_empty());
        for model in models {
            pool.entry(model.clone()).or_default().push(Arc::clone(node));
        }
    }

    /// The models that a node takes requests for now.
    pub fn models(&self) -> Vec<String> {
        let pool = self.read();
        pool.iter().filter(|(_, nodes)| !nodes.is_empty()).map(|(model, _)| model.clone()).collect()
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<String, Vec<Arc<Node>>>> {
        self.nodes.read().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, HashMap<String, Vec<Arc<Node>>>> {
        self.nodes.write().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
