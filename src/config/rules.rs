//! What serde cannot see: each section's own rules, and those between sections.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use super::problem::{Path, Problem};
use super::tree::Node;
use super::{Config, state};
use crate::dialect::name;
use crate::node::{NodeConfig, Served};
use crate::units::range;

/// Everything that is wrong with `config`, placed by the tree it was read from.
pub fn faults(config: &Config, tree: &Node) -> Vec<Problem> {
    let mut report = Report { tree, problems: Vec::new() };
    report.section(&Path(Vec::new()), threads(config));
    report.section(&Path(Vec::new()), state::faults(config));
    report.section(&Path::keys(["routing"]), config.routing.faults());
    for (section, faults) in config.routing.section_faults() {
        report.section(&Path::keys(["routing", section]), faults);
    }
    report.section(&Path::keys(["queue"]), config.queue.faults());
    report.section(&Path::keys(["workers"]), config.workers.faults());
    report.section(&Path::keys(["memory"]), config.memory.faults());
    report.section(&Path::keys(["retry"]), config.retry.faults());
    report.section(&Path::keys(["coalesce"]), config.coalesce.faults());
    report.section(&Path::keys(["cache"]), config.cache.faults());
    report.section(&Path::keys(["breaker"]), config.breaker.faults());
    report.section(&Path::keys(["health"]), config.health.faults());
    report.section(&Path::keys(["limits"]), config.limits.faults());
    if let Some(passthrough) = &config.passthrough {
        report.section(&Path::keys(["passthrough"]), passthrough.faults());
    }
    for (name, model) in &config.models {
        report.section(&Path::keys(["models", name]), model.faults());
    }
    for (node, path) in config.nodes.iter().zip(report.items("nodes")) {
        report.section(&path, node.faults());
    }
    report.addresses(config);
    let owners = report.names(config);
    report.fallbacks(config, &owners);
    report.origins(config);
    report.problems
}

/// Everything that is wrong with an entry of `nodes` that is to stand beside those of `config`, placed by the tree it was read from.
pub fn entry_faults(entry: &NodeConfig, config: &Config, tree: &Node) -> Vec<Problem> {
    let mut report = Report { tree, problems: Vec::new() };
    report.section(&Path::default(), entry.faults());
    let (mut taken, mut owners) = (BTreeMap::new(), BTreeMap::new());
    for (name, model) in &config.models {
        let names = std::iter::once(name).chain(&model.aliases).chain(model.adapters.keys());
        for key in names.filter_map(|name| name::key(name)) {
            owners.insert(key.clone(), name.clone());
            taken.insert(key, Path::keys(["models", name]));
        }
    }
    let nodes = config.nodes.iter().map(|node| node.name.as_str());
    taken.extend(nodes.filter_map(|node| Some((name::key(node)?, Path::keys(["nodes", node])))));
    report.claim(&mut taken, &entry.name, Path::keys(["name"]));
    report.served(&entry.models, &Path::keys(["models"]), &owners);
    report.problems
}

/// Model files that cannot be opened now, and CPUs that are not there. They may be when the model is loaded, so `serve` starts all the same.
pub fn missing_files(config: &Config, tree: &Node) -> Vec<Problem> {
    let mut report = Report { tree, problems: Vec::new() };
    for (name, model) in &config.models {
        for (keys, fault) in model.file_faults() {
            let path = keys.iter().fold(Path::keys(["models", name]), |path, key| path.key(key));
            report.add(path, fault);
        }
        for (adapter, config) in &model.adapters {
            if let Some(fault) = config.file_fault() {
                report.add(Path::keys(["models", name, "adapters", adapter, "path"]), fault);
            }
        }
    }
    report.problems
}

/// What is wrong with keys of the root.
fn threads(config: &Config) -> Vec<(&'static str, String)> {
    range::fault(config.threads as u64, 0..=1024).map(|message| ("threads", message)).into_iter().collect()
}

struct Report<'a> {
    tree: &'a Node,
    problems: Vec<Problem>,
}

impl Report<'_> {
    fn add(&mut self, path: Path, message: String) {
        self.problems.push(Problem { place: self.tree.place_of(&path), path, message });
    }

    /// A dot in a key parts those of a section within.
    fn section(&mut self, section: &Path, faults: Vec<(&'static str, String)>) {
        for (key, message) in faults {
            let path = key.split('.').fold(section.clone(), |path, key| path.key(key));
            self.add_found(path, &message);
        }
    }

    /// Adds what is there to what is wrong with it, unless it is a default.
    fn add_found(&mut self, path: Path, message: &str) {
        match self.tree.at(&path.0).filter(|node| node.is_scalar() && !node.is_absent()) {
            Some(node) => {
                let found = node.describe();
                self.add(path, format!("{message}, found {found}"));
            }
            None => self.add(path, message.to_owned()),
        }
    }

    /// Paths of the entries of a list that could be read: their numbers in the file, not in what is left.
    fn items(&self, key: &str) -> Vec<Path> {
        self.items_of(&Path::keys([key]))
    }

    fn items_of(&self, list: &Path) -> Vec<Path> {
        let node = self.tree.at(&list.0);
        node.map_or_else(Vec::new, |node| node.sound_indices().map(|i| list.index(i)).collect())
    }

    fn addresses(&mut self, config: &Config) {
        if config.admin == Some(config.listen) && config.listen.port() != 0 {
            self.add(
                Path::keys(["admin"]),
                format!("must differ from listen, which is {} too", config.listen),
            );
        }
    }

    /// Names and aliases of models, names of adapters and of nodes share one space, in which letters match in any case and default parts
    /// such as `:latest` may be there or not. The models by the keys of their names.
    fn names(&mut self, config: &Config) -> BTreeMap<String, String> {
        let mut taken: BTreeMap<String, Path> = BTreeMap::new();
        // Model by key of each of its names, which is what the names in a node's list are looked up in.
        let mut owners: BTreeMap<String, String> = BTreeMap::new();
        for (name, model) in &config.models {
            let path = Path::keys(["models", name]);
            let names = std::iter::once(path.clone()).chain(self.items_of(&path.key("aliases")));
            let section = path.key("adapters");
            let adapters = model.adapters.keys().map(|adapter| (adapter, section.key(adapter)));
            for (alias, path) in std::iter::once(name).chain(&model.aliases).zip(names).chain(adapters) {
                if let Some(key) = self.claim(&mut taken, alias, path) {
                    owners.insert(key, name.clone());
                }
            }
        }
        for (node, path) in config.nodes.iter().zip(self.items("nodes")) {
            self.claim(&mut taken, &node.name, path.key("name"));
            self.served(&node.models, &path.key("models"), &owners);
        }
        owners
    }

    /// Fallbacks and siblings are other models. Whether they exist can be told unless a node is asked what it has.
    fn fallbacks(&mut self, config: &Config, owners: &BTreeMap<String, String>) {
        let served = config.nodes.iter().flat_map(|node| &node.models.0);
        let served: BTreeSet<_> = served.filter_map(|model| name::key(&model.name)).collect();
        let is_told = config.nodes.iter().all(|node| !node.models.0.is_empty());
        let owner = |key: String| owners.get(&key).cloned().unwrap_or(key);
        let ours = config
            .models
            .iter()
            .map(|(name, model)| (name, &model.fallbacks, Path::keys(["models", name, "fallbacks"])));
        let theirs = config
            .retry
            .fallbacks
            .iter()
            .map(|(name, fallbacks)| (name, fallbacks, Path::keys(["retry", "fallbacks", name])));
        let listed = ours.chain(theirs).map(|(name, fallbacks, list)| {
            (name, fallbacks.iter().zip(self.items_of(&list)).collect::<Vec<_>>())
        });
        let siblings = config.models.iter().map(|(name, model)| {
            let path = || Path::keys(["models", name, "sibling"]);
            (name, model.sibling.iter().map(|sibling| (sibling, path())).collect())
        });
        for (name, others) in listed.chain(siblings).collect::<Vec<_>>() {
            let own = name::key(name).map(owner);
            for (fallback, path) in others {
                let Some(key) = self.key(fallback, &path) else { continue };
                let is_known = owners.contains_key(&key) || served.contains(&key);
                if own == Some(owner(key)) {
                    self.add(path, format!("{fallback:?} is the same model"));
                } else if is_told && !is_known {
                    self.add(path, format!("there is no model {fallback:?}"));
                }
            }
        }
        for name in config.retry.fallbacks.keys() {
            let path = Path::keys(["retry", "fallbacks", name]);
            let Some(key) = self.key(name, &path) else { continue };
            if let Some(owner) = owners.get(&key) {
                self.add(path, format!("is for what only nodes serve; here it is models.{owner}.fallbacks"));
            }
        }
    }

    /// The models of one node: names, and no model twice, for it would get its places twice.
    fn served(&mut self, models: &Served, list: &Path, owners: &BTreeMap<String, String>) {
        let is_list = self.tree.at(&list.0).is_some_and(|node| node.sound_indices().next().is_some());
        let names = models.0.iter().map(|model| &model.name);
        let paths: Vec<_> =
            if is_list { self.items_of(list) } else { names.clone().map(|name| list.key(name)).collect() };
        let mut served: BTreeMap<String, Path> = BTreeMap::new();
        for (name, path) in names.zip(paths) {
            let Some(key) = self.key(name, &path) else { continue };
            match served.entry(owners.get(&key).cloned().unwrap_or(key)) {
                Entry::Vacant(entry) => {
                    entry.insert(path);
                }
                Entry::Occupied(first) => {
                    self.add(path, format!("{name:?} is the same model as {}", first.get()));
                }
            }
        }
    }

    /// Takes `name`; its key, if nobody has it yet.
    fn claim(&mut self, taken: &mut BTreeMap<String, Path>, name: &str, path: Path) -> Option<String> {
        let key = self.key(name, &path)?;
        if let Some(first) = taken.get(&key) {
            let message = format!("the name {name:?} is taken by {first}");
            self.add(path, message);
            return None;
        }
        taken.insert(key.clone(), path);
        Some(key)
    }

    /// The key of `name`, if clients can ask for a model of this name.
    fn key(&mut self, name: &str, path: &Path) -> Option<String> {
        let key = name::key(name);
        if key.is_none() {
            let message = format!(
                "{name:?} cannot be a name: expected [[host/]namespace/]model[:tag] of letters, digits, _ - and ."
            );
            self.add(path.clone(), message);
        }
        key
    }

    fn origins(&mut self, config: &Config) {
        for (origin, path) in config.origins.iter().zip(self.items("origins")) {
            if origin != "*" && origin.split_once("://").is_none_or(|(_, host)| host.is_empty()) {
                self.add_found(path, "expected * or scheme://host");
            }
        }
    }
}
