//! `/admin/v1/status`: what this process serves, and how it is doing.

use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use crate::library::Library;
use crate::node::Pool;
use crate::worker::Supervisor;

/// `{version, uptime_seconds, models: [{name, path, loaded, memory_bytes, device_memory_bytes, context, expires_in_seconds,
/// sandbox: {state, reason}, nodes: [{name, in_flight, parallel}]}]}`; what is not known is null, and so is the end of a model that never expires.
pub fn status(library: &Library, pool: &Pool, supervisor: &Supervisor, started: Instant) -> Value {
    let loaded = supervisor.loaded();
    let models = library.models().into_iter().map(|model| {
        let resident = loaded.iter().find(|resident| resident.model.name == model.name);
        let expires = resident.and_then(|resident| resident.expires?.duration_since(SystemTime::now()).ok());
        let nodes = pool.of(&model.name).into_iter().map(
            |node| json!({ "name": &*node.name, "in_flight": node.in_flight(), "parallel": node.parallel }),
        );
        json!({
            "name": model.name,
            "path": model.config.path,
            "loaded": resident.is_some(),
            "memory_bytes": resident.map(|resident| resident.memory),
            "device_memory_bytes": resident.map(|resident| resident.device_memory),
            "context": resident.map(|resident| resident.context),
            "expires_in_seconds": expires.map(|left| left.as_secs()),
            "sandbox": resident.map(|resident| &resident.sandbox),
            "nodes": nodes.collect::<Vec<_>>(),
        })
    });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": started.elapsed().as_secs(),
        "models": models.collect::<Vec<_>>(),
    })
}
