//! [`Shelf`]: the models of one configuration, by every name that means one of them. It never changes; the library has another one.

use std::collections::HashMap;
use std::sync::Arc;

use super::{Model, Named, key};

/// Models by name, alias and the names of their adapters.
#[derive(Default)]
pub(super) struct Shelf {
    models: Vec<Arc<Model>>,
    by_key: HashMap<String, Named>,
}

impl Shelf {
    pub(super) fn new(models: Vec<Arc<Model>>) -> Self {
        let mut by_key = HashMap::new();
        // A name wins over an alias, and the first alias over the second; `arriero check` complains about both.
        let names = models.iter().map(|model| (&model.name, model));
        let aliases = models.iter().flat_map(|model| model.config.aliases.iter().map(move |a| (a, model)));
        for (name, model) in names.chain(aliases) {
            by_key.entry(key(name)).or_insert_with(|| Named { model: Arc::clone(model), adapter: None });
        }
        for (name, model) in models.iter().flat_map(|m| m.config.adapters.keys().map(move |name| (name, m))) {
            let named = || Named { model: Arc::clone(model), adapter: Some(name.as_str().into()) };
            by_key.entry(key(name)).or_insert_with(named);
        }
        Self { models, by_key }
    }

    /// Every model, in the order of the configuration.
    pub(super) fn models(&self) -> &[Arc<Model>] {
        &self.models
    }

    /// What a name means, by its key.
    pub(super) fn get(&self, key: &str) -> Option<&Named> {
        self.by_key.get(key)
    }

    /// The model that is configured as `name`.
    pub(super) fn model(&self, name: &str) -> Option<&Arc<Model>> {
        self.models.iter().find(|model| model.name == name)
    }

    /// Retires what `next` has no longer.
    pub(super) fn give_way_to(&self, next: &Self) {
        let stays = |model: &Model| next.models.iter().any(|other| other.edition() == model.edition());
        self.models.iter().filter(|model| !stays(model)).for_each(|model| model.edition.retire());
    }
}
