//! [`Tiers`]: where answers are kept under one configuration. Another one gets tiers of its own, and takes over those of them that stay as they are.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::disk::Disk;
use super::memory::Memory;
use super::shared::Shared;
use super::{Entry, PolicyConfig, Replay, ResponsesConfig, Tier};
use crate::dialect::name;
use crate::telemetry::Metrics;

/// The tiers of a configuration.
pub(super) struct Tiers {
    config: ResponsesConfig,
    folder: Option<PathBuf>,
    policy: Policy,
    /// Those of models that have another one, by the keys of their names.
    policies: HashMap<String, Policy>,
    pub memory: Arc<Memory>,
    /// The faster first.
    pub slower: Vec<Arc<dyn Tier>>,
    disk: Option<Arc<Disk>>,
    pub shared: Option<Arc<Shared>>,
}

/// What is kept of a model's answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Whether anything is.
    pub is_enabled: bool,
    /// How old an answer may be.
    pub ttl: Duration,
    /// Whether those with tool calls are.
    pub with_tool_calls: bool,
}

impl Tiers {
    /// The tiers of `config`; `folder` is that of the one on disk. What is the same as `before` is taken over. Runs inside of a runtime, and
    /// opens a file.
    pub(super) fn new(
        config: &ResponsesConfig,
        folder: Option<&Path>,
        before: Option<&Self>,
        metrics: &Arc<Metrics>,
    ) -> Result<Self, String> {
        let folder = folder.filter(|_| config.enabled && config.disk.budget > 0);
        let disk = match (
            folder,
            before.and_then(|before| Some((before.folder.as_ref()?, before.disk.as_ref()?))),
        ) {
            (Some(folder), Some((known, disk))) if folder == *known => Some(Arc::clone(disk)),
            (Some(folder), _) => {
                let disk = Disk::open(folder, config.disk.budget, Arc::clone(metrics));
                Some(Arc::new(disk.map_err(|error| format!("cache.responses.disk: {error}"))?))
            }
            (None, _) => None,
        };
        let shared = config.shared.as_ref().filter(|_| config.enabled);
        let same = before.filter(|before| before.config.shared.as_ref() == shared);
        let shared = match (same.and_then(|before| before.shared.clone()), shared) {
            (Some(same), Some(_)) => Some(same),
            (_, shared) => {
                let shared = shared.map(|shared| Shared::new(shared, Arc::clone(metrics))).transpose();
                shared?.map(Arc::new)
            }
        };
        let same = before.filter(|before| {
            let old = &before.config;
            (old.memory, old.policy, old.idle) == (config.memory, config.policy, config.idle)
        });
        let memory = same.map(|before| Arc::clone(&before.memory));
        let of_disk = disk.iter().map(|disk| Arc::clone(disk) as Arc<dyn Tier>);
        let of_shared = shared.iter().map(|shared| Arc::clone(shared) as Arc<dyn Tier>);
        let (policy, policies) = policies(config);
        Ok(Self {
            policy,
            policies,
            memory: memory.unwrap_or_else(|| Arc::new(Memory::new(config, Arc::clone(metrics)))),
            slower: of_disk.chain(of_shared).collect(),
            disk,
            shared,
            folder: folder.map(Path::to_owned),
            config: config.clone(),
        })
    }

    /// Has what was taken over from `before` go by this configuration, and what is new hold what the old one does.
    pub(super) fn succeed(&self, before: &Self) {
        if let Some(disk) = &self.disk {
            disk.resize(self.config.disk.budget);
        }
        if !Arc::ptr_eq(&self.memory, &before.memory) {
            self.memory.adopt(&before.memory);
        }
    }

    /// Whether there is one on disk.
    pub(super) fn has_disk(&self) -> bool {
        self.disk.is_some()
    }

    /// How stored answers are streamed.
    pub(super) fn replay(&self) -> Replay {
        self.config.replay
    }

    /// What is kept of the answers of the model with this name.
    pub(super) fn policy(&self, model: &str) -> Policy {
        if self.policies.is_empty() {
            return self.policy;
        }
        let own = name::key(model).and_then(|key| self.policies.get(&key));
        own.copied().unwrap_or(self.policy)
    }

    /// Has those faster than `level` keep what was found there.
    pub(super) async fn promote(&self, entry: &Arc<Entry>, level: usize) {
        self.memory.keep(entry);
        for faster in self.slower.iter().take(level) {
            faster.put(entry).await;
        }
    }
}

fn policies(config: &ResponsesConfig) -> (Policy, HashMap<String, Policy>) {
    let policy = Policy { is_enabled: config.enabled, ttl: config.ttl, with_tool_calls: config.tool_calls };
    let of = |own: &PolicyConfig| Policy {
        is_enabled: own.enabled.unwrap_or(policy.is_enabled),
        ttl: own.ttl.unwrap_or(policy.ttl),
        with_tool_calls: own.tool_calls.unwrap_or(policy.with_tool_calls),
    };
    let own = config.models.iter().filter_map(|(model, own)| Some((name::key(model)?, of(own))));
    (policy, own.collect())
}
