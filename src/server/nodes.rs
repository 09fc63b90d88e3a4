//! Nodes that are registered while the process runs: checked, written down, and only then kept.

use serde_json::Value;

use super::reload::{InForce, Reloader, in_words};
use crate::admin::{Entry, NotRegistered, Registrar};
use crate::config::{self, Config};
use crate::node::Roster;

impl Registrar for Reloader {
    fn create(&self, entry: Entry) -> Result<String, NotRegistered> {
        let mut in_force = self.in_force();
        // Without a name, or with something else for one, it is refused for that.
        let name = entry.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        if in_force.roster.has(&name) {
            return Err(NotRegistered::Taken { name });
        }
        self.register(&mut in_force, &name, entry)?;
        Ok(name)
    }

    fn put(&self, name: &str, mut entry: Entry) -> Result<bool, NotRegistered> {
        let mut in_force = self.in_force();
        let said = entry.entry("name").or_insert_with(|| name.into());
        if *said != *name {
            let problem = format!("request: name: must be {name:?} as in the path, found {said}");
            return Err(NotRegistered::Wrong(vec![problem]));
        }
        let is_new = !in_force.roster.has(name);
        self.register(&mut in_force, name, entry)?;
        Ok(is_new)
    }

    fn remove(&self, name: &str) -> Result<(), NotRegistered> {
        let mut in_force = self.in_force();
        if is_configured(&in_force.config, name) {
            return Err(NotRegistered::Configured { name: name.to_owned() });
        }
        if !in_force.roster.has(name) {
            return Err(NotRegistered::NotFound { name: name.to_owned() });
        }
        let roster = in_force.roster.without(name);
        self.enroll(&mut in_force, roster)?;
        tracing::warn!(node = name, "removed by the admin port");
        Ok(())
    }
}

impl Reloader {
    fn register(&self, in_force: &mut InForce, name: &str, entry: Entry) -> Result<(), NotRegistered> {
        if is_configured(&in_force.config, name) {
            return Err(NotRegistered::Configured { name: name.to_owned() });
        }
        let others = in_force.roster.without(name);
        let (whole, _) = config::with_registered(&in_force.config, others.entries());
        let checked = config::node_entry(&entry, "request", &whole);
        checked.map_err(|problems| NotRegistered::Wrong(in_words(&problems)))?;
        let roster = others.with(name, entry);
        self.enroll(in_force, roster)?;
        tracing::warn!(node = name, "registered by the admin port");
        Ok(())
    }

    /// Keeps the nodes of `roster` beside those of the configuration, once that is written down.
    fn enroll(&self, in_force: &mut InForce, roster: Roster) -> Result<(), NotRegistered> {
        let prepared = self.prepare(&in_force.config, &roster).map_err(NotRegistered::Wrong)?;
        roster.save().map_err(NotRegistered::NotKept)?;
        self.keep(prepared, &in_force.config);
        in_force.roster = roster;
        Ok(())
    }
}

fn is_configured(config: &Config, name: &str) -> bool {
    config.nodes.iter().any(|node| node.name == name)
}
