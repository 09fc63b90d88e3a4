//! One entry of `nodes` that does not stand in the configuration: read and checked as if it did.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::problem::{Place, Problem};
use super::tree::{Data, Entry, Node};
use super::{Config, decode, rules};
use crate::node::NodeConfig;

/// Reads an entry that is to stand beside those of `config`, which has no mistakes; or all mistakes, each with its key path. `origin` is what
/// brought it, for people. References (`${...}`) are not replaced: who can send an entry cannot read this process' environment.
pub fn node_entry(
    entry: &Map<String, Value>,
    origin: &str,
    config: &Config,
) -> Result<NodeConfig, Vec<Problem>> {
    let place = Place::Given(origin.into());
    let mut tree = tree(&Value::Object(entry.clone()), &place);
    let mut problems = Vec::new();
    let decoded = decode::decode::<NodeConfig>(&mut tree, &mut problems);
    if let Some(entry) = &decoded {
        problems.extend(rules::entry_faults(entry, config, &tree));
    }
    match decoded {
        Some(entry) if problems.is_empty() => Ok(entry),
        _ => Err(problems),
    }
}

fn tree(value: &Value, place: &Place) -> Node {
    let data = match value {
        Value::Null => Data::Null,
        Value::Bool(value) => Data::Bool(*value),
        Value::Number(number) => match number.as_i64() {
            Some(number) => Data::Integer(number),
            None => number.as_f64().map_or(Data::Null, Data::Float),
        },
        Value::String(text) => return Node::text(place.clone(), text),
        Value::Array(items) => Data::List(items.iter().map(|item| tree(item, place)).collect()),
        Value::Object(map) => {
            let entry = |(key, value): (&String, &Value)| Entry {
                key: key.clone(),
                place: place.clone(),
                value: tree(value, place),
            };
            Data::Map(map.iter().map(entry).collect())
        }
    };
    Node::new(place.clone(), data)
}

/// The configuration with the registered nodes beside its own, and what keeps others of them out: mistakes, which may be that a name has been
/// taken since, for what the configuration says wins.
pub fn with_registered<'a>(
    config: &Config,
    registered: impl Iterator<Item = (&'a str, &'a Map<String, Value>)>,
) -> (Config, Vec<Problem>) {
    let (mut whole, mut problems) = (config.clone(), Vec::new());
    for (name, entry) in registered {
        let origin: Arc<str> = format!("registered node {name:?}").into();
        match node_entry(entry, &origin, &whole) {
            Ok(node) => whole.nodes.push(node),
            Err(mistakes) => problems.extend(mistakes),
        }
    }
    (whole, problems)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config() -> Config {
        let models = json!({"Small": {"path": "builtin:demo", "aliases": ["tiny"]}});
        let nodes = json!([{"name": "box", "url": "unix:/a", "models": ["m"]}]);
        serde_json::from_value(json!({ "models": models, "nodes": nodes })).unwrap()
    }

    fn told(entry: Value) -> Vec<String> {
        let read = node_entry(entry.as_object().unwrap(), "request", &config());
        read.err().unwrap_or_default().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn an_entry_is_read_as_in_the_file() {
        let entry = json!({"name": "far", "url": "http://far", "protocol": "ollama", "models": {"ours": "theirs"},
            "location": [52, 4.5], "timeouts": {"idle": "5s"}, "api_key": "${HOME}", "zone": null});
        let read = node_entry(entry.as_object().unwrap(), "request", &config()).unwrap();
        assert_eq!((read.location, read.zone.as_str()), (Some((52.0, 4.5)), ""));
        assert_eq!(read.api_key.unwrap().reveal(), "${HOME}", "it means itself");
    }

    #[test]
    fn every_mistake_is_told_with_its_key() {
        let entry = json!({"name": "far", "url": "http://far", "protocol": "openai", "wieght": 2,
            "max_in_flight": "many", "timeouts": {"idle": "soon"}});
        let told = told(entry);
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[0], "request: wieght: unknown key, did you mean \"weight\"?");
        assert!(told.iter().any(|line| line.starts_with("request: timeouts.idle: ")), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("request: max_in_flight: expected")), "{told:?}");
    }

    #[test]
    fn names_that_the_configuration_has_cannot_be_taken() {
        let entry = |name: &str| json!({"name": name, "url": "unix:/b", "models": ["m", "small", "TINY"]});
        let twice = "request: models[2]: \"TINY\" is the same model as models[1]";
        let taken = |name: &str, by: &str| format!("request: name: the name {name:?} is taken by {by}");
        assert_eq!(told(entry("BOX")), [taken("BOX", "nodes.box"), twice.to_owned()]);
        assert_eq!(told(entry("tiny")), [taken("tiny", "models.Small"), twice.to_owned()]);
        assert_eq!(told(entry("free")), [twice]);
        let nameless = json!({"url": "http://x", "protocol": "openai"});
        assert_eq!(told(nameless), ["request: name: required, but missing"]);
    }

    #[test]
    fn what_the_configuration_has_taken_since_wins() {
        let registered = json!({
            "box": {"name": "box", "url": "unix:/b", "models": ["m"]},
            "far": {"name": "far", "url": "unix:/c", "models": ["m"]},
        });
        let registered = registered.as_object().unwrap();
        let entries = registered.iter().map(|(name, entry)| (name.as_str(), entry.as_object().unwrap()));
        let (whole, problems) = with_registered(&config(), entries);
        let urls: Vec<_> = whole.nodes.iter().map(|node| node.url.as_str()).collect();
        assert_eq!(urls, ["unix:/a", "unix:/c"]);
        assert_eq!(problems.len(), 1);
        assert!(problems[0].to_string().starts_with("registered node \"box\": name: "), "{}", problems[0]);
    }
}
