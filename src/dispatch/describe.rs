//! What there is to ask for, described: the models of the library and those that only nodes serve. Cards are read from the
//! disk, so none of this belongs on a thread that serves requests.

use std::sync::Arc;
use std::time::Instant;

use time::OffsetDateTime;

use super::Dispatch;
use crate::dialect::{ArrivingModel, LoadedModel, ModelCard, name};
use crate::error::Error;
use crate::generation::Loading;
use crate::node::{MOST_HOPS, Resident, Via};

impl Dispatch {
    /// Every model, most recently changed file first, each followed by those that its adapters make of it, and models without a
    /// file last. What has a file that cannot be read is left out: it cannot be asked for. An Arriero that asks, `via` itself, is told
    /// what it could have from here.
    pub fn cards(&self, via: &Via) -> Vec<Arc<ModelCard>> {
        let mut cards = Vec::new();
        for model in self.library.models() {
            let Ok(card) = model.card() else { continue };
            let adapters = model.config.adapters.keys();
            let adapted = adapters.filter_map(|name| model.adapted(name, &card).ok().map(Arc::new));
            cards.extend(std::iter::once(Arc::clone(&card)).chain(adapted));
        }
        cards.extend(self.catalog.served_elsewhere().into_iter().filter_map(|card| self.told(card, via)));
        cards
    }

    /// The card of a model that only nodes serve, with the shortest way to it that leads through nobody of `via`; `None`: there is none.
    fn told(&self, card: Arc<ModelCard>, via: &Via) -> Option<Arc<ModelCard>> {
        if via.is_empty() {
            return Some(card);
        }
        let ways = self.pool.of(&card.name).into_iter().map(|node| node.way(&card.name));
        let way = ways.filter(|way| !way.meets(via)).min_by_key(Via::len)?;
        // The last one that may be asked for it is the one that asks.
        (way.len() + 1 < MOST_HOPS).then(|| Arc::new(ModelCard { via: way.names(), ..(*card).clone() }))
    }

    /// The model that `name` means; `full` is for `verbose`.
    pub fn card(&self, name: &str, full: bool) -> Result<Arc<ModelCard>, Error> {
        let unknown = || Error::ModelNotFound { name: name.to_owned() };
        let target = self.find(name)?.ok_or_else(unknown)?;
        let Some(model) = target.model else {
            return self.catalog.remote(&target.name).map(|(_, card)| card).ok_or_else(unknown);
        };
        let card = if full { model.full_card().map(Arc::new) } else { model.card() };
        let card = match target.adapter {
            Some(name) => card.and_then(|card| model.adapted(&name, &card).map(Arc::new)),
            None => card,
        };
        card.map_err(|reason| Error::LoadFailed { model: model.name.clone(), reason })
    }

    /// The models in memory: here, then elsewhere, as far as nodes tell.
    pub fn loaded(&self) -> Vec<LoadedModel> {
        let mut loaded = self.loaded_here();
        let elsewhere = self.catalog.served_elsewhere().into_iter();
        loaded.extend(elsewhere.filter_map(|card| self.loaded_elsewhere(card)));
        loaded
    }

    /// The models on their way into memory, here.
    pub fn arriving(&self) -> Vec<ArrivingModel> {
        let arriving = self.supervisor.arriving().into_iter();
        arriving
            .filter_map(|(model, loading)| Some(ArrivingModel { card: model.card().ok()?, loading }))
            .collect()
    }

    /// How far the model of this name is on its way; `None`: it takes requests, or nobody has asked for it.
    pub fn loading(&self, name: &str) -> Option<Loading> {
        self.supervisor.loading(&*self.find(name).ok()??.model?)
    }

    /// A model that is in the memory of a node that serves it.
    fn loaded_elsewhere(&self, card: Arc<ModelCard>) -> Option<LoadedModel> {
        let nodes = self.pool.of(&card.name);
        let resident = nodes.iter().find_map(|node| {
            let theirs = node.named(&card.name, name::key);
            let is_it = |resident: &&Resident| name::key(&resident.name) == theirs;
            node.signal(Instant::now(), |signal| signal.resident.as_ref()?.iter().find(is_it).cloned())?
        })?;
        Some(LoadedModel {
            card,
            memory: resident.memory,
            device_memory: resident.device_memory,
            expires: resident.expires.map(OffsetDateTime::from),
            context: resident.context,
        })
    }

    fn loaded_here(&self) -> Vec<LoadedModel> {
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
