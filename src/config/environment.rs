//! `ARRIERO__SECTION__KEY`: environment variables that override the config file.
//!
//! `ARRIERO__QUEUE__DEPTH=10` is `queue.depth: 10`. A value is read as YAML where it is a list, a mapping or a text in quotes
//! (`[a, b]`, `{a: 1}`, `"7"`); anything else is a number, a boolean or a text as it stands, whatever YAML would see in it.
//! Letters match in any case, and `_` any character that a variable's name cannot have: `ARRIERO__MODELS__LLAMA3_2__PARALLEL`
//! finds the model `llama3.2`. A number selects an entry of a list.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::problem::{Path, Place, Problem, Step};
use super::tree::{Data, Node};
use super::yaml::{self, Origin};

/// What such a variable's name starts with.
const PREFIX: &str = "ARRIERO__";

/// Lays every `ARRIERO__` variable over `tree`.
pub fn overlay(tree: &mut Node, env: &BTreeMap<String, String>, problems: &mut Vec<Problem>) {
    for (name, value) in env {
        let Some(keys) = name.strip_prefix(PREFIX) else { continue };
        let name: Arc<str> = name.as_str().into();
        let value = read(value, &name);
        let place = Place::Variable(name);
        match find(tree, keys, &place) {
            Ok(node) => node.overlay(value),
            Err(message) => problems.push(Problem { place, path: Path::default(), message }),
        }
    }
}

/// The value of variable `name`; nothing if it is blank. What starts like YAML and is none is a text too: `[::1]:80`.
fn read(value: &str, name: &Arc<str>) -> Node {
    let value = value.trim();
    if value.starts_with(['[', '{', '"', '\'']) {
        let (node, mistakes) = yaml::parse(value, Origin::Variable(Arc::clone(name)));
        if mistakes.is_empty() {
            return node;
        }
    }
    let data = if value.is_empty() { Data::Null } else { yaml::plain(value) };
    Node::new(Place::Variable(Arc::clone(name)), data)
}

/// The value that `keys` mean, made if it is not there.
fn find<'a>(tree: &'a mut Node, keys: &str, place: &Place) -> Result<&'a mut Node, String> {
    let mut node = tree;
    for segment in keys.split("__") {
        if segment.is_empty() {
            return Err("expected ARRIERO__SECTION__KEY".to_owned());
        }
        let child = match (&node.data, segment.parse()) {
            (Data::List(_), Ok(index)) => node.at_mut(&[Step::Index(index)]),
            _ => {
                let key = existing(node, segment).unwrap_or_else(|| segment.to_ascii_lowercase());
                node.slot(&key, place)
            }
        };
        node = child.ok_or_else(|| format!("there is nothing that {segment} could be a part of"))?;
    }
    Ok(node)
}

/// The key of `node` that `segment` stands for.
fn existing(node: &Node, segment: &str) -> Option<String> {
    let spelled = |key: &str| -> String {
        key.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
    };
    let segment = segment.to_ascii_uppercase();
    node.entries().iter().find(|entry| spelled(&entry.key) == segment).map(|entry| entry.key.clone())
}
