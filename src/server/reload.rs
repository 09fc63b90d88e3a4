//! [`Reloader`]: takes a changed configuration while requests run: all of it, or nothing.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::heart::Heart;
use crate::admin::NotReloaded;
use crate::cache::Renewed;
use crate::config::{self, Config, Difference, Loaded, Problem, Sources, Step};
use crate::node::{NodeFault, Prepared, Roster};
use crate::proxy::Front;
use crate::telemetry;

/// Knows where the configuration comes from and what is in force, and changes that.
pub(super) struct Reloader {
    sources: Sources,
    heart: Arc<Heart>,
    /// Of the data port.
    address: SocketAddr,
    front: watch::Sender<Arc<Front>>,
    /// Held for as long as a change takes: there is one at a time.
    in_force: Mutex<InForce>,
    /// `limits.drain`, for who cannot wait for a change.
    drain: Mutex<Duration>,
}

/// What is in force.
pub(super) struct InForce {
    pub(super) config: Config,
    pub(super) roster: Roster,
}

impl Reloader {
    /// Has `heart`, which was made of `config`, keep its nodes and those that were registered when it ran last.
    pub(super) fn start(
        sources: Sources,
        config: Config,
        heart: Arc<Heart>,
        address: SocketAddr,
        front: watch::Sender<Arc<Front>>,
    ) -> Result<Self, String> {
        let directory = config::state_dir(&config, |name| sources.env.get(name).map(Into::into));
        let roster = Roster::open(directory.as_deref());
        let in_force = Mutex::new(InForce { config: config.clone(), roster: roster.clone() });
        let drain = Mutex::new(config.limits.drain);
        let reloader = Self { sources, heart, address, front, in_force, drain };
        let prepared = reloader.prepare(&config, &roster).map_err(|problems| problems.join("; "))?;
        reloader.keep(prepared, &config);
        Ok(reloader)
    }

    /// Reads what the nodes of the configuration and those registered need. A registered one that has a mistake by now is left out, and the
    /// log is told; with an error nothing has changed.
    pub(super) fn prepare(&self, config: &Config, roster: &Roster) -> Result<Prepared, Vec<String>> {
        let (whole, problems) = config::with_registered(config, roster.entries());
        for problem in problems {
            tracing::warn!(%problem, "a registered node is left out");
        }
        let in_words = |(name, fault): (String, NodeFault)| vec![format!("nodes.{name}: {fault}")];
        self.heart.scout.prepare(&whole.nodes).map_err(in_words)
    }

    /// Keeps these nodes and no others.
    pub(super) fn keep(&self, prepared: Prepared, config: &Config) {
        self.heart.scout.keep(prepared, config.health.clone());
    }

    /// What is in force now.
    pub(super) fn in_force(&self) -> MutexGuard<'_, InForce> {
        self.in_force.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long running requests may go on after SIGTERM.
    pub(super) fn drain(&self) -> Duration {
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the configuration again and puts it in force. What it changes, key by key, is told to the log too; with an error nothing has
    /// changed.
    pub(super) fn reload(&self) -> Result<Vec<Difference>, NotReloaded> {
        let mut in_force = self.in_force();
        let reloaded = self.reload_over(&mut in_force);
        match &reloaded {
            Ok(differences) if differences.is_empty() => tracing::info!("reloaded: nothing has changed"),
            Ok(differences) => {
                for difference in differences {
                    tracing::info!(%difference, "reloaded");
                }
            }
            Err(refused) => tracing::error!("not reloaded: {refused}"),
        }
        reloaded
    }

    /// The same for who cannot be answered.
    pub(super) fn reload_for_nobody(&self) {
        // The log has been told.
        self.reload().ok();
    }

    fn reload_over(&self, in_force: &mut InForce) -> Result<Vec<Difference>, NotReloaded> {
        let Loaded { config, missing_files, .. } =
            config::load(&self.sources).map_err(|refused| NotReloaded::Wrong(in_words(&refused.problems)))?;
        let differences = config::diff(&in_force.config, &config)
            .map_err(|error| NotReloaded::Wrong(vec![error.to_string()]))?;
        let fixed: Vec<_> = differences.iter().filter(|it| it.is_fixed()).map(ToString::to_string).collect();
        if !fixed.is_empty() {
            return Err(NotReloaded::NeedsRestart(fixed));
        }
        // A process starts without such a file, for it may come; but what runs is not given up for it.
        let missing: Vec<_> = missing_files
            .into_iter()
            .filter(|problem| is_of_changed_model(problem, &in_force.config, &config))
            .collect();
        if !missing.is_empty() {
            return Err(NotReloaded::Wrong(in_words(&missing)));
        }
        let prepared = self.prepare(&config, &in_force.roster).map_err(NotReloaded::Wrong)?;
        let cache =
            self.heart.prepare_cache(&config.cache).map_err(|fault| NotReloaded::Wrong(vec![fault]))?;
        self.put_in_force(&config, prepared, cache);
        in_force.config = config;
        Ok(differences)
    }

    /// Everything that could fail has been done.
    fn put_in_force(&self, config: &Config, prepared: Prepared, cache: Renewed) {
        let heart = &self.heart;
        let mut renewed = Vec::new();
        heart.dispatch.renew(config.queue.clone(), || {
            renewed = heart.library.renew(config.models.clone());
            self.keep(prepared, config);
        });
        heart.dispatch.configure(&config.routing, config.retry.clone(), config.breaker.clone());
        heart.dispatch.configure_sharing(config.coalesce.clone());
        heart.renew_cache(&config.cache, cache);
        heart.supervisor.renew(config.workers.clone(), config.memory.clone(), &renewed);
        self.front.send_replace(Arc::new(heart.front(config, self.address)));
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner) = config.limits.drain;
        telemetry::set_log_level(config.log.level);
    }
}

fn is_of_changed_model(problem: &Problem, before: &Config, now: &Config) -> bool {
    match problem.path.0.get(1) {
        Some(Step::Key(name)) => before.models.get(name) != now.models.get(name),
        _ => true,
    }
}

pub(super) fn in_words(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}
