//! What serde cannot see: each section's own rules, and those between sections.

use std::collections::BTreeMap;

use super::Config;
use super::problem::{Path, Problem};
use super::tree::Node;

/// Everything that is wrong with `config`, placed by the tree it was read from.
pub fn faults(config: &Config, tree: &Node) -> Vec<Problem> {
    let mut report = Report { tree, problems: Vec::new() };
    report.section(&Path::keys(["workers"]), config.workers.faults());
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
    report.names(config);
    report.origins(config);
    report.problems
}

/// Model files that cannot be opened now. They may be there when the model is loaded, so `serve` starts all the same.
pub fn missing_files(config: &Config, tree: &Node) -> Vec<Problem> {
    let mut report = Report { tree, problems: Vec::new() };
    for (name, model) in &config.models {
        if let Some(fault) = model.file_fault() {
            report.add(Path::keys(["models", name, "path"]), fault);
        }
    }
    report.problems
}

struct Report<'a> {
    tree: &'a Node,
    problems: Vec<Problem>,
}

impl Report<'_> {
    fn add(&mut self, path: Path, message: String) {
        self.problems.push(Problem { place: self.tree.place_of(&path), path, message });
    }

    fn section(&mut self, section: &Path, faults: Vec<(&'static str, String)>) {
        for (key, message) in faults {
            self.add_found(section.key(key), &message);
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
        let list = Path::keys([key]);
        self.tree.get(key).map_or_else(Vec::new, |node| node.sound_indices().map(|i| list.index(i)).collect())
    }

    fn addresses(&mut self, config: &Config) {
        if config.admin == Some(config.listen) && config.listen.port() != 0 {
            self.add(
                Path::keys(["admin"]),
                format!("must differ from listen, which is {} too", config.listen),
            );
        }
    }

    /// Names and aliases of models and names of nodes share one space, in which letters match in any case and `:latest` is
    /// understood.
    fn names(&mut self, config: &Config) {
        let mut taken: BTreeMap<String, Path> = BTreeMap::new();
        for (name, model) in &config.models {
            let path = Path::keys(["models", name]);
            self.claim(&mut taken, name, path.clone());
            for (alias, path) in model.aliases.iter().zip(self.aliases(&path)) {
                self.claim(&mut taken, alias, path);
            }
        }
        for (node, path) in config.nodes.iter().zip(self.items("nodes")) {
            self.claim(&mut taken, &node.name, path.key("name"));
        }
    }

    fn aliases(&self, model: &Path) -> Vec<Path> {
        let list = model.key("aliases");
        match self.tree.at(&list.0) {
            Some(node) => node.sound_indices().map(|i| list.index(i)).collect(),
            None => Vec::new(),
        }
    }

    fn claim(&mut self, taken: &mut BTreeMap<String, Path>, name: &str, path: Path) {
        if !is_name(name) {
            let message = format!(
                "{name:?} cannot be a name: expected letters, digits and any of _ - . : / after a letter, digit or _"
            );
            return self.add(path, message);
        }
        let folded = name.to_lowercase();
        let folded = folded.strip_suffix(":latest").unwrap_or(&folded).to_owned();
        match taken.get(&folded) {
            Some(first) => {
                let message = format!("the name {name:?} is taken by {first}");
                self.add(path, message);
            }
            None => {
                taken.insert(folded, path);
            }
        }
    }

    fn origins(&mut self, config: &Config) {
        for (origin, path) in config.origins.iter().zip(self.items("origins")) {
            if origin != "*" && origin.split_once("://").is_none_or(|(_, host)| host.is_empty()) {
                self.add_found(path, "expected * or scheme://host");
            }
        }
    }
}

/// Whether Ollama's clients can ask for a model of this name.
fn is_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "_-.:/".contains(c))
}
