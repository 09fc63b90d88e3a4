//! [`Reloader`]: takes a changed configuration while requests run: all of it, or nothing.

use std::sync::{Arc, Mutex, PoisonError};

use crate::admin::NotReloaded;
use crate::config::{self, Config, Difference, Sources};
use crate::dispatch::Dispatch;

/// Knows where the configuration comes from and what is in force.
pub(super) struct Reloader {
    sources: Sources,
    current: Mutex<Config>,
    dispatch: Arc<Dispatch>,
}

impl Reloader {
    pub(super) fn new(sources: Sources, current: Config, dispatch: Arc<Dispatch>) -> Self {
        Self { sources, current: Mutex::new(current), dispatch }
    }

    /// Reads the configuration again and puts it in force. What it changes, key by key; with an error nothing has changed.
    pub(super) fn reload(&self) -> Result<Vec<Difference>, NotReloaded> {
        let loaded = config::load(&self.sources).map_err(|refused| {
            NotReloaded::Wrong(refused.problems.iter().map(ToString::to_string).collect())
        })?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let differences = config::diff(&current, &loaded.config)
            .map_err(|error| NotReloaded::Wrong(vec![error.to_string()]))?;
        let fixed: Vec<_> = differences.iter().filter(|it| it.is_fixed()).map(ToString::to_string).collect();
        if !fixed.is_empty() {
            return Err(NotReloaded::NeedsRestart(fixed));
        }
        let config = loaded.config;
        self.dispatch.configure(&config.routing, config.retry.clone(), config.breaker.clone());
        self.dispatch.configure_sharing(config.coalesce.clone());
        *current = config;
        Ok(differences)
    }

    /// The same for who cannot be answered: the log is told.
    pub(super) fn reload_and_log(&self) {
        match self.reload() {
            Ok(differences) if differences.is_empty() => tracing::info!("reloaded: nothing has changed"),
            Ok(differences) => {
                for difference in differences {
                    tracing::info!(%difference, "reloaded");
                }
            }
            Err(refused) => tracing::error!("not reloaded: {refused}"),
        }
    }
}
