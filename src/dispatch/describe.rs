//! What there is to ask for, described: the models of the library and those that only nodes serve. Cards are read from the
//! disk, so none of this belongs on a thread that serves requests.

use std::sync::Arc;

use time::OffsetDateTime;

use super::Dispatch;
use crate::dialect::{LoadedModel, ModelCard};
use crate::error::Error;

impl Dispatch {
    /// Every model, most recently changed file first, those without a file last. A model whose file cannot be read is left
    /// out: it cannot be asked for.
    pub fn cards(&self) -> Vec<Arc<ModelCard>> {
        let local = self.library.models().into_iter().filter_map(|model| model.card().ok());
        local.chain(self.remote.values().cloned()).collect()
    }

    /// The model that `name` means; `full` is for `verbose`.
    pub fn card(&self, name: &str, full: bool) -> Result<Arc<ModelCard>, Error> {
        let unknown = || Error::ModelNotFound { name: name.to_owned() };
        let target = self.find(name)?.ok_or_else(unknown)?;
        let Some(model) = target.model else {
            return self.remote.get(&target.name).map(Arc::clone).ok_or_else(unknown);
        };
        let card = if full { model.full_card().map(Arc::new) } else { model.card() };
        card.map_err(|reason| Error::LoadFailed { model: model.name.clone(), reason })
    }

    /// The models in memory.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        let loaded = self.supervisor.loaded().into_iter();
        loaded
            .filter_map(|loaded| {
                Some(LoadedModel {
                    card: loaded.model.card().ok()?,
                    memory: loaded.memory,
                    device_memory: loaded.device_memory,
                    expires: loaded.expires.map(OffsetDateTime::from),
                    context: u64::from(loaded.context),
                })
            })
            .collect()
    }
}
