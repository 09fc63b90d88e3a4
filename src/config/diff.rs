//! What a new configuration changes, key by key.

use std::fmt;

use serde_json::Value;

use super::Config;

/// Keys whose values are nobody's business, also not in a log.
const SECRET: [&str; 3] = ["api_key", "key", "password"];
/// What can change while requests run; the rest takes a restart.
const LIVE: [&str; 28] = [
    "models",
    "nodes",
    "routing",
    "breaker",
    "health",
    "retry",
    "coalesce",
    "cache",
    "faults",
    "queue",
    "workers.keep_alive",
    "workers.load_timeout",
    "workers.max_loaded",
    "workers.restart_backoff",
    "workers.restart_backoff_max",
    "memory.budget",
    "memory.devices",
    "memory.margin",
    "memory.policy",
    "memory.ladder",
    "memory.min_residency",
    "memory.max_wait",
    "memory.preload",
    "limits",
    "passthrough",
    "origins",
    "headers",
    "log.level",
];

/// One key with another value than before.
#[derive(Clone, Debug, PartialEq)]
pub struct Difference {
    /// Such as `models.small.parallel`, or `nodes.box.weight`: entries of lists go by their names.
    pub path: String,
    /// As JSON; `None`: it was not there.
    pub from: Option<String>,
    /// As JSON; `None`: it is gone.
    pub to: Option<String>,
}

impl Difference {
    /// Whether it takes a restart.
    pub fn is_fixed(&self) -> bool {
        let is_of = |live: &str| {
            self.path.strip_prefix(live).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        !LIVE.into_iter().any(is_of)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.from, &self.to) {
            (Some(from), Some(to)) => write!(f, "{}: {from} -> {to}", self.path),
            (None, Some(to)) => write!(f, "{}: {to} (new)", self.path),
            (_, None) => write!(f, "{}: removed", self.path),
        }
    }
}

/// Everything that differs, in the order of the keys.
pub fn diff(old: &Config, new: &Config) -> Result<Vec<Difference>, serde_json::Error> {
    let mut differences = Vec::new();
    compare("", Some(&serde_json::to_value(old)?), Some(&serde_json::to_value(new)?), &mut differences);
    differences.extend(other_keys(old, new));
    Ok(differences)
}

/// Secrets that have another value: written down they all look the same.
fn other_keys(old: &Config, new: &Config) -> Vec<Difference> {
    let before = |name: &str| old.nodes.iter().find(|node| node.name == *name)?.api_key.as_ref();
    let of_nodes = new
        .nodes
        .iter()
        .map(|node| (format!("nodes.{}.api_key", node.name), before(&node.name).zip(node.api_key.as_ref())));
    let password = |config: &Config| config.cache.responses.shared.as_ref()?.password.clone();
    let (before, now) = (password(old), password(new));
    let of_cache = ("cache.responses.shared.password".to_owned(), before.as_ref().zip(now.as_ref()));
    let changed =
        of_nodes.chain([of_cache]).filter(|(_, keys)| keys.is_some_and(|(before, now)| before != now));
    let secret = || Some("(secret)".to_owned());
    changed.map(|(path, _)| Difference { path, from: secret(), to: secret() }).collect()
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, found: &mut Vec<Difference>) {
    if old == new {
        return;
    }
    if let (Some(old), Some(new)) = (old.and_then(entries), new.and_then(entries)) {
        let added = new.iter().filter(|(key, _)| !old.iter().any(|(known, _)| known == key));
        for (key, _) in old.iter().chain(added) {
            let find = |entries: &[(String, Value)]| {
                entries.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone())
            };
            let below = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            compare(&below, find(&old).as_ref(), find(&new).as_ref(), found);
        }
        return;
    }
    let is_secret = path.rsplit('.').next().is_some_and(|key| SECRET.contains(&key));
    let text = |value: &Value| if is_secret { "(secret)".to_owned() } else { value.to_string() };
    found.push(Difference { path: path.to_owned(), from: old.map(text), to: new.map(text) });
}

/// What is in a map, or in a list of things that have names.
fn entries(value: &Value) -> Option<Vec<(String, Value)>> {
    match value {
        Value::Object(map) => Some(map.iter().map(|(key, value)| (key.clone(), value.clone())).collect()),
        Value::Array(items) => {
            let named = |item: &Value| Some((item.get("name")?.as_str()?.to_owned(), item.clone()));
            items.iter().map(named).collect()
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(value: Value) -> Config {
        serde_json::from_value(value).unwrap()
    }

    fn told(old: Value, new: Value) -> Vec<String> {
        diff(&config(old), &config(new)).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_that_differs_is_told_and_no_other() {
        let old = json!({"models": {"a": {"path": "/a.gguf"}, "b": {"path": "/b.gguf"}}});
        assert_eq!(told(old.clone(), old.clone()), [""; 0]);
        let mut new = old.clone();
        new["models"]["a"]["parallel"] = json!(3);
        new["queue"] = json!({"depth": 7});
        let models = new["models"].as_object_mut().unwrap();
        models.remove("b");
        let told = told(old, new);
        assert!(
            told.iter().any(|line| line.starts_with("models.a.parallel: ") && line.ends_with("-> 3")),
            "{told:?}"
        );
        assert!(told.contains(&"models.b: removed".to_owned()), "{told:?}");
        assert!(told.contains(&"queue.depth: 512 -> 7".to_owned()), "{told:?}");
        assert_eq!(told.len(), 3, "{told:?}");
    }

    #[test]
    fn nodes_go_by_their_names_wherever_they_stand() {
        let node = |name: &str, places: u32| json!({"name": name, "url": "unix:/x", "models": ["m"], "max_in_flight": places});
        let old = json!({"nodes": [node("a", 1), node("b", 2)]});
        let new = json!({"nodes": [node("b", 3), node("a", 1)]});
        assert_eq!(told(old, new), ["nodes.b.max_in_flight: 2 -> 3"]);
    }

    #[test]
    fn what_takes_a_restart_is_known() {
        let old = config(json!({}));
        let new = config(json!({
            "listen": "127.0.0.1:1", "routing": {"strategy": "learned", "sites": {"header": "X"}}, "headers": false,
            "log": {"level": "debug", "format": "json"}, "passthrough": {"url": "http://a"}, "state": "/s",
            "cache": {"responses": {"ttl": "1s", "disk": {"dir": "/d"}}},
            "workers": {"keep_alive": "1s", "sandbox": false, "restart_backoff_max": "1m"},
            "memory": {"budget": "1GiB", "preload": {"enabled": true}, "dir": "/d"},
        }));
        let differences = diff(&old, &new).unwrap();
        let of = |is_fixed: bool| {
            let some = differences.iter().filter(move |it| it.is_fixed() == is_fixed);
            let mut paths: Vec<_> = some.map(|it| it.path.as_str()).collect();
            paths.sort_unstable();
            paths
        };
        assert_eq!(of(true), ["listen", "log.format", "memory.dir", "state", "workers.sandbox"]);
        let live = [
            "cache.responses.disk.dir",
            "cache.responses.ttl",
            "headers",
            "log.level",
            "memory.budget",
            "memory.preload.enabled",
            "passthrough",
            "routing.sites.header",
            "routing.strategy",
            "workers.keep_alive",
            "workers.restart_backoff_max",
        ];
        assert_eq!(of(false), live);
    }

    #[test]
    fn another_key_is_told_without_saying_it() {
        let with = |key: &str| json!({"nodes": [{"name": "a", "url": "http://a", "api_key": key}]});
        assert_eq!(told(with("one"), with("two")), ["nodes.a.api_key: (secret) -> (secret)"]);
        assert_eq!(told(with("one"), with("one")), [""; 0]);
        let with = |password: &str| json!({"cache": {"responses": {"shared": {"url": "unix:/s", "password": password}}}});
        assert_eq!(told(with("one"), with("two")), ["cache.responses.shared.password: (secret) -> (secret)"]);
    }
}
