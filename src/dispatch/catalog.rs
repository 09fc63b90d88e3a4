//! [`Catalog`]: the models that can be asked for, those of the library and those that only nodes serve, and the gate in front of each.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use crate::admission::{Gate, QueueConfig};
use crate::dialect::ModelCard;
use crate::library::{self, Library};
use crate::node::Pool;

/// What can be asked for now. Nodes come and go, and with them places and models; a model that had a node once stays known, so that
/// who asks for it learns that nobody serves it rather than that there is no such thing.
pub(super) struct Catalog {
    library: Arc<Library>,
    pool: Arc<Pool>,
    queue: QueueConfig,
    known: RwLock<Known>,
}

#[derive(Default)]
struct Known {
    /// By [`super::Target::name`].
    gates: HashMap<String, Arc<Gate>>,
    /// Models that only nodes serve, by the same.
    remote: BTreeMap<Arc<str>, Arc<ModelCard>>,
}

impl Catalog {
    pub(super) fn new(library: Arc<Library>, pool: Arc<Pool>, queue: QueueConfig) -> Self {
        let catalog = Self { library, pool, queue, known: RwLock::default() };
        catalog.refresh();
        catalog
    }

    /// Looks again at what nodes there are: makes each gate as wide as its workers and nodes together.
    pub(super) fn refresh(&self) {
        let mut places: HashMap<String, usize> = HashMap::new();
        for model in self.library.models() {
            let parallel = usize::try_from(model.config.parallel).unwrap_or(usize::MAX);
            places.insert(model.name.clone(), parallel.saturating_mul(model.config.replicas));
        }
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
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        known.remote.append(&mut remote);
        for (model, gate) in &known.gates {
            if let Some(places) = places.remove(model) {
                gate.resize(places);
            }
        }
        for (model, places) in places {
            known.gates.insert(model, Arc::new(Gate::new(places, &self.queue)));
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

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }
}
