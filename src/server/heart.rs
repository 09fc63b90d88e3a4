//! [`Heart`]: what outlives a request, put together from the config.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use tokio_util::task::TaskTracker;

use super::reload::Reloader;
use crate::admin::{self, AdminState};
use crate::cache::{CacheConfig, Renewed, Responses, Vectors};
use crate::config::Config;
use crate::dispatch::{Dispatch, Parts};
use crate::library::{Library, Model};
use crate::node::{Pool, Scout};
use crate::proxy::{Access, Front, Proxy, Readiness};
use crate::routing::Sites;
use crate::telemetry::Metrics;
use crate::upstream::Upstream;
use crate::worker::Supervisor;

/// Everything that outlives a request.
pub(super) struct Heart {
    pub(super) library: Arc<Library>,
    pool: Arc<Pool>,
    pub(super) scout: Arc<Scout>,
    pub(super) supervisor: Arc<Supervisor>,
    pub(super) dispatch: Arc<Dispatch>,
    metrics: Arc<Metrics>,
    /// One token per request under way.
    pub(super) active: TaskTracker,
    pub(super) draining: Arc<AtomicBool>,
    readiness: Readiness,
}

impl Heart {
    /// Keeps no remote nodes yet.
    pub(super) fn new(config: &Config, dir: &Path) -> Result<Self, String> {
        let metrics = Arc::new(Metrics::new().map_err(|error| error.to_string())?);
        let library = Arc::new(Library::open(config.models.clone(), dir));
        let (pool, upstream) = (Arc::new(Pool::default()), Arc::new(Upstream::default()));
        let names = Arc::clone(&library);
        let scout = Scout::new(
            Arc::clone(&pool),
            Arc::clone(&upstream),
            Arc::new(move |name: &str| names.known_as(name)),
            config.health.clone(),
            Arc::clone(&metrics),
        );
        let program =
            std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
        let supervisor = Arc::new(Supervisor::new(
            config.workers.clone(),
            config.memory.clone(),
            Arc::clone(&library),
            Arc::clone(&pool),
            Arc::clone(&metrics),
            program,
            dir.to_owned(),
        ));
        let dispatch = Arc::new(Dispatch::new(Parts {
            library: Arc::clone(&library),
            supervisor: Arc::clone(&supervisor),
            pool: Arc::clone(&pool),
            routing: config.routing.clone(),
            breaker: config.breaker.clone(),
            queue: config.queue.clone(),
            retry: config.retry.clone(),
            coalesce: config.coalesce.clone(),
            responses: responses(&config.cache, &metrics)?,
            vectors: Arc::new(Vectors::new(&config.cache.embeddings, Arc::clone(&metrics))),
            upstream,
            metrics: Arc::clone(&metrics),
        }));
        let changed = Arc::clone(&dispatch);
        scout.on_change(move || changed.nodes_changed());
        let (active, draining) = (TaskTracker::new(), Arc::new(AtomicBool::new(false)));
        let readiness = readiness(&draining, &library, &pool, &supervisor);
        Ok(Self {
            library,
            pool,
            scout: Arc::new(scout),
            supervisor,
            dispatch,
            metrics,
            active,
            draining,
            readiness,
        })
    }

    /// What the data port at `address` answers with under this configuration.
    pub(super) fn front(&self, config: &Config, address: SocketAddr) -> Front {
        Front::new(Proxy {
            dispatch: Arc::clone(&self.dispatch),
            access: Access::new(config.origins.clone(), address.ip()),
            limits: config.limits.clone(),
            passthrough: config.passthrough.clone(),
            headers: config.headers,
            sites: Sites::new(&config.routing.sites),
            site_header: config.routing.sites.header.parse().ok(),
            drills: config.faults.enabled,
            readiness: Arc::clone(&self.readiness),
            metrics: Arc::clone(&self.metrics),
            active: self.active.clone(),
        })
    }

    /// Makes what the `cache` section of another configuration needs; nothing has changed yet.
    pub(super) fn prepare_cache(&self, config: &CacheConfig) -> Result<Renewed, String> {
        self.dispatch.responses().prepare(&config.responses, disk(config).as_deref())
    }

    /// Puts it in force.
    pub(super) fn renew_cache(&self, config: &CacheConfig, renewed: Renewed) {
        let responses = self.dispatch.responses();
        responses.renew(renewed);
        responses.likeness.configure(&config.semantic);
        responses.prefetch.configure(&config.prefetch);
        self.dispatch.vectors().configure(&config.embeddings);
    }

    pub(super) fn admin(&self, address: SocketAddr, reloader: &Arc<Reloader>) -> AdminState {
        let (library, pool) = (Arc::clone(&self.library), Arc::clone(&self.pool));
        let told = Arc::clone(&self.supervisor);
        let (supervisor, started) = (Arc::clone(&self.supervisor), Instant::now());
        let (reloader, registrar) = (Arc::clone(reloader), Arc::clone(reloader) as Arc<dyn admin::Registrar>);
        AdminState {
            registrar,
            reload: Arc::new(move || reloader.reload()),
            metrics: Arc::clone(&self.metrics),
            readiness: Arc::clone(&self.readiness),
            access: Arc::new(Access::new(Vec::new(), address.ip())),
            kept: admin::kept(&self.dispatch),
            nodes: Arc::clone(&self.dispatch) as Arc<dyn admin::Nodes>,
            change_settings: admin::change_settings(Arc::clone(&self.dispatch)),
            models: Arc::new(move || admin::models(&told)),
            status: Arc::new(move || admin::status(&library, &pool, &supervisor, started)),
            save_snapshot: admin::save_snapshot(Arc::clone(&self.dispatch)),
            loads: Arc::clone(&self.dispatch) as Arc<dyn admin::Loads>,
        }
    }
}

/// What is kept of answers.
fn responses(config: &CacheConfig, metrics: &Arc<Metrics>) -> Result<Arc<Responses>, String> {
    let responses = Responses::new(&config.responses, disk(config).as_deref(), metrics)?;
    responses.likeness.configure(&config.semantic);
    responses.prefetch.configure(&config.prefetch);
    Ok(Arc::new(responses))
}

/// The folder of answers on disk.
fn disk(config: &CacheConfig) -> Option<PathBuf> {
    let folder = config.responses.disk.folder(|name| std::env::var_os(name));
    if folder.is_none() && config.responses.disk.budget > 0 {
        tracing::warn!(
            "no answers on disk: neither cache.responses.disk.dir nor XDG_CACHE_HOME nor HOME is set"
        );
    }
    folder
}

/// Ready while not stopping and, where models are preloaded, from the moment one of them could serve or has turned out not
/// to: from then on models come and go, and each request loads what it needs.
fn readiness(
    draining: &Arc<AtomicBool>,
    library: &Arc<Library>,
    pool: &Arc<Pool>,
    supervisor: &Arc<Supervisor>,
) -> Readiness {
    let (draining, library) = (Arc::clone(draining), Arc::clone(library));
    let (pool, supervisor) = (Arc::clone(pool), Arc::clone(supervisor));
    let has_begun = AtomicBool::new(false);
    Arc::new(move || {
        if draining.load(Ordering::Acquire) {
            return Err("shutting down".into());
        }
        if has_begun.load(Ordering::Acquire) {
            return Ok(());
        }
        // Those of the configuration that is in force now.
        let mut preloaded = library.configured();
        preloaded.retain(|model| model.config.preload);
        let is_settled =
            |model: &Arc<Model>| !pool.of(&model.name).is_empty() || supervisor.has_failed(model);
        if preloaded.is_empty() || preloaded.iter().any(is_settled) {
            has_begun.store(true, Ordering::Release);
            return Ok(());
        }
        let names: Vec<_> = preloaded.iter().map(|model| model.name.as_str()).collect();
        Err(format!("loading {}", names.join(", ")))
    })
}
