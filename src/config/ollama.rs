//! The `OLLAMA_*` variables that Ollama's users have set already: defaults below the config file.
//!
//! As in Ollama (<https://github.com/ollama/ollama/blob/main/envconfig/config.go>) a value that cannot be understood is
//! ignored; here with a notice.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::problem::Place;
use super::tree::{Data, Node};
use super::yaml;
use super::{address, origins};
use serde::Deserialize as _;

use crate::units::KeepAlive;

/// What the variables say.
pub struct Ollama {
    /// Keys of the root.
    pub root: Node,
    /// Keys of every model that does not have them itself.
    pub model: Node,
    /// What was ignored, and why.
    pub notices: Vec<String>,
}

/// Reads the variables.
pub fn read(env: &BTreeMap<String, String>) -> Ollama {
    let mut reader = Reader { env, notices: Vec::new() };
    let mut root = Node::empty_map();
    let mut model = Node::empty_map();
    reader.put(&mut root, "OLLAMA_HOST", &["listen"], host);
    reader.put(&mut root, "OLLAMA_KEEP_ALIVE", &["workers", "keep_alive"], keep_alive);
    reader.put(&mut root, "OLLAMA_LOAD_TIMEOUT", &["workers", "load_timeout"], load_timeout);
    reader.put(&mut root, "OLLAMA_MAX_LOADED_MODELS", &["workers", "max_loaded"], whole);
    reader.put(&mut root, "OLLAMA_MAX_QUEUE", &["queue", "depth"], whole);
    reader.put(&mut root, "OLLAMA_ORIGINS", &["origins"], origin_list);
    reader.put(&mut root, "OLLAMA_DEBUG", &["log", "level"], level);
    reader.put(&mut model, "OLLAMA_NUM_PARALLEL", &["parallel"], at_least_one);
    reader.put(&mut model, "OLLAMA_CONTEXT_LENGTH", &["context"], whole);
    if reader.value("OLLAMA_MODELS").is_some() {
        let notice = "OLLAMA_MODELS has no effect: models are files named in the config file, there is no model store yet";
        reader.notices.push(notice.to_owned());
    }
    Ollama { root, model, notices: reader.notices }
}

struct Reader<'a> {
    env: &'a BTreeMap<String, String>,
    notices: Vec<String>,
}

impl<'a> Reader<'a> {
    /// The variable's text without blanks and quotes around it; `None` if nothing is left.
    fn value(&self, name: &str) -> Option<&'a str> {
        let value = self.env.get(name)?.trim().trim_matches(['"', '\'']).trim();
        (!value.is_empty()).then_some(value)
    }

    fn put(
        &mut self,
        tree: &mut Node,
        name: &str,
        path: &[&str],
        read: fn(&str) -> Result<Data, &'static str>,
    ) {
        let Some(value) = self.value(name) else { return };
        match read(value) {
            Ok(data) => {
                let value = Node::new(Place::Variable(name.into()), data);
                tree.overlay(path.iter().rev().fold(value, |value, key| value.under(key)));
            }
            Err(expected) => {
                self.notices.push(format!("{name} is ignored: expected {expected}, found {value:?}"))
            }
        }
    }
}

fn text(value: impl Into<String>) -> Data {
    Node::text(Place::Builtin, value).data
}

/// `host`, `:port`, `host:port`, `[v6]:port`, `scheme://host[:port][/path]`; a port that is none becomes the default.
fn host(value: &str) -> Result<Data, &'static str> {
    let (default_port, rest) = match value.split_once("://") {
        None => (11434, value),
        Some(("http", rest)) => (80, rest),
        Some(("https", rest)) => (443, rest),
        Some((_, rest)) => (11434, rest),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let bare = authority.trim_start_matches('[').trim_end_matches(']');
    let (host, port) = match authority.rsplit_once(':') {
        _ if bare.parse::<IpAddr>().is_ok() => (bare, default_port),
        _ if authority.is_empty() => ("127.0.0.1", default_port),
        Some((host, port)) => (host, port.parse::<u16>().unwrap_or(default_port)),
        None => (authority, default_port),
    };
    let address = if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    };
    address::parse(&address).map(|address| text(address.to_string())).ok_or("an address")
}

fn keep_alive(value: &str) -> Result<Data, &'static str> {
    let data = yaml::plain(value);
    let node = Node::new(Place::Builtin, data.clone());
    match KeepAlive::deserialize(&node) {
        Ok(_) => Ok(data),
        _ => Err("a duration or a number of seconds"),
    }
}

/// Seconds or a duration; what is not more than 0 means: never give up.
fn load_timeout(value: &str) -> Result<Data, &'static str> {
    if value.starts_with('-') {
        return Ok(Data::Integer(0));
    }
    let text_with_unit =
        if value.bytes().all(|b| b.is_ascii_digit()) { format!("{value}s") } else { value.to_owned() };
    match crate::units::duration::parse(&text_with_unit) {
        Some(_) => Ok(text(text_with_unit)),
        None => Err("a duration or a number of seconds"),
    }
}

fn whole(value: &str) -> Result<Data, &'static str> {
    match value.parse::<u32>() {
        Ok(number) => Ok(Data::Integer(number.into())),
        Err(_) => Err("a whole number from 0"),
    }
}

fn at_least_one(value: &str) -> Result<Data, &'static str> {
    match value.parse::<u32>() {
        Ok(number @ 1..) => Ok(Data::Integer(number.into())),
        _ => Err("a whole number from 1"),
    }
}

fn origin_list(value: &str) -> Result<Data, &'static str> {
    Ok(origins::split(value, &Place::Variable("OLLAMA_ORIGINS".into())))
}

/// Go's booleans; a number of 2 or more is Ollama's trace.
fn level(value: &str) -> Result<Data, &'static str> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(text("debug")),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Data::Null),
        number if number.parse::<u32>().is_ok() => Ok(text("trace")),
        _ => Err("0, 1 or 2"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_as_ollama_reads_them() {
        for (value, address) in [
            ("127.0.0.1", "127.0.0.1:11434"),
            ("0.0.0.0:8080", "0.0.0.0:8080"),
            (":8080", "0.0.0.0:8080"),
            ("localhost", "127.0.0.1:11434"),
            ("http://0.0.0.0", "0.0.0.0:80"),
            ("https://127.0.0.1/path", "127.0.0.1:443"),
            ("http://127.0.0.1:7000/path", "127.0.0.1:7000"),
            ("[::1]", "[::1]:11434"),
            ("::1", "[::1]:11434"),
            ("[::1]:99", "[::1]:99"),
            ("127.0.0.1:x", "127.0.0.1:11434"),
            ("127.0.0.1:65536", "127.0.0.1:11434"),
        ] {
            assert_eq!(host(value), Ok(text(address)), "{value}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_ignored_with_a_notice() {
        let env = [("OLLAMA_NUM_PARALLEL", "many"), ("OLLAMA_MAX_QUEUE", " '7' "), ("OLLAMA_DEBUG", "")];
        let ollama = read(&env.map(|(k, v)| (k.to_owned(), v.to_owned())).into());
        assert_eq!(
            ollama.notices,
            ["OLLAMA_NUM_PARALLEL is ignored: expected a whole number from 1, found \"many\""]
        );
        assert!(ollama.model.entries().is_empty());
        assert_eq!(
            ollama.root.get("queue").and_then(|q| q.get("depth")).map(|d| &d.data),
            Some(&Data::Integer(7))
        );
    }

    #[test]
    fn a_load_timeout_that_is_not_positive_means_never() {
        assert_eq!(load_timeout("-1"), Ok(Data::Integer(0)));
        assert_eq!(load_timeout("90"), Ok(text("90s")));
        assert_eq!(load_timeout("2m"), Ok(text("2m")));
        assert!(load_timeout("soon").is_err());
    }
}
