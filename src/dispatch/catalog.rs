//! [`Catalog`]: the models that can be asked for, those of the library and those that only nodes serve, and the gate in front of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use crate::admission::{Gate, QueueConfig};
use crate::dialect::ModelCard;
use crate::library::{self, Library};
use crate::node::Pool;

/// What can be asked for now. Nodes come and go, and with them places and models; a model that had a node once stays known, so that
/// who asks for it learns that nobody serves it rather than that there is no such thing.
pub(super) struct Catalog {
    library: Arc<Library>,
    pool: Arc<Pool>,
    known: RwLock<Known>,
}

struct Known {
    queue: QueueConfig,
    /// By [`super::Target::name`].
    gates: HashMap<String, Arc<Gate>>,
    /// Models that only nodes serve, by the same.
    remote: BTreeMap<Arc<str>, Arc<ModelCard>>,
}

impl Catalog {
    pub(super) fn new(library: Arc<Library>, pool: Arc<Pool>, queue: QueueConfig) -> Self {
        let known = Known { queue, gates: HashMap::new(), remote: BTreeMap::new() };
        let catalog = Self { library, pool, known: RwLock::new(known) };
        catalog.refresh();
        catalog
    }

    /// Looks again at what models and nodes there are: makes each gate as wide as its workers and nodes together. That of a model that is gone
    /// stays as it was, for those in front of it.
    pub(super) fn refresh(&self) {
        // From the first look on: who looks later must not be overtaken.
        self.look(&mut self.write());
    }

    /// The same under other rules for those who wait.
    pub(super) fn configure(&self, queue: QueueConfig) {
        let mut known = self.write();
        known.gates.values().for_each(|gate| gate.configure(&queue));
        known.queue = queue;
        self.look(&mut known);
    }

    fn look(&self, known: &mut Known) {
        let mut places: HashMap<String, usize> = HashMap::new();
        for model in self.library.configured() {
            let parallel = usize::try_from(model.config.parallel).unwrap_or(usize::MAX);
            places.insert(model.name.clone(), parallel.saturating_mul(model.config.replicas));
        }
        known.remote.retain(|model, _| !places.contains_key(&**model));
        let mut remote = BTreeMap::new();
        for model in self.pool.models() {
            let nodes = self.pool.of(&model);
            let nodes = nodes.iter().filter(|node| node.is_remote());
            let is_ours = places.contains_key(&model);
            for node in nodes {
                let places = places.entry(model.clone()).or_default();
                *places = places.saturating_add(node.parallel);
                if !is_ours {
                    let card = || Arc::new(library::elsewhere(&model, node.offer(&model).as_ref()));
                    remote.entry(Arc::from(model.as_str())).or_insert_with(card);
                }
            }
        }
        known.remote.append(&mut remote);
        for (model, gate) in &known.gates {
            if let Some(places) = places.remove(model) {
                gate.resize(places);
            }
        }
        for (model, places) in places {
            known.gates.insert(model, Arc::new(Gate::new(places, &known.queue)));
        }
    }

    /// The gate of a known model.
    pub(super) fn gate(&self, model: &str) -> Option<Arc<Gate>> {
        self.read().gates.get(model).cloned()
    }

    /// The name and the card of a model that only nodes serve.
    pub(super) fn remote(&self, model: &str) -> Option<(Arc<str>, Arc<ModelCard>)> {
        let known = self.read();
        known.remote.get_key_value(model).map(|(name, card)| (Arc::clone(name), Arc::clone(card)))
    }

    /// The models that only nodes serve, as far as one of them does now.
    pub(super) fn served_elsewhere(&self) -> Vec<Arc<ModelCard>> {
        let known = self.read();
        let served = known.remote.iter().filter(|(name, _)| !self.pool.of(name).is_empty());
        served.map(|(_, card)| Arc::clone(card)).collect()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}
