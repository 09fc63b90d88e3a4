//! [`Pool`]: which nodes can run which model right now.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::Instant;

use super::Node;
use super::traffic::outliers;

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

    /// Whether a node that is no worker takes requests for `model` now.
    pub fn has_remote(&self, model: &str) -> bool {
        self.read().get(model).is_some_and(|nodes| nodes.iter().any(|node| node.is_remote()))
    }

    /// A node of this name, if one takes requests.
    pub fn named(&self, name: &str) -> Option<Arc<Node>> {
        self.read().values().flatten().find(|node| *node.name == *name).cloned()
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

    /// Compares the nodes of each model: who answers much later than the others is told so.
    pub fn compare(&self, now: Instant) {
        let mut odd: HashMap<*const Node, (Arc<Node>, Option<String>)> = HashMap::new();
        for (model, nodes) in &*self.read() {
            let means: Vec<_> = nodes.iter().map(|node| node.usual(model, now)).collect();
            for (node, found) in nodes.iter().zip(outliers(&means)) {
                let known = odd.entry(Arc::as_ptr(node)).or_insert_with(|| (Arc::clone(node), None));
                known.1 = known.1.take().or(found.map(|how| format!("{model}: {how}")));
            }
        }
        for (node, found) in odd.into_values() {
            node.health(|health| health.compared(found));
        }
    }

    /// Every node, by name, with the models that it takes requests for.
    pub fn nodes(&self) -> Vec<(Arc<Node>, Vec<String>)> {
        let mut nodes: Vec<(Arc<Node>, Vec<String>)> = Vec::new();
        for (model, serving) in &*self.read() {
            for node in serving {
                match nodes.iter_mut().find(|(known, _)| Arc::ptr_eq(known, node)) {
                    Some((_, models)) => models.push(model.clone()),
                    None => nodes.push((Arc::clone(node), vec![model.clone()])),
                }
            }
        }
        nodes.iter_mut().for_each(|(_, models)| models.sort());
        nodes.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        nodes
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
