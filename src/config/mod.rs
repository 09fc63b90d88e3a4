//! The configuration: one [`Config`] out of defaults, `OLLAMA_*` variables, the config file, `ARRIERO__*` variables and
//! flags, each over the one before.
//!
//! Every section's type, defaults and rules belong to the module that uses it; this one only assembles them. Reading has two
//! steps: the sources become trees of values that know their place (`tree`), and the merged tree becomes checked values
//! (`decode`, `rules`). All mistakes are found in one go.

mod address;
mod decode;
mod diff;
mod entry;
mod environment;
mod limits;
mod ollama;
mod origins;
mod passthrough;
mod problem;
mod rules;
mod state;
mod substitute;
mod tree;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use diff::{Difference, diff};
pub use entry::{node_entry, with_registered};
pub use limits::LimitsConfig;
pub use passthrough::PassthroughConfig;
pub use problem::{Path, Place, Problem, Step};
pub use state::state_dir;

use crate::admission::QueueConfig;
use crate::breaker::BreakerConfig;
use crate::cache::CacheConfig;
use crate::dispatch::{FaultsConfig, RetryConfig};
use crate::flight::CoalesceConfig;
use crate::library::{BUILTIN_DEMO, ModelConfig};
use crate::node::{HealthConfig, NodeConfig};
use crate::routing::RoutingConfig;
use crate::telemetry::LogConfig;
use crate::worker::{MemoryConfig, WorkersConfig};
use tree::{Data, Entry, Node};

/// The whole configuration; `conf/arriero.yaml` explains every key. Made by [`load`] or [`Config::default`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The data port.
    #[serde(with = "address")]
    pub listen: SocketAddr,
    /// The admin port; `None` if off.
    #[serde(with = "address::or_off")]
    pub admin: Option<SocketAddr>,
    /// Models by name.
    pub models: BTreeMap<String, ModelConfig>,
    /// Processes that this Arriero does not own.
    pub nodes: Vec<NodeConfig>,
    /// Which node gets a request.
    pub routing: RoutingConfig,
    /// When a node that fails is left alone.
    pub breaker: BreakerConfig,
    /// How remote nodes are probed.
    pub health: HealthConfig,
    /// When a request is run again.
    pub retry: RetryConfig,
    /// When equal requests share one computation.
    pub coalesce: CoalesceConfig,
    /// Faults on purpose.
    pub faults: FaultsConfig,
    /// What is kept of answers.
    pub cache: CacheConfig,
    /// Waiting for a place to run.
    pub queue: QueueConfig,
    /// How workers are run.
    pub workers: WorkersConfig,
    /// What models may take of memory.
    pub memory: MemoryConfig,
    /// Where nodes that are registered while running are kept; see [`state_dir`].
    pub state: Option<PathBuf>,
    /// What clients may take.
    pub limits: LimitsConfig,
    /// Who gets the paths that Arriero does not answer itself.
    pub passthrough: Option<PassthroughConfig>,
    /// Browser origins allowed beside Ollama's own, `*` allowed as a wildcard. A text with commas is a list too.
    pub origins: Vec<String>,
    /// Send `X-Arriero-*` response headers.
    pub headers: bool,
    /// What is logged, and how.
    pub log: LogConfig,
    /// Threads of the proxy; 0: one per core, at most 4.
    pub threads: usize,
}

impl Default for Config {
    fn default() -> Self {
        let demo = ModelConfig { preload: true, ..ModelConfig::at(BUILTIN_DEMO) };
        Self {
            listen: (Ipv4Addr::LOCALHOST, 11434).into(),
            admin: Some((Ipv4Addr::LOCALHOST, 11435).into()),
            models: BTreeMap::from([("demo".to_owned(), demo)]),
            nodes: Vec::new(),
            routing: RoutingConfig::default(),
            breaker: BreakerConfig::default(),
            health: HealthConfig::default(),
            retry: RetryConfig::default(),
            coalesce: CoalesceConfig::default(),
            faults: FaultsConfig::default(),
            cache: CacheConfig::default(),
            queue: QueueConfig::default(),
            workers: WorkersConfig::default(),
            memory: MemoryConfig::default(),
            state: None,
            limits: LimitsConfig::default(),
            passthrough: None,
            origins: Vec::new(),
            headers: true,
            log: LogConfig::default(),
            threads: 0,
        }
    }
}

/// Where a configuration comes from. The environment is handed in, so that reading has no hidden input.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The config file, if there is one.
    pub file: Option<PathBuf>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// `--listen`.
    pub listen: Option<String>,
    /// `--admin`.
    pub admin: Option<String>,
}

/// A configuration without mistakes.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// It.
    pub config: Config,
    /// Model files that cannot be opened now; the second step of their paths is the model.
    pub missing_files: Vec<Problem>,
    /// Settings that have no effect, one sentence each.
    pub notices: Vec<String>,
}

/// Why there is no configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Refused {
    /// Everything that is wrong, in the order of the file.
    pub problems: Vec<Problem>,
    /// As in [`Loaded`].
    pub notices: Vec<String>,
}

/// Reads everything, or says everything that is wrong.
pub fn load(sources: &Sources) -> Result<Loaded, Refused> {
    let mut problems = Vec::new();
    let ollama = ollama::read(&sources.env);
    let mut tree = ollama.root;
    tree.overlay(file(sources, &mut problems));
    environment::overlay(&mut tree, &sources.env, &mut problems);
    flags(&mut tree, sources);
    add_models(&mut tree, &ollama.model);
    origins::spread(&mut tree);

    if let Some(config) = decode::decode::<Config>(&mut tree, &mut problems) {
        problems.extend(rules::faults(&config, &tree));
        let missing_files = rules::missing_files(&config, &tree);
        if problems.is_empty() {
            return Ok(Loaded { config, missing_files, notices: ollama.notices });
        }
        problems.extend(missing_files);
    }
    problems.sort();
    Err(Refused { problems, notices: ollama.notices })
}

/// The config file's tree with its references replaced; empty without a file.
fn file(sources: &Sources, problems: &mut Vec<Problem>) -> Node {
    let nothing = Node::new(Place::Builtin, Data::Null);
    let Some(path) = &sources.file else { return nothing };
    let name: std::sync::Arc<str> = path.display().to_string().into();
    match std::fs::read_to_string(path) {
        Ok(text) => {
            let (mut tree, mistakes) = yaml::parse(&text, yaml::Origin::File(name));
            problems.extend(mistakes);
            if !tree.is_section() {
                let message = "expected a mapping of sections".to_owned();
                problems.push(Problem { place: tree.place, path: Path::default(), message });
                return nothing;
            }
            substitute::substitute(&mut tree, &sources.env, problems);
            tree
        }
        Err(error) => {
            let message = format!("cannot be read: {error}");
            problems.push(Problem { place: Place::File(name), path: Path::default(), message });
            nothing
        }
    }
}

fn flags(tree: &mut Node, sources: &Sources) {
    for (flag, key, value) in [("--listen", "listen", &sources.listen), ("--admin", "admin", &sources.admin)]
    {
        if let Some(value) = value {
            tree.replace(key, Node::text(Place::Flag(flag), value));
        }
    }
}

/// With neither models nor nodes the embedded model is served, and `demo` means it unless it has another path. Every model
/// gets what `defaults` has and it does not.
fn add_models(tree: &mut Node, defaults: &Node) {
    let has = |key| tree.get(key).is_some_and(|node| !node.is_empty());
    let is_bare = !has("models") && !has("nodes");
    let Some(models) = tree.slot("models", &Place::Builtin) else { return };
    if is_bare {
        *models = Node::new(Place::Builtin, Data::Bool(true)).under("preload").under("demo");
    }
    models.fill(Data::Map(Vec::new()));
    for Entry { key, value: model, .. } in models.entries_mut() {
        if key == "demo" {
            model.put_default("path", Node::text(Place::Builtin, BUILTIN_DEMO));
        }
        for default in defaults.entries() {
            model.put_default(&default.key, default.value.clone());
        }
    }
}
